//! How large a share can be that was seen so often: an interval that is never too narrow.
//!
//! The ends are the shares at which so many, or so few, would be seen with half of the allowed chance (Clopper and
//! Pearson 1934). Exact for independent trials; wider than it has to be for small numbers.

use statrs::distribution::{Beta, ContinuousCDF};

/// Interval of a share of which `count` of `of` trials were seen; 0 to 1 without trials.
#[must_use]
pub fn clopper_pearson(count: u64, of: u64, confidence: f64) -> (f64, f64) {
    let count = count.min(of);
    let (seen, others) = (count as f64, (of - count) as f64);
    let half = 0.5 * (1.0 - confidence.clamp(0.0, 1.0));
    let end = |one: f64, other: f64, chance: f64| {
        Beta::new(one, other).map(|law| law.inverse_cdf(chance))
    };
    let low = if count == 0 { 0.0 } else { end(seen, others + 1.0, half).unwrap_or(0.0) };
    let high = if count == of { 1.0 } else { end(seen + 1.0, others, 1.0 - half).unwrap_or(1.0) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known values: the rule of three, and a table of exact binomial intervals.
    #[test]
    fn the_ends_are_those_of_the_tables() {
        let near = |found: (f64, f64), low: f64, high: f64| {
            assert!((found.0 - low).abs() < 1e-4 && (found.1 - high).abs() < 1e-4, "{found:?}");
        };
        near(clopper_pearson(0, 100, 0.95), 0.0, 0.036_217);
        near(clopper_pearson(1, 10, 0.95), 0.002_529, 0.445_016);
        near(clopper_pearson(5, 10, 0.95), 0.187_086, 0.812_914);
        near(clopper_pearson(10, 10, 0.95), 0.691_503, 1.0);
        near(clopper_pearson(0, 0, 0.95), 0.0, 1.0);
    }
}
