//! The adapter for nginx, on a real one.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tidegate::load_balancer::nginx::NginxBalancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::Nginx as Settings;
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::envoy::affinity;
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::meddler::{Meddler, Mood};
use crate::parts::nginx::Nginx;

/// An nginx, its pools, and a proxy before its status.
struct World {
    nginx: Nginx,
    meddler: Meddler,
    green: Option<Backend>,
    green_address: SocketAddr,
    _blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let nginx = Nginx::start(blue.address, green.address).await;
        let meddler = Meddler::start(nginx.status).await;
        Self { nginx, meddler, green_address: green.address, green: Some(green), _blue: blue }
    }

    fn settings(&self) -> Settings {
        let upstreams = ["blue", "green"].map(|slot| (slot.parse().unwrap(), slot.to_owned()));
        Settings {
            include: self.nginx.include.clone(),
            variable: "web_pool".to_owned(),
            key: "$request_id".to_owned(),
            affinity: None,
            upstreams: upstreams.into(),
            status: format!("http://{}/tidegate/web", self.nginx.status),
            test: self.nginx.test_command(),
            reload: self.nginx.reload_command(),
        }
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

fn balancer(settings: &Settings) -> NginxBalancer {
    NginxBalancer::new("web us_east_1 edge".to_owned(), settings).unwrap()
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let Settings { include, test, reload, .. } = self.settings();
        let status = format!("http://{}/tidegate/web", self.meddler.address);
        format!(
            "nginx: {{include: \"{}\", variable: $web_pool, upstreams: {{blue: blue, green: green}}, \
             status: \"{status}\", test: {test:?}, reload: {reload:?}}}",
            include.display()
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |more: &str| format!("nginx: {{include: web.conf, {more}}}");
        let (variable, status) = ("variable: $pool", "status: \"http://s/t\"");
        let upstreams = "upstreams: {blue: b, green: g}";
        vec![
            (with(&format!("variable: pool, {status}, {upstreams}")), "no variable of nginx"),
            (with(&format!("variable: \"$a b\", {status}, {upstreams}")), "no variable of nginx"),
            (
                with(&format!("{variable}, {status}, upstreams: {{blue: \"b;\", green: g}}")),
                "`b;` cannot be an upstream",
            ),
            (with(&format!("{variable}, status: \"http://s\", {upstreams}")), "a plain path"),
            (with(&format!("{variable}, status: \"http://s/a?b\", {upstreams}")), "a plain path"),
            (with(&format!("{variable}, {status}, {upstreams}, key: same")), "told apart"),
            (with(&format!("{variable}, {status}, {upstreams}, test: []")), "its program"),
            (with(&format!("{variable}, {upstreams}")), "status"),
        ]
    }

    async fn load(&self, more: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Ok(Traffic::to(self.nginx.listener).flow(move || more()).await)
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        self.nginx.edit(canary_percent);
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart | Fault::Back => self.nginx.restart().await,
            Fault::Reload => self.nginx.reload(),
            Fault::Gone => self.nginx.kill(),
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.nginx.spoil(true),
            Fault::Lying => self.nginx.lie(true),
            Fault::Honest => {
                self.nginx.spoil(false);
                self.nginx.lie(false);
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
async fn nginx_does_what_every_adapter_must() {
    conformance::hold("nginx", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_nginx_stay_and_a_rollback_takes_them_back() {
    let world = World::start().await;
    let fleet = affinity::fleet("cookie: session", &conformance::World::target(&world), "");
    let connected = affinity::connected(&fleet).await;
    let balancer = connected.targets.values().next().unwrap().as_ref();
    affinity::users_stay(balancer, world.nginx.listener, "cookie: a=b; session=").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_shows_what_its_workers_do_and_not_what_the_file_says() {
    let world = World::start().await;
    let balancer = balancer(&world.settings());
    let before = balancer.read().await.unwrap();
    assert_eq!((&before.split, before.settled, before.generation), (&split(0.0), true, None));
    for percent in [0.01, 12.34, 99.99, 100.0, 0.0] {
        let generation = Generation((percent * 100.0) as u64 + 1);
        std::fs::remove_file(&world.nginx.include).unwrap();
        let set = balancer.set(&split(percent), generation).await.unwrap();
        assert_eq!((&set.split, set.generation), (&split(percent), Some(generation)));
        assert_eq!(balancer.read().await.unwrap().split, split(percent));
    }

    // Written and not reloaded: what is in force is shown, and that the file is ahead of it.
    let text = std::fs::read_to_string(&world.nginx.include).unwrap();
    let ahead = text.replace("* blue", "5% green; * blue").replace("generation=1", "generation=9");
    std::fs::write(&world.nginx.include, &ahead).unwrap();
    let read = balancer.read().await.unwrap();
    assert_eq!((&read.split, read.settled), (&split(0.0), false));
    assert!(read.note.unwrap().contains("generation 1, its file has 9"));
    // An older controller is refused by the file already.
    let error = balancer.set(&split(50.0), Generation(8)).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Superseded, "{error}");

    // A person who writes the shares the other way around, and one with a third pool.
    for (shares, wanted) in [("95% blue; * green", Some(5.0)), ("5% web; * blue", None)] {
        let edited = ahead.replace("5% green; * blue", shares);
        assert!(edited.contains(shares), "{edited}");
        std::fs::write(&world.nginx.include, edited).unwrap();
        world.nginx.reload();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let read = balancer.read().await.unwrap();
            let reached = match wanted {
                Some(percent) => read.settled && read.split == split(percent),
                None => read.note.as_ref().is_some_and(|note| note.contains("`web`")),
            };
            if reached {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{shares}: {read:?}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let typed = balancer.by_hand(&split(25.0), Generation(10)).await.unwrap().join("\n");
    let done = std::process::Command::new("sh").args(["-c", &typed]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let set = balancer.set(&split(25.0), Generation(10)).await.unwrap();
    assert!(set.settled && set.split == split(25.0), "{set:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_gets_its_file_back_when_the_new_one_is_not_taken() {
    let mut world = World::start().await;
    let settings = world.settings();
    let good = balancer(&settings);
    good.set(&split(5.0), Generation(1)).await.unwrap();
    let before = std::fs::read_to_string(&settings.include).unwrap();
    let unchanged = |error: tidegate::ports::LoadBalancerError, outcome| {
        assert_eq!(error.outcome, outcome, "{error}");
        assert_eq!(std::fs::read_to_string(&settings.include).unwrap(), before);
        error.what
    };
    world.nginx.spoil(true);
    let error = good.set(&split(50.0), Generation(2)).await.unwrap_err();
    assert!(unchanged(error, Outcome::Refused).contains("nonsense"));
    world.nginx.spoil(false);
    let missing = Settings { test: vec!["no-such-program".to_owned()], ..settings.clone() };
    let error = balancer(&missing).set(&split(50.0), Generation(2)).await.unwrap_err();
    assert!(unchanged(error, Outcome::Misconfigured).contains("cannot be started"));
    // Nobody is there to reload: a later start must not bring what nobody confirmed.
    world.nginx.kill();
    let error = good.set(&split(50.0), Generation(2)).await.unwrap_err();
    unchanged(error, Outcome::NotSent);
    world.nginx.restart().await;
    assert_eq!(good.read().await.unwrap().split, split(5.0));
    // A status that is another page.
    let other = Settings { status: format!("http://{}/", world.nginx.listener), ..settings };
    let error = balancer(&other).read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
    assert!(error.what.contains("$web_pool_state $web_pool"), "{error}");
}
