//! What is going on, for everyone who looks: terminal, socket, log. The same values for all.

use serde::{Deserialize, Serialize};

use crate::engine::event::Event;
use crate::engine::reason::Reason;
use crate::engine::rollout::Rollout;
use crate::engine::verdict::Judgement;
use crate::engine::why::why;
use crate::units::{Seq, Timestamp};

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
        Self {
            at,
            seq,
            why: why(state, at),
            judgement: judgement.or_else(|| state.judgement.clone()),
            exposure: state.plan.exposure(&weights),
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
            (false, format!("{id}: rolled back; every region was read back at 0 %"))
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
        _ => return None,
    };
    Some(told)
}
