//! Stages in order, steps, gates, holdback, the end.

use super::scene::{ALL, Scene, is_silent};
use crate::engine::input::{Command, Input, RegionReading};
use crate::engine::rollout::Phase;
use crate::engine::verdict::Outcome;
use crate::sim::sample;
use crate::spec::plan::{Authority, Step};
use crate::units::{Generation, Millis};

#[test]
fn nothing_is_raised_before_every_region_was_read_idle() {
    let mut scene = Scene::new(sample::plan());
    scene.read(scene.wanted("us_east_1"), &["BackendsSeen", "RegionRead"]);
    scene.read(scene.wanted("eu_west_1"), &["BackendsSeen", "RegionRead"]);
    is_silent(&scene);
    scene.read(
        scene.wanted("ap_southeast_2"),
        &["BackendsSeen", "RegionRead", "Prepared", "StepEntered"],
    );
    assert_eq!(scene.weights(), [0.0, 0.0, 5.0]);
}

#[test]
fn a_region_whose_instances_do_not_agree_is_not_idle() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm_but("us_east_1");
    let unsettled = RegionReading { settled: false, ..scene.wanted("us_east_1") };
    scene.read(unsettled, &["BackendsSeen", "RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Preparing);
}

#[test]
fn an_idle_slot_with_traffic_stays_untouched() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm_but("us_east_1");
    scene.read(scene.at("us_east_1", 3.0), &["BackendsSeen", "RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Preparing);
    is_silent(&scene);
}

#[test]
fn three_stages_are_walked_in_order_and_promoted() {
    let mut scene = Scene::baking(sample::plan());
    for weights in [[0.0, 25.0, 25.0], [100.0, 100.0, 100.0]] {
        scene.look(&Outcome::Pass, &["Judged", "Polled"]);
        scene.look(&Outcome::Pass, &["Polled"]);
        scene.look(&Outcome::Pass, &["Polled"]);
        scene.look(&Outcome::Pass, &["Polled", "StagePassed", "StepEntered"]);
        assert_eq!(scene.weights(), weights);
        scene.confirm();
        assert_eq!(scene.state.phase, Phase::Baking);
    }
    scene.bake();
    assert_eq!(scene.state.phase, Phase::Promoting);
    scene.read(scene.wanted("us_east_1"), &["RegionRead"]);
    scene.read(scene.wanted("eu_west_1"), &["RegionRead"]);
    scene.read(scene.wanted("ap_southeast_2"), &["RegionRead", "Promoted"]);
    assert_eq!(scene.state.phase, Phase::Promoted);
    is_silent(&scene);
}

#[test]
fn steps_are_exactly_those_weights() {
    let mut plan = sample::plan();
    let step = |percent: f64| Step {
        mirrors: std::collections::BTreeMap::new(),
        weights: ALL.map(|name| (sample::region(name), sample::percent(percent))).into(),
        bake: Millis::from_secs(10),
    };
    plan.stages[0].steps = [10.0, 60.0, 65.0].map(step).into();
    plan.stages.truncate(1);
    let mut scene = Scene::baking(plan);
    assert_eq!(scene.weights(), [10.0; 3]);
    // Within a stage nothing has to be proven: enough requests and no sign of harm.
    scene.look(&sample::undecided(2_000), &["Judged", "Polled"]);
    scene.look(&sample::undecided(2_000), &["Polled", "StepEntered"]);
    assert_eq!(scene.weights(), [60.0; 3]);
    scene.confirm();
    let few = sample::judgement(&scene.state, &sample::undecided(10), 10);
    scene.judged(few.clone(), &["Judged", "Polled"]);
    scene.judged(few, &["Polled"]);
    scene.look(&sample::undecided(2_000), &["Polled", "StepEntered"]);
    assert_eq!(scene.weights(), [65.0; 3]);
}

#[test]
fn a_stage_is_passed_only_when_its_bake_is_over() {
    let mut scene = Scene::baking(sample::plan());
    for expect in [&["Judged", "Polled"][..], &["Polled"], &["Polled"]] {
        scene.judged(sample::judgement(&scene.state, &Outcome::Pass, 9_000), expect);
    }
    assert_eq!(scene.state.clocks.bake, Millis::from_secs(20));
    scene.look(&Outcome::Pass, &["Polled", "StagePassed", "StepEntered"]);
}

#[test]
fn time_before_the_confirmation_is_no_bake_and_a_leap_is_one_interval() {
    let mut scene = Scene::baking(sample::plan());
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    assert_eq!(scene.state.clocks.bake, Millis::ZERO);
    scene.now = scene.now.plus(Millis::from_secs(3 * 86_400));
    scene.look(&Outcome::Pass, &["Polled"]);
    assert_eq!(scene.state.clocks.bake, sample::POLL);
    scene.now = scene.now.minus(Millis::from_secs(7_200));
    scene.look(&Outcome::Pass, &["Polled"]);
    assert_eq!(scene.state.clocks.bake, sample::POLL);
}

#[test]
fn a_gate_waits_for_a_person_who_opens_it_once_weights_are_confirmed() {
    let mut plan = sample::plan();
    plan.stages[1].gate = Some("look at the dashboard".to_owned());
    let mut scene = Scene::baking(plan);
    scene.bake();
    assert_eq!((scene.state.phase, scene.state.stage), (Phase::Gated, 1));
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    for _ in 0..20 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!(scene.weights(), [0.0, 0.0, 5.0]);
    scene.command(Command::Promote, &["GateOpened", "StepEntered"]);
    assert_eq!(scene.weights(), [0.0, 25.0, 25.0]);
}

#[test]
fn promotion_needs_a_read_back_of_its_own_and_ends_the_holdback() {
    let mut plan = sample::plan();
    plan.policy.holdback = sample::percent(2.0);
    let last = plan.stages[2].steps.last_mut().unwrap();
    last.weights.values_mut().for_each(|weight| *weight = sample::percent(98.0));
    let mut scene = Scene::last_stage(plan);
    let old = scene.wanted("us_east_1");
    scene.bake();
    assert_eq!((scene.state.phase, scene.weights()), (Phase::Promoting, vec![100.0; 3]));
    assert_eq!(scene.writes().len(), 3);
    scene.read(old, &[]);
    let lagging = RegionReading { settled: false, ..scene.wanted("us_east_1") };
    scene.read(lagging, &["RegionRead"]);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Promoted);
}

#[test]
fn confirmation_that_takes_too_long_is_said_once() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm();
    scene.now = scene.now.plus(Millis::from_secs(59));
    scene.check(Input::Woke, &[]);
    scene.now = scene.now.plus(Millis::from_secs(1));
    scene.check(Input::Woke, &["ShiftOverdue"]);
    scene.now = scene.now.plus(Millis::from_secs(600));
    scene.check(Input::Woke, &[]);
}

