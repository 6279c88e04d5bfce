//! Those that a header chooses prove nothing about everybody, and are no proof's obstacle; harm among them is harm.

use super::world::*;
use crate::engine::judge::Judge;
use crate::engine::verdict::{Outcome, Undecided};
use crate::spec::plan::Plan;

/// Half of the testers, then one in twenty of everybody; the second region is a slice of the first.
fn with_testers(triggers: &[Rule]) -> Plan {
    let mut plan = plan(&[(50.0, 2, &[FIVE_POINTS]), (5.0, 2, &[FIVE_POINTS])], triggers);
    let (whole, testers) = (region(REGIONS[0]), region(REGIONS[1]));
    plan.regions.get_mut(&testers).unwrap().cohort_of = Some(whole.clone());
    plan.stages[0].regions = vec![testers];
    plan.stages[1].regions = vec![whole];
    plan
}

/// Requests per second of everybody and the weights; testers have 400 a second.
fn weights(world: &mut World, everybody: (f64, f64), testers: f64) {
    world.set_weight(0.0);
    world.regions.insert(REGIONS[0], (everybody.0, everybody.1, FINE, FINE));
    world.regions.insert(REGIONS[1], (400.0, testers, FINE, FINE));
}

fn after_the_testers(plan: &Plan, everybody: (f64, f64), testers: f64) -> (Judge, World) {
    let mut world = World::new(11, 2, 400.0, 0.0);
    let mut judge = Judge::new(plan);
    weights(&mut world, (everybody.0, 0.0), 50.0);
    judge.enter(plan, 0, 0, world.generation);
    let judgement = run(&mut judge, plan, &mut world, 60);
    assert_eq!(judgement.stage, Outcome::Pass);
    let (_, requests) = verdict(&judgement, "stage_1").numbers.canary.unwrap();
    assert!((10_000.0..14_000.0).contains(&requests), "{requests}");
    weights(&mut world, everybody, testers);
    judge.enter(plan, 1, 0, world.generation);
    (judge, world)
}

#[test]
fn what_testers_proved_does_not_let_everybody_through() {
    let plan = with_testers(&[]);
    for testers in [50.0, 100.0] {
        // Two requests a second of everybody's are too few for a minute, whatever the testers add.
        let (mut judge, mut world) = after_the_testers(&plan, (40.0, 5.0), testers);
        let judgement = run(&mut judge, &plan, &mut world, 60);
        let Outcome::Undecided(Undecided::NotEnoughData { requests, .. }) = judgement.stage else {
            panic!("{:?}", judgement.stage)
        };
        assert!((60..240).contains(&requests), "{requests}");
        let numbers = &verdict(&judgement, "stage_2").numbers;
        assert!(numbers.log_ok.unwrap() < 3.0, "{numbers:?}");
    }
}

#[test]
fn everybody_is_compared_while_all_testers_have_the_canary() {
    let plan = with_testers(&[]);
    let (mut judge, mut world) = after_the_testers(&plan, (1_000.0, 5.0), 100.0);
    assert_eq!(run(&mut judge, &plan, &mut world, 60).stage, Outcome::Pass);
    // The whole region at full weight is something else.
    weights(&mut world, (1_000.0, 100.0), 100.0);
    judge.enter(&plan, 1, 0, world.generation);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    assert!(matches!(judgement.stage, Outcome::Undecided(Undecided::Assumption(_))));
}

#[test]
fn what_everybody_shows_does_not_prove_a_stage_of_testers() {
    let plan = with_testers(&[]);
    let mut world = World::new(3, 2, 400.0, 0.0);
    let mut judge = Judge::new(&plan);
    weights(&mut world, (4_000.0, 50.0), 50.0);
    world.regions.get_mut(REGIONS[1]).unwrap().0 = 4.0;
    judge.enter(&plan, 0, 0, world.generation);
    let judgement = run(&mut judge, &plan, &mut world, 60);
    let Outcome::Undecided(Undecided::NotEnoughData { requests, .. }) = judgement.stage else {
        panic!("{:?}", judgement.stage)
    };
    assert!((60..240).contains(&requests), "{requests}");
}

#[test]
fn harm_among_testers_rolls_back_whoever_is_well() {
    let plan = with_testers(&[MORE_ERRORS]);
    let (mut judge, mut world) = after_the_testers(&plan, (1_000.0, 5.0), 50.0);
    world.regions.get_mut(REGIONS[1]).unwrap().2 = failing(0.2);
    let found = run_until(&mut judge, &plan, &mut world, 20, |it| it.breach.is_some());
    let (_, judgement) = found.unwrap();
    let breach = judgement.breach.unwrap();
    assert!(!breach.only_holds && breach.text.contains(REGIONS[1]), "{}", breach.text);
}
