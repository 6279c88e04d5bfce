//! How a rollout ended, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::output::{BAD, GOOD, WARN, styled};
use crate::engine::event::Cause;
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::Judgement;
use crate::units::{RegionName, RolloutId, Version, Weight};

/// How a rollout ended or where it stands.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Which.
    pub rollout: RolloutId,
    /// The version that was rolled out.
    pub version: Version,
    /// Where it stands.
    pub phase: Phase,
    /// Something was changed.
    pub changed: bool,
    /// Every stage was proven.
    pub proven: bool,
    /// Canary weight by region, as read back.
    pub weights: BTreeMap<RegionName, Option<Weight>>,
    /// Why it went back.
    pub cause: Option<String>,
    /// The verdict that led there.
    pub judgement: Option<Judgement>,
    /// What to do next.
    pub next: Option<String>,
}

impl Summary {
    /// The summary of a state.
    #[must_use]
    pub fn of(state: &Rollout, next: Option<String>) -> Self {
        Self {
            rollout: state.id.clone(),
            version: state.version.clone(),
            phase: state.phase,
            changed: true,
            proven: state.phase == Phase::Promoted && state.is_proven(),
            weights: state
                .regions
                .iter()
                .map(|(name, region)| (name.clone(), region.observed))
                .collect(),
            cause: state.cause.as_ref().map(Cause::to_string),
            judgement: state.judgement.clone(),
            next,
        }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let (style, what) = match self.phase {
            Phase::Promoted | Phase::Retired => (GOOD, "promoted"),
            Phase::RolledBack => (BAD, "rolled back"),
            _ => (WARN, "not over"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", styled(style, what), self.rollout, self.version);
        if let Some(cause) = &self.cause {
            let _ = writeln!(text, "  why      {cause}");
        }
        for (region, weight) in &self.weights {
            let read = weight
                .map_or("not read".to_owned(), |weight| format!("{weight} canary, read back"));
            let _ = writeln!(text, "  {region:<18} {read}");
        }
        if self.phase == Phase::Promoted && !self.proven {
            let _ = writeln!(text, "  not every criterion was proven");
        }
        if let Some(next) = &self.next {
            let _ = writeln!(text, "  next     {next}");
        }
        text
    }
}
