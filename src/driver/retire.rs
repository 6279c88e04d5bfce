//! Taking the previous version out, some time after a promotion.

use super::Error;
use super::effects::{self, Effect};
use super::site::Site;
use crate::engine::event::{ArmSlots, Event, Fact};
use crate::engine::input::Input;
use crate::engine::rollout::{Phase, Rollout};
use crate::ports::{Hook, HookSubject, Standing};
use crate::units::{Millis, RegionName, RolloutId, Seq, Timestamp, Weight};

/// Longest time until every instance has been read.
const READ_MAX: Millis = Millis::from_secs(10);
/// Pause between two tries within it.
const READ_PAUSE: Millis = Millis(200);

/// What was promoted last, and when its previous version may go.
#[derive(Debug)]
pub struct Retirable {
    /// The rollout.
    pub id: RolloutId,
    /// Not before.
    pub due: Timestamp,
    state: Rollout,
    seq: Seq,
}

/// The rollout whose previous version is still kept.
///
/// # Errors
/// Another rollout is under way, which needs that slot; nothing was promoted, or it is retired; there is no such hook.
pub async fn retirable(site: &Site) -> Result<Retirable, Error> {
    let nothing = || Error::NothingToRetire(site.service.clone());
    let (service, seq) = site
        .journal
        .service(&site.service)
        .await?
        .ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    if let Some(open) = service.open {
        return Err(Error::Open(open));
    }
    let id = service.promoted.ok_or_else(nothing)?;
    let (state, _) = site.journal.rollout(&id).await?.ok_or_else(nothing)?;
    if state.phase != Phase::Promoted || !state.plan.hooks.contains(&Hook::Retire) {
        return Err(nothing());
    }
    let since = state.ended_at.unwrap_or(state.phase_since);
    let due = since.plus(state.plan.policy.keep_previous);
    Ok(Retirable { id, due, state, seq })
}

/// Runs the hook in every region in which it is not done, once the slot is read back without traffic.
///
/// # Errors
/// It is too early and not `now_already`; a slot has traffic; the hook failed somewhere. What was done stays done.
pub async fn retire(site: &Site, what: Retirable, now_already: bool) -> Result<(), Error> {
    let now = site.clock.now();
    if now < what.due && !now_already {
        return Err(Error::Kept(what.due.since(now)));
    }
    let mut retiring = Retiring { site, state: what.state, seq: what.seq };
    let regions: Vec<RegionName> = retiring.state.regions.keys().cloned().collect();
    for region in &regions {
        retiring.without_traffic(region).await?;
    }
    for region in regions {
        if retiring.state.plan.runs(Hook::Retire, &region) {
            retiring.region(region).await?;
        }
    }
    retiring.record(Event::Retired).await
}

struct Retiring<'a> {
    site: &'a Site,
    state: Rollout,
    seq: Seq,
}

impl Retiring<'_> {
    fn slots(&self, region: &RegionName) -> Result<&ArmSlots, Error> {
        let unknown = || Error::StillUsed(region.clone(), "its slots are not known".to_owned());
        self.state.slots.get(region).ok_or_else(unknown)
    }

    /// The new version's slot has all of the traffic, on every instance. Those that fetch their routes here may first have
    /// to come back.
    async fn without_traffic(&self, region: &RegionName) -> Result<(), Error> {
        let until = self.site.clock.now().plus(READ_MAX);
        loop {
            let read = self.read(region).await;
            if read.is_ok() || self.site.clock.now() >= until {
                return read;
            }
            self.site.clock.sleep_until(self.site.clock.now().plus(READ_PAUSE)).await;
        }
    }

    async fn read(&self, region: &RegionName) -> Result<(), Error> {
        let slots = self.slots(region)?;
        let known = self.site.regions.get(region).ok_or_else(|| {
            Error::StillUsed(region.clone(), "the fleet has no load balancer there".to_owned())
        })?;
        let read =
            effects::perform(&known.balancers, slots, Effect::Read, self.state.generation).await;
        let why = match read {
            Input::Read(reading) if reading.settled && reading.reach == Weight::FULL.into() => {
                return Ok(());
            }
            Input::Read(reading) => reading
                .note
                .unwrap_or_else(|| format!("{} read", reading.reach.weight.complement())),
            Input::EffectUnknown { what, .. } => what,
            _ => String::new(),
        };
        Err(Error::StillUsed(region.clone(), why))
    }

    async fn region(&mut self, region: RegionName) -> Result<(), Error> {
        let before = self.state.regions.get(&region).and_then(|it| it.hooks.get(&Hook::Retire));
        if before.is_some_and(|before| before.standing == Standing::Done) {
            return Ok(());
        }
        let (again, hook, generation) = (before.is_some(), Hook::Retire, self.state.generation);
        let subject = HookSubject {
            service: self.site.service.clone(),
            region: region.clone(),
            slot: self.slots(&region)?.stable.clone(),
            version: self.state.stable_version.clone(),
            key: format!("{}/{generation}/{region}/{hook}", self.state.id),
        };
        self.record(Event::HookStarted { region: region.clone(), hook, generation }).await?;
        let standing = self.site.hooks.run(hook, &subject, again).await;
        let ended = standing.clone();
        let told = region.clone();
        self.record(Event::HookEnded { region: told, hook, generation, standing }).await?;
        match ended {
            Standing::Failed(what) | Standing::Unknown(what) => {
                Err(Error::NotRetired(region, what))
            }
            Standing::Done | Standing::Started => Ok(()),
        }
    }

    async fn record(&mut self, event: Event) -> Result<(), Error> {
        let (at, service) = (self.site.clock.now(), self.site.service.clone());
        let rollout = Some(self.state.id.clone());
        let fact = Fact { at, service, rollout, event };
        let journal = &self.site.journal;
        self.seq =
            journal.append(&self.site.service, self.seq, std::slice::from_ref(&fact), None).await?;
        self.state.apply(&fact.event, at);
        Ok(())
    }
}
