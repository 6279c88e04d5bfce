//! Taking a service over as it stands, and starting its rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::Error;
use super::effects::{self, RegionBalancers};
use super::site::Site;
use crate::engine::event::{Actor, Adopted, AdoptedRegion, ArmSlots, Event, Fact, Queued, Started};
use crate::engine::rollout::Phase;
use crate::engine::service::ServiceState;
use crate::ports::{Clock, Hook, Journal, Reading};
use crate::spec::build::digest;
use crate::spec::plan::{OnNewVersion, Plan, Stage, Step};
use crate::units::{
    Generation, Millis, RegionName, RolloutId, Seq, ServiceName, SlotName, StageName, Version,
    Weight,
};

/// Longest time that balancers which have their weights from Tidegate may take to begin with them.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// Pause between two tries within it.
const BEGIN_PAUSE: Duration = Duration::from_millis(100);

/// Surveys every region and records slot, version and weights, exactly as found. No weight is changed: balancers that
/// run by themselves are only read; those that Tidegate serves begin with what was found, once that is recorded.
///
/// # Errors
/// A region cannot be read, is not settled, or has a split in progress and `as_is` is not given; a cohort's stable slot is
/// not its region's; a rollout is under way; a balancer does not take what it is served (it stays recorded, and is served by the next run).
pub async fn adopt(
    site: &Site,
    version: Version,
    as_is: bool,
    by: Actor,
) -> Result<Adopted, Error> {
    let known = site.journal.service(&site.service).await?;
    if let Some(open) = known.as_ref().and_then(|(service, _)| service.open.clone()) {
        return Err(Error::Open(open));
    }
    let slots = site.unassigned().ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    let surveys = site.regions.iter().map(async |(name, region)| {
        let readings = survey(&region.balancers).await?;
        let adopted = adopted_region(name, &slots, &readings, as_is)?;
        Ok::<_, Error>((name.clone(), adopted, readings))
    });
    let found = try_join_all(surveys).await?;
    let stable = found.iter().map(|(name, adopted, _)| (name, &adopted.stable)).collect();
    together_with_cohorts(&stable, |name| site.fleet.cohort_of(name))?;
    let (before, seq) =
        known.map_or((Generation::default(), Seq(0)), |(state, seq)| (state.generation, seq));
    let readings = found.iter().flat_map(|(_, _, readings)| readings);
    let newest = readings.filter_map(|reading| reading.generation).max();
    let generation = newest.filter(|newest| *newest > before).map(Generation::next);
    let regions = found.iter().map(|(name, adopted, _)| (name.clone(), adopted.clone())).collect();
    let adopted = Adopted { version, regions, generation, by };
    let fact = Fact {
        at: site.clock.now(),
        service: site.service.clone(),
        rollout: None,
        event: Event::Adopted(adopted.clone()),
    };
    site.journal.append(&site.service, seq, &[fact], None).await?;
    let generation = generation.unwrap_or(before);
    let begun = found.iter().filter_map(|(name, _, readings)| {
        Some(begin(&site.regions.get(name)?.balancers, readings, generation))
    });
    try_join_all(begun).await?;
    Ok(adopted)
}

/// A cohort's stable slot is its region's: both are moved to the other one, and what is deployed there is deployed once.
fn together_with_cohorts<'a>(
    stable: &BTreeMap<&'a RegionName, &'a SlotName>,
    cohort_of: impl Fn(&RegionName) -> Option<&'a RegionName>,
) -> Result<(), Error> {
    for (&cohort, &found) in stable {
        let Some(region) = cohort_of(cohort) else { continue };
        let Some(wanted) = stable.get(region).filter(|wanted| **wanted != found) else { continue };
        let (cohort, region) = (cohort.clone(), region.clone());
        let (found, wanted) = (found.clone(), (*wanted).clone());
        return Err(Error::CohortApart { cohort, region, found, wanted });
    }
    Ok(())
}

/// Surveys all targets of a region at once.
async fn survey(balancers: &RegionBalancers) -> Result<Vec<Reading>, Error> {
    let each = balancers.targets.iter().map(|target| target.survey());
    let all = tokio::time::timeout(effects::CALL_MAX, try_join_all(each)).await;
    let late = || Error::NotRead(format!("{}: no answer in time", balancers.region));
    all.map_err(|_| late())?.map_err(|error| Error::NotRead(error.to_string()))
}

/// Lets all targets of a region begin with what was found there, and waits until they do.
async fn begin(
    balancers: &RegionBalancers,
    found: &[Reading],
    generation: Generation,
) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + BEGIN_MAX;
    let each = balancers.targets.iter().zip(found).map(async |(target, found)| {
        loop {
            let why = match target.begin(&found.split, generation).await {
                Ok(None) => return Ok(()),
                Ok(Some(reading)) if reading.settled => return Ok(()),
                Ok(Some(reading)) => reading.note.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            if tokio::time::Instant::now() + BEGIN_PAUSE >= deadline {
                return Err(Error::NotBegun(balancers.region.clone(), why));
            }
            tokio::time::sleep(BEGIN_PAUSE).await;
        }
    });
    try_join_all(each).await.map(|_| ())
}

