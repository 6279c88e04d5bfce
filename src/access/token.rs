//! API tokens: `tg_<id>_<secret>`. Kept as id and digest, limited in time and in what they allow, shown once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Identity, Via, keep};
use crate::spec::access::Permission;
use crate::units::{Millis, Timestamp};

/// Digits of an id, and of a secret.
const DIGITS: (usize, usize) = (12, 64);
/// Longest life of a token.
pub const LIFE_MAX: Millis = Millis::from_secs(366 * 24 * 3_600);
/// What clocks may differ by.
pub const LEEWAY: Millis = Millis::from_secs(60);

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub person: String,
    /// SHA-256 of the secret, in hex.
    sha256: String,
    /// What it is limited to; none: all that the person may.
    pub scopes: Option<BTreeSet<Permission>>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// The tokens of a state directory. Read at each use: what is gone counts no more, at once.
#[derive(Debug, Clone)]
pub struct Tokens {
    folder: PathBuf,
}

impl Tokens {
    /// Of this state directory.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join("tokens") }
    }

    /// A new token, and the only text that it will ever be shown as.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(
        &self,
        person: &str,
        scopes: Option<BTreeSet<Permission>>,
        life: Millis,
        now: Timestamp,
    ) -> io::Result<(Kept, String)> {
        let (id, secret) = (keep::random(DIGITS.0 / 2)?, keep::random(DIGITS.1 / 2)?);
        let kept = Kept {
            id: id.clone(),
            person: person.to_owned(),
            sha256: keep::digest(&secret),
            scopes,
            created: now,
            expires: now.plus(life.min(LIFE_MAX)),
        };
        keep::write(&self.folder, &format!("{id}.json"), &kept)?;
        Ok((kept, format!("tg_{id}_{secret}")))
    }

    /// Who comes with this text; none for anything that is not a token that counts now.
    #[must_use]
    pub fn identify(&self, text: &str, now: Timestamp) -> Option<Identity> {
        let (id, secret) = text.strip_prefix("tg_")?.split_once('_')?;
        if !keep::is_hex(id, DIGITS.0) || !keep::is_hex(secret, DIGITS.1) {
            return None;
        }
        let kept: Kept = keep::read(&self.folder, &format!("{id}.json")).ok()??;
        let counts = kept.id == id
            && keep::same(&kept.sha256, &keep::digest(secret))
            && now < kept.expires
            && kept.created <= now.plus(LEEWAY);
        counts.then_some(Identity {
            name: kept.person,
            via: Via::Token(kept.id),
            scopes: kept.scopes,
        })
    }

    /// All of them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for name in keep::names(&self.folder)? {
            all.extend(keep::read::<Kept>(&self.folder, &format!("{name}.json"))?);
        }
        Ok(all)
    }

    /// Ends one. False where there is none.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn revoke(&self, id: &str) -> io::Result<bool> {
        if !keep::is_hex(id, DIGITS.0) {
            return Ok(false);
        }
        match fs::remove_file(self.folder.join(format!("{id}.json"))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = Millis::from_secs(24 * 3_600);

    #[test]
    fn a_token_counts_until_it_expires_or_is_revoked_and_its_secret_is_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(folder.path());
        let now = Timestamp(1_000_000_000);
        let scopes: BTreeSet<_> = [Permission::Read].into();
        let (kept, text) = tokens.create("ana", Some(scopes.clone()), DAY, now).unwrap();
        let found = tokens.identify(&text, now).unwrap();
        assert_eq!((found.name.as_str(), found.scopes), ("ana", Some(scopes)));
        assert_eq!(found.via, Via::Token(kept.id.clone()));
        let file = folder.path().join(format!("tokens/{}.json", kept.id));
        let secret = text.rsplit('_').next().unwrap();
        assert!(!fs::read_to_string(&file).unwrap().contains(secret));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(tokens.identify(&text, now.plus(Millis(DAY.0 - 1))).is_some());
        assert!(tokens.identify(&text, now.plus(DAY)).is_none());
        // The clock may have been set back a little, not by an hour.
        assert!(tokens.identify(&text, Timestamp(now.0 - LEEWAY.0)).is_some());
        assert!(tokens.identify(&text, Timestamp(now.0 - 3_600_000)).is_none());
        assert_eq!(tokens.list().unwrap(), std::slice::from_ref(&kept));
        assert!(tokens.revoke(&kept.id).unwrap() && !tokens.revoke(&kept.id).unwrap());
        assert!(tokens.identify(&text, now).is_none());
    }

    #[test]
    fn nothing_else_is_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(folder.path());
        let now = Timestamp(1_000_000_000);
        let (kept, text) = tokens.create("ana", None, DAY, now).unwrap();
        let mut other = text.clone();
        let last = other.pop().unwrap();
        other.push(if last == '0' { '1' } else { '0' });
        let secret = text.rsplit('_').next().unwrap();
        for wrong in [
            other.as_str(),
            "",
            "nothing",
            "tg__",
            "tg_../../x_y",
            &format!("tg_{}_", kept.id),
            &format!("tg_{}_{secret}0", kept.id),
            &format!("tg_{}_{}", kept.id, secret.to_uppercase()),
            &format!("tg_000000000000_{secret}"),
            &format!(" {text}"),
        ] {
            assert!(tokens.identify(wrong, now).is_none(), "{wrong}");
        }
        assert!(!tokens.revoke("../secret").unwrap());
    }
}
