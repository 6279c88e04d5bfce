//! Is the mean of a score with known bounds below its limit, or provably above?
//!
//! A gambler stakes a fixed fraction of the largest safe bet on each poll's score being below the limit (bad) or above
//! it (ok). With x in \[lo, hi\] the factors 1 + f (m - x)/(hi - m) and 1 + f (x - m)/(m - lo) are nonnegative and average to
//! at most 1 under the respective hypothesis. Exact for martingale differences, needs no variance and no history; slower
//! than [`super::mean`]. A long-run factor above 1 tempers the bets for scores that remember their past.
//!
//! Source: Waudby-Smith and Ramdas (betting).

use serde::{Deserialize, Serialize};

use super::evidence::{Caps, Evidence, Levels};
use super::wealth::Wealth;
use super::window::clean_seconds;

/// Fractions of the largest safe bet.
pub const FRACTIONS: [f64; FRACTION_COUNT] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95];
const FRACTION_COUNT: usize = 8;

/// Watches "the mean score is at least `limit`"; bad means proven below.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundedMeanMonitor {
    limit: f64,
    low: f64,
    high: f64,
    levels: Levels,
    wealth: Wealth<FRACTION_COUNT, FRACTION_COUNT>,
}

impl BoundedMeanMonitor {
    /// A fresh monitor of scores in \[`low`, `high`\]; `None` unless `low` < `limit` < `high`, all finite.
    pub fn new(limit: f64, low: f64, high: f64, levels: Levels) -> Option<Self> {
        let ordered = low < limit && limit < high && low.is_finite() && high.is_finite();
        let prior = [1.0 / FRACTION_COUNT as f64; FRACTION_COUNT];
        ordered.then(|| Self { limit, low, high, levels, wealth: Wealth::new(prior, levels.beta) })
    }

    /// Says that traffic has just been shifted.
    pub fn traffic_step(&mut self) {
        self.wealth.traffic_step();
    }

    /// Takes in one fresh score of a poll of `seconds`; a value that has not been refreshed is no new score.
    ///
    /// Scores outside of the bounds are clamped; NaN and infinite ones change nothing. `long_run_factor` at least 1
    /// (see [`super::mean::long_run_factor`]); NaN changes nothing.
    pub fn update(&mut self, score: f64, seconds: f64, long_run_factor: f64, quorum: f64) {
        if !score.is_finite() || !long_run_factor.is_finite() {
            return;
        }
        let score = score.clamp(self.low, self.high);
        let temper = long_run_factor.max(1.0);
        let bad_gain = (self.limit - score) / (self.high - self.limit);
        let ok_gain = (score - self.limit) / (self.limit - self.low);
        let evidence = Evidence {
            bad: FRACTIONS.map(|fraction| (fraction * bad_gain).ln_1p() / temper),
            ok: FRACTIONS.map(|fraction| (fraction * ok_gain).ln_1p() / temper),
        };
        let bets = FRACTION_COUNT as f64;
        let caps = Caps::new(self.levels, quorum, (2.0 * bets).ln(), bets.ln());
        self.wealth.absorb(&evidence.capped(caps), clean_seconds(seconds));
    }

    /// ln of the wealth of "the mean is below the limit".
    pub fn log_bad(&self) -> f64 {
        self.wealth.log_bad()
    }

    /// ln of the wealth of "the mean is above the limit".
    pub fn log_ok(&self) -> f64 {
        self.wealth.log_ok()
    }
}
