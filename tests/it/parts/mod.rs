//! Real servers for tests: each started on free loopback ports and ended with its value, also when a test panics.

pub mod alertmanager;
pub mod backend;
pub mod envoy;
pub mod haproxy;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod meddler;
pub mod port;
pub mod prometheus;
