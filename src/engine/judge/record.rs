//! What is remembered of one analysis in one region: its last look, stable's last minutes, this generation's counts.

use serde::{Deserialize, Serialize};

use super::clumps::Clumps;
use super::history::StableMemory;
use super::reading::{Reading, merge};
use crate::engine::poll::{DarkArm, MissingReason};
use crate::stats::{Arm, Histogram};

/// How the last look that said anything went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Nothing was ever said.
    #[default]
    Unseen,
    Present,
    Missing {
        arm: DarkArm,
        why: MissingReason,
    },
    SourceError(String),
}

/// One analysis in one region.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) status: Status,
    pub(super) memory: StableMemory,
    pub(super) clumps: Clumps,
    pub(super) tally: Tally,
}

/// Sums since the current generation was confirmed; for people and for `min_requests`, never tested.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) canary: Arm,
    pub(super) stable: Arm,
    pub(super) canary_histogram: Histogram,
    pub(super) stable_histogram: Histogram,
    /// Sum and number of the canary's gauge values.
    pub(super) level: (f64, u64),
    pub(super) polls: u64,
    pub(super) seconds: f64,
}

impl Record {
    /// Learns from stable; `quantile` is the one that a latency analysis compares.
    pub(super) fn learn(&mut self, reading: &Reading, quantile: f64, seconds: f64) {
        self.clumps.learn(reading, &self.memory, quantile, seconds);
        self.memory.learn(reading, seconds);
    }
}

impl Tally {
    pub(super) fn add(&mut self, reading: &Reading, seconds: f64) {
        match reading {
            Reading::Counts { canary, stable } => {
                add(&mut self.canary, *canary);
                add(&mut self.stable, *stable);
            }
            Reading::Histogram { canary, stable } => {
                add(&mut self.canary, Arm::new(0.0, canary.total));
                add(&mut self.stable, Arm::new(0.0, stable.total));
                merge(&mut self.canary_histogram, canary);
                merge(&mut self.stable_histogram, stable);
            }
            Reading::Level { canary: Some(value), .. } => {
                self.level = (self.level.0 + value, self.level.1 + 1);
            }
            // Nothing fresh: not a poll with data.
            Reading::Level { canary: None, .. } => return,
        }
        self.seconds += seconds;
        // Neither has a poll that only set origins.
        self.polls += u64::from(reading.requests() != Some((0.0, 0.0)));
    }
}

fn add(sum: &mut Arm, other: Arm) {
    *sum = Arm::new(sum.events + other.events, sum.requests + other.requests);
}
