//! One target of the kind `envoy`: sets weights by serving them, reads what instances acknowledged and, where admin
//! addresses are configured, what they show themselves.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use super::super::admin::Admin;
use super::super::reading::{self, Expected, Seen};
use super::super::{CONFIRM_WAIT, Pair, failure};
use super::state::{ResourceKey, ServeError, Shown};
use super::{Error, Shared};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::EnvoyXds;
use crate::units::Generation;

/// Pause between two looks at admin ports.
const LOOK_PAUSE: Duration = Duration::from_millis(25);

/// Longest time that instances may take to connect (and, where weights are recorded, to acknowledge) at a survey.
const SURVEY_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks within it, unless something changes earlier.
const SURVEY_PAUSE: Duration = Duration::from_millis(250);

const UNSERVED: &str = "no weights are recorded, so none are served; these stand in the route file";

/// A target whose Envoys fetch their routes here.
#[derive(Debug)]
pub struct XdsBalancer {
    label: String,
    shared: Arc<Shared>,
    key: ResourceKey,
    pair: Pair,
    min_instances: usize,
    forget_after: Option<Duration>,
    admin: Admin,
    capabilities: Capabilities,
}

impl XdsBalancer {
    pub(super) fn new(
        label: String,
        shared: Arc<Shared>,
        key: ResourceKey,
        pair: Pair,
        target: &EnvoyXds,
    ) -> Result<Self, Error> {
        Ok(Self {
            label,
            shared,
            key,
            pair,
            min_instances: usize::try_from(target.min_instances).unwrap_or(usize::MAX).max(1),
            forget_after: target.forget_after.map(crate::units::Millis::duration),
            admin: Admin::new(&target.admin)?,
            capabilities: target.capabilities(),
        })
    }

    /// Strikes an instance off that will not return; false when it is connected or unknown.
    #[must_use]
    pub fn forget(&self, instance: &str) -> bool {
        let struck = self.shared.lock().forget(&self.key, instance);
        self.shared.nudge();
        struck
    }

    fn failure(&self, what: impl ToString, outcome: Outcome) -> LoadBalancerError {
        failure(&self.label, what, outcome)
    }

    fn shown(&self) -> Result<Shown, LoadBalancerError> {
        let shown =
            self.shared.lock().shown(&self.key, &self.pair, self.forget_after, Instant::now());
        shown.ok_or_else(|| self.failure("is not registered", Outcome::Misconfigured))
    }

