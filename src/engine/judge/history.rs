//! What is known of stable: from before the rollout, and from the last minutes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reading::{Reading, merge};
use crate::stats::{Arm, Histogram};
use crate::units::{AnalysisName, RegionName};

const HALF_LIFE_SECONDS: f64 = 600.0;

/// What earlier days say of every analysis in every region; empty for a service without history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// By analysis, then by region; what is not named has no history.
    pub analyses: BTreeMap<AnalysisName, BTreeMap<RegionName, RegionHistory>>,
}

impl History {
    /// What is known of one analysis in one region.
    #[must_use]
    pub fn of(&self, analysis: &AnalysisName, region: &RegionName) -> Option<&RegionHistory> {
        self.analyses.get(analysis)?.get(region)
    }
}

/// What earlier days say of one analysis in one region, from splits of stable against itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionHistory {
    /// Size of the clumps that events come in, at least 1.
    pub clumpiness: f64,
    /// Stable's counts or buckets with which monitors start.
    pub stable: StableMemory,
}

/// Stable's counts of the last minutes, older ones fading with a half-life of ten minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StableMemory {
    /// Bad events and all events.
    pub counts: Arm,
    /// Requests by latency; without edges for an analysis that counts.
    pub histogram: Histogram,
}

impl StableMemory {
    /// Ages what is known by `seconds` and adds a poll. A poll without stable traffic changes nothing.
    pub(super) fn learn(&mut self, reading: &Reading, seconds: f64) {
        let kept = (-seconds.max(0.0) / HALF_LIFE_SECONDS).exp2();
        match reading {
            Reading::Counts { stable, .. } if stable.requests > 0.0 => {
                self.counts = Arm::new(
                    self.counts.events * kept + stable.events,
                    self.counts.requests * kept + stable.requests,
                );
            }
            Reading::Histogram { stable, .. } if stable.total > 0.0 => {
                self.histogram.total *= kept;
                self.histogram.cumulative.iter_mut().for_each(|count| *count *= kept);
                merge(&mut self.histogram, stable);
            }
            _ => {}
        }
    }
}
