//! The loop of one rollout: observe, judge, decide, record, act. One task, one writer.
//!
//! Nothing here has an opinion. Every input goes through `decide`; its facts are on disk before they are taken in;
//! what has still to be done is derived from the state at every turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::channels::{Asked, Channels};
use super::effects::{self, Effect};
use super::measure::{Measured, Measuring};
use super::recorder::{Recorded, Recorder};
use super::site::Site;
use super::view::{Calls, View};
use super::{Error, STATISTICS};
use crate::engine::decide::{Answer, decide};
use crate::engine::event::{Actor, Event};
use crate::engine::hooks::{HookCall, Standing, outstanding_hooks};
use crate::engine::input::{Command, Input, Polled};
use crate::engine::invariants;
use crate::engine::judge::Judge;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::reason::Reason;
use crate::engine::rollout::Rollout;
use crate::faults;
use crate::ports::{Checkpoint, HookSubject};
use crate::units::{Generation, Millis, Reach, RegionName, RolloutId, Seq, Timestamp};

/// How often load balancers are read and due work is looked for, at most.
const TICK_MAX: Millis = Millis(1_000);

/// Early repetitions of one look.
const LOOKS_EARLY_MAX: u32 = 3;

/// Waiting time after failed effects: doubling, at most this.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A rollout as it was recorded last.
pub(super) struct Loaded {
    pub(super) state: Rollout,
    pub(super) seq: Seq,
    checkpoint: Option<Checkpoint>,
}

/// Loads a rollout.
pub(super) async fn load(site: &Site, id: &RolloutId) -> Result<Loaded, Error> {
    let journal = &site.journal;
    let (state, checkpoint) =
        journal.rollout(id).await?.ok_or_else(|| Error::NoSuchRollout(id.clone()))?;
    let known = journal.service(&site.service).await?;
    let (_, seq) = known.ok_or_else(|| Error::NotAdopted(site.service.clone()))?;
    Ok(Loaded { state, seq, checkpoint })
}

/// A rollout being driven.
pub(super) struct Task {
    site: Arc<Site>,
    state: Rollout,
    recorder: Recorder,
    channels: Channels,
    /// Its evidence was gathered by other statistics.
    incompatible: bool,
    judge: Judge,
    measuring: Measuring,
    judgement: Option<crate::engine::verdict::Judgement>,
    busy: BTreeMap<RegionName, Option<Generation>>,
    calls: BTreeMap<RegionName, Calls>,
    retries: BTreeMap<RegionName, Retry>,
    read_at: BTreeMap<RegionName, Timestamp>,
    hooks_busy: BTreeSet<HookCall>,
    looking: bool,
    look_due: Timestamp,
    /// Looks in a row that were repeated early.
    looks_early: u32,
    finished: mpsc::UnboundedReceiver<Finished>,
    finish: mpsc::UnboundedSender<Finished>,
}

/// Something that ran beside the loop has ended.
enum Finished {
    Effect { region: RegionName, input: Input, took: Millis },
    Hook(HookCall, Standing),
    Look(Box<Measured>),
}

struct Retry {
    due: Timestamp,
    delays: backon::ExponentialBackoff,
}

impl Task {
    /// A loaded rollout, ready to be taken up where it stands.
    pub(super) fn new(site: Arc<Site>, loaded: Loaded, channels: Channels) -> Self {
        let Loaded { state, seq, checkpoint } = loaded;
        let (finish, finished) = mpsc::unbounded_channel();
        let incompatible = checkpoint.as_ref().is_some_and(|old| old.statistics != STATISTICS);
        let checkpoint = checkpoint.filter(|_| !incompatible);
        let judge = checkpoint
            .as_ref()
            .and_then(|old| serde_json::from_value(old.judge.clone()).ok())
            .unwrap_or_else(|| Judge::new(&state.plan));
        let measuring = checkpoint
            .as_ref()
            .and_then(|old| serde_json::from_value(old.meters.clone()).ok())
            .unwrap_or_default();
        Self {
            recorder: Recorder::new(Arc::clone(&site), state.id.clone(), seq),
            site,
            state,
            channels,
            incompatible,
            judge,
            measuring,
            judgement: None,
            busy: BTreeMap::new(),
            calls: BTreeMap::new(),
            retries: BTreeMap::new(),
            read_at: BTreeMap::new(),
            hooks_busy: BTreeSet::new(),
            looking: false,
            look_due: Timestamp(0),
            looks_early: 0,
            finished,
            finish,
        }
    }

