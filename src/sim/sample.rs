//! A plan and judgements to test with: three regions with 50, 30 and 20 % of the users, stages of 5, 25 and 100 %.

use std::collections::BTreeMap;

use crate::engine::event::{Actor, ArmBackends, ArmSlots, Started};
use crate::engine::input::RegionReading;
use crate::engine::rollout::Rollout;
use crate::engine::verdict::{Breach, DataState, Judgement, Numbers, Outcome, Undecided, Verdict};
use crate::spec::plan::{
    Analysis, Authority, Criterion, CriterionId, Location, ManualRollback, Measurement, OnMissing,
    OnSourceError, OnUndecided, Plan, Policy, RegionPlan, Stage, Step, Test,
};
use crate::units::{
    AnalysisName, Generation, Millis, PipelineName, RegionName, RolloutId, ServiceName, SlotName,
    StageName, Timestamp, Version, Weight,
};

/// Name and share in percent of every region.
pub const REGIONS: [(&str, f64); 3] =
    [("ap_southeast_2", 20.0), ("eu_west_1", 30.0), ("us_east_1", 50.0)];

/// Bake of every stage.
pub const BAKE: Millis = Millis::from_secs(30);

/// How often the sample's regions are looked at.
pub const POLL: Millis = Millis::from_secs(10);

/// A region of the sample by its name.
#[must_use]
pub fn region(name: &str) -> RegionName {
    RegionName::new(name).expect("the sample's names are right")
}

/// A weight of the sample.
#[must_use]
pub fn percent(percent: f64) -> Weight {
    Weight::from_percent(percent).expect("the sample's weights are right")
}

fn place(line: u32) -> Location {
    Location { file: "pipelines/sample.yaml".to_owned(), line, column: 9 }
}

fn criterion(stage: &str, line: u32) -> Criterion {
    Criterion {
        id: CriterionId(format!("{stage}/error_rate_increase < 0.1%")),
        text: "error_rate_increase < 0.1%".to_owned(),
        at: place(line),
        analysis: AnalysisName::new("error_rate").expect("a right name"),
        test: Test::Rate { factor: 1.0, offset: 0.001 },
    }
}

/// A stage that is one step to `weight` in the named regions, every other weight as in `before`.
#[must_use]
pub fn stage(name: &str, before: Option<&Stage>, regions: &[&str], weight: f64) -> Stage {
    let mut weights: BTreeMap<RegionName, Weight> = before
        .and_then(|stage| stage.steps.last())
        .map(|it| it.weights.clone())
        .unwrap_or_default();
    for name in regions {
        weights.insert(region(name), percent(weight));
    }
    Stage {
        name: StageName::new(name).expect("a right name"),
        at: place(3),
        regions: regions.iter().map(|name| region(name)).collect(),
        weight: percent(weight),
        mirror: Weight::ZERO,
        criteria: vec![criterion(name, 5)],
        steps: vec![Step { weights, mirrors: BTreeMap::new(), bake: BAKE }],
        duration: BAKE,
        max_duration: BAKE.plus(BAKE),
        min_requests: 1_000,
        on_undecided: OnUndecided::Wait,
        gate: None,
        approvals: None,
    }
}

/// The three stages with shortened clocks: 5 % of us_east_1, 25 % of two regions, 100 % everywhere.
#[must_use]
pub fn plan() -> Plan {
    let first = stage("stage_1_canary", None, &["us_east_1"], 5.0);
    let second = stage("stage_2_regional_rollout", Some(&first), &["us_east_1", "eu_west_1"], 25.0);
    let everywhere = ["us_east_1", "eu_west_1", "ap_southeast_2"];
    let third = stage("stage_3_global_deployment", Some(&second), &everywhere, 100.0);
    let share = |(name, share): &(&str, f64)| {
        let plan = RegionPlan {
            share: percent(*share),
            poll: POLL,
            settle: Millis::ZERO,
            cohort_of: None,
        };
        (region(name), plan)
    };
    Plan {
        pipeline: PipelineName::new("sample").expect("a right name"),
        service: ServiceName::new("api-gateway").expect("a right name"),
        digest: "sample".to_owned(),
        stages: vec![first, second, third],
        triggers: Vec::new(),
        analyses: [analysis()].into(),
        regions: REGIONS.iter().map(share).collect(),
        policy: policy(),
        manual_rollback: ManualRollback::default(),
        hooks: std::collections::BTreeSet::new(),
        requests_per_user: None,
        authority: Authority::Full,
    }
}

