//! Everything that watches one test: the canary beside stable, the canary alone at 100 %, stable against the same limit.

use serde::{Deserialize, Serialize};

use super::history::StableMemory;
use super::nonconcurrent;
use super::pool::Pool;
use super::reading::Reading;
use super::watch::{Terms, Watch};
use super::{LOG_HOLD, SHARED_OUTAGE_LASTS};
use crate::spec::plan::{Measurement, Plan, Test};
use crate::stats::{Conditions, Evidence};
use crate::units::{AnalysisName, Millis, RegionName, Timestamp};

/// One distinct test of one analysis, whatever criteria and triggers share it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MonitorSet {
    pub(super) analysis: AnalysisName,
    pub(super) test: Test,
    /// Its part of the combined evidence, 0 to 1.
    pub(super) weight: f64,
    /// Shown, never decides.
    pub(super) dry_run: bool,
    /// The canary, beside stable or against a fixed limit.
    pub(super) concurrent: Pool,
    /// The canary where nothing concurrent is left, for a test that compares arms.
    pub(super) nonconcurrent: Option<Pool>,
    /// Stable against the same fixed limit, for a test that does not.
    pub(super) stable: Option<Pool>,
    /// When stable was last found beyond the same limit while the canary was.
    pub(super) shared_at: Option<Timestamp>,
    /// Interval of the effect as it was last computed, for people.
    pub(super) interval: Option<(f64, f64)>,
    /// How long a proof from nothing takes, as last computed.
    pub(super) forecast: Option<Millis>,
}

/// One region's numbers of one poll, for one analysis.
pub(super) struct Look<'a> {
    pub(super) region: &'a RegionName,
    /// The canary has traffic.
    pub(super) has_canary: bool,
    /// Only the canary has.
    pub(super) is_full: bool,
    pub(super) reading: &'a Reading,
    pub(super) memory: &'a StableMemory,
    pub(super) terms: Terms,
    /// The same for stable, which is never fresh.
    pub(super) warm: Conditions,
}

