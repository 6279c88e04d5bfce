//! Numbers from a real Prometheus, from scraped endpoints, and from servers that misbehave.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{any, get};
use tidegate::engine::poll::{Arm, DarkArm, Measured, MissingReason};
use tidegate::metrics::check::Checks;
use tidegate::metrics::increments::{Counters, Window};
use tidegate::metrics::meter::{LookContext, Meter};
use tidegate::metrics::{prometheus, scrape};
use tidegate::ports::{Checker, MetricsError, MetricsSource, Subject};
use tidegate::spec::fleet::{self, Auth, FleetCheck, Secret};
use tidegate::spec::plan::{Analysis, CheckSource, Measurement};
use tidegate::units::{AnalysisName, Millis, RegionName, ServiceName, Timestamp, Version, Weight};

use crate::parts::prometheus::{Exporter, Prometheus, Server};

const SECOND: Millis = Millis::from_secs(1);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("milliseconds fit"))
}

fn config(url: &str) -> fleet::Prometheus {
    fleet::Prometheus {
        url: url.to_owned(),
        auth: None,
        ca: None,
        timeout: Millis(2_000),
        bytes_max: 1 << 20,
        aggregated: false,
    }
}

fn connect(url: &str) -> prometheus::Prometheus {
    prometheus::Prometheus::new(&config(url)).expect("a usable source")
}

fn scraping(endpoints: &[(String, &[(&str, &str)])]) -> scrape::Scrape {
    let endpoint = |(url, labels): &(String, &[(&str, &str)])| fleet::ScrapeEndpoint {
        url: format!("{url}/metrics"),
        labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    };
    let endpoints = endpoints.iter().map(endpoint).collect();
    let config =
        fleet::Scrape { endpoints, auth: None, timeout: Millis(1_000), bytes_max: 1 << 20 };
    scrape::Scrape::new(&config).expect("a usable source")
}

/// One arm pair of one region, and how it is looked at.
struct World {
    canary: BTreeMap<String, String>,
    stable: BTreeMap<String, String>,
    subject: Subject,
    analysis: Analysis,
    weight: Weight,
}

impl World {
    fn new(measurement: Measurement) -> Self {
        let version = |text: &str| BTreeMap::from([("version".to_owned(), text.to_owned())]);
        Self {
            canary: version("2"),
            stable: version("1"),
            subject: Subject {
                service: ServiceName::new("api").expect("a name"),
                version: Version::new("2").expect("a version"),
                region: RegionName::new("eu").expect("a name"),
            },
            analysis: Analysis {
                name: AnalysisName::new("a").expect("a name"),
                file: "a.yaml".to_owned(),
                measurement,
                dry_run: false,
            },
            weight: Weight::from_percent(50.0).expect("a weight"),
        }
    }

    async fn look(
        &self,
        meter: &mut Meter,
        source: &dyn MetricsSource,
        after: Option<Timestamp>,
        at: Timestamp,
    ) -> Measured {
        let context = LookContext {
            analyses: vec![&self.analysis],
            canary: &self.canary,
            stable: &self.stable,
            subject: &self.subject,
            reach: self.weight.into(),
            at,
            after,
            not_before: Timestamp(0),
            scrape_interval: SECOND,
        };
        let checks = Checks::new(BTreeMap::new());
        // A look must be able to run on any thread.
        let look: Pin<Box<dyn Future<Output = _> + Send + '_>> =
            Box::pin(meter.look(source, &checks, &context));
        let mut found: BTreeMap<_, _> = look.await;
        found.remove(&self.analysis.name).expect("what was asked for")
    }
}

fn errors() -> Measurement {
    Measurement::Proportion {
        unit: "requests".to_owned(),
        part: "r{version=\"$version\",code=~\"5..\"}".to_owned(),
        part_is_good: false,
        total: "r{version=\"$version\"}".to_owned(),
    }
}

fn page(lines: &[(&str, &str, f64)]) -> String {
    let line = |(version, code, value): &(&str, &str, f64)| {
        format!("r{{version=\"{version}\",code=\"{code}\"}} {value}\n")
    };
    lines.iter().map(line).collect()
}

/// Waits until the newest sample of the selector has this value.
async fn until(source: &dyn MetricsSource, selector: &str, value: f64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let found = source.raw(selector, now().minus(SECOND.plus(SECOND)), now()).await;
        let last =
            found.ok().and_then(|found| found.first()?.samples.last().map(|(_, value)| *value));
        if last == Some(value) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{selector} never became {value}");
}

