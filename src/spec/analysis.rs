//! Analysis files: how one metric or check is measured.

use std::collections::BTreeMap;

use super::codes;
use super::decode::{Decoder, Fields, Spanned};
use super::file::{self, Node, Span};
use super::plan::{Analysis, CheckSource, Measurement};
use super::quantity;
use super::selector;
use crate::units::{AnalysisName, Millis};

/// One analysis file, checked by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisFile {
    /// The file's stem.
    pub name: AnalysisName,
    /// The file as given.
    pub file: String,
    /// What is measured.
    pub measurement: Measurement,
    /// Every selector and expression, with where it stands.
    pub selectors: Vec<Spanned<String>>,
    /// Where the name of a fleet check stands.
    pub check_span: Option<Span>,
    /// The histogram's unit: 1 for seconds, 1,000 for milliseconds.
    pub units_per_second: f64,
    /// Shown and recorded, never decides.
    pub dry_run: bool,
}

impl AnalysisFile {
    /// As the plan holds it.
    #[must_use]
    pub fn analysis(&self) -> Analysis {
        Analysis {
            name: self.name.clone(),
            file: self.file.clone(),
            measurement: self.measurement.clone(),
            dry_run: self.dry_run,
        }
    }
}

/// Decodes one analysis; its problems are added to `decoder`.
pub fn decode(decoder: &mut Decoder, name: AnalysisName, text: &str) -> Option<AnalysisFile> {
    let (node, problems) = file::parse(&decoder.file, text);
    decoder.problems.extend(problems);
    let node = node?;
    let mut fields = decoder.fields(&node)?;
    let kinds = [
        ("proportion", Kind::Proportion),
        ("latency", Kind::Latency),
        ("gauge", Kind::Gauge),
        ("check", Kind::Check),
    ];
    let kind = fields.require(decoder, "kind", |decoder, node| decoder.choice(node, &kinds));
    let _ = fields.get(decoder, "description", Decoder::text);
    let dry_run = fields.get(decoder, "dry_run", Decoder::truth).unwrap_or(false);
    let mut parts = Parts { selectors: Vec::new(), check_span: None, units_per_second: 1.0 };
    let measurement = match kind? {
        Kind::Proportion => parts.proportion(decoder, &mut fields),
        Kind::Latency => parts.latency(decoder, &mut fields),
        Kind::Gauge => parts.gauge(decoder, &mut fields),
        Kind::Check => parts.check(decoder, &mut fields),
    };
    fields.finish(decoder);
    let Parts { selectors, check_span, units_per_second } = parts;
    let file = decoder.file.clone();
    Some(AnalysisFile {
        name,
        file,
        measurement: measurement?,
        selectors,
        check_span,
        units_per_second,
        dry_run,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Proportion,
    Latency,
    Gauge,
    Check,
}

struct Parts {
    selectors: Vec<Spanned<String>>,
    check_span: Option<Span>,
    units_per_second: f64,
}

impl Parts {
    fn selector(&mut self, decoder: &mut Decoder, node: &Node, plain: bool) -> Option<String> {
        let text = decoder.text(node)?;
        let checked = if plain { selector::check_plain(&text) } else { selector::check(&text) };
        if let Err(error) = checked {
            let help = match error {
                selector::Error::NoName => "start it with the metric's name",
                selector::Error::NotPlain => {
                    "counters are read raw: no rate(), no range, no offset"
                }
                _ => "",
            };
            decoder.error(codes::SELECTOR, node.span, error.to_string(), help);
            return None;
        }
        self.selectors.push(Spanned { value: text.clone(), span: node.span });
        Some(text)
    }

    fn proportion(
        &mut self,
        decoder: &mut Decoder,
        fields: &mut Fields<'_>,
    ) -> Option<Measurement> {
        let unit =
            fields.get(decoder, "unit", Decoder::text).unwrap_or_else(|| "requests".to_owned());
        let bad = fields.take("bad");
        let good = fields.take("good");
        let total =
            fields.require(decoder, "total", |decoder, node| self.selector(decoder, node, true));
        let (node, part_is_good) = match (bad, good) {
            (Some(node), None) => (node, false),
            (None, Some(node)) => (node, true),
            _ => {
                let message = "a proportion needs exactly one of `bad` and `good`";
                decoder.error(
                    codes::ANALYSIS_SOURCE,
                    fields.span,
                    message,
                    "the selector of what is counted",
                );
                return None;
            }
        };
        let part = self.selector(decoder, node, true);
        Some(Measurement::Proportion { unit, part: part?, part_is_good, total: total? })
    }

    fn latency(&mut self, decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<Measurement> {
        let buckets = fields.require(decoder, "buckets", |decoder, node| {
            let text = self.selector(decoder, node, true)?;
            if !selector::metric_name(&text).is_some_and(|name| name.ends_with("_bucket")) {
                let help = "name the series that end in `_bucket`";
                decoder.error(
                    codes::SELECTOR,
                    node.span,
                    "this is not a histogram's buckets",
                    help,
                );
                return None;
            }
            Some(text)
        });
        let quantile = match fields.take("quantile") {
            Some(node) => decode_quantile(decoder, node),
            None => Some(0.95),
        };
        let units = [("seconds", 1.0), ("milliseconds", 1_000.0)];
        let unit = fields.get(decoder, "unit", |decoder, node| decoder.choice(node, &units));
        self.units_per_second = unit.unwrap_or(1.0);
        Some(Measurement::Latency { buckets: buckets?, quantile: quantile? })
    }

    fn gauge(&mut self, decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<Measurement> {
        let query =
            fields.require(decoder, "query", |decoder, node| self.selector(decoder, node, false));
        let range = match fields.take("range") {
            Some(node) => Some(decode_range(decoder, node)?),
            None => None,
        };
        Some(Measurement::Gauge { query: query?, range })
    }

    fn check(&mut self, decoder: &mut Decoder, fields: &mut Fields<'_>) -> Option<Measurement> {
        let every =
            fields.get(decoder, "every", Decoder::positive).unwrap_or(Millis::from_secs(30));
        let timeout =
            fields.get(decoder, "timeout", Decoder::positive).unwrap_or(Millis::from_secs(10));
        let source = match (fields.take("promql"), fields.take("check")) {
            (Some(node), None) => CheckSource::Promql(self.selector(decoder, node, false)?),
            (None, Some(node)) => {
                self.check_span = Some(node.span);
                CheckSource::Fleet(decoder.text(node)?)
            }
            _ => {
                let message = "a check needs exactly one of `promql` and `check`";
                let help = "an expression that is non-zero when it holds, or the name of a check in the fleet file";
                decoder.error(codes::ANALYSIS_SOURCE, fields.span, message, help);
                return None;
            }
        };
        Some(Measurement::Check { source, every, timeout })
    }
}

fn decode_quantile(decoder: &mut Decoder, node: &Node) -> Option<f64> {
    let text = decoder.text(node)?;
    let quantile = match text.strip_prefix('p') {
        Some(percent) => {
            quantity::number(&format!("0.{percent}")).ok().filter(|_| !percent.contains('.'))
        }
        None => quantity::number(&text).ok(),
    };
    if let Some(quantile) = quantile.filter(|quantile| *quantile > 0.0 && *quantile < 1.0) {
        return Some(quantile);
    }
    let message = format!("`{}` is not a quantile", crate::units::shown(&text));
    decoder.error(
        codes::INVALID_VALUE,
        node.span,
        message,
        "write p50, p95, p99 or a number between 0 and 1",
    );
    None
}

fn decode_range(decoder: &mut Decoder, node: &Node) -> Option<(f64, f64)> {
    let ends = decoder.each(node, Decoder::number)?;
    match ends[..] {
        [least, most] if least < most => Some((least, most)),
        _ => {
            decoder.error(
                codes::INVALID_VALUE,
                node.span,
                "a range is its smallest and its largest value",
                "write `range: [1, 5]`",
            );
            None
        }
    }
}

/// Decodes several analyses given as (name, file, text); broken ones are reported and left out.
pub fn decode_all(
    files: &[(String, String, String)],
    problems: &mut super::diagnostic::Diagnostics,
) -> BTreeMap<AnalysisName, AnalysisFile> {
    let mut analyses = BTreeMap::new();
    for (stem, file, text) in files {
        let mut decoder = Decoder::new(file);
        match AnalysisName::new(stem.as_str()) {
            Ok(name) => {
                if let Some(analysis) = decode(&mut decoder, name, text) {
                    analyses.insert(analysis.name.clone(), analysis);
                }
            }
            Err(error) => decoder.error(
                codes::INVALID_NAME,
                Span::START,
                error.to_string(),
                "rename the file",
            ),
        }
        problems.extend(decoder.problems);
    }
    analyses
}
