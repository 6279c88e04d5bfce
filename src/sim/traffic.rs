//! Requests of two versions by chance: how many, how many fail, how long they take, how people rate them.

use rand::{Rng, RngExt};
use rand_distr::{Binomial, Distribution, Poisson, StandardNormal};
use statrs::distribution::{ContinuousCDF, LogNormal};

use crate::engine::poll::{Arm, ArmHistogram, Measured};
use crate::spec::plan::Measurement;
use crate::units::{Millis, Reach, RegionName};

/// Spread of response times, as the standard deviation of their logarithm.
const LATENCY_SPREAD: f64 = 0.7;

/// Spread of a gauge's values around what is true.
const RATING_SPREAD: f64 = 0.1;

/// Time over which what both arms share comes and goes.
const SWAY_SECONDS: f64 = 600.0;

/// How one version behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// Share of requests that fail, 0 to 1.
    pub errors: f64,
    /// Median response time in seconds; the p95 is 3.16 times as long.
    pub latency: f64,
    /// Mean of its gauges.
    pub rating: f64,
    /// Its checks hold.
    pub holds: bool,
}

impl Behaviour {
    /// 0.1 % errors, a p95 of 158 ms, ratings of 4.7.
    pub const FINE: Self = Self { errors: 0.001, latency: 0.05, rating: 4.7, holds: true };
}

/// From a stage on the new version is another one, in one region or everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Index of the stage.
    pub from_stage: usize,
    /// Where; none is everywhere.
    pub region: Option<RegionName>,
    /// How it behaves there from then on.
    pub canary: Behaviour,
}

/// The requests of one service, in every region alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Requests per second and region, both arms together.
    pub per_second: f64,
    /// Upper edges of the latency histogram in seconds, ascending.
    pub edges: Vec<f64>,
    /// How much error rates and response times of both arms go up and down together within some ten minutes: the standard
    /// deviation of the logarithm of the error rate, a quarter of it for response times. 0 is the same at all times.
    pub sway: f64,
    /// The version that runs.
    pub stable: Behaviour,
    /// The version that is rolled out.
    pub canary: Behaviour,
    /// What happens to it later; where several apply, the last one does.
    pub changes: Vec<Change>,
}

impl Traffic {
    /// Both versions fine, with a moderate sway.
    #[must_use]
    pub fn equal(per_second: f64) -> Self {
        Self {
            per_second,
            edges: vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5],
            sway: 0.2,
            stable: Behaviour::FINE,
            canary: Behaviour::FINE,
            changes: Vec::new(),
        }
    }

    /// The same with another new version.
    #[must_use]
    pub fn canary(self, canary: Behaviour) -> Self {
        Self { canary, ..self }
    }

    /// How the new version behaves in a region at a stage.
    pub(super) fn canary_in(&self, region: &RegionName, stage: usize) -> Behaviour {
        let applies = |change: &&Change| {
            change.from_stage <= stage && change.region.as_ref().is_none_or(|it| it == region)
        };
        self.changes.iter().rev().find(applies).map_or(self.canary, |change| change.canary)
    }
}

/// What both arms of a region share at the moment; goes on from window to window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sway(f64);

impl Sway {
    fn next(&mut self, random: &mut impl Rng, seconds: f64) {
        let kept = (-seconds / SWAY_SECONDS).exp();
        let new: f64 = StandardNormal.sample(random);
        self.0 = self.0 * kept + new * (1.0 - kept * kept).sqrt();
    }
}

/// The requests of one window in one region.
#[derive(Debug, Clone)]
pub(super) struct Window {
    canary: Option<Requests>,
    stable: Option<Requests>,
    edges: Vec<f64>,
    holds: bool,
}

/// Those of one arm.
#[derive(Debug, Clone, Default)]
struct Requests {
    counts: Arm,
    histogram: ArmHistogram,
    rating: f64,
}

impl Window {
    /// Draws a window of `length`; an arm that nothing reaches has nothing.
    pub(super) fn draw(
        traffic: &Traffic,
        canary: Behaviour,
        reach: Reach,
        length: Millis,
        sway: &mut Sway,
        random: &mut impl Rng,
    ) -> Self {
        let seconds = length.as_secs_f64();
        sway.next(random, seconds);
        let shared = traffic.sway * sway.0;
        let mut arm = |behaviour: Behaviour, share: f64| {
            (share > 0.0).then(|| {
                let mean = traffic.per_second * seconds * share;
                Requests::draw(behaviour, mean, shared, &traffic.edges, random)
            })
        };
        Self {
            canary: arm(canary, reach.weight.fraction() + reach.mirror.fraction()),
            stable: arm(traffic.stable, reach.weight.complement().fraction()),
            edges: traffic.edges.clone(),
            holds: canary.holds,
        }
    }

