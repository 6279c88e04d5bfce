//! Watches over a rollout's task: taken up again when it panics, in quarantine after three times.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};
use tracing::{error, warn};

use super::Error;
use super::channels::{Channels, Handle};
use super::quarantine::{End, Quarantine};
use super::recorder::Recorder;
use super::site::Site;
use super::task::{Task, load};
use super::view::View;
use crate::engine::rollout::{Phase, Rollout};
use crate::units::{Millis, RolloutId, Timestamp};

/// Panics after which a rollout is put in quarantine.
const PANICS_MAX: u32 = 3;

/// A panic longer ago than this no longer counts.
const PANIC_COUNTS: Millis = Millis::from_secs(3_600);

/// A rollout that is about to be driven.
pub struct Driver {
    site: Arc<Site>,
    id: RolloutId,
    channels: Channels,
}

impl Driver {
    /// Loads a rollout, to be taken up where it stands.
    pub async fn resume(site: Arc<Site>, id: &RolloutId) -> Result<(Self, Handle), Error> {
        let loaded = load(&site, id).await?;
        let view = View::of(&loaded.state, site.clock.now(), loaded.seq, None);
        let (channels, handle) = Channels::new(view);
        Ok((Self { site, id: id.clone(), channels }, handle))
    }

    /// Drives it until it is over. It ends where it is when this is dropped; all that was recorded stays. After an error it
    /// may be called again.
    pub async fn drive(&self) -> Result<Rollout, Error> {
        let mut panics: Vec<Timestamp> = Vec::new();
        loop {
            let loaded = load(&self.site, &self.id).await?;
            if loaded.state.quarantined.is_some() || panics.len() >= PANICS_MAX as usize {
                match self.quarantine(loaded.state, loaded.seq).await? {
                    End::Over(state) => return Ok(*state),
                    End::Released => panics.clear(),
                }
                continue;
            }
            let task = Task::new(Arc::clone(&self.site), loaded, self.channels.clone());
            let failure = match Own(tokio::spawn(task.run())).await {
                // What must never be true would have become true: as good as a panic.
                Ok(Err(Error::Invariant(what))) => what,
                Ok(outcome) => return outcome,
                Err(joined) => joined.to_string(),
            };
            let now = self.site.clock.now();
            panics.retain(|at| now.since(*at) < PANIC_COUNTS);
            panics.push(now);
            warn!(rollout = %self.id, panics = panics.len(), "taken up again: {failure}");
        }
    }

    async fn quarantine(&self, state: Rollout, seq: crate::units::Seq) -> Result<End, Error> {
        error!(rollout = %self.id, "in quarantine");
        let recorder = Recorder::new(Arc::clone(&self.site), self.id.clone(), seq);
        let channels = self.channels.clone();
        let mut held = Quarantine::new(Arc::clone(&self.site), state, recorder, channels);
        held.enter(PANICS_MAX).await?;
        held.hold().await
    }
}

/// A task that ends with whoever awaits it.
struct Own<T>(JoinHandle<T>);

impl<T> Future for Own<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The phase in which a local run may end although the rollout is not over.
#[must_use]
pub fn waits_for_person(state: &Rollout) -> bool {
    state.phase == Phase::Gated
        || state.undecided
        || state.paused.is_some()
        || state.quarantined.is_some()
}
