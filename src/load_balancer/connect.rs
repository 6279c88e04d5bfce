//! From the targets of a fleet to adapters that are ready to use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::envoy::file::{self, FileBalancer};
use crate::ports::{InstanceReading, LoadBalancer, Split};
use crate::spec::fleet::{Adapter, Fleet, Target};
use crate::units::{Generation, RegionName, ServiceName, TargetName};

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
    /// A target of kind `envoy_file`.
    #[error("{target}: {error}")]
    File {
        /// Which target.
        target: TargetKey,
        /// Why.
        error: file::Error,
    },
    /// This build has no xDS server.
    #[error("{0}: this build cannot serve xDS (feature `xds`)")]
    NoXds(TargetKey),
}

/// Adapters for the targets of a fleet, and what keeps them going.
pub struct Connected {
    /// All targets.
    pub targets: BTreeMap<TargetKey, Arc<dyn LoadBalancer>>,
}

/// Makes the adapters of one service, or of all with `only: None`.
///
/// `known`: what the store remembers.
pub async fn connect(
    fleet: &Fleet,
    only: Option<&ServiceName>,
    _known: &BTreeMap<TargetKey, Known>,
) -> Result<Connected, Error> {
    let mut targets: BTreeMap<TargetKey, Arc<dyn LoadBalancer>> = BTreeMap::new();
    for (key, target) in targets_of(fleet, only) {
        match &target.adapter {
            Adapter::EnvoyFile(settings) => {
                let made = FileBalancer::new(key.to_string(), settings);
                let made = made.map_err(|error| Error::File { target: key.clone(), error })?;
                targets.insert(key, Arc::new(made));
            }
            Adapter::Envoy(_) => return Err(Error::NoXds(key)),
        }
    }
    Ok(Connected { targets })
}

fn targets_of<'a>(
    fleet: &'a Fleet,
    only: Option<&'a ServiceName>,
) -> impl Iterator<Item = (TargetKey, &'a Target)> {
    let services =
        fleet.services.iter().filter(move |(name, _)| only.is_none_or(|only| only == *name));
    services.flat_map(|(name, service)| {
        service.targets.iter().flat_map(move |(region, targets)| {
            targets.iter().map(move |target| {
                let (service, region) = (name.clone(), region.clone());
                (TargetKey { service, region, target: target.name.clone() }, target)
            })
        })
    })
}