fn adopted_region(
    name: &RegionName,
    slots: &ArmSlots,
    readings: &[Reading],
    as_is: bool,
) -> Result<AdoptedRegion, Error> {
    let reading = effects::together(name.clone(), slots, Generation::default(), readings);
    if !reading.settled {
        return Err(Error::NotSettled(name.clone(), reading.note.unwrap_or_default()));
    }
    let (first, second) = (slots.stable.clone(), slots.canary.clone());
    let of_second = reading.reach.weight;
    let is_copied = !reading.reach.mirror.is_zero();
    let is_split = of_second != Weight::ZERO && of_second != Weight::FULL;
    if is_copied || (is_split && !as_is) {
        let found = format!("{first} {}, {second} {}", of_second.complement(), reading.reach);
        return Err(Error::SplitInProgress { region: name.clone(), found });
    }
    let second_leads = of_second > of_second.complement();
    let (stable, idle) = if second_leads { (second, first) } else { (first, second) };
    let idle_weight = of_second.min(of_second.complement());
    Ok(AdoptedRegion { stable, idle, idle_weight })
}

/// Records a new rollout. Nothing is written to a load balancer yet.
///
/// # Errors
/// The service is not adopted, has a rollout under way, runs this version already, or lacks a region of the plan.
pub async fn start(
    site: &Site,
    plan: Plan,
    version: Version,
    by: Actor,
) -> Result<RolloutId, Error> {
    let (service, seq) = site
        .journal
        .service(&site.service)
        .await?
        .ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    let started = started(&service, plan, version, by)?;
    site.journal.has_room().await?;
    let id = RolloutId { service: site.service.clone(), number: service.rollouts + 1 };
    let fact = Fact {
        at: site.clock.now(),
        service: site.service.clone(),
        rollout: Some(id.clone()),
        event: Event::Started(Box::new(started)),
    };
    site.journal.append(&site.service, seq, &[fact], None).await?;
    Ok(id)
}

/// The way back from the last promotion, without stages: its plan, and the version that was stable before.
///
/// # Errors
/// Nothing was promoted, the previous version is retired or replaced, or its time is over.
pub async fn undoing(site: &Site) -> Result<(Plan, Version), Error> {
    let nothing = |why: &str| Error::NothingToUndo(site.service.clone(), why.to_owned());
    let known = site.journal.service(&site.service).await?;
    let (service, _) = known.ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    if let Some(open) = service.open {
        return Err(Error::Open(open));
    }
    let id = service.promoted.ok_or_else(|| nothing("nothing was promoted"))?;
    let promoted = site.journal.rollout(&id).await?;
    let (promoted, _) = promoted.ok_or_else(|| Error::NoSuchRollout(id.clone()))?;
    if promoted.phase != Phase::Promoted {
        return Err(nothing("the previous version is retired"));
    }
    let since = promoted.ended_at.unwrap_or(promoted.phase_since);
    if site.clock.now() >= since.plus(promoted.plan.policy.keep_previous) {
        return Err(nothing("the previous version is no longer kept"));
    }
    let version = promoted.stable_version;
    let is_there = |region: &RegionName| {
        let slots = service.regions.get(region);
        slots.is_some_and(|slots| slots.versions.get(&slots.idle).is_none_or(|it| *it == version))
    };
    if !promoted.plan.regions.keys().all(is_there) {
        return Err(nothing("something else was put into its slot"));
    }
    Ok((undo_plan(promoted.plan), version))
}

/// What was rolled back last, to be tried once more: its plan, and its version. The evidence begins anew.
///
/// # Errors
/// The newest rollout was not rolled back.
pub async fn retrying(site: &Site) -> Result<(Plan, Version), Error> {
    let known = site.journal.service(&site.service).await?;
    let (service, _) = known.ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    if let Some(open) = service.open {
        return Err(Error::Open(open));
    }
    let id = RolloutId { service: site.service.clone(), number: service.rollouts };
    let newest = site.journal.rollout(&id).await?.map(|(rollout, _)| rollout);
    let back = newest.filter(|rollout| rollout.phase == Phase::RolledBack);
    let back = back.ok_or_else(|| Error::NothingToRetry(site.service.clone()))?;
    Ok((back.plan, back.version))
}

