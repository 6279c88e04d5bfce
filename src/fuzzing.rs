//! Everything that reads what others wrote, as functions of bytes that must never panic. `fuzz/` calls them with whatever
//! it comes up with, `tests/it/corpus.rs` with the committed corpus.

use std::collections::BTreeMap;

use crate::load_balancer::envoy;
use crate::metrics;
use crate::spec::{fleet_from_text, plan_from_text, selector};
use crate::store;

/// One of them: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("fleet", fleet),
    ("pipeline", pipeline),
    ("analysis", analysis),
    ("selector", selector),
    ("journal", store::offline::recover_bytes),
    ("envoy", envoy::read_anything),
    ("prometheus", metrics::read_anything),
];

const FLEET: &str = include_str!("../examples/envoy/fleet.yaml");
const PIPELINE: &str = "deployment_pipeline:
  regional_stages:
    canary:
      regions: [us_east_1]
      traffic_percentage: 5
      validation_criteria: [error_rate_increase < 0.5%]
      duration: 30_minutes
  rollback_procedures:
    automatic_rollback_triggers: [error_rate > 1%]
";
const ANALYSIS: &str = include_str!("../analysis/error_rate.yaml");

/// An operator's file.
pub fn fleet(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (fleet, problems) = fleet_from_text("tidegate.yaml", text);
    assert_eq!(fleet.is_none(), problems.has_errors(), "a file is right or has errors");
    show(&problems);
}

/// A service owner's pipeline, with analyses and a fleet that are right.
pub fn pipeline(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    plan(text, ANALYSIS);
}

/// An analysis, with a pipeline that names it.
pub fn analysis(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    plan(PIPELINE, text);
}

fn plan(pipeline: &str, analysis: &str) {
    let Some(fleet) = fleet_from_text("fleet.yaml", FLEET).0 else { return };
    let Some(service) = fleet.services.keys().next().cloned() else { return };
    let file = ("error_rate".to_owned(), "error_rate.yaml".to_owned(), analysis.to_owned());
    let (plan, problems) = plan_from_text("pipeline.yaml", pipeline, &[file], &fleet, &service);
    assert!(plan.is_some() || problems.has_errors(), "a file is right or has errors");
    show(&problems);
}

fn show(problems: &crate::spec::Diagnostics) {
    for problem in problems.iter() {
        assert!(problem.location.line > 0 && problem.location.column > 0, "{problem}");
        assert!(!problem.help.is_empty(), "without help: {problem}");
    }
}

/// A selector in the first line and a value for its variables in the second: whatever the value holds stays one literal.
pub fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, value) = text.split_once('\n').unwrap_or((text, "value"));
    let names = selector::VARIABLES.map(str::to_owned);
    let values: BTreeMap<_, _> = names.into_iter().map(|name| (name, value.to_owned())).collect();
    let Ok(bound) = selector::bind(text, &values) else { return };
    assert_eq!(selector::metric_name(&bound), selector::metric_name(text), "{bound}");
    if !value.contains('$') && !text.contains("$$") {
        let again = selector::bind(&bound, &BTreeMap::new());
        assert_eq!(again.as_ref(), Ok(&bound), "bound, it is a selector without variables");
    }
}
