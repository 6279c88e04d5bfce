//! A real Prometheus for one test, and something for it to scrape.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::port::free_address;

/// A Prometheus that scrapes each second; gone with this value, also when the test panics.
pub struct Prometheus {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it for these targets (job name, `host:port`) and waits until it answers.
    ///
    /// Panics with the command that installs it when it is missing.
    pub async fn start(targets: &[(&str, String)]) -> Self {
        let job = |(job, target): &(&str, String)| {
            format!("{{job_name: {job}, static_configs: [{{targets: [\"{target}\"]}}]}}")
        };
        Self::scraping(&targets.iter().map(job).collect::<Vec<_>>()).await
    }

    /// The same for whole entries of `scrape_configs`, each one line of YAML.
    pub async fn scraping(jobs: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config =
            String::from("global: {scrape_interval: 1s, scrape_timeout: 900ms}\nscrape_configs:\n");
        for job in jobs {
            config += &format!("  - {job}\n");
        }
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a written file");
        Self::on(folder).await
    }

    /// One that scrapes nothing and has the past that an OpenMetrics text tells.
    pub async fn with_past(open_metrics: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let past = folder.path().join("past.txt");
        std::fs::write(&past, open_metrics).expect("a written file");
        std::fs::write(folder.path().join("prometheus.yml"), "").expect("a written file");
        let blocks = ["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"];
        let written = Command::new("promtool")
            .args(blocks)
            .args([&past, &folder.path().join("data")])
            .output()
            .expect("promtool, which comes with prometheus");
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        Self::on(folder).await
    }

    async fn on(folder: tempfile::TempDir) -> Self {
        let address = free_address();
        let child = spawn(folder.path(), address);
        let mut server = Self { child, url: format!("http://{address}"), folder };
        assert!(server.is_ready().await, "prometheus does not start");
        server
    }

    /// Kills it, as when it crashes.
    pub fn kill(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`kill`](Self::kill), where it was and with what it had.
    pub async fn restart(&mut self) {
        self.kill();
        let address = self.url.trim_start_matches("http://").parse().expect("our own address");
        self.child = spawn(self.folder.path(), address);
        assert!(self.is_ready().await, "prometheus does not start again");
    }

    async fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(30);
        let address = self.url.trim_start_matches("http://").to_owned();
        while Instant::now() < deadline {
            if self.child.try_wait().expect("a child of ours").is_some() {
                return false;
            }
            if is_ok(&address, "/-/ready").await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("prometheus is not ready after 30 s");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &std::path::Path, address: SocketAddr) -> Child {
    Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        // What a test tells of the past may be older than what is usually kept.
        .arg("--storage.tsdb.retention.time=10y")
        .arg("--log.level=error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "prometheus cannot be started ({error}); install it: apt-get install -y prometheus"
            )
        })
}

async fn is_ok(address: &str, path: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return false };
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    let mut answer = Vec::new();
    stream.write_all(request.as_bytes()).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.0 200")
}

/// A server on loopback; gone with this value.
pub struct Server {
    /// `127.0.0.1:PORT`.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves these routes.
    pub async fn start(routes: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("a server that runs until it is dropped");
        });
        Self { address, task }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A target whose `/metrics` says what it is told to.
pub struct Exporter {
    /// Where.
    pub server: Server,
    text: Arc<Mutex<String>>,
}

impl Exporter {
    /// Says nothing yet.
    pub async fn start() -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&text);
        let answer = move || {
            let now = said.lock().expect("not poisoned").clone();
            // Without kept connections, so that dropping the server stops it for good.
            async move {
                ([("content-type", "text/plain; version=0.0.4"), ("connection", "close")], now)
            }
        };
        let server = Server::start(Router::new().route("/metrics", get(answer))).await;
        Self { server, text }
    }

    /// From now on it says this.
    pub fn say(&self, text: &str) {
        text.clone_into(&mut self.text.lock().expect("not poisoned"));
    }
}
