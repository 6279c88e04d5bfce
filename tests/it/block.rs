//! The pipeline of three regional stages with its own durations and margins, walked in virtual time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use tidegate::engine::rollout::Phase;
use tidegate::sim::{Behaviour, Change, Traffic, Walk, Walked};
use tidegate::spec::plan::Plan;
use tidegate::spec::{load_fleet, load_plan};
use tidegate::units::{Millis, Weight};

const HOUR: Millis = Millis::from_secs(3_600);

/// Requests per second in every region.
const PER_SECOND: f64 = 10_000.0;

fn plan() -> Plan {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (fleet, problems) = load_fleet(&root.join("examples/envoy/fleet.yaml"));
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    let service = "api-gateway".parse().unwrap();
    let pipeline = root.join("pipelines/multi-region.yaml");
    let (plan, problems) = load_plan(&pipeline, &root.join("analysis"), &fleet, &service);
    plan.unwrap_or_else(|| panic!("{problems}"))
}

fn walk(seed: u64, traffic: Traffic) -> Walked {
    Walk::new(seed, plan(), traffic).run(Millis(24 * HOUR.0))
}

fn show(seed: u64, walked: &Walked) {
    println!("seed {seed}: {:?} after {} ({} polls), stages {:?}", walked.state.phase, walked.took, walked.polls, walked.stages.iter().map(|it| it.to_string()).collect::<Vec<_>>());
    for (id, after) in &walked.proven {
        println!("    {after} {id}");
    }
    println!("    cause {:?}", walked.state.cause);
    println!("    {:?}", walked.judgement.as_ref().map(|it| (&it.stage, &it.hold, &it.data, it.log_harm)));
    if walked.state.phase != Phase::Promoted {
    for v in walked.judgement.iter().flat_map(|it| &it.verdicts) { println!("    {} {:?} {:?}", v.criterion, v.outcome, v.numbers); }
    }
    println!("    violations {:?}", walked.violations);
}

#[test]
fn explore() {
    let p = plan();
    for r in &p.regions { println!("{r:?}"); }
    for s in &p.stages { println!("{} {} {} {:?} {:?} {:?}", s.name, s.duration, s.max_duration, s.min_requests, s.on_undecided, s.steps); }
    let fine = Behaviour::FINE;
    let cases: Vec<(&str, Traffic)> = vec![
        ("equal", Traffic::equal(PER_SECOND)),
        ("equal nosway", Traffic { sway: 0.0, ..Traffic::equal(PER_SECOND) }),
        ("errors", Traffic::equal(PER_SECOND).canary(Behaviour { errors: 0.006, ..fine })),
        ("slow", Traffic::equal(PER_SECOND).canary(Behaviour { latency: 0.0625, ..fine })),
        ("unloved", Traffic::equal(PER_SECOND).canary(Behaviour { rating: 4.4, ..fine })),
        ("late", Traffic { changes: vec![Change { from_stage: 1, region: Some("eu_west_1".parse().unwrap()), canary: Behaviour { errors: 0.02, ..fine } }], ..Traffic::equal(PER_SECOND) }),
    ];
    for (name, traffic) in cases {
        let began = Instant::now();
        let walked = walk(1, traffic);
        println!("== {name} in {:?}", began.elapsed());
        show(1, &walked);
    }
}
