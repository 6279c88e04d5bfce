//! One rollout from its start to its end in virtual time, judged by the real judge on requests drawn by chance.
//!
//! Everything around it is well: load balancers do at once what they are told, probes succeed, the source answers. What
//! the controller does is what it does outside: the same windows, the same order of judging, deciding and acting.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::balancer::{Answer, Balancer};
use super::recorded::Recorded;
use super::traffic::{Sway, Traffic, Window};
use crate::engine::decide::decide;
use crate::engine::event::Event;
use crate::engine::input::{Input, Polled};
use crate::engine::invariants;
use crate::engine::judge::Judge;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::poll::{Measured, Poll, RegionPoll};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::{Judgement, Outcome};
use crate::spec::plan::{Analysis, CriterionId, Measurement, Plan};
use crate::units::{AnalysisName, Millis, RegionName, Timestamp, Weight};

const START: Timestamp = Timestamp(1_000_000_000);

/// Rounds of acting within one turn; a world that is well needs two.
const ROUNDS_MAX: usize = 8;

/// What came of a walk.
#[derive(Debug, Clone)]
pub struct Walked {
    /// Where it ended, and why.
    pub state: Rollout,
    /// Virtual time from the start to the end.
    pub took: Millis,
    /// Virtual time from the start to the first intent of each stage reached, in order.
    pub stages: Vec<Millis>,
    /// Time that each criterion took from the confirmed weight of its stage to its first proof.
    pub proven: BTreeMap<CriterionId, Millis>,
    /// The newest judgement.
    pub judgement: Option<Judgement>,
    /// Canary weight that the load balancers are left with.
    pub weights: BTreeMap<RegionName, Weight>,
    /// Looks at the metrics.
    pub polls: u64,
    /// Broken promises; empty for a right engine.
    pub violations: Vec<String>,
}

/// A rollout, its load balancers and its users.
#[derive(Debug)]
pub struct Walk {
    traffic: Traffic,
    random: Pcg64Mcg,
    now: Timestamp,
    state: Rollout,
    recorded: Recorded,
    judge: Judge,
    balancers: BTreeMap<RegionName, Balancer>,
    measuring: BTreeMap<RegionName, Measuring>,
    sways: BTreeMap<RegionName, Sway>,
    walked: Progress,
}

/// One region at one confirmed weight.
#[derive(Debug)]
struct Measuring {
    weight: Weight,
    /// Nothing from before counts.
    not_before: Timestamp,
    looked_at: Option<Timestamp>,
    /// Counters have been read once since `not_before`.
    has_origin: bool,
    asked: BTreeMap<AnalysisName, Timestamp>,
}

#[derive(Debug, Default)]
struct Progress {
    stages: Vec<Millis>,
    proven: BTreeMap<CriterionId, Millis>,
    judgement: Option<Judgement>,
    polls: u64,
    violations: Vec<String>,
}

impl Walk {
    /// A rollout of `plan` on `traffic`; the same seed draws the same requests.
    #[must_use]
    pub fn new(seed: u64, plan: Plan, traffic: Traffic) -> Self {
        let names: Vec<RegionName> = plan.regions.keys().cloned().collect();
        let balancer = |name: &RegionName| (name.clone(), Balancer::new(name.clone(), 0));
        let judge = Judge::new(&plan);
        let recorded = Recorded::new(plan, START);
        Self {
            traffic,
            random: Pcg64Mcg::seed_from_u64(seed),
            now: START,
            state: recorded.fold(),
            recorded,
            judge,
            balancers: names.iter().map(balancer).collect(),
            measuring: BTreeMap::new(),
            sways: BTreeMap::new(),
            walked: Progress::default(),
        }
    }

    /// Walks until it is over, or for `patience`.
    #[must_use]
    pub fn run(mut self, patience: Millis) -> Walked {
        self.turn(&Input::Recovered);
        self.act();
        while !self.state.phase.is_over() && self.now.since(START) < patience {
            self.now = self.now.plus(self.state.poll());
            self.poll();
            self.act();
        }
        if self.recorded.fold() != self.state {
            self.walked.violations.push("replay differs from the live state".to_owned());
        }
        let Progress { stages, proven, judgement, polls, violations } = self.walked;
        let weights = self.balancers.iter().map(|(name, it)| (name.clone(), it.weight)).collect();
        let took = self.state.ended_at.unwrap_or(self.now).since(START);
        Walked { state: self.state, took, stages, proven, judgement, weights, polls, violations }
    }

    /// Decides, records, takes in.
    fn turn(&mut self, input: &Input) {
        let decision = decide(&self.state, input, self.now);
        let broken = invariants::violations_of_turn(&self.state, &decision.events);
        self.walked.violations.extend(broken);
        for event in decision.events {
            self.state.apply(&event, self.now);
            self.follow(&event);
            self.recorded.append(event, self.now);
        }
        self.walked.violations.extend(invariants::violations(&self.state));
    }

