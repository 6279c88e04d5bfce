//! Envoys that watch a route file: writes it by atomic rename, and reads back what they show on their admin ports.
//!
//! The weights outlive this program. What counts is what the Envoys show, so a hand edit of the file that they have not
//! taken, and a file that they refused, are both seen.

mod write;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::owned;
use super::admin::Admin;
use super::reading::{self, Expected, Seen};
use super::{CONFIRM_WAIT, Pair, failure, http, pair};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::{Affinity, EnvoyFile};
use crate::units::Generation;

/// First pause between two looks while waiting for the Envoys; each is twice the one before.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// Longest pause between them.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(400);

/// Why such a target cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The slots and clusters.
    #[error("clusters: {0}")]
    Pair(#[from] pair::Error),
    /// An admin address.
    #[error("admin: {0}")]
    Address(#[from] http::Error),
    /// Nothing could be read back.
    #[error("admin: needs at least one address, to read back from")]
    NoAdmin,
}

/// One target of the kind `envoy_file`.
#[derive(Debug)]
pub struct FileBalancer {
    label: String,
    route: String,
    path: PathBuf,
    pair: Pair,
    affinity: Option<Affinity>,
    admin: Admin,
    capabilities: Capabilities,
}

impl FileBalancer {
    /// For a target of the fleet; `label` names it for people. Touches neither file nor network.
    pub fn new(label: String, target: &EnvoyFile) -> Result<Self, Error> {
        if target.admin.is_empty() {
            return Err(Error::NoAdmin);
        }
        Ok(Self {
            label,
            route: target.route.clone(),
            path: target.path.clone(),
            pair: Pair::new(&target.clusters)?,
            affinity: target.affinity.clone(),
            admin: Admin::new(&target.admin)?,
            capabilities: target.capabilities(),
        })
    }

    fn failure(&self, what: impl ToString, outcome: Outcome) -> LoadBalancerError {
        failure(&self.label, what, outcome)
    }

    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(write::File) -> Result<T, write::Error> + Send + 'static,
    ) -> Result<T, LoadBalancerError> {
        let file = write::File {
            path: self.path.clone(),
            route: self.route.clone(),
            pair: self.pair.clone(),
            affinity: self.affinity.clone(),
        };
        let done = tokio::task::spawn_blocking(move || work(file)).await;
        let done = done
            .map_err(|_| self.failure("writing the route file was cut short", Outcome::Unknown))?;
        done.map_err(|error| {
            self.failure(format!("{}: {error}", self.path.display()), error.outcome())
        })
    }

    /// Looks until all Envoys show the weights, or the time is up.
    async fn wait_for(&self, split: &Split, generation: Generation) {
        let deadline = Instant::now() + CONFIRM_WAIT;
        let shows = |one: &Seen| one.shows(split, Some(generation));
        let mut pause = LOOK_PAUSE;
        while !self.admin.routes(&self.route, &self.pair).await.iter().all(shows) {
            if Instant::now() + pause >= deadline {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LOOK_PAUSE_MAX);
        }
    }

    async fn look(
        &self,
        expected: Option<&Expected>,
        notes: Vec<String>,
    ) -> Result<Reading, String> {
        let view = self.admin.view(&self.route, &self.pair).await;
        let Some(mut reading) = reading::merge(expected, &view.seen, notes) else {
            let problems = view
                .seen
                .iter()
                .filter_map(|one| Some(format!("{} {}", one.name, one.problem.as_ref()?)));
            return Err(problems.take(5).collect::<Vec<_>>().join("; "));
        };
        reading.backends = view.backends;
        reading.restart_marker = view.restart_marker;
        Ok(reading)
    }
}

#[async_trait]
impl LoadBalancer for FileBalancer {
    fn describe(&self) -> String {
        format!("{} (envoy_file {})", self.label, self.path.display())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        // The file alone never decides; one that differs would take effect at Envoy's next restart.
        let (expected, notes) = match self.on_file(|file| file.read()).await {
            Ok(expected) => (Some(expected), Vec::new()),
            Err(error) => (None, vec![error.what]),
        };
        self.look(expected.as_ref(), notes)
            .await
            .map_err(|what| self.failure(what, Outcome::NotSent))
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = split.clone();
        self.on_file(move |file| file.write(&wanted, generation)).await?;
        self.wait_for(split, generation).await;
        let expected = Expected { split: split.clone(), generation: Some(generation) };
        let looked = self.look(Some(&expected), Vec::new()).await;
        looked.map_err(|what| {
            self.failure(format!("written, not read back: {what}"), Outcome::Unknown)
        })
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = split.clone();
        let text = self.on_file(move |file| file.rewritten(&wanted, generation)).await?;
        Ok(owned::by_hand(&self.path, &text).into())
    }
}
