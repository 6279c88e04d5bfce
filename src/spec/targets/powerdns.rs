//! A name in a zone of PowerDNS, whose addresses are picked by weight.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
use super::dns::Family;
#[cfg(feature = "files")]
use super::{dns, file::Place};
use crate::spec::fleet::Secret;
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node, fleet_file};
use crate::units::{Millis, SlotName};

/// One name and type of a zone that PowerDNS serves.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerDns {
    /// Its HTTP API, without `/api/v1`.
    pub api: String,
    /// The API's key.
    pub key: Secret,
    /// What the API calls the server.
    pub server: String,
    /// The zone, in lower case without the last dot.
    pub zone: String,
    /// The whole name, in lower case without the last dot.
    pub name: String,
    /// What kind of addresses it has.
    pub family: Family,
    /// How long users keep an answer.
    pub ttl: Millis,
    /// Slot → addresses, at least one each.
    pub addresses: BTreeMap<SlotName, Vec<IpAddr>>,
    /// A name server that is asked when reading back.
    pub resolver: Option<SocketAddr>,
}

impl PowerDns {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Hundredths,
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: self.ttl,
            mirror: Mirroring::None,
            sees_requests: false,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let api = fields.require(decoder, "api", fleet_file::decode_url);
        let key = fields.require(decoder, "key", fleet_file::decode_secret);
        let server = fields.get(decoder, "server", |decoder, node| {
            let name = decoder.text(node)?;
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            if !is_name {
                let help = "letters, digits, `-` and `_`; PowerDNS calls itself `localhost`";
                decoder.error(codes::INVALID_NAME, node.span, "this is no server's name", help);
            }
            Some(name)
        });
        let named = dns::name_in_zone(decoder, &mut fields);
        let families = [("A", Family::A), ("AAAA", Family::Aaaa)];
        let family = fields
            .get(decoder, "type", |decoder, node| decoder.choice(node, &families))
            .unwrap_or(Family::A);
        let ttl = fields.get(decoder, "ttl", dns::ttl).unwrap_or(dns::TTL_DEFAULT);
        let addresses = fields.require(decoder, "addresses", |decoder, node| {
            dns::addresses(decoder, node, place, Some(family))
        });
        let resolver = fields.get(decoder, "resolver", |decoder, node| {
            let help = "write an address and a port, such as 192.0.2.53:53";
            decoder.parsed(node, codes::INVALID_VALUE, help, str::parse::<SocketAddr>)
        });
        fields.finish(decoder);
        let (zone, name) = named?;
        let server = server.unwrap_or_else(|| "localhost".to_owned());
        let (api, key, addresses) = (api?, key?, addresses?);
        Some(Self { api, key, server, zone, name, family, ttl, addresses, resolver })
    }
}
