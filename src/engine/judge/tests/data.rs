//! Missing data never passes, and a restart changes nothing.

use super::world::*;
use crate::engine::judge::Judge;
use crate::engine::poll::{DarkArm, Measured, MissingReason};
use crate::engine::verdict::{DataState, HoldEvidence, Outcome, Undecided};
use crate::spec::plan::Plan;

fn proven() -> (Plan, Judge, World) {
    let plan = plan(&[(5.0, 3, &[FIVE_POINTS])], &[ERRORS_OVER_1]);
    let mut world = World::new(7, 3, 1_000.0, 5.0);
    let mut judge = entered(&plan);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    assert_eq!(judgement.stage, Outcome::Pass, "{judgement:#?}");
    (plan, judge, world)
}

#[test]
fn old_proof_does_not_outvote_missing_data() {
    let missing = Measured::Missing { arm: DarkArm::Canary, why: MissingReason::NoSeries };
    let nan = Measured::Counts {
        canary: crate::engine::poll::Arm { bad: f64::NAN, total: 10.0 },
        stable: crate::engine::poll::Arm { bad: 0.0, total: 10.0 },
    };
    for gone in [missing, Measured::SourceError("timeout".to_owned()), nan] {
        let (plan, mut judge, mut world) = proven();
        let mut poll = world.poll(&plan);
        let look = poll.regions.get_mut(&region("ap_southeast_2")).unwrap();
        look.measured.values_mut().for_each(|it| *it = gone.clone());
        let judgement = judge.observe(&plan, &poll);
        assert!(matches!(judgement.stage, Outcome::Undecided(_)), "{gone:?}");
        let state = &judgement.data[&region("ap_southeast_2")];
        assert_ne!(*state, DataState::Present, "{gone:?}");
        // Nothing new since: still missing.
        let mut poll = world.poll(&plan);
        for look in poll.regions.values_mut() {
            look.measured.values_mut().for_each(|it| *it = Measured::NotDue);
        }
        let judgement = judge.observe(&plan, &poll);
        assert!(matches!(judgement.stage, Outcome::Undecided(_)), "{gone:?}");
        let judgement = judge.observe(&plan, &world.poll(&plan));
        assert_eq!(judgement.stage, Outcome::Pass, "it comes back");
    }
}

#[test]
fn a_region_that_is_not_looked_at_passes_nothing() {
    let (plan, mut judge, mut world) = proven();
    world.regions.remove("eu_west_1");
    let judgement = run(&mut judge, &plan, &mut world, 20);
    let stale = Outcome::Undecided(Undecided::NoData(MissingReason::Stale));
    assert_eq!(judgement.stage, stale);
    judge.enter(&plan, 0, 0, world.generation.next());
    world.generation = world.generation.next();
    let judgement = run(&mut judge, &plan, &mut world, 20);
    assert!(matches!(judgement.stage, Outcome::Undecided(_)), "never seen at this generation");
}

#[test]
fn polls_without_news_change_nothing() {
    let (plan, mut judge, mut world) = proven();
    let mut poll = world.poll(&plan);
    for look in poll.regions.values_mut() {
        look.measured.values_mut().for_each(|it| *it = Measured::NotDue);
    }
    let before = judge.observe(&plan, &poll);
    let after = judge.observe(&plan, &poll);
    assert_eq!(before.verdicts, after.verdicts);
    assert_eq!(before.stage, Outcome::Pass);
    assert!(before.data.values().all(|state| *state == DataState::Present));
}

#[test]
fn polls_of_other_weights_pass_nothing() {
    let (plan, mut judge, mut world) = proven();
    world.generation = world.generation.next();
    let judgement = judge.observe(&plan, &world.poll(&plan));
    assert!(matches!(judgement.stage, Outcome::Undecided(_)));
    assert!(judgement.verdicts.iter().all(|it| it.outcome != Outcome::Pass));
}

