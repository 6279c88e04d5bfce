//! One rollout from its start to its end in a world with faults, with everything checked at every turn.

mod people;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::balancer::Answer;
use super::coverage::Coverage;
use super::fault::{self, CrashPoint, Planned};
use super::options::{self, Options};
use super::recorded::Recorded;
use super::users::Statistician;
use super::world::World;
use super::{checks, sample};
use crate::engine::decide;
use crate::engine::event::Event;
use crate::engine::hooks::{Standing, outstanding_hooks};
use crate::engine::input::{Command, Input, Polled, RegionReading};
use crate::engine::invariants;
use crate::engine::outstanding::{Action, outstanding, wake_at};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::DataState;
use crate::engine::why::why;
use crate::spec::plan::Plan;
use crate::units::{Generation, Millis, Reach, RegionName};

/// Time between two looks of the driver.
const TICK: Millis = Millis::from_secs(5);

/// After so many turns without anything new it waits for somebody.
const QUIET_TICKS: u32 = 8;

/// The controller dies here.
pub(super) struct Crash;

/// What came of a simulated rollout.
#[derive(Debug, Clone)]
pub struct Report {
    /// Seed of the plan's variation, the faults and the world.
    pub seed: u64,
    /// Where it ended.
    pub phase: Phase,
    /// Broken promises; empty for a right engine.
    pub violations: Vec<String>,
    /// What went wrong in the world.
    pub faults: Vec<Planned>,
    /// Changes of weights that were decided on, in order.
    pub story: Vec<String>,
    /// Facts and writes in order, for people.
    pub history: Vec<String>,
    /// How often everything happened.
    pub coverage: Coverage,
}

/// One rollout and its world.
#[derive(Debug)]
pub struct Simulation {
    seed: u64,
    options: Options,
    faults: Vec<Planned>,
    pub(super) state: Rollout,
    pub(super) recorded: Recorded,
    pub(super) world: World,
    pub(super) checks: checks::Checks,
    pub(super) coverage: Coverage,
    statistician: Option<Statistician>,
    story: Vec<String>,
    history: Vec<String>,
    keeps_history: bool,
    unread: Vec<RegionName>,
    poll_at: Millis,
    quiet_ticks: u32,
    healed: bool,
}

