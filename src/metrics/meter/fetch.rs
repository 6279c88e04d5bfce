//! Asks for what one analysis needs. No state, no meaning.

use super::bindings::{ArmBindings, Bindings};
use super::memory::Due;
use super::{LookContext, Sources};
use crate::metrics::increments::FORGET_AFTER;
use crate::ports::{CheckAnswer, Checker, Increase, MetricsError, MetricsSource, Series};
use crate::spec::plan::{Analysis, CheckSource, Measurement};
use crate::units::{Millis, Weight};

/// What the source returned.
pub(super) enum Fetched {
    /// Raw samples: of all events first, then of the counted kind.
    Proportion { arms: Both<Vec<Vec<Series>>>, part_is_good: bool },
    /// Raw samples of buckets.
    Buckets(Both<Vec<Vec<Series>>>),
    /// The same two as sums, with the series (if any) that both arms share.
    Sums {
        arms: Both<Vec<Increase>>,
        kind: SumKind,
        shared: bool,
        end: crate::units::Timestamp,
        first: bool,
    },
    /// Values now, and raw samples of what they are made of.
    Gauge(Both<(Vec<Series>, Vec<Series>)>),
    /// An expression's values.
    Values(Vec<Series>),
    /// A check's answer.
    Answer(CheckAnswer),
    /// Nothing was to be asked.
    NotDue,
    /// It failed.
    Failed(String),
}

/// What sums are of.
#[derive(Clone, Copy)]
pub(super) enum SumKind {
    Proportion { part_is_good: bool },
    Buckets,
}

/// The two arms; one without weight is asked too (its darkness tells whose fault a gap is), but may fail.
pub(super) struct Both<T> {
    pub canary: Option<T>,
    pub stable: Option<T>,
}

/// Where an arm's numbers come from, and what its selectors are bound to.
#[derive(Clone, Copy)]
struct Arm<'a> {
    source: &'a dyn MetricsSource,
    bindings: &'a Bindings,
}

pub(super) async fn fetch(
    sources: Sources<'_>,
    bindings: &ArmBindings,
    checker: &dyn Checker,
    analysis: &Analysis,
    context: &LookContext<'_>,
    due: Due,
) -> Fetched {
    let canary = Arm { source: sources.canary, bindings: &bindings.canary };
    let stable = Arm { source: sources.stable, bindings: &bindings.stable };
    let asker = Asker { canary, stable, checker, context, due };
    let found = match &analysis.measurement {
        Measurement::Proportion { part, part_is_good, total, .. } => {
            asker.proportion(total, part, *part_is_good).await
        }
        Measurement::Latency { buckets, .. } => asker.buckets(buckets).await,
        Measurement::Gauge { query, .. } => asker.gauge(query).await,
        Measurement::Check { .. } if !due.check => Ok(Fetched::NotDue),
        Measurement::Check { source, timeout, .. } => asker.check(source, *timeout).await,
    };
    found.unwrap_or_else(Fetched::Failed)
}

struct Asker<'a, 'b> {
    canary: Arm<'a>,
    stable: Arm<'a>,
    checker: &'a dyn Checker,
    context: &'a LookContext<'b>,
    due: Due,
}

impl Asker<'_, '_> {
    async fn proportion(&self, total: &str, part: &str, good: bool) -> Result<Fetched, String> {
        let selectors = [total, part];
        let kind = SumKind::Proportion { part_is_good: good };
        if let Some(sums) = self.sums(&selectors, None, kind).await? {
            return Ok(sums);
        }
        let canary = self.raw(&selectors, self.canary);
        let arms = self.both(canary, self.raw(&selectors, self.stable)).await?;
        Ok(Fetched::Proportion { arms, part_is_good: good })
    }

    async fn buckets(&self, buckets: &str) -> Result<Fetched, String> {
        let selectors = [buckets];
        if let Some(sums) = self.sums(&selectors, Some("le"), SumKind::Buckets).await? {
            return Ok(sums);
        }
        let canary = self.raw(&selectors, self.canary);
        let arms = self.both(canary, self.raw(&selectors, self.stable)).await?;
        Ok(Fetched::Buckets(arms))
    }

