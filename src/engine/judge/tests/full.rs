//! At 100 % nothing concurrent is left.

use super::world::*;
use crate::engine::verdict::{Outcome, Undecided};
use crate::spec::plan::OnNonconcurrent;
use crate::units::Generation;

#[test]
fn a_fixed_limit_rolls_back_at_full_weight() {
    let plan = plan(&[(100.0, 3, &[HEALTHY])], &[ERRORS_OVER_1]);
    let mut world = World::new(5, 3, 300.0, 0.0);
    let mut judge = crate::engine::judge::Judge::new(&plan);
    world.generation = Generation(0);
    run(&mut judge, &plan, &mut world, 60);
    world.set_weight(100.0);
    judge.enter(&plan, 0, 0, world.generation);
    world = world.canary(failing(0.1));
    let found = run_until(&mut judge, &plan, &mut world, 30, |it| it.breach.is_some());
    assert!(!found.unwrap().1.breach.unwrap().only_holds);
}

#[test]
fn an_increase_against_stable_before_only_holds() {
    for policy in [OnNonconcurrent::Hold, OnNonconcurrent::Rollback] {
        let mut plan = plan(&[(25.0, 3, &[]), (100.0, 3, &[HEALTHY])], &[MORE_ERRORS, SLOWER_50]);
        plan.policy.on_nonconcurrent = policy;
        let mut world = World::new(5, 3, 1_000.0, 25.0);
        let mut judge = entered(&plan);
        run(&mut judge, &plan, &mut world, 120);
        world.set_weight(100.0);
        judge.enter(&plan, 1, 0, world.generation);
        let judgement = run(&mut judge, &plan, &mut world, 60);
        assert!(judgement.breach.is_none(), "{:?}", judgement.breach);
        world = world.canary(failing(0.05));
        let found = run_until(&mut judge, &plan, &mut world, 60, |it| it.breach.is_some());
        let (_, judgement) = found.unwrap();
        let breach = judgement.breach.clone().unwrap();
        assert_eq!(breach.only_holds, policy == OnNonconcurrent::Hold, "{}", breach.text);
        assert!(breach.text.contains("non-concurrent, unverified"), "{}", breach.text);
        let numbers = &verdict(&judgement, "trigger/error_rate").numbers;
        assert_eq!(numbers.unverified.as_deref(), Some("no history, non-concurrent"));
    }
}

#[test]
fn a_fixed_limit_that_agrees_makes_it_roll_back() {
    let plan = plan(&[(100.0, 1, &[HEALTHY])], &[MORE_ERRORS, ERRORS_OVER_1]);
    let mut world = World::new(9, 1, 1_000.0, 0.0);
    let mut judge = crate::engine::judge::Judge::new(&plan);
    world.generation = Generation(0);
    run(&mut judge, &plan, &mut world, 120);
    world.set_weight(100.0);
    judge.enter(&plan, 0, 0, world.generation);
    let mut world = world.canary(failing(0.03));
    let rolls = |it: &crate::engine::verdict::Judgement| {
        it.breach.as_ref().is_some_and(|breach| !breach.only_holds)
    };
    assert!(run_until(&mut judge, &plan, &mut world, 60, rolls).is_some());
}

#[test]
fn an_increase_is_never_proven_absent_at_full_weight() {
    let plan = plan(&[(25.0, 1, &[FIVE_POINTS]), (100.0, 1, &[FIVE_POINTS])], &[]);
    let mut world = World::new(5, 1, 1_000.0, 25.0);
    let mut judge = entered(&plan);
    assert_eq!(run(&mut judge, &plan, &mut world, 60).stage, Outcome::Pass);
    world.set_weight(100.0);
    judge.enter(&plan, 1, 0, world.generation);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    let Outcome::Undecided(Undecided::Assumption(text)) = judgement.stage else {
        panic!("{:?}", judgement.stage)
    };
    assert!(text.contains("nothing concurrent"), "{text}");
}
