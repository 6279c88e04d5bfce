//! The adapter for Caddy, on a real one.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::json;
use tidegate::load_balancer::caddy::CaddyBalancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::Caddy as Settings;
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::caddy::Caddy;
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::port::free_address;

/// A Caddy, its pools, and a proxy before its admin API.
struct World {
    caddy: Caddy,
    meddler: Meddler,
    green: Option<Backend>,
    green_address: SocketAddr,
    blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let admin = free_address();
        let meddler = Meddler::start(admin).await;
        let caddy = Caddy::start(blue.address, green.address, admin, meddler.address).await;
        Self { caddy, meddler, green_address: green.address, green: Some(green), blue }
    }

    fn settings(&self) -> Settings {
        let upstreams = [("blue", self.blue.address), ("green", self.green_address)];
        let upstreams = upstreams.map(|(slot, at)| (slot.parse().unwrap(), at.to_string()));
        let admin = format!("http://{}", self.caddy.admin);
        Settings { admin, id: "web".to_owned(), upstreams: upstreams.into(), persisted: false }
    }

    fn balancer(&self) -> CaddyBalancer {
        CaddyBalancer::new("web us_east_1 edge".to_owned(), &self.settings()).unwrap()
    }

    /// Weights as a person sets them: `green` comes first in Caddy's list.
    async fn weights(&self, green: u32, blue: u32) {
        let path = "id/web/load_balancing/selection_policy/weights";
        self.caddy.change(Method::PATCH, path, json!([green, blue])).await;
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let (admin, blue, green) = (self.meddler.address, self.blue.address, self.green_address);
        format!(
            "caddy: {{admin: \"http://{admin}\", id: web, upstreams: {{blue: \"{blue}\", green: \"{green}\"}}}}"
        )
    }

    /// It listens anew with every change (`SO_REUSEPORT`): what waits at the old socket is reset.
    fn breaks(&self) -> Option<Reason> {
        Some("a change may reset a connection that is just being opened")
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |admin: &str, id: &str, upstreams: &str| {
            format!("caddy: {{admin: \"{admin}\", id: \"{id}\", upstreams: {upstreams}}}")
        };
        vec![
            (with("127.0.0.1:2019", "web", "{blue: a, green: b}"), "not an http or https address"),
            (with("http://u:p@c", "web", "{blue: a, green: b}"), "password stands in this address"),
            (with("http://c", "web/../x", "{blue: a, green: b}"), "the `@id` of a handler"),
            (with("http://c", "..", "{blue: a, green: b}"), "the `@id` of a handler"),
            (with("http://c", "web", "{blue: a, green: a}"), "two different names"),
            ("caddy: {id: web, upstreams: {blue: a, green: b}}".to_owned(), "admin"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.caddy.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        self.weights(canary_percent, 100 - canary_percent).await;
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.caddy.restart(false).await,
            Fault::Reload => self.caddy.reload().await,
            Fault::Gone => self.caddy.kill(),
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
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
async fn caddy_does_what_every_adapter_must() {
    conformance::hold("caddy", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_keeps_the_generation_and_comes_back_with_what_it_was_told() {
    let mut world = World::start().await;
    let persisted = Settings { persisted: true, ..world.settings() };
    let balancer = CaddyBalancer::new("web".to_owned(), &persisted).unwrap();
    assert!(balancer.capabilities().weights_survive_restart);
    assert_eq!(balancer.read().await.unwrap().generation, None);
    let before = balancer.set(&split(5.0), Generation(7)).await.unwrap();
    assert_eq!((&before.split, before.generation), (&split(5.0), Some(Generation(7))));
    // As small as can be, in the order of Caddy's list; everything else is as it was.
    let handler = world.caddy.handler().await.unwrap();
    let policy =
        json!({"@id": "tidegate:web:7", "policy": "weighted_round_robin", "weights": [1, 19]});
    assert_eq!(handler["load_balancing"]["selection_policy"], policy);
    assert_eq!(handler["health_checks"]["active"]["interval"], "200ms");

    world.caddy.restart(true).await;
    let after = balancer.read().await.unwrap();
    assert_eq!((&after.split, after.generation), (&before.split, before.generation));
    assert!(after.restart_marker.is_some() && after.restart_marker != before.restart_marker);
    // Somebody loads the file again: the generation is gone, which says that it was no hand edit of the weights.
    world.caddy.reload().await;
    let reloaded = balancer.read().await.unwrap();
    assert_eq!((&reloaded.split, reloaded.generation), (&split(0.0), None));
    let typed = balancer.by_hand(&split(100.0), Generation(9)).await.unwrap();
    let status = std::process::Command::new("sh").args(["-c", &typed[0]]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    let by_hand = balancer.read().await.unwrap();
    assert_eq!((by_hand.split, by_hand.generation), (split(100.0), Some(Generation(9))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_says_whose_fault_it_is() {
    let world = World::start().await;
    let balancer = world.balancer();
    let misconfigured = |settings: Settings| async move {
        let balancer = CaddyBalancer::new("web".to_owned(), &settings).unwrap();
        let error = balancer.set(&split(5.0), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
        error.what
    };
    let other = Settings { id: "nobody".to_owned(), ..world.settings() };
    assert!(misconfigured(other).await.contains("unknown object ID"));
    let mut other = world.settings();
    other.upstreams.insert("green".parse().unwrap(), "127.0.0.1:1".to_owned());
    assert!(misconfigured(other).await.contains("127.0.0.1:1"));

    let policy = "id/web/load_balancing/selection_policy";
    world.caddy.change(Method::PATCH, policy, json!({"policy": "first"})).await;
    assert!(misconfigured(world.settings()).await.contains("weighted_round_robin"));
    let own = json!({"@id": "mine", "policy": "weighted_round_robin", "weights": [0, 1]});
    world.caddy.change(Method::PATCH, policy, own).await;
    assert!(misconfigured(world.settings()).await.contains("`mine`"));
    let plain = json!({"policy": "weighted_round_robin", "weights": [0, 1]});
    world.caddy.change(Method::PATCH, policy, plain).await;
    world.caddy.change(Method::POST, "id/web/upstreams", json!({"dial": "127.0.0.1:1"})).await;
    // Caddy takes a list of weights that is too short, and breaks at the next request.
    assert!(misconfigured(world.settings()).await.contains("no slot's"));
    world.caddy.change(Method::DELETE, "id/web/upstreams/2", json!(null)).await;
    assert_eq!(balancer.set(&split(5.0), Generation(1)).await.unwrap().split, split(5.0));
}
