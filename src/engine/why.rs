//! Why it stands where it stands: everything that is in the way of the next step, derived from the state alone.

use super::advance::LOG_HARM_HOLD;
use super::event::Drift;
use super::reason::Reason;
use super::rollout::{Phase, RegionState, Rollout};
use super::verdict::{HoldEvidence, Judgement, Outcome, Undecided, Verdict};
use super::{approval, hooks, polled};
use crate::spec::plan::{Authority, OnFail};
use crate::spec::windows::Closed;
use crate::units::{Millis, Reach, RegionName, Timestamp, Weight};

/// Every reason, the most urgent first.
#[must_use]
pub fn why(state: &Rollout, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match state.phase {
        phase if phase.is_over() => return vec![Reason::Over],
        Phase::RollingBack => {
            let cause = state.cause.as_ref().map_or(String::new(), ToString::to_string);
            reasons.push(Reason::RollingBack { cause });
        }
        _ => {}
    }
    if state.quarantined.is_some() {
        reasons.push(Reason::Quarantined);
    }
    reasons.extend(approval::reason(state, now));
    if let Some(pause) = &state.paused {
        reasons.push(Reason::Paused { by: pause.by.clone(), reason: pause.reason.clone() });
    }
    if matches!(state.phase, Phase::Preparing | Phase::Promoting) {
        reasons.extend(hooks::reasons(state));
    }
    let bakes = state.phase == Phase::Baking && state.clocks.bake < state.step().bake;
    if !bakes {
        reasons.extend(closed(state, now));
    }
    match state.phase {
        Phase::Preparing => reasons.extend(preparing(state)),
        Phase::Gated if state.stage().approvals.is_some() => {}
        Phase::Gated => {
            let gate = state.stage().gate.clone().unwrap_or_default();
            reasons.push(Reason::Gate { stage: state.stage().name.clone(), gate });
        }
        Phase::Baking => reasons.extend(baking(state)),
        Phase::Shifting | Phase::Promoting => reasons.extend(capacity(state)),
        _ => {}
    }
    reasons.extend(unconfirmed(state));
    if state.plan.authority == Authority::Observe {
        reasons.push(Reason::ObserveOnly);
    }
    reasons
}

/// What windows and freezes say of the next raise: the regions that rise, for a whole stage where one begins.
pub(super) fn closed(state: &Rollout, now: Timestamp) -> Option<Reason> {
    let calendar = state.plan.policy.calendar();
    let (stage, step) = match state.phase {
        Phase::Preparing => (0, 0),
        Phase::Gated => (state.stage, 0),
        Phase::Baking => match state.next_step() {
            Some(next) => next,
            None => return closed_end(state, now),
        },
        _ => return None,
    };
    let next = state.plan.stages.get(stage)?;
    // A gate raises nothing; it is looked at again when it opens.
    if next.gate.is_some() && step == 0 && state.phase != Phase::Gated {
        return None;
    }
    let needed = next.steps.iter().map(|step| step.bake).fold(Millis::ZERO, Millis::plus);
    let needed = if step == 0 { needed } else { Millis::ZERO };
    let next = next.steps.get(step)?;
    let rises = |name: &&RegionName| {
        let now = state.regions.get(*name).map(RegionState::wanted);
        now < Some(next.reach(name))
    };
    let regions: Vec<_> = next.reached().filter(rises).cloned().collect();
    let Closed { what, until } = calendar.check(&regions, now, needed).err()?;
    Some(Reason::Closed { what, until })
}

/// What a promotion still raises.
fn closed_end(state: &Rollout, now: Timestamp) -> Option<Reason> {
    let below = |(name, region): (&RegionName, &RegionState)| {
        (region.desired < Weight::FULL).then(|| name.clone())
    };
    let regions: Vec<_> = state.regions.iter().filter_map(below).collect();
    let calendar = state.plan.policy.calendar();
    let Closed { what, until } = calendar.check(&regions, now, Millis::ZERO).err()?;
    Some(Reason::Closed { what, until })
}

/// Every region was read, its idle slot has no traffic, and it can take some.
pub(super) fn idle_everywhere(state: &Rollout) -> bool {
    preparing(state).is_empty()
}

