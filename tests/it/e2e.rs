//! The whole of it on real servers: three Envoys, one per region, a Prometheus that scrapes them each second, servers
//! that can be told to fail or to slow down, and bounded load. Tidegate's own driver walks the three stages.
//!
//! Nothing is scripted but the servers' behaviour. One world at a time: see [`world::World`].

pub mod admin;
pub mod controller;
mod crash;
mod edits;
mod load;
pub mod plan;
mod process;
mod reaction;
mod server;
mod versions;
mod walk;
pub mod world;
