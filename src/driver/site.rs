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
    /// Health by probed region.
    #[must_use]
    pub fn health(&self) -> BTreeMap<RegionName, bool> {
        let probed = |(name, site): (&RegionName, &RegionSite)| {
            site.prober.as_ref().map(|prober| (name.clone(), prober.healthy()))
        };
        self.regions.iter().filter_map(probed).collect()
    }

    /// Slots of a region that no rollout has given roles: used to read weights only.
    #[must_use]
    pub fn unassigned(&self) -> Option<ArmSlots> {
        let service = self.fleet.services.get(&self.service)?;
        let [first, second] = service.slots.clone();
        Some(ArmSlots { canary: second, stable: first })
    }
}
