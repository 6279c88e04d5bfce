//! The design document's three regional stages, with clocks and margins that a test's traffic can decide, and as written.

use std::collections::BTreeMap;

use tidegate::spec::plan::{
    Analysis, Authority, CheckSource, Criterion, CriterionId, Location, ManualRollback,
    Measurement, OnUndecided, Plan, Policy, RegionPlan, Stage, Step, Test,
};
use tidegate::units::{AnalysisName, Millis, RegionName, StageName, Weight};

/// Regions, and their shares of all users in percent.
pub const REGIONS: [(&str, f64); 3] =
    [("us_east_1", 50.0), ("eu_west_1", 30.0), ("ap_southeast_2", 20.0)];

/// How often the numbers are looked at, and how often Prometheus scrapes.
pub const POLL: Millis = Millis::from_secs(1);

const FILE: &str = "pipelines/multi-region.yaml";

/// A rule: line in the file, text, analysis, test.
type Rule = (u32, &'static str, &'static str, Test);

const TRIGGERS: [Rule; 3] = [
    (30, "error_rate > 1%", "error_rate", Test::Rate { factor: 0.0, offset: 0.01 }),
    (
        31,
        "response_time_increase > 50%",
        "response_time",
        Test::QuantileRatio { quantile: 0.95, ratio: 1.5 },
    ),
    (32, "availability < 99.5%", "availability", Test::Rate { factor: 0.0, offset: 0.005 }),
];

const STAGE_2: [Rule; 3] = [
    (15, "cross_region_functionality_verified", "cross_region_functionality_verified", Test::Holds),
    (16, "compliance_checks_passed", "compliance_checks_passed", Test::Holds),
    (17, "performance_benchmarks_met", "performance_benchmarks_met", Test::Holds),
];

const STAGE_3: [Rule; 3] = [
    (23, "global_load_balancing_optimal", "global_load_balancing_optimal", Test::Holds),
    (24, "all_regions_healthy", "all_regions_healthy", Test::Holds),
    (25, "business_metrics_stable", "business_metrics_stable", Test::Holds),
];

/// With margins that some hundred requests decide.
pub fn walk() -> Plan {
    let stage_1 = [
        (7, "error_rate_increase < 10%", "error_rate", Test::Rate { factor: 1.0, offset: 0.1 }),
        (
            8,
            "response_time_increase < 45%",
            "response_time",
            Test::QuantileRatio { quantile: 0.95, ratio: 1.45 },
        ),
        (
            9,
            "user_satisfaction_score > 3",
            "user_satisfaction_score",
            Test::Level { higher_is_better: true, limit: 3.0 },
        ),
    ];
    plan(&stage_1, 5, 50)
}

/// With a first stage of checks alone: soon in the second one.
pub fn short() -> Plan {
    plan(&STAGE_2[..1], 3, 30)
}

/// The walk, with copies of a fifth of the first region's requests before any weight.
pub fn mirrored() -> Plan {
    let mut plan = walk();
    let region = plan.stages[0].regions[0].clone();
    let share = Weight::from_percent(20.0).unwrap();
    let errors = [(7, "error_rate < 5%", "error_rate", Test::Rate { factor: 0.0, offset: 0.05 })];
    let mut shadow = stage("shadow", 3, 1, 0.0, &errors, 5, 50);
    shadow.mirror = share;
    shadow.steps[0].weights.clear();
    shadow.steps[0].mirrors.insert(region, share);
    plan.stages.insert(0, shadow);
    plan
}

/// The criteria and triggers as the design document has them.
pub fn documented() -> Plan {
    let stage_1 = [
        (7, "error_rate_increase < 0.1%", "error_rate", Test::Rate { factor: 1.0, offset: 0.001 }),
        (
            8,
            "response_time_increase < 10%",
            "response_time",
            Test::QuantileRatio { quantile: 0.95, ratio: 1.1 },
        ),
        (
            9,
            "user_satisfaction_score > 4.5",
            "user_satisfaction_score",
            Test::Level { higher_is_better: true, limit: 4.5 },
        ),
    ];
    plan(&stage_1, 1_800, 1_000)
}

