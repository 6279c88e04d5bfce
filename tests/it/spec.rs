//! The shipped files, the six findings both ways, and a file full of mistakes.

mod cohorts;
mod mirror;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidegate::spec::fleet::Fleet;
use tidegate::spec::plan::{Plan, Test};
use tidegate::spec::{self, Diagnostics, Severity, codes};
use tidegate::units::{Millis, ServiceName, Weight};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn analyses(folder: &str) -> Vec<(String, String, String)> {
    let mut paths: Vec<_> = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths
        .iter()
        .map(|path| {
            (
                stem(path),
                format!("{folder}/{}.yaml", stem(path)),
                std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

fn service() -> ServiceName {
    ServiceName::new("api-gateway").unwrap()
}

#[track_caller]
fn fleet(text: &str) -> Fleet {
    let (fleet, problems) = spec::fleet_from_text("fleet.yaml", text);
    fleet.unwrap_or_else(|| panic!("{problems}"))
}

fn check(
    name: &str,
    pipeline: &str,
    folder: &str,
    fleet_text: &str,
) -> (Option<Plan>, Diagnostics) {
    let (fleet, mut problems) = spec::fleet_from_text("fleet.yaml", fleet_text);
    let (plan, more) =
        spec::plan_from_text(name, pipeline, &analyses(folder), &fleet.unwrap(), &service());
    problems.extend(more);
    (plan, problems)
}

fn shipped(
    change: impl Fn(&str) -> String,
    change_fleet: impl Fn(&str) -> String,
    name: &str,
) -> Diagnostics {
    let pipeline = change(&text("pipelines/multi-region.yaml"));
    let (plan, problems) =
        check(name, &pipeline, "analysis", &change_fleet(&text("examples/envoy/fleet.yaml")));
    assert!(plan.is_some(), "{problems}");
    problems
}

fn same(text: &str) -> String {
    text.to_owned()
}

fn count(problems: &Diagnostics, code: &str) -> usize {
    problems.iter().filter(|problem| problem.code == code).count()
}

#[test]
fn the_design_documents_block_runs_unchanged_and_its_findings_have_places() {
    let problems = shipped(same, same, "pipelines/multi-region.yaml");
    assert_eq!(problems.count(Severity::Error), 0, "{problems}");
    let expected = BTreeSet::from([
        codes::FAILOVER_TOO_SLOW,
        codes::DOMINATED_TRIGGER,
        codes::GAP,
        codes::FIRST_WAVE_LARGEST,
        codes::NO_CANARY,
        codes::OUTLASTS_CI,
        codes::UNPROVEN_REGION,
        codes::APPROVAL_NOT_ENFORCED,
    ]);
    let found: BTreeSet<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(found, expected, "{problems}");
    let dominated =
        problems.iter().find(|problem| problem.code == codes::DOMINATED_TRIGGER).unwrap();
    assert_eq!((dominated.location.line, dominated.location.column), (31, 9), "{dominated}");
    assert!(dominated.message.contains("`error_rate > 1%`"), "{dominated}");
    let outlasts = problems.iter().find(|problem| problem.code == codes::OUTLASTS_CI).unwrap();
    assert!(outlasts.message.contains("6h30m"), "{outlasts}");
    let jump = problems.iter().find(|problem| problem.code == codes::NO_CANARY).unwrap();
    assert!(jump.message.contains("ap_southeast_2 goes from 0 to 100 %"), "{jump}");
}

#[test]
fn each_finding_goes_when_its_cause_is_mended_and_comes_on_any_file() {
    type Change = fn(&str) -> String;
    let mended: [(&str, Change, Change); 6] = [
        (codes::FAILOVER_TOO_SLOW, same, |fleet| {
            fleet
                .replace("interval: 30s", "interval: 5s")
                .replace("dns_lifetime: 60s", "dns_lifetime: 5s")
        }),
        (
            codes::DOMINATED_TRIGGER,
            |pipeline| pipeline.replace("availability < 99.5%", "availability < 99%"),
            same,
        ),
        (
            codes::GAP,
            |pipeline| {
                pipeline
                    .replace(
                        "      - error_rate > 1%",
                        "      - error_rate_increase > 0.1%\n      - response_time_increase > 10%",
                    )
                    .replace("      - response_time_increase > 50%\n", "")
            },
            same,
        ),
        (
            codes::FIRST_WAVE_LARGEST,
            |pipeline| pipeline.replacen("[\"us_east_1\"]", "[\"ap_southeast_2\"]", 1),
            same,
        ),
        (
            codes::NO_CANARY,
            |pipeline| {
                pipeline.replace(
                    "traffic_percentage: 100",
                    "traffic_percentage: 100\n      steps: [5, 25]\n      max_parallel_regions: 1",
                )
            },
            same,
        ),
        (codes::OUTLASTS_CI, |pipeline| pipeline.replace("4_hours", "3_hours"), same),
    ];
    for (code, pipeline, fleet) in mended {
        for name in ["pipelines/multi-region.yaml", "elsewhere/another.yaml"] {
            assert!(count(&shipped(same, same, name), code) > 0, "{code} is not found in {name}");
            let problems = shipped(pipeline, fleet, name);
            assert_eq!(count(&problems, code), 0, "{code} stays: {problems}");
        }
    }
}

#[test]
fn the_plan_of_the_block_is_what_it_says() {
    let (plan, problems) = check(
        "multi-region.yaml",
        &text("pipelines/multi-region.yaml"),
        "analysis",
        &text("examples/envoy/fleet.yaml"),
    );
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(plan.pipeline.as_str(), "multi-region");
    assert_eq!((plan.stages.len(), plan.triggers.len(), plan.analyses.len()), (3, 3, 10));
    assert_eq!(plan.digest.len(), 64);
    assert_eq!(plan.stages[0].criteria[0].test, Test::Rate { factor: 1.0, offset: 0.001 });
    assert_eq!(plan.stages[0].criteria[1].test, Test::QuantileRatio { quantile: 0.95, ratio: 1.1 });
    assert_eq!(plan.stages[0].criteria[2].test, Test::Level { higher_is_better: true, limit: 4.5 });
    assert_eq!(plan.stages[1].criteria[0].test, Test::Holds);
    assert_eq!(plan.triggers[0].test, Test::Rate { factor: 0.0, offset: 0.01 });
    assert_eq!(plan.triggers[1].test, Test::QuantileRatio { quantile: 0.95, ratio: 1.5 });
    assert_eq!(plan.triggers[2].test, Test::Rate { factor: 0.0, offset: 0.005 });
    assert_eq!(plan.stages[0].criteria[0].id.0, "stage_1_canary/error_rate_increase < 0.1%");
    assert_eq!(plan.stages[2].weight, Weight::FULL);
    assert_eq!(plan.manual_rollback.required_approvers, 2);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

#[test]
fn every_shipped_pipeline_is_free_of_errors() {
    let demo_checks = "checks:\n".to_owned()
        + &[
            "cross_region_functionality_verified",
            "compliance_checks_passed",
            "performance_benchmarks_met",
            "global_load_balancing_optimal",
            "all_regions_healthy",
            "business_metrics_stable",
        ]
        .map(|name| format!("  {name}: {{http: {{url: \"http://127.0.0.1:1/{name}\"}}}}\n"))
        .concat();
    let plain = text("examples/envoy/fleet.yaml");
    for (pipeline, folder, fleet) in [
        ("pipelines/demo.yaml", "analysis/demo", format!("{plain}{demo_checks}")),
        ("pipelines/careful.yaml", "analysis", plain.clone()),
        ("pipelines/blue-green.yaml", "analysis", plain.clone()),
    ] {
        let (plan, problems) = check(pipeline, &text(pipeline), folder, &fleet);
        assert!(plan.is_some(), "{problems}");
    }
    let envoy = "deployment_pipeline:\n  regional_stages:\n    s: {regions: [us_east_1], traffic_percentage: 5, duration: 1m, validation_criteria: [error_rate_increase < 1%, response_time < 500ms, availability > 99%]}\n";
    let (plan, problems) = check("envoy.yaml", envoy, "analysis/envoy", &plain);
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(
        plan.stages[0].criteria[1].test,
        Test::QuantileLimit { quantile: 0.95, limit: 500.0 }
    );
}

#[test]
fn the_careful_pipeline_walks_region_by_region_and_keeps_a_holdback() {
    let (plan, problems) = check(
        "careful.yaml",
        &text("pipelines/careful.yaml"),
        "analysis",
        &text("examples/envoy/fleet.yaml"),
    );
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    let last = &plan.stages[1];
    assert_eq!(last.weight.percent(), 98.0);
    let walked: Vec<_> = last
        .steps
        .iter()
        .map(|step| step.weights.values().map(|w| w.percent()).collect::<Vec<_>>())
        .collect();
    assert_eq!(walked.first().unwrap(), &[50.0]);
    assert_eq!(walked.last().unwrap(), &[98.0, 98.0, 98.0]);
    assert!(
        walked.contains(&vec![98.0, 1.0]) && walked.contains(&vec![98.0, 98.0, 5.0]),
        "{walked:?}"
    );
    assert!(last.gate.is_some());
    assert_eq!(count(&problems, codes::NO_CANARY), 0, "{problems}");
}

#[test]
fn blue_green_is_one_step_per_region_on_limits_that_need_nothing_beside_the_canary() {
    let (plan, problems) = check(
        "pipelines/blue-green.yaml",
        &text("pipelines/blue-green.yaml"),
        "analysis",
        &text("examples/envoy/fleet.yaml"),
    );
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    let walked: Vec<Vec<(&str, f64)>> = plan
        .stages
        .iter()
        .map(|stage| {
            assert_eq!(stage.steps.len(), 1, "{}", stage.name);
            let weights = stage.steps[0].weights.iter();
            weights.map(|(region, weight)| (region.as_str(), weight.percent())).collect()
        })
        .collect();
    let all = [("ap_southeast_2", 100.0), ("eu_west_1", 100.0), ("us_east_1", 100.0)];
    assert_eq!(walked, [&all[..1], &all[..2], &all[..]]);
    let criteria: Vec<_> = plan.stages.iter().flat_map(|stage| &stage.criteria).collect();
    assert!(criteria.iter().all(|criterion| !criterion.test.compares_arms()), "{criteria:?}");
    assert_eq!(plan.policy.keep_previous, Millis::from_secs(3_600));

    // What `check` says: of the pipeline, that each region goes at once, as is meant; the rest is the fleet's.
    let found: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    let expected = [[codes::FAILOVER_TOO_SLOW; 3], [codes::NO_CANARY; 3]].concat();
    assert_eq!(found, expected, "{problems}");
}

#[test]
fn stages_that_end_below_full_weight_are_named() {
    let early = |text: &str| text.replace("traffic_percentage: 100", "traffic_percentage: 50");
    let problems = shipped(early, same, "pipelines/other.yaml");
    let ends: Vec<_> = problems.iter().filter(|it| it.code == codes::ENDS_EARLY).collect();
    assert_eq!(ends.len(), 3, "{problems}");
    assert!(ends.iter().all(|it| it.message.contains("raises it to 100 %")), "{problems}");
    let held = |text: &str| early(text) + "  holdback: 50%\n";
    let problems = shipped(held, same, "pipelines/other.yaml");
    assert_eq!(count(&problems, codes::ENDS_EARLY), 0, "{problems}");
}

#[test]
fn twelve_mistakes_are_twelve_diagnostics_in_one_run() {
    let broken = r#"deployment_pipeline:
  name: Not A Name
  regional_stages:
    one:
      regions: [us_east_1, us_east_1, mars]
      traffic_percentage: "5 %"
      validation_criterai: []
      duration: 999999999d
    two:
      regions: [us_east_1]
      traffic_percentage: 10
      validation_criteria:
        - error_rate > 1%
        - error_rat < 1%
        - error_rate < lots
      duration: 0s
      windows: []
  rollback_procedures:
    automatic_rollback_triggers:
      - error_rate ~ 1%
  alpha: 2
"#;
    let (fleet, _) = spec::fleet_from_text("fleet.yaml", &text("examples/envoy/fleet.yaml"));
    let renamed = broken.replace("  name: Not A Name\n", "");
    let run = |text: &str| {
        spec::plan_from_text(
            "broken.yaml",
            text,
            &analyses("analysis"),
            fleet.as_ref().unwrap(),
            &service(),
        )
    };
    assert!(run(broken).1.count(Severity::Error) >= 1);
    let (plan, problems) = run(&renamed);
    assert!(plan.is_none());
    let found: BTreeSet<_> =
        problems.iter().filter(|p| p.severity == Severity::Error).map(|p| p.code).collect();
    let expected = BTreeSet::from([
        codes::DUPLICATE_REGION,
        codes::UNKNOWN_REGION,
        codes::INVALID_WEIGHT,
        codes::UNKNOWN_KEY,
        codes::INVALID_DURATION,
        codes::CRITERION_DIRECTION,
        codes::UNKNOWN_ANALYSIS,
        codes::INVALID_QUANTITY,
        codes::STAGE_DURATION,
        codes::CRITERION_SYNTAX,
        codes::INVALID_VALUE,
    ]);
    assert_eq!(found, expected, "{problems}");
    assert_eq!(problems.count(Severity::Error), 12, "{problems}");
    let known: BTreeSet<_> = codes::ALL.iter().map(|(code, _)| *code).collect();
    assert!(
        problems.iter().all(|problem| known.contains(problem.code) && problem.location.line > 0)
    );
}

#[test]
fn a_fleet_with_secrets_or_gaps_is_refused_without_repeating_them() {
    let good = text("examples/envoy/fleet.yaml");
    let first = "prometheus: {url: \"http://127.0.0.1:9090\"}";
    let cases = [
        (
            first,
            "prometheus: {url: \"http://127.0.0.1:9090\", bearer: hunter2}",
            codes::INLINE_SECRET,
        ),
        (first, "prometheus: {url: \"http://u:hunter2@127.0.0.1:9090\"}", codes::INLINE_SECRET),
        (first, "prometheus: {url: \"file:///etc/passwd\"}", codes::INVALID_URL),
        ("share: 50%", "share: 51%", codes::SHARES),
        ("slots: [blue, green]", "slots: [blue, blue]", codes::SLOTS),
        ("127.0.0.1:18000", "0.0.0.0:18000", codes::XDS),
        ("xds: {listen: \"127.0.0.1:18000\"}", "", codes::XDS),
        ("xds: {", "traefik_provider: {listen: \"10.0.0.1:1\"}\nxds: {", codes::TRAEFIK_PROVIDER),
        ("    owner: team-edge", "    hooks: {deplay: [x]}", codes::UNKNOWN_KEY),
        ("    owner: team-edge", "    hooks: {deploy: []}", codes::INVALID_VALUE),
        ("    owner: team-edge", "    hooks: {deploy: [x, \"v={version}\"]}", codes::INVALID_VALUE),
        (
            "    owner: team-edge",
            "    hooks: {retire: {run: [x], timeout: 9h}}",
            codes::INVALID_VALUE,
        ),
        ("    owner: team-edge", "    hooks: {deploy: {status: [x]}}", codes::MISSING_KEY),
        ("authority: full", "authority: ful", codes::INVALID_VALUE),
        ("{blue: api-blue, green: api-green}", "{blue: api-blue, gren: api-green}", codes::SLOTS),
    ];
    fleet(&good);
    for (from, to, code) in cases {
        assert!(good.contains(from), "{from}");
        let (fleet, problems) = spec::fleet_from_text("fleet.yaml", &good.replacen(from, to, 1));
        assert!(fleet.is_none() && count(&problems, code) > 0, "{to}: {problems}");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}

#[test]
fn two_arms_must_be_two_arms() {
    let pipeline = "deployment_pipeline:\n  regional_stages:\n    s: {regions: [us_east_1], traffic_percentage: 5, duration: 1m, validation_criteria: [errors < 1%]}\n";
    let run = |selector: &str, fleet_text: &str| {
        let analysis = format!(
            "kind: proportion\nbad: {selector}\ntotal: requests_total{{version=\"$version\"}}\n"
        );
        let files = [("errors".to_owned(), "errors.yaml".to_owned(), analysis)];
        spec::plan_from_text("p.yaml", pipeline, &files, &fleet(fleet_text), &service())
    };
    let good = text("examples/envoy/fleet.yaml");
    let (plan, problems) = run("errors_total{version=\"$version\"}", &good);
    assert!(plan.is_some(), "{problems}");
    let (plan, problems) = run("errors_total{service=\"$service\"}", &good);
    assert!(plan.is_none() && count(&problems, codes::NO_ARM_VARIABLE) == 1, "{problems}");
    let (plan, problems) = run("errors_total{version=\"$versoin\"}", &good);
    assert!(plan.is_none() && count(&problems, codes::UNKNOWN_VARIABLE) == 1, "{problems}");
    let (plan, problems) =
        run("errors_total{version=\"$version\"}", &good.replace("\"{version}\"", "\"always\""));
    assert!(plan.is_none() && count(&problems, codes::EQUAL_ARMS) == 2, "{problems}");
}

#[test]
fn a_trigger_tighter_than_its_criterion_is_a_contradiction() {
    let pipeline = text("pipelines/multi-region.yaml")
        .replace("response_time_increase > 50%", "response_time_increase > 5%");
    let (plan, problems) =
        check("p.yaml", &pipeline, "analysis", &text("examples/envoy/fleet.yaml"));
    assert!(plan.is_none() && count(&problems, codes::CONTRADICTING_CRITERIA) == 1, "{problems}");
}

#[test]
fn from_paths_as_well_as_from_texts() {
    let (fleet, problems) = spec::load_fleet(&root().join("examples/envoy/fleet.yaml"));
    assert_eq!(problems.count(Severity::Error), 0);
    let (plan, _) = spec::load_plan(
        &root().join("pipelines/multi-region.yaml"),
        &root().join("analysis"),
        &fleet.unwrap(),
        &service(),
    );
    assert!(plan.is_some());
    let (fleet, problems) = spec::load_fleet(&root().join("examples/none.yaml"));
    assert!(fleet.is_none() && count(&problems, codes::UNREADABLE) == 1);
}

const ANALYSES: [(&str, &str); 6] = [
    (
        "rate",
        "kind: proportion\ndescription: d\ndry_run: false\nunit: requests\nbad: b{v=\"$version\"}\ntotal: t{v=\"$version\"}\n",
    ),
    ("good", "kind: proportion\ngood: b{v!=\"$version\"}\ntotal: t{v=\"$version\"}\n"),
    (
        "latency",
        "kind: latency\ndescription: d\ndry_run: true\nbuckets: l_bucket{v=\"$cluster\"}\nquantile: p99\nunit: milliseconds\n",
    ),
    (
        "score",
        "kind: gauge\ndescription: d\ndry_run: true\nquery: avg(s{v=\"$track\"})\nrange: [1, 5]\n",
    ),
    (
        "ready",
        "kind: check\ndescription: d\ndry_run: true\npromql: up{r=\"$region\"} > 0\nevery: 1m\ntimeout: 5s\n",
    ),
    ("asked", "kind: check\ncheck: ping\n"),
];

/// The schema and the decoders know the same keys: a file with every key decodes, and its keys are the schema's.
#[test]
fn the_schemas_know_the_keys_that_the_decoders_know() {
    let files =
        ANALYSES.map(|(name, text)| (name.to_owned(), format!("{name}.yaml"), text.to_owned()));
    let fleet = fleet(&text("tests/data/spec/fleet.yaml"));
    let (plan, problems) = spec::plan_from_text(
        "everything.yaml",
        &text("tests/data/spec/pipeline.yaml"),
        &files,
        &fleet,
        &service(),
    );
    assert!(plan.is_some(), "{problems}");
    let cases = [
        (
            spec::SchemaKind::Pipeline,
            vec![text("tests/data/spec/pipeline.yaml")],
            vec!["one", "shadow"],
        ),
        (spec::SchemaKind::Analysis, ANALYSES.map(|(_, text)| text.to_owned()).to_vec(), vec![]),
        (
            spec::SchemaKind::Fleet,
            vec![text("tests/data/spec/fleet.yaml")],
            vec![
                "a",
                "b",
                "c",
                "api-gateway",
                "first",
                "second",
                "ping",
                "pong",
                "local",
                "track",
                "cluster",
                "blue",
                "green",
            ],
        ),
    ];
    for (kind, texts, names) in cases {
        let mut written = BTreeSet::new();
        texts.iter().for_each(|text| keys_of(text, &mut written));
        names.iter().for_each(|name| assert!(written.remove(*name), "{name}"));
        let mut described = BTreeSet::new();
        properties(&spec::schema(kind), &mut described);
        assert_eq!(written, described, "{kind:?}");
    }
}

fn keys_of(text: &str, keys: &mut BTreeSet<String>) {
    fn walk(value: &serde_json::Value, keys: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                keys.extend(map.keys().cloned());
                map.values().for_each(|value| walk(value, keys));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| walk(value, keys)),
            _ => {}
        }
    }
    walk(&spec::file::parse_as("f.yaml", text).unwrap(), keys);
}

fn properties(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(known)) = map.get("properties") {
                keys.extend(known.keys().cloned());
            }
            map.values().for_each(|value| properties(value, keys));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| properties(value, keys)),
        _ => {}
    }
}

/// Whatever is cut out of a good file, the answer is a list of problems and never a panic.
#[test]
fn no_cut_and_no_noise_panics() {
    let (pipeline, fleet_text) =
        (text("tests/data/spec/pipeline.yaml"), text("tests/data/spec/fleet.yaml"));
    let whole = fleet(&fleet_text);
    for cut in 0..pipeline.len().max(fleet_text.len()) {
        for noise in ["", "\0", "&a ", "- [", "\u{202e}"] {
            let cut_at = |text: &str| {
                format!(
                    "{}{noise}{}",
                    &text[..cut.min(text.len())],
                    &text[(cut + 3).min(text.len())..]
                )
            };
            let _ = spec::fleet_from_text("f.yaml", &cut_at(&fleet_text));
            let _ = spec::plan_from_text("p.yaml", &cut_at(&pipeline), &[], &whole, &service());
        }
    }
}

#[test]
fn windows_and_freezes_are_read_in_their_zones_and_refused_where_they_cannot_be() {
    let good = text("pipelines/multi-region.yaml");
    let with = |more: &str| {
        good.replacen("deployment_pipeline:\n", &format!("deployment_pipeline:\n{more}"), 1)
    };
    let read =
        |more: &str| check("p.yaml", &with(more), "analysis", &text("examples/envoy/fleet.yaml"));
    let fits = "  windows:\n    - {from: \"00:00\", to: \"24:00\", zone: Europe/Berlin}\n";
    let freeze = "  freezes:\n    - {from: 2026-12-20, to: 2027-01-04T08:00, zone: Asia/Tokyo, reason: holidays, regions: [eu_west_1]}\n";
    let (plan, problems) = read(&format!("{fits}{freeze}"));
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    let policy = &plan.policy;
    assert_eq!((policy.windows.len(), policy.windows[0].days.len()), (1, 7));
    // Midnight in Tokyo is 15:00 UTC of the day before.
    assert_eq!(policy.freezes[0].from.0, 1_797_692_400_000);
    for (more, word) in [
        (
            "  windows:\n    - {from: \"09:00\", to: \"10:00\", zone: Europe/Berlin}\n",
            "reason::window_too_short",
        ),
        (
            "  windows:\n    - {from: \"9\", to: \"24:00\", zone: Europe/Berlin}\n",
            "no time of the day",
        ),
        (
            "  windows:\n    - {from: \"09:00\", to: \"25:00\", zone: Europe/Berlin}\n",
            "no time of the day",
        ),
        ("  windows:\n    - {from: \"09:00\", to: \"24:00\"}\n", "zone"),
        ("  windows:\n    - {from: \"09:00\", to: \"24:00\", zone: CET}\n", "no time zone `CET`"),
        (
            "  windows:\n    - {days: [someday], from: \"09:00\", to: \"24:00\", zone: UTC}\n",
            "someday",
        ),
        (
            "  freezes:\n    - {from: 2026-13-20, to: 2027-01-04, zone: UTC, reason: x}\n",
            "no day and no time",
        ),
        (
            "  freezes:\n    - {from: 2027-01-04, to: 2026-12-20, zone: UTC, reason: x}\n",
            "ends after it begins",
        ),
        ("  freezes:\n    - {from: 2026-12-20, to: 2027-01-04, zone: UTC}\n", "reason"),
    ] {
        let (_, problems) = read(more);
        assert!(problems.has_errors() && problems.to_string().contains(word), "{more}: {problems}");
    }
}

#[test]
fn haproxy_needs_what_makes_its_weights_stay_and_weights_that_it_can_show() {
    let fleet = "regions: {a: {share: 100%, labels: {region: a}, prometheus: {url: \"http://p\"}}}\nservices:\n  api-gateway:\n    authority: full\n    slots: [blue, green]\n    metrics: {backend: be, server: \"{slot}\"}\n    hooks: {persist: [./persist.sh, \"{region}\"]}\n    targets:\n      a: [{name: edge, haproxy: {socket: /run/haproxy.sock, backend: be, servers: {blue: one, green: two}}}]\n";
    let pipeline = "deployment_pipeline:\n  regional_stages:\n    first:\n      regions: [a]\n      traffic_percentage: 5\n      validation_criteria: [error_rate_increase < 1%]\n      duration: 10m\n    all:\n      regions: [a]\n      traffic_percentage: 100\n      validation_criteria: [error_rate < 5%]\n      duration: 10m\n";
    let run = |pipeline: &str, fleet: &str| check("p.yaml", pipeline, "analysis/haproxy", fleet);
    let (plan, problems) = run(pipeline, fleet);
    assert!(plan.is_some() && !problems.has_errors(), "{problems}");
    let without = fleet.replace("    hooks: {persist: [./persist.sh, \"{region}\"]}\n", "");
    assert_eq!(count(&run(pipeline, &without).1, codes::WEIGHTS_DO_NOT_STAY), 1);
    for weight in ["0.1", "0.38", "99.7"] {
        let fine =
            pipeline.replace("traffic_percentage: 5\n", &format!("traffic_percentage: {weight}\n"));
        assert_eq!(count(&run(&fine, fleet).1, codes::TOO_FINE), 1, "{weight}");
    }
    for (from, to) in [
        ("backend: be,", "backend: \"be;disable server be/one\","),
        ("green: two", "green: \"two 1; shutdown\""),
        ("green: two", "green: one"),
    ] {
        let (read, problems) = spec::fleet_from_text("fleet.yaml", &fleet.replace(from, to));
        assert!(read.is_none() && problems.has_errors(), "{to}: {problems}");
    }
}

#[test]
fn a_name_whose_answers_are_kept_for_long_makes_a_rollback_slow() {
    let fleet = |name: &str, ttl: &str| {
        format!(
            "regions: {{a: {{share: 100%, labels: {{region: a}}, prometheus: {{url: \"http://p\"}}}}}}\nservices:\n  api-gateway:\n    authority: full\n    slots: [blue, green]\n    metrics: {{backend: be, server: \"{{slot}}\"}}\n    targets:\n      a:\n      - {{name: edge, {name}{ttl}}}\n"
        )
    };
    let powerdns = "powerdns: {api: \"http://i\", key: {env: K}, zone: example.org, name: www.example.org, addresses: {blue: [192.0.2.1], green: [192.0.2.2]}";
    let services = "rfc2136: {server: \"ns1:53\", zone: example.org, name: _http._tcp.example.org, key: {name: k, secret: {env: K}}, srv: {blue: {target: a, port: 80}, green: {target: b, port: 80}}";
    let addresses = "rfc2136: {server: \"ns1:53\", zone: example.org, name: example.org, key: {name: k, secret: {env: K}}, address: {blue: [192.0.2.1], green: [192.0.2.2]}";
    let pipeline = |percent: u32| {
        format!(
            "deployment_pipeline:\n  regional_stages:\n    all:\n      regions: [a]\n      traffic_percentage: {percent}\n      validation_criteria: [error_rate < 5%]\n      duration: 10m\n"
        )
    };
    let run = |percent: u32, fleet: &str| {
        check("p.yaml", &pipeline(percent), "analysis/haproxy", fleet).1
    };
    for name in [powerdns, services, addresses] {
        // By default, and at the border.
        for (ttl, warnings) in
            [("}", 0), (", ttl: 0s}", 0), (", ttl: 30s}", 0), (", ttl: 31s}", 1), (", ttl: 1h}", 1)]
        {
            let problems = run(100, &fleet(name, ttl));
            assert_eq!(count(&problems, codes::DNS_LIFETIME), warnings, "{ttl}: {problems}");
            assert!(!problems.has_errors(), "{problems}");
        }
    }
    let said = run(100, &fleet(powerdns, ", ttl: 5m}")).to_string();
    assert!(said.contains("a edge: users keep an answer for 5m"), "{said}");
    assert!(said.contains("fleet.yaml:9:9"), "{said}");
    // Addresses are all or nothing; services have weights.
    assert_eq!(count(&run(5, &fleet(addresses, "}")), codes::TOO_FINE), 1);
    assert_eq!(count(&run(5, &fleet(services, "}")), codes::TOO_FINE), 0);
}

#[test]
fn users_stay_only_where_every_balancer_can_see_to_it() {
    let fleet = |affinity: &str, target: &str| {
        format!(
            "regions: {{a: {{share: 100%, labels: {{region: a}}, prometheus: {{url: \"http://p\"}}}}}}\nservices:\n  api-gateway:\n    authority: full\n    slots: [blue, green]\n    metrics: {{cluster: \"api-{{slot}}\", backend: be, server: \"{{slot}}\"}}\n    hooks: {{persist: [./persist.sh]}}\n{affinity}    targets:\n      a: [{{name: edge, {target}}}]\n"
        )
    };
    let pipeline = "deployment_pipeline:\n  regional_stages:\n    all:\n      regions: [a]\n      traffic_percentage: 5\n      validation_criteria: [error_rate < 5%]\n      duration: 10m\n";
    let users = "    affinity: {cookie: session, requests_per_user: 50}\n";
    let envoy = "envoy_file: {route: web, path: /r.yaml, clusters: {blue: api-blue, green: api-green}, admin: [\"http://a:1\"]}";
    let haproxy = "haproxy: {socket: /h.sock, backend: be, servers: {blue: one, green: two}}";
    let nginx = |key: &str| {
        format!(
            "nginx: {{include: w.conf, variable: $w, {key}upstreams: {{blue: one, green: two}}, status: \"http://i/tidegate\"}}"
        )
    };
    for (affinity, target, errors, warnings) in [
        (users, envoy.to_owned(), 0, 0),
        ("", envoy.to_owned(), 0, 0),
        (users, haproxy.to_owned(), 1, 0),
        ("", haproxy.to_owned(), 0, 0),
        (users, nginx(""), 0, 0),
        ("", nginx("key: $cookie_user, "), 0, 1),
        ("", nginx(""), 0, 0),
    ] {
        let folder =
            if target.starts_with("envoy") { "analysis/envoy" } else { "analysis/haproxy" };
        let (plan, problems) = check("p.yaml", pipeline, folder, &fleet(affinity, &target));
        let of = |severity: Severity| {
            let found = problems.iter().filter(|it| it.code == codes::AFFINITY);
            found.filter(|it| it.severity == severity).count()
        };
        assert_eq!(
            [of(Severity::Error), of(Severity::Warning)],
            [errors, warnings],
            "{target}: {problems}"
        );
        let said = (!affinity.is_empty()).then_some(50);
        assert_eq!(plan.unwrap_or_else(|| panic!("{problems}")).requests_per_user, said);
    }
    let both = fleet(users, &nginx("key: $cookie_user, "));
    let (_, problems) = spec::fleet_from_text("fleet.yaml", &both);
    assert_eq!(count(&problems, codes::AFFINITY), 1, "{problems}");
    for wrong in [
        "{}",
        "{cookie: session}",
        "{requests_per_user: 5}",
        "{cookie: session, requests_per_user: 0}",
        "{cookie: a-b, requests_per_user: 5}",
        "{header: \"a;b\", requests_per_user: 5}",
        "{cookie: a, header: b, requests_per_user: 5}",
    ] {
        let text = fleet(&format!("    affinity: {wrong}\n"), envoy);
        let (_, problems) = spec::fleet_from_text("fleet.yaml", &text);
        assert!(problems.has_errors(), "{wrong}");
    }
}
