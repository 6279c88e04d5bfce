//! The append-only file that everything comes back from: on disk before it is acknowledged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::frame::{Frame, Frames, Head};

/// The first file, and for now the only one. Later ones will count on.
const FILE_NAME: &str = "00000001.log";

/// Brings a file's bytes to the disk.
type Sync = dyn FnMut(&File) -> io::Result<()> + Send;

/// What the journal does where only the operating system can answer; tests put their own in.
pub struct Hooks {
    /// Brings a file's bytes to the disk.
    pub sync: Box<Sync>,
    /// Called when it is unknown what is on disk; does not return in production.
    pub fatal: Box<dyn Fn(&str) + Send>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { sync: Box::new(File::sync_data), fatal: Box::new(end_process) }
    }
}

/// After a failed sync the kernel may have dropped the bytes and report success the next time: only reading anew helps.
fn end_process(message: &str) {
    tracing::error!("{message}");
    eprintln!("tidegate: {message}");
    std::process::abort();
}

/// The open journal; the one writer of its file.
pub struct Journal {
    file: File,
    path: PathBuf,
    head: Head,
    length: u64,
    hooks: Hooks,
    stopped: bool,
}

impl Journal {
    /// Opens or creates the journal in `directory`, without reading it yet.
    pub fn open(directory: &Path, mut hooks: Hooks) -> Result<Self, Error> {
        make_directory(directory)?;
        refuse_strangers(directory)?;
        let path = directory.join(FILE_NAME);
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(Error::file("open", &path))?;
        // What a killed process wrote may be readable and not on disk; it must be before it is acted on.
        (hooks.sync)(&file).map_err(Error::file("sync", &path))?;
        sync_directory(directory)?;
        Ok(Self { file, path, head: Head::default(), length: 0, hooks, stopped: false })
    }

    /// Reads every record in order. Nothing may be written before it has ended well.
    pub fn replay(
        &mut self,
        mut each: impl FnMut(Frame) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut frames = self.frames()?;
        while let Some(frame) = frames.next().map_err(|source| self.damage(source))? {
            each(frame)?;
        }
        self.head = frames.head();
        self.length = frames.valid_bytes();
        if frames.torn_bytes() > 0 {
            tracing::warn!(
                seq = self.head.seq.0,
                bytes = frames.torn_bytes(),
                "journal ends in a torn write"
            );
        }
        Ok(())
    }

    /// Cuts what a torn write left behind the newest record.
    pub fn cut(&mut self) -> Result<(), Error> {
        self.file.set_len(self.length).map_err(Error::file("cut", &self.path))?;
        (self.hooks.sync)(&self.file).map_err(Error::file("sync", &self.path))?;
        self.file.seek(SeekFrom::Start(self.length)).map_err(Error::file("seek in", &self.path))?;
        Ok(())
    }

    /// The newest record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The journal's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends encoded frames that end at `head`; on disk on return.
    ///
    /// A failed write leaves the journal as it was. A failed sync ends the process.
    pub fn write(&mut self, frames: &[u8], head: Head) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        if let Err(source) = self.file.write_all(frames) {
            self.take_back();
            return Err(Error::file("write", &self.path)(source));
        }
        if let Err(source) = (self.hooks.sync)(&self.file) {
            self.stop(&format!(
                "sync of {} failed, so it is unknown what is on disk: {source}",
                self.path.display()
            ));
            return Err(Error::file("sync", &self.path)(source));
        }
        self.head = head;
        self.length += frames.len() as u64;
        Ok(())
    }

    /// Removes what a failed write may have left.
    fn take_back(&mut self) {
        let length = self.length;
        let result =
            self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        if let Err(source) = result {
            self.stop(&format!(
                "{} could not be cut after a failed write: {source}",
                self.path.display()
            ));
        }
    }

    fn stop(&mut self, message: &str) {
        self.stopped = true;
        (self.hooks.fatal)(message);
    }

    fn frames(&self) -> Result<Frames<BufReader<File>>, Error> {
        read(&self.path)
    }

    fn damage(&self, source: super::frame::Error) -> Error {
        Error::Journal { path: self.path.clone(), source }
    }
}

/// Reads a journal's file beside its writer.
pub fn read(path: &Path) -> Result<Frames<BufReader<File>>, Error> {
    Ok(Frames::new(BufReader::new(File::open(path).map_err(Error::file("open", path))?)))
}

/// Makes a directory that only its owner reads, and its entry durable.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::file("create", path))?;
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new(".")),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes a directory's entries durable.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::file("sync", path))
}

/// A second file would hold records that this version does not know to read.
fn refuse_strangers(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::file("list", directory))? {
        let entry = entry.map_err(Error::file("list", directory))?;
        let is_log = entry.path().extension().is_some_and(|extension| extension == "log");
        if is_log && entry.file_name() != FILE_NAME {
            return Err(Error::Stranger(entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::frame::encode;
    use crate::units::Seq;

    fn frames(head: &Head, text: &str) -> (Vec<u8>, Head) {
        let mut bytes = Vec::new();
        let head = encode(&mut bytes, head, head.seq.next(), text.as_bytes()).unwrap();
        (bytes, head)
    }

    fn opened(directory: &Path, hooks: Hooks) -> (Journal, Vec<Vec<u8>>) {
        let mut journal = Journal::open(directory, hooks).unwrap();
        let mut payloads = Vec::new();
        journal
            .replay(|frame| {
                payloads.push(frame.payload);
                Ok(())
            })
            .unwrap();
        journal.cut().unwrap();
        (journal, payloads)
    }

    #[test]
    fn a_failed_sync_is_fatal_and_nothing_is_taken_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let fails = Arc::new(Mutex::new(false));
        let (sync_fails, fatal_said) = (fails.clone(), said.clone());
        let hooks = Hooks {
            sync: Box::new(move |_| match *sync_fails.lock().unwrap() {
                true => Err(io::Error::other("input/output error")),
                false => Ok(()),
            }),
            fatal: Box::new(move |message| fatal_said.lock().unwrap().push(message.to_owned())),
        };
        let (mut journal, _) = opened(directory.path(), hooks);
        *fails.lock().unwrap() = true;
        let (bytes, head) = frames(&journal.head(), "one");
        assert!(matches!(journal.write(&bytes, head), Err(Error::File { what: "sync", .. })));
        assert_eq!(journal.head().seq, Seq(0));
        assert!(said.lock().unwrap()[0].contains("input/output error"));
        *fails.lock().unwrap() = false;
        assert!(matches!(journal.write(&bytes, head), Err(Error::Stopped)));
    }

    #[test]
    fn a_torn_end_is_cut_and_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = opened(directory.path(), Hooks::default());
        let (one, head) = frames(&journal.head(), "one");
        journal.write(&one, head).unwrap();
        let (two, head) = frames(&head, "two");
        journal.write(&two, head).unwrap();
        let length = (one.len() + two.len() - 1) as u64;
        journal.file.set_len(length).unwrap();
        drop(journal);

        let (mut journal, payloads) = opened(directory.path(), Hooks::default());
        assert_eq!(payloads, [b"one"]);
        assert_eq!(fs::metadata(journal.path()).unwrap().len(), one.len() as u64);
        let (new, head) = frames(&journal.head(), "new");
        journal.write(&new, head).unwrap();
        drop(journal);
        assert_eq!(opened(directory.path(), Hooks::default()).1, [b"one", b"new"]);
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("00000002.log"), "").unwrap();
        assert!(matches!(
            Journal::open(directory.path(), Hooks::default()),
            Err(Error::Stranger(_))
        ));
    }
}
