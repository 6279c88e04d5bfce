//! Tidegate's driver in a process of its own, which can be killed for good: this test binary, called again.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::driver::view::View;
use tidegate::engine::rollout::Phase;
use tidegate::ports::Journal;
use tidegate::spec::plan::Plan;
use tidegate::units::RolloutId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::controller::{Controller, Views, service, until};
use super::world::Address;

/// Holds the errand; set for the child only.
const ERRAND: &str = "TIDEGATE_E2E_ERRAND";
/// The test that is called again in the child; it begins with [`run_errand`].
const TEST: &str = "e2e::crash::killed_in_stage_2_and_during_the_rollback_it_goes_on_right";
/// Begins every line that holds a view.
const VIEW: &str = "VIEW ";

/// What a child has to do.
#[derive(Serialize, Deserialize)]
struct Errand {
    address: Address,
    plan: Plan,
    version: String,
}

/// The controller of a world, in its own process; killed with this value.
pub struct Process {
    child: Child,
    views: Views,
}

impl Process {
    /// Takes up the open rollout of the world, or adopts `v1` and begins one; returns once it has said something.
    pub async fn start(address: &Address, plan: &Plan, version: &str) -> Self {
        let errand =
            Errand { address: address.clone(), plan: plan.clone(), version: version.to_owned() };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(ERRAND, serde_json::to_string(&errand).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = async move || loop {
            let line = lines.next_line().await.unwrap()?;
            if let Some(view) = line.strip_prefix(VIEW) {
                return Some(Arc::new(serde_json::from_str::<View>(view).unwrap()));
            }
        };
        let first = tokio::time::timeout(Duration::from_secs(20), next()).await;
        let (send, views) = watch::channel(first.unwrap().expect("a child that says something"));
        tokio::spawn(async move {
            while let Some(view) = next().await {
                send.send_replace(view);
            }
        });
        Self { child, views }
    }

    /// `kill -9`, now.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
    }

    /// Waits for a view.
    pub async fn until(
        &mut self,
        what: &str,
        seconds: u64,
        wanted: impl Fn(&View) -> bool,
    ) -> Arc<View> {
        until(&mut self.views, what, seconds, wanted).await
    }

    /// Waits until the weights of a stage (from 0) are confirmed and bake.
    pub async fn until_baking(&mut self, stage: usize, seconds: u64) -> Arc<View> {
        let baking =
            |view: &View| view.rollout.phase == Phase::Baking && view.rollout.stage == stage;
        self.until(&format!("stage {stage} bakes"), seconds, baking).await
    }
}

/// In the child: is the controller until the rollout is over. False, at once, in the test itself.
pub async fn run_errand() -> bool {
    let Ok(errand) = std::env::var(ERRAND) else { return false };
    let Errand { address, plan, version } = serde_json::from_str(&errand).unwrap();
    let known = address.state.exists();
    let controller =
        if known { Controller::open(&address).await } else { Controller::adopt(&address).await };
    let mut driven = match open_rollout(&controller).await {
        Some(id) => controller.resume(id).await,
        None => controller.start(plan, &version).await,
    };
    loop {
        let view = Arc::clone(&driven.views.borrow_and_update());
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{VIEW}{}", serde_json::to_string(&*view).unwrap()).unwrap();
        out.flush().unwrap();
        drop(out);
        if view.rollout.phase.is_over() || driven.views.changed().await.is_err() {
            return true;
        }
    }
}

async fn open_rollout(controller: &Controller) -> Option<RolloutId> {
    let (state, _) = controller.store.service(&service()).await.unwrap()?;
    state.open
}
