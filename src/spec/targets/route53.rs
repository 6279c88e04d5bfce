//! Amazon Route 53: the weights of two record sets of one name.

use std::collections::BTreeMap;

use super::affinity::Keeping;
use super::aws::AwsAccess;
#[cfg(feature = "files")]
use super::aws::decode_access;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node};
use crate::units::{Millis, SlotName};

/// Two weighted record sets of one name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route53 {
    /// How AWS is asked.
    pub access: AwsAccess,
    /// The id of the hosted zone.
    pub zone: String,
    /// The name of the records, in small letters and without the last dot.
    pub name: String,
    /// Their type.
    pub record: RecordKind,
    /// Slot → the `SetIdentifier` of its records.
    pub set_identifiers: BTreeMap<SlotName, String>,
}

/// The types of records that lead to servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Another name.
    Cname,
}

impl RecordKind {
    /// As DNS writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
        }
    }
}

impl Route53 {
    /// AWS's largest weight of a record.
    const WEIGHT_MAX: u32 = 255;

    /// What it can do.
    ///
    /// AWS refuses a change over a marker that is no longer what was read, by its documentation: that would be grade A. The
    /// emulator that the tests have does not, so no more is claimed than what they show.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Pairs(Self::WEIGHT_MAX),
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::None,
            sees_requests: false,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        // DNS is the same everywhere; its API is in one region of each partition.
        let access = decode_access(decoder, &mut fields, Some("us-east-1"));
        let zone = fields.require(decoder, "zone", |decoder, node| {
            let help = "write the id of the hosted zone, such as Z0123456789ABCDEFGHIJ";
            decoder.parsed(node, codes::INVALID_NAME, help, |text| {
                let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
                let fits = text.len() <= 32 && text.chars().all(plain);
                if fits { Ok(text.to_owned()) } else { Err("this is no id of a hosted zone") }
            })
        });
        let name = fields.require(decoder, "name", |decoder, node| {
            let help = "write the whole name, such as www.example.org";
            decoder.parsed(node, codes::INVALID_NAME, help, plain_name)
        });
        let record = fields.require(decoder, "type", |decoder, node| {
            let kinds = [RecordKind::A, RecordKind::Aaaa, RecordKind::Cname];
            decoder.choice(node, &kinds.map(|kind| (kind.as_str(), kind)))
        });
        let sets_at = fields.key_span("set_identifiers");
        let sets = fields.require(decoder, "set_identifiers", |decoder, node| {
            names_by_slot(decoder, node, place)
        });
        fields.finish(decoder);
        let set_identifiers = sets?;
        let wrong = |id: &&String| id.len() > 128 || id.chars().any(char::is_control);
        if let Some(id) = set_identifiers.values().find(wrong) {
            let message = format!("`{}` cannot be a set identifier", crate::units::shown(id));
            let help = "AWS takes 1 to 128 characters";
            decoder.error(codes::INVALID_NAME, sets_at.unwrap_or(node.span), message, help);
            return None;
        }
        let (access, zone, name, record) = (access?, zone?, name?, record?);
        Some(Self { access, zone, name, record, set_identifiers })
    }
}

/// In small letters and without the last dot; short enough for the marker's name before it.
#[cfg(feature = "files")]
fn plain_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(letters);
    let fits = name.len() <= 230 && name.contains('.') && name.split('.').all(label);
    if fits { Ok(name) } else { Err("this is no name of a record") }
}
