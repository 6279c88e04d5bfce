//! The adapter for HAProxy, on a real one.

use std::collections::BTreeMap;

use tidegate::load_balancer::haproxy::HaproxyBalancer;
use tidegate::ports::{Backends, LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{Haproxy as Settings, HaproxySocket};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Subject};
use crate::parts::backend::{Backend, Traffic};
use crate::parts::haproxy::Haproxy;

struct World {
    haproxy: Haproxy,
    green: Option<Backend>,
    _blue: Backend,
}

impl World {
    async fn start() -> Self {
        let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
        let haproxy = Haproxy::start(blue.address, green.address);
        Self { haproxy, green: Some(green), _blue: blue }
    }

    fn balancer(&self, socket: HaproxySocket) -> HaproxyBalancer {
        let servers = ["blue", "green"].map(|slot| (slot.parse().unwrap(), slot.to_owned()));
        let settings = Settings { socket, backend: "be".to_owned(), servers: servers.into() };
        HaproxyBalancer::new("web us_east_1 edge".to_owned(), &settings).unwrap()
    }

    fn unix(&self) -> HaproxyBalancer {
        self.balancer(HaproxySocket::Unix(self.haproxy.socket.clone()))
    }
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    BTreeMap::from([
        ("green".parse().unwrap(), green),
        ("blue".parse().unwrap(), green.complement()),
    ])
}

fn subject<'a>(balancer: &'a HaproxyBalancer, haproxy: &Haproxy) -> Subject<'a> {
    Subject {
        balancer,
        traffic: Traffic::to(haproxy.listener),
        canary: "green".parse().unwrap(),
        stable: "blue".parse().unwrap(),
        generation: 0,
        stores_generation: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_does_what_every_adapter_must() {
    let world = World::start().await;
    let balancer = world.unix();
    conformance::all(&mut subject(&balancer, &world.haproxy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_over_tcp_shows_hand_edits_restarts_and_sick_backends() {
    let mut world = World::start().await;
    let balancer = world.balancer(HaproxySocket::Tcp(world.haproxy.tcp));
    let before = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert_eq!((&before.split, before.generation), (&split(5.0), None));
    let pools = before.backends.clone().unwrap();
    assert_eq!(pools[&"green".parse().unwrap()], Backends { healthy: 1, total: 1 });

    // Somebody types at its socket.
    world.haproxy.say("set weight be/green 190").unwrap();
    let edited = balancer.read().await.unwrap();
    assert_eq!((&edited.split, &edited.restart_marker), (&split(50.0), &before.restart_marker));

    // Both at nothing: no share can be said, and nothing is settled.
    world.haproxy.say("set weight be/green 0; set weight be/blue 0").unwrap();
    let nobody = balancer.read().await.unwrap();
    assert!(!nobody.settled && nobody.note.is_some(), "{nobody:?}");
    balancer.set(&split(25.0), Generation(2)).await.unwrap();

    world.green = None;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let reading = balancer.read().await.unwrap();
        if reading.backends.unwrap()[&"green".parse().unwrap()].healthy == 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never sick");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // Gone: nothing was sent. Back: another process, with the weights of its configuration.
    world.haproxy.kill();
    assert_eq!(balancer.read().await.unwrap_err().outcome, Outcome::NotSent);
    assert_eq!(
        balancer.set(&split(1.0), Generation(3)).await.unwrap_err().outcome,
        Outcome::NotSent
    );
    world.haproxy.restart();
    let after = balancer.read().await.unwrap();
    assert_eq!(after.split, split(0.0));
    assert!(after.restart_marker.is_some() && after.restart_marker != before.restart_marker);
    assert!(!balancer.capabilities().weights_survive_restart);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_says_whose_fault_it_is() {
    let world = World::start().await;
    let weak = world.balancer(HaproxySocket::Unix(world.haproxy.weak_socket.clone()));
    let refused = weak.set(&split(5.0), Generation(1)).await.unwrap_err();
    assert!(matches!(refused.outcome, Outcome::Refused | Outcome::Misconfigured), "{refused}");
    assert_eq!(world.unix().read().await.unwrap().split, split(0.0));

    let servers = [("blue", "blue"), ("green", "violet")];
    let servers = servers.map(|(slot, name)| (slot.parse().unwrap(), name.to_owned()));
    let socket = HaproxySocket::Unix(world.haproxy.socket.clone());
    let settings = Settings { socket, backend: "be".to_owned(), servers: servers.into() };
    let strange = HaproxyBalancer::new("web".to_owned(), &settings).unwrap();
    let error = strange.read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured);
    assert!(error.what.contains("no server `violet`"), "{error}");
    let settings = Settings { backend: "nowhere".to_owned(), ..settings };
    let error =
        HaproxyBalancer::new("web".to_owned(), &settings).unwrap().read().await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Misconfigured, "{error}");
    // Finer than its steps: it is said before anything is sent.
    let error = world.unix().set(&split(0.01), Generation(1)).await.unwrap_err();
    assert!(
        error.outcome == Outcome::Misconfigured && error.what.contains("do not fit"),
        "{error}"
    );
    let typed = world.unix().by_hand(&split(0.0), Generation(9)).await.unwrap();
    assert!(
        typed[0].starts_with("echo 'set weight be/blue 200;set weight be/green 0' | socat"),
        "{typed:?}"
    );
}
