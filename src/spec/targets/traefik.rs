//! Traefik, by a file of its file provider.

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
use crate::spec::{codes, decode::Decoder, file::Node};
use crate::units::{Millis, SlotName};

/// A weighted service over two services.
#[derive(Debug, Clone, PartialEq)]
pub struct Traefik {
    /// The file, in a folder that Traefik watches; nobody else writes it.
    pub path: PathBuf,
    /// The weighted service, without `@file`.
    pub service: String,
    /// Slot → service, as the weighted service names it.
    pub services: BTreeMap<SlotName, String>,
    /// Base URL of Traefik's API.
    pub api: String,
    /// How it is asked.
    pub auth: Option<Auth>,
}

impl Traefik {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Hundredths,
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::None,
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let path = fields.require(decoder, "path", decode_path);
        let service = fields.require(decoder, "service", |decoder, node| {
            let name = decoder.text(node)?;
            if is_name(&name, "") {
                return Some(name);
            }
            let help = "letters, digits, `-`, `_` and `.`, without `@file`";
            let message = "this cannot be the name of a weighted service";
            decoder.error(codes::INVALID_NAME, node.span, message, help);
            None
        });
        let services = fields.require(decoder, "services", |decoder, node| {
            let services = names_by_slot(decoder, node, place)?;
            let Some(wrong) = services.values().find(|name| !is_name(name, "@")) else {
                return Some(services);
            };
            let message = format!("`{}` cannot be a service", crate::units::shown(wrong));
            let help =
                "letters, digits, `-`, `_` and `.`; with `@docker` for one of another provider";
            decoder.error(codes::INVALID_NAME, node.span, message, help);
            None
        });
        let api = fields.require(decoder, "api", decode_url);
        let auth = decode_auth(decoder, &mut fields);
        fields.finish(decoder);
        Some(Self { path: path?, service: service?, services: services?, api: api?, auth })
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

#[cfg(feature = "files")]
fn is_name(name: &str, others: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || others.contains(c);
    !name.is_empty() && name.chars().all(fits)
}
