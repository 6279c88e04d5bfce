//! A fleet of one region with two Envoys that fetch their routes from the binary, and the files that describe it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::parts::backend::{Backend, Traffic};
use crate::parts::envoy::{Envoy, EnvoyConfig, Rds, route_yaml};
use crate::parts::port::free_address;
use crate::parts::prometheus::Prometheus;

/// Requests per second at each Envoy.
const RATE: u64 = 60;

/// Two backends behind two Envoys, and the files. Everything ends with it, also when a test panics.
pub struct Fleet {
    pub envoys: Vec<Envoy>,
    loads: Vec<JoinHandle<()>>,
    witness: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Sighting>>>,
    prometheus: Option<Prometheus>,
    _backends: [Backend; 2],
    xds: SocketAddr,
    folder: tempfile::TempDir,
}

/// The weight of `green` that an Envoy showed for the first time after another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    pub envoy: usize,
    pub at_ms: u64,
    pub percent: f64,
}

impl Fleet {
    /// Starts the Envoys; they have no routes before somebody serves them. All their traffic goes to `blue` first.
    pub async fn start() -> Self {
        let backends = [Backend::start("blue").await, Backend::start("green").await];
        let xds = free_address();
        let envoys = (1..=2).map(|number| {
            Envoy::spawn(EnvoyConfig {
                node_id: format!("edge-{number}"),
                node_cluster: "us_east_1".to_owned(),
                route: "web".to_owned(),
                backends: ["blue", "green"]
                    .iter()
                    .zip(&backends)
                    .map(|(slot, backend)| (format!("api-{slot}"), vec![backend.address]))
                    .collect::<BTreeMap<_, _>>(),
                rds: Rds::Grpc(xds),
                health_checks: false,
            })
        });
        let fleet = Self {
            envoys: envoys.collect(),
            loads: Vec::new(),
            witness: None,
            seen: Arc::default(),
            prometheus: None,
            _backends: backends,
            xds,
            folder: tempfile::tempdir().unwrap(),
        };
        fleet.write_route(100, 0);
        fleet.write_fleet("http://127.0.0.1:9", &fleet.admin_addresses());
        fleet
    }

    /// Adds what a rollout needs: Prometheus, users, the pipelines and analyses.
    pub async fn with_metrics(mut self) -> Self {
        let jobs: Vec<_> = self.envoys.iter().enumerate().map(job).collect();
        let prometheus = Prometheus::scraping(&jobs).await;
        self.write_fleet(&prometheus.url, &self.admin_addresses());
        self.prometheus = Some(prometheus);
        self.write("pipelines/quick.yaml", &pipeline(3));
        self.write("pipelines/long.yaml", &pipeline(600));
        for (name, text) in ANALYSES {
            self.write(&format!("analysis/{name}.yaml"), text);
        }
        self
    }

    /// Users come, and every weight that an Envoy shows is noted from now on.
    pub async fn open(&mut self) {
        for envoy in &mut self.envoys {
            envoy.ready().await;
        }
        self.loads = self.envoys.iter().map(|envoy| tokio::spawn(load(envoy.traffic()))).collect();
        let admin: Vec<_> = self.envoys.iter().map(|envoy| Dump(envoy.admin)).collect();
        self.witness = Some(tokio::spawn(watch(admin, Arc::clone(&self.seen))));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn write_route(&self, blue: u32, green: u32) {
        self.write("route.yaml", &route_yaml("web", [("api-blue", blue), ("api-green", green)]));
    }

    pub fn admin_addresses(&self) -> Vec<String> {
        self.envoys.iter().map(|envoy| format!("http://{}", envoy.admin)).collect()
    }

    pub fn write_fleet(&self, prometheus: &str, admin: &[String]) {
        let admin = serde_json::to_string(admin).unwrap();
        let xds = self.xds;
        self.write(
            "tidegate.yaml",
            &format!(
                r#"state: state
xds: {{listen: "{xds}"}}
regions:
  us_east_1:
    share: 100%
    instances: 2
    labels: {{region: us-east-1}}
    prometheus: {{url: "{prometheus}"}}
    scrape_interval: 1s
services:
  api-gateway:
    authority: full
    slots: [blue, green]
    metrics: {{version: "{{version}}", cluster: "api-{{slot}}"}}
    targets:
      us_east_1:
        - name: edge
          envoy:
            route: web
            route_file: route.yaml
            clusters: {{blue: api-blue, green: api-green}}
            min_instances: 2
            admin: {admin}
"#
            ),
        );
    }

    /// The weights of `green` in force, in percent.
    pub async fn green(&self) -> Vec<Option<f64>> {
        let mut all = Vec::new();
        for envoy in &self.envoys {
            all.push(Dump(envoy.admin).green().await);
        }
        all
    }

    /// Every change of weight that was seen so far.
    pub fn seen(&self) -> Vec<Sighting> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.loads.iter().chain(&self.witness).for_each(JoinHandle::abort);
    }
}

