//! What one look at the metrics found: increments since the last look, never raw counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{AnalysisName, Generation, Millis, Reach, RegionName, Timestamp, Weight};

/// One look at every region that was looked at in this turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Poll {
    /// The aligned end of the window.
    pub at: Timestamp,
    /// The generation whose confirmed weights stood during the whole window.
    pub generation: Generation,
    /// By region.
    pub regions: BTreeMap<RegionName, RegionPoll>,
}

/// One look at one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionPoll {
    /// Canary weight read back before and after the window.
    pub weight: Weight,
    /// Share of the requests that the canary got copies of.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    pub mirror: Weight,
    /// Length of the window since this region's previous poll.
    pub window: Millis,
    /// Since the canary's instances became ready; `None` when unknown (then there is no warm-up allowance).
    pub ready_for: Option<Millis>,
    /// By analysis.
    pub measured: BTreeMap<AnalysisName, Measured>,
}

impl RegionPoll {
    /// What reached the canary.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { weight: self.weight, mirror: self.mirror }
    }
}

/// What one analysis yielded in one region in one poll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// Events in the window; an arm without weight has zeros.
    Counts {
        /// Canary's.
        canary: Arm,
        /// Stable's.
        stable: Arm,
    },
    /// Requests by latency bucket in the window.
    Histogram {
        /// Finite upper bounds that both arms share, ascending, in the histogram's unit.
        bounds: Vec<f64>,
        /// Canary's.
        canary: ArmHistogram,
        /// Stable's.
        stable: ArmHistogram,
    },
    /// One value per arm; `None` while that arm has none. A value that was not refreshed is not an observation.
    Gauge {
        /// Canary's.
        canary: Option<f64>,
        /// Stable's.
        stable: Option<f64>,
    },
    /// A check was asked.
    Check {
        /// It held.
        held: bool,
        /// What it said, shortened and made safe to show.
        detail: String,
    },
    /// A check is not due again yet, or the source has not scraped since the last poll: says nothing.
    NotDue,
    /// The data is not there.
    Missing {
        /// Which arm is dark.
        arm: DarkArm,
        /// Why.
        why: MissingReason,
    },
    /// The source did not answer, or its answer makes no sense.
    SourceError(String),
}

/// Bad events and all events of one arm in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Bad events (errors, failures); at most `total`.
    pub bad: f64,
    /// All events.
    pub total: f64,
}

/// Requests of one arm in one window by latency.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmHistogram {
    /// Requests at or below each bound, same order as the bounds, ascending.
    pub cumulative: Vec<f64>,
    /// All requests, those above the last bound included.
    pub total: f64,
}

/// Which arm is dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DarkArm {
    /// Only the canary, while stable has data.
    Canary,
    /// Only stable, although it has weight.
    Stable,
    /// Both.
    Both,
}

/// How data is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingReason {
    /// Nothing matches the selector.
    NoSeries,
    /// The newest sample is too old.
    Stale,
    /// The value is not a number.
    NotANumber,
    /// There is a series, but no requests.
    NoTraffic,
}
