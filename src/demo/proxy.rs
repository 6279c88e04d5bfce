//! One region's proxy: sends each request to a slot by weight, and tells and takes its weights on an admin port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use rand::RngExt;
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

use super::http::{Client, Reply, lock, reply, whole_body};
use crate::ports::{Backends, Split};
use crate::units::{Generation, SlotName, Weight};

/// Path of the admin port where weights are read and set.
pub(super) const WEIGHTS_PATH: &str = "/weights";
/// Time between two health pings of a pool.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A pool that takes longer to answer a ping is not healthy.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What a PUT on the admin port asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Every slot, in hundredths of a percent; they sum to 100 %.
    pub weights: Split,
    /// Not older than the newest seen.
    pub generation: Generation,
}

/// What the proxy does now, as its admin port tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The table that requests are sent by.
    pub weights: Split,
    /// The newest generation set; `None` before the first.
    pub generation: Option<Generation>,
    /// Servers by slot.
    pub pools: BTreeMap<SlotName, Backends>,
    /// Changes when the proxy restarts.
    pub started: String,
}

/// A slot and its one server.
struct Pool {
    slot: SlotName,
    client: Client,
    healthy: AtomicBool,
}

/// What changes.
struct Table {
    /// By pool, in the same order; sums to 10,000.
    weights: Vec<Weight>,
    generation: Option<Generation>,
    draws: Pcg64,
}

/// One proxy.
pub(super) struct Proxy {
    pools: Vec<Pool>,
    table: Mutex<Table>,
    started: String,
}

impl Proxy {
    /// A proxy in front of `pools` (slot, weight, server) whose weights sum to 100 %; `draws` picks the slots.
    pub fn new(pools: Vec<(SlotName, Weight, SocketAddr)>, started: String, draws: Pcg64) -> Self {
        let weights = pools.iter().map(|(_, weight, _)| *weight).collect();
        let pool = |(slot, _, address)| Pool {
            slot,
            client: Client::new(address),
            healthy: AtomicBool::new(false),
        };
        Self {
            pools: pools.into_iter().map(pool).collect(),
            table: Mutex::new(Table { weights, generation: None, draws }),
            started,
        }
    }

    /// Passes one request of a user on; `/health` answers for the proxy itself.
    pub async fn pass(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if path == "/health" {
            return self.health();
        }
        match self.pick().client.get(path).await {
            Ok(answer) => reply(answer.status, answer.body),
            Err(_) => reply(StatusCode::BAD_GATEWAY, "no answer from the service\n"),
        }
    }

    /// Answers one request of an operator.
    pub async fn admin(&self, request: Request<Incoming>) -> Reply {
        match (request.method(), request.uri().path()) {
            (&Method::GET, WEIGHTS_PATH) => self.show(),
            (&Method::PUT, WEIGHTS_PATH) => match whole_body(request.into_body()).await {
                Some(body) => self.set(&body),
                None => reply(StatusCode::PAYLOAD_TOO_LARGE, "more than 64 KiB\n"),
            },
            (_, WEIGHTS_PATH) => reply(StatusCode::METHOD_NOT_ALLOWED, "GET or PUT\n"),
            _ => reply(StatusCode::NOT_FOUND, "only /weights is here\n"),
        }
    }

    /// Asks every pool whether it is well, once.
    pub async fn ping(&self) {
        for pool in &self.pools {
            let answer = tokio::time::timeout(PING_TIMEOUT, pool.client.get("/healthz")).await;
            let healthy = matches!(answer, Ok(Ok(answer)) if answer.status.is_success());
            pool.healthy.store(healthy, Relaxed);
        }
    }

    /// Asks again and again, until the runtime ends.
    pub async fn keep_pinging(&self) {
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            self.ping().await;
        }
    }

    fn pick(&self) -> &Pool {
        let mut table = lock(&self.table);
        let mut left = table.draws.random_range(0..Weight::FULL.hundredths());
        let mut chosen = 0;
        for (index, weight) in table.weights.iter().map(|weight| weight.hundredths()).enumerate() {
            chosen = index;
            if left < weight {
                break;
            }
            left -= weight;
        }
        &self.pools[chosen]
    }

    fn health(&self) -> Reply {
        let table = lock(&self.table);
        let mut used =
            self.pools.iter().zip(&table.weights).filter(|(_, weight)| !weight.is_zero());
        if used.all(|(pool, _)| pool.healthy.load(Relaxed)) {
            reply(StatusCode::OK, "ok\n")
        } else {
            reply(StatusCode::SERVICE_UNAVAILABLE, "a pool with traffic is not healthy\n")
        }
    }

    fn show(&self) -> Reply {
        match serde_json::to_vec(&self.state()) {
            Ok(body) => reply(StatusCode::OK, body),
            Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, "the state has no text\n"),
        }
    }

    fn state(&self) -> State {
        let table = lock(&self.table);
        let slots = || self.pools.iter().map(|pool| pool.slot.clone());
        let backends = self
            .pools
            .iter()
            .map(|pool| Backends { healthy: u32::from(pool.healthy.load(Relaxed)), total: 1 });
        State {
            weights: slots().zip(table.weights.iter().copied()).collect(),
            generation: table.generation,
            pools: slots().zip(backends).collect(),
            started: self.started.clone(),
        }
    }

    /// Both weights change in one instant, so that no request meets half of a change.
    fn set(&self, body: &[u8]) -> Reply {
        let Ok(wanted) = serde_json::from_slice::<Wanted>(body) else {
            return reply(StatusCode::BAD_REQUEST, "expected weights and a generation\n");
        };
        let weights: Option<Vec<_>> =
            self.pools.iter().map(|pool| wanted.weights.get(&pool.slot).copied()).collect();
        let Some(weights) = weights.filter(|weights| weights.len() == wanted.weights.len()) else {
            return reply(
                StatusCode::BAD_REQUEST,
                "expected a weight for each slot, and no other\n",
            );
        };
        let total: u32 = weights.iter().map(|weight| u32::from(weight.hundredths())).sum();
        if total != u32::from(Weight::FULL.hundredths()) {
            return reply(StatusCode::BAD_REQUEST, "weights do not sum to 100 %\n");
        }
        {
            let mut table = lock(&self.table);
            if table.generation.is_some_and(|newest| wanted.generation < newest) {
                return reply(StatusCode::CONFLICT, "a newer generation has been here\n");
            }
            table.weights = weights;
            table.generation = Some(wanted.generation);
        }
        self.show()
    }
}
