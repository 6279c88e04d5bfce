//! The audit: one ledger per region, each record chained to the one before, checkpoints signed.
//!
//! ```text
//! STATE/audit/REGION.jsonl   records, a line of JSON each
//! STATE/audit/REGION.head    the newest signed checkpoint
//! STATE/audit/key            Ed25519, unless the fleet names another
//! ```
//!
//! Facts come from the journal, which is on disk before: a ledger that is behind catches up from there. What is refused
//! stands nowhere else, and is synced at once.

mod journal;
mod ledger;
mod record;
pub mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::units::{RegionName, Timestamp};

pub use journal::Audited;
pub use ledger::Error;
use ledger::Ledger;

/// One refusal of the same kind is kept once in this time, and so many in all.
const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
const REFUSALS_MAX: usize = 100;

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

/// The ledgers of a state directory. One process has them open.
pub struct Audit {
    folder: PathBuf,
    key: Ed25519KeyPair,
    ledgers: Mutex<BTreeMap<RegionName, Ledger>>,
    refusals: Mutex<BTreeMap<String, Instant>>,
}

impl Audit {
    /// Opens what is there; a line that was not finished is cut off.
    ///
    /// # Errors
    /// The folder, a ledger or the key cannot be read or written.
    pub fn open(state: &Path) -> Result<Self, Error> {
        let folder = state.join("audit");
        ledger::make_folder(&folder)?;
        let key = ledger::key(&folder)?;
        let mut ledgers = BTreeMap::new();
        for region in ledger::regions(&folder)? {
            let ledger = Ledger::open(&folder, &region)?;
            ledgers.insert(region, ledger);
        }
        Ok(Self { folder, key, ledgers: Mutex::new(ledgers), refusals: Mutex::default() })
    }

    /// Signs what was appended since the last checkpoints, before this process ends.
    pub fn sign(&self) {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        for ledger in ledgers.values_mut() {
            if let Err(error) = ledger.close(&self.key) {
                tracing::warn!(%error, "no last checkpoint of the audit");
            }
        }
    }

    /// Appends a record to one region's ledger.
    fn append(
        &self,
        region: &RegionName,
        at: Timestamp,
        what: &Value,
        sync: bool,
    ) -> Result<(), Error> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = match ledgers.entry(region.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(Ledger::open(&self.folder, region)?)
            }
        };
        ledger.append(at, what, &self.key, sync)
    }

    /// The stream's position up to which a region's ledger has a service's facts.
    fn cursor(&self, region: &RegionName, service: &str) -> u64 {
        let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        ledgers.get(region).map_or(0, |ledger| ledger.cursor(service))
    }
}

impl Auditor for Audit {
    fn refused(&self, regions: &[RegionName], by: &str, what: &str, at: Timestamp) {
        let key = format!("{by}: {what}");
        {
            let mut known = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, at| at.elapsed() < REFUSAL_PAUSE);
            if known.contains_key(&key) || known.len() >= REFUSALS_MAX {
                return;
            }
            known.insert(key, Instant::now());
        }
        for region in regions {
            let record = json!({"kind": "refused", "by": by, "what": what, "regions": regions});
            if let Err(error) = self.append(region, at, &record, true) {
                tracing::error!(%error, %region, "a refusal is not in the audit");
            }
        }
    }

    fn read(&self, region: &RegionName, after: u64, limit: usize) -> Result<Vec<Value>, String> {
        let known =
            self.ledgers.lock().unwrap_or_else(PoisonError::into_inner).contains_key(region);
        if !known {
            return Ok(Vec::new());
        }
        ledger::read(&self.folder, region, after, limit).map_err(|error| error.to_string())
    }
}

/// Keeps nothing.
pub struct Silent;

impl Auditor for Silent {
    fn refused(&self, _: &[RegionName], _: &str, _: &str, _: Timestamp) {}

    fn read(&self, _: &RegionName, _: u64, _: usize) -> Result<Vec<Value>, String> {
        Ok(Vec::new())
    }
}
