//! Response times of two versions by chance, as classic histogram buckets, and the rules that judge them.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use super::counts::{HISTORY_POLLS, POLL_SECONDS, POLLS, SHARE, SPLITS, binomial, poisson};
use super::rank;
use super::rollout::MEMORY_SECONDS;
use super::rules::{LOG_BAD, LOG_OK, MINUTE, Z};
use crate::stats::clumpiness::block_polls;
use crate::stats::numbers::normal_cdf;
use crate::stats::{
    Arm, Conditions, DesignEffect, Family, Histogram, LatencyMonitor, Levels, Window,
};

/// Upper edges of the usual buckets, in milliseconds.
const EDGES: [f64; 11] =
    [5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0];
/// Stable's median, in milliseconds.
const MEDIAN: f64 = 50.0;
/// Spread of the logarithm of the times: a p99 of 255 ms.
const SPREAD: f64 = 0.7;
/// How many times as slow the requests of a slow tail are.
const TAIL_FACTOR: f64 = 5.0;
/// Least requests of the canary before means are compared.
const MEAN_MIN: f64 = 100.0;

/// A service whose times are lognormal, and a canary that is slower from the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Requests per second, both arms together.
    pub per_second: f64,
    /// How many times as slow every request of the canary is.
    pub factor: f64,
    /// The share of the canary's requests that are five times slower still.
    pub tail: f64,
}

/// One arm in one poll.
#[derive(Debug, Clone)]
struct Side {
    histogram: Histogram,
    /// Sum of all times, and the variance of that sum.
    sum: f64,
    variance: f64,
}

/// A rollout and what was known before it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// Stable's memory.
    history: Histogram,
    /// Clumpiness by quantile.
    clumpiness: Vec<(f64, f64)>,
    /// Canary and stable, poll after poll.
    polls: Vec<[Side; 2]>,
}

/// A rule on response times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The canary's p99 of a minute, on straight lines between edges, is below so many milliseconds (Argo, Flagger).
    Threshold(f64),
    /// A rank test over a minute's quantiles with a growing window, each minute from the fifth on (Kayenta).
    Rank(f64),
    /// A z-test of the means over everything so far, after every poll from 100 canary requests on.
    RepeatedZ,
    /// Ours: this quantile is slower by more than this factor.
    Slower(f64, f64),
    /// Ours: this quantile is proven to be slower by no more than this factor.
    Within(f64, f64),
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        let ours = |quantile: f64, factor: f64| {
            let limit = match (factor - 1.0) * 100.0 {
                0.0 => "any".to_owned(),
                percent => format!("+{percent:.0} %"),
            };
            format!("p{:.0}, {limit}", quantile * 100.0)
        };
        match rule {
            Rule::Threshold(limit) => format!("threshold, p99 {limit} ms"),
            Rule::Rank(quantile) => format!("rank test, p{:.0} each minute", quantile * 100.0),
            Rule::RepeatedZ => "repeated z-test, mean".to_owned(),
            Rule::Slower(quantile, factor) => format!("tidegate, {}", ours(quantile, factor)),
            Rule::Within(quantile, factor) => format!("tidegate proof, {}", ours(quantile, factor)),
        }
    }
}

/// The rules of the table, in the order of its columns.
pub const RULES: [Rule; 10] = [
    Rule::Threshold(500.0),
    Rule::Threshold(300.0),
    Rule::Rank(0.99),
    Rule::Rank(0.5),
    Rule::RepeatedZ,
    Rule::Slower(0.5, 1.0),
    Rule::Slower(0.99, 1.0),
    Rule::Slower(0.5, 1.1),
    Rule::Slower(0.99, 1.1),
    Rule::Within(0.99, 1.1),
];

