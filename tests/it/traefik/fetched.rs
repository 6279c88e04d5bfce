//! Traefiks that fetch their weights from us.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate::load_balancer::traefik::{Error, Provider, ProviderPort, TraefikHttpBalancer};
use tidegate::load_balancer::{Known, TargetKey};
use tidegate::ports::{LoadBalancer, Outcome, Reading};
use tidegate::spec::fleet::{MutualTls, Secret, Served, TraefikHttp, WeightedService};
use tidegate::units::Generation;

use super::{PATH, Source, World, split};
use crate::parts::backend::{Backend, Counts, Traffic};
use crate::parts::certificates;
use crate::parts::port::free_address;
use crate::parts::traefik::Traefik;

impl World {
    /// A controller that begins with what is known.
    pub(super) async fn serve(&self, known: Option<&Known>) -> (TraefikHttpBalancer, ProviderPort) {
        let Source::Us(listen, _) = &self.from else { panic!("it has its weights from a file") };
        serve(self.weighted(), known, &Served { listen: *listen, tls: None }).await
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

pub(super) fn known(green: f64, generation: u64) -> Known {
    Known { split: split(green), generation: Generation(generation), instances: Vec::new() }
}

/// Waits until a reading says what is wanted (60 s at most: one that got no answer asks later and later).
pub(super) async fn read_until(
    balancer: &impl LoadBalancer,
    wanted: impl Fn(&Reading) -> bool,
) -> Reading {
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
