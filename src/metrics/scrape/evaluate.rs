//! The small part of PromQL that newest values alone can answer. Pure.
//!
//! A selector, a number, `sum`, `min`, `max`, `avg`, `count` without grouping, arithmetic and comparisons in which at
//! least one side is a number or both sides are single values. Anything else is refused, never answered wrongly.

use std::collections::BTreeMap;

use promql_parser::parser::{AggregateExpr, BinaryExpr, Expr, parse as parse_promql};

use super::matching::Selector;
use crate::ports::Series;
use crate::units::Timestamp;

type Labels = BTreeMap<String, String>;

enum Value {
    Number(f64),
    Vector(Vec<(Labels, f64)>),
}

pub(super) fn parse(text: &str) -> Result<Expr, String> {
    parse_promql(text).map_err(|_| "the expression is not PromQL".to_owned())
}

pub(super) fn evaluate(expr: &Expr, all: &[Series], at: Timestamp) -> Result<Vec<Series>, String> {
    let found = match value(expr, all, 0)? {
        Value::Number(number) => vec![(Labels::new(), number)],
        Value::Vector(vector) => vector,
    };
    let series = |(labels, number)| Series { labels, samples: vec![(at, number)] };
    Ok(found.into_iter().map(series).collect())
}

const UNSUPPORTED: &str = "scraped endpoints answer only selectors, sums and comparisons of their newest values: use a Prometheus for this";

fn value(expr: &Expr, all: &[Series], depth: usize) -> Result<Value, String> {
    if depth > 32 {
        return Err("the expression is nested too deeply".to_owned());
    }
    match expr {
        Expr::NumberLiteral(number) => Ok(Value::Number(number.val)),
        Expr::Paren(paren) => value(&paren.expr, all, depth + 1),
        Expr::VectorSelector(selector) => {
            let selector = Selector::new(selector)?;
            let newest = |series: &Series| Some((series.labels.clone(), series.samples.last()?.1));
            let matching = all.iter().filter(|series| selector.matches(&series.labels));
            Ok(Value::Vector(matching.filter_map(newest).collect()))
        }
        Expr::Aggregate(aggregate) => aggregated(aggregate, all, depth),
        Expr::Binary(binary) => combined(binary, all, depth),
        _ => Err(UNSUPPORTED.to_owned()),
    }
}

fn aggregated(aggregate: &AggregateExpr, all: &[Series], depth: usize) -> Result<Value, String> {
    if aggregate.modifier.is_some() || aggregate.param.is_some() {
        return Err(UNSUPPORTED.to_owned());
    }
    let Value::Vector(vector) = value(&aggregate.expr, all, depth + 1)? else {
        return Err(UNSUPPORTED.to_owned());
    };
    let numbers = vector.iter().map(|(_, number)| *number);
    let count = vector.len() as f64;
    let result = match aggregate.op.to_string().as_str() {
        "sum" => numbers.sum(),
        "avg" => numbers.sum::<f64>() / count,
        "min" => numbers.fold(f64::NAN, f64::min),
        "max" => numbers.fold(f64::NAN, f64::max),
        "count" => count,
        _ => return Err(UNSUPPORTED.to_owned()),
    };
    let some = if vector.is_empty() { vec![] } else { vec![(Labels::new(), result)] };
    Ok(Value::Vector(some))
}