fn analysis() -> (AnalysisName, Analysis) {
    let name = AnalysisName::new("error_rate").expect("a right name");
    let measurement = Measurement::Proportion {
        unit: "requests".to_owned(),
        part: "bad_total".to_owned(),
        part_is_good: false,
        total: "all_total".to_owned(),
    };
    let file = "analysis/error_rate.yaml".to_owned();
    (name.clone(), Analysis { name, file, measurement, dry_run: false })
}

fn policy() -> Policy {
    let on_missing = OnMissing { after: Millis::from_secs(40), ..OnMissing::default() };
    let on_source_error = OnSourceError {
        page_after: Millis::from_secs(30),
        after: Millis::from_secs(120),
        ..OnSourceError::default()
    };
    Policy { on_missing, on_source_error, ..Policy::default() }
}

/// The first fact of a rollout of `plan` from v1 in `blue` to v2 in `green`, at generation 1.
#[must_use]
pub fn started(plan: Plan) -> Started {
    let slot = |name: &str| SlotName::new(name).expect("a right name");
    let arms = ArmSlots { canary: slot("green"), stable: slot("blue") };
    Started {
        version: Version::new("v2").expect("a right version"),
        stable_version: Version::new("v1").expect("a right version"),
        generation: Generation(1),
        slots: plan.regions.keys().map(|name| (name.clone(), arms.clone())).collect(),
        plan,
        by: person(),
    }
}

/// A rollout right after it began.
#[must_use]
pub fn rollout(plan: Plan) -> Rollout {
    let id = RolloutId { service: plan.service.clone(), number: 1 };
    Rollout::start(id, &started(plan), Timestamp(0))
}

/// Somebody.
#[must_use]
pub fn person() -> Actor {
    Actor { name: "ada".to_owned(), note: None }
}

/// A stage that copies this share of a region's requests to the canary, before it has any weight.
#[must_use]
pub fn mirror(name: &str, share: f64) -> Stage {
    let (at, share) = (region(name), percent(share));
    let stage = stage("mirror", None, &[], 0.0);
    let steps =
        vec![Step { weights: BTreeMap::new(), mirrors: [(at.clone(), share)].into(), bake: BAKE }];
    Stage { regions: vec![at], mirror: share, steps, ..stage }
}

/// A settled reading that stores the generation and sees two healthy backends per arm.
#[must_use]
pub fn reading(name: &str, weight: f64, generation: u64) -> RegionReading {
    RegionReading {
        region: region(name),
        asked_at: Generation(generation),
        reach: percent(weight).into(),
        settled: true,
        generation: Some(Generation(generation)),
        restart_marker: Some("start-1".to_owned()),
        keeps_weights: false,
        backends: Some(backends(2, 2)),
        note: None,
    }
}

/// Backends of a region that has two per arm.
#[must_use]
pub fn backends(canary_healthy: u32, stable_healthy: u32) -> ArmBackends {
    ArmBackends { canary_healthy, canary_total: 2, stable_healthy, stable_total: 2 }
}

/// Not enough data yet.
#[must_use]
pub fn undecided(requests: u64) -> Outcome {
    let requests_min = 1_000;
    Outcome::Undecided(Undecided::NotEnoughData { requests, requests_min, remaining: None })
}

/// A look at the current weights of `state` with `outcome` for every criterion up to the current stage, on `requests`.
#[must_use]
pub fn judgement(state: &Rollout, outcome: &Outcome, requests: u64) -> Judgement {
    let exposed = state
        .regions
        .iter()
        .filter(|(_, region)| !region.seen().unwrap_or(region.wanted()).is_none());
    let stages = state.plan.stages.iter().take(state.stage + 1);
    let verdict = |criterion: &Criterion| Verdict {
        criterion: criterion.id.clone(),
        text: criterion.text.clone(),
        source: criterion.at.clone(),
        is_trigger: false,
        outcome: outcome.clone(),
        numbers: Numbers { canary: Some((0.0, requests as f64)), ..Numbers::default() },
        dry_run: false,
    };
    Judgement {
        at: Timestamp(0),
        generation: state.generation,
        stage: outcome.clone(),
        breach: None,
        hold: None,
        verdicts: stages.flat_map(|stage| &stage.criteria).map(verdict).collect(),
        log_harm: 0.0,
        data: exposed.map(|(name, _)| (name.clone(), DataState::Present)).collect(),
        attribution: None,
    }
}

/// A proven violation.
#[must_use]
pub fn breach() -> Breach {
    Breach {
        criteria: vec![CriterionId("trigger/error_rate > 1%".to_owned())],
        regions: vec![region("us_east_1")],
        text: "error_rate > 1% (pipelines/sample.yaml:30:9): 20 % of 500".to_owned(),
        only_holds: false,
    }
}
