//! From a fleet file to a service whose load balancers, metrics and store are connected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Failure, chain};
use crate::driver::clock::SystemClock;
use crate::driver::effects::{RegionBalancers, split};
use crate::driver::site::{RegionSite, Site};
use crate::engine::event::ArmSlots;
use crate::load_balancer::{self, Connected, Known, TargetKey};
use crate::metrics;
use crate::notify;
use crate::ports::{Journal, Split};
use crate::regions::probe::Prober;
use crate::spec::fleet::Fleet;
use crate::store::Store;
use crate::units::{RegionName, ServiceName, Weight};

/// A connected service. The load balancers live as long as this does.
pub struct Connection {
    /// The service.
    pub site: Arc<Site>,
    /// Where its state is.
    pub state_dir: PathBuf,
    /// Keeps servers that adapters need (such as xDS) alive.
    _connected: Connected,
}

/// The state directory: the one that was named, or the fleet's.
#[must_use]
pub fn state_dir(fleet: &Fleet, named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| fleet.state.clone(), Path::to_path_buf)
}

/// Opens the store, connects everything the service has.
pub async fn connect(
    fleet: Fleet,
    service: ServiceName,
    named: Option<&Path>,
) -> Result<Connection, Failure> {
    let state_dir = state_dir(&fleet, named);
    let store = Store::open(&state_dir)?;
    let known = known(&store, &fleet, &service).await?;
    let connected = load_balancer::connect(&fleet, Some(&service), &known)
        .await
        .map_err(|error| Failure::new(chain(&error)))?;
    let mut regions = BTreeMap::new();
    let names =
        fleet.services.get(&service).map(|known| known.targets.keys().cloned().collect::<Vec<_>>());
    for name in names.unwrap_or_default() {
        regions.insert(name.clone(), region(&fleet, &connected, &name)?);
    }
    let site = Site {
        checker: Arc::new(metrics::check::Checks::new(fleet.checks.clone())),
        fleet: Arc::new(fleet),
        service,
        regions,
        journal: Arc::new(store),
        clock: Arc::new(SystemClock::new()),
        notifier: Arc::new(notify::Log),
    };
    Ok(Connection { site: Arc::new(site), state_dir, _connected: connected })
}

fn region(fleet: &Fleet, connected: &Connected, name: &RegionName) -> Result<RegionSite, Failure> {
    let described = fleet
        .regions
        .get(name)
        .ok_or_else(|| Failure::new(format!("the fleet does not describe the region {name}")))?;
    let failed = |error: &dyn std::error::Error| Failure::new(format!("{name}: {}", chain(error)));
    let targets = connected.targets.iter().filter(|(key, _)| key.region == *name);
    let targets = targets.map(|(_, target)| Arc::clone(target)).collect();
    let prober = match &described.health {
        Some(probe) => Prober::start(name, probe).map_err(|error| failed(&error))?,
        None => None,
    };
    Ok(RegionSite {
        balancers: RegionBalancers { region: name.clone(), targets },
        metrics: metrics::connect(described).map_err(|error| failed(&error))?,
        prober,
    })
}

/// The weights that were recorded last: adapters that serve them must not start with others.
async fn known(
    store: &Store,
    fleet: &Fleet,
    service: &ServiceName,
) -> Result<BTreeMap<TargetKey, Known>, Failure> {
    let Some((state, _)) = store.service(service).await? else { return Ok(BTreeMap::new()) };
    let open = match &state.open {
        Some(id) => store.rollout(id).await?,
        None => None,
    };
    let mut known = BTreeMap::new();
    let targets = fleet.services.get(service).map(|service| &service.targets);
    for (region, targets) in targets.into_iter().flatten() {
        let Some(slots) = state.regions.get(region) else { continue };
        let (canary, weight) = match &open {
            Some((rollout, _)) => {
                let weight = rollout.regions.get(region).map_or(Weight::ZERO, |region| {
                    region.observed.map_or(region.desired, |observed| observed.min(region.desired))
                });
                (&slots.idle, weight)
            }
            None => (&slots.idle, Weight::ZERO),
        };
        let arms = ArmSlots { canary: canary.clone(), stable: slots.stable.clone() };
        let split: Split = split(&arms, weight);
        for target in targets {
            let key = TargetKey {
                service: service.clone(),
                region: region.clone(),
                target: target.name.clone(),
            };
            let found =
                Known { split: split.clone(), generation: state.generation, instances: Vec::new() };
            known.insert(key, found);
        }
    }
    Ok(known)
}
