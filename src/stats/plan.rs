//! How long will it take to know, and what can this traffic show at all?
//!
//! At true rates the best bet's log wealth drifts upward by g per second with variance v per second; the time until it
//! reaches B is the first passage of a Brownian path, P(T <= t) = Phi((gt - B)/sqrt(vt)) + exp(2gB/v) Phi((-B - gt)/sqrt(vt)).
//! B = ln(bets/alpha) for "bad", ln(2/beta) or ln(10/beta) for "ok". One poll is added for overshoot, the sum rounded up to
//! whole polls, and the quorum kept.
//!
//! Approximate: within 15 % of simulated times for "bad", up to 45 % long (on the safe side) for "ok".

use super::evidence::{BAD_MULTIPLES, Levels, OK_MULTIPLES};
use super::numbers::{log_normal_cdf, normal_cdf};
use super::projection::{Rates, project};
use super::window::{Family, Limit};

const NEVER_SECONDS: f64 = 1e9;
const BISECTIONS: usize = 100;
const CANARY_SHARE_MAX: f64 = 0.5;

/// Requests per second of the two arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// The canary's, at least 0.
    pub canary_per_second: f64,
    /// Stable's, at least 0.
    pub stable_per_second: f64,
}

impl Traffic {
    /// `total_per_second` requests, of which a share in \[0, 1\] goes to the canary.
    pub fn shared(total_per_second: f64, canary_share: f64) -> Self {
        let canary_per_second = total_per_second * canary_share;
        Self { canary_per_second, stable_per_second: total_per_second - canary_per_second }
    }
}

/// What is planned: a limit, looked at in polls, on some traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Requests per second.
    pub traffic: Traffic,
    /// Stable's rate, in \[0, 1\].
    pub stable_rate: f64,
    /// The limit.
    pub limit: Limit,
    /// Levels of this one monitor.
    pub levels: Levels,
    /// Size of the clumps that events come in, at least 1.
    pub clumpiness: f64,
    /// Chance with which an answer shall be there in the forecast time.
    pub power: f64,
    /// Length of a poll.
    pub poll_seconds: f64,
    /// Polls that an answer needs at least.
    pub quorum: f64,
}

/// When an answer is expected, and by which bet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds until the answer, in whole polls.
    pub seconds: f64,
    /// The canary rate that the quickest bet names.
    pub bet: f64,
    /// Expected log wealth won per second.
    pub growth_per_second: f64,
    /// Its variance per second.
    pub variance_per_second: f64,
}

#[derive(Clone, Copy)]
struct Drift {
    growth: f64,
    variance: f64,
}

/// The chance that a path with `growth` and `variance` per second has reached `height` within `seconds`.
///
/// 0 for no time; needs a positive variance and height. Source: inverse Gaussian distribution.
pub fn first_passage(seconds: f64, growth: f64, variance: f64, height: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    let spread = (variance * seconds).sqrt();
    let direct = normal_cdf((growth * seconds - height) / spread);
    let mirrored =
        2.0 * growth * height / variance + log_normal_cdf((-height - growth * seconds) / spread);
    (direct + mirrored.exp()).min(1.0)
}

impl Plan {
    /// A plan with the usual levels, power 80 %, polls of 10 s, quorum 2 and no clumps.
    pub fn new(traffic: Traffic, stable_rate: f64, limit: Limit) -> Self {
        Self {
            traffic,
            stable_rate,
            limit,
            levels: Levels::default(),
            clumpiness: 1.0,
            power: 0.8,
            poll_seconds: 10.0,
            quorum: super::conditions::QUORUM,
        }
    }

    /// When a canary at `canary_rate` is found to break the limit; `None`: never.
    pub fn time_to_bad(&self, canary_rate: f64) -> Option<Forecast> {
        self.quickest(canary_rate, self.bad_bets(), self.bad_height())
    }

    /// When a canary at `canary_rate` is proven to keep the limit; `None`: never. Usually asked with stable's own rate.
    pub fn time_to_ok(&self, canary_rate: f64) -> Option<Forecast> {
        let bound = self.limit.at(self.stable_rate);
        let beta = self.levels.beta;
        let equal = std::iter::once(self.stable_rate).filter(|rate| *rate < bound);
        let equal = self.quickest(canary_rate, equal, (2.0 / beta).ln());
        let grid = OK_MULTIPLES.into_iter().map(|part| part * bound);
        let height = (2.0 * OK_MULTIPLES.len() as f64 / beta).ln();
        let grid = self.quickest(canary_rate, grid, height);
        match (equal, grid) {
            (Some(equal), Some(grid)) if grid.seconds < equal.seconds => Some(grid),
            (equal, grid) => equal.or(grid),
        }
    }

