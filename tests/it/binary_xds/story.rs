//! Rollouts from the first command to the last: killed, interrupted, asked, promoted and rolled back.

use serde_json::Value;

use super::fleet::{Fleet, now_ms};
use super::process::{Running, call};

pub const ADOPT: [&str; 4] = ["adopt", "api-gateway", "--version", "v1"];

pub fn run<'a>(pipeline: &'a str, version: &'a str) -> [&'a str; 8] {
    ["run", pipeline, "--version", version, "-o", "json", "--service", "api-gateway"]
}

/// A fleet with metrics, adopted and checked.
pub async fn fleet() -> Fleet {
    let mut fleet = Fleet::start().await.with_metrics().await;
    call(fleet.folder(), &ADOPT).expect(0);
    fleet.open().await;
    for pipeline in ["pipelines/quick.yaml", "pipelines/long.yaml"] {
        let checked = call(fleet.folder(), &["check", pipeline, "-o", "json"]).expect(0).json();
        assert_eq!(checked["ok"], true);
    }
    let planned = call(fleet.folder(), &["plan", "pipelines/quick.yaml", "-o", "json"]);
    planned.expect(0).json();
    fleet
}

/// Every weight that an Envoy showed was recorded before.
pub fn assert_recorded_first(fleet: &Fleet) {
    let history = ["history", "api-gateway", "--limit", "10000", "-o", "json"];
    let facts = call(fleet.folder(), &history).expect(0).json();
    // What the canary's weight means for `green`, which is the canary of every other rollout.
    let mut wanted: Vec<(u64, f64)> = vec![(0, 0.0)];
    let mut canary = "green".to_owned();
    for entry in facts.as_array().unwrap() {
        let fact = &entry[1];
        let at = fact["at"].as_u64().unwrap();
        let event = &fact["event"];
        let mut want = |percent: f64| {
            wanted.push((at, if canary == "green" { percent } else { 100.0 - percent }));
        };
        if let Some(started) = event.get("started") {
            canary = started["slots"]["us_east_1"]["canary"].as_str().unwrap().to_owned();
        } else if let Some(step) = event.get("step_entered") {
            want(step["weights"]["us_east_1"].as_f64().unwrap() / 100.0);
        } else if event.get("promotion_started").is_some() {
            want(100.0);
        } else if event.get("rollback_started").is_some() {
            want(0.0);
        }
    }
    for sighting in fleet.seen() {
        let recorded = wanted
            .iter()
            .any(|(at, percent)| *at <= sighting.at_ms && *percent == sighting.percent);
        assert!(recorded, "{sighting:?} was never wanted by then: {wanted:?}");
    }
}

/// The sightings since then are of these weights only.
pub fn assert_only(fleet: &Fleet, since_ms: u64, percents: &[f64]) {
    let late: Vec<_> = fleet.seen().into_iter().filter(|one| one.at_ms >= since_ms).collect();
    assert!(late.iter().all(|one| percents.contains(&one.percent)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_paused_resumed_and_rolled_back() {
    let fleet = fleet().await;
    let folder = fleet.folder();
    let nothing = call(folder, &["promote"]).expect(3);
    assert!(nothing.errors.contains("nothing runs on"), "{nothing:?}");

    let mut first = Running::start(folder, &run("pipelines/long.yaml", "v2"));
    first.until_baking(0);
    assert_eq!(fleet.green().await, [Some(25.0), Some(25.0)]);
    first.kill();
    let killed_at = now_ms();
    assert_eq!(fleet.green().await, [Some(25.0), Some(25.0)]);

    let mut second = Running::start(folder, &["run", "--resume", "api-gateway", "-o", "json"]);
    second.until_baking(0);
    let other = call(folder, &run("pipelines/long.yaml", "v3")).expect(4);
    let pid = second.pid().to_string();
    assert!(other.errors.contains(&pid) && other.errors.contains("state"), "{other:?}");
    let why = call(folder, &["why"]).expect(0);
    assert!(!why.out.trim().is_empty(), "{why:?}");

    // Nobody is there to go on: it ends, and keeps the weights.
    call(folder, &["pause", "--reason", "lunch"]).expect(0);
    let waiting = second.ended(10).expect(6);
    assert!(
        waiting.out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{waiting:?}"
    );
    let status = call(folder, &["status", "-o", "json"]).expect(0).json();
    assert_eq!(
        (&status["running"], &status["rollout"]["paused"]["reason"]),
        (&false.into(), &"lunch".into())
    );

    let mut third = Running::start(folder, &["run", "--resume", "api-gateway", "--stay"]);
    let read = |view: &Value| !view["rollout"]["regions"]["us_east_1"]["observed"].is_null();
    third.until("it is read", 30, read);
    call(folder, &["resume"]).expect(0);
    third.until_baking(0);
    assert_only(&fleet, killed_at, &[25.0]);

    call(folder, &["rollback", "--reason", "enough"]).expect(0);
    third.until_said("staying");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    let ended = third.terminate().expect(5);
    assert!(ended.out.contains("enough"), "{ended:?}");
    // Its evidence went on over the deaths of its processes.
    let again = call(folder, &["judge", "--rollout", "api-gateway-1", "-o", "json"]).expect(8);
    assert_eq!(again.json()["reproduced"], true);
    assert_recorded_first(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promoted_roles_swapped_interrupted_and_gone_on_with() {
    let mut fleet = fleet().await;
    let folder = fleet.folder().to_owned();
    let promoted = Running::start(&folder, &run("pipelines/quick.yaml", "v2")).ended(90).expect(0);
    let lines: Vec<Value> =
        promoted.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["phase"], &last["proven"]), (&"promoted".into(), &true.into()), "{last}");
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
    let again = call(&folder, &run("pipelines/quick.yaml", "v2")).expect(0).json();
    assert_eq!(again["changed"], false);

    // What it saw gives the same verdicts again, also out of a file.
    let again = call(&folder, &["judge", "--rollout", "api-gateway-1", "-o", "json"]);
    let again = again.expect(0).json();
    assert_eq!(again["reproduced"], true, "{again}");
    assert!(again["compared"].as_u64().unwrap() >= 3, "{again}");
    let evidence = call(&folder, &["evidence", "api-gateway-1"]).expect(0);
    fleet.write("looks.jsonl", &evidence.out);
    let samples = ["--samples", "looks.jsonl", "-o", "json"];
    let judged = call(&folder, &[&["judge", "pipelines/quick.yaml"], &samples[..]].concat());
    assert_eq!(judged.expect(0).json()["verdict"], again["verdict"]);

    // Now green is stable, and blue the canary. The route file still says the opposite.
    let swapped_at = now_ms();
    let mut next = Running::start(&folder, &run("pipelines/long.yaml", "v3"));
    next.until_baking(0);
    let interrupted = next.terminate().expect(128 + 15);
    assert!(interrupted.out.contains("the weights stay"), "{interrupted:?}");
    assert_eq!(fleet.green().await, [Some(75.0), Some(75.0)]);

    let mut resumed = Running::start(&folder, &["run", "--resume", "api-gateway", "-o", "json"]);
    resumed.until_baking(0);
    fleet.envoys[0].restart().await;
    assert_only(&fleet, swapped_at, &[75.0]);
    resumed.until_baking(0);
    call(&folder, &["rollback", "--reason", "no"]).expect(0);
    resumed.ended(20).expect(5);
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
    assert_recorded_first(&fleet);
}
