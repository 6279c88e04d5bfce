//! The load balancers of a service: which kinds there are, what each needs to know, and what it can do.

mod affinity;
mod aws;
mod aws_alb;
mod caddy;
mod capabilities;
mod dns;
mod envoy;
#[cfg(feature = "files")]
mod file;
mod haproxy;
mod kubernetes;
mod nginx;
mod own;
mod powerdns;
mod rfc2136;
mod route53;
mod traefik;

use super::plan::Location;
use crate::units::TargetName;

pub use affinity::{Affinity, Keeping, UserKey};
pub use aws::{AwsAccess, AwsCredentials};
pub use aws_alb::{AlbPlace, AwsAlb};
pub use caddy::Caddy;
pub use capabilities::{Capabilities, Fencing, Mirroring, Steps};
pub use dns::Family;
pub use envoy::{EnvoyFile, EnvoyRuntime, EnvoyXds};
#[cfg(feature = "files")]
pub(super) use file::{Place, Ports, decode_targets};
pub use haproxy::{Haproxy, HaproxySocket};
pub use kubernetes::{HttpRoute, Kubernetes, KubernetesObject, RouteRule, VirtualService};
pub use nginx::Nginx;
pub use own::{Abilities, OwnHttp, OwnProgram};
pub use powerdns::PowerDns;
pub use rfc2136::{NameRecords, Rfc2136, SrvTarget, TsigKey};
pub use route53::{RecordKind, Route53};
pub use traefik::{Traefik, TraefikHttp, WeightedService};

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
    /// Envoys whose weights are overridden at their admin ports.
    EnvoyRuntime(EnvoyRuntime) = "envoy_runtime";
    /// HAProxy's runtime API.
    Haproxy(Haproxy) = "haproxy";
    /// An endpoint of the operator's own.
    Http(OwnHttp) = "http";
    /// A program of the operator's own.
    Exec(OwnProgram) = "exec";
    /// Caddy's admin API.
    Caddy(Caddy) = "caddy";
    /// nginx, by an included file.
    Nginx(Nginx) = "nginx";
    /// Traefik's file provider.
    Traefik(Traefik) = "traefik";
    /// Traefiks that fetch their weights from Tidegate.
    TraefikHttp(TraefikHttp) = "traefik_http";
    /// Weights in an object of a Kubernetes API.
    Kubernetes(Kubernetes) = "kubernetes";
    /// A forward action of AWS's application load balancer.
    AwsAlb(AwsAlb) = "aws_alb";
    /// Weighted records of Amazon Route 53.
    Route53(Route53) = "route53";
    /// PowerDNS's HTTP API.
    PowerDns(PowerDns) = "powerdns";
    /// A name server that takes dynamic updates.
    Rfc2136(Rfc2136) = "rfc2136";
}
