//! Names, addresses and lifetimes of DNS, as targets of several kinds need them.

use std::net::IpAddr;

#[cfg(feature = "files")]
use crate::units::Millis;

/// What kind of addresses a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `A`: addresses of IPv4.
    A,
    /// `AAAA`: addresses of IPv6.
    Aaaa,
}

impl Family {
    /// The type of its records.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
        }
    }

    /// The one of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::A } else { Self::Aaaa }
    }
}

/// How long an answer is kept when the fleet does not say.
#[cfg(feature = "files")]
pub(super) const TTL_DEFAULT: Millis = Millis::from_secs(5);

#[cfg(feature = "files")]
pub(super) use decode::{addresses, domain, host_and_port, name_in_zone, ttl};

#[cfg(feature = "files")]
mod decode {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use super::Family;
    use crate::spec::codes;
    use crate::spec::decode::{Decoder, Fields};
    use crate::spec::file::Node;
    use crate::spec::targets::file::{Place, by_slot};
    use crate::units::{Millis, SlotName, shown};

    const ADDRESSES_MAX: usize = 16;
    const TTL_MAX: Millis = Millis::from_secs(86_400);
    const DOMAIN: &str =
        "a domain name is letters, digits, `-` and `_` with dots between, at most 253 characters";

    /// A domain name in lower case, without the dot at its end.
    pub(in crate::spec::targets) fn domain(decoder: &mut Decoder, node: &Node) -> Option<String> {
        let text = decoder.text(node)?.to_ascii_lowercase();
        let name = text.strip_suffix('.').unwrap_or(&text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        if name.len() <= 253 && name.split('.').all(is_label) {
            return Some(name.to_owned());
        }
        let message = format!("`{}` is no domain name", shown(&text));
        decoder.error(codes::INVALID_NAME, node.span, message, DOMAIN);
        None
    }

    /// The keys `zone` and `name`, of which the second one lies in the first.
    pub(in crate::spec::targets) fn name_in_zone(
        decoder: &mut Decoder,
        fields: &mut Fields<'_>,
    ) -> Option<(String, String)> {
        let zone = fields.require(decoder, "zone", domain);
        let name = fields.require(decoder, "name", domain);
        let (zone, name) = (zone?, name?);
        if name == zone || name.ends_with(&format!(".{zone}")) {
            return Some((zone, name));
        }
        let span = fields.key_span("name").unwrap_or(fields.span);
        let help = "write the whole name: www.example.org in the zone example.org";
        decoder.error(
            codes::INVALID_NAME,
            span,
            format!("`{name}` is not in the zone `{zone}`"),
            help,
        );
        None
    }

    /// A lifetime in whole seconds; zero means that nobody keeps an answer.
    pub(in crate::spec::targets) fn ttl(decoder: &mut Decoder, node: &Node) -> Option<Millis> {
        let time = decoder.duration(node)?;
        if time <= TTL_MAX && time.0.is_multiple_of(1_000) {
            return Some(time);
        }
        let message = format!("{time} is no lifetime of an answer");
        let help = "whole seconds from 0s to 1d";
        decoder.error(codes::INVALID_DURATION, node.span, message, help);
        None
    }

    /// Each slot's own addresses, all of one family where one is given.
    pub(in crate::spec::targets) fn addresses(
        decoder: &mut Decoder,
        node: &Node,
        place: &Place<'_>,
        family: Option<Family>,
    ) -> Option<BTreeMap<SlotName, Vec<IpAddr>>> {
        let mut seen = BTreeSet::new();
        by_slot(decoder, node, place, |decoder, node| {
            let found = decoder.each(node, |decoder, node| {
                let help = "write an address such as 192.0.2.1 or 2001:db8::1";
                let parse = |text: &str| text.parse::<IpAddr>();
                let address = decoder.parsed(node, codes::INVALID_VALUE, help, parse)?;
                if let Some(family) = family.filter(|family| *family != Family::of(address)) {
                    let message = format!("{address} is no address of type {}", family.says());
                    let help = "one target per type: the key `type` says which";
                    decoder.error(codes::INVALID_VALUE, node.span, message, help);
                }
                if !seen.insert(address) {
                    let message = format!("{address} stands here twice");
                    let help = "each slot has addresses of its own";
                    decoder.error(codes::SLOTS, node.span, message, help);
                }
                Some(address)
            })?;
            if (1..=ADDRESSES_MAX).contains(&found.len()) {
                return Some(found);
            }
            let message = format!("a slot has 1 to {ADDRESSES_MAX} addresses, not {}", found.len());
            decoder.error(codes::INVALID_VALUE, node.span, message, "");
            None
        })
    }

    /// `host:port`; the host is a name or an address.
    pub(in crate::spec::targets) fn host_and_port(
        decoder: &mut Decoder,
        node: &Node,
    ) -> Option<String> {
        let text = decoder.text(node)?;
        let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        let is_host = |host: &str| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let named = text.rsplit_once(':').is_some_and(|(host, end)| is_host(host) && port(end));
        if named || text.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() > 0) {
            return Some(text);
        }
        let message = format!("`{}` is no host and port", shown(&text));
        let help = "write for example ns1.example.org:53, 192.0.2.53:53 or [2001:db8::53]:53";
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
        None
    }
}