impl Scenario {
    /// Draws a rollout.
    pub fn draw(&self, random: &mut impl Rng) -> Drawn {
        let [canary, stable] = [SHARE, 1.0 - SHARE].map(|share| self.per_second * share);
        let history = buckets(poisson(stable * MEMORY_SECONDS, random), 1.0, 0.0, random);
        let clumpiness = [0.5, 0.99].map(|q| (q, self.clumpiness(q, &history, random))).to_vec();
        let polls = (0..POLLS)
            .map(|_| [side(canary, self.factor, self.tail, random), side(stable, 1.0, 0.0, random)])
            .collect();
        Drawn { history, clumpiness, polls }
    }

    /// Of slow requests, from pseudo canaries among stable over the history.
    fn clumpiness(&self, quantile: f64, history: &Histogram, random: &mut impl Rng) -> f64 {
        let mut monitor = LatencyMonitor::new(quantile, 1.0, Levels::default());
        monitor.preload(history);
        let Some(choice) = monitor.choose_edge() else { return 1.0 };
        let slow = 1.0 - share_up_to(choice.edge, 1.0, 0.0);
        let mut effect = DesignEffect::new(Family::Bernoulli, 1.0, block_polls(POLL_SECONDS));
        for _ in 0..SPLITS {
            let mut arm = |share: f64| {
                let requests = poisson(self.per_second * share * POLL_SECONDS, random);
                Arm::new(binomial(requests, slow, random), requests)
            };
            let windows: Vec<_> = (0..HISTORY_POLLS)
                .map(|_| Window::new(arm(SHARE), arm(1.0 - SHARE), POLL_SECONDS))
                .collect();
            effect.add_split(&windows);
        }
        effect.clumpiness()
    }
}

/// The share of requests that take at most `edge`.
fn share_up_to(edge: f64, factor: f64, tail: f64) -> f64 {
    let share = |median: f64| normal_cdf((edge / median).ln() / SPREAD);
    (1.0 - tail) * share(MEDIAN * factor) + tail * share(MEDIAN * factor * TAIL_FACTOR)
}

fn buckets(requests: f64, factor: f64, tail: f64, random: &mut impl Rng) -> Histogram {
    let (mut left, mut below) = (requests, 0.0);
    let mut cumulative = Vec::with_capacity(EDGES.len());
    for edge in EDGES {
        let share = share_up_to(edge, factor, tail);
        if left > 0.0 && below < 1.0 {
            left -= binomial(left, (share - below) / (1.0 - below), random);
        }
        below = share;
        cumulative.push(requests - left);
    }
    Histogram::new(EDGES.to_vec(), cumulative, requests)
}

fn side(per_second: f64, factor: f64, tail: f64, random: &mut impl Rng) -> Side {
    let histogram = buckets(poisson(per_second * POLL_SECONDS, random), factor, tail, random);
    let usual = MEDIAN * factor * (SPREAD * SPREAD / 2.0).exp();
    let mean = usual * (1.0 - tail + tail * TAIL_FACTOR);
    let square =
        usual.powi(2) * (1.0 - tail + tail * TAIL_FACTOR.powi(2)) * (SPREAD * SPREAD).exp();
    let variance = histogram.total * (square - mean * mean);
    let noise: f64 = random.sample(StandardNormal);
    let sum = histogram.total * mean + variance.sqrt() * noise;
    Side { histogram, sum, variance }
}

impl Rule {
    /// One of ours.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Slower(..) | Self::Within(..))
    }

    /// The first poll (from 0) after which the rule says so.
    #[must_use]
    pub fn first(self, drawn: &Drawn) -> Option<usize> {
        match self {
            Self::Threshold(limit) => {
                let minute = minutes(drawn, 0, 0.99).iter().position(|time| *time >= limit)?;
                Some(minute * MINUTE + MINUTE - 1)
            }
            Self::Rank(quantile) => {
                let [canary, stable] = [0, 1].map(|arm| minutes(drawn, arm, quantile));
                let minute = (5..=canary.len())
                    .find(|count| rank::is_high(&canary[..*count], &stable[..*count]))?;
                Some(minute * MINUTE - 1)
            }
            Self::RepeatedZ => repeated_z(&drawn.polls),
            Self::Slower(quantile, factor) => {
                monitor(drawn, quantile, factor, |monitor| monitor.log_bad() >= LOG_BAD)
            }
            Self::Within(quantile, factor) => {
                monitor(drawn, quantile, factor, |monitor| monitor.log_ok() >= LOG_OK)
            }
        }
    }
}