    /// Waits until every connected instance has answered and the admin ports show it, or the time is up.
    async fn wait_for(&self, expected: &Expected) -> Result<(), LoadBalancerError> {
        let deadline = Instant::now() + CONFIRM_WAIT;
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let shown = self.shown()?;
            if shown.answered
                && (shown.connected >= self.min_instances || !shown.refused.is_empty())
            {
                break;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Ok(());
            }
        }
        let shows = |one: &Seen| one.shows(&expected.split, expected.generation);
        while !self.admin.routes(&self.key.route, &self.pair).await.iter().all(shows) {
            if Instant::now() + LOOK_PAUSE >= deadline {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    async fn look(&self, outcome: Outcome) -> Result<Reading, LoadBalancerError> {
        let view = self.admin.view(&self.key.route, &self.pair).await;
        let mut shown = self.shown()?;
        // What an Envoy says itself goes before what it acknowledged.
        for told in view.seen {
            match shown.seen.iter_mut().find(|one| one.name == told.name) {
                Some(one) if told.problem.is_none() => {
                    let problem = one.problem.take().filter(|_| one.connected);
                    let connected = one.connected;
                    *one = Seen { connected, problem: problem.or_else(|| away(connected)), ..told };
                }
                Some(one) => one.problem = one.problem.take().or(told.problem),
                None => shown.seen.push(told),
            }
        }
        let mut notes = Vec::new();
        if shown.connected < self.min_instances {
            notes.push(self.too_few(shown.connected));
        }
        let merged = reading::merge(shown.expected.as_ref(), &shown.seen, notes);
        let mut reading = match (merged, &shown.expected) {
            (Some(reading), _) => reading,
            (None, None) => self.unserved(vec![UNSERVED.to_owned()])?,
            (None, Some(_)) => {
                return Err(self.failure("no Envoy has acknowledged any weights", outcome));
            }
        };
        reading.backends = view.backends;
        reading.restart_marker = view.restart_marker;
        if !shown.forgotten.is_empty() {
            let remark = format!("assumed gone for good: {}", shown.forgotten.join(", "));
            reading.note =
                Some(reading.note.map_or(remark.clone(), |note| format!("{note}; {remark}")));
        }
        Ok(reading)
    }

    /// One look at what there is to take over.
    async fn survey_once(&self) -> Result<Reading, LoadBalancerError> {
        let offer = self.shared.lock().offer(&self.key, &self.pair);
        let offer =
            offer.ok_or_else(|| self.failure("is not registered", Outcome::Misconfigured))?;
        if offer.recorded && offer.foreign.is_empty() {
            return self.look(Outcome::NotSent).await;
        }
        let mut notes = Vec::new();
        if offer.connected < self.min_instances {
            notes.push(self.too_few(offer.connected));
        }
        let mut seen = self.admin.view(&self.key.route, &self.pair).await.seen;
        // One that answers without any weights waits for its first ones.
        seen.retain(|one| !one.splits.is_empty() || !one.connected);
        for (name, version) in offer.foreign {
            if !seen.iter().any(|one| one.name == name && !one.splits.is_empty()) {
                seen.retain(|one| one.name != name);
                let problem = format!(
                    "holds routes that are not recorded here (version `{}`), and its weights cannot be read: \
                     list its address under `admin`, or restart it",
                    crate::units::shown(&version)
                );
                seen.push(Seen::problem(name, true, problem));
            }
        }
        let newest = seen.iter().filter_map(|one| one.generation).chain(offer.newest).max();
        let found = reading::merge(None, &seen, notes.clone());
        let mut reading = match found {
            Some(reading) => reading,
            None => {
                let problem = |one: &Seen| Some(format!("{} {}", one.name, one.problem.clone()?));
                notes.extend(seen.iter().filter_map(problem));
                self.unserved(notes)?
            }
        };
        reading.generation = newest;
        Ok(reading)
    }

    fn too_few(&self, connected: usize) -> String {
        format!("{connected} of at least {} instances connected", self.min_instances)
    }

    /// Before the first weights are recorded nobody is served; the operator's document says where to begin. Settled
    /// without any notes.
    fn unserved(&self, notes: Vec<String>) -> Result<Reading, LoadBalancerError> {
        let split = self.shared.lock().initial(&self.key, &self.pair);
        let split =
            split.ok_or_else(|| self.failure("is not registered", Outcome::Misconfigured))?;
        Ok(Reading {
            split,
            settled: notes.is_empty(),
            generation: None,
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }
}

fn away(connected: bool) -> Option<String> {
    (!connected).then(|| "runs, but is not connected".to_owned())
}

#[async_trait]
impl LoadBalancer for XdsBalancer {
    fn describe(&self) -> String {
        format!("{} (envoy {} of {})", self.label, self.key.route, self.key.node_cluster)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        self.look(Outcome::NotSent).await
    }

    /// Recorded weights are read back. Without any, instances that bring weights of their own are believed (as far as
    /// their admin ports show them), and the operator's route file says what the others get.
    async fn survey(&self) -> Result<Reading, LoadBalancerError> {
        let deadline = Instant::now() + SURVEY_WAIT;
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let found = self.survey_once().await;
            let settled = found.as_ref().is_ok_and(|reading| reading.settled);
            let now = Instant::now();
            if settled || now >= deadline {
                return found;
            }
            // Whether something changed or not: it is looked again.
            drop(timeout_at(deadline.min(now + SURVEY_PAUSE), changed.changed()).await);
        }
    }

    async fn begin(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Option<Reading>, LoadBalancerError> {
        self.set(split, generation).await.map(Some)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = Expected { split: split.clone(), generation: Some(generation) };
        let served = self.shared.lock().serve(&self.key, &self.pair, wanted.clone());
        served.map_err(|error| {
            let outcome = match error {
                ServeError::Superseded(_) => Outcome::Superseded,
                _ => Outcome::Misconfigured,
            };
            self.failure(error, outcome)
        })?;
        self.shared.nudge();
        self.wait_for(&wanted).await?;
        if let Some((name, words)) = self.shown()?.refused.first() {
            return Err(
                self.failure(format!("{name} refused the route: {words}"), Outcome::Refused)
            );
        }
        self.look(Outcome::Unknown).await
    }
}
