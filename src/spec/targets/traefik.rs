//! Traefik: by a file of its file provider, or by what its HTTP provider fetches here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
use crate::spec::fleet::Auth;
#[cfg(feature = "files")]
use crate::spec::fleet_file::{decode_auth, decode_url};
#[cfg(feature = "files")]
use crate::spec::{
    codes,
    decode::{Decoder, Fields},
    file::Node,
};
use crate::units::{Millis, SlotName};

/// A weighted service over two services, in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Traefik {
    /// The file, in a folder that Traefik watches; nobody else writes it.
    pub path: PathBuf,
    /// What the file holds.
    pub weighted: WeightedService,
}

/// A weighted service over two services, which Traefik fetches from Tidegate.
#[derive(Debug, Clone, PartialEq)]
pub struct TraefikHttp {
    /// What it fetches.
    pub weighted: WeightedService,
    /// Who gets everybody while nothing is recorded and Traefik has no weights either.
    pub begin: SlotName,
}

/// A weighted service of Traefik, and where it is read back.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedService {
    /// Its name, without its provider.
    pub service: String,
    /// Slot → service, as the weighted service names it.
    pub services: BTreeMap<SlotName, String>,
    /// Base URL of Traefik's API.
    pub api: String,
    /// How it is asked.
    pub auth: Option<Auth>,
}

/// A Traefik that starts has the weights from where they are kept, the file or Tidegate's own store, and no others.
const CAPABILITIES: Capabilities = Capabilities {
    steps: Steps::Hundredths,
    weights_survive_restart: true,
    sees_instances: false,
    fencing: Fencing::Marker,
    effect_lag: Millis::ZERO,
    mirror: Mirroring::Percents,
    sees_requests: true,
    keeps_users: Keeping::Nobody,
};

impl Traefik {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let path = fields.require(decoder, "path", decode_path);
        let weighted = WeightedService::decode(decoder, &mut fields, place, is_local);
        fields.finish(decoder);
        Some(Self { path: path?, weighted: weighted? })
    }
}

impl TraefikHttp {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        if !place.ports.traefik_provider {
            let help = "add for example `traefik_provider: {listen: \"127.0.0.1:18001\"}`, or use `traefik`";
            let message =
                "Traefik fetches its weights here, but there is no `traefik_provider` block";
            decoder.error(codes::TRAEFIK_PROVIDER, node.span, message, help);
        }
        let weighted = WeightedService::decode(decoder, &mut fields, place, is_elsewhere);
        let slots = place.slots;
        let begin = fields.get(decoder, "begin", |decoder, node| {
            let slots = slots?.each_ref().map(|slot| (slot.as_str(), slot));
            decoder.choice(node, &slots).cloned()
        });
        fields.finish(decoder);
        Some(Self { weighted: weighted?, begin: begin.or_else(|| Some(slots?[0].clone()))? })
    }
}

#[cfg(feature = "files")]
impl WeightedService {
    /// `fits` says what the name of a slot's service may be, and how to write it.
    fn decode(
        decoder: &mut Decoder,
        fields: &mut Fields<'_>,
        place: &Place<'_>,
        fits: fn(&str) -> Result<(), &'static str>,
    ) -> Option<Self> {
        let service = fields.require(decoder, "service", |decoder, node| {
            let name = decoder.text(node)?;
            if is_name(&name) {
                return Some(name);
            }
            let help = "letters, digits, `-`, `_` and `.`, without `@file` or `@http`";
            let message = "this cannot be the name of a weighted service";
            decoder.error(codes::INVALID_NAME, node.span, message, help);
            None
        });
        let services = fields.require(decoder, "services", |decoder, node| {
            let services = names_by_slot(decoder, node, place)?;
            let wrong = services.values().find_map(|name| Some((name, fits(name).err()?)));
            let Some((wrong, help)) = wrong else { return Some(services) };
            let message = format!("`{}` cannot be a service", crate::units::shown(wrong));
            decoder.error(codes::INVALID_NAME, node.span, message, help);
            None
        });
        let api = fields.require(decoder, "api", decode_url);
        let auth = decode_auth(decoder, fields);
        Some(Self { service: service?, services: services?, api: api?, auth })
    }
}

#[cfg(feature = "files")]
fn decode_path(decoder: &mut Decoder, node: &Node) -> Option<PathBuf> {
    let path = PathBuf::from(decoder.text(node)?);
    if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
        return Some(path);
    }
    let help =
        "Traefik tells the format by the ending, and does not look at files that end in .json";
    decoder.error(codes::INVALID_VALUE, node.span, "the file must end in .yaml or .yml", help);
    None
}

/// Of the same provider, or of another one that is named.
#[cfg(feature = "files")]
fn is_local(name: &str) -> Result<(), &'static str> {
    let help = "letters, digits, `-`, `_` and `.`; with `@docker` for one of another provider";
    let fits = match name.split_once('@') {
        None => is_name(name),
        Some((name, provider)) => is_name(name) && is_name(provider),
    };
    if fits { Ok(()) } else { Err(help) }
}

/// Of another provider: what is fetched holds the weighted service alone.
#[cfg(feature = "files")]
fn is_elsewhere(name: &str) -> Result<(), &'static str> {
    let elsewhere = name
        .split_once('@')
        .is_some_and(|(name, provider)| is_name(name) && is_name(provider) && provider != "http");
    if elsewhere { Ok(()) } else { Err("name its provider as well: `web-blue@file`") }
}

#[cfg(feature = "files")]
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
