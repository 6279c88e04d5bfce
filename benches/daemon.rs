//! Many who read from a daemon with many rollouts: what that costs them, and what it costs the loop that drives.
//!
//! `cargo bench --bench daemon [-- ROLLOUTS REQUESTS_PER_SECOND SECONDS]`, by default 1,000 each and 20 seconds.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

#[path = "../tests/it/access/world.rs"]
#[expect(
    dead_code,
    clippy::panic,
    reason = "the tests' world does more than is asked here, and fails by panicking"
)]
mod world;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use world::{ANALYSIS, World};

/// How often the loop is asked how late it is: the shortest tick of a rollout that polls every second.
const TICK: Duration = Duration::from_millis(250);

const PIPELINE: &str = "deployment_pipeline:\n  regional_stages:\n    canary:\n      regions: [us_east_1]\n      \
    traffic_percentage: 5\n      validation_criteria: [error_rate_increase < 1%]\n      duration: 1h\n  \
    rollback_procedures:\n    automatic_rollback_triggers: [error_rate > 50%]\n";

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, default| numbers.get(place).copied().unwrap_or(default);
    let (rollouts, rate, seconds) = (number(0, 1_000), number(1, 1_000), number(2, 20));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(rollouts, rate, seconds));
}

async fn run(rollouts: u64, rate: u64, seconds: u64) {
    let world = Arc::new(World::with(&fleet(rollouts)).await);
    let begun = Instant::now();
    for number in 0..rollouts {
        let start = json!({
            "service": format!("service-{number}"), "version": "v2",
            "pipeline": {"name": "pipelines/p.yaml", "text": PIPELINE},
            "analyses": [{"name": "analysis/error_rate.yaml", "text": ANALYSIS}],
        });
        while world.post("rita", "/v1/rollouts", start.clone()).await.status == 429 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("{rollouts} rollouts begun in {:.1} s", begun.elapsed().as_secs_f64());
    let idle = lag(Duration::from_secs(5)).await;
    let reading = Arc::new(AtomicBool::new(true));
    let (done, missed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers = {
        let (world, reading) = (Arc::clone(&world), Arc::clone(&reading));
        let (done, missed) = (Arc::clone(&done), Arc::clone(&missed));
        // Threads of their own, as clients elsewhere would have.
        std::thread::spawn(move || readers(&world, rollouts, rate, &reading, &done, &missed))
    };
    let busy = lag(Duration::from_secs(seconds)).await;
    reading.store(false, Ordering::Relaxed);
    let mut times = readers.join().unwrap();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let answered = done.load(Ordering::Relaxed);
    println!(
        "{} reads/s answered ({} not with 200): median {:.1} ms, p99 {:.1} ms",
        answered / seconds,
        missed.load(Ordering::Relaxed),
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
    );
    let shown = |name: &str, lags: &[Duration]| {
        let most = lags.last().unwrap();
        let middle = lags[lags.len() / 2];
        println!("loop lag {name}: median {middle:.1?}, most {most:.1?} of a tick of {TICK:?}");
    };
    shown("idle", &idle);
    shown("with readers", &busy);
    println!("memory: {} MiB resident, clients and balancers included", resident() / 1024);
}

/// How late the runtime of the rollouts comes, sorted.
async fn lag(time: Duration) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut lags = Vec::new();
    while Instant::now() < end {
        let due = Instant::now() + Duration::from_millis(20);
        tokio::time::sleep_until(due.into()).await;
        lags.push(due.elapsed());
    }
    lags.sort_unstable();
    lags
}

fn readers(
    world: &World,
    rollouts: u64,
    rate: u64,
    reading: &AtomicBool,
    done: &AtomicU64,
    missed: &AtomicU64,
) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lanes = 20;
    runtime.block_on(async {
        let lane = |lane: u64| async move {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let pause = Duration::from_secs_f64(lanes as f64 / rate as f64);
            let (mut due, mut turn, mut times) = (Instant::now(), lane, Vec::new());
            while reading.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.into()).await;
                due += pause;
                // Mostly single rollouts, now and then a page of fifty.
                let path = match turn % 10 {
                    0 => "/v1/rollouts".to_owned(),
                    1 => format!("/v1/rollouts/service-{}-1/why", turn % rollouts),
                    _ => format!("/v1/rollouts/service-{}-1", turn % rollouts),
                };
                turn += 7;
                let asked = Instant::now();
                let request = client.get(world.url(&path)).bearer_auth(&world.tokens["rob"]);
                let answer = request.send().await.unwrap();
                if answer.status() != 200 {
                    missed.fetch_add(1, Ordering::Relaxed);
                }
                let _ = answer.bytes().await;
                times.push(asked.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            times
        };
        let all = futures_util::future::join_all((0..lanes).map(lane)).await;
        all.into_iter().flatten().collect()
    })
}

fn fleet(rollouts: u64) -> String {
    let mut text = String::from(
        "regions:\n  us_east_1: {share: 100%, prometheus: {url: \"http://127.0.0.1:9\"}, scrape_interval: 15s, poll: 15s}\nservices:\n",
    );
    for number in 0..rollouts {
        let _ = writeln!(
            text,
            "  service-{number}: {{authority: full, slots: [blue, green], metrics: {{version: \"{{version}}\"}}, targets: {{us_east_1: [{{name: edge, envoy_file: {{route: w, path: w.yaml, clusters: {{blue: b, green: g}}, admin: [\"http://127.0.0.1:9\"]}}}}]}}}}"
        );
    }
    text + "access:\n  roles:\n    all: {allow: [read, start]}\n  people: {rita: {roles: [all]}, rob: {roles: [all]}, ana: {roles: [all]}, ben: {roles: [all]}, eve: {roles: [all]}}\n"
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
