//! Mode `envoy`: routes served over gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tidegate::load_balancer::Known;
use tidegate::load_balancer::envoy::xds::{Error, Registry, XdsBalancer, XdsServer};
use tidegate::ports::{LoadBalancer, Outcome};
use tidegate::spec::fleet::{EnvoyXds, MutualTls, Secret, Served};
use tidegate::units::{Generation, Millis};

use super::{World, clusters, subject};
use crate::parts::certificates;
use crate::parts::envoy::{Envoy, Rds, route_yaml};

fn target(directory: &Path) -> EnvoyXds {
    let route_file = directory.join("route.yaml");
    std::fs::write(&route_file, route_yaml("web", [("api-blue", 100), ("api-green", 0)])).unwrap();
    EnvoyXds {
        affinity: None,
        route: "web".to_owned(),
        route_file,
        clusters: clusters(),
        node_cluster: "us_east_1".to_owned(),
        min_instances: 1,
        forget_after: None,
        admin: Vec::new(),
    }
}

fn known(green_percent: f64, generation: u64) -> Known {
    let green = tidegate::units::Weight::from_percent(green_percent).unwrap();
    let split =
        [("blue".parse().unwrap(), green.complement()), ("green".parse().unwrap(), green)].into();
    Known { split, generation: Generation(generation), instances: Vec::new() }
}

fn loopback(port: u16) -> Served {
    Served { listen: SocketAddr::from(([127, 0, 0, 1], port)), tls: None }
}

async fn serve(target: &EnvoyXds, known: Option<&Known>, xds: &Served) -> (XdsBalancer, XdsServer) {
    let registry = Registry::new();
    let balancer = registry.register("web us_east_1 edge".to_owned(), target, known).unwrap();
    (balancer, registry.open(xds).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aggregated_stream_serves_routes_and_admin_ports_are_asked() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let (_, server) = serve(&target(directory.path()), Some(&known(5.0, 1)), &loopback(0)).await;
    let envoy = Envoy::start(world.config("edge-1", Rds::Aggregated(server.address()))).await;
    let address = server.address();
    server.close().await;
    let mut settings = target(directory.path());
    settings.admin = vec![envoy.admin_address()];
    let (balancer, _server) =
        serve(&settings, Some(&known(5.0, 1)), &loopback(address.port())).await;
    let mut subject = subject(&balancer);
    subject.generation = 1;
    subject.read_until(|reading| reading.settled).await;
    let reading = subject.set(25.0).await;
    assert_eq!(reading.instances.len(), 1, "{reading:?}");
    assert!(reading.restart_marker.is_some() && reading.backends.is_some(), "{reading:?}");
}

/// Other weights than the recorded ones never reach an Envoy, whoever restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_change_no_weights() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let target = target(directory.path());
    let (balancer, server) = serve(&target, Some(&known(100.0, 4)), &loopback(0)).await;
    let address = server.address();
    let mut envoy = Envoy::start(world.config("edge-1", Rds::Grpc(address))).await;
    let all_green = BTreeMap::from([("green".to_owned(), 300)]);
    assert_eq!(envoy.traffic().send(300).await, all_green);
    envoy.restart().await;
    assert_eq!(envoy.traffic().send(300).await, all_green);
    drop(balancer);
    server.close().await;
    assert_eq!(envoy.traffic().send(300).await, all_green);

    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (traffic, ended) = (envoy.traffic(), std::sync::Arc::clone(&stop));
    let load = tokio::spawn(async move {
        traffic.flow(move || !ended.load(std::sync::atomic::Ordering::Relaxed)).await
    });
    let (balancer, _server) =
        serve(&target, Some(&known(100.0, 4)), &loopback(address.port())).await;
    let subject = subject(&balancer);
    let reading = subject.read_until(|reading| reading.settled).await;
    assert_eq!((reading.split, reading.generation), (subject.split(100.0), Some(Generation(4))));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let counts = load.await.unwrap();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["green"], "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_keeps_its_weights_while_none_are_recorded() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let target = target(directory.path());
    let (_, server) = serve(&target, Some(&known(100.0, 4)), &loopback(0)).await;
    let envoy = Envoy::start(world.config("edge-1", Rds::Grpc(server.address()))).await;
    let port = server.address().port();
    server.close().await;
    let (balancer, _server) = serve(&target, None, &loopback(port)).await;
    let mut subject = subject(&balancer);
    // The Envoy tells which generation it has, so that an older one is refused.
    let told = subject
        .read_until(|reading| {
            reading.generation == Some(Generation(4))
                || reading
                    .note
                    .as_deref()
                    .is_some_and(|note| note.contains("no weights are recorded"))
        })
        .await;
    assert!(!told.settled);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !matches!(balancer.set(&subject.split(0.0), Generation(3)).await, Err(error) if error.outcome == Outcome::Superseded)
    {
        panic_after(deadline);
    }
    assert_eq!(envoy.traffic().send(300).await, BTreeMap::from([("green".to_owned(), 300)]));
    subject.generation = 4;
    subject.set(25.0).await;
}

