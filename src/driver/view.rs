//! What is going on, for everyone who looks: terminal, socket, log. The same values for all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::event::Event;
use crate::engine::hooks::Standing;
use crate::engine::reason::Reason;
use crate::engine::rollout::{Phase, RegionState, Rollout};
use crate::engine::verdict::Judgement;
use crate::engine::why::{criteria_text, why};
use crate::units::{Millis, Reach, RegionName, Seq, Timestamp};

/// A rollout as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// When this was true.
    pub at: Timestamp,
    /// Position of the newest fact in the service's stream.
    pub seq: Seq,
    /// The whole state.
    pub rollout: Rollout,
    /// Why it is not further.
    pub why: Vec<Reason>,
    /// The newest verdict, recorded or not.
    pub judgement: Option<Judgement>,
    /// Share of all users that the canary reaches by the confirmed weights, 0 to 1.
    pub exposure: f64,
    /// Calls of load balancers by region, since it is driven here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<RegionName, Calls>,
}

/// Calls of a region's load balancers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// How many ended.
    pub ended: u64,
    /// How long they took together.
    pub took: Millis,
}

impl View {
    /// The view of a state.
    #[must_use]
    pub fn of(state: &Rollout, at: Timestamp, seq: Seq, judgement: Option<Judgement>) -> Self {
        let observed =
            |(name, region): (&crate::units::RegionName, &crate::engine::rollout::RegionState)| {
                (name.clone(), region.observed.unwrap_or(region.desired))
            };
        let weights = state.regions.iter().map(observed).collect();
        let judgement = judgement.or_else(|| state.judgement.clone());
        // Numbers move at every look, and only some looks are recorded: reasons are given with the newest.
        let mut newest = state.clone();
        newest.judgement.clone_from(&judgement);
        Self {
            at,
            seq,
            why: why(&newest, at),
            judgement,
            exposure: state.plan.exposure(&weights),
            calls: BTreeMap::new(),
            rollout: state.clone(),
        }
    }
}

/// What people are told of a fact, and whether somebody has to act; `None` for what only the log needs.
#[must_use]
pub fn notice(state: &Rollout, event: &Event) -> Option<(bool, String)> {
    let id = &state.id;
    let told = match event {
        Event::RollbackStarted { cause, .. } => (true, format!("{id}: rolling back: {cause}")),
        Event::RolledBack => {
            let asked = state.rollback_asked.as_ref().zip(state.ended_at);
            let took = asked.map_or(String::new(), |(asked, ended)| {
                let longest = state.plan.manual_rollback.maximum_rollback_time;
                format!(", {} after it was asked for ({longest} at most)", ended.since(asked.at))
            });
            (false, format!("{id}: rolled back; every region was read back at 0 %{took}"))
        }
        Event::Promoted { proven: true } => {
            (false, format!("{id}: {} is stable now", state.version))
        }
        Event::Promoted { proven: false } => (
            false,
            format!("{id}: {} is stable now; not every criterion was proven", state.version),
        ),
        Event::DriftFound { region, observed, desired, .. } => (
            true,
            format!(
                "{id}: {region}: {observed} read, {desired} wanted, and nobody here changed it"
            ),
        ),
        Event::ShiftOverdue { regions } => {
            let names: Vec<_> = regions.iter().map(ToString::to_string).collect();
            (true, format!("{id}: weights are not confirmed in {}", names.join(", ")))
        }
        Event::DataOverdue { what } => (true, format!("{id}: {what}")),
        Event::StageUndecided { stage, .. } => {
            let name = &state.plan.stages[*stage].name;
            (true, format!("{id}: stage {name} reached its longest time undecided"))
        }
        Event::GateReached { gate, .. } => (true, format!("{id}: waits for a person: {gate}")),
        Event::Paused { by, reason } => (false, format!("{id}: paused by {}: {reason}", by.name)),
        Event::RollbackAsked { by, reason } => (
            true,
            format!(
                "{id}: {} asks to roll back: {reason}; answer with `tidegate approve {id}`",
                by.name
            ),
        ),
        Event::ApprovalTimedOut { proceeds: true } => {
            (true, format!("{id}: nobody else answered the request to roll back: it goes back"))
        }
        Event::ApprovalTimedOut { proceeds: false } => {
            (true, format!("{id}: nobody else answered the request to roll back: it stays paused"))
        }
        Event::RollbackOverdue { after } => {
            (true, format!("{id}: not rolled back {after} after it was asked for"))
        }
        Event::GlassBroken { by, region, action, reason } => (
            true,
            format!(
                "{id}: {} broke the glass of {region}: {action}: {reason}; somebody else: `tidegate review {}`",
                by.name, id.service
            ),
        ),
        Event::Frozen { by, reason } => {
            (true, format!("{}: frozen by {}: {reason}", id.service, by.name))
        }
        Event::Quarantined { panics } => (
            true,
            format!(
                "{id}: in quarantine after {panics} panics; the weights stay: release or rollback"
            ),
        ),
        _ => return None,
    };
    Some(told)
}

