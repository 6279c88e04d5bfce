//! The life of a fleet over several versions.

use tidegate::engine::event::Cause;
use tidegate::engine::rollout::Phase;
use tidegate::ports::Journal;

use super::controller::{Controller, service};
use super::plan;
use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_swap_roles_from_version_to_version() {
    let mut world = World::start([200, 50, 50]).await;
    let controller = Controller::adopt(&world.address()).await;
    let mut second = controller.start(plan::short(), "v2").await;
    let view = second.until_over(60).await;
    controller.history(&second.id).await;
    assert_eq!(view.rollout.phase, Phase::Promoted);
    assert_eq!(world.weights("green").await, [100.0; 3]);

    for region in &mut world.regions {
        region.envoy.restart().await;
    }
    assert_eq!(world.weights("green").await, [100.0; 3]);

    // The slot that v1 had gets v3, and v3 is the bad one: green is judged as stable now.
    world.blue.fail(0.2);
    let mut third = controller.start(plan::short(), "v3").await;
    third.until("v3 has traffic", 20, |view| view.exposure > 0.02).await;
    assert_eq!(world.weights("blue").await, [5.0, 0.0, 0.0]);
    let view = third.until_over(60).await;
    controller.history(&third.id).await;
    assert_eq!(view.rollout.phase, Phase::RolledBack);
    let Some(Cause::Breach(breach)) = &view.rollout.cause else {
        panic!("{:?}", view.rollout.cause)
    };
    assert!(breach.text.contains("bad vs stable 0/"), "{}", breach.text);
    assert_eq!(world.weights("green").await, [100.0; 3]);

    let (state, _) = controller.store.service(&service()).await.unwrap().unwrap();
    assert_eq!(state.stable.unwrap().as_str(), "v2");
    for slots in state.regions.values() {
        assert_eq!((slots.stable.as_str(), slots.idle.as_str()), ("green", "blue"));
    }
}
