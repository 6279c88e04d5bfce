//! Who is told, as the fleet file says it.

use std::collections::{BTreeMap, BTreeSet};

use super::codes;
use super::decode::{Decoder, Fields};
use super::file::{Node, Value};
use super::fleet::{Email, Level, Notify, NotifyKind};
use super::fleet_file::{decode_secret, decode_url};
use crate::units::{Millis, RegionName, shown};

/// Most targets.
const TARGETS_MAX: usize = 100;
/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// Decodes the mapping from names to targets.
pub(super) fn decode(decoder: &mut Decoder, node: &Node) -> Option<BTreeMap<String, Notify>> {
    let Value::Map(entries) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    if entries.len() > TARGETS_MAX {
        let message = format!("more than {TARGETS_MAX} targets");
        decoder.error(codes::TOO_MANY, node.span, message, "let one of them tell the others");
    }
    let mut targets = BTreeMap::new();
    for (key, node) in entries.iter().take(TARGETS_MAX) {
        // A folder has this name.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if key.text.is_empty() || key.text.len() > 63 || !key.text.chars().all(plain) {
            let help = "write up to 63 letters, digits, `-` and `_`";
            decoder.error(codes::INVALID_NAME, key.span, "this cannot name a target", help);
            continue;
        }
        let Some(mut fields) = decoder.fields(node) else { continue };
        let pages_only = fields.get(decoder, "pages_only", |decoder, node| {
            decoder.choice(node, &[("true", true), ("false", false)])
        });
        let kinds = kinds(decoder, &mut fields);
        fields.finish(decoder);
        let mut kinds = kinds.into_iter();
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => {
                let only = pages_only.unwrap_or(matches!(kind, NotifyKind::PagerDuty { .. }));
                targets.insert(key.text.clone(), Notify { kind, pages_only: only });
            }
            _ => {
                let help = "exactly one of webhook, slack, pagerduty, alertmanager, email, command";
                decoder.error(codes::MISSING_KEY, key.span, "how is this target told?", help);
            }
        }
    }
    Some(targets)
}

fn kinds(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Vec<NotifyKind> {
    let webhook = fields.get(decoder, "webhook", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let url = fields.require(decoder, "url", decode_url);
        let secret = fields.require(decoder, "secret", decode_secret);
        fields.finish(decoder);
        Some(NotifyKind::Webhook { url: url?, secret: secret? })
    });
    let slack = fields.get(decoder, "slack", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let url = fields.require(decoder, "url", decode_secret);
        fields.finish(decoder);
        Some(NotifyKind::Slack { url: url? })
    });
    let pagerduty = fields.get(decoder, "pagerduty", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let routing_key = fields.require(decoder, "routing_key", decode_secret);
        let url = fields.get(decoder, "url", decode_url);
        fields.finish(decoder);
        let url = url.unwrap_or_else(|| PAGERDUTY.to_owned());
        Some(NotifyKind::PagerDuty { routing_key: routing_key?, url })
    });
    let alertmanager = fields.get(decoder, "alertmanager", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let url = fields.require(decoder, "url", decode_url);
        fields.finish(decoder);
        Some(NotifyKind::Alertmanager { url: url? })
    });
    let command = fields.get(decoder, "command", |decoder, node| {
        let command = decoder.each(node, Decoder::text)?;
        Some(NotifyKind::Command(command)).filter(|kind| *kind != NotifyKind::Command(Vec::new()))
    });
    let email = fields.get(decoder, "email", decode_email).map(NotifyKind::Email);
    [webhook, slack, pagerduty, alertmanager, email, command].into_iter().flatten().collect()
}

