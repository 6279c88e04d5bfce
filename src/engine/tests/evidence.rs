//! Breaches, holds, and stages that end undecided.

use super::scene::{Scene, causes};
use crate::engine::input::{Command, Input, Polled};
use crate::engine::rollout::Phase;
use crate::engine::verdict::{HoldEvidence, Judgement, Outcome, Undecided};
use crate::sim::sample;
use crate::spec::plan::{OnUndecided, Plan};
use crate::units::{Generation, Millis};

fn plan(policy: OnUndecided) -> Plan {
    let mut plan = sample::plan();
    plan.stages.iter_mut().for_each(|stage| stage.on_undecided = policy);
    plan
}

/// Looks without proof until the longest time of the stage has passed; the last one leads to `expect`.
#[track_caller]
fn until_undecided(scene: &mut Scene, expect: &[&str]) {
    scene.look(&sample::undecided(2_000), &["Judged", "Polled"]);
    for _ in 0..5 {
        scene.look(&sample::undecided(2_000), &["Polled"]);
    }
    scene.look(&sample::undecided(2_000), expect);
}

#[test]
fn a_breach_goes_back_in_the_very_turn_that_sees_it() {
    let mut scene = Scene::baking(sample::plan());
    let breach = Some(sample::breach());
    let judgement = Judgement { breach, ..sample::judgement(&scene.state, &Outcome::Fail, 500) };
    let decision = scene.judged(judgement, &["RollbackStarted"]);
    assert_eq!(causes(&decision), ["Breach"]);
    assert_eq!(
        scene.writes(),
        [("ap_southeast_2", 0.0), ("eu_west_1", 0.0), ("us_east_1", 0.0)]
            .map(|(name, weight)| (name.to_owned(), weight))
    );
}

#[test]
fn a_look_at_older_weights_says_nothing() {
    let mut scene = Scene::baking(sample::plan());
    scene.bake();
    scene.confirm();
    for _ in 0..10 {
        let mut judgement = sample::judgement(&scene.state, &Outcome::Pass, 9_000);
        judgement.generation = Generation(2);
        scene.judged(judgement, &[]);
    }
}

#[test]
fn what_only_holds_never_goes_back_and_never_forward() {
    let only_holds = |scene: &Scene| {
        let mut breach = sample::breach();
        breach.only_holds = true;
        Judgement { breach: Some(breach), ..sample::judgement(&scene.state, &Outcome::Pass, 2_000) }
    };
    let harm = |scene: &Scene| {
        let hold = Some(HoldEvidence::SignOfHarm { log_harm: 3.1 });
        Judgement { hold, ..sample::judgement(&scene.state, &Outcome::Pass, 2_000) }
    };
    let unnamed = |scene: &Scene| Judgement {
        log_harm: 3.1,
        ..sample::judgement(&scene.state, &Outcome::Pass, 2_000)
    };
    let not_a_number = |scene: &Scene| Judgement {
        log_harm: f64::NAN,
        ..sample::judgement(&scene.state, &Outcome::Pass, 2_000)
    };
    let failed = |scene: &Scene| {
        let mut judgement = sample::judgement(&scene.state, &Outcome::Pass, 2_000);
        judgement.verdicts[0].outcome = Outcome::Fail;
        judgement
    };
    let cases: [fn(&Scene) -> Judgement; 5] = [only_holds, harm, unnamed, not_a_number, failed];
    for judgement in cases {
        let mut scene = Scene::baking(plan(OnUndecided::Proceed));
        scene.judged(judgement(&scene), &["Judged", "Polled"]);
        for _ in 0..5 {
            scene.judged(judgement(&scene), &["Polled"]);
        }
        scene.judged(judgement(&scene), &["Polled", "StageUndecided"]);
        scene.judged(judgement(&scene), &["Polled"]);
        assert_eq!((scene.state.phase, scene.weights()), (Phase::Baking, vec![0.0, 0.0, 5.0]));
    }
}

