//! Stable against itself: half of its instances play the canary. Nothing differs, so whatever is found is wrong, and how
//! much the halves differ says how clumpy the service's events are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use tokio::sync::Mutex;

use super::{End, Past, Replayed};
use crate::engine::poll::{ArmHistogram, Measured, RegionPoll};
use crate::ports::{MetricsError, MetricsSource, Series};
use crate::sim::course::Stand;
use crate::spec::plan::{Analysis, Measurement, Plan};
use crate::stats::clumpiness::{DesignEffect, Split, block_polls};
use crate::stats::{Arm, Family, FanoLive, Histogram, Window, clopper_pearson};
use crate::units::{AnalysisName, Millis, RegionName, Timestamp, Weight};

/// Requests after which the edge is chosen at which slow requests are counted.
const REQUESTS_BEFORE_EDGE: f64 = 1_000.0;
/// Confidence of the interval of the share that was called back.
const CONFIDENCE: f64 = 0.95;

/// Which instances play which arm. New ones join the smaller half.
pub struct Halves {
    drawn: Mutex<Drawn>,
}

struct Drawn {
    /// None: all of it is stable's.
    random: Option<Pcg64Mcg>,
    is_canary: BTreeMap<String, bool>,
}

/// One of the halves.
pub struct Half {
    source: Arc<dyn MetricsSource>,
    halves: Arc<Halves>,
    is_canary: bool,
}

impl Halves {
    /// The same seed draws the same.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Self::drawing(Some(Pcg64Mcg::seed_from_u64(seed)))
    }

    /// No halves: stable as a whole, and nothing beside it.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::drawing(None)
    }

    fn drawing(random: Option<Pcg64Mcg>) -> Arc<Self> {
        Arc::new(Self { drawn: Mutex::new(Drawn { random, is_canary: BTreeMap::new() }) })
    }

    /// Draws anew.
    pub async fn redraw(&self) {
        self.drawn.lock().await.is_canary.clear();
    }

    /// How many instances there are.
    pub async fn instances(&self) -> usize {
        self.drawn.lock().await.is_canary.len()
    }

    /// One half of what `source` has.
    #[must_use]
    pub fn half(self: &Arc<Self>, source: Arc<dyn MetricsSource>, is_canary: bool) -> Arc<Half> {
        Arc::new(Half { source, halves: Arc::clone(self), is_canary })
    }
}

impl Drawn {
    fn draw(&mut self, instances: BTreeSet<&str>) {
        let Some(random) = &mut self.random else { return };
        let mut new: Vec<&str> =
            instances.into_iter().filter(|it| !self.is_canary.contains_key(*it)).collect();
        new.shuffle(random);
        for instance in new {
            let canary = self.is_canary.values().filter(|is_canary| **is_canary).count();
            let stable = self.is_canary.len() - canary;
            let joins = if canary == stable { random.random() } else { canary < stable };
            self.is_canary.insert(instance.to_owned(), joins);
        }
    }
}

fn instance(series: &Series) -> Option<&str> {
    let of = |name: &str| series.labels.get(name).map(String::as_str);
    of("pod").or_else(|| of("instance"))
}

#[async_trait]
impl MetricsSource for Half {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Series>, MetricsError> {
        let mut all = self.source.raw(selector, after, at).await?;
        let mut drawn = self.halves.drawn.lock().await;
        if drawn.random.is_none() {
            all.retain(|_| !self.is_canary);
            return Ok(all);
        }
        let Some(instances) = all.iter().map(instance).collect::<Option<BTreeSet<_>>>() else {
            let what = "stable's series say neither `pod` nor `instance`: they cannot be split";
            let (source_name, what) = (self.describe(), what.to_owned());
            return Err(MetricsError { source_name, what, misconfigured: true });
        };
        drawn.draw(instances);
        let own = |series: &Series| {
            instance(series).and_then(|it| drawn.is_canary.get(it)) == Some(&self.is_canary)
        };
        all.retain(own);
        Ok(all)
    }

    async fn evaluate(&self, _: &str, _: Timestamp) -> Result<Vec<Series>, MetricsError> {
        let what = "an expression cannot be split by instance".to_owned();
        Err(MetricsError { source_name: self.describe(), what, misconfigured: true })
    }
}

