//! The rank test by which Kayenta classifies a metric, from the published description of its rule.
//!
//! A metric is *high* when the lower end of the 98 % Mann-Whitney interval of the shift is above a quarter of the
//! estimated shift. Each judgement stands alone: looking again is not paid for.

/// Standard normal quantile of 0.99: both sides of a 98 % interval.
const QUANTILE: f64 = 2.326_347_874_040_841;
/// Part of the estimated shift that the interval has to be above.
const TOLERANCE: f64 = 0.25;
/// Accuracy of shift and interval.
const PRECISION: f64 = 1e-4;

/// Whether `canary` is classified as higher than `stable`: points of equal spacing, in percent for shares.
#[must_use]
pub fn is_high(canary: &[f64], stable: &[f64]) -> bool {
    let (canary, stable) = (sorted(canary), sorted(stable));
    let (Some(first), Some(other)) = (canary.first(), stable.first()) else { return false };
    let is_flat = |values: &[f64]| values.first() == values.last();
    if canary == stable {
        return false;
    }
    if is_flat(&canary) && is_flat(&stable) {
        return first > other;
    }
    let low = shift(&canary, &stable, QUANTILE, true);
    let estimate = shift(&canary, &stable, 0.0, false);
    low > TOLERANCE * estimate.abs()
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The shift of `canary` at which the statistic is `quantile`; the statistic falls as the shift grows.
///
/// No shift beyond the differences that are there: where all of them are still too likely, the outermost one is it.
/// Where the statistic leaps over the quantile, as it does at tied values, what lies just below the leap is taken.
fn shift(canary: &[f64], stable: &[f64], quantile: f64, is_corrected: bool) -> f64 {
    let above = |shift: f64| statistic(canary, stable, shift, is_corrected) - quantile;
    let (mut low, mut high) =
        (canary[0] - stable[stable.len() - 1], canary[canary.len() - 1] - stable[0]);
    if above(low) <= 0.0 {
        return low;
    }
    if above(high) >= 0.0 {
        return high;
    }
    while high - low > PRECISION {
        let middle = 0.5 * (low + high);
        if above(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Normal score of the rank sum of `canary - by` among both, ties and continuity corrected.
fn statistic(canary: &[f64], stable: &[f64], by: f64, is_corrected: bool) -> f64 {
    let (count, other) = (canary.len() as f64, stable.len() as f64);
    let all = count + other;
    let (mut above, mut ties) = (0.0, 0.0);
    let (mut left, mut right) = (0, 0);
    while left < canary.len() || right < stable.len() {
        let of_canary = canary.get(left).map(|value| value - by);
        let value = match (of_canary, stable.get(right)) {
            (Some(one), Some(two)) => one.min(*two),
            (Some(one), None) => one,
            (None, Some(two)) => *two,
            (None, None) => break,
        };
        let (begin, other_begin) = (left, right);
        while canary.get(left).is_some_and(|it| it - by == value) {
            left += 1;
        }
        while stable.get(right).is_some_and(|it| *it == value) {
            right += 1;
        }
        let (same, other_same) = ((left - begin) as f64, (right - other_begin) as f64);
        above += same * (other_begin as f64 + 0.5 * other_same);
        let tied = same + other_same;
        ties += tied.powi(3) - tied;
    }
    let distance = above - count * other / 2.0;
    let correction = if is_corrected { distance.signum() * 0.5 } else { 0.0 };
    let spread = (count * other / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)))).sqrt();
    if spread > 0.0 { (distance - correction) / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_high_and_none_is_not() {
        let stable: Vec<f64> = (0..30).map(|n| f64::from(n * 7 % 30)).collect();
        let shifted: Vec<f64> = stable.iter().map(|value| value + 20.0).collect();
        assert!(is_high(&shifted, &stable));
        assert!(!is_high(&stable, &shifted));
        assert!(!is_high(&stable, &stable));
        assert!(is_high(&[2.0, 2.0], &[1.0, 1.0]));
        assert!(!is_high(&[], &stable));
    }

    /// One error of a canary with few requests, where most minutes of both have none.
    #[test]
    fn a_single_error_among_zeros_is_not_a_shift() {
        let mut canary = vec![0.0; 8];
        canary[5] = 3.3;
        assert!(!is_high(&canary, &[0.0; 8]));
        let mut stable = vec![0.0; 8];
        stable[..3].fill(0.175);
        assert!(!is_high(&canary, &stable));
    }

    /// By brute force: the estimate is the median of the pairwise differences.
    #[test]
    fn the_estimate_is_the_median_difference() {
        let canary = [1.0, 4.0, 6.5, 9.0, 11.25];
        let stable = [0.5, 2.0, 3.0, 7.0];
        let mut differences: Vec<f64> =
            canary.iter().flat_map(|one| stable.iter().map(move |two| one - two)).collect();
        differences.sort_by(f64::total_cmp);
        let middle = differences[9].min(differences[10])..=differences[9].max(differences[10]);
        let found = shift(&canary, &stable, 0.0, false);
        assert!(*middle.start() - 1e-3 <= found && found <= *middle.end() + 1e-3, "{found}");
    }
}
