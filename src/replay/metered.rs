//! The past as the metrics source has it, read by the same meters as live.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{Past, requests, share};
use crate::engine::poll::{DarkArm, Measured, RegionPoll};
use crate::metrics::meter::{LookContext, Meter, Sources};
use crate::ports::{CheckAnswer, Checker, MetricsError, MetricsSource, Subject};
use crate::sim::course::Stand;
use crate::spec::plan::Analysis;
use crate::units::{AnalysisName, Millis, Reach, RegionName, Timestamp, Weight};

/// Where one region's numbers come from.
pub struct RegionPast {
    /// The canary's.
    pub canary: ArmPast,
    /// Stable's.
    pub stable: ArmPast,
    /// How often the source scraped.
    pub scrape_interval: Millis,
    /// What checks are asked about.
    pub subject: Subject,
}

/// Where one arm's numbers come from.
pub struct ArmPast {
    /// Read ahead.
    pub source: Arc<dyn MetricsSource>,
    /// What its selectors are bound to.
    pub variables: BTreeMap<String, String>,
}

/// Looks every `step`.
pub struct Metered {
    regions: BTreeMap<RegionName, (RegionPast, Metering)>,
    step: Millis,
    end: Timestamp,
}

/// What is remembered of a region between looks.
#[derive(Default)]
struct Metering {
    meter: Meter,
    stand: Option<Stand>,
    looked_at: Option<Timestamp>,
    /// Stable had nothing at the last look, as at 100 %.
    is_without_stable: bool,
}

impl Metered {
    /// Of these regions, a look every `step` up to `end`.
    #[must_use]
    pub fn new(regions: BTreeMap<RegionName, RegionPast>, step: Millis, end: Timestamp) -> Self {
        let fresh = |(name, past)| (name, (past, Metering::default()));
        Self { regions: regions.into_iter().map(fresh).collect(), step, end }
    }
}

#[async_trait]
impl Past for Metered {
    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let next = now.plus(self.step);
        (next <= self.end).then_some(next)
    }

    async fn look(
        &mut self,
        at: Timestamp,
        stands: &BTreeMap<RegionName, Stand>,
        analyses: &[Analysis],
    ) -> Result<BTreeMap<RegionName, RegionPoll>, MetricsError> {
        let looks = self.regions.iter_mut().filter_map(|(name, (past, metering))| {
            let stand = *stands.get(name)?;
            Some(async move { (name.clone(), metering.look(past, stand, at, analyses).await) })
        });
        let found = join_all(looks).await;
        found.into_iter().map(|(name, look)| Ok((name, look?))).collect()
    }

    fn begin(&mut self) {
        self.regions.values_mut().for_each(|(_, metering)| *metering = Metering::default());
    }
}

impl Metering {
    async fn look(
        &mut self,
        past: &RegionPast,
        stand: Stand,
        at: Timestamp,
        analyses: &[Analysis],
    ) -> Result<RegionPoll, MetricsError> {
        if self.stand != Some(stand) {
            self.meter.reset_origins();
            (self.stand, self.looked_at) = (Some(stand), None);
        }
        let context = LookContext {
            analyses: analyses.iter().collect(),
            canary: &past.canary.variables,
            stable: &past.stable.variables,
            subject: &past.subject,
            reach: Reach { weight: self.weight(stand.reach.weight), mirror: stand.reach.mirror },
            at,
            after: self.looked_at,
            not_before: stand.not_before,
            scrape_interval: past.scrape_interval,
        };
        let (canary, stable) =
            (Watched::new(&past.canary.source), Watched::new(&past.stable.source));
        let sources = Sources { canary: &canary, stable: &stable };
        let measured = self.meter.look_at_each(sources, &Held, &context).await;
        for source in [canary, stable] {
            source.failure.into_inner().map_or(Ok(()), Err)?;
        }
        let window = self.looked_at.map_or(Millis::ZERO, |before| at.since(before));
        self.looked_at = Some(at);
        self.is_without_stable = is_without_stable(&measured);
        let weight = share(requests(measured.values()), context.reach.weight);
        Ok(RegionPoll { weight, mirror: context.reach.mirror, window, ready_for: None, measured })
    }

    /// Where nothing should be left to compare with, there is something as long as stable had traffic.
    fn weight(&self, wanted: Weight) -> Weight {
        let least = Weight::try_from(1).unwrap_or_default();
        if wanted == Weight::FULL && !self.is_without_stable { least.complement() } else { wanted }
    }
}

fn is_without_stable(measured: &BTreeMap<AnalysisName, Measured>) -> bool {
    let dark = |it: &&Measured| matches!(it, Measured::Missing { arm: DarkArm::Stable, .. });
    let counted = |it: &&Measured| {
        matches!(it, Measured::Counts { stable, .. } if stable.total > 0.0)
            || matches!(it, Measured::Histogram { stable, .. } if stable.total > 0.0)
    };
    measured.values().any(|it| dark(&it)) && !measured.values().any(|it| counted(&it))
}

/// A source that keeps its first failure: a past that cannot be read says nothing of the policy.
struct Watched<'a> {
    source: &'a dyn MetricsSource,
    failure: tokio::sync::Mutex<Option<MetricsError>>,
}

impl<'a> Watched<'a> {
    fn new(source: &'a Arc<dyn MetricsSource>) -> Self {
        Self { source: source.as_ref(), failure: tokio::sync::Mutex::new(None) }
    }

    async fn kept<T>(&self, found: Result<T, MetricsError>) -> Result<T, MetricsError> {
        if let Err(error) = &found {
            self.failure.lock().await.get_or_insert_with(|| error.clone());
        }
        found
    }
}

#[async_trait]
impl MetricsSource for Watched<'_> {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<crate::ports::Series>, MetricsError> {
        self.kept(self.source.raw(selector, after, at).await).await
    }

    async fn evaluate(
        &self,
        expression: &str,
        at: Timestamp,
    ) -> Result<Vec<crate::ports::Series>, MetricsError> {
        self.kept(self.source.evaluate(expression, at).await).await
    }
}

/// Nobody can ask the fleet's own checks about the past: they are taken to hold.
struct Held;

#[async_trait]
impl Checker for Held {
    async fn check(&self, _: &str, _: &Subject, _: Millis) -> Result<CheckAnswer, MetricsError> {
        Ok(CheckAnswer { held: true, detail: "taken to hold: this is the past".to_owned() })
    }
}
