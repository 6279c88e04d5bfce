//! Load balancers that the operator brings along: an HTTP endpoint or a program that speaks our protocol.

use super::affinity::Keeping;
use super::capabilities::{Capabilities, Fencing, Mirroring, Steps};
#[cfg(feature = "files")]
use super::file::Place;
#[cfg(feature = "files")]
use crate::spec::decode::{Decoder, Fields};
use crate::spec::fleet::Auth;
#[cfg(feature = "files")]
use crate::spec::{codes, file::Node, fleet_file::decode_auth, fleet_file::decode_url};
use crate::units::Millis;

/// An endpoint: `PUT` what is wanted, `GET` what is.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnHttp {
    /// Where.
    pub url: String,
    /// Credentials.
    pub auth: Option<Auth>,
    /// What it says of itself.
    pub abilities: Abilities,
}

/// A program: JSON in, JSON out.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnProgram {
    /// The program and its arguments; there is no shell.
    pub command: Vec<String>,
    /// Longest time of one call.
    pub timeout: Millis,
    /// What it says of itself.
    pub abilities: Abilities,
}

/// What the operator says of a balancer that we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Its largest weight, where it has whole weights of its own.
    pub weight_max: Option<u32>,
    /// Its weights outlive its restart.
    pub keeps_weights: bool,
    /// It keeps the generation, and refuses an older one.
    pub keeps_generation: bool,
    /// It can copy requests to a slot.
    pub copies: bool,
}

impl Abilities {
    fn capabilities(self) -> Capabilities {
        Capabilities {
            steps: self.weight_max.map_or(Steps::Hundredths, Steps::Pairs),
            weights_survive_restart: self.keeps_weights,
            sees_instances: true,
            fencing: if self.keeps_generation { Fencing::Marker } else { Fencing::Process },
            effect_lag: Millis::ZERO,
            mirror: if self.copies { Mirroring::Hundredths } else { Mirroring::None },
            sees_requests: true,
            keeps_users: Keeping::Nobody,
        }
    }

    #[cfg(feature = "files")]
    fn decode(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Self {
        let weight_max =
            fields.get(decoder, "weight_max", |decoder, node| decoder.count(node, 100, 1_000_000));
        let mut says = |key| fields.get(decoder, key, Decoder::truth);
        let keeps_weights = says("keeps_weights").unwrap_or(false);
        let keeps_generation = says("keeps_generation").unwrap_or(false);
        let copies = says("copies").unwrap_or(false);
        Self { weight_max, keeps_weights, keeps_generation, copies }
    }
}

impl OwnHttp {
    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.abilities.capabilities()
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, _: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let url = fields.require(decoder, "url", decode_url);
        let auth = decode_auth(decoder, &mut fields);
        let abilities = Abilities::decode(decoder, &mut fields);
        fields.finish(decoder);
        Some(Self { url: url?, auth, abilities })
    }
}

impl OwnProgram {
    /// Longest time of one call unless the operator says otherwise, and longest time that may be said: a region's
    /// targets have 15 s together.
    #[cfg(feature = "files")]
    const TIMEOUT: Millis = Millis::from_secs(5);
    #[cfg(feature = "files")]
    const TIMEOUT_MAX: Millis = Millis::from_secs(12);

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.abilities.capabilities()
    }

    #[cfg(feature = "files")]
    pub(super) fn decode(decoder: &mut Decoder, node: &Node, _: &Place<'_>) -> Option<Self> {
        let mut fields = decoder.fields(node)?;
        let command = fields.require(decoder, "command", |decoder, node| {
            let command = decoder.each(node, Decoder::text)?;
            if command.first().is_none_or(String::is_empty) {
                let message = "a program is needed";
                let help = "write `[./balancer, argument]`; there is no shell";
                decoder.error(codes::INVALID_VALUE, node.span, message, help);
                return None;
            }
            Some(command)
        });
        let timeout = fields.get(decoder, "timeout", Decoder::positive).unwrap_or(Self::TIMEOUT);
        if timeout > Self::TIMEOUT_MAX {
            let span = fields.key_span("timeout").unwrap_or(node.span);
            let message = format!("one call may take {} at most", Self::TIMEOUT_MAX);
            decoder.error(codes::INVALID_VALUE, span, message, "write for example 5s");
        }
        let abilities = Abilities::decode(decoder, &mut fields);
        fields.finish(decoder);
        Some(Self { command: command?, timeout, abilities })
    }
}
