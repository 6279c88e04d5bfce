//! Which series a plain selector means. Pure.

use std::collections::BTreeMap;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{Expr, VectorSelector};
use regex::Regex;

/// A plain instant-vector selector.
pub(super) struct Selector(Vec<Rule>);

struct Rule {
    label: String,
    kind: Kind,
}

enum Kind {
    Equal(String),
    NotEqual(String),
    Regex(Regex),
    NotRegex(Regex),
}

impl Selector {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match promql_parser::parser::parse(text) {
            Ok(Expr::VectorSelector(selector)) => Self::new(&selector),
            _ => {
                Err("not a plain selector: scraped endpoints hold only the newest values"
                    .to_owned())
            }
        }
    }

    pub(super) fn new(selector: &VectorSelector) -> Result<Self, String> {
        if selector.offset.is_some() || selector.at.is_some() {
            return Err("scraped endpoints know neither `offset` nor `@`".to_owned());
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err("`or` between matchers is not supported".to_owned());
        }
        let name = selector
            .name
            .iter()
            .map(|name| Rule { label: "__name__".to_owned(), kind: Kind::Equal(name.clone()) });
        let rules = selector.matchers.matchers.iter().map(rule);
        Ok(Self(name.map(Ok).chain(rules).collect::<Result<_, _>>()?))
    }

    /// Whether the labels satisfy every matcher; a label that is absent is empty.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|rule| {
            let value = labels.get(&rule.label).map_or("", String::as_str);
            match &rule.kind {
                Kind::Equal(wanted) => value == wanted,
                Kind::NotEqual(wanted) => value != wanted,
                Kind::Regex(regex) => regex.is_match(value),
                Kind::NotRegex(regex) => !regex.is_match(value),
            }
        })
    }
}

fn rule(matcher: &Matcher) -> Result<Rule, String> {
    // Compiled anew from the text: whole values must match, as in Prometheus.
    let whole = || {
        Regex::new(&format!("^(?s:{})$", matcher.value))
            .map_err(|_| format!("the pattern for label `{}` is not usable", matcher.name))
    };
    let kind = match &matcher.op {
        MatchOp::Equal => Kind::Equal(matcher.value.clone()),
        MatchOp::NotEqual => Kind::NotEqual(matcher.value.clone()),
        MatchOp::Re(_) => Kind::Regex(whole()?),
        MatchOp::NotRe(_) => Kind::NotRegex(whole()?),
    };
    Ok(Rule { label: matcher.name.clone(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_mean_what_they_mean_in_prometheus() {
        let labels: BTreeMap<String, String> = [("__name__", "m"), ("code", "503"), ("v", "1")]
            .map(|(n, v)| (n.into(), v.into()))
            .into();
        let matches = |text: &str| Selector::parse(text).unwrap().matches(&labels);
        for yes in [
            "m",
            "m{code=~\"5..\"}",
            "m{none=\"\"}",
            "{__name__=\"m\"}",
            "m{v!=\"2\",code!~\"4..\"}",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["n", "m{code=~\"50\"}", "m{code=~\"5\"}", "m{none!=\"\"}", "m{v!~\"1|2\"}"] {
            assert!(!matches(no), "{no}");
        }
        for wrong in ["m[5m]", "sum(m)", "m offset 5m", "m{", "1"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }
}
