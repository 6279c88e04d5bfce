//! HAProxy, by its runtime API.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::{Place, names_by_slot};
#[cfg(feature = "files")]
use crate::spec::{codes, decode::Decoder, file::Node};
use crate::units::{Millis, SlotName};

/// Two servers of an HAProxy backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Haproxy {
    /// Its runtime API.
    pub socket: HaproxySocket,
    /// The backend.
    pub backend: String,
    /// Slot → server of the backend.
    pub servers: BTreeMap<SlotName, String>,
}

/// Where HAProxy's runtime API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaproxySocket {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(std::net::SocketAddr),
}

impl Haproxy {
    /// HAProxy's largest weight.
    const WEIGHT_MAX: u32 = 256;

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            steps: Steps::Pairs(Self::WEIGHT_MAX),
            weights_survive_restart: false,
            sees_instances: false,
            fencing: Fencing::Process,
            effect_lag: Millis::ZERO,
            mirror: Mirroring::None,
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, place: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let socket = fields.require(decoder, "socket", |decoder, node| {
            let text = decoder.text(node)?;
            Some(text.parse().map_or_else(|_| HaproxySocket::Unix(text.into()), HaproxySocket::Tcp))
        });
        // Names end up in commands: nothing but a name may stand there.
        let backend = fields.require(decoder, "backend", |decoder, node| {
            let name = decoder.text(node)?;
            if !is_name(&name) {
                let message = "this is no name of a backend";
                decoder.error(codes::INVALID_NAME, node.span, message, NAME);
                return None;
            }
            Some(name)
        });
        let servers =
            fields.require(decoder, "servers", |decoder, node| names_by_slot(decoder, node, place));
        fields.finish(decoder);
        let servers = servers?;
        if let Some(name) = servers.values().find(|name| !is_name(name)) {
            let message = format!("`{}` cannot be the name of a server", crate::units::shown(name));
            decoder.error(codes::INVALID_NAME, node.span, message, NAME);
            return None;
        }
        Some(Self { socket: socket?, backend: backend?, servers })
    }
}

#[cfg(feature = "files")]
const NAME: &str = "HAProxy's names are letters, digits, `-`, `_`, `.` and `:`";

#[cfg(feature = "files")]
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}
