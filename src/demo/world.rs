//! Three regions that serve, and how they begin and end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rand_pcg::Pcg64;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use super::balancer::ProxyBalancer;
use super::load::{Load, Outcomes};
use super::proxy::Proxy;
use super::service::{Behaviour, Character, Reach, Service};
use super::{CANARY_SLOT, CANARY_VERSION, Error, STABLE_SLOT, STABLE_VERSION, http};
use crate::ports::LoadBalancer;
use crate::units::{Millis, RegionName, SlotName, Version, Weight};

/// The regions and their shares of all users in percent.
const REGIONS: [(&str, f64); 3] =
    [("us_east_1", 50.0), ("eu_west_1", 30.0), ("ap_southeast_2", 20.0)];
/// Highest rate that a region takes.
const REQUESTS_PER_SECOND_MAX: u32 = 20_000;
/// How long a region may take to serve.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted. Beyond it the system drops them and the peer tries again after a second,
/// which would look like a slow service.
const BACKLOG: u32 = 1_024;

/// What a world is made from.
#[derive(Debug, Clone)]
pub struct WorldConfig {
    /// Decides every draw: spacing of requests, slots, latencies, failures, ratings.
    pub seed: u64,
    /// Mean rate of each region, 1 to 20,000; the demo's pipeline wants 1,000 or more.
    pub requests_per_second: u32,
    /// How the canary's servers behave.
    pub behaviour: Behaviour,
    /// From a silent server's first request to the end of its metrics.
    pub silent_after: Millis,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            requests_per_second: 1_500,
            behaviour: Behaviour::Good,
            silent_after: Millis::from_secs(3),
        }
    }
}

/// Three regions under load. Everything in it ends when it is dropped.
pub struct World {
    regions: Vec<Region>,
    stops: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// One region: where it is reached, and what happens in it.
pub struct Region {
    /// Its name, also the value of the label `region`.
    pub name: RegionName,
    /// Its share of all users, for people; every region gets the same load.
    pub share: Weight,
    /// Its proxy.
    pub balancer: Arc<dyn LoadBalancer>,
    /// The `/metrics` page of each server.
    pub metrics_urls: Vec<String>,
    /// Where users reach the service, without a path.
    pub url: String,
    /// Answers 2xx while every pool with traffic is healthy.
    pub health_url: String,
    servers: [(SlotName, Version, Arc<Service>); 2],
    outcomes: Arc<Outcomes>,
}

/// What has happened in a region since the world began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that ended, as users see them.
    pub requests: u64,
    /// Those among them without a good answer.
    pub failed: u64,
    /// Requests never sent, because too many were under way: the machine is too slow for the rate.
    pub turned_away: u64,
    /// The servers' own view: the first is the stable version's at the start.
    pub arms: [Arm; 2],
}

/// What one slot's server has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// The slot it stands in.
    pub slot: SlotName,
    /// The version it serves.
    pub version: Version,
    /// Requests answered.
    pub requests: u64,
    /// Those among them that it failed.
    pub failed: u64,
}

impl Region {
    /// What has happened so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.outcomes.ended.load(Relaxed),
            failed: self.outcomes.failed.load(Relaxed),
            turned_away: self.outcomes.turned_away.load(Relaxed),
            arms: self.servers.each_ref().map(|(slot, version, server)| {
                let (requests, failed) = server.served();
                Arm { slot: slot.clone(), version: version.clone(), requests, failed }
            }),
        }
    }
}

impl World {
    /// Starts all regions and their load; returns when each of them serves (some milliseconds, blocking).
    ///
    /// All traffic goes to the stable version. Needs no runtime.
    pub fn start(config: WorldConfig) -> Result<Self, Error> {
        if !(1..=REQUESTS_PER_SECOND_MAX).contains(&config.requests_per_second) {
            return Err(Error::Rate(config.requests_per_second));
        }
        let (stable, canary) = (Arc::<Reach>::default(), Arc::<Reach>::default());
        let mut world = Self { regions: Vec::new(), stops: Vec::new(), threads: Vec::new() };
        let mut starting = Vec::new();
        for (index, (name, share)) in (0..).zip(REGIONS) {
            let plan = Plan {
                index,
                name: RegionName::new(name)?,
                share: Weight::from_percent(share)?,
                reaches: [Arc::clone(&stable), Arc::clone(&canary)],
            };
            let ready = world.add(plan, &config)?;
            starting.push(ready);
        }
        // Dropping the world on the way out also ends what has begun.
        for (ready, region) in starting.iter().zip(&world.regions) {
            let waited = ready.recv_timeout(READY_WITHIN);
            waited.map_err(|_| Error::NotReady(region.name.clone()))?;
        }
        Ok(world)
    }

