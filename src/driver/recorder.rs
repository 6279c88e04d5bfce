//! Facts on their way to the journal, and what may go on when it does not take them.
//!
//! Nothing is raised without a record. Going back is done without one, because back is always open; what could not be
//! recorded is kept here and recorded first once that works again.

use std::sync::Arc;

use tracing::{error, info};

use super::channels::Channels;
use super::site::Site;
use super::{Error, view};
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::{Phase, Rollout};
use crate::faults;
use crate::ports::{Checkpoint, JournalError, Notice};
use crate::units::{RegionName, RolloutId, Seq, Timestamp};

/// What came of recording.
pub(super) enum Recorded {
    /// On disk.
    OnDisk,
    /// It is not, and goes on all the same: less is known, or fewer users see the canary.
    Without,
    /// It is not, and must not happen; the reason.
    Held(String),
}

/// The way of one rollout's facts to the journal and to everyone who listens.
pub(super) struct Recorder {
    site: Arc<Site>,
    rollout: RolloutId,
    seq: Seq,
    unrecorded: Vec<Fact>,
    /// Why the journal does not take anything.
    trouble: Option<String>,
}

impl Recorder {
    pub(super) fn new(site: Arc<Site>, rollout: RolloutId, seq: Seq) -> Self {
        Self { site, rollout, seq, unrecorded: Vec::new(), trouble: None }
    }

    /// Position of the newest fact on disk in the service's stream.
    pub(super) fn seq(&self) -> Seq {
        self.seq
    }

    /// Why the journal does not take anything, if it does not.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Records what follows from `state`. An error when another writer was there.
    pub(super) async fn record(
        &mut self,
        state: &Rollout,
        events: &[Event],
        checkpoint: Option<&Checkpoint>,
        at: Timestamp,
    ) -> Result<Recorded, Error> {
        fault_before(events);
        let known = self.unrecorded.len();
        let facts: Vec<_> = events.iter().map(|event| self.fact(at, event)).collect();
        self.unrecorded.extend(facts);
        let journal = &self.site.journal;
        let appended =
            journal.append(&self.site.service, self.seq, &self.unrecorded, checkpoint).await;
        match appended {
            Ok(seq) => {
                self.seq = seq;
                self.unrecorded.clear();
                self.over().await;
                Ok(Recorded::OnDisk)
            }
            Err(error @ JournalError::Conflict { .. }) => Err(error.into()),
            Err(error) => {
                let what = error.to_string();
                self.begins(&what).await;
                if goes_back(state, events) {
                    return Ok(Recorded::Without);
                }
                self.unrecorded.truncate(known);
                Ok(Recorded::Held(what))
            }
        }
    }

    /// Records what is left at the end; an error when it still cannot be.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        if self.unrecorded.is_empty() {
            return Ok(());
        }
        let journal = &self.site.journal;
        let appended = journal.append(&self.site.service, self.seq, &self.unrecorded, None).await;
        self.seq = appended.map_err(|error| Error::NotRecorded(error.to_string()))?;
        self.unrecorded.clear();
        Ok(())
    }

    /// Tells everyone who should know of a fact that `state` has taken in.
    pub(super) async fn tell(
        &self,
        channels: &Channels,
        state: &Rollout,
        event: &Event,
        at: Timestamp,
    ) {
        if let Some((page, text)) = view::notice(state, event) {
            let (lines, regions) = (view::details(state, event, at), view::places(state, event));
            self.notify(page, text, lines, regions).await;
        }
        // Nobody may be listening.
        let _ = channels.facts.send(Arc::new(self.fact(at, event)));
    }

    fn fact(&self, at: Timestamp, event: &Event) -> Fact {
        let (service, rollout) = (self.site.service.clone(), Some(self.rollout.clone()));
        Fact { at, service, rollout, event: event.clone() }
    }

    async fn notify(&self, page: bool, text: String, lines: Vec<String>, regions: Vec<RegionName>) {
        // One turn may have more than one notice.
        let key = format!("{}/{}/{:08x}", self.rollout, self.seq, crc32fast::hash(text.as_bytes()));
        self.site.notifier.notify(&Notice { key, page, text, lines, regions }).await;
    }

    async fn begins(&mut self, what: &str) {
        if self.trouble.replace(what.to_owned()).is_some() {
            return;
        }
        error!(rollout = %self.rollout, what, "cannot record");
        let text = format!(
            "{}: nothing can be recorded, so nothing is raised; going back stays possible: {what}",
            self.rollout
        );
        self.notify(true, text, Vec::new(), Vec::new()).await;
    }

    async fn over(&mut self) {
        if self.trouble.take().is_some() {
            info!(rollout = %self.rollout, "records again");
            let text = format!("{}: records again", self.rollout);
            self.notify(false, text, Vec::new(), Vec::new()).await;
        }
    }
}

/// Fewer users see the canary by it, or less is taken for known.
fn goes_back(state: &Rollout, events: &[Event]) -> bool {
    let back = |event: &Event| matches!(event, Event::RollbackStarted { .. });
    let forgets = |event: &Event| matches!(event, Event::Recovered);
    state.phase == Phase::RollingBack
        || events.iter().any(back)
        || (!events.is_empty() && events.iter().all(forgets))
}

fn fault_before(events: &[Event]) {
    let intent = |event: &Event| {
        matches!(
            event,
            Event::StepEntered { .. }
                | Event::RollbackStarted { .. }
                | Event::PromotionStarted { .. }
        )
    };
    let result = |event: &Event| matches!(event, Event::RegionRead { confirmed: Some(_), .. });
    if events.iter().any(intent) {
        faults::at("before-intent");
    }
    if events.iter().any(result) {
        faults::at("before-result");
    }
}
