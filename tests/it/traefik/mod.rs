//! The adapters for Traefik, on a real one: by a file; what one that fetches does beside that stands in
//! `fetched`, copies of requests in `mirror`.

mod fetched;
mod mirror;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidegate::load_balancer::traefik::TraefikBalancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{Traefik as Settings, WeightedService};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
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

    fn had(&self) -> Option<u64> {
        self.green.as_ref().map(Backend::loads)
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
