//! The API over TCP: on a runtime of its own, so that whoever asks much delays no rollout. Beyond loopback with TLS 1.3.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use super::guard::Peer;
use super::{Api, table};
use crate::http::port::{self, Answers, Caller, Clients};
use crate::spec::access::ApiTls;

/// Connections at once; further ones wait in the operating system.
const CONNECTIONS_MAX: usize = 2_048;
/// Longest time between two pieces of a body, and until an answer begins.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no such port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says no.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Its words.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("the API's TLS: {0}")]
    Tls(#[from] port::TlsError),
    /// There is no thread for it.
    #[error("no threads for the API: {0}")]
    Runtime(#[source] io::Error),
}

/// A port that is open; it closes when this is dropped.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens the port.
///
/// # Errors
/// It cannot be opened, or its certificates cannot be used.
pub fn listen_tcp(
    address: SocketAddr,
    tls: Option<&ApiTls>,
    api: &Api,
) -> Result<Listening, Error> {
    let failed = |source| Error::Listen { address, source };
    let acceptor = tls.map(acceptor).transpose()?;
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("api")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let router = table::router(api.clone())
        .layer(RequestBodyTimeoutLayer::new(BODY_PAUSE_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, ANSWER_WITHIN));
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    drop(entered);
    let service = move |caller| service(caller, router.clone());
    runtime.spawn(port::accept(listener, acceptor, CONNECTIONS_MAX, service));
    Ok(Listening { address, runtime: Some(runtime) })
}

/// Hands requests to the routes, with who asks.
fn service(caller: Caller, router: Router) -> impl Answers {
    let names = caller.certificate.as_ref().map(names).unwrap_or_default();
    let peer = Peer::Tcp(caller.source, names);
    hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move {
            use tower_service::Service;
            let mut router = router;
            let request: Request = request.map(axum::body::Body::new);
            router.call(request).await
        }
    })
}

/// DNS names and URIs that a certificate speaks for.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let dns = parsed.valid_dns_names().map(str::to_owned);
    dns.chain(parsed.valid_uri_names().map(str::to_owned)).collect()
}

fn acceptor(tls: &ApiTls) -> Result<TlsAcceptor, port::TlsError> {
    let clients = tls.client_ca.as_deref().map(|authority| Clients {
        authority,
        revoked: tls.revoked.as_deref(),
        // Who has a token needs no certificate.
        required: false,
    });
    port::acceptor(&tls.certificate, &tls.key, clients)
}
