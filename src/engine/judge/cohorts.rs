//! Whose evidence proves a stage. Those that a header or a cookie chooses are no random sample of the users, so what they show
//! proves nothing about everybody, and what everybody shows nothing about them. Harm is harm, wherever it is seen.

use super::Judge;
use super::monitors::MonitorSet;
use crate::spec::plan::Plan;
use crate::units::RegionName;

impl Judge {
    /// The cohorts of a stage that names nothing else: they alone prove it.
    fn own_cohorts<'a>(&self, plan: &'a Plan) -> Option<&'a [RegionName]> {
        let named = &plan.stages.get(self.stage)?.regions;
        let alone = !named.is_empty() && named.iter().all(|region| plan.is_cohort(region));
        alone.then_some(named.as_slice())
    }

    /// Those of `regions`, which have canary weight, whose numbers prove the current stage.
    pub(super) fn proving(&self, plan: &Plan, regions: &[RegionName]) -> Vec<RegionName> {
        let own = self.own_cohorts(plan);
        let counts = |name: &&RegionName| match own {
            Some(own) => own.contains(name),
            None => !plan.is_cohort(name),
        };
        regions.iter().filter(counts).cloned().collect()
    }

    /// ln of the evidence that the limit is kept, over those whose numbers prove the current stage: several cohorts each
    /// have to show it, because they have nothing in common.
    pub(super) fn log_ok(&self, plan: &Plan, set: &MonitorSet) -> f64 {
        match self.own_cohorts(plan) {
            Some(own) => {
                let logs = own.iter().map(|name| set.concurrent.log_ok_in(name));
                logs.fold(f64::INFINITY, f64::min)
            }
            None => set.concurrent.log_pooled_ok(|name| !plan.is_cohort(name)),
        }
    }
}
