//! Users who stay on one arm: what a service says of it, and which balancers can do it.
//!
//! Nobody is sent by an arm's name, so that nobody is left there: a user's own value (a cookie, a key) is hashed, and the
//! weights cut the range of hashes in two. A raise only moves users to the canary, a rollback moves all of them back.

use serde::{Deserialize, Serialize};

#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node};
use crate::units::Millis;

/// Longest life of the cookie; browsers keep none for longer.
#[cfg(feature = "files")]
const LASTS_MAX: Millis = Millis::from_secs(400 * 86_400);
#[cfg(feature = "files")]
const NAME_MAX: usize = 64;
#[cfg(feature = "files")]
const COOKIE: &str = "tidegate";

/// What a service says of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// Name of the cookie, where the balancer gives one.
    pub cookie: String,
    /// How long the cookie lasts; default a day.
    pub lasts: Millis,
    /// Requests that one user sends at most while one version is rolled out. They share their luck, so evidence
    /// counts them as one.
    pub requests_per_user: u32,
}

/// How a balancer keeps users on an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// It does not, or not so that a rollback reaches them.
    Nobody,
    /// By a cookie that it gives them.
    Cookie,
    /// By a key that the operator names.
    Key,
}

impl Affinity {
    #[cfg(feature = "files")]
    pub(in crate::spec) fn decode(decoder: &mut Decoder, node: &Node) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let cookie = fields.get(decoder, "cookie", decode_cookie);
        let lasts = fields.get(decoder, "lasts", Decoder::positive);
        let lasts = lasts.unwrap_or(Millis::from_secs(86_400));
        if lasts > LASTS_MAX || lasts.0 % 1_000 != 0 {
            let span = fields.key_span("lasts").unwrap_or(node.span);
            let message = "a cookie lasts whole seconds, at most 400 days";
            decoder.error(codes::INVALID_VALUE, span, message, "write for example 24h");
        }
        let requests = fields.require(decoder, "requests_per_user", |decoder, node| {
            decoder.count(node, 1, 1_000_000)
        });
        fields.finish(decoder);
        let cookie = cookie.unwrap_or_else(|| COOKIE.to_owned());
        Some(Self { cookie, lasts, requests_per_user: requests? })
    }
}

#[cfg(feature = "files")]
fn decode_cookie(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let name = decoder.text(node)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
        let help = "letters, digits, `_` and `-`";
        decoder.error(codes::INVALID_NAME, node.span, "this is no cookie's name", help);
        return None;
    }
    Some(name)
}
