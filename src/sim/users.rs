//! Requests that come tick by tick and are counted by counters that only grow, and the real judge that reads them.
//!
//! What comes in a tick depends on the seed, the region, the tick and the weights alone: a controller that dies does not
//! change it.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::traffic::{Behaviour, Sway, Traffic, Window};
use crate::engine::event::Event;
use crate::engine::judge::Judge;
use crate::engine::poll::{Measured, Poll, RegionPoll};
use crate::engine::rollout::Rollout;
use crate::engine::verdict::Judgement;
use crate::spec::plan::{CriterionId, Plan};
use crate::units::{Generation, Millis, Reach, RegionName, Timestamp};

/// Requests per second and region.
const PER_SECOND: f64 = 20_000.0;

/// The users of every region.
#[derive(Debug)]
pub(super) struct Users {
    seed: u64,
    traffic: Traffic,
    tick: u64,
    counters: BTreeMap<RegionName, (Sway, Window)>,
}

/// What is kept from look to look.
#[derive(Debug, Clone)]
struct Kept {
    judge: Judge,
    regions: BTreeMap<RegionName, Origin>,
    /// Looks behind each criterion's newest verdict, and the weights they were about; not the controller's, but only what
    /// was recorded counts.
    looks: BTreeMap<CriterionId, (Generation, u64)>,
}

/// Since when a region is measured at one confirmed weight.
#[derive(Debug, Clone)]
struct Origin {
    reach: Reach,
    read: Option<(Millis, Window)>,
}

/// The real statistics, with what a restart finds of them.
#[derive(Debug)]
pub(super) struct Statistician {
    pub(super) users: Users,
    now: Kept,
    durable: Kept,
    /// A wrong driver: what was read is kept, the evidence made of it begins anew.
    forgets_wealth: bool,
}

impl Users {
    /// A version that fails far more often from `bad_from` on, or a good one.
    fn new(seed: u64, plan: &Plan, bad_from: Option<usize>) -> Self {
        let mut traffic = Traffic::equal(PER_SECOND);
        if let Some(from_stage) = bad_from {
            let canary = Behaviour { errors: 0.02, ..Behaviour::FINE };
            traffic.changes.push(super::traffic::Change { from_stage, region: None, canary });
        }
        let empty = |name: &RegionName| (name.clone(), (Sway::default(), Window::empty(&traffic)));
        let counters = plan.regions.keys().map(empty).collect();
        Self { seed, traffic, tick: 0, counters }
    }

    /// Time passes at the weights that the load balancers really have.
    pub(super) fn pass(
        &mut self,
        time: Millis,
        stage: usize,
        reach: impl Fn(&RegionName) -> Reach,
    ) {
        self.tick += 1;
        for (index, (name, (sway, counted))) in self.counters.iter_mut().enumerate() {
            let stream = self.tick << 8 | index as u64;
            let mut random = Pcg64Mcg::seed_from_u64(self.seed ^ stream.rotate_left(20));
            let canary = self.traffic.canary_in(name, stage);
            let came = Window::draw(&self.traffic, canary, reach(name), time, sway, &mut random);
            counted.add(&came);
        }
    }

    /// Requests that an arm can have had at all.
    fn canary_total(&self) -> f64 {
        self.counters.values().map(|(_, counted)| counted.canary_total()).sum()
    }
}

impl Statistician {
    pub(super) fn new(seed: u64, plan: &Plan, bad_from: Option<usize>, forgets: bool) -> Self {
        let now =
            Kept { judge: Judge::new(plan), regions: BTreeMap::new(), looks: BTreeMap::new() };
        let users = Users::new(seed, plan, bad_from);
        Self { users, durable: now.clone(), now, forgets_wealth: forgets }
    }

    /// One look at every region that is confirmed and was read.
    pub(super) fn look(
        &mut self,
        state: &Rollout,
        unread: &[RegionName],
        real: Millis,
    ) -> Judgement {
        let mut poll =
            Poll { at: Timestamp(real.0), generation: state.generation, regions: BTreeMap::new() };
        for (name, region) in &state.regions {
            let confirmed = region.confirmed == Some(state.generation);
            let Some(origin) = self.now.regions.get_mut(name).filter(|_| confirmed) else {
                continue;
            };
            if region.observed.is_none() || unread.contains(name) {
                continue;
            }
            poll.regions.insert(name.clone(), origin.look(&self.users, name, &state.plan, real));
        }
        self.now.judge.enter(&state.plan, state.stage, state.step, state.generation);
        self.now.judge.observe(&state.plan, &poll)
    }

    /// Windows begin with a confirmed weight and never reach over a change.
    pub(super) fn follow(&mut self, event: &Event) {
        match event {
            Event::RegionRead { region, weight, mirror, confirmed: Some(_), .. } => {
                let reach = Reach { weight: *weight, mirror: *mirror };
                if self.now.regions.get(region).is_some_and(|known| known.reach == reach) {
                    return;
                }
                let fresh = Origin { reach, read: None };
                self.now.regions.insert(region.clone(), fresh);
            }
            Event::DriftFound { region, .. } => {
                self.now.regions.remove(region);
            }
            _ => {}
        }
    }

    /// The look's facts are on disk, and with them what is kept.
    pub(super) fn recorded(&mut self) {
        self.durable = self.now.clone();
    }

    /// The controller died: what was recorded last is all there is.
    pub(super) fn restarted(&mut self, plan: &Plan) {
        self.now = self.durable.clone();
        if self.forgets_wealth {
            self.now.judge = Judge::new(plan);
        }
    }

    /// Why a verdict cannot be right: it rests on more requests than there were, or on less than it did before.
    pub(super) fn impossible(&mut self, judgement: &Judgement) -> Option<String> {
        let most = self.users.canary_total();
        let counts = judgement.verdicts.iter().filter_map(|it| it.numbers.canary);
        let largest = counts.map(|(_, total)| total).fold(0.0, f64::max);
        if largest > most {
            return Some(format!("a verdict on {largest} canary requests, and {most} came in all"));
        }
        judgement.verdicts.iter().find_map(|verdict| {
            let (now, criterion) = (verdict.numbers.polls, verdict.criterion.clone());
            let before = self.now.looks.insert(criterion, (judgement.generation, now));
            let (generation, before) = before?;
            (generation == judgement.generation && now < before).then(|| {
                format!("{}: evidence of {before} looks became that of {now}", verdict.text)
            })
        })
    }
}

impl Origin {
    fn look(&mut self, users: &Users, name: &RegionName, plan: &Plan, real: Millis) -> RegionPoll {
        let Some((_, counted)) = users.counters.get(name) else {
            return RegionPoll {
                weight: self.reach.weight,
                mirror: self.reach.mirror,
                window: Millis::ZERO,
                ready_for: None,
                measured: BTreeMap::new(),
            };
        };
        let before = self.read.replace((real, counted.clone()));
        let window = before.as_ref().map_or(Millis::ZERO, |(at, _)| real.minus(*at));
        let since = before.map(|(_, before)| counted.since(&before));
        let measured = |analysis: &crate::spec::plan::Analysis| match &since {
            Some(window) => window.measured(&analysis.measurement),
            None => Measured::NotDue,
        };
        let measured =
            plan.analyses.iter().map(|(name, analysis)| (name.clone(), measured(analysis)));
        let Reach { weight, mirror } = self.reach;
        RegionPoll { weight, mirror, window, ready_for: None, measured: measured.collect() }
    }
}
