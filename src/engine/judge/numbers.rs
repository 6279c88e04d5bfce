//! The numbers behind a verdict, for people. Sums are stratified by region; none of them is tested.

use super::harm::Role;
use super::monitors::MonitorSet;
use super::outcome::Scene;
use super::reading::merge;
use super::record::{Record, Tally};
use super::watch::Watch;
use super::{Judge, proportion};
use crate::engine::verdict::Numbers;
use crate::spec::plan::{Plan, Test};
use crate::stats::conditions::QUORUM_WITHOUT_HISTORY;
use crate::stats::histogram::{quantile, quantile_interval};
use crate::stats::traffic_split::CONCENTRATION;
use crate::stats::{self, Arm, Histogram, Levels, Limit, Traffic};
use crate::units::{Millis, RegionName};

/// Shown intervals are true at every look with this error.
const INTERVAL_ALPHA: f64 = 0.05;

/// Both arms over all regions, stable weighted as the canary is spread.
#[derive(Default)]
struct Sums {
    canary: Arm,
    stable: Arm,
    /// Stable's share of bad events if it had the canary's mix of regions.
    stable_mixed: Arm,
    canary_histogram: Histogram,
    stable_histogram: Histogram,
}

impl Judge {
    pub(super) fn numbers(&self, scene: &Scene, set: &MonitorSet) -> Numbers {
        let regions = &scene.proving;
        let records = || {
            regions.iter().filter_map(|name| {
                Some((name, self.regions.get(name)?.records.get(&set.analysis)?))
            })
        };
        let sums = Sums::new(records().map(|(_, record)| &record.tally));
        let level = records()
            .map(|(_, it)| it.tally.level)
            .fold((0.0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
        let (effect, canary, stable) = match &set.test {
            Test::Level { .. } => ((level.1 > 0).then(|| level.0 / level.1 as f64), None, None),
            test => (sums.effect(test), sums.arm(test, true), sums.arm(test, false)),
        };
        let phi = |(name, record): (&RegionName, &Record)| {
            self.conditions(name, &set.analysis, record).clumpiness
        };
        let finite = |log: f64| log.is_finite().then_some(log);
        Numbers {
            method: method(set).to_owned(),
            effect: effect.filter(|effect| effect.is_finite()),
            interval: set.interval,
            canary,
            stable,
            log_bad: finite(set.concurrent.log_pooled_bad()),
            log_ok: finite(self.log_ok(scene.plan, set)),
            regions: self.numbers_by_region(set),
            clumpiness: records().map(phi).reduce(f64::max),
            unverified: self.unverified(scene, set),
            polls: self.looked(regions, &set.analysis).0,
        }
    }

    /// The interval of the effect; costly, so it is not made anew at every poll.
    pub(super) fn interval(&self, plan: &Plan, set: &MonitorSet) -> Option<(f64, f64)> {
        let regions = self.proving(plan, &self.canary_regions(plan));
        let tallies = regions
            .iter()
            .filter_map(|name| Some(&self.regions.get(name)?.records.get(&set.analysis)?.tally));
        Sums::new(tallies).interval(&set.test)
    }

    /// How long a proof takes at this generation's traffic if the arms are equal, from nothing; costly like the interval.
    ///
    /// Asked only while the evidence itself does not grow, which would tell better.
    pub(super) fn forecast(&self, plan: &Plan, set: &MonitorSet) -> Option<Millis> {
        if self.log_ok(plan, set) > 0.0 {
            return None;
        }
        let regions = self.proving(plan, &self.canary_regions(plan));
        let record = |name: &RegionName| self.regions.get(name)?.records.get(&set.analysis);
        let tallies = regions.iter().filter_map(|name| Some(&record(name)?.tally));
        let sums = Sums::new(tallies);
        let (polls, seconds) = self.looked(&regions, &set.analysis);
        let (limit, stable_rate) = match set.test {
            Test::Rate { factor, offset } => (Limit::new(factor, offset), sums.stable.rate()?),
            Test::QuantileRatio { .. } => {
                set.concurrent.regions.values().find_map(|it| match it {
                    Watch::Ratio(monitor) => monitor
                        .last_choice()
                        .map(|choice| (Limit::ratio(choice.kappa), choice.tail)),
                    _ => None,
                })?
            }
            _ => return None,
        };
        if polls == 0 || seconds <= 0.0 {
            return None;
        }
        let traffic = Traffic {
            canary_per_second: sums.canary.requests / seconds,
            stable_per_second: sums.stable.requests / seconds,
        };
        let phi = |name: &RegionName| {
            Some(self.conditions(name, &set.analysis, record(name)?).clumpiness)
        };
        let forecast = stats::Plan {
            levels: Levels::new(plan.policy.alpha, plan.policy.beta),
            clumpiness: regions.iter().filter_map(phi).fold(1.0, f64::max),
            poll_seconds: seconds / polls as f64,
            quorum: QUORUM_WITHOUT_HISTORY,
            ..stats::Plan::new(traffic, stable_rate, limit)
        };
        forecast.time_to_ok(stable_rate).map(|it| Millis((it.seconds * 1_000.0) as u64))
    }

    /// Which assumptions of this verdict are not verified.
    fn unverified(&self, scene: &Scene, set: &MonitorSet) -> Option<String> {
        let mut words = Vec::new();
        if !self.is_verified(scene.plan, &set.analysis) {
            words.push("no history".to_owned());
        }
        if set.log_harm_nonconcurrent().is_some() {
            words.push("non-concurrent".to_owned());
        }
        if let Some(quantile) = self.edge_too_far(set) {
            words.push(format!("bucket edges too far from p{}", 100.0 * quantile));
        }
        let warming =
            |name: &&RegionName| self.regions.get(*name).is_some_and(|region| region.is_warming_up);
        if scene.regions.iter().any(|name| warming(&name)) {
            words.push("warming up".to_owned());
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// The quantile that no usable bucket edge is near, in some region.
    pub(super) fn edge_too_far(&self, set: &MonitorSet) -> Option<f64> {
        let Test::QuantileRatio { quantile, .. } = set.test else { return None };
        let far = |watch: &Watch| match watch {
            Watch::Ratio(monitor) => {
                monitor.last_choice().is_some_and(|choice| choice.is_too_far(quantile))
            }
            _ => false,
        };
        set.concurrent.regions.values().any(far).then_some(quantile)
    }

    /// Effect and counts in one region, for a sentence.
    pub(super) fn counts_in(&self, set: &MonitorSet, region: &RegionName) -> Option<(Arm, Arm)> {
        let tally = &self.regions.get(region)?.records.get(&set.analysis)?.tally;
        let sums = Sums::new(std::iter::once(tally));
        let arm = |arm: Option<(f64, f64)>| arm.map_or(Arm::EMPTY, |(bad, all)| Arm::new(bad, all));
        Some((arm(sums.arm(&set.test, true)), arm(sums.arm(&set.test, false))))
    }
}

fn method(set: &MonitorSet) -> &'static str {
    match set.test {
        _ if set.log_harm_nonconcurrent().is_some() => "one-sample bet against stable before",
        Test::Rate { factor, .. } if factor > 0.0 => "two-arm count bet",
        Test::Rate { .. } => "one-arm count bet",
        Test::QuantileRatio { .. } => "latency share bet",
        Test::QuantileLimit { .. } => "one-arm latency share bet",
        Test::Level { .. } => match set.concurrent.regions.values().next() {
            Some(Watch::Mean { .. }) => "normal mixture, approximate",
            _ => "bounded mean bet",
        },
        Test::Holds => "check",
    }
}

impl Sums {
    fn new<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Self {
        let mut sums = Self::default();
        for tally in tallies {
            let add = |sum: &mut Arm, arm: Arm, factor: f64| {
                sum.events += factor * arm.events;
                sum.requests += factor * arm.requests;
            };
            add(&mut sums.canary, tally.canary, 1.0);
            add(&mut sums.stable, tally.stable, 1.0);
            if tally.stable.requests > 0.0 {
                let factor = tally.canary.requests / tally.stable.requests;
                add(&mut sums.stable_mixed, tally.stable, factor);
                let mut mixed = tally.stable_histogram.clone();
                mixed.cumulative.iter_mut().for_each(|count| *count *= factor);
                mixed.total *= factor;
                merge(&mut sums.stable_histogram, &mixed);
            }
            merge(&mut sums.canary_histogram, &tally.canary_histogram);
        }
        sums
    }

    fn effect(&self, test: &Test) -> Option<f64> {
        match *test {
            Test::Rate { factor: 0.0, .. } => self.canary.rate(),
            Test::Rate { offset, factor } => {
                let (canary, stable) = (self.canary.rate()?, self.stable_mixed.rate()?);
                let is_ratio = offset == 0.0 && factor != 1.0;
                Some(if is_ratio { canary / stable } else { canary - stable })
            }
            Test::QuantileRatio { quantile, .. } => {
                let canary = quantile_of(&self.canary_histogram, quantile)?;
                Some(canary / quantile_of(&self.stable_histogram, quantile)?)
            }
            Test::QuantileLimit { quantile, .. } => quantile_of(&self.canary_histogram, quantile),
            Test::Level { .. } | Test::Holds => None,
        }
    }

    fn interval(&self, test: &Test) -> Option<(f64, f64)> {
        let alpha = INTERVAL_ALPHA / 2.0;
        let range =
            |arm: Arm| Some((proportion::lower(arm, alpha)?, proportion::upper(arm, alpha)?));
        let times = |histogram: &Histogram, quantile: f64| {
            let interval = quantile_interval(histogram, quantile, alpha, CONCENTRATION);
            (histogram.total > 0.0 && interval.1.is_finite()).then_some(interval)
        };
        match *test {
            Test::Rate { factor: 0.0, .. } => range(self.canary),
            Test::Rate { offset, factor } if offset > 0.0 || factor == 1.0 => {
                let (canary, stable) = (range(self.canary)?, range(self.stable)?);
                Some((canary.0 - stable.1, canary.1 - stable.0))
            }
            Test::QuantileRatio { quantile, .. } => {
                let canary = times(&self.canary_histogram, quantile)?;
                let stable = times(&self.stable_histogram, quantile).filter(|it| it.0 > 0.0)?;
                Some((canary.0 / stable.1, canary.1 / stable.0))
            }
            Test::QuantileLimit { quantile, .. } => times(&self.canary_histogram, quantile),
            _ => None,
        }
    }

    /// Bad and all events of an arm; for latency "bad" is slower than the edge nearest to stable's quantile or the limit.
    fn arm(&self, test: &Test, is_canary: bool) -> Option<(f64, f64)> {
        let arm = if is_canary { self.canary } else { self.stable };
        let histogram = if is_canary { &self.canary_histogram } else { &self.stable_histogram };
        let edge = match *test {
            Test::Rate { .. } => return (arm.requests > 0.0).then_some((arm.events, arm.requests)),
            Test::QuantileRatio { quantile, .. } => {
                let reference = &self.stable_histogram;
                let distance = |below: f64| (below / reference.total - quantile).abs();
                let edges = reference.edges.iter().zip(&reference.cumulative);
                *edges.min_by(|one, other| distance(*one.1).total_cmp(&distance(*other.1)))?.0
            }
            Test::QuantileLimit { limit, .. } => {
                histogram.edges.iter().copied().find(|edge| *edge >= limit)?
            }
            _ => return None,
        };
        let below = histogram.count_up_to(edge)?;
        // Stable's histogram is weighted like the canary's regions; people are shown its own count.
        let slow = (1.0 - below / histogram.total) * arm.requests;
        (histogram.total > 0.0).then_some((slow, arm.requests))
    }
}

fn quantile_of(histogram: &Histogram, probability: f64) -> Option<f64> {
    Some(quantile(&histogram.edges, &histogram.shares(), probability)?.estimate)
}

/// A test that may only hold says so.
pub(super) fn only_holds(role: Role) -> bool {
    matches!(role, Role::HoldsUnverified | Role::HoldsOnFail)
}
