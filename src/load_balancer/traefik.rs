//! Traefik by its file provider: one file with one weighted service, which Tidegate alone writes.
//!
//! ```text
//! set:  rename a new file into the watched folder
//! read: GET /api/http/services (what is in force, and its generation), /api/version (which process)
//! ```
//!
//! What is read is what Traefik runs, never the file: it ignores all changes while any file of the folder is broken. The
//! generation stands in the name of a second service in the same file, which no router uses: weights and generation come
//! into force together, and the API shows both.

mod document;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::Instant;

use super::api::{Api, Call, Login};
use super::owned::{self, Held};
use super::{Pair, Unusable};
use crate::ports::{
    Backends, Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split,
};
use crate::spec::fleet::Traefik;
use crate::units::{Generation, SlotName, Weight};
use document::Service;

/// Longest wait for the new weights: Traefik takes changes at most every two seconds unless told otherwise.
const CONFIRM_WAIT: Duration = Duration::from_secs(6);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One weighted service.
pub struct TraefikBalancer {
    label: String,
    settings: Traefik,
    pair: Pair,
    api: Api,
}

/// What Traefik runs.
struct InForce {
    weights: [u64; 2],
    generation: Option<Generation>,
}

impl TraefikBalancer {
    /// For a target of the fleet; touches neither file nor network.
    pub fn new(label: String, settings: &Traefik) -> Result<Self, Unusable> {
        let pair = Pair::new(&settings.services).map_err(Unusable::new)?;
        let label = format!("{label} (traefik {})", settings.service);
        let login = settings.auth.clone().map(Login::Auth);
        let api = Api::new(label.clone(), &settings.api, login)?;
        Ok(Self { label, settings: settings.clone(), pair, api })
    }

    fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        self.api.failure(what, outcome)
    }

    fn weights(&self, split: &Split) -> Result<[Weight; 2], LoadBalancerError> {
        self.pair.weights(split).map_err(|error| self.failure(error, Outcome::Misconfigured))
    }

    fn text(&self, weights: [Weight; 2], generation: Generation) -> String {
        document::text(&self.settings.service, &self.pair, weights, generation)
    }

    /// The weighted service and its generation, from one answer.
    async fn in_force(&self) -> Result<InForce, LoadBalancerError> {
        let service = &self.settings.service;
        let path = format!("api/http/services?per_page=1000&search={service}");
        let services: Option<Vec<Service>> = self.api.call(Call::get(&path)).await?.json();
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let services = services.ok_or_else(|| wrong("its API answers no list".to_owned()))?;
        let own = format!("{service}@file");
        let found = services.iter().find(|it| it.name == own);
        let weighted = found.and_then(|it| it.weighted.as_ref());
        let weighted = weighted.ok_or_else(|| {
            wrong(format!("it has no weighted service `{own}`: write the file before it starts"))
        })?;
        let weights = weighted.weights(&self.pair);
        let weights = weights.map_err(|what| wrong(format!("`{own}`: {what}")))?;
        let generations = services.iter().filter_map(|it| {
            it.name.starts_with("tidegate-").then(|| document::generation_of(&it.name, service))?
        });
        Ok(InForce { weights, generation: generations.max() })
    }

    /// The start of its process, where it tells.
    async fn started(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "startDate")]
            start_date: String,
        }
        let answer = self.api.call(Call::get("api/version")).await.ok()?;
        answer.json::<Version>().map(|version| version.start_date)
    }

    /// Backends of a slot, where its service has health checks.
    async fn backends(&self, place: usize) -> Option<(SlotName, Backends)> {
        let name = &self.pair.names()[place];
        let provider = if name.contains('@') { "" } else { "@file" };
        let path = format!("api/http/services/{name}{provider}");
        let service: Service = self.api.call(Call::get(&path)).await.ok()?.json()?;
        service.load_balancer?.health_check?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let healthy = service.server_status.values().filter(|status| *status == "UP").count();
        let total = service.server_status.len();
        let backends = Backends { healthy: count(healthy), total: count(total) };
        Some((self.pair.slots()[place].clone(), backends))
    }

    /// What is in force, beside the generation that the file has.
    async fn look(&self) -> Result<Reading, LoadBalancerError> {
        let (path, service) = (self.settings.path.clone(), self.settings.service.clone());
        let text = owned::on_disk(&self.api, move || owned::read(&path, owned::BYTES_MAX)).await?;
        let written = text.and_then(|text| document::generation_of(&text, &service));
        let force = self.in_force().await?;
        let split =
            self.pair.split(force.weights[0], force.weights[0].saturating_add(force.weights[1]));
        let number = |generation: Option<Generation>| generation.map_or(0, |it| it.0);
        let note = match &split {
            None => Some("no service has any weight".to_owned()),
            Some(_) if force.generation != written => Some(format!(
                "it runs generation {}, its file has {}; is another file of the folder broken?",
                number(force.generation),
                number(written)
            )),
            Some(_) => None,
        };
        let nobody = || self.pair.slots().clone().map(|slot| (slot, Weight::ZERO)).into();
        Ok(Reading {
            split: split.unwrap_or_else(nobody),
            settled: note.is_none(),
            generation: force.generation,
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note,
        })
    }

    /// With all that it tells beside the weights.
    async fn completed(&self, reading: Reading) -> Reading {
        let (started, one, other) =
            tokio::join!(self.started(), self.backends(0), self.backends(1));
        let backends: Option<BTreeMap<_, _>> = [one, other].into_iter().collect();
        Reading { restart_marker: started, backends, ..reading }
    }

    /// Looks until it shows what was asked for, or the time is up; returns the last look.
    async fn wait_for(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let deadline = Instant::now() + CONFIRM_WAIT;
        loop {
            let looked = self.look().await;
            let shows = |it: &Reading| it.split == *split && it.generation == Some(generation);
            if looked.as_ref().is_ok_and(shows) || Instant::now() + LOOK_PAUSE >= deadline {
                return looked;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

#[async_trait]
impl LoadBalancer for TraefikBalancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        Ok(self.completed(self.look().await?).await)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let weights = self.weights(split)?;
        // A file written while Traefik is away would come into force at its start, with nobody there to see.
        self.in_force().await?;
        let (path, service) = (self.settings.path.clone(), self.settings.service.clone());
        let text = self.text(weights, generation);
        owned::on_disk(&self.api, move || {
            let number = |text: &str| document::generation_of(text, &service);
            Held::take(&path, owned::BYTES_MAX, generation, number)?.write(&text)
        })
        .await?;
        let waited = self.wait_for(split, generation).await.map_err(|error| {
            self.failure(format!("written, not read back: {}", error.what), Outcome::Unknown)
        });
        Ok(self.completed(waited?).await)
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let text = self.text(self.weights(split)?, generation);
        Ok(owned::by_hand(&self.settings.path, &text).into())
    }
}
