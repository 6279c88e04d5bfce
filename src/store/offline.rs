//! Backups, and what else needs the journal alone: while somebody writes, or where the state is gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::frame::Frames;
use super::journal::{make_directory, newest_file, sync_directory};
use super::lock::Lock;
use super::record::Entry;
use super::{Error, Store, format, move_aside};
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::units::{RolloutId, Seq, ServiceName};

/// How often a compaction may take the file away that is being copied.
const COPIES_MAX: usize = 5;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Records of the journal.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Copies the journal of `state` into the new folder `to`, also while a process writes it; on disk on return.
///
/// What is acknowledged when this begins is in it. The state is made anew from it by whoever opens it. What was
/// copied is read once; a damaged journal is refused.
pub fn backup(state: &Path, to: &Path) -> Result<Copied, Error> {
    if newest_file(&to.join("journal"))?.is_some() {
        return Err(Error::Occupied(to.to_owned()));
    }
    let mut tries = 0;
    loop {
        let from = newest_file(&state.join("journal"))?;
        let from = from.ok_or_else(|| Error::NoJournal(state.to_owned()))?;
        tries += 1;
        match copy(&from, to) {
            Err(Error::File { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < COPIES_MAX => {}
            done => return done,
        }
    }
}

/// Puts a backup where no journal is, and opens it once.
pub fn restore(backup: &Path, state: &Path) -> Result<Copied, Error> {
    let from = newest_file(&backup.join("journal"))?;
    let from = from.ok_or_else(|| Error::NoJournal(backup.to_owned()))?;
    make_directory(state)?;
    let lock = Lock::take(state)?;
    if newest_file(&state.join("journal"))?.is_some() {
        return Err(Error::Occupied(state.to_owned()));
    }
    let copied = copy(&from, state)?;
    drop(lock);
    Store::open(state)?;
    Ok(copied)
}

/// Moves the state aside, so that opening makes it anew from the journal. Where it was moved to; none where there was none.
pub fn set_state_aside(path: &Path) -> Result<Option<PathBuf>, Error> {
    newest_file(&path.join("journal"))?.ok_or_else(|| Error::NoJournal(path.to_owned()))?;
    let _lock = Lock::take(path)?;
    if !path.join("state").exists() {
        return Ok(None);
    }
    move_aside(path, "the state is to be made anew").map(Some)
}

/// What an upgrade did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upgraded {
    /// The format before.
    pub from: u32,
    /// The format now.
    pub to: u32,
    /// The copy of the journal as it was; none where nothing was to be done.
    pub backup: Option<PathBuf>,
}

/// Goes on to the newest format, after a backup of the journal within the state directory.
///
/// From then on the previous version of this program refuses the directory.
pub fn upgrade(state: &Path) -> Result<Upgraded, Error> {
    // What is damaged is not upgraded.
    drop(Store::open(state)?);
    let lock = Lock::take(state)?;
    let (from, to) = (format::read(state)?.unwrap_or(1), format::NEWEST);
    if from == to {
        return Ok(Upgraded { from, to, backup: None });
    }
    let to_folder = state.join(format!("before-format-{to}"));
    // One that was cut short is no backup yet.
    let _ = fs::remove_dir_all(&to_folder);
    backup(state, &to_folder)?;
    format::write(state, to)?;
    drop(lock);
    Ok(Upgraded { from, to, backup: Some(to_folder) })
}

/// Every fact with its sequence in its stream, in the order of the journal, also while a process writes it.
pub fn each_fact(state: &Path, mut each: impl FnMut(Seq, &Fact)) -> Result<(), Error> {
    let path = newest_file(&state.join("journal"))?;
    let path = path.ok_or_else(|| Error::NoJournal(state.to_owned()))?;
    read(&path, |entry| {
        if let Entry::Record(record) = entry {
            record.numbered().for_each(|(seq, fact)| each(seq, fact));
        }
    })?;
    Ok(())
}

/// The facts of a service, of one rollout if one is given, oldest first; needs neither lock nor state.
pub fn facts(
    state: &Path,
    service: &ServiceName,
    rollout: Option<&RolloutId>,
) -> Result<Vec<(Seq, Fact)>, Error> {
    let mut facts = Vec::new();
    each_fact(state, |seq, fact| {
        let is_meant = rollout.is_none_or(|only| fact.rollout.as_ref() == Some(only));
        if fact.service == *service && is_meant {
            facts.push((seq, fact.clone()));
        }
    })?;
    Ok(facts)
}

/// What the journal says of services and their open rollouts, as far as it can be read; needs neither lock nor state.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Every service.
    pub services: BTreeMap<ServiceName, ServiceState>,
    /// Every rollout that is not over, by its service.
    pub open: BTreeMap<ServiceName, Rollout>,
    /// Why not all of it was read.
    pub damage: Option<Error>,
}

