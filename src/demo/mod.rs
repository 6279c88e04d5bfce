//! The embedded world behind `tidegate demo`: three regions that really serve, on loopback ports.
//!
//! ```text
//! load ──HTTP──▶ proxy ──HTTP──▶ blue  (v1, stable)  ── /metrics ──▶ scrape
//!                  ▲      └─────▶ green (v2, canary)  ── /metrics ──▶ scrape
//!                  └── admin: weights, read back live ── ports::LoadBalancer
//! ```
//!
//! Each region runs on one thread of its own, so that a busy world never holds up Tidegate's own tasks and everything
//! ends with the [`World`]. No outcome is written down anywhere: the canary's servers misbehave as [`Behaviour`] says,
//! and finding it is the judge's work.

mod balancer;
mod fleet;
mod http;
mod load;
mod proxy;
mod service;
mod telemetry;
#[cfg(test)]
mod tests;
mod world;

pub use balancer::ProxyBalancer;
pub use fleet::fleet;
pub use service::Behaviour;
pub use world::{Arm, Region, Traffic, World, WorldConfig};

/// Name of the one service of this world.
pub const SERVICE: &str = "api-gateway";
/// Version in the slot [`STABLE_SLOT`] when the world starts.
pub const STABLE_VERSION: &str = "v1";
/// Version in the slot [`CANARY_SLOT`] when the world starts.
pub const CANARY_VERSION: &str = "v2";
/// Slot that holds all traffic when the world starts.
pub const STABLE_SLOT: &str = "blue";
/// Slot that holds none when the world starts.
pub const CANARY_SLOT: &str = "green";

/// Why the world did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a rate of requests.
    #[error("{0} requests per second and region: expected 1 to 20000")]
    Rate(u32),
    /// A port, a runtime or a thread was not to be had.
    #[error("no {what} for the demo")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A region did not serve in time.
    #[error("region {0} of the demo did not start within 10 s")]
    NotReady(crate::units::RegionName),
    /// A fixed name is not one; never with the names above.
    #[error("a name of the demo is wrong")]
    Name(#[from] crate::units::Error),
}
