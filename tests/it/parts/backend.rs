//! Tiny HTTP servers that say who they are, and load that counts them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Most bytes of a request's or an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Marks a request of a load.
const LOAD: &str = "x-load";
/// Connections of a load.
const CONNECTIONS: usize = 8;

/// A server that answers every request with 200 and `x-backend: <name>`; it and its connections end with its value.
pub struct Backend {
    pub address: SocketAddr,
    loads: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub async fn start(name: &'static str) -> Self {
        Self::at(name, "127.0.0.1:0".parse().unwrap()).await
    }

    /// At an address where one was before.
    pub async fn at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let loads = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&loads);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, name, Arc::clone(&counted)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, loads, task }
    }

    /// Requests of a load that came so far, whoever got the answers; health checks do not count.
    pub fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}

/// Answers whatever is asked, without a look at it, until the other side ends. Requests have no bodies.
async fn answer(mut stream: TcpStream, name: &'static str, loads: Arc<AtomicU64>) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: {}\r\n\r\n{name}",
        name.len()
    );
    // One write is one packet.
    let _ = stream.set_nodelay(true);
    let mut reader = Reader::default();
    while let Some(head) = reader.head(&mut stream).await {
        // Some proxies write the names of headers in their own way.
        if head.to_ascii_lowercase().contains(LOAD) {
            loads.fetch_add(1, Ordering::Relaxed);
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
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
///
/// A connection that its server ends between two requests is opened again, as every client does: nothing was answered on
/// it, so nothing is lost. A new connection that gives no answer is an error.
#[derive(Clone)]
pub struct Traffic {
    address: SocketAddr,
    request: String,
}

impl Traffic {
    pub fn to(address: SocketAddr) -> Self {
        Self::saying(address, &[])
    }

    /// With header lines of their own.
    pub fn saying(address: SocketAddr, lines: &[&str]) -> Self {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        Self {
            address,
            request: format!("GET / HTTP/1.1\r\nhost: {address}\r\n{LOAD}: 1\r\n{lines}\r\n"),
        }
    }

    /// The name of the backend that answered, or `error`.
    pub async fn once(&self) -> String {
        Connection::default().once(self).await
    }

    /// Sends `requests` over eight connections.
    pub async fn send(&self, requests: u64) -> Counts {
        let left = Arc::new(AtomicI64::new(i64::try_from(requests).unwrap()));
        self.flow(move || left.fetch_sub(1, Ordering::Relaxed) > 0).await
    }

    /// Sends as long as `more` says so, over eight connections; one of them is a new one for each request.
    pub async fn flow(&self, more: impl Fn() -> bool + Clone + Send + 'static) -> Counts {
        let workers = (0..CONNECTIONS).map(|worker| {
            let (more, traffic) = (more.clone(), self.clone());
            tokio::spawn(async move {
                let (mut counts, mut connection) = (Counts::new(), Connection::default());
                while more() {
                    *counts.entry(connection.once(&traffic).await).or_default() += 1;
                    if worker == 0 {
                        connection = Connection::default();
                    }
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

/// A connection, as long as it lasts.
#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    reader: Reader,
}

impl Connection {
    async fn once(&mut self, traffic: &Traffic) -> String {
        let failed = || "error".to_owned();
        if let Some(mut used) = self.stream.take() {
            if let Some(name) = self.exchange(&mut used, &traffic.request).await {
                self.stream = Some(used);
                return name;
            }
            if !self.reader.is_empty() {
                return failed();
            }
        }
        self.reader = Reader::default();
        let Ok(mut fresh) = TcpStream::connect(traffic.address).await else { return failed() };
        let _ = fresh.set_nodelay(true);
        let Some(name) = self.exchange(&mut fresh, &traffic.request).await else { return failed() };
        self.stream = Some(fresh);
        name
    }

    /// The name of the backend; none when the connection ended or the answer is none of a backend's.
    async fn exchange(&mut self, stream: &mut TcpStream, request: &str) -> Option<String> {
        stream.write_all(request.as_bytes()).await.ok()?;
        let head = self.reader.head(stream).await?;
        let mut length = 0;
        let mut name = None;
        for line in head.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "x-backend" => name = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        self.reader.skip(stream, length).await?;
        // An error page of the balancer's own has no such header: it is whole, but no backend's.
        Some(name.unwrap_or_else(|| "error".to_owned()))
    }
}

/// What came and is not used up.
#[derive(Default)]
pub(super) struct Reader(Vec<u8>);

impl Reader {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next head, without its empty line; none when the connection ended first.
    pub(super) async fn head(&mut self, stream: &mut TcpStream) -> Option<String> {
        loop {
            if let Some(end) = self.0.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.0.split_off(end + 4);
                let head = std::mem::replace(&mut self.0, rest);
                return String::from_utf8(head).ok();
            }
            if self.0.len() > HEAD_BYTES_MAX || !self.more(stream).await {
                return None;
            }
        }
    }

    async fn skip(&mut self, stream: &mut TcpStream, length: usize) -> Option<()> {
        self.body(stream, length).await.map(drop)
    }

    /// The next `length` bytes.
    pub(super) async fn body(&mut self, stream: &mut TcpStream, length: usize) -> Option<Vec<u8>> {
        while self.0.len() < length {
            if !self.more(stream).await {
                return None;
            }
        }
        Some(self.0.drain(..length).collect())
    }

    async fn more(&mut self, stream: &mut TcpStream) -> bool {
        stream.read_buf(&mut self.0).await.is_ok_and(|count| count > 0)
    }
}
