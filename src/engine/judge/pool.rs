//! One test over all regions: a monitor per region, and the pooled recursion that regions which agree win sooner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reading::Reading;
use super::watch::{Terms, Watch};
use crate::stats::numbers::{log_add, log_sum};
use crate::stats::{Evidence, Levels, PooledMonitor};
use crate::units::RegionName;

/// Half of a test's stake is on all regions together, half is spread over the regions of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pool {
    levels: Levels,
    /// How many regions the plan has; those without canary stand at 1.
    regions_max: usize,
    /// `None` for a gauge, whose regions are averaged instead.
    pooled: Option<PooledMonitor>,
    pub(super) regions: BTreeMap<RegionName, Watch>,
}

impl Pool {
    /// `alpha` is this test's part of the rollout's level.
    pub(super) fn new(alpha: f64, beta: f64, regions_max: usize, is_gauge: bool) -> Self {
        let regions_max = regions_max.max(1);
        Self {
            levels: Levels::new(0.5 * alpha / regions_max as f64, beta),
            regions_max,
            pooled: (!is_gauge).then(|| PooledMonitor::new(Levels::new(0.5 * alpha, beta))),
            regions: BTreeMap::new(),
        }
    }

    /// The same without any evidence.
    pub(super) fn fresh(&self) -> Self {
        let alpha = 2.0 * self.levels.alpha * self.regions_max as f64;
        Self::new(alpha, self.levels.beta, self.regions_max, self.pooled.is_none())
    }

    /// Takes a poll of one region in, whose monitor is made when it is first needed.
    pub(super) fn take(
        &mut self,
        region: &RegionName,
        fresh: impl FnOnce(Levels) -> Option<Watch>,
        reading: &Reading,
        terms: &Terms,
    ) -> Option<Evidence> {
        if !self.regions.contains_key(region) {
            self.regions.insert(region.clone(), fresh(self.levels)?);
        }
        self.regions.get_mut(region).map(|watch| watch.update(reading, terms))
    }

    /// Pools what the regions of one poll said; cohorts are not among them.
    pub(super) fn close(&mut self, evidence: &[Evidence], seconds: f64, quorum: f64) {
        if let Some(pooled) = self.pooled.as_mut().filter(|_| !evidence.is_empty()) {
            pooled.update(evidence, seconds, quorum);
        }
    }

    pub(super) fn traffic_step(&mut self) {
        self.regions.values_mut().for_each(Watch::traffic_step);
        if let Some(pooled) = &mut self.pooled {
            pooled.traffic_step();
        }
    }

    /// ln of this test's evidence of harm: half pooled, half the average over the plan's regions.
    pub(super) fn log_harm(&self) -> f64 {
        log_add(self.log_pooled_bad(), self.log_average_bad()) - std::f64::consts::LN_2
    }

    /// ln of the evidence over all regions together that the limit is exceeded.
    pub(super) fn log_pooled_bad(&self) -> f64 {
        self.pooled.as_ref().map_or_else(|| self.log_average_bad(), PooledMonitor::log_bad)
    }

    /// ln of the evidence over all regions together that the limit is kept; of those that count, for a gauge.
    pub(super) fn log_pooled_ok(&self, counts: impl Fn(&RegionName) -> bool) -> f64 {
        if let Some(pooled) = &self.pooled {
            return pooled.log_ok();
        }
        let counted = self.regions.iter().filter(|(region, _)| counts(region));
        let logs = counted.map(|(_, watch)| watch.log_ok());
        match logs.clone().count() {
            0 => 0.0,
            count => log_sum(logs) - (count as f64).ln(),
        }
    }

    /// ln of one region's own evidence that the limit is kept; 0 where nothing was measured.
    pub(super) fn log_ok_in(&self, region: &RegionName) -> f64 {
        self.regions.get(region).map_or(0.0, Watch::log_ok)
    }

    /// ln of one region's own evidence that the limit is exceeded; 0 where nothing was measured.
    pub(super) fn log_bad_in(&self, region: &RegionName) -> f64 {
        self.regions.get(region).map_or(0.0, Watch::log_bad)
    }

    /// Regions whose own evidence is at least `log`.
    pub(super) fn regions_above(&self, log: f64) -> Vec<RegionName> {
        let above = self.regions.iter().filter(|(_, watch)| watch.log_bad() >= log);
        above.map(|(region, _)| region.clone()).collect()
    }

    fn log_average_bad(&self) -> f64 {
        let idle = self.regions_max.saturating_sub(self.regions.len());
        let logs = self.regions.values().map(Watch::log_bad).chain(std::iter::repeat_n(0.0, idle));
        log_sum(logs) - (self.regions_max.max(self.regions.len()) as f64).ln()
    }
}
