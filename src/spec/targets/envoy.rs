//! Envoys: fed by xDS, by a file that they watch, or overridden at their admin ports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::affinity::{Affinity, Keeping};
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node, file::Value, fleet_file::decode_url};
#[cfg(feature = "files")]
use crate::units::shown;
use crate::units::{Millis, SlotName};

/// Envoys fed by xDS.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyXds {
    /// Name of the RouteConfiguration that Envoy asks for.
    pub route: String,
    /// The operator's RouteConfiguration (YAML); only weights of the named clusters are replaced.
    pub route_file: PathBuf,
    /// Slot → cluster.
    pub clusters: BTreeMap<SlotName, String>,
    /// Which Envoys belong to this target: the value of `node.cluster`; default the region's name.
    pub node_cluster: String,
    /// Connected instances without which nothing is confirmed; at least 1.
    pub min_instances: u32,
    /// An instance gone for this long no longer counts, marked as assumed.
    pub forget_after: Option<Millis>,
    /// Users stay on one arm.
    pub affinity: Option<Affinity>,
    /// Admin addresses for healthy-backend counts; optional.
    pub admin: Vec<String>,
}

/// Envoys fed by a file.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyFile {
    /// Name of the RouteConfiguration in the file.
    pub route: String,
    /// The file that Envoy watches (as `path_config_source` with a watched directory).
    pub path: PathBuf,
    /// Slot → cluster.
    pub clusters: BTreeMap<SlotName, String>,
    /// Admin addresses of the Envoys, for reading back; at least one.
    pub admin: Vec<String>,
    /// Users stay on one arm.
    pub affinity: Option<Affinity>,
}

/// Envoys whose weights are overridden at their admin ports.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvoyRuntime {
    /// Name of the RouteConfiguration that has the weighted clusters.
    pub route: String,
    /// Its `runtime_key_prefix`.
    pub prefix: String,
    /// Slot → cluster.
    pub clusters: BTreeMap<SlotName, String>,
    /// Admin addresses of the Envoys; at least one.
    pub admin: Vec<String>,
}

/// The first two keep weights and generation in the route document itself.
const CAPABILITIES: Capabilities = Capabilities {
    steps: Steps::Hundredths,
    weights_survive_restart: true,
    sees_instances: true,
    fencing: Fencing::Marker,
    effect_lag: Millis::ZERO,
    mirror: Mirroring::Hundredths,
    sees_requests: true,
    keeps_users: Keeping::Users,
};

impl EnvoyXds {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        if !place.ports.xds {
            let help = "add for example `xds: {listen: \"127.0.0.1:18000\"}`, or use `envoy_file`";
            let message = "Envoy fetches its routes here, but there is no `xds` block";
            decoder.error(codes::XDS, node.span, message, help);
        }
        let route = fields.require(decoder, "route", Decoder::text);
        let route_file = fields.get(decoder, "route_file", Decoder::text).map(PathBuf::from);
        let clusters = fields
            .require(decoder, "clusters", |decoder, node| names_by_slot(decoder, node, place));
        let node_cluster = fields
            .get(decoder, "node_cluster", Decoder::text)
            .unwrap_or_else(|| place.region.to_string());
        let min_instances = fields
            .get(decoder, "min_instances", |decoder, node| decoder.count(node, 1, 10_000))
            .unwrap_or(1);
        let forget_after = fields.get(decoder, "forget_after", Decoder::positive);
        let admin = fields
            .get(decoder, "admin", |decoder, node| decoder.each(node, decode_url))
            .unwrap_or_default();
        fields.finish(decoder);
        let route = route?;
        let route_file = route_file.unwrap_or_else(|| PathBuf::from(format!("{route}.yaml")));
        let clusters = clusters?;
        let affinity = place.affinity.cloned();
        Some(Self {
            route_file,
            route,
            clusters,
            node_cluster,
            min_instances,
            forget_after,
            affinity,
            admin,
        })
    }
}

impl EnvoyRuntime {
    /// What it can do. What only memory has is gone after a restart.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            weights_survive_restart: false,
            mirror: Mirroring::None,
            keeps_users: Keeping::Nobody,
            ..CAPABILITIES
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let route = fields.require(decoder, "route", Decoder::text);
        // Keys end up in a query: nothing but a key may stand there.
        let prefix = fields.require(decoder, "prefix", key);
        let clusters = fields.require(decoder, "clusters", |decoder, node| {
            let clusters = names_by_slot(decoder, node, place)?;
            if let Some(name) = clusters.values().find(|name| !is_key(name)) {
                let message = format!("`{}` cannot be part of a runtime key", shown(name));
                decoder.error(codes::INVALID_NAME, node.span, message, KEY);
                return None;
            }
            Some(clusters)
        });
        let admin = fields.require(decoder, "admin", admin);
        fields.finish(decoder);
        Some(Self { route: route?, prefix: prefix?, clusters: clusters?, admin: admin? })
    }
}

#[cfg(feature = "files")]
const KEY: &str =
    "letters, digits, `-`, `_` and `.`, as `runtime_key_prefix` of the weighted clusters";

#[cfg(feature = "files")]
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(feature = "files")]
fn key(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let text = decoder.text(node)?;
    if !is_key(&text) {
        decoder.error(codes::INVALID_NAME, node.span, "this is no runtime key", KEY);
        return None;
    }
    Some(text)
}

/// At least one admin address.
#[cfg(feature = "files")]
fn admin(decoder: &mut Decoder, node: &Node) -> Option<Vec<String>> {
    let admin = decoder.each(node, decode_url)?;
    if matches!(&node.value, Value::List(list) if list.is_empty()) {
        let help = "without it nothing can be read back";
        let message = "at least one admin address is needed";
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
    }
    Some(admin)
}

impl EnvoyFile {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let route = fields.require(decoder, "route", Decoder::text);
        let path = fields.require(decoder, "path", Decoder::text).map(PathBuf::from);
        let clusters = fields
            .require(decoder, "clusters", |decoder, node| names_by_slot(decoder, node, place));
        let admin = fields.require(decoder, "admin", admin);
        fields.finish(decoder);
        let affinity = place.affinity.cloned();
        Some(Self { route: route?, path: path?, clusters: clusters?, admin: admin?, affinity })
    }
}