    /// Windows begin with a confirmed weight and never reach over a change.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::StepEntered { stage, .. } if *stage == self.walked.stages.len() => {
                self.walked.stages.push(self.now.since(START));
            }
            Event::RegionRead { region, weight, confirmed: Some(_), .. }
                if self.measuring.get(region).is_none_or(|known| known.weight != *weight) =>
            {
                let plan = self.state.plan.regions.get(region);
                let settle = plan.map_or(Millis::ZERO, |plan| plan.settle);
                let before = self.measuring.remove(region);
                let fresh = Measuring {
                    weight: *weight,
                    not_before: self.now.plus(settle),
                    looked_at: None,
                    has_origin: false,
                    asked: before.map(|it| it.asked).unwrap_or_default(),
                };
                self.measuring.insert(region.clone(), fresh);
            }
            _ => {}
        }
    }

    /// Does what is outstanding, then reads every region.
    fn act(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let actions = outstanding(&self.state);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(&action);
            }
        }
        if !self.state.phase.is_over() {
            for region in self.balancers.keys().cloned().collect::<Vec<_>>() {
                self.perform(&Action::Read { region });
            }
        }
    }

    fn perform(&mut self, action: &Action) {
        let real = self.now.since(START);
        let Some(balancer) = self.balancers.get_mut(action.region()) else { return };
        let answer = match action {
            Action::Read { .. } => balancer.read(self.state.generation, real),
            Action::Set { weight, generation, .. } => balancer.set(*weight, *generation, real),
        };
        match answer {
            Answer::Read(reading) => self.turn(&Input::Read(Box::new(reading))),
            other => self.walked.violations.push(format!("a balancer that is well: {other:?}")),
        }
    }

    /// Looks, judges, decides.
    fn poll(&mut self) {
        if !self.state.phase.is_live() {
            return;
        }
        let poll = self.look();
        let (stage, step) = (self.state.stage, self.state.step);
        self.judge.enter(&self.state.plan, stage, step, self.state.generation);
        let judgement = self.judge.observe(&self.state.plan, &poll);
        self.walked.polls += 1;
        self.note(&judgement);
        self.walked.judgement = Some(judgement.clone());
        let health = self.balancers.keys().map(|name| (name.clone(), true)).collect();
        self.turn(&Input::Polled(Box::new(Polled { poll: Some(poll), judgement, health })));
    }

    fn note(&mut self, judgement: &Judgement) {
        if self.state.phase != Phase::Baking {
            return;
        }
        let passed = judgement
            .verdicts
            .iter()
            .filter(|verdict| !verdict.is_trigger && verdict.outcome == Outcome::Pass);
        let after = self.now.since(self.state.phase_since);
        for verdict in passed {
            self.walked.proven.entry(verdict.criterion.clone()).or_insert(after);
        }
    }

    fn look(&mut self) -> Poll {
        let analyses = reached(&self.state);
        let confirmed = |name: &RegionName| {
            self.state.regions.get(name).is_some_and(|region| {
                region.confirmed == Some(self.state.generation) && region.observed.is_some()
            })
        };
        let mut poll =
            Poll { at: self.now, generation: self.state.generation, regions: BTreeMap::new() };
        for (name, measuring) in self.measuring.iter_mut().filter(|(name, _)| confirmed(name)) {
            let length = measuring.looked_at.map_or(Millis::ZERO, |at| self.now.since(at));
            let canary = self.traffic.canary_in(name, self.state.stage);
            let sway = self.sways.entry(name.clone()).or_default();
            let (weight, random) = (measuring.weight, &mut self.random);
            let window = Window::draw(&self.traffic, canary, weight, length, sway, random);
            let measured = measuring.measure(&analyses, &window, self.now);
            let look = RegionPoll { weight, window: length, ready_for: None, measured };
            poll.regions.insert(name.clone(), look);
        }
        poll
    }
}

impl Measuring {
    /// The first look after a settled weight reads counters for the first time; increments come from the second one on.
    fn measure(
        &mut self,
        analyses: &[Analysis],
        window: &Window,
        now: Timestamp,
    ) -> BTreeMap<AnalysisName, Measured> {
        let counts = self.has_origin;
        self.has_origin = now >= self.not_before;
        self.looked_at = Some(now);
        let measured = |analysis: &Analysis| {
            let due = match analysis.measurement {
                Measurement::Check { every, .. } => self.is_due(&analysis.name, every, now),
                Measurement::Gauge { .. } => self.has_origin,
                _ => counts,
            };
            if due { window.measured(&analysis.measurement) } else { Measured::NotDue }
        };
        let mut found = BTreeMap::new();
        for analysis in analyses {
            found.insert(analysis.name.clone(), measured(analysis));
        }
        for (name, measured) in &found {
            if matches!(measured, Measured::Check { .. }) {
                self.asked.insert(name.clone(), now);
            }
        }
        found
    }

    fn is_due(&self, check: &AnalysisName, every: Millis, now: Timestamp) -> bool {
        self.asked.get(check).is_none_or(|asked| now.since(*asked) >= every)
    }
}

/// Analyses of triggers and of every stage reached so far.
fn reached(state: &Rollout) -> Vec<Analysis> {
    let plan = &state.plan;
    let stages = plan.stages.iter().take(state.stage + 1).flat_map(|stage| &stage.criteria);
    let names: BTreeSet<&AnalysisName> =
        stages.chain(&plan.triggers).map(|criterion| &criterion.analysis).collect();
    names.into_iter().filter_map(|name| plan.analyses.get(name)).cloned().collect()
}
