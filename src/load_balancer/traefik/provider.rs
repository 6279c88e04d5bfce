//! The port that Traefiks fetch their weights from: `GET /SERVICE/REGION/TARGET`.
//!
//! All targets are registered, with the weights that the store remembers, before the port opens; so no Traefik is ever
//! given other weights than recorded ones. A target without recorded weights is answered with 503, which lets Traefik
//! keep what it has; an empty document would take its service away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::super::{Known, TargetKey, Unusable};
use super::fetched::TraefikHttpBalancer;
use super::view::View;
use crate::http::port::{self, Clients, TlsError};
use crate::ports::Split;
use crate::spec::fleet::{Served, TraefikHttp};
use crate::units::Generation;

/// Connections at once; further ones wait in the operating system.
const CONNECTIONS_MAX: usize = 1_024;
/// Longest wait for Traefiks that may run something newer than what is recorded.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Why the port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anybody could pose as Tidegate.
    #[error("listens on {0}, beyond loopback: needs tls with client certificates")]
    Open(SocketAddr),
    /// The TLS settings.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// What is served at one path.
#[derive(Debug, Clone)]
pub struct Given {
    /// These weights.
    pub split: Split,
    /// Their generation.
    pub generation: Generation,
    /// The whole answer.
    pub text: Arc<str>,
}

#[derive(Debug, Default)]
struct Place {
    given: Option<Given>,
    /// The newest generation seen there; an older one is not served.
    newest: Option<Generation>,
}

/// What is served, by path; shared by all targets and the port.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<String, Place>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served there now.
    pub fn given(&self, path: &str) -> Option<Given> {
        self.lock().get(path)?.given.clone()
    }

    /// Serves this from now on; the newest generation where that is a newer one.
    pub fn put(&self, path: &str, given: Given) -> Result<(), Generation> {
        let mut places = self.lock();
        let place = places.entry(path.to_owned()).or_default();
        if let Some(newest) = place.newest.filter(|newest| *newest > given.generation) {
            return Err(newest);
        }
        place.newest = Some(given.generation);
        place.given = Some(given);
        Ok(())
    }

    /// A Traefik runs this generation: what is older is not served any more.
    pub fn has_seen(&self, path: &str, newest: Generation) {
        let mut places = self.lock();
        let place = places.entry(path.to_owned()).or_default();
        place.newest = place.newest.max(Some(newest));
        place.given.take_if(|given| given.generation < newest);
    }

    fn answer(&self, method: &Method, path: &str) -> Response {
        if method != Method::GET {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        match self.lock().get(path) {
            Some(Place { given: Some(given), .. }) => {
                ([(header::CONTENT_TYPE, "application/yaml")], given.text.to_string())
                    .into_response()
            }
            Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "no weights are recorded").into_response(),
            None => (StatusCode::NOT_FOUND, "no such target").into_response(),
        }
    }
}

/// Targets before the port is open.
#[derive(Default)]
pub struct Provider {
    shelf: Arc<Shelf>,
    views: Vec<(String, Arc<View>)>,
}

impl Provider {
    /// Adds a target; `known` is what the store remembers.
    pub fn register(
        &mut self,
        key: &TargetKey,
        settings: &TraefikHttp,
        known: Option<&Known>,
    ) -> Result<TraefikHttpBalancer, Unusable> {
        let view = Arc::new(View::new(
            &key.to_string(),
            &settings.weighted,
            settings.capabilities(),
            "http",
        )?);
        let path = format!("/{}/{}/{}", key.service, key.region, key.target);
        let given = known.map(|Known { split, generation, .. }| {
            let text = view.text(split, *generation).map_err(Unusable::new)?.into();
            Ok(Given { split: split.clone(), generation: *generation, text })
        });
        let given = given.transpose()?;
        let newest = given.as_ref().map(|given| given.generation);
        self.shelf.lock().insert(path.clone(), Place { given, newest });
        self.views.push((path.clone(), Arc::clone(&view)));
        Ok(TraefikHttpBalancer::new(path, settings.clone(), view, Arc::clone(&self.shelf)))
    }

    /// Opens the port: on loopback, or anywhere with client certificates.
    pub async fn open(self, settings: &Served) -> Result<ProviderPort, Error> {
        if settings.tls.is_none() && !settings.listen.ip().is_loopback() {
            return Err(Error::Open(settings.listen));
        }
        let tls = settings.tls.as_ref().map(|tls| {
            let clients = Clients { authority: &tls.client_ca, revoked: None, required: true };
            port::acceptor(&tls.certificate, &tls.key, Some(clients))
        });
        let tls = tls.transpose()?;
        let failed = |source| Error::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        self.look().await;
        let shelf = self.shelf;
        let service = move |_| {
            let shelf = Arc::clone(&shelf);
            hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let answer = shelf.answer(request.method(), request.uri().path());
                async move { Ok(answer) }
            })
        };
        let task = tokio::spawn(port::accept(listener, tls, CONNECTIONS_MAX, service));
        Ok(ProviderPort { address, task })
    }

    /// A store that was put back knows less than Traefiks do: what they run is left to them.
    async fn look(&self) {
        let looks = self.views.iter().map(async |(path, view)| {
            let looked = tokio::time::timeout(LOOK_MAX, view.in_force()).await;
            if let Ok(Ok(Some(force))) = looked
                && let Some(newest) = force.generation
            {
                self.shelf.has_seen(path, newest);
            }
        });
        join_all(looks).await;
    }
}

/// The open port; closed with its value, all connections included. Traefiks keep their weights then.
#[derive(Debug)]
pub struct ProviderPort {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl ProviderPort {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and waits until it can be opened again.
    pub async fn close(mut self) {
        self.task.abort();
        // It ends by being aborted.
        let _ = (&mut self.task).await;
    }
}

impl Drop for ProviderPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::split;

    fn given(generation: u64) -> Given {
        let text = format!("generation {generation}").into();
        Given { split: split(5.0), generation: Generation(generation), text }
    }

    fn status(shelf: &Shelf, path: &str) -> u16 {
        shelf.answer(&Method::GET, path).status().as_u16()
    }

    #[test]
    fn only_what_is_recorded_is_served() {
        let shelf = Shelf::default();
        shelf.lock().insert("/web/us/edge".to_owned(), Place::default());
        assert_eq!(status(&shelf, "/web/us/edge"), 503);
        assert_eq!((status(&shelf, "/web/us"), status(&shelf, "/")), (404, 404));
        shelf.put("/web/us/edge", given(3)).unwrap();
        assert_eq!(status(&shelf, "/web/us/edge"), 200);
        assert_eq!(shelf.answer(&Method::PUT, "/web/us/edge").status().as_u16(), 405);
    }

    #[test]
    fn what_is_older_than_what_was_seen_is_not_served() {
        let (shelf, path) = (Shelf::default(), "/web/us/edge");
        shelf.put(path, given(3)).unwrap();
        assert_eq!(shelf.put(path, given(2)).unwrap_err(), Generation(3));
        shelf.has_seen(path, Generation(3));
        assert_eq!(status(&shelf, path), 200, "its own");
        shelf.has_seen(path, Generation(7));
        assert_eq!(status(&shelf, path), 503);
        assert_eq!(shelf.put(path, given(6)).unwrap_err(), Generation(7));
        shelf.put(path, given(8)).unwrap();
        assert_eq!(&*shelf.given(path).unwrap().text, "generation 8");
    }
}
