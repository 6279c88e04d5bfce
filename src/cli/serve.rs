//! `tidegate serve`: the daemon. Every rollout of a fleet, until somebody ends it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::connect::{Everything, Kept, connect_all, state_dir};
use super::exit::Exit;
use super::failure::{Failure, chain};
use super::files::{self, FleetArgs};
use super::output::note;
use super::session::interrupted;
use crate::access::audit::Auditor;
use crate::driver::clock::SystemClock;
use crate::driver::controller::{Controller, Rollouts};
use crate::ports::Clock;
use crate::server::reported::EVERY;
use crate::server::{self, Api, BEAT, Health};
use crate::spec::fleet::Fleet;
use crate::spec::load_fleet;

/// Drive every rollout of the fleet. SIGHUP reads the fleet file again; SIGTERM ends it, and the weights stay.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate serve --fleet tidegate.yaml --listen 127.0.0.1:7070 --log info"
)]
pub(super) struct ServeArgs {
    /// Where /healthz, /readyz and /metrics are, on loopback [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// State directory [default: the fleet's]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Longest wait for notices that are on their way when it ends; the others wait on disk.
const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// What runs until the fleet is read again.
struct Running {
    fleet: Fleet,
    controller: Arc<Controller>,
    // Keeps servers that adapters need (such as xDS) alive.
    everything: Everything,
}

pub(super) async fn run(args: ServeArgs) -> Result<Exit, Failure> {
    // First of all: without it a signal that comes early ends the process.
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::new(format!("no signals: {error}")))?;
    let fleet = files::fleet(&args.fleet)?;
    let folder = state_dir(&fleet, args.state.as_deref());
    let kept = Kept::open(&folder).await?;
    let health = Arc::new(Health::new(folder.clone()));
    let mut running = begin(fleet, &kept, &folder).await?;
    let first: Arc<dyn Rollouts> = Arc::clone(&running.controller) as Arc<dyn Rollouts>;
    let (now, current) = watch::channel(first);
    let _heart = Heart::start(Arc::clone(&health), current.clone());
    let _asking = Asking::start(Arc::clone(&health), current.clone());
    let (api_at, api) = (running.fleet.api.clone(), api(&folder, &kept, current.clone()));
    let served = server::serve(&folder, &api).map_err(|error| Failure::new(chain(&error)))?;
    let network = match &api_at {
        Some(at) => Some(
            server::listen_tcp(at.listen, at.tls.as_ref(), &api)
                .map_err(|error| Failure::new(chain(&error)))?,
        ),
        None => None,
    };
    let port = match args.listen {
        Some(address) => Some(
            server::serve_health(address, Arc::clone(&health), current)
                .await
                .map_err(|error| Failure::new(error.to_string()))?,
        ),
        None => None,
    };
    take_up(&running.controller, &health).await;
    if let Some(port) = &port {
        note(&format!("health and metrics at http://{}", port.address));
    }
    if let Some(network) = &network {
        let scheme = if api_at.is_some_and(|at| at.tls.is_some()) { "https" } else { "http" };
        note(&format!("API at {scheme}://{}", network.address));
    }
    note(&format!("serving on {}; end with SIGTERM", folder.display()));
    tell(sd_notify::NotifyState::Ready);
    let mut ended = Box::pin(interrupted());
    let number = loop {
        tokio::select! {
            number = &mut ended => break number,
            _ = hangup.recv() => {
                tell(sd_notify::NotifyState::Reloading);
                running = again(running, &args.fleet.fleet, &kept, &folder, &health).await?;
                now.send_replace(Arc::clone(&running.controller) as Arc<dyn Rollouts>);
                tell(sd_notify::NotifyState::Ready);
            }
        }
    };
    tell(sd_notify::NotifyState::Stopping);
    drop(network);
    served.close().await;
    if let Some(site) = running.everything.sites.values().next() {
        site.notifier.drain(DRAIN_MAX).await;
    }
    kept.audit.sign();
    Ok(Exit::Signal(number))
}

async fn begin(fleet: Fleet, kept: &Kept, folder: &Path) -> Result<Running, Failure> {
    let everything = connect_all(fleet.clone(), &kept.journal, folder).await?;
    let journal = Arc::clone(&kept.journal);
    let sites = everything.sites.clone();
    let controller = Arc::new(Controller::new(Arc::new(fleet.clone()), sites, journal));
    Ok(Running { fleet, controller, everything })
}

/// The API. Where it listens, its names and its issuer are those of the start; people and roles are read again.
fn api(folder: &Path, kept: &Kept, rollouts: server::Current) -> Api {
    Api::new(server::Parts {
        state: folder.to_owned(),
        rollouts,
        audit: Arc::clone(&kept.audit) as Arc<dyn Auditor>,
        clock: Arc::new(SystemClock::new()),
    })
}

async fn take_up(controller: &Controller, health: &Health) {
    match controller.resume_all().await {
        Ok(()) => health.resumed(true),
        Err(error) => error!(%error, "not every rollout could be taken up"),
    }
}

/// The fleet file as it is now; one that is wrong, or cannot be connected, changes nothing.
///
/// What runs is ended and taken up again with the new connections: a restart is the normal way.
async fn again(
    before: Running,
    path: &Path,
    kept: &Kept,
    folder: &Path,
    health: &Health,
) -> Result<Running, Failure> {
    let (fleet, problems) = load_fleet(path);
    let Some(fleet) = fleet else {
        files::show(&problems);
        warn!("the fleet file is wrong: the old one stays");
        note("the fleet file is wrong: the old one stays");
        return Ok(before);
    };
    health.resumed(false);
    before.controller.stop();
    before.everything.close().await;
    let running = match begin(fleet, kept, folder).await {
        Ok(running) => {
            info!("the fleet was read again");
            note("the fleet was read again");
            running
        }
        Err(failure) => {
            warn!("the fleet cannot be connected, the old one stays: {}", failure.what);
            note(&format!("the fleet cannot be connected, the old one stays: {}", failure.what));
            begin(before.fleet, kept, folder).await?
        }
    };
    take_up(&running.controller, health).await;
    Ok(running)
}

/// Tells the supervisor, where there is one.
fn tell(state: sd_notify::NotifyState<'_>) {
    // Without one there is nobody to tell.
    let _ = sd_notify::notify(false, &[state]);
}

/// Beats for as long as the runtime turns; the watchdog is fed while every rollout's own loop does.
struct Heart(JoinHandle<()>);

impl Heart {
    fn start(health: Arc<Health>, rollouts: server::Current) -> Self {
        Self(tokio::spawn(async move {
            loop {
                let due = Instant::now() + BEAT;
                tokio::time::sleep(BEAT).await;
                health.beat(Instant::now().saturating_duration_since(due));
                // A rollout whose loop hangs is what the watchdog is for.
                if server::silent(&rollouts).is_none() {
                    tell(sd_notify::NotifyState::Watchdog);
                }
            }
        }))
    }
}

/// Asks for the numbers that the fleet names, one round after the other.
struct Asking(JoinHandle<()>);

impl Asking {
    fn start(health: Arc<Health>, rollouts: server::Current) -> Self {
        Self(tokio::spawn(async move {
            let clock = SystemClock::new();
            loop {
                health.reported.ask(&rollouts, clock.now()).await;
                tokio::time::sleep(EVERY).await;
            }
        }))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}
