//! Stages of copies: before any weight, and only where a balancer can make them.

use tidegate::spec::plan::Plan;
use tidegate::spec::{Diagnostics, codes};
use tidegate::units::RegionName;

use super::{check, count};

const FILE: &str = "envoy_file: {route: web, path: /r.yaml, clusters: {blue: api-blue, green: api-green}, admin: [\"http://a:1\"]}";
const SHADOW: &str = "      mirror: 20%\n";

fn stage(name: &str, keys: &str) -> String {
    format!(
        "    {name}:\n      regions: [a]\n{keys}      validation_criteria: [error_rate_increase < 1%]\n      duration: 10m\n"
    )
}

fn mirror(keys: &str) -> String {
    stage("shadow", keys)
}

fn small() -> String {
    stage("small", "      traffic_percentage: 5\n")
}

fn all() -> String {
    stage("all", "      traffic_percentage: 100\n")
}

/// Checks these stages for one region with this target.
fn run(stages: &[&str], target: &str) -> (Option<Plan>, Diagnostics) {
    let fleet = format!(
        "regions: {{a: {{share: 100%, labels: {{region: a}}, prometheus: {{url: \"http://p\"}}}}}}\nservices:\n  api-gateway:\n    authority: full\n    slots: [blue, green]\n    metrics: {{cluster: \"api-{{slot}}\"}}\n    targets:\n      a: [{{name: edge, {target}}}]\n"
    );
    let text = format!("deployment_pipeline:\n  regional_stages:\n{}", stages.concat());
    check("p.yaml", &text, "analysis/envoy", &fleet)
}

#[test]
fn copies_come_before_any_weight() {
    let (shadow, small, all) = (mirror(SHADOW), small(), all());
    let (plan, problems) = run(&[&shadow, &small, &all], FILE);
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    assert!(!problems.has_errors(), "{problems}");
    let share = |stage: usize| {
        let step = plan.stages[stage].steps.last().unwrap();
        step.reach(&RegionName::new("a").unwrap()).to_string()
    };
    assert_eq!([share(0), share(1), share(2)], ["20 % mirrored", "5 %", "100 %"]);
    assert!(plan.stages[0].weight.is_zero());

    let said_as_well = mirror("      traffic_percentage: 0\n      mirror: 0.01%\n");
    assert!(!run(&[&said_as_well, &all], FILE).1.has_errors());
    let wrong = |stages: &[&str], code: &str, word: &str| {
        let problems = run(stages, FILE).1;
        assert_eq!(count(&problems, code), 1, "{problems}");
        assert!(problems.to_string().contains(word), "{problems}");
    };
    wrong(
        &[&small, &shadow, &all],
        codes::MIRROR,
        "`shadow` mirrors in a, where the canary has 5 %",
    );
    let both = mirror("      traffic_percentage: 5\n      mirror: 20%\n");
    wrong(&[&both, &all], codes::INVALID_WEIGHT, "either mirrors or shifts");
    let none = mirror("      mirror: 0%\n");
    wrong(&[&none, &all], codes::INVALID_WEIGHT, "0 mirrors nothing");
    let zero = mirror("      traffic_percentage: 0\n");
    wrong(&[&zero, &all], codes::INVALID_WEIGHT, "without traffic shows nothing");
    let ramp = mirror("      mirror: 20%\n      steps: [5]\n");
    wrong(&[&ramp, &all], codes::STEPS_NOT_INCREASING, "a stage that mirrors has no steps");
    let again = shadow.replace("shadow", "again");
    wrong(&[&shadow, &again, &all], codes::STAGES_NOT_INCREASING, "changes nothing");
}

/// What is said against a stage with these keys before two others, when one thing is.
fn refused(keys: &str, target: &str) -> Option<String> {
    let problems = run(&[&mirror(keys), &small(), &all()], target).1;
    assert!(count(&problems, codes::MIRROR) == usize::from(problems.has_errors()), "{problems}");
    problems.has_errors().then(|| problems.to_string())
}

#[test]
fn copies_are_only_asked_of_a_balancer_that_can_make_them() {
    let runtime = "envoy_runtime: {route: web, prefix: x, clusters: {blue: api-blue, green: api-green}, admin: [\"http://a:1\"]}";
    let traefik = "traefik: {path: /web.yaml, service: web, services: {blue: b, green: g}, api: \"http://t\"}";
    for target in [
        traefik,
        "kubernetes: {http_route: {name: web, namespace: shop, backends: {blue: api-blue, green: api-green}}}",
        "kubernetes: {virtual_service: {name: web, namespace: shop, subsets: {blue: api-blue, green: api-green}}}",
    ] {
        assert_eq!(refused(SHADOW, target), None);
    }
    for (keys, target, word) in [
        (SHADOW, runtime, "`envoy_runtime` copies no requests"),
        ("      mirror: 0.5%\n", traefik, "cannot mirror 0.5 %: `traefik` copies whole percents"),
    ] {
        let said = refused(keys, target).unwrap_or_default();
        assert!(said.contains(word), "{said}");
    }
}
