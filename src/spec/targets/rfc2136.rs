//! A name in a zone of any name server that takes dynamic updates (RFC 2136).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::{dns, file};
use crate::spec::fleet::Secret;
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node, fleet_file};
use crate::units::{Millis, SlotName};

/// One name of a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Rfc2136 {
    /// The zone's primary: host and port.
    pub server: String,
    /// The zone, in lower case without the last dot.
    pub zone: String,
    /// The whole name, in lower case without the last dot.
    pub name: String,
    /// How long users keep an answer.
    pub ttl: Millis,
    /// What signs questions and updates.
    pub key: TsigKey,
    /// What stands behind the name.
    pub records: NameRecords,
}

/// A key that both sides know; HMAC-SHA256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// Its name, in lower case without the last dot.
    pub name: String,
    /// Its secret, in base64.
    pub secret: Secret,
}

/// What stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRecords {
    /// Slot → service, with weights.
    Srv(BTreeMap<SlotName, SrvTarget>),
    /// Slot → addresses, at least one each, of which either all or none are in force.
    Address(BTreeMap<SlotName, Vec<IpAddr>>),
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SrvTarget {
    /// The host, in lower case without the last dot.
    pub target: String,
    /// The port.
    pub port: u16,
}

impl Rfc2136 {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: match self.records {
                NameRecords::Srv(_) => Steps::Hundredths,
                NameRecords::Address(_) => Steps::Ends,
            },
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::CompareAndSet,
            effect_lag: self.ttl,
            mirror: Mirroring::None,
            sees_requests: false,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(
        decoder: &mut Decoder,
        node: &Node,
        place: &file::Place<'_>,
    ) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let server = fields.require(decoder, "server", dns::host_and_port);
        let named = dns::name_in_zone(decoder, &mut fields);
        let ttl = fields.get(decoder, "ttl", dns::ttl).unwrap_or(dns::TTL_DEFAULT);
        let key = fields.require(decoder, "key", |decoder, node| {
            let mut fields = decoder.fields(node)?;
            let name = fields.require(decoder, "name", dns::domain);
            let secret = fields.require(decoder, "secret", fleet_file::decode_secret);
            fields.finish(decoder);
            Some(TsigKey { name: name?, secret: secret? })
        });
        let services =
            fields.get(decoder, "srv", |decoder, node| decode_services(decoder, node, place));
        let addresses = fields
            .get(decoder, "address", |decoder, node| dns::addresses(decoder, node, place, None));
        if fields.key_span("srv").is_some() == fields.key_span("address").is_some() {
            let help =
                "`srv` has weights for clients that ask for them; `address` is all or nothing";
            let message = "a name has exactly one of `srv` and `address`";
            decoder.error(codes::INVALID_VALUE, node.span, message, help);
        }
        fields.finish(decoder);
        let (zone, name) = named?;
        let records = services.map(NameRecords::Srv).or(addresses.map(NameRecords::Address));
        Some(Self { server: server?, zone, name, ttl, key: key?, records: records? })
    }
}

#[cfg(feature = "files")]
fn decode_services(
    decoder: &mut Decoder,
    node: &Node,
    place: &file::Place<'_>,
) -> Option<BTreeMap<SlotName, SrvTarget>> {
    let services = file::by_slot(decoder, node, place, |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let target = fields.require(decoder, "target", dns::domain);
        let port = fields.require(decoder, "port", |decoder, node| decoder.count(node, 1, 65_535));
        fields.finish(decoder);
        Some(SrvTarget { target: target?, port: u16::try_from(port?).ok()? })
    })?;
    let mut all = services.values();
    if all.next() == all.next() {
        let help = "each slot needs a target, or at least a port, of its own";
        decoder.error(codes::SLOTS, node.span, "both slots are the same service", help);
        return None;
    }
    Some(services)
}
