//! The load balancers of a service, as the fleet file writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::codes;
use super::decode::Decoder;
use super::file::{Node, Value};
use super::fleet::{Adapter, EnvoyFile, EnvoyXds, Haproxy, HaproxySocket, Target};
use super::fleet_file::decode_url;
use crate::units::{RegionName, SlotName, TargetName};

const TARGETS_MAX: usize = 20;

/// What a target has to fit.
pub(super) struct Place {
    pub(super) slots: Option<[SlotName; 2]>,
    pub(super) has_xds: bool,
}

/// The load balancers of a service in one region.
pub(super) fn decode_targets(
    decoder: &mut Decoder,
    region: &RegionName,
    node: &Node,
    place: &Place,
) -> Option<Vec<Target>> {
    let list = decoder.list(node)?;
    if list.is_empty() || list.len() > TARGETS_MAX {
        let message = format!(
            "a service has 1 to {TARGETS_MAX} load balancers in a region, not {}",
            list.len()
        );
        decoder.error(codes::TOO_MANY, node.span, message, "");
        return None;
    }
    let mut targets: Vec<Target> = Vec::new();
    for node in list {
        let Some(target) = decode_target(decoder, region, node, place) else { continue };
        if targets.iter().any(|other| other.name == target.name) {
            let message = format!("a second target `{}` in this region", target.name);
            decoder.error(
                codes::DUPLICATE_TARGET,
                node.span,
                message,
                "give each a name of its own",
            );
        }
        targets.push(target);
    }
    Some(targets)
}

fn decode_target(
    decoder: &mut Decoder,
    region: &RegionName,
    node: &Node,
    place: &Place,
) -> Option<Target> {
    let mut fields = decoder.fields(node)?;
    let name = fields.require(decoder, "name", Decoder::name::<TargetName>);
    let xds =
        fields.get(decoder, "envoy", |decoder, node| decode_envoy(decoder, region, node, place));
    let file =
        fields.get(decoder, "envoy_file", |decoder, node| decode_envoy_file(decoder, node, place));
    let haproxy =
        fields.get(decoder, "haproxy", |decoder, node| decode_haproxy(decoder, node, place));
    let kinds = ["envoy", "envoy_file", "haproxy"];
    if kinds.iter().filter(|kind| fields.key_span(kind).is_some()).count() != 1 {
        let help = "`envoy` fetches its routes from Tidegate, `envoy_file` watches a file, `haproxy` is told over its socket";
        let message = format!("a target needs exactly one of {}", kinds.join(", "));
        decoder.error(codes::MISSING_KEY, fields.span, message, help);
    }
    if let (Some(span), false) = (fields.key_span("envoy"), place.has_xds) {
        let help = "add for example `xds: {listen: \"127.0.0.1:18000\"}`, or use `envoy_file`";
        decoder.error(
            codes::XDS,
            span,
            "Envoy fetches its routes here, but there is no `xds` block",
            help,
        );
    }
    let at = decoder.at(fields.span);
    fields.finish(decoder);
    let envoy = xds.map(Adapter::Envoy).or_else(|| file.map(Adapter::EnvoyFile));
    let adapter = envoy.or_else(|| haproxy.map(Adapter::Haproxy))?;
    Some(Target { name: name?, at, adapter })
}

fn decode_envoy(
    decoder: &mut Decoder,
    region: &RegionName,
    node: &Node,
    place: &Place,
) -> Option<EnvoyXds> {
    let mut fields = decoder.fields(node)?;
    let route = fields.require(decoder, "route", Decoder::text);
    let route_file = fields.get(decoder, "route_file", Decoder::text).map(PathBuf::from);
    let clusters =
        fields.require(decoder, "clusters", |decoder, node| decode_clusters(decoder, node, place));
    let node_cluster =
        fields.get(decoder, "node_cluster", Decoder::text).unwrap_or_else(|| region.to_string());
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
    Some(EnvoyXds {
        route_file,
        route,
        clusters: clusters?,
        node_cluster,
        min_instances,
        forget_after,
        admin,
    })
}

fn decode_envoy_file(decoder: &mut Decoder, node: &Node, place: &Place) -> Option<EnvoyFile> {
    let mut fields = decoder.fields(node)?;
    let route = fields.require(decoder, "route", Decoder::text);
    let path = fields.require(decoder, "path", Decoder::text).map(PathBuf::from);
    let clusters =
        fields.require(decoder, "clusters", |decoder, node| decode_clusters(decoder, node, place));
    let admin = fields.require(decoder, "admin", |decoder, node| {
        let admin = decoder.each(node, decode_url)?;
        if matches!(&node.value, Value::List(list) if list.is_empty()) {
            let help = "without it nothing can be read back";
            decoder.error(
                codes::INVALID_VALUE,
                node.span,
                "at least one admin address is needed",
                help,
            );
        }
        Some(admin)
    });
    fields.finish(decoder);
    Some(EnvoyFile { route: route?, path: path?, clusters: clusters?, admin: admin? })
}

fn decode_haproxy(decoder: &mut Decoder, node: &Node, place: &Place) -> Option<Haproxy> {
    let mut fields = decoder.fields(node)?;
    let socket = fields.require(decoder, "socket", |decoder, node| {
        let text = decoder.text(node)?;
        Some(text.parse().map_or_else(|_| HaproxySocket::Unix(text.into()), HaproxySocket::Tcp))
    });
    // Names end up in commands: nothing but a name may stand there.
    let backend = fields.require(decoder, "backend", haproxy_name);
    let servers =
        fields.require(decoder, "servers", |decoder, node| decode_clusters(decoder, node, place));
    fields.finish(decoder);
    let servers = servers?;
    if let Some(name) = servers.values().find(|name| !is_haproxy_name(name)) {
        let message = format!("`{}` cannot be the name of a server", crate::units::shown(name));
        decoder.error(codes::INVALID_NAME, node.span, message, HAPROXY_NAME);
        return None;
    }
    Some(Haproxy { socket: socket?, backend: backend?, servers })
}

const HAPROXY_NAME: &str = "HAProxy's names are letters, digits, `-`, `_`, `.` and `:`";

fn is_haproxy_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

fn haproxy_name(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let name = decoder.text(node)?;
    if !is_haproxy_name(&name) {
        decoder.error(codes::INVALID_NAME, node.span, "this is no name of a backend", HAPROXY_NAME);
        return None;
    }
    Some(name)
}

fn decode_clusters(
    decoder: &mut Decoder,
    node: &Node,
    place: &Place,
) -> Option<BTreeMap<SlotName, String>> {
    let texts = decoder.texts(node)?;
    let slots = place.slots.as_ref()?;
    let different: BTreeSet<&String> = texts.values().collect();
    let complete = texts.len() == 2
        && slots.iter().all(|slot| texts.contains_key(slot.as_str()))
        && different.len() == 2;
    if !complete {
        let help =
            format!("write {{{}: ..., {}: ...}} with two different names", slots[0], slots[1]);
        decoder.error(codes::SLOTS, node.span, "each slot needs a name of its own here", help);
        return None;
    }
    Some(
        slots
            .iter()
            .filter_map(|slot| Some((slot.clone(), texts.get(slot.as_str())?.clone())))
            .collect(),
    )
}
