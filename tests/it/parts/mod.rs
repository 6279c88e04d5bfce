//! Real servers for tests: each started on free loopback ports and ended with its value, also when a test panics.

pub mod alertmanager;
pub mod backend;
pub mod bind;
pub mod caddy;
pub mod certificates;
pub mod dns;
pub mod envoy;
pub mod haproxy;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod meddler;
#[cfg(feature = "aws")]
pub mod moto;
pub mod nginx;
pub mod port;
pub mod powerdns;
pub mod prometheus;
pub mod traefik;

/// A program that `scripts/parts` has put into its folder.
pub fn installed(program: &str) -> std::path::PathBuf {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let parts = std::env::var("TIDEGATE_PARTS")
        .map_or_else(|_| root.join("target/parts"), std::path::PathBuf::from);
    parts.join("bin").join(program)
}

/// A client for what listens on this machine.
pub fn client() -> reqwest::Client {
    tidegate::http::client("http://127.0.0.1", tidegate::units::Millis::from_secs(10), None)
        .unwrap()
}