    /// Drives it until it is over. Dropping the future keeps the weights as they are.
    pub(super) async fn run(mut self) -> Result<Rollout, Error> {
        let commands = Arc::clone(&self.channels.commands);
        let mut commands = commands.lock().await;
        self.recover().await?;
        loop {
            if self.state.phase.is_over() {
                self.publish();
                self.recorder.finish().await?;
                return Ok(self.state);
            }
            self.act();
            self.run_hooks();
            self.look();
            let wake = self.wake_at(self.site.clock.now());
            let clock = Arc::clone(&self.site.clock);
            tokio::select! {
                Some(done) = self.finished.recv() => self.take(done).await?,
                Some(asked) = commands.recv() => self.answer(asked).await?,
                () = clock.sleep_until(wake) => { self.turn(Input::Woke).await?; }
            }
        }
    }

    async fn recover(&mut self) -> Result<(), Error> {
        if self.state.phase.is_over() {
            return Ok(());
        }
        self.turn(Input::Recovered).await?;
        faults::at("recovered");
        if self.incompatible && self.state.paused.is_none() {
            let reason =
                "its evidence was gathered by other statistics; resume starts new evidence"
                    .to_owned();
            let command = Command::Pause { reason };
            self.turn(Input::Commanded { by: Actor::tidegate(), command }).await?;
        }
        Ok(())
    }

    /// Looks are on time, so that each of them finds one scrape.
    fn wake_at(&self, now: Timestamp) -> Timestamp {
        let tick = now.plus(self.tick());
        let looks_next = self.state.phase.is_live() && !self.looking;
        if looks_next { tick.min(self.look_due.max(now)) } else { tick }
    }

    fn tick(&self) -> Millis {
        Millis(self.state.poll().0.clamp(20, TICK_MAX.0) / 4)
    }

    /// One turn: decide, record, take in.
    async fn turn(&mut self, input: Input) -> Result<Answer, Error> {
        let now = self.site.clock.now();
        faults::at_of("decide", &self.state.id);
        let decision = decide(&self.state, &input, now);
        let broken = invariants::violations_of_turn(&self.state, &decision.events);
        if !broken.is_empty() {
            return Err(Error::Invariant(broken.join("; ")));
        }
        let looked = matches!(input, Input::Polled(_));
        // A window must not reach over a change of weights, also when the process dies before the next look.
        let cut = decision.events.iter().any(|event| matches!(event, Event::DriftFound { .. }));
        if cut {
            decision.events.iter().for_each(|event| self.measuring.follow(event, now));
        }
        if !decision.events.is_empty() || looked {
            let checkpoint = (looked || cut).then(|| self.checkpoint()).transpose()?;
            let recorded =
                self.recorder.record(&self.state, &decision.events, checkpoint.as_ref(), now);
            if let Recorded::Held(what) = recorded.await? {
                self.publish();
                return Ok(Answer::Refused(format!("it cannot be recorded: {what}")));
            }
        }
        for event in &decision.events {
            self.state.apply(event, now);
            self.measuring.follow(event, now);
            self.recorder.tell(&self.channels, &self.state, event, now).await;
        }
        let broken = invariants::violations(&self.state);
        if !broken.is_empty() {
            return Err(Error::Invariant(broken.join("; ")));
        }
        self.publish();
        Ok(decision.answer)
    }

    fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let written = |error: serde_json::Error| Error::Checkpoint(error.to_string());
        Ok(Checkpoint {
            rollout: self.state.id.clone(),
            statistics: STATISTICS,
            judge: serde_json::to_value(&self.judge).map_err(written)?,
            meters: serde_json::to_value(&self.measuring).map_err(written)?,
        })
    }

    fn publish(&self) {
        let now = self.site.clock.now();
        let mut view = View::of(&self.state, now, self.recorder.seq(), self.judgement.clone());
        view.calls.clone_from(&self.calls);
        if let Some(what) = self.recorder.trouble() {
            view.why.insert(0, Reason::NotRecorded { what: what.to_owned() });
        }
        self.channels.views.send_replace(Arc::new(view));
    }

    /// Starts what has still to be done, and looks at every other region now and then.
    fn act(&mut self) {
        let now = self.site.clock.now();
        let wanted = outstanding(&self.state);
        for region in self.state.regions.keys().cloned().collect::<Vec<_>>() {
            let action = wanted.iter().find(|action| *action.region() == region);
            // A call under an old generation must not keep a newer one waiting.
            let busy = self.busy.get(&region).copied().flatten();
            if busy == Some(self.state.generation) {
                continue;
            }
            let effect = match action {
                Some(Action::Set { weight, mirror, .. }) if self.is_due(&region, now) => {
                    Effect::Set(Reach { weight: *weight, mirror: *mirror })
                }
                Some(Action::Read { .. }) if self.is_due(&region, now) => Effect::Read,
                Some(_) => continue,
                None if busy.is_none() && self.read_due(&region, now) => Effect::Read,
                None => continue,
            };
            self.start(region, effect, now);
        }
    }

    fn is_due(&self, region: &RegionName, now: Timestamp) -> bool {
        self.retries.get(region).is_none_or(|retry| now >= retry.due)
    }

    fn read_due(&self, region: &RegionName, now: Timestamp) -> bool {
        let every = self.state.plan.regions.get(region).map_or(TICK_MAX, |plan| plan.poll);
        self.read_at.get(region).is_none_or(|&at| now.since(at) >= every)
    }

    fn start(&mut self, region: RegionName, effect: Effect, now: Timestamp) {
        let (Some(site), Some(slots)) =
            (self.site.regions.get(&region), self.state.slots.get(&region))
        else {
            warn!(%region, "the fleet has no load balancer here any more");
            return;
        };
        let (balancers, slots) = (site.balancers.clone(), slots.clone());
        let (generation, finish) = (self.state.generation, self.finish.clone());
        let clock = Arc::clone(&self.site.clock);
        self.busy.insert(region.clone(), Some(generation));
        self.read_at.insert(region.clone(), now);
        tokio::spawn(async move {
            effect.fault("before-call");
            let input = effects::perform(&balancers, &slots, effect, generation).await;
            effect.fault("after-call");
            // The loop may be gone; then nobody waits for this.
            let took = clock.now().since(now);
            let _ = finish.send(Finished::Effect { region, input, took });
        });
    }

    /// Starts every hook that is intended and not under way.
    fn run_hooks(&mut self) {
        for call in outstanding_hooks(&self.state) {
            let Some(slots) = self.state.slots.get(&call.region) else { continue };
            if !self.hooks_busy.insert(call.clone()) {
                continue;
            }
            let HookCall { region, hook, generation, .. } = &call;
            let subject = HookSubject {
                service: self.site.service.clone(),
                region: region.clone(),
                slot: slots.canary.clone(),
                version: self.state.version.clone(),
                key: format!("{}/{generation}/{region}/{hook}", self.state.id),
            };
            let (hooks, finish) = (Arc::clone(&self.site.hooks), self.finish.clone());
            tokio::spawn(async move {
                faults::at("before-hook");
                let standing = hooks.run(call.hook, &subject, call.is_again()).await;
                faults::at("after-hook");
                // The loop may be gone; then nobody waits for this.
                let _ = finish.send(Finished::Hook(call, standing));
            });
        }
    }

    async fn take(&mut self, done: Finished) -> Result<(), Error> {
        match done {
            Finished::Effect { region, input, took } => {
                let calls = self.calls.entry(region.clone()).or_default();
                (calls.ended, calls.took) = (calls.ended + 1, calls.took.plus(took));
                let asked_at = match &input {
                    Input::Read(reading) => Some(reading.asked_at),
                    Input::EffectUnknown { generation, .. } => Some(*generation),
                    _ => None,
                };
                if self.busy.get(&region).copied().flatten() == asked_at {
                    self.busy.insert(region.clone(), None);
                }
                self.turn(input).await?;
                self.pace(&region);
            }
            Finished::Hook(call, standing) => {
                self.hooks_busy.remove(&call);
                self.turn(Input::HookEnded { call, standing }).await?;
            }
            Finished::Look(measured) => self.judge(*measured).await?,
        }
        Ok(())
    }

    /// An effect that has not led where it should is repeated later and later.
    fn pace(&mut self, region: &RegionName) {
        let pending = outstanding(&self.state).iter().any(|action| action.region() == region);
        if !pending {
            self.retries.remove(region);
            return;
        }
        let now = self.site.clock.now();
        let retry = self.retries.entry(region.clone()).or_insert_with(|| Retry {
            due: now,
            delays: backon::ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(20))
                .with_max_delay(RETRY_MAX)
                .without_max_times()
                .with_jitter()
                .build(),
        });
        let delay = retry.delays.next().unwrap_or(RETRY_MAX);
        retry.due = now.plus(Millis(u64::try_from(delay.as_millis()).unwrap_or(5_000)));
    }

    /// Starts a look at the metrics, if one is due.
    fn look(&mut self) {
        let now = self.site.clock.now();
        if self.looking || now < self.look_due || !self.state.phase.is_live() {
            return;
        }
        self.looking = true;
        self.look_due = next_due(self.look_due, now, self.state.poll());
        let look = self.measuring.prepare(&self.state, now);
        let (site, finish, rollout) =
            (Arc::clone(&self.site), self.finish.clone(), self.state.clone());
        tokio::spawn(async move {
            let measured = look.perform(&site, &rollout, now).await;
            let _ = finish.send(Finished::Look(Box::new(measured)));
        });
    }

    /// A look that came before the scrape is repeated soon, and so are all later ones moved behind it.
    fn look_again(&mut self, too_early: bool) {
        if !too_early || self.looks_early >= LOOKS_EARLY_MAX {
            self.looks_early = 0;
            return;
        }
        self.looks_early += 1;
        let part = Millis(self.state.poll().0 / u64::from(LOOKS_EARLY_MAX + 1));
        self.look_due = self.look_due.min(self.site.clock.now().plus(part));
    }

    async fn judge(&mut self, measured: Measured) -> Result<(), Error> {
        self.looking = false;
        self.look_again(measured.too_early);
        let poll = self.measuring.take(measured);
        if poll.generation != self.state.generation || !self.state.phase.is_live() {
            return Ok(());
        }
        let (stage, step) = (self.state.stage, self.state.step);
        self.judge.enter(&self.state.plan, stage, step, self.state.generation);
        let judgement = self.judge.observe(&self.state.plan, &poll);
        self.judgement = Some(judgement.clone());
        let polled = Polled { poll: Some(poll), judgement, health: self.site.health() };
        self.turn(Input::Polled(Box::new(polled))).await?;
        Ok(())
    }

    async fn answer(&mut self, asked: Asked) -> Result<(), Error> {
        info!(by = asked.by.name, command = ?asked.command, "asked");
        let input = Input::Commanded { by: asked.by.clone(), command: asked.command.clone() };
        let answer = self.turn(input).await?;
        asked.tell(answer);
        Ok(())
    }
}

/// The next aligned time after `now`; looks that were missed are not made up for.
fn next_due(due: Timestamp, now: Timestamp, every: Millis) -> Timestamp {
    if due.0 == 0 || now.since(due) >= every { now.plus(every) } else { due.plus(every) }
}
