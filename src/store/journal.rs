//! The append-only file that everything comes back from: on disk before it is acknowledged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::compact::{Compacted, Old};
use super::frame::{Frame, Frames, Head};
use super::record::Entry;
use crate::faults;

/// A place in the journal: which file, and which record of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of the file, from 1: each compaction makes the next one.
    pub generation: u64,
    /// The record.
    pub head: Head,
}

impl Default for Place {
    fn default() -> Self {
        Self { generation: 1, head: Head::default() }
    }
}

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
        let sync = |file: &File| faults::on_disk("journal-sync").and_then(|()| file.sync_data());
        Self { sync: Box::new(sync), fatal: Box::new(end_process) }
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
    directory: PathBuf,
    generation: u64,
    file: File,
    path: PathBuf,
    head: Head,
    length: u64,
    /// Bytes of it that the last compaction left.
    compacted_bytes: u64,
    hooks: Hooks,
    stopped: bool,
}

impl Journal {
    /// Opens or creates the journal in `directory`, without reading it yet.
    pub fn open(directory: &Path, mut hooks: Hooks) -> Result<Self, Error> {
        make_directory(directory)?;
        let generation = newest(directory)?;
        let path = directory.join(file_name(generation));
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false).mode(0o600);
        let opened = faults::on_disk("journal-open").and_then(|()| options.open(&path));
        let file = opened.map_err(Error::file("open", &path))?;
        // What a killed process wrote may be readable and not on disk; it must be before it is acted on.
        (hooks.sync)(&file).map_err(Error::file("sync", &path))?;
        sync_directory(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            generation,
            file,
            path,
            head: Head::default(),
            length: 0,
            compacted_bytes: 0,
            hooks,
            stopped: false,
        })
    }

    /// Where the file before this one ended, and the record of this one that stands for the same; none in the first file.
    ///
    /// # Errors
    /// The file is damaged, or a later one without a mark.
    pub fn mark(&mut self) -> Result<Option<(Place, Head)>, Error> {
        if self.generation == 1 {
            return Ok(None);
        }
        let mut frames = self.frames()?;
        while let Some(frame) = frames.next().map_err(|source| self.damage(source))? {
            if let Entry::Mark(of) = Entry::decode(frame.head.seq, &frame.payload)? {
                self.compacted_bytes = frames.valid_bytes();
                return Ok(Some((of, frame.head)));
            }
        }
        Err(Error::Broken(format!("{} has no mark of a compaction", self.path.display())))
    }

    /// What the journal has so far, for a compaction.
    #[must_use]
    pub fn old(&self) -> Old {
        Old { path: self.path.clone(), head: self.head, bytes: self.length }
    }

    /// Where the next compaction writes.
    #[must_use]
    pub fn next_path(&self) -> PathBuf {
        self.directory.join(format!("{}.new", file_name(self.generation + 1)))
    }

    /// Bytes since the last compaction, and those that it left.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.length.saturating_sub(self.compacted_bytes), self.compacted_bytes)
    }

    /// Takes a compacted file for its own. What fails before it is in place leaves everything as it was.
    pub fn go_on_in(&mut self, mut compacted: Compacted) -> Result<(), Error> {
        if let Err(error) = compacted.complete(&self.old(), self.place()) {
            compacted.discard();
            return Err(error);
        }
        let path = self.directory.join(file_name(self.generation + 1));
        if let Err(source) = fs::rename(&compacted.path, &path) {
            compacted.discard();
            return Err(Error::file("rename to", &path)(source));
        }
        if let Err(error) = sync_directory(&self.directory) {
            self.stop(&format!("it is unknown which journal is on disk: {}", error.chain()));
            return Err(error);
        }
        let old = std::mem::replace(&mut self.path, path);
        (self.file, self.head, self.generation) =
            (compacted.file, compacted.head, self.generation + 1);
        self.length = self.file.stream_position().map_err(Error::file("seek in", &self.path))?;
        self.compacted_bytes = compacted.bytes;
        // One that stays is removed at the next start.
        let _ = fs::remove_file(old);
        Ok(())
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
        remove_others(&self.directory, self.generation)
    }

    /// The newest record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The newest record, and which file it is in.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { generation: self.generation, head: self.head }
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
        let written = faults::on_disk("journal-write").and_then(|()| self.file.write_all(frames));
        if let Err(source) = written {
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

/// The newest file of the journal in `directory`; none where there is no journal.
pub fn newest_file(directory: &Path) -> Result<Option<PathBuf>, Error> {
    if !directory.is_dir() {
        return Ok(None);
    }
    let path = directory.join(file_name(newest(directory)?));
    Ok(path.is_file().then_some(path))
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

fn file_name(generation: u64) -> String {
    format!("{generation:08}.log")
}

/// The number of a journal's file; none for another file.
fn generation(path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let is_number = number.len() >= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|number| is_number && *number > 0)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).map_err(Error::file("list", directory))?;
    listed.map(|entry| Ok(entry.map_err(Error::file("list", directory))?.path())).collect()
}

