//! What people say, also at the worst moment.

use super::scene::{ALL, Scene, is_silent, pause, rollback};
use crate::engine::decide::Answer;
use crate::engine::event::Event;
use crate::engine::input::{Command, Input};
use crate::engine::rollout::Phase;
use crate::engine::verdict::Outcome;
use crate::sim::sample;
use crate::spec::plan::{Authority, CriterionId};
use crate::units::{Generation, Millis};

#[test]
fn a_pause_waits_for_ever_and_no_deadline_ends_it() {
    let mut scene = Scene::baking(sample::plan());
    scene.command(pause(), &["Paused"]);
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    for _ in 0..50 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!((scene.state.clocks.bake, scene.state.clocks.elapsed), (Millis::ZERO, Millis::ZERO));
    assert!(matches!(scene.command(pause(), &[]), Answer::NothingToDo(_)));
    is_silent(&scene);
}

#[test]
fn resumed_it_goes_on_in_the_same_stage_after_a_fresh_read_back() {
    let mut scene = Scene::baking(sample::plan());
    let before = scene.wanted("us_east_1");
    scene.command(pause(), &["Paused"]);
    scene.command(Command::Resume, &["Resumed"]);
    assert_eq!((scene.state.phase, scene.state.stage), (Phase::Shifting, 0));
    scene.read(before, &[]);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Baking);
    assert!(matches!(scene.command(Command::Resume, &[]), Answer::NothingToDo(_)));
}

#[test]
fn paused_and_promoted_exactly_one_step_goes_on() {
    let mut scene = Scene::baking(sample::plan());
    scene.command(pause(), &["Paused"]);
    let input = Input::Commanded { by: sample::person(), command: Command::Promote };
    let decision = scene.check(input, &["StageNotProven", "StepEntered"]);
    let skipped = |event: &Event| matches!(event, Event::StageNotProven { skipped, by: Some(by), .. } if skipped.len() == 1 && by.name == "ada");
    assert!(decision.events.iter().any(skipped));
    assert!(scene.writes().contains(&("us_east_1".to_owned(), 25.0)));
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Baking);
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    for _ in 0..20 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!(scene.weights(), [0.0, 25.0, 25.0]);
}

#[test]
fn promoted_by_hand_at_the_end_it_ends_without_debts_and_not_proven() {
    let mut scene = Scene::last_stage(sample::plan());
    let owed = CriterionId("stage_1_canary/error_rate_increase < 0.1%".to_owned());
    scene.state.owed.insert(owed.clone());
    scene.state.not_proven.insert(owed);
    scene.command(Command::Promote, &["StageNotProven", "PromotionStarted"]);
    scene.read(scene.wanted("us_east_1"), &["RegionRead"]);
    scene.read(scene.wanted("eu_west_1"), &["RegionRead"]);
    let decision = scene.read(scene.wanted("ap_southeast_2"), &["RegionRead", "Promoted"]);
    assert!(decision.events.contains(&Event::Promoted { proven: false }));
}

#[test]
fn promote_is_refused_where_it_cannot_be() {
    let mut scene = Scene::new(sample::plan());
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::Refused(_)));
    scene.confirm();
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::Refused(_)));
    scene.command(rollback(), &["RollbackStarted"]);
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::Refused(_)));
    scene.confirm();
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::NothingToDo(_)));

    let mut plan = sample::plan();
    plan.authority = Authority::Observe;
    let mut scene = Scene::baking(plan);
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::Refused(_)));
}

#[test]
fn aborted_at_half_the_way_every_region_is_read_back_at_nothing() {
    let mut scene = Scene::last_stage(sample::plan());
    scene.command(rollback(), &["RollbackStarted"]);
    scene.is_back();
    assert_eq!(scene.writes().len(), 3);
    // An unreachable region keeps it open; the others are back at once.
    scene.read(scene.wanted("us_east_1"), &["RegionRead"]);
    scene.read(scene.wanted("eu_west_1"), &["RegionRead"]);
    assert_eq!(scene.writes(), [("ap_southeast_2".to_owned(), 0.0)]);
    scene.now = scene.now.plus(Millis::from_secs(60));
    scene.check(Input::Woke, &["ShiftOverdue"]);
    scene.read(scene.wanted("ap_southeast_2"), &["RegionRead", "RolledBack"]);
    let cause = scene.state.cause.as_ref().unwrap().to_string();
    assert!(cause.contains("ada") && cause.contains("it looks wrong"), "{cause}");
}

#[test]
fn aborted_twice_or_after_the_end_nothing_changes() {
    let mut scene = Scene::baking(sample::plan());
    scene.command(rollback(), &["RollbackStarted"]);
    assert!(matches!(scene.command(rollback(), &[]), Answer::NothingToDo(_)));
    scene.confirm();
    assert!(matches!(scene.command(rollback(), &[]), Answer::NothingToDo(_)));
}

#[test]
fn abort_and_promote_in_one_instant_abort_wins_in_either_order() {
    let mut scene = Scene::baking(sample::plan());
    scene.command(Command::Promote, &["StageNotProven", "StepEntered"]);
    scene.command(rollback(), &["RollbackStarted"]);
    scene.is_back();

    let mut scene = Scene::baking(sample::plan());
    scene.command(rollback(), &["RollbackStarted"]);
    assert!(matches!(scene.command(Command::Promote, &[]), Answer::Refused(_)));
    scene.is_back();
}

#[test]
fn abort_is_honoured_in_every_state() {
    let mut gated = sample::plan();
    gated.stages[0].gate = Some("wait".to_owned());
    let mut promoting = Scene::last_stage(sample::plan());
    promoting.bake();
    let mut paused = Scene::baking(sample::plan());
    paused.command(pause(), &["Paused"]);
    let mut recovering = Scene::baking(sample::plan());
    recovering.check(Input::Recovered, &["Recovered"]);
    let mut shifting = Scene::new(sample::plan());
    shifting.confirm();
    let scenes = [
        Scene::new(sample::plan()),
        Scene::baking(gated),
        shifting,
        Scene::baking(sample::plan()),
        promoting,
        paused,
        recovering,
    ];
    for mut scene in scenes {
        scene.command(rollback(), &["RollbackStarted"]);
        scene.is_back();
        scene.confirm();
        assert_eq!(scene.state.phase, Phase::RolledBack);
    }
}

#[test]
fn a_lost_answer_is_looked_at_before_anything_else() {
    let mut scene = Scene::new(sample::plan());
    scene.confirm();
    let lost = |generation| Input::EffectUnknown {
        region: sample::region("us_east_1"),
        generation: Generation(generation),
        what: "no answer".to_owned(),
    };
    scene.check(lost(1), &[]);
    scene.check(lost(2), &["EffectUnknown"]);
    assert!(!scene.writes().iter().any(|(name, _)| name == "us_east_1"));
    scene.read(scene.wanted("us_east_1"), &["RegionRead"]);
    assert!(!scene.writes().iter().any(|(name, _)| name == "us_east_1"), "no second step");
}

#[test]
fn after_a_restart_every_region_is_read_before_anything_is_written() {
    let mut scene = Scene::last_stage(sample::plan());
    scene.command(rollback(), &["RollbackStarted"]);
    scene.check(Input::Recovered, &["Recovered"]);
    is_silent(&scene);
    for name in ALL {
        let mut old = scene.at(name, 100.0);
        old.generation = Some(Generation(4));
        scene.read(old, &["RegionRead"]);
    }
    assert_eq!(scene.writes().len(), 3);
}
