//! Whether the state is what the journal folds to.

use std::collections::BTreeMap;
use std::path::Path;

use super::Error;
use super::journal;
use super::record::{Entry, Record, fold};
use super::state::State;
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::ports::Checkpoint;
use crate::units::{RolloutId, Seq, ServiceName};

/// What the journal folds to, without its facts.
#[derive(Default)]
struct Expected {
    services: BTreeMap<ServiceName, (ServiceState, Seq)>,
    rollouts: BTreeMap<RolloutId, Rollout>,
    checkpoints: BTreeMap<RolloutId, Checkpoint>,
    facts: usize,
}

/// Every difference between `state` and the fold of the journal at `path`, for people.
///
/// Facts written meanwhile may show as differences of the newest records.
pub fn differences(state: &State, path: &Path) -> Result<Vec<String>, Error> {
    let (mut expected, mut found) = (Expected::default(), Vec::new());
    let end = state.place().head;
    let damage = |source| Error::Journal { path: path.to_owned(), source };
    let mut frames = journal::read(path)?;
    while frames.head().seq < end.seq {
        let Some(frame) = frames.next().map_err(damage)? else { break };
        let Entry::Record(record) = Entry::decode(frame.head.seq, &frame.payload)? else {
            continue;
        };
        for (seq, fact) in record.numbered() {
            if state.fact(&record.service, seq)?.as_ref() != Some(fact) {
                found.push(format!("fact {seq} of {} differs", record.service));
            }
        }
        expected.take(frame.head.seq, *record)?;
    }
    if frames.head() != end {
        found.push(format!("the journal ends at {}, the state at {}", frames.head().seq, end.seq));
    }
    expected.compare(state, &mut found)?;
    Ok(found)
}

impl Expected {
    fn take(&mut self, seq: Seq, record: Record) -> Result<(), Error> {
        let before = self.services.get(&record.service).cloned();
        let folded = fold(seq, &record, before, |id| Ok(self.rollouts.get(id).cloned()))?;
        self.services.insert(record.service, folded.service);
        self.rollouts.extend(folded.rollouts);
        for (id, checkpoint) in folded.checkpoints {
            match checkpoint {
                Some(checkpoint) => self.checkpoints.insert(id, checkpoint),
                None => self.checkpoints.remove(&id),
            };
        }
        self.facts += record.facts.len();
        Ok(())
    }

    fn compare(&self, state: &State, found: &mut Vec<String>) -> Result<(), Error> {
        for (name, service) in &self.services {
            if state.service(name)?.as_ref() != Some(service) {
                found.push(format!("service {name} differs"));
            }
        }
        for (id, rollout) in &self.rollouts {
            let kept = state.rollout(id)?;
            if kept.as_ref().map(|(kept, _)| kept) != Some(rollout) {
                found.push(format!("rollout {id} differs"));
            }
            if kept.and_then(|(_, checkpoint)| checkpoint).as_ref() != self.checkpoints.get(id) {
                found.push(format!("checkpoint of {id} differs"));
            }
        }
        let counts = [self.services.len(), self.rollouts.len(), self.checkpoints.len(), self.facts];
        if state.counts() != counts {
            found.push(format!(
                "the state holds {:?} entries, the journal {counts:?}",
                state.counts()
            ));
        }
        Ok(())
    }
}
