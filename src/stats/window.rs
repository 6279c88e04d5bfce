//! What one poll saw: events and requests of the two arms in the same seconds.
//!
//! Counts are increments of raw counters, never rates. Numbers from outside are cleaned here once: a poll with any
//! NaN, infinite or negative number counts as empty, and an empty poll decides nothing.

use serde::{Deserialize, Serialize};

/// Above this a double no longer counts single events; such a poll is treated as unreadable.
pub(super) const COUNT_MAX: f64 = 9.0e15;

/// One arm in one poll: how many of its requests were events (errors, slow answers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Requests that were events, at least 0. More events than requests are clamped to the requests.
    pub events: f64,
    /// All requests, at least 0.
    pub requests: f64,
}

impl Arm {
    /// No traffic.
    pub const EMPTY: Self = Self { events: 0.0, requests: 0.0 };

    /// `events` of `requests`.
    pub const fn new(events: f64, requests: f64) -> Self {
        Self { events, requests }
    }

    /// The share of requests that were events; `None` without requests or with unreadable numbers.
    pub fn rate(self) -> Option<f64> {
        let Self { events, requests } = self.cleaned()?;
        (requests > 0.0).then(|| events / requests)
    }

    /// The same counts with events clamped to requests; `None` when a number is NaN, infinite or negative.
    pub fn cleaned(self) -> Option<Self> {
        let readable = |count: f64| (0.0..=COUNT_MAX).contains(&count);
        (readable(self.events) && readable(self.requests))
            .then(|| Self { events: self.events.min(self.requests), ..self })
    }
}

/// Both arms over the same stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The arm in question.
    pub canary: Arm,
    /// The arm it is compared with.
    pub stable: Arm,
    /// Length of the poll in seconds, at least 0.
    pub seconds: f64,
}

impl Window {
    /// Both arms over `seconds`.
    pub const fn new(canary: Arm, stable: Arm, seconds: f64) -> Self {
        Self { canary, stable, seconds }
    }

    /// A poll that saw nothing.
    pub const fn empty(seconds: f64) -> Self {
        Self::new(Arm::EMPTY, Arm::EMPTY, seconds)
    }

    /// One arm alone, for limits that do not look at stable.
    pub const fn one_sample(arm: Arm, seconds: f64) -> Self {
        Self::new(arm, Arm::EMPTY, seconds)
    }

    /// The poll with readable numbers only: unchanged but for clamped events, or empty.
    #[must_use]
    pub fn cleaned(&self) -> Self {
        let seconds = clean_seconds(self.seconds);
        match (self.canary.cleaned(), self.stable.cleaned()) {
            (Some(canary), Some(stable)) if seconds == self.seconds => {
                Self { canary, stable, seconds }
            }
            _ => Self::empty(seconds),
        }
    }
}

/// `seconds`, or 0 when that is no length of time.
pub(super) fn clean_seconds(seconds: f64) -> f64 {
    if seconds.is_finite() && seconds >= 0.0 { seconds } else { 0.0 }
}

/// Which law the counts follow between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Events are rare (shares below about 10 %). Also valid, slightly conservative, for any yes/no counts.
    #[default]
    Poisson,
    /// Shares of any size, such as "slower than 250 ms".
    Bernoulli,
}

impl Family {
    /// The largest rate a bet may name.
    pub const fn rate_max(self) -> f64 {
        match self {
            Self::Poisson => 1.0,
            Self::Bernoulli => 0.999,
        }
    }
}

/// The line between fine and too bad: canary rate = `factor` * stable rate + `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// How many times stable's rate is allowed; 0 for a limit that ignores stable.
    pub factor: f64,
    /// What is allowed on top, as a share.
    pub offset: f64,
}

impl Limit {
    /// `factor` * stable + `offset`.
    pub const fn new(factor: f64, offset: f64) -> Self {
        Self { factor, offset }
    }

    /// At most `offset` more than stable (0.001 is a tenth of a percentage point).
    pub const fn difference(offset: f64) -> Self {
        Self::new(1.0, offset)
    }

    /// At most `factor` times stable.
    pub const fn ratio(factor: f64) -> Self {
        Self::new(factor, 0.0)
    }

    /// At most `share`, whatever stable does.
    pub const fn absolute(share: f64) -> Self {
        Self::new(0.0, share)
    }

    /// The canary rate that the limit allows when stable's rate is `stable_rate`.
    pub fn at(self, stable_rate: f64) -> f64 {
        self.factor * stable_rate + self.offset
    }

    /// Factor and offset multiplied by `by`, as during warm-up.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self::new(self.factor * by, self.offset * by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_polls_are_empty_and_too_many_events_are_clamped() {
        let fine = Arm::new(1.0, 10.0);
        for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e16] {
            let empty = Window::empty(10.0);
            assert_eq!(Window::new(Arm::new(broken, 10.0), fine, 10.0).cleaned(), empty);
            assert_eq!(Window::new(fine, Arm::new(1.0, broken), 10.0).cleaned(), empty);
            assert_eq!(Arm::new(broken, 10.0).rate(), None);
        }
        for broken in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(Window::new(fine, fine, broken).cleaned(), Window::empty(0.0));
        }
        let clamped = Window::new(Arm::new(12.0, 10.0), fine, 5.0).cleaned();
        assert_eq!(clamped, Window::new(Arm::new(10.0, 10.0), fine, 5.0));
        assert_eq!(Arm::EMPTY.rate(), None);
    }
}
