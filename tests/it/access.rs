//! Who may do what: the API on a real port, with rollouts under way on balancers in memory.

mod abuse;
mod approvals;
mod audit;
mod cli;
mod github;
mod log;
mod routes;
mod tls;
mod transport;
mod world;

pub use world::FLEET;
