//! Between which bounds does one arm's rate lie, given a fixed number of requests?
//!
//! The exact (Clopper-Pearson) interval: the rates that would make what was seen not too unlikely. For one look at a
//! finished window, such as stable's last one before it went away, or the number of false alarms in a calibration; not
//! for looking repeatedly while the window grows.
//!
//! Source: Clopper and Pearson (1934), through quantiles of the beta distribution.

use statrs::distribution::{Beta, ContinuousCDF};

use super::window::Arm;

/// Lower and upper bound of the rate of events, missing it with chance at most `alpha`, half of that on each side.
///
/// (0, 1) without requests, for unreadable numbers and for `alpha` outside of (0, 1).
pub fn rate_interval(arm: Arm, alpha: f64) -> (f64, f64) {
    let Some(Arm { events, requests }) = arm.cleaned().filter(|_| alpha > 0.0 && alpha < 1.0)
    else {
        return (0.0, 1.0);
    };
    let bound = |events: f64, misses: f64, probability: f64| {
        Beta::new(events, misses).ok().map(|beta| beta.inverse_cdf(probability))
    };
    let lower = bound(events, requests - events + 1.0, alpha / 2.0).unwrap_or(0.0);
    let upper = bound(events + 1.0, requests - events, 1.0 - alpha / 2.0).unwrap_or(1.0);
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let close = |(low, high): (f64, f64), (low_known, high_known): (f64, f64)| {
            assert!(
                (low - low_known).abs() < 1e-5 && (high - high_known).abs() < 1e-5,
                "{low} {high}"
            );
        };
        close(rate_interval(Arm::new(0.0, 10.0), 0.05), (0.0, 0.308_498));
        close(rate_interval(Arm::new(10.0, 10.0), 0.05), (0.691_502, 1.0));
        close(rate_interval(Arm::new(5.0, 10.0), 0.05), (0.187_086, 0.812_914));
        close(rate_interval(Arm::new(1.0, 1000.0), 0.05), (0.000_025_3, 0.005_558_9));
        let (low, high) = rate_interval(Arm::new(1000.0, 1_000_000.0), 0.05);
        assert!(0.00093 < low && low < 0.001 && 0.001 < high && high < 0.00107, "{low} {high}");
    }

    #[test]
    fn nothing_known_is_everything_possible() {
        assert_eq!(rate_interval(Arm::EMPTY, 0.05), (0.0, 1.0));
        assert_eq!(rate_interval(Arm::new(f64::NAN, 5.0), 0.05), (0.0, 1.0));
        assert_eq!(rate_interval(Arm::new(1.0, 5.0), f64::NAN), (0.0, 1.0));
    }
}
