//! Tiny HTTP servers that say who they are, and load that counts them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

/// A server that answers every request with 200 and `x-backend: <name>`; ends with its value.
pub struct Backend {
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub async fn start(name: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app =
            axum::Router::new().fallback(move || async move { ([("x-backend", name)], name) });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, task }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who answered how often; failures are counted under `error`.
pub type Counts = BTreeMap<String, u64>;

/// Sends requests to one address over keep-alive connections.
#[derive(Clone)]
pub struct Traffic {
    address: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Traffic {
    pub fn to(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// The name of the backend that answered, or `error`.
    pub async fn once(&self) -> String {
        let uri = format!("http://{}/", self.address).parse().unwrap();
        let Ok(response) = self.client.get(uri).await else { return "error".to_owned() };
        let name =
            response.headers().get("x-backend").map(|name| name.to_str().unwrap().to_owned());
        let whole = response.into_body().collect().await;
        name.filter(|_| whole.is_ok()).unwrap_or_else(|| "error".to_owned())
    }

    /// Sends `requests` over eight connections.
    pub async fn send(&self, requests: u64) -> Counts {
        let left = Arc::new(AtomicU64::new(requests));
        self.flow(move || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        })
        .await
    }

    /// Sends until `stop` is set.
    pub async fn send_until(&self, stop: Arc<AtomicBool>) -> Counts {
        self.flow(move || !stop.load(Ordering::Relaxed)).await
    }

    async fn flow(&self, more: impl Fn() -> bool + Clone + Send + 'static) -> Counts {
        let workers = (0..8).map(|_| {
            let (this, more) = (self.clone(), more.clone());
            tokio::spawn(async move {
                let mut counts = Counts::new();
                while more() {
                    *counts.entry(this.once().await).or_default() += 1;
                }
                counts
            })
        });
        let mut all = Counts::new();
        for worker in workers.collect::<Vec<_>>() {
            for (name, count) in worker.await.unwrap() {
                *all.entry(name).or_default() += count;
            }
        }
        all
    }
}
