//! Traefik by its HTTP provider: it fetches its weights from Tidegate, which serves what is recorded and nothing else.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::provider::{Given, Shelf};
use super::view::{InForce, View, look_until};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::TraefikHttp;
use crate::units::{Generation, Weight};

/// Longest wait for the new weights: it fetches every five seconds, and takes a change at most every two, unless told
/// otherwise.
const CONFIRM_WAIT: Duration = Duration::from_secs(8);
/// Longest wait at a survey for one that has its recorded weights still to fetch.
const SURVEY_WAIT: Duration = Duration::from_secs(8);
/// Longest wait for the first weights: one that got none for long has been seen to ask again after eleven seconds only.
const BEGIN_WAIT: Duration = Duration::from_secs(25);

const UNSERVED: &str = "no weights are recorded, so none are served; Traefik keeps what it has";

/// One weighted service that is fetched here.
pub struct TraefikHttpBalancer {
    /// Where it is fetched.
    path: String,
    settings: TraefikHttp,
    view: Arc<View>,
    shelf: Arc<Shelf>,
}

impl TraefikHttpBalancer {
    pub(super) fn new(
        path: String,
        settings: TraefikHttp,
        view: Arc<View>,
        shelf: Arc<Shelf>,
    ) -> Self {
        Self { path, settings, view, shelf }
    }

    /// What is in force, beside what is served.
    async fn look(&self) -> Result<Reading, LoadBalancerError> {
        let (force, given) = (self.view.in_force().await?, self.shelf.given(&self.path));
        match (force, given) {
            (Some(force), Some(given)) => {
                let same = force.split.as_ref() == Some(&given.split)
                    && force.generation == Some(given.generation);
                let note = (!same).then(|| self.behind(force.generation, &given));
                Ok(self.view.reading(force, note))
            }
            (Some(force), None) => Ok(self.view.reading(force, Some(UNSERVED.to_owned()))),
            (None, Some(_)) => {
                let own = self.view.full_name();
                let what = format!(
                    "it has no `{own}` yet: its HTTP provider fetches it from {} here",
                    self.path
                );
                Err(self.view.failure(what, Outcome::NotSent))
            }
            (None, None) => Ok(self.first(Some(UNSERVED.to_owned()))),
        }
    }

    fn behind(&self, runs: Option<Generation>, given: &Given) -> String {
        format!(
            "it runs generation {}, {} is served at {}; it fetches every `pollInterval`, and later after a failure",
            runs.map_or(0, |it| it.0),
            given.generation.0,
            self.path
        )
    }

    /// Nobody has any weights: these will be the first ones.
    fn first(&self, note: Option<String>) -> Reading {
        let begins =
            |slot: &_| if *slot == self.settings.begin { Weight::FULL } else { Weight::ZERO };
        let split = self.view.pair.slots().clone().map(|slot| (slot.clone(), begins(&slot)));
        self.view
            .reading(InForce { split: Some(split.into()), generation: None, disabled: None }, note)
    }

    /// Serves new weights, and waits until Traefik runs them.
    async fn give(
        &self,
        split: &Split,
        generation: Generation,
        longest: Duration,
    ) -> Result<Reading, LoadBalancerError> {
        let deadline = Instant::now() + longest;
        let text = self.view.text(split, generation)?;
        // One that is gone has nothing newer; it fetches these when it comes back.
        if let Ok(Some(InForce { generation: Some(newest), .. })) = self.view.in_force().await {
            self.shelf.has_seen(&self.path, newest);
        }
        let given = Given { split: split.clone(), generation, text: text.into() };
        self.shelf.put(&self.path, given).map_err(|newest| {
            self.view.failure(format!("generation {newest} has been here"), Outcome::Superseded)
        })?;
        let shows =
            |it: &Reading| it.settled && it.split == *split && it.generation == Some(generation);
        let waited = look_until(deadline, || self.look(), shows).await.map_err(|error| {
            self.view.failure(format!("served, not read back: {}", error.what), Outcome::Unknown)
        });
        Ok(self.view.completed(waited?).await)
    }
}

#[async_trait]
impl LoadBalancer for TraefikHttpBalancer {
    fn describe(&self) -> String {
        self.view.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.view.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        Ok(self.view.completed(self.look().await?).await)
    }

    /// Recorded weights are read back. Without any, a Traefik that runs some is believed; one that runs none begins with
    /// the slot that the fleet names.
    async fn survey(&self) -> Result<Reading, LoadBalancerError> {
        let found = if self.shelf.given(&self.path).is_some() {
            let deadline = Instant::now() + SURVEY_WAIT;
            look_until(deadline, || self.look(), |reading| reading.settled).await?
        } else {
            match self.view.in_force().await? {
                Some(force) => self.view.reading(force, None),
                None => self.first(None),
            }
        };
        Ok(self.view.completed(found).await)
    }

    async fn begin(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Option<Reading>, LoadBalancerError> {
        self.give(split, generation, BEGIN_WAIT).await.map(Some)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        self.give(split, generation, CONFIRM_WAIT).await
    }

    /// Nothing but Tidegate can; the weights are looked at all the same.
    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        self.view.text(split, generation).map(|_| Vec::new())
    }
}
