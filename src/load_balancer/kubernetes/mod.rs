//! Weights in an object of a Kubernetes API: an HTTPRoute of the Gateway API, or a VirtualService of Istio.
//!
//! ```text
//! set:  GET, then a JSON patch with `metadata.resourceVersion`, the two weights of each rule, its copies and our annotation,
//!       so that it counts for the object that was read and changes nothing else; 409: read and judge again
//! read: GET; settled once every controller says that it has taken the object's current generation
//! ```
//!
//! Nothing is watched: the controller asks as often as it needs to know.

mod api_server;
mod endpoints;
mod mirror;
mod rules;
mod status;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use self::api_server::ApiServer;
use self::rules::{Rule, Wanted};
use self::status::Seen;
use super::{Pair, Unusable, quoted};
use crate::ports::{
    Backends, Capabilities, InstanceReading, LoadBalancer, LoadBalancerError, Outcome, Reading,
    Split,
};
use crate::spec::fleet::{Kubernetes, KubernetesObject};
use crate::units::{Generation, SlotName, Weight};

/// How often another writer may come between reading and writing.
const CONFLICTS_MAX: usize = 5;
/// How long controllers are waited for after a write, and how often they are looked at.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An object with weights.
pub struct KubernetesBalancer {
    settings: Kubernetes,
    pair: Pair,
    label: String,
    server: ApiServer,
    /// The object's path at the API server.
    path: String,
}

type BySlot = std::collections::BTreeMap<SlotName, Backends>;

impl KubernetesBalancer {
    /// For a target of the fleet; nothing is read or asked yet.
    pub fn new(label: String, settings: &Kubernetes) -> Result<Self, Unusable> {
        let (kind, path, names) = match &settings.object {
            KubernetesObject::HttpRoute(route) => {
                let (namespace, name) = (&route.namespace, &route.name);
                let path = format!(
                    "/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{name}"
                );
                ("httproute", path, &route.backends)
            }
            KubernetesObject::VirtualService(service) => {
                let (namespace, name) = (&service.namespace, &service.name);
                let path = format!(
                    "/apis/networking.istio.io/v1/namespaces/{namespace}/virtualservices/{name}"
                );
                ("virtualservice", path, &service.subsets)
            }
        };
        let pair = Pair::new(names).map_err(Unusable::new)?;
        let (namespace, name) = named(&settings.object);
        let label = format!("{label} ({kind} {namespace}/{name})");
        let server = ApiServer::new(label.clone(), settings);
        Ok(Self { settings: settings.clone(), pair, label, server, path })
    }

    fn wrong(&self, what: impl std::fmt::Display) -> LoadBalancerError {
        self.server.failure(what, Outcome::Misconfigured)
    }

    fn rules(&self, object: &Value) -> Result<Vec<Rule>, LoadBalancerError> {
        let found = rules::rules_of(&self.settings.object, &self.pair, object);
        found.map_err(|what| self.wrong(what))
    }

    fn wanted(&self, split: &Split, generation: Generation) -> Result<Wanted, LoadBalancerError> {
        let (shares, copies) =
            self.pair.weights_and_copies(split).map_err(|error| self.wrong(error))?;
        let [share, other] = shares;
        let weights = self.capabilities().steps.pair(share).ok_or_else(|| {
            let steps = self.capabilities().steps.says();
            self.wrong(format!("{share} and {other} do not fit: {steps}"))
        })?;
        Ok(Wanted { share, weights, copies, generation })
    }

    /// The patch that brings it into the object as it was read; none when it is there.
    fn patch(&self, object: &Value, wanted: Wanted) -> Result<Option<Value>, LoadBalancerError> {
        let rules = self.rules(object)?;
        let patch = rules::patch(&self.settings.object, object, &rules, wanted);
        patch.map_err(|what| self.wrong(what))
    }

    /// Writes, unless it is there already; an older generation than the object's is turned away.
    async fn write(&self, wanted: Wanted) -> Result<(), LoadBalancerError> {
        let generation = wanted.generation;
        for _ in 0..CONFLICTS_MAX {
            let object = self.server.get(&self.path).await?;
            if let Some(newer) = rules::generation_of(&object).filter(|it| *it > generation) {
                let what = format!("{generation} is older than {newer}");
                return Err(self.server.failure(what, Outcome::Superseded));
            }
            let Some(patch) = self.patch(&object, wanted)? else { return Ok(()) };
            if self.server.patch(&self.path, &patch).await? {
                return Ok(());
            }
        }
        let what = "somebody else changes it all the time (409)";
        Err(self.server.failure(what, Outcome::NotSent))
    }

