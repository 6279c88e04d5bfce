//! A real Caddy.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::port::free_address;

/// One with the handler `web`, whose upstreams begin at 1 and 0; killed with this value.
pub struct Caddy {
    child: Option<Child>,
    pub listener: SocketAddr,
    pub admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Caddy {
    /// Starts it in front of two servers, and waits until it answers. `green` comes first in its list. `origin`: where
    /// its admin API is asked through.
    pub async fn start(
        blue: SocketAddr,
        green: SocketAddr,
        admin: SocketAddr,
        origin: SocketAddr,
    ) -> Self {
        let (folder, listener) = (tempfile::tempdir().unwrap(), free_address());
        let config = json!({
            "admin": {"listen": admin, "origins": [admin, origin]},
            "apps": {"http": {"servers": {"web": {
                "listen": [listener],
                "automatic_https": {"disable": true},
                "routes": [{"handle": [{
                    "@id": "web",
                    "handler": "reverse_proxy",
                    "upstreams": [{"dial": green}, {"dial": blue}],
                    "load_balancing": {"selection_policy": {"policy": "weighted_round_robin", "weights": [0, 1]}},
                    "health_checks": {"active": {"uri": "/", "interval": "200ms", "timeout": "10s"}},
                }]}],
            }}}},
        });
        std::fs::write(folder.path().join("caddy.json"), config.to_string()).unwrap();
        let mut own = Self { child: None, listener, admin, folder };
        own.restart(false).await;
        own
    }

    /// Kills it and starts it again, with its file or (`resume`) with what it was told last.
    pub async fn restart(&mut self, resume: bool) {
        self.kill();
        let mut command = Command::new(super::installed("caddy"));
        command.args(["run", "--config"]).arg(self.folder.path().join("caddy.json"));
        if resume {
            command.arg("--resume");
        }
        let child = command
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("XDG_DATA_HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("caddy: scripts/parts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.handler().await.is_none() {
            assert!(Instant::now() < deadline, "Caddy does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Gives it its file again, as `systemctl reload` does.
    pub async fn reload(&self) {
        let file = std::fs::read(self.folder.path().join("caddy.json")).unwrap();
        let file = serde_json::from_slice(&file).unwrap();
        self.change(reqwest::Method::POST, "load", file).await;
    }

    /// What somebody tells it.
    pub async fn change(&self, method: reqwest::Method, path: &str, body: Value) {
        let url = format!("http://{}/{path}", self.admin);
        // Its changes end idle connections.
        let answer = super::client().request(method, url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// The handler as it is; none while nobody answers.
    pub async fn handler(&self) -> Option<Value> {
        super::client()
            .get(format!("http://{}/id/web", self.admin))
            .send()
            .await
            .ok()?
            .json()
            .await
            .ok()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        self.kill();
    }
}
