//! How fast, and how rarely wrong.

use super::world::*;
use crate::engine::verdict::Outcome;

/// The design document's block: three criteria in the first stage, three triggers.
fn documented() -> crate::spec::plan::Plan {
    plan(
        &[
            (5.0, 1, &[MORE_ERRORS, SLOWER_10, SATISFIED]),
            (25.0, 2, &[HEALTHY]),
            (100.0, 3, &[HEALTHY]),
        ],
        &[ERRORS_OVER_1, SLOWER_50, UNAVAILABLE],
    )
}

#[test]
fn twenty_percent_errors_at_ten_canary_requests_a_second_are_found_in_seconds() {
    let plan = documented();
    let mut polls: Vec<usize> = (0..20)
        .map(|seed| {
            let mut world = World::new(seed, 1, 200.0, 5.0).canary(failing(0.2));
            let mut judge = entered(&plan);
            let found = run_until(&mut judge, &plan, &mut world, 60, |it| it.breach.is_some());
            let (polls, judgement) = found.unwrap();
            let breach = judgement.breach.unwrap();
            assert!(!breach.only_holds, "seed {seed}: {}", breach.text);
            assert!(breach.text.contains("pipelines/test.yaml:"), "{}", breach.text);
            assert_eq!(judgement.stage, Outcome::Fail);
            polls
        })
        .collect();
    polls.sort_unstable();
    println!("polls to the breach: {polls:?}");
    assert!(polls.iter().all(|polls| *polls <= 15), "{polls:?}");
    assert!((5..=10).contains(&polls[10]), "{polls:?}");
}

fn never_rolled_back(seeds: std::ops::Range<u64>) {
    let plan = documented();
    for seed in seeds {
        let mut world = World::new(1_000 + seed, 1, 200.0, 5.0);
        let mut judge = entered(&plan);
        let found = run_until(&mut judge, &plan, &mut world, 600, |it| it.breach.is_some());
        assert!(found.is_none(), "seed {seed}: {:?}", found.map(|it| it.1.breach));
    }
}

#[test]
fn equal_arms_are_never_rolled_back() {
    never_rolled_back(0..100);
}

// A second half, so that two cores share the work.
#[test]
fn other_equal_arms_are_never_rolled_back() {
    never_rolled_back(100..200);
}

#[test]
fn wide_margins_are_proven_soon() {
    let plan = plan(&[(5.0, 3, &[FIVE_POINTS, SLOWER_50])], &[ERRORS_OVER_1]);
    for seed in 0..10 {
        let mut world = World::new(2_000 + seed, 3, 1_000.0, 5.0);
        let mut judge = entered(&plan);
        let passed = |id: &'static str| {
            move |it: &crate::engine::verdict::Judgement| verdict(it, id).outcome == Outcome::Pass
        };
        let errors = passed("stage_1/error_rate");
        let found = run_until(&mut judge, &plan, &mut world, 15, errors);
        assert!(found.is_some(), "seed {seed}");
    }
}

#[test]
fn a_slow_canary_is_found_by_latency_alone() {
    let plan = documented();
    for seed in 0..5 {
        let slow = Behaviour { slowdown: 3.0, ..FINE };
        let mut world = World::new(3_000 + seed, 1, 1_000.0, 5.0).canary(slow);
        let mut judge = entered(&plan);
        let found = run_until(&mut judge, &plan, &mut world, 60, |it| it.breach.is_some());
        let (polls, judgement) = found.unwrap();
        let breach = judgement.breach.unwrap();
        println!("{polls}: {}", breach.text);
        assert!(breach.text.contains("response_time"), "{}", breach.text);
    }
}
