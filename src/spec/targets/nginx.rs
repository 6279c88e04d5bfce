//! nginx, by an included file that Tidegate writes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::affinity::{Affinity, Keeping};
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node, fleet_file::decode_url};
use crate::units::{Millis, SlotName};

/// A variable of nginx that holds the name of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Nginx {
    /// The included file; nobody else writes it.
    pub include: PathBuf,
    /// The variable, without `$`.
    pub variable: String,
    /// What decides who goes where: variables and plain text.
    pub key: String,
    /// Users stay on one arm; `key` says nothing then.
    pub affinity: Option<Affinity>,
    /// Slot → what the variable holds: the name of an upstream, or a host and port.
    pub upstreams: BTreeMap<SlotName, String>,
    /// The location that shows what is in force.
    pub status: String,
    /// Tests the configuration.
    pub test: Vec<String>,
    /// Puts it into force.
    pub reload: Vec<String>,
}

/// A new one for each request.
#[cfg(feature = "files")]
const BY_REQUEST: &str = "$request_id";

impl Nginx {
    fn keeping(&self) -> Keeping {
        match &self.affinity {
            Some(_) => Keeping::Users,
            None if self.key.contains("request_id") => Keeping::Nobody,
            None => Keeping::OwnKey,
        }
    }

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
            keeps_users: self.keeping(),
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let include = fields.require(decoder, "include", Decoder::text).map(PathBuf::from);
        let variable = fields.require(decoder, "variable", decode_variable);
        let key = fields.get(decoder, "key", decode_key);
        let upstreams = fields.require(decoder, "upstreams", |decoder, node| {
            let upstreams = names_by_slot(decoder, node, place)?;
            let wrong = upstreams.values().find(|name| !consists(name, UPSTREAM));
            match wrong {
                None => Some(upstreams),
                Some(name) => {
                    let message = format!("`{}` cannot be an upstream", crate::units::shown(name));
                    let help = "a name of letters, digits, `-`, `_` and `.`, or a host and port";
                    decoder.error(codes::INVALID_NAME, node.span, message, help);
                    None
                }
            }
        });
        let status = fields.require(decoder, "status", decode_status);
        let mut command = |decoder: &mut Decoder, key, default: &[&str]| {
            let given = fields.get(decoder, key, |decoder, node| {
                let words = decoder.each(node, Decoder::text)?;
                if words.is_empty() {
                    let message = "a command has at least the name of its program";
                    decoder.error(codes::INVALID_VALUE, node.span, message, "");
                }
                Some(words)
            });
            given.unwrap_or_else(|| default.iter().map(|word| (*word).to_owned()).collect())
        };
        let test = command(decoder, "test", &["nginx", "-t", "-q"]);
        let reload = command(decoder, "reload", &["nginx", "-s", "reload"]);
        if let Some(span) = fields.key_span("key").filter(|_| place.affinity.is_some()) {
            let message = "the service's `affinity` says what tells users apart";
            decoder.error(codes::AFFINITY, span, message, "leave `key` out");
        }
        let affinity = place.affinity.cloned();
        fields.finish(decoder);
        let (include, variable, upstreams) = (include?, variable?, upstreams?);
        let key = key.unwrap_or_else(|| BY_REQUEST.to_owned());
        Some(Self { include, variable, key, affinity, upstreams, status: status?, test, reload })
    }
}

/// What may stand in the include, besides letters and digits: nothing that ends a word there.
#[cfg(feature = "files")]
const UPSTREAM: &str = "-_.:";
#[cfg(feature = "files")]
const KEY: &str = "-_.:${}";
/// And what may stand in the path of the status, which nginx compares after it has decoded it.
#[cfg(feature = "files")]
const PATH: &str = "-_./";

#[cfg(feature = "files")]
fn consists(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(feature = "files")]
fn decode_variable(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let text = decoder.text(node)?;
    let name = text.strip_prefix('$').filter(|name| consists(name, "_"));
    if name.is_none() {
        let help = "write for example `variable: $web_pool`";
        decoder.error(codes::INVALID_NAME, node.span, "this is no variable of nginx", help);
    }
    name.map(str::to_owned)
}

#[cfg(feature = "files")]
fn decode_key(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let text = decoder.text(node)?;
    if consists(&text, KEY) && text.contains('$') {
        return Some(text);
    }
    let help = "write variables, for example `$request_id` or `${remote_addr}${http_user_agent}`";
    decoder.error(codes::INVALID_VALUE, node.span, "requests cannot be told apart by this", help);
    None
}

/// A path of its own and no query: it stands in the include, too.
#[cfg(feature = "files")]
fn decode_status(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let url = decode_url(decoder, node)?;
    let path = url.split_once("://").and_then(|(_, rest)| Some(rest.split_once('/')?.1));
    if path.is_some_and(|path| consists(path, PATH) && !path.contains("..") && !path.contains("//"))
    {
        return Some(url);
    }
    let help = "write for example `status: \"http://127.0.0.1:8080/tidegate/web\"`";
    decoder.error(codes::INVALID_URL, node.span, "the status needs a plain path of its own", help);
    None
}
