//! A port that answers HTTP/1.1 within bounds: connections, headers and time; with TLS 1.3 where it has certificates.

use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::spec::fleet::Secret;

/// Headers of a request, and bytes of all of them.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Longest time for a handshake, and for the headers.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// Why the certificates cannot be used: names the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// Who connects.
pub struct Caller {
    /// From where.
    pub source: IpAddr,
    /// The first certificate of its own, verified.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Whose certificates are taken.
pub struct Clients<'a> {
    /// Their authority, PEM.
    pub authority: &'a Path,
    /// Those that no longer count.
    pub revoked: Option<&'a Path>,
    /// Nobody is let in without one.
    pub required: bool,
}

/// What answers a caller.
pub trait Answers:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Send + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Send
        + 'static
{
}

/// Answers until it is dropped, and every connection with it; `service` makes what answers a caller.
///
/// Connections beyond `connections_max` wait in the operating system.
pub async fn accept<S: Answers>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections_max: usize,
    service: impl Fn(Caller) -> S + Clone + Send + 'static,
) {
    let (places, mut open) = (Arc::new(Semaphore::new(connections_max)), JoinSet::new());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while open.try_join_next().is_some() {}
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
        let (tls, service) = (tls.clone(), service.clone());
        open.spawn(async move {
            serve(stream, source.ip(), tls, service).await;
            drop(place);
        });
    }
}

async fn serve<S: Answers>(
    stream: TcpStream,
    source: IpAddr,
    tls: Option<TlsAcceptor>,
    service: impl Fn(Caller) -> S + Send,
) {
    let Some(tls) = tls else {
        return speak(stream, service(Caller { source, certificate: None })).await;
    };
    match tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let all = stream.get_ref().1.peer_certificates();
            let certificate =
                all.and_then(|all| all.first()).cloned().map(CertificateDer::into_owned);
            speak(stream, service(Caller { source, certificate })).await;
        }
        Ok(Err(error)) => info!(%source, %error, "no handshake"),
        Err(_) => info!(%source, "no handshake in time"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, service: impl Answers) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // Who breaks a connection off is none of ours.
    let _ = served.await;
}

/// What TLS needs, read now.
pub fn acceptor(
    certificate: &Path,
    key: &Secret,
    clients: Option<Clients<'_>>,
) -> Result<TlsAcceptor, TlsError> {
    let key = super::secret(key).map_err(|error| TlsError(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| TlsError("the key is not a PEM key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError(error.to_string()))?;
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(Clients { authority, revoked, required }) => {
            let mut roots = RootCertStore::empty();
            for one in chain(authority)? {
                roots.add(one).map_err(|error| wrong(authority, error))?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(path) = revoked {
                let lists: Result<Vec<_>, _> =
                    CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
                verifier = verifier.with_crls(lists.map_err(|error| wrong(path, error))?);
            }
            if !required {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| wrong(authority, error))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let mut config = config
        .with_single_cert(chain(certificate)?, key)
        .map_err(|error| wrong(certificate, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(path, error))
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> TlsError {
    TlsError(format!("{}: {what}", path.display()))
}
