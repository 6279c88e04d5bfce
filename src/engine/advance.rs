//! Steps forward: on evidence, by policy, or by a person. The only code that raises a weight.

use std::collections::BTreeMap;

use super::decide::{Answer, Turn};
use super::event::{Actor, Event};
use super::rollout::{Phase, Rollout};
use super::verdict::{Judgement, Outcome};
use super::{hooks, polled, why};
use crate::spec::plan::{Authority, CriterionId, OnUndecided};
use crate::units::{AnalysisName, Millis, RegionName, Weight};

/// A weight that is not read back for this long is said aloud.
pub(super) const SHIFT_MAX: Millis = Millis::from_secs(60);

/// ln 20: evidence for harm from which nothing is raised.
pub(super) const LOG_HARM_HOLD: f64 = 2.995_732_273_553_991;

/// What follows from the state alone, once an input has been taken in.
pub(super) fn follow_up(turn: &mut Turn) {
    match turn.state.phase {
        Phase::Preparing if !hooks::all_done(&turn.state) => hooks::start_due(turn),
        Phase::Preparing if why::closed(&turn.state, turn.now).is_some() => {}
        Phase::Preparing if why::idle_everywhere(&turn.state) && turn.state.paused.is_none() => {
            turn.record(Event::Prepared);
            enter(turn, (0, 0), None);
        }
        Phase::Shifting | Phase::Promoting | Phase::RollingBack => shift(turn),
        _ => {}
    }
}

fn shift(turn: &mut Turn) {
    if turn.state.all_confirmed() {
        match turn.state.phase {
            Phase::RollingBack => turn.record(Event::RolledBack),
            Phase::Promoting if !hooks::all_done(&turn.state) => hooks::start_due(turn),
            Phase::Promoting if !turn.state.is_held() => {
                let proven = turn.state.is_proven();
                turn.record(Event::Promoted { proven });
            }
            _ => {}
        }
    } else if !turn.state.overdue && turn.now.since(turn.state.phase_since) >= SHIFT_MAX {
        let late = turn.state.regions.iter().filter(|(_, region)| region.confirmed.is_none());
        let regions = late.map(|(name, _)| name.clone()).collect();
        turn.record(Event::ShiftOverdue { regions });
    }
}

/// The weights are confirmed and were judged just now: on, if nothing stands in the way.
pub(super) fn on_evidence(turn: &mut Turn, judgement: &Judgement) {
    pay_debts(turn, judgement);
    if !is_free(&turn.state, judgement) {
        return mark_undecided(turn, judgement);
    }
    if turn.state.clocks.bake < turn.state.step().bake {
        return;
    }
    if why::closed(&turn.state, turn.now).is_some() {
        // What is proven waits for its window only.
        if judgement.stage != Outcome::Pass {
            mark_undecided(turn, judgement);
        }
        return;
    }
    if !turn.state.at_last_step() {
        if enough_requests(&turn.state, judgement) {
            next(turn, None);
        }
        return;
    }
    if judgement.stage == Outcome::Pass {
        let last = turn.state.next_step().is_none();
        if last && !turn.state.owed.is_empty() {
            return mark_undecided(turn, judgement);
        }
        let stage = turn.state.stage;
        turn.record(Event::StagePassed { stage, judgement: Box::new(judgement.clone()) });
        return next(turn, None);
    }
    mark_undecided(turn, judgement);
    if turn.state.undecided {
        go_on_unproven(turn, judgement);
    }
}

/// Nothing holds: no pause, no dark region, no sign of harm, every region healthy and able to go back.
fn is_free(state: &Rollout, judgement: &Judgement) -> bool {
    state.paused.is_none()
        && judgement.breach.is_none()
        && judgement.hold.is_none()
        && judgement.log_harm < LOG_HARM_HOLD
        && !failed(judgement)
        && !polled::is_dark(state, judgement)
        && state.regions_well()
        && why::capacity(state).is_empty()
}

fn enough_requests(state: &Rollout, judgement: &Judgement) -> bool {
    why::requests(judgement).is_none_or(|requests| requests >= state.stage().min_requests)
}

fn mark_undecided(turn: &mut Turn, judgement: &Judgement) {
    let over =
        turn.state.at_last_step() && turn.state.clocks.elapsed >= turn.state.stage().max_duration;
    if over && !turn.state.undecided {
        let stage = turn.state.stage;
        turn.record(Event::StageUndecided { stage, judgement: Box::new(judgement.clone()) });
    }
}

/// `carry` and `proceed`: on while there is no sign of harm, recorded as not proven.
fn go_on_unproven(turn: &mut Turn, judgement: &Judgement) {
    let last = turn.state.next_step().is_none();
    let policy = turn.state.stage().on_undecided;
    let allowed = match policy {
        OnUndecided::Wait => false,
        OnUndecided::Carry => !last,
        OnUndecided::Proceed => !last || turn.state.owed.is_empty(),
    };
    if !allowed || !enough_requests(&turn.state, judgement) {
        return;
    }
    let open = unproven(&turn.state, Some(judgement));
    let (owed, skipped) =
        if policy == OnUndecided::Carry { (open, Vec::new()) } else { (Vec::new(), open) };
    let stage = turn.state.stage;
    turn.record(Event::StageNotProven { stage, owed, skipped, by: None });
    next(turn, None);
}

