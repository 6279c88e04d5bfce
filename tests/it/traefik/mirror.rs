//! Copies of requests: a mirroring service of Traefik over the weighted one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::load_balancer::Known;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::units::{Generation, Weight};

use super::fetched::{known, read_until};
use super::{PATH, World, balancer, split};
use crate::conformance::World as _;
use crate::parts::backend::{Counts, Traffic};

/// Stable answers everybody, and `percent` of the requests are copied to the canary.
fn copied(percent: f64) -> Split {
    split(0.0).with_copies("green".parse().unwrap(), Weight::from_percent(percent).unwrap())
}

async fn text_of(url: String) -> String {
    crate::parts::client().get(url).send().await.unwrap().text().await.unwrap()
}

/// Goes from weights to copies and back under load, and counts who answered meanwhile.
async fn switched(world: &World, balancer: &impl LoadBalancer, begin: u64) -> Counts {
    let stop = Arc::new(AtomicBool::new(false));
    let (traffic, ended) = (Traffic::to(world.traefik.listener), Arc::clone(&stop));
    let load =
        tokio::spawn(async move { traffic.flow(move || !ended.load(Ordering::Relaxed)).await });
    for round in 0..20 {
        let wanted = [copied(10.0), split(5.0), copied(100.0), split(0.0)][round % 4].clone();
        let set = balancer.set(&wanted, Generation(begin + round as u64)).await.unwrap();
        assert!(set.settled && set.split == wanted, "{set:?}");
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_where_copies_begin_and_end() {
    let world = World::start().await;
    let balancer = balancer(&world.settings());
    balancer.set(&split(0.0), Generation(1)).await.unwrap();
    let file = || std::fs::read_to_string(&world.traefik.path).unwrap();
    let before = file();
    let counts = switched(&world, &balancer, 2).await;
    assert_eq!(counts.get("error"), None, "{counts:?}");
    assert!(counts["blue"] > 1_000, "{counts:?}");
    assert_eq!(file().replace("generation-21", "generation-1"), before);

    let world = World::fetching().await;
    let (balancer, _port) = world.serve(Some(&known(0.0, 1))).await;
    read_until(&balancer, |it| it.settled).await;
    let counts = switched(&world, &balancer, 2).await;
    assert_eq!(counts.get("error"), None, "{counts:?}");
    assert!(counts["blue"] > 1_000, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tenth_request_is_copied_and_counts_as_the_canarys() {
    let world = World::start().await;
    let balancer = balancer(&world.settings());
    balancer.set(&copied(10.0), Generation(1)).await.unwrap();
    let traffic = Traffic::to(world.traefik.listener);
    for _ in 0..1_000 {
        assert_eq!(traffic.once().await, "blue");
    }
    // It counts, and draws no lots.
    let url = format!("http://{}/metrics", world.traefik.api);
    let mut counted = String::new();
    for _ in 0..100 {
        counted = text_of(url.clone()).await;
        if world.had() == Some(100) && counted.contains("service=\"green@file\"} 100\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.had(), Some(100));
    for (name, requests) in [("blue", 1_000), ("green", 100)] {
        let line = format!(
            "traefik_service_requests_total{{code=\"200\",method=\"GET\",protocol=\"http\",service=\"{name}@file\"}} {requests}\n"
        );
        assert!(counted.contains(&line), "no {line} in {counted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_edits_that_mirror_are_read_or_refused() {
    let world = World::start().await;
    let balancer = balancer(&world.settings());
    balancer.set(&copied(10.0), Generation(1)).await.unwrap();
    let ours = std::fs::read_to_string(&world.traefik.path).unwrap();
    world.traefik.put("web.yaml", &ours.replace("percent: 10", "percent: 25"));
    let read = read_until(&balancer, |it| it.split == copied(25.0)).await;
    assert!(read.settled, "{read:?}");

    let fine = balancer.set(&copied(0.5), Generation(2)).await.unwrap_err();
    assert_eq!(fine.outcome, Outcome::Misconfigured, "{fine}");
    assert!(fine.what.contains("cannot copy 0.5 % of the requests: copies whole percents"));
    assert_eq!(balancer.read().await.unwrap().split, copied(25.0));

    // What is not ours stays, and is named.
    let tenth = "- {name: \"green@file\", percent: 10}";
    let third = format!("{tenth}\n          - {{name: \"blue@docker\", percent: 5}}");
    for (edit, word) in [
        (ours.replace(tenth, &third), "it mirrors to `blue@docker`, which is no slot's"),
        (ours.replace("\"tidegate-web-weighted\"\n", "\"blue\"\n"), "it mirrors over `blue`, not"),
    ] {
        world.traefik.put("web.yaml", &edit);
        let mut what = String::new();
        for _ in 0..100 {
            what = balancer.read().await.err().map_or(String::new(), |error| error.what);
            if what.contains(word) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(what.contains(word), "{what}");
        let refused = balancer.set(&split(0.0), Generation(3)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
        assert_eq!(std::fs::read_to_string(&world.traefik.path).unwrap(), edit);
    }

    // Traefik answers nothing by a service that it cannot build, whatever it shows of it.
    world.traefik.put("web.yaml", &ours.replace("percent: 10", "percent: 20"));
    read_until(&balancer, |it| it.settled && it.split == copied(20.0)).await;
    let routes = "http:
  routers: {web: {rule: \"PathPrefix(`/`)\", entryPoints: [web], service: web}}
  services: {blue: {loadBalancer: {servers: [{url: \"http://127.0.0.1:9\"}]}}}";
    world.traefik.put("routes.yaml", routes);
    let without = read_until(&balancer, |it| !it.settled).await;
    let note = without.note.unwrap();
    assert!(note.contains("Traefik has disabled it") && note.contains("green@file"), "{note}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_copies_are_served_from_the_start() {
    let mut world = World::fetching().await;
    let recorded = Known { split: copied(30.0), generation: Generation(4), instances: Vec::new() };
    let (fetched, port) = world.serve(Some(&recorded)).await;
    let served = text_of(format!("http://{}/{PATH}", port.address())).await;
    assert!(served.contains("- {name: \"green@file\", percent: 30}"), "{served}");
    let read = read_until(&fetched, |it| it.settled).await;
    assert_eq!((read.split, read.generation), (copied(30.0), Some(Generation(4))));
    // And by a Traefik that starts.
    world.traefik.restart().await;
    let read = read_until(&fetched, |it| it.settled).await;
    assert_eq!((read.split, read.generation), (copied(30.0), Some(Generation(4))));

    // Back without a daemon, journal or state.
    drop(fetched);
    port.close().await;
    goes_back_offline(&world);
    let world = World::start().await;
    balancer(&world.settings()).set(&copied(30.0), Generation(4)).await.unwrap();
    goes_back_offline(&world);
    assert_eq!(balancer(&world.settings()).read().await.unwrap().split, split(0.0));
}

fn goes_back_offline(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let fleet = crate::conformance::fleet_text(&world.target(), &world.fleet());
    std::fs::write(folder.path().join("tidegate.yaml"), fleet).unwrap();
    let back = ["rollback", "--offline", "--service", "web", "--stable-slot", "blue", "-o", "json"];
    let went = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(back)
        .current_dir(folder.path())
        .env_remove("TIDEGATE_FLEET")
        .env_remove("TIDEGATE_STATE")
        .output()
        .unwrap();
    assert!(went.status.success(), "{went:?}");
    let told: serde_json::Value = serde_json::from_slice(&went.stdout).unwrap();
    assert_eq!(told["targets"][0]["back"], true, "{told}");
}
