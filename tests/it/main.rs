//! The only integration-test binary.

mod metrics;
mod parts;
mod sample;
mod store;
