//! Who is told, as the fleet file says it.

use std::collections::BTreeMap;

use super::codes;
use super::decode::{Decoder, Fields};
use super::file::{Node, Value};
use super::fleet::{Notify, NotifyKind};
use super::fleet_file::{decode_secret, decode_url};

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
                let help = "exactly one of webhook, slack, pagerduty, alertmanager, command";
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
    [webhook, slack, pagerduty, alertmanager, command].into_iter().flatten().collect()
}
