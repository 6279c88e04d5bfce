//! How strongly one poll speaks against a limit.
//!
//! A bet names a rate for each arm. It is weighed against the point of the limit line that is hardest to tell from it,
//! the *projection*: the minimiser of the exposure-weighted divergence from the bet. The likelihood ratio of the two
//! is the poll's e-value: a fair stake of 1 turns into it, on average at most 1 while the canary is within the limit.
//!
//! Why at most 1: for true rates r within the limit, E\[e\] <= exp(sum over arms of n (r - p)(t - p) / v), where t is the
//! bet, p its projection and v = p (Poisson) or p(1 - p) (Bernoulli). That exponent is minus the slope of the divergence
//! at its minimiser towards r, which cannot be positive on a convex set; both sides of the line are convex, so the same
//! holds for bets on "better". Exact for finite samples; Poisson's form is an upper bound for Bernoulli requests
//! (1 + u <= e^u). For a = 0 this is Wald's one-sample ratio, for b = 0 the conditional binomial.
//!
//! Source: k-sample e-variables of Turner, Ly and Grünwald and of Turner and Grünwald, applied to windows; Lindon and
//! Malek (2022) for b = 0.

use super::window::{Family, Limit, Window};

/// A rate for each arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The canary's.
    pub canary: f64,
    /// Stable's.
    pub stable: f64,
}

/// The point of the limit line nearest to `bet`, weighted by the two exposures (requests).
///
/// `bet` rates in (0, 1); `limit.factor` >= 0. Rates outside of that give numbers without meaning, never a panic.
pub fn project(
    family: Family,
    bet: Rates,
    canary_requests: f64,
    stable_requests: f64,
    limit: Limit,
) -> Rates {
    if limit.factor == 0.0 {
        return Rates { canary: limit.offset, stable: bet.stable };
    }
    let stable = match family {
        Family::Poisson => poisson_root(bet, canary_requests, stable_requests, limit),
        Family::Bernoulli if limit.offset == 0.0 => {
            bernoulli_ratio_root(bet, canary_requests, stable_requests, limit.factor)
        }
        Family::Bernoulli => bernoulli_root(bet, canary_requests, stable_requests, limit),
    };
    Rates { canary: limit.at(stable), stable }
}

/// ln of the e-value of one poll for `bet` against `limit`.
///
/// The window must be clean ([`Window::cleaned`]). 0 for an empty window; minus infinity when the bet had ruled out what
/// happened.
pub fn log_e_value(family: Family, window: &Window, bet: Rates, limit: Limit) -> f64 {
    let Window { canary, stable, .. } = *window;
    let nearest = project(family, bet, canary.requests, stable.requests, limit);
    let events = log_ratio(canary.events, bet.canary, nearest.canary)
        + log_ratio(stable.events, bet.stable, nearest.stable);
    let rest = match family {
        Family::Poisson => {
            -canary.requests * (bet.canary - nearest.canary)
                - stable.requests * (bet.stable - nearest.stable)
        }
        Family::Bernoulli => {
            let misses = |requests: f64, events: f64, bet: f64, nearest: f64| {
                log_ratio(requests - events, 1.0 - bet, 1.0 - nearest)
            };
            misses(canary.requests, canary.events, bet.canary, nearest.canary)
                + misses(stable.requests, stable.events, bet.stable, nearest.stable)
        }
    };
    events + rest
}

/// `count` * ln(`bet` / `limit`), where nothing counted says nothing.
fn log_ratio(count: f64, bet: f64, limit: f64) -> f64 {
    if count == 0.0 {
        0.0
    } else if bet <= 0.0 {
        f64::NEG_INFINITY
    } else {
        count * (bet / limit).ln()
    }
}

/// The positive root of the quadratic that sets the Poisson divergence's slope along the line to zero.
fn poisson_root(bet: Rates, canary_requests: f64, stable_requests: f64, limit: Limit) -> f64 {
    let Limit { factor, offset } = limit;
    let weight = factor * canary_requests + stable_requests;
    let square = factor * weight;
    let linear =
        offset * weight - factor * (canary_requests * bet.canary + stable_requests * bet.stable);
    let constant = -offset * stable_requests * bet.stable;
    let spread = (linear * linear - 4.0 * square * constant).max(0.0).sqrt();
    // Of the two ways to write the root, the one that does not subtract nearly equal numbers.
    let root = if linear <= 0.0 {
        (spread - linear) / (2.0 * square)
    } else {
        -2.0 * constant / (linear + spread)
    };
    if root > 0.0 { root } else { f64::MIN_POSITIVE }
}

/// The same for yes/no counts and a limit through the origin: the smaller root of a quadratic.
fn bernoulli_ratio_root(
    bet: Rates,
    canary_requests: f64,
    stable_requests: f64,
    factor: f64,
) -> f64 {
    let requests = canary_requests + stable_requests;
    let events = canary_requests * bet.canary + stable_requests * bet.stable;
    let linear = events * (1.0 + factor)
        + factor * canary_requests * (1.0 - bet.canary)
        + stable_requests * (1.0 - bet.stable);
    let spread = (linear * linear - 4.0 * factor * requests * events).max(0.0).sqrt();
    2.0 * events / (linear + spread)
}

/// The same for any limit: a root of an increasing slope, by Newton steps kept inside a shrinking bracket.
fn bernoulli_root(bet: Rates, canary_requests: f64, stable_requests: f64, limit: Limit) -> f64 {
    const EDGE: f64 = 1e-15;
    const STEPS_MAX: usize = 200;
    let Limit { factor, offset } = limit;
    let slope_and_curve = |stable: f64| {
        let canary = limit.at(stable);
        let slope = |bet: f64, rate: f64| (1.0 - bet) / (1.0 - rate) - bet / rate;
        let curve =
            |bet: f64, rate: f64| (1.0 - bet) / ((1.0 - rate) * (1.0 - rate)) + bet / (rate * rate);
        (
            canary_requests * factor * slope(bet.canary, canary)
                + stable_requests * slope(bet.stable, stable),
            canary_requests * factor * factor * curve(bet.canary, canary)
                + stable_requests * curve(bet.stable, stable),
        )
    };
    let mut low = EDGE.max((EDGE - offset) / factor);
    let mut high = (1.0 - EDGE).min((1.0 - EDGE - offset) / factor);
    if slope_and_curve(low).0 >= 0.0 {
        return low;
    }
    if slope_and_curve(high).0 <= 0.0 {
        return high;
    }
    let mut stable = 0.5 * (low + high);
    for _ in 0..STEPS_MAX {
        let (slope, curve) = slope_and_curve(stable);
        if slope > 0.0 {
            high = stable;
        } else {
            low = stable;
        }
        let newton = stable - slope / curve;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        if (next - stable).abs() <= f64::EPSILON * next {
            return next;
        }
        stable = next;
    }
    stable
}
