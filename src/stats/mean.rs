//! Has the mean of a business number (satisfaction, revenue per request) moved past its limit?
//!
//! Values d, one per poll, larger meaning worse: `limit - score`, or `canary mean - r * stable mean` of the same poll. Their
//! sum, scaled by the spread of one poll and by how long polls remember each other, is close to a random walk; a mixture
//! of normal alternatives bets on its drift. With S = sum(d - m)/(sigma f), V = t/f, z = S/sqrt(V + rho):
//! ln M = ln(4 rho/(V + rho))/2 + z^2/2 + ln Phi(z).
//!
//! **Asymptotic** (central limit), hence nothing before 6 polls with history and before 30 polls and 100 events without;
//! sigma and f should come from at least six hours in which nothing differed. Robust to autocorrelation through f.
//!
//! Source: Robbins (mixtures); Howard, Ramdas, McAuliffe and Sekhon; Waudby-Smith et al. (asymptotic sequences).

use serde::{Deserialize, Serialize};

use super::numbers::log_normal_cdf;

const POLLS_OPTIMAL: f64 = 60.0;
const POLLS_MIN_WITH_HISTORY: u32 = 6;
const POLLS_MIN_WITHOUT: u32 = 30;
const EVENTS_MIN_WITHOUT: f64 = 100.0;
const CORRELATION_MAX: f64 = 0.9;
/// Values beyond this are unreadable: their squares would no longer fit.
const VALUE_MAX: f64 = 1e100;
/// Polls per block when estimating how long polls remember each other.
pub const LONG_RUN_BLOCK: usize = 30;

/// The tuning with which a mixture is sharpest near `polls` polls. One-sided tests pass twice their alpha.
pub fn best_rho(polls: f64, alpha: f64) -> f64 {
    let doubled = -2.0 * alpha.ln();
    polls / (doubled + doubled.ln_1p())
}

/// ln of the mixture wealth for a sum `s` with variance `v`, bets on a positive drift only.
pub fn log_mixture_one_sided(s: f64, v: f64, rho: f64) -> f64 {
    let z = s / (v + rho).sqrt();
    0.5 * (4.0 * rho / (v + rho)).ln() + 0.5 * z * z + log_normal_cdf(z)
}

/// ln of the mixture wealth for a sum `s` with variance `v`, bets on drift either way.
pub fn log_mixture_two_sided(s: f64, v: f64, rho: f64) -> f64 {
    0.5 * (rho / (v + rho)).ln() + s * s / (2.0 * (v + rho))
}

/// Half-width of the two-sided interval around the mean of `polls` values with spread `sigma`, at any time of looking.
pub fn mean_radius(polls: f64, sigma: f64, alpha: f64, rho: f64) -> f64 {
    let grown = polls + rho;
    sigma * (grown * ((grown / rho).ln() - 2.0 * alpha.ln())).sqrt() / polls
}

/// How a quiet period behaved: the scale against which a drift is judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Variance of one poll's value.
    pub variance: f64,
    /// How many polls make one independent one, at least 1.
    pub long_run_factor: f64,
}

/// The spread of `values`, one per poll, from a period without change.
///
/// f = B var(means of B polls)/var(polls), at least 1; an incomplete last block is left out. `None` for fewer values than
/// one block or with any that is not finite.
pub fn long_run_factor(values: &[f64], block: usize) -> Option<Spread> {
    let blocks = values.len().checked_div(block)?;
    let values = &values[..blocks * block];
    if blocks == 0 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let means: Vec<f64> = values.chunks_exact(block).map(mean).collect();
    let variance = variance(values);
    let factor = block as f64 * self::variance(&means) / variance;
    Some(Spread { variance, long_run_factor: if variance > 0.0 { factor.max(1.0) } else { 1.0 } })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn variance(values: &[f64]) -> f64 {
    let center = mean(values);
    values.iter().map(|value| (value - center).powi(2)).sum::<f64>() / values.len() as f64
}

/// What a [`MeanMonitor`] tests and when it may speak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanSettings {
    /// The mean that separates bad (above) from ok (below).
    pub limit: f64,
    /// Chance of a false answer, to which the mixture is tuned.
    pub alpha: f64,
    /// Spread in quiet times; without it the spread is estimated while the canary runs, and the answer is approximate.
    pub history: Option<Spread>,
    /// At how many polls the test shall be sharpest.
    pub polls_optimal: f64,
    /// No answer before this many polls.
    pub polls_min: u32,
    /// No answer before this many canary events.
    pub events_min: f64,
}

