//! Regions, shifting shares, shared outages, limits without margin, analyses on trial.

use super::world::*;
use crate::engine::verdict::{HoldEvidence, Outcome, Undecided};
use crate::spec::plan::OnFail;

#[test]
fn one_bad_region_among_three_is_found_and_named() {
    let plan = plan(&[(25.0, 3, &[MORE_ERRORS])], &[ERRORS_OVER_1]);
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 400.0, 25.0);
        world.regions.get_mut("ap_southeast_2").unwrap().2 = failing(0.05);
        let mut judge = entered(&plan);
        let found = run_until(&mut judge, &plan, &mut world, 200, |it| it.breach.is_some());
        let (_, judgement) = found.unwrap();
        let breach = judgement.breach.unwrap();
        assert_eq!(breach.regions, [region("ap_southeast_2")], "{}", breach.text);
        assert!(breach.text.contains("in ap_southeast_2"), "{}", breach.text);
        let whose = judgement.attribution.unwrap();
        assert!(whose.contains("worse in ap_southeast_2 only"), "{whose}");
    }
}

#[test]
fn shifting_shares_fool_nothing() {
    // Regions with very different error rates, canary share moving from the good one to the bad one.
    let plan = plan(&[(5.0, 2, &[MORE_ERRORS])], &[ERRORS_OVER_1]);
    let plan = crate::spec::plan::Plan { triggers: Vec::new(), ..plan };
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 500.0, 25.0);
        world.regions.insert("eu_west_1", (500.0, 25.0, failing(0.04), failing(0.04)));
        let mut judge = entered(&plan);
        for second in 0..300 {
            let moved = 5.0 + f64::from(second / 10);
            world.regions.get_mut("us_east_1").unwrap().1 = 40.0 - moved;
            world.regions.get_mut("eu_west_1").unwrap().1 = moved;
            let judgement = judge.observe(&plan, &world.poll(&plan));
            assert!(judgement.breach.is_none(), "seed {seed}: {:?}", judgement.breach);
        }
    }
}

#[test]
fn an_outage_of_both_arms_holds_and_is_forgotten_when_it_ends() {
    let plan = plan(&[(5.0, 3, &[FIVE_POINTS])], &[ERRORS_OVER_1, UNAVAILABLE]);
    for seed in 0..10 {
        let mut world = World::new(seed, 3, 1_000.0, 5.0);
        let mut judge = entered(&plan);
        run(&mut judge, &plan, &mut world, 20);
        let outage = |world: &mut World, canary, stable| {
            for it in world.regions.values_mut() {
                (it.2, it.3) = (canary, stable);
            }
        };
        outage(&mut world, failing(0.2), failing(0.2));
        let mut held = false;
        for second in 0..120 {
            if second == 60 {
                outage(&mut world, FINE, FINE);
            }
            let judgement = judge.observe(&plan, &world.poll(&plan));
            assert!(judgement.breach.is_none(), "seed {seed}, {second}: {:?}", judgement.breach);
            if matches!(judgement.hold, Some(HoldEvidence::SharedOutage(_))) {
                held = true;
                let whose = judgement.attribution.unwrap_or_default();
                assert!(whose.is_empty() || whose.contains("not the new version"), "{whose}");
            }
        }
        assert!(held, "seed {seed}");
        // The canary alone fails later, and is found.
        outage(&mut world, failing(0.2), FINE);
        let found = run_until(&mut judge, &plan, &mut world, 60, |it| it.breach.is_some());
        assert!(found.is_some(), "seed {seed}");
    }
}

#[test]
fn no_increase_at_all_only_holds_without_history() {
    let plan = plan(&[(25.0, 1, &[ANY_MORE])], &[]);
    let mut world = World::new(3, 1, 1_000.0, 25.0).canary(failing(0.1));
    let mut judge = entered(&plan);
    for _ in 0..100 {
        let judgement = judge.observe(&plan, &world.poll(&plan));
        assert!(judgement.breach.as_ref().is_none_or(|breach| breach.only_holds));
        assert_ne!(judgement.stage, Outcome::Pass);
        assert_ne!(judgement.stage, Outcome::Fail);
    }
    let judgement = judge.observe(&plan, &world.poll(&plan));
    assert!(judgement.breach.is_some_and(|breach| breach.only_holds));
    assert!(judgement.hold.is_some());
    let mut world = World::new(4, 1, 1_000.0, 25.0).canary(failing(0.0));
    let mut judge = entered(&plan);
    let judgement = run(&mut judge, &plan, &mut world, 300);
    assert!(matches!(judgement.stage, Outcome::Undecided(Undecided::Assumption(_))));
}

#[test]
fn on_fail_hold_holds_only() {
    let mut plan = plan(&[(25.0, 1, &[MORE_ERRORS])], &[]);
    plan.policy.on_fail = OnFail::Hold;
    let mut world = World::new(3, 1, 1_000.0, 25.0).canary(failing(0.1));
    let mut judge = entered(&plan);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    assert_eq!(judgement.stage, Outcome::Fail);
    assert!(judgement.breach.is_some_and(|breach| breach.only_holds));
}

#[test]
fn an_analysis_on_trial_decides_nothing() {
    let mut plan = plan(&[(25.0, 1, &[SLOWER_50, MORE_ERRORS])], &[ERRORS_OVER_1, SLOWER_50]);
    plan.analyses.get_mut(&"error_rate".parse().unwrap()).unwrap().dry_run = true;
    let mut world = World::new(3, 1, 1_000.0, 25.0).canary(failing(0.1));
    let mut judge = entered(&plan);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    assert_eq!(verdict(&judgement, "stage_1/error_rate").outcome, Outcome::Fail);
    assert!(verdict(&judgement, "stage_1/error_rate").dry_run);
    assert!(judgement.breach.is_none() && judgement.hold.is_none());
    assert_eq!(judgement.stage, Outcome::Pass);
}

#[test]
fn verdicts_carry_their_numbers() {
    let plan = plan(&[(25.0, 3, &[FIVE_POINTS, SLOWER_50, SATISFIED])], &[ERRORS_OVER_1]);
    let slow = Behaviour { errors: 0.02, slowdown: 1.2, score: 4.7 };
    let mut world = World::new(3, 3, 1_000.0, 25.0).canary(slow);
    let mut judge = entered(&plan);
    let judgement = run(&mut judge, &plan, &mut world, 61);
    let expected = [
        ("stage_1/error", 0.019, 0.003),
        ("stage_1/response", 1.2, 0.03),
        ("stage_1/sat", 4.7, 0.02),
    ];
    for (id, effect, within) in expected {
        let numbers = &verdict(&judgement, id).numbers;
        let found = numbers.effect.unwrap();
        assert!((found - effect).abs() < within, "{id}: {found}");
        assert_eq!(numbers.polls, 61);
        assert_eq!(numbers.unverified.as_deref(), Some("no history"));
        if let Some((low, high)) = numbers.interval {
            assert!(low < effect && effect < high, "{id}: {low} {high}");
        }
    }
    assert!(verdict(&judgement, "stage_1/error").numbers.interval.is_some());
    assert!(verdict(&judgement, "stage_1/error").numbers.canary.unwrap().1 > 10_000.0);
}
