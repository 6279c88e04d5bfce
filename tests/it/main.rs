//! The only integration-test binary.

mod sample;
mod store;
