//! The catalogue of faults on the real binary, Envoys and Prometheus. `docs/robustness.md` says which test shows what.

mod disk;
mod hooks;
mod kills;
mod network;
mod offline;
mod proxy;
mod quarantine;

use serde_json::Value;

use crate::binary_xds::fleet::Fleet;
use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::run;

/// Every fact of the service so far, oldest first.
fn events(fleet: &Fleet) -> Vec<Value> {
    let history = ["history", "api-gateway", "--limit", "10000", "-o", "json"];
    let facts = call(fleet.folder(), &history).expect(0).json();
    facts.as_array().unwrap().iter().map(|entry| entry[1]["event"].clone()).collect()
}

/// How many facts of a kind there are.
fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event.get(kind).is_some() || *event == kind).count()
}

/// A rollout of `v2` that bakes at 25 % for long.
fn baking(fleet: &Fleet) -> Running {
    let mut running = Running::start(fleet.folder(), &run("pipelines/long.yaml", "v2"));
    running.until_baking(0);
    running
}

/// Takes the open rollout up again, as a supervisor would.
const RESUME: [&str; 5] = ["run", "--resume", "api-gateway", "-o", "json"];
