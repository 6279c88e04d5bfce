//! How much did a counter grow between two scrapes?
//!
//! Counters restart at 0 with their process, so a drop means a restart and the new value is the growth. Rates and
//! extrapolation have no place here: the tests count events.

/// The growth from `previous` to `current` of one series, at least 0.
///
/// `None` when a sample is missing, NaN, infinite or negative: the series is skipped for this poll, in numerator and
/// denominator alike. Also `None` for the first sample, which only sets the origin.
pub fn counter_increase(previous: Option<f64>, current: Option<f64>) -> Option<f64> {
    let readable = |sample: f64| sample.is_finite() && sample >= 0.0;
    let previous = previous.filter(|sample| readable(*sample))?;
    let current = current.filter(|sample| readable(*sample))?;
    Some(if current >= previous { current - previous } else { current })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_restart_and_gaps() {
        assert_eq!(counter_increase(Some(10.0), Some(15.0)), Some(5.0));
        assert_eq!(counter_increase(Some(15.0), Some(3.0)), Some(3.0));
        assert_eq!(counter_increase(None, Some(3.0)), None);
        assert_eq!(counter_increase(Some(3.0), None), None);
        for broken in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(counter_increase(Some(broken), Some(3.0)), None);
            assert_eq!(counter_increase(Some(3.0), Some(broken)), None);
        }
    }
}