fn combined(binary: &BinaryExpr, all: &[Series], depth: usize) -> Result<Value, String> {
    let bool_result = match &binary.modifier {
        Some(modifier) if modifier.matching.is_some() => return Err(UNSUPPORTED.to_owned()),
        Some(modifier) => modifier.return_bool,
        None => false,
    };
    let operator = binary.op.to_string();
    let left = value(&binary.lhs, all, depth + 1)?;
    let right = value(&binary.rhs, all, depth + 1)?;
    let one =
        |labels: Labels, a: f64, b: f64, kept: f64| -> Result<Option<(Labels, f64)>, String> {
            Ok(match apply(&operator, a, b).ok_or(UNSUPPORTED)? {
                Outcome::Number(number) => Some((unnamed(labels), number)),
                Outcome::Truth(truth) if bool_result => {
                    Some((unnamed(labels), f64::from(u8::from(truth))))
                }
                Outcome::Truth(truth) => truth.then_some((labels, kept)),
            })
        };
    let vector = match (left, right) {
        (Value::Number(a), Value::Number(b)) => {
            return match apply(&operator, a, b).ok_or(UNSUPPORTED)? {
                Outcome::Number(number) => Ok(Value::Number(number)),
                Outcome::Truth(truth) => Ok(Value::Number(f64::from(u8::from(truth)))),
            };
        }
        (Value::Vector(vector), Value::Number(b)) => vector
            .into_iter()
            .map(|(labels, a)| one(labels, a, b, a))
            .collect::<Result<Vec<_>, _>>()?,
        (Value::Number(a), Value::Vector(vector)) => vector
            .into_iter()
            .map(|(labels, b)| one(labels, a, b, b))
            .collect::<Result<Vec<_>, _>>()?,
        (Value::Vector(left), Value::Vector(right)) => match (left.as_slice(), right.as_slice()) {
            ([(a_labels, a)], [(b_labels, b)]) if a_labels.is_empty() && b_labels.is_empty() => {
                vec![one(Labels::new(), *a, *b, *a)?]
            }
            ([], _) | (_, []) => vec![],
            _ => return Err(UNSUPPORTED.to_owned()),
        },
    };
    Ok(Value::Vector(vector.into_iter().flatten().collect()))
}

fn unnamed(mut labels: Labels) -> Labels {
    labels.remove("__name__");
    labels
}

enum Outcome {
    Number(f64),
    Truth(bool),
}

#[expect(clippy::float_cmp, reason = "PromQL's == and != compare exactly")]
fn apply(operator: &str, a: f64, b: f64) -> Option<Outcome> {
    Some(match operator {
        "+" => Outcome::Number(a + b),
        "-" => Outcome::Number(a - b),
        "*" => Outcome::Number(a * b),
        "/" => Outcome::Number(a / b),
        "==" => Outcome::Truth(a == b),
        "!=" => Outcome::Truth(a != b),
        "<" => Outcome::Truth(a < b),
        "<=" => Outcome::Truth(a <= b),
        ">" => Outcome::Truth(a > b),
        ">=" => Outcome::Truth(a >= b),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Vec<f64>, String> {
        let series = |code: &str, number: f64| Series {
            labels: [("__name__".to_owned(), "m".to_owned()), ("code".to_owned(), code.to_owned())]
                .into(),
            samples: vec![(Timestamp(1), number)],
        };
        let all = [series("200", 90.0), series("500", 10.0)];
        let found = evaluate(&parse(text)?, &all, Timestamp(1))?;
        Ok(found.iter().map(|series| series.samples[0].1).collect())
    }

    #[test]
    fn sums_and_comparisons_are_answered() {
        for (text, expected) in [
            ("m", vec![90.0, 10.0]),
            ("sum(m)", vec![100.0]),
            ("m > 50", vec![90.0]),
            ("m > bool 50", vec![1.0, 0.0]),
            ("sum(m{code=\"500\"}) / sum(m) < bool 0.2", vec![1.0]),
            ("(max(m) - min(m)) * 2", vec![160.0]),
            ("avg(m) == count(m) * 25", vec![50.0]),
            ("sum(none)", vec![]),
            ("2 > bool 1", vec![1.0]),
        ] {
            assert_eq!(ask(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_needs_more_than_the_newest_values_is_refused() {
        for text in [
            "rate(m[1m])",
            "sum by (code) (m)",
            "m / m",
            "m offset 1m",
            "topk(1, m)",
            "m and m",
            "m[",
        ] {
            assert!(ask(text).is_err(), "{text}");
        }
    }
}
