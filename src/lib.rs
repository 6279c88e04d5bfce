//! Tidegate moves a service to a new version region by region, forward on evidence, back by itself.
//!
//! The data walks one way round, and the modules stand in its order:
//!
//! ```text
//! observe            judge              decide                    record             act
//! weights + samples → stats → Verdict → decide(state, input, now) → journal.append → outstanding(state) → load balancers
//!      ↑                                 = events + why              (on disk)        = desired − confirmed      │
//!      └──────────────────────────── read-backs, samples, timers, commands ─────────────────────────────────────┘
//! ```
//!
//! Read [`units`], [`spec`] (what users write), [`stats`] (the mathematics), [`engine`] (the only place with
//! opinions), then `ports` and `driver` (the loop), then the adapters behind the ports.

// Pure: no clock, chance, environment or files, and no collection whose order differs from run to run.
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod engine;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod sim;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod spec;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod stats;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod units;

#[cfg(feature = "daemon")]
pub mod access;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod command;
#[cfg(feature = "daemon")]
pub mod demo;
#[cfg(feature = "daemon")]
pub mod driver;
#[cfg(feature = "daemon")]
pub mod faults;
#[cfg(feature = "fault-injection")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "daemon")]
pub mod hooks;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "daemon")]
pub mod load_balancer;
#[cfg(feature = "daemon")]
pub mod metrics;
#[cfg(feature = "daemon")]
pub mod notify;
#[cfg(feature = "daemon")]
pub mod ports;
#[cfg(feature = "daemon")]
pub mod regions;
#[cfg(feature = "daemon")]
pub mod replay;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod store;