/// Reads the journal of `state` up to its end, or to where it is damaged.
#[must_use]
pub fn remembered(state: &Path) -> Remembered {
    let mut known = Remembered::default();
    let damage = each_fact(state, |_, fact| known.take(fact)).err();
    Remembered { damage, ..known }
}

impl Remembered {
    fn take(&mut self, fact: &Fact) {
        let name = &fact.service;
        if let Some(id) = &fact.rollout {
            match (&fact.event, self.open.get_mut(name)) {
                (Event::Started(started), _) => {
                    let rollout = Rollout::start(id.clone(), started, fact.at);
                    self.open.insert(name.clone(), rollout);
                }
                (event, Some(rollout)) if rollout.id == *id => rollout.apply(event, fact.at),
                _ => {}
            }
        }
        let unknown = || ServiceState::unknown(name.clone());
        let version = self.open.get(name).map(|rollout| &rollout.version);
        self.services.entry(name.clone()).or_insert_with(unknown).apply(fact, version);
        self.open.retain(|_, rollout| !rollout.phase.is_over());
    }
}

/// Copies a journal's file to the folder `journal` of `to` under its own name, and reads it there.
fn copy(from: &Path, to: &Path) -> Result<Copied, Error> {
    let mut source = File::open(from).map_err(Error::file("open", from))?;
    let journal = to.join("journal");
    make_directory(to)?;
    make_directory(&journal)?;
    let name = from.file_name().unwrap_or_default();
    let (path, unfinished) = (journal.join(name), journal.join("unfinished"));
    let mut options = fs::OpenOptions::new();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(&unfinished).map_err(Error::file("create", &unfinished))?;
    io::copy(&mut source, &mut file).map_err(Error::file("copy to", &unfinished))?;
    let copied = match read(&unfinished, |_| {}) {
        Ok(copied) => copied,
        Err(error) => {
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    // Whoever writes may have been in the middle of it.
    file.set_len(copied.bytes).map_err(Error::file("cut", &unfinished))?;
    file.sync_all().map_err(Error::file("sync", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::file("rename to", &path))?;
    sync_directory(&journal)?;
    Ok(copied)
}

fn read(path: &Path, mut each: impl FnMut(Entry)) -> Result<Copied, Error> {
    let damage = |source| Error::Journal { path: path.to_owned(), source };
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut frames = Frames::new(io::BufReader::new(file));
    while let Some(frame) = frames.next().map_err(damage)? {
        each(Entry::decode(frame.head.seq, &frame.payload)?);
    }
    Ok(Copied { records: frames.head().seq.0, bytes: frames.valid_bytes() })
}

/// Recovers what it can from any bytes, as a start does.
#[cfg(feature = "fault-injection")]
pub fn recover_bytes(bytes: &[u8]) {
    let (mut frames, mut known) = (Frames::new(bytes), Remembered::default());
    loop {
        match frames.next() {
            Ok(Some(frame)) => match Entry::decode(frame.head.seq, &frame.payload) {
                Ok(Entry::Record(record)) => {
                    record.numbered().for_each(|(_, fact)| known.take(fact));
                }
                Ok(Entry::Mark(_)) => {}
                Err(error) => {
                    assert!(!error.chain().is_empty());
                    return;
                }
            },
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
    let length = frames.valid_bytes() + frames.torn_bytes();
    assert_eq!(length, bytes.len() as u64, "all of it is records, or a torn end");
}