#[tokio::test]
async fn prometheus_raw_samples_yield_exact_increments_through_resets_and_gaps() {
    let exporter = Exporter::start().await;
    exporter.say(&page(&[("1", "200", 500.0), ("2", "200", 100.0)]));
    let server = Prometheus::start(&[("api", exporter.server.address.to_string())]).await;
    let source = connect(&server.url);
    let world = World::new(errors());
    let mut meter = Meter::default();
    let canary = "r{version=\"2\",code=\"200\"}";

    until(&source, canary, 100.0).await;
    let first = now();
    assert_eq!(world.look(&mut meter, &source, None, first).await, Measured::NotDue);

    exporter.say(&page(&[("1", "200", 520.0), ("2", "200", 110.0)]));
    until(&source, canary, 110.0).await;
    // The canary restarts, and has its first failures.
    exporter.say(&page(&[("1", "200", 530.0), ("2", "200", 5.0), ("2", "500", 3.0)]));
    until(&source, canary, 5.0).await;
    let second = now();
    let found = world.look(&mut meter, &source, Some(first), second).await;
    let arm = |bad, total| Arm { bad, total };
    assert_eq!(found, Measured::Counts { canary: arm(3.0, 18.0), stable: arm(0.0, 30.0) });

    // A restart of the controller in between changes nothing, and a second look at the same instant counts nothing.
    let text = serde_json::to_string(&meter).expect("it can be stored");
    let mut meter: Meter = serde_json::from_str(&text).expect("and read");
    assert_eq!(world.look(&mut meter, &source, Some(second), second).await, Measured::NotDue);

    drop(exporter);
    let late = second.plus(Millis(10_000));
    let gone = world.look(&mut meter, &source, Some(second), late).await;
    assert_eq!(gone, Measured::Missing { arm: DarkArm::Both, why: MissingReason::Stale });
}

#[tokio::test]
async fn a_stopped_exporter_and_a_stopped_prometheus_are_told_apart() {
    let (canary, stable) = (Exporter::start().await, Exporter::start().await);
    canary.say(&page(&[("2", "200", 1.0)]));
    stable.say(&page(&[("1", "200", 1.0)]));
    let targets = [
        ("canary", canary.server.address.to_string()),
        ("stable", stable.server.address.to_string()),
    ];
    let mut server = Prometheus::start(&targets).await;
    let source = connect(&server.url);
    let world = World::new(errors());
    let mut meter = Meter::default();
    until(&source, "r{version=\"2\"}", 1.0).await;
    until(&source, "r{version=\"1\"}", 1.0).await;
    let first = now();
    world.look(&mut meter, &source, None, first).await;

    drop(canary);
    let mut previous = first;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let at = now();
        let found = world.look(&mut meter, &source, Some(previous), at).await;
        previous = at;
        if found == (Measured::Missing { arm: DarkArm::Canary, why: MissingReason::Stale }) {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    server.kill();
    let found = world.look(&mut meter, &source, Some(previous), now()).await;
    let Measured::SourceError(what) = found else { panic!("{found:?}") };
    assert!(what.contains("connection"), "{what}");
}

#[tokio::test]
async fn sums_by_prometheus_equal_the_sums_of_raw_samples() {
    let exporter = Exporter::start().await;
    let buckets = |a: f64, b: f64, c: f64| {
        format!(
            "h_bucket{{version=\"2\",le=\"0.1\"}} {a}\nh_bucket{{version=\"2\",le=\"+Inf\"}} {b}\nr{{version=\"2\"}} {c}\n"
        )
    };
    exporter.say(&buckets(10.0, 20.0, 50.0));
    let server = Prometheus::start(&[("api", exporter.server.address.to_string())]).await;
    let raw = connect(&server.url);
    let summed =
        prometheus::Prometheus::new(&fleet::Prometheus { aggregated: true, ..config(&server.url) })
            .expect("a usable source");
    until(&raw, "r", 50.0).await;
    let first = now();
    // `r` was reset to 7 in between.
    exporter.say(&buckets(14.0, 29.0, 7.0));
    until(&raw, "r", 7.0).await;
    let second = now();

    let look =
        |after| Window { at: second, not_before: Timestamp(0), after, scrape_interval: SECOND };
    for (selector, by, expected) in
        [("r", None, vec![("", 7.0)]), ("h_bucket", Some("le"), vec![("+Inf", 9.0), ("0.1", 4.0)])]
    {
        let mut counters = Counters::default();
        let before = raw.raw(selector, first.minus(Millis(3_000)), first).await.expect("samples");
        counters.advance(&[&before], &Window { at: first, ..look(None) });
        let after = raw.raw(selector, first.minus(Millis(3_000)), second).await.expect("samples");
        let gained: f64 = counters.advance(&[&after], &look(Some(first))).gained.values().sum();
        let sums =
            summed.increase(selector, by, first, second).await.expect("summing").expect("sums");
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(l, v)| ((*l).to_owned(), *v)).collect();
        assert_eq!(sums.sums, expected);
        assert_eq!(sums.sums.values().sum::<f64>(), gained);
        assert!(second.since(sums.newest.expect("a sample")) <= Millis(2_500));
    }
}

