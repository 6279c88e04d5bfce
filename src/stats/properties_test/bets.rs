//! Bets on one poll: where they stand and how they answer to the data.

use super::super::projection::{Rates, log_e_value, project};
use super::*;

fn divergence(family: Family, bet: Rates, at: Rates, canary: f64, stable: f64) -> f64 {
    let one = |bet: f64, at: f64| match family {
        Family::Poisson => bet * (bet / at).ln() - bet + at,
        Family::Bernoulli => bet * (bet / at).ln() + (1.0 - bet) * ((1.0 - bet) / (1.0 - at)).ln(),
    };
    canary * one(bet.canary, at.canary) + stable * one(bet.stable, at.stable)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_projection_is_the_nearest_point_of_the_line(
        family in any_family(),
        limit in any_limit(),
        bet in (0.0001..0.3_f64, 0.0001..0.3_f64),
        canary in 1.0..1e5_f64,
        stable in 1.0..1e5_f64,
    ) {
        let bet = Rates { canary: bet.0, stable: bet.1 };
        let nearest = project(family, bet, canary, stable, limit);
        prop_assert!((nearest.canary - limit.at(nearest.stable)).abs() < 1e-12);
        let best = divergence(family, bet, nearest, canary, stable);
        for step in [0.9, 0.999, 1.001, 1.1] {
            let rate = nearest.stable * step;
            let other = Rates { canary: limit.at(rate), stable: rate };
            if other.canary < 1.0 && rate < 1.0 {
                let distance = divergence(family, bet, other, canary, stable);
                prop_assert!(distance >= best - 1e-9 * best.abs().max(1.0), "{distance} {best}");
            }
        }
    }

    #[test]
    fn arms_are_symmetric_when_the_limit_is(window in any_window(), bet in (0.001..0.5_f64, 0.001..0.5_f64)) {
        let there = Rates { canary: bet.0, stable: bet.1 };
        let back = Rates { canary: bet.1, stable: bet.0 };
        let swapped = Window::new(window.stable, window.canary, window.seconds);
        for family in [Family::Poisson, Family::Bernoulli] {
            let one = log_e_value(family, &window, there, Limit::ratio(1.0));
            let other = log_e_value(family, &swapped, back, Limit::ratio(1.0));
            prop_assert!((one - other).abs() <= 1e-6 * one.abs().max(1.0), "{one} {other}");
        }
    }

    #[test]
    fn the_unit_of_exposure_does_not_matter(window in any_window(), limit in any_limit(), scale in 2.0..50.0_f64) {
        let bet = Rates { canary: 0.02, stable: 0.01 };
        let one = log_e_value(Family::Poisson, &window, bet, limit);
        let scaled_arm = |arm: Arm| Arm::new(arm.events, arm.requests * scale);
        let scaled = Window::new(scaled_arm(window.canary), scaled_arm(window.stable), 1.0);
        let scaled_bet = Rates { canary: bet.canary / scale, stable: bet.stable / scale };
        let scaled_limit = Limit::new(limit.factor, limit.offset / scale);
        let other = log_e_value(Family::Poisson, &scaled, scaled_bet, scaled_limit);
        prop_assert!((one - other).abs() <= 1e-6 * one.abs().max(1.0), "{one} {other}");
    }

    #[test]
    fn canary_events_speak_for_bad_and_stable_events_against(
        family in any_family(),
        limit in any_limit(),
        window in any_window(),
        more in 1.0..50.0_f64,
    ) {
        let terms = bare_terms(family, limit, 0.01);
        let more_canary = Window {
            canary: Arm::new(window.canary.events + more, window.canary.requests),
            ..window
        };
        let more_stable = Window {
            stable: Arm::new(window.stable.events + more, window.stable.requests),
            ..window
        };
        let base = terms.evidence(&window);
        let canary = terms.evidence(&more_canary);
        let stable = terms.evidence(&more_stable);
        let at_most = |low: f64, high: f64| low <= high + 1e-6 * high.abs().max(1.0);
        for bet in 0..base.bad.len() {
            prop_assert!(at_most(base.bad[bet], canary.bad[bet]));
            prop_assert!(at_most(stable.bad[bet], base.bad[bet]));
        }
        for bet in 0..base.ok.len() {
            prop_assert!(at_most(canary.ok[bet], base.ok[bet]));
            prop_assert!(at_most(base.ok[bet], stable.ok[bet]));
        }
    }

    #[test]
    fn evidence_is_always_a_number_and_never_above_its_cap(
        family in any_family(),
        limit in any_limit(),
        window in any_window(),
        stable_rate in prop_oneof![Just(0.0), Just(1.0), Just(1e-300), 0.0..1.0_f64],
        clumpiness in prop_oneof![Just(0.1), Just(1.0), Just(7.0), Just(f64::NAN), Just(f64::INFINITY)],
        quorum in prop_oneof![Just(2.0), Just(3.0), Just(0.0), Just(f64::NAN)],
        scale in prop_oneof![Just(1.0), Just(1e10)],
    ) {
        let grown = |arm: Arm| Arm::new(arm.events * scale, arm.requests * scale);
        let window = Window::new(grown(window.canary), grown(window.stable), 10.0);
        let caps = Caps::for_counts(Levels::default(), quorum);
        let terms = Terms { stable_rate, clumpiness, caps, ..bare_terms(family, limit, 0.01) };
        let evidence = terms.evidence(&window);
        prop_assert!(evidence.bad.iter().all(|value| value.is_finite() && *value <= caps.bad));
        prop_assert!(evidence.ok.iter().all(|value| value.is_finite() && *value <= caps.ok));
        if !clumpiness.is_finite() {
            prop_assert_eq!(evidence, Evidence::NONE);
        }
    }
}

#[test]
fn limits_that_are_no_limits_take_no_bets() {
    let window = Window::new(Arm::new(50.0, 100.0), Arm::new(1.0, 100.0), 10.0);
    for limit in [
        Limit::new(f64::NAN, 0.0),
        Limit::new(f64::INFINITY, 0.0),
        Limit::new(0.0, 0.0),
        Limit::new(1.0, -0.5),
        Limit::new(0.0, 1.0),
    ] {
        for family in [Family::Poisson, Family::Bernoulli] {
            let evidence = bare_terms(family, limit, 0.01).evidence(&window);
            assert_eq!(evidence, Evidence::NONE, "{limit:?}");
        }
    }
}

#[test]
fn without_concurrent_stable_traffic_a_comparison_says_nothing() {
    let window = Window::one_sample(Arm::new(50.0, 100.0), 10.0);
    let evidence = bare_terms(Family::Poisson, Limit::difference(0.001), 0.01).evidence(&window);
    assert!(evidence.bad.iter().all(|value| value.abs() < 1e-9), "{evidence:?}");
}
