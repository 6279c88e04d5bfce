//! The only integration-test binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers outside of test functions fail by panicking"
)]

mod access;
mod action;
mod binary_xds;
mod block;
mod cli;
mod conformance;
#[cfg(feature = "fault-injection")]
mod corpus;
mod daemon;
mod e2e;
mod envoy;
mod examples;
#[cfg(feature = "fault-injection")]
mod faults;
mod golden;
mod haproxy;
mod judge;
mod metrics;
mod notify;
mod parts;
mod powerdns;
mod replay;
mod rfc2136;
mod sample;
mod spec;
mod store;
mod tidy;
