//! What users write, and the checked types it becomes.

pub mod fleet;
pub mod plan;

#[cfg(feature = "files")]
pub mod analysis;
#[cfg(feature = "files")]
pub mod codes;
#[cfg(feature = "files")]
pub mod criterion;
#[cfg(feature = "files")]
pub mod decode;
#[cfg(feature = "files")]
pub mod diagnostic;
#[cfg(feature = "files")]
pub mod file;
#[cfg(feature = "files")]
pub mod pipeline;
#[cfg(feature = "files")]
pub mod quantity;
#[cfg(feature = "files")]
pub mod selector;