fn decode_email(decoder: &mut Decoder, node: &Node) -> Option<Email> {
    let mut fields = decoder.fields(node)?;
    let server = fields.require(decoder, "server", Decoder::text);
    let port = fields.get(decoder, "port", |decoder, node| decoder.count(node, 1, 65_535));
    let from = fields.require(decoder, "from", address);
    let to = fields.require(decoder, "to", |decoder, node| {
        let to = decoder.each(node, address)?;
        if to.is_empty() {
            decoder.error(codes::INVALID_VALUE, node.span, "nobody receives it", "name an address");
        }
        Some(to)
    });
    let login = fields.get(decoder, "login", |decoder, node| {
        let mut fields = decoder.fields(node)?;
        let username = fields.require(decoder, "username", Decoder::text);
        let password = fields.require(decoder, "password", decode_secret);
        fields.finish(decoder);
        Some((username?, password?))
    });
    fields.finish(decoder);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(587);
    Some(Email { server: server?, port, from: from?, to: to?, login })
}

fn address(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let text = decoder.text(node)?;
    let odd = text.chars().any(|c| c.is_control() || c.is_whitespace());
    let plain =
        text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if odd || !plain {
        let help = "write an address such as ops@example.org";
        decoder.error(codes::INVALID_VALUE, node.span, "this is no e-mail address", help);
        return None;
    }
    Some(text)
}

/// Names and delays of the levels that say none.
const LEVELS: [(&str, u64); 4] = [
    ("regional_operations", 0),
    ("global_platform", 5),
    ("executive_leadership", 15),
    ("crisis_management", 30),
];

/// A list of levels, the first one first.
pub(super) fn decode_escalation(
    decoder: &mut Decoder,
    node: &Node,
    targets: &BTreeMap<String, Notify>,
    regions: &BTreeSet<RegionName>,
) -> Option<Vec<Level>> {
    let mut levels: Vec<Level> = Vec::new();
    for (number, node) in decoder.each(node, |_, node| Some(node.clone()))?.iter().enumerate() {
        let Some((name, minutes)) = LEVELS.get(number) else {
            let message = format!("more than {} levels", LEVELS.len());
            decoder.error(codes::TOO_MANY, node.span, message, "let one of them be the last");
            break;
        };
        let mut fields = decoder.fields(node)?;
        let own = fields.get(decoder, "name", Decoder::text);
        let after = fields.get(decoder, "after", Decoder::duration);
        let names = |decoder: &mut Decoder, node: &Node| {
            decoder.each(node, |decoder, node| target(decoder, node, targets))
        };
        let notify = fields.require(decoder, "notify", names);
        let own_regions = fields.get(decoder, "regions", |decoder, node| {
            let Value::Map(map) = &node.value else {
                let _ = decoder.fields(node);
                return None;
            };
            let mut own = BTreeMap::new();
            for (key, node) in map {
                let known = key.text.parse().ok().filter(|it: &RegionName| regions.contains(it));
                let Some(region) = known else {
                    let message = format!("there is no region `{}`", shown(&key.text));
                    decoder.error(codes::UNKNOWN_REGION, key.span, message, "");
                    continue;
                };
                own.extend(names(decoder, node).map(|names| (region, names)));
            }
            Some(own)
        });
        fields.finish(decoder);
        let after = after.unwrap_or(Millis::from_secs(60 * minutes));
        if levels.last().is_some_and(|before| before.after >= after) {
            let message = "a level comes later than the one before it";
            decoder.error(codes::INVALID_VALUE, node.span, message, "write a longer `after`");
        }
        let name = own.unwrap_or_else(|| (*name).to_owned());
        levels.push(Level {
            name,
            after,
            notify: notify?,
            regions: own_regions.unwrap_or_default(),
        });
    }
    Some(levels)
}

fn target(
    decoder: &mut Decoder,
    node: &Node,
    targets: &BTreeMap<String, Notify>,
) -> Option<String> {
    let name = decoder.text(node)?;
    if !targets.contains_key(&name) {
        let names: Vec<_> = targets.keys().map(String::as_str).collect();
        let message = format!("`notify` has no `{}`", shown(&name));
        let help = format!("there are: {}", names.join(", "));
        decoder.error(codes::INVALID_VALUE, node.span, message, help);
        return None;
    }
    Some(name)
}
