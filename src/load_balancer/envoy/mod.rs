//! Envoy in three modes, over what both share: the operator's route document, Envoy's admin port, and the reading made of it.
//!
//! [`mod@file`] writes the file that Envoys watch; `xds` serves the same document over gRPC; [`runtime`] overrides the weights
//! at the admin port. The first two replace nothing but the
//! weights of the two named clusters and what is copied to them, and all read back what the Envoys themselves show.

mod admin;
mod affinity;
pub mod file;
mod http;
mod marker;
mod mirror;
#[cfg(feature = "xds")]
pub mod proto;
mod reading;
pub mod route;
pub mod runtime;
#[cfg(feature = "xds")]
pub mod xds;

use super::pair::{self, Pair};
#[cfg(feature = "fault-injection")]
pub use admin::read_anything;

use crate::ports::{LoadBalancerError, Outcome};

/// Longest time that `set` waits for all instances to show the new weights; later ones are seen by `read`.
pub const CONFIRM_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Makes an error about the target `label`.
fn failure(label: &str, what: impl ToString, outcome: Outcome) -> LoadBalancerError {
    LoadBalancerError { target: label.to_owned(), what: what.to_string(), outcome }
}
