//! Users of one region: requests at a steady rate, bounded in rate, number and time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Requests under way at most; more are not sent.
const UNDER_WAY_MAX: usize = 256;
/// However long a test hangs.
const REQUESTS_MAX: u64 = 100_000;
const TIME_MAX: Duration = Duration::from_secs(150);
const TICK: Duration = Duration::from_millis(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

type Users = Client<HttpConnector, Empty<Bytes>>;

/// Load on one address; ends with this value.
pub struct Load {
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// What users saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Good answers.
    pub good: AtomicU64,
    /// Failures that a server of ours answered on purpose.
    pub failed: AtomicU64,
    /// Everything else: answers of the proxy itself, broken connections, no answer in time.
    pub lost: AtomicU64,
}

impl Load {
    /// Starts `rate` requests per second.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let seen = Arc::<Seen>::default();
        let task = tokio::spawn(run(address, f64::from(rate), Arc::clone(&seen)));
        Self { seen, task }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(address: SocketAddr, rate: f64, seen: Arc<Seen>) {
    let users: Users = Client::builder(TokioExecutor::new()).build_http();
    let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let started = Instant::now();
    let (mut sent, mut skipped) = (0, 0);
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while started.elapsed() < TIME_MAX && sent < REQUESTS_MAX {
        timer.tick().await;
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        // What a busy machine made us miss is not sent in one heap.
        let most = sent + skipped + (rate / 10.0) as u64 + 1;
        skipped += due.saturating_sub(most);
        while sent + skipped < due {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                skipped += 1;
                continue;
            };
            sent += 1;
            let (users, seen) = (users.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                seen.count(one(&users, address).await);
                drop(place);
            });
        }
    }
}

/// Whether a server answered, and whether well.
async fn one(users: &Users, address: SocketAddr) -> Option<bool> {
    let uri = format!("http://{address}/").parse().unwrap();
    let answer = async {
        let response = users.get(uri).await.ok()?;
        let (good, ours) =
            (response.status().is_success(), response.headers().contains_key("x-backend"));
        response.into_body().collect().await.ok()?;
        ours.then_some(good)
    };
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok().flatten()
}

impl Seen {
    fn count(&self, answered: Option<bool>) {
        let counter = match answered {
            Some(true) => &self.good,
            Some(false) => &self.failed,
            None => &self.lost,
        };
        counter.fetch_add(1, Relaxed);
    }
}