fn preparing(state: &Rollout) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, region) in &state.regions {
        match region.seen() {
            None => {
                reasons.push(Reason::NotRead { region: name.clone(), note: region.note.clone() })
            }
            Some(_) if region.note.is_some() => {
                reasons.push(Reason::NotRead { region: name.clone(), note: region.note.clone() });
            }
            Some(Reach::NONE) => {}
            Some(_) if state.plan.authority == Authority::Observe => {}
            Some(reach) => {
                let weight = reach.weight.max(reach.mirror);
                reasons.push(Reason::IdleSlotHasTraffic { region: name.clone(), weight });
            }
        }
    }
    reasons.extend(capacity(state));
    reasons
}

/// Slots that could not take, or take back, the traffic of the next step.
pub(super) fn capacity(state: &Rollout) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, region) in &state.regions {
        let Some(backends) = region.backends else { continue };
        if backends.canary_healthy == 0 {
            reasons.push(Reason::NoHealthyBackend { region: name.clone() });
        }
        if backends.stable_healthy == 0 {
            reasons.push(Reason::WayBackTooNarrow { region: name.clone() });
        }
    }
    reasons
}

fn unconfirmed(state: &Rollout) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, region) in &state.regions {
        let region_name = name.clone();
        if region.edits > 1 && region.drift.is_some_and(|kind| kind != Drift::Restart) {
            let (region, edits) = (name.clone(), region.edits);
            reasons.push(Reason::Contested { region, edits });
        }
        if let Some(kind) = region.drift {
            reasons.push(Reason::Drifted {
                region: region_name,
                kind,
                observed: region.seen(),
                desired: region.wanted(),
            });
        } else if state.phase == Phase::Baking && region.observed.is_none() {
            reasons.push(Reason::NotRead { region: region_name, note: region.note.clone() });
        } else if state.phase != Phase::Preparing && region.confirmed != Some(state.generation) {
            let by_hand = state.plan.authority == Authority::RollbackOnly
                && region.seen().is_some_and(|reach| reach < region.wanted());
            reasons.push(if by_hand {
                Reason::RaiseByHand { region: region_name, desired: region.wanted() }
            } else {
                Reason::NotConfirmed {
                    region: region_name,
                    desired: region.wanted(),
                    observed: region.seen(),
                    note: region.note.clone(),
                }
            });
        }
    }
    reasons.sort_by_key(|reason| match reason {
        Reason::Contested { .. } => 0,
        Reason::Drifted { kind, .. } if *kind != Drift::Restart => 1,
        _ => 2,
    });
    reasons
}

fn baking(state: &Rollout) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if state.undecided {
        reasons.push(Reason::Undecided { stage: state.stage().name.clone() });
    }
    let current = state.judgement.as_ref().filter(|last| last.generation == state.generation);
    if let Some(judgement) = current {
        reasons.extend(dark(state, judgement));
        reasons.extend(held(judgement));
    }
    for (name, region) in state.regions.iter().filter(|(_, region)| region.unhealthy) {
        let _ = region;
        reasons.push(Reason::RegionUnhealthy { region: name.clone() });
    }
    reasons.extend(capacity(state));
    let remaining = state.step().bake.minus(state.clocks.bake);
    if remaining.0 > 0 {
        reasons.push(Reason::Baking { remaining });
    }
    match current {
        Some(judgement) if state.at_last_step() => reasons.extend(not_proven(state, judgement)),
        Some(judgement) => {
            let requests_min = state.stage().min_requests;
            if let Some(requests) = requests(judgement).filter(|&seen| seen < requests_min) {
                reasons.push(Reason::TooFewRequests { requests, requests_min });
            }
        }
        None => reasons.push(Reason::StageNotProven {
            why: "nothing was measured at these weights yet".to_owned(),
        }),
    }
    let last = state.next_step().is_none() && state.at_last_step();
    if last && !state.owed.is_empty() {
        reasons.push(Reason::Owed { criteria: state.owed.iter().cloned().collect() });
    }
    reasons
}