#[tokio::test]
async fn sums_are_looked_at_like_samples() {
    let exporter = Exporter::start().await;
    exporter.say(&page(&[
        ("1", "200", 10.0),
        ("1", "500", 1.0),
        ("2", "200", 5.0),
        ("2", "500", 0.0),
    ]));
    let server = Prometheus::start(&[("api", exporter.server.address.to_string())]).await;
    let source =
        prometheus::Prometheus::new(&fleet::Prometheus { aggregated: true, ..config(&server.url) })
            .expect("a usable source");
    let world = World::new(errors());
    let mut meter = Meter::default();
    until(&source, "r{version=\"2\",code=\"200\"}", 5.0).await;
    // Half a second of allowance lies between a look and what it sums.
    let first = now().plus(Millis(500));
    assert_eq!(world.look(&mut meter, &source, None, first).await, Measured::NotDue);
    exporter.say(&page(&[
        ("1", "200", 30.0),
        ("1", "500", 1.0),
        ("2", "200", 9.0),
        ("2", "500", 2.0),
    ]));
    until(&source, "r{version=\"2\",code=\"200\"}", 9.0).await;
    let second = now().plus(Millis(500));
    let found = world.look(&mut meter, &source, Some(first), second).await;
    let arm = |bad, total| Arm { bad, total };
    assert_eq!(found, Measured::Counts { canary: arm(2.0, 6.0), stable: arm(0.0, 20.0) });

    let same = Measurement::Proportion {
        unit: "requests".to_owned(),
        part: "r{code=\"500\"}".to_owned(),
        part_is_good: false,
        total: "r".to_owned(),
    };
    let found = World::new(same).look(&mut Meter::default(), &source, None, second).await;
    assert!(
        matches!(&found, Measured::SourceError(what) if what.contains("both arms")),
        "{found:?}"
    );
}

/// What the source says when the server answers every query like this.
async fn answer_of(routes: Router) -> (Result<(), MetricsError>, Duration) {
    let server = Server::start(routes).await;
    let started = Instant::now();
    let found = connect(&server.url()).raw("r", Timestamp(0), Timestamp(1_000)).await;
    (found.map(|_| ()), started.elapsed())
}

fn always<R: IntoResponse + Clone + Send + Sync + 'static>(response: R) -> Router {
    Router::new().fallback(any(move || {
        let response = response.clone();
        async move { response }
    }))
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test]
async fn what_is_not_prometheus_is_an_error_that_repeats_nothing() {
    let planted = "<html>planted-secret</html>";
    let html = [("content-type", "text/html")];
    let odd = "{\"status\":\"success\",\"planted-secret\":[]}";
    let echo =
        "{\"status\":\"error\",\"errorType\":\"planted-secret\",\"error\":\"planted-secret\"}";
    for (routes, expected) in [
        (always((html, planted)), "not Prometheus (HTTP 200 OK)"),
        (always((StatusCode::SERVICE_UNAVAILABLE, html, planted)), "not ready or not Prometheus"),
        (always((StatusCode::UNAUTHORIZED, planted)), "refuses the credentials"),
        (always((JSON, odd)), "not Prometheus"),
        (always((JSON, "[1,")), "not Prometheus"),
        (always((JSON, echo)), "not Prometheus"),
        (
            always((
                JSON,
                "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"planted-secret\"}",
            )),
            "bad_data",
        ),
    ] {
        let error = answer_of(routes).await.0.expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains("planted"), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let target = Router::new().fallback(any(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { "" }
    }));
    let target = Server::start(target).await;
    let url = target.url();
    let routes = Router::new().fallback(any(move || {
        let url = url.clone();
        async move { Redirect::to(&url) }
    }));
    let error = answer_of(routes).await.0.expect_err("no answer").to_string();
    assert!(error.contains("not Prometheus (HTTP 303"), "{error}");
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

fn endless(piece: usize, pause: Duration) -> Router {
    Router::new().fallback(any(move || async move {
        let pieces = futures_util::stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![b' '; piece])), ()))
        });
        (JSON, Body::from_stream(pieces))
    }))
}