/// The plan without what cannot be split, and what that is: gauges and checks.
#[must_use]
pub fn countable(plan: &Plan) -> (Plan, BTreeSet<AnalysisName>) {
    let counts = |name: &AnalysisName| {
        let measurement = plan.analyses.get(name).map(|analysis| &analysis.measurement);
        matches!(measurement, Some(Measurement::Proportion { .. } | Measurement::Latency { .. }))
    };
    let left_out = plan.analyses.keys().filter(|name| !counts(name)).cloned().collect();
    let mut plan = plan.clone();
    plan.stages.iter_mut().for_each(|stage| stage.criteria.retain(|it| counts(&it.analysis)));
    plan.triggers.retain(|it| counts(&it.analysis));
    plan.analyses.retain(|name, _| {
        plan.stages
            .iter()
            .flat_map(|it| &it.criteria)
            .chain(&plan.triggers)
            .any(|it| it.analysis == *name)
    });
    (plan, left_out)
}

/// How often stable was called back from itself.
#[derive(Debug, Clone, Serialize)]
pub struct FalseRollbacks {
    /// Rollouts that ended.
    pub rollouts: usize,
    /// Those that went back.
    pub rolled_back: usize,
    /// Share of them.
    pub share: f64,
    /// Its interval at 95 %, by Clopper and Pearson.
    pub interval: (f64, f64),
    /// What the policy promises at most.
    pub promised: f64,
}

/// Counts them. One that the past ended is left out, unless it went back.
#[must_use]
pub fn false_rollbacks(replayed: &[Replayed], promised: f64) -> FalseRollbacks {
    let ended = replayed.iter().flat_map(|it| &it.rollouts).filter(|it| it.end != End::Unfinished);
    let (mut rollouts, mut rolled_back) = (0, 0);
    for replay in ended {
        rollouts += 1;
        rolled_back += usize::from(replay.end == End::RolledBack);
    }
    let share = if rollouts > 0 { rolled_back as f64 / rollouts as f64 } else { 0.0 };
    let interval = clopper_pearson(rolled_back as u64, rollouts as u64, CONFIDENCE);
    FalseRollbacks { rollouts, rolled_back, share, interval, promised }
}

/// How clumpy events are, by analysis and region, from looks at two halves.
pub struct Clumpiness {
    poll_seconds: f64,
    estimates: BTreeMap<(AnalysisName, RegionName), Estimate>,
}

struct Estimate {
    effect: DesignEffect,
    split: Split,
    /// Where there is nothing to split: from how much neighbouring looks differ.
    whole: FanoLive,
    is_split: bool,
    /// For latency: all that was seen, and the edge beyond which requests are slow.
    seen: Histogram,
    edge: Option<f64>,
    total: Arm,
    seconds: f64,
}

/// What is known of one analysis in one region of stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    /// Which analysis.
    pub analysis: AnalysisName,
    /// Where.
    pub region: RegionName,
    /// How many events make one independent fact, at least 1.
    pub clumpiness: f64,
    /// From halves of stable; otherwise from neighbouring looks, which takes changes of the rate for clumps as well.
    pub is_split: bool,
    /// Share of events (of slow requests, for a latency).
    pub rate: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// For a latency: all requests by how long they took.
    #[serde(skip)]
    pub times: Histogram,
}

impl Clumpiness {
    /// From looks every `step`.
    #[must_use]
    pub fn new(step: Millis) -> Self {
        Self { poll_seconds: step.as_secs_f64(), estimates: BTreeMap::new() }
    }

    /// A new split begins.
    pub fn redrawn(&mut self) {
        self.estimates.values_mut().for_each(|it| it.split = Split::default());
    }

    /// Takes in a look.
    pub fn observe(&mut self, analyses: &[Analysis], regions: &BTreeMap<RegionName, RegionPoll>) {
        for (region, look) in regions {
            for analysis in analyses {
                let Some(measured) = look.measured.get(&analysis.name) else { continue };
                let key = (analysis.name.clone(), region.clone());
                let seconds = self.poll_seconds;
                let estimate = self.estimates.entry(key).or_insert_with(|| Estimate::new(seconds));
                let quantile = match analysis.measurement {
                    Measurement::Latency { quantile, .. } => quantile,
                    _ => 0.5,
                };
                estimate.observe(measured, quantile, look.window.as_secs_f64());
            }
        }
    }

