//! The adapters for Traefik, on a real one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidegate::load_balancer::traefik::{
    Error, Provider, ProviderPort, TraefikBalancer, TraefikHttpBalancer,
};
use tidegate::load_balancer::{Known, TargetKey};
use tidegate::ports::{LoadBalancer, Outcome, Reading, Split};
use tidegate::spec::fleet::{
    MutualTls, Secret, Served, Traefik as Settings, TraefikHttp, WeightedService,
};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::certificates;
use crate::parts::meddler::{Meddler, Mood, Protocol};
use crate::parts::port::free_address;
use crate::parts::traefik::Traefik;

/// Where a Traefik has its weights from.
enum Source {
    File,
    /// It fetches them at this port of ours, by way of a proxy.
    Us(SocketAddr, Meddler),
}

/// A Traefik, its pools, and a proxy before its API.
struct World {
    traefik: Traefik,
    from: Source,
    meddler: Meddler,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
}

/// Where the target of the tests is fetched.
const PATH: &str = "web/us_east_1/edge";

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let traefik = Traefik::start(blue.address, green.address).await;
        Self::around(traefik, Source::File, blue, green).await
    }

    async fn fetching() -> Self {
        // All that comes is a question, and each may be refused.
        let questions = Protocol { changes: |_, _| true, ..Protocol::default() };
        let ours = free_address();
        let between = Meddler::speaking(questions, ours).await;
        let told = format!(
            "endpoint: \"http://{}/{PATH}\", pollInterval: 100ms, pollTimeout: 1s",
            between.address
        );
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let traefik = Traefik::fetching(blue.address, green.address, &told).await;
        Self::around(traefik, Source::Us(ours, between), blue, green).await
    }

    async fn around(traefik: Traefik, from: Source, blue: Backend, green: Backend) -> Self {
        let meddler = Meddler::start(traefik.api).await;
        let (green_address, green) = (green.address, Some(green));
        Self { traefik, from, meddler, green_address, green, _blue: blue }
    }

    fn weighted(&self) -> WeightedService {
        let services =
            ["blue", "green"].map(|slot| (slot.parse().unwrap(), format!("{slot}@file")));
        WeightedService {
            service: "web".to_owned(),
            services: services.into(),
            api: format!("http://{}", self.traefik.api),
            auth: None,
        }
    }

    fn settings(&self) -> Settings {
        Settings { path: self.traefik.path.clone(), weighted: self.weighted() }
    }

    /// A controller that begins with what is known.
    async fn serve(&self, known: Option<&Known>) -> (TraefikHttpBalancer, ProviderPort) {
        let Source::Us(listen, _) = &self.from else { panic!("it has its weights from a file") };
        serve(self.weighted(), known, &Served { listen: *listen, tls: None }).await
    }

    /// Waits until it runs what is served now: after a failure it asks later and later.
    async fn caught_up(&self) {
        let Source::Us(ours, _) = &self.from else { return };
        let get = async |url: String| {
            let answer = crate::parts::client().get(url).send().await.ok()?;
            answer.text().await.ok()
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let served = get(format!("http://{ours}/{PATH}")).await.unwrap_or_default();
            let search = "api/http/services?search=tidegate-web-generation";
            let runs = get(format!("http://{}/{search}", self.traefik.api)).await;
            let runs: serde_json::Value =
                serde_json::from_str(&runs.unwrap_or_default()).unwrap_or_default();
            let name = runs[0]["name"].as_str().unwrap_or("nothing");
            if served.contains(&format!("\"{}\"", name.trim_end_matches("@http"))) {
                return;
            }
            assert!(Instant::now() < deadline, "runs {name}, served {served}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve(
    weighted: WeightedService,
    known: Option<&Known>,
    port: &Served,
) -> (TraefikHttpBalancer, ProviderPort) {
    let mut provider = Provider::default();
    let key = TargetKey {
        service: "web".parse().unwrap(),
        region: "us_east_1".parse().unwrap(),
        target: "edge".parse().unwrap(),
    };
    let settings = TraefikHttp { weighted, begin: "blue".parse().unwrap() };
    let balancer = provider.register(&key, &settings, known).unwrap();
    (balancer, provider.open(port).await.unwrap())
}

fn known(green: f64, generation: u64) -> Known {
    Known { split: split(green), generation: Generation(generation), instances: Vec::new() }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

fn balancer(settings: &Settings) -> TraefikBalancer {
    TraefikBalancer::new("web us_east_1 edge", settings).unwrap()
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let api = self.meddler.address;
        match &self.from {
            Source::File => format!(
                "traefik: {{path: \"{}\", service: web, services: {{blue: blue, green: green}}, api: \"http://{api}\"}}",
                self.traefik.path.display()
            ),
            Source::Us(..) => format!(
                "traefik_http: {{service: web, services: {{blue: blue@file, green: green@file}}, api: \"http://{api}\"}}"
            ),
        }
    }

    fn fleet(&self) -> String {
        match &self.from {
            Source::File => String::new(),
            Source::Us(ours, _) => format!("traefik_provider: {{listen: \"{ours}\"}}\n"),
        }
    }

    fn serves(&self) -> bool {
        matches!(self.from, Source::Us(..))
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let head = match &self.from {
            Source::File => "traefik: {path: web.yaml, ",
            Source::Us(..) => "traefik_http: {",
        };
        let with = |service: &str, services: &str, more: &str| {
            format!("{head}service: \"{service}\", services: {services}, api: \"http://t\"{more}}}")
        };
        let services = "{blue: b@file, green: g@file}";
        let mut all = vec![
            (with("web@file", services, ""), "without `@file`"),
            (with("web", "{blue: b@file, green: \"g\\\"@file\"}", ""), "cannot be a service"),
            (with("web", &services.replace("g@", "b@"), ""), "two different names"),
            (with("web", services, ", bearer: secret"), "a secret stands in this file"),
            (format!("{head}service: web, services: {services}}}"), "api"),
        ];
        all.extend(match &self.from {
            Source::File => {
                vec![(with("web", services, "").replace("yaml", "json"), ".yaml or .yml")]
            }
            Source::Us(..) => vec![
                (with("web", "{blue: b, green: g}", ""), "name its provider"),
                (with("web", "{blue: b@http, green: g@file}", ""), "name its provider"),
                (with("web", services, ", begin: violet"), "blue, green"),
            ],
        });
        all
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.traefik.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        if self.serves() {
            return Err("only Tidegate gives such a Traefik its weights");
        }
        self.traefik.edit(canary_percent);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match (fault, &self.from) {
            (Fault::Restart | Fault::Back, _) => self.traefik.restart().await,
            (Fault::Reload, _) => self.traefik.reload(),
            (Fault::Gone, _) => self.traefik.kill(),
            (Fault::Slow, _) => self.meddler.be(Mood::Slow),
            (Fault::Refusing, Source::File) => self.traefik.link(true),
            (Fault::Refusing, Source::Us(..)) => return Err("it fetches, and is asked nothing"),
            (Fault::Lying, Source::File) => self.traefik.spoil(true),
            // What is served does not come to it, and it goes on with what it has.
            (Fault::Lying, Source::Us(_, between)) => between.be(Mood::Refusing),
            (Fault::Honest, Source::File) => {
                self.traefik.link(false);
                self.traefik.spoil(false);
                self.meddler.be(Mood::Honest);
            }
            (Fault::Honest, Source::Us(_, between)) => {
                between.be(Mood::Honest);
                self.meddler.be(Mood::Honest);
                self.caught_up().await;
            }
            (Fault::CanarySick, _) => self.green = None,
            (Fault::CanaryWell, _) => {
                self.green = Some(Backend::at("green", self.green_address).await)
            }
        }
        Ok(())
    }
}

/// The suite's world, begun.
pub async fn world() -> Box<dyn conformance::World> {
    Box::new(World::start().await)
}

/// The same, of one that fetches.
pub async fn fetching() -> Box<dyn conformance::World> {
    Box::new(World::fetching().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_that_fetches_does_what_every_adapter_must() {
    conformance::hold("traefik_http", fetching().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_does_what_every_adapter_must() {
    conformance::hold("traefik", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_shows_what_it_runs_and_not_what_the_file_says() {
    let mut world = World::start().await;
    let balancer = balancer(&world.settings());
    let before = balancer.read().await.unwrap();
    assert_eq!((&before.split, before.settled, before.generation), (&split(0.0), true, None));
    for (percent, generation) in [(0.01, 1), (100.0, 2), (12.34, 3)] {
        let set = balancer.set(&split(percent), Generation(generation)).await.unwrap();
        assert_eq!((&set.split, set.generation), (&split(percent), Some(Generation(generation))));
        assert!(set.settled && set.backends.is_some(), "{set:?}");
    }
    // Another file of the folder is broken: nothing comes into force, and it is said.
    world.traefik.spoil(true);
    let stuck = balancer.set(&split(50.0), Generation(4)).await.unwrap();
    assert_eq!((&stuck.split, stuck.settled), (&split(12.34), false));
    assert!(stuck.note.unwrap().contains("generation 3, its file has 4"));
    world.traefik.spoil(false);
    assert_eq!(balancer.set(&split(50.0), Generation(4)).await.unwrap().split, split(50.0));

    // Gone: the file stays as it is, and so do the weights and the generation over its restart.
    let running = balancer.read().await.unwrap();
    let file = std::fs::read_to_string(&world.traefik.path).unwrap();
    world.traefik.kill();
    let error = balancer.set(&split(1.0), Generation(5)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::NotSent, "{error}");
    assert_eq!(std::fs::read_to_string(&world.traefik.path).unwrap(), file);
    world.traefik.restart().await;
    let after = balancer.read().await.unwrap();
    assert_eq!((&after.split, after.generation), (&running.split, running.generation));
    assert!(after.restart_marker.is_some() && after.restart_marker != running.restart_marker);
    let typed = balancer.by_hand(&split(25.0), Generation(6)).await.unwrap().join("\n");
    let done = std::process::Command::new("sh").args(["-c", &typed]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let set = balancer.set(&split(25.0), Generation(6)).await.unwrap();
    assert!(set.settled && set.split == split(25.0), "{set:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traefik_says_whose_fault_it_is() {
    let world = World::start().await;
    let file = std::fs::read_to_string(&world.traefik.path).unwrap();
    let misconfigured = |settings: Settings| async move {
        let error = balancer(&settings).set(&split(5.0), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        error.what
    };
    let with = |change: fn(&mut WeightedService)| {
        let mut other = world.settings();
        change(&mut other.weighted);
        other
    };
    let other = with(|weighted| weighted.service = "shop".to_owned());
    assert!(misconfigured(other).await.contains("no weighted service `shop@file`"));
    let other = with(|weighted| weighted.service = "blue".to_owned());
    assert!(misconfigured(other).await.contains("no weighted service `blue@file`"));
    let other = with(|weighted| {
        weighted.services.insert("green".parse().unwrap(), "violet".to_owned());
    });
    assert!(misconfigured(other).await.contains("`violet`"));
    let mut other = world.settings();
    other.weighted.api = format!("http://{}", world.traefik.listener);
    // It passes on what is not its own, and a pool's answer is no list.
    assert!(misconfigured(other).await.contains("no list"));
    assert_eq!(std::fs::read_to_string(&world.traefik.path).unwrap(), file);
}

/// Waits until a reading says what is wanted (60 s at most: one that got no answer asks later and later).
async fn read_until(balancer: &impl LoadBalancer, wanted: impl Fn(&Reading) -> bool) -> Reading {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let reading = balancer.read().await;
        match reading {
            Ok(reading) if wanted(&reading) => return reading,
            other => assert!(Instant::now() < deadline, "not reached: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn settled(reading: &Reading) -> bool {
    reading.settled
}

async fn answered(world: &World) -> BTreeSet<String> {
    Traffic::to(world.traefik.listener).send(200).await.into_keys().collect()
}

fn only(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

/// Other weights than the recorded ones never reach a Traefik, whoever restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_give_a_traefik_no_other_weights() {
    let mut world = World::fetching().await;
    let (balancer, port) = world.serve(Some(&known(100.0, 4))).await;
    let first = read_until(&balancer, settled).await;
    assert_eq!((&first.split, first.generation), (&split(100.0), Some(Generation(4))));
    assert_eq!(answered(&world).await, only("green"));

    // While Tidegate is away, and while it comes back.
    let stop = Arc::new(AtomicBool::new(false));
    let (traffic, ended) = (Traffic::to(world.traefik.listener), Arc::clone(&stop));
    let load =
        tokio::spawn(async move { traffic.flow(move || !ended.load(Ordering::Relaxed)).await });
    drop(balancer);
    port.close().await;
    assert_eq!(answered(&world).await, only("green"));
    let (balancer, port) = world.serve(Some(&known(100.0, 4))).await;
    let same = read_until(&balancer, settled).await;
    assert_eq!((same.split, same.generation), (first.split, first.generation));
    // Fetched from the new one, and not only kept.
    balancer.set(&split(100.0), Generation(5)).await.unwrap();
    read_until(&balancer, |it| it.generation == Some(Generation(5))).await;
    stop.store(true, Ordering::Relaxed);
    let counts = load.await.unwrap();
    assert_eq!(counts.into_keys().collect::<BTreeSet<_>>(), only("green"));

    // Its own restart, with us and without: it has none before it has fetched some, and never any of its own.
    world.traefik.restart().await;
    read_until(&balancer, settled).await;
    assert_eq!(answered(&world).await, only("green"));
    drop(balancer);
    port.close().await;
    world.traefik.restart().await;
    assert_eq!(answered(&world).await, only("error"));
    let (balancer, _port) = world.serve(Some(&known(100.0, 5))).await;
    let none = balancer.read().await.unwrap_err();
    assert!(none.what.contains("it has no `web@http` yet"), "{none}");
    read_until(&balancer, settled).await;
    assert_eq!(answered(&world).await, only("green"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traefik_keeps_its_weights_while_none_or_only_older_ones_are_recorded() {
    let world = World::fetching().await;
    // Nobody has any: the fleet says who begins, and nothing is served before it is recorded.
    let (balancer, port) = world.serve(None).await;
    let first = balancer.survey().await.unwrap();
    assert_eq!((&first.split, first.settled, first.generation), (&split(0.0), true, None));
    assert!(!balancer.read().await.unwrap().settled);
    assert_eq!(answered(&world).await, only("error"));
    let begun = balancer.begin(&split(0.0), Generation(0)).await.unwrap().unwrap();
    assert!(begun.settled && begun.generation == Some(Generation(0)), "{begun:?}");
    assert_eq!(answered(&world).await, only("blue"));
    balancer.set(&split(100.0), Generation(4)).await.unwrap();
    assert_eq!(answered(&world).await, only("green"));
    port.close().await;

    // What was recorded is lost, or is older: it goes on with what it has, and is believed.
    for lost in [None, Some(known(0.0, 2))] {
        let (balancer, port) = world.serve(lost.as_ref()).await;
        let found = balancer.survey().await.unwrap();
        assert_eq!((&found.split, found.generation), (&split(100.0), Some(Generation(4))));
        assert!(found.settled, "{found:?}");
        let read = balancer.read().await.unwrap();
        assert!(!read.settled && read.note.unwrap().contains("no weights are recorded"));
        let refused = balancer.set(&split(0.0), Generation(3)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Superseded, "{refused}");
        let url = format!("http://{}/{PATH}", port.address());
        let answer = crate::parts::client().get(url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 503);
        assert_eq!(answered(&world).await, only("green"));
        port.close().await;
    }
    let (balancer, _port) = world.serve(None).await;
    let set = balancer.set(&split(25.0), Generation(5)).await;
    assert!(set.is_ok() || set.is_err_and(|error| error.outcome == Outcome::Unknown));
    read_until(&balancer, |it| it.settled && it.split == split(25.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_loopback_a_traefik_needs_a_certificate() {
    let open = Served { listen: SocketAddr::from(([0, 0, 0, 0], 0)), tls: None };
    assert!(matches!(Provider::default().open(&open).await.unwrap_err(), Error::Open(_)));
    let (folder, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&folder, &others] {
        certificates::write(folder.path());
    }
    let of = |name: &str| folder.path().join(name);
    let tls = MutualTls {
        certificate: of("server.pem"),
        key: Secret::File(of("server.key")),
        client_ca: of("ca.pem"),
    };
    let listen = free_address();
    let told = |from: &Path| {
        format!(
            "endpoint: \"https://localhost:{}/{PATH}\", pollInterval: 100ms, \
             tls: {{ca: \"{}\", cert: \"{}\", key: \"{}\"}}",
            listen.port(),
            of("ca.pem").display(),
            from.join("us_east_1.pem").display(),
            from.join("us_east_1.key").display()
        )
    };
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let stranger = Traefik::fetching(blue.address, green.address, &told(others.path())).await;
    let traefik = Traefik::fetching(blue.address, green.address, &told(folder.path())).await;
    let world = World::around(traefik, Source::File, blue, green).await;
    let port = Served { listen, tls: Some(tls) };
    let (balancer, _port) = serve(world.weighted(), Some(&known(100.0, 1)), &port).await;
    read_until(&balancer, settled).await;
    assert_eq!(answered(&world).await, only("green"));
    let refused = Traffic::to(stranger.listener).send(20).await;
    assert_eq!(refused, Counts::from([("error".to_owned(), 20)]));
}
