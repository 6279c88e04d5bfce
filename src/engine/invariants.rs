//! What is never true at any time. Checked in simulation, and with assertions in release builds.

use super::event::Event;
use super::hooks::Hook;
use super::outstanding::{Action, Risk, outstanding};
use super::rollout::{Phase, Rollout};
use super::verdict::Outcome;
use crate::units::{Reach, RegionName, Weight};

/// Every invariant that a state violates; empty for a right one.
#[must_use]
pub fn violations(state: &Rollout) -> Vec<String> {
    let mut found = Vec::new();
    for (name, region) in &state.regions {
        let allowed = allowed(state, name);
        if region.wanted() > allowed {
            found.push(format!(
                "{name}: {} wanted, {allowed} allowed in {:?}",
                region.wanted(),
                state.phase
            ));
        }
    }
    let goes_back = matches!(state.phase, Phase::RollingBack | Phase::RolledBack);
    for action in outstanding(state) {
        if let Action::Set { region, risk: Risk::Adding, .. } = &action {
            if goes_back {
                found.push(format!("{region}: weight would rise during rollback"));
            }
            if state.is_held() {
                found.push(format!("{region}: weight would rise while paused"));
            }
            let backends = state.regions.get(region).and_then(|region| region.backends);
            if backends.is_some_and(|backends| backends.canary_healthy == 0) {
                found
                    .push(format!("{region}: weight would go to a pool without a healthy backend"));
            }
        }
    }
    if state.phase == Phase::Promoted && !state.owed.is_empty() {
        found.push("promoted with debts".to_owned());
    }
    if goes_back != state.cause.is_some() {
        found.push("a rollback without a cause, or a cause without a rollback".to_owned());
    }
    found
}

/// The most that the current phase and step allow in a region.
fn allowed(state: &Rollout, region: &RegionName) -> Reach {
    match state.phase {
        Phase::Preparing | Phase::RollingBack | Phase::RolledBack => Reach::NONE,
        Phase::Promoting | Phase::Promoted | Phase::Retired => Weight::FULL.into(),
        Phase::Gated if state.stage == 0 => Reach::NONE,
        Phase::Gated => {
            let last = state.plan.stages[state.stage - 1].steps.last();
            last.map_or(Reach::NONE, |step| step.reach(region))
        }
        Phase::Shifting | Phase::Baking => state.step().reach(region),
    }
}

/// What must never follow from a turn, seen from the state before it.
#[must_use]
pub fn violations_of_turn(before: &Rollout, events: &[Event]) -> Vec<String> {
    let mut found = Vec::new();
    let mut state = before.clone();
    let mut licence = Licence::default();
    for event in events {
        licence.see(event, &state);
        match event {
            Event::StepEntered { generation, by, .. } => {
                check_advance(&mut found, &state, *generation, by.is_some(), &licence);
            }
            Event::PromotionStarted { generation } => {
                check_advance(&mut found, &state, *generation, licence.by_person, &licence);
            }
            Event::RollbackStarted { generation, .. } | Event::Resumed { generation, .. }
                if *generation <= state.generation =>
            {
                found.push("a change of weights under an old generation".to_owned());
            }
            Event::Promoted { .. } if !state.all_confirmed() => {
                found.push("promoted without a fresh read-back".to_owned());
            }
            Event::Prepared | Event::Promoted { .. } if !super::hooks::all_done(&state) => {
                found.push("on its way forward before a hook was done".to_owned());
            }
            Event::HookStarted { region, hook, .. } => {
                found.extend(wrong_place(&state, region, *hook));
            }
            Event::RolledBack if !state.all_confirmed() => {
                found.push("rolled back without a read-back of every region".to_owned());
            }
            _ => {}
        }
        state.apply(event, crate::units::Timestamp(0));
    }
    found
}

/// Why a hook must not be run there now: a cohort has its region's slots, and only a slot that serves nobody is changed.
fn wrong_place(state: &Rollout, region: &RegionName, hook: Hook) -> Option<String> {
    if !state.plan.runs(hook, region) {
        return Some(format!("{hook} in {region}, which has no slots of its own"));
    }
    let mut users = std::iter::once(region).chain(state.plan.cohorts_of(region));
    let serves = |user: &&RegionName| {
        state.regions.get(*user).is_some_and(|it| it.seen() != Some(Reach::NONE))
    };
    let served = users.find(serves).filter(|_| hook == Hook::Deploy)?;
    Some(format!("{hook} in {region}, whose slot may serve {served}"))
}

/// What was recorded in this turn that allows a step forward.
#[derive(Default)]
struct Licence {
    passed: bool,
    by_policy: bool,
    by_person: bool,
}

impl Licence {
    fn see(&mut self, event: &Event, state: &Rollout) {
        match event {
            Event::StagePassed { judgement, .. } => {
                self.passed =
                    judgement.generation == state.generation && judgement.stage == Outcome::Pass;
            }
            Event::StageNotProven { by, .. } => {
                self.by_policy = by.is_none();
                self.by_person = by.is_some();
            }
            Event::GateOpened { .. } => self.by_person = true,
            _ => {}
        }
    }
}

fn check_advance(
    found: &mut Vec<String>,
    state: &Rollout,
    generation: crate::units::Generation,
    by_person: bool,
    licence: &Licence,
) {
    if generation <= state.generation {
        found.push("a change of weights under an old generation".to_owned());
    }
    if matches!(state.phase, Phase::Preparing | Phase::Gated) || by_person {
        return;
    }
    let within_stage = !state.at_last_step();
    if !(within_stage || licence.passed || licence.by_policy) {
        found.push("a stage was left without a fresh pass".to_owned());
    }
    if state.phase != Phase::Baking {
        found.push(format!("a step forward from {:?}", state.phase));
    }
    if state.clocks.bake < state.step().bake {
        found.push(format!("a bake cut short: {} of {}", state.clocks.bake, state.step().bake));
    }
}
