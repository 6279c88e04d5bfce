//! How clumpy stable's events are, estimated while it runs: the fallback of a service without history.

use serde::{Deserialize, Serialize};

use super::history::StableMemory;
use super::reading::Reading;
use crate::stats::{Arm, Family, FanoLive};

/// Requests after which the edge is chosen at which slow requests are counted.
const REQUESTS_BEFORE_EDGE: f64 = 1_000.0;

/// The estimate for one analysis in one region. Constant size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clumps {
    live: FanoLive,
    /// For latency: requests slower than this are the events. Kept once chosen, so that they stay comparable.
    edge: Option<f64>,
}

impl Clumps {
    /// The estimate, at least 1; `None` before five minutes of stable data.
    pub(super) fn clumpiness(&self) -> Option<f64> {
        self.live.clumpiness()
    }

    /// Takes in a poll of `seconds`; `quantile` is the one that a latency analysis compares.
    pub(super) fn learn(
        &mut self,
        reading: &Reading,
        memory: &StableMemory,
        quantile: f64,
        seconds: f64,
    ) {
        if let Some(stable) = self.events(reading, memory, quantile) {
            self.live.observe(stable, seconds);
        }
    }

    fn events(&mut self, reading: &Reading, memory: &StableMemory, quantile: f64) -> Option<Arm> {
        match reading {
            Reading::Counts { stable, .. } => Some(*stable),
            Reading::Histogram { stable, .. } => {
                if self.edge.is_none_or(|edge| stable.count_up_to(edge).is_none()) {
                    let known = &memory.histogram;
                    let edge = (known.total >= REQUESTS_BEFORE_EDGE)
                        .then(|| known.edge_nearest(quantile))
                        .flatten();
                    *self = Self { live: FanoLive::new(Family::Bernoulli), edge };
                }
                let below = stable.count_up_to(self.edge?)?;
                Some(Arm::new(stable.total - below, stable.total))
            }
            Reading::Level { .. } => None,
        }
    }
}
