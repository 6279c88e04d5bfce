//! What one poll tells each of a fixed set of bets, before any money moves.
//!
//! *Bad* bets say "the canary's rate is m times what the limit allows", for a ladder of m from 1.02 to 100; *ok* bets say
//! "it is as good as stable" or "it is at g times what the limit allows". Two safeguards act on every bet. *Clumpiness*:
//! errors come in clumps, so evidence is divided by the clump size. *Quorum*: no single poll may supply more than one
//! quorum-th of the evidence a decision needs, so one bad scrape is never enough. Both can only make an e-value smaller
//! in expectation (a concave power; a minimum with a constant), so what follows stays valid.
//!
//! Exact with clumpiness 1 given independent requests within a poll, and for independent clumps no larger than the
//! clumpiness (the function (e^(sB) - 1)/B increases in B); otherwise as good as the estimate of the clumpiness.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use super::exact;
use super::projection::{Rates, log_e_value};
use super::window::{Family, Limit, Window};

/// Multiples of the allowed rate that the bad bets name.
pub const BAD_MULTIPLES: [f64; 12] =
    [1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];
/// Multiples of the allowed rate that the ok bets name, after the first, which names stable's own rate.
pub const OK_MULTIPLES: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];
/// How many bets run on "worse than the limit".
pub const BAD_BETS: usize = BAD_MULTIPLES.len();
/// How many bets run on "better than the limit".
pub const OK_BETS: usize = 1 + OK_MULTIPLES.len();

/// A bet must differ from the limit by more than rounding.
const DISTINCT: f64 = 1e-12;
/// A predicted rate stays this far from 0 and 1, where a bet could lose everything to one surprise.
const RATE_MARGIN: f64 = 1e-12;

/// How sure a decision must be: the chance of a false one, over the monitor's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Levels {
    /// Chance of a false "bad": the rollout's level times this monitor's weight. In (0, 1).
    pub alpha: f64,
    /// Chance of a false "ok". In (0, 1).
    pub beta: f64,
}

impl Levels {
    /// The levels `alpha` and `beta`.
    pub const fn new(alpha: f64, beta: f64) -> Self {
        Self { alpha, beta }
    }
}

impl Default for Levels {
    /// 1 % for a false rollback, 5 % for a false proof.
    fn default() -> Self {
        Self::new(0.01, 0.05)
    }
}

/// The most log evidence that one poll may supply to one bet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caps {
    /// For bets on "worse".
    pub bad: f64,
    /// For bets on "better".
    pub ok: f64,
}

impl Caps {
    /// No cap.
    pub const NONE: Self = Self { bad: f64::INFINITY, ok: f64::INFINITY };

    /// One `quorum`-th of what the bets on counts need at `levels`.
    ///
    /// A quorum or level that is no positive number caps at 0: such polls can only lower a wealth.
    pub fn for_counts(levels: Levels, quorum: f64) -> Self {
        Self::new(levels, quorum, (2.0 * BAD_BETS as f64).ln(), LN_2)
    }

    /// The same for bets that pay the given log prices for their variety.
    pub(super) fn new(levels: Levels, quorum: f64, bad_price: f64, ok_price: f64) -> Self {
        let cap = |level: f64, price: f64| {
            let cap = (price - level.ln()) / quorum;
            if cap.is_finite() && cap > 0.0 { cap } else { 0.0 }
        };
        Self { bad: cap(levels.alpha, bad_price), ok: cap(levels.beta, ok_price) }
    }
}

/// Log evidence of one poll for each bet; 0 says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence<const BAD: usize = BAD_BETS, const OK: usize = OK_BETS> {
    /// For each bet on "worse than the limit".
    #[serde(with = "exact")]
    pub bad: [f64; BAD],
    /// For each bet on "better than the limit".
    #[serde(with = "exact")]
    pub ok: [f64; OK],
}

impl<const BAD: usize, const OK: usize> Evidence<BAD, OK> {
    /// A poll that says nothing.
    pub const NONE: Self = Self { bad: [0.0; BAD], ok: [0.0; OK] };