#[test]
fn without_authority_nothing_is_written_and_no_end_is_claimed() {
    let mut plan = sample::plan();
    plan.authority = Authority::Observe;
    let mut scene = Scene::new(plan);
    scene.confirm();
    is_silent(&scene);
    scene.command(super::scene::rollback(), &["RollbackStarted"]);
    is_silent(&scene);
    scene.read(scene.at("us_east_1", 5.0), &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::RollingBack);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::RolledBack);
}

#[test]
fn with_authority_to_roll_back_a_person_raises_and_tidegate_lowers() {
    let mut plan = sample::plan();
    plan.authority = Authority::RollbackOnly;
    let mut scene = Scene::new(plan);
    scene.confirm();
    is_silent(&scene);
    let by_hand = RegionReading { generation: None, ..scene.wanted("us_east_1") };
    scene.read(by_hand, &["RegionRead"]);
    assert!(scene.state.regions[&sample::region("us_east_1")].confirmed.is_some());
    scene.command(super::scene::rollback(), &["RollbackStarted"]);
    assert_eq!(scene.writes(), [("us_east_1".to_owned(), 0.0)]);
}

#[test]
fn nothing_is_raised_into_a_pool_without_a_healthy_backend() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm();
    let empty = RegionReading {
        backends: Some(sample::backends(0, 2)),
        generation: Some(Generation(1)),
        ..scene.at("us_east_1", 0.0)
    };
    scene.read(empty, &["BackendsSeen"]);
    assert!(!scene.writes().iter().any(|(name, _)| name == "us_east_1"));
    let well = RegionReading { generation: Some(Generation(1)), ..scene.at("us_east_1", 0.0) };
    scene.read(well, &["BackendsSeen"]);
    assert!(scene.writes().contains(&("us_east_1".to_owned(), 5.0)));
}
