//! Sums of numbers too large to write down, and the bell curve.
//!
//! Wealths grow and shrink exponentially (e^400 is an ordinary value), so everything here stays in natural logarithms.
//! Exact up to rounding. Special functions come from `statrs`.

use std::f64::consts::{PI, SQRT_2};

use statrs::function::erf::{erfc, erfc_inv};

/// ln(e^a + e^b), without overflow. Minus infinity stands for zero; a NaN argument gives NaN.
pub fn log_add(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        return b;
    }
    if b == f64::NEG_INFINITY {
        return a;
    }
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    large + (small - large).exp().ln_1p()
}

/// ln of the sum of e^v over all values, without overflow; minus infinity for no values.
pub fn log_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + values.map(|value| (value - largest).exp()).sum::<f64>().ln()
}

/// P(Z <= z) of a standard normal variable.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}

/// ln P(Z <= z), also where the probability itself is too small for a double.
///
/// Below -8 by the asymptotic series of the Mills ratio (error under 1e-6 there, fading quickly).
pub fn log_normal_cdf(z: f64) -> f64 {
    if z > -8.0 {
        return normal_cdf(z).ln();
    }
    let inverse = (z * z).recip();
    let series = inverse * (-1.0 + inverse * (3.0 + inverse * (-15.0 + inverse * 105.0)));
    -0.5 * z * z - 0.5 * (2.0 * PI).ln() - (-z).ln() + series.ln_1p()
}

/// The z with P(Z <= z) = `probability`; infinite at 0 and 1, NaN outside of [0, 1].
pub fn normal_quantile(probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    -SQRT_2 * erfc_inv(2.0 * probability)
}

/// What is left of 1 after `seconds` with the given half-life.
pub(super) fn decay(seconds: f64, half_life_seconds: f64) -> f64 {
    (-seconds / half_life_seconds).exp2()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;

    #[test]
    fn sums_of_logs_survive_extremes() {
        assert_eq!(log_add(f64::NEG_INFINITY, 3.0), 3.0);
        assert_eq!(log_add(3.0, f64::NEG_INFINITY), 3.0);
        assert!((log_add(800.0, 800.0) - (800.0 + LN_2)).abs() < 1e-12);
        assert_eq!(log_sum([f64::NEG_INFINITY; 3].into_iter()), f64::NEG_INFINITY);
        assert_eq!(log_sum([].into_iter()), f64::NEG_INFINITY);
        assert!((log_sum([-900.0, -900.0].into_iter()) - (-900.0 + LN_2)).abs() < 1e-12);
    }

    #[test]
    fn the_two_branches_of_the_log_cdf_meet() {
        assert!((log_normal_cdf(-8.0 + 1e-9) - log_normal_cdf(-8.0)).abs() < 1e-6);
        assert!((normal_cdf(0.0) - 0.5).abs() < 1e-16);
        assert!(log_normal_cdf(-40.0) < -800.0);
    }

    #[test]
    fn the_quantile_inverts_the_cdf() {
        for probability in [1e-9, 0.001, 0.3, 0.5, 0.9, 0.9999] {
            let back = normal_cdf(normal_quantile(probability));
            assert!((back / probability - 1.0).abs() < 1e-10, "{probability}: {back}");
        }
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
        assert!(normal_quantile(1.5).is_nan());
    }
}
