//! What users write, and the checked types it becomes.
//!
//! ```text
//! text → file (tree with positions) → pipeline, analysis, fleet_file (as written) → build (held against each other)
//!                                                                                   → plan::Plan, fleet::Fleet
//! ```
//!
//! No step stops at its first problem: all of them end up in [`diagnostic::Diagnostics`], each with its place, a stable
//! code of [`codes`] and help. [`reason`] adds what holds by the rules and still makes no sense. [`load`] is the front
//! door.

pub mod access;
pub mod fleet;
pub mod plan;
mod targets;
pub mod windows;

#[cfg(feature = "files")]
mod access_file;
#[cfg(feature = "files")]
pub mod analysis;
#[cfg(feature = "files")]
pub mod build;
#[cfg(feature = "files")]
mod calendar;
#[cfg(feature = "files")]
pub mod codes;
#[cfg(feature = "files")]
mod cohort;
#[cfg(feature = "files")]
pub mod criterion;
#[cfg(feature = "files")]
pub mod decode;
#[cfg(feature = "files")]
pub mod diagnostic;
#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "files")]
pub mod fleet_file;
#[cfg(feature = "files")]
pub mod load;
#[cfg(feature = "files")]
mod notify_file;
#[cfg(feature = "files")]
pub mod pipeline;
#[cfg(feature = "files")]
pub mod quantity;
#[cfg(feature = "files")]
pub mod reason;
#[cfg(feature = "files")]
mod region_file;
#[cfg(feature = "files")]
mod reported_file;
#[cfg(feature = "files")]
pub mod schema;
#[cfg(feature = "files")]
pub mod selector;
#[cfg(feature = "files")]
mod served_file;
#[cfg(feature = "files")]
pub mod steps;

#[cfg(feature = "files")]
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
#[cfg(feature = "files")]
pub use load::{fleet_from_text, load_fleet, load_plan, plan_from_text};
#[cfg(feature = "files")]
pub use schema::{Kind as SchemaKind, schema};