#[tokio::test]
async fn answers_are_bounded_in_bytes_and_in_time() {
    let (huge, took) = answer_of(endless(64 * 1024, Duration::ZERO)).await;
    assert!(huge.expect_err("too long").what.contains("longer than 1048576 bytes"));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (declared, _) = answer_of(always((JSON, vec![b' '; 2 << 20]))).await;
    assert!(declared.expect_err("too long").what.contains("longer than"));
    let (slow, took) = answer_of(endless(1, Duration::from_secs(1))).await;
    assert!(slow.expect_err("too slow").what.contains("in time"));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn credentials_are_read_from_their_file_at_each_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let routes = Router::new().fallback(any(|headers: HeaderMap| async move {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        match given {
            Some("Bearer second") => (
                JSON,
                "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}",
            )
                .into_response(),
            _ => StatusCode::FORBIDDEN.into_response(),
        }
    }));
    let server = Server::start(routes).await;
    let auth = Some(Auth::Bearer(Secret::File(path.clone())));
    let source = prometheus::Prometheus::new(&fleet::Prometheus { auth, ..config(&server.url()) })
        .expect("usable");
    let ask = || source.raw("r", Timestamp(0), Timestamp(1_000));
    assert!(ask().await.expect_err("no file").misconfigured);
    std::fs::write(&path, "first").expect("written");
    let refused = ask().await.expect_err("the wrong token").to_string();
    assert!(refused.contains("credentials") && !refused.contains("first"), "{refused}");
    std::fs::write(&path, "second\n").expect("written");
    assert_eq!(ask().await.expect("the right token"), vec![]);
}

#[tokio::test]
async fn gauges_with_several_values_or_none_or_no_numbers_decide_nothing() {
    let gauge =
        World::new(Measurement::Gauge { query: "g{version=\"$version\"}".to_owned(), range: None });
    let exporter = Exporter::start().await;
    let source = scraping(&[(exporter.server.url(), &[])]);
    let stable = "g{version=\"1\"} 4.5\n";
    let missing = |why| Measured::Missing { arm: DarkArm::Canary, why };
    let mut at = Timestamp(1_000_000);
    let mut meter = Meter::default();
    for (canary, expected) in [
        ("g{version=\"2\"} 4.7\n", Some(Measured::Gauge { canary: Some(4.7), stable: Some(4.5) })),
        ("g{version=\"2\"} NaN\n", Some(missing(MissingReason::NotANumber))),
        ("g{version=\"2\"} +Inf\n", Some(missing(MissingReason::NotANumber))),
        ("g{version=\"2\",x=\"1\"} 1\ng{version=\"2\",x=\"2\"} 1\n", None),
    ] {
        let after = at;
        at = at.plus(SECOND);
        exporter.say(&format!("{stable}{canary}"));
        let found = gauge.look(&mut meter, &source, Some(after), at).await;
        match expected {
            Some(expected) => assert_eq!(found, expected),
            None => assert!(
                matches!(&found, Measured::SourceError(what) if what.contains("several values"))
            ),
        }
    }
    let mut fresh = Meter::default();
    exporter.say(stable);
    let found = gauge.look(&mut fresh, &source, Some(at), at.plus(SECOND)).await;
    assert_eq!(found, missing(MissingReason::NoSeries));
}

