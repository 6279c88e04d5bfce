//! What has still to be done: desired minus confirmed. Derived at every turn, never stored.

use serde::{Deserialize, Serialize};

use super::event::{ArmBackends, Drift};
use super::rollout::{Phase, RegionState, Rollout};
use crate::spec::plan::Authority;
use crate::units::{Generation, RegionName, Timestamp, Weight};

/// Something to do at a region's load balancers. Absolute and repeatable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look before anything else.
    Read {
        /// Where.
        region: RegionName,
    },
    /// Set the canary's weight.
    Set {
        /// Where.
        region: RegionName,
        /// To what.
        weight: Weight,
        /// Share of the requests that it gets copies of.
        mirror: Weight,
        /// Under which generation.
        generation: Generation,
        /// What it does to the users' risk.
        risk: Risk,
    },
}

impl Action {
    /// Where it is done.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        match self {
            Self::Read { region } | Self::Set { region, .. } => region,
        }
    }
}

/// What a change does to the users' risk. Windows, approvals and budgets only ever stand in the way of the second kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Fewer users see the canary, or as many.
    Reducing,
    /// More users see it.
    Adding,
}

/// Everything that has still to be done, by region. Empty when the world is as wanted.
#[must_use]
pub fn outstanding(state: &Rollout) -> Vec<Action> {
    state.regions.keys().filter_map(|name| action(state, name)).collect()
}

fn action(state: &Rollout, name: &RegionName) -> Option<Action> {
    let region = &state.regions[name];
    let Some(seen) = region.seen() else {
        return (!state.phase.is_over()).then(|| Action::Read { region: name.clone() });
    };
    let at_rest = state.phase.is_over() || state.phase == Phase::Preparing;
    if at_rest || region.confirmed == Some(state.generation) {
        return None;
    }
    let risk = if region.wanted() > seen { Risk::Adding } else { Risk::Reducing };
    let waits_for_person = region.drift.is_some_and(|kind| kind != Drift::Restart);
    if waits_for_person && state.phase != Phase::RollingBack {
        return None;
    }
    let allowed = match state.plan.authority {
        Authority::Observe => false,
        Authority::RollbackOnly => risk == Risk::Reducing && seen > region.wanted(),
        Authority::Full => risk == Risk::Reducing || may_raise(state, region),
    };
    allowed.then(|| Action::Set {
        region: name.clone(),
        weight: region.desired,
        mirror: region.mirror,
        generation: state.generation,
        risk,
    })
}

/// Raises wait for a pause to end, and for backends on the way there and on the way back. Lowering waits for nothing.
fn may_raise(state: &Rollout, region: &RegionState) -> bool {
    let can_take =
        |backends: ArmBackends| backends.canary_healthy > 0 && backends.stable_healthy > 0;
    !state.is_held() && region.backends.is_none_or(can_take)
}

/// When something would change although nothing happens: the driver sets one timer.
#[must_use]
pub fn wake_at(state: &Rollout, now: Timestamp) -> Option<Timestamp> {
    match state.phase {
        Phase::Shifting | Phase::Promoting | Phase::RollingBack if !state.overdue => {
            Some(state.phase_since.plus(super::advance::SHIFT_MAX).max(now))
        }
        _ => None,
    }
}
