//! The real binary on fleets whose Envoys fetch their routes from it, with a real Prometheus, or whose Traefik its weights.

mod adoption;
pub mod fleet;
pub mod process;
pub mod story;
mod traefik;