/// Two stages: a canary, and everybody.
fn pipeline(seconds: u32) -> String {
    format!(
        r#"deployment_pipeline:
  regional_stages:
    canary:
      regions: [us_east_1]
      traffic_percentage: 25
      validation_criteria: [error_rate_increase < 25%]
      duration: {seconds}s
      max_duration: 900s
      min_requests: 50
    everybody:
      regions: [us_east_1]
      traffic_percentage: 100
      validation_criteria: [envoys_up]
      duration: 2s
      max_duration: 900s
      min_requests: 50
  rollback_procedures:
    automatic_rollback_triggers: [error_rate > 50%]
"#
    )
}

const ANALYSES: [(&str, &str); 2] = [
    (
        "error_rate",
        r#"kind: proportion
unit: requests
bad: envoy_cluster_upstream_rq_xx{region="$region", envoy_cluster_name="$cluster", envoy_response_code_class="5"}
total: envoy_cluster_upstream_rq_xx{region="$region", envoy_cluster_name="$cluster"}
"#,
    ),
    ("envoys_up", "kind: check\npromql: min(up{region=\"$region\"}) > 0\nevery: 1s\ntimeout: 1s\n"),
];

fn job((number, envoy): (usize, &Envoy)) -> String {
    format!(
        "{{job_name: edge-{number}, metrics_path: /stats/prometheus, static_configs: \
         [{{targets: ['{}'], labels: {{region: us-east-1}}}}]}}",
        envoy.admin
    )
}

async fn load(traffic: Traffic) {
    let mut timer = tokio::time::interval(Duration::from_millis(1_000 / RATE));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        traffic.once().await;
    }
}

async fn watch(envoys: Vec<Dump>, seen: Arc<Mutex<Vec<Sighting>>>) {
    let mut last = vec![None; envoys.len()];
    loop {
        for (envoy, (dump, last)) in envoys.iter().zip(&mut last).enumerate() {
            if let Some(percent) = dump.green().await.filter(|now| Some(*now) != *last) {
                *last = Some(percent);
                seen.lock().unwrap().push(Sighting { envoy, at_ms: now_ms(), percent });
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// The admin port of one Envoy.
struct Dump(SocketAddr);

impl Dump {
    /// The weight of `green` that it shows, in percent; `None` without any.
    async fn green(&self) -> Option<f64> {
        use http_body_util::{BodyExt, Empty};
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build_http::<Empty<hyper::body::Bytes>>();
        let uri = format!("http://{}/config_dump?resource=dynamic_route_configs", self.0);
        let answer = client.get(uri.parse().unwrap()).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        let dump: Value = serde_json::from_slice(&body).ok()?;
        let clusters = dump
            .pointer(
                "/configs/0/route_config/virtual_hosts/0/routes/0/route/weighted_clusters/clusters",
            )?
            .as_array()?;
        // Protobuf leaves a weight of 0 out.
        let weight = |slot: &str| {
            let one = clusters.iter().find(|one| one["name"] == format!("api-{slot}"))?;
            Some(one["weight"].as_f64().unwrap_or_default())
        };
        let (blue, green) = (weight("blue")?, weight("green")?);
        Some(green / (blue + green) * 100.0)
    }
}