fn failed(judgement: &Judgement) -> bool {
    judgement.verdicts.iter().any(|verdict| !verdict.dry_run && verdict.outcome == Outcome::Fail)
}

/// Criteria of the current stage that decide, without a pass.
fn unproven(state: &Rollout, judgement: Option<&Judgement>) -> Vec<CriterionId> {
    let is_shown_only =
        |name: &AnalysisName| state.plan.analyses.get(name).is_some_and(|it| it.dry_run);
    let passed = |id: &CriterionId| {
        let mut verdicts = judgement.iter().flat_map(|judgement| &judgement.verdicts);
        verdicts.any(|verdict| verdict.criterion == *id && verdict.outcome == Outcome::Pass)
    };
    let decide = state.stage().criteria.iter().filter(|it| !is_shown_only(&it.analysis));
    decide.map(|criterion| &criterion.id).filter(|id| !passed(id)).cloned().collect()
}

/// Criteria that were owed and are proven now.
fn pay_debts(turn: &mut Turn, judgement: &Judgement) {
    let proven = |id: &&CriterionId| {
        let mut verdicts = judgement.verdicts.iter();
        verdicts.any(|verdict| verdict.criterion == **id && verdict.outcome == Outcome::Pass)
    };
    let criteria: Vec<_> = turn.state.owed.iter().filter(proven).cloned().collect();
    if !criteria.is_empty() {
        turn.record(Event::DebtPaid { criteria });
    }
}

/// On to the next step, the next stage's gate, or promotion.
fn next(turn: &mut Turn, by: Option<&Actor>) {
    match turn.state.next_step() {
        Some(next) => enter(turn, next, by),
        None => {
            let generation = turn.next_generation();
            turn.record(Event::PromotionStarted { generation });
        }
    }
}

fn enter(turn: &mut Turn, (stage, step): (usize, usize), by: Option<&Actor>) {
    let gate = turn.state.plan.stages[stage].gate.clone().filter(|_| step == 0);
    if let Some(gate) = gate
        && turn.state.phase != Phase::Gated
    {
        return turn.record(Event::GateReached { stage, gate });
    }
    let generation = turn.next_generation();
    let weights = weights(&turn.state, stage, step);
    // Whoever has weight is past copies, also where it was reached by hand.
    let mut mirrors = turn.state.plan.stages[stage].steps[step].mirrors.clone();
    mirrors.retain(|name, _| weights.get(name).is_some_and(|weight| weight.is_zero()));
    turn.record(Event::StepEntered { stage, step, generation, weights, mirrors, by: by.cloned() });
}

/// A stage whose gate was opened begins.
pub(super) fn begin_stage(turn: &mut Turn, stage: usize, by: &Actor) {
    enter(turn, (stage, 0), Some(by));
}

/// Canary weight of every region of the plan at a step; never lower than now.
fn weights(state: &Rollout, stage: usize, step: usize) -> BTreeMap<RegionName, Weight> {
    let wanted = &state.plan.stages[stage].steps[step].weights;
    let weight =
        |name: &RegionName, now: Weight| wanted.get(name).copied().unwrap_or_default().max(now);
    state
        .regions
        .iter()
        .map(|(name, region)| (name.clone(), weight(name, region.desired)))
        .collect()
}

/// A person says `promote`: the gate opens, or exactly one step forward.
pub(super) fn by_hand(turn: &mut Turn, by: &Actor) -> Answer {
    let state = &turn.state;
    if state.plan.authority == Authority::Observe {
        return Answer::Refused(
            "authority is observe: nothing is written to a load balancer".to_owned(),
        );
    }
    if let Some(reason) = why::closed(state, turn.now) {
        return Answer::Refused(reason.to_string());
    }
    match state.phase {
        Phase::Gated if !state.all_confirmed() => {
            Answer::Refused("the current weights are not read back yet".to_owned())
        }
        Phase::Gated => {
            if let Some(reason) = why::capacity(state).first() {
                return Answer::Refused(reason.to_string());
            }
            let stage = state.stage;
            turn.record(Event::GateOpened { stage, by: by.clone() });
            enter(turn, (stage, 0), Some(by));
            Answer::Accepted
        }
        Phase::Baking => skip(turn, by),
        Phase::Shifting => Answer::Refused("the current weights are not read back yet".to_owned()),
        Phase::Preparing => Answer::Refused("it is still preparing".to_owned()),
        _ => Answer::NothingToDo("every stage is done".to_owned()),
    }
}

/// Leaves the current step without proof, named as such.
fn skip(turn: &mut Turn, by: &Actor) -> Answer {
    if let Some(reason) = why::capacity(&turn.state).first() {
        return Answer::Refused(reason.to_string());
    }
    if turn.state.at_last_step() {
        let stage = turn.state.stage;
        let generation = turn.state.generation;
        let current = turn.state.judgement.as_ref().filter(|last| last.generation == generation);
        let mut skipped = unproven(&turn.state, current);
        if turn.state.next_step().is_none() {
            skipped.extend(turn.state.owed.iter().cloned());
        }
        turn.record(Event::StageNotProven {
            stage,
            owed: Vec::new(),
            skipped,
            by: Some(by.clone()),
        });
    }
    next(turn, Some(by));
    Answer::Accepted
}
