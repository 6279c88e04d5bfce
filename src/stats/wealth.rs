//! A gambler's purse: on-call reads it as "turned 1 into 100, which luck alone does in at most 1 rollout of 100".
//!
//! The *bad* purse starts as 1 in cash. At each poll, before the poll is read, a share of the cash is spread evenly over
//! the bets: half at the start and at every traffic step, otherwise what a half-life of 30 minutes gives. Bets then
//! multiply by what the poll told them. Keeping cash back is what finds regressions that start late. While the limit
//! holds, the purse is a nonnegative supermartingale from 1, so the chance that it *ever* reaches 1/alpha is at most
//! alpha, however often one looks (Ville's inequality). Exact for exact evidence, under any stopping rule.
//!
//! The *ok* purse is fully staked from the start and capped at 20/beta: winnings above are withdrawn, so that an old
//! proof does not outlive a later regression. Use its current value, never its maximum.

use serde::{Deserialize, Serialize};

use super::evidence::{BAD_BETS, Evidence, OK_BETS, OK_MULTIPLES};
use super::exact;
use super::numbers::{decay, log_add, log_sum};
use super::window::clean_seconds;

const CASH_HALF_LIFE_SECONDS: f64 = 1800.0;
const STEP_SHARE: f64 = 0.5;
const SHARE_MAX: f64 = 1.0 - 1e-9;
const OK_CAP: f64 = 20.0;

/// The two purses over a set of bets, in natural logs. Constant size; absorbing allocates nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wealth<const BAD: usize = BAD_BETS, const OK: usize = OK_BETS> {
    #[serde(with = "exact")]
    bad: [f64; BAD],
    #[serde(with = "exact")]
    cash: [f64; 1],
    #[serde(with = "exact")]
    ok: [f64; OK],
    log_ok_max: f64,
    step_pending: bool,
}

impl Wealth {
    /// Fresh purses for bets on counts; `beta` is the chance of a false "ok", which sets the cap of the ok purse.
    pub fn for_counts(beta: f64) -> Self {
        let mut prior = [0.5 / OK_MULTIPLES.len() as f64; OK_BETS];
        prior[0] = 0.5;
        Self::new(prior, beta)
    }
}

impl<const BAD: usize, const OK: usize> Wealth<BAD, OK> {
    /// Fresh purses; `ok_prior` spreads the ok purse over its bets and sums to 1.
    pub(super) fn new(ok_prior: [f64; OK], beta: f64) -> Self {
        Self {
            bad: [f64::NEG_INFINITY; BAD],
            cash: [0.0],
            ok: ok_prior.map(f64::ln),
            log_ok_max: (OK_CAP / beta).ln(),
            step_pending: true,
        }
    }

    /// Says that traffic has just been shifted: half of the cash goes into the bets before the next poll is read.
    pub fn traffic_step(&mut self) {
        self.step_pending = true;
    }

    /// Moves cash, then lets every bet win or lose what a poll of `seconds` told it.
    ///
    /// Seconds that are no length of time count as 0, evidence that is NaN as none.
    pub fn absorb(&mut self, evidence: &Evidence<BAD, OK>, seconds: f64) {
        let read = |value: f64| if value.is_nan() { 0.0 } else { value };
        let put = self.take_cash(seconds) - (BAD as f64).ln();
        for (bet, won) in self.bad.iter_mut().zip(evidence.bad) {
            *bet = log_add(*bet, put) + read(won);
        }
        for (bet, won) in self.ok.iter_mut().zip(evidence.ok) {
            *bet += read(won);
        }
        let excess = self.log_ok() - self.log_ok_max;
        if excess > 0.0 {
            self.ok.iter_mut().for_each(|bet| *bet -= excess);
        }
    }

    /// ln of the bad purse, cash included. It starts at 0; at ln(1/alpha) the limit is shown to be broken.
    pub fn log_bad(&self) -> f64 {
        log_sum(self.bad.iter().chain(&self.cash).copied())
    }

    /// ln of the ok purse. It starts at 0; at ln(1/beta) the limit is shown to be kept.
    pub fn log_ok(&self) -> f64 {
        log_sum(self.ok.iter().copied())
    }

    /// Takes this poll's share out of the cash; returns its log.
    fn take_cash(&mut self, seconds: f64) -> f64 {
        let share = if std::mem::take(&mut self.step_pending) {
            STEP_SHARE
        } else {
            (1.0 - decay(clean_seconds(seconds), CASH_HALF_LIFE_SECONDS)).min(SHARE_MAX)
        };
        let taken = self.cash[0] + share.ln();
        self.cash[0] += (-share).ln_1p();
        taken
    }
}
