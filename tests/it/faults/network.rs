//! Load balancers that do not answer, or whose answers are lost.

use tidegate::driver::view::View;
use tidegate::engine::input::Command;
use tidegate::engine::reason::Reason;
use tidegate::engine::rollout::{Phase, RegionState};
use tidegate::units::{Millis, RegionName};

use super::proxy::{Mode, Proxy};
use crate::e2e::controller::{Controller, Driven, names};
use crate::e2e::plan;
use crate::e2e::world::World;

/// A rollout that bakes at 5 % in the first region, whose admin port stands behind a proxy.
async fn baking() -> (World, Proxy, Controller, Driven) {
    let world = World::start([60, 40, 40]).await;
    let proxy = Proxy::start(world.regions[0].envoy.admin).await;
    let mut address = world.address();
    address.regions.get_mut(&world.regions[0].name).unwrap().1 =
        format!("http://{}", proxy.address);
    let controller = Controller::adopt(&address).await;
    let mut plan = plan::short();
    for stage in &mut plan.stages {
        stage.steps.iter_mut().for_each(|step| step.bake = Millis::from_secs(600));
    }
    let mut driven = controller.start(plan, "v2").await;
    driven.until_baking(0, 20).await;
    (world, proxy, controller, driven)
}

fn region<'a>(view: &'a View, name: &str) -> &'a RegionState {
    &view.rollout.regions[&name.parse::<RegionName>().unwrap()]
}

/// Promotes while the first region answers as `mode` has it: weights are set once, and nothing bakes before they are read.
async fn promoted_blindly(mode: Mode) {
    let (world, proxy, controller, mut driven) = baking().await;
    let witness = world.witness("green");
    proxy.set(mode);
    driven.ask(Command::Promote).await;
    let blind = |view: &View| {
        let first = region(view, "us_east_1");
        view.rollout.stage == 1 && first.observed.is_none() && first.note.is_some()
    };
    let view = driven.until("an answer is missing", 30, blind).await;
    let generation = view.rollout.generation;
    assert_eq!(view.rollout.phase, Phase::Shifting);
    let not_read = |why: &Reason| {
        matches!(why, Reason::NotConfirmed { region, .. } | Reason::NotRead { region, .. }
        if region.as_str() == "us_east_1")
    };
    assert!(view.why.iter().any(not_read), "{:?}", view.why);
    // The others have theirs, and no time counts anywhere.
    let second = |view: &View| region(view, "eu_west_1").confirmed == Some(generation);
    let view = driven.until("the second region is confirmed", 20, second).await;
    assert_eq!(view.rollout.clocks.bake, Millis::ZERO);

    proxy.set(Mode::Pass);
    let view = driven.until_baking(1, 40).await;
    assert_eq!(view.rollout.generation, generation, "no second step");
    assert_eq!(witness.of("us_east_1").await, [5.0, 25.0]);
    driven.ask(Command::Rollback { reason: "enough".to_owned() }).await;
    driven.until_over(20).await;
    assert_eq!(world.weights("green").await, [0.0; 3]);
    let history = controller.history(&driven.id).await;
    witness.assert_recorded(&history);
    assert_eq!(names(&history).iter().filter(|name| *name == "stage 1").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_21_a_load_balancer_in_a_black_hole_is_observed_first_and_no_clock_runs() {
    promoted_blindly(Mode::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_22_an_answer_that_is_lost_is_no_reason_for_a_second_step() {
    promoted_blindly(Mode::LoseAnswers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_23_a_storm_of_errors_holds_the_region_and_is_not_fed() {
    let (world, proxy, _controller, mut driven) = baking().await;
    proxy.set(Mode::Storm);
    driven.ask(Command::Promote).await;
    let stormed = |view: &View| {
        let first = region(view, "us_east_1");
        view.rollout.stage == 1 && first.note.as_ref().is_some_and(|note| note.contains("429"))
    };
    let named = driven.until("the storm is named", 20, stormed).await;
    let before = proxy.stormed();
    let later = |view: &View| view.at.since(named.at) >= Millis::from_secs(6);
    let view = driven.until("six more seconds of it", 20, later).await;
    let seconds = view.at.since(named.at).as_secs_f64();
    let per_second = (proxy.stormed() - before) as f64 / seconds;
    assert!(per_second < 8.0, "{per_second} questions a second");
    assert_eq!((view.rollout.phase, view.rollout.clocks.bake), (Phase::Shifting, Millis::ZERO));
    proxy.set(Mode::Pass);
    driven.until_baking(1, 30).await;
    assert_eq!(world.weights("green").await, [25.0, 25.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_36_a_region_out_of_reach_freezes_and_the_others_go_back_at_once() {
    let (world, proxy, _controller, mut driven) = baking().await;
    driven.ask(Command::Promote).await;
    driven.until_baking(1, 30).await;
    assert_eq!(world.weights("green").await, [25.0, 25.0, 0.0]);
    proxy.set(Mode::BlackHole);
    driven.ask(Command::Rollback { reason: "it looks wrong".to_owned() }).await;
    let others = |view: &View| {
        let confirmed = |name: &str| region(view, name).confirmed == Some(view.rollout.generation);
        confirmed("eu_west_1") && confirmed("ap_southeast_2")
    };
    let view = driven.until("the others are back", 10, others).await;
    assert_eq!(view.rollout.phase, Phase::RollingBack, "not all of it is back");
    assert_eq!(world.weights("green").await[1], 0.0);
    proxy.set(Mode::Pass);
    let view = driven.until_over(40).await;
    assert_eq!(view.rollout.phase, Phase::RolledBack);
    assert_eq!(world.weights("green").await, [0.0; 3]);
}
