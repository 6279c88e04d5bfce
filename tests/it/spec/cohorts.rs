//! What `check` says of cohorts: their entry in the fleet, their numbers, their balancers, and the stages that name them.

use super::*;
use tidegate::spec::fleet::Adapter;
use tidegate::units::RegionName;

const FLEET: &str = r#"regions:
  us:
    share: 100%
    role: primary
    compliance: [x]
    instances: 3
    labels: {region: us-east-1, backend: web, zone: a}
    scrape: {endpoints: ["http://p/metrics"]}
    scrape_interval: 2s
    settle: 9s
    health: {url: "http://h"}
    dns_lifetime: 60s
    failover_within: 10s
  us_testers:
    cohort_of: us
    labels: {backend: testers}
services:
  api-gateway:
    authority: full
    slots: [blue, green]
    metrics: {server: "{slot}"}
    hooks: {persist: [./persist.sh, "{region}"]}
    targets:
      us: [{name: edge, haproxy: {socket: /s, backend: web, servers: {blue: b, green: g}}}]
      us_testers: [{name: edge, haproxy: {socket: /s, backend: testers, servers: {blue: b, green: g}}}]
"#;

const PIPELINE: &str = r"deployment_pipeline:
  regional_stages:
    testers:
      regions: [us_testers]
      traffic_percentage: 100
      validation_criteria: [error_rate < 5%]
      duration: 10m
    canary:
      regions: [us]
      traffic_percentage: 5
      validation_criteria: [error_rate_increase < 1%]
      duration: 10m
    all:
      regions: [us, us_testers]
      traffic_percentage: 100
      steps: [25]
      validation_criteria: [error_rate < 5%]
      duration: 10m
  rollback_procedures:
    automatic_rollback_triggers: [error_rate > 5%]
  on_fail: rollback
";

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn run(pipeline: &str, fleet: &str) -> (Option<Plan>, Diagnostics) {
    check("p.yaml", pipeline, "analysis/haproxy", fleet)
}

/// The problem of this code, which has to be an error with a place and help.
#[track_caller]
fn only(problems: &Diagnostics, code: &str) -> (u32, String) {
    let found: Vec<_> = problems.iter().filter(|problem| problem.code == code).collect();
    assert_eq!(found.len(), 1, "{code}: {problems}");
    assert_eq!(found[0].severity, Severity::Error, "{problems}");
    assert!(!found[0].help.is_empty() && !found[0].help.contains("explain"), "{problems}");
    (found[0].location.line, format!("{} | {}", found[0].message, found[0].help))
}

