//! A real Traefik.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::port::free_address;

/// One whose router sends everybody to the weighted service `web`; killed with this value.
pub struct Traefik {
    child: Option<Child>,
    pub listener: SocketAddr,
    pub api: SocketAddr,
    /// The file with the weighted service, where it comes from one.
    pub path: PathBuf,
    /// What its API answers once it is there.
    ready: &'static str,
    folder: tempfile::TempDir,
}

impl Traefik {
    /// Starts it in front of two servers, with the weighted service in a file that begins at `blue` for all, and waits
    /// until it answers.
    pub async fn start(blue: SocketAddr, green: SocketAddr) -> Self {
        Self::with(blue, green, None).await
    }

    /// Starts it in front of two servers; `provider` is what its HTTP provider is told: `endpoint: ...`.
    pub async fn fetching(blue: SocketAddr, green: SocketAddr, provider: &str) -> Self {
        Self::with(blue, green, Some(provider)).await
    }

    async fn with(blue: SocketAddr, green: SocketAddr, provider: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listener, api, at) = (free_address(), free_address(), folder.path().display());
        let (http, service, ready) = match provider {
            Some(told) => (format!(", http: {{{told}}}"), "web@http", "api/version"),
            None => (String::new(), "web", "api/http/services/web@file"),
        };
        let config = format!(
            "global: {{checkNewVersion: false, sendAnonymousUsage: false}}\n\
             entryPoints: {{web: {{address: \"{listener}\"}}, traefik: {{address: \"{api}\"}}}}\n\
             api: {{insecure: true}}\nlog: {{level: ERROR}}\nmetrics: {{prometheus: {{addServicesLabels: true}}}}\n\
             providers: {{providersThrottleDuration: 50ms, file: {{directory: \"{at}/dynamic\", watch: true}}{http}}}\n"
        );
        let check = "healthCheck: {path: /, interval: 200ms, timeout: 10s}";
        let routes = format!(
            "http:\n  routers: {{web: {{rule: \"PathPrefix(`/`)\", entryPoints: [web], service: {service}}}}}\n  services:\n    \
             blue: {{loadBalancer: {{servers: [{{url: \"http://{blue}\"}}], {check}}}}}\n    \
             green: {{loadBalancer: {{servers: [{{url: \"http://{green}\"}}], {check}}}}}\n"
        );
        std::fs::create_dir(folder.path().join("dynamic")).unwrap();
        std::fs::write(folder.path().join("traefik.yaml"), config).unwrap();
        std::fs::write(folder.path().join("dynamic/routes.yaml"), routes).unwrap();
        let path = folder.path().join("dynamic/web.yaml");
        let mut own = Self { child: None, listener, api, path, ready, folder };
        if provider.is_none() {
            own.edit(0);
        }
        own.restart().await;
        own
    }

    /// What a person with an editor writes: a share, and nothing else of what is there.
    pub fn edit(&self, green_percent: u32) {
        let blue = 100 - green_percent;
        let mut lines: Vec<_> = std::fs::read_to_string(&self.path)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let wanted = [("blue", blue), ("green", green_percent)]
            .map(|(name, weight)| format!("          - {{name: \"{name}\", weight: {weight}}}"));
        let first = lines.iter().position(|line| line.contains(", weight: "));
        match first {
            Some(first) => lines[first..first + 2].clone_from_slice(&wanted),
            None => {
                let head = "http:\n  services:\n    web:\n      weighted:\n        services:";
                lines = head.lines().map(str::to_owned).chain(wanted).collect();
            }
        }
        self.put("web.yaml", &lines.join("\n"));
    }

    /// A file of the watched folder, by rename.
    pub fn put(&self, name: &str, text: &str) {
        let (path, beside) = (self.dynamic(name), self.dynamic(&format!("{name}.new")));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    fn dynamic(&self, name: &str) -> PathBuf {
        self.folder.path().join("dynamic").join(name)
    }

    /// Another file of the folder is broken, so that it takes no change any more; or it can again.
    pub fn spoil(&self, spoilt: bool) {
        self.put("other.yaml", if spoilt { "http: [" } else { "" });
    }

    /// Its file is a link to another one, which must not be replaced; or it is a file again.
    pub fn link(&self, linked: bool) {
        let aside = self.folder.path().join("aside.yaml");
        if linked {
            std::fs::rename(&self.path, &aside).unwrap();
            std::os::unix::fs::symlink(&aside, &self.path).unwrap();
        } else if aside.exists() {
            std::fs::rename(&aside, &self.path).unwrap();
        }
    }

    /// Takes all files again.
    pub fn reload(&self) {
        let routes = std::fs::read_to_string(self.dynamic("routes.yaml")).unwrap();
        self.put("routes.yaml", &routes);
    }

    /// Kills it and starts it again with its files.
    pub async fn restart(&mut self) {
        self.kill();
        let child = Command::new(super::installed("traefik"))
            .arg(format!("--configFile={}", self.folder.path().join("traefik.yaml").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("traefik: scripts/parts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        let url = format!("http://{}/{}", self.api, self.ready);
        loop {
            let answer = super::client().get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(Instant::now() < deadline, "Traefik does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Traefik {
    fn drop(&mut self) {
        self.kill();
    }
}
