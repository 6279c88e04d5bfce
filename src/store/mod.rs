//! The journal, and sled as the state that everything reads.
//!
//! ```text
//! append → writer thread → journal/0000000N.log (synced) → state/ (sled) → acknowledged
//! ```
//!
//! * What is acknowledged is in the journal and on disk. sled does not sync when it says so, and is therefore never
//!   trusted with more than it can lose: it carries the sequence it has come to, and the rest is replayed at the start.
//! * A state that is gone or broken is made anew from the journal. A journal that lost records the state was made from
//!   is refused.
//! * One process per state directory, one thread that writes; readers see all of an append or nothing of it.

mod chunks;
mod compact;
mod error;
mod format;
mod frame;
mod journal;
mod lock;
mod meta;
pub mod offline;
mod record;
mod state;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

pub use error::Error;
pub use frame::Error as FrameError;

use crate::engine::event::Fact;
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::faults;
use crate::ports::{Checkpoint, JournalError};
use crate::units::{RolloutId, Seq, ServiceName};
use frame::Head;
use journal::{Hooks, Journal, Place};
use lock::Lock;
use record::{Entry, Record};
use state::{Changes, State};
use writer::Request;

/// Appends that may wait for the writer; more wait at the sender.
const QUEUE_REQUESTS_MAX: usize = 256;
/// Bytes of records that are replayed in one transaction, about.
const REPLAY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes after which the journal is compacted, if it has as many again as the last time left.
const COMPACT_BYTES_MIN: u64 = 6 * 1024 * 1024;
/// Free bytes of the disk below which no new rollout starts; those under way may need them to go back.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Broken states that are kept aside.
const BROKEN_STATES_MAX: u32 = 100;

/// The embedded store of one state directory.
///
/// Dropping it waits for what is being written. An append whose caller went away is written all the same.
pub struct Store {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
struct Shared {
    state: State,
    /// The journal's file; a compaction puts another one in its place.
    journal: RwLock<PathBuf>,
    // After the state, so that it is closed before the next process may open it.
    _lock: Lock,
}

impl Store {
    /// Opens or creates the state directory `path`, and brings the state to where the journal is.
    ///
    /// Reads all of both; blocks. Refused: a directory in use, a damaged journal, one that lost its end.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_compacting(path, COMPACT_BYTES_MIN)
    }

    /// The same, compacting whenever so many bytes came since the last time, and as many as that left.
    pub fn open_compacting(path: &Path, bytes_min: u64) -> Result<Self, Error> {
        journal::make_directory(path)?;
        let lock = Lock::take(path)?;
        if let Some(found) = format::read(path)?.filter(|found| *found > format::NEWEST) {
            return Err(Error::Format { found, known: format::NEWEST });
        }
        let mut journal = Journal::open(&path.join("journal"), Hooks::default())?;
        let state = open_state(path)?;
        let state = with_journal(path, state, &mut journal)?;
        catch_up(&mut journal, &state)?;
        let format = format::settle(path, journal.place())?;
        let journal_path = RwLock::new(journal.path().to_owned());
        let shared = Arc::new(Shared { state, journal: journal_path, _lock: lock });
        let (requests, receiver) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let writer_shared = shared.clone();
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer::run(receiver, journal, writer_shared, format, bytes_min))
            .map_err(Error::file("start a thread for", path))?;
        Ok(Self { shared, requests: Some(requests), writer: Some(writer) })
    }

    /// Every difference between the state and the fold of the journal from its first record; none when all is well.
    ///
    /// Blocks, and holds every service and rollout in memory.
    pub fn verify(&self) -> Result<Vec<String>, Error> {
        let path = self.shared.journal.read().map_err(|_| Error::Stopped)?.clone();
        verify::differences(&self.shared.state, &path)
    }

    /// Rewrites the journal without checkpoints that newer ones replaced; waits until that is done.
    pub async fn compact(&self) -> Result<(), JournalError> {
        let ended = || JournalError::Failed(Error::Stopped.to_string());
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(Request::Compact { reply }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Bytes on disk: the journal's, and the state's.
    pub fn bytes(&self) -> Result<(u64, u64), Error> {
        let path = self.shared.journal.read().map_err(|_| Error::Stopped)?.clone();
        let journal = std::fs::metadata(&path).map_err(Error::file("look at", &path))?.len();
        Ok((journal, self.shared.state.bytes()?))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, JournalError> {
        let shared = self.shared.clone();
        let result = tokio::task::spawn_blocking(move || read(&shared.state)).await;
        result
            .map_err(|error| JournalError::Failed(format!("the state could not be read: {error}")))?
            .map_err(Into::into)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the journal's writer had panicked");
        }
    }
}

impl From<Error> for JournalError {
    fn from(error: Error) -> Self {
        Self::Failed(error.chain())
    }
}

/// Opens the state; a broken one is moved aside and an empty one takes its place.
fn open_state(path: &Path) -> Result<State, Error> {
    let state_path = path.join("state");
    let error = match State::open(&state_path) {
        Ok(state) => return Ok(state),
        Err(error) if is_environment(&error) => return Err(error),
        Err(error) => error,
    };
    let aside = move_aside(path, &error.chain())?;
    tracing::warn!(
        error = error.chain(), aside = %aside.display(),
        "state is broken: moved aside, to be made anew from the journal"
    );
    State::open(&state_path)
}

/// Moves the state away, to where it can be looked at.
fn move_aside(path: &Path, why: &str) -> Result<PathBuf, Error> {
    let state_path = path.join("state");
    let free = (1..=BROKEN_STATES_MAX)
        .map(|number| path.join(format!("state.broken-{number}")))
        .find(|aside| !aside.exists())
        .ok_or_else(|| {
            Error::Broken(format!("{why}, and {BROKEN_STATES_MAX} are kept aside already"))
        })?;
    std::fs::rename(&state_path, &free).map_err(Error::file("move", &state_path))?;
    journal::sync_directory(path)?;
    Ok(free)
}

/// The state, standing in the journal's newest file. One that stands in the file before, at its end, moves over; one that
/// lost that end is made anew.
fn with_journal(path: &Path, state: State, journal: &mut Journal) -> Result<State, Error> {
    let mark = journal.mark()?;
    let (known, here) = (state.place(), journal.place().generation);
    if known.generation == here {
        return Ok(state);
    }
    if known.generation > here {
        return Err(Error::OlderJournal { journal: here, state: known.generation });
    }
    let is_new = known.head.seq == Seq::default();
    match mark {
        Some((of, head)) if of == known => {
            state.move_to(Place { generation: here, head })?;
            return Ok(state);
        }
        _ if is_new => {
            state.move_to(Place { generation: here, head: Head::default() })?;
            return Ok(state);
        }
        _ => {}
    }
    tracing::warn!("state lost its newest records: to be made anew from the journal");
    drop(state);
    move_aside(path, "the state lost its newest records")?;
    let state = State::open(&path.join("state"))?;
    state.move_to(Place { generation: here, head: Head::default() })?;
    Ok(state)
}

/// The disk's or its owner's fault, which a new state would meet as well.
fn is_environment(error: &Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let Error::State(source) = error else { return false };
    matches!(&**source, sled::Error::Io(error)
        if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull))
}

