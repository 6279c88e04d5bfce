//! One monitor of one test in one region, of whichever kind the test needs.

use serde::{Deserialize, Serialize};

use super::history::StableMemory;
use super::reading::Reading;
use crate::spec::plan::Test;
use crate::stats::{
    AbsoluteLatencyMonitor, Arm, BoundedMeanMonitor, Conditions, CountMonitor, Evidence, Family,
    LatencyMonitor, Levels, Limit, MeanMonitor, MeanSettings, Window,
};

/// Shares above this are judged as yes/no counts rather than as rare events.
const RARE_MAX: f64 = 0.1;

/// The monitor. Only the kinds of two arms know stable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Watch {
    Rate(CountMonitor),
    /// The share of requests slower than `edge`, against a fixed share.
    Tail {
        edge: f64,
        monitor: CountMonitor,
    },
    Ratio(Box<LatencyMonitor>),
    Limit(AbsoluteLatencyMonitor),
    /// A gauge with known range; `sign` -1 where lower is better.
    Bounded {
        sign: f64,
        monitor: BoundedMeanMonitor,
    },
    /// A gauge without; values are `sign` x (limit - value), so that larger is worse.
    Mean {
        sign: f64,
        limit: f64,
        monitor: MeanMonitor,
    },
}

/// How one poll is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) seconds: f64,
    pub(super) conditions: Conditions,
    /// Canary requests that stand behind a gauge's value.
    pub(super) events: f64,
}

impl Watch {
    /// A fresh monitor of `test` that knows stable's last minutes; `None` for a check.
    pub(super) fn new(
        test: &Test,
        range: Option<(f64, f64)>,
        memory: &StableMemory,
        levels: Levels,
    ) -> Option<Self> {
        match *test {
            Test::Rate { factor, offset } => {
                Some(Self::Rate(rate_monitor(Limit::new(factor, offset), memory, levels)))
            }
            Test::QuantileRatio { quantile, ratio } => {
                let mut monitor = LatencyMonitor::new(quantile, ratio, levels);
                monitor.preload(&memory.histogram);
                Some(Self::Ratio(Box::new(monitor)))
            }
            Test::QuantileLimit { quantile, limit } => {
                Some(Self::Limit(AbsoluteLatencyMonitor::new(quantile, limit, levels)))
            }
            Test::Level { higher_is_better, limit } => {
                Some(level_monitor(higher_is_better, limit, range, levels))
            }
            Test::Holds => None,
        }
    }

    /// Takes a poll in; what it tells each bet, for the pool (nothing for a gauge, which has no pool of bets).
    pub(super) fn update(&mut self, reading: &Reading, terms: &Terms) -> Evidence {
        let Terms { seconds, conditions, events } = terms;
        match (self, reading) {
            (Self::Rate(monitor), Reading::Counts { canary, stable }) => {
                monitor.update(&Window::new(*canary, *stable, *seconds), conditions)
            }
            (Self::Tail { edge, monitor }, Reading::Histogram { canary, .. }) => {
                let below = canary.count_up_to(*edge).filter(|_| !conditions.latency_paused);
                below.map_or(Evidence::NONE, |below| {
                    let slow = Arm::new(canary.total - below, canary.total);
                    monitor.update(&Window::one_sample(slow, *seconds), conditions)
                })
            }
            (Self::Ratio(monitor), Reading::Histogram { canary, stable }) => {
                monitor.update(canary, stable, *seconds, conditions)
            }
            (Self::Limit(monitor), Reading::Histogram { canary, stable }) => {
                monitor.update(canary, stable, *seconds, conditions)
            }
            (Self::Bounded { sign, monitor }, Reading::Level { canary: Some(value), .. }) => {
                monitor.update(*sign * value, *seconds, 1.0, conditions.quorum);
                Evidence::NONE
            }
            (Self::Mean { sign, limit, monitor }, Reading::Level { canary: Some(value), .. }) => {
                monitor.update(*sign * (*limit - value), *events);
                Evidence::NONE
            }
            _ => Evidence::NONE,
        }
    }

    pub(super) fn traffic_step(&mut self) {
        match self {
            Self::Rate(monitor) | Self::Tail { monitor, .. } => monitor.traffic_step(),
            Self::Ratio(monitor) => monitor.traffic_step(),
            Self::Limit(monitor) => monitor.traffic_step(),
            Self::Bounded { monitor, .. } => monitor.traffic_step(),
            Self::Mean { .. } => {}
        }
    }

    pub(super) fn log_bad(&self) -> f64 {
        match self {
            Self::Rate(monitor) | Self::Tail { monitor, .. } => monitor.log_bad(),
            Self::Ratio(monitor) => monitor.log_bad(),
            Self::Limit(monitor) => monitor.log_bad(),
            Self::Bounded { monitor, .. } => monitor.log_bad(),
            Self::Mean { monitor, .. } => monitor.log_bad(),
        }
    }

    pub(super) fn log_ok(&self) -> f64 {
        match self {
            Self::Rate(monitor) | Self::Tail { monitor, .. } => monitor.log_ok(),
            Self::Ratio(monitor) => monitor.log_ok(),
            Self::Limit(monitor) => monitor.log_ok(),
            Self::Bounded { monitor, .. } => monitor.log_ok(),
            Self::Mean { monitor, .. } => monitor.log_ok(),
        }
    }
}

/// A monitor of counts that knows stable's last minutes.
pub(super) fn rate_monitor(limit: Limit, memory: &StableMemory, levels: Levels) -> CountMonitor {
    let bound = limit.at(memory.counts.rate().unwrap_or(0.0));
    let family = if bound > RARE_MAX { Family::Bernoulli } else { Family::Poisson };
    let mut monitor = CountMonitor::new(family, limit, levels);
    monitor.preload(memory.counts);
    monitor
}

fn level_monitor(
    higher_is_better: bool,
    limit: f64,
    range: Option<(f64, f64)>,
    levels: Levels,
) -> Watch {
    let sign = if higher_is_better { 1.0 } else { -1.0 };
    let bounded = range.and_then(|(low, high)| {
        let (low, high) = if higher_is_better { (low, high) } else { (-high, -low) };
        BoundedMeanMonitor::new(sign * limit, low, high, levels)
    });
    match bounded {
        Some(monitor) => Watch::Bounded { sign, monitor },
        None => {
            let settings = MeanSettings::without_history(0.0, levels.alpha);
            Watch::Mean { sign, limit, monitor: MeanMonitor::new(settings) }
        }
    }
}
