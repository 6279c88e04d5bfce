//! Forward on evidence, back by itself, and neither without data.

use tidegate::engine::event::Cause;
use tidegate::engine::reason::Reason;
use tidegate::engine::rollout::Phase;
use tidegate::engine::verdict::{Breach, Outcome};

use super::controller::{Controller, names};
use super::plan;
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_is_promoted_through_three_stages() {
    let world = World::start([400, 100, 100]).await;
    let controller = Controller::adopt(&world.address()).await;
    let witness = world.witness("green");
    let mut driven = controller.start(plan::walk(), "v2").await;
    for (stage, weights) in [[5.0, 0.0, 0.0], [25.0, 25.0, 0.0], [100.0; 3]].into_iter().enumerate()
    {
        driven.until_baking(stage, 60).await;
        assert_eq!(world.weights("green").await, weights, "stage {stage}");
    }
    let view = driven.until_over(30).await;
    assert_eq!(view.rollout.phase, Phase::Promoted, "{:?}", view.rollout.cause);
    assert!(view.rollout.not_proven.is_empty(), "{:?}", view.rollout.not_proven);
    assert_eq!(world.weights("green").await, [100.0; 3]);

    assert_eq!(witness.of("us_east_1").await, [0.0, 5.0, 25.0, 100.0]);
    assert_eq!(witness.of("eu_west_1").await, [0.0, 25.0, 100.0]);
    assert_eq!(witness.of("ap_southeast_2").await, [0.0, 100.0]);
    let history = controller.history(&driven.id).await;
    witness.assert_recorded(&history);
    let told = names(&history);
    let wanted = [
        "recovered",
        "stage 0",
        "passed 0",
        "stage 1",
        "passed 1",
        "stage 2",
        "passed 2",
        "promoting",
        "promoted, proven: true",
    ];
    assert_eq!(told, wanted);
    // Nobody noticed the switching.
    assert_eq!(world.lost_and_failed(), (0, 0));
    assert!(world.good() > 5_000, "{}", world.good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_fails_on_copies_goes_back_before_anybody_met_it() {
    let world = World::start([400, 50, 50]).await;
    let controller = Controller::adopt(&world.address()).await;
    let witness = world.witness("green");
    world.green.fail(0.2);
    let mut driven = controller.start(plan::mirrored(), "v2").await;
    let view = driven.until_over(60).await;
    assert_eq!((view.rollout.phase, view.rollout.stage), (Phase::RolledBack, 0));
    let text = &breach(&view).text;
    let rules = ["error_rate > 1%", "availability < 99.5%"];
    assert!(rules.iter().any(|rule| text.contains(rule)), "{text}");
    assert_eq!(witness.of("us_east_1").await, [0.0], "no weight at any time");
    let history = controller.history(&driven.id).await;
    witness.assert_recorded(&history);
    assert_eq!(world.lost_and_failed(), (0, 0), "users got answers of stable alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_version_goes_on_from_copies_to_weights() {
    let world = World::start([400, 50, 50]).await;
    let controller = Controller::adopt(&world.address()).await;
    let mut driven = controller.start(plan::mirrored(), "v2").await;
    driven.until_baking(0, 40).await;
    assert_eq!(world.weights("green").await, [0.0; 3]);
    let routes = || std::fs::read_to_string(&world.regions[0].routes).unwrap();
    assert!(routes().contains("request_mirror_policies"), "{}", routes());
    driven.until_baking(1, 60).await;
    assert_eq!(world.weights("green").await, [5.0, 0.0, 0.0]);
    assert!(!routes().contains("request_mirror_policies"), "{}", routes());
    assert_eq!(world.lost_and_failed(), (0, 0));
}

/// The breach that a rollout went back for.
fn breach(view: &tidegate::driver::view::View) -> &Breach {
    match &view.rollout.cause {
        Some(Cause::Breach(breach)) => breach,
        other => panic!("not a breach: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_roll_back_every_region_and_the_rule_is_named() {
    let world = World::start([200, 100, 100]).await;
    let controller = Controller::adopt(&world.address()).await;
    let witness = world.witness("green");
    let mut driven = controller.start(plan::short(), "v2").await;
    driven.until_baking(1, 40).await;
    assert_eq!(world.weights("green").await, [25.0, 25.0, 0.0]);
    world.green.fail(0.2);

    let view = driven.until_over(40).await;
    assert_eq!(view.rollout.phase, Phase::RolledBack);
    assert_eq!(world.weights("green").await, [0.0; 3]);
    let text = &breach(&view).text;
    // Twenty percent errors break both rules; the one that is proven first is named.
    let rules = [
        "`error_rate > 1%` (pipelines/multi-region.yaml:30)",
        "`availability < 99.5%` (pipelines/multi-region.yaml:32)",
    ];
    assert!(rules.iter().any(|rule| text.contains(rule)), "{text}");
    for part in [" bad vs stable 0/", "odds"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let judgement = view.rollout.judgement.as_ref().unwrap();
    let trigger = judgement.verdicts.iter().find(|it| it.text == "error_rate > 1%").unwrap();
    // It may have been proven by itself, or together with the other rules.
    assert_eq!((&judgement.stage, trigger.is_trigger), (&Outcome::Fail, true));
    let (bad, total) = trigger.numbers.canary.unwrap();
    assert!(bad / total > 0.1, "{bad} of {total}");
    witness.assert_recorded(&controller.history(&driven.id).await);
    assert_eq!(witness.of("eu_west_1").await, [0.0, 25.0, 0.0]);
    assert_eq!(world.lost_and_failed().0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_alone_rolls_back() {
    let world = World::start([400, 50, 50]).await;
    world.green.slow_down(3);
    let controller = Controller::adopt(&world.address()).await;
    let mut driven = controller.start(plan::walk(), "v2").await;
    let view = driven.until_over(60).await;
    assert_eq!(view.rollout.phase, Phase::RolledBack);
    assert_eq!(view.rollout.stage, 0);
    controller.history(&driven.id).await;
    let text = &breach(&view).text;
    assert!(text.contains("response_time_increase"), "{text}");
    assert!(text.contains("slow vs stable"), "{text}");
    assert_eq!(world.weights("green").await, [0.0; 3]);
    assert_eq!(world.lost_and_failed(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_prometheus_it_holds_and_goes_on_when_it_returns() {
    let mut world = World::start([100, 100, 100]).await;
    let controller = Controller::adopt(&world.address()).await;
    let mut driven = controller.start(plan::short(), "v2").await;
    driven.until_baking(1, 40).await;
    world.prometheus.kill();

    let dark = |why: &[Reason]| why.iter().any(|it| matches!(it, Reason::SourceDark { .. }));
    let held = driven.until("the source is dark", 15, |view| dark(&view.why)).await;
    let clocks = held.rollout.clocks.clone();
    // Longer than the whole stage would have taken.
    let long = driven.until("dark for 5 s", 20, |view| view.rollout.clocks.source_dark.0 >= 5_000);
    let view = long.await;
    assert_eq!(view.rollout.phase, Phase::Baking);
    assert_eq!((view.rollout.stage, view.rollout.clocks.bake), (1, clocks.bake));
    assert_eq!(world.weights("green").await, [25.0, 25.0, 0.0]);

    world.prometheus.restart().await;
    driven.until("the source is back", 20, |view| !dark(&view.why)).await;
    driven.until_baking(2, 40).await;
    assert_eq!(world.weights("green").await, [100.0; 3]);
    controller.history(&driven.id).await;
}
