//! The data plane: a proxy over two pools whose weights a controller gives it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;

/// A proxy; gone with this value.
pub struct Gateway {
    pub address: SocketAddr,
    pub weights: Arc<Weights>,
    task: JoinHandle<()>,
}

/// Those of the two pools.
#[derive(Debug, Default)]
pub struct Weights {
    pair: Mutex<[u64; 2]>,
    turn: AtomicU64,
}

#[derive(Clone)]
struct Inside {
    weights: Arc<Weights>,
    pools: [SocketAddr; 2],
    client: Client<HttpConnector, Body>,
}

impl Weights {
    pub fn be(&self, pair: [u64; 2]) {
        *self.pair.lock().unwrap() = pair;
    }

    /// Which pool's turn it is; none when nobody has any weight.
    fn next(&self) -> Option<usize> {
        let [one, other] = *self.pair.lock().unwrap();
        let sum = u128::from(one + other);
        let turn = u128::from(self.turn.fetch_add(1, Ordering::Relaxed));
        let before = |turn: u128| turn * u128::from(one) / sum;
        (sum > 0).then(|| usize::from(before(turn + 1) == before(turn)))
    }
}

impl Gateway {
    pub async fn start(pools: [SocketAddr; 2]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weights = Arc::new(Weights::default());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let inside = Inside { weights: Arc::clone(&weights), pools, client };
        let app = axum::Router::new().fallback(pass).with_state(inside);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, weights, task }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(inside): State<Inside>, mut request: Request) -> Response {
    let Some(pool) = inside.weights.next() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("http://{}{path}", inside.pools[pool]).parse::<Uri>().unwrap();
    match inside.client.request(request).await {
        Ok(answer) => answer.map(Body::new).into_response(),
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