    /// The smallest canary rate above the limit that is found within `seconds`; `None`: not even a rate of 1 is.
    pub fn smallest_detectable(&self, seconds: f64) -> Option<f64> {
        let (mut low, mut high) = (self.limit.at(self.stable_rate), 1.0);
        if !self.finds_within(high, seconds) {
            return None;
        }
        for _ in 0..BISECTIONS {
            let middle = if low > 0.0 { (low * high).sqrt() } else { high / 2.0 };
            if self.finds_within(middle, seconds) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// The smallest canary share, up to a half, at which "no difference" is proven within `seconds`; `None`: none is.
    pub fn share_to_ok(&self, seconds: f64) -> Option<f64> {
        let total = self.traffic.canary_per_second + self.traffic.stable_per_second;
        let proves = |share: f64| {
            let plan = Self { traffic: Traffic::shared(total, share), ..*self };
            plan.time_to_ok(self.stable_rate).is_some_and(|forecast| forecast.seconds <= seconds)
        };
        if !proves(CANARY_SHARE_MAX) {
            return None;
        }
        let (mut low, mut high) = (0.0, CANARY_SHARE_MAX);
        while high - low > 1e-4 {
            let middle = 0.5 * (low + high);
            if proves(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// Whether `seconds` can answer neither way: no proof if nothing differs, no finding at twice the margin.
    ///
    /// Always so for a limit without margin.
    pub fn is_undecidable(&self, seconds: f64) -> bool {
        let margin = self.limit.at(self.stable_rate) - self.stable_rate;
        let proven = self.time_to_ok(self.stable_rate).is_some_and(|it| it.seconds <= seconds);
        !proven && !self.finds_within((self.stable_rate + 2.0 * margin).min(1.0), seconds)
    }

    fn bad_bets(&self) -> impl Iterator<Item = f64> + use<> {
        let bound = self.limit.at(self.stable_rate);
        BAD_MULTIPLES.into_iter().map(move |multiple| multiple * bound)
    }

    fn bad_height(&self) -> f64 {
        (BAD_MULTIPLES.len() as f64 / self.levels.alpha).ln()
    }

    /// How fast the bet on `bet` grows while the canary's rate is `canary_rate`; `None` if it does not.
    fn drift(&self, canary_rate: f64, bet: f64) -> Option<Drift> {
        let Traffic { canary_per_second, stable_per_second } = self.traffic;
        let bets = Rates { canary: bet, stable: self.stable_rate };
        let nearest =
            project(Family::Poisson, bets, canary_per_second, stable_per_second, self.limit);
        let canary_gain = (bet / nearest.canary).ln();
        let stable_gain =
            if self.stable_rate > 0.0 { (self.stable_rate / nearest.stable).ln() } else { 0.0 };
        let growth = canary_per_second * (canary_rate * canary_gain - bet + nearest.canary)
            + stable_per_second
                * (self.stable_rate * stable_gain - self.stable_rate + nearest.stable);
        let variance = canary_per_second * canary_rate * canary_gain.powi(2)
            + stable_per_second * self.stable_rate * stable_gain.powi(2);
        let drift =
            Drift { growth: growth / self.clumpiness, variance: variance / self.clumpiness };
        (drift.growth > 0.0 && drift.variance > 0.0).then_some(drift)
    }

    fn quickest(
        &self,
        canary_rate: f64,
        bets: impl Iterator<Item = f64>,
        height: f64,
    ) -> Option<Forecast> {
        let mut best: Option<Forecast> = None;
        for bet in bets.filter(|bet| *bet > 0.0 && *bet <= 1.0) {
            let Some(drift) = self.drift(canary_rate, bet) else { continue };
            let horizon = best.map_or(NEVER_SECONDS, |best| best.seconds);
            let in_time = drift.chance(horizon, height) >= self.power;
            if !in_time {
                continue;
            }
            let seconds = drift.time(horizon, height, self.power);
            if best.is_none_or(|best| seconds < best.seconds) {
                best = Some(Forecast {
                    seconds,
                    bet,
                    growth_per_second: drift.growth,
                    variance_per_second: drift.variance,
                });
            }
        }
        best.map(|best| Forecast { seconds: self.whole_polls(best.seconds), ..best })
    }

    /// One poll more for overshoot, not fewer polls than the quorum, rounded up to whole polls.
    fn whole_polls(&self, seconds: f64) -> f64 {
        const ROUNDING: f64 = 1e-9;
        let polls = (seconds / self.poll_seconds + 1.0).max(self.quorum);
        (polls - ROUNDING).ceil() * self.poll_seconds
    }

    /// Whether `time_to_bad` is at most `seconds`, without looking for the time itself.
    fn finds_within(&self, canary_rate: f64, seconds: f64) -> bool {
        let polls = (seconds / self.poll_seconds + 1e-9).floor();
        let height = self.bad_height();
        polls >= self.quorum.ceil()
            && self.bad_bets().filter(|bet| *bet > 0.0 && *bet <= 1.0).any(|bet| {
                let reached = (polls - 1.0) * self.poll_seconds;
                self.drift(canary_rate, bet)
                    .is_some_and(|drift| drift.chance(reached, height) >= self.power)
            })
    }
}

impl Drift {
    fn chance(self, seconds: f64, height: f64) -> f64 {
        first_passage(seconds, self.growth, self.variance, height)
    }

    /// The time, at most `horizon`, at which `height` is reached with chance `power`.
    fn time(self, horizon: f64, height: f64, power: f64) -> f64 {
        let mut high = 1.0_f64.min(horizon);
        while high < horizon && self.chance(high, height) < power {
            high = (high * 2.0).min(horizon);
        }
        let mut low = 0.0;
        while high - low > f64::EPSILON * high {
            let middle = 0.5 * (low + high);
            if middle <= low || middle >= high {
                break;
            }
            if self.chance(middle, height) < power {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(total: f64, share: f64, offset: f64) -> Plan {
        Plan::new(Traffic::shared(total, share), 0.001, Limit::difference(offset))
    }

    #[test]
    fn more_traffic_and_more_harm_are_found_sooner() {
        let seconds =
            |total: f64, rate: f64| plan(total, 0.05, 0.001).time_to_bad(rate).unwrap().seconds;
        assert!(seconds(1000.0, 0.006) < seconds(100.0, 0.006));
        assert!(seconds(100.0, 0.011) < seconds(100.0, 0.006));
        assert!(plan(100.0, 0.05, 0.001).time_to_bad(0.002).is_none());
        assert!(plan(0.0, 0.05, 0.001).time_to_bad(0.5).is_none());
        assert!(plan(f64::NAN, 0.05, 0.001).time_to_bad(0.5).is_none());
    }

    #[test]
    fn what_is_detectable_is_detected_in_time() {
        let plan = plan(100.0, 0.05, 0.001);
        let rate = plan.smallest_detectable(1800.0).unwrap();
        assert!(plan.time_to_bad(rate).unwrap().seconds <= 1800.0);
        assert!(plan.time_to_bad(rate * 0.99).unwrap().seconds > 1800.0);
        assert!(plan.smallest_detectable(10.0).is_none(), "one poll is no quorum");
    }

    #[test]
    fn both_remedies_are_offered() {
        let plan = plan(100.0, 0.05, 0.001);
        let minutes = plan.time_to_ok(0.001).unwrap().seconds / 60.0;
        assert!((minutes - 57.5).abs() < 0.1, "{minutes}");
        let share = plan.share_to_ok(1800.0).unwrap();
        assert!((0.08..0.13).contains(&share), "{share}");
        assert!(plan.share_to_ok(60.0).is_none());
        assert!(!plan.is_undecidable(3600.0));
        assert!(plan.is_undecidable(60.0));
        assert!(self::plan(100.0, 0.05, 0.0).is_undecidable(1e6));
    }

    #[test]
    fn quorum_and_clumps_delay() {
        let quick = plan(10_000.0, 0.5, 0.001);
        assert_eq!(quick.time_to_bad(0.5).unwrap().seconds, 20.0);
        assert_eq!(Plan { quorum: 3.0, ..quick }.time_to_bad(0.5).unwrap().seconds, 30.0);
        let slow = plan(100.0, 0.05, 0.001);
        let clumpy = Plan { clumpiness: 3.0, ..slow };
        assert!(
            clumpy.time_to_bad(0.01).unwrap().seconds
                > 2.0 * slow.time_to_bad(0.01).unwrap().seconds
        );
    }
}
