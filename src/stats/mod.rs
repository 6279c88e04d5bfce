//! The mathematics: numbers in, numbers out; no word of ours, no I/O.
//!
//! Every decision is anytime-valid: looking more often never makes a wrong answer more likely. The reading order is
//! that of the data:
//!
//! * [`counter`], [`window`], [`histogram`], [`native`]: from samples to what one poll saw;
//! * [`projection`], [`evidence`], [`wealth`]: one bet against a limit, all bets of a poll, all polls;
//! * [`count`], [`latency`], [`absolute_latency`], [`bounded_mean`], [`mean`]: the monitors, under the [`conditions`] of each poll;
//! * [`combine`], [`mod@decide`]: one answer from many monitors;
//! * [`clumpiness`]: how much evidence an event is worth;
//! * [`plan`]: what a given traffic can show, and when;
//! * [`interval`], [`proportion`], [`traffic_split`]: for display and for warnings;
//! * [`numbers`], [`exact`]: arithmetic in logarithms, and writing it down.
//!
//! Numbers from outside that are NaN, infinite or negative make the poll an empty one; they never decide anything and
//! never panic.

pub mod absolute_latency;
pub mod bounded_mean;
pub mod clopper_pearson;
pub mod clumpiness;
pub mod combine;
pub mod conditions;
pub mod count;
pub mod counter;
pub mod decide;
pub mod evidence;
pub mod exact;
pub mod histogram;
pub mod interval;
pub mod latency;
pub mod mean;
pub mod native;
pub mod numbers;
pub mod plan;
pub mod projection;
pub mod proportion;
pub mod traffic_split;
pub mod wealth;
pub mod window;

#[cfg(test)]
mod properties_test;
#[cfg(test)]
mod vectors_test;

pub use absolute_latency::AbsoluteLatencyMonitor;
pub use bounded_mean::BoundedMeanMonitor;
pub use clopper_pearson::clopper_pearson;
pub use clumpiness::{DesignEffect, FanoLive};
pub use combine::{Part, log_average};
pub use conditions::Conditions;
pub use count::{CountMonitor, PooledMonitor, StableRate};
pub use counter::counter_increase;
pub use decide::{Decision, Thresholds, decide};
pub use evidence::{Caps, Evidence, Levels, Terms};
pub use histogram::Histogram;
pub use interval::DifferenceInterval;
pub use latency::{EdgeChoice, LatencyMonitor};
pub use mean::{MeanMonitor, MeanSettings, Spread};
pub use native::NativeHistogram;
pub use plan::{Forecast, Plan, Traffic};
pub use wealth::Wealth;
pub use window::{Arm, Family, Limit, Window};
