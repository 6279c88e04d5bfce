//! The only integration-test binary.

mod spec;
