//! A version of the service that can be told to fail or to slow down.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::task::JoinHandle;

/// Time that a request takes at normal speed: evenly spread over this.
const DELAY_MS: std::ops::Range<f64> = 10.0..40.0;

/// One pool's server; gone with this value.
pub struct Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    slot: &'static str,
    failing_per_mille: AtomicU32,
    slowdown: AtomicU32,
    random: Mutex<Pcg64Mcg>,
    first_failure: Mutex<Option<Instant>>,
}

impl Server {
    /// Starts a good one.
    pub async fn start(slot: &'static str, seed: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            slot,
            failing_per_mille: AtomicU32::new(0),
            slowdown: AtomicU32::new(1),
            random: Mutex::new(Pcg64Mcg::seed_from_u64(seed)),
            first_failure: Mutex::new(None),
        });
        let (answering, scraped) = (Arc::clone(&shared), Arc::clone(&shared));
        let routes = Router::new()
            .route("/metrics", get(move || async move { scraped.metrics() }))
            .fallback(move || {
                let shared = Arc::clone(&answering);
                async move { shared.answer().await }
            });
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, shared, task }
    }

    /// From now on this part of the requests fails.
    pub fn fail(&self, share: f64) {
        self.shared.failing_per_mille.store((share * 1_000.0) as u32, Relaxed);
    }

    /// From now on every request takes so many times as long.
    pub fn slow_down(&self, times: u32) {
        self.shared.slowdown.store(times, Relaxed);
    }

    /// The next failure counts as the first.
    pub fn forget_failures(&self) {
        *self.shared.first_failure.lock().unwrap() = None;
    }

    /// When it first failed a request, if it has.
    pub fn first_failure(&self) -> Option<Instant> {
        *self.shared.first_failure.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn answer(&self) -> Response {
        let (delay_ms, lot) = {
            let mut random = self.random.lock().unwrap();
            (random.random_range(DELAY_MS), random.random_range(0..1_000))
        };
        let slowdown = f64::from(self.slowdown.load(Relaxed));
        tokio::time::sleep(Duration::from_secs_f64(delay_ms * slowdown / 1_000.0)).await;
        let name = [("x-backend", self.slot)];
        if lot < self.failing_per_mille.load(Relaxed) {
            self.first_failure.lock().unwrap().get_or_insert_with(Instant::now);
            return (StatusCode::INTERNAL_SERVER_ERROR, name).into_response();
        }
        (name, self.slot).into_response()
    }

    /// Users' satisfaction, which moves a little.
    fn metrics(&self) -> impl IntoResponse + use<> {
        let score = self.random.lock().unwrap().random_range(4.7..4.9);
        let text = format!("user_satisfaction_score{{slot=\"{}\"}} {score}\n", self.slot);
        ([("content-type", "text/plain; version=0.0.4")], text)
    }
}
