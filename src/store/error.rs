//! Why the store does not open, take or give something.

use std::io;
use std::path::{Path, PathBuf};

use super::frame;
use crate::units::Seq;

/// Why the store does not open, take or give something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process works with this state directory.
    #[error("state directory {path} is in use by {}", holder(*pid))]
    InUse {
        /// Which process, if it could be read.
        pid: Option<u32>,
        /// The state directory.
        path: PathBuf,
    },
    /// The journal lost its end: the state was made from records that it does not hold.
    #[error(
        "journal ends at record {journal}, but the state was made from {state} records: restore the journal from a \
         backup, or move the folder `state` away to go on from record {journal}"
    )]
    JournalBehind {
        /// The newest record of the journal.
        journal: Seq,
        /// The newest record in the state.
        state: Seq,
    },
    /// There is something already where a journal was to be put.
    #[error("{0} holds a journal already: nothing was changed")]
    Occupied(PathBuf),
    /// There is no journal to read.
    #[error("there is no journal in {0}")]
    NoJournal(PathBuf),
    /// The state was made from a later journal.
    #[error(
        "the journal's file is number {journal}, but the state was made from number {state}: restore journal and state \
         from the same backup, or move the folder `state` away to go by the journal alone"
    )]
    OlderJournal {
        /// The newest file of the journal.
        journal: u64,
        /// The file that the state stands in.
        state: u64,
    },
    /// The state was made from another journal.
    #[error(
        "record {seq} of the journal is not the one that the state was made from: restore journal and state from the \
         same backup, or move the folder `state` away to go by the journal alone"
    )]
    Diverged {
        /// The first record known to differ.
        seq: Seq,
    },
    /// The journal is damaged or from another version.
    #[error("journal {path} cannot be used; restore it from a backup, nothing was changed")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Which record, where and why.
        #[source]
        source: frame::Error,
    },
    /// A record was written by a newer version of this program.
    #[error(
        "record {seq} of the journal has version {version}, and this program reads version {known}: use a newer one"
    )]
    Version {
        /// The record.
        seq: Seq,
        /// What it says.
        version: u32,
        /// What can be read.
        known: u32,
    },
    /// A record is intact, but does not say what this program understands.
    #[error("record {seq} of the journal is not understood")]
    Record {
        /// The record.
        seq: Seq,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A record does not fit the records before it.
    #[error("record {seq} does not fit the records before it: {what}")]
    Unfit {
        /// The record.
        seq: Seq,
        /// Why.
        what: String,
    },
    /// A file that does not belong into the journal's folder.
    #[error("{0} does not belong into the journal's folder; a newer version may have written it")]
    Stranger(PathBuf),
    /// A file could not be read or written.
    #[error("could not {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An earlier failure left it unknown what is on disk.
    #[error(
        "the store stopped taking records after an earlier failure; a restart reads what is on disk"
    )]
    Stopped,
    /// The database that holds the state is broken.
    #[error("the state cannot be used: {0}")]
    Broken(String),
    /// The database that holds the state could not be read or written.
    #[error("the state could not be read or written")]
    State(#[source] Box<sled::Error>),
    /// The state directory is of a newer version of this program.
    #[error(
        "the state directory has format {found}, and this program reads formats up to {known}: use a newer one"
    )]
    Format {
        /// What it says.
        found: u32,
        /// What can be read.
        known: u32,
    },
    /// The state directory is kept for the previous version of this program.
    #[error(
        "the state directory has format {found}, which is not compacted: `tidegate store upgrade` goes on to {known}"
    )]
    NotUpgraded {
        /// Its format.
        found: u32,
        /// The newest.
        known: u32,
    },
    /// Too little is free for a new rollout.
    #[error(
        "{} MiB are free on the disk of the state directory, and a new rollout starts with {} or more",
        free / (1024 * 1024), floor / (1024 * 1024)
    )]
    NoRoom {
        /// Free bytes.
        free: u64,
        /// Bytes that have to be free.
        floor: u64,
    },
    /// A record longer than the limit.
    #[error("a record of {bytes} bytes is beyond the limit of {} bytes", frame::PAYLOAD_BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    /// For `map_err`: what was tried with which file.
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// The message and those of its sources, joined by colons.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

impl From<sled::Error> for Error {
    fn from(error: sled::Error) -> Self {
        Self::State(Box::new(error))
    }
}
