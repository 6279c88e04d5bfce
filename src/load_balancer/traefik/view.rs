//! What a Traefik runs, as its API shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::super::api::{Api, Call, Login};
use super::super::{Pair, Unusable};
use super::document::{self, Service};
use crate::ports::{Backends, Capabilities, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::WeightedService;
use crate::units::{Generation, SlotName, Weight, shown};

const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One weighted service of one Traefik.
pub struct View {
    /// For people.
    pub label: String,
    /// Its name, without its provider.
    pub service: String,
    /// The provider that it comes from: `file`, `http`.
    provider: &'static str,
    /// What stands for the slots.
    pub pair: Pair,
    /// What it can be given.
    pub capabilities: Capabilities,
    /// Where all this is asked.
    pub api: Api,
}

/// What Traefik runs.
pub struct InForce {
    /// By slot, relative to each other; `None` where nobody has any.
    pub split: Option<Split>,
    /// Where there is one of ours.
    pub generation: Option<Generation>,
    /// Why its requests are answered by nobody.
    pub disabled: Option<String>,
}

impl View {
    /// Touches nothing.
    pub fn new(
        label: &str,
        weighted: &WeightedService,
        capabilities: Capabilities,
        provider: &'static str,
    ) -> Result<Self, Unusable> {
        let pair = Pair::new(&weighted.services).map_err(Unusable::new)?;
        let service = weighted.service.clone();
        let label = format!("{label} (traefik {service})");
        let login = weighted.auth.clone().map(Login::Auth);
        let api = Api::new(label.clone(), &weighted.api, login)?;
        Ok(Self { label, service, provider, pair, capabilities, api })
    }

    /// An error about this target.
    pub fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        self.api.failure(what, outcome)
    }

    /// As Traefik calls the weighted service.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.service, self.provider)
    }

    /// What Traefik is to be given.
    pub fn text(&self, split: &Split, generation: Generation) -> Result<String, LoadBalancerError> {
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let both = self.pair.weights_and_copies(split);
        let (weights, copies) = both.map_err(|error| wrong(error.to_string()))?;
        let mirror = self.capabilities.mirror;
        if let Some(share) = copies.into_iter().find(|share| !mirror.copies(*share)) {
            return Err(wrong(format!("cannot copy {share} of the requests: {}", mirror.says())));
        }
        Ok(document::text(&self.service, &self.pair, weights, copies, generation))
    }

    /// The weighted service and its generation, from one answer; `None` where Traefik has no such service.
    pub async fn in_force(&self) -> Result<Option<InForce>, LoadBalancerError> {
        let (service, own) = (&self.service, self.full_name());
        let path = format!("api/http/services?per_page=1000&search={service}");
        let services: Option<Vec<Service>> = self.api.call(Call::get(&path)).await?.json();
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let services = services.ok_or_else(|| wrong("its API answers no list".to_owned()))?;
        let found = |name: &str| services.iter().find(|it| it.name == name);
        let Some(outer) = found(&own) else { return Ok(None) };
        let (weighted, copies) = match &outer.mirroring {
            None => (outer.weighted.as_ref(), [Weight::ZERO; 2]),
            Some(mirrored) => {
                let copies = mirrored.copies(service, &self.pair, self.provider);
                let copies = copies.map_err(|what| wrong(format!("`{own}`: {what}")))?;
                let inner = format!("{}@{}", document::inner(service), self.provider);
                (found(&inner).and_then(|it| it.weighted.as_ref()), copies)
            }
        };
        let Some(weighted) = weighted else { return Ok(None) };
        let weights = weighted.weights(&self.pair, self.provider);
        let [first, second] = weights.map_err(|what| wrong(format!("`{own}`: {what}")))?;
        let generations = services.iter().filter_map(|it| {
            let (name, provider) = it.name.split_once('@')?;
            let is_marker = provider == self.provider && name.starts_with("tidegate-");
            is_marker.then(|| document::generation_of(name, service))?
        });
        let split = self.pair.split(first, first.saturating_add(second));
        let split = split.map(|split| {
            let copied = self.pair.slots().iter().cloned().zip(copies);
            copied.fold(split, |split, (slot, share)| split.with_copies(slot, share))
        });
        let disabled =
            (outer.status.as_deref() == Some("disabled")).then(|| shown(&outer.error.join(", ")));
        Ok(Some(InForce { split, generation: generations.max(), disabled }))
    }

    /// What is in force, settled unless there is something to note.
    pub fn reading(&self, force: InForce, note: Option<String>) -> Reading {
        let note = match (&force.split, force.disabled) {
            (None, _) => Some("no service has any weight".to_owned()),
            (Some(_), Some(why)) => Some(format!("Traefik has disabled it: {why}")),
            (Some(_), None) => note,
        };
        let nobody = || self.pair.slots().clone().map(|slot| (slot, Weight::ZERO)).into();
        Reading {
            split: force.split.unwrap_or_else(nobody),
            settled: note.is_none(),
            generation: force.generation,
            instances: Vec::new(),
            backends: None,
            restart_marker: None,
            note,
        }
    }

    /// With all that Traefik tells beside the weights.
    pub async fn completed(&self, reading: Reading) -> Reading {
        let (started, one, other) =
            tokio::join!(self.started(), self.backends(0), self.backends(1));
        let backends: Option<BTreeMap<_, _>> = [one, other].into_iter().collect();
        Reading { backends, restart_marker: started, ..reading }
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
}

/// Looks until `shows` says yes or the time is up; returns the last look.
pub async fn look_until<L>(
    deadline: Instant,
    look: impl Fn() -> L + Send,
    shows: impl Fn(&Reading) -> bool + Send,
) -> Result<Reading, LoadBalancerError>
where
    L: Future<Output = Result<Reading, LoadBalancerError>> + Send,
{
    loop {
        let looked = look().await;
        if looked.as_ref().is_ok_and(&shows) || Instant::now() + LOOK_PAUSE >= deadline {
            return looked;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
