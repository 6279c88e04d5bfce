//! The only integration-test binary.

mod conformance;
mod envoy;
mod parts;
