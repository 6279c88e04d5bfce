//! Traefik by its file provider: a file in a folder that it watches.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::super::Unusable;
use super::super::owned::{self, Held};
use super::document;
use super::view::{View, look_until};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::Traefik;
use crate::units::Generation;

/// Longest wait for the new weights: Traefik takes changes at most every two seconds unless told otherwise.
const CONFIRM_WAIT: Duration = Duration::from_secs(6);

/// One weighted service in a file.
pub struct TraefikBalancer {
    path: PathBuf,
    view: View,
}

impl TraefikBalancer {
    /// For a target of the fleet; touches neither file nor network.
    pub fn new(label: &str, settings: &Traefik) -> Result<Self, Unusable> {
        let view = View::new(label, &settings.weighted, settings.capabilities(), "file")?;
        Ok(Self { path: settings.path.clone(), view })
    }

    /// The whole file.
    fn text(&self, split: &Split, generation: Generation) -> Result<String, LoadBalancerError> {
        let text = self.view.text(split, generation)?;
        Ok(format!("# A change by hand is seen, and undone by the next rollout.\n{text}"))
    }

    /// What is in force, beside the generation that the file has.
    async fn look(&self) -> Result<Reading, LoadBalancerError> {
        let (path, service) = (self.path.clone(), self.view.service.clone());
        let text =
            owned::on_disk(&self.view.api, move || owned::read(&path, owned::BYTES_MAX)).await?;
        let written = text.and_then(|text| document::generation_of(&text, &service));
        let force = self.view.in_force().await?.ok_or_else(|| self.missing())?;
        let number = |generation: Option<Generation>| generation.map_or(0, |it| it.0);
        let note = (force.generation != written).then(|| {
            format!(
                "it runs generation {}, its file has {}; is another file of the folder broken?",
                number(force.generation),
                number(written)
            )
        });
        Ok(self.view.reading(force, note))
    }

    fn missing(&self) -> LoadBalancerError {
        let own = self.view.full_name();
        let what = format!("it has no weighted service `{own}`: write the file before it starts");
        self.view.failure(what, Outcome::Misconfigured)
    }
}

#[async_trait]
impl LoadBalancer for TraefikBalancer {
    fn describe(&self) -> String {
        self.view.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.view.capabilities
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        Ok(self.view.completed(self.look().await?).await)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let text = self.text(split, generation)?;
        // A file written while Traefik is away would come into force at its start, with nobody there to see.
        self.view.in_force().await?.ok_or_else(|| self.missing())?;
        let (path, service) = (self.path.clone(), self.view.service.clone());
        owned::on_disk(&self.view.api, move || {
            let number = |text: &str| document::generation_of(text, &service);
            Held::take(&path, owned::BYTES_MAX, generation, number)?.write(&text)
        })
        .await?;
        let shows =
            |it: &Reading| it.settled && it.split == *split && it.generation == Some(generation);
        let waited = look_until(Instant::now() + CONFIRM_WAIT, || self.look(), shows).await;
        let waited = waited.map_err(|error| {
            self.view.failure(format!("written, not read back: {}", error.what), Outcome::Unknown)
        });
        Ok(self.view.completed(waited?).await)
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        Ok(owned::by_hand(&self.path, &self.text(split, generation)?).into())
    }
}
