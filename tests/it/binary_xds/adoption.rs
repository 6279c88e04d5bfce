//! `adopt` where the Envoys have their weights from nobody else.

use std::path::Path;

use serde_json::Value;

use super::fleet::Fleet;
use super::process::{Ended, call};

fn adopt(folder: &Path, version: &str) -> Ended {
    call(folder, &["adopt", "api-gateway", "--version", version, "-o", "json"])
}

fn region(adopted: &Value) -> [&str; 2] {
    let region = &adopted["regions"]["us_east_1"];
    [region["stable"].as_str().unwrap(), region["idle"].as_str().unwrap()]
}

/// Without records the route file says what is served; with them it does not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_route_file_is_served_once_it_is_recorded() {
    let mut fleet = Fleet::start().await;
    fleet.write_route(90, 10);
    let split = adopt(fleet.folder(), "v1").expect(1);
    assert!(
        split.errors.contains("us_east_1 splits its traffic: blue 90 %, green 10 %"),
        "{split:?}"
    );
    assert_eq!(fleet.green().await, [None, None], "nothing is served before it is recorded");

    fleet.write_route(100, 0);
    let adopted = adopt(fleet.folder(), "v1").expect(0).json();
    assert_eq!(region(&adopted), ["blue", "green"]);
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    for envoy in &mut fleet.envoys {
        envoy.ready().await;
    }

    fleet.write_route(0, 100);
    let again = adopt(fleet.folder(), "v1").expect(0).json();
    assert_eq!(region(&again), ["blue", "green"], "the record counts, not the file");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);

    fleet.envoys[1].kill();
    let alone = adopt(fleet.folder(), "v1").expect(1);
    assert!(alone.errors.contains("1 of at least 2 instances connected"), "{alone:?}");
}

/// A split that was accepted is served as it is, also by a later process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_is_taken_over_only_as_it_is() {
    let fleet = Fleet::start().await;
    fleet.write_route(90, 10);
    let as_is = ["adopt", "api-gateway", "--version", "v1", "--as-is", "-o", "json"];
    for _ in 0..2 {
        let adopted = call(fleet.folder(), &as_is).expect(0).json();
        assert_eq!(adopted["regions"]["us_east_1"]["idle_weight"], 1_000, "{adopted}");
        assert_eq!(fleet.green().await, [Some(10.0), Some(10.0)]);
    }
}

/// The state is lost while Envoys run: what they hold is taken over where it can be seen, and refused where it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_with_weights_that_are_not_recorded_are_believed_or_left_alone() {
    let fleet = Fleet::start().await;
    fleet.write_route(0, 100);
    adopt(fleet.folder(), "v1").expect(0);
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
    std::fs::remove_dir_all(fleet.folder().join("state")).unwrap();
    fleet.write_route(100, 0);

    fleet.write_fleet("http://127.0.0.1:9", &[]);
    let blind = adopt(fleet.folder(), "v1").expect(1);
    assert!(blind.errors.contains("edge-1 holds routes that are not recorded here"), "{blind:?}");
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);

    fleet.write_fleet("http://127.0.0.1:9", &fleet.admin_addresses());
    let adopted = adopt(fleet.folder(), "v1").expect(0).json();
    assert_eq!(region(&adopted), ["green", "blue"]);
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
}
