//! Secrets for emergencies: one region each, used once. What they open is a way back, never a way forward.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::keep;
use crate::units::{RegionName, Timestamp};

/// Digits of a secret.
const DIGITS: usize = 64;

/// A secret that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    region: RegionName,
    sha256: String,
    created: Timestamp,
}

/// The secrets of a state directory.
#[derive(Debug, Clone)]
pub struct Glass {
    folder: PathBuf,
}

impl Glass {
    /// Of this state directory.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join("glass") }
    }

    /// A new secret for a region, and the only text that it will ever be shown as.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(&self, region: &RegionName, now: Timestamp) -> io::Result<String> {
        let secret = keep::random(DIGITS / 2)?;
        let sha256 = keep::digest(&secret);
        let kept = Kept { region: region.clone(), sha256: sha256.clone(), created: now };
        // Its name is its digest: looked up without looking through all.
        keep::write(&self.folder, &format!("{sha256}.json"), &kept)?;
        Ok(format!("bg_{secret}"))
    }

    /// Uses a secret up. False where it is not one of this region that was not used yet.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn break_it(&self, region: &RegionName, text: &str) -> io::Result<bool> {
        let Some(secret) = text.strip_prefix("bg_").filter(|it| keep::is_hex(it, DIGITS)) else {
            return Ok(false);
        };
        let name = format!("{}.json", keep::digest(secret));
        let kept: Option<Kept> = keep::read(&self.folder, &name)?;
        if kept.is_none_or(|kept| kept.region != *region) {
            return Ok(false);
        }
        // Of two at once, one finds it.
        match fs::remove_file(self.folder.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many are left for each region.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn left(&self) -> io::Result<std::collections::BTreeMap<RegionName, usize>> {
        let mut left = std::collections::BTreeMap::new();
        for name in keep::names(&self.folder)? {
            if let Some(kept) = keep::read::<Kept>(&self.folder, &format!("{name}.json"))? {
                *left.entry(kept.region).or_default() += 1;
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_its_own_region_once() {
        let folder = tempfile::tempdir().unwrap();
        let glass = Glass::of(folder.path());
        let (eu, us): (RegionName, RegionName) =
            ("eu_west_1".parse().unwrap(), "us_east_1".parse().unwrap());
        let secret = glass.create(&eu, Timestamp(1)).unwrap();
        let _ = glass.create(&eu, Timestamp(1)).unwrap();
        assert_eq!(glass.left().unwrap(), [(eu.clone(), 2)].into());
        assert!(!glass.break_it(&us, &secret).unwrap());
        assert!(!glass.break_it(&eu, &secret[3..]).unwrap());
        assert!(!glass.break_it(&eu, "bg_../../x").unwrap());
        assert!(glass.break_it(&eu, &secret).unwrap());
        assert!(!glass.break_it(&eu, &secret).unwrap(), "only once");
        assert_eq!(glass.left().unwrap(), [(eu, 1)].into());
    }
}
