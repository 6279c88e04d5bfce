//! One HAProxy with several backends over the same two servers, its own counters, and users.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::binary_xds::process::call;
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::haproxy::Haproxy;
use crate::parts::port::free_address;

/// Pause between two requests of one kind of users.
const PAUSE: Duration = Duration::from_millis(4);

/// HAProxy's own counters, told apart by the backend that a region's labels name.
const ERROR_RATE: &str = r#"kind: proportion
unit: requests
bad: haproxy_server_http_responses_total{proxy="$backend", server="$server", code="5xx"}
total: haproxy_server_http_responses_total{proxy="$backend", server="$server"}
"#;

/// Appends its arguments to `calls`.
const HOOK: &str = "#!/bin/sh\necho \"$@\" >> calls\n";

/// Everything ends with it.
pub struct World {
    pub haproxy: Haproxy,
    /// Where HAProxy tells its counters.
    pub metrics: SocketAddr,
    users: Vec<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
    folder: tempfile::TempDir,
    _servers: [Backend; 2],
}

impl World {
    /// `rules` of the frontend before the backend `be`; further backends, with a port of their own or none.
    pub async fn start(rules: &str, backends: &[(&str, Option<SocketAddr>)]) -> Self {
        let servers = [Backend::start("blue").await, Backend::start("green").await];
        let [blue, green] = [servers[0].address, servers[1].address];
        let metrics = free_address();
        let mut sections = format!(
            "frontend metrics\n  bind {metrics}\n  http-request use-service prometheus-exporter\n"
        );
        for (name, port) in backends {
            let bind = |port| format!("frontend {name}\n  bind {port}\n  default_backend {name}\n");
            sections += &port.map(bind).unwrap_or_default();
            sections += &Haproxy::backend(name, blue, green);
        }
        let haproxy = Haproxy::start_with(blue, green, rules, &sections);
        let world = Self {
            haproxy,
            metrics,
            users: Vec::new(),
            lost: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
            _servers: servers,
        };
        world.write("analysis/error_rate.yaml", ERROR_RATE);
        world.write("hook.sh", HOOK);
        world
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A fleet of one service whose targets are backends of this HAProxy, by region.
    pub fn write_fleet(&self, regions: &str, backends: &[(&str, &str)]) {
        let hook =
            |name: &str| format!("{name}: [sh, hook.sh, {name}, \"{{region}}\", \"{{slot}}\"]");
        let hooks = ["deploy", "persist", "promote", "retire"].map(hook).join(", ");
        let socket = self.haproxy.socket.display();
        let targets: String = backends
            .iter()
            .map(|(region, backend)| {
                format!("      {region}: [{{name: edge, haproxy: {{socket: {socket}, backend: {backend}, servers: {{blue: blue, green: green}}}}}}]\n")
            })
            .collect();
        let text = format!(
            "state: state\nregions:\n{regions}services:\n  web:\n    authority: full\n    slots: [blue, green]\n    metrics: {{server: \"{{slot}}\"}}\n    hooks: {{{hooks}}}\n    targets:\n{targets}"
        );
        self.write("tidegate.yaml", &text);
    }

    /// Users of one kind, 250 requests a second at most.
    pub fn users(&mut self, traffic: Traffic) {
        let lost = Arc::clone(&self.lost);
        self.users.push(tokio::spawn(async move {
            let mut timer = tokio::time::interval(PAUSE);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                timer.tick().await;
                if traffic.once().await == "error" {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }

    /// Users whose requests nobody answered.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What hooks were called with.
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// All facts, oldest first.
    pub fn events(&self) -> Vec<Value> {
        let all = call(self.folder(), &["history", "web", "--limit", "10000", "-o", "json"]);
        let all = all.expect(0).json();
        all.as_array().unwrap().iter().map(|row| row[1]["event"].clone()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.users.iter().for_each(JoinHandle::abort);
    }
}

/// Percent of the answers that came from green; every request has to have one.
#[track_caller]
pub fn green(counts: &Counts) -> f64 {
    let of = |name: &str| counts.get(name).copied().unwrap_or_default() as f64;
    assert_eq!(counts.get("error"), None, "{counts:?}");
    100.0 * of("green") / (of("green") + of("blue"))
}