#[tokio::test]
async fn scraped_counters_are_counted_and_an_arm_without_traffic_is_named() {
    let (canary, stable) = (Exporter::start().await, Exporter::start().await);
    let source = scraping(&[
        (canary.server.url(), &[("version", "2")]),
        (stable.server.url(), &[("version", "1")]),
    ]);
    let world = World::new(errors());
    let mut meter = Meter::default();
    let mut at = Timestamp(1_000_000);
    canary.say("r{code=\"200\"} 10\n");
    stable.say("r{code=\"200\"} 10\n");
    assert_eq!(world.look(&mut meter, &source, None, at).await, Measured::NotDue);
    let mut step = async |canary_text: &str, stable_text: &str| {
        canary.say(canary_text);
        stable.say(stable_text);
        let after = at;
        at = at.plus(SECOND);
        world.look(&mut meter, &source, Some(after), at).await
    };
    let found = step("r{code=\"200\"} 15\nr{code=\"503\"} 2\n", "r{code=\"200\"} 16\n").await;
    let arm = |bad, total| Arm { bad, total };
    assert_eq!(found, Measured::Counts { canary: arm(2.0, 7.0), stable: arm(0.0, 6.0) });
    let silent = "r{code=\"200\"} 15\nr{code=\"503\"} 2\n";
    let found = step(silent, "r{code=\"200\"} 20\n").await;
    assert_eq!(found, Measured::Counts { canary: arm(0.0, 0.0), stable: arm(0.0, 4.0) });
    let found = step(silent, "r{code=\"200\"} 40\n").await;
    assert_eq!(found, Measured::Missing { arm: DarkArm::Canary, why: MissingReason::NoTraffic });
    let found = step("", "r{code=\"200\"} 50\n").await;
    assert!(matches!(found, Measured::NotDue | Measured::Counts { .. } | Measured::Missing { .. }));
    let found = step("r{code=\"200\"} NaN\n", "r{code=\"200\"} 60\n").await;
    assert_eq!(found, Measured::Missing { arm: DarkArm::Canary, why: MissingReason::NotANumber });
}

#[tokio::test]
async fn an_arm_without_weight_has_zeros_and_tells_whose_fault_a_gap_is() {
    let exporter = Exporter::start().await;
    let source = scraping(&[(exporter.server.url(), &[])]);
    let arm = |bad, total| Arm { bad, total };
    let missing = |arm| Measured::Missing { arm, why: MissingReason::NoSeries };
    let cases = [
        (0.0, "", Measured::Counts { canary: arm(0.0, 0.0), stable: arm(0.0, 5.0) }),
        (100.0, "", missing(DarkArm::Canary)),
        (
            100.0,
            "r{version=\"2\"} 9\n",
            Measured::Counts { canary: arm(0.0, 9.0), stable: arm(0.0, 0.0) },
        ),
    ];
    let mut at = Timestamp(1_000_000);
    for (percent, canary, expected) in cases {
        let mut world = World::new(errors());
        world.weight = Weight::from_percent(percent).expect("a weight");
        let mut meter = Meter::default();
        let origin = canary.replace('9', "0");
        exporter.say(&format!("r{{version=\"1\"}} 5\n{origin}"));
        at = at.plus(SECOND);
        world.look(&mut meter, &source, None, at).await;
        exporter.say(&format!("r{{version=\"1\"}} 10\n{canary}"));
        let after = at;
        at = at.plus(SECOND);
        let found = world.look(&mut meter, &source, Some(after), at).await;
        assert_eq!(found, expected, "{percent} %");
        meter.reset_origins();
        at = at.plus(SECOND);
        let found = world.look(&mut meter, &source, Some(after), at).await;
        assert!(!matches!(found, Measured::Counts { canary: Arm { total: 1.0.., .. }, .. }));
    }
    exporter.say("");
    let mut world = World::new(errors());
    world.weight = Weight::FULL;
    at = at.plus(SECOND);
    let found = world.look(&mut Meter::default(), &source, None, at).await;
    assert_eq!(found, missing(DarkArm::Both));
}

