//! Back without daemon, journal or state.

use super::{RESUME, baking, count, events};
use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::fleet;
use crate::e2e::controller::Controller;
use crate::e2e::plan;
use crate::e2e::world::World;

const OFFLINE: [&str; 5] = ["rollback", "--offline", "--service", "api-gateway", "-o"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_back_without_a_daemon_and_the_next_run_adopts_it() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    baking(&fleet).kill();
    let went = call(folder, &[&OFFLINE[..], &["json"]].concat()).expect(0).json();
    assert_eq!(went["targets"][0]["back"], true, "{went}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    let taken = Running::start(folder, &RESUME).ended(30).expect(5);
    assert!(taken.out.contains("set to 0 by hand"), "{taken:?}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    assert_eq!(count(&events(&fleet), "rolled_back"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_with_a_broken_journal_it_starts_no_more_and_goes_back_all_the_same() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    baking(&fleet).kill();
    let log = folder.join("state/journal/00000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let last = bytes.windows(4).rposition(|it| it == [0xFF, b'T', b'G', 1]).unwrap();
    bytes[last / 2] ^= 4;
    std::fs::write(&log, &bytes).unwrap();
    let refused = call(folder, &RESUME).expect(1);
    assert!(refused.errors.contains("restore it from a backup"), "{refused:?}");
    assert!(refused.errors.contains("rollback --offline"), "{refused:?}");

    let went = call(folder, &[&OFFLINE[..], &["json"]].concat()).expect(0);
    assert!(went.errors.contains("ends early"), "{went:?}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);

    // Nothing at all is left: then a person says which slot is stable.
    std::fs::remove_dir_all(folder.join("state")).unwrap();
    let unknown = call(folder, &[&OFFLINE[..], &["json"]].concat()).expect(2);
    assert!(unknown.errors.contains("--stable-slot blue"), "{unknown:?}");
    let wrong = [&OFFLINE[..], &["json", "--stable-slot", "red"]].concat();
    call(folder, &wrong).expect(2);
    let said = [&OFFLINE[..], &["json", "--stable-slot", "blue"]].concat();
    let went = call(folder, &said).expect(0).json();
    assert_eq!(went["targets"][0]["back"], true, "{went}");
    assert!(!folder.join("state").exists(), "it makes no state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_commands_do_it_by_hand() {
    let world = World::start([20, 20, 20]).await;
    let address = world.address();
    let controller = Controller::adopt(&address).await;
    let mut plan = plan::short();
    plan.stages[0].steps[0].bake = tidegate::units::Millis::from_secs(600);
    let mut driven = controller.start(plan, "v2").await;
    driven.until_baking(0, 20).await;
    assert_eq!(world.weights("green").await, [5.0, 0.0, 0.0]);
    drop((driven, controller));

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tidegate.yaml"), address.fleet_yaml()).unwrap();
    let print = ["rollback", "--offline", "--print"];
    let printed = call(folder.path(), &print).expect(0);
    assert_eq!(world.weights("green").await, [5.0, 0.0, 0.0], "printing changes nothing");
    let script = folder.path().join("back.sh");
    std::fs::write(&script, &printed.out).unwrap();
    let done = std::process::Command::new("sh").arg(&script).status().unwrap();
    assert!(done.success(), "{printed:?}");
    crate::e2e::world::until("it is back", 10, async || {
        world.weights("green").await == [0.0, 0.0, 0.0]
    })
    .await;
}
