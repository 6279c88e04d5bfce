//! Plans and facts for tests that need some.

use std::collections::BTreeMap;

use tidegate::engine::event::{
    Actor, Adopted, AdoptedRegion, ArmSlots, Cause, Clocks, Event, Fact, Started,
};
use tidegate::ports::Checkpoint;
use tidegate::spec::plan::{
    Authority, Location, ManualRollback, OnUndecided, Plan, Policy, RegionPlan, Stage, Step,
};
use tidegate::units::{
    Generation, Millis, RegionName, RolloutId, ServiceName, StageName, Timestamp, Weight,
};

/// The regions of every sample.
pub fn regions() -> Vec<RegionName> {
    ["us_east_1", "eu_west_1"].map(|name| name.parse().unwrap()).to_vec()
}

/// A plan of two stages over two regions.
pub fn sample_plan(service: &ServiceName) -> Plan {
    let region = RegionPlan {
        share: Weight::from_percent(50.0).unwrap(),
        poll: Millis(1_000),
        settle: Millis(1_000),
        cohort_of: None,
    };
    Plan {
        pipeline: "sample".parse().unwrap(),
        service: service.clone(),
        digest: "0".repeat(64),
        stages: vec![stage("one", 5.0), stage("two", 100.0)],
        triggers: Vec::new(),
        analyses: BTreeMap::new(),
        regions: regions().into_iter().map(|name| (name, region.clone())).collect(),
        policy: Policy::default(),
        manual_rollback: ManualRollback::default(),
        hooks: std::collections::BTreeSet::new(),
        requests_per_user: None,
        authority: Authority::Full,
    }
}

fn stage(name: &str, percent: f64) -> Stage {
    let weight = Weight::from_percent(percent).unwrap();
    let weights = regions().into_iter().map(|name| (name, weight)).collect();
    Stage {
        mirror: Weight::ZERO,
        name: StageName::new(name).unwrap(),
        at: Location { file: "pipelines/sample.yaml".to_owned(), line: 3, column: 5 },
        regions: regions(),
        weight,
        criteria: Vec::new(),
        steps: vec![Step { weights, mirrors: BTreeMap::new(), bake: Millis(60_000) }],
        duration: Millis(60_000),
        max_duration: Millis(120_000),
        min_requests: 1_000,
        on_undecided: OnUndecided::Wait,
        gate: None,
        approvals: None,
    }
}

/// A person.
pub fn actor() -> Actor {
    Actor { name: "ada".to_owned(), note: None }
}

/// A fact about a service, or about one of its rollouts.
pub fn fact(at: u64, service: &ServiceName, rollout: Option<u64>, event: Event) -> Fact {
    let rollout = rollout.map(|number| RolloutId { service: service.clone(), number });
    Fact { at: Timestamp(at), service: service.clone(), rollout, event }
}

/// A service taken over.
pub fn adopted() -> Event {
    let region = AdoptedRegion {
        stable: "blue".parse().unwrap(),
        idle: "green".parse().unwrap(),
        idle_weight: Weight::ZERO,
    };
    Event::Adopted(Adopted {
        version: "v1".parse().unwrap(),
        regions: regions().into_iter().map(|name| (name, region.clone())).collect(),
        generation: None,
        by: actor(),
    })
}

/// A rollout that begins.
pub fn started(service: &ServiceName, number: u64) -> Event {
    let slots = ArmSlots { canary: "green".parse().unwrap(), stable: "blue".parse().unwrap() };
    Event::Started(Box::new(Started {
        version: format!("v{}", number + 1).parse().unwrap(),
        stable_version: format!("v{number}").parse().unwrap(),
        generation: Generation(number * 100),
        plan: sample_plan(service),
        slots: regions().into_iter().map(|name| (name, slots.clone())).collect(),
        by: actor(),
    }))
}

/// Clocks after a poll.
pub fn polled(bake: u64) -> Event {
    let clocks =
        Clocks { bake: Millis(bake), polled_at: Some(Timestamp(bake)), ..Clocks::default() };
    Event::Polled { clocks }
}

/// One of the events that may happen while a rollout is under way, by number.
pub fn middle_event(choice: u32, generation: u64) -> Event {
    let generation = Generation(generation);
    let region = regions()[choice as usize % 2].clone();
    let weight = Weight::from_percent(5.0).unwrap();
    match choice % 9 {
        0 => Event::StepEntered {
            mirrors: BTreeMap::new(),
            stage: 0,
            step: 0,
            generation,
            weights: regions().into_iter().map(|name| (name, weight)).collect(),
            by: None,
        },
        1 => Event::RegionRead {
            mirror: Weight::ZERO,
            region,
            weight,
            confirmed: Some(generation),
            stored: None,
            restart_marker: Some("4711".to_owned()),
            note: None,
        },
        2 => polled(u64::from(choice)),
        3 => Event::EffectUnknown { region, generation, what: "no answer in time".to_owned() },
        4 => Event::Paused { by: actor(), reason: "lunch".to_owned() },
        5 => Event::Resumed { by: actor(), generation },
        6 => Event::RegionHealth { region, healthy: choice % 4 < 2 },
        7 => Event::Recovered,
        _ => Event::ShiftOverdue { regions: vec![region] },
    }
}

/// One of the ways a rollout ends, by number.
pub fn last_event(choice: u32, generation: u64) -> Vec<Event> {
    let cause = Cause::Asked { by: actor(), reason: "slow".to_owned() };
    let generation = Generation(generation);
    match choice % 2 {
        0 => vec![Event::RollbackStarted { cause, generation, judgement: None }, Event::RolledBack],
        _ => vec![
            Event::PromotionStarted { generation },
            Event::Promoted { proven: choice % 4 == 1 },
        ],
    }
}

/// A checkpoint of about `bytes` bytes.
pub fn checkpoint(service: &ServiceName, number: u64, bytes: usize) -> Checkpoint {
    Checkpoint {
        rollout: RolloutId { service: service.clone(), number },
        statistics: 1,
        judge: serde_json::json!({"log_wealth": 0.1 + bytes as f64, "text": "x".repeat(bytes)}),
        meters: serde_json::json!({}),
    }
}
