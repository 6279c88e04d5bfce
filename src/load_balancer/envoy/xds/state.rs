//! What is served to whom, and who acknowledged what. Synchronous; time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_yaml::Value;
use tokio::time::Instant;

use super::super::reading::{Expected, Seen};
use super::super::{Pair, affinity, marker, pair, proto, route};
use crate::load_balancer::Known;
use crate::ports::Split;
use crate::spec::fleet::Affinity;
use crate::units::{Generation, Weight};

/// Most instances remembered per route.
const INSTANCES_MAX: usize = 4_096;

/// One route of one group of Envoys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceKey {
    /// Their `node.cluster`.
    pub node_cluster: String,
    /// The name they ask for.
    pub route: String,
}

/// All routes.
#[derive(Debug, Default)]
pub struct State {
    resources: BTreeMap<ResourceKey, Resource>,
}

/// Why a target cannot be added.
#[derive(Debug)]
pub enum RegisterError {
    /// Another target gave another document.
    TwoFiles,
    /// Another target splits the same clusters.
    Twice,
    /// The remembered weights are not for these slots.
    Pair(pair::Error),
    /// The document.
    Route(route::Error),
}

/// Why weights cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An Envoy or the store has seen a newer generation.
    #[error("generation {0} has been here")]
    Superseded(Generation),
    /// The split or document.
    #[error("{0}")]
    Pair(#[from] pair::Error),
    /// The document.
    #[error("{0}")]
    Route(#[from] route::Error),
    /// Metadata in the way.
    #[error("metadata of the route is not a mapping of mappings")]
    Metadata,
    /// Never registered.
    #[error("is not registered")]
    Missing,
}

/// One document with its bytes, as sent.
#[derive(Debug, PartialEq)]
pub struct Rendered {
    /// The generations in it.
    pub version: String,
    /// The encoded RouteConfiguration.
    pub bytes: Vec<u8>,
    /// What it makes of each pair.
    splits: BTreeMap<Pair, Expected>,
}

#[derive(Debug)]
struct Resource {
    /// The operator's document.
    document: Value,
    targets: BTreeMap<Pair, Option<Expected>>,
    /// Pairs between which users stay where they are.
    affinities: BTreeMap<Pair, Affinity>,
    rendered: Option<Arc<Rendered>>,
    instances: BTreeMap<String, Instance>,
}

#[derive(Debug, Default)]
struct Instance {
    /// The stream it is connected by; `None` since `gone_at`.
    stream: Option<u64>,
    gone_at: Option<Instant>,
    acknowledged: BTreeMap<Pair, Expected>,
    /// The version that it refused last and its words.
    refused: Option<(String, String)>,
    /// The version it brought along.
    reported: String,
}

/// What the instances of a target show.
pub struct Shown {
    /// What they should.
    pub expected: Option<Expected>,
    /// By instance.
    pub seen: Vec<Seen>,
    /// Connected now with acknowledged weights.
    pub connected: usize,
    /// Refused what is served now: name and words.
    pub refused: Vec<(String, String)>,
    /// Gone for so long that they no longer count.
    pub forgotten: Vec<String>,
    /// Nobody connected lacks an answer to what is served.
    pub answered: bool,
}

/// What is known before a target's weights are taken over.
#[derive(Debug, PartialEq)]
pub struct Offer {
    /// Weights are recorded, and are served.
    pub recorded: bool,
    /// Connected now.
    pub connected: usize,
    /// Connected, with routes that were not served here and may be newer: name and version.
    pub foreign: Vec<(String, String)>,
    /// The newest generation that any of them told.
    pub newest: Option<Generation>,
}

impl State {
    /// Adds a target to its route.
    pub fn register(
        &mut self,
        key: &ResourceKey,
        document: Value,
        pair: &Pair,
        affinity: Option<&Affinity>,
        known: Option<&Known>,
    ) -> Result<(), RegisterError> {
        route::splits(&document, pair).map_err(RegisterError::Route)?;
        proto::encode(&document).map_err(RegisterError::Route)?;
        if let Some(known) = known {
            pair.weights_and_copies(&known.split).map_err(RegisterError::Pair)?;
        }
        let resource = self.resources.entry(key.clone()).or_insert_with(|| Resource {
            document: document.clone(),
            targets: BTreeMap::new(),
            affinities: BTreeMap::new(),
            rendered: None,
            instances: BTreeMap::new(),
        });
        if resource.document != document {
            return Err(RegisterError::TwoFiles);
        }
        if resource.targets.contains_key(pair) {
            return Err(RegisterError::Twice);
        }
        let expected = known.map(Expected::from);
        resource.targets.insert(pair.clone(), expected);
        resource.affinities.extend(affinity.map(|affinity| (pair.clone(), affinity.clone())));
        resource.remember(pair, known);
        resource.render().map_err(|error| match error {
            ServeError::Route(error) => RegisterError::Route(error),
            ServeError::Pair(error) => RegisterError::Pair(error),
            other => RegisterError::Route(route::Error::Syntax(other.to_string())),
        })
    }

    /// Whether any target serves Envoys of this `node.cluster`.
    pub fn knows(&self, node_cluster: &str) -> bool {
        self.resources.keys().any(|key| key.node_cluster == node_cluster)
    }

    /// Serves new weights from now on.
    pub fn serve(
        &mut self,
        key: &ResourceKey,
        pair: &Pair,
        wanted: Expected,
    ) -> Result<(), ServeError> {
        pair.weights_and_copies(&wanted.split)?;
        let resource = self.resources.get_mut(key).ok_or(ServeError::Missing)?;
        if let Some(newest) =
            resource.newest(pair).filter(|newest| Some(*newest) > wanted.generation)
        {
            return Err(ServeError::Superseded(newest));
        }
        let before = resource.targets.insert(pair.clone(), Some(wanted));
        let rendered = resource.render();
        if rendered.is_err() {
            resource.targets.insert(pair.clone(), before.flatten());
        }
        rendered
    }

    /// What a connected instance should be sent: nothing while no weights are known, nor when it holds a newer generation.
    pub fn document_for(&self, key: &ResourceKey, node: &str) -> Option<Arc<Rendered>> {
        let resource = self.resources.get(key)?;
        let instance = resource.instances.get(node)?;
        let newer = |pair: &Pair, expected: &Option<Expected>| {
            marker::read_version(&instance.reported, pair)
                > expected.as_ref().and_then(|one| one.generation)
        };
        if resource
            .targets
            .iter()
            .any(|(pair, expected)| expected.is_some() && newer(pair, expected))
        {
            return None;
        }
        resource.rendered.clone()
    }

    /// An instance subscribed; false when the route is not ours or too many are remembered.
    pub fn joined(&mut self, key: &ResourceKey, node: &str, stream: u64, version: &str) -> bool {
        let Some(resource) = self.resources.get_mut(key) else { return false };
        if !resource.instances.contains_key(node) && resource.instances.len() >= INSTANCES_MAX {
            return false;
        }
        let instance = resource.instances.entry(node.to_owned()).or_default();
        instance.stream = Some(stream);
        instance.gone_at = None;
        instance.refused = None;
        // Empty after its own restart: what it acknowledged before is no longer in force.
        instance.acknowledged.clear();
        version.clone_into(&mut instance.reported);
        true
    }

    /// Whether `stream` is still the one of the instance; a later stream of the same node takes its place.
    pub fn is_current(&self, key: &ResourceKey, node: &str, stream: u64) -> bool {
        let instance = self.resources.get(key).and_then(|resource| resource.instances.get(node));
        instance.is_some_and(|instance| instance.stream == Some(stream))
    }

    /// An instance took a document.
    pub fn acknowledged(
        &mut self,
        key: &ResourceKey,
        node: &str,
        stream: u64,
        rendered: &Rendered,
    ) {
        self.with(key, node, stream, |instance| {
            instance.acknowledged.clone_from(&rendered.splits);
            instance.reported.clone_from(&rendered.version);
            instance.refused = None;
        });
    }

    /// An instance refused a document and keeps what it had.
    pub fn refused(
        &mut self,
        key: &ResourceKey,
        node: &str,
        stream: u64,
        version: &str,
        words: String,
    ) {
        self.with(key, node, stream, |instance| {
            instance.refused = Some((version.to_owned(), words))
        });
    }

    fn with(
        &mut self,
        key: &ResourceKey,
        node: &str,
        stream: u64,
        edit: impl FnOnce(&mut Instance),
    ) {
        let resource = self.resources.get_mut(key);
        let instance = resource.and_then(|resource| resource.instances.get_mut(node));
        if let Some(instance) = instance.filter(|instance| instance.stream == Some(stream)) {
            edit(instance);
        }
    }

    /// An instance's stream ended. It stays named unless all its traffic goes where it should, to one slot only.
    pub fn left(&mut self, key: &ResourceKey, node: &str, stream: u64, now: Instant) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        let Some(instance) = resource.instances.get_mut(node) else { return };
        if instance.stream != Some(stream) {
            return;
        }
        instance.stream = None;
        instance.gone_at = Some(now);
        let harmless = |(pair, expected): (&Pair, &Option<Expected>)| {
            let shown = instance.acknowledged.get(pair);
            let wanted = expected.as_ref().map(|one| &one.split);
            shown.is_some_and(|shown| Some(&shown.split) == wanted && one_sided(&shown.split))
        };
        let fresh = instance.acknowledged.is_empty() && instance.reported.is_empty();
        if fresh || resource.targets.iter().all(harmless) {
            resource.instances.remove(node);
        }
    }

    /// A person struck an instance off; false when it is connected or unknown.
    pub fn forget(&mut self, key: &ResourceKey, node: &str) -> bool {
        let Some(resource) = self.resources.get_mut(key) else { return false };
        let gone = resource.instances.get(node).is_some_and(|instance| instance.stream.is_none());
        gone && resource.instances.remove(node).is_some()
    }

    /// What the instances show of one pair.
    pub fn shown(
        &self,
        key: &ResourceKey,
        pair: &Pair,
        forget_after: Option<std::time::Duration>,
        now: Instant,
    ) -> Option<Shown> {
        let resource = self.resources.get(key)?;
        let expected = resource.targets.get(pair)?.clone();
        let version = resource.rendered.as_ref().map(|rendered| rendered.version.as_str());
        let mut shown = Shown {
            expected,
            seen: Vec::new(),
            connected: 0,
            refused: Vec::new(),
            forgotten: Vec::new(),
            answered: true,
        };
        for (name, instance) in &resource.instances {
            let gone = instance.gone_at.map(|gone_at| now.saturating_duration_since(gone_at));
            if gone.zip(forget_after).is_some_and(|(gone, after)| gone >= after) {
                shown.forgotten.push(name.clone());
                continue;
            }
            let refused =
                instance.refused.as_ref().filter(|(refused, _)| Some(refused.as_str()) == version);
            let holds = instance.acknowledged.get(pair);
            let current = holds.is_some() && holds == shown.expected.as_ref();
            if let Some((_, words)) = refused.filter(|_| gone.is_none()) {
                shown.refused.push((name.clone(), words.clone()));
            }
            shown.answered &= gone.is_some() || current || refused.is_some();
            shown.connected += usize::from(gone.is_none() && holds.is_some());
            shown.seen.push(instance.seen(name, pair, refused.map(|(_, words)| words.as_str())));
        }
        Some(shown)
    }

    /// Who is connected, and with what, whether or not anything is served.
    pub fn offer(&self, key: &ResourceKey, pair: &Pair) -> Option<Offer> {
        let resource = self.resources.get(key)?;
        let expected = resource.targets.get(pair)?.as_ref();
        let recorded = expected.and_then(|expected| expected.generation);
        let connected = resource.instances.iter().filter(|(_, one)| one.stream.is_some());
        let mut offer = Offer {
            recorded: expected.is_some(),
            connected: 0,
            foreign: Vec::new(),
            newest: resource.newest(pair),
        };
        for (name, instance) in connected {
            offer.connected += 1;
            let told = marker::read_version(&instance.reported, pair);
            // What it acknowledged on this stream came from here; before that, only a known generation did.
            let ours = !instance.acknowledged.is_empty() || (told.is_some() && told <= recorded);
            if !instance.reported.is_empty() && !ours {
                offer.foreign.push((name.clone(), instance.reported.clone()));
            }
        }
        Some(offer)
    }

    /// The weights that the operator's document begins with.
    pub fn initial(&self, key: &ResourceKey, pair: &Pair) -> Option<Split> {
        route::splits(&self.resources.get(key)?.document, pair).ok()?.into_iter().next()
    }
}

