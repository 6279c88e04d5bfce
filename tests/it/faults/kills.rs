//! Killed at the worst moments: between intent, call, answer and record, and while it recovers.

use super::{RESUME, baking, count, events};
use crate::binary_xds::fleet::{Fleet, now_ms};
use crate::binary_xds::process::{Ended, Running, call};
use crate::binary_xds::story::{assert_only, assert_recorded_first, fleet, run};

/// A rollout that is killed at a place; the weights that it leaves.
async fn killed_at(place: &str) -> (Fleet, Vec<Option<f64>>) {
    let fleet = fleet().await;
    let places = format!("{place}=return");
    let arguments = run("pipelines/long.yaml", "v2");
    let killed = Running::start_failing(fleet.folder(), &arguments, &places).ended(60);
    assert_eq!(killed.code, None, "it was not killed at {place}: {killed:?}");
    let green = fleet.green().await;
    (fleet, green)
}

/// The next process gets to 25 % with exactly one step, and back.
fn goes_on_with_one_step(fleet: &Fleet) -> Ended {
    let killed_at = now_ms();
    let mut next = Running::start(fleet.folder(), &RESUME);
    next.until_baking(0);
    assert_only(fleet, killed_at, &[0.0, 25.0]);
    call(fleet.folder(), &["rollback", "--reason", "enough"]).expect(0);
    let ended = next.ended(20).expect(5);
    let all = events(fleet);
    assert_eq!(count(&all, "step_entered"), 1, "{all:?}");
    assert_eq!(count(&all, "rolled_back"), 1, "{all:?}");
    assert_recorded_first(fleet);
    call(fleet.folder(), &["store", "verify"]).expect(0);
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_killed_before_an_intent_is_on_disk() {
    let (fleet, green) = killed_at("before-intent").await;
    assert_eq!(green, [Some(0.0), Some(0.0)]);
    assert_eq!(count(&events(&fleet), "step_entered"), 0);
    goes_on_with_one_step(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_02_killed_between_intent_and_call() {
    let (fleet, green) = killed_at("before-call").await;
    assert_eq!(green, [Some(0.0), Some(0.0)]);
    assert_eq!(count(&events(&fleet), "step_entered"), 1);
    goes_on_with_one_step(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_killed_between_call_and_answer() {
    let (fleet, green) = killed_at("after-call").await;
    assert_eq!(green, [Some(25.0), Some(25.0)]);
    let confirmed = events(&fleet)
        .iter()
        .filter(|event| event.pointer("/region_read/confirmed").is_some_and(|it| !it.is_null()))
        .count();
    assert_eq!(confirmed, 0);
    goes_on_with_one_step(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_killed_between_answer_and_record() {
    let (fleet, green) = killed_at("before-result").await;
    assert_eq!(green, [Some(25.0), Some(25.0)]);
    goes_on_with_one_step(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_06_killed_fifty_times_while_it_recovers() {
    let fleet = fleet().await;
    baking(&fleet).kill();
    let killed_at = now_ms();
    for round in 0..50_u64 {
        // Half of them right behind the record of the recovery, the others at any time of the start.
        if round % 2 == 0 {
            let places = "recovered=return";
            let killed = Running::start_failing(fleet.folder(), &RESUME, places).ended(20);
            assert_eq!(killed.code, None, "{killed:?}");
        } else {
            let starting = Running::start(fleet.folder(), &RESUME);
            std::thread::sleep(std::time::Duration::from_millis(round * 2));
            starting.kill();
        }
    }
    let mut next = Running::start(fleet.folder(), &RESUME);
    next.until_baking(0);
    assert_only(&fleet, killed_at, &[25.0]);
    next.kill();
    assert_eq!(count(&events(&fleet), "step_entered"), 1);
    call(fleet.folder(), &["store", "verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_41_asked_to_end_while_weights_are_on_their_way_it_ends_at_once() {
    let mut fleet = fleet().await;
    let folder = fleet.folder().to_owned();
    let running = baking(&fleet);
    // The second Envoy is gone, so that the next weights are never confirmed.
    fleet.envoys[1].kill();
    call(&folder, &["promote", "--reason", "on"]).expect(0);
    let asked = std::time::Instant::now();
    running.terminate().expect(128 + 15);
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    fleet.envoys[1].restart().await;
    let mut next = Running::start(&folder, &RESUME);
    next.until_baking(1);
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
    next.kill();
    assert_eq!(count(&events(&fleet), "step_entered"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_44_another_version_has_to_wait_until_the_open_one_is_over() {
    let fleet = fleet().await;
    baking(&fleet).kill();
    let other = call(fleet.folder(), &run("pipelines/long.yaml", "v3")).expect(1);
    assert!(other.errors.contains("api-gateway-1 is under way"), "{other:?}");
    assert_eq!(fleet.green().await, [Some(25.0), Some(25.0)]);
    assert_eq!(count(&events(&fleet), "started"), 1);
}
