//! The operator's programs around a rollout: journaled, at least once, asked after when their end is unknown.

use serde_json::Value;

use super::{RESUME, count, events};
use crate::binary_xds::fleet::Fleet;
use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::{fleet, run};

/// A program that appends its name and values to `calls`, and fails while there is a file `refuse`.
const HOOK: &str = r#"#!/bin/sh
if [ -e refuse ]; then echo "the registry says no"; exit 3; fi
echo "$@" >> calls
"#;

/// Whether a key is among the calls.
const STATUS: &str = "#!/bin/sh\ngrep -q -- \"$1\" calls\n";

async fn with_hooks() -> Fleet {
    let fleet = fleet().await;
    fleet.write("hook.sh", HOOK);
    fleet.write("status.sh", STATUS);
    let values = "\"{region}\", \"{slot}\", \"{version}\", \"{key}\"";
    let hook = |name: &str| format!("[sh, hook.sh, {name}, {values}]");
    let hooks = format!(
        "authority: full\n    hooks:\n      deploy: {{run: {}, status: [sh, status.sh, \"{{key}}\"], timeout: 20s}}\n      \
         persist: {}\n      promote: {}\n      retire: {}",
        hook("deploy"),
        hook("persist"),
        hook("promote"),
        hook("retire"),
    );
    let path = fleet.folder().join("tidegate.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace("authority: full", &hooks);
    std::fs::write(path, text).unwrap();
    fleet
}

fn calls(fleet: &Fleet) -> Vec<String> {
    let text = std::fs::read_to_string(fleet.folder().join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_runs_at_its_time_and_a_refusal_waits_for_a_person() {
    let fleet = with_hooks().await;
    let folder = fleet.folder();
    let refuse = fleet.write("refuse", "");
    let stay = [&run("pipelines/quick.yaml", "v2")[..], &["--stay"]].concat();
    let mut running = Running::start(folder, &stay);
    let paused = |view: &Value| !view["rollout"]["paused"].is_null();
    let view = running.until("it was refused", 30, paused);
    let reason = view["rollout"]["paused"]["reason"].as_str().unwrap();
    assert!(reason.contains("hook deploy") && reason.contains("the registry says no"), "{reason}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    running.kill();
    assert_eq!(count(&events(&fleet), "step_entered"), 0);

    std::fs::remove_file(refuse).unwrap();
    let mut running = Running::start(folder, &["run", "--resume", "api-gateway", "--stay"]);
    running.until("it is taken up", 30, paused);
    call(folder, &["resume"]).expect(0);
    running.until_said("staying");
    running.terminate().expect(0);
    let done = calls(&fleet);
    let names: Vec<_> = done.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, ["deploy", "persist", "promote"], "{done:?}");
    assert!(done[0].contains("us_east_1 green v2 api-gateway-1/"), "{done:?}");

    // The way back is kept open for an hour, unless somebody says otherwise.
    let early = call(folder, &["retire", "api-gateway"]).expect(1);
    assert!(early.errors.contains("is kept for"), "{early:?}");
    call(folder, &["retire", "api-gateway", "--now"]).expect(0);
    let done = calls(&fleet);
    assert!(done[3].starts_with("retire us_east_1 blue v1 api-gateway-1/"), "{done:?}");
    call(folder, &["retire", "api-gateway", "--now"]).expect(1);
    assert_eq!(calls(&fleet).len(), 4);
    let all = events(&fleet);
    assert_eq!((count(&all, "retired"), count(&all, "promoted")), (1, 1));
    call(folder, &["store", "verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_done_before_the_controller_died_is_not_done_again() {
    let fleet = with_hooks().await;
    let folder = fleet.folder();
    let arguments = run("pipelines/long.yaml", "v2");
    let killed = Running::start_failing(folder, &arguments, "after-hook=return").ended(60);
    assert_eq!(killed.code, None, "{killed:?}");
    assert_eq!(calls(&fleet).len(), 1);
    let all = events(&fleet);
    assert_eq!((count(&all, "hook_started"), count(&all, "hook_ended")), (1, 0), "{all:?}");

    let mut next = Running::start(folder, &RESUME);
    next.until_baking(0);
    assert_eq!(calls(&fleet).len(), 1, "{:?}", calls(&fleet));

    // A rollback waits for no hook.
    fleet.write("refuse", "");
    call(folder, &["rollback", "--reason", "enough"]).expect(0);
    next.ended(20).expect(5);
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
    assert_eq!(calls(&fleet).len(), 1);
}
