//! The port: who may connect, how much, and which services answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3 as discovery;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server as aggregated;
use envoy_types::pb::envoy::service::route::v3::route_discovery_service_server as routes;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::{Error, Shared, stream, tls};
use crate::spec::fleet::Served;

/// Most streams at a time.
const STREAMS_MAX: usize = 4_096;
/// Most streams of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Most bytes of one request; Envoy lists its extensions in the first one, some tens of kilobytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// A dead connection is found after two of these.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The open port; closed with its value, all streams included. Envoys keep their weights then.
#[derive(Debug)]
pub struct XdsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropping it asks the task to end.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl XdsServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and waits until it can be opened again (5 s at most).
    pub async fn close(mut self) {
        self.end();
        if tokio::time::timeout(KEEPALIVE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    fn end(&mut self) {
        self.shared.close();
        self.stop.take();
    }
}

impl Drop for XdsServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Opens the port and serves until the value is dropped.
pub async fn open(shared: Arc<Shared>, settings: &Served) -> Result<XdsServer, Error> {
    if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
        return Err(Error::Open(settings.listen));
    }
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    if let Some(settings) = &settings.tls {
        let config = tls::config(settings)?;
        server = server.tls_config(config).map_err(|error| Error::Tls(error.to_string()))?;
    }
    let failed = |source| Error::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let service = Service {
        shared: Arc::clone(&shared),
        permits: Arc::new(Semaphore::new(STREAMS_MAX)),
        next_stream: Arc::default(),
        needs_certificate: settings.tls.is_some(),
    };
    let router = server
        .add_service(
            routes::RouteDiscoveryServiceServer::new(service.clone())
                .max_decoding_message_size(REQUEST_BYTES_MAX),
        )
        .add_service(
            aggregated::AggregatedDiscoveryServiceServer::new(service)
                .max_decoding_message_size(REQUEST_BYTES_MAX),
        );
    let (stop, stopped) = oneshot::channel::<()>();
    // An answer is small and follows another: held back until that is acknowledged, it would come 40 ms later.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let task = tokio::spawn(async move {
        // Only dropped, never sent.
        let signal = async { drop(stopped.await) };
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, signal).await {
            tracing::error!(%error, "the xDS port closed");
        }
    });
    Ok(XdsServer { address, shared, stop: Some(stop), task })
}

#[derive(Debug, Clone)]
struct Service {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    next_stream: Arc<AtomicU64>,
    needs_certificate: bool,
}

type Answers = Pin<Box<dyn Stream<Item = Result<discovery::DiscoveryResponse, Status>> + Send>>;
type DeltaAnswers =
    Pin<Box<dyn Stream<Item = Result<discovery::DeltaDiscoveryResponse, Status>> + Send>>;

impl Service {
    fn start(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("too many streams"))?;
        let certificates = self.needs_certificate.then(|| request.peer_certs().unwrap_or_default());
        let caller =
            stream::Caller { certificates, id: self.next_stream.fetch_add(1, Ordering::Relaxed) };
        let answers = stream::run(Arc::clone(&self.shared), caller, request.into_inner(), permit);
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl routes::RouteDiscoveryService for Service {
    type StreamRoutesStream = Answers;
    type DeltaRoutesStream = DeltaAnswers;

    async fn stream_routes(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.start(request)
    }

    async fn delta_routes(
        &self,
        _: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaAnswers>, Status> {
        Err(Status::unimplemented("use api_type: GRPC"))
    }

    async fn fetch_routes(
        &self,
        _: Request<discovery::DiscoveryRequest>,
    ) -> Result<Response<discovery::DiscoveryResponse>, Status> {
        Err(Status::unimplemented("use api_type: GRPC"))
    }
}

#[tonic::async_trait]
impl aggregated::AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Answers;
    type DeltaAggregatedResourcesStream = DeltaAnswers;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Answers>, Status> {
        self.start(request)
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaAnswers>, Status> {
        Err(Status::unimplemented("use api_type: GRPC"))
    }
}
