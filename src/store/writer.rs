//! The one thread that writes. Appends that wait together share one sync.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::Shared;
use super::frame::{self, HEADER_BYTES, Head, WRITE_BYTES_MAX};
use super::journal::Journal;
use super::record::Record;
use super::state::Changes;
use crate::ports::JournalError;
use crate::units::Seq;

/// Most appends that share one sync.
const BATCH_RECORDS_MAX: usize = 256;

/// One append on its way to the writer.
pub struct Request {
    /// The record as its bytes read.
    pub record: Record,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Told when it is on disk, or why it is not.
    pub reply: Reply,
}

type Answer = Result<Seq, JournalError>;
type Reply = oneshot::Sender<Answer>;

/// Writes until every sender is gone.
pub fn run(mut requests: mpsc::Receiver<Request>, journal: Journal, shared: Arc<Shared>) {
    let mut writer = Writer { journal, shared, stopped: false };
    while let Some(request) = requests.blocking_recv() {
        let mut batch = Batch::new(writer.journal.head());
        writer.take(&mut batch, request);
        while batch.replies.len() < BATCH_RECORDS_MAX {
            let Ok(request) = requests.try_recv() else { break };
            if batch.bytes.len() + HEADER_BYTES + request.payload.len() > WRITE_BYTES_MAX {
                writer.commit(batch);
                batch = Batch::new(writer.journal.head());
            }
            writer.take(&mut batch, request);
        }
        writer.commit(batch);
    }
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
    /// The state could not follow the journal.
    stopped: bool,
}

impl Writer {
    fn take(&self, batch: &mut Batch, request: Request) {
        let answer = self.stage(batch, &request);
        batch.replies.push((request.reply, answer));
    }

    fn stage(&self, batch: &mut Batch, request: &Request) -> Answer {
        let Request { record, payload, .. } = request;
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
}
