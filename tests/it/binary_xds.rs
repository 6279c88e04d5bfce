//! The real binary on a fleet whose Envoys fetch their routes from it, with a real Prometheus.

mod adoption;
mod fleet;
mod process;
mod story;
