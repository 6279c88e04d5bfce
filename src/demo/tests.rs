//! The world as a whole, at low rates.

use std::net::TcpStream;
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;

use super::*;
use crate::ports::{LoadBalancerError, Outcome, Reading, Split};
use crate::units::{Generation, Millis, Weight};

fn world(behaviour: Behaviour) -> World {
    let silent_after = Millis(100);
    World::start(WorldConfig { seed: 3, requests_per_second: 300, behaviour, silent_after })
        .unwrap()
}

fn split(canary_percent: f64) -> Split {
    let canary = Weight::from_percent(canary_percent).unwrap();
    Split::from([
        (STABLE_SLOT.parse().unwrap(), canary.complement()),
        (CANARY_SLOT.parse().unwrap(), canary),
    ])
}

async fn set(
    region: &Region,
    canary_percent: f64,
    generation: u64,
) -> Result<Reading, LoadBalancerError> {
    region.balancer.set(&split(canary_percent), Generation(generation)).await
}

/// Waits until it holds, at most ten seconds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    async move {
        for _ in 0..1_000 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }
}

async fn canary_requests(region: &Region, count: u64) {
    let before = region.traffic().arms[1].requests;
    until("enough canary requests", || region.traffic().arms[1].requests >= before + count).await;
}

async fn page(url: &str) -> String {
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let timeout = Duration::from_secs(5);
    let answer =
        http::once(address.parse().unwrap(), Method::GET, "/metrics", Bytes::new(), timeout);
    String::from_utf8(answer.await.unwrap().body.to_vec()).unwrap()
}

/// Sum of the samples whose line starts and contains so; `None` without any.
fn sum(page: &str, start: &str, contains: &str) -> Option<f64> {
    let lines = page.lines().filter(|line| line.starts_with(start) && line.contains(contains));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).reduce(|a, b| a + b)
}

#[tokio::test]
async fn traffic_follows_the_weights() {
    let world = world(Behaviour::Good);
    let [us, eu, ap] = world.regions() else { panic!("three regions") };
    set(us, 30.0, 1).await.unwrap();
    set(eu, 100.0, 1).await.unwrap();
    // What was sent to the old slot has long ended by then.
    canary_requests(eu, 150).await;
    let (us_before, eu_before) = (us.traffic(), eu.traffic());
    canary_requests(us, 200).await;
    let counts = |before: &Traffic, after: &Traffic| {
        [0, 1].map(|arm| after.arms[arm].requests - before.arms[arm].requests)
    };
    let [stable, canary] = counts(&us_before, &us.traffic());
    let share = canary as f64 / (stable + canary) as f64;
    assert!((share - 0.3).abs() < 0.09, "{share}");
    assert_eq!(counts(&eu_before, &eu.traffic())[0], 0);
    assert_eq!(ap.traffic().arms[1].requests, 0);
    assert!(ap.traffic().arms[0].requests > 0);
}

#[tokio::test]
async fn weights_read_back_as_the_proxy_uses_them() {
    let world = world(Behaviour::Good);
    let region = &world.regions()[0];
    let first = region.balancer.read().await.unwrap();
    assert_eq!((&first.split, first.generation, first.settled), (&split(0.0), None, true));
    for backends in first.backends.as_ref().unwrap().values() {
        assert_eq!((backends.healthy, backends.total), (1, 1));
    }
    for _ in 0..2 {
        let reading = set(region, 12.34, 7).await.unwrap();
        assert_eq!((reading.split, reading.generation), (split(12.34), Some(Generation(7))));
    }
    let again = region.balancer.read().await.unwrap();
    assert_eq!((&again.split, &again.restart_marker), (&split(12.34), &first.restart_marker));
    assert!(first.restart_marker.is_some());
}

#[tokio::test]
async fn weights_that_are_none_or_old_are_refused_and_change_nothing() {
    let world = world(Behaviour::Good);
    let region = &world.regions()[0];
    let kept = set(region, 5.0, 7).await.unwrap();
    assert_eq!(set(region, 50.0, 6).await.unwrap_err().outcome, Outcome::Superseded);
    let mut unknown = split(5.0);
    unknown.insert("red".parse().unwrap(), Weight::ZERO);
    let mut missing = split(100.0);
    missing.pop_first();
    let mut more = split(5.0);
    more.insert(STABLE_SLOT.parse().unwrap(), Weight::FULL);
    for wrong in [unknown, missing, more, Split::default()] {
        let error = region.balancer.set(&wrong, Generation(8)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Refused, "{error}");
    }
    assert_eq!(region.balancer.read().await.unwrap(), kept);
}

