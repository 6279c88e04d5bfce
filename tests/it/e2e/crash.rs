//! `kill -9` at any time: the next process goes on, and nothing happens that was not recorded first.

use tidegate::engine::rollout::Phase;
use tidegate::ports::Journal;
use tidegate::units::RolloutId;

use super::controller::{Controller, names, service};
use super::plan;
use super::process::{Process, run_errand};
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_stage_2_and_during_the_rollback_it_goes_on_right() {
    if run_errand().await {
        return;
    }
    let mut world = World::start([100, 100, 100]).await;
    let (address, plan) = (world.address(), plan::short());
    let witness = world.witness("green");

    let mut first = Process::start(&address, &plan, "v2").await;
    first.until_baking(1, 40).await;
    let baked = |view: &tidegate::driver::view::View| view.rollout.clocks.bake.0 >= 1_000;
    let before = first.until("a second of bake", 20, baked).await;
    first.kill().await;
    assert_eq!(world.weights("green").await, [25.0, 25.0, 0.0]);

    // What it had baked and seen is not lost, and it goes on from there.
    let mut second = Process::start(&address, &plan, "v2").await;
    let after = second.until_baking(1, 10).await;
    assert_eq!(after.rollout.generation, before.rollout.generation);
    assert!(after.rollout.clocks.bake >= before.rollout.clocks.bake, "{:?}", after.rollout.clocks);
    second.until_baking(2, 40).await;
    assert_eq!(world.weights("green").await, [100.0; 3]);

    // One region cannot be reached, so that the rollback is still under way when the controller is killed.
    world.regions[2].envoy.kill();
    world.green.fail(0.2);
    let going_back = |view: &tidegate::driver::view::View| view.rollout.phase == Phase::RollingBack;
    second.until("it goes back", 30, going_back).await;
    second.kill().await;

    world.regions[2].envoy.restart().await;
    let mut third = Process::start(&address, &plan, "v2").await;
    let over = third.until("it is over", 20, |view| view.rollout.phase.is_over()).await;
    assert_eq!(over.rollout.phase, Phase::RolledBack);
    third.ended().await;
    assert_eq!(world.weights("green").await, [0.0; 3]);

    let controller = Controller::open(&address).await;
    let history = controller.history(&RolloutId { service: service(), number: 1 }).await;
    assert_eq!(witness.of("ap_southeast_2").await.last(), Some(&0.0));
    witness.assert_recorded(&history);
    assert_eq!(witness.of("us_east_1").await, [0.0, 5.0, 25.0, 100.0, 0.0]);
    let told = names(&history);
    assert_eq!(told.iter().filter(|name| *name == "recovered").count(), 3, "{told:?}");
    assert_eq!(told.iter().filter(|name| *name == "rolling back").count(), 1, "{told:?}");
    let (state, _) = controller.store.service(&service()).await.unwrap().unwrap();
    assert_eq!((state.open, state.stable.unwrap().as_str()), (None, "v1"));
    let differences = controller.store.verify().unwrap();
    assert!(differences.is_empty(), "{differences:?}");
}
