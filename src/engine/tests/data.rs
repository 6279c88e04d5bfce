//! Missing data holds, is said, and goes back where the pipeline says so.

use super::scene::{Scene, causes};
use crate::engine::poll::{DarkArm, MissingReason};
use crate::engine::rollout::Phase;
use crate::engine::verdict::{DataState, Outcome};
use crate::sim::sample;
use crate::spec::plan::OnFail;
use crate::units::Millis;

const WAYS: [MissingReason; 4] = [
    MissingReason::NoSeries,
    MissingReason::Stale,
    MissingReason::NotANumber,
    MissingReason::NoTraffic,
];

fn dark(arm: DarkArm, why: MissingReason) -> DataState {
    DataState::Dark { arm, why, analysis: "error_rate".to_owned() }
}

#[test]
fn a_dark_canary_holds_then_rolls_back_whatever_way_it_went_dark() {
    for way in WAYS {
        let mut scene = Scene::baking(sample::plan());
        let data = dark(DarkArm::Canary, way);
        scene.dark(&data, &["Judged", "Polled"]);
        for _ in 0..3 {
            scene.dark(&data, &["Polled"]);
            assert_eq!((scene.state.phase, scene.state.clocks.bake), (Phase::Baking, Millis::ZERO));
        }
        let decision = scene.dark(&data, &["Polled", "RollbackStarted"]);
        assert_eq!(causes(&decision), ["NoData"]);
    }
}

#[test]
fn a_canary_that_comes_back_in_time_goes_on() {
    let mut scene = Scene::baking(sample::plan());
    let data = dark(DarkArm::Canary, MissingReason::Stale);
    scene.dark(&data, &["Judged", "Polled"]);
    scene.dark(&data, &["Polled"]);
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    assert_eq!(scene.state.clocks.canary_dark, Millis::ZERO);
    scene.look(&Outcome::Pass, &["Polled"]);
    scene.look(&Outcome::Pass, &["Polled", "StagePassed", "StepEntered"]);
}

#[test]
fn where_a_dark_canary_only_holds_a_person_is_told_once() {
    let mut plan = sample::plan();
    plan.policy.on_missing.action = OnFail::Hold;
    let mut scene = Scene::baking(plan);
    let data = dark(DarkArm::Canary, MissingReason::NoSeries);
    scene.dark(&data, &["Judged", "Polled"]);
    for _ in 0..3 {
        scene.dark(&data, &["Polled"]);
    }
    scene.dark(&data, &["Polled", "DataOverdue"]);
    scene.dark(&data, &["Polled"]);
    scene.dark(&data, &["Polled", "StageUndecided"]);
    scene.dark(&data, &["Polled"]);
}

#[test]
fn both_arms_dark_hold_and_page_and_never_go_back_by_default() {
    for data in [
        dark(DarkArm::Both, MissingReason::NoSeries),
        dark(DarkArm::Stable, MissingReason::Stale),
        DataState::SourceError("503".to_owned()),
    ] {
        let mut scene = Scene::baking(sample::plan());
        scene.dark(&data, &["Judged", "Polled"]);
        scene.dark(&data, &["Polled"]);
        scene.dark(&data, &["Polled"]);
        scene.dark(&data, &["Polled", "DataOverdue"]);
        scene.dark(&data, &["Polled"]);
        scene.dark(&data, &["Polled"]);
        scene.dark(&data, &["Polled", "StageUndecided"]);
        for _ in 0..100 {
            scene.dark(&data, &["Polled"]);
        }
        assert_eq!((scene.state.phase, scene.weights()), (Phase::Baking, vec![0.0, 0.0, 5.0]));
    }
}

#[test]
fn a_dark_source_goes_back_where_the_pipeline_says_so() {
    let mut plan = sample::plan();
    plan.policy.on_source_error.action = OnFail::Rollback;
    plan.policy.on_source_error.after = Millis::from_secs(20);
    let mut scene = Scene::baking(plan);
    let data = DataState::SourceError("503".to_owned());
    scene.dark(&data, &["Judged", "Polled"]);
    scene.dark(&data, &["Polled"]);
    let decision = scene.dark(&data, &["Polled", "RollbackStarted"]);
    assert_eq!(causes(&decision), ["SourceDark"]);
}

#[test]
fn no_traffic_on_either_arm_holds_and_nothing_counts_down() {
    let mut scene = Scene::baking(sample::plan());
    let data = dark(DarkArm::Both, MissingReason::NoTraffic);
    scene.dark(&data, &["Judged", "Polled"]);
    for _ in 0..5 {
        scene.dark(&data, &["Polled"]);
    }
    scene.dark(&data, &["Polled", "StageUndecided"]);
    assert_eq!(scene.state.clocks.source_dark, Millis::ZERO);
}

#[test]
fn a_region_with_weight_that_nobody_looked_at_holds() {
    let mut scene = Scene::baking(sample::plan());
    for expect in [&["Judged", "Polled"][..], &["Polled"], &["Polled"], &["Polled"], &["Polled"]] {
        let mut judgement = sample::judgement(&scene.state, &Outcome::Pass, 2_000);
        judgement.data.clear();
        scene.judged(judgement, expect);
    }
    assert_eq!(scene.state.clocks.bake, Millis::ZERO);
}
