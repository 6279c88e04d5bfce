//! Users who stay on one arm: what a service says of them, and which balancers can see to it.
//!
//! Nobody is sent by an arm's name, so that nobody is left there: a value that the user brings along (a cookie or header
//! of the service's own) is hashed, and the weights cut the range of hashes in two. A raise only moves users to the
//! canary, a rollback moves all of them back. Requests without that value are drawn anew each time.

use serde::{Deserialize, Serialize};

#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node};

#[cfg(feature = "files")]
const NAME_MAX: usize = 64;

/// What a service says of its users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// What tells them apart.
    pub by: UserKey,
    /// Requests that one user sends at most while one version is rolled out. They share their luck, so evidence
    /// counts them as one.
    pub requests_per_user: u32,
}

/// What tells users apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserKey {
    /// The cookie of this name, which the service gives.
    Cookie(String),
    /// The request header of this name.
    Header(String),
}

/// How a balancer keeps users on an arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// It does not, or not so that a rollback reaches them.
    Nobody,
    /// Those that `affinity` tells apart.
    Users,
    /// Those that a key of its own tells apart, whatever `affinity` says.
    OwnKey,
}

impl Affinity {
    #[cfg(feature = "files")]
    pub(in crate::spec) fn decode(decoder: &mut Decoder, node: &Node) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let cookie =
            fields.get(decoder, "cookie", |decoder, node| decode_name(decoder, node, plain));
        let header = fields.get(decoder, "header", |decoder, node| {
            decode_name(decoder, node, |c| plain(c) || c == '-')
        });
        let both = ["cookie", "header"].map(|key| fields.key_span(key).is_some());
        if both[0] == both[1] {
            let message = "users are told apart by one cookie or one header";
            let help = "write for example `cookie: session`";
            decoder.error(codes::AFFINITY, fields.span, message, help);
        }
        let requests = fields.require(decoder, "requests_per_user", |decoder, node| {
            decoder.count(node, 1, 1_000_000)
        });
        fields.finish(decoder);
        let by = cookie.map(UserKey::Cookie).or(header.map(UserKey::Header))?;
        Some(Self { by, requests_per_user: requests? })
    }
}

/// A name that is one word for every balancer.
#[cfg(feature = "files")]
fn decode_name(decoder: &mut Decoder, node: &Node, plain: impl Fn(char) -> bool) -> Option<String> {
    let name = decoder.text(node)?;
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) {
        let help = "letters, digits and `_`, for a header also `-`; at most 64";
        decoder.error(
            codes::INVALID_NAME,
            node.span,
            "this is no name of a cookie or header",
            help,
        );
        return None;
    }
    Some(name)
}
