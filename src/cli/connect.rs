//! From a fleet file to a service whose load balancers, metrics and store are connected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{Failure, chain};
use super::output::note;
use crate::access::audit::{Audit, Audited, Error as AuditError};
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
use crate::ports::{Journal, Notifier, Split};
use crate::regions::probe::Prober;
use crate::spec::fleet::Fleet;
use crate::store::Store;
use crate::units::{Reach, RegionName, ServiceName};

/// A connected service. The load balancers live as long as this does.
pub struct Connection {
    /// The service.
    pub site: Arc<Site>,
    /// Where its state is.
    pub state_dir: PathBuf,
    /// Keeps servers that adapters need (such as xDS) alive.
    /// The record of who did what.
    pub audit: Arc<Audit>,
    _everything: Everything,
}

/// What is kept of a state directory: the facts, and the audit beside them. One process has it open.
pub struct Kept {
    /// Where facts are kept; they go into the audit as well.
    pub journal: Arc<dyn Journal>,
    /// Who did what.
    pub audit: Arc<Audit>,
}

impl Kept {
    /// Opens both.
    pub async fn open(state_dir: &Path) -> Result<Self, Failure> {
        let store: Arc<dyn Journal> = Arc::new(Store::open(state_dir)?);
        let failed = |error: AuditError| Failure::new(chain(&error));
        let audit = Arc::new(Audit::open(state_dir).map_err(failed)?);
        let journal = Arc::new(Audited::new(store, Arc::clone(&audit)).await?);
        Ok(Self { journal, audit })
    }
}

/// Every service of a fleet, connected.
pub struct Everything {
    /// The services.
    pub sites: BTreeMap<ServiceName, Arc<Site>>,
    connected: Connected,
}

impl Everything {
    /// Closes what is open here, so that it can be opened anew.
    pub async fn close(self) {
        self.connected.ports.close().await;
    }
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
    let kept = Kept::open(&state_dir).await?;
    let everything = connected(fleet, &kept.journal, &state_dir, Some(&service)).await?;
    let missing = || Failure::new(format!("the fleet has no service `{service}`"));
    let site = everything.sites.get(&service).cloned().ok_or_else(missing)?;
    Ok(Connection { site, state_dir, audit: kept.audit, _everything: everything })
}

/// Connects every service of a fleet.
pub async fn connect_all(
    fleet: Fleet,
    journal: &Arc<dyn Journal>,
    state_dir: &Path,
) -> Result<Everything, Failure> {
    connected(fleet, journal, state_dir, None).await
}

async fn connected(
    fleet: Fleet,
    journal: &Arc<dyn Journal>,
    state_dir: &Path,
    only: Option<&ServiceName>,
) -> Result<Everything, Failure> {
    let known = known(&fleet, &recorded_services(journal.as_ref()).await?);
    let outbox = outbox(&fleet, state_dir);
    let connected = load_balancer::connect(&fleet, only, &known)
        .await
        .map_err(|error| Failure::new(chain(&error)))?;
    let fleet = Arc::new(fleet);
    let wanted = |name: &&ServiceName| only.is_none_or(|only| only == *name);
    let mut sites = BTreeMap::new();
    for name in fleet.services.keys().filter(wanted) {
        let site = site(&fleet, name, &connected, Arc::clone(journal), Arc::clone(&outbox))?;
        sites.insert(name.clone(), Arc::new(site));
    }
    Ok(Everything { sites, connected })
}

/// Who is told. A disk that takes no notice keeps nobody from the way back.
fn outbox(fleet: &Fleet, state_dir: &Path) -> Arc<dyn Notifier> {
    match notify::Outbox::open(&state_dir.join("outbox"), &fleet.notify, &fleet.escalation) {
        Ok(outbox) => Arc::new(outbox),
        Err(error) => {
            note(&format!("nobody is told but the log: there is no outbox: {error}"));
            Arc::new(notify::Log)
        }
    }
}

fn site(
    fleet: &Arc<Fleet>,
    service: &ServiceName,
    connected: &Connected,
    journal: Arc<dyn Journal>,
    notifier: Arc<dyn Notifier>,
) -> Result<Site, Failure> {
    let described = fleet.services.get(service);
    let mut regions = BTreeMap::new();
    for name in described.iter().flat_map(|known| known.targets.keys()) {
        regions.insert(name.clone(), region(fleet, connected, service, name)?);
    }
    let hooks = described.map(|known| known.hooks.clone()).unwrap_or_default();
    Ok(Site {
        hooks: Arc::new(FleetHooks::new(hooks)),
        checker: Arc::new(metrics::check::Checks::new(fleet.checks.clone())),
        fleet: Arc::clone(fleet),
        service: service.clone(),
        regions,
        journal,
        clock: Arc::new(SystemClock::new()),
        notifier,
    })
}

fn region(
    fleet: &Fleet,
    connected: &Connected,
    service: &ServiceName,
    name: &RegionName,
) -> Result<RegionSite, Failure> {
    let described = fleet
        .regions
        .get(name)
        .ok_or_else(|| Failure::new(format!("the fleet does not describe the region {name}")))?;
    let failed = |error: &dyn std::error::Error| Failure::new(format!("{name}: {}", chain(error)));
    let own = |key: &TargetKey| key.region == *name && key.service == *service;
    let targets = connected.targets.iter().filter(|(key, _)| own(key));
    let targets = targets.map(|(_, target)| Arc::clone(target)).collect();
    // A cohort is probed only where it says how; its region is in any case.
    let whole = described.cohort_of.as_ref().and_then(|whole| fleet.regions.get(whole));
    let inherited = whole.and_then(|whole| whole.health.as_ref());
    let prober = match described.health.as_ref().filter(|own| inherited != Some(*own)) {
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
async fn recorded_services(
    store: &dyn Journal,
) -> Result<Vec<(ServiceState, Option<Rollout>)>, Failure> {
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
        let read = Reach { weight: weights.last_read, mirror: weights.mirrored };
        begun.then(|| split(arms, read.min(weights.wanted())))
    });
    Some(under_way.unwrap_or_else(|| split(&idle, slots.idle_weight)))
}