impl MonitorSet {
    /// Every distinct statistical test of the plan, each with an equal part of the evidence.
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let mut tests: Vec<(&AnalysisName, &Test)> = Vec::new();
        for criterion in plan.criteria().filter(|criterion| criterion.test.is_statistical()) {
            if !tests.contains(&(&criterion.analysis, &criterion.test)) {
                tests.push((&criterion.analysis, &criterion.test));
            }
        }
        let is_dry = |name: &AnalysisName| plan.analyses.get(name).is_some_and(|it| it.dry_run);
        let deciding = tests.iter().filter(|(name, _)| !is_dry(name)).count().max(1);
        let share = (deciding as f64).recip();
        let new = |(name, test): (&AnalysisName, &Test)| {
            let dry_run = is_dry(name);
            Self::new(plan, name, test, if dry_run { 1.0 } else { share }, dry_run)
        };
        tests.into_iter().map(new).collect()
    }

    fn new(plan: &Plan, name: &AnalysisName, test: &Test, weight: f64, dry_run: bool) -> Self {
        let alpha = plan.policy.alpha * weight;
        let is_gauge = matches!(test, Test::Level { .. });
        let pool = |alpha| Pool::new(alpha, plan.policy.beta, plan.regions.len(), is_gauge);
        let compares = test.compares_arms();
        Self {
            analysis: name.clone(),
            test: test.clone(),
            weight,
            dry_run,
            concurrent: pool(alpha),
            nonconcurrent: compares.then(|| pool(0.5 * alpha)),
            stable: (!compares).then(|| pool(alpha)),
            shared_at: None,
            interval: None,
            forecast: None,
        }
    }

    /// Takes in what one poll found in each region.
    pub(super) fn observe(&mut self, plan: &Plan, looks: &[Look]) {
        let range = gauge_range(plan, &self.analysis);
        let (mut beside, mut alone, mut stable) = (Vec::new(), Vec::new(), Vec::new());
        for look in looks {
            let Look { region, reading, memory, terms, .. } = look;
            // A cohort speaks for itself alone.
            let pools = !plan.is_cohort(region);
            let fresh = |levels| Watch::new(&self.test, range, memory, levels);
            match &mut self.nonconcurrent {
                _ if !look.has_canary => {}
                Some(pool) if look.is_full => {
                    let clumpiness = terms.conditions.clumpiness;
                    let fresh = |levels| {
                        let alpha = plan.policy.alpha;
                        nonconcurrent::watch(&self.test, memory, clumpiness, alpha, levels)
                    };
                    alone.extend(pool.take(region, fresh, reading, terms).filter(|_| pools));
                }
                _ => {
                    let taken = self.concurrent.take(region, fresh, reading, terms);
                    beside.extend(taken.filter(|_| pools));
                }
            }
            if let Some(pool) = self.stable.as_mut().filter(|_| !look.is_full) {
                let terms = Terms { conditions: look.warm, ..*terms };
                let taken = pool.take(region, fresh, &reading.stable_alone(), &terms);
                stable.extend(taken.filter(|_| pools));
            }
        }
        let seconds = looks.iter().map(|look| look.terms.seconds).fold(0.0, f64::max);
        let quorum = looks.iter().map(|look| look.terms.conditions.quorum).fold(1.0, f64::max);
        let close = |pool: &mut Pool, evidence: &[Evidence]| pool.close(evidence, seconds, quorum);
        close(&mut self.concurrent, &beside);
        self.nonconcurrent.iter_mut().for_each(|pool| close(pool, &alone));
        self.stable.iter_mut().for_each(|pool| close(pool, &stable));
    }

    pub(super) fn traffic_step(&mut self) {
        let others = self.nonconcurrent.iter_mut().chain(&mut self.stable);
        std::iter::once(&mut self.concurrent).chain(others).for_each(Pool::traffic_step);
    }

    /// ln of the evidence of harm with nothing but concurrent data or a fixed limit behind it.
    pub(super) fn log_harm(&self) -> f64 {
        self.concurrent.log_harm()
    }

    /// The same against what stable was before; `None` where that was not needed.
    pub(super) fn log_harm_nonconcurrent(&self) -> Option<f64> {
        let pool = self.nonconcurrent.as_ref().filter(|pool| !pool.regions.is_empty())?;
        Some(pool.log_harm())
    }

    /// Whether evidence of `log` is a proof, given this test's part.
    pub(super) fn proves(&self, plan: &Plan, log: f64) -> bool {
        log + self.weight.ln() >= -plan.policy.alpha.ln()
    }

    /// A test of "no increase at all": nothing separates chance from harm but history.
    pub(super) fn has_no_margin(&self) -> bool {
        match self.test {
            Test::Rate { factor, offset } => factor > 0.0 && factor <= 1.0 && offset == 0.0,
            Test::QuantileRatio { ratio, .. } => ratio <= 1.0,
            _ => false,
        }
    }

    /// Counts values, not requests.
    pub(super) fn is_gauge(&self) -> bool {
        matches!(self.test, Test::Level { .. })
    }

    /// Whether stable is beyond the same fixed limit wherever the canary is.
    pub(super) fn is_shared(&self) -> bool {
        let Some(stable) = &self.stable else { return false };
        let regions = self.concurrent.regions_above(LOG_HOLD);
        if regions.is_empty() {
            return self.log_harm() >= LOG_HOLD && stable.log_pooled_bad() >= LOG_HOLD;
        }
        regions.iter().all(|region| stable.log_bad_in(region) >= LOG_HOLD)
    }

    /// Whether a shared outage was seen within the last minute.
    pub(super) fn was_shared(&self, now: Timestamp) -> bool {
        self.shared_at.is_some_and(|at| now.since(at) <= SHARED_OUTAGE_LASTS)
    }

    /// Lets the evidence of an outage that both arms had go, so that neither its memory rolls back when stable
    /// recovers first, nor hides a fault of the canary later. Giving evidence of harm away is always valid.
    pub(super) fn forget_shared(&mut self, plan: &Plan) {
        if self.is_shared() && self.proves(plan, self.log_harm()) {
            self.concurrent = self.concurrent.fresh();
            self.stable = self.stable.as_ref().map(Pool::fresh);
        }
    }
}

fn gauge_range(plan: &Plan, name: &AnalysisName) -> Option<(f64, f64)> {
    match plan.analyses.get(name)?.measurement {
        Measurement::Gauge { range, .. } => range,
        _ => None,
    }
}
