//! `tidegate serve` on real Envoys: many rollouts in one process, read again, ended, killed and taken up.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary_xds::fleet::Fleet;
use crate::binary_xds::process::{Running, call};
use crate::parts::envoy::{Envoy, EnvoyConfig, Rds, rds_yaml};
use crate::parts::port::free_address;

/// A second service with an Envoy of its own, which watches a file.
struct Web {
    envoy: Envoy,
}

impl Web {
    async fn start(fleet: &Fleet) -> Self {
        let folder = fleet.folder().join("web");
        std::fs::create_dir(&folder).unwrap();
        let routes = folder.join("rds.yaml");
        std::fs::write(&routes, rds_yaml("web", [("web-blue", 100), ("web-green", 0)])).unwrap();
        let address = free_address();
        let envoy = Envoy::start(EnvoyConfig {
            node_id: "web-1".to_owned(),
            node_cluster: "web".to_owned(),
            route: "web".to_owned(),
            backends: BTreeMap::from([
                ("web-blue".to_owned(), vec![address]),
                ("web-green".to_owned(), vec![address]),
            ]),
            rds: Rds::File(routes),
            health_checks: false,
        })
        .await;
        let target = format!(
            r#"  web:
    authority: full
    slots: [blue, green]
    metrics: {{version: "{{version}}", cluster: "web-{{slot}}"}}
    targets:
      us_east_1:
        - name: edge
          envoy_file: {{route: web, path: web/rds.yaml, clusters: {{blue: web-blue, green: web-green}}, admin: ["http://{}"]}}
"#,
            envoy.admin
        );
        let path = fleet.folder().join("tidegate.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + &target).unwrap();
        Self { envoy }
    }

    async fn green(&self) -> u64 {
        let (_, dump) =
            self.envoy.get("/config_dump?resource=dynamic_route_configs").await.unwrap();
        let dump: Value = serde_json::from_str(&dump).unwrap();
        let clusters = dump
            .pointer(
                "/configs/0/route_config/virtual_hosts/0/routes/0/route/weighted_clusters/clusters",
            )
            .unwrap();
        let green = |one: &&Value| one["name"] == "web-green";
        let found = clusters.as_array().unwrap().iter().find(green).unwrap();
        found["weight"].as_u64().unwrap_or(0)
    }
}

/// Waits until `tidegate list` shows what is wanted.
fn until(folder: &Path, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let listed = call(folder, &["list", "-o", "json"]);
        let rows: Vec<Value> = serde_json::from_str(&listed.out).unwrap_or_default();
        if listed.code == Some(0) && wanted(&rows) {
            return rows;
        }
        assert!(Instant::now() < deadline, "never: {what}; {listed:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn all_bake(rows: &[Value]) -> bool {
    rows.len() == 2 && rows.iter().all(|row| row["phase"] == "Baking" && row["running"] == true)
}

fn start<'a>(service: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["start", "pipelines/long.yaml", "--version", "v2", "-o", "json", "--service"];
    [&start[..], &[service], more].concat()
}

async fn get(address: &str, path: &str) -> (u16, String) {
    use http_body_util::{BodyExt, Empty};
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<Empty<hyper::body::Bytes>>();
    let response = client.get(format!("http://{address}{path}").parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// A pipeline whose version does so when another one is under way.
fn on_new_version(fleet: &Fleet, policy: &str) -> String {
    let long = std::fs::read_to_string(fleet.folder().join("pipelines/long.yaml")).unwrap();
    let key = format!("deployment_pipeline:\n  on_new_version: {policy}");
    fleet.write(&format!("pipelines/{policy}.yaml"), &long.replace("deployment_pipeline:", &key));
    format!("pipelines/{policy}.yaml")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_version_waits_over_a_kill_or_takes_the_place_of_the_one_under_way() {
    let fleet = Fleet::start().await.with_metrics().await;
    let folder = fleet.folder().to_owned();
    let (queue, supersede) = (on_new_version(&fleet, "queue"), on_new_version(&fleet, "supersede"));
    let begin = |pipeline: &str, version: &str| {
        let line = ["start", pipeline, "--service", "api-gateway", "--version", version];
        call(&folder, &[&line[..], &["-o", "json"]].concat()).expect(0).json()
    };
    let bakes = |id: &'static str| {
        move |rows: &[Value]| rows[0]["rollout"] == id && rows[0]["phase"] == "Baking"
    };
    let daemon = Running::start(&folder, &["serve"]);
    daemon.until_said("serving on");
    call(&folder, &["adopt", "api-gateway", "--version", "v1"]).expect(0);
    assert_eq!(begin(&queue, "v2")["rollout"], "api-gateway-1");
    until(&folder, "v2 bakes", bakes("api-gateway-1"));

    // v3 waits, v4 takes its place, and a kill does not lose it.
    assert_eq!(begin(&queue, "v3")["behind"], "api-gateway-1");
    assert_eq!(begin(&queue, "v4")["behind"], "api-gateway-1");
    daemon.kill();
    let daemon = Running::start(&folder, &["serve"]);
    until(&folder, "v2 bakes again", bakes("api-gateway-1"));
    assert_eq!(fleet.green().await, [Some(25.0); 2]);
    call(&folder, &["rollback", "--reason", "slow"]).expect(0);
    let rows = until(&folder, "v4 bakes", bakes("api-gateway-2"));
    assert_eq!(rows[0]["version"], "v4");

    // v5 does not wait: v4 goes back to nothing first, stable is still v1.
    assert_eq!(begin(&supersede, "v5")["behind"], "api-gateway-2");
    until(&folder, "v5 bakes", bakes("api-gateway-3"));
    let history = call(&folder, &["history", "api-gateway", "--limit", "10000", "-o", "json"]);
    let history = history.expect(0).json();
    let events: Vec<&Value> = history.as_array().unwrap().iter().map(|it| &it[1]).collect();
    let place = |wanted: &dyn Fn(&Value) -> bool| events.iter().position(|it| wanted(it)).unwrap();
    let back = place(&|it| it["rollout"] == "api-gateway-2" && it["event"] == "rolled_back");
    let next =
        place(&|it| it["rollout"] == "api-gateway-3" && it.pointer("/event/started").is_some());
    assert!(back < next, "{back} {next}");
    let started = &events[next]["event"]["started"];
    assert_eq!((&started["version"], &started["stable_version"]), (&"v5".into(), &"v1".into()));
    assert!(events.iter().all(|it| it.pointer("/event/started/version") != Some(&"v3".into())));
    daemon.terminate().expect(128 + 15);
    call(&folder, &["store", "verify"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_undone_without_stages_while_the_previous_version_is_kept() {
    let mut fleet = Fleet::start().await.with_metrics().await;
    let folder = fleet.folder().to_owned();
    let daemon = Running::start(&folder, &["serve"]);
    daemon.until_said("serving on");
    call(&folder, &["adopt", "api-gateway", "--version", "v1"]).expect(0);
    let nothing = call(&folder, &["undo", "api-gateway"]).expect(1);
    assert!(nothing.errors.contains("nothing was promoted"), "{nothing:?}");
    fleet.open().await;
    let quick = ["start", "pipelines/quick.yaml", "--service", "api-gateway", "--version", "v2"];
    let waiting = Running::start(&folder, &[&quick[..], &["--wait"]].concat());
    waiting.ended(90).expect(0);
    assert_eq!(fleet.green().await, [Some(100.0); 2]);

    let undone = Running::start(&folder, &["undo", "api-gateway", "-o", "json"]).ended(30);
    let undone = undone.expect(0).json();
    assert_eq!((&undone["version"], &undone["phase"]), (&"v1".into(), &"promoted".into()));
    // Nobody proved anything on the way back.
    assert_eq!(undone["proven"], false);
    assert_eq!(fleet.green().await, [Some(0.0); 2]);
    daemon.terminate().expect(128 + 15);

    // The same without a daemon: back from the way back.
    let forth = call(&folder, &["undo", "api-gateway"]).expect(0);
    assert!(forth.out.contains("api-gateway-3 v2"), "{forth:?}");
    assert_eq!(fleet.green().await, [Some(100.0); 2]);
    call(&folder, &["store", "verify"]).expect(0);
}

/// The first events of a rollout after `last`: their ids, and their data as one text.
fn events(folder: &Path, rollout: &str, last: u64, count: usize) -> (Vec<u64>, String) {
    use std::io::{BufRead, BufReader, Write};
    let mut stream =
        std::os::unix::net::UnixStream::connect(folder.join("state/tidegate.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "GET /v1/rollouts/{rollout}/events HTTP/1.1\r\nhost: tidegate\r\nlast-event-id: {last}\r\n\r\n"
    )
    .unwrap();
    let (mut ids, mut data) = (Vec::new(), String::new());
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        ids.extend(line.strip_prefix("id: ").map(|id| id.parse::<u64>().unwrap()));
        data.extend(line.strip_prefix("data: "));
        if ids.len() == count && data.contains("\"at\"") && line.is_empty() {
            return (ids, data);
        }
    }
    panic!("the stream ended: {ids:?}")
}

/// What Prometheus is told is what was read back.
async fn tells_numbers(address: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let numbers = loop {
        let (_, numbers) = get(address, "/metrics").await;
        if numbers.contains("service_availability_per_region{") {
            break numbers;
        }
        assert!(Instant::now() < deadline, "{numbers}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let line = r#"tidegate_canary_weight_read_percent{service="web",region="us_east_1"} 25.0"#;
    assert!(numbers.contains(line), "{numbers}");
    assert!(numbers.contains(r#"tidegate_rollout_phase{service="web",phase="baking"} 1"#));
    // Numbers that the fleet asks for; the one that Prometheus does not have is absent.
    assert!(
        numbers.contains("service_availability_per_region{region=\"us_east_1\"} 1.0"),
        "{numbers}"
    );
    assert!(numbers.contains("\ntotal_system_availability 1.0"), "{numbers}");
    assert!(!numbers.contains("data_replication_lag"), "{numbers}");
    assert_eq!(numbers.matches("# EOF").count(), 1, "{numbers}");
    for name in ["load_balancer_calls", "load_balancer_call_seconds", "verdicts"] {
        assert!(
            numbers.contains(&format!("tidegate_{name}{{service=\"web\"")),
            "{name}: {numbers}"
        );
    }
    assert!(numbers.contains("tidegate_loop_lag_seconds") && numbers.ends_with("# EOF\n"));
}

/// Who was away is told what came after the last thing heard.
fn tells_what_came_after(folder: &Path, rollout: &str) {
    let (ids, data) = events(folder, rollout, 0, 3);
    assert!(ids.is_sorted() && data.contains("\"started\""), "{ids:?} {data}");
    let (later, data) = events(folder, rollout, ids[1], 1);
    assert_eq!(later, [ids[2]]);
    assert!(!data.contains("\"started\""), "{data}");
}

/// A wrong file changes nothing; a right one is taken, and the rollouts go on.
fn reads_its_fleet_again(daemon: &Running, folder: &Path) {
    let path = folder.join("tidegate.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("slots:", "slotts:")).unwrap();
    hang_up(daemon);
    daemon.until_said("the old one stays");
    // Right by itself, but its route file is gone: it cannot be connected.
    std::fs::write(&path, good.replace("route_file: route.yaml", "route_file: gone.yaml")).unwrap();
    hang_up(daemon);
    daemon.until_said("cannot be connected, the old one stays");
    until(folder, "both bake with the old one", all_bake);
    std::fs::write(&path, &good).unwrap();
    hang_up(daemon);
    daemon.until_said("the fleet was read again");
    until(folder, "both bake again", all_bake);
}

fn hang_up(daemon: &Running) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_rollouts_at_once_are_driven_read_again_killed_and_taken_up() {
    let mut fleet = Fleet::start().await.with_metrics().await;
    let web = Web::start(&fleet).await;
    let folder = fleet.folder().to_owned();
    let path = folder.join("tidegate.yaml");
    let reported = "reported:\n  service_availability_per_region: {promql: \"min(up{region=\\\"$region\\\"})\"}\n  \
        total_system_availability: {promql: \"min(up)\", source: us_east_1}\n  \
        data_replication_lag: {promql: \"max(nobody_knows_this)\"}\n";
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + reported).unwrap();
    let address = free_address().to_string();
    let serve = ["serve", "--listen", &address];
    let daemon = Running::start(&folder, &serve);
    daemon.until_said("serving on");
    let twice = call(&folder, &serve).expect(4);
    assert!(twice.errors.contains("is in use"), "{twice:?}");
    assert_eq!(get(&address, "/readyz").await, (200, "ready\n".to_owned()));

    for service in ["api-gateway", "web"] {
        let early = call(&folder, &start(service, &[])).expect(1);
        assert!(early.errors.contains("no stable version"), "{early:?}");
        call(&folder, &["adopt", service, "--version", "v1"]).expect(0);
    }
    fleet.open().await;
    for service in ["api-gateway", "web"] {
        let started = call(&folder, &start(service, &[])).expect(0).json();
        assert_eq!(started["rollout"], format!("{service}-1"));
        let again = call(&folder, &start(service, &[])).expect(1);
        assert!(again.errors.contains("is under way"), "{again:?}");
    }
    until(&folder, "both bake", all_bake);
    assert_eq!((fleet.green().await, web.green().await), (vec![Some(25.0); 2], 2_500));
    let which = call(&folder, &["pause"]).expect(2);
    assert!(which.errors.contains("api-gateway-1, web-1"), "{which:?}");
    let strange = call(&folder, &["pause", "shop"]).expect(2);
    assert!(strange.errors.contains("no rollout `shop`"), "{strange:?}");

    tells_numbers(&address).await;
    tells_what_came_after(&folder, "web-1");

    reads_its_fleet_again(&daemon, &folder);

    // Killed, the weights stay; the next one takes both up.
    daemon.kill();
    assert_eq!((fleet.green().await, web.green().await), (vec![Some(25.0); 2], 2_500));
    let daemon = Running::start(&folder, &serve);
    until(&folder, "both bake after the kill", all_bake);
    assert_eq!((fleet.green().await, web.green().await), (vec![Some(25.0); 2], 2_500));

    // One goes back, the other one does not notice.
    call(&folder, &["rollback", "web", "--reason", "slow"]).expect(0);
    let back = |rows: &[Value]| {
        rows.iter().any(|row| row["rollout"] == "web-1" && row["phase"] == "RolledBack")
    };
    let rows = until(&folder, "web is back", back);
    let other = rows.iter().find(|row| row["rollout"] == "api-gateway-1").unwrap();
    assert_eq!((&other["phase"], &other["running"]), (&"Baking".into(), &true.into()));
    assert_eq!((fleet.green().await, web.green().await), (vec![Some(25.0); 2], 0));
    let history = call(&folder, &["history", "web", "-o", "json"]).expect(0).json();
    assert!(history.as_array().unwrap().iter().any(|it| it[1]["event"] == "rolled_back"));
    let (_, numbers) = get(&address, "/metrics").await;
    assert!(numbers.contains(r#"tidegate_rollbacks{service="web",cause="asked"} 1"#), "{numbers}");

    // Nobody waits longer than for the end: the exit code says how it went.
    let waiting = Running::start(&folder, &start("web", &["--wait"]));
    until(&folder, "web bakes once more", all_bake);
    call(&folder, &["rollback", "web-2"]).expect(0);
    waiting.ended(20).expect(5);

    let asked = Instant::now();
    daemon.terminate().expect(128 + 15);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(fleet.green().await, [Some(25.0); 2]);
    call(&folder, &["store", "verify"]).expect(0);
}