#[tokio::test]
async fn histograms_are_compared_bucket_by_bucket_and_shared_series_are_refused() {
    let exporter = Exporter::start().await;
    let source = scraping(&[(exporter.server.url(), &[])]);
    let say = |canary: [f64; 3], stable: [f64; 3]| {
        let line = |version: &str, le: &str, count: f64| {
            format!("h_bucket{{version=\"{version}\",le=\"{le}\"}} {count}\n")
        };
        let arm = |version: &str, [a, b, c]: [f64; 3]| {
            line(version, "0.1", a) + &line(version, "1", b) + &line(version, "+Inf", c)
        };
        exporter.say(&(arm("2", canary) + &arm("1", stable)));
    };
    let buckets = "h_bucket{version=\"$version\"}".to_owned();
    let world = World::new(Measurement::Latency { buckets, quantile: 0.95 });
    let mut meter = Meter::default();
    say([0.0; 3], [10.0, 20.0, 30.0]);
    world.look(&mut meter, &source, None, Timestamp(1_000)).await;
    say([1.0, 2.0, 4.0], [15.0, 28.0, 39.0]);
    let found = world.look(&mut meter, &source, Some(Timestamp(1_000)), Timestamp(2_000)).await;
    let arm = |cumulative: [f64; 2], total| tidegate::engine::poll::ArmHistogram {
        cumulative: cumulative.into(),
        total,
    };
    let expected = Measured::Histogram {
        bounds: vec![0.1, 1.0],
        canary: arm([1.0, 2.0], 4.0),
        stable: arm([5.0, 8.0], 9.0),
    };
    assert_eq!(found, expected);

    let shared =
        World::new(Measurement::Latency { buckets: "h_bucket".to_owned(), quantile: 0.95 });
    let found = shared.look(&mut Meter::default(), &source, None, Timestamp(2_000)).await;
    assert!(
        matches!(&found, Measured::SourceError(what) if what.contains("both arms")),
        "{found:?}"
    );
}

#[tokio::test]
async fn every_endpoint_is_scraped_once_per_instant_and_a_failing_one_is_named() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&hits);
    let routes = Router::new().route(
        "/metrics",
        get(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            async { "a 1\nb 2\n" }
        }),
    );
    let good = Server::start(routes).await;
    let source = scraping(&[(good.url(), &[("zone", "x")])]);
    let at = Timestamp(5_000);
    let (a, b) = tokio::join!(source.raw("a", Timestamp(0), at), source.raw("b", Timestamp(0), at));
    assert_eq!(a.expect("a")[0].labels["zone"], "x");
    assert_eq!(b.expect("b")[0].labels["instance"], good.address.to_string());
    assert_eq!(hits.load(Ordering::SeqCst), 1);
    assert!(source.evaluate("a < b", at).await.expect_err("two vectors").misconfigured);

    let html = Server::start(always("<html>planted-secret")).await;
    let both = scraping(&[(good.url(), &[]), (html.url(), &[])]);
    let error = both.raw("a", Timestamp(0), at).await.expect_err("one fails").to_string();
    assert!(error.contains(&html.address.to_string()) && !error.contains("planted"), "{error}");
}

#[tokio::test]
async fn checks_ask_when_they_are_due() {
    let exporter = Exporter::start().await;
    exporter.say("ok{version=\"2\"} 1\n");
    let source = scraping(&[(exporter.server.url(), &[])]);
    let world = World::new(Measurement::Check {
        source: CheckSource::Promql("ok{version=\"$version\"} > bool 0".to_owned()),
        every: Millis(2_000),
        timeout: SECOND,
    });
    let mut meter = Meter::default();
    let mut found = Vec::new();
    for second in 1..=4_u64 {
        let after = (second > 1).then(|| Timestamp(second * 1_000 - 1_000));
        if second == 4 {
            exporter.say("");
        }
        found.push(world.look(&mut meter, &source, after, Timestamp(second * 1_000)).await);
    }
    let answer = |held, detail: &str| Measured::Check { held, detail: detail.to_owned() };
    assert_eq!(
        found,
        [Measured::NotDue, answer(true, "value 1"), Measured::NotDue, answer(false, "no value")]
    );
}

#[tokio::test]
async fn http_checks_hold_on_success_only() {
    let routes = Router::new()
        .route("/ok/{version}", get(|| async { "fine\n" }))
        .route("/moved", get(|| async { Redirect::to("/ok/1") }))
        .route("/slow", get(|| async { tokio::time::sleep(Duration::from_secs(60)).await }));
    let server = Server::start(routes).await;
    let check =
        |path: &str| FleetCheck::Http { url: format!("{}{path}", server.url()), auth: None };
    let checks = Checks::new(
        ["/ok/{version}", "/moved", "/slow", "/none"]
            .map(|path| (path.to_owned(), check(path)))
            .into(),
    );
    let subject = World::new(errors()).subject;
    let ask = |name: &'static str| checks.check(name, &subject, Millis(500));
    let held = ask("/ok/{version}").await.expect("an answer");
    assert_eq!((held.held, held.detail.as_str()), (true, "fine"));
    for name in ["/moved", "/none"] {
        assert!(!ask(name).await.expect("an answer").held, "{name}");
    }
    assert!(ask("/slow").await.expect_err("no answer").what.contains("in time"));
}
