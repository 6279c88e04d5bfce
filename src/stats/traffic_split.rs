//! Does the traffic really arrive in the shares that were asked for?
//!
//! A Dirichlet mixture over all shares bets against the declared ones. Exact for multinomial routing, at any time of
//! looking. Real routers are not multinomial (connections, sticky users), so this warns about data quality and is never
//! a reason to roll back.
//!
//! Source: Lindon and Malek (2022).

use statrs::function::gamma::ln_gamma;

/// How closely the mixture hugs the declared shares; larger finds small deviations, later.
pub const CONCENTRATION: f64 = 100.0;

/// ln of the e-value of `counts` against the declared `shares` (each in (0, 1), summing to 1), both in the same order.
///
/// At ln(1/alpha) the shares are not the declared ones. 0 (says nothing) when a number is unreadable, a share is 0 or
/// the lengths differ.
pub fn log_split_e_value(counts: &[f64], shares: &[f64], concentration: f64) -> f64 {
    let total: f64 = counts.iter().sum();
    let readable = counts.len() == shares.len()
        && total.is_finite()
        && concentration.is_finite()
        && concentration > 0.0
        && counts.iter().all(|count| *count >= 0.0)
        && shares.iter().all(|share| *share > 0.0 && *share <= 1.0);
    if !readable {
        return 0.0;
    }
    let whole = ln_gamma(concentration) - ln_gamma(concentration + total);
    let parts = counts.iter().zip(shares).map(|(count, share)| {
        let prior = concentration * share;
        ln_gamma(prior + count) - ln_gamma(prior) - count * share.ln()
    });
    whole + parts.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_shares_are_fine_and_others_are_not() {
        assert!(log_split_e_value(&[50.0, 950.0], &[0.05, 0.95], CONCENTRATION) < 0.0);
        assert!(log_split_e_value(&[150.0, 850.0], &[0.05, 0.95], CONCENTRATION) > 40.0);
    }

    #[test]
    fn unreadable_counts_say_nothing() {
        for broken in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(log_split_e_value(&[broken, 9.0], &[0.5, 0.5], CONCENTRATION), 0.0);
        }
        assert_eq!(log_split_e_value(&[1.0], &[0.5, 0.5], CONCENTRATION), 0.0);
        assert_eq!(log_split_e_value(&[1.0, 1.0], &[0.0, 1.0], CONCENTRATION), 0.0);
    }
}