impl MeanSettings {
    /// Judges against the `history` of the same number.
    pub const fn with_history(limit: f64, alpha: f64, history: Spread) -> Self {
        Self {
            limit,
            alpha,
            history: Some(history),
            polls_optimal: POLLS_OPTIMAL,
            polls_min: POLLS_MIN_WITH_HISTORY,
            events_min: 0.0,
        }
    }

    /// Judges against the spread seen while the canary runs.
    pub const fn without_history(limit: f64, alpha: f64) -> Self {
        Self {
            limit,
            alpha,
            history: None,
            polls_optimal: POLLS_OPTIMAL,
            polls_min: POLLS_MIN_WITHOUT,
            events_min: EVENTS_MIN_WITHOUT,
        }
    }
}

/// Watches the mean of one value per poll, larger meaning worse. Constant size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanMonitor {
    settings: MeanSettings,
    rho: f64,
    polls: u32,
    events: f64,
    mean: f64,
    squares: f64,
    previous: Option<f64>,
    successive_squares: f64,
}

impl MeanMonitor {
    /// A fresh monitor.
    pub fn new(settings: MeanSettings) -> Self {
        let factor = settings.history.map_or(1.0, |history| history.long_run_factor);
        Self {
            settings,
            rho: best_rho((settings.polls_optimal / factor).max(3.0), 2.0 * settings.alpha),
            polls: 0,
            events: 0.0,
            mean: 0.0,
            squares: 0.0,
            previous: None,
            successive_squares: 0.0,
        }
    }

    /// Takes in one fresh value made of `events` canary events; a value that has not been refreshed is no new one.
    ///
    /// A NaN, infinite or absurd (beyond 1e100) value changes nothing; unreadable events count as none.
    pub fn update(&mut self, value: f64, events: f64) {
        if !(-VALUE_MAX..=VALUE_MAX).contains(&value) {
            return;
        }
        self.polls = self.polls.saturating_add(1);
        self.events += if events.is_finite() { events.max(0.0) } else { 0.0 };
        let before = value - self.mean;
        self.mean += before / f64::from(self.polls);
        self.squares += before * (value - self.mean);
        if let Some(previous) = self.previous.replace(value) {
            self.successive_squares += (value - previous).powi(2);
        }
    }

    /// The spread in use; `None` while it is too early to speak or nothing varies.
    pub fn spread(&self) -> Option<Spread> {
        let early = self.polls < self.settings.polls_min || self.events < self.settings.events_min;
        let live = if self.polls > 1 { self.squares / f64::from(self.polls - 1) } else { 0.0 };
        let spread = match self.settings.history {
            _ if early => return None,
            Some(history) if self.polls < POLLS_MIN_WITHOUT => history,
            Some(history) => Spread { variance: history.variance.max(live), ..history },
            None => Spread { variance: live, long_run_factor: self.live_factor() },
        };
        (spread.variance > 0.0 && spread.variance.is_finite()).then_some(spread)
    }

    /// From the correlation of neighbours (von Neumann's ratio), as if older ones mattered through them only.
    fn live_factor(&self) -> f64 {
        let correlation = 1.0 - self.successive_squares / (2.0 * self.squares);
        let correlation = correlation.clamp(0.0, CORRELATION_MAX);
        (1.0 + correlation) / (1.0 - correlation)
    }

    /// The mean of the values so far, 0 before the first.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// How many values were taken in.
    pub fn polls(&self) -> u32 {
        self.polls
    }

    /// ln of the wealth of "the mean is above the limit"; 0 while it is too early.
    pub fn log_bad(&self) -> f64 {
        self.log_wealth(1.0)
    }

    /// ln of the wealth of "the mean is below the limit"; 0 while it is too early.
    pub fn log_ok(&self) -> f64 {
        self.log_wealth(-1.0)
    }

    fn log_wealth(&self, sign: f64) -> f64 {
        let Some(Spread { variance, long_run_factor }) = self.spread() else {
            return 0.0;
        };
        let polls = f64::from(self.polls);
        let sum = polls * (self.mean - self.settings.limit) / (variance.sqrt() * long_run_factor);
        let wealth = log_mixture_one_sided(sign * sum, polls / long_run_factor, self.rho);
        if wealth.is_nan() { 0.0 } else { wealth }
    }
}
