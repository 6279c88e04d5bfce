//! Copies of requests before any weight: wanted, confirmed, missed, ended.

use super::scene::{ALL, Scene};
use crate::engine::event::{Cause, Drift};
use crate::engine::input::RegionReading;
use crate::engine::outstanding::{Action, Risk, outstanding};
use crate::engine::rollout::Phase;
use crate::engine::verdict::Outcome;
use crate::sim::sample;
use crate::spec::plan::Plan;
use crate::units::{Reach, Weight};

const REGION: &str = "us_east_1";

fn plan() -> Plan {
    let mut plan = sample::plan();
    plan.stages.insert(0, sample::mirror(REGION, 20.0));
    plan
}

fn mirrored(percent: f64) -> Reach {
    Reach { weight: Weight::ZERO, mirror: sample::percent(percent) }
}

fn reads(scene: &Scene, reach: Reach) -> RegionReading {
    RegionReading { reach, ..scene.wanted(REGION) }
}

/// Set up to where copies are wanted and the other regions are confirmed.
fn shifting() -> Scene {
    let mut scene = Scene::new(plan());
    scene.confirm();
    confirm_others(&mut scene);
    scene
}

fn confirm_others(scene: &mut Scene) {
    for name in ALL.into_iter().filter(|name| *name != REGION) {
        scene.read(scene.wanted(name), &["RegionRead"]);
    }
}

#[test]
fn copies_are_wanted_of_the_balancer_and_add_risk() {
    let scene = shifting();
    let wanted = Action::Set {
        region: sample::region(REGION),
        weight: Weight::ZERO,
        mirror: sample::percent(20.0),
        generation: scene.state.generation,
        risk: Risk::Adding,
    };
    assert_eq!(outstanding(&scene.state), [wanted]);
    assert_eq!(scene.state.plan.exposure(&Default::default()), 0.0);
}

#[test]
fn a_balancer_that_copies_nothing_is_not_confirmed() {
    let mut scene = shifting();
    scene.read(reads(&scene, Reach::NONE), &[]);
    assert_eq!(scene.state.phase, Phase::Shifting);
    scene.read(reads(&scene, mirrored(20.0)), &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Baking);
}

#[test]
fn the_first_weight_ends_the_copies() {
    let mut scene = Scene::baking(plan());
    scene.bake();
    let region = &scene.state.regions[&sample::region(REGION)];
    assert_eq!(region.wanted(), sample::percent(5.0).into());
    // The weight alone is not enough: the copies have to be gone.
    let both = Reach { weight: sample::percent(5.0), mirror: sample::percent(20.0) };
    scene.read(reads(&scene, both), &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Shifting);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Baking);
}

#[test]
fn harm_on_copies_goes_back_and_is_over_when_they_are_gone() {
    let mut scene = Scene::baking(plan());
    let mut judgement = sample::judgement(&scene.state, &Outcome::Fail, 2_000);
    assert_eq!(judgement.data.len(), 1, "the mirroring region is looked at");
    judgement.breach = Some(sample::breach());
    scene.judged(judgement, &["RollbackStarted"]);
    let back = outstanding(&scene.state);
    assert!(
        back.iter().all(|action| matches!(
            action,
            Action::Set { mirror: Weight::ZERO, risk: Risk::Reducing, .. }
        )),
        "{back:?}"
    );
    confirm_others(&mut scene);
    scene.read(reads(&scene, mirrored(20.0)), &[]);
    assert_eq!(scene.state.phase, Phase::RollingBack);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::RolledBack);
}

#[test]
fn copies_by_hand_are_found_in_either_direction() {
    let mut more = Scene::baking(plan());
    more.read(reads(&more, mirrored(50.0)), &["DriftFound", "Paused"]);
    let region = &more.state.regions[&sample::region(REGION)];
    assert_eq!(region.drift, Some(Drift::TowardsCanary));
    let mut less = Scene::baking(plan());
    less.read(reads(&less, mirrored(10.0)), &["DriftFound", "Paused"]);
    let region = &less.state.regions[&sample::region(REGION)];
    assert_eq!((region.drift, region.seen()), (Some(Drift::Ceiling), Some(mirrored(10.0))));
    let mut none = Scene::baking(plan());
    none.read(reads(&none, Reach::NONE), &["RollbackStarted"]);
    assert!(matches!(none.state.cause, Some(Cause::HandEdit { .. })));
}

#[test]
fn an_idle_slot_that_gets_copies_is_not_idle() {
    let mut scene = Scene::new(plan());
    scene.confirm_but(REGION);
    scene.read(reads(&scene, mirrored(3.0)), &["BackendsSeen", "RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Preparing);
}
