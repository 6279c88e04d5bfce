//! A real Alertmanager.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::port::free_address;

/// One that keeps what it is told; killed with this value.
pub struct Alertmanager {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
            .unwrap();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus-alertmanager: apt-get install -y prometheus-alertmanager");
        let own = Self { child, url: format!("http://{address}"), _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(20);
        while own.alerts().await.is_none() {
            assert!(Instant::now() < deadline, "Alertmanager does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        own
    }

    /// Everything that it has; none while it does not answer.
    pub async fn alerts(&self) -> Option<Vec<Value>> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("{}/api/v2/alerts", self.url)).send().await.ok()?;
        answer.json().await.ok()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
