//! Balancers of the operator's own: the program and the endpoint of the examples, with a real HAProxy behind them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::conformance::{self, Fault, Reason, World};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::haproxy::Haproxy;
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::port::free_address;

/// An HAProxy with two pools.
struct Pools {
    haproxy: Haproxy,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
    folder: tempfile::TempDir,
}

impl Pools {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let haproxy = Haproxy::start(blue.address, green.address);
        let folder = tempfile::tempdir().unwrap();
        Self { haproxy, green_address: green.address, green: Some(green), _blue: blue, folder }
    }

    /// The program of the example and its arguments.
    fn program(&self) -> Vec<String> {
        let balancer = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/exec/balancer");
        let state = self.folder.path().join("generation");
        let [balancer, socket, state] =
            [&balancer, &self.haproxy.socket, &state].map(|path| path.display().to_string());
        [&balancer, &socket, "be", &state, "blue=blue", "green=green"].map(str::to_owned).into()
    }

    fn edit(&self, canary_percent: u32) {
        let stable = 100 - canary_percent;
        let line = format!("set weight be/green {canary_percent}; set weight be/blue {stable}");
        self.haproxy.say(&line).unwrap();
    }

    async fn happen(&mut self, fault: Fault) {
        match fault {
            Fault::Restart | Fault::Back => self.haproxy.restart(),
            Fault::Reload => self.haproxy.reload().await,
            Fault::Gone => self.haproxy.kill(),
            Fault::CanarySick => self.green = None,
            Fault::CanaryWell => {
                self.green = Some(Backend::at("green", self.green_address).await);
            }
            _ => unreachable!("lies on the way to it"),
        }
    }
}

/// The program, started by a script that can misbehave.
struct Program {
    pools: Pools,
    script: PathBuf,
}

const SCRIPT: &str = r#"#!/usr/bin/env bash
input=$(cat) mood=$(cat MOOD)
[[ $mood == Slow ]] && sleep 30
if [[ $input == *'"set"'* ]]; then
    [[ $mood == Refusing ]] && { echo 'not today' >&2; exit 4; }
    [[ $mood == Lying ]] && { echo '{"weights": {"blue": 50, "green": 50}}'; exit 0; }
fi
exec "$@" <<<"$input"
"#;

impl Program {
    async fn start() -> Self {
        let pools = Pools::start().await;
        let script = pools.folder.path().join("script");
        let mood = pools.folder.path().join("mood");
        std::fs::write(&script, SCRIPT.replace("MOOD", &mood.display().to_string())).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let own = Self { pools, script };
        own.be(Mood::Honest);
        own
    }

    fn be(&self, mood: Mood) {
        std::fs::write(self.pools.folder.path().join("mood"), format!("{mood:?}")).unwrap();
    }
}

#[async_trait]
impl World for Program {
    fn target(&self) -> String {
        let mut command = vec![self.script.display().to_string()];
        command.extend(self.pools.program());
        format!(
            "exec: {{command: {command:?}, weight_max: 256, keeps_generation: true, timeout: 10s}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        vec![
            ("exec: {command: []}".to_owned(), "a program is needed"),
            ("exec: {command: [a], timeout: 1h}".to_owned(), "at most"),
            ("exec: {command: [a], weight_max: 5}".to_owned(), "not a whole number from 100"),
            ("exec: {comand: [a]}".to_owned(), "did you mean `command`?"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.pools.haproxy.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        self.pools.edit(canary_percent);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Slow => self.be(Mood::Slow),
            Fault::Refusing => self.be(Mood::Refusing),
            Fault::Lying => self.be(Mood::Lying),
            Fault::Honest => self.be(Mood::Honest),
            other => self.pools.happen(other).await,
        }
        Ok(())
    }
}

/// The endpoint in front of the program.
struct Endpoint {
    pools: Pools,
    child: Child,
    meddler: Meddler,
}

impl Endpoint {
    async fn start() -> Self {
        let pools = Pools::start().await;
        let address = free_address();
        let child =
            Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/http/endpoint"))
                .arg(address.port().to_string())
                .args(pools.program())
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
        let own = Self { pools, child, meddler: Meddler::start(address).await };
        let deadline = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the endpoint does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        own
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[async_trait]
impl World for Endpoint {
    fn target(&self) -> String {
        let address = self.meddler.address;
        format!(
            "http: {{url: \"http://{address}/weights\", weight_max: 256, keeps_generation: true}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        vec![
            ("http: {url: \"ftp://a/b\"}".to_owned(), "url"),
            ("http: {url: \"http://u:p@a/b\"}".to_owned(), "inline_secret"),
            ("http: {url: \"http://a\", bearer: secret}".to_owned(), "env"),
            ("http: {url: \"http://169.254.169.254/\"}".to_owned(), "never called"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.pools.haproxy.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        self.pools.edit(canary_percent);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
            other => self.pools.happen(other).await,
        }
        Ok(())
    }
}

/// The suite's world of the program, begun.
pub async fn program() -> Box<dyn World> {
    Box::new(Program::start().await)
}

/// The suite's world of the endpoint, begun.
pub async fn endpoint() -> Box<dyn World> {
    Box::new(Endpoint::start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_does_what_every_adapter_must() {
    conformance::hold("exec", program().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_does_what_every_adapter_must() {
    conformance::hold("http", endpoint().await).await;
}
