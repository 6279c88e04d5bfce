//! From the targets of a fleet to adapters that are ready to use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Unusable;
#[cfg(feature = "aws")]
use super::aws;
use super::caddy::CaddyBalancer;
use super::envoy::file::FileBalancer;
use super::envoy::runtime::RuntimeBalancer;
#[cfg(feature = "xds")]
use super::envoy::xds;
use super::haproxy::HaproxyBalancer;
#[cfg(feature = "kubernetes")]
use super::kubernetes::KubernetesBalancer;
use super::nginx::NginxBalancer;
use super::own::{HttpBalancer, ProgramBalancer};
use super::powerdns::PowerDnsBalancer;
use super::rfc2136::Rfc2136Balancer;
use super::served::{Ports, Registries};
use super::traefik::{self, TraefikBalancer};
use crate::ports::{InstanceReading, LoadBalancer, Split};
use crate::spec::fleet::{Adapter, Fleet, Target};
use crate::units::{Generation, RegionName, ServiceName, SlotName, TargetName};

/// Which load balancer of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetKey {
    /// The service.
    pub service: ServiceName,
    /// The region.
    pub region: RegionName,
    /// The target within the region.
    pub target: TargetName,
}

impl fmt::Display for TargetKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.service, self.region, self.target)
    }
}

/// What the store remembers of a target; an xDS server needs it before it lets an Envoy in.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The weights that were recorded last.
    pub split: Split,
    /// Their generation.
    pub generation: Generation,
    /// Instances seen last, with what they did; those that do not return stay named. May be empty.
    pub instances: Vec<InstanceReading>,
}

/// Why a fleet's load balancers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A target whose settings do not fit together.
    #[error("{target}: {error}")]
    Target {
        /// Which target.
        target: TargetKey,
        /// Why.
        error: Unusable,
    },
    /// A target of kind `envoy`.
    #[cfg(feature = "xds")]
    #[error("{target}: {error}")]
    Xds {
        /// Which target.
        target: TargetKey,
        /// Why.
        error: Box<xds::Error>,
    },
    /// The port that Envoys fetch their routes from.
    #[cfg(feature = "xds")]
    #[error("xds: {0}")]
    Port(xds::Error),
    /// The port that Traefiks fetch their weights from.
    #[error("traefik_provider: {0}")]
    Provider(traefik::Error),
    /// No address is given.
    #[error("{0}: the fleet has no `{1}` address to serve it at")]
    NoAddress(TargetKey, &'static str),
    /// This build has no xDS server.
    #[error("{0}: this build cannot serve xDS (feature `xds`)")]
    NoXds(TargetKey),
}

/// Adapters for the targets of a fleet, and what keeps them going.
pub struct Connected {
    /// All targets.
    pub targets: BTreeMap<TargetKey, Arc<dyn LoadBalancer>>,
    /// What load balancers fetch from.
    pub ports: Ports,
}

/// Makes the adapters of one service, or of all with `only: None`, and opens the ports that any of them needs.
///
/// Load balancers of other services come to the same ports, Envoys even for the same route: what is known of them is
/// served, too.
///
/// `known`: what the store remembers of all services; a target that comes to us and has no entry is not served until its
/// first `set`.
pub async fn connect(
    fleet: &Fleet,
    only: Option<&ServiceName>,
    known: &BTreeMap<TargetKey, Known>,
) -> Result<Connected, Error> {
    let mut targets: BTreeMap<TargetKey, Arc<dyn LoadBalancer>> = BTreeMap::new();
    let (mut registries, mut needed) = (Registries::default(), BTreeMap::new());
    let wanted = |key: &TargetKey| only.is_none_or(|only| *only == key.service);
    for (key, target) in targets_of(fleet).filter(|(key, _)| wanted(key)) {
        let made = match registries.register(&key, &target.adapter, known)? {
            Some(made) => {
                needed.insert(target.adapter.kind(), key.clone());
                made
            }
            None => {
                by_itself(key.to_string(), &target.adapter, &fleet.services[&key.service].slots)
                    .map_err(|error| Error::Target { target: key.clone(), error })?
            }
        };
        targets.insert(key, made);
    }
    for (key, target) in targets_of(fleet).filter(|(key, _)| !wanted(key)) {
        if !needed.contains_key(target.adapter.kind()) {
            continue;
        }
        // Another service's mistake must not keep this one from its way back.
        if let Err(error) = registries.register(&key, &target.adapter, known) {
            tracing::warn!(target = %key, %error, "is not served");
        }
    }
    // The weights are all in place now.
    let ports = registries.open(fleet, &needed).await?;
    Ok(Connected { targets, ports })
}

/// One that needs nothing but its own settings.
fn by_itself(
    label: String,
    adapter: &Adapter,
    slots: &[SlotName; 2],
) -> Result<Arc<dyn LoadBalancer>, Unusable> {
    Ok(match adapter {
        Adapter::Envoy(_) | Adapter::TraefikHttp(_) => {
            return Err(Unusable("needs a port of ours".to_owned()));
        }
        Adapter::EnvoyFile(settings) => {
            Arc::new(FileBalancer::new(label, settings).map_err(Unusable::new)?)
        }
        Adapter::EnvoyRuntime(settings) => Arc::new(RuntimeBalancer::new(label, settings)?),
        Adapter::Haproxy(settings) => Arc::new(HaproxyBalancer::new(label, settings)?),
        Adapter::Http(settings) => Arc::new(HttpBalancer::new(label, settings, slots)?),
        Adapter::Exec(settings) => Arc::new(ProgramBalancer::new(label, settings, slots)),
        Adapter::Caddy(settings) => Arc::new(CaddyBalancer::new(label, settings)?),
        Adapter::Nginx(settings) => Arc::new(NginxBalancer::new(label, settings)?),
        Adapter::Traefik(settings) => Arc::new(TraefikBalancer::new(&label, settings)?),
        #[cfg(feature = "kubernetes")]
        Adapter::Kubernetes(settings) => Arc::new(KubernetesBalancer::new(label, settings)?),
        #[cfg(not(feature = "kubernetes"))]
        Adapter::Kubernetes(_) => return Err(without("kubernetes")),
        #[cfg(feature = "aws")]
        Adapter::AwsAlb(settings) => Arc::new(aws::AlbBalancer::new(label, settings)?),
        #[cfg(feature = "aws")]
        Adapter::Route53(settings) => Arc::new(aws::Route53Balancer::new(label, settings)?),
        #[cfg(not(feature = "aws"))]
        Adapter::AwsAlb(_) | Adapter::Route53(_) => return Err(without("aws")),
        Adapter::PowerDns(settings) => Arc::new(PowerDnsBalancer::new(label, settings)?),
        Adapter::Rfc2136(settings) => Arc::new(Rfc2136Balancer::new(label, settings)?),
    })
}

/// The settings are right, and this program was built without what they need.
#[cfg(any(not(feature = "aws"), not(feature = "kubernetes")))]
fn without(feature: &str) -> Unusable {
    Unusable(format!("this build cannot talk to it (feature `{feature}`)"))
}

fn targets_of(fleet: &Fleet) -> impl Iterator<Item = (TargetKey, &Target)> {
    fleet.services.iter().flat_map(|(name, service)| {
        service.targets.iter().flat_map(move |(region, targets)| {
            targets.iter().map(move |target| {
                let (service, region) = (name.clone(), region.clone());
                (TargetKey { service, region, target: target.name.clone() }, target)
            })
        })
    })
}
