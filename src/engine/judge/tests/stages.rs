//! Stages of checks, and what must be true before they pass.

use super::world::*;
use crate::engine::poll::Measured;
use crate::engine::verdict::{Judgement, Outcome, Undecided};
use crate::spec::plan::Plan;

/// Runs a stage of checks in which the check held as `held` says, second by second.
fn checked(plan: &Plan, seconds: u32, rps: f64, held: impl Fn(u32) -> bool) -> Judgement {
    let mut world = World::new(11, 2, rps, 25.0);
    let mut judge = entered(plan);
    let mut last = None;
    for second in 1..=seconds {
        let mut poll = world.poll(plan);
        for look in poll.regions.values_mut() {
            let check = Measured::Check { held: held(second), detail: "503".to_owned() };
            look.measured.insert("healthy".parse().unwrap(), check);
        }
        last = Some(judge.observe(plan, &poll));
    }
    last.unwrap()
}

#[test]
fn one_good_answer_at_the_end_is_not_a_pass() {
    let plan = plan(&[(25.0, 2, &[HEALTHY])], &[ERRORS_OVER_1]);
    let not_held =
        |it: &Judgement| matches!(it.stage, Outcome::Undecided(Undecided::CheckNotHeld(_)));
    assert_eq!(checked(&plan, 60, 200.0, |_| true).stage, Outcome::Pass);
    assert!(not_held(&checked(&plan, 60, 200.0, |second| second == 60)));
    assert!(not_held(&checked(&plan, 60, 200.0, |second| second != 60)), "the latest run");
    assert_eq!(
        checked(&plan, 60, 200.0, |second| second % 12 != 0 || second == 60).stage,
        Outcome::Pass
    );
    assert!(not_held(&checked(&plan, 60, 200.0, |second| second % 5 != 0 || second == 60)));
}

#[test]
fn checks_alone_need_watching_triggers() {
    let plan = plan(&[(25.0, 2, &[HEALTHY])], &[ERRORS_OVER_1]);
    let judgement = checked(&plan, 30, 20.0, |_| true);
    let Outcome::Undecided(Undecided::NotEnoughData { requests, requests_min, remaining }) =
        judgement.stage
    else {
        panic!("{:?}", judgement.stage)
    };
    assert!(requests < 500 && requests_min == 500 && remaining.is_some());
}

#[test]
fn a_trigger_on_a_check_needs_three_bad_answers() {
    let plan = plan(&[(25.0, 2, &[])], &[HEALTHY, ERRORS_OVER_1]);
    assert!(checked(&plan, 10, 200.0, |second| second < 9).breach.is_none());
    let breach = checked(&plan, 10, 200.0, |second| second < 8).breach.unwrap();
    assert!(
        !breach.only_holds && breach.text.contains("pipelines/test.yaml:30"),
        "{}",
        breach.text
    );
}

#[test]
fn earlier_criteria_stay_watched_in_a_stage_of_checks() {
    let plan = plan(&[(5.0, 1, &[MORE_ERRORS]), (25.0, 2, &[HEALTHY])], &[ERRORS_OVER_1]);
    let mut world = World::new(2, 2, 1_000.0, 5.0);
    let mut judge = entered(&plan);
    run(&mut judge, &plan, &mut world, 30);
    world.set_weight(25.0);
    judge.enter(&plan, 1, 0, world.generation);
    let judgement = run(&mut judge, &plan, &mut world, 30);
    assert_eq!(judgement.stage, Outcome::Pass, "not violated is enough: {judgement:#?}");
    // Below the trigger, above the criterion: only the criterion can find it.
    let mut world = world.canary(failing(0.006));
    let found = run_until(&mut judge, &plan, &mut world, 400, |it| it.breach.is_some());
    let breach = found.unwrap().1.breach.unwrap();
    assert!(breach.criteria.iter().any(|id| id.0.starts_with("stage_1/")), "{}", breach.text);
}

#[test]
fn entering_twice_changes_nothing() {
    let plan = plan(&[(5.0, 1, &[MORE_ERRORS])], &[ERRORS_OVER_1]);
    let mut world = World::new(2, 1, 1_000.0, 5.0);
    let mut judge = entered(&plan);
    run(&mut judge, &plan, &mut world, 30);
    let before = judge.clone();
    judge.enter(&plan, 0, 0, world.generation);
    assert_eq!(judge, before);
}
