//! What a supervisor and Prometheus ask of the daemon: `/healthz`, `/readyz`, `/metrics`. Nothing can be changed here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::reported::Reported;
use super::{Current, metrics};
use crate::units::RolloutId;

/// How often the loop says that it is alive.
pub const BEAT: Duration = Duration::from_millis(250);
/// A loop that has been silent for longer does not work.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Signs of life.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    /// Time of the newest beat, in milliseconds since the start.
    beat_ms: AtomicU64,
    /// How late it was.
    lag_ms: AtomicU64,
    /// Every rollout was taken up.
    resumed: AtomicBool,
    state: PathBuf,
    /// Numbers that the fleet asks for.
    pub reported: Reported,
}

impl Health {
    /// For a daemon on this state directory, not ready yet.
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        Self {
            started: Instant::now(),
            beat_ms: AtomicU64::new(0),
            lag_ms: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
            state,
            reported: Reported::default(),
        }
    }

    /// The loop lives, and came so late.
    pub fn beat(&self, lag: Duration) {
        self.beat_ms.store(millis(self.started.elapsed()), Ordering::Relaxed);
        self.lag_ms.store(millis(lag), Ordering::Relaxed);
    }

    /// Every rollout was taken up, or is about to be taken up anew.
    pub fn resumed(&self, all: bool) {
        self.resumed.store(all, Ordering::Relaxed);
    }

    /// How late the loop was last, in seconds.
    #[must_use]
    pub fn lag_seconds(&self) -> f64 {
        self.lag_ms.load(Ordering::Relaxed) as f64 / 1e3
    }

    /// Nothing is wrong with the loop.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A beat may come between the two readings.
        let beat = self.beat_ms.load(Ordering::Relaxed);
        millis(self.started.elapsed()).saturating_sub(beat) <= millis(SILENCE_MAX)
    }

    /// Why it should not be relied on; none when it can be.
    async fn not_ready(&self, rollouts: &Current) -> Option<String> {
        if let Some(id) = silent(rollouts) {
            return Some(format!("{id} does not turn any more"));
        }
        if !self.is_alive() {
            return Some("the loop is silent".to_owned());
        }
        if !self.resumed.load(Ordering::Relaxed) {
            return Some("not every rollout is taken up yet".to_owned());
        }
        let state = self.state.clone();
        let written = tokio::task::spawn_blocking(move || {
            let file = tempfile::Builder::new().prefix(".ready-").tempfile_in(state)?;
            std::io::Write::write_all(&mut file.as_file(), b"ready")?;
            file.as_file().sync_data()
        });
        match written.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the state cannot be written: {}", error.kind())),
            Err(_) => Some("the state cannot be written".to_owned()),
        }
    }
}

/// A rollout under way whose own loop has not turned for long.
#[must_use]
pub fn silent(rollouts: &Current) -> Option<RolloutId> {
    let rollouts = Arc::clone(&rollouts.borrow());
    rollouts.silent(SILENCE_MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone)]
struct Told {
    health: Arc<Health>,
    rollouts: Current,
    counted: Arc<metrics::Counted>,
}

/// Why there is no such port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Everybody could read it.
    #[error("{0} is beyond loopback, and this port has neither TLS nor tokens yet")]
    Open(SocketAddr),
    /// The operating system says no.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Its words.
        source: std::io::Error,
    },
}

/// A port that is open; it closes when this is dropped.
#[derive(Debug)]
pub struct Open {
    /// Where.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens the port.
///
/// # Errors
/// It lies beyond loopback, or cannot be opened.
pub async fn serve_health(
    address: SocketAddr,
    health: Arc<Health>,
    rollouts: Current,
) -> Result<Open, Error> {
    if !address.ip().is_loopback() {
        return Err(Error::Open(address));
    }
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let told = Told { health, rollouts, counted: Arc::default() };
    let router = Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .with_state(told);
    let task = tokio::spawn(async move {
        // An error of one connection does not end it.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Open { address, task })
}

async fn alive(State(told): State<Told>) -> (StatusCode, &'static str) {
    match told.health.is_alive() {
        true => (StatusCode::OK, "alive\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the loop is silent\n"),
    }
}

async fn ready(State(told): State<Told>) -> (StatusCode, String) {
    match told.health.not_ready(&told.rollouts).await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn numbers(State(told): State<Told>) -> ([(&'static str, &'static str); 1], String) {
    let rollouts = Arc::clone(&told.rollouts.borrow());
    let all = rollouts.list().await.unwrap_or_default();
    let own = metrics::render(&all, &told.counted, told.health.lag_seconds());
    let text = told.health.reported.render() + &own;
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
