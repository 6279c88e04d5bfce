//! From a fleet file to a service whose load balancers, metrics and store are connected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Failure, chain};
use crate::driver::clock::SystemClock;
use crate::driver::effects::{RegionBalancers, split};
use crate::driver::site::{RegionSite, Site};
use crate::engine::event::ArmSlots;
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::service::ServiceState;
use crate::hooks::FleetHooks;
use crate::load_balancer::{self, Connected, Known, TargetKey};
use crate::metrics;
use crate::notify;
use crate::ports::{Journal, Split};
use crate::regions::probe::Prober;
use crate::spec::fleet::Fleet;
use crate::store::Store;
use crate::units::{RegionName, ServiceName};

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
    let known = known(&fleet, &recorded_services(&store).await?);
    let connected = load_balancer::connect(&fleet, Some(&service), &known)
        .await
        .map_err(|error| Failure::new(chain(&error)))?;
    let mut regions = BTreeMap::new();
    let names =
        fleet.services.get(&service).map(|known| known.targets.keys().cloned().collect::<Vec<_>>());
    for name in names.unwrap_or_default() {
        regions.insert(name.clone(), region(&fleet, &connected, &name)?);
    }
    let hooks = fleet.services.get(&service).map(|known| known.hooks.clone()).unwrap_or_default();
    let site = Site {
        hooks: Arc::new(FleetHooks::new(hooks)),
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

/// Every service and its open rollout, as recorded.
async fn recorded_services(store: &Store) -> Result<Vec<(ServiceState, Option<Rollout>)>, Failure> {
    let mut services = Vec::new();
    for state in store.services().await? {
        let open = match &state.open {
            Some(id) => store.rollout(id).await?.map(|(rollout, _)| rollout),
            None => None,
        };
        services.push((state, open));
    }
    Ok(services)
}

/// The weights that were recorded last, of all services: adapters that serve them must not start with others.
#[must_use]
pub fn known<'a>(
    fleet: &Fleet,
    services: impl IntoIterator<Item = &'a (ServiceState, Option<Rollout>)>,
) -> BTreeMap<TargetKey, Known> {
    let mut known = BTreeMap::new();
    for (state, open) in services {
        let Some(service) = fleet.services.get(&state.name) else { continue };
        for (region, targets) in &service.targets {
            let Some(split) = recorded(state, open.as_ref(), region) else { continue };
            for target in targets {
                let key = TargetKey {
                    service: state.name.clone(),
                    region: region.clone(),
                    target: target.name.clone(),
                };
                let (split, generation) = (split.clone(), state.generation);
                known.insert(key, Known { split, generation, instances: Vec::new() });
            }
        }
    }
    known
}

/// The weights that a region's balancers have to start with; none before it was adopted.
///
/// In a rollout: what was read last, and never more than what is wanted, so that a start raises nothing and lowers
/// what has to be lower. The next turn of the rollout goes on from there.
fn recorded(state: &ServiceState, open: Option<&Rollout>, region: &RegionName) -> Option<Split> {
    let slots = state.regions.get(region)?;
    let idle = ArmSlots { canary: slots.idle.clone(), stable: slots.stable.clone() };
    let under_way = open.and_then(|open| {
        let (arms, weights) = (open.slots.get(region)?, open.regions.get(region)?);
        // Nothing is wanted yet: it stands as it was adopted.
        let begun = open.phase != Phase::Preparing;
        begun.then(|| split(arms, weights.last_read.min(weights.desired)))
    });
    Some(under_way.unwrap_or_else(|| split(&idle, slots.idle_weight)))
}
