//! The world around a simulated rollout: balancers, metrics, probes, people and a clock.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt};

use super::balancer::{Balancer, Trouble};
use super::coverage::Coverage;
use super::fault::{CrashPoint, Fault, Planned};
use super::metrics::Metrics;
use super::programs::Programs;
use crate::engine::input::{Command, RegionReading};
use crate::spec::plan::{Authority, Plan};
use crate::units::{Generation, Millis, Reach, RegionName, Timestamp};

const DAY: Millis = Millis::from_secs(86_400);

/// The world around a rollout.
#[derive(Debug)]
pub(super) struct World {
    /// Real time since the start.
    pub(super) real: Millis,
    clock_base: Timestamp,
    pub(super) balancers: BTreeMap<RegionName, Balancer>,
    pub(super) metrics: Metrics,
    pub(super) programs: Programs,
    unhealthy_until: Vec<Millis>,
    pub(super) stale_look: bool,
    pub(super) people: Vec<Command>,
    pub(super) late: Vec<(Millis, RegionReading)>,
    pub(super) crash: Option<CrashPoint>,
    pub(super) restart_now: bool,
    faults: Vec<Planned>,
    authority: Authority,
}

impl World {
    pub(super) fn new(seed: u64, plan: &Plan, faults: &[Planned], random: &mut impl Rng) -> Self {
        let balancer = |name: &RegionName, kind| (name.clone(), Balancer::new(name.clone(), kind));
        let names = plan.regions.keys();
        Self {
            real: Millis::ZERO,
            clock_base: Timestamp(10 * DAY.0),
            balancers: names.map(|name| balancer(name, random.random_range(0..8))).collect(),
            metrics: Metrics::draw(random),
            programs: Programs::new(seed),
            unhealthy_until: vec![Millis::ZERO; plan.regions.len()],
            stale_look: false,
            people: Vec::new(),
            late: Vec::new(),
            crash: None,
            restart_now: false,
            faults: faults.iter().rev().cloned().collect(),
            authority: plan.authority,
        }
    }

    /// What the controller's clock shows.
    pub(super) fn now(&self) -> Timestamp {
        self.clock_base.plus(self.real)
    }

    /// Time passes; what is due happens.
    pub(super) fn advance(
        &mut self,
        time: Millis,
        generation: Generation,
        coverage: &mut Coverage,
    ) {
        self.real = self.real.plus(time);
        for balancer in self.balancers.values_mut() {
            balancer.advance(self.real);
        }
        while self.faults.last().is_some_and(|planned| planned.at <= self.real) {
            let Some(planned) = self.faults.pop() else { break };
            coverage.see("fault", &planned.fault);
            self.strike(planned.fault, generation);
        }
    }

    /// Answers that arrive now, long after their question was given up.
    pub(super) fn late_answers(&mut self) -> Vec<RegionReading> {
        let due = |it: &(Millis, RegionReading)| it.0 <= self.real;
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(due);
        self.late = later;
        Vec::from_iter::<Vec<_>>(due).into_iter().map(|(_, reading)| reading).collect()
    }

    /// Health by region.
    pub(super) fn health(&self) -> BTreeMap<RegionName, bool> {
        let until = self.unhealthy_until.iter().map(|until| self.real >= *until);
        self.balancers.keys().cloned().zip(until).collect()
    }

    /// Everything is well from now on; what was changed stays changed.
    pub(super) fn heal(&mut self) {
        self.unhealthy_until.fill(Millis::ZERO);
        self.stale_look = false;
        self.crash = None;
        self.balancers.values_mut().for_each(Balancer::heal);
    }

    fn strike(&mut self, fault: Fault, generation: Generation) {
        match fault {
            Fault::Promote => self.people.push(Command::Promote),
            Fault::Pause => self.people.push(pause()),
            Fault::Resume => self.people.push(Command::Resume),
            Fault::Rollback => self.people.push(rollback()),
            Fault::AskRollback => self.people.push(ask_rollback()),
            Fault::Approve => self.people.push(approve()),
            Fault::PromoteApproved => self.people.push(Command::PromoteApproved),
            Fault::RollbackAndPromote => self.people.extend([rollback(), Command::Promote]),
            Fault::PauseAndPromote => self.people.extend([pause(), Command::Promote]),
            Fault::StaleLook => self.stale_look = true,
            Fault::Crash(point) => self.crash = Some(point),
            Fault::ClockForward => self.clock_base = self.clock_base.plus(Millis(3 * DAY.0)),
            Fault::ClockBack => {
                self.clock_base = self.clock_base.minus(Millis::from_secs(7_200));
                self.restart_now = true;
            }
            Fault::Unhealthy(region, time) => self.unhealthy_until[region] = self.real.plus(time),
            fault => self.strike_balancer(&fault, generation),
        }
    }

    fn strike_balancer(&mut self, fault: &Fault, generation: Generation) {
        let until = |time: &Millis| self.real.plus(*time);
        let region = fault.region().unwrap_or_default();
        let Some(balancer) = self.balancers.values_mut().nth(region) else { return };
        match fault {
            Fault::AnswerLost(_) => balancer.trouble = Some(Trouble::AnswerLost),
            Fault::AnswerLate(_) => balancer.trouble = Some(Trouble::AnswerLate),
            Fault::WriteLate(_) => balancer.trouble = Some(Trouble::WriteLate),
            Fault::NotSent(_) => balancer.trouble = Some(Trouble::NotSent),
            Fault::Lie(_) => balancer.trouble = Some(Trouble::Lie),
            // Without a stored generation nothing tells an old reading from a new one.
            Fault::StaleRead(_) if self.authority == Authority::Full => {
                balancer.stale_read = balancer.stores();
            }
            Fault::Lags(_, time) => balancer.lags_until = until(time),
            Fault::Edit(_, weight) => balancer.edit(*weight),
            Fault::Newer(_, weight) => balancer.overtake(*weight, Generation(generation.0 + 3)),
            Fault::Restart(_) => balancer.restart(),
            Fault::BlackHole(_, time) => balancer.dark_until = until(time),
            Fault::CanaryDead(_, time) => balancer.canary_dead_until = until(time),
            Fault::AllDead(_, time) => balancer.all_dead_until = until(time),
            _ => {}
        }
    }

    /// A person sets a region's weight by hand.
    pub(super) fn set_by_hand(&mut self, region: &RegionName, reach: Reach) {
        if let Some(balancer) = self.balancers.get_mut(region) {
            balancer.edit(reach);
        }
    }
}

pub(super) fn rollback() -> Command {
    Command::Rollback { reason: "it looks wrong".to_owned() }
}

fn ask_rollback() -> Command {
    Command::AskRollback { reason: "it looks wrong".to_owned(), electors: electors() }
}

pub(super) fn approve() -> Command {
    Command::Approve { digest: None, electors: electors() }
}

/// Everybody who votes here.
fn electors() -> BTreeSet<String> {
    ["ada", "ben", "eve"].map(str::to_owned).into()
}

fn pause() -> Command {
    Command::Pause { reason: "lunch".to_owned() }
}
