//! Asks for what one analysis needs. No state, no meaning.

use std::collections::BTreeMap;

use promql_parser::parser::{self, Expr};

use super::LookContext;
use super::memory::Due;
use crate::metrics::increments::FORGET_AFTER;
use crate::ports::{CheckAnswer, Checker, Increase, MetricsError, MetricsSource, Series};
use crate::spec::plan::{Analysis, CheckSource, Measurement};
use crate::spec::selector::bind;
use crate::units::Millis;

/// Most selectors in one gauge's expression.
const SELECTORS_MAX: usize = 16;

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

type Variables = BTreeMap<String, String>;

pub(super) async fn fetch(
    source: &dyn MetricsSource,
    checker: &dyn Checker,
    analysis: &Analysis,
    context: &LookContext<'_>,
    due: Due,
) -> Fetched {
    let asker = Asker { source, checker, context, due };
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
    source: &'a dyn MetricsSource,
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
        let context = self.context;
        let canary = self.raw(&selectors, context.canary);
        let arms = self.both(canary, self.raw(&selectors, context.stable)).await?;
        Ok(Fetched::Proportion { arms, part_is_good: good })
    }

    async fn buckets(&self, buckets: &str) -> Result<Fetched, String> {
        let selectors = [buckets];
        if let Some(sums) = self.sums(&selectors, Some("le"), SumKind::Buckets).await? {
            return Ok(sums);
        }
        let context = self.context;
        let canary = self.raw(&selectors, context.canary);
        let arms = self.both(canary, self.raw(&selectors, context.stable)).await?;
        Ok(Fetched::Buckets(arms))
    }

    /// Sums over all series, where the source makes them itself.
    async fn sums(
        &self,
        selectors: &[&str],
        by: Option<&str>,
        kind: SumKind,
    ) -> Result<Option<Fetched>, String> {
        let context = self.context;
        let canary = self.arm_sums(selectors, by, context.canary);
        let stable = self.arm_sums(selectors, by, context.stable);
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
        variables: &Variables,
    ) -> Result<Option<Vec<Increase>>, String> {
        let (start, end) = self.due.sums;
        // On the first look any window shows whether there is data.
        let from = start.unwrap_or_else(|| end.minus(self.context.scrape_interval));
        let mut found = Vec::new();
        for selector in selectors {
            let bound = self.bound(selector, variables)?;
            match self.source.increase(&bound, by, from, end).await {
                Some(answer) => found.push(answer.map_err(shown)?),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// Whether any series belongs to both arms.
    async fn shares(&self, selector: &str) -> Result<bool, String> {
        let canary = self.bound(selector, self.context.canary)?;
        let stable = self.bound(selector, self.context.stable)?;
        let both = format!("count({canary} and {stable})");
        Ok(!self.source.evaluate(&both, self.due.sums.1).await.map_err(shown)?.is_empty())
    }

    async fn gauge(&self, query: &str) -> Result<Fetched, String> {
        let canary = self.arm_gauge(query, self.context.canary);
        let arms = self.both(canary, self.arm_gauge(query, self.context.stable)).await?;
        Ok(Fetched::Gauge(arms))
    }

    async fn arm_gauge(
        &self,
        query: &str,
        variables: &Variables,
    ) -> Result<(Vec<Series>, Vec<Series>), String> {
        let bound = self.bound(query, variables)?;
        let mut inputs = Vec::new();
        for selector in selectors(&bound)? {
            inputs.extend(self.recent(&selector).await?);
        }
        let values = self.source.evaluate(&bound, self.context.at).await.map_err(shown)?;
        Ok((values, inputs))
    }

    async fn check(&self, source: &CheckSource, timeout: Millis) -> Result<Fetched, String> {
        let late = || format!("no answer within {timeout}");
        match source {
            CheckSource::Promql(expression) => {
                let bound = self.bound(expression, self.context.canary)?;
                let values = self.source.evaluate(&bound, self.context.at);
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

    async fn raw(
        &self,
        selectors: &[&str],
        variables: &Variables,
    ) -> Result<Vec<Vec<Series>>, String> {
        let mut found = Vec::new();
        for selector in selectors {
            found.push(self.recent(&self.bound(selector, variables)?).await?);
        }
        Ok(found)
    }

    /// Samples since the previous look, and a little before: some may have come late.
    async fn recent(&self, selector: &str) -> Result<Vec<Series>, String> {
        let at = self.context.at;
        let back = self.context.window().stale_after();
        let from = self.context.after.unwrap_or(at).minus(back).max(at.minus(FORGET_AFTER));
        self.source.raw(selector, from.min(at.minus(back)), at).await.map_err(shown)
    }

    /// Asks for both arms at once; an arm without weight may fail.
    async fn both<T>(
        &self,
        canary: impl Future<Output = Result<T, String>>,
        stable: impl Future<Output = Result<T, String>>,
    ) -> Result<Both<T>, String> {
        let (canary, stable) = futures_util::future::join(canary, stable).await;
        let weight = self.context.weight;
        Ok(Both {
            canary: if weight.is_zero() { canary.ok() } else { Some(canary?) },
            stable: if weight.complement().is_zero() { stable.ok() } else { Some(stable?) },
        })
    }

    fn bound(&self, text: &str, variables: &Variables) -> Result<String, String> {
        bind(text, variables).map_err(|error| error.to_string())
    }
}

fn shown(error: MetricsError) -> String {
    error.to_string()
}

/// Every vector selector inside an expression, each once.
fn selectors(expression: &str) -> Result<Vec<String>, String> {
    let parsed = parser::parse(expression).map_err(|_| "the query is not PromQL".to_owned())?;
    let mut found = Vec::new();
    collect(&parsed, &mut found);
    found.sort();
    found.dedup();
    if found.len() > SELECTORS_MAX {
        return Err(format!("the query has more than {SELECTORS_MAX} selectors"));
    }
    Ok(found)
}

fn collect(expr: &Expr, found: &mut Vec<String>) {
    match expr {
        Expr::VectorSelector(selector) => found.push(plain(selector)),
        Expr::MatrixSelector(matrix) => found.push(plain(&matrix.vs)),
        Expr::Aggregate(aggregate) => collect(&aggregate.expr, found),
        Expr::Unary(unary) => collect(&unary.expr, found),
        Expr::Binary(binary) => {
            collect(&binary.lhs, found);
            collect(&binary.rhs, found);
        }
        Expr::Paren(paren) => collect(&paren.expr, found),
        Expr::Subquery(subquery) => collect(&subquery.expr, found),
        Expr::Call(call) => call.args.args.iter().for_each(|argument| collect(argument, found)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

/// The selector without its offset: whether its source is alive is asked about now.
fn plain(selector: &parser::VectorSelector) -> String {
    let mut now = selector.clone();
    now.offset = None;
    now.at = None;
    now.to_string()
}

#[cfg(test)]
mod tests {
    use super::selectors;

    #[test]
    fn every_selector_of_an_expression_is_found_once() {
        let found = selectors("sum(rate(a{x=\"1\"}[1m])) / sum(b offset 5m) + a{x=\"1\"}").unwrap();
        assert_eq!(found, ["a{x=\"1\"}", "b"]);
        assert!(selectors("sum(").is_err());
    }
}
