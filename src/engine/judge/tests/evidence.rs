//! Regions, shifting shares, shared outages, limits without margin, analyses on trial.

use super::world::*;
use crate::engine::judge::{History, Judge, RegionHistory, StableMemory};
use crate::engine::verdict::{HoldEvidence, Judgement, Outcome, Undecided};
use crate::spec::plan::{Measurement, OnFail, Test};
use crate::stats::Arm;
use crate::units::{Generation, Millis};

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

fn known(plan: &crate::spec::plan::Plan) -> History {
    let region_history = RegionHistory {
        clumpiness: 1.0,
        stable: StableMemory { counts: Arm::new(100.0, 100_000.0), ..StableMemory::default() },
    };
    let regions = plan.regions.keys().map(|name| (name.clone(), region_history.clone()));
    let regions: std::collections::BTreeMap<_, _> = regions.collect();
    let analyses = plan.analyses.keys().map(|name| (name.clone(), regions.clone()));
    History { analyses: analyses.collect() }
}

#[test]
fn history_verifies_and_is_quicker() {
    let plan = plan(&[(25.0, 3, &[ANY_MORE, FIVE_POINTS])], &[ERRORS_OVER_1]);
    let mut polls = [0, 0];
    for (with_history, polls) in polls.iter_mut().enumerate() {
        let history = if with_history == 1 { known(&plan) } else { History::default() };
        let mut judge = Judge::with_history(&plan, history);
        judge.enter(&plan, 0, 0, Generation(1));
        let mut world = World::new(1, 3, 100.0, 25.0).canary(failing(0.05));
        let rolls = |it: &Judgement| it.breach.as_ref().is_some_and(|breach| !breach.only_holds);
        let (taken, judgement) = run_until(&mut judge, &plan, &mut world, 200, rolls).unwrap();
        *polls = taken;
        let numbers = &verdict(&judgement, "trigger/").numbers;
        assert_eq!(numbers.unverified.is_none(), with_history == 1);
        assert_eq!(numbers.clumpiness, Some([5.0, 1.0][with_history]));
    }
    assert!(polls[1] < polls[0], "{polls:?}");
}

#[test]
fn a_region_that_differs_is_named_while_the_whole_is_proven() {
    let plan = plan(&[(25.0, 3, &[("error_rate", Test::Rate { factor: 1.0, offset: 0.02 })])], &[]);
    let mut named = 0;
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 3_000.0, 25.0);
        world.regions.insert("ap_southeast_2", (60.0, 25.0, failing(0.08), FINE));
        let mut judge = entered(&plan);
        let differs = |it: &Judgement| {
            it.stage == Outcome::Undecided(Undecided::RegionDiffers(region("ap_southeast_2")))
        };
        for _ in 0..300 {
            let judgement = judge.observe(&plan, &world.poll(&plan));
            named += usize::from(differs(&judgement));
            let bad = judge.sets[0].concurrent.log_bad_in(&region("ap_southeast_2"));
            assert!(bad < 3.0 || judgement.stage != Outcome::Pass, "seed {seed}");
            if judgement.breach.is_some() {
                break;
            }
        }
    }
    assert!(named > 0);
}

#[test]
fn fixed_latency_and_levels_are_judged_either_way() {
    let slow = Behaviour { slowdown: 3.0, ..FINE };
    let cold = Behaviour { score: 4.0, ..FINE };
    let limit = |limit| ("response_time", Test::QuantileLimit { quantile: 0.95, limit });
    let level = |higher_is_better, limit| ("satisfaction", Test::Level { higher_is_better, limit });
    let cases = [
        (limit(250.0), FINE, true),
        (limit(250.0), slow, false),
        (level(true, 4.5), FINE, true),
        (level(true, 4.5), cold, false),
        (level(false, 4.9), FINE, true),
        (level(false, 4.5), FINE, false),
    ];
    for has_range in [true, false] {
        for (rule, canary, passes) in &cases {
            let mut plan = plan(&[(25.0, 3, std::slice::from_ref(rule))], &[]);
            for analysis in plan.analyses.values_mut() {
                if let (Measurement::Gauge { range, .. }, false) =
                    (&mut analysis.measurement, has_range)
                {
                    *range = None;
                }
            }
            let mut world = World::new(1, 3, 1_000.0, 25.0).canary(*canary);
            if matches!(rule.1, Test::Level { higher_is_better: false, .. }) {
                // Else both arms would be beyond the limit.
                world.regions.values_mut().for_each(|it| it.3.score = 4.0);
            }
            let mut judge = entered(&plan);
            let judgement = run(&mut judge, &plan, &mut world, 200);
            let expected = if *passes { Outcome::Pass } else { Outcome::Fail };
            assert_eq!(judgement.stage, expected, "{rule:?} {has_range}: {judgement:#?}");
        }
    }
}

#[test]
fn fresh_instances_are_allowed_for_and_prove_nothing() {
    let plan = plan(&[(25.0, 1, &[FIVE_POINTS])], &[ERRORS_OVER_1]);
    let run_fresh = |ready: Option<u64>| {
        let mut world = World::new(1, 1, 10_000.0, 25.0).canary(failing(0.018));
        let mut judge = entered(&plan);
        let mut last = None;
        for second in 0..20 {
            let mut poll = world.poll(&plan);
            for look in poll.regions.values_mut() {
                look.ready_for = ready.map(|ready| Millis::from_secs(ready + second));
            }
            last = Some(judge.observe(&plan, &poll));
        }
        last.unwrap()
    };
    let fresh = run_fresh(Some(0));
    assert!(fresh.breach.is_none() && fresh.stage != Outcome::Pass);
    let unverified = verdict(&fresh, "stage_1/").numbers.unverified.clone().unwrap();
    assert!(unverified.contains("warming up"), "{unverified}");
    for known_or_not in [None, Some(161)] {
        assert!(run_fresh(known_or_not).breach.is_some());
    }
}