/// Checks the whole journal, replays what the state does not have, and cuts a torn end.
fn catch_up(journal: &mut Journal, state: &State) -> Result<(), Error> {
    let known = state.place().head;
    let (mut changes, mut bytes, mut replayed) = (Changes::default(), 0, 0u64);
    journal.replay(|frame| {
        if frame.head.seq == known.seq && frame.head.hash != known.hash {
            return Err(Error::Diverged { seq: known.seq });
        }
        if frame.head.seq <= known.seq {
            return Ok(());
        }
        match Entry::decode(frame.head.seq, &frame.payload)? {
            Entry::Record(record) => state.stage(&mut changes, frame.head, &record)?,
            Entry::Mark(_) => changes.advance(frame.head),
        }
        (bytes, replayed) = (bytes + frame.payload.len(), replayed + 1);
        if bytes >= REPLAY_BYTES_MAX {
            state.apply(&std::mem::take(&mut changes))?;
            bytes = 0;
        }
        Ok(())
    })?;
    let end = journal.head().seq;
    if end < known.seq {
        return Err(Error::JournalBehind { journal: end, state: known.seq });
    }
    state.apply(&changes)?;
    if replayed > 0 {
        tracing::info!(records = replayed, seq = end.0, "state caught up with the journal");
    }
    journal.cut()
}

#[async_trait]
impl crate::ports::Journal for Store {
    async fn append(
        &self,
        service: &ServiceName,
        expected: Seq,
        facts: &[Fact],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Seq, JournalError> {
        let refused = |error: serde_json::Error| {
            JournalError::Failed(format!("a record cannot be kept: {error}"))
        };
        let ended = || JournalError::Failed(Error::Stopped.to_string());
        let (payload, record) =
            Record::new(service, expected, facts, checkpoint).encode().map_err(refused)?;
        if payload.len() > frame::PAYLOAD_BYTES_MAX {
            return Err(Error::TooLong { bytes: payload.len() }.into());
        }
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests
            .send(Request::Append { record: Box::new(record), payload, reply })
            .await
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn service(
        &self,
        service: &ServiceName,
    ) -> Result<Option<(ServiceState, Seq)>, JournalError> {
        let service = service.clone();
        self.read(move |state| state.service(&service)).await
    }

    async fn services(&self) -> Result<Vec<ServiceState>, JournalError> {
        self.read(State::services).await
    }

    async fn rollout(
        &self,
        id: &RolloutId,
    ) -> Result<Option<(Rollout, Option<Checkpoint>)>, JournalError> {
        let id = id.clone();
        self.read(move |state| state.rollout(&id)).await
    }

    async fn open_rollouts(&self) -> Result<Vec<RolloutId>, JournalError> {
        let services = self.services().await?;
        Ok(services.into_iter().filter_map(|service| service.open).collect())
    }

    async fn has_room(&self) -> Result<(), JournalError> {
        let path = self.shared.journal.read().map_err(|_| Error::Stopped)?.clone();
        let failed =
            |error: rustix::io::Errno| Error::file("look at the disk of", &path)(error.into());
        let disk = rustix::fs::statvfs(&path).map_err(failed)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let free = faults::on_disk("free-space").map_or(0, |()| free);
        if free < FREE_BYTES_MIN {
            return Err(Error::NoRoom { free, floor: FREE_BYTES_MIN }.into());
        }
        Ok(())
    }

    async fn history(
        &self,
        service: &ServiceName,
        rollout: Option<&RolloutId>,
        limit: usize,
    ) -> Result<Vec<(Seq, Fact)>, JournalError> {
        let (service, rollout) = (service.clone(), rollout.cloned());
        self.read(move |state| state.history(&service, rollout.as_ref(), limit)).await
    }
}
