//! Envoys that fetch their routes from Tidegate: a route discovery service, state of the world, with every
//! acknowledgement kept per instance.
//!
//! All targets are registered, with the weights that the store remembers, before the port opens; so no Envoy is ever sent
//! other weights than recorded ones. A target without recorded weights is not answered: its Envoys keep what they have.
//!
//! `register` → [`Registry::open`] → [`XdsServer`]; each [`XdsBalancer`] is one target.

mod balancer;
mod server;
mod state;
mod stream;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use balancer::XdsBalancer;
pub use server::XdsServer;

use super::{Pair, http, pair, route};
use crate::load_balancer::Known;
use crate::spec::fleet::{EnvoyXds, Served};
use state::{ResourceKey, State};

/// Why targets cannot be registered or the port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The slots and clusters.
    #[error("clusters: {0}")]
    Pair(#[from] pair::Error),
    /// An admin address.
    #[error("admin: {0}")]
    Address(#[from] http::Error),
    /// The operator's route document.
    #[error("route file {path}: {error}")]
    Route {
        /// Which file.
        path: String,
        /// What is wrong.
        error: route::Error,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Two targets want one route of the same Envoys from different documents.
    #[error("route `{route}` for `{node_cluster}` has two different route files")]
    TwoFiles {
        /// The route.
        route: String,
        /// The Envoys.
        node_cluster: String,
    },
    /// Two targets split the same clusters of the same route.
    #[error("route `{0}` is split twice between the same clusters")]
    Twice(String),
    /// Anybody could read routes and pose as an Envoy.
    #[error("listens on {0}, beyond loopback: needs tls with client certificates")]
    Open(std::net::SocketAddr),
    /// The TLS settings.
    #[error("tls: {0}")]
    Tls(String),
    /// The port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// What targets, streams and the server share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Counts changes of weights and of acknowledgements; carries no data.
    changed: watch::Sender<u64>,
    /// The port is closed; streams end.
    closed: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.nudge();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn nudge(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Targets before the port is open.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Without targets.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: watch::Sender::new(0),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// Adds a target, reading its route file. `label` names it for people; `known` is what the store remembers.
    pub fn register(
        &self,
        label: String,
        target: &EnvoyXds,
        known: Option<&Known>,
    ) -> Result<XdsBalancer, Error> {
        let pair = Pair::new(&target.clusters)?;
        let path = target.route_file.display().to_string();
        let document = read_route(target).map_err(|error| error.at(&path))?;
        let key =
            ResourceKey { node_cluster: target.node_cluster.clone(), route: target.route.clone() };
        let affinity = target.affinity.as_ref();
        let added = self.shared.lock().register(&key, document, &pair, affinity, known);
        added.map_err(|error| match error {
            state::RegisterError::TwoFiles => {
                Error::TwoFiles { route: key.route.clone(), node_cluster: key.node_cluster.clone() }
            }
            state::RegisterError::Twice => Error::Twice(key.route.clone()),
            state::RegisterError::Pair(error) => Error::Pair(error),
            state::RegisterError::Route(error) => Error::Route { path, error },
        })?;
        XdsBalancer::new(label, Arc::clone(&self.shared), key, pair, target)
    }

    /// Opens the port: on loopback, or anywhere with client certificates.
    pub async fn open(self, settings: &Served) -> Result<XdsServer, Error> {
        server::open(self.shared, settings).await
    }
}

enum ReadError {
    File(std::io::Error),
    Route(route::Error),
}

impl ReadError {
    fn at(self, path: &str) -> Error {
        let path = path.to_owned();
        match self {
            Self::File(source) => Error::File { path, source },
            Self::Route(error) => Error::Route { path, error },
        }
    }
}

fn read_route(target: &EnvoyXds) -> Result<serde_yaml::Value, ReadError> {
    let text = tls::read_bounded(&target.route_file, route::BYTES_MAX as u64 + 1)
        .map_err(ReadError::File)?;
    let mut document = route::parse(&text).map_err(ReadError::Route)?;
    Ok(route::find(&mut document, &target.route).map_err(ReadError::Route)?.clone())
}
