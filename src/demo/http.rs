//! The little HTTP that the world needs: a keep-alive server, and a client that keeps its connections.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections that one listener holds at once; the load generator needs fewer.
const CONNECTIONS_MAX: usize = 2_048;
/// Bytes of a body that anybody here reads.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes kept per connection for reading; requests and answers are small.
const BUFFER_BYTES_MAX: usize = 16 * 1024;

/// An answer as the world's servers give it.
pub(super) type Reply = Response<Full<Bytes>>;

/// A status and a whole body, as the client got them.
pub(super) struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// At most 64 KiB.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was sent.
    NotSent(String),
    /// It may have been sent.
    Lost(String),
}

/// Locks; a poisoned lock is taken as it is, since every value behind one is valid at any instant.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer with a short body.
pub(super) fn reply(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
}

/// Reads a request's body, at most 64 KiB of it; `None` if there is more or the connection broke.
pub(super) async fn whole_body(body: Incoming) -> Option<Bytes> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    collected.ok().map(http_body_util::Collected::to_bytes)
}

/// Serves until its runtime ends.
pub(super) async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors or the like: it does not help to ask again at once.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let handler = handler.clone();
        tokio::spawn(async move {
            let _seat = seat;
            let service = hyper::service::service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            if stream.set_nodelay(true).is_ok() {
                // A peer that broke off is the peer's business.
                let _ = hyper::server::conn::http1::Builder::new()
                    .max_buf_size(BUFFER_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}

/// Sends requests to one address over connections that it keeps, one request at a time on each.
pub(super) struct Client {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Connects when first needed.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::new(Vec::new()) }
    }

    /// Asks for a path. Dropped half way, it closes the connection that it used.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let mut sender = self.sender().await?;
        let answer =
            exchange(&mut sender, request(Method::GET, path, Bytes::new(), self.address)?).await?;
        lock(&self.idle).push(sender);
        Ok(answer)
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        loop {
            let Some(mut sender) = lock(&self.idle).pop() else {
                return connect(self.address).await;
            };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
    }
}

/// One request over a connection of its own, for the rare ones.
pub(super) async fn once(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let asked = request(method, path, body, address)?;
    let mut sender = tokio::time::timeout(timeout, connect(address))
        .await
        .map_err(|_| Failure::NotSent("no connection in time".to_owned()))??;
    tokio::time::timeout(timeout, exchange(&mut sender, asked))
        .await
        .map_err(|_| Failure::Lost("no answer in time".to_owned()))?
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::NotSent(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(|error| refused(&error))?;
    stream.set_nodelay(true).map_err(|error| refused(&error))?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(BODY_BYTES_MAX * 2)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| refused(&error))?;
    // Ends when the sender is dropped or the peer closes.
    tokio::spawn(connection);
    Ok(sender)
}

fn request(
    method: Method,
    path: &str,
    body: Bytes,
    address: SocketAddr,
) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .body(Full::new(body))
        .map_err(|error| Failure::NotSent(error.to_string()))
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let answer =
        sender.send_request(request).await.map_err(|error| Failure::Lost(error.to_string()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Failure::Lost(error.to_string()))?.to_bytes();
    Ok(Answer { status, body })
}
