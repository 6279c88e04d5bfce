//! Weights that nobody here changed, restarts, backends, other controllers.

use super::scene::{Scene, causes, is_silent};
use crate::engine::event::{Cause, Drift};
use crate::engine::input::{Command, RegionReading};
use crate::engine::reason::Reason;
use crate::engine::rollout::Phase;
use crate::sim::sample;
use crate::units::{Generation, Millis, Weight};

const REGION: &str = "us_east_1";

fn in_stage_two() -> Scene {
    let mut scene = Scene::baking(sample::plan());
    scene.bake();
    scene.confirm();
    scene
}

#[track_caller]
fn drifted(scene: &Scene, kind: Drift) {
    assert_eq!(scene.state.regions[&sample::region(REGION)].drift, Some(kind));
}

#[test]
fn a_switch_that_is_accepted_but_not_everywhere_does_not_start_the_bake() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm();
    let lagging = RegionReading {
        settled: false,
        note: Some("1 of 8 instances still has 0 %".to_owned()),
        ..scene.wanted(REGION)
    };
    let decision = scene.read(lagging, &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Shifting);
    assert!(decision.why.iter().any(|reason| reason.to_string().contains("1 of 8")));
    let mut echo = scene.at(REGION, 0.0);
    echo.generation = Some(Generation(1));
    scene.read(echo, &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Shifting);
}

#[test]
fn raised_by_hand_it_holds_until_resumed() {
    let mut scene = in_stage_two();
    scene.read(scene.at(REGION, 50.0), &["DriftFound", "Paused"]);
    drifted(&scene, Drift::TowardsCanary);
    is_silent(&scene);
    scene.read(scene.at(REGION, 50.0), &[]);
    scene.command(Command::Resume, &["Resumed"]);
    let mut found = scene.at(REGION, 50.0);
    found.generation = Some(Generation(3));
    scene.read(found, &["RegionRead"]);
    assert_eq!(scene.writes(), [(REGION.to_owned(), 25.0)]);
}

#[test]
fn set_by_hand_a_second_time_it_is_contested() {
    let mut scene = in_stage_two();
    let contested = |scene: &Scene| {
        let reasons = crate::engine::why::why(&scene.state, scene.state.phase_since);
        reasons.iter().any(|reason| matches!(reason, Reason::Contested { edits: 2, .. }))
    };
    scene.read(scene.at(REGION, 50.0), &["DriftFound", "Paused"]);
    assert!(!contested(&scene));
    scene.read(scene.at(REGION, 60.0), &["DriftFound"]);
    assert!(contested(&scene));
}

#[test]
fn set_to_nothing_by_hand_it_is_a_rollback() {
    let mut scene = in_stage_two();
    let decision = scene.read(scene.at(REGION, 0.0), &["RollbackStarted"]);
    assert_eq!(causes(&decision), ["HandEdit"]);
    scene.is_back();
}

#[test]
fn set_to_nothing_after_another_edit_it_is_a_rollback_too() {
    let mut scene = in_stage_two();
    scene.read(scene.at(REGION, 50.0), &["DriftFound", "Paused"]);
    scene.read(scene.at(REGION, 0.0), &["RollbackStarted"]);
    scene.is_back();
}

#[test]
fn lowered_by_hand_it_is_the_ceiling_until_resumed() {
    let mut scene = in_stage_two();
    scene.read(scene.at(REGION, 10.0), &["DriftFound", "Paused"]);
    drifted(&scene, Drift::Ceiling);
    is_silent(&scene);
    scene.read(scene.at(REGION, 25.0), &["RegionRead"]);
    assert!(scene.state.paused.is_some());
}

#[test]
fn a_restart_is_no_hand_edit_and_restarts_the_bake() {
    let lost_mark = |reading: RegionReading| RegionReading { generation: None, ..reading };
    let new_start = |reading: RegionReading| RegionReading {
        restart_marker: Some("start-2".to_owned()),
        ..reading
    };
    for restarted in [lost_mark, new_start] {
        let mut scene = in_stage_two();
        scene.state.clocks.bake = Millis::from_secs(20);
        scene.read(restarted(scene.at(REGION, 0.0)), &["DriftFound"]);
        drifted(&scene, Drift::Restart);
        assert_eq!((scene.state.phase, scene.state.clocks.bake), (Phase::Shifting, Millis::ZERO));
        assert_eq!(scene.writes(), [(REGION.to_owned(), 25.0)]);
        scene.confirm();
        assert_eq!(scene.state.phase, Phase::Baking);
    }
}

