//! What is special about a poll: fresh pods, clumpy errors, missing history.
//!
//! *Warm-up*: new pods start with cold caches. For the first minutes the limit is multiplied by
//! k(t) = 1 + 2 * 2^(-t / 30 s), t counted from pod readiness; that is a limit of its own for each poll, so nothing has to
//! be corrected for it. Bets on "better" rest while k > 1.05 (160 s), since they would prove a limit that is too easy.

use serde::{Deserialize, Serialize};

use super::numbers::decay;

/// Clumpiness assumed for a service without any history.
pub const CLUMPINESS_WITHOUT_HISTORY: f64 = 5.0;
/// Quorum for a service without any history.
pub const QUORUM_WITHOUT_HISTORY: f64 = 3.0;
/// Quorum with history: no poll supplies more than half of what a decision needs.
pub const QUORUM: f64 = 2.0;
/// Latency is not looked at for this long after pods became ready.
pub const LATENCY_PAUSE_SECONDS: f64 = 60.0;

const WARMUP_START: f64 = 3.0;
const WARMUP_HALF_LIFE_SECONDS: f64 = 30.0;
const WARMUP_OK_MAX: f64 = 1.05;
const WARMUP_OVER_SECONDS: f64 = 160.0;

/// How many times the limit applies `seconds` after new pods became ready: 3 at once, 1 in the long run.
///
/// 1 when `seconds` is negative or NaN: unknown readiness excuses nothing.
pub fn warmup_factor(seconds: f64) -> f64 {
    if seconds >= 0.0 {
        1.0 + (WARMUP_START - 1.0) * decay(seconds, WARMUP_HALF_LIFE_SECONDS)
    } else {
        1.0
    }
}

/// The circumstances under which one poll is read. They must be known before the poll is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Size of the clumps that events come in, at least 1.
    pub clumpiness: f64,
    /// How many polls at least a decision needs; above 1.
    pub quorum: f64,
    /// Multiplies the limit.
    pub limit_factor: f64,
    /// Whether bets on "better" rest.
    pub ok_paused: bool,
    /// Whether latency is not looked at.
    pub latency_paused: bool,
}

impl Default for Conditions {
    /// History without clumps, warm pods.
    fn default() -> Self {
        Self::with_history(1.0)
    }
}

impl Conditions {
    /// Warm pods of a service whose clumpiness is known from history.
    pub const fn with_history(clumpiness: f64) -> Self {
        Self {
            clumpiness,
            quorum: QUORUM,
            limit_factor: 1.0,
            ok_paused: false,
            latency_paused: false,
        }
    }

    /// Warm pods of a service without history; `live` is a clumpiness estimated from stable so far, which can only
    /// raise the assumed one. Verdicts under these conditions are unverified.
    pub fn without_history(live: Option<f64>) -> Self {
        let live = live.unwrap_or(CLUMPINESS_WITHOUT_HISTORY);
        Self {
            quorum: QUORUM_WITHOUT_HISTORY,
            ..Self::with_history(live.max(CLUMPINESS_WITHOUT_HISTORY))
        }
    }

    /// The same where so many events may share their luck: clumps of at least this size.
    #[must_use]
    pub const fn as_clumpy_as(self, events: f64) -> Self {
        Self { clumpiness: self.clumpiness.max(events), ..self }
    }

    /// The same with pods that became ready `ready_seconds` ago; `None` when that is unknown, which excuses nothing.
    #[must_use]
    pub fn warming_up(self, ready_seconds: Option<f64>) -> Self {
        let Some(seconds) =
            ready_seconds.filter(|ready| (0.0..=WARMUP_OVER_SECONDS).contains(ready))
        else {
            return self;
        };
        let factor = warmup_factor(seconds);
        Self {
            limit_factor: self.limit_factor * factor,
            ok_paused: self.ok_paused || factor > WARMUP_OK_MAX,
            latency_paused: self.latency_paused || seconds < LATENCY_PAUSE_SECONDS,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_loosens_then_ends() {
        let base = Conditions::default();
        let fresh = base.warming_up(Some(0.0));
        assert_eq!((fresh.limit_factor, fresh.ok_paused, fresh.latency_paused), (3.0, true, true));
        let later = base.warming_up(Some(61.0));
        assert!(later.ok_paused && !later.latency_paused);
        for over in [Some(161.0), Some(f64::NAN), Some(f64::INFINITY), Some(-1.0), None] {
            assert_eq!(base.warming_up(over), base);
        }
        assert_eq!(warmup_factor(f64::NAN), 1.0);
    }

    #[test]
    fn live_clumpiness_only_raises_the_assumed_one() {
        assert_eq!(Conditions::without_history(None).clumpiness, 5.0);
        assert_eq!(Conditions::without_history(Some(2.0)).clumpiness, 5.0);
        assert_eq!(Conditions::without_history(Some(9.0)).clumpiness, 9.0);
        assert_eq!(Conditions::without_history(Some(f64::NAN)).quorum, 3.0);
    }
}
