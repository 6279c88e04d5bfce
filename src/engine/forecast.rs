//! What a stage's traffic can decide, said beforehand: when each criterion is expected to be proven, and what to change
//! where it will not be.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::spec::plan::{Criterion, CriterionId, Plan, Stage, Test};
use crate::stats::conditions::{CLUMPINESS_WITHOUT_HISTORY, QUORUM, QUORUM_WITHOUT_HISTORY};
use crate::stats::histogram::share_up_to;
use crate::stats::numbers::{normal_cdf, normal_quantile};
use crate::stats::plan::{Plan as Planned, Traffic};
use crate::stats::{Histogram, Levels, Limit};
use crate::units::{AnalysisName, Millis, Reach, RegionName};

/// Spread of ln(latency) that is assumed where no histogram is at hand.
const LOG_LATENCY_SPREAD: f64 = 0.7;

/// What is assumed about a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumed {
    /// Requests per second by region, both arms together.
    pub requests_per_second: BTreeMap<RegionName, f64>,
    /// Stable's share of bad events.
    pub base_rate: f64,
    /// Clumpiness from history; without it, the constants for no history hold.
    pub clumpiness: Option<f64>,
    /// Chance with which the answer shall be there in time.
    pub power: f64,
    /// What was measured, by analysis and region; it goes before the assumptions above.
    pub measured: BTreeMap<AnalysisName, BTreeMap<RegionName, Measured>>,
}

/// What stable was like for one analysis in one region.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Share of bad or of slow requests.
    pub rate: f64,
    /// Clumpiness of them.
    pub clumpiness: f64,
    /// Requests per second, which the shares of several regions are weighed by.
    pub requests_per_second: f64,
    /// For a latency: all requests by how long they took; empty otherwise.
    pub times: Histogram,
}

/// When one criterion is expected to be proven if the arms are equal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Which.
    pub criterion: CriterionId,
    /// As the user wrote it.
    pub text: String,
    /// Expected time; `None`: never at this traffic, or not a matter of traffic.
    pub seconds: Option<f64>,
    /// Canary requests in that time.
    pub requests: Option<f64>,
    /// It is expected within the stage's duration.
    pub in_time: bool,
    /// Smallest rate of the canary that rolls back within the stage's duration, at the declared power; `None`: none.
    pub smallest_found: Option<f64>,
    /// What is counted.
    pub counted: &'static str,
    /// Stable's rate of the same.
    pub stable_rate: Option<f64>,
    /// What to change, if it is not.
    pub remedy: Option<String>,
    /// What was assumed beyond the given numbers.
    pub assumed: Option<String>,
}

/// Forecasts of every statistical criterion of a stage.
#[must_use]
pub fn stage(plan: &Plan, stage: &Stage, assumed: &Assumed) -> Vec<Forecast> {
    let statistical = stage.criteria.iter().filter(|criterion| criterion.test.is_statistical());
    statistical.map(|criterion| criterion_forecast(plan, stage, criterion, assumed)).collect()
}

/// Canary requests per second of a stage's last step.
#[must_use]
pub fn canary_per_second(stage: &Stage, assumed: &Assumed) -> f64 {
    traffic(stage, assumed, None).canary_per_second
}

/// Requests per second of both arms at a stage's last step; with `share`, as if that reached the canary instead.
fn traffic(stage: &Stage, assumed: &Assumed, share: Option<f64>) -> Traffic {
    let mut sum = Traffic { canary_per_second: 0.0, stable_per_second: 0.0 };
    let Some(last) = stage.steps.last() else { return sum };
    for name in last.reached() {
        let total = assumed.requests_per_second.get(name).copied().unwrap_or(0.0);
        let Reach { weight, mirror } = last.reach(name);
        if mirror.is_zero() {
            let part = Traffic::shared(total, share.unwrap_or(weight.fraction()));
            sum.canary_per_second += part.canary_per_second;
            sum.stable_per_second += part.stable_per_second;
        } else {
            sum.canary_per_second += total * share.unwrap_or(mirror.fraction());
            sum.stable_per_second += total;
        }
    }
    sum
}

fn criterion_forecast(
    plan: &Plan,
    stage: &Stage,
    criterion: &Criterion,
    assumed: &Assumed,
) -> Forecast {
    let nothing = Forecast {
        criterion: criterion.id.clone(),
        text: criterion.text.clone(),
        seconds: None,
        requests: None,
        in_time: true,
        smallest_found: None,
        counted: match criterion.test {
            Test::QuantileRatio { .. } | Test::QuantileLimit { .. } => "slow requests",
            _ => "bad requests",
        },
        stable_rate: None,
        remedy: None,
        assumed: None,
    };
    let measured = measured(stage, criterion, assumed);
    let Some((limit, rate, assumption)) = as_counts(&criterion.test, assumed, measured.as_ref())
    else {
        return nothing;
    };
    let clumpiness = measured.map(|it| it.clumpiness).or(assumed.clumpiness);
    let traffic = traffic(stage, assumed, None);
    let planned =
        Planned { power: assumed.power, ..planned(plan, traffic, limit, rate, clumpiness) };
    let quickest = planned.time_to_ok(rate).map(|found| found.seconds);
    let seconds = quickest.map(|seconds| seconds.max(requests_time(stage, &planned)));
    let duration = stage.duration.as_secs_f64();
    let in_time = seconds.is_some_and(|seconds| seconds <= duration);
    Forecast {
        seconds,
        requests: seconds.map(|seconds| seconds * planned.traffic.canary_per_second),
        in_time,
        smallest_found: planned.smallest_detectable(duration),
        stable_rate: Some(rate),
        remedy: (!in_time).then(|| remedy(stage, assumed, &planned, rate, seconds)),
        assumed: assumption,
        ..nothing
    }
}