impl From<&Known> for Expected {
    fn from(known: &Known) -> Self {
        Self { split: known.split.clone(), generation: Some(known.generation) }
    }
}

/// All traffic goes to one slot, and no copies to another.
fn one_sided(split: &Split) -> bool {
    split.copies.is_empty() && split.values().any(|weight| *weight == Weight::FULL)
}

impl Resource {
    /// Instances that the store has seen stay named until they return, unless they could do no harm.
    fn remember(&mut self, pair: &Pair, known: Option<&Known>) {
        let Some(known) = known else { return };
        for seen in known.instances.iter().take(INSTANCES_MAX) {
            let Some(split) = &seen.split else { continue };
            if *split == known.split && one_sided(split) {
                continue;
            }
            let instance = self.instances.entry(seen.name.clone()).or_default();
            instance.gone_at.get_or_insert_with(Instant::now);
            instance
                .acknowledged
                .insert(pair.clone(), Expected { split: split.clone(), generation: None });
        }
    }

    fn newest(&self, pair: &Pair) -> Option<Generation> {
        let reported =
            self.instances.values().map(|instance| marker::read_version(&instance.reported, pair));
        let served = self.targets.get(pair).and_then(|expected| expected.as_ref()?.generation);
        reported.chain([served]).flatten().max()
    }

