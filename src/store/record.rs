//! What one record of the journal says, and how it changes a service and its rollouts. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use super::frame::{Hash, Head};
use super::journal::Place;
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::ports::Checkpoint;
use crate::units::{RolloutId, Seq, ServiceName};

/// Version of a record that the first format has already.
const VERSION: u32 = 1;
/// Version of what came later: a mark, records that come after others were left out, and facts that there were not.
const VERSION_NEWEST: u32 = 2;

/// One append: facts of one service, and perhaps a checkpoint of one of its rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    v: u32,
    /// Whose stream.
    pub service: ServiceName,
    /// The stream's sequence after this record. Its facts have the sequences up to this one, in order.
    pub stream_seq: Seq,
    /// What happened; may be empty when there is a checkpoint.
    pub facts: Vec<Fact>,
    /// Sequences before it that were left out: checkpoints that newer ones replaced.
    #[serde(default, skip_serializing_if = "is_none")]
    skips: u64,
    /// Replaces the rollout's checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(skips: &u64) -> bool {
    *skips == 0
}

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An append.
    Record(Box<Record>),
    /// All before this entry is what another file held up to there.
    Mark(Place),
}

/// Version and mark, read before anything else.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
    compacted: Option<Mark>,
}

#[derive(Serialize, Deserialize)]
struct Marked {
    v: u32,
    compacted: Mark,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    generation: u64,
    seq: Seq,
    hash: Hash,
}

impl Entry {
    /// The bytes of a mark.
    pub fn mark(Place { generation, head }: Place) -> Result<Vec<u8>, serde_json::Error> {
        let compacted = Mark { generation, seq: head.seq, hash: head.hash };
        serde_json::to_vec(&Marked { v: VERSION_NEWEST, compacted })
    }

    /// Reads an entry of the journal; `seq` is its place there, for the message.
    pub fn decode(seq: Seq, bytes: &[u8]) -> Result<Self, Error> {
        let fail = |source| Error::Record { seq, source };
        let Versioned { v: version, compacted } = serde_json::from_slice(bytes).map_err(fail)?;
        if !(VERSION..=VERSION_NEWEST).contains(&version) {
            return Err(Error::Version { seq, version, known: VERSION_NEWEST });
        }
        if let Some(Mark { generation, seq, hash }) = compacted {
            return Ok(Self::Mark(Place { generation, head: Head { seq, hash } }));
        }
        serde_json::from_slice(bytes).map(|record| Self::Record(Box::new(record))).map_err(fail)
    }
}

impl Record {
    /// A record that follows `expected` in its stream: one sequence per fact, and one for no fact.
    #[must_use]
    pub fn new(
        service: &ServiceName,
        expected: Seq,
        facts: &[Fact],
        checkpoint: Option<&Checkpoint>,
    ) -> Self {
        let steps = facts.len().max(1) as u64;
        let is_new = |fact: &Fact| {
            matches!(
                fact.event,
                Event::Quarantined { .. }
                    | Event::Released { .. }
                    | Event::HookStarted { .. }
                    | Event::HookEnded { .. }
                    | Event::Queued(_)
                    | Event::Unqueued { .. }
                    | Event::RollbackAsked { .. }
                    | Event::Approved { .. }
                    | Event::ApprovalsDropped { .. }
                    | Event::ApprovalTimedOut { .. }
                    | Event::RollbackWithdrawn { .. }
                    | Event::RollbackOverdue { .. }
                    | Event::GlassBroken { .. }
                    | Event::Reviewed { .. }
                    | Event::Frozen { .. }
                    | Event::Thawed { .. }
            )
        };
        Self {
            // An older program must refuse what it does not know, by version.
            v: if facts.iter().any(is_new) { VERSION_NEWEST } else { VERSION },
            service: service.clone(),
            stream_seq: Seq(expected.0.saturating_add(steps)),
            facts: facts.to_vec(),
            skips: 0,
            checkpoint: checkpoint.cloned(),
        }
    }

    /// The stream's sequence before this record.
    #[must_use]
    pub fn expected(&self) -> Seq {
        Seq(self.stream_seq.0.saturating_sub(self.steps()))
    }

