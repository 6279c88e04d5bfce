//! A rollout whose task panics again and again: it stays where it is until a person takes it back or lets it go on.
//!
//! Nothing here asks `decide`, which may be what panics.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::info;

use super::Error;
use super::channels::{Asked, Channels};
use super::effects::{self, Effect};
use super::recorder::{Recorded, Recorder};
use super::site::Site;
use super::view::View;
use crate::engine::decide::Answer;
use crate::engine::event::{Cause, Emergency, Event};
use crate::engine::input::{Command, Input, RegionReading};
use crate::engine::rollout::{Phase, Rollout};
use crate::spec::plan::Authority;
use crate::units::{Generation, Millis, Reach, RegionName};

/// Pause between two rounds over the load balancers while it goes back.
const ROUND: Millis = Millis(500);

/// A rollout in quarantine.
pub(super) struct Quarantine {
    site: Arc<Site>,
    state: Rollout,
    recorder: Recorder,
    channels: Channels,
}

/// How it ended.
pub(super) enum End {
    /// A person let it go on.
    Released,
    /// It was taken back.
    Over(Box<Rollout>),
}

impl Quarantine {
    pub(super) fn new(
        site: Arc<Site>,
        state: Rollout,
        recorder: Recorder,
        channels: Channels,
    ) -> Self {
        Self { site, state, recorder, channels }
    }

    /// Puts it there, unless it is.
    pub(super) async fn enter(&mut self, panics: u32) -> Result<(), Error> {
        match self.state.quarantined {
            Some(_) => self.publish(),
            None => self.record(Event::Quarantined { panics }).await?,
        }
        Ok(())
    }

    /// Waits for a person, and goes back when asked or when it was going back already.
    pub(super) async fn hold(mut self) -> Result<End, Error> {
        let commands = Arc::clone(&self.channels.commands);
        let mut commands = commands.lock().await;
        loop {
            if self.state.phase.is_over() {
                self.recorder.finish().await?;
                return Ok(End::Over(Box::new(self.state)));
            }
            let goes_back = self.state.phase == Phase::RollingBack;
            if goes_back {
                self.round().await?;
            }
            let clock = Arc::clone(&self.site.clock);
            let next = clock.now().plus(ROUND);
            tokio::select! {
                Some(asked) = commands.recv() => {
                    if self.answer(asked).await? {
                        return Ok(End::Released);
                    }
                }
                () = clock.sleep_until(next), if goes_back => {}
            }
        }
    }

    /// True when it was released.
    async fn answer(&mut self, asked: Asked) -> Result<bool, Error> {
        info!(by = asked.by.name, command = ?asked.command, "asked in quarantine");
        let answer = match (&asked.command, self.state.phase) {
            (Command::Rollback { .. } | Command::AskRollback { .. }, Phase::RollingBack) => {
                Answer::NothingToDo("it is rolling back already".to_owned())
            }
            // Nothing judges it any more: whoever may ask for the way back gets it.
            (Command::Rollback { reason } | Command::AskRollback { reason, .. }, _) => {
                let cause = Cause::Asked { by: asked.by.clone(), reason: reason.clone() };
                self.back(cause, self.state.found).await?;
                Answer::Accepted
            }
            (Command::BreakGlass { region, action, reason }, _) => {
                let (by, region) = (asked.by.clone(), region.clone());
                let (action, reason) = (*action, reason.clone());
                let goes_back =
                    action == Emergency::Rollback && self.state.phase != Phase::RollingBack;
                let cause = Cause::Asked { by: by.clone(), reason: reason.clone() };
                self.record(Event::GlassBroken { by, region, action, reason }).await?;
                if goes_back {
                    self.back(cause, self.state.found).await?;
                }
                Answer::Accepted
            }
            (Command::Release, _) => {
                self.record(Event::Released { by: asked.by.clone() }).await?;
                Answer::Accepted
            }
            _ => Answer::Refused(
                "it is in quarantine: release lets it go on, rollback takes it back".to_owned(),
            ),
        };
        asked.tell(answer);
        Ok(self.state.quarantined.is_none())
    }

    async fn back(&mut self, cause: Cause, found: Generation) -> Result<(), Error> {
        let generation = self.state.generation.max(found).next();
        self.record(Event::RollbackStarted { cause, generation, judgement: None }).await
    }

    /// Sets every region that is not confirmed to 0, all at once, and records what was read back.
    async fn round(&mut self) -> Result<(), Error> {
        let effect = match self.state.plan.authority {
            Authority::Observe => Effect::Read,
            Authority::RollbackOnly | Authority::Full => Effect::Set(Reach::NONE),
        };
        let generation = self.state.generation;
        let open = |(name, state): (&RegionName, &crate::engine::rollout::RegionState)| {
            (state.confirmed != Some(generation)).then(|| name.clone())
        };
        let open: Vec<_> = self.state.regions.iter().filter_map(open).collect();
        let calls = open.iter().filter_map(|name| {
            let (site, slots) = (self.site.regions.get(name)?, self.state.slots.get(name)?);
            Some(effects::perform(&site.balancers, slots, effect, generation))
        });
        for input in join_all(calls).await {
            match input {
                Input::Read(reading) => self.take(&reading).await?,
                Input::EffectUnknown { region, generation, what } => {
                    self.unknown(region, generation, what).await?;
                }
                _ => {}
            }
        }
        if self.state.all_confirmed() {
            self.record(Event::RolledBack).await?;
        }
        Ok(())
    }

    async fn take(&mut self, reading: &RegionReading) -> Result<(), Error> {
        if reading.asked_at != self.state.generation {
            return Ok(());
        }
        let newer = reading.generation.filter(|found| *found > self.state.generation);
        if let (Some(found), Some(cause)) = (newer, self.state.cause.clone()) {
            return self.back(cause, found).await;
        }
        let is_back = reading.settled && reading.reach.is_none();
        let event = Event::RegionRead {
            region: reading.region.clone(),
            weight: reading.reach.weight,
            mirror: reading.reach.mirror,
            confirmed: is_back.then_some(self.state.generation),
            stored: reading.generation,
            restart_marker: reading.restart_marker.clone(),
            note: reading.note.clone(),
        };
        let known = self.state.regions.get(&reading.region).is_some_and(|state| {
            !is_back && state.seen() == Some(reading.reach) && state.note == reading.note
        });
        if known { Ok(()) } else { self.record(event).await }
    }

    async fn unknown(
        &mut self,
        region: RegionName,
        generation: Generation,
        what: String,
    ) -> Result<(), Error> {
        let known = self.state.regions.get(&region).is_none_or(|state| state.observed.is_none());
        if known {
            return Ok(());
        }
        self.record(Event::EffectUnknown { region, generation, what }).await
    }

    async fn record(&mut self, event: Event) -> Result<(), Error> {
        let now = self.site.clock.now();
        let events = std::slice::from_ref(&event);
        if let Recorded::Held(what) = self.recorder.record(&self.state, events, None, now).await? {
            return Err(Error::NotRecorded(what));
        }
        self.state.apply(&event, now);
        self.recorder.tell(&self.channels, &self.state, &event, now).await;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let now = self.site.clock.now();
        let view = View::of(&self.state, now, self.recorder.seq(), None);
        self.channels.views.send_replace(Arc::new(view));
    }
}
