//! A rollout whose deciding panics at every turn.

use serde_json::Value;

use super::{baking, count, events};
use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::{assert_only, assert_recorded_first, fleet};

fn quarantined(view: &Value) -> bool {
    !view["rollout"]["quarantined"].is_null()
}

const STAY: [&str; 4] = ["run", "--resume", "api-gateway", "--stay"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_a_rollout_that_panics_at_every_turn_is_put_in_quarantine() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    baking(&fleet).kill();
    let since = crate::binary_xds::fleet::now_ms();
    let panics = "decide api-gateway-1=panic";
    let mut sick = Running::start_failing(folder, &STAY, panics);
    sick.until("it is in quarantine", 30, quarantined);
    let why = call(folder, &["why"]).expect(0);
    assert!(why.out.contains("quarantine"), "{why:?}");
    let refused = call(folder, &["promote"]).expect(1);
    assert!(refused.errors.contains("release lets it go on"), "{refused:?}");

    // Released, it panics again.
    call(folder, &["release", "api-gateway"]).expect(0);
    sick.until("it is there again", 30, quarantined);
    assert_only(&fleet, since, &[25.0]);
    sick.kill();

    // It stays there over a restart, and a person who is not there ends the run.
    Running::start(folder, &["run", "--resume", "api-gateway"]).ended(20).expect(6);
    call(folder, &["release", "api-gateway"]).expect(0);
    let nothing = call(folder, &["release", "api-gateway"]).expect(1);
    assert!(nothing.errors.contains("no rollout in quarantine"), "{nothing:?}");
    let mut well = Running::start(folder, &["run", "--resume", "api-gateway"]);
    well.until_baking(0);
    well.kill();
    let all = events(&fleet);
    assert_eq!((count(&all, "quarantined"), count(&all, "released")), (2, 2), "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_07_rolling_back_needs_nothing_of_what_panics() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    baking(&fleet).kill();
    let panics = "decide api-gateway-1=panic";
    let mut sick = Running::start_failing(folder, &STAY, panics);
    sick.until("it is in quarantine", 30, quarantined);
    call(folder, &["rollback", "--reason", "sick"]).expect(0);
    sick.until_said("staying");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    sick.terminate().expect(5);
    let all = events(&fleet);
    assert_eq!((count(&all, "rollback_started"), count(&all, "rolled_back")), (1, 1));
    assert_recorded_first(&fleet);
    call(folder, &["store", "verify"]).expect(0);
}