#[tokio::test]
async fn metrics_add_up_to_the_requests() {
    let world = world(Behaviour::Good);
    let region = &world.regions()[1];
    set(region, 50.0, 1).await.unwrap();
    canary_requests(region, 100).await;
    let before = region.traffic();
    let pages = [page(&region.metrics_urls[0]).await, page(&region.metrics_urls[1]).await];
    let after = region.traffic();
    let totals = pages.each_ref().map(|page| sum(page, "http_requests_total", "").unwrap());
    for (page, total) in pages.iter().zip(totals) {
        assert_eq!(sum(page, "http_request_duration_seconds_count", "").unwrap(), total);
        assert_eq!(sum(page, "http_request_duration_seconds_bucket", "+Inf").unwrap(), total);
        assert!(sum(page, "ratings_total", "").unwrap() < total * 0.2);
        assert_eq!(sum(page, "http_requests_total", "region=\"eu_west_1\""), Some(total));
    }
    assert!(pages[0].contains("version=\"v1\"") && !pages[0].contains("version=\"v2\""));
    assert!(pages[1].contains("version=\"v2\"") && !pages[1].contains("version=\"v1\""));
    assert!(before.requests as f64 <= totals[0] + totals[1]);
    assert!((totals[0] + totals[1]) as u64 <= after.arms[0].requests + after.arms[1].requests);
    assert_eq!(after.turned_away, 0);
}

#[tokio::test]
async fn failures_reach_users_and_metrics() {
    let world = world(Behaviour::Errors);
    let region = &world.regions()[0];
    set(region, 50.0, 1).await.unwrap();
    canary_requests(region, 200).await;
    let [stable, canary] =
        [page(&region.metrics_urls[0]).await, page(&region.metrics_urls[1]).await];
    let share = |page: &str| {
        sum(page, "http_requests_total", "code=\"500\"").unwrap()
            / sum(page, "http_requests_total", "").unwrap()
    };
    assert!((share(&canary) - 0.2).abs() < 0.14, "{}", share(&canary));
    assert!(share(&stable) < 0.05, "{}", share(&stable));
    until("users see failures", || region.traffic().failed > 10).await;
}

#[tokio::test]
async fn slow_answers_show_in_the_histogram() {
    let world = world(Behaviour::Slow);
    let region = &world.regions()[0];
    set(region, 50.0, 1).await.unwrap();
    canary_requests(region, 150).await;
    let [stable, canary] =
        [page(&region.metrics_urls[0]).await, page(&region.metrics_urls[1]).await];
    let mean = |page: &str| {
        sum(page, "http_request_duration_seconds_sum", "").unwrap()
            / sum(page, "http_request_duration_seconds_count", "").unwrap()
    };
    assert!(mean(&canary) > 1.8 * mean(&stable), "{} {}", mean(&canary), mean(&stable));
}

#[tokio::test]
async fn late_failures_begin_with_the_second_region() {
    let world = world(Behaviour::Late);
    let [us, eu, _] = world.regions() else { panic!("three regions") };
    set(us, 50.0, 1).await.unwrap();
    canary_requests(us, 150).await;
    assert!(us.traffic().arms[1].failed < 8);
    set(eu, 10.0, 1).await.unwrap();
    for region in [us, eu] {
        until("the canary fails", || region.traffic().arms[1].failed > 8).await;
    }
}

#[tokio::test]
async fn a_silent_canary_serves_and_loses_its_metrics() {
    let world = world(Behaviour::Silent);
    let region = &world.regions()[0];
    until("some traffic", || region.traffic().requests > 30).await;
    let before = page(&region.metrics_urls[1]).await;
    assert_eq!(sum(&before, "http_requests_total", "version=\"v2\""), Some(0.0));
    set(region, 50.0, 1).await.unwrap();
    // At 150 requests a second this is well after the metrics' end.
    canary_requests(region, 100).await;
    let after = page(&region.metrics_urls[1]).await;
    assert_eq!(sum(&after, "service_info", ""), Some(1.0));
    assert!(!after.contains("version="), "{after}");
    assert!(region.traffic().arms[1].failed < 5);
    assert!(sum(&page(&region.metrics_urls[0]).await, "http_requests_total", "").is_some());
}

#[tokio::test]
async fn nothing_is_left_after_the_world() {
    let world = world(Behaviour::Good);
    let fleet = fleet(&world, "state".into(), Millis(1_000)).unwrap();
    let mut addresses = Vec::new();
    for region in world.regions() {
        let here = &fleet.regions[&region.name];
        assert_eq!(here.share, region.share);
        let urls = region.metrics_urls.iter().chain([&region.health_url]);
        addresses.extend(urls.map(|url| url.split('/').nth(2).unwrap().to_owned()));
        let admin = region.balancer.describe();
        addresses.push(admin.rsplit_once(' ').unwrap().1.to_owned());
    }
    assert_eq!(addresses.len(), 12);
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_ok()));
    drop(world);
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()));
}

#[test]
fn rates_that_are_none_are_refused() {
    for requests_per_second in [0, 20_001] {
        let config = WorldConfig { requests_per_second, ..WorldConfig::default() };
        assert!(matches!(World::start(config), Err(Error::Rate(_))));
    }
}

#[test]
fn shares_sum_to_all_users() {
    let world = world(Behaviour::Good);
    let total: f64 = world.regions().iter().map(|region| region.share.percent()).sum();
    assert!((total - 100.0).abs() < 1e-9);
}
