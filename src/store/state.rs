//! What everything reads: the fold of the journal, in sled, together with how far it has come.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};
use sled::{Db, Tree};

use super::Error;
use super::chunks::{self, Writes};
use super::frame::Head;
use super::journal::Place;
use super::meta::Meta;
use super::record::{Folded, Record, fold};
use crate::engine::event::Fact;
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::ports::Checkpoint;
use crate::units::{RolloutId, Seq, ServiceName};

/// Where the one value of the tree `meta` stands.
const META_KEY: &[u8] = b"meta";
/// Memory that sled may use for pages, in bytes.
const CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The open state.
pub struct State {
    services: Tree,
    rollouts: Tree,
    checkpoints: Tree,
    facts: Tree,
    meta: Tree,
    /// Readers see all of a write or nothing of it.
    current: RwLock<Meta>,
    // Last, so that the trees are dropped before it.
    database: Db,
}

/// A service as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    state: ServiceState,
    seq: Seq,
}

/// What one or more records leave behind, not yet written.
#[derive(Debug, Default)]
pub struct Changes {
    head: Option<Head>,
    services: BTreeMap<ServiceName, (ServiceState, Seq)>,
    rollouts: BTreeMap<RolloutId, Rollout>,
    checkpoints: BTreeMap<RolloutId, Option<Checkpoint>>,
    facts: Vec<(ServiceName, Seq, Fact)>,
}

impl Changes {
    /// An entry that changes nothing.
    pub fn advance(&mut self, head: Head) {
        self.head = Some(head);
    }
}

