//! The one thread that writes. Appends that wait together share one sync.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::Shared;
use super::compact::{self, Compacted};
use super::format;
use super::frame::{self, HEADER_BYTES, Head, WRITE_BYTES_MAX};
use super::journal::Journal;
use super::record::Record;
use super::state::Changes;
use crate::ports::JournalError;
use crate::units::Seq;

/// Most appends that share one sync.
const BATCH_RECORDS_MAX: usize = 256;

/// What the writer is asked for.
pub enum Request {
    /// An append.
    Append {
        /// The record as its bytes read.
        record: Box<Record>,
        /// Its bytes.
        payload: Vec<u8>,
        /// Told when it is on disk, or why it is not.
        reply: Reply,
    },
    /// A compaction.
    Compact {
        /// Told when it is done, or why it is not.
        reply: oneshot::Sender<Result<(), JournalError>>,
    },
}

type Answer = Result<Seq, JournalError>;
type Reply = oneshot::Sender<Answer>;

/// Writes until every sender is gone.
pub fn run(
    mut requests: mpsc::Receiver<Request>,
    journal: Journal,
    shared: Arc<Shared>,
    format: u32,
    bytes_min: u64,
) {
    let compaction = Compaction { bytes_min, running: None, failed_at: 0 };
    let mut writer = Writer { journal, shared, format, compaction, stopped: false };
    while let Some(request) = requests.blocking_recv() {
        let mut batch = Batch::new(writer.journal.head());
        let mut next = Some(request);
        while let Some(request) = next {
            match request {
                Request::Append { record, payload, reply } => {
                    if batch.bytes.len() + HEADER_BYTES + payload.len() > WRITE_BYTES_MAX {
                        writer.commit(batch);
                        batch = Batch::new(writer.journal.head());
                    }
                    let answer = writer.stage(&mut batch, &record, &payload);
                    batch.replies.push((reply, answer));
                }
                Request::Compact { reply } => {
                    writer.commit(batch);
                    let done = writer.compact();
                    // Who asked may be gone; it is done all the same.
                    let _ = reply.send(done.map_err(Into::into));
                    batch = Batch::new(writer.journal.head());
                }
            }
            let has_room = batch.replies.len() < BATCH_RECORDS_MAX;
            next = has_room.then(|| requests.try_recv().ok()).flatten();
        }
        writer.commit(batch);
        writer.keep_small();
    }
    writer.finish();
}

/// Appends that share one sync, and what they are answered once it has come.
struct Batch {
    first: Seq,
    head: Head,
    bytes: Vec<u8>,
    changes: Changes,
    replies: Vec<(Reply, Answer)>,
}

impl Batch {
    fn new(head: Head) -> Self {
        let (bytes, changes, replies) = (Vec::new(), Changes::default(), Vec::new());
        Self { first: head.seq.next(), head, bytes, changes, replies }
    }
}

struct Writer {
    journal: Journal,
    shared: Arc<Shared>,
    /// What the state directory is kept in.
    format: u32,
    compaction: Compaction,
    /// The state could not follow the journal.
    stopped: bool,
}

impl Writer {
    fn stage(&self, batch: &mut Batch, record: &Record, payload: &[u8]) -> Answer {
        let (state, expected) = (&self.shared.state, record.expected());
        let actual = state.stream_seq(&batch.changes, &record.service)?;
        if actual != expected {
            return Err(JournalError::Conflict {
                service: record.service.clone(),
                expected,
                actual,
            });
        }
        let length = batch.bytes.len();
        let head = frame::encode(&mut batch.bytes, &batch.head, batch.first, payload)
            .ok_or(Error::TooLong { bytes: payload.len() })?;
        if let Err(error) = state.stage(&mut batch.changes, head, record) {
            batch.bytes.truncate(length);
            return Err(error.into());
        }
        batch.head = head;
        Ok(record.stream_seq)
    }

    fn commit(&mut self, batch: Batch) {
        let failure = self.write(&batch).err();
        for (reply, answer) in batch.replies {
            let answer = match &failure {
                Some(error) => Err(JournalError::Failed(error.chain())),
                None => answer,
            };
            // Who asked may be gone; the record stands all the same.
            let _ = reply.send(answer);
        }
    }

    /// Journal first, then the state; what is only in the journal comes into the state at the next start.
    fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        if batch.bytes.is_empty() {
            return Ok(());
        }
        self.journal.write(&batch.bytes, batch.head)?;
        self.shared.state.apply(&batch.changes).inspect_err(|error| {
            self.stopped = true;
            tracing::error!(error = error.chain(), "state could not follow the journal");
        })
    }

    /// Starts a compaction when there is enough to leave out, and takes its file over when it is done.
    fn keep_small(&mut self) {
        if self.stopped || self.format < format::COMPACTED {
            return;
        }
        let (new, left) = self.journal.bytes();
        let enough = self.compaction.bytes_min.max(left) + self.compaction.failed_at;
        // Whoever writes faster than it is compacted waits: the disk is bounded as well.
        let is_late = new >= 2 * enough;
        let is_over = |running: &JoinHandle<_>| is_late || running.is_finished();
        if self.compaction.running.as_ref().is_some_and(is_over) {
            self.take_over();
        }
        let is_due = self.journal.bytes().0 >= enough;
        if self.compaction.running.is_none() && is_due {
            self.start();
        }
    }

    fn start(&mut self) {
        let (old, path, shared) =
            (self.journal.old(), self.journal.next_path(), Arc::clone(&self.shared));
        let thread = std::thread::Builder::new().name("compact".to_owned());
        match thread.spawn(move || compact::write(&old, &path, &shared)) {
            Ok(running) => self.compaction.running = Some(running),
            Err(error) => self.failed(&Error::Broken(format!("no thread: {error}"))),
        }
    }

    fn take_over(&mut self) {
        let Some(running) = self.compaction.running.take() else { return };
        let written = running.join().unwrap_or_else(|_| Err(Error::Stopped));
        match written.and_then(|compacted| self.go_on_in(compacted)) {
            Ok(()) => self.compaction.failed_at = 0,
            Err(error) => self.failed(&error),
        }
    }

    /// The journal goes on as it is, and is compacted once it has grown some more.
    fn failed(&mut self, error: &Error) {
        tracing::warn!(error = error.chain(), "journal could not be compacted");
        self.compaction.failed_at = self.journal.bytes().0;
    }

    fn go_on_in(&mut self, compacted: Compacted) -> Result<(), Error> {
        self.journal.go_on_in(compacted)?;
        let moved = self.shared.state.move_to(self.journal.place());
        let path = self.shared.journal.write().map(|mut path| {
            self.journal.path().clone_into(&mut path);
        });
        moved.and(path.map_err(|_| Error::Stopped)).inspect_err(|_| self.stopped = true)
    }

    /// Compacts at once.
    fn compact(&mut self) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        if self.format < format::COMPACTED {
            return Err(Error::NotUpgraded { found: self.format, known: format::NEWEST });
        }
        self.take_over();
        let compacted =
            compact::write(&self.journal.old(), &self.journal.next_path(), &self.shared)?;
        self.go_on_in(compacted)
    }

    /// What is being compacted is not lost.
    fn finish(mut self) {
        self.take_over();
    }
}

/// The compaction that is due or under way.
struct Compaction {
    bytes_min: u64,
    running: Option<JoinHandle<Result<Compacted, Error>>>,
    /// Bytes that the journal had when one failed.
    failed_at: u64,
}
