//! The GitHub Action in real workflows, run on this machine: promoted, rolled back, handed over.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary_xds::fleet::Fleet;
use crate::binary_xds::process::{Running, call};
use crate::binary_xds::story::fleet;

/// A step that uses the action, and one that tells what came of it, in any case.
fn workflow(fleet: &Fleet, more: &str) -> String {
    let state = fleet.folder().join("state");
    let result = fleet.folder().join("result");
    format!(
        r#"on: push
jobs:
  release:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - id: tidegate
        uses: ./action
        with: {{binary: "{binary}", state-dir: "{state}", service: api-gateway, {more}}}
      - if: always()
        env:
          TOLD: ${{{{ steps.tidegate.outputs.state }}}} ${{{{ steps.tidegate.outputs.proven }}}} ${{{{ steps.tidegate.outputs.rollout }}}}
          CAUSE: ${{{{ steps.tidegate.outputs.cause }}}}
        run: printf '%s\n%s\n' "$TOLD" "$CAUSE" > "{result}"
"#,
        binary = env!("CARGO_BIN_EXE_tidegate"),
        state = state.display(),
        result = result.display(),
    )
}

/// The workflow under way; killed with this value.
struct Act {
    child: Child,
    log: PathBuf,
    result: PathBuf,
    _home: tempfile::TempDir,
}

impl Act {
    fn start(fleet: &Fleet, workflow: &str) -> Self {
        let folder = fleet.folder();
        fleet.write(".github/workflows/release.yml", workflow);
        let action = Path::new(env!("CARGO_MANIFEST_DIR")).join("action.yml");
        fleet.write("action/action.yml", &std::fs::read_to_string(action).unwrap());
        fleet.write(".gitignore", "state\nresult\nact.log\n");
        let git = |arguments: &[&str]| {
            let own = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"];
            let done = Command::new("git").args(own).args(arguments).current_dir(folder).output();
            assert!(done.unwrap().status.success(), "git {arguments:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "-A"]);
        git(&["commit", "-q", "-m", "all"]);
        let home = tempfile::tempdir().unwrap();
        let log = folder.join("act.log");
        let out = std::fs::File::create(&log).unwrap();
        let parts = std::env::var_os("TIDEGATE_PARTS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts"),
            PathBuf::from,
        );
        let child = Command::new(parts.join("bin/act"))
            .args(["push", "-P", "ubuntu-latest=-self-hosted", "--pull=false", "--no-cache-server"])
            .current_dir(folder)
            .env("HOME", home.path())
            .env("XDG_CACHE_HOME", home.path().join("cache"))
            .env("FAILPOINTS", "")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .expect("act, which scripts/parts installs");
        Self { child, log, result: folder.join("result"), _home: home }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the job succeeded, and what its last step wrote.
    fn ended(mut self) -> (bool, String, String) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let told = std::fs::read_to_string(&self.result).unwrap_or_default();
                return (status.success(), told, self.log());
            }
            assert!(Instant::now() < deadline, "still runs: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_promotes() {
    let fleet = fleet().await;
    let more = "pipeline: pipelines/quick.yaml, version: v2";
    let (succeeded, told, log) = Act::start(&fleet, &workflow(&fleet, more)).ended();
    assert!(succeeded, "{log}");
    assert_eq!(told.lines().next(), Some("promoted true api-gateway-1"), "{log}");
    assert_eq!(fleet.green().await, [Some(100.0), Some(100.0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_whose_rollout_goes_back_fails_with_the_reason() {
    let fleet = fleet().await;
    let more = "pipeline: pipelines/long.yaml, version: v2";
    let act = Act::start(&fleet, &workflow(&fleet, more));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let listed = call(fleet.folder(), &["list", "-o", "json"]);
        if listed.out.contains("\"Baking\"") {
            break;
        }
        assert!(Instant::now() < deadline, "{listed:?} {}", act.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    call(fleet.folder(), &["rollback", "--reason", "checkout | fails"]).expect(0);
    let (succeeded, told, log) = act.ended();
    assert!(!succeeded, "{log}");
    assert!(told.starts_with("rolled_back false api-gateway-1\n"), "{told} {log}");
    assert!(told.contains("checkout | fails"), "{told}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_that_waits_for_a_person_hands_over_and_another_goes_on() {
    let fleet = fleet().await;
    let quick = std::fs::read_to_string(fleet.folder().join("pipelines/quick.yaml")).unwrap();
    let gated =
        quick.replacen("traffic_percentage: 25", "traffic_percentage: 25\n      approvals: 1", 1);
    fleet.write("pipelines/gated.yaml", &gated);
    let more = "pipeline: pipelines/gated.yaml, version: v2, allow-handover: \"true\"";
    let (succeeded, told, log) = Act::start(&fleet, &workflow(&fleet, more)).ended();
    assert!(succeeded, "{log}");
    assert_eq!(told.lines().next(), Some("waiting false api-gateway-1"), "{log}");
    assert_eq!(fleet.green().await, [Some(0.0), Some(0.0)]);

    let stay = ["run", "--resume", "api-gateway", "--stay"];
    let mut next = Running::start(fleet.folder(), &stay);
    let read = |view: &serde_json::Value| {
        let rollout = &view["rollout"];
        let region = &rollout["regions"]["us_east_1"];
        rollout["phase"] == "gated" && region["confirmed"] == rollout["generation"]
    };
    next.until("it waits, its weights read", 20, read);
    call(fleet.folder(), &["promote", "--reason", "seen"]).expect(0);
    next.until_baking(0);
    next.kill();
}

#[test]
fn every_input_of_the_action_reaches_the_binary() {
    let action = include_str!("../../action.yml");
    let help = call(Path::new("."), &["action", "--help"]).expect(0).out;
    for variable in action.split("TIDEGATE_ACTION_").skip(1) {
        let name = variable.split(':').next().unwrap();
        assert!(help.contains(&format!("TIDEGATE_ACTION_{name}=")), "{name}: {help}");
    }
    let inputs = action.split("outputs:").next().unwrap();
    for example in ["check", "release", "rollback"] {
        let path = format!("examples/github-action/{example}.yml");
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let parsed: serde_json::Value =
            tidegate::spec::file::parse_as(example, &text.unwrap()).unwrap();
        let jobs = parsed["jobs"].as_object().unwrap().values();
        let steps = jobs.flat_map(|job| job["steps"].as_array().unwrap());
        let own = |step: &&serde_json::Value| {
            step["uses"].as_str().is_some_and(|uses| uses.contains("/tidegate@"))
        };
        let used: Vec<_> = steps.filter(own).collect();
        assert_eq!(used.len(), 1, "{example}");
        for name in used[0]["with"].as_object().unwrap().keys() {
            assert!(inputs.contains(&format!("\n  {name}:\n")), "{example}: {name}");
        }
    }
    for output in ["rollout", "state", "proven", "cause", "plan-digest", "next", "verdict", "url"] {
        assert!(action.contains(&format!("steps.tidegate.outputs.{output} ")), "{output}");
    }
}
