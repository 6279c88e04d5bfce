//! At 100 % nothing concurrent is left: the canary against what stable was in its last minutes.
//!
//! "At most a x stable + b" becomes a fixed limit a x U + b, with U the upper end of stable's share over those minutes.
//! It is not concurrent, so every verdict from it says so and by itself only holds.

use super::history::StableMemory;
use super::watch::{Watch, rate_monitor};
use crate::spec::plan::Test;
use crate::stats::traffic_split::{CONCENTRATION, log_split_e_value};
use crate::stats::{Arm, CountMonitor, Family, LatencyMonitor, Levels, Limit};

/// Halvings of the bracket around the upper end; far below any share that matters.
const STEPS: usize = 60;

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

/// Upper end of stable's share at any time of looking, with error at most `alpha`; `None` without requests.
///
/// Every share is ruled out that the beta mixture around it beats by 1/alpha; clumps count once.
fn share_upper(stable: Arm, clumpiness: f64, alpha: f64) -> Option<f64> {
    let rate = stable.rate()?;
    let clumps = clumpiness.max(1.0);
    let counts = [stable.events / clumps, (stable.requests - stable.events) / clumps];
    let (mut low, mut high) = (rate, 1.0);
    for _ in 0..STEPS {
        let share = 0.5 * (low + high);
        if log_split_e_value(&counts, &[share, 1.0 - share], CONCENTRATION) >= -alpha.ln() {
            high = share;
        } else {
            low = share;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_end_tightens_with_data_and_loosens_with_clumps() {
        let upper = |events, requests, clumps| {
            share_upper(Arm::new(events, requests), clumps, 0.01).unwrap()
        };
        assert!(upper(10.0, 10_000.0, 1.0) > 0.001);
        assert!(upper(10.0, 10_000.0, 1.0) < 0.004);
        assert!(upper(1_000.0, 1_000_000.0, 1.0) < 0.0012);
        assert!(upper(10.0, 10_000.0, 5.0) > upper(10.0, 10_000.0, 1.0));
        assert!(upper(0.0, 1_000.0, 1.0) > 0.0);
        assert_eq!(share_upper(Arm::EMPTY, 1.0, 0.01), None);
    }
}