#[test]
fn a_cohort_is_its_region_but_for_what_it_says() {
    let whole = fleet(FLEET);
    let (us, testers) = (&whole.regions[&region("us")], &whole.regions[&region("us_testers")]);
    assert_eq!(testers.cohort_of, Some(region("us")));
    assert_eq!((us.share, testers.share), (Weight::FULL, Weight::ZERO));
    let labels = [("region", "us-east-1"), ("backend", "testers"), ("zone", "a")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(testers.labels, labels.into());
    assert_eq!((testers.poll, testers.settle), (Millis(2_000), Millis(9_000)));
    assert_eq!((&testers.metrics, &testers.health), (&us.metrics, &us.health));
    assert_eq!((&testers.role, testers.instances), (&us.role, us.instances));
    assert_eq!((&testers.compliance, testers.dns_lifetime), (&us.compliance, us.dns_lifetime));

    let own = FLEET
        .replace(
            "cohort_of: us\n",
            "cohort_of: us\n    share: 10%\n    poll: 7s\n    role: tests\n",
        )
        .replace("share: 100%", "share: 90%");
    let own = fleet(&own);
    let testers = &own.regions[&region("us_testers")];
    assert_eq!((testers.share.percent(), testers.poll), (10.0, Millis(7_000)));
    assert_eq!((testers.settle, testers.role.as_deref()), (Millis(9_000), Some("tests")));
    // Said shares count as everybody's do.
    let (_, problems) = spec::fleet_from_text(
        "f.yaml",
        &FLEET.replace("cohort_of: us\n", "cohort_of: us\n    share: 10%\n"),
    );
    assert_eq!(count(&problems, codes::SHARES), 1, "{problems}");
}

#[test]
fn the_plan_knows_cohorts_and_nothing_in_it_is_taken_for_a_leap_or_the_largest_region() {
    let (plan, problems) = run(PIPELINE, FLEET);
    let plan = plan.unwrap_or_else(|| panic!("{problems}"));
    assert_eq!(plan.regions[&region("us_testers")].cohort_of, Some(region("us")));
    assert_eq!(plan.regions[&region("us")].cohort_of, None);
    // Of the whole pipeline only the promise about failover is odd, and it is said of the region alone.
    let found: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(found, [codes::FAILOVER_TOO_SLOW], "{problems}");
    let leap = PIPELINE.replace("      traffic_percentage: 5\n", "      traffic_percentage: 60\n");
    assert_eq!(
        count(&run(&leap.replace("steps: [25]", "steps: [75]"), FLEET).1, codes::NO_CANARY),
        1
    );

    // The plan of a fleet without cohorts is written as it always was.
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["regions"]["us_testers"]["cohort_of"], "us");
    assert!(json["regions"]["us"].get("cohort_of").is_none(), "{json}");
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), plan);

    // Whoever closes a region closes its cohorts.
    let freeze = "  freezes:\n    - {from: 2026-12-20, to: 2027-01-04, zone: UTC, reason: r, regions: [us]}\n";
    let (plan, problems) = run(&format!("{PIPELINE}{freeze}"), FLEET);
    let frozen = plan.unwrap_or_else(|| panic!("{problems}")).policy.freezes[0].regions.clone();
    assert_eq!(frozen, Some([region("us"), region("us_testers")].into()));
}

