//! A file that a load balancer reads and Tidegate writes: locked, replaced whole, and put back when it is not taken.
//! Blocking; runs on a thread for such work.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::api::Api;
use super::quoted;
use crate::ports::{LoadBalancerError, Outcome};
use crate::units::Generation;

/// Longest wait for another writer: it waits for two programs.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Nobody's file that holds little but weights is longer.
pub const BYTES_MAX: u64 = 64 * 1024;

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// Where one has to be.
    #[error("is not there")]
    Missing,
    /// A rename would replace the link, not what it names.
    #[error("is a symbolic link or no file: name the file itself")]
    NotAFile,
    /// A newer generation has been here.
    #[error("holds generation {found}, newer than {asked}")]
    Superseded {
        /// In the file.
        found: Generation,
        /// To be written.
        asked: Generation,
    },
    /// Somebody else writes.
    #[error("another writer holds the directory's lock")]
    Locked,
}

impl Error {
    /// What is known about the effect: the file changes in the very last step only.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Superseded { .. } => Outcome::Superseded,
            Self::Locked | Self::System { .. } => Outcome::NotSent,
            Self::NotAFile | Self::Missing => Outcome::Misconfigured,
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { doing, source }
}

/// Runs such work on a thread for it; its errors become those of the target that `api` is of.
pub async fn on_disk<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, LoadBalancerError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| api.failure("its file was left", Outcome::Unknown))?;
    done.map_err(|error| api.failure(&error, error.outcome()))
}

/// Commands for a shell that put the text there, whole. Nobody looks at a file with the ending of the one beside it.
pub fn by_hand(path: &Path, text: &str) -> [String; 2] {
    let path = path.display().to_string();
    let (path, beside) = (quoted(&path), quoted(&format!("{path}.new")));
    [
        format!("cat > {beside} <<'END_OF_FILE'\n{}\nEND_OF_FILE", text.trim_end()),
        format!("mv {beside} {path}"),
    ]
}

/// The file as it was, its folder locked against other writers until this is dropped.
pub struct Held {
    path: PathBuf,
    folder: fs::File,
    /// Its text before; `None`: there was no file.
    before: Option<String>,
}

impl Held {
    /// Locks the folder and reads the file, `bytes_max` of it; an error when it holds a newer generation.
    ///
    /// `generation_of` finds the generation in a text of this kind.
    pub fn take(
        path: &Path,
        bytes_max: u64,
        generation: Generation,
        generation_of: impl Fn(&str) -> Option<Generation>,
    ) -> Result<Self, Error> {
        let held = Self::lock(path, bytes_max)?;
        let found = held.before.as_deref().and_then(generation_of);
        match found.filter(|found| *found > generation) {
            Some(found) => Err(Error::Superseded { found, asked: generation }),
            None => Ok(held),
        }
    }

    /// Locks the folder and reads the file.
    pub fn lock(path: &Path, bytes_max: u64) -> Result<Self, Error> {
        let folder = lock(folder_of(path))?;
        let before = read(path, bytes_max)?;
        Ok(Self { path: path.to_owned(), folder, before })
    }

    /// Whether this text is there already.
    pub fn is(&self, text: &str) -> bool {
        self.before.as_deref() == Some(text)
    }

    /// Readers see the old file or the new one, whole; on disk on return.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        replace(&self.path, text)?;
        self.folder.sync_all().map_err(system("sync the directory"))
    }

    /// The file as it was.
    pub fn restore(&self) -> Result<(), Error> {
        match &self.before {
            Some(text) => self.write(text),
            None => fs::remove_file(&self.path).map_err(system("remove")),
        }
    }
}

/// Puts a whole new file in the place of the old one, with its permissions and, where we may, its owner: who reads it is
/// often another user.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = tempfile::Builder::new()
        // Whoever reads `*.conf` or `*.yaml` must not see it.
        .prefix(".tidegate-")
        .tempfile_in(folder_of(path))
        .map_err(system("make a temporary file beside it"))?;
    file.write_all(text.as_bytes()).map_err(system("write"))?;
    let before = fs::metadata(path).ok();
    let permissions = before.as_ref().map_or_else(
        || std::os::unix::fs::PermissionsExt::from_mode(0o644),
        fs::Metadata::permissions,
    );
    file.as_file().set_permissions(permissions).map_err(system("keep the permissions"))?;
    if let Some(before) = before {
        keep_owner(file.as_file(), &before);
    }
    file.as_file().sync_all().map_err(system("sync"))?;
    file.persist(path).map_err(|error| system("rename")(error.error))?;
    Ok(())
}

/// Only root may give files away; without it the file is ours, with the same permissions.
fn keep_owner(file: &fs::File, before: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    if let Err(error) = fchown(file, Some(before.uid()), Some(before.gid())) {
        tracing::debug!(%error, "the file changes its owner");
    }
}

/// The file's first bytes as text; `None` when there is none.
pub fn read(path: &Path, bytes_max: u64) -> Result<Option<String>, Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system("read")(error)),
        Ok(found) if !found.is_file() => return Err(Error::NotAFile),
        Ok(_) => {}
    }
    let (mut text, file) = (String::new(), fs::File::open(path).map_err(system("read"))?);
    file.take(bytes_max).read_to_string(&mut text).map_err(system("read"))?;
    Ok(Some(text))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock(folder: &Path) -> Result<fs::File, Error> {
    let file = fs::File::open(folder).map_err(system("open the directory"))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked),
            Err(error) => return Err(system("lock the directory")(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<Generation> {
        text.parse().ok().map(Generation)
    }

    #[test]
    fn an_older_generation_is_refused_and_what_was_there_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.conf");
        let first = Held::take(&path, BYTES_MAX, Generation(3), number).unwrap();
        first.write("3").unwrap();
        drop(first);
        let older = Held::take(&path, BYTES_MAX, Generation(2), number).map(|_| ()).unwrap_err();
        assert_eq!(older.outcome(), Outcome::Superseded);
        let newer = Held::take(&path, BYTES_MAX, Generation(4), number).unwrap();
        newer.write("4").unwrap();
        newer.restore().unwrap();
        assert_eq!(read(&path, BYTES_MAX).unwrap().as_deref(), Some("3"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "1").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let refused = Held::take(&link, BYTES_MAX, Generation(2), number).map(|_| ()).unwrap_err();
        assert_eq!(refused.outcome(), Outcome::Misconfigured);
    }
}
