//! At 100 % nothing concurrent is left: the canary against what stable was in its last minutes.
//!
//! "At most a x stable + b" becomes a fixed limit a x U + b, with U the upper end of stable's share over those minutes.
//! It is not concurrent, so every verdict from it says so and by itself only holds.

use super::history::StableMemory;
use super::proportion;
use super::watch::{Watch, rate_monitor};
use crate::spec::plan::Test;
use crate::stats::{Arm, CountMonitor, Family, LatencyMonitor, Levels, Limit};

/// The one-sample monitor that stands in for `test`; `None` while too little is known of stable.
pub(super) fn watch(
    test: &Test,
    memory: &StableMemory,
    clumpiness: f64,
    alpha: f64,
    levels: Levels,
) -> Option<Watch> {
    match *test {
        Test::Rate { factor, offset } => {
            let upper = share_upper(memory.counts, clumpiness, alpha)?;
            let limit = (factor * upper + offset < 1.0)
                .then(|| Limit::absolute(factor * upper + offset))?;
            Some(Watch::Rate(rate_monitor(limit, memory, levels)))
        }
        Test::QuantileRatio { quantile, ratio } => {
            let mut latency = LatencyMonitor::new(quantile, ratio, levels);
            latency.preload(&memory.histogram);
            let choice = latency.choose_edge()?;
            let below = memory.histogram.count_up_to(choice.edge)?;
            let slow = Arm::new(memory.histogram.total - below, memory.histogram.total);
            let limit = choice.kappa * share_upper(slow, clumpiness, alpha)?;
            let rate_max = Family::Bernoulli.rate_max();
            let mut monitor =
                CountMonitor::new(Family::Bernoulli, Limit::absolute(limit.min(rate_max)), levels);
            monitor.preload(slow);
            Some(Watch::Tail { edge: choice.edge, monitor })
        }
        _ => None,
    }
}

/// Upper end of stable's share; clumps count once.
fn share_upper(stable: Arm, clumpiness: f64, alpha: f64) -> Option<f64> {
    let clumps = clumpiness.max(1.0);
    proportion::upper(Arm::new(stable.events / clumps, stable.requests / clumps), alpha)
}
