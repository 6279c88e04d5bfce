//! The load balancers behind [`crate::ports::LoadBalancer`]: one module per kind, and the way from a fleet to them.

mod connect;
pub mod envoy;
pub mod haproxy;

pub use connect::{Connected, Error, Known, TargetKey, connect};