    /// Adds another region's evidence of the same poll, bet by bet.
    pub fn add(&mut self, other: &Self) {
        self.bad.iter_mut().zip(other.bad).for_each(|(sum, value)| *sum += value);
        self.ok.iter_mut().zip(other.ok).for_each(|(sum, value)| *sum += value);
    }

    /// The same with no bet above its cap. NaN becomes 0.
    #[must_use]
    pub fn capped(mut self, caps: Caps) -> Self {
        let cap = |value: f64, cap: f64| if value.is_nan() { 0.0 } else { value.min(cap) };
        self.bad.iter_mut().for_each(|value| *value = cap(*value, caps.bad));
        self.ok.iter_mut().for_each(|value| *value = cap(*value, caps.ok));
        self
    }
}

/// The terms on which a poll is read. All of them must be known before the poll is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The law of the counts.
    pub family: Family,
    /// The line that separates bad from ok.
    pub limit: Limit,
    /// Stable's rate as learned from earlier polls. A stale one costs power, never validity.
    pub stable_rate: f64,
    /// The largest rate that a bet may name.
    pub rate_max: f64,
    /// Size of the clumps that events come in; below 1 counts as 1. Not finite: the poll says nothing.
    pub clumpiness: f64,
    /// The most that the poll may supply.
    pub caps: Caps,
    /// Whether bets on "better" rest.
    pub ok_paused: bool,
}

impl Terms {
    /// What `window` tells each bet.
    ///
    /// Nothing for a window without canary traffic or with unreadable numbers, and for a limit that is not positive.
    /// Bets that would fall on the wrong side of the limit rest.
    pub fn evidence(&self, window: &Window) -> Evidence {
        Evidence { bad: self.bad(window).bad, ok: self.ok(window).ok }
    }

    /// What `window` tells the bets on "worse"; nothing to the others.
    pub fn bad(&self, window: &Window) -> Evidence {
        let mut evidence = Evidence::NONE;
        let Some(reader) = Reader::of(self, window) else { return evidence };
        for (value, multiple) in evidence.bad.iter_mut().zip(BAD_MULTIPLES) {
            let canary = (multiple * reader.bound).min(self.rate_max);
            if reader.bound > 0.0 && canary > reader.bound * (1.0 + DISTINCT) {
                *value = reader.read(canary);
            }
        }
        evidence.capped(self.caps)
    }

    /// What `window` tells the bets on "better"; nothing to the others.
    pub fn ok(&self, window: &Window) -> Evidence {
        let mut evidence = Evidence::NONE;
        let Some(reader) = Reader::of(self, window) else { return evidence };
        let bound = reader.bound;
        if self.ok_paused || bound >= self.rate_max || bound.is_nan() {
            return evidence;
        }
        let rates =
            std::iter::once(reader.stable_rate).chain(OK_MULTIPLES.map(|part| part * bound));
        for (value, canary) in evidence.ok.iter_mut().zip(rates) {
            if canary > 0.0 && canary < bound * (1.0 - DISTINCT) {
                *value = reader.read(canary);
            }
        }
        evidence.capped(self.caps)
    }
}

/// One window under one set of terms.
struct Reader {
    family: Family,
    limit: Limit,
    stable_rate: f64,
    bound: f64,
    clumpiness: f64,
    window: Window,
}

impl Reader {
    /// `None` where the window says nothing to any bet.
    fn of(terms: &Terms, window: &Window) -> Option<Self> {
        let window = window.cleaned();
        if window.canary.requests == 0.0 || !terms.clumpiness.is_finite() {
            return None;
        }
        let stable_rate = terms.stable_rate.clamp(RATE_MARGIN, 1.0 - RATE_MARGIN);
        let (family, limit) = (terms.family, terms.limit);
        let bound = limit.at(stable_rate);
        let clumpiness = terms.clumpiness.max(1.0);
        Some(Self { family, limit, stable_rate, bound, clumpiness, window })
    }

    fn read(&self, canary: f64) -> f64 {
        let bet = Rates { canary, stable: self.stable_rate };
        log_e_value(self.family, &self.window, bet, self.limit) / self.clumpiness
    }
}