#[test]
fn an_unhealthy_region_holds_the_bake() {
    let mut scene = Scene::baking(sample::plan());
    let sick = Polled {
        poll: None,
        judgement: sample::judgement(&scene.state, &Outcome::Pass, 2_000),
        health: [(sample::region("eu_west_1"), false)].into(),
    };
    scene.check(Input::Polled(Box::new(sick)), &["RegionHealth", "Judged", "Polled"]);
    for _ in 0..4 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!(scene.state.clocks.bake, Millis::ZERO);
}

#[test]
fn undecided_it_waits_for_a_person() {
    let mut scene = Scene::baking(plan(OnUndecided::Wait));
    until_undecided(&mut scene, &["Polled", "StageUndecided"]);
    for _ in 0..20 {
        scene.look(&sample::undecided(2_000), &["Polled"]);
    }
    scene.command(Command::Promote, &["StageNotProven", "StepEntered"]);
    assert_eq!((scene.state.not_proven.len(), scene.state.owed.len()), (1, 0));
}

#[test]
fn undecided_it_proceeds_without_debt_and_says_not_proven() {
    let mut scene = Scene::baking(plan(OnUndecided::Proceed));
    let expect = ["Polled", "StageUndecided", "StageNotProven", "StepEntered"];
    until_undecided(&mut scene, &expect);
    assert_eq!((scene.state.not_proven.len(), scene.state.owed.len()), (1, 0));
}

#[test]
fn carried_it_stays_owed_until_a_larger_stage_proves_it() {
    let mut scene = Scene::baking(plan(OnUndecided::Carry));
    let expect = ["Polled", "StageUndecided", "StageNotProven", "StepEntered"];
    until_undecided(&mut scene, &expect);
    assert_eq!((scene.state.not_proven.len(), scene.state.owed.len()), (1, 1));
    scene.confirm();
    scene.look(&Outcome::Pass, &["Judged", "Polled", "DebtPaid"]);
    assert_eq!((scene.state.not_proven.len(), scene.state.owed.len()), (0, 0));
}

#[test]
fn nothing_is_promoted_while_something_is_owed() {
    let mut scene = Scene::last_stage(plan(OnUndecided::Proceed));
    let owed = scene.state.plan.stages[0].criteria[0].id.clone();
    scene.state.owed.insert(owed.clone());
    scene.state.not_proven.insert(owed.clone());
    let unpaid = |scene: &Scene| {
        let mut judgement = sample::judgement(&scene.state, &Outcome::Pass, 2_000);
        judgement.verdicts[0].outcome = sample::undecided(2_000);
        judgement
    };
    scene.judged(unpaid(&scene), &["Judged", "Polled"]);
    for _ in 0..5 {
        scene.judged(unpaid(&scene), &["Polled"]);
    }
    scene.judged(unpaid(&scene), &["Polled", "StageUndecided"]);
    scene.judged(unpaid(&scene), &["Polled"]);
    scene
        .look(&Outcome::Pass, &["Judged", "Polled", "DebtPaid", "StagePassed", "PromotionStarted"]);
}

#[test]
fn an_analysis_that_is_only_shown_is_never_owed() {
    let mut plan = plan(OnUndecided::Carry);
    plan.analyses.values_mut().for_each(|analysis| analysis.dry_run = true);
    let mut scene = Scene::baking(plan);
    until_undecided(&mut scene, &["Polled", "StageUndecided", "StageNotProven", "StepEntered"]);
    assert!(scene.state.owed.is_empty());
}

#[test]
fn a_stage_of_checks_passes_when_the_judge_says_so_and_not_before() {
    let mut plan = sample::plan();
    plan.stages[0].criteria.clear();
    let mut scene = Scene::baking(plan);
    let rarely = Outcome::Undecided(Undecided::CheckNotHeld("8 of 10 runs".to_owned()));
    scene.look(&rarely, &["Judged", "Polled"]);
    for _ in 0..3 {
        scene.look(&rarely, &["Polled"]);
    }
    scene.look(&Outcome::Pass, &["Judged", "Polled", "StagePassed", "StepEntered"]);
}
