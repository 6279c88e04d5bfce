//! Everything a service's rollouts are driven with: the fleet, and what stands behind the ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::effects::RegionBalancers;
use crate::engine::event::ArmSlots;
use crate::ports::{Checker, Clock, HookRunner, Journal, MetricsSource, Notifier};
use crate::regions::probe::Prober;
use crate::spec::fleet::Fleet;
use crate::units::{RegionName, ServiceName};

/// One service of a fleet, connected.
pub struct Site {
    /// What the operator owns.
    pub fleet: Arc<Fleet>,
    /// Which service.
    pub service: ServiceName,
    /// By region of the service.
    pub regions: BTreeMap<RegionName, RegionSite>,
    /// HTTP and command checks.
    pub checker: Arc<dyn Checker>,
    /// The operator's hooks.
    pub hooks: Arc<dyn HookRunner>,
    /// Where facts are kept.
    pub journal: Arc<dyn Journal>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub notifier: Arc<dyn Notifier>,
}

/// One region of a service, connected.
pub struct RegionSite {
    /// Its load balancers.
    pub balancers: RegionBalancers,
    /// Its numbers.
    pub metrics: Arc<dyn MetricsSource>,
    /// Its health, where it is probed.
    pub prober: Option<Prober>,
}

impl Site {
    /// Health by probed region; a cohort is as healthy as its region at most.
    #[must_use]
    pub fn health(&self) -> BTreeMap<RegionName, bool> {
        let probed =
            |name: &RegionName| self.regions.get(name)?.prober.as_ref().map(Prober::healthy);
        let both = |name: &RegionName| {
            let whole = self.fleet.cohort_of(name).and_then(probed);
            probed(name).into_iter().chain(whole).reduce(|own, whole| own && whole)
        };
        let known = |name: &RegionName| both(name).map(|healthy| (name.clone(), healthy));
        self.regions.keys().filter_map(known).collect()
    }

    /// Slots of a region that no rollout has given roles: used to read weights only.
    #[must_use]
    pub fn unassigned(&self) -> Option<ArmSlots> {
        let service = self.fleet.services.get(&self.service)?;
        let [first, second] = service.slots.clone();
        Some(ArmSlots { canary: second, stable: first })
    }
}