#[test]
fn a_mark_that_is_gone_from_a_balancer_that_keeps_its_weights_was_taken_away() {
    let edited = |reading: RegionReading| RegionReading {
        generation: None,
        restart_marker: Some("start-2".to_owned()),
        keeps_weights: true,
        ..reading
    };
    let mut scene = in_stage_two();
    scene.read(edited(scene.at(REGION, 60.0)), &["DriftFound", "Paused"]);
    drifted(&scene, Drift::TowardsCanary);
    let mut scene = in_stage_two();
    scene.read(edited(scene.at(REGION, 0.0)), &["RollbackStarted"]);
    let cause = scene.state.cause.clone();
    assert!(matches!(cause, Some(Cause::HandEdit { .. })), "{cause:?}");
}

#[test]
fn a_restart_that_kept_its_weights_changes_nothing_but_the_mark() {
    let mut scene = in_stage_two();
    let restarted =
        RegionReading { restart_marker: Some("start-2".to_owned()), ..scene.wanted(REGION) };
    scene.read(restarted, &["RegionRead"]);
    assert_eq!(scene.state.phase, Phase::Baking);
}

#[test]
fn nothing_is_given_to_the_empty_pool_of_a_restarted_balancer() {
    let mut scene = in_stage_two();
    let restarted = RegionReading {
        restart_marker: Some("start-2".to_owned()),
        backends: Some(sample::backends(0, 2)),
        ..scene.at(REGION, 0.0)
    };
    scene.read(restarted, &["BackendsSeen", "DriftFound"]);
    is_silent(&scene);
}

#[test]
fn an_old_state_that_is_read_again_is_no_hand_edit() {
    let mut scene = in_stage_two();
    let mut old = scene.at(REGION, 5.0);
    old.generation = Some(Generation(2));
    scene.read(old, &["RegionRead"]);
    assert_eq!((scene.state.phase, scene.state.paused.is_none()), (Phase::Shifting, true));
}

#[test]
fn an_answer_to_an_older_question_says_nothing() {
    let mut scene = in_stage_two();
    let mut late = scene.at(REGION, 0.0);
    late.asked_at = Generation(2);
    scene.read(late, &[]);
}

#[test]
fn a_newer_generation_holds_for_a_person_and_is_overtaken_only_then() {
    let mut scene = in_stage_two();
    let mut newer = scene.at(REGION, 40.0);
    newer.generation = Some(Generation(9));
    scene.read(newer, &["DriftFound", "Paused"]);
    drifted(&scene, Drift::Newer);
    is_silent(&scene);
    scene.command(Command::Resume, &["Resumed"]);
    assert_eq!(scene.state.generation, Generation(10));
}

#[test]
fn a_newer_generation_that_took_the_canary_out_is_adopted() {
    let mut scene = in_stage_two();
    let mut newer = scene.at(REGION, 0.0);
    newer.generation = Some(Generation(9));
    scene.read(newer, &["RollbackStarted"]);
    scene.is_back();
}

#[test]
fn on_the_way_back_a_newer_generation_is_overtaken_at_once() {
    let mut scene = in_stage_two();
    scene.command(super::scene::rollback(), &["RollbackStarted"]);
    let mut newer = scene.at(REGION, 40.0);
    newer.generation = Some(Generation(9));
    scene.read(newer, &["RollbackStarted"]);
    assert_eq!(scene.state.generation, Generation(10));
    scene.is_back();
}

#[test]
fn a_canary_without_healthy_backends_goes_back_at_once() {
    for generation in [None, Some(Generation(3))] {
        let mut scene = in_stage_two();
        scene.state.regions.values_mut().for_each(|region| region.stored = generation);
        let dead = RegionReading {
            backends: Some(sample::backends(0, 2)),
            generation,
            ..scene.wanted(REGION)
        };
        let decision = scene.read(dead, &["BackendsSeen", "RollbackStarted"]);
        assert_eq!(causes(&decision), ["CanaryUnhealthy"]);
        // The reading that showed it belongs to the weights before, and confirms nothing.
        let region = &scene.state.regions[&sample::region(REGION)];
        assert_eq!((region.confirmed, region.desired), (None, Weight::ZERO));
    }
}

#[test]
fn both_pools_sick_hold() {
    let mut scene = in_stage_two();
    let sick = RegionReading { backends: Some(sample::backends(0, 0)), ..scene.wanted(REGION) };
    scene.read(sick, &["BackendsSeen"]);
    assert_eq!(scene.state.phase, Phase::Baking);
    scene.bake();
    assert_eq!(scene.state.stage, 1);
}
