//! The mathematics: numbers in, numbers out; no word of ours, no I/O.
//!
//! Every method is anytime-valid: looking more often never makes a wrong answer more likely. The reading order is
//! that of the data. A poll arrives as a [`Window`]; [`projection`] weighs one bet against a limit, [`evidence`] does so
//! for all bets, [`wealth`] adds polls up. [`count`] makes a monitor of these, [`latency`] reduces response times to
//! counts through [`histogram`]; [`mean`] and [`bounded_mean`] watch other numbers.

pub mod bounded_mean;
pub mod conditions;
pub mod count;
pub mod evidence;
pub mod exact;
pub mod histogram;
pub mod latency;
pub mod mean;
pub mod numbers;
pub mod projection;
pub mod traffic_split;
pub mod wealth;
pub mod window;

pub use bounded_mean::BoundedMeanMonitor;
pub use conditions::Conditions;
pub use count::{CountMonitor, PooledMonitor, StableRate};
pub use evidence::{Caps, Evidence, Levels, Terms};
pub use histogram::Histogram;
pub use latency::{AbsoluteLatencyMonitor, EdgeChoice, LatencyMonitor};
pub use mean::{MeanMonitor, MeanSettings, Spread};
pub use wealth::Wealth;
pub use window::{Arm, Family, Limit, Window};
