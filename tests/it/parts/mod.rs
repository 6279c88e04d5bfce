//! Real servers that tests start.

pub mod prometheus;
