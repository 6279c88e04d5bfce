//! One rollout from its start to its end in virtual time, judged by the real judge on requests drawn by chance.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::course::{Course, Stand};
use super::recorded::Recorded;
use super::traffic::{Sway, Traffic, Window};
use crate::engine::poll::{Measured, RegionPoll};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::{Judgement, Outcome};
use crate::spec::plan::{Analysis, CriterionId, Measurement, Plan};
use crate::units::{AnalysisName, Millis, Reach, RegionName, Timestamp, Weight};

const START: Timestamp = Timestamp(1_000_000_000);

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
    course: Course,
    recorded: Recorded,
    measuring: BTreeMap<RegionName, Measuring>,
    sways: BTreeMap<RegionName, Sway>,
    walked: Progress,
}

/// One region at one confirmed weight.
#[derive(Debug)]
struct Measuring {
    stand: Stand,
    looked_at: Option<Timestamp>,
    /// Counters have been read once since the stand counts.
    has_origin: bool,
    asked: BTreeMap<AnalysisName, Timestamp>,
}

#[derive(Debug, Default)]
struct Progress {
    stages: Vec<Millis>,
    proven: BTreeMap<CriterionId, Millis>,
    judgement: Option<Judgement>,
    polls: u64,
}

impl Walk {
    /// A rollout of `plan` on `traffic`; the same seed draws the same requests.
    #[must_use]
    pub fn new(seed: u64, plan: Plan, traffic: Traffic) -> Self {
        Self {
            traffic,
            random: Pcg64Mcg::seed_from_u64(seed),
            recorded: Recorded::new(plan.clone(), START),
            course: Course::new(plan, START),
            measuring: BTreeMap::new(),
            sways: BTreeMap::new(),
            walked: Progress::default(),
        }
    }

    /// Walks until it is over, or for `patience`.
    #[must_use]
    pub fn run(mut self, patience: Millis) -> Walked {
        self.record();
        while !self.course.state().phase.is_over() && self.course.now().since(START) < patience {
            self.poll();
            self.record();
        }
        let mut violations = self.course.violations().to_vec();
        if self.recorded.fold() != *self.course.state() {
            violations.push("replay differs from the live state".to_owned());
        }
        let Progress { stages, proven, judgement, polls } = self.walked;
        let (state, weights) = (self.course.state().clone(), self.course.weights());
        let took = state.ended_at.unwrap_or(self.course.now()).since(START);
        Walked { state, took, stages, proven, judgement, weights, polls, violations }
    }

    fn record(&mut self) {
        let (now, state) = (self.course.now(), self.course.state());
        if state.phase != Phase::Preparing && state.stage == self.walked.stages.len() {
            self.walked.stages.push(now.since(START));
        }
        for (at, event) in self.course.drain() {
            self.recorded.append(event, at);
        }
    }

    /// Looks, judges, decides.
    fn poll(&mut self) {
        let at = self.course.due();
        let regions = self.look(at);
        let (phase, since) = (self.course.state().phase, self.course.state().phase_since);
        let Some(judgement) = self.course.looked(at, regions) else { return };
        self.walked.polls += 1;
        if phase == Phase::Baking {
            self.note(&judgement, at.since(since));
        }
        self.walked.judgement = Some(judgement);
    }

    fn note(&mut self, judgement: &Judgement, after: Millis) {
        let passed = judgement
            .verdicts
            .iter()
            .filter(|verdict| !verdict.is_trigger && verdict.outcome == Outcome::Pass);
        for verdict in passed {
            self.walked.proven.entry(verdict.criterion.clone()).or_insert(after);
        }
    }

    fn look(&mut self, at: Timestamp) -> BTreeMap<RegionName, RegionPoll> {
        let (analyses, stage) = (self.course.reached(), self.course.state().stage);
        let mut regions = BTreeMap::new();
        for (name, stand) in self.course.confirmed() {
            let measuring = self.measuring.entry(name.clone()).or_insert(Measuring::new(*stand));
            measuring.follow(*stand);
            let length = measuring.looked_at.map_or(Millis::ZERO, |before| at.since(before));
            let canary = self.traffic.canary_in(name, stage);
            let sway = self.sways.entry(name.clone()).or_default();
            let (reach, random) = (stand.reach, &mut self.random);
            let window = Window::draw(&self.traffic, canary, reach, length, sway, random);
            let measured = measuring.measure(&analyses, &window, at);
            let Reach { weight, mirror } = reach;
            let look = RegionPoll { weight, mirror, window: length, ready_for: None, measured };
            regions.insert(name.clone(), look);
        }
        regions
    }
}

impl Measuring {
    fn new(stand: Stand) -> Self {
        Self { stand, looked_at: None, has_origin: false, asked: BTreeMap::new() }
    }

    /// A change of weights begins anew, except for when checks are due.
    fn follow(&mut self, stand: Stand) {
        if self.stand != stand {
            *self = Self { asked: std::mem::take(&mut self.asked), ..Self::new(stand) };
        }
    }

    /// The first look after a settled weight reads counters for the first time; increments come from the second one on.
    fn measure(
        &mut self,
        analyses: &[Analysis],
        window: &Window,
        now: Timestamp,
    ) -> BTreeMap<AnalysisName, Measured> {
        let counts = self.has_origin;
        self.has_origin = now >= self.stand.not_before;
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