/// Records what concerns a service while none of its rollouts is under way.
///
/// # Errors
/// The service is not adopted, a rollout is under way after all, or it cannot be recorded.
pub async fn record(site: &Site, events: Vec<Event>) -> Result<(), Error> {
    let known = site.journal.service(&site.service).await?;
    let (service, seq) = known.ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    if let Some(open) = service.open {
        return Err(Error::Open(open));
    }
    let (at, service) = (site.clock.now(), &site.service);
    let fact = |event| Fact { at, service: service.clone(), rollout: None, event };
    let facts: Vec<_> = events.into_iter().map(fact).collect();
    site.journal.append(service, seq, &facts, None).await?;
    Ok(())
}

/// Everything at once, judged by nobody: that version ran a moment ago.
fn undo_plan(mut plan: Plan) -> Plan {
    let regions: Vec<RegionName> = plan.regions.keys().cloned().collect();
    let weights = regions.iter().map(|name| (name.clone(), Weight::FULL)).collect();
    let first = plan.stages.swap_remove(0);
    plan.stages = vec![Stage {
        name: StageName::new("undo").unwrap_or(first.name),
        regions,
        weight: Weight::FULL,
        criteria: Vec::new(),
        mirror: Weight::ZERO,
        steps: vec![Step { weights, mirrors: BTreeMap::new(), bake: Millis::ZERO }],
        duration: Millis::ZERO,
        max_duration: Millis::ZERO,
        gate: None,
        approvals: None,
        ..first
    }];
    (plan.triggers, plan.analyses) = (Vec::new(), BTreeMap::new());
    plan.hooks.retain(|hook| matches!(hook, Hook::Persist | Hook::Promote));
    plan.policy.holdback = Weight::ZERO;
    plan.policy.on_new_version = OnNewVersion::Reject;
    plan.digest = digest(&plan);
    plan
}

/// Begins what waits for the end of another rollout; none where nothing waits, or it cannot begin, which is recorded.
///
/// # Errors
/// The journal fails.
pub async fn start_queued(site: &Site) -> Result<Option<RolloutId>, Error> {
    let Some((service, _)) = site.journal.service(&site.service).await? else { return Ok(None) };
    let Some(next) = service.queued.filter(|_| service.open.is_none()) else { return Ok(None) };
    let Queued { version, plan, by } = *next;
    match start(site, plan, version, by).await {
        Ok(id) => Ok(Some(id)),
        Err(error @ Error::Journal(_)) => Err(error),
        Err(error) => {
            record(site, vec![Event::Unqueued { reason: error.to_string() }]).await?;
            Ok(None)
        }
    }
}

fn started(
    service: &ServiceState,
    plan: Plan,
    version: Version,
    by: Actor,
) -> Result<Started, Error> {
    let stable_version =
        service.stable.clone().ok_or_else(|| Error::NotAdopted(service.name.clone()))?;
    if let Some(open) = &service.open {
        return Err(Error::Open(open.clone()));
    }
    if stable_version == version {
        return Err(Error::AlreadyStable(version));
    }
    if let Some(frozen) = &service.frozen {
        let (by, reason) = (frozen.by.clone(), frozen.reason.clone());
        return Err(Error::Frozen { service: service.name.clone(), by, reason });
    }
    let mut slots = BTreeMap::new();
    for region in plan.regions.keys() {
        let known = service.regions.get(region).ok_or_else(|| Error::RegionNotAdopted {
            service: service.name.clone(),
            region: region.clone(),
        })?;
        let arms = ArmSlots { canary: known.idle.clone(), stable: known.stable.clone() };
        slots.insert(region.clone(), arms);
    }
    let stable = slots.iter().map(|(name, arms)| (name, &arms.stable)).collect();
    together_with_cohorts(&stable, |name| plan.regions.get(name)?.cohort_of.as_ref())?;
    let generation = service.generation.next();
    Ok(Started { version, stable_version, generation, plan, slots, by })
}

/// Takes the rollout of a service out of quarantine while nothing drives it. The next `run --resume` goes on.
///
/// # Errors
/// It is not in quarantine, or that cannot be recorded.
pub async fn release(
    journal: &dyn Journal,
    clock: &dyn Clock,
    service: &ServiceName,
    by: Actor,
) -> Result<RolloutId, Error> {
    let known = journal.service(service).await?;
    let (state, seq) = known.ok_or_else(|| Error::NotAdopted(service.clone()))?;
    let Some(id) = state.open else { return Err(Error::NotQuarantined(service.clone())) };
    let rollout = journal.rollout(&id).await?;
    if rollout.is_none_or(|(rollout, _)| rollout.quarantined.is_none()) {
        return Err(Error::NotQuarantined(service.clone()));
    }
    let (at, event) = (clock.now(), Event::Released { by });
    let fact = Fact { at, service: service.clone(), rollout: Some(id.clone()), event };
    journal.append(service, seq, &[fact], None).await?;
    Ok(id)
}
