//! Is the canary slower than a fixed time, whatever stable does?
//!
//! "The p99 must be at most 300 ms" is the question whether more than 1 % of the canary's requests are slower than 300 ms:
//! Wald's one-sample bet on a count. Between bucket edges nothing is claimed, so nothing is interpolated. Exact, like the
//! count bets it is made of.

use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::count::StableRate;
use super::evidence::{Caps, Evidence, Levels, Terms};
use super::histogram::{Histogram, position};
use super::wealth::Wealth;
use super::window::{Arm, Family, Limit, Window, clean_seconds};

/// Watches "quantile of the canary at most `limit`", whatever stable does.
///
/// The share slower than an edge is compared with 1 - quantile. "Broken" is read at the smallest edge at or above the
/// limit, "kept" at the largest edge at or below it, so both are true of the limit itself; in between, nothing is
/// claimed. A layout that ends below the limit can never show it broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbsoluteLatencyMonitor {
    quantile: f64,
    limit: f64,
    levels: Levels,
    bad_rate: StableRate,
    ok_rate: StableRate,
    wealth: Wealth,
}

impl AbsoluteLatencyMonitor {
    /// A fresh monitor: `quantile` in (0, 1), `limit` in the unit of the edges.
    pub fn new(quantile: f64, limit: f64, levels: Levels) -> Self {
        Self {
            quantile,
            limit,
            levels,
            bad_rate: StableRate::default(),
            ok_rate: StableRate::default(),
            wealth: Wealth::for_counts(levels.beta),
        }
    }

    /// Says that traffic has just been shifted.
    pub fn traffic_step(&mut self) {
        self.wealth.traffic_step();
    }

    /// Takes a poll in: increments of both arms' buckets (stable may be empty). Returns its capped evidence.
    ///
    /// An unreadable histogram decides nothing.
    pub fn update(
        &mut self,
        canary: &Histogram,
        stable: &Histogram,
        seconds: f64,
        conditions: &Conditions,
    ) -> Evidence {
        let seconds = clean_seconds(seconds);
        if !canary.is_readable() || conditions.latency_paused {
            return Evidence::NONE;
        }
        let (broken, kept) = edges_around(&canary.edges, self.limit);
        let bad = self.side(broken, self.bad_rate, canary, seconds, conditions);
        let ok = self.side(kept, self.ok_rate, canary, seconds, conditions);
        let evidence = Evidence { bad: bad.bad, ok: ok.ok };
        self.wealth.absorb(&evidence, seconds);
        if stable.is_readable() {
            learn_at(&mut self.bad_rate, broken, stable, seconds);
            learn_at(&mut self.ok_rate, kept, stable, seconds);
        }
        evidence
    }

    /// ln of the wealth of "slower than the limit".
    pub fn log_bad(&self) -> f64 {
        self.wealth.log_bad()
    }

    /// ln of the wealth of "within the limit".
    pub fn log_ok(&self) -> f64 {
        self.wealth.log_ok()
    }

    fn side(
        &self,
        edge: Option<f64>,
        stable_rate: StableRate,
        canary: &Histogram,
        seconds: f64,
        conditions: &Conditions,
    ) -> Evidence {
        let Some(below) = edge.and_then(|edge| canary.count_up_to(edge)) else {
            return Evidence::NONE;
        };
        let slower = Arm::new(canary.total - below, canary.total);
        let terms = Terms {
            family: Family::Bernoulli,
            limit: Limit::absolute(1.0 - self.quantile).scaled(conditions.limit_factor),
            stable_rate: stable_rate.rate(),
            rate_max: Family::Bernoulli.rate_max(),
            clumpiness: conditions.clumpiness,
            caps: Caps::for_counts(self.levels, conditions.quorum),
            ok_paused: conditions.ok_paused,
        };
        terms.evidence(&Window::one_sample(slower, seconds))
    }
}

/// The smallest of ascending `edges` at or above `limit` and the largest at or below it.
pub fn edges_around(edges: &[f64], limit: f64) -> (Option<f64>, Option<f64>) {
    let exact = position(edges, limit).map(|index| edges[index]);
    let above = edges.iter().copied().find(|edge| *edge >= limit);
    let below = edges.iter().rev().copied().find(|edge| *edge <= limit);
    (exact.or(above), exact.or(below))
}

fn learn_at(rate: &mut StableRate, edge: Option<f64>, stable: &Histogram, seconds: f64) {
    if let Some(below) = edge.and_then(|edge| stable.count_up_to(edge)) {
        rate.learn(Arm::new(stable.total - below, stable.total), seconds);
    }
}