    /// Sums over all series, where the source makes them itself.
    async fn sums(
        &self,
        selectors: &[&str],
        by: Option<&str>,
        kind: SumKind,
    ) -> Result<Option<Fetched>, String> {
        let canary = self.arm_sums(selectors, by, self.canary);
        let stable = self.arm_sums(selectors, by, self.stable);
        let arms = self.both(canary, stable).await?;
        let (canary, stable) = (arms.canary.flatten(), arms.stable.flatten());
        if canary.is_none() && stable.is_none() {
            return Ok(None);
        }
        let (start, end) = self.due.sums;
        let shared = start.is_none() && self.shares(selectors[0]).await?;
        let arms = Both { canary, stable };
        Ok(Some(Fetched::Sums { arms, kind, shared, end, first: start.is_none() }))
    }

    async fn arm_sums(
        &self,
        selectors: &[&str],
        by: Option<&str>,
        arm: Arm<'_>,
    ) -> Result<Option<Vec<Increase>>, String> {
        let (start, end) = self.due.sums;
        // On the first look any window shows whether there is data.
        let from = start.unwrap_or_else(|| end.minus(self.context.scrape_interval));
        let mut found = Vec::new();
        for selector in selectors {
            let bound = arm.bindings.of(selector)?;
            match arm.source.increase(&bound.text, by, from, end).await {
                Some(answer) => found.push(answer.map_err(shown)?),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Whether any series belongs to both arms.
    async fn shares(&self, selector: &str) -> Result<bool, String> {
        let canary = &self.canary.bindings.of(selector)?.text;
        let stable = &self.stable.bindings.of(selector)?.text;
        let both = format!("count({canary} and {stable})");
        let found = self.canary.source.evaluate(&both, self.due.sums.1).await;
        Ok(!found.map_err(shown)?.is_empty())
    }

    async fn gauge(&self, query: &str) -> Result<Fetched, String> {
        let canary = self.arm_gauge(query, self.canary);
        let arms = self.both(canary, self.arm_gauge(query, self.stable)).await?;
        Ok(Fetched::Gauge(arms))
    }

    async fn arm_gauge(
        &self,
        query: &str,
        arm: Arm<'_>,
    ) -> Result<(Vec<Series>, Vec<Series>), String> {
        let bound = arm.bindings.of(query)?;
        let mut inputs = Vec::new();
        for selector in &bound.selectors {
            inputs.extend(self.recent(arm, selector).await?);
        }
        let values = arm.source.evaluate(&bound.text, self.context.at).await.map_err(shown)?;
        Ok((values, inputs))
    }

    async fn check(&self, source: &CheckSource, timeout: Millis) -> Result<Fetched, String> {
        let late = || format!("no answer within {timeout}");
        match source {
            CheckSource::Promql(expression) => {
                let bound = self.canary.bindings.of(expression)?;
                let values = self.canary.source.evaluate(&bound.text, self.context.at);
                let found = tokio::time::timeout(timeout.duration(), values).await;
                Ok(Fetched::Values(found.map_err(|_| late())?.map_err(shown)?))
            }
            CheckSource::Fleet(name) => {
                let answer = self.checker.check(name, self.context.subject, timeout);
                let found = tokio::time::timeout(timeout.duration(), answer).await;
                Ok(Fetched::Answer(found.map_err(|_| late())?.map_err(shown)?))
            }
        }
    }

    async fn raw(&self, selectors: &[&str], arm: Arm<'_>) -> Result<Vec<Vec<Series>>, String> {
        let mut found = Vec::new();
        for selector in selectors {
            found.push(self.recent(arm, &arm.bindings.of(selector)?.text).await?);
        }
        Ok(found)
    }

    /// Samples since the previous look, and a little before: some may have come late.
    async fn recent(&self, arm: Arm<'_>, selector: &str) -> Result<Vec<Series>, String> {
        let at = self.context.at;
        let back = self.context.window().stale_after();
        let from = self.context.after.unwrap_or(at).minus(back).max(at.minus(FORGET_AFTER));
        arm.source.raw(selector, from.min(at.minus(back)), at).await.map_err(shown)
    }

    /// Asks for both arms at once; an arm without weight may fail.
    async fn both<T>(
        &self,
        canary: impl Future<Output = Result<T, String>>,
        stable: impl Future<Output = Result<T, String>>,
    ) -> Result<Both<T>, String> {
        let (canary, stable) = futures_util::future::join(canary, stable).await;
        let reach = self.context.reach;
        Ok(Both {
            canary: if reach.is_none() { canary.ok() } else { Some(canary?) },
            stable: if reach.weight == Weight::FULL { stable.ok() } else { Some(stable?) },
        })
    }
}

fn shown(error: MetricsError) -> String {
    error.to_string()
}