impl State {
    /// Opens or creates the state and reads all of it once. Whatever is broken, also where sled panics, is an error.
    pub fn open(path: &Path) -> Result<Self, Error> {
        catch_unwind(AssertUnwindSafe(|| Self::open_checked(path))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Error::Broken(format!("sled panicked: {}", crate::units::shown(text))))
        })
    }

    fn open_checked(path: &Path) -> Result<Self, Error> {
        let database = sled::Config::new().path(path).cache_capacity(CACHE_BYTES_MAX).open()?;
        let meta = database.open_tree("meta")?;
        let current = match meta.get(META_KEY)? {
            Some(bytes) => Meta::decode(&bytes)
                .ok_or_else(|| Error::Broken("its head is damaged".to_owned()))?,
            None => Meta::default(),
        };
        let state = Self {
            services: database.open_tree("services")?,
            rollouts: database.open_tree("rollouts")?,
            checkpoints: database.open_tree("checkpoints")?,
            facts: database.open_tree("facts")?,
            meta,
            current: RwLock::new(current),
            database,
        };
        let mut fingerprint = 0;
        for tree in [&state.services, &state.rollouts, &state.checkpoints, &state.facts] {
            fingerprint ^= chunks::fingerprint_of(tree)?;
        }
        if fingerprint != current.fingerprint {
            return Err(Error::Broken("it does not hold what was written".to_owned()));
        }
        Ok(state)
    }

    /// The newest record in it.
    pub fn place(&self) -> Place {
        self.current.read().unwrap_or_else(PoisonError::into_inner).place
    }

    /// It stands elsewhere from now on, where a journal says the same.
    pub fn move_to(&self, place: Place) -> Result<(), Error> {
        let mut current = self.current.write().map_err(|_| Error::Stopped)?;
        let next = Meta { place, ..*current };
        self.meta.insert(META_KEY, next.encode().as_slice())?;
        *current = next;
        Ok(())
    }

    /// Bytes that it takes on disk.
    pub fn bytes(&self) -> Result<u64, Error> {
        Ok(self.database.size_on_disk()?)
    }

    /// The sequence of a service's stream after `changes`; 0 for a new one.
    pub fn stream_seq(&self, changes: &Changes, service: &ServiceName) -> Result<Seq, Error> {
        if let Some((_, seq)) = changes.services.get(service) {
            return Ok(*seq);
        }
        Ok(self.service_now(service)?.map_or(Seq::default(), |(_, seq)| seq))
    }

    /// Folds one record onto the state and earlier `changes`; an error leaves `changes` as they were.
    pub fn stage(&self, changes: &mut Changes, head: Head, record: &Record) -> Result<(), Error> {
        let before = match changes.services.get(&record.service) {
            Some(service) => Some(service.clone()),
            None => self.service_now(&record.service)?,
        };
        let known = |id: &RolloutId| match changes.rollouts.get(id) {
            Some(rollout) => Ok(Some(rollout.clone())),
            None => get(&self.rollouts, &rollout_key(id)),
        };
        let Folded { service, rollouts, checkpoints } = fold(head.seq, record, before, known)?;
        changes.head = Some(head);
        changes.services.insert(record.service.clone(), service);
        changes.rollouts.extend(rollouts);
        changes.checkpoints.extend(checkpoints);
        let facts =
            record.numbered().map(|(seq, fact)| (record.service.clone(), seq, fact.clone()));
        changes.facts.extend(facts);
        Ok(())
    }

    /// Writes `changes` and how far they come, in one transaction. Only one thread may do so.
    pub fn apply(&self, changes: &Changes) -> Result<(), Error> {
        let Some(head) = changes.head else { return Ok(()) };
        let mut current = self.current.write().map_err(|_| Error::Stopped)?;
        let mut services = Writes::new(&self.services);
        for (name, (state, seq)) in &changes.services {
            put(
                &mut services,
                &service_key(name),
                Some(&Kept { state: state.clone(), seq: *seq }),
            )?;
        }
        let mut rollouts = Writes::new(&self.rollouts);
        for (id, rollout) in &changes.rollouts {
            put(&mut rollouts, &rollout_key(id), Some(rollout))?;
        }
        let mut checkpoints = Writes::new(&self.checkpoints);
        for (id, checkpoint) in &changes.checkpoints {
            put(&mut checkpoints, &rollout_key(id), checkpoint.as_ref())?;
        }
        let mut facts = Writes::new(&self.facts);
        for (service, seq, fact) in &changes.facts {
            put(&mut facts, &numbered_key(service, seq.0), Some(fact))?;
        }
        let all = [services, rollouts, checkpoints, facts];
        let fingerprint =
            all.iter().fold(current.fingerprint, |sum, writes| sum ^ writes.fingerprint);
        let next = Meta { place: Place { head, ..current.place }, fingerprint };
        self.commit(&all, &next)?;
        *current = next;
        Ok(())
    }

    fn commit(&self, all: &[Writes<'_>; 4], next: &Meta) -> Result<(), Error> {
        let trees = (&self.services, &self.rollouts, &self.checkpoints, &self.facts, &self.meta);
        let result = trees.transaction(|(services, rollouts, checkpoints, facts, meta)| {
            for (tree, writes) in [services, rollouts, checkpoints, facts].into_iter().zip(all) {
                tree.apply_batch(&writes.batch)?;
            }
            meta.insert(META_KEY, next.encode().as_slice())?;
            Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
        });
        result.map_err(|error| match error {
            TransactionError::Storage(error) => error.into(),
            TransactionError::Abort(never) => match never {},
        })
    }

    /// A service and its stream's sequence.
    pub fn service(&self, name: &ServiceName) -> Result<Option<(ServiceState, Seq)>, Error> {
        let _still = self.current.read().map_err(|_| Error::Stopped)?;
        self.service_now(name)
    }

    fn service_now(&self, name: &ServiceName) -> Result<Option<(ServiceState, Seq)>, Error> {
        let kept: Option<Kept> = get(&self.services, &service_key(name))?;
        Ok(kept.map(|kept| (kept.state, kept.seq)))
    }

    /// Every service, by name.
    pub fn services(&self) -> Result<Vec<ServiceState>, Error> {
        let _still = self.current.read().map_err(|_| Error::Stopped)?;
        let mut services = Vec::new();
        for key in chunks::keys(&self.services, &[]) {
            services.extend(get::<Kept>(&self.services, &key?)?.map(|kept| kept.state));
        }
        Ok(services)
    }

    /// A rollout and its checkpoint.
    pub fn rollout(&self, id: &RolloutId) -> Result<Option<(Rollout, Option<Checkpoint>)>, Error> {
        let _still = self.current.read().map_err(|_| Error::Stopped)?;
        let Some(rollout) = get(&self.rollouts, &rollout_key(id))? else { return Ok(None) };
        Ok(Some((rollout, get(&self.checkpoints, &rollout_key(id))?)))
    }

    /// The newest `limit` facts of a service, oldest first; those of one rollout if one is given.
    pub fn history(
        &self,
        service: &ServiceName,
        rollout: Option<&RolloutId>,
        limit: usize,
    ) -> Result<Vec<(Seq, Fact)>, Error> {
        let _still = self.current.read().map_err(|_| Error::Stopped)?;
        let mut history = Vec::new();
        for key in chunks::keys(&self.facts, &numbered_prefix(service)).rev() {
            if history.len() >= limit {
                break;
            }
            let key = key?;
            let Some(fact) = get::<Fact>(&self.facts, &key)? else { continue };
            if rollout.is_none() || fact.rollout.as_ref() == rollout {
                history.push((Seq(number(&key)), fact));
            }
        }
        history.reverse();
        Ok(history)
    }

    /// One fact of a service's stream.
    pub fn fact(&self, service: &ServiceName, seq: Seq) -> Result<Option<Fact>, Error> {
        get(&self.facts, &numbered_key(service, seq.0))
    }

    /// How many services, rollouts, checkpoints and facts there are.
    pub fn counts(&self) -> [usize; 4] {
        [&self.services, &self.rollouts, &self.checkpoints, &self.facts]
            .map(|tree| chunks::keys(tree, &[]).count())
    }
}

fn get<T: DeserializeOwned>(tree: &Tree, key: &[u8]) -> Result<Option<T>, Error> {
    let Some(bytes) = chunks::read(tree, key)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Broken(error.to_string()))
}

fn put<T: Serialize>(writes: &mut Writes<'_>, key: &[u8], value: Option<&T>) -> Result<(), Error> {
    let bytes = value
        .map(serde_json::to_vec)
        .transpose()
        .map_err(|error| Error::Broken(error.to_string()))?;
    writes.put(key, bytes.as_deref())
}

/// No name holds a zero byte, so no key starts like another service's.
fn numbered_prefix(service: &ServiceName) -> Vec<u8> {
    [service.as_str().as_bytes(), &[0]].concat()
}

fn service_key(service: &ServiceName) -> Vec<u8> {
    numbered_prefix(service)
}

fn numbered_key(service: &ServiceName, number: u64) -> Vec<u8> {
    [numbered_prefix(service).as_slice(), &number.to_be_bytes()].concat()
}

fn rollout_key(id: &RolloutId) -> Vec<u8> {
    numbered_key(&id.service, id.number)
}

/// The number at the end of a key; 0 for one without.
fn number(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