fn panic_after(deadline: std::time::Instant) {
    assert!(std::time::Instant::now() < deadline, "not reached in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_leaves_with_canary_weight_stays_named() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let mut target = target(directory.path());
    target.min_instances = 2;
    target.forget_after = Some(Millis::from_secs(3_600));
    let (balancer, server) = serve(&target, Some(&known(0.0, 0)), &loopback(0)).await;
    let _one = Envoy::start(world.config("edge-1", Rds::Grpc(server.address()))).await;
    let alone = balancer.read().await.unwrap();
    assert_eq!(alone.note.as_deref(), Some("1 of at least 2 instances connected"));
    assert!(!alone.settled);
    let mut two = Envoy::start(world.config("edge-2", Rds::Grpc(server.address()))).await;
    let mut subject = subject(&balancer);
    subject.set(5.0).await;
    two.kill();
    subject.read_until(|reading| !reading.settled).await;
    let back = balancer.set(&subject.split(0.0), Generation(2)).await.unwrap();
    assert!(!back.settled && back.split == subject.split(5.0), "{back:?}");
    let note = back.note.unwrap();
    assert!(note.contains("edge-2 is disconnected, last seen with blue 95 % green 5 %"), "{note}");
    two.restart().await;
    subject
        .read_until(|reading| reading.settled && reading.generation == Some(Generation(2)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_with_envoys_words() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let target = target(directory.path());
    let (_, server) = serve(&target, Some(&known(5.0, 1)), &loopback(0)).await;
    let envoy = Envoy::start(world.config("edge-1", Rds::Grpc(server.address()))).await;
    let port = server.address().port();
    server.close().await;
    // The same domain twice passes every check but Envoy's own.
    let text = std::fs::read_to_string(&target.route_file).unwrap();
    std::fs::write(&target.route_file, text.replace("['*']", "['*', '*']")).unwrap();
    let (balancer, _server) = serve(&target, Some(&known(5.0, 1)), &loopback(port)).await;
    let subject = subject(&balancer);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let refused = loop {
        match balancer.set(&subject.split(50.0), Generation(2)).await {
            Err(error) if error.outcome == Outcome::Refused => break error,
            _ => panic_after(deadline),
        }
    };
    assert!(refused.what.contains("edge-1") && refused.what.contains("wildcard"), "{refused}");
    assert_eq!(envoy.traffic().send(200).await.get("error"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_loopback_only_with_certificates_that_name_the_group() {
    let (world, directory) = (World::start().await, tempfile::tempdir().unwrap());
    let settings = target(directory.path());
    let registry = Registry::new();
    let open = Served { listen: SocketAddr::from(([0, 0, 0, 0], 0)), tls: None };
    assert!(matches!(registry.open(&open).await.unwrap_err(), Error::Open(_)));

    let authority = certificates::write(directory.path());
    let tls = MutualTls {
        certificate: authority.join("server.pem"),
        key: Secret::File(authority.join("server.key")),
        client_ca: authority.join("ca.pem"),
    };
    let xds = Served { listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls: Some(tls) };
    let (balancer, server) = serve(&settings, Some(&known(5.0, 1)), &xds).await;
    let rds = |name: &str| Rds::GrpcTls {
        address: server.address(),
        ca: authority.join("ca.pem"),
        certificate: authority.join(format!("{name}.pem")),
        key: authority.join(format!("{name}.key")),
    };
    let stranger = Envoy::spawn(world.config("edge-2", rds("eu_west_1")));
    let _envoy = Envoy::start(world.config("edge-1", rds("us_east_1"))).await;
    let reading = subject(&balancer).read_until(|reading| reading.settled).await;
    assert_eq!(reading.instances.len(), 1, "{reading:?}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // Its stream is ended again and again.
    loop {
        let stats = stranger.get("/stats?filter=rds.web.update_failure").await;
        let failures =
            stats.and_then(|(_, text)| text.trim().rsplit(' ').next()?.parse::<u32>().ok());
        if failures.is_some_and(|failures| failures > 0) {
            break;
        }
        panic_after(deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(balancer.read().await.unwrap().instances.len(), 1);
}
