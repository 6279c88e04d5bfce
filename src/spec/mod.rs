//! What users write, and the checked types it becomes.

pub mod fleet;
pub mod plan;

#[cfg(feature = "files")]
pub mod codes;
#[cfg(feature = "files")]
pub mod diagnostic;
#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "files")]
pub mod selector;
