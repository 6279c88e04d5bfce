//! Facts as they are recorded, for whoever listens.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::driver::channels::Handle;
use crate::driver::site::Site;
use crate::units::{RolloutId, Seq};

/// Facts that a listener who was away is told at most.
const FACTS_MAX: usize = 10_000;

/// Every fact of a rollout from the one after `after` on, until it is over.
pub(super) fn stream(
    handle: Handle,
    site: Arc<Site>,
    id: RolloutId,
    after: Seq,
    place: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>>> {
    let told = Told { handle, site, id, after, waiting: Vec::new(), _place: place };
    let stream = futures_util::stream::unfold(told, |mut told| async move {
        let (seq, text) = told.next().await?;
        Some((Ok(Sent::default().id(seq.to_string()).data(text)), told))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// How far a listener has come.
struct Told {
    handle: Handle,
    site: Arc<Site>,
    id: RolloutId,
    after: Seq,
    /// The next ones, newest first.
    waiting: Vec<(Seq, String)>,
    _place: OwnedSemaphorePermit,
}

impl Told {
    /// The next fact, once there is one; none when the rollout is over or cannot be read.
    async fn next(&mut self) -> Option<(Seq, String)> {
        let mut views = self.handle.views();
        while self.waiting.is_empty() {
            let view = Arc::clone(&views.borrow_and_update());
            let history = self.site.journal.history(&self.id.service, Some(&self.id), FACTS_MAX);
            let newer = history.await.ok()?.into_iter().rev();
            let newer = newer.take_while(|(seq, _)| *seq > self.after);
            let text = |(seq, fact)| Some((seq, serde_json::to_string(&fact).ok()?));
            self.waiting = newer.filter_map(text).collect();
            let is_over = view.rollout.phase.is_over();
            if self.waiting.is_empty() && (is_over || views.changed().await.is_err()) {
                return None;
            }
        }
        let next = self.waiting.pop()?;
        self.after = next.0;
        Some(next)
    }
}
