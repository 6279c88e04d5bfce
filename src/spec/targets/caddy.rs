//! Caddy, by its admin API.

use std::collections::BTreeMap;

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node, fleet_file::decode_url};
use crate::units::{Millis, SlotName};

/// Two upstreams of a `reverse_proxy` handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Caddy {
    /// Base URL of the admin API.
    pub admin: String,
    /// The handler's `@id`.
    pub id: String,
    /// Slot → dial address of an upstream, as the handler spells it.
    pub upstreams: BTreeMap<SlotName, String>,
    /// Caddy is started with `--resume`, so that it comes back with what it was told last.
    pub persisted: bool,
}

impl Caddy {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Hundredths,
            weights_survive_restart: self.persisted,
            sees_instances: false,
            fencing: Fencing::CompareAndSet,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::None,
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let admin = fields.require(decoder, "admin", decode_url);
        let id = fields.require(decoder, "id", decode_id);
        let upstreams = fields
            .require(decoder, "upstreams", |decoder, node| names_by_slot(decoder, node, place));
        let persisted = fields.get(decoder, "persisted", Decoder::truth).unwrap_or_default();
        fields.finish(decoder);
        Some(Self { admin: admin?, id: id?, upstreams: upstreams?, persisted })
    }
}

/// It stands in paths, and before the generation in an `@id` of Tidegate's own.
#[cfg(feature = "files")]
fn decode_id(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let id = decoder.text(node)?;
    let is_plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if is_plain && id.chars().any(|c| c != '.') {
        return Some(id);
    }
    let help = "give the `reverse_proxy` handler an `@id` of letters, digits, `-`, `_` and `.`";
    decoder.error(codes::INVALID_NAME, node.span, "this cannot be the `@id` of a handler", help);
    None
}
