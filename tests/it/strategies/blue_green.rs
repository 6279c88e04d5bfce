//! The shipped blue-green pipeline on three regions: one step each, the old side kept, and an instant way back.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::world::{World, green};
use crate::binary_xds::process::{Running, call};
use crate::parts::backend::Traffic;
use crate::parts::port::free_address;

/// With short clocks, and without what HAProxy does not measure.
fn pipeline() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/blue-green.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let unmeasured = ["response_time", "all_regions_healthy"];
    let lines = text.lines().filter(|line| !unmeasured.iter().any(|name| line.contains(name)));
    let text = lines.map(|line| format!("{line}\n")).collect::<String>();
    let clocks = text.replace("10_minutes", "2s");
    let quick = clocks.replace(
        "deployment_pipeline:\n",
        "deployment_pipeline:\n  min_requests: 200\n  max_duration: 1m\n",
    );
    assert!(quick != clocks && clocks != text, "{text}");
    quick
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blue_green_takes_one_step_per_region_and_the_way_back_is_instant() {
    let (eu, ap) = (free_address(), free_address());
    let mut world = World::start("", &[("be_eu", Some(eu)), ("be_ap", Some(ap))]).await;
    let all = [world.haproxy.listener, eu, ap];
    let regions =
        [("us_east_1", "be", 50), ("eu_west_1", "be_eu", 30), ("ap_southeast_2", "be_ap", 20)];
    let text = regions.map(|(name, backend, share)| {
        format!("  {name}: {{share: {share}%, labels: {{backend: {backend}}}, scrape: {{endpoints: [\"http://{}/metrics\"]}}, scrape_interval: 1s}}\n", world.metrics)
    });
    world.write_fleet(&text.concat(), &regions.map(|(name, backend, _)| (name, backend)));
    world.write("pipelines/blue-green.yaml", &pipeline());
    all.into_iter().for_each(|address| world.users(Traffic::to(address)));
    let folder = world.folder().to_owned();
    let shares = async || {
        let mut shares = [0.0; 3];
        for (share, address) in shares.iter_mut().zip(all) {
            *share = green(&Traffic::to(address).send(100).await);
        }
        shares
    };
    call(&folder, &["adopt", "web", "--version", "v1"]).expect(0);
    let run = ["run", "pipelines/blue-green.yaml", "--service", "web", "--version", "v2"];
    Running::start(&folder, &run).ended(120).expect(0);
    assert_eq!(shares().await, [100.0; 3]);

    // Region by region, each in one step: nothing between nothing and all was ever wanted or read.
    let events = world.events();
    let steps = events.iter().filter(|event| event.get("step_entered").is_some()).count();
    assert_eq!(steps, 3, "{events:?}");
    let read: Vec<_> = events
        .iter()
        .filter_map(|event| event.get("region_read")?.get("weight")?.as_f64())
        .collect();
    let ends = |weight: &f64| *weight == 0.0 || *weight == 10_000.0;
    assert!(read.len() >= 6 && read.iter().all(ends), "{read:?}");

    // The old side is still there, and is kept there.
    let kept = call(&folder, &["retire", "web"]).expect(1);
    assert!(kept.errors.contains("is kept for"), "{kept:?}");
    assert!(!world.calls().iter().any(|line| line.starts_with("retire")), "{:?}", world.calls());

    // Back, from the call to the first answer of the old side everywhere and to the end of the command.
    let deploys =
        |world: &World| world.calls().iter().filter(|line| line.starts_with("deploy")).count();
    assert_eq!(deploys(&world), 3);
    let begin = Instant::now();
    let undo = Running::start(&folder, &["undo", "web"]);
    for address in all {
        while Traffic::to(address).once().await != "blue" {
            assert!(begin.elapsed() < Duration::from_secs(20), "never back");
        }
    }
    let (first, undone) = (begin.elapsed(), undo.ended(20).expect(0));
    assert!(undone.out.contains("web-2 v1"), "{undone:?}");
    assert_eq!(shares().await, [0.0; 3]);
    // Straight to the terminal: `cargo test` keeps what a passed test prints to itself.
    writeln!(std::io::stderr(), "undo: users are back after {first:.0?}").unwrap();
    assert!(first < Duration::from_secs(5), "{first:?}");
    assert_eq!((deploys(&world), world.lost()), (3, 0));
    call(&folder, &["store", "verify"]).expect(0);
}