    /// Makes the document of all known weights. A pair without them keeps the operator's, once another pair has some.
    fn render(&mut self) -> Result<(), ServeError> {
        let mut document = self.document.clone();
        let mut splits = BTreeMap::new();
        for (pair, expected) in &self.targets {
            let Some(expected) = expected else { continue };
            route::set_split(&mut document, pair, &expected.split)?;
            if let Some(affinity) = self.affinities.get(pair) {
                affinity::write(&mut document, pair, affinity)?;
            }
            if !marker::write(&mut document, pair, expected.generation.unwrap_or_default()) {
                return Err(ServeError::Metadata);
            }
            splits.insert(pair.clone(), expected.clone());
        }
        if !splits.is_empty() {
            let version = marker::version_text(&document);
            self.rendered =
                Some(Arc::new(Rendered { version, bytes: proto::encode(&document)?, splits }));
        }
        Ok(())
    }
}

impl Instance {
    fn seen(&self, name: &str, pair: &Pair, refused: Option<&str>) -> Seen {
        let holds = self.acknowledged.get(pair);
        let last = holds.map(|holds| format!(", last seen with {}", holds.split));
        let problem = if self.stream.is_none() {
            Some(format!("is disconnected{}", last.unwrap_or_default()))
        } else if let Some(words) = refused {
            Some(format!("refused the route: {words}"))
        } else if holds.is_none() {
            Some("has not acknowledged any weights".to_owned())
        } else {
            None
        };
        Seen {
            name: name.to_owned(),
            splits: holds.map(|holds| holds.split.clone()).into_iter().collect(),
            generation: holds
                .and_then(|holds| holds.generation)
                .or_else(|| marker::read_version(&self.reported, pair)),
            connected: self.stream.is_some(),
            problem,
        }
    }
}

#[cfg(test)]
mod tests;
