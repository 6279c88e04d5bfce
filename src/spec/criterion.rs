//! The grammar of criteria and triggers, and what they come to for the analysis they name.

use std::collections::BTreeMap;

use super::analysis::AnalysisFile;
use super::codes;
use super::decode::{Decoder, Spanned, nearest};
use super::diagnostic::Severity;
use super::plan::{Measurement, Test};
use super::quantity::{self, Limit};
use crate::units::{AnalysisName, shown};

/// On which side a limit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// States what must hold; promotes when proven.
    Criterion,
    /// States what rolls back when proven.
    Trigger,
}

/// `<analysis>[_increase] <op> <quantity>`, or a bare name, not yet resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Syntax {
    /// The left side.
    pub subject: String,
    /// The comparison; `None` for a bare name.
    pub comparison: Option<Comparison>,
}

/// The right side of a criterion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// `<` or `<=`, rather than `>` or `>=`.
    pub below: bool,
    /// What is compared with.
    pub limit: Limit,
}

const GRAMMAR_HELP: &str = "write `<analysis>[_increase] <op> <quantity>` such as `error_rate_increase < 0.1%`, or the name of a check";

/// Reads the text of a criterion or trigger; problems are reported at `text.span`.
pub fn parse(decoder: &mut Decoder, text: &Spanned<String>) -> Option<Syntax> {
    let trimmed = text.value.trim();
    let (subject, rest) = trimmed.find(['<', '>', '=', '!']).map_or((trimmed, None), |at| {
        let (subject, rest) = trimmed.split_at(at);
        (subject.trim_end(), Some(rest))
    });
    if AnalysisName::new(subject).is_err() {
        let message = format!("`{}` is not a criterion", shown(trimmed));
        decoder.error(codes::CRITERION_SYNTAX, text.span, message, GRAMMAR_HELP);
        return None;
    }
    let subject = subject.to_owned();
    let Some(rest) = rest else { return Some(Syntax { subject, comparison: None }) };
    let operator: String = rest.chars().take_while(|c| "<>=!".contains(*c)).collect();
    let below = match operator.as_str() {
        "<" | "<=" => true,
        ">" | ">=" => false,
        _ => {
            let message = format!("`{}` is not a comparison", shown(&operator));
            decoder.error(codes::CRITERION_SYNTAX, text.span, message, "use one of < <= > >=");
            return None;
        }
    };
    match quantity::limit(&rest[operator.len()..]) {
        Ok(limit) => Some(Syntax { subject, comparison: Some(Comparison { below, limit }) }),
        Err(error) => {
            let help = "write a quantity such as 0.1%, 0.1pp, 10% relative, 500ms or 4.5, without a space before the unit";
            decoder.error(codes::INVALID_QUANTITY, text.span, error.to_string(), help);
            None
        }
    }
}

/// What a criterion comes to: the analysis it names, and the limit.
pub fn resolve(
    decoder: &mut Decoder,
    text: &Spanned<String>,
    syntax: &Syntax,
    side: Side,
    analyses: &BTreeMap<AnalysisName, AnalysisFile>,
) -> Option<(AnalysisName, Test)> {
    let (analysis, increase) = find(&syntax.subject, analyses).or_else(|| {
        let known = analyses.keys().map(AnalysisName::as_str);
        let subject = syntax.subject.strip_suffix("_increase").unwrap_or(&syntax.subject);
        let help = nearest(subject, known).map_or_else(
            || {
                format!(
                    "an analysis is named after its file: write analysis/{}.yaml",
                    shown(subject)
                )
            },
            |name| format!("did you mean `{name}`?"),
        );
        decoder.error(
            codes::UNKNOWN_ANALYSIS,
            text.span,
            format!("there is no analysis `{}`", shown(subject)),
            help,
        );
        None
    })?;
    let mut resolver = Resolver { decoder, text, side, analysis, increase };
    let test = match (&analysis.measurement, syntax.comparison) {
        (Measurement::Check { .. }, None) => Test::Holds,
        (Measurement::Check { .. }, Some(_)) => {
            return resolver.kind("is a check: it holds or not", "write its bare name");
        }
        (_, None) => return resolver.kind("is measured, so it needs a limit", GRAMMAR_HELP),
        (Measurement::Proportion { part_is_good, .. }, Some(comparison)) => {
            resolver.rate(*part_is_good, comparison)?
        }
        (Measurement::Latency { quantile, .. }, Some(comparison)) => {
            resolver.latency(*quantile, comparison)?
        }
        (Measurement::Gauge { range, .. }, Some(comparison)) => {
            resolver.gauge(*range, comparison)?
        }
    };
    Some((analysis.name.clone(), test))
}

fn find<'a>(
    subject: &str,
    analyses: &'a BTreeMap<AnalysisName, AnalysisFile>,
) -> Option<(&'a AnalysisFile, bool)> {
    let named = |name: &str| AnalysisName::new(name).ok().and_then(|name| analyses.get(&name));
    let whole = named(subject).map(|analysis| (analysis, false));
    whole.or_else(|| Some((named(subject.strip_suffix("_increase")?)?, true)))
}

struct Resolver<'a> {
    decoder: &'a mut Decoder,
    text: &'a Spanned<String>,
    side: Side,
    analysis: &'a AnalysisFile,
    increase: bool,
}

