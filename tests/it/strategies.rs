//! Strategies beyond weights, by the binary on a real HAProxy.

mod blue_green;
mod cohorts;
mod kinds;
mod world;