/// The newest file: a compacted one is put in place only when all of it is on disk.
fn newest(directory: &Path) -> Result<u64, Error> {
    let mut newest = 1;
    for path in entries(directory)? {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        match generation(&path) {
            Some(found) => newest = newest.max(found),
            None if is_log => return Err(Error::Stranger(path)),
            None => {}
        }
    }
    Ok(newest)
}

/// Removes files that this one took the place of, and compactions that did not come to their end.
fn remove_others(directory: &Path, current: u64) -> Result<(), Error> {
    for path in entries(directory)? {
        let is_new = path.extension().is_some_and(|extension| extension == "new");
        if is_new || generation(&path).is_some_and(|found| found < current) {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    sync_directory(directory)
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

    /// Power loss: of what was written since the last sync any part may be gone, or garbage.
    #[test]
    fn row_12_what_was_acknowledged_outlives_a_power_loss_that_drops_unsynced_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let synced: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (keeps, log) = (synced.clone(), directory.path().join("00000001.log"));
        let path = log.clone();
        let hooks = Hooks {
            sync: Box::new(move |_| {
                *keeps.lock().unwrap() = fs::read(&path)?;
                Ok(())
            }),
            fatal: Box::new(|_| {}),
        };
        let (mut journal, _) = opened(directory.path(), hooks);
        let mut acknowledged = Vec::new();
        for number in 0..40_u32 {
            let text = format!("record {number}");
            let (bytes, head) = frames(&journal.head(), &text);
            journal.write(&bytes, head).unwrap();
            acknowledged.push(text.into_bytes());
            // The next one is on its way and was not synced: none of it, some of it or garbage is on disk.
            let (next, _) = frames(&head, "never acknowledged");
            let lost = [Vec::new(), next[..next.len() / 2].to_vec(), vec![0; next.len()], next];
            for tail in lost {
                let after = tempfile::tempdir().unwrap();
                let on_disk = [&synced.lock().unwrap()[..], &tail[..]].concat();
                fs::write(after.path().join("00000001.log"), on_disk).unwrap();
                let (_, payloads) = opened(after.path(), Hooks::default());
                assert_eq!(payloads[..acknowledged.len()], acknowledged[..], "after {number}");
            }
        }
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
    fn strange_files_are_refused_and_one_without_a_mark_is_no_later_journal() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("00000002.log"), "").unwrap();
        let mut journal = Journal::open(directory.path(), Hooks::default()).unwrap();
        assert!(matches!(journal.mark(), Err(Error::Broken(_))));
        fs::write(directory.path().join("copy.log"), "").unwrap();
        assert!(matches!(
            Journal::open(directory.path(), Hooks::default()),
            Err(Error::Stranger(_))
        ));
    }
}
