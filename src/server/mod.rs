//! The API: what the command line, machines and people say to whoever drives rollouts, over a unix socket and over TCP.
//! And what a supervisor and Prometheus ask of the daemon.
//!
//! ```text
//! request → guard::enter (how it looks, who sends it) → guard::authorize (may they) → routes → driver
//! ```
//!
//! The table of routes is the only way to a handler, and every row says what it asks of who calls it.

mod body;
pub mod dto;
mod events;
mod guard;
mod health;
mod listen;
mod metrics;
pub mod openapi;
pub mod problem;
mod replays;
pub mod reported;
mod routes;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::access::audit::Auditor;
use crate::access::github::{Error as JobError, Github};
use crate::access::glass::Glass;
use crate::access::limit::Limits;
use crate::access::token::Tokens;
use crate::access::{Denied, Identity};
use crate::driver::controller::Rollouts;
use crate::ports::{Clock, Notice};
use crate::units::{RegionName, ServiceName, Timestamp};

pub use health::{BEAT, Health, serve_health, silent};
pub use listen::{Listening, listen_tcp};

use guard::Peer;
use problem::Problem;
use replays::Replays;

/// Name of the socket within the state directory.
pub const SOCKET: &str = "tidegate.sock";

/// Longest wait for answers that are under way when serving ends.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Longest body: a pipeline and its analyses.
const START_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Reads of histories and ledgers at once; each may hold many facts.
const HEAVY_MAX: usize = 4;
/// Listeners to events at once.
const STREAMS_MAX: usize = 200;

/// Why there is no local API.
#[derive(Debug, thiserror::Error)]
#[error("no socket at {path}")]
pub struct Error {
    /// Where.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Who drives rollouts now: another one after the fleet was read again.
pub type Current = tokio::sync::watch::Receiver<Arc<dyn Rollouts>>;

/// Everything that the routes need.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    rollouts: Current,
    tokens: Tokens,
    glass: Glass,
    limits: Limits,
    github: Option<Github>,
    replays: Arc<Replays>,
    heavy: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    audit: Arc<dyn Auditor>,
    clock: Arc<dyn Clock>,
    hosts: BTreeSet<String>,
}

