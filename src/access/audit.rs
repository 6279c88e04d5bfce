//! What the audit takes in beside the facts of the journal.

use serde_json::Value;

use crate::units::{RegionName, Timestamp};

/// Where refusals are kept and records are read.
pub trait Auditor: Send + Sync {
    /// Something was refused, in these regions.
    fn refused(&self, regions: &[RegionName], by: &str, what: &str, at: Timestamp);

    /// At most `limit` records of a region after `after`, oldest first.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&self, region: &RegionName, after: u64, limit: usize) -> Result<Vec<Value>, String>;
}

/// Keeps nothing.
pub struct Silent;

impl Auditor for Silent {
    fn refused(&self, _: &[RegionName], _: &str, _: &str, _: Timestamp) {}

    fn read(&self, _: &RegionName, _: u64, _: usize) -> Result<Vec<Value>, String> {
        Ok(Vec::new())
    }
}
