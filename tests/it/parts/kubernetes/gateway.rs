//! The data plane: a proxy over two pools whose weights a controller gives it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::parts::backend::Reader;

/// What nobody behind it answers.
const NOBODY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A proxy; it and its connections end with this value. Requests have no bodies, and answers say how long they are.
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weights = Arc::new(Weights::default());
        let shared = Arc::clone(&weights);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let weights = Arc::clone(&shared);
                connections.spawn(async move { pass(stream, &weights, pools).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, weights, task }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes requests on until the other side ends.
async fn pass(mut front: TcpStream, weights: &Weights, pools: [SocketAddr; 2]) -> Option<()> {
    front.set_nodelay(true).ok()?;
    let mut requests = Reader::default();
    let mut kept: [Option<TcpStream>; 2] = [None, None];
    while let Some(head) = requests.head(&mut front).await {
        let answer = match weights.next() {
            Some(pool) => ask(&mut kept[pool], pools[pool], &head).await,
            None => None,
        };
        front.write_all(answer.as_deref().unwrap_or(NOBODY)).await.ok()?;
    }
    Some(())
}

/// By a connection that is there, or by a new one.
async fn ask(kept: &mut Option<TcpStream>, pool: SocketAddr, head: &str) -> Option<Vec<u8>> {
    if let Some(mut used) = kept.take()
        && let Some(answer) = exchange(&mut used, head).await
    {
        *kept = Some(used);
        return Some(answer);
    }
    let mut fresh = TcpStream::connect(pool).await.ok()?;
    fresh.set_nodelay(true).ok()?;
    let answer = exchange(&mut fresh, head).await?;
    *kept = Some(fresh);
    Some(answer)
}

async fn exchange(pool: &mut TcpStream, head: &str) -> Option<Vec<u8>> {
    pool.write_all(head.as_bytes()).await.ok()?;
    let mut reader = Reader::default();
    let mut answer = reader.head(pool).await?;
    let length = answer.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    let body = reader.body(pool, length).await?;
    answer.push_str(&String::from_utf8(body).ok()?);
    Some(answer.into_bytes())
}