    /// What is known by now.
    #[must_use]
    pub fn known(&self) -> Vec<Known> {
        let known = |((analysis, region), it): (&(AnalysisName, RegionName), &Estimate)| {
            let rate = it.total.rate()?;
            Some(Known {
                analysis: analysis.clone(),
                region: region.clone(),
                clumpiness: it.clumpiness(),
                is_split: it.is_split,
                rate,
                requests_per_second: it.total.requests / it.seconds.max(f64::MIN_POSITIVE),
                times: it.seen.clone(),
            })
        };
        self.estimates.iter().filter_map(known).collect()
    }
}

impl Estimate {
    fn new(poll_seconds: f64) -> Self {
        Self {
            effect: DesignEffect::new(Family::Bernoulli, 1.0, block_polls(poll_seconds)),
            split: Split::default(),
            whole: FanoLive::new(Family::Bernoulli),
            is_split: false,
            seen: Histogram::default(),
            edge: None,
            total: Arm::EMPTY,
            seconds: 0.0,
        }
    }

    fn observe(&mut self, measured: &Measured, quantile: f64, seconds: f64) {
        let Some((canary, stable)) = self.arms(measured, quantile) else { return };
        self.effect.observe(&mut self.split, &Window::new(canary, stable, seconds));
        self.is_split |= canary.requests > 0.0;
        let sum = |one: Arm, other: Arm| {
            Arm::new(one.events + other.events, one.requests + other.requests)
        };
        let both = sum(canary, stable);
        self.whole.observe(both, seconds);
        self.total = sum(self.total, both);
        self.seconds += seconds;
    }

    fn clumpiness(&self) -> f64 {
        if self.is_split { self.effect.clumpiness() } else { self.whole.estimate() }
    }

    fn arms(&mut self, measured: &Measured, quantile: f64) -> Option<(Arm, Arm)> {
        match measured {
            Measured::Counts { canary, stable } => {
                Some((Arm::new(canary.bad, canary.total), Arm::new(stable.bad, stable.total)))
            }
            Measured::Histogram { bounds, canary, stable } => {
                self.see(bounds, [canary, stable], quantile);
                let edge = self.edge?;
                let slow = |arm: &ArmHistogram| {
                    let index = bounds.iter().position(|bound| *bound == edge)?;
                    Some(Arm::new(arm.total - arm.cumulative[index], arm.total))
                };
                Some((slow(canary)?, slow(stable)?))
            }
            _ => None,
        }
    }

    fn see(&mut self, bounds: &[f64], arms: [&ArmHistogram; 2], quantile: f64) {
        if self.seen.edges != bounds {
            self.seen = Histogram::new(bounds.to_vec(), vec![0.0; bounds.len()], 0.0);
        }
        for arm in arms {
            self.seen.total += arm.total;
            let sums = self.seen.cumulative.iter_mut().zip(&arm.cumulative);
            sums.for_each(|(sum, count)| *sum += count);
        }
        if self.edge.is_none() && self.seen.total >= REQUESTS_BEFORE_EDGE {
            self.edge = self.seen.edge_nearest(quantile);
        }
    }
}

/// What stable was like: looks at it from `from` on, without any rollout. Canary's `weight` says which part is its.
///
/// # Errors
/// The past cannot be read.
pub async fn survey(
    past: &mut dyn Past,
    plan: &Plan,
    weight: Weight,
    (from, step): (Timestamp, Millis),
    each: &mut (dyn FnMut(Timestamp) + Send),
) -> Result<Vec<Known>, MetricsError> {
    let stand = Stand { reach: weight.into(), since: from, not_before: from };
    let stands = plan.regions.keys().map(|name| (name.clone(), stand)).collect();
    let analyses: Vec<Analysis> = plan.analyses.values().cloned().collect();
    let mut clumpiness = Clumpiness::new(step);
    let mut now = from;
    past.begin();
    while let Some(at) = past.next(now) {
        clumpiness.observe(&analyses, &past.look(at, &stands, &analyses).await?);
        each(at);
        now = at;
    }
    Ok(clumpiness.known())
}

