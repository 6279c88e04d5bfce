//! The load balancers behind [`crate::ports::LoadBalancer`]: one module per kind, and the way from a fleet to them.

mod api;
#[cfg(feature = "aws")]
pub mod aws;
pub mod caddy;
mod connect;
mod dns;
pub mod envoy;
mod fence;
pub mod haproxy;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod nginx;
pub mod own;
mod owned;
mod pair;
pub mod powerdns;
pub mod rfc2136;
mod served;
pub mod traefik;

pub use connect::{Connected, Error, Known, TargetKey, connect};
pub use pair::Pair;
pub use served::Ports;

/// Why a target of the fleet cannot be used; found before anything is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Unusable {
    fn new(what: impl std::fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
