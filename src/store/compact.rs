//! A journal without what nobody will ask for again: checkpoints that newer ones replaced.
//!
//! The file `00000002.log` takes the place of `00000001.log`. It holds the same facts in the same order, the newest
//! checkpoint of every rollout that is not over, then a mark that says where the old file ended, and goes on from there. It is
//! written beside the old one while that one is still appended to; what was appended meanwhile is copied last.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Frames, Head};
use super::journal::{self, Place};
use super::record::{Entry, Record};
use super::{Error, Shared};
use crate::units::{RolloutId, Seq, ServiceName};

/// A file that was written and not yet put in place.
pub struct Compacted {
    /// Where it is.
    pub path: PathBuf,
    /// Open for appending.
    pub file: File,
    /// Its newest record.
    pub head: Head,
    /// Up to where the old file is in it.
    pub of: Head,
    /// Bytes of the old file up to there.
    pub of_bytes: u64,
    /// Bytes that it has, without what is copied last.
    pub bytes: u64,
}

/// The old file as far as it is to be taken over.
#[derive(Clone)]
pub struct Old {
    /// Where it is.
    pub path: PathBuf,
    /// Its newest record.
    pub head: Head,
    /// Bytes up to the end of that.
    pub bytes: u64,
}

/// Writes what is still needed of `old` to `path`; blocks. A file that is there is written over.
pub fn write(old: &Old, path: &Path, shared: &Arc<Shared>) -> Result<Compacted, Error> {
    let needed = needed(old, shared)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).read(true).write(true).mode(0o600);
    let file = options.open(path).map_err(Error::file("create", path))?;
    let mut writer = Writer {
        file: BufWriter::new(file),
        path: path.to_owned(),
        head: Head::default(),
        skipped: BTreeMap::new(),
    };
    each(old, |seq, record| {
        let keeps =
            record.checkpoint.as_ref().is_some_and(|it| needed.get(&it.rollout) == Some(&seq));
        writer.take(record, keeps)
    })?;
    let (file, head) = writer.finish()?;
    // Here nobody waits for it; what is copied last is little.
    file.sync_all().map_err(Error::file("sync", path))?;
    let bytes = file.metadata().map_err(Error::file("look at", path))?.len();
    Ok(Compacted { path: path.to_owned(), file, head, of: old.head, of_bytes: old.bytes, bytes })
}

/// For every rollout that is not over the record that has its newest checkpoint.
fn needed(old: &Old, shared: &Arc<Shared>) -> Result<BTreeMap<RolloutId, Seq>, Error> {
    let mut newest = BTreeMap::new();
    each(old, |seq, record| {
        newest.extend(record.checkpoint.map(|checkpoint| (checkpoint.rollout, seq)));
        Ok(())
    })?;
    let mut needed = BTreeMap::new();
    for (id, seq) in newest {
        // One that ended since then has none in the records that are copied last either.
        let over = shared.state.rollout(&id)?.is_none_or(|(rollout, _)| rollout.phase.is_over());
        if !over {
            needed.insert(id, seq);
        }
    }
    Ok(needed)
}

fn each(old: &Old, mut each: impl FnMut(Seq, Record) -> Result<(), Error>) -> Result<(), Error> {
    let damage = |source| Error::Journal { path: old.path.clone(), source };
    let mut frames = journal::read(&old.path)?;
    while frames.head().seq < old.head.seq {
        let Some(frame) = frames.next().map_err(damage)? else { break };
        if let Entry::Record(record) = Entry::decode(frame.head.seq, &frame.payload)? {
            each(frame.head.seq, *record)?;
        }
    }
    if frames.head() == old.head {
        Ok(())
    } else {
        Err(Error::Broken("the journal is not what was written".to_owned()))
    }
}

struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    head: Head,
    /// Sequences of each stream since its last record that was kept.
    skipped: BTreeMap<ServiceName, (u64, Seq)>,
}

impl Writer {
    fn take(&mut self, mut record: Record, keeps_checkpoint: bool) -> Result<(), Error> {
        if !keeps_checkpoint {
            record.checkpoint = None;
        }
        if record.facts.is_empty() && record.checkpoint.is_none() {
            let skipped = self.skipped.entry(record.service.clone()).or_default();
            *skipped = (skipped.0 + record.steps(), record.stream_seq);
            return Ok(());
        }
        if let Some((skipped, _)) = self.skipped.remove(&record.service) {
            record = record.after_skipping(skipped);
        }
        self.write(&record)
    }

    fn write(&mut self, record: &Record) -> Result<(), Error> {
        let refused = |error: serde_json::Error| Error::Broken(error.to_string());
        let payload = serde_json::to_vec(record).map_err(refused)?;
        self.head = append(&mut self.file, &self.path, self.head, &payload)?;
        Ok(())
    }

    /// Streams that end in what was left out still stand where they stood.
    fn finish(mut self) -> Result<(File, Head), Error> {
        for (service, (skipped, stream_seq)) in std::mem::take(&mut self.skipped) {
            self.write(&Record::skipping(service, stream_seq, skipped))?;
        }
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        Ok((file.map_err(Error::file("write", &self.path))?, self.head))
    }
}

fn append(file: &mut impl Write, path: &Path, head: Head, payload: &[u8]) -> Result<Head, Error> {
    let mut bytes = Vec::new();
    let next = frame::encode(&mut bytes, &head, head.seq.next(), payload)
        .ok_or(Error::TooLong { bytes: payload.len() })?;
    file.write_all(&bytes).map_err(Error::file("write", path))?;
    Ok(next)
}

impl Compacted {
    /// Copies what the old file got meanwhile, up to `end`, and writes the mark that says so; on disk on return.
    pub fn complete(&mut self, old: &Old, end: Place) -> Result<(), Error> {
        let damage = |source| Error::Journal { path: old.path.clone(), source };
        let mut file = File::open(&old.path).map_err(Error::file("open", &old.path))?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(self.of_bytes))
            .map_err(Error::file("seek in", &old.path))?;
        let mut frames = Frames::after(std::io::BufReader::new(file), self.of);
        while frames.head().seq < end.head.seq {
            let Some(frame) = frames.next().map_err(damage)? else { break };
            self.head = append(&mut self.file, &self.path, self.head, &frame.payload)?;
        }
        if frames.head() != end.head {
            return Err(Error::Broken("the journal is not what was written".to_owned()));
        }
        let mark = Entry::mark(end).map_err(|error| Error::Broken(error.to_string()))?;
        self.head = append(&mut self.file, &self.path, self.head, &mark)?;
        self.file.sync_all().map_err(Error::file("sync", &self.path))
    }

    /// Removes it again.
    pub fn discard(self) {
        // What is left is written over, and removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}
