//! The data plane: a proxy over two pools whose weights a controller gives it. It copies requests, too, and drops the answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::definition::Shares;
use crate::parts::backend::Reader;

/// What nobody behind it answers.
const NOBODY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A proxy; it and its connections end with this value. Requests have no bodies, and answers say how long they are.
pub struct Gateway {
    pub address: SocketAddr,
    pub plane: Arc<Plane>,
    task: JoinHandle<()>,
}

/// What it does.
#[derive(Debug, Default)]
pub struct Plane {
    shares: Mutex<Shares>,
    turn: AtomicU64,
}

impl Plane {
    pub fn be(&self, shares: Shares) {
        *self.shares.lock().unwrap() = shares;
    }

    /// Which pool's turn it is, none when nobody has any weight; and which pools get a copy.
    fn next(&self) -> (Option<usize>, [bool; 2]) {
        let Shares { weights, copies } = *self.shares.lock().unwrap();
        let turn = u128::from(self.turn.fetch_add(1, Ordering::Relaxed));
        let is_turn = |part: u64, whole: u64| {
            let before = |turn: u128| turn * u128::from(part) / u128::from(whole);
            before(turn + 1) != before(turn)
        };
        let [one, other] = weights;
        let pool = (one + other > 0).then(|| usize::from(!is_turn(one, one + other)));
        (pool, copies.map(|part| is_turn(part, 1_000_000)))
    }
}

impl Gateway {
    pub async fn start(pools: [SocketAddr; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plane = Arc::new(Plane::default());
        let shared = Arc::clone(&plane);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let plane = Arc::clone(&shared);
                connections.spawn(async move { pass(stream, &plane, pools).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, plane, task }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes requests on until the other side ends.
async fn pass(mut front: TcpStream, plane: &Plane, pools: [SocketAddr; 2]) -> Option<()> {
    front.set_nodelay(true).ok()?;
    let mut requests = Reader::default();
    let mut kept: [Option<TcpStream>; 2] = [None, None];
    let copiers = pools.map(copier);
    while let Some(head) = requests.head(&mut front).await {
        let (pool, copies) = plane.next();
        for (copier, _) in copiers.iter().zip(copies).filter(|(_, gets)| *gets) {
            let _ = copier.send(head.clone());
        }
        let answer = match pool {
            Some(pool) => ask(&mut kept[pool], pools[pool], &head).await,
            None => None,
        };
        front.write_all(answer.as_deref().unwrap_or(NOBODY)).await.ok()?;
    }
    Some(())
}

/// Sends a pool what it is given, whatever comes of it, until nothing comes any more.
fn copier(pool: SocketAddr) -> mpsc::UnboundedSender<String> {
    let (sender, mut heads) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let mut kept = None;
        while let Some(head) = heads.recv().await {
            drop(ask(&mut kept, pool, &head).await);
        }
    });
    sender
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
