//! How many requests were faster than each of a few edges, and what that says about the times in between.
//!
//! Between edges the distribution function is interpolated linearly in (ln time, normal score), which is exact for
//! lognormal times and within 4 % on quantiles of smooth shapes with one hump, where straight lines are off by up to
//! 69 %. Where an end of the bucket is 0 or 1 it has no normal score and a straight line is used. A timeout spike inside
//! one bucket defeats any interpolation.
//!
//! Source of the display interval: Robbins' beta-binomial mixture; Howard and Ramdas (quantiles).

use serde::{Deserialize, Serialize};

use super::numbers::{normal_cdf, normal_quantile};
use super::traffic_split::log_split_e_value;

/// Edges that differ by less than this, relatively, are the same edge written twice.
const SAME_EDGE: f64 = 1e-9;

/// Increments of cumulative buckets over one poll (or sums of such).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Finite upper edges, positive and strictly ascending.
    pub edges: Vec<f64>,
    /// For each edge the requests at or below it; never descending.
    pub cumulative: Vec<f64>,
    /// All requests, those above the last edge included.
    pub total: f64,
}

/// A quantile and the bucket that holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// The interpolated value; the last edge when the quantile lies above it.
    pub estimate: f64,
    /// Lower edge of its bucket, 0 for the first.
    pub lower: f64,
    /// Upper edge of its bucket, infinite above the last edge.
    pub upper: f64,
}

impl Histogram {
    /// The histogram of `total` requests with `cumulative` of them at or below each of `edges`.
    pub const fn new(edges: Vec<f64>, cumulative: Vec<f64>, total: f64) -> Self {
        Self { edges, cumulative, total }
    }

    /// Whether this can be read: edges positive, finite, ascending; counts finite, from 0 up to the total, ascending.
    pub fn is_readable(&self) -> bool {
        let ascending = |values: &[f64], strictly: bool| {
            values.windows(2).all(|pair| pair[0] < pair[1] || (!strictly && pair[0] == pair[1]))
        };
        let within = |value: &f64, low: f64, high: f64| (low..=high).contains(value);
        self.edges.len() == self.cumulative.len()
            && self.edges.iter().all(|edge| *edge > 0.0 && edge.is_finite())
            && within(&self.total, 0.0, super::window::COUNT_MAX)
            && self.cumulative.iter().all(|count| within(count, 0.0, self.total))
            && ascending(&self.edges, true)
            && ascending(&self.cumulative, false)
    }

    /// The same requests sorted by those edges only that `keep` has too. Counts at an edge stay exact.
    #[must_use]
    pub fn restricted(&self, keep: &[f64]) -> Self {
        let (edges, cumulative) = self
            .edges
            .iter()
            .zip(&self.cumulative)
            .filter(|(edge, _)| position(keep, **edge).is_some())
            .unzip();
        Self { edges, cumulative, total: self.total }
    }

    /// Requests at or below `edge`; `None` when the layout has no such edge.
    pub fn count_up_to(&self, edge: f64) -> Option<f64> {
        position(&self.edges, edge).map(|index| self.cumulative[index])
    }

    /// The edge up to which nearest to a share `probability` of the requests lie; `None` without edges or requests.
    #[must_use]
    pub fn edge_nearest(&self, probability: f64) -> Option<f64> {
        let distance = |below: f64| (below / self.total - probability).abs();
        let known = self.edges.iter().zip(&self.cumulative).filter(|_| self.total > 0.0);
        known
            .min_by(|one, other| distance(*one.1).total_cmp(&distance(*other.1)))
            .map(|(edge, _)| *edge)
    }

    /// For each edge the share of requests at or below it; empty without requests.
    pub fn shares(&self) -> Vec<f64> {
        if self.total > 0.0 {
            self.cumulative.iter().map(|count| count / self.total).collect()
        } else {
            Vec::new()
        }
    }
}

/// Where `edge` stands in ascending `edges`.
pub(super) fn position(edges: &[f64], edge: f64) -> Option<usize> {
    let index = edges.partition_point(|other| *other < edge * (1.0 - SAME_EDGE));
    edges.get(index).filter(|other| (**other - edge).abs() <= SAME_EDGE * edge)?;
    Some(index)
}

