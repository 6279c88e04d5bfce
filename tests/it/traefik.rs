//! The adapter for Traefik, on a real one.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate::load_balancer::traefik::TraefikBalancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::Traefik as Settings;
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::traefik::Traefik;

/// A Traefik, its pools, and a proxy before its API.
struct World {
    traefik: Traefik,
    meddler: Meddler,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let traefik = Traefik::start(blue.address, green.address).await;
        let meddler = Meddler::start(traefik.api).await;
        Self { traefik, meddler, green_address: green.address, green: Some(green), _blue: blue }
    }

    fn settings(&self) -> Settings {
        let services = ["blue", "green"].map(|slot| (slot.parse().unwrap(), slot.to_owned()));
        Settings {
            path: self.traefik.path.clone(),
            service: "web".to_owned(),
            services: services.into(),
            api: format!("http://{}", self.traefik.api),
            auth: None,
        }
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

fn balancer(settings: &Settings) -> TraefikBalancer {
    TraefikBalancer::new("web us_east_1 edge".to_owned(), settings).unwrap()
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let (path, api) = (self.traefik.path.display(), self.meddler.address);
        format!(
            "traefik: {{path: \"{path}\", service: web, services: {{blue: blue, green: green}}, api: \"http://{api}\"}}"
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |path: &str, service: &str, services: &str, more: &str| {
            format!(
                "traefik: {{path: {path}, service: \"{service}\", services: {services}, api: \"http://t\"{more}}}"
            )
        };
        let services = "{blue: b, green: g}";
        vec![
            (with("web.json", "web", services, ""), ".yaml or .yml"),
            (with("web.yaml", "web@file", services, ""), "without `@file`"),
            (with("web.yaml", "web", "{blue: b, green: \"g\\\"\"}", ""), "cannot be a service"),
            (with("web.yaml", "web", "{blue: b, green: b}", ""), "two different names"),
            (with("web.yaml", "web", services, ", bearer: secret"), "a secret stands in this file"),
            (format!("traefik: {{path: web.yaml, service: web, services: {services}}}"), "api"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.traefik.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        self.traefik.edit(canary_percent);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.traefik.restart().await,
            Fault::Reload => self.traefik.reload(),
            Fault::Gone => self.traefik.kill(),
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.traefik.link(true),
            Fault::Lying => self.traefik.spoil(true),
            Fault::Honest => {
                self.traefik.link(false);
                self.traefik.spoil(false);
                self.meddler.be(Mood::Honest);
            }
            Fault::CanarySick => self.green = None,
            Fault::CanaryWell => self.green = Some(Backend::at("green", self.green_address).await),
        }
        Ok(())
    }
}

/// The suite's world, begun.
pub async fn world() -> Box<dyn conformance::World> {
    Box::new(World::start().await)
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
    let other = Settings { service: "shop".to_owned(), ..world.settings() };
    assert!(misconfigured(other).await.contains("no weighted service `shop@file`"));
    let other = Settings { service: "blue".to_owned(), ..world.settings() };
    assert!(misconfigured(other).await.contains("no weighted service `blue@file`"));
    let mut other = world.settings();
    other.services.insert("green".parse().unwrap(), "violet".to_owned());
    assert!(misconfigured(other).await.contains("`violet`"));
    let other = Settings { api: format!("http://{}", world.traefik.listener), ..world.settings() };
    // It passes on what is not its own, and a pool's answer is no list.
    assert!(misconfigured(other).await.contains("no list"));
    assert_eq!(std::fs::read_to_string(&world.traefik.path).unwrap(), file);
}
