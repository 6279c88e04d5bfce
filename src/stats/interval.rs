//! By how much does the canary differ, with what certainty?
//!
//! For each difference d on a grid two bets run: "more than d" and "less than d". What is left between the largest d ruled
//! out from below and the smallest ruled out from above is an interval for (canary rate - stable rate) that is true at
//! every look, with error at most alpha. Exact like the bets it is made of; for display, since it keeps no cash for late
//! changes and knows no clumps.

use serde::{Deserialize, Serialize};

use super::count::StableRate;
use super::evidence::{BAD_BETS, Caps, Evidence, OK_BETS, OK_MULTIPLES, Terms};
use super::exact;
use super::numbers::log_sum;
use super::window::{Arm, Family, Limit, Window};

const GRID_MIN: f64 = 0.0001;
const GRID_MAX: f64 = 0.05;
const GRID_PER_SIGN: usize = 22;

/// Differences from -5 to +5 points: 22 per sign, evenly spaced in logarithm, and 0.
pub fn default_grid() -> Vec<f64> {
    let ratio = (GRID_MAX / GRID_MIN).powf(((GRID_PER_SIGN - 1) as f64).recip());
    let positive = |step: usize| GRID_MIN * ratio.powi(step as i32);
    let below = (0..GRID_PER_SIGN).rev().map(|step| -positive(step));
    below.chain([0.0]).chain((0..GRID_PER_SIGN).map(positive)).collect()
}

/// An interval for the canary's rate minus stable's, poll by poll.
///
/// Differences that can no longer move an end are dropped, so the state shrinks as the answer sharpens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DifferenceInterval {
    family: Family,
    alpha: f64,
    stable_rate: StableRate,
    open: Vec<GridPoint>,
    lower: Option<f64>,
    upper: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct GridPoint {
    difference: f64,
    #[serde(with = "exact")]
    more: [f64; BAD_BETS],
    #[serde(with = "exact")]
    less: [f64; OK_BETS],
}

impl DifferenceInterval {
    /// An interval over `grid` (any order; shares, so 0.001 is a tenth of a point) with error at most `alpha`.
    pub fn new(family: Family, grid: &[f64], alpha: f64) -> Self {
        let open = grid.iter().filter(|difference| difference.is_finite());
        Self {
            family,
            alpha,
            stable_rate: StableRate::default(),
            open: open.map(|difference| GridPoint::new(*difference)).collect(),
            lower: None,
            upper: None,
        }
    }

    /// Teaches stable's rate from before the first poll.
    pub fn preload(&mut self, history: Arm) {
        self.stable_rate.preload(history);
    }

    /// Takes a poll in. An unreadable poll counts as empty.
    pub fn update(&mut self, window: &Window) {
        let window = window.cleaned();
        let stable_rate = self.stable_rate.rate();
        let decided = (2.0 / self.alpha).ln();
        for point in &mut self.open {
            point.absorb(self.family, &window, stable_rate);
            if point.log_more() >= decided {
                self.lower =
                    Some(self.lower.map_or(point.difference, |it| it.max(point.difference)));
            }
            if point.log_less() >= decided {
                self.upper =
                    Some(self.upper.map_or(point.difference, |it| it.min(point.difference)));
            }
        }
        let (lower, upper) = (self.lower, self.upper);
        self.open.retain(|point| {
            lower.is_none_or(|lower| point.difference > lower)
                && upper.is_none_or(|upper| point.difference < upper)
        });
        self.stable_rate.learn(window.stable, window.seconds);
    }

    /// The largest difference on the grid that the canary is known to exceed.
    pub fn lower(&self) -> Option<f64> {
        self.lower
    }

    /// The smallest difference on the grid that the canary is known to stay below.
    pub fn upper(&self) -> Option<f64> {
        self.upper
    }
}

impl GridPoint {
    fn new(difference: f64) -> Self {
        let mut less = [(0.5 / OK_MULTIPLES.len() as f64).ln(); OK_BETS];
        less[0] = 0.5_f64.ln();
        Self { difference, more: [-(BAD_BETS as f64).ln(); BAD_BETS], less }
    }

    fn absorb(&mut self, family: Family, window: &Window, stable_rate: f64) {
        let limit = Limit::difference(self.difference);
        if limit.at(stable_rate) <= 0.0 {
            // A rate below zero is impossible, so the canary exceeds this difference.
            self.more = [f64::INFINITY; BAD_BETS];
            return;
        }
        let terms = Terms {
            family,
            limit,
            stable_rate,
            rate_max: 1.0,
            clumpiness: 1.0,
            caps: Caps::NONE,
            ok_paused: false,
        };
        let Evidence { bad, ok } = terms.evidence(window);
        self.more.iter_mut().zip(bad).for_each(|(bet, won)| *bet += won);
        self.less.iter_mut().zip(ok).for_each(|(bet, won)| *bet += won);
    }

    fn log_more(&self) -> f64 {
        log_sum(self.more.iter().copied())
    }

    fn log_less(&self) -> f64 {
        log_sum(self.less.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_grid_is_symmetric() {
        let grid = default_grid();
        assert_eq!(grid.len(), 45);
        assert_eq!(grid[22], 0.0);
        assert!(grid.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(grid.iter().zip(grid.iter().rev()).all(|(one, other)| *one == -*other));
        assert!((grid[44] - GRID_MAX).abs() < 1e-12);
    }

    #[test]
    fn the_interval_closes_in_on_the_difference_and_sheds_state() {
        let mut interval = DifferenceInterval::new(Family::Poisson, &default_grid(), 0.05);
        interval.preload(Arm::new(500.0, 500_000.0));
        for _ in 0..60 {
            interval.update(&Window::new(Arm::new(20.0, 5e3), Arm::new(100.0, 1e5), 10.0));
            interval.update(&Window::new(Arm::new(f64::NAN, 5e3), Arm::new(1.0, 1e5), 10.0));
        }
        let (lower, upper) = (interval.lower().unwrap(), interval.upper().unwrap());
        assert!(lower < 0.003 && 0.003 < upper, "{lower} {upper}");
        assert!(lower > 0.002 && upper < 0.0045, "{lower} {upper}");
        assert!(interval.open.len() < 6);
        let text = serde_json::to_string(&interval).unwrap();
        assert_eq!(serde_json::from_str::<DifferenceInterval>(&text).unwrap(), interval);
    }
}
