//! The API over TCP: on a runtime of its own, so that whoever asks much delays no rollout. Beyond loopback with TLS 1.3.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};
use tracing::{info, warn};

use super::guard::Peer;
use super::{Api, table};
use crate::http;
use crate::spec::access::ApiTls;

/// Connections at once; further ones wait in the operating system.
const CONNECTIONS_MAX: usize = 2_048;
/// Headers of a request, and bytes of all of them.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Longest time for a handshake, for the headers, between two pieces of a body, and until an answer begins.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
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
    Tls(String),
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
    runtime.spawn(accept(listener, acceptor, router));
    Ok(Listening { address, runtime: Some(runtime) })
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, source) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, say: that passes.
                warn!(%error, "no connection could be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small answers wait for nothing.
        let _ = stream.set_nodelay(true);
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            serve(stream, source.ip(), tls, router).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, source: IpAddr, tls: Option<TlsAcceptor>, router: Router) {
    let Some(tls) = tls else {
        return speak(stream, Peer::Tcp(source, Vec::new()), router).await;
    };
    match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let names = certificates.and_then(|all| all.first()).map(names).unwrap_or_default();
            speak(stream, Peer::Tcp(source, names), router).await;
        }
        Ok(Err(error)) => info!(%source, %error, "no handshake"),
        Err(_) => info!(%source, "no handshake in time"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, router: Router) {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move {
            use tower_service::Service;
            let mut router = router;
            let request: Request = request.map(axum::body::Body::new);
            router.call(request).await
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Who breaks a connection off is none of ours.
    let _ = served.await;
}

/// DNS names and URIs that a certificate speaks for.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let dns = parsed.valid_dns_names().map(str::to_owned);
    dns.chain(parsed.valid_uri_names().map(str::to_owned)).collect()
}

fn acceptor(tls: &ApiTls) -> Result<TlsAcceptor, Error> {
    let wrong = |path: &Path, what: &dyn std::fmt::Display| {
        Error::Tls(format!("{}: {what}", path.display()))
    };
    let chain = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(path, &error))
    };
    let key = http::secret(&tls.key).map_err(|error| Error::Tls(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| Error::Tls("the key is not a PEM key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Tls(error.to_string()))?;
    let config = match &tls.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in chain(path)? {
                roots.add(authority).map_err(|error| wrong(path, &error))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(path) = &tls.revoked {
                let lists: Result<Vec<_>, _> =
                    CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
                verifier = verifier.with_crls(lists.map_err(|error| wrong(path, &error))?);
            }
            // Who has a token needs no certificate.
            let verifier = verifier.allow_unauthenticated().build();
            config.with_client_cert_verifier(verifier.map_err(|error| wrong(path, &error))?)
        }
    };
    let mut config = config
        .with_single_cert(chain(&tls.certificate)?, key)
        .map_err(|error| wrong(&tls.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