#[test]
fn a_restart_continues_with_the_same_bits() {
    let rules = [MORE_ERRORS, SLOWER_10, SATISFIED, HEALTHY];
    let plan =
        plan(&[(5.0, 3, &rules), (100.0, 3, &rules)], &[ERRORS_OVER_1, SLOWER_50, UNAVAILABLE]);
    for seed in 0..5 {
        let mut world = World::new(seed, 3, 300.0, 5.0).canary(failing(0.004));
        let mut judge = entered(&plan);
        for second in 0..60 {
            if second == 40 {
                world.set_weight(100.0);
                judge.enter(&plan, 1, 0, world.generation);
            }
            let text = serde_json::to_string(&judge).unwrap();
            let mut again: Judge = serde_json::from_str(&text).unwrap();
            assert_eq!(again, judge, "second {second}");
            let poll = world.poll(&plan);
            let judgement = judge.observe(&plan, &poll);
            assert_eq!(again.observe(&plan, &poll), judgement, "second {second}");
            assert_eq!(
                serde_json::to_string(&again).unwrap(),
                serde_json::to_string(&judge).unwrap()
            );
            if second == 59 && seed == 0 {
                println!("{} bytes", text.len());
            }
        }
    }
}

#[test]
fn traffic_that_does_not_follow_the_weight_holds() {
    let (plan, mut judge, mut world) = proven();
    judge.enter(&plan, 0, 0, world.generation.next());
    world.generation = world.generation.next();
    let lie = |world: &mut World| {
        let mut poll = world.poll(&plan);
        poll.regions.get_mut(&region("us_east_1")).unwrap().weight = percent(25.0);
        poll
    };
    let judgement = (0..5).map(|_| judge.observe(&plan, &lie(&mut world))).last().unwrap();
    let Some(HoldEvidence::TrafficDoesNotFollow { region: name, observed, .. }) = judgement.hold
    else {
        panic!("{:?}", judgement.hold)
    };
    assert_eq!(name, region("us_east_1"));
    assert!((0.03..0.08).contains(&observed), "{observed}");
    assert!(judgement.breach.is_none());
}

#[test]
fn copies_show_harm_and_its_absence_like_answers_do() {
    let name = region("us_east_1");
    let mut plan = plan(&[(0.0, 1, &[FIVE_POINTS])], &[ERRORS_OVER_1]);
    plan.stages[0].mirror = percent(25.0);
    plan.stages[0].steps[0].mirrors = [(name.clone(), percent(25.0))].into();
    for errors in [0.001, 0.05] {
        // Copies of a quarter are as many as the requests of a canary with a fifth of the traffic.
        let mut world = World::new(7, 1, 1_000.0, 20.0).canary(failing(errors));
        let mut judge = entered(&plan);
        let copied = |world: &mut World| {
            let mut poll = world.poll(&plan);
            let look = poll.regions.get_mut(&name).unwrap();
            (look.weight, look.mirror) = (percent(0.0), percent(25.0));
            poll
        };
        let last = (0..60).map(|_| judge.observe(&plan, &copied(&mut world))).last().unwrap();
        let strays = matches!(last.hold, Some(HoldEvidence::TrafficDoesNotFollow { .. }));
        assert!(!strays, "{:?}", last.hold);
        assert_eq!(last.breach.is_some(), errors > 0.01, "{last:#?}");
        assert_eq!(last.stage == Outcome::Pass, errors < 0.01, "{last:#?}");
        assert_eq!(last.data[&name], DataState::Present);
    }
}

#[test]
fn users_who_stay_make_evidence_count_users() {
    let plan_of = |requests: Option<u32>| {
        let plan = plan(&[(5.0, 3, &[FIVE_POINTS])], &[ERRORS_OVER_1]);
        Plan { requests_per_user: requests, ..plan }
    };
    let first_proof = |requests: Option<u32>| {
        let plan = plan_of(requests);
        let (mut judge, mut world) = (entered(&plan), World::new(7, 3, 1_000.0, 5.0));
        (0..2_000).find(|_| judge.observe(&plan, &world.poll(&plan)).stage == Outcome::Pass)
    };
    let (alone, stays) = (first_proof(None).unwrap(), first_proof(Some(50)).unwrap());
    // Fifty instead of the five that are assumed without history: ten times as many requests.
    assert!((5..20).contains(&(stays / alone.max(1))), "{alone} and {stays} looks");
}
