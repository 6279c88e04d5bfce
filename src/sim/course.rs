//! One rollout in virtual time, in a world that is well: load balancers do at once what they are told, and probes
//! succeed. What it sees of its traffic is somebody else's matter.
//!
//! What the controller does is what it does outside: the same order of judging, deciding and acting.

use std::collections::BTreeMap;

use super::balancer::{Answer, Balancer};
use super::recorded::Recorded;
use crate::engine::decide::decide;
use crate::engine::event::{Actor, Event};
use crate::engine::input::{Command, Input, Polled};
use crate::engine::invariants;
use crate::engine::judge::Judge;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::poll::{Poll, RegionPoll};
use crate::engine::rollout::Rollout;
use crate::engine::verdict::Judgement;
use crate::spec::plan::{Analysis, Plan};
use crate::units::{AnalysisName, Millis, Reach, RegionName, Timestamp, Weight};

/// Rounds of acting within one turn; a world that is well needs two.
const ROUNDS_MAX: usize = 8;

/// A rollout and its load balancers.
#[derive(Debug)]
pub struct Course {
    start: Timestamp,
    now: Timestamp,
    state: Rollout,
    judge: Judge,
    balancers: BTreeMap<RegionName, Balancer>,
    stands: BTreeMap<RegionName, Stand>,
    events: Vec<(Timestamp, Event)>,
    violations: Vec<String>,
}

/// What a region was confirmed at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stand {
    /// What reaches the canary.
    pub reach: Reach,
    /// When it was confirmed.
    pub since: Timestamp,
    /// Nothing from before counts.
    pub not_before: Timestamp,
}

impl Course {
    /// A rollout of `plan` that begins at `at`, with no canary traffic anywhere.
    #[must_use]
    pub fn new(plan: Plan, at: Timestamp) -> Self {
        let names: Vec<RegionName> = plan.regions.keys().cloned().collect();
        let balancer = |name: &RegionName| (name.clone(), Balancer::new(name.clone(), 0));
        let mut course = Self {
            start: at,
            now: at,
            judge: Judge::new(&plan),
            state: Recorded::new(plan, at).fold(),
            balancers: names.iter().map(balancer).collect(),
            stands: BTreeMap::new(),
            events: Vec::new(),
            violations: Vec::new(),
        };
        course.turn(&Input::Recovered);
        course.act();
        course
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &Rollout {
        &self.state
    }

    /// Its time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// When it is to look again.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        self.now.plus(self.state.poll())
    }

    /// Canary weights that the load balancers have.
    #[must_use]
    pub fn weights(&self) -> BTreeMap<RegionName, Weight> {
        self.balancers.iter().map(|(name, it)| (name.clone(), it.reach.weight)).collect()
    }

    /// The regions to be looked at.
    pub fn confirmed(&self) -> impl Iterator<Item = (&RegionName, &Stand)> {
        let confirmed = |name: &RegionName| {
            self.state.regions.get(name).is_some_and(|region| {
                region.confirmed == Some(self.state.generation) && region.observed.is_some()
            })
        };
        self.stands.iter().filter(move |(name, _)| confirmed(name))
    }

    /// Analyses of triggers and of every stage reached so far.
    #[must_use]
    pub fn reached(&self) -> Vec<Analysis> {
        let plan = &self.state.plan;
        let stages = plan.stages.iter().take(self.state.stage + 1);
        let mut names: Vec<&AnalysisName> = stages
            .flat_map(|stage| &stage.criteria)
            .chain(&plan.triggers)
            .map(|criterion| &criterion.analysis)
            .collect();
        names.sort();
        names.dedup();
        names.into_iter().filter_map(|name| plan.analyses.get(name)).cloned().collect()
    }

    /// Takes in what a look at `at` found: judges, decides, acts. The verdict, unless nothing is judged any more.
    pub fn looked(
        &mut self,
        at: Timestamp,
        regions: BTreeMap<RegionName, RegionPoll>,
    ) -> Option<Judgement> {
        self.now = at;
        let mut said = None;
        if self.state.phase.is_live() {
            let generation = self.state.generation;
            let poll = Poll { at, generation, regions };
            self.judge.enter(&self.state.plan, self.state.stage, self.state.step, generation);
            let judgement = self.judge.observe(&self.state.plan, &poll);
            said = Some(judgement.clone());
            let health = self.balancers.keys().map(|name| (name.clone(), true)).collect();
            self.turn(&Input::Polled(Box::new(Polled { poll: Some(poll), judgement, health })));
        }
        self.act();
        said
    }

    /// Somebody wants something.
    pub fn command(&mut self, by: Actor, command: Command) {
        self.turn(&Input::Commanded { by, command });
        self.act();
    }

    /// What was decided since this was last asked.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (Timestamp, Event)> {
        self.events.drain(..)
    }

    /// Broken promises; empty for a right engine.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Decides and takes in.
    fn turn(&mut self, input: &Input) {
        let decision = decide(&self.state, input, self.now);
        let broken = invariants::violations_of_turn(&self.state, &decision.events);
        self.violations.extend(broken);
        for event in decision.events {
            self.state.apply(&event, self.now);
            self.follow(&event);
            self.events.push((self.now, event));
        }
        self.violations.extend(invariants::violations(&self.state));
    }

    /// Windows begin with a confirmed weight and never reach over a change.
    fn follow(&mut self, event: &Event) {
        let Event::RegionRead { region, weight, mirror, confirmed: Some(_), .. } = event else {
            return;
        };
        let reach = Reach { weight: *weight, mirror: *mirror };
        if self.stands.get(region).is_none_or(|known| known.reach != reach) {
            let plan = self.state.plan.regions.get(region);
            let settle = plan.map_or(Millis::ZERO, |plan| plan.settle);
            let not_before = self.now.plus(settle);
            let stand = Stand { reach, since: self.now, not_before };
            self.stands.insert(region.clone(), stand);
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
        let real = self.now.since(self.start);
        let Some(balancer) = self.balancers.get_mut(action.region()) else { return };
        let answer = match action {
            Action::Read { .. } => balancer.read(self.state.generation, real),
            Action::Set { weight, mirror, generation, .. } => {
                balancer.set(Reach { weight: *weight, mirror: *mirror }, *generation, real)
            }
        };
        match answer {
            Answer::Read(reading) => self.turn(&Input::Read(Box::new(reading))),
            other => self.violations.push(format!("a balancer that is well: {other:?}")),
        }
    }
}