fn requests_time(stage: &Stage, planned: &Planned) -> f64 {
    stage.min_requests as f64 / planned.traffic.canary_per_second.max(f64::MIN_POSITIVE)
}

/// What was measured of a criterion's analysis, over the regions of the stage together.
fn measured(stage: &Stage, criterion: &Criterion, assumed: &Assumed) -> Option<Measured> {
    let regions = assumed.measured.get(&criterion.analysis)?;
    let own = regions.iter().filter(|(name, _)| stage.regions.contains(name));
    let mut sum: Option<Measured> = None;
    for (_, next) in own {
        sum = Some(match sum {
            None => next.clone(),
            Some(sum) => sum.with(next),
        });
    }
    sum
}

impl Measured {
    /// Two regions together, as clumpy as the worse of them.
    fn with(self, other: &Self) -> Self {
        let requests_per_second = self.requests_per_second + other.requests_per_second;
        let events = self.rate * self.requests_per_second + other.rate * other.requests_per_second;
        Self {
            rate: if requests_per_second > 0.0 { events / requests_per_second } else { self.rate },
            clumpiness: self.clumpiness.max(other.clumpiness),
            requests_per_second,
            // Layouts may differ: the larger one speaks for both.
            times: if other.times.total > self.times.total {
                other.times.clone()
            } else {
                self.times
            },
        }
    }
}

/// The test as a limit on a share, the share that stable has, and what was assumed for it.
fn as_counts(
    test: &Test,
    assumed: &Assumed,
    measured: Option<&Measured>,
) -> Option<(Limit, f64, Option<String>)> {
    match test {
        Test::Rate { factor, offset } => {
            let rate = measured.map_or(assumed.base_rate, |it| it.rate);
            Some((Limit::new(*factor, *offset), rate, None))
        }
        Test::QuantileRatio { quantile, ratio } => {
            if let Some((limit, rate)) = measured.and_then(|it| slow(&it.times, *quantile, *ratio))
            {
                return Some((limit, rate, None));
            }
            let score = normal_quantile(*quantile) - ratio.ln() / LOG_LATENCY_SPREAD;
            let tail = 1.0 - quantile;
            let factor = (1.0 - normal_cdf(score)) / tail;
            let note = format!("latency is lognormal with a spread of {LOG_LATENCY_SPREAD}");
            Some((Limit::ratio(factor), tail, Some(note)))
        }
        _ => None,
    }
}

/// Requests beyond the edge nearest to a quantile: how many times as many there are once all of them take `ratio` as
/// long, and their share now.
fn slow(times: &Histogram, quantile: f64, ratio: f64) -> Option<(Limit, f64)> {
    let edge = times.edge_nearest(quantile)?;
    let shares = times.shares();
    let now = 1.0 - share_up_to(&times.edges, &shares, edge);
    let then = 1.0 - share_up_to(&times.edges, &shares, edge / ratio);
    (now > 0.0 && then > now).then(|| (Limit::ratio(then / now), now))
}

fn planned(
    plan: &Plan,
    traffic: Traffic,
    limit: Limit,
    rate: f64,
    clumpiness: Option<f64>,
) -> Planned {
    let poll =
        plan.regions.values().map(|region| region.poll).min().unwrap_or(Millis::from_secs(15));
    Planned {
        levels: Levels::new(plan.policy.alpha, plan.policy.beta),
        clumpiness: clumpiness.unwrap_or(CLUMPINESS_WITHOUT_HISTORY).max(plan.clumps_min()),
        quorum: if clumpiness.is_some() { QUORUM } else { QUORUM_WITHOUT_HISTORY },
        poll_seconds: poll.as_secs_f64(),
        ..Planned::new(traffic, rate, limit)
    }
}

/// "52 min instead of 30, or 12 % instead of 5 %".
fn remedy(
    stage: &Stage,
    assumed: &Assumed,
    planned: &Planned,
    rate: f64,
    seconds: Option<f64>,
) -> String {
    let longer = seconds.map(|seconds| {
        let time = Millis((seconds.max(1.0) * 1_000.0).round() as u64);
        format!("{time} instead of {}", stage.duration)
    });
    let duration = stage.duration.as_secs_f64();
    let enough = |percent: &f64| {
        let traffic = traffic(stage, assumed, Some(percent / 100.0));
        let wider = Planned { traffic, ..*planned };
        wider
            .time_to_ok(rate)
            .is_some_and(|found| found.seconds.max(requests_time(stage, &wider)) <= duration)
    };
    let reached = stage.weight.max(stage.mirror);
    let percents = (1..=50).map(f64::from).filter(|&percent| percent > reached.percent());
    let wider = percents
        .into_iter()
        .find(enough)
        .map(|percent| format!("{percent} % instead of {reached}"));
    let remedies: Vec<_> = longer.into_iter().chain(wider).collect();
    if remedies.is_empty() {
        "a wider margin: no time and no share of this traffic can show this one".to_owned()
    } else {
        remedies.join(", or ")
    }
}