    /// What stands there once the controllers have taken it, or when they were waited for long enough.
    async fn read_back(&self, wanted: Wanted) -> Result<Reading, LoadBalancerError> {
        let begin = tokio::time::Instant::now();
        let split = self.split(Some(wanted.share), wanted.copies);
        loop {
            let object = self.server.get(&self.path).await?;
            let reading = self.reading(&object, None)?;
            let is_there = reading.settled
                && reading.generation == Some(wanted.generation)
                && reading.split == split;
            if is_there || begin.elapsed() >= TAKEN_WITHIN {
                // Weights that are in force are not unknown because of a count.
                let backends = self.backends(&object).await.unwrap_or_default();
                return Ok(Reading { backends, ..reading });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn backends(&self, object: &Value) -> Result<Option<BySlot>, LoadBalancerError> {
        match &self.settings.object {
            KubernetesObject::HttpRoute(route) => {
                endpoints::of_services(&self.server, route, &self.pair).await
            }
            KubernetesObject::VirtualService(service) => {
                let rules = self.rules(object)?;
                let host = rules.first().and_then(|rule| rule.host(object)).unwrap_or_default();
                endpoints::of_subsets(&self.server, service, host, &self.pair).await
            }
        }
    }

    fn reading(
        &self,
        object: &Value,
        backends: Option<BySlot>,
    ) -> Result<Reading, LoadBalancerError> {
        let rules = self.rules(object)?;
        let shares: Vec<_> = rules.iter().map(Rule::share).collect();
        let copies: Result<Vec<_>, _> = rules.iter().map(Rule::copies).collect();
        let copies = copies.map_err(|what| self.wrong(what))?;
        let agree = shares.iter().all(|share| *share == shares[0])
            && copies.iter().all(|copied| *copied == copies[0]);
        let seen = status::seen(&self.settings.object, object);
        let settled = agree && shares[0].is_some() && !matches!(seen, Seen::Not(_));
        let mut notes = Vec::new();
        if !agree {
            notes.push("its rules have different shares".to_owned());
        } else if shares[0].is_none() {
            notes.push("no backend has any weight".to_owned());
        }
        match seen {
            Seen::Not(why) => notes.push(why),
            Seen::Unsaid => notes.push("istiod does not say what it has taken".to_owned()),
            Seen::Taken => {}
        }
        let (manager, shape) = (&self.settings.field_manager, &self.settings.object);
        let other = status::other_writer(shape, object, manager);
        notes.extend(other.map(|other| format!("its weights were last written by `{other}`")));
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
        Ok(Reading {
            split: self.split(shares[0], copies[0]),
            settled,
            generation: rules::generation_of(object),
            instances: if agree { Vec::new() } else { self.apart(&rules, &copies) },
            backends,
            restart_marker: uid.map(crate::units::shown),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        })
    }

    fn split(&self, share: Option<Weight>, copies: [Weight; 2]) -> Split {
        let share = share.unwrap_or_default();
        let [first, second] = self.pair.slots().clone();
        let split = Split::from([(first, share), (second, share.complement())]);
        let copied = self.pair.slots().iter().cloned().zip(copies);
        copied.fold(split, |split, (slot, share)| split.with_copies(slot, share))
    }

    /// Each rule by itself.
    fn apart(&self, rules: &[Rule], copies: &[[Weight; 2]]) -> Vec<InstanceReading> {
        let each = rules.iter().zip(copies).map(|(rule, copies)| {
            let split = rule.share().map(|share| self.split(Some(share), *copies));
            InstanceReading { name: rule.label.clone(), split, connected: true }
        });
        each.collect()
    }
}

/// Namespace and name.
fn named(object: &KubernetesObject) -> (&str, &str) {
    match object {
        KubernetesObject::HttpRoute(route) => (&route.namespace, &route.name),
        KubernetesObject::VirtualService(service) => (&service.namespace, &service.name),
    }
}

#[async_trait]
impl LoadBalancer for KubernetesBalancer {
    fn describe(&self) -> String {
        self.label.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.settings.capabilities()
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let object = self.server.get(&self.path).await?;
        let backends = self.backends(&object).await?;
        self.reading(&object, backends)
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = self.wanted(split, generation)?;
        self.write(wanted).await?;
        self.read_back(wanted).await.map_err(|error| {
            self.server.failure(format!("set, not read back: {}", error.what), Outcome::Unknown)
        })
    }

    /// The API server itself says what it would do: `dryRun=All`.
    async fn dry_set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<(), LoadBalancerError> {
        let wanted = self.wanted(split, generation)?;
        let object = self.server.get(&self.path).await?;
        if let Some(patch) = self.patch(&object, wanted)? {
            // Whether somebody else came in between does not matter here.
            self.server.dry_patch(&self.path, &patch).await?;
        }
        Ok(())
    }

    async fn by_hand(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Vec<String>, LoadBalancerError> {
        let wanted = self.wanted(split, generation)?;
        let object = self.server.get(&self.path).await?;
        let rules = self.rules(&object)?;
        let patch = rules::patch_by_hand(&self.settings.object, &object, &rules, wanted)
            .map_err(|what| self.wrong(what))?;
        let mut words = vec!["kubectl".to_owned()];
        if let Some(path) = &self.settings.kubeconfig {
            words.push(format!("--kubeconfig={}", quoted(&path.display().to_string())));
        }
        if let Some(context) = &self.settings.context {
            words.push(format!("--context={}", quoted(context)));
        }
        let kind = match &self.settings.object {
            KubernetesObject::HttpRoute(_) => "httproutes.gateway.networking.k8s.io",
            KubernetesObject::VirtualService(_) => "virtualservices.networking.istio.io",
        };
        let (namespace, name) = named(&self.settings.object);
        let patch = quoted(&patch.to_string());
        words.push(format!("-n {namespace} patch {kind}/{name} --type=json -p {patch}"));
        Ok(vec![words.join(" ")])
    }
}
