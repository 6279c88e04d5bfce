//! What users write, and the checked types it becomes.

pub mod fleet;
pub mod plan;
#[cfg(feature = "files")]
pub mod selector;
