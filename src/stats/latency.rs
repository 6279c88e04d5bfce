//! Is the canary slower than stable by more than a factor?
//!
//! "The p99 may be at most 10 % slower" becomes a question about counts. Take a bucket edge v near stable's p99. If the
//! canary were exactly 10 % slower, its share of requests slower than v would be stable's share slower than v/1.1, which
//! is kappa times stable's share slower than v. So: is the canary's share above kappa times stable's? Edge and kappa come
//! from stable's decayed histogram of *earlier* polls and may change from poll to poll; both arms are counted in the same
//! poll, so daily drift and a changing canary share cancel.
//!
//! The count test is exact; kappa is as good as the interpolation between edges (see [`super::histogram`]). The
//! bracket [`EdgeChoice::kappa_min`], [`EdgeChoice::kappa_max`] needs no interpolation and says how much it matters.
//! A fixed limit ([`super::absolute_latency`]) needs neither stable nor interpolation.

use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::evidence::{Caps, Evidence, Levels, Terms};
use super::histogram::{Histogram, position, share_up_to};
use super::numbers::decay;
use super::wealth::Wealth;
use super::window::{Arm, Family, Limit, Window, clean_seconds};

const HISTOGRAM_HALF_LIFE_SECONDS: f64 = 600.0;
/// Decayed requests that must lie on each side of an edge before it is used.
const SIDE_MIN: f64 = 10.0;
/// A tail this many times larger or smaller than asked for is too far away.
const TAIL_TOO_FAR: f64 = 4.0;

/// The edge at which the next poll is counted, and what the limit means there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeChoice {
    /// Position of the edge in the layout learned from stable.
    pub index: usize,
    /// The edge itself.
    pub edge: f64,
    /// Stable's share of requests slower than the edge.
    pub tail: f64,
    /// How many times that share the limit allows the canary, interpolated.
    pub kappa: f64,
    /// The least that this can be, whatever the shape between edges.
    pub kappa_min: f64,
    /// The most that this can be, whatever the shape between edges.
    pub kappa_max: f64,
}

impl EdgeChoice {
    /// Whether the edge is so far from the quantile (a factor of 4 in the tail) that the answer is about another one.
    pub fn is_too_far(&self, quantile: f64) -> bool {
        let wanted = 1.0 - quantile;
        self.tail < wanted / TAIL_TOO_FAR || self.tail > wanted * TAIL_TOO_FAR
    }
}

/// Watches "quantile of the canary at most `slowdown` times that of stable".
///
/// Size grows with the number of edges only. Layouts that differ between arms or over time are cut down to the edges
/// that they share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyMonitor {
    quantile: f64,
    slowdown: f64,
    levels: Levels,
    stable: Histogram,
    last_choice: Option<EdgeChoice>,
    wealth: Wealth,
    bracketed: Wealth,
}

impl LatencyMonitor {
    /// A fresh monitor: `quantile` in (0, 1), `slowdown` above 0 (1.1 allows 10 % slower, 1 allows nothing).
    pub fn new(quantile: f64, slowdown: f64, levels: Levels) -> Self {
        Self {
            quantile,
            slowdown,
            levels,
            stable: Histogram::default(),
            last_choice: None,
            wealth: Wealth::for_counts(levels.beta),
            bracketed: Wealth::for_counts(levels.beta),
        }
    }

    /// Teaches stable's distribution from before the first poll. An unreadable histogram teaches nothing.
    pub fn preload(&mut self, history: &Histogram) {
        self.learn(history, 0.0);
    }

    /// Says that traffic has just been shifted.
    pub fn traffic_step(&mut self) {
        self.wealth.traffic_step();
        self.bracketed.traffic_step();
    }

    /// The edge that the next poll would be counted at, if the canary has all of stable's edges.
    ///
    /// `None` while no edge has 10 (decayed) stable requests on both sides.
    pub fn choose_edge(&self) -> Option<EdgeChoice> {
        self.choose(&self.stable.edges)
    }

    /// The choice of the latest poll that was counted.
    pub fn last_choice(&self) -> Option<EdgeChoice> {
        self.last_choice
    }