/// The share of requests at or below `time`, interpolated from the `shares` at `edges`.
///
/// 0 below the first edge and 1 above the last: nothing is known there. NaN for NaN or without edges.
pub fn share_up_to(edges: &[f64], shares: &[f64], time: f64) -> f64 {
    let known = edges.len().min(shares.len());
    let above = edges[..known].partition_point(|edge| *edge < time);
    match above {
        _ if known == 0 || time.is_nan() => f64::NAN,
        index if index < known && edges[index] == time => shares[index],
        0 => 0.0,
        index if index == known => 1.0,
        index => {
            let (low, high) = (shares[index - 1], shares[index]);
            let along = (time / edges[index - 1]).ln() / (edges[index] / edges[index - 1]).ln();
            if low <= 0.0 || high >= 1.0 || high <= low {
                low + along * (high - low)
            } else {
                let (from, to) = (normal_quantile(low), normal_quantile(high));
                normal_cdf(from * (1.0 - along) + to * along)
            }
        }
    }
}

/// The time that a share `probability` of requests stays at or below, with its bucket.
///
/// `None` without edges or for a NaN; never an extrapolation beyond the edges.
pub fn quantile(edges: &[f64], shares: &[f64], probability: f64) -> Option<Quantile> {
    let known = edges.len().min(shares.len());
    if known == 0 || probability.is_nan() {
        return None;
    }
    let Some(index) = shares[..known].iter().position(|share| probability <= *share) else {
        let last = edges[known - 1];
        return Some(Quantile { estimate: last, lower: last, upper: f64::INFINITY });
    };
    if index == 0 {
        return Some(Quantile { estimate: edges[0], lower: 0.0, upper: edges[0] });
    }
    let (lower, upper) = (edges[index - 1], edges[index]);
    let (low, high) = (shares[index - 1], shares[index]);
    let along = if low <= 0.0 || high >= 1.0 {
        (probability - low) / (high - low)
    } else {
        let (from, to) = (normal_quantile(low), normal_quantile(high));
        (normal_quantile(probability) - from) / (to - from)
    };
    let estimate = lower * (upper / lower).powf(along);
    Some(Quantile { estimate, lower, upper })
}

/// The edges between which the `probability`-quantile of one arm lies, at any time of looking with error at most `alpha`.
///
/// An edge is ruled out when the mixture of Beta(k p, k (1 - p)) shares wins 1/alpha against "a share p lies below".
/// For display only: it pools over time, which drift can deceive. (0, infinity) while nothing is ruled out.
pub fn quantile_interval(
    histogram: &Histogram,
    probability: f64,
    alpha: f64,
    concentration: f64,
) -> (f64, f64) {
    let mut interval = (0.0_f64, f64::INFINITY);
    for (edge, count) in histogram.edges.iter().zip(&histogram.cumulative) {
        let counts = [*count, histogram.total - count];
        let evidence = log_split_e_value(&counts, &[probability, 1.0 - probability], concentration);
        if evidence >= -alpha.ln() {
            if *count < probability * histogram.total {
                interval.0 = interval.0.max(*edge);
            } else {
                interval.1 = interval.1.min(*edge);
            }
        }
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Histogram {
        Histogram::new(vec![5.0, 10.0, 25.0], vec![10.0, 60.0, 90.0], 100.0)
    }

    #[test]
    fn unreadable_histograms_are_recognised() {
        assert!(sample().is_readable());
        let broken: [fn(&mut Histogram); 7] = [
            |it| it.total = f64::NAN,
            |it| it.total = 80.0,
            |it| it.cumulative[1] = 5.0,
            |it| it.cumulative[0] = -1.0,
            |it| it.edges[2] = f64::INFINITY,
            |it| it.edges[1] = 5.0,
            |it| it.edges.truncate(2),
        ];
        for breaks in broken {
            let mut histogram = sample();
            breaks(&mut histogram);
            assert!(!histogram.is_readable(), "{histogram:?}");
        }
    }

    #[test]
    fn restricting_keeps_counts() {
        let kept = sample().restricted(&[1.0, 10.0 * (1.0 + 1e-12), 30.0]);
        assert_eq!(kept, Histogram::new(vec![10.0], vec![60.0], 100.0));
        assert_eq!(sample().count_up_to(25.0), Some(90.0));
        assert_eq!(sample().count_up_to(24.0), None);
    }

    #[test]
    fn nothing_is_extrapolated() {
        let histogram = sample();
        let shares = histogram.shares();
        assert_eq!(share_up_to(&histogram.edges, &shares, 4.9), 0.0);
        assert_eq!(share_up_to(&histogram.edges, &shares, 5.0), 0.1);
        assert_eq!(share_up_to(&histogram.edges, &shares, 25.0), 0.9);
        assert_eq!(share_up_to(&histogram.edges, &shares, 25.1), 1.0);
        assert!(share_up_to(&histogram.edges, &shares, f64::NAN).is_nan());
        let top = quantile(&histogram.edges, &shares, 0.95).unwrap();
        assert_eq!((top.estimate, top.lower, top.upper), (25.0, 25.0, f64::INFINITY));
        assert_eq!(quantile(&[], &[], 0.5), None);
    }
}
