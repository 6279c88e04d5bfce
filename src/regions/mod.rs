//! Probes and health of regions.

pub mod health;
pub mod probe;
