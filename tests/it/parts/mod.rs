//! Real servers for tests: each started on free loopback ports and ended with its value, also when a test panics.

pub mod alertmanager;
pub mod backend;
pub mod bind;
pub mod dns;
pub mod envoy;
pub mod haproxy;
pub mod meddler;
pub mod port;
pub mod powerdns;
pub mod prometheus;
