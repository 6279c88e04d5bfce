//! What must hold for all inputs, not only for the reference ones.

mod bets;
mod latency;
mod monitors;
mod null;

use proptest::prelude::*;

use super::*;

/// Numbers that no poll can have seen.
const UNREADABLE: [f64; 4] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];

fn any_arm() -> impl Strategy<Value = Arm> {
    (0_u32..100_000, 0.0..1.0_f64).prop_map(|(requests, share)| {
        let requests = f64::from(requests);
        Arm::new((requests * share * share * share).floor(), requests)
    })
}

fn any_window() -> impl Strategy<Value = Window> {
    (any_arm(), any_arm(), 1.0..60.0_f64)
        .prop_map(|(canary, stable, seconds)| Window::new(canary, stable, seconds))
}

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Poisson), Just(Family::Bernoulli)]
}

fn any_limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        (0.0..0.05_f64).prop_map(Limit::difference),
        (0.8..3.0_f64).prop_map(Limit::ratio),
        (0.0001..0.2_f64).prop_map(Limit::absolute),
        (0.5..2.0_f64, 0.0..0.01_f64).prop_map(|(factor, offset)| Limit::new(factor, offset)),
    ]
}

/// Terms without safeguards, at stable's true rate.
fn bare_terms(family: Family, limit: Limit, stable_rate: f64) -> Terms {
    Terms {
        family,
        limit,
        stable_rate,
        rate_max: family.rate_max(),
        clumpiness: 1.0,
        caps: Caps::NONE,
        ok_paused: false,
    }
}
