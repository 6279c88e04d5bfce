//! Is the canary's rate of errors (or slow answers, or anything counted) worse than a limit allows, or provably not?
//!
//! Each poll compares the canary only with stable in the same seconds, so daily drift, common outages and a changing
//! canary share cancel. The pieces: [`Terms`] reads a poll, [`Wealth`] adds polls up; this monitor also learns stable's
//! rate, with a half-life of ten minutes and *after* each poll, because a bet must be placed before the wheel turns.

use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::evidence::{Caps, Evidence, Levels, Terms};
use super::numbers::decay;
use super::wealth::Wealth;
use super::window::{Arm, Family, Limit, Window, clean_seconds};

const RATE_HALF_LIFE_SECONDS: f64 = 600.0;
const RATE_PRIOR: Arm = Arm::new(0.5, 500.0);

/// Stable's rate as known before the next poll, older polls counting less.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StableRate {
    seen: Arm,
}

impl Default for StableRate {
    /// Half an event in 500 requests, soon outweighed.
    fn default() -> Self {
        Self { seen: RATE_PRIOR }
    }
}

impl StableRate {
    /// The learned share of events, in (0, 1) until the prior has faded.
    pub fn rate(&self) -> f64 {
        self.seen.events / self.seen.requests
    }

    /// Adds history at full weight. Unreadable numbers add nothing.
    pub fn preload(&mut self, history: Arm) {
        self.learn(history, 0.0);
    }

    /// Ages what is known by `seconds` and adds a poll. Unreadable numbers add nothing.
    pub fn learn(&mut self, stable: Arm, seconds: f64) {
        let weight = decay(clean_seconds(seconds), RATE_HALF_LIFE_SECONDS);
        let stable = stable.cleaned().unwrap_or(Arm::EMPTY);
        let requests = self.seen.requests * weight + stable.requests;
        // After days without traffic the sums would vanish; the rate they stand for must not.
        if requests >= 1.0 {
            self.seen = Arm::new(self.seen.events * weight + stable.events, requests);
        }
    }
}

/// Watches one rate of one arm pair against one limit.
///
/// Constant size, no allocation per update. Restarting from a stored copy continues exactly; feeding the same poll
/// twice does not, and breaks the guarantee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountMonitor {
    family: Family,
    limit: Limit,
    rate_max: f64,
    levels: Levels,
    stable_rate: StableRate,
    wealth: Wealth,
}

impl CountMonitor {
    /// A fresh monitor of `limit`.
    pub fn new(family: Family, limit: Limit, levels: Levels) -> Self {
        Self {
            family,
            limit,
            rate_max: family.rate_max(),
            levels,
            stable_rate: StableRate::default(),
            wealth: Wealth::for_counts(levels.beta),
        }
    }

    /// Lets no bet name a canary rate above `rate_max`.
    #[must_use]
    pub fn with_rate_max(self, rate_max: f64) -> Self {
        Self { rate_max, ..self }
    }

    /// Teaches stable's rate from before the first poll.
    pub fn preload(&mut self, history: Arm) {
        self.stable_rate.preload(history);
    }

    /// Says that traffic has just been shifted.
    pub fn traffic_step(&mut self) {
        self.wealth.traffic_step();
    }

    /// What a poll would tell each bet, without taking it in.
    pub fn evidence(&self, window: &Window, conditions: &Conditions) -> Evidence {
        let terms = Terms {
            family: self.family,
            limit: self.limit.scaled(conditions.limit_factor),
            stable_rate: self.stable_rate.rate(),
            rate_max: self.rate_max,
            clumpiness: conditions.clumpiness,
            caps: Caps::for_counts(self.levels, conditions.quorum),
            ok_paused: conditions.ok_paused,
        };
        terms.evidence(window)
    }

    /// Takes a poll in. Returns its capped evidence per bet, for a [`PooledMonitor`].
    ///
    /// A poll with a NaN, infinite or negative number counts as empty: time passes, nothing is learned or decided.
    pub fn update(&mut self, window: &Window, conditions: &Conditions) -> Evidence {
        let window = window.cleaned();
        let evidence = self.evidence(&window, conditions);
        self.wealth.absorb(&evidence, window.seconds);
        self.stable_rate.learn(window.stable, window.seconds);
        evidence
    }

    /// ln of the wealth of "worse than the limit".
    pub fn log_bad(&self) -> f64 {
        self.wealth.log_bad()
    }

    /// ln of the wealth of "better than the limit".
    pub fn log_ok(&self) -> f64 {
        self.wealth.log_ok()
    }

    /// Stable's rate as the next poll's bets will assume it.
    pub fn stable_rate(&self) -> f64 {
        self.stable_rate.rate()
    }

    /// The limit, before any warm-up.
    pub fn limit(&self) -> Limit {
        self.limit
    }
}

/// One metric over all regions together: regions that agree find a small harm sooner than any of them alone.
///
/// Per bet the regions' capped evidences of a poll are added and capped again; counts are never added, so a canary share
/// that differs between regions or changes over time does no harm (no Simpson's paradox). Valid while the regions'
/// counts are independent given their rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PooledMonitor {
    levels: Levels,
    wealth: Wealth,
}

impl PooledMonitor {
    /// A fresh pool.
    pub fn new(levels: Levels) -> Self {
        Self { levels, wealth: Wealth::for_counts(levels.beta) }
    }

    /// Says that traffic has just been shifted somewhere.
    pub fn traffic_step(&mut self) {
        self.wealth.traffic_step();
    }

    /// Takes in one poll of `seconds`: the evidence of every region that has any.
    pub fn update<'e>(
        &mut self,
        regions: impl IntoIterator<Item = &'e Evidence>,
        seconds: f64,
        quorum: f64,
    ) {
        let mut sum = Evidence::NONE;
        regions.into_iter().for_each(|region| sum.add(region));
        self.wealth.absorb(&sum.capped(Caps::for_counts(self.levels, quorum)), seconds);
    }

    /// ln of the wealth of "worse than the limit".
    pub fn log_bad(&self) -> f64 {
        self.wealth.log_bad()
    }

    /// ln of the wealth of "better than the limit".
    pub fn log_ok(&self) -> f64 {
        self.wealth.log_ok()
    }
}
