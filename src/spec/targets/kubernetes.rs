//! Objects of a Kubernetes API that hold weights: HTTPRoutes of the Gateway API, VirtualServices of Istio.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node};
use crate::units::{Millis, SlotName};

/// An object with weights, and the way to its API server.
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    /// The kubeconfig's context; default: its current one.
    pub context: Option<String>,
    /// The kubeconfig; default: `$KUBECONFIG`, then the user's own, then the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Under which name changes are recorded in the object's `managedFields`.
    pub field_manager: String,
    /// What holds the weights.
    pub object: KubernetesObject,
}

/// What holds the weights.
#[derive(Debug, Clone, PartialEq)]
pub enum KubernetesObject {
    /// An HTTPRoute of the Gateway API.
    HttpRoute(HttpRoute),
    /// A VirtualService of Istio.
    VirtualService(VirtualService),
}

/// An HTTPRoute whose rules split traffic over two Services.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which rule; default: every one that has both backends.
    pub rule: Option<RouteRule>,
    /// Slot → Service.
    pub backends: BTreeMap<SlotName, String>,
}

/// A rule of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteRule {
    /// By its place, from 0.
    Place(u32),
    /// By its name.
    Name(String),
}

/// A VirtualService whose HTTP routes split traffic over two subsets.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The DestinationRule of the same namespace that says what the subsets are; with it their pods are counted.
    pub destination_rule: Option<String>,
    /// Name of the HTTP route; default: every one that has both subsets.
    pub http: Option<String>,
    /// Only destinations with this host.
    pub host: Option<String>,
    /// Slot → subset.
    pub subsets: BTreeMap<SlotName, String>,
}

impl Kubernetes {
    /// What it can do. The weights lie in the cluster's own store, and a write names the version that it was made for.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let steps = match &self.object {
            KubernetesObject::HttpRoute(_) => Steps::Hundredths,
            // Weights that do not sum to 100 are relative in a new Istio and refused by an older one.
            KubernetesObject::VirtualService(_) => Steps::Percents,
        };
        Capabilities {
            steps,
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::CompareAndSet,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::Hundredths,
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let context = fields.get(decoder, "context", Decoder::text);
        let kubeconfig = fields.get(decoder, "kubeconfig", Decoder::text).map(PathBuf::from);
        let field_manager = fields.get(decoder, "field_manager", field_manager);
        let route =
            fields.get(decoder, "http_route", |decoder, node| http_route(decoder, node, place));
        let service = fields
            .get(decoder, "virtual_service", |decoder, node| virtual_service(decoder, node, place));
        let shapes = ["http_route", "virtual_service"];
        if shapes.iter().filter(|key| fields.key_span(key).is_some()).count() != 1 {
            let message = "this needs exactly one of http_route, virtual_service";
            let help = "it says which object holds the weights";
            decoder.error(codes::MISSING_KEY, fields.span, message, help);
        }
        fields.finish(decoder);
        let object = route
            .map(KubernetesObject::HttpRoute)
            .or(service.map(KubernetesObject::VirtualService))?;
        let field_manager = field_manager.unwrap_or_else(|| "tidegate".to_owned());
        Some(Self { context, kubeconfig, field_manager, object })
    }
}

#[cfg(feature = "files")]
fn http_route(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<HttpRoute> {
    let mut fields = decoder.fields(node)?;
    let name = fields.require(decoder, "name", object_name);
    let namespace = fields.require(decoder, "namespace", label);
    let rule = fields.get(decoder, "rule", |decoder, node| {
        let text = decoder.text(node)?;
        // The Gateway API allows 16 rules.
        Some(match text.parse::<u32>() {
            Ok(_) => RouteRule::Place(decoder.count(node, 0, 15)?),
            Err(_) => RouteRule::Name(label(decoder, node)?),
        })
    });
    let backends = fields.require(decoder, "backends", |decoder, node| {
        names_by_slot(decoder, node, place).filter(|names| are_labels(decoder, node, names))
    });
    fields.finish(decoder);
    Some(HttpRoute { name: name?, namespace: namespace?, rule, backends: backends? })
}

#[cfg(feature = "files")]
fn virtual_service(
    decoder: &mut Decoder,
    node: &Node,
    place: &Place<'_>,
) -> Option<VirtualService> {
    let mut fields = decoder.fields(node)?;
    let name = fields.require(decoder, "name", object_name);
    let namespace = fields.require(decoder, "namespace", label);
    let destination_rule = fields.get(decoder, "destination_rule", object_name);
    // Istio takes any text for it.
    let http = fields.get(decoder, "http", Decoder::text);
    let host = fields.get(decoder, "host", object_name);
    let subsets = fields.require(decoder, "subsets", |decoder, node| {
        names_by_slot(decoder, node, place).filter(|names| are_labels(decoder, node, names))
    });
    fields.finish(decoder);
    let (name, namespace, subsets) = (name?, namespace?, subsets?);
    Some(VirtualService { name, namespace, destination_rule, http, host, subsets })
}

/// Names end up in paths and commands: nothing but a name may stand there.
#[cfg(feature = "files")]
fn named(
    decoder: &mut Decoder,
    node: &Node,
    is_name: impl FnOnce(&str) -> bool,
    help: &str,
) -> Option<String> {
    let text = decoder.text(node)?;
    if is_name(&text) {
        return Some(text);
    }
    let message = format!("`{}` cannot be a name in Kubernetes", crate::units::shown(&text));
    decoder.error(codes::INVALID_NAME, node.span, message, help);
    None
}

#[cfg(feature = "files")]
const LABEL: &str = "this is 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends";

#[cfg(feature = "files")]
fn label(decoder: &mut Decoder, node: &Node) -> Option<String> {
    named(decoder, node, is_label, LABEL)
}

#[cfg(feature = "files")]
fn are_labels(decoder: &mut Decoder, node: &Node, names: &BTreeMap<SlotName, String>) -> bool {
    let Some(wrong) = names.values().find(|name| !is_label(name)) else { return true };
    let message = format!("`{}` cannot be a name in Kubernetes", crate::units::shown(wrong));
    decoder.error(codes::INVALID_NAME, node.span, message, LABEL);
    false
}

#[cfg(feature = "files")]
fn object_name(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let is_name = |text: &str| text.len() <= 253 && text.split('.').all(is_label);
    named(decoder, node, is_name, "this is one or more names of a-z, 0-9 and `-`, joined by `.`")
}

#[cfg(feature = "files")]
fn field_manager(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let is_name = |text: &str| {
        text.len() <= 128 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    named(decoder, node, is_name, "this is at most 128 letters, digits, `-`, `_` and `.`")
}

#[cfg(feature = "files")]
fn is_label(text: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.starts_with(is_end)
        && text.ends_with(is_end)
        && text.chars().all(|c| is_end(c) || c == '-')
}
