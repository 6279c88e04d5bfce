//! How clumpy stable's events are, estimated while it runs.
//!
//! Variance over mean of stable's counts from successive differences (the fallback of a service without history): one
//! bad stretch counts at its two ends only. Learned from stable alone, never from the canary, whose regression would
//! hide itself.

use serde::{Deserialize, Serialize};

use super::history::StableMemory;
use super::reading::Reading;
use crate::stats::Arm;

/// Before this much stable data nothing is said.
const SECONDS_MIN: f64 = 300.0;
/// Requests after which the edge is chosen at which slow requests are counted.
const REQUESTS_BEFORE_EDGE: f64 = 1_000.0;

/// Sums over successive polls of stable. Constant size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clumps {
    previous: Arm,
    squares: f64,
    inverses: f64,
    seen: Arm,
    seconds: f64,
    /// For latency: requests slower than this are the events.
    edge: Option<f64>,
}

impl Clumps {
    /// The estimate, at least 1; `None` before five minutes of stable data.
    pub(super) fn clumpiness(&self) -> Option<f64> {
        let rate = self.seen.rate().filter(|_| self.seconds >= SECONDS_MIN)?;
        // Slow requests are no rare events: a share varies by share (1 - share).
        let spread = if self.edge.is_some() { rate * (1.0 - rate) } else { rate };
        let expected = spread * self.inverses;
        Some(if expected > 0.0 { (self.squares / expected).max(1.0) } else { 1.0 })
    }

    /// Takes in a poll of `seconds`; `quantile` is the one that a latency analysis compares.
    pub(super) fn learn(
        &mut self,
        reading: &Reading,
        memory: &StableMemory,
        quantile: f64,
        seconds: f64,
    ) {
        let Some(stable) = self.events(reading, memory, quantile) else { return };
        let Some(rate) = stable.rate() else { return };
        if let Some(previous) = self.previous.rate() {
            self.squares += (rate - previous).powi(2);
            self.inverses += stable.requests.recip() + self.previous.requests.recip();
        }
        self.seen =
            Arm::new(self.seen.events + stable.events, self.seen.requests + stable.requests);
        self.seconds += seconds;
        self.previous = stable;
    }

    fn events(&mut self, reading: &Reading, memory: &StableMemory, quantile: f64) -> Option<Arm> {
        match reading {
            Reading::Counts { stable, .. } => Some(*stable),
            Reading::Histogram { stable, .. } => {
                if self.edge.is_none_or(|edge| stable.count_up_to(edge).is_none()) {
                    *self = Self { edge: edge_near(memory, quantile), ..Self::default() };
                }
                let below = stable.count_up_to(self.edge?)?;
                Some(Arm::new(stable.total - below, stable.total))
            }
            Reading::Level { .. } => None,
        }
    }
}

/// The edge whose tail is nearest to the quantile's, once enough was seen.
fn edge_near(memory: &StableMemory, quantile: f64) -> Option<f64> {
    let histogram = &memory.histogram;
    if histogram.total < REQUESTS_BEFORE_EDGE {
        return None;
    }
    let distance = |below: f64| (below / histogram.total - quantile).abs();
    let tails = histogram.edges.iter().zip(&histogram.cumulative);
    tails.min_by(|one, other| distance(*one.1).total_cmp(&distance(*other.1))).map(|(edge, _)| *edge)
}
