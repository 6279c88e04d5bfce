//! One stream of one Envoy: subscriptions in, documents out, acknowledgements noted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::super::proto::TYPE_URL;
use super::state::{Rendered, ResourceKey};
use super::{Shared, tls};
use crate::units::shown;

/// Longest wait for the first request, and for an Envoy that does not take an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most routes that one stream may ask for.
const ROUTES_MAX: usize = 64;
/// Answers that may be without acknowledgement, per stream.
const PENDING_MAX: usize = 256;
/// Longest node id or cluster.
const NAME_BYTES_MAX: usize = 256;

/// Who is at the other end.
pub struct Caller {
    /// Client certificates; `None` where none are needed (loopback).
    pub certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
    /// Unique in this process.
    pub id: u64,
}

/// Serves one stream until either side ends it.
pub fn run(
    shared: Arc<Shared>,
    caller: Caller,
    mut requests: Streaming<DiscoveryRequest>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<DiscoveryResponse, Status>> + Send {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(status) = serve(shared, &caller, &mut requests, &sender).await {
            // The other end may be gone already, which says the same.
            let _ = sender.try_send(Err(status));
        }
    });
    ReceiverStream::new(receiver)
}

type Answers = mpsc::Sender<Result<DiscoveryResponse, Status>>;

async fn serve(
    shared: Arc<Shared>,
    caller: &Caller,
    requests: &mut Streaming<DiscoveryRequest>,
    answers: &Answers,
) -> Result<(), Status> {
    let first = timeout(PATIENCE, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no first request"))??;
    let Some(first) = first else { return Ok(()) };
    let mut changed = shared.changed.subscribe();
    let mut session = Session::new(shared, caller, &first)?;
    session.hear(first)?;
    loop {
        session.speak(answers, &mut changed).await?;
        tokio::select! {
            request = requests.message() => match request? {
                Some(request) => session.hear(request)?,
                None => return Ok(()),
            },
            // The sender lives as long as `session.shared`.
            _ = changed.changed() => {}
            () = answers.closed() => return Ok(()),
        }
    }
}

/// What one stream knows. Dropping it tells the state that the instance has left.
struct Session {
    shared: Arc<Shared>,
    stream: u64,
    node: String,
    cluster: String,
    /// Route → what was sent last.
    subscribed: BTreeMap<String, Option<Arc<Rendered>>>,
    /// Nonce → what was sent with it.
    pending: BTreeMap<u64, (String, Arc<Rendered>)>,
    nonce: u64,
    warned: bool,
}

impl Session {
    fn new(shared: Arc<Shared>, caller: &Caller, first: &DiscoveryRequest) -> Result<Self, Status> {
        let node =
            first.node.as_ref().ok_or_else(|| Status::invalid_argument("node is missing"))?;
        if node.id.is_empty()
            || node.id.len() > NAME_BYTES_MAX
            || node.cluster.len() > NAME_BYTES_MAX
        {
            return Err(Status::invalid_argument(
                "node.id is empty, or node.id or node.cluster too long",
            ));
        }
        let allowed =
            caller.certificates.as_ref().is_none_or(|own| tls::speaks_for(own, &node.cluster));
        if !allowed {
            let cluster = shown(&node.cluster);
            tracing::warn!(%cluster, "an Envoy's certificate is not for its node.cluster");
            return Err(Status::permission_denied("the certificate is not for this node.cluster"));
        }
        if !shared.lock().knows(&node.cluster) {
            tracing::warn!(cluster = %shown(&node.cluster), "an Envoy of an unknown node.cluster asks for routes");
            return Err(Status::not_found("no target has this node.cluster"));
        }
        Ok(Self {
            shared,
            stream: caller.id,
            node: shown(&node.id),
            cluster: node.cluster.clone(),
            subscribed: BTreeMap::new(),
            pending: BTreeMap::new(),
            nonce: 0,
            warned: false,
        })
    }

    fn key(&self, route: &str) -> ResourceKey {
        ResourceKey { node_cluster: self.cluster.clone(), route: route.to_owned() }
    }

    fn hear(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != TYPE_URL {
            // An empty answer would take the Envoy's clusters or listeners away.
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(node = %self.node, asked = %shown(&request.type_url), "only routes are served");
            }
            return Ok(());
        }
        self.subscribe(&request)?;
        self.note_answer(&request);
        Ok(())
    }

    fn subscribe(&mut self, request: &DiscoveryRequest) -> Result<(), Status> {
        if request.resource_names.len() > ROUTES_MAX {
            return Err(Status::resource_exhausted("too many routes"));
        }
        let dropped: Vec<_> = self
            .subscribed
            .keys()
            .filter(|name| !request.resource_names.contains(name))
            .cloned()
            .collect();
        for name in dropped {
            self.subscribed.remove(&name);
            self.leave(&name);
        }
        for name in &request.resource_names {
            if self.subscribed.contains_key(name) {
                continue;
            }
            let key = self.key(name);
            if self.shared.lock().joined(&key, &self.node, self.stream, &request.version_info) {
                self.subscribed.insert(name.clone(), None);
                self.shared.nudge();
            } else {
                tracing::warn!(node = %self.node, route = %shown(name), "an Envoy asks for an unknown route");
            }
        }
        Ok(())
    }

    fn note_answer(&mut self, request: &DiscoveryRequest) {
        let nonce = request.response_nonce.parse::<u64>().ok();
        let Some((route, rendered)) = nonce.and_then(|nonce| self.pending.remove(&nonce)) else {
            return;
        };
        let key = self.key(&route);
        let mut state = self.shared.lock();
        match &request.error_detail {
            None => state.acknowledged(&key, &self.node, self.stream, &rendered),
            Some(error) => {
                let words = shown(&error.message);
                tracing::warn!(node = %self.node, %route, version = %rendered.version, %words, "an Envoy refused a route");
                state.refused(&key, &self.node, self.stream, &rendered.version, words);
            }
        }
        drop(state);
        self.shared.nudge();
    }

    /// Sends what has changed since it was sent last.
    async fn speak(
        &mut self,
        answers: &Answers,
        changed: &mut watch::Receiver<u64>,
    ) -> Result<(), Status> {
        changed.borrow_and_update();
        if self.shared.is_closed() {
            return Err(Status::unavailable("closing"));
        }
        for (route, rendered) in self.news()? {
            self.nonce += 1;
            self.subscribed.insert(route.clone(), Some(Arc::clone(&rendered)));
            let response = DiscoveryResponse {
                version_info: rendered.version.clone(),
                resources: vec![Any {
                    type_url: TYPE_URL.to_owned(),
                    value: rendered.bytes.clone(),
                }],
                type_url: TYPE_URL.to_owned(),
                nonce: self.nonce.to_string(),
                ..DiscoveryResponse::default()
            };
            self.pending.insert(self.nonce, (route, rendered));
            if self.pending.len() > PENDING_MAX {
                return Err(Status::resource_exhausted("too many answers without acknowledgement"));
            }
            let sent = timeout(PATIENCE, answers.send(Ok(response))).await;
            sent.map_err(|_| Status::deadline_exceeded("an answer was not taken"))?
                .map_err(|_| Status::cancelled("the Envoy has left"))?;
        }
        Ok(())
    }

    fn news(&self) -> Result<Vec<(String, Arc<Rendered>)>, Status> {
        let state = self.shared.lock();
        let mut news = Vec::new();
        for (route, last) in &self.subscribed {
            let key = self.key(route);
            if !state.is_current(&key, &self.node, self.stream) {
                return Err(Status::aborted("another stream has this node id"));
            }
            let served = state.document_for(&key, &self.node);
            if let Some(rendered) = served.filter(|served| Some(served) != last.as_ref()) {
                news.push((route.clone(), rendered));
            }
        }
        Ok(news)
    }

    fn leave(&self, route: &str) {
        self.shared.lock().left(&self.key(route), &self.node, self.stream, Instant::now());
        self.shared.nudge();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for route in std::mem::take(&mut self.subscribed).into_keys() {
            self.leave(&route);
        }
    }
}
