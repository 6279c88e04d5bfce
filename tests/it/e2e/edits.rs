//! Weights that somebody changes by hand.

use std::time::{Duration, Instant};

use tidegate::engine::event::{Cause, Drift};
use tidegate::engine::input::Command;
use tidegate::engine::reason::Reason;
use tidegate::engine::rollout::Phase;
use tidegate::units::Millis;

use super::controller::{Controller, names};
use super::plan::{self, POLL};
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_edit_is_found_holds_and_an_edit_to_0_is_a_rollback() {
    let world = World::start([100, 50, 50]).await;
    let controller = Controller::adopt(&world.address()).await;
    let mut plan = plan::short();
    plan.stages[0].steps[0].bake = Millis::from_secs(600);
    let mut driven = controller.start(plan, "v2").await;
    driven.until_baking(0, 20).await;

    world.edit_by_hand(0, 80, 20);
    let edited = Instant::now();
    let view = driven.until("the edit is found", 10, |view| view.rollout.paused.is_some()).await;
    let took = edited.elapsed();
    assert!(took <= 2 * POLL.duration() + Duration::from_millis(500), "found after {took:?}");
    let found = |why: &Reason| {
        matches!(why, Reason::Drifted { region, kind: Drift::TowardsCanary, .. }
            if region.as_str() == "us_east_1")
    };
    assert!(view.why.iter().any(found), "{:?}", view.why);
    // It is left as it was found.
    let polled_at = view.rollout.clocks.polled_at;
    let later = |view: &tidegate::driver::view::View| {
        view.rollout.clocks.polled_at > polled_at.map(|at| at.plus(Millis::from_secs(2)))
    };
    let view = driven.until("it is looked at further", 10, later).await;
    assert_eq!(world.weights("green").await, [20.0, 0.0, 0.0]);
    assert!(view.rollout.paused.is_some());

    driven.ask(Command::Resume).await;
    driven.until_baking(0, 10).await;
    assert_eq!(world.weights("green").await, [5.0, 0.0, 0.0]);

    world.edit_by_hand(0, 100, 0);
    let view = driven.until_over(10).await;
    assert_eq!(view.rollout.phase, Phase::RolledBack);
    assert!(matches!(&view.rollout.cause, Some(Cause::HandEdit { region })
        if region.as_str() == "us_east_1"));
    assert_eq!(world.weights("green").await, [0.0; 3]);
    let told = names(&controller.history(&driven.id).await);
    let wanted = [
        "recovered",
        "stage 0",
        "drift TowardsCanary",
        "paused",
        "resumed",
        "rolling back",
        "rolled back",
    ];
    assert_eq!(told, wanted);
}