impl Simulation {
    /// The rollout of `plan` that `seed` draws, with the faults that it draws.
    #[must_use]
    pub fn new(seed: u64, plan: Plan, options: Options) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed ^ 0xfa17);
        let faults = fault::draw(&mut random, plan.regions.len(), &options);
        Self::with_faults(seed, plan, faults, options)
    }

    /// A variation of the sample plan that `seed` draws.
    #[must_use]
    pub fn plan(seed: u64) -> Plan {
        options::plan(&mut Pcg64Mcg::seed_from_u64(seed ^ 0x9a17))
    }

    /// The same with these faults, in order of time.
    #[must_use]
    pub fn with_faults(seed: u64, plan: Plan, faults: Vec<Planned>, options: Options) -> Self {
        let mut world = World::new(seed, &plan, &faults, &mut Pcg64Mcg::seed_from_u64(seed));
        let plan = if options.statistics { options::decidable(plan) } else { plan };
        let statistician = options.statistics.then(|| {
            let bad_from = world.metrics.bad_from();
            Statistician::new(seed, &plan, bad_from, options.forgets_wealth)
        });
        let recorded = Recorded::new(plan, world.now());
        Self {
            seed,
            options,
            faults,
            state: recorded.fold(),
            recorded,
            world,
            checks: checks::Checks::default(),
            coverage: Coverage::default(),
            statistician,
            story: Vec::new(),
            history: Vec::new(),
            keeps_history: false,
            unread: Vec::new(),
            poll_at: Millis::ZERO,
            quiet_ticks: 0,
            healed: false,
        }
    }

    /// Keeps what happened, for people.
    #[must_use]
    pub fn keeping_history(mut self) -> Self {
        self.keeps_history = true;
        self
    }

    /// Runs it to its end, or until a promise is broken.
    #[must_use]
    pub fn run(mut self) -> Report {
        let end = self.options.faults_until.plus(self.options.patience);
        while self.checks.violations.is_empty() && !self.state.phase.is_over() {
            if self.world.real >= end {
                let reasons = why(&self.state, self.world.now());
                let text = format!("stuck in {:?}: {reasons:?}", self.state.phase);
                self.checks.violations.push(text);
                break;
            }
            self.tick();
        }
        self.end();
        Report {
            seed: self.seed,
            phase: self.state.phase,
            violations: self.checks.violations,
            faults: self.faults,
            story: self.story,
            history: self.history,
            coverage: self.coverage,
        }
    }

    fn end(&mut self) {
        self.coverage.see("end", &self.state.phase);
        self.coverage.see("truth", &self.world.metrics.truth);
        let folded = if self.seed.is_multiple_of(16) {
            self.recorded.fold_from_disk()
        } else {
            self.recorded.fold()
        };
        if folded != self.state {
            self.checks.violations.push("replay differs from the live state".to_owned());
        }
        if self.checks.rollback_told && self.state.phase == Phase::Promoted {
            self.checks.violations.push("promoted after somebody was told it goes back".to_owned());
        }
        if self.state.phase.is_over() && !outstanding(&self.state).is_empty() {
            self.checks.violations.push("something is outstanding after the end".to_owned());
        }
    }

    fn tick(&mut self) {
        self.checks.pass(&self.state, TICK);
        let generation = self.recorded.generation();
        self.world.advance(TICK, generation, &mut self.coverage);
        if let Some(statistician) = &mut self.statistician {
            let balancers = &self.world.balancers;
            statistician.users.pass(TICK, self.state.stage, |name| balancers[name].reach);
        }
        if !self.healed && self.world.real >= self.options.faults_until {
            self.healed = true;
            self.world.heal();
        }
        self.quiet_ticks += 1;
        let crashed = std::mem::take(&mut self.world.restart_now) || self.work().is_err();
        if crashed {
            self.recover();
        }
    }

    /// One turn of the driver's loop.
    fn work(&mut self) -> Result<(), Crash> {
        for reading in self.world.late_answers() {
            self.coverage.count("late answer");
            self.read(reading)?;
        }
        for command in std::mem::take(&mut self.world.people) {
            self.command(command)?;
        }
        self.unread.clear();
        for region in self.world.balancers.keys().cloned().collect::<Vec<_>>() {
            self.act(&region)?;
        }
        self.run_hooks()?;
        let now = self.world.now();
        if wake_at(&self.state, now).is_some_and(|at| at <= now) {
            self.turn(&Input::Woke)?;
        }
        self.poll()?;
        if self.healed && self.quiet_ticks >= QUIET_TICKS {
            self.quiet_ticks = 0;
            self.help()?;
        }
        Ok(())
    }

    /// Restart: fold, say so, and go on with what is outstanding.
    fn recover(&mut self) {
        self.coverage.count("recovered");
        let folded = self.recorded.fold();
        if folded != self.state {
            self.checks.violations.push("replay differs from the live state".to_owned());
        }
        self.state = folded;
        if let Some(statistician) = &mut self.statistician {
            statistician.restarted(&self.state.plan);
        }
        while self.turn(&Input::Recovered).is_err() {}
    }

    /// Decides, records, and checks what came of it.
    pub(super) fn turn(&mut self, input: &Input) -> Result<decide::Answer, Crash> {
        let now = self.world.now();
        let decision = (self.options.decide)(&self.state, input, now);
        if decision.events.is_empty() {
            return Ok(decision.answer);
        }
        self.checks
            .violations
            .extend(invariants::violations_of_turn(&self.state, &decision.events));
        let recovering = matches!(input, Input::Recovered);
        let prepared = decision.events.contains(&Event::Prepared);
        self.die_at(if recovering { CrashPoint::Recovering } else { CrashPoint::BeforeRecord })?;
        for reason in &decision.why {
            self.coverage.see("reason", reason);
        }
        for event in decision.events {
            self.see(&event);
            if let Some(statistician) = &mut self.statistician {
                statistician.follow(&event);
            }
            self.checks.fact(&self.state, &event, &self.world);
            self.state.apply(&event, now);
            self.recorded.append(event, now);
        }
        if let Some(statistician) = &mut self.statistician
            && matches!(input, Input::Polled(_))
        {
            statistician.recorded();
        }
        self.checks.violations.extend(invariants::violations(&self.state));
        // The reading that ended the preparation may also confirm the gate's zero.
        if !prepared {
            self.decide_again(input);
        }
        self.die_at(CrashPoint::AfterRecord)?;
        Ok(decision.answer)
    }

    /// The same again changes nothing; a second `promote` may, and every start is a fact.
    fn decide_again(&mut self, input: &Input) {
        let may = matches!(
            input,
            Input::Recovered
                | Input::Commanded { command: Command::Promote | Command::PromoteApproved, .. }
        );
        if may {
            return;
        }
        let again = (self.options.decide)(&self.state, input, self.world.now());
        if !again.events.is_empty() {
            let text = format!("a second turn finds more: {:?} after {input:?}", again.events);
            self.checks.violations.push(text);
        }
    }

    fn see(&mut self, event: &Event) {
        self.coverage.see("event", event);
        self.tell(event);
        if let Event::DriftFound { kind, .. } = event {
            self.coverage.see("drift", kind);
        }
        if let Event::RollbackStarted { cause, .. } = event {
            self.coverage.see("cause", cause);
        }
        // Looks go on while it waits.
        if !matches!(event, Event::Polled { .. } | Event::Judged(_)) {
            self.quiet_ticks = 0;
            self.note(|| format!("{event:?}"));
        }
    }

    fn tell(&mut self, event: &Event) {
        let told = match event {
            Event::StepEntered { stage, step, .. } => format!("stage {stage} step {step}"),
            Event::RollbackStarted { cause, .. } => {
                format!("back: {}", super::coverage::variant(cause))
            }
            Event::Promoted { .. } => "promoted".to_owned(),
            _ => return,
        };
        self.story.push(told);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.keeps_history {
            let mut text = text();
            text.truncate(160);
            self.history.push(format!("{:>6} {text}", self.world.real.0 / 1_000));
        }
    }

    fn die_at(&mut self, point: CrashPoint) -> Result<(), Crash> {
        if self.world.crash != Some(point) {
            return Ok(());
        }
        self.world.crash = None;
        self.coverage.see("crash", &point);
        self.note(|| format!("crash {point:?}"));
        Err(Crash)
    }

    /// Does what is outstanding in a region, or looks.
    fn act(&mut self, region: &RegionName) -> Result<(), Crash> {
        let actions = (self.options.outstanding)(&self.state);
        let action = actions.into_iter().find(|action| action.region() == region);
        let real = self.world.real;
        let generation = self.state.generation;
        let Some(balancer) = self.world.balancers.get_mut(region) else { return Ok(()) };
        let answer = match action {
            Some(Action::Set { weight, mirror, generation, .. }) => {
                let reach = Reach { weight, mirror };
                let trouble = balancer.trouble;
                self.checks.write(&self.state, &self.recorded, balancer, region, reach, generation);
                let answer = balancer.set(reach, generation, real);
                if let Some(trouble) = trouble {
                    self.coverage.see("struck", &trouble);
                }
                self.quiet_ticks = 0;
                self.note(|| format!("set {region} to {reach} under {generation}: {answer:?}"));
                self.die_at(CrashPoint::AfterSend)?;
                self.echo(answer, reach, generation)
            }
            _ => balancer.read(generation, real),
        };
        self.die_at(CrashPoint::AfterAnswer)?;
        match answer {
            Answer::Read(reading) => return self.read(reading),
            Answer::NotSent => self.coverage.count("answer not sent"),
            Answer::Unknown(late) => {
                self.coverage.count("answer unknown");
                let late = late.map(|reading| (real.plus(Millis::from_secs(60)), reading));
                self.world.late.extend(late);
                let what = "no answer".to_owned();
                self.turn(&Input::EffectUnknown { region: region.clone(), generation, what })?;
            }
        }
        self.unread.push(region.clone());
        Ok(())
    }

    /// Runs what is intended, and is told how it ended.
    fn run_hooks(&mut self) -> Result<(), Crash> {
        for call in outstanding_hooks(&self.state) {
            let mut standing = self.world.programs.run(&call, self.healed);
            self.quiet_ticks = 0;
            self.note(|| format!("hook {call:?}: {standing:?}"));
            self.coverage.see("hook", &standing);
            self.die_at(CrashPoint::AfterSend)?;
            if self.options.believes_hooks && matches!(standing, Standing::Unknown(_)) {
                standing = Standing::Done;
            }
            self.turn(&Input::HookEnded { call, standing })?;
        }
        Ok(())
    }

    fn echo(&self, answer: Answer, reach: Reach, generation: Generation) -> Answer {
        match answer {
            Answer::Read(mut reading) if self.options.believes_echo => {
                (reading.reach, reading.settled) = (reach, true);
                reading.generation = reading.generation.map(|_| generation);
                Answer::Read(reading)
            }
            answer => answer,
        }
    }

    fn read(&mut self, mut reading: RegionReading) -> Result<(), Crash> {
        if self.options.forgets_question {
            reading.asked_at = self.state.generation;
        }
        self.turn(&Input::Read(Box::new(reading))).map(drop)
    }

    fn poll(&mut self) -> Result<(), Crash> {
        if self.world.real < self.poll_at || !self.state.phase.is_live() {
            return Ok(());
        }
        self.poll_at = self.world.real.plus(sample::POLL);
        let mut judgement = match &mut self.statistician {
            Some(statistician) => {
                let judgement = statistician.look(&self.state, &self.unread, self.world.real);
                self.checks.violations.extend(statistician.impossible(&judgement));
                judgement
            }
            None => self.world.metrics.look(&self.state),
        };
        let confirmed =
            |name: &RegionName| self.state.regions[name].confirmed == Some(self.state.generation);
        judgement.data.retain(|name, _| confirmed(name));
        for name in &self.unread {
            if let Some(data) = judgement.data.get_mut(name) {
                *data = DataState::SourceError("weights are not read back".to_owned());
            }
        }
        if std::mem::take(&mut self.world.stale_look) {
            judgement.generation = Generation(judgement.generation.0.saturating_sub(1));
            judgement.stage = crate::engine::verdict::Outcome::Pass;
            judgement.verdicts.clear();
        }
        let has_data = judgement.data.values().all(|data| *data == DataState::Present);
        let proved = has_data && judgement.stage == crate::engine::verdict::Outcome::Pass;
        self.checks.looks.insert(judgement.at, (judgement.generation, proved));
        let health = self.world.health();
        self.turn(&Input::Polled(Box::new(Polled { poll: None, judgement, health }))).map(drop)
    }
}