    /// Nothing yet.
    pub(super) fn empty(traffic: &Traffic) -> Self {
        Self { canary: None, stable: None, edges: traffic.edges.clone(), holds: true }
    }

    /// Takes in what came after it.
    pub(super) fn add(&mut self, later: &Self) {
        for (sum, came) in [(&mut self.canary, &later.canary), (&mut self.stable, &later.stable)] {
            if let Some(came) = came {
                sum.get_or_insert_default().combine(came, |one, other| one + other);
            }
        }
        self.holds = later.holds;
    }

    /// What came since `before`, which this goes on from; an arm without requests has nothing.
    pub(super) fn since(&self, before: &Self) -> Self {
        let arm = |now: &Option<Requests>, before: &Option<Requests>| {
            let mut rest = now.clone()?;
            if let Some(before) = before {
                rest.combine(before, |one, other| one - other);
            }
            (rest.counts.total > 0.0).then_some(rest)
        };
        Self {
            canary: arm(&self.canary, &before.canary),
            stable: arm(&self.stable, &before.stable),
            edges: self.edges.clone(),
            holds: self.holds,
        }
    }

    /// Requests of the canary.
    pub(super) fn canary_total(&self) -> f64 {
        self.canary.as_ref().map_or(0.0, |canary| canary.counts.total)
    }

    /// What an analysis makes of it.
    pub(super) fn measured(&self, measurement: &Measurement) -> Measured {
        let arms = [&self.canary, &self.stable].map(Option::as_ref);
        match measurement {
            Measurement::Proportion { .. } => {
                let [canary, stable] = arms.map(|arm| arm.map(|it| it.counts).unwrap_or_default());
                Measured::Counts { canary, stable }
            }
            Measurement::Latency { .. } => {
                let [canary, stable] =
                    arms.map(|arm| arm.map(|it| it.histogram.clone()).unwrap_or_default());
                Measured::Histogram { bounds: self.edges.clone(), canary, stable }
            }
            Measurement::Gauge { range, .. } => {
                let (low, high) = range.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
                let [canary, stable] = arms.map(|arm| arm.map(|it| it.rating.clamp(low, high)));
                Measured::Gauge { canary, stable }
            }
            Measurement::Check { .. } => {
                Measured::Check { held: self.holds, detail: format!("value {}", self.holds) }
            }
        }
    }
}

impl Requests {
    fn draw(
        behaviour: Behaviour,
        mean: f64,
        shared: f64,
        edges: &[f64],
        random: &mut impl Rng,
    ) -> Self {
        let total = count(mean, random);
        let errors = (behaviour.errors * shared.exp()).min(1.0);
        let median = behaviour.latency * (0.25 * shared).exp();
        let noise: f64 = StandardNormal.sample(random);
        Self {
            counts: Arm { bad: part(total, errors, random), total },
            histogram: histogram(total, median, edges, random),
            rating: behaviour.rating + RATING_SPREAD * noise,
        }
    }
}

impl Requests {
    /// Counts become what `of` makes of both; gauges are those of `self`, or of the other where it has none.
    fn combine(&mut self, other: &Self, of: impl Fn(f64, f64) -> f64) {
        self.counts.bad = of(self.counts.bad, other.counts.bad);
        self.counts.total = of(self.counts.total, other.counts.total);
        self.histogram.total = of(self.histogram.total, other.histogram.total);
        self.histogram.cumulative.resize(other.histogram.cumulative.len(), 0.0);
        let buckets = self.histogram.cumulative.iter_mut().zip(&other.histogram.cumulative);
        buckets.for_each(|(own, other)| *own = of(*own, *other));
        self.rating = other.rating;
    }
}

/// Bucket by bucket, each a share of what is left.
fn histogram(total: f64, median: f64, edges: &[f64], random: &mut impl Rng) -> ArmHistogram {
    let Ok(law) = LogNormal::new(median.ln(), LATENCY_SPREAD) else {
        return ArmHistogram::default();
    };
    let (mut left, mut before) = (total, 0.0);
    let cumulative = edges.iter().map(|edge| {
        let below = law.cdf(*edge);
        let inside = if before < 1.0 { (below - before) / (1.0 - before) } else { 0.0 };
        before = below;
        left -= part(left, inside, random);
        total - left
    });
    ArmHistogram { cumulative: cumulative.collect(), total }
}

/// How many happen if `mean` do on average.
fn count(mean: f64, random: &mut impl Rng) -> f64 {
    Poisson::new(mean).map_or(0.0, |law| law.sample(random))
}

/// How many of `total` are of a kind that has this share.
fn part(total: f64, share: f64, random: &mut impl Rng) -> f64 {
    let law = Binomial::new(total.max(0.0) as u64, share.clamp(0.0, 1.0));
    law.map_or(0.0, |law| random.sample(law) as f64)
}