    /// Takes a poll in: increments of both arms' buckets over the same `seconds`. Returns its capped evidence.
    ///
    /// Without a usable edge, with an unreadable histogram or while latency is paused the poll decides nothing.
    pub fn update(
        &mut self,
        canary: &Histogram,
        stable: &Histogram,
        seconds: f64,
        conditions: &Conditions,
    ) -> Evidence {
        let seconds = clean_seconds(seconds);
        if !stable.is_readable() || !canary.is_readable() {
            return Evidence::NONE;
        }
        self.adopt_layout(stable);
        let choice = self.choose(&canary.edges).filter(|_| !conditions.latency_paused);
        let evidence = choice.map_or(Evidence::NONE, |choice| {
            let window = window_at(choice.edge, canary, stable, seconds);
            let evidence = self.terms(choice.kappa, &choice, conditions).evidence(&window);
            self.wealth.absorb(&evidence, seconds);
            self.bracketed.absorb(&self.bracket(&window, &choice, conditions), seconds);
            evidence
        });
        self.last_choice = choice;
        self.learn(stable, seconds);
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

    /// ln of the wealth of "slower than the limit" that trusts no interpolation: kappa at its upper end.
    ///
    /// Where this decides too, the answer is free of assumptions about the times between edges.
    pub fn log_bad_bracketed(&self) -> f64 {
        self.bracketed.log_bad()
    }

    /// ln of the wealth of "within the limit" that trusts no interpolation: kappa at its lower end.
    pub fn log_ok_bracketed(&self) -> f64 {
        self.bracketed.log_ok()
    }

    fn bracket(&self, window: &Window, choice: &EdgeChoice, conditions: &Conditions) -> Evidence {
        Evidence {
            bad: self.terms(choice.kappa_max, choice, conditions).bad(window).bad,
            ok: self.terms(choice.kappa_min, choice, conditions).ok(window).ok,
        }
    }

    fn terms(&self, kappa: f64, choice: &EdgeChoice, conditions: &Conditions) -> Terms {
        Terms {
            family: Family::Bernoulli,
            limit: Limit::ratio(kappa).scaled(conditions.limit_factor),
            stable_rate: choice.tail,
            rate_max: Family::Bernoulli.rate_max(),
            clumpiness: conditions.clumpiness,
            caps: Caps::for_counts(self.levels, conditions.quorum),
            ok_paused: conditions.ok_paused,
        }
    }

    /// Among the edges that `canary_edges` has too, the one whose tail is nearest to the quantile's, in ln.
    fn choose(&self, canary_edges: &[f64]) -> Option<EdgeChoice> {
        let Histogram { edges, cumulative, total } = &self.stable;
        let same_layout = canary_edges == edges.as_slice();
        let distance = |tail: f64| ((tail / total) / (1.0 - self.quantile)).ln().abs();
        let (index, _) = edges
            .iter()
            .zip(cumulative)
            .enumerate()
            .map(|(index, (edge, below))| (index, *edge, *below, total - below))
            .filter(|(_, edge, below, tail)| {
                *tail >= SIDE_MIN
                    && *below >= SIDE_MIN
                    && (same_layout || position(canary_edges, *edge).is_some())
            })
            .map(|(index, _, _, tail)| (index, distance(tail)))
            .min_by(|one, other| one.1.total_cmp(&other.1))?;
        self.describe(index)
    }

    fn describe(&self, index: usize) -> Option<EdgeChoice> {
        let shares = self.stable.shares();
        let edges = &self.stable.edges;
        let edge = edges[index];
        let tail = 1.0 - shares[index];
        let faster = edge / self.slowdown;
        let kappa = |share_below: f64| (1.0 - share_below) / tail;
        let above = edges.partition_point(|other| *other < faster);
        let below = edges.partition_point(|other| *other <= faster).checked_sub(1);
        // A slowdown below 1 asks about times beyond the edge, maybe beyond the last: then at least nothing is slower.
        let choice = EdgeChoice {
            index,
            edge,
            tail,
            kappa: kappa(share_up_to(edges, &shares, faster)),
            kappa_min: kappa(shares.get(above).copied().unwrap_or(1.0)),
            kappa_max: kappa(below.map_or(0.0, |below| shares[below])),
        };
        choice.kappa.is_finite().then_some(choice)
    }

    /// Keeps only what the learned layout and a new one share; starts over when that is nothing.
    fn adopt_layout(&mut self, other: &Histogram) {
        if other.edges.is_empty() || self.stable.edges == other.edges {
            return;
        }
        let common = self.stable.restricted(&other.edges);
        self.stable = if common.edges.is_empty() {
            let nothing = vec![0.0; other.edges.len()];
            Histogram::new(other.edges.clone(), nothing, 0.0)
        } else {
            common
        };
    }

    /// Ages the learned histogram by `seconds` and adds `other`.
    fn learn(&mut self, other: &Histogram, seconds: f64) {
        if !other.is_readable() {
            return;
        }
        self.adopt_layout(other);
        let weight = decay(seconds, HISTOGRAM_HALF_LIFE_SECONDS);
        let Histogram { edges, cumulative, .. } = &mut self.stable;
        if *edges == other.edges {
            for (count, seen) in cumulative.iter_mut().zip(&other.cumulative) {
                *count = *count * weight + seen;
            }
        } else {
            for (count, edge) in cumulative.iter_mut().zip(edges.iter()) {
                *count = *count * weight + other.count_up_to(*edge).unwrap_or(0.0);
            }
        }
        self.stable.total = self.stable.total * weight + other.total;
    }
}

/// Requests slower than `edge` in both arms. Empty when an arm has no such edge.
fn window_at(edge: f64, canary: &Histogram, stable: &Histogram, seconds: f64) -> Window {
    let arm = |histogram: &Histogram| {
        let below = histogram.count_up_to(edge)?;
        Some(Arm::new(histogram.total - below, histogram.total))
    };
    match (arm(canary), arm(stable)) {
        (Some(canary), Some(stable)) => Window::new(canary, stable, seconds),
        _ => Window::empty(seconds),
    }
}