/// What an API stands on.
pub struct Parts {
    /// The state directory.
    pub state: PathBuf,
    /// Who drives rollouts.
    pub rollouts: Current,
    /// Where refusals are kept.
    pub audit: Arc<dyn Auditor>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Api {
    /// An API. It takes the fleet's issuer and names as they are now.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { state, rollouts, audit, clock } = parts;
        let api = rollouts.borrow().fleet().api.clone();
        let hosts = api.as_ref().map(|api| api.hosts.clone()).unwrap_or_default();
        let github = api.and_then(|api| api.github).map(Github::new);
        Self(Arc::new(Inner {
            rollouts,
            tokens: Tokens::of(&state),
            glass: Glass::of(&state),
            limits: Limits::default(),
            github,
            replays: Arc::default(),
            heavy: Arc::new(Semaphore::new(HEAVY_MAX)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            audit,
            clock,
            hosts,
        }))
    }

    /// A source that guessed need not wait any longer.
    pub fn forgive(&self, source: IpAddr) {
        self.0.limits.right(source);
    }

    fn rollouts(&self) -> Arc<dyn Rollouts> {
        Arc::clone(&self.0.rollouts.borrow())
    }

    fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn github(&self) -> Option<&Github> {
        self.0.github.as_ref()
    }

    fn replays(&self) -> Arc<Replays> {
        Arc::clone(&self.0.replays)
    }

    fn audit(&self) -> Arc<dyn Auditor> {
        Arc::clone(&self.0.audit)
    }

    /// A turn at reading what is long; who comes while all are taken waits.
    async fn heavy(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.heavy).acquire_owned().await.ok()
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A place for one more listener, while there is one.
    fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.streams).try_acquire_owned().ok()
    }

    /// The regions of a service of the fleet.
    fn regions_of(&self, service: &ServiceName) -> Option<BTreeSet<RegionName>> {
        let fleet = self.rollouts().fleet();
        fleet.services.get(service).map(|known| known.targets.keys().cloned().collect())
    }

    /// A name that this is called by: an address, `localhost`, or one that the fleet lists.
    fn is_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || address.parse::<IpAddr>().is_ok() || self.0.hosts.contains(name)
    }

    /// Somebody wanted what they may not.
    fn denied(&self, identity: &Identity, denied: &Denied) {
        let by = format!("{} ({})", identity.name, identity.via.note());
        self.0.audit.refused(&denied.regions, &by, &denied.to_string(), self.now());
    }

    /// A job of GitHub Actions that is nobody of the fleet.
    fn strange_job(&self, error: &JobError) {
        if error.is_forbidden() {
            let regions: Vec<_> = self.rollouts().fleet().regions.keys().cloned().collect();
            self.0.audit.refused(&regions, "GitHub Actions", &error.to_string(), self.now());
        }
    }

    /// A source that guesses: people are told.
    fn guessed(&self, source: Option<IpAddr>) {
        let Some(source) = source else { return };
        let text = format!("{source} tries one wrong token after the other and has to wait");
        self.page(format!("guesses/{source}/{}", self.now().0 / 3_600_000), text.clone());
        let regions: Vec<_> = self.rollouts().fleet().regions.keys().cloned().collect();
        self.0.audit.refused(&regions, &source.to_string(), &text, self.now());
    }

    fn page(&self, key: String, text: String) {
        // That of the fleet as it is now: two on one outbox would tell everything twice.
        let rollouts = self.rollouts();
        let site = rollouts.services().iter().find_map(|service| rollouts.site(service));
        let Some(notifier) = site.map(|site| Arc::clone(&site.notifier)) else { return };
        tokio::spawn(async move { notifier.notify(&Notice::new(key, true, text)).await });
    }

    /// Uses a region's secret up. One who guesses waits as one who guesses tokens does.
    fn break_glass(
        &self,
        identity: &Identity,
        regions: &BTreeSet<RegionName>,
        region: &RegionName,
        secret: &str,
    ) -> Result<(), Problem> {
        // By name: the person is known here.
        self.0.limits.guesses_of(&identity.name).map_err(Problem::too_many)?;
        let failed = |error: std::io::Error| Problem::new("failed", 500, error.kind());
        if regions.contains(region) && self.0.glass.break_it(region, secret).map_err(failed)? {
            self.0.limits.right_of(&identity.name);
            return Ok(());
        }
        let what = format!("{} tried a wrong secret of {region}", identity.name);
        self.0.audit.refused(std::slice::from_ref(region), &identity.name, &what, self.now());
        if self.0.limits.wrong_of(&identity.name) {
            self.page(format!("glass/{}/{}", identity.name, self.now().0 / 3_600_000), what);
        }
        Err(Problem::new("not_allowed", 403, "this is not a secret of that region that counts"))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self::Socket(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

/// A socket that is being served. It ends, and its file goes, when this is dropped.
#[derive(Debug)]
pub struct Served {
    path: PathBuf,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    /// Takes no new connection and lets the answers under way go out, for a second at most. Who asked for what ends
    /// this process has to hear that it was done.
    pub async fn close(mut self) {
        drop(self.stop.take());
        // Who did not get an answer by now sees a closed connection.
        let _ = tokio::time::timeout(CLOSE_MAX, &mut self.task).await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        // It may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the API on a socket in a state directory that this process holds the lock of.
///
/// # Errors
/// The socket cannot be made there.
pub fn serve(state: &Path, api: &Api) -> Result<Served, Error> {
    let people = &api.rollouts().fleet().access.people;
    let shared = people.values().any(|person| person.uid.is_some());
    let router = table::router(api.clone());
    let router = router.layer(axum::middleware::map_request(peer_of_socket));
    listen(state, router, if shared { 0o666 } else { 0o600 })
}

async fn peer_of_socket(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request) -> Request {
    request.extensions_mut().insert(peer);
    request
}

fn listen(state: &Path, router: Router, mode: u32) -> Result<Served, Error> {
    let path = state.join(SOCKET);
    let failed = |source| Error { path: path.clone(), source };
    // The lock is ours, so a socket that is there was left by a process that is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    let app = router.into_make_service_with_connect_info::<Peer>();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        // An error of one connection does not end it.
        let _ = axum::serve(listener, app).with_graceful_shutdown(stopped).await;
    });
    Ok(Served { path, task, stop: Some(stop) })
}

/// Login name of the user who runs this, for the record; `uid <number>` where the environment has none.
#[must_use]
pub fn user() -> String {
    let named = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    match named {
        Ok(name) if !name.is_empty() => crate::units::shown(&name),
        _ => format!("uid {}", rustix::process::geteuid().as_raw()),
    }
}

#[cfg(test)]
mod tests;
