//! The pipeline of three regional stages with its own durations and margins, walked in virtual time.

use std::path::Path;

use tidegate::engine::event::Cause;
use tidegate::engine::rollout::Phase;
use tidegate::engine::verdict::Breach;
use tidegate::sim::{Behaviour, Change, Traffic, Walk, Walked};
use tidegate::spec::plan::Plan;
use tidegate::spec::{load_fleet, load_plan};
use tidegate::units::{Millis, Weight};

const HOUR: Millis = Millis::from_secs(3_600);

/// Longer than the longest times of all stages together, thirteen hours.
const PATIENCE: Millis = Millis(14 * HOUR.0);

/// The bakes of all stages: 30 minutes, 2 hours, 4 hours.
const BAKES: Millis = Millis::from_secs(6 * 3_600 + 30 * 60);

/// Requests per second in every region.
const PER_SECOND: f64 = 10_000.0;

const FINE: Behaviour = Behaviour::FINE;

/// As users load it, from the folder that tests run in.
fn plan() -> Plan {
    let (fleet, problems) = load_fleet(Path::new("examples/envoy/fleet.yaml"));
    let fleet = fleet.unwrap_or_else(|| panic!("{problems}"));
    let (pipeline, service) =
        (Path::new("pipelines/multi-region.yaml"), "api-gateway".parse().unwrap());
    let (plan, problems) = load_plan(pipeline, Path::new("analysis"), &fleet, &service);
    plan.unwrap_or_else(|| panic!("{problems}"))
}

/// Walks it, and holds it to what is true of every walk.
#[track_caller]
fn walk(seed: u64, traffic: &Traffic) -> Walked {
    let walked = Walk::new(seed, plan(), traffic.clone()).run(PATIENCE);
    assert_eq!(walked.violations, Vec::<String>::new(), "seed {seed}");
    let end = match walked.state.phase {
        Phase::Promoted => Some(Weight::FULL),
        Phase::RolledBack => Some(Weight::ZERO),
        _ => None,
    };
    assert_eq!(walked.weights.len(), 3);
    if let Some(end) = end {
        assert!(walked.weights.values().all(|it| *it == end), "seed {seed}: {:?}", walked.weights);
    }
    walked
}

/// The same with several seeds, on both cores.
fn walks(seeds: u64, traffic: &Traffic) -> Vec<Walked> {
    std::thread::scope(|scope| {
        let half = |odd: u64| {
            let seeds = (0..seeds).filter(move |seed| seed % 2 == odd);
            scope.spawn(move || seeds.map(|seed| walk(seed, traffic)).collect::<Vec<_>>())
        };
        let halves = [half(0), half(1)];
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

fn traffic() -> Traffic {
    Traffic::equal(PER_SECOND)
}

/// From a stage on, in one region or everywhere.
fn from_stage(from_stage: usize, region: Option<&str>, canary: Behaviour) -> Traffic {
    let region = region.map(|name| name.parse().unwrap());
    Traffic { changes: vec![Change { from_stage, region, canary }], ..traffic() }
}

/// What proved it wrong.
#[track_caller]
fn breach(walked: &Walked) -> &Breach {
    assert_eq!(walked.state.phase, Phase::RolledBack, "{:?}", walked.judgement);
    match &walked.state.cause {
        Some(Cause::Breach(breach)) => breach,
        other => panic!("{other:?}"),
    }
}

/// The rule that is named first, with its place.
#[track_caller]
fn is_by(walked: &Walked, rule: &str, line: u32) {
    let text = &breach(walked).text;
    let start = format!("`{rule}` (pipelines/multi-region.yaml:{line})");
    assert!(text.starts_with(&start), "{text}");
}

#[test]
fn equal_arms_are_promoted_through_three_stages() {
    for (seed, walked) in walks(10, &traffic()).iter().enumerate() {
        assert_eq!(walked.state.phase, Phase::Promoted, "{seed}: {:?}", walked.judgement);
        assert!(walked.took >= BAKES && walked.took < BAKES.plus(HOUR), "{}", walked.took);
        assert_eq!(walked.stages.len(), 3);
        assert!(walked.state.not_proven.is_empty() && walked.state.owed.is_empty());
        assert_eq!(walked.proven.len(), 9, "{:?}", walked.proven);
    }
}

#[test]
fn half_a_point_more_errors_are_rolled_back_in_the_first_stage() {
    let traffic = traffic().canary(Behaviour { errors: FINE.errors + 0.005, ..FINE });
    for walked in walks(10, &traffic) {
        assert_eq!(walked.stages.len(), 1);
        is_by(&walked, "error_rate_increase < 0.1%", 9);
        assert!(walked.took < Millis::from_secs(300), "{}", walked.took);
    }
}

#[test]
fn a_quarter_slower_is_rolled_back_in_the_first_stage() {
    let traffic = traffic().canary(Behaviour { latency: 1.25 * FINE.latency, ..FINE });
    for walked in walks(10, &traffic) {
        assert_eq!(walked.stages.len(), 1);
        is_by(&walked, "response_time_increase < 10%", 10);
        assert!(walked.took < Millis::from_secs(600), "{}", walked.took);
    }
}

/// Clearly below it goes back; at or just above the limit nothing is proven in an hour, and what is not proven holds.
#[test]
fn users_who_are_not_satisfied_are_never_promoted_to() {
    for walked in walks(4, &traffic().canary(Behaviour { rating: 4.4, ..FINE })) {
        assert_eq!(walked.stages.len(), 1);
        is_by(&walked, "user_satisfaction_score > 4.5", 11);
    }
    for walked in walks(2, &traffic().canary(Behaviour { rating: 4.5, ..FINE })) {
        assert_eq!((walked.state.phase, walked.state.undecided), (Phase::Baking, true));
        assert_eq!(walked.stages.len(), 1);
    }
}

#[test]
fn one_bad_region_from_the_second_stage_on_is_rolled_back_in_all() {
    let traffic = from_stage(1, Some("eu_west_1"), Behaviour { errors: 0.02, ..FINE });
    for walked in walks(10, &traffic) {
        assert_eq!(walked.stages.len(), 2);
        assert_eq!(breach(&walked).regions, ["eu_west_1".parse().unwrap()]);
        let reaction = walked.took.minus(walked.stages[1]);
        assert!(reaction < Millis::from_secs(300), "{reaction}");
    }
}
