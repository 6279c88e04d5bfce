//! Promises that the world itself can check, whatever the engine believes.

use std::collections::BTreeMap;

use super::balancer::Balancer;
use super::recorded::Recorded;
use super::world::World;
use crate::engine::event::{Cause, Drift, Event};
use crate::engine::rollout::{Phase, Rollout};
use crate::spec::plan::{Authority, Hook};
use crate::units::{Generation, Millis, Reach, RegionName, Timestamp, Weight};

/// What was promised and is being watched.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Promises that were broken.
    pub(super) violations: Vec<String>,
    /// Generation that every look really had, and whether it proved the stage, by its mark.
    pub(super) looks: BTreeMap<Timestamp, (Generation, bool)>,
    /// Somebody was told that it goes back.
    pub(super) rollback_told: bool,
    /// Real time at the confirmed weights of this step.
    held: Millis,
    /// A person let the current step go without its bake.
    by_person: bool,
}

impl Checks {
    /// Real time passes in this state.
    pub(super) fn pass(&mut self, state: &Rollout, time: Millis) {
        if state.phase == Phase::Baking && state.paused.is_none() {
            self.held = self.held.plus(time);
        }
    }

    /// A fact is about to be recorded.
    pub(super) fn fact(&mut self, state: &Rollout, event: &Event, world: &World) {
        match event {
            Event::RegionRead { region, weight, mirror, confirmed: Some(_), .. } => {
                let reach = Reach { weight: *weight, mirror: *mirror };
                self.expect_weight(state, world, region, reach, "confirmed");
            }
            Event::Prepared => self.expect_done(state, world, &[Hook::Deploy]),
            Event::RolledBack => self.expect_weights(state, world, Weight::ZERO, "rolled back"),
            Event::Promoted { .. } => {
                self.expect_weights(state, world, Weight::FULL, "promoted");
                self.expect_done(state, world, &[Hook::Persist, Hook::Promote]);
            }
            Event::StagePassed { judgement, .. } => match self.looks.get(&judgement.at) {
                Some((generation, _)) if *generation != state.generation => {
                    self.violations.push("a stage passed on a look at other weights".to_owned());
                }
                Some((_, true)) => {}
                _ => {
                    self.violations.push("a stage passed on a look that proved nothing".to_owned())
                }
            },
            Event::DriftFound { region, kind, .. } => {
                self.held = Millis::ZERO;
                // A reading from before the first write looks like a restart, and is answered as harmlessly.
                if *kind != Drift::Restart {
                    self.expect_touched(world, region);
                }
            }
            // One that is under way already begins again under a newer generation, for the same cause.
            Event::RollbackStarted { cause: Cause::HandEdit { region }, .. }
                if state.phase != Phase::RollingBack =>
            {
                self.expect_touched(world, region);
            }
            Event::StageNotProven { by: Some(_), .. } => self.by_person = true,
            Event::StepEntered { by, .. } => self.leave_step(state, by.is_some()),
            Event::PromotionStarted { .. } => self.leave_step(state, false),
            _ => {}
        }
    }

    fn expect_done(&mut self, state: &Rollout, world: &World, hooks: &[Hook]) {
        let wanted = |hook: &&Hook| {
            state.plan.authority == Authority::Full && state.plan.hooks.contains(hook)
        };
        for hook in hooks.iter().filter(wanted) {
            for region in state.regions.keys().filter(|name| state.plan.runs(*hook, name)) {
                if !world.programs.have_done(region, *hook) {
                    self.violations.push(format!("forward, but {hook} is not done in {region}"));
                }
            }
        }
    }

    fn expect_touched(&mut self, world: &World, region: &RegionName) {
        if !world.balancers[region].touched {
            self.violations.push(format!("a change in {region} that nobody made"));
        }
    }

    fn leave_step(&mut self, state: &Rollout, by_person: bool) {
        let by_person = by_person || std::mem::take(&mut self.by_person);
        if state.phase == Phase::Baking && !by_person && self.held < state.step().bake {
            let text = format!("a bake of {} after {} of real time", state.step().bake, self.held);
            self.violations.push(text);
        }
        self.held = Millis::ZERO;
    }

    fn expect_weights(&mut self, state: &Rollout, world: &World, weight: Weight, what: &str) {
        for name in state.regions.keys() {
            self.expect_weight(state, world, name, weight.into(), what);
        }
    }

    /// The balancer really has this weight, unless somebody else was there since our last write.
    fn expect_weight(
        &mut self,
        state: &Rollout,
        world: &World,
        region: &RegionName,
        reach: Reach,
        what: &str,
    ) {
        let balancer = &world.balancers[region];
        if balancer.reach != reach && !balancer.touched {
            let (phase, real) = (state.phase, balancer.reach);
            let text = format!("{what} at {reach} in {region}, but it is {real} ({phase:?})");
            self.violations.push(text);
        }
    }

    /// A write is about to be sent.
    pub(super) fn write(
        &mut self,
        state: &Rollout,
        recorded: &Recorded,
        balancer: &Balancer,
        region: &RegionName,
        reach: Reach,
        generation: Generation,
    ) {
        let mut broken = |text: &str| {
            self.violations.push(format!("{region} is set to {reach} under {generation}: {text}"));
        };
        if recorded.intent(generation, region) != Some(reach) {
            broken("not what was recorded last");
        }
        let raises = reach > balancer.reach && !balancer.touched;
        match state.plan.authority {
            Authority::Observe => broken("although it only observes"),
            Authority::RollbackOnly if raises => broken("a raise by hand alone"),
            _ => {}
        }
        if raises && state.is_held() {
            broken("a raise while paused");
        }
        if state.phase == Phase::RollingBack && !reach.is_none() {
            broken("not back");
        }
        if raises && state.regions[region].backends.is_some_and(|it| it.canary_healthy == 0) {
            broken("no backend is healthy");
        }
    }
}