/// A quantile of an arm, minute by minute, on straight lines between edges; 0 without requests.
fn minutes(drawn: &Drawn, arm: usize, quantile: f64) -> Vec<f64> {
    let minute = |polls: &[[Side; 2]]| {
        let mut sum = Histogram::new(EDGES.to_vec(), vec![0.0; EDGES.len()], 0.0);
        for Side { histogram, .. } in polls.iter().map(|poll| &poll[arm]) {
            sum.total += histogram.total;
            sum.cumulative.iter_mut().zip(&histogram.cumulative).for_each(|(sum, it)| *sum += it);
        }
        straight_quantile(&sum, quantile)
    };
    drawn.polls.chunks(MINUTE).map(minute).collect()
}

fn straight_quantile(histogram: &Histogram, quantile: f64) -> f64 {
    let wanted = quantile * histogram.total;
    let (mut low_edge, mut low_count) = (0.0, 0.0);
    for (edge, count) in histogram.edges.iter().zip(&histogram.cumulative) {
        if histogram.total > 0.0 && *count >= wanted {
            let inside =
                if *count > low_count { (wanted - low_count) / (count - low_count) } else { 1.0 };
            return low_edge + (edge - low_edge) * inside;
        }
        (low_edge, low_count) = (*edge, *count);
    }
    if histogram.total > 0.0 { low_edge } else { 0.0 }
}

fn repeated_z(polls: &[[Side; 2]]) -> Option<usize> {
    let mut sums = [(0.0, 0.0, 0.0); 2];
    polls.iter().position(|poll| {
        for (total, side) in sums.iter_mut().zip(poll) {
            total.0 += side.histogram.total;
            total.1 += side.sum;
            total.2 += side.variance;
        }
        let [canary, stable] = sums;
        let spread = canary.2 / canary.0.powi(2) + stable.2 / stable.0.powi(2);
        canary.0 >= MEAN_MIN && (canary.1 / canary.0 - stable.1 / stable.0) / spread.sqrt() > Z
    })
}

/// The product's own monitor, as the judge feeds it.
fn monitor(
    drawn: &Drawn,
    quantile: f64,
    factor: f64,
    says: impl Fn(&LatencyMonitor) -> bool,
) -> Option<usize> {
    let known = drawn.clumpiness.iter().find(|(of, _)| *of == quantile);
    let conditions = Conditions::with_history(known.map_or(1.0, |(_, clumpiness)| *clumpiness));
    let mut monitor = LatencyMonitor::new(quantile, factor, Levels::default());
    monitor.preload(&drawn.history);
    drawn.polls.iter().position(|[canary, stable]| {
        monitor.update(&canary.histogram, &stable.histogram, POLL_SECONDS, &conditions);
        says(&monitor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_and_the_buckets_tell_of_the_same_times() {
        let mut random = rand_pcg::Pcg64Mcg::new(5);
        let side = side(1e5, 1.0, 0.02, &mut random);
        let mean = side.sum / side.histogram.total;
        let expected = MEDIAN * (SPREAD * SPREAD / 2.0).exp() * 1.08;
        assert!((mean / expected - 1.0).abs() < 0.01, "{mean} {expected}");
        let median = straight_quantile(&side.histogram, 0.5);
        assert!((50.0..52.0).contains(&median), "{median}");
        assert_eq!(straight_quantile(&buckets(0.0, 1.0, 0.0, &mut random), 0.5), 0.0);
    }
}