fn dark(state: &Rollout, judgement: &Judgement) -> Vec<Reason> {
    let policy = &state.plan.policy;
    let mut reasons = Vec::new();
    if let Some(cause) = polled::canary_dark(judgement) {
        let rolls_back = policy.on_missing.action == OnFail::Rollback;
        let left = policy.on_missing.after.minus(state.clocks.canary_dark);
        reasons.push(Reason::CanaryDark {
            what: cause.to_string(),
            rollback_in: rolls_back.then_some(left),
        });
    } else if let Some(region) = polled::not_looked_at(state, judgement) {
        let what = format!("{region}: not looked at yet");
        reasons.push(Reason::SourceDark { what, rollback_in: None });
    } else if polled::is_dark(state, judgement) {
        let rolls_back = policy.on_source_error.action == OnFail::Rollback;
        let left = policy.on_source_error.after.minus(state.clocks.source_dark);
        let dark = polled::source_dark(judgement);
        // Without traffic on either arm nothing counts down.
        let rollback_in = (rolls_back && dark.is_some()).then_some(left);
        let what = dark.unwrap_or_else(|| "no traffic on either arm".to_owned());
        reasons.push(Reason::SourceDark { what, rollback_in });
    }
    reasons
}

fn held(judgement: &Judgement) -> Option<Reason> {
    let what = if let Some(breach) = &judgement.breach {
        breach.text.clone()
    } else {
        match &judgement.hold {
            Some(HoldEvidence::SharedOutage(what)) => what.clone(),
            Some(HoldEvidence::TrafficDoesNotFollow { region, observed, confirmed }) => format!(
                "{region}: traffic does not follow the weight ({:.1} % of the requests, {:.1} % wanted)",
                observed * 100.0,
                confirmed * 100.0
            ),
            Some(HoldEvidence::SignOfHarm { log_harm }) => {
                format!("signs of harm, 1 in {:.0} by chance", log_harm.exp())
            }
            None if judgement.log_harm >= LOG_HARM_HOLD => {
                format!("signs of harm, 1 in {:.0} by chance", judgement.log_harm.exp())
            }
            None => judgement
                .verdicts
                .iter()
                .find(|verdict| !verdict.dry_run && verdict.outcome == Outcome::Fail)
                .map(|verdict| format!("{}: proven violated", verdict.text))?,
        }
    };
    Some(Reason::Held { what })
}

fn not_proven(state: &Rollout, judgement: &Judgement) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let stage: Vec<_> = state.stage().criteria.iter().map(|criterion| &criterion.id).collect();
    for verdict in judgement.verdicts.iter().filter(|verdict| !verdict.dry_run) {
        if stage.contains(&&verdict.criterion) && verdict.outcome != Outcome::Pass {
            let why = outcome_text(&verdict.outcome);
            reasons.push(Reason::NotProven { criterion: verdict.criterion.clone(), why });
        }
    }
    if reasons.is_empty() && judgement.stage != Outcome::Pass {
        reasons.push(Reason::StageNotProven { why: outcome_text(&judgement.stage) });
    }
    reasons
}

/// An outcome as a fragment for people.
#[must_use]
pub fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass => "proven".to_owned(),
        Outcome::Fail => "proven violated".to_owned(),
        Outcome::Undecided(Undecided::NotEnoughData { requests, requests_min, remaining }) => {
            let more = remaining
                .map_or(String::new(), |time| format!(", about {time} more at this traffic"));
            if requests < requests_min {
                format!("{requests} of at least {requests_min} requests{more}")
            } else {
                format!("not enough evidence from {requests} requests{more}")
            }
        }
        Outcome::Undecided(Undecided::NoData(why)) => format!("no data ({why:?})"),
        Outcome::Undecided(Undecided::SourceError(what)) => what.clone(),
        Outcome::Undecided(Undecided::CheckNotHeld(what)) => what.clone(),
        Outcome::Undecided(Undecided::RegionDiffers(region)) => {
            format!("{region} shows signs of harm")
        }
        Outcome::Undecided(Undecided::Assumption(what)) => what.clone(),
    }
}

/// What a verdict says, criterion by criterion; of two that read alike, with their stages. `None` without criteria.
#[must_use]
pub fn criteria_text(judgement: &Judgement) -> Option<String> {
    let criteria = || judgement.verdicts.iter().filter(|verdict| !verdict.is_trigger);
    let said = |verdict: &Verdict| {
        let alike = criteria().filter(|other| other.text == verdict.text).count();
        let name = if alike > 1 { verdict.criterion.to_string() } else { verdict.text.clone() };
        format!("{name}: {}", outcome_text(&verdict.outcome))
    };
    let parts: Vec<_> = criteria().map(said).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The fewest canary requests that any statistical verdict rests on; `None` without one.
pub(super) fn requests(judgement: &Judgement) -> Option<u64> {
    let totals = judgement.verdicts.iter().filter_map(|verdict| verdict.numbers.canary);
    totals.map(|(_, total)| total as u64).min()
}
