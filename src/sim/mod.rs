//! A seeded world with faults, for tests.
//!
//! [`Simulation`] walks one rollout through a world of load balancers, metrics and people that misbehave as a list of
//! [`Planned`] faults says, in virtual time, and reports every promise that was broken. The same seed and the same
//! faults give the same history, so a failing one can be shrunk by dropping faults.
//!
//! [`Walk`] does without faults and draws requests instead: the real judge on [`Traffic`] of two versions, at whatever
//! rate and over however many hours, so that a pipeline can be walked with its own durations and margins. The rollout
//! itself is a [`course::Course`], which a replay of the past drives too.
//!
//! Not modelled: a balancer that stores no generation and applies a write after its caller gave up (no protocol can
//! tell), and two of Tidegate's own controllers at once.

mod balancer;
mod checks;
pub mod course;
pub(crate) mod coverage;
mod fault;
mod metrics;
mod options;
mod programs;
mod recorded;
pub mod sample;
pub mod seeds;
mod shrink;
mod simulation;
pub mod statistics;
mod traffic;
mod users;
mod walk;
mod world;

#[cfg(test)]
mod tests;

pub use balancer::Balancer;
pub use coverage::Coverage;
pub use fault::{CrashPoint, Fault, Planned};
pub use metrics::{Metrics, Truth};
pub use options::Options;
pub use shrink::shrink;
pub use simulation::{Report, Simulation};
pub use traffic::{Behaviour, Change, Traffic};
pub use walk::{Walk, Walked};