    /// The regions, the largest first.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn add(&mut self, plan: Plan, config: &WorldConfig) -> Result<mpsc::Receiver<()>, Error> {
        let system = |what| move |source| Error::System { what, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("runtime"))?;
        let (region, parts) = {
            // The listeners belong to the region's runtime and end with it.
            let _entered = runtime.enter();
            plan.build(config)?
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("demo {}", region.name))
            .spawn(move || {
                // The runtime's end drops every task of the region, and with them every socket.
                runtime.block_on(parts.run(ready, stopped));
            })
            .map_err(system("thread"))?;
        self.regions.push(region);
        self.stops.push(stop);
        self.threads.push(thread);
        Ok(is_ready)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stops.clear();
        for thread in self.threads.drain(..) {
            // A region that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

/// A region to be.
struct Plan {
    index: u32,
    name: RegionName,
    share: Weight,
    /// Of the stable and of the canary version.
    reaches: [Arc<Reach>; 2],
}

/// What runs on a region's thread.
struct Parts {
    servers: [(TcpListener, Arc<Service>); 2],
    front: TcpListener,
    admin: TcpListener,
    proxy: Arc<Proxy>,
    load: Load,
}

impl Plan {
    fn build(self, config: &WorldConfig) -> Result<(Region, Parts), Error> {
        let [blue_port, green_port, front_port, admin_port] =
            [listen()?, listen()?, listen()?, listen()?];
        let [blue_reach, green_reach] = self.reaches.clone();
        let blue = self.server(STABLE_VERSION, Behaviour::Good, blue_reach, config);
        let green = self.server(CANARY_VERSION, config.behaviour, green_reach, config);
        let [blue_slot, green_slot] = [SlotName::new(STABLE_SLOT)?, SlotName::new(CANARY_SLOT)?];
        let pools = vec![
            (blue_slot.clone(), Weight::FULL, blue_port.1),
            (green_slot.clone(), Weight::ZERO, green_port.1),
        ];
        // One proxy per process and port: enough to tell two of them apart.
        let started = format!("{}:{}", std::process::id(), admin_port.1.port());
        let proxy = Arc::new(Proxy::new(pools, started, self.draws(config, "proxy")));
        let outcomes = Arc::<Outcomes>::default();
        let load = Load {
            proxy: front_port.1,
            requests_per_second: config.requests_per_second,
            draws: self.draws(config, "load"),
            outcomes: Arc::clone(&outcomes),
        };
        let region = Region {
            balancer: Arc::new(ProxyBalancer::new(self.name.clone(), admin_port.1)),
            metrics_urls: [blue_port.1, green_port.1]
                .map(|at| format!("http://{at}/metrics"))
                .into(),
            url: format!("http://{}", front_port.1),
            health_url: format!("http://{}/health", front_port.1),
            servers: [
                (blue_slot, Version::new(STABLE_VERSION)?, Arc::clone(&blue)),
                (green_slot, Version::new(CANARY_VERSION)?, Arc::clone(&green)),
            ],
            name: self.name,
            share: self.share,
            outcomes,
        };
        let servers = [(blue_port.0, blue), (green_port.0, green)];
        Ok((region, Parts { servers, front: front_port.0, admin: admin_port.0, proxy, load }))
    }

    fn server(
        &self,
        version: &'static str,
        behaviour: Behaviour,
        reach: Arc<Reach>,
        config: &WorldConfig,
    ) -> Arc<Service> {
        let character = Character {
            region: self.name.to_string(),
            region_index: self.index,
            version,
            behaviour,
            reach,
            silent_after: config.silent_after.duration(),
        };
        Arc::new(Service::new(character, self.draws(config, version)))
    }

    /// Draws of their own for each purpose, so that one more draw here does not move the others.
    fn draws(&self, config: &WorldConfig, purpose: &str) -> Pcg64 {
        let stream = purpose
            .bytes()
            .fold(u128::from(self.index) + 1, |sum, byte| sum * 257 + u128::from(byte));
        Pcg64::new(u128::from(config.seed), stream)
    }
}

impl Parts {
    /// Serves until `stopped` fires or its sender is gone.
    async fn run(self, ready: mpsc::SyncSender<()>, stopped: oneshot::Receiver<()>) {
        self.begin().await;
        if ready.send(()).is_ok() {
            let _ = stopped.await;
        }
    }

    async fn begin(self) {
        for (listener, server) in self.servers {
            tokio::spawn(http::serve(listener, move |request| {
                let server = Arc::clone(&server);
                async move { server.answer(request.uri()).await }
            }));
        }
        let (front, admin) = (Arc::clone(&self.proxy), Arc::clone(&self.proxy));
        tokio::spawn(http::serve(self.front, move |request| {
            let proxy = Arc::clone(&front);
            async move { proxy.pass(request).await }
        }));
        tokio::spawn(http::serve(self.admin, move |request| {
            let proxy = Arc::clone(&admin);
            async move { proxy.admin(request).await }
        }));
        self.proxy.ping().await;
        let proxy = self.proxy;
        tokio::spawn(async move { proxy.keep_pinging().await });
        tokio::spawn(self.load.run());
    }
}

/// A listener of the entered runtime on a loopback port that the system chooses, and its address.
fn listen() -> Result<(TcpListener, SocketAddr), Error> {
    let system = |source| Error::System { what: "loopback port", source };
    let socket = TcpSocket::new_v4().map_err(system)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(system)?;
    let listener = socket.listen(BACKLOG).map_err(system)?;
    let address = listener.local_addr().map_err(system)?;
    Ok((listener, address))
}
