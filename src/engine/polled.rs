//! What follows from a judged look: ways back first, then the clocks.

use super::decide::Turn;
use super::event::{Cause, Clocks, Event};
use super::input::Polled;
use super::poll::{DarkArm, MissingReason};
use super::rollout::{Phase, RegionState, Rollout};
use super::verdict::{DataState, Judgement, Outcome};
use crate::spec::plan::OnFail;
use crate::units::{Millis, RegionName};

/// Takes a look in. One of an older generation says nothing about these weights.
pub(super) fn take(turn: &mut Turn, look: &Polled) {
    if !turn.state.phase.is_live() {
        return;
    }
    see_health(turn, look);
    if look.judgement.generation != turn.state.generation {
        return;
    }
    if let Some(poll) = &look.poll {
        turn.record(Event::Looked(Box::new(poll.clone())));
    }
    let judgement = &look.judgement;
    if let Some(breach) = judgement.breach.as_ref().filter(|breach| !breach.only_holds) {
        return turn.roll_back(Cause::Breach(breach.clone()), true, Some(judgement));
    }
    if says_something_new(turn.state.judgement.as_ref(), judgement) {
        turn.record(Event::Judged(Box::new(judgement.clone())));
    }
    let clocks = clocks_after(&turn.state, judgement, turn.now);
    if clocks != turn.state.clocks {
        turn.record(Event::Polled { clocks });
    }
    go_dark(turn, judgement);
    if turn.state.phase == Phase::Baking {
        super::advance::on_evidence(turn, judgement);
    }
}

fn see_health(turn: &mut Turn, look: &Polled) {
    for (name, &healthy) in &look.health {
        let known = turn.state.regions.get(name).is_none_or(|region| region.unhealthy != healthy);
        if !known {
            turn.record(Event::RegionHealth { region: name.clone(), healthy });
        }
    }
}

/// Only the outcome counts here; numbers move at every look.
fn says_something_new(before: Option<&Judgement>, now: &Judgement) -> bool {
    let kind = |outcome: &Outcome| std::mem::discriminant(outcome);
    let Some(before) = before else { return true };
    before.generation != now.generation
        || kind(&before.stage) != kind(&now.stage)
        || before.hold.as_ref().map(std::mem::discriminant)
            != now.hold.as_ref().map(std::mem::discriminant)
        || before.breach.is_some() != now.breach.is_some()
        || before.data != now.data
        || before.verdicts.len() != now.verdicts.len()
        || before
            .verdicts
            .iter()
            .zip(&now.verdicts)
            .any(|(a, b)| kind(&a.outcome) != kind(&b.outcome))
}

/// At most one poll interval is added per look, whatever the clock says.
fn clocks_after(state: &Rollout, judgement: &Judgement, now: crate::units::Timestamp) -> Clocks {
    let before = &state.clocks;
    let passed = before.polled_at.map_or(Millis::ZERO, |at| now.since(at).min(state.poll()));
    let settled = state.phase == Phase::Baking && state.paused.is_none();
    let add = |time: Millis, when: bool| if when { time.plus(passed) } else { time };
    let in_a_row = |time: Millis, when: bool| if when { time.plus(passed) } else { Millis::ZERO };
    let well = !is_dark(state, judgement) && state.regions_well();
    Clocks {
        bake: add(before.bake, settled && well),
        elapsed: add(before.elapsed, settled),
        canary_dark: in_a_row(before.canary_dark, canary_dark(judgement).is_some()),
        source_dark: in_a_row(before.source_dark, source_dark(judgement).is_some()),
        polled_at: Some(now),
    }
}

/// Some region is without data, or was not looked at since it has canary weight.
pub(super) fn is_dark(state: &Rollout, judgement: &Judgement) -> bool {
    judgement.data.values().any(|data| *data != DataState::Present)
        || not_looked_at(state, judgement).is_some()
}

/// A region with canary weight that the judgement says nothing of.
pub(super) fn not_looked_at<'a>(
    state: &'a Rollout,
    judgement: &Judgement,
) -> Option<&'a RegionName> {
    let exposed = |region: &RegionState| !region.seen().unwrap_or(region.wanted()).is_none();
    let mut regions = state.regions.iter();
    let found =
        regions.find(|(name, region)| exposed(region) && !judgement.data.contains_key(*name));
    found.map(|(name, _)| name)
}

/// The canary alone has no data somewhere.
pub(super) fn canary_dark(judgement: &Judgement) -> Option<Cause> {
    judgement.data.iter().find_map(|(region, data)| match data {
        DataState::Dark { arm: DarkArm::Canary, why, analysis } => {
            Some(Cause::NoData { region: region.clone(), analysis: analysis.clone(), why: *why })
        }
        _ => None,
    })
}

/// Both arms or stable have no data somewhere, or the source does not answer. No traffic at all is not the source's fault.
pub(super) fn source_dark(judgement: &Judgement) -> Option<String> {
    judgement.data.iter().find_map(|(region, data)| match data {
        DataState::SourceError(what) => Some(format!("{region}: {what}")),
        DataState::Dark { arm: DarkArm::Both, why: MissingReason::NoTraffic, .. } => None,
        DataState::Dark { arm: DarkArm::Both | DarkArm::Stable, why, analysis } => {
            Some(format!("{region}: {analysis}: {why:?}"))
        }
        _ => None,
    })
}

/// Missing data holds at once, is said after a while, and goes back where the pipeline says so.
fn go_dark(turn: &mut Turn, judgement: &Judgement) {
    let policy = turn.state.plan.policy.clone();
    let clocks = turn.state.clocks.clone();
    if let Some(cause) = canary_dark(judgement) {
        let overdue =
            clocks.canary_dark >= policy.on_missing.after && clocks.canary_dark > Millis::ZERO;
        if overdue && policy.on_missing.action == OnFail::Rollback {
            return turn.roll_back(cause, true, Some(judgement));
        }
        if overdue && !turn.state.data_overdue {
            turn.record(Event::DataOverdue { what: cause.to_string() });
        }
    }
    if let Some(what) = source_dark(judgement) {
        let rule = policy.on_source_error;
        if clocks.source_dark >= rule.page_after && !turn.state.data_overdue {
            turn.record(Event::DataOverdue { what: what.clone() });
        }
        if clocks.source_dark >= rule.after && rule.action == OnFail::Rollback {
            turn.roll_back(Cause::SourceDark(what), true, Some(judgement));
        }
    }
}
