//! Which format a state directory is kept in. A directory of the previous one stays readable for the previous version of
//! this program until somebody says `store upgrade`.
//!
//! | format | since | a record may be |
//! |---|---|---|
//! | 1 | 0.1 | an append |
//! | 2 | 0.1 | also a mark, or one that comes after others were left out: the journal is compacted |

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::journal::{Place, sync_directory};

/// The format of new directories.
pub const NEWEST: u32 = 2;
/// The first one that is compacted.
pub const COMPACTED: u32 = 2;

const FILE: &str = "format";

/// The format of a directory whose journal ends at `place`; a new one gets the newest.
///
/// # Errors
/// It is of a newer version, or cannot be read or written.
pub fn settle(state: &Path, place: Place) -> Result<u32, Error> {
    match read(state)? {
        Some(found) if found > NEWEST => Err(Error::Format { found, known: NEWEST }),
        Some(found) => Ok(found),
        None if place == Place::default() || place.generation > 1 => {
            write(state, NEWEST)?;
            Ok(NEWEST)
        }
        None => Ok(1),
    }
}

/// What the directory says; nothing before formats were written down.
pub fn read(state: &Path) -> Result<Option<u32>, Error> {
    let path = state.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let number = text.trim().parse().ok().filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| {
        Error::Broken(format!("{} holds no number: {}", path.display(), crate::units::shown(&text)))
    })
}

/// Writes it down; on disk on return.
pub fn write(state: &Path, format: u32) -> Result<(), Error> {
    let (path, beside): (PathBuf, _) = (state.join(FILE), state.join("format.new"));
    let mut file = File::create(&beside).map_err(Error::file("create", &beside))?;
    writeln!(file, "{format}").map_err(Error::file("write", &beside))?;
    file.sync_all().map_err(Error::file("sync", &beside))?;
    fs::rename(&beside, &path).map_err(Error::file("rename to", &path))?;
    sync_directory(state)
}

#[cfg(test)]
mod tests {
    use super::super::frame::Head;
    use super::*;
    use crate::units::Seq;

    #[test]
    fn new_directories_get_the_newest_and_old_ones_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let old = Place { generation: 1, head: Head { seq: Seq(3), hash: [1; 32] } };
        assert_eq!(settle(folder.path(), old).unwrap(), 1);
        assert_eq!(read(folder.path()).unwrap(), None);
        assert_eq!(settle(folder.path(), Place { generation: 2, ..old }).unwrap(), 2);
        assert_eq!(settle(folder.path(), old).unwrap(), 2);
        let new = tempfile::tempdir().unwrap();
        assert_eq!(settle(new.path(), Place::default()).unwrap(), NEWEST);
    }

    #[test]
    fn a_newer_format_is_refused_with_both_numbers_and_nonsense_by_name() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), NEWEST + 1).unwrap();
        let error = settle(folder.path(), Place::default()).unwrap_err();
        assert!(error.to_string().contains("format 3") && error.to_string().contains("up to 2"));
        for text in ["", "two", "0", "-1"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert!(matches!(settle(folder.path(), Place::default()), Err(Error::Broken(_))));
        }
    }
}