    /// How many sequences of its stream it takes.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.facts.len().max(1) as u64 + self.skips
    }

    /// The same after so many sequences that were left out.
    #[must_use]
    pub fn after_skipping(self, skipped: u64) -> Self {
        Self { v: VERSION_NEWEST, skips: self.skips + skipped, ..self }
    }

    /// Nothing but so many sequences that were left out, up to `stream_seq`.
    #[must_use]
    pub fn skipping(service: ServiceName, stream_seq: Seq, skipped: u64) -> Self {
        let (facts, checkpoint, skips) = (Vec::new(), None, skipped.saturating_sub(1));
        Self { v: VERSION_NEWEST, service, stream_seq, facts, skips, checkpoint }
    }

    /// Every fact with its sequence in the stream.
    pub fn numbered(&self) -> impl Iterator<Item = (Seq, &Fact)> {
        let before = self.stream_seq.0.saturating_sub(self.facts.len() as u64);
        self.facts.iter().zip(1..).map(move |(fact, index)| (Seq(before + index), fact))
    }

    /// As bytes, and as those bytes read back: JSON has no NaN, so what is kept may differ from what was given.
    ///
    /// An error for what could not be read back, such as an infinite number where there must be one.
    pub fn encode(&self) -> Result<(Vec<u8>, Self), serde_json::Error> {
        let bytes = serde_json::to_vec(self)?;
        let kept = serde_json::from_slice(&bytes)?;
        Ok((bytes, kept))
    }
}

/// What a record leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// The service and its stream's sequence.
    pub service: (ServiceState, Seq),
    /// Every rollout that the record speaks of.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// New checkpoints, or `None` where one is no longer needed: a rollout that is over has none.
    pub checkpoints: BTreeMap<RolloutId, Option<Checkpoint>>,
}

/// Folds one record onto the service before it; `known` yields a rollout before it.
///
/// `seq` is the record's place in the journal. An error for facts of another service, of a rollout that never
/// started or starts twice, and for a sequence that does not follow.
pub fn fold(
    seq: Seq,
    record: &Record,
    before: Option<(ServiceState, Seq)>,
    known: impl Fn(&RolloutId) -> Result<Option<Rollout>, Error>,
) -> Result<Folded, Error> {
    let unfit = |what: String| Error::Unfit { seq, what };
    let (service, stream_seq) =
        before.unwrap_or_else(|| (ServiceState::unknown(record.service.clone()), Seq::default()));
    if stream_seq != record.expected() {
        return Err(unfit(format!(
            "stream of {} stands at {stream_seq}, not at {}",
            record.service,
            record.expected()
        )));
    }
    let mut folded = Folded {
        service: (service, record.stream_seq),
        rollouts: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
    };
    for fact in &record.facts {
        folded.take(seq, fact, &known)?;
    }
    if let Some(checkpoint) = &record.checkpoint {
        folded.look_up(seq, &checkpoint.rollout, &known)?;
        folded.checkpoints.insert(checkpoint.rollout.clone(), Some(checkpoint.clone()));
    }
    for (id, rollout) in &folded.rollouts {
        if rollout.phase.is_over() {
            folded.checkpoints.insert(id.clone(), None);
        }
    }
    Ok(folded)
}

impl Folded {
    fn take(
        &mut self,
        seq: Seq,
        fact: &Fact,
        known: impl Fn(&RolloutId) -> Result<Option<Rollout>, Error>,
    ) -> Result<(), Error> {
        let unfit = |what: String| Error::Unfit { seq, what };
        if fact.service != self.service.0.name {
            return Err(unfit(format!(
                "a fact of {} in the stream of {}",
                fact.service, self.service.0.name
            )));
        }
        match (&fact.event, &fact.rollout) {
            (Event::Started(_), None) => {
                return Err(unfit("a start that names no rollout".to_owned()));
            }
            (Event::Started(started), Some(id)) => {
                if id.service != fact.service
                    || self.rollouts.contains_key(id)
                    || known(id)?.is_some()
                {
                    return Err(unfit(format!("{id} cannot start here, or not again")));
                }
                self.rollouts.insert(id.clone(), Rollout::start(id.clone(), started, fact.at));
            }
            (event, Some(id)) => self.look_up(seq, id, known)?.apply(event, fact.at),
            (_, None) => {}
        }
        let version = fact
            .rollout
            .as_ref()
            .and_then(|id| self.rollouts.get(id))
            .map(|rollout| &rollout.version);
        self.service.0.apply(fact, version);
        Ok(())
    }

    fn look_up(
        &mut self,
        seq: Seq,
        id: &RolloutId,
        known: impl Fn(&RolloutId) -> Result<Option<Rollout>, Error>,
    ) -> Result<&mut Rollout, Error> {
        let unknown = || Error::Unfit { seq, what: format!("nothing is known of {id} here") };
        if id.service != self.service.0.name {
            return Err(unknown());
        }
        if !self.rollouts.contains_key(id) {
            self.rollouts.insert(id.clone(), known(id)?.ok_or_else(unknown)?);
        }
        self.rollouts.get_mut(id).ok_or_else(unknown)
    }
}
