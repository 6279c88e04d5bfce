//! The only integration-test binary.

mod conformance;
mod e2e;
mod envoy;
mod metrics;
mod parts;
mod sample;
mod spec;
mod store;
