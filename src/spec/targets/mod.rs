//! The load balancers of a service: which kinds there are, what each needs to know, and what it can do.

mod capabilities;
mod dns;
mod envoy;
#[cfg(feature = "files")]
mod file;
mod haproxy;
mod powerdns;
mod rfc2136;

use super::plan::Location;
use crate::units::TargetName;

pub use capabilities::{Capabilities, Fencing, Steps};
pub use dns::Family;
pub use envoy::{EnvoyFile, EnvoyXds};
#[cfg(feature = "files")]
pub(super) use file::{Place, decode_targets};
pub use haproxy::{Haproxy, HaproxySocket};
pub use powerdns::PowerDns;
pub use rfc2136::{NameRecords, Rfc2136, SrvTarget, TsigKey};

/// One load balancer of a service in a region.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its name, unique within the region.
    pub name: TargetName,
    /// Where the file says it.
    pub at: Location,
    /// What kind, and how to reach it.
    pub adapter: Adapter,
}

macro_rules! adapters {
    ($($(#[doc = $doc:literal])+ $kind:ident($settings:ty) = $key:literal;)+) => {
        /// How weights are set.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Adapter {
            $($(#[doc = $doc])+ $kind($settings),)+
        }

        impl Adapter {
            /// The keys of a target, one for each kind.
            pub const KINDS: &[&str] = &[$($key),+];

            /// The key in the fleet file.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $key,)+
                }
            }

            /// What this kind can do, with these settings.
            #[must_use]
            pub fn capabilities(&self) -> Capabilities {
                match self {
                    $(Self::$kind(settings) => settings.capabilities(),)+
                }
            }

            /// From the one key of a target that names a kind; `None` after a problem was reported, or without one.
            #[cfg(feature = "files")]
            fn decode(
                decoder: &mut super::decode::Decoder,
                fields: &mut super::decode::Fields<'_>,
                place: &Place<'_>,
            ) -> Option<Self> {
                let mut found = None;
                $(
                    let settings = fields.get(decoder, $key, |decoder, node| <$settings>::decode(decoder, node, place));
                    found = found.or(settings.map(Self::$kind));
                )+
                found
            }
        }
    };
}

adapters! {
    /// Envoys that fetch their routes from Tidegate.
    Envoy(EnvoyXds) = "envoy";
    /// Envoys that watch a route file.
    EnvoyFile(EnvoyFile) = "envoy_file";
    /// HAProxy's runtime API.
    Haproxy(Haproxy) = "haproxy";
    /// PowerDNS's HTTP API.
    PowerDns(PowerDns) = "powerdns";
    /// A name server that takes dynamic updates.
    Rfc2136(Rfc2136) = "rfc2136";
}