fn plan(stage_1: &[Rule], duration_seconds: u64, min_requests: u64) -> Plan {
    let stage = |name, line, regions, percent, rules: &[Rule]| {
        stage(name, line, regions, percent, rules, duration_seconds, min_requests)
    };
    Plan {
        pipeline: "multi-region".parse().unwrap(),
        service: "api-gateway".parse().unwrap(),
        digest: "0".repeat(64),
        stages: vec![
            stage("stage_1_canary", 3, 1, 5.0, stage_1),
            stage("stage_2_regional_rollout", 11, 2, 25.0, &STAGE_2),
            stage("stage_3_global_deployment", 19, 3, 100.0, &STAGE_3),
        ],
        triggers: TRIGGERS.iter().map(|rule| criterion("trigger", rule)).collect(),
        analyses: analyses(),
        regions: REGIONS.iter().map(region).collect(),
        policy: Policy::default(),
        manual_rollback: ManualRollback::default(),
        hooks: std::collections::BTreeSet::new(),
        requests_per_user: None,
        authority: Authority::Full,
    }
}

fn region((name, share): &(&str, f64)) -> (RegionName, RegionPlan) {
    let share = Weight::from_percent(*share).unwrap();
    (name.parse().unwrap(), RegionPlan { share, poll: POLL, settle: POLL, cohort_of: None })
}

fn stage(
    name: &str,
    line: u32,
    regions: usize,
    percent: f64,
    rules: &[Rule],
    duration_seconds: u64,
    min_requests: u64,
) -> Stage {
    let regions: Vec<RegionName> =
        REGIONS[..regions].iter().map(|(name, _)| name.parse().unwrap()).collect();
    let weight = Weight::from_percent(percent).unwrap();
    let duration = Millis::from_secs(duration_seconds);
    Stage {
        mirror: Weight::ZERO,
        name: StageName::new(name).unwrap(),
        at: at(line),
        weight,
        criteria: rules.iter().map(|rule| criterion(name, rule)).collect(),
        steps: vec![Step {
            mirrors: BTreeMap::new(),
            weights: regions.iter().map(|name| (name.clone(), weight)).collect(),
            bake: duration,
        }],
        regions,
        duration,
        max_duration: duration.plus(Millis::from_secs(120)),
        min_requests,
        on_undecided: OnUndecided::Wait,
        gate: None,
        approvals: None,
    }
}

fn criterion(scope: &str, (line, text, analysis, test): &Rule) -> Criterion {
    Criterion {
        id: CriterionId(format!("{scope}/{text}")),
        text: (*text).to_owned(),
        at: at(*line),
        analysis: AnalysisName::new(*analysis).unwrap(),
        test: test.clone(),
    }
}

fn at(line: u32) -> Location {
    Location { file: FILE.to_owned(), line, column: 9 }
}

fn analyses() -> BTreeMap<AnalysisName, Analysis> {
    let check = |expression: &str| Measurement::Check {
        source: CheckSource::Promql(expression.to_owned()),
        every: POLL,
        timeout: POLL,
    };
    let answers = |class: &str| {
        format!(
            "envoy_cluster_upstream_rq_xx{{envoy_cluster_name=\"$cluster\", region=\"$region\", \
             envoy_response_code_class=\"{class}\"}}"
        )
    };
    let share = |class: &str, part_is_good: bool| {
        Measurement::Proportion {
        unit: "requests".to_owned(),
        part: answers(class),
        part_is_good,
        total: "envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"$cluster\", region=\"$region\"}"
            .to_owned(),
    }
    };
    let buckets = "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"$cluster\", region=\"$region\"}";
    let healthy =
        "envoy_cluster_membership_healthy{envoy_cluster_name=\"$cluster\", region=\"$region\"}";
    let all = [
        ("error_rate", share("5", false)),
        ("availability", share("2", true)),
        ("response_time", Measurement::Latency { buckets: buckets.to_owned(), quantile: 0.95 }),
        (
            "user_satisfaction_score",
            Measurement::Gauge {
                query: "user_satisfaction_score{slot=\"$slot\"}".to_owned(),
                range: Some((1.0, 5.0)),
            },
        ),
        ("cross_region_functionality_verified", check("min(up)")),
        ("compliance_checks_passed", check("up{region=\"$region\"}")),
        ("performance_benchmarks_met", check(&format!("{healthy} > bool 0"))),
        ("global_load_balancing_optimal", check("envoy_server_live{region=\"$region\"}")),
        ("all_regions_healthy", check("min(envoy_server_live)")),
        ("business_metrics_stable", check("user_satisfaction_score{slot=\"$slot\"} > bool 3")),
    ];
    let named = |(name, measurement): (&str, Measurement)| {
        let name = AnalysisName::new(name).unwrap();
        let file = format!("analysis/{name}.yaml");
        (name.clone(), Analysis { name, file, measurement, dry_run: false })
    };
    all.into_iter().map(named).collect()
}