/// What who is told of a fact wants to know besides: who is affected now, why, what Tidegate does, what one may do.
#[must_use]
pub fn details(state: &Rollout, event: &Event, at: Timestamp) -> Vec<String> {
    let weight = |(name, region): (&RegionName, &RegionState)| {
        let read = region.seen().map_or("unknown".to_owned(), |reach| reach.to_string());
        format!("{name} {read}")
    };
    let weights: Vec<_> = state.regions.iter().map(weight).collect();
    let why = match event {
        Event::RollbackStarted { cause, .. } => Some(cause.to_string()),
        _ => why(state, at).first().map(ToString::to_string),
    };
    let id = &state.id;
    let (does, may) = match state.phase {
        Phase::RollingBack => (
            "takes the canary out in every region",
            format!("tidegate watch --service {}", id.service),
        ),
        Phase::RolledBack => ("is done", format!("tidegate history {}", id.service)),
        Phase::Promoted | Phase::Retired => ("is done", format!("tidegate undo {}", id.service)),
        _ if state.rollback_asked.is_some() => {
            ("raises nothing, and waits for a second person", format!("tidegate approve {id}"))
        }
        _ if state.paused.is_some() => {
            ("raises nothing", format!("tidegate resume {id}, or rollback"))
        }
        _ => (
            "raises nothing that is not proven",
            format!("tidegate why, or tidegate rollback {id}"),
        ),
    };
    let why = why.map(|why| format!("why: {why}"));
    let lines = [
        Some(format!("canary weights as read back: {}", weights.join(", "))),
        why,
        Some(format!("Tidegate {does}")),
        Some(format!("you may: {may}")),
    ];
    lines.into_iter().flatten().collect()
}

/// Where a fact happened: its own region, or all of the rollout's.
#[must_use]
pub fn places(state: &Rollout, event: &Event) -> Vec<RegionName> {
    match event {
        Event::DriftFound { region, .. } | Event::GlassBroken { region, .. } => {
            vec![region.clone()]
        }
        Event::ShiftOverdue { regions } => regions.clone(),
        _ => state.regions.keys().cloned().collect(),
    }
}

/// One line about a fact, for people who follow along; `None` for what would only be noise.
#[must_use]
pub fn line(state: &Rollout, event: &Event) -> Option<String> {
    let stage_name =
        |stage: usize| state.plan.stages.get(stage).map_or("?", |stage| stage.name.as_str());
    let text = match event {
        Event::Started(started) => {
            format!("{}: {} -> {}", state.id, started.stable_version, started.version)
        }
        Event::Prepared => "prepared: the idle slot has no traffic and healthy backends".to_owned(),
        Event::GateReached { stage, gate } => {
            format!("{}: waits for a person: {gate}", stage_name(*stage))
        }
        Event::GateOpened { stage, by } => {
            format!("{}: gate opened by {}", stage_name(*stage), by.name)
        }
        Event::StepEntered { stage, weights, mirrors, by, .. } => {
            let wanted = weights.iter().map(|(region, weight)| {
                let mirror = mirrors.get(region).copied().unwrap_or_default();
                format!("{region} {}", Reach { weight: *weight, mirror })
            });
            let shown: Vec<_> = wanted.collect();
            let by = by.as_ref().map_or(String::new(), |by| format!(" (by {})", by.name));
            format!("{}: wants {}{by}", stage_name(*stage), shown.join(", "))
        }
        Event::RegionRead { region, weight, mirror, confirmed: Some(_), .. } => {
            format!("{region}: {} read back", Reach { weight: *weight, mirror: *mirror })
        }
        Event::EffectUnknown { region, what, .. } => format!("{region}: no answer: {what}"),
        Event::RegionHealth { region, healthy: true } => format!("{region}: healthy again"),
        Event::RegionHealth { region, healthy: false } => {
            format!("{region}: its health probe fails")
        }
        Event::Judged(judgement) => judged_line(judgement)?,
        Event::StagePassed { stage, judgement } => {
            format!(
                "{}: proven; {}",
                stage_name(*stage),
                judged_line(judgement).unwrap_or_default()
            )
        }
        Event::StageNotProven { stage, skipped, owed, by } => {
            let who = by.as_ref().map_or("policy", |by| by.name.as_str());
            format!(
                "{}: left without proof by {who} ({} let through, {} owed)",
                stage_name(*stage),
                skipped.len(),
                owed.len()
            )
        }
        Event::DebtPaid { criteria } => {
            let names: Vec<_> = criteria.iter().map(ToString::to_string).collect();
            format!("now proven: {}", names.join(", "))
        }
        Event::Resumed { by, .. } => format!("resumed by {}", by.name),
        Event::PromotionStarted { .. } => {
            "every stage is done; confirming the final weights".to_owned()
        }
        Event::Recovered => "took up where it stood".to_owned(),
        Event::Queued(next) => format!("{} begins when this is over", next.version),
        Event::Unqueued { reason } => format!("nothing waits any more: {reason}"),
        Event::HookStarted { region, hook, .. } => format!("{region}: hook {hook} begins"),
        Event::HookEnded { region, hook, standing, .. } => match standing {
            Standing::Done => format!("{region}: hook {hook} is done"),
            Standing::Failed(what) | Standing::Unknown(what) => {
                format!("{region}: hook {hook}: {what}")
            }
            Standing::Started => return None,
        },
        Event::Released { by } => format!("released from quarantine by {}", by.name),
        _ => return people_line(event).or_else(|| notice(state, event).map(|(_, text)| text)),
    };
    Some(text)
}

/// The same for what people say to each other.
fn people_line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Approved { by, .. } => format!("approved by {}", by.name),
        Event::ApprovalsDropped { names, .. } => {
            format!("approvals that no longer count: {}", names.join(", "))
        }
        Event::RollbackWithdrawn { by } => format!("{} no longer asks to roll back", by.name),
        Event::Reviewed { by, note } => format!("reviewed by {}: {note}", by.name),
        Event::Thawed { by } => format!("no longer frozen, by {}", by.name),
        _ => return None,
    })
}

/// What a verdict says, criterion by criterion; triggers only when they are proven.
fn judged_line(judgement: &Judgement) -> Option<String> {
    let dark = judgement
        .data
        .iter()
        .find(|(_, data)| **data != crate::engine::verdict::DataState::Present);
    if let Some((region, data)) = dark {
        return Some(format!("{region}: no data: {data:?}"));
    }
    criteria_text(judgement)
}
