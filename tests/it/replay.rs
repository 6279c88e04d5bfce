//! `replay` and `plan --from-prometheus` of the real binary, on a real Prometheus with a past.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use rand::SeedableRng;
use rand_distr::{Binomial, Distribution, Poisson};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;

use crate::parts::prometheus::Prometheus;

/// Begin of the past, in seconds since 1970: its end is a minute ago.
static BEGIN: LazyLock<u64> = LazyLock::new(|| {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    now / 60 * 60 - HOURS * HOUR - 60
});
const HOUR: u64 = 3_600;
const STEP: u64 = 15;
/// In these hours after the begin one request of twenty fails on the canary.
const INCIDENT: std::ops::Range<u64> = 7..8;
/// How long it is.
const HOURS: u64 = 10;

/// The fleet, its pipelines and analyses, in a folder of their own.
struct Fleet(tempfile::TempDir);

struct Ended {
    code: Option<i32>,
    out: String,
    errors: String,
}

impl Fleet {
    fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let fleet = format!(
            "state: state\nxds: {{listen: \"127.0.0.1:18000\"}}\nregions:\n  r1: {{share: 100%, prometheus: {{url: \"{url}\"}}}}\nservices:\n  api:\n    \
             authority: full\n    slots: [blue, green]\n    targets:\n      r1: [{{name: edge, envoy: {{route: web, \
             route_file: route.yaml, clusters: {{blue: a, green: b}}, admin: [\"http://127.0.0.1:1\"]}}}}]\n"
        );
        write("tidegate.yaml", &fleet);
        write("route.yaml", "virtual_hosts: []\n");
        write("pipelines/first.yaml", &pipeline("0.5%"));
        write("pipelines/loose.yaml", &pipeline("20%"));
        for name in ["error_rate", "response_time", "user_satisfaction_score"] {
            let text = std::fs::read_to_string(format!("analysis/{name}.yaml")).unwrap();
            write(&format!("analysis/{name}.yaml"), &text);
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn tidegate(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.current_dir(self.0.path()).args(arguments);
        let output = command.env("NO_COLOR", "1").env_remove("TIDEGATE_STATE").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let errors = text(&output.stderr);
        assert!(!errors.contains("panicked"), "{errors}");
        Ended { code: output.status.code(), out: text(&output.stdout), errors }
    }

    /// Replays these hours of the past.
    fn replay(&self, hours: std::ops::Range<u64>, more: &[&str]) -> Ended {
        let [from, to] = [hours.start, hours.end].map(time);
        let of = ["replay", "pipelines/first.yaml", "--from", &from, "--to", &to];
        self.tidegate(&[&of[..], &["--stable-version", "v1", "--version", "v2"], more].concat())
    }
}

fn pipeline(margin: &str) -> String {
    format!(
        "deployment_pipeline:\n  regional_stages:\n    canary:\n      regions: [r1]\n      traffic_percentage: 5\n      \
         validation_criteria:\n        - error_rate_increase < {margin}\n        - response_time_increase < 50%\n      \
         duration: 30_minutes\n      max_duration: 3_hours\n    all:\n      regions: [r1]\n      traffic_percentage: \
         100\n      validation_criteria:\n        - error_rate_increase < {margin}\n      duration: 1_hour\n"
    )
}

fn time(hours: u64) -> String {
    let seconds = i64::try_from(*BEGIN + hours * HOUR).unwrap();
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

/// Counters of four instances of v1 and one of v2: 100 requests a second on each, of which one in a thousand fails.
fn past() -> String {
    let mut random = Pcg64Mcg::seed_from_u64(20);
    let mut draw =
        |count: u64, share: f64| Binomial::new(count, share).unwrap().sample(&mut random);
    let mut requests = String::from("# TYPE http_requests counter\n");
    let mut times = String::from("# TYPE http_request_duration_seconds histogram\n");
    let mut arrivals = Pcg64Mcg::seed_from_u64(21);
    let arrive = Poisson::new(100.0 * STEP as f64).unwrap();
    for (version, instances) in [("v1", 4), ("v2", 1)] {
        for instance in 0..instances {
            let labels = format!(
                "service=\"api\",region=\"r1\",version=\"{version}\",instance=\"{version}-{instance}\""
            );
            let mut lines: Vec<String> = vec![String::new(); 5];
            let mut sums = [0_u64; 5];
            for step in 0..=HOURS * HOUR / STEP {
                let is_bad = version == "v2" && INCIDENT.contains(&(step * STEP / HOUR));
                let all = arrive.sample(&mut arrivals) as u64;
                let bad = draw(all, if is_bad { 0.05 } else { 0.001 });
                let quick = draw(all, 0.9);
                let most = quick + draw(all - quick, 0.6);
                for (sum, new) in sums.iter_mut().zip([all - bad, bad, quick, most, all]) {
                    *sum += new;
                }
                for (line, sum) in lines.iter_mut().zip(sums) {
                    *line += &format!(" {sum} {}\n", *BEGIN + step * STEP);
                }
            }
            let names = [
                format!("http_requests_total{{{labels},code=\"200\"}}"),
                format!("http_requests_total{{{labels},code=\"500\"}}"),
                format!("http_request_duration_seconds_bucket{{{labels},le=\"0.1\"}}"),
                format!("http_request_duration_seconds_bucket{{{labels},le=\"0.5\"}}"),
                format!("http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}}"),
            ];
            for (index, (name, lines)) in names.iter().zip(&lines).enumerate() {
                let text = if index < 2 { &mut requests } else { &mut times };
                for line in lines.lines() {
                    writeln!(text, "{name}{line}").unwrap();
                }
            }
        }
    }
    requests + &times + "# EOF\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_incident_is_found_and_clean_hours_are_not_rolled_back() {
    let prometheus = Prometheus::with_past(&past()).await;
    let fleet = Fleet::new(&prometheus.url);
    clean(&fleet);
    incident(&fleet);
    side_by_side(&fleet);
    against_itself(&fleet);
    beforehand(&fleet);
    refusals(&fleet);
    drop(prometheus);
    let gone = fleet.replay(0..2, &[]);
    assert_eq!(gone.code, Some(3), "{}", gone.errors);
    assert!(gone.errors.contains("the past cannot be read"), "{}", gone.errors);
}

fn clean(fleet: &Fleet) {
    let ended = fleet.replay(0..7, &["-o", "json"]);
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.errors);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let rollouts = said["policies"][0]["rollouts"].as_array().unwrap();
    let promoted = rollouts.iter().filter(|it| it["end"] == "promoted");
    assert!(promoted.count() >= 3, "{rollouts:?}");
    assert!(rollouts.iter().all(|it| it["end"] != "rolled_back"), "{rollouts:?}");
    let canary = rollouts[0]["requests"]["canary"].as_f64().unwrap();
    // 100 requests a second for an hour and a half.
    assert!((500_000.0..700_000.0).contains(&canary), "{canary}");
    assert_eq!(rollouts[0]["stages"].as_array().unwrap().len(), 2);
}

fn incident(fleet: &Fleet) {
    let picture = fleet.path("evidence.svg");
    let ended = fleet.replay(5..10, &["-o", "json", "--plot", &picture]);
    assert_eq!(ended.code, Some(5), "{} {}", ended.out, ended.errors);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let rollouts = said["policies"][0]["rollouts"].as_array().unwrap();
    let back: Vec<_> = rollouts.iter().filter(|it| it["end"] == "rolled_back").collect();
    let first = back[0]["ended"].as_u64().unwrap() / 1_000;
    let begin = *BEGIN + INCIDENT.start * HOUR;
    assert!((begin..begin + 120).contains(&first), "{} s after it began", first - begin);
    let why = back[0]["why"].as_str().unwrap();
    assert!(why.contains("error_rate_increase < 0.5%") && why.contains("first.yaml:7"), "{why}");
    // The next one begins an hour later, when it is over.
    assert_eq!(back.len(), 1, "{rollouts:?}");
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg") && picture.matches("<polyline").count() >= 4);
}

fn side_by_side(fleet: &Fleet) {
    let ended = fleet.replay(5..9, &["--compare", "pipelines/loose.yaml"]);
    assert_eq!(ended.code, Some(5), "{} {}", ended.out, ended.errors);
    let row = ended.out.lines().find(|line| line.trim_start().starts_with("rolled back")).unwrap();
    let counts: Vec<_> = row.split_whitespace().skip(2).collect();
    assert_eq!(counts, ["1", "0"], "{}", ended.out);
}

fn against_itself(fleet: &Fleet) {
    let of = ["replay", "pipelines/first.yaml", "--aa", "--splits", "2", "--stable-version", "v1"];
    let (from, to) = (time(0), time(10));
    let ended = fleet.tidegate(&[&of[..], &["--from", &from, "--to", &to, "-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.errors);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let found = &said["aa"]["false_rollbacks"];
    assert_eq!(found["rolled_back"], 0, "{found}");
    let count = found["rollouts"].as_u64().unwrap();
    assert!(count >= 8, "{found}");
    let known = said["aa"]["known"].as_array().unwrap();
    assert_eq!(known.len(), 2);
    for known in known {
        // Drawn one by one.
        assert!((1.0..1.3).contains(&known["clumpiness"].as_f64().unwrap()), "{known}");
        assert!(
            (390.0..410.0).contains(&known["requests_per_second"].as_f64().unwrap()),
            "{known}"
        );
    }
    let single = ["--stable-version", "v2"];
    let ended = fleet.tidegate(&[&of[..5], &single, &["--from", &from, "--to", &to]].concat());
    assert_eq!(ended.code, Some(1), "{}", ended.errors);
    assert!(ended.errors.contains("stable had 1 instances"), "{}", ended.errors);
}

fn beforehand(fleet: &Fleet) {
    let of = ["plan", "pipelines/first.yaml", "--from-prometheus", "10h"];
    let ended = fleet.tidegate(&[&of[..], &["--stable-version", "v1", "-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    let known = said["measured"].as_array().unwrap();
    assert_eq!(known.len(), 2, "{known:?}");
    assert!(known.iter().all(|it| it["is_split"] == true), "{known:?}");
    let stage = &said["stages"][0];
    let canary = stage["canary_requests_per_second"].as_f64().unwrap();
    assert!((19.5..20.5).contains(&canary), "{canary}");
    for forecast in stage["forecasts"].as_array().unwrap() {
        assert!(forecast["assumed"].is_null(), "measured, not assumed: {forecast}");
        assert_eq!(forecast["in_time"], true, "{forecast}");
    }
    let rate = stage["forecasts"][0]["stable_rate"].as_f64().unwrap();
    assert!((0.0009..0.0011).contains(&rate), "{rate}");

    // One instance cannot be split.
    let single = fleet.tidegate(&[&of[..], &["--stable-version", "v2"]].concat());
    assert_eq!(single.code, Some(0), "{}", single.errors);
    assert!(single.out.contains("neighbouring looks"), "{}", single.out);
    let nobody = fleet.tidegate(&[&of[..], &["--stable-version", "v9"]].concat());
    assert_eq!(nobody.code, Some(1), "{}", nobody.out);
    assert!(nobody.errors.contains("stable had no requests"), "{}", nobody.errors);
}

fn refusals(fleet: &Fleet) {
    let wrong: [(&[&str], &str); 4] = [
        (&["--from", "1h", "--to", "2h", "--version", "v2"], "--from is not before --to"),
        (&["--from", "soon"], "is neither a time"),
        (&["--step", "0s"], "is not a length of time"),
        (&["--stable-slot", "red", "--version", "v2", "--stable-version", "v1"], "has no slot red"),
    ];
    for (arguments, why) in wrong {
        let ended = fleet.tidegate(&[&["replay", "pipelines/first.yaml"], arguments].concat());
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(why), "{arguments:?}: {}", ended.errors);
    }
    let ended = fleet.tidegate(&["replay", "pipelines/first.yaml"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.errors.contains("--stable-version VERSION says it"), "{}", ended.errors);
    assert!(!Path::new(&fleet.path("state")).exists(), "a replay changes nothing");
}
