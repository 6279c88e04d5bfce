//! An HTTP proxy in front of a control API, which a test lets misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;

/// Most bytes of a request's body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What it does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Passes it on.
    Honest,
    /// Passes it on and answers long after anybody waits.
    Slow,
    /// Says no to every change.
    Refusing,
    /// Says yes to every change, and passes none on.
    Lying,
}

/// What an API's requests look like; by itself, everything but GET is a change and `{}` is the answer to one.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// Whether a request with this body changes something.
    pub changes: fn(&Method, &[u8]) -> bool,
    /// What it says when it took a change with this body.
    pub taken: fn(&[u8]) -> String,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { changes: |method, _| method != Method::GET, taken: |_| "{}".to_owned() }
    }
}

/// A proxy; gone with this value.
pub struct Meddler {
    pub address: SocketAddr,
    mood: Arc<AtomicU8>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Inside {
    behind: SocketAddr,
    mood: Arc<AtomicU8>,
    protocol: Protocol,
    client: Client<HttpConnector, Body>,
}

impl Meddler {
    /// In front of `behind`.
    pub async fn start(behind: SocketAddr) -> Self {
        Self::speaking(Protocol::default(), behind).await
    }

    /// In front of `behind`, which speaks this.
    pub async fn speaking(protocol: Protocol, behind: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(AtomicU8::new(Mood::Honest as u8));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let inside = Inside { behind, mood: Arc::clone(&mood), protocol, client };
        let app = axum::Router::new().fallback(meddle).with_state(inside);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, mood, task }
    }

    pub fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn meddle(State(inside): State<Inside>, request: Request) -> Response {
    let mood = inside.mood.load(Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let changes = (inside.protocol.changes)(&head.method, &body);
    if changes && mood == Mood::Refusing as u8 {
        return (StatusCode::UNPROCESSABLE_ENTITY, "not today").into_response();
    }
    if changes && mood == Mood::Lying as u8 {
        return (StatusCode::OK, (inside.protocol.taken)(&body)).into_response();
    }
    let mut request = Request::from_parts(head, Body::from(body));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("http://{}{path}", inside.behind).parse::<Uri>().unwrap();
    let answer = inside.client.request(request).await;
    if mood == Mood::Slow as u8 {
        // Whoever asked has gone by then.
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    match answer {
        Ok(answer) => answer.map(Body::new).into_response(),
        // As a connection that nobody takes looks from here.
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}
