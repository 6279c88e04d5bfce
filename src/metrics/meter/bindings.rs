//! Selectors bound to one arm, and kept: parsing them at every look would be most of a look's work.

use std::collections::BTreeMap;

use promql_parser::parser::{self, Expr};

use crate::spec::plan::{Analysis, CheckSource, Measurement};
use crate::spec::selector::bind;

/// Most selectors in one gauge's expression.
const SELECTORS_MAX: usize = 16;

/// By the text as written: what it is bound to.
#[derive(Debug, Clone, Default)]
pub(super) struct Bindings {
    variables: BTreeMap<String, String>,
    bound: BTreeMap<String, Result<Bound, String>>,
}

/// Those of both arms.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ArmBindings {
    pub canary: Bindings,
    pub stable: Bindings,
}

/// One text, bound.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    /// The selector or expression.
    pub text: String,
    /// For a gauge: every selector in it.
    pub selectors: Vec<String>,
}

/// What is kept says nothing about what was measured.
impl PartialEq for Bindings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Bindings {
    /// Binds every text of an analysis that is not bound yet. Other variables than before bind everything anew.
    pub(super) fn cover(&mut self, analysis: &Analysis, variables: &BTreeMap<String, String>) {
        if self.variables != *variables {
            *self = Self { variables: variables.clone(), bound: BTreeMap::new() };
        }
        let is_gauge = matches!(analysis.measurement, Measurement::Gauge { .. });
        for text in texts(&analysis.measurement) {
            if !self.bound.contains_key(text) {
                let bound = bound(text, variables, is_gauge);
                self.bound.insert(text.to_owned(), bound);
            }
        }
    }

    /// What a text is bound to.
    pub(super) fn of(&self, text: &str) -> Result<&Bound, String> {
        let found = self.bound.get(text).ok_or("the selector was not bound")?;
        found.as_ref().map_err(Clone::clone)
    }
}

fn texts(measurement: &Measurement) -> Vec<&str> {
    match measurement {
        Measurement::Proportion { part, total, .. } => vec![total, part],
        Measurement::Latency { buckets: text, .. }
        | Measurement::Gauge { query: text, .. }
        | Measurement::Check { source: CheckSource::Promql(text), .. } => vec![text],
        Measurement::Check { source: CheckSource::Fleet(_), .. } => Vec::new(),
    }
}

fn bound(
    text: &str,
    variables: &BTreeMap<String, String>,
    is_gauge: bool,
) -> Result<Bound, String> {
    let text = bind(text, variables).map_err(|error| error.to_string())?;
    let selectors = if is_gauge { selectors(&text)? } else { Vec::new() };
    Ok(Bound { text, selectors })
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
