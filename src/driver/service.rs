//! Taking a service over as it stands, and starting its rollouts.

use std::collections::BTreeMap;

use super::Error;
use super::effects::{self, Effect};
use super::site::Site;
use crate::engine::event::{Actor, Adopted, AdoptedRegion, ArmSlots, Event, Fact, Started};
use crate::engine::input::Input;
use crate::engine::service::ServiceState;
use crate::spec::plan::Plan;
use crate::units::{Generation, RegionName, RolloutId, Seq, Version, Weight};

/// Reads every region and records slot, version and weights. Writes nothing to a load balancer.
///
/// # Errors
/// A region cannot be read, or has a split in progress and `as_is` is not given; a rollout is under way.
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
    let mut regions = BTreeMap::new();
    for (name, region) in &site.regions {
        let input = effects::perform(&region.balancers, &slots, Effect::Read, Generation(0)).await;
        regions.insert(name.clone(), adopted_region(name, &slots, input, as_is)?);
    }
    let adopted = Adopted { version, regions, by };
    let seq = known.map_or(Seq(0), |(_, seq)| seq);
    let fact = Fact {
        at: site.clock.now(),
        service: site.service.clone(),
        rollout: None,
        event: Event::Adopted(adopted.clone()),
    };
    site.journal.append(&site.service, seq, &[fact], None).await?;
    Ok(adopted)
}

fn adopted_region(
    name: &RegionName,
    slots: &ArmSlots,
    input: Input,
    as_is: bool,
) -> Result<AdoptedRegion, Error> {
    let reading = match input {
        Input::Read(reading) => reading,
        Input::EffectUnknown { what, .. } => return Err(Error::NotRead(what)),
        _ => return Err(Error::NotRead(format!("{name}: no reading"))),
    };
    if !reading.settled {
        return Err(Error::NotSettled(name.clone(), reading.note.unwrap_or_default()));
    }
    let (first, second) = (slots.stable.clone(), slots.canary.clone());
    let of_second = reading.weight;
    if of_second != Weight::ZERO && of_second != Weight::FULL && !as_is {
        let found = format!("{first} {}, {second} {of_second}", of_second.complement());
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
    let mut slots = BTreeMap::new();
    for region in plan.regions.keys() {
        let known = service.regions.get(region).ok_or_else(|| Error::RegionNotAdopted {
            service: service.name.clone(),
            region: region.clone(),
        })?;
        let arms = ArmSlots { canary: known.idle.clone(), stable: known.stable.clone() };
        slots.insert(region.clone(), arms);
    }
    let generation = service.generation.next();
    Ok(Started { version, stable_version, generation, plan, slots, by })
}