/// A past of two halves, which are drawn anew for every rollout.
pub struct Halved<P> {
    past: P,
    halves: Arc<Halves>,
    begun: bool,
    /// How clumpy the events are.
    pub clumpiness: Clumpiness,
}

impl<P: Past> Halved<P> {
    /// Of a past that looks at `halves` every `step`.
    pub fn new(past: P, halves: Arc<Halves>, step: Millis) -> Self {
        Self { past, halves, begun: false, clumpiness: Clumpiness::new(step) }
    }

    /// How many instances the rollout at hand has.
    pub async fn instances(&self) -> usize {
        self.halves.instances().await
    }
}

#[async_trait]
impl<P: Past> Past for Halved<P> {
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.past.next(now)
    }

    async fn look(
        &mut self,
        at: Timestamp,
        stands: &BTreeMap<RegionName, Stand>,
        analyses: &[Analysis],
    ) -> Result<BTreeMap<RegionName, RegionPoll>, MetricsError> {
        if std::mem::take(&mut self.begun) {
            self.halves.redraw().await;
            self.clumpiness.redrawn();
        }
        let regions = self.past.look(at, stands, analyses).await?;
        self.clumpiness.observe(analyses, &regions);
        Ok(regions)
    }

    fn begin(&mut self) {
        self.past.begin();
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pods(usize);

    #[async_trait]
    impl MetricsSource for Pods {
        fn describe(&self) -> String {
            "pods".to_owned()
        }

        async fn raw(
            &self,
            _: &str,
            _: Timestamp,
            at: Timestamp,
        ) -> Result<Vec<Series>, MetricsError> {
            let labels = |pod: usize| [("instance".to_owned(), format!("pod-{pod}"))].into();
            let series = |pod| Series { labels: labels(pod), samples: vec![(at, 1.0)] };
            Ok((0..self.0).map(series).collect())
        }

        async fn evaluate(&self, _: &str, _: Timestamp) -> Result<Vec<Series>, MetricsError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn halves_are_disjoint_equal_stable_and_drawn_anew() {
        let halves = Halves::new(3);
        let source: Arc<dyn MetricsSource> = Arc::new(Pods(10));
        let [canary, stable] = [true, false].map(|is| halves.half(Arc::clone(&source), is));
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            let of = async |half: &Half| {
                let found = half.raw("m", Timestamp(0), Timestamp(1)).await.unwrap();
                found.iter().map(|it| it.labels["instance"].clone()).collect::<BTreeSet<_>>()
            };
            let (one, other) = (of(&canary).await, of(&stable).await);
            assert_eq!((one.len(), other.len(), one.is_disjoint(&other)), (5, 5, true));
            assert_eq!(of(&canary).await, one, "the same until it is drawn anew");
            seen.insert(one);
            halves.redraw().await;
        }
        assert!(seen.len() > 4, "{seen:?}");
    }

    #[test]
    fn clumps_are_told_from_single_errors() {
        let counts = |canary: f64, stable: f64| Measured::Counts {
            canary: crate::engine::poll::Arm { bad: canary, total: 1_000.0 },
            stable: crate::engine::poll::Arm { bad: stable, total: 1_000.0 },
        };
        let [mut single, mut clumped] = [0, 1].map(|_| Estimate::new(15.0));
        for poll in 0..400_u32 {
            // Ten errors in either half, or twenty in one of them.
            let one = f64::from(poll % 7) + 7.0;
            single.observe(&counts(one, 20.0 - one), 0.5, 15.0);
            let side = if poll.wrapping_mul(2_654_435_761) >> 31 == 0 { 20.0 } else { 0.0 };
            clumped.observe(&counts(side, 20.0 - side), 0.5, 15.0);
        }
        assert_eq!(single.effect.clumpiness(), 1.0);
        assert!(clumped.effect.clumpiness() > 10.0, "{}", clumped.effect.clumpiness());
        assert_eq!(single.total.rate(), Some(0.01));
    }
}
