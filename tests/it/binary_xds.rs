//! The real binary on a fleet whose Envoys fetch their routes from it, with a real Prometheus.

mod adoption;
pub mod fleet;
pub mod process;
pub mod story;
