//! What one analysis in one region remembers.

use serde::{Deserialize, Serialize};

use super::{INGESTION, LookContext};
use crate::metrics::increments::Counters;
use crate::spec::plan::{Analysis, Measurement};
use crate::units::Timestamp;

/// Expected requests without a single one, from which on an arm counts as without traffic: e⁻¹⁰ is no accident.
const EXPECTED_REQUESTS_MAX: f64 = 10.0;

/// What one analysis in one region remembers between looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub canary: ArmMemory,
    pub stable: ArmMemory,
    /// When the check was last asked.
    pub asked: Option<Timestamp>,
    /// End of the last summed window.
    pub summed: Option<Timestamp>,
}

/// What is remembered of one arm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ArmMemory {
    pub counters: Counters,
    /// Newest sample ever, of whatever kind.
    pub newest: Option<Timestamp>,
    /// Requests that the other arm's traffic made likely since this one had its last.
    pub expected: f64,
    /// The last look that found a request, or the first look of all.
    pub busy: Option<Timestamp>,
}

/// What has to be asked in this look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due {
    /// The check is to be asked now.
    pub check: bool,
    /// Window of sums: start (`None` on the first look) and end.
    pub sums: (Option<Timestamp>, Timestamp),
}

impl Memory {
    pub(super) fn plan(&self, analysis: &Analysis, context: &LookContext<'_>) -> Due {
        let check = match &analysis.measurement {
            Measurement::Check { every, .. } => {
                let due = self.asked.is_none_or(|asked| context.at >= asked.plus(*every));
                context.after.is_some() && due
            }
            _ => false,
        };
        let end = context.at.minus(INGESTION);
        let start = self.summed.filter(|start| context.after.is_some() && *start < end);
        Due { check, sums: (start, end) }
    }

    pub(super) fn reset(&mut self) {
        self.canary.reset();
        self.stable.reset();
        self.summed = None;
    }
}

impl ArmMemory {
    /// Forgets origins and what was expected; not when samples were last seen.
    fn reset(&mut self) {
        self.counters.reset();
        self.expected = 0.0;
        self.busy = None;
    }

    /// Takes note of the newest sample; whether it is newer than any before.
    pub(super) fn saw(&mut self, newest: Option<Timestamp>) -> bool {
        let fresh = newest > self.newest;
        self.newest = self.newest.max(newest);
        fresh
    }

    /// Takes note of the requests of one window and of those that the other arm made likely; whether the arm must be
    /// taken for one without traffic.
    pub(super) fn is_silent(&mut self, total: f64, likely: f64, context: &LookContext<'_>) -> bool {
        if total > 0.0 || self.busy.is_none() {
            self.busy = Some(context.at);
            self.expected = 0.0;
        }
        if total > 0.0 {
            return false;
        }
        self.expected += likely;
        self.expected >= EXPECTED_REQUESTS_MAX || self.is_quiet(context)
    }

    /// No request for five scrape intervals, at least ten seconds.
    fn is_quiet(&self, context: &LookContext<'_>) -> bool {
        let limit_ms = context.scrape_interval.0.saturating_mul(5).max(10_000);
        self.busy.is_some_and(|busy| context.at.since(busy).0 >= limit_ms)
    }
}