#[test]
fn a_cohort_belongs_to_a_region() {
    let with = |of: &str| {
        let text = FLEET.replace("cohort_of: us\n", &format!("cohort_of: {of}\n"));
        let more = "  us_vip: {cohort_of: us, labels: {backend: vip}}\nservices:";
        spec::fleet_from_text("f.yaml", &text.replace("services:", more)).1
    };
    assert!(!with("us").has_errors());
    for (of, words) in [
        ("uz", "there is no region `uz` | did you mean `us`?"),
        ("us_testers", "cannot be a cohort of itself"),
        ("us_vip", "`us_vip` is a cohort itself | `cohort_of: us`"),
    ] {
        let (line, said) = only(&with(of), codes::COHORT);
        assert_eq!(line, 15, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_cohort_has_numbers_of_its_own() {
    let labels = "    labels: {backend: testers}\n";
    let (_, problems) = spec::fleet_from_text("f.yaml", &FLEET.replace(labels, ""));
    let (line, said) = only(&problems, codes::COHORT_NUMBERS);
    assert_eq!(line, 14, "{said}");
    assert!(said.contains("same labels") && said.contains("no random sample"), "{said}");
    // From a place of its own the same spelling is another number.
    let apart = FLEET.replace(labels, "    scrape: {endpoints: [\"http://t/metrics\"]}\n");
    fleet(&apart);

    // A label that no selector uses tells nothing apart: both counters of the error rate are named.
    let unused = FLEET
        .replace("backend: testers}\n    ", "zone: b}\n    ")
        .replace(labels, "    labels: {zone: b}\n");
    let (plan, problems) = run(PIPELINE, &unused);
    assert!(plan.is_none());
    let both: Vec<_> = problems.iter().filter(|it| it.code == codes::COHORT_NUMBERS).collect();
    assert_eq!(both.len(), 2, "{problems}");
    for problem in both {
        assert!(
            problem.message.contains("the same for `us` and its cohort `us_testers`"),
            "{problem}"
        );
        assert_eq!(problem.location.file, "analysis/haproxy/error_rate.yaml");
    }
}

#[test]
fn a_cohort_has_weights_of_its_own_where_headers_are_seen() {
    let testers =
        "{name: edge, haproxy: {socket: /s, backend: testers, servers: {blue: b, green: g}}}";
    for name in [
        "route53: {zone: Z1, name: www.example.org, type: A, set_identifiers: {blue: x, green: y}}",
        "powerdns: {api: \"http://i\", key: {env: K}, zone: example.org, name: www.example.org, addresses: {blue: [192.0.2.1], green: [192.0.2.2]}}",
        "rfc2136: {server: \"ns1:53\", zone: example.org, name: example.org, key: {name: k, secret: {env: K}}, address: {blue: [192.0.2.1], green: [192.0.2.2]}}",
    ] {
        let named = FLEET.replace(testers, &format!("{{name: edge, {name}}}"));
        let (line, said) = only(&spec::fleet_from_text("f.yaml", &named).1, codes::COHORT_BY_NAME);
        assert!(line == 25 && said.contains("a name sees no headers"), "{said}");
        // In the region itself it is as good as ever.
        let whole = testers.replace("testers", "web");
        fleet(&FLEET.replace(&whole, &format!("{{name: edge, {name}}}")));
    }
    let same = FLEET.replace("backend: testers, servers", "backend: web, servers");
    let (line, said) = only(&spec::fleet_from_text("f.yaml", &same).1, codes::COHORT);
    assert!(line == 25 && said.contains("weights of `us` itself"), "{said}");
    let alone = FLEET.replace("      us: [{name: edge, haproxy: {socket: /s, backend: web, servers: {blue: b, green: g}}}]\n", "");
    let (line, said) = only(&spec::fleet_from_text("f.yaml", &alone).1, codes::COHORT);
    assert!(line == 24 && said.contains("no load balancer in `us`"), "{said}");
}

#[test]
fn the_envoys_of_a_cohort_are_those_of_its_region() {
    let envoys = FLEET
        .replace(
            "{name: edge, haproxy: {socket: /s, backend: web, servers",
            "{name: edge, envoy: {route: web, route_file: r.yaml, clusters",
        )
        .replace(
            "{name: edge, haproxy: {socket: /s, backend: testers, servers: {blue: b, green: g}",
            "{name: edge, envoy: {route: web, route_file: r.yaml, clusters: {blue: tb, green: tg}",
        )
        .replace("services:", "xds: {listen: \"127.0.0.1:18000\"}\nservices:");
    let envoys = fleet(&envoys);
    for region in ["us", "us_testers"] {
        let target = &envoys.services[&service()].targets[&region.parse().unwrap()][0];
        let Adapter::Envoy(envoy) = &target.adapter else { panic!("{target:?}") };
        assert_eq!(envoy.node_cluster, "us");
    }
}

#[test]
fn a_region_and_its_cohorts_are_finished_together() {
    let without = PIPELINE
        .replace("regions: [us_testers]", "regions: [us]")
        .replace("traffic_percentage: 100\n      validation_criteria: [error_rate < 5%]\n      duration: 10m\n    canary", "traffic_percentage: 1\n      validation_criteria: [error_rate < 5%]\n      duration: 10m\n    canary")
        .replace("[us, us_testers]", "[us]");
    let (plan, problems) = run(&without, FLEET);
    assert!(plan.is_none());
    let (line, said) = only(&problems, codes::COHORT_LEFT_OUT);
    assert!(line == 4 && said.contains("no stage names `us_testers`"), "{said}");
    let alone = PIPELINE.split("    canary:").next().unwrap().to_owned();
    let (plan, problems) = run(&alone, FLEET);
    assert!(plan.is_none());
    let (line, said) = only(&problems, codes::COHORT_LEFT_OUT);
    assert!(line == 4 && said.contains("no stage names `us`"), "{said}");
    // A service without the cohort knows nothing of it.
    let targets = FLEET.lines().filter(|line| !line.contains("us_testers: [")).collect::<Vec<_>>();
    let (plan, problems) = run(&without, &targets.join("\n"));
    assert!(plan.is_some(), "{problems}");
}