impl Resolver<'_> {
    fn error<T>(&mut self, code: &'static str, message: &str, help: &str) -> Option<T> {
        self.decoder.error(code, self.text.span, message, help);
        None
    }

    fn kind<T>(&mut self, message: &str, help: &str) -> Option<T> {
        let message = format!("`{}` {message}", self.analysis.name);
        self.error(codes::CRITERION_KIND, &message, help)
    }

    /// `good_below`: the good side of the limit is below it.
    fn direction(&mut self, below: bool, good_below: bool) -> Option<()> {
        let states_good = self.side == Side::Criterion;
        if below == (good_below == states_good) {
            return Some(());
        }
        let turned = if below { ">" } else { "<" };
        let message = match self.side {
            Side::Criterion => "this criterion states the bad side: it would promote what fails",
            Side::Trigger => "this trigger states the good side: it would roll back what is well",
        };
        self.error(codes::CRITERION_DIRECTION, message, &format!("turn it round: `{turned}`"))
    }

    fn rate(&mut self, part_is_good: bool, comparison: Comparison) -> Option<Test> {
        if self.increase && part_is_good {
            return self.kind(
                "counts what is good, so its increase is no harm",
                "use an analysis that counts what is bad, or a plain limit",
            );
        }
        self.direction(comparison.below, !part_is_good)?;
        match comparison.limit {
            Limit::Percent(percent) | Limit::Points(percent) if self.increase => {
                self.between(percent, 0.0, 100.0)?;
                self.margin(percent);
                Some(Test::Rate { factor: 1.0, offset: percent / 100.0 })
            }
            Limit::Relative(percent) if self.increase => {
                self.between(percent, 0.0, 10_000.0)?;
                self.margin(percent);
                Some(Test::Rate { factor: 1.0 + percent / 100.0, offset: 0.0 })
            }
            Limit::Percent(percent) => {
                let bad = if part_is_good { 100.0 - percent } else { percent };
                let open = bad > 0.0 && bad < 100.0;
                if !open {
                    return self.error(
                        codes::CRITERION_LIMIT,
                        "this limit leaves nothing to decide",
                        "choose a share between 0% and 100%",
                    );
                }
                // Percent with a few digits stay exact to 1e-9: 100 - 99.9 is not 0.1 in binary.
                Some(Test::Rate { factor: 0.0, offset: (bad * 1e9).round() / 1e11 })
            }
            _ => self.kind(
                "is a share, so its limit is a percentage",
                "write for example 1%, or 0.1% for an increase",
            ),
        }
    }

    fn latency(&mut self, quantile: f64, comparison: Comparison) -> Option<Test> {
        self.direction(comparison.below, true)?;
        match comparison.limit {
            Limit::Percent(percent) | Limit::Relative(percent) if self.increase => {
                self.between(percent, 0.0, 10_000.0)?;
                self.margin(percent);
                Some(Test::QuantileRatio { quantile, ratio: (100.0 + percent) / 100.0 })
            }
            Limit::Time(time) if !self.increase && time.0 > 0 => {
                let limit = time.as_secs_f64() * self.analysis.units_per_second;
                Some(Test::QuantileLimit { quantile, limit })
            }
            _ if self.increase => self.kind(
                "is a time, so its increase is a percentage of stable's",
                "write for example `< 10%`",
            ),
            _ => self.kind(
                "is a time, so its limit is one",
                "write for example `< 500ms`, or use `_increase` with a percentage",
            ),
        }
    }

    fn gauge(&mut self, range: Option<(f64, f64)>, comparison: Comparison) -> Option<Test> {
        if self.increase {
            return self.kind(
                "is a gauge; its increase is not available",
                "give it a plain limit, or measure it as a proportion",
            );
        }
        let Limit::Number(limit) = comparison.limit else {
            return self
                .kind("is a gauge, so its limit is a plain number", "write for example `> 4.5`");
        };
        match range {
            Some((least, most)) if limit <= least || limit >= most => {
                let message =
                    format!("the limit {limit} is not inside the range {least} to {most}");
                return self.error(
                    codes::CRITERION_LIMIT,
                    &message,
                    "no value can be on the other side of it",
                );
            }
            Some(_) => {}
            None => {
                let help = format!("add `range: [smallest, largest]` to {}", self.analysis.file);
                let message =
                    "without history and without a range this gauge proves nothing for a while";
                self.decoder.report(
                    Severity::Warning,
                    codes::GAUGE_WITHOUT_RANGE,
                    self.text.span,
                    message,
                    help,
                );
            }
        }
        let states_good = self.side == Side::Criterion;
        Some(Test::Level { higher_is_better: comparison.below != states_good, limit })
    }

    fn between(&mut self, percent: f64, least: f64, most: f64) -> Option<()> {
        if percent >= least && percent < most {
            return Some(());
        }
        self.error(
            codes::CRITERION_LIMIT,
            "this limit cannot decide anything",
            &format!("choose from {least}% to under {most}%"),
        )
    }

    fn margin(&mut self, percent: f64) {
        if percent == 0.0 {
            let message = "a limit of no increase at all has no margin";
            let help = "without history it only holds; write a small margin such as 0.1%";
            self.decoder.report(Severity::Warning, codes::NO_MARGIN, self.text.span, message, help);
        }
    }
}
