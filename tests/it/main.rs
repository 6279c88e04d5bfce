//! The only integration-test binary.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers outside of test functions fail by panicking"
)]

mod access;
mod action;
#[cfg(feature = "aws")]
mod aws_alb;
mod binary_xds;
mod block;
mod caddy;
mod cli;
mod conformance;
#[cfg(feature = "fault-injection")]
mod corpus;
mod daemon;
mod e2e;
mod envoy;
mod examples;
#[cfg(feature = "fault-injection")]
mod faults;
mod golden;
mod haproxy;
mod judge;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod metrics;
mod nginx;
mod notify;
mod own;
mod parts;
mod powerdns;
mod replay;
mod rfc2136;
#[cfg(feature = "aws")]
mod route53;
mod sample;
mod spec;
mod store;
mod strategies;
mod tidy;
mod traefik;
