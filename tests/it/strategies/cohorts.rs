//! Requests that a header or a cookie chooses have weights and numbers of their own, and end with their region.

use serde_json::Value;

use super::world::{World, green};
use crate::binary_xds::process::{Running, call};
use crate::parts::backend::Traffic;

const RULES: &str = "  acl testers req.hdr(x-testers) -m found\n  acl testers req.cook(testers) -m str yes\n  use_backend be_testers if testers\n";

const REGIONS: &str = "  us_east_1:
    share: 100%
    labels: {backend: be}
    scrape: {endpoints: [\"http://METRICS/metrics\"]}
    scrape_interval: 1s
  us_east_1_testers:
    cohort_of: us_east_1
    labels: {backend: be_testers}
";

/// First the testers, half of them with the old version; then one user in five; then everybody.
const PIPELINE: &str = "deployment_pipeline:
  min_requests: 100
  max_duration: 2m
  regional_stages:
    testers:
      regions: [us_east_1_testers]
      traffic_percentage: 50
      validation_criteria: [error_rate_increase < 20%]
      duration: 2s
    canary:
      regions: [us_east_1]
      traffic_percentage: 20
      validation_criteria: [error_rate_increase < 20%]
      duration: 2s
      gates: [\"the testers are content\"]
    everybody:
      regions: [us_east_1, us_east_1_testers]
      traffic_percentage: 100
      validation_criteria: [error_rate < 20%]
      duration: 2s
  rollback_procedures:
    automatic_rollback_triggers: [error_rate > 30%]
  on_fail: rollback
";

/// Headers of everybody, and of the two kinds of testers.
pub const KINDS: [&[&str]; 3] = [&[], &["x-testers: 1"], &["cookie: a=b; testers=yes"]];

async fn world() -> World {
    let mut world = World::start(RULES, &[("be_testers", None)]).await;
    world.write_fleet(
        &REGIONS.replace("METRICS", &world.metrics.to_string()),
        &[("us_east_1", "be"), ("us_east_1_testers", "be_testers")],
    );
    world.write("pipelines/testers.yaml", PIPELINE);
    for lines in KINDS {
        world.users(Traffic::saying(world.haproxy.listener, lines));
    }
    world
}

async fn shares(world: &World) -> [f64; 3] {
    shares_at(world.haproxy.listener).await
}

/// Percent of green for everybody, for those with the header, and for those with the cookie.
pub async fn shares_at(listener: std::net::SocketAddr) -> [f64; 3] {
    let mut shares = [0.0; 3];
    for (share, lines) in shares.iter_mut().zip(KINDS) {
        *share = green(&Traffic::saying(listener, lines).send(400).await);
    }
    shares
}

#[track_caller]
pub fn near(shares: [f64; 3], wanted: [f64; 3]) {
    // Nothing and all are exact; between them others take their turns as well.
    let is_near = |share: f64, wanted: f64| match wanted {
        0.0 | 100.0 => (share - wanted).abs() < f64::EPSILON,
        _ => (share - wanted).abs() < 10.0,
    };
    let near = shares.iter().zip(wanted).all(|(share, wanted)| is_near(*share, wanted));
    assert!(near, "{shares:?}, and not {wanted:?}");
}

fn run(version: &str) -> [&str; 7] {
    ["run", "pipelines/testers.yaml", "--service", "web", "--version", version, "--stay"]
}

fn waits(view: &Value) -> bool {
    view["rollout"]["stage"] == 1 && view["rollout"]["phase"] == "gated"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_and_a_cookie_lead_to_the_canary_and_everybody_follows() {
    let world = world().await;
    let folder = world.folder();
    call(folder, &["check", "pipelines/testers.yaml"]).expect(0);

    // The cohort goes elsewhere than its region: there is no one stable slot.
    world.haproxy.say("set weight be_testers/green 100; set weight be_testers/blue 0").unwrap();
    let apart = call(folder, &["adopt", "web", "--version", "v1"]).expect(1);
    let said = "us_east_1_testers sends its users to green, and us_east_1, of whose traffic it is a slice, to blue";
    assert!(apart.errors.contains(said), "{apart:?}");
    world.haproxy.say("set weight be_testers/blue 100; set weight be_testers/green 0").unwrap();
    call(folder, &["adopt", "web", "--version", "v1"]).expect(0);
    near(shares(&world).await, [0.0, 0.0, 0.0]);

    let mut running = Running::start(folder, &run("v2"));
    running.until_baking(0);
    near(shares(&world).await, [0.0, 50.0, 50.0]);
    running.until("the gate", 60, waits);
    call(folder, &["promote"]).expect(0);
    running.until_baking(1);
    near(shares(&world).await, [20.0, 50.0, 50.0]);
    running.until_said("staying");
    running.terminate().expect(0);
    near(shares(&world).await, [100.0, 100.0, 100.0]);
    assert_eq!(world.lost(), 0);

    // Slots are the region's: what is done to them is done once. Weights are the cohort's own.
    let calls = world.calls();
    let expected = [
        "deploy us_east_1 green",
        "persist us_east_1 green",
        "persist us_east_1_testers green",
        "promote us_east_1 green",
    ];
    let mut sorted = calls.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    call(folder, &["retire", "web", "--now"]).expect(0);
    assert_eq!(world.calls()[4..], ["retire us_east_1 blue"]);
    call(folder, &["store", "verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_a_cohort_back_too() {
    let world = world().await;
    let folder = world.folder();
    call(folder, &["adopt", "web", "--version", "v1"]).expect(0);
    let mut running = Running::start(folder, &run("v2")[..6]);
    running.until_baking(0);
    near(shares(&world).await, [0.0, 50.0, 50.0]);
    call(folder, &["rollback", "--reason", "a tester cannot pay"]).expect(0);
    running.ended(30).expect(5);
    near(shares(&world).await, [0.0, 0.0, 0.0]);
    assert_eq!(world.lost(), 0);

    // A cohort that somebody moved by hand since: no version begins, because it would be deployed under users.
    world.haproxy.say("set weight be_testers/green 100; set weight be_testers/blue 0").unwrap();
    let retried = call(folder, &["adopt", "web", "--version", "v1"]).expect(1);
    assert!(retried.errors.contains("of whose traffic it is a slice"), "{retried:?}");
}
