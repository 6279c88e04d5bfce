//! From `set` to its effect: how long until the first request goes to the other slot, per adapter, beside the same change
//! made by hand in the same run; and how long until 200 Envoys have and acknowledge a new route. AWS carries no traffic here: its
//! effect is what the API shows.
//!
//! `cargo bench --bench shift [--features full] [-- ROUNDS]`, by default 50. Needs what the tests need (`scripts/parts`).

#![expect(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the tests' worlds do more than is asked here, and a bench that cannot go on ends"
)]

#[cfg(feature = "aws")]
#[path = "../../tests/it/aws_alb.rs"]
mod aws_alb;
#[path = "../../tests/it/caddy.rs"]
mod caddy;
#[path = "../../tests/it/conformance/mod.rs"]
mod conformance;
#[path = "../../tests/it/envoy/mod.rs"]
mod envoy;
#[path = "../../tests/it/haproxy.rs"]
mod haproxy;
#[cfg(feature = "kubernetes")]
#[path = "../../tests/it/kubernetes.rs"]
mod kubernetes;
#[path = "../../tests/it/nginx.rs"]
mod nginx;
#[path = "../../tests/it/own.rs"]
mod own;
#[path = "../../tests/it/parts/mod.rs"]
mod parts;
#[path = "../../tests/it/powerdns.rs"]
mod powerdns;
#[path = "../../tests/it/rfc2136.rs"]
mod rfc2136;
#[cfg(feature = "aws")]
#[path = "../../tests/it/route53.rs"]
mod route53;
mod streams;
#[path = "../../tests/it/traefik/mod.rs"]
mod traefik;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use conformance::{Subject, World};

/// Longest wait for an effect.
const EFFECT_MAX: Duration = Duration::from_secs(10);

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(50);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(rounds));
}

async fn run(rounds: u64) {
    println!("milliseconds, median and p99 of {rounds} changes from 0 to 100 %");
    println!(
        "{:<16} {:>17} {:>17} {:>17} {:>8}",
        "adapter", "set to effect", "set to read-back", "by hand to effect", "ratio"
    );
    measure("envoy", envoy::suite::served().await, rounds).await;
    measure("envoy_file", envoy::suite::watched().await, rounds).await;
    measure("envoy_runtime", envoy::suite::overridden().await, rounds).await;
    measure("haproxy", haproxy::world().await, rounds).await;
    measure("caddy", caddy::world().await, rounds).await;
    measure("nginx", nginx::world().await, rounds).await;
    measure("traefik", traefik::world().await, rounds).await;
    measure("traefik_http", traefik::fetching().await, rounds).await;
    #[cfg(feature = "kubernetes")]
    measure("kubernetes", kubernetes::world().await, rounds).await;
    #[cfg(feature = "aws")]
    {
        measure("aws_alb", aws_alb::world().await, rounds).await;
        measure("route53", route53::world().await, rounds).await;
    }
    measure("powerdns", powerdns::world().await, rounds).await;
    measure("rfc2136", rfc2136::world().await, rounds).await;
    measure("http", own::endpoint().await, rounds).await;
    measure("exec", own::program().await, rounds).await;
    streams::run(200, rounds).await;
}

/// One adapter's line. The ratio is of the medians, of `set` to the same change by hand.
async fn measure(name: &str, world: Box<dyn World>, rounds: u64) {
    let mut subject = Subject::new(world).await;
    let (mut effects, mut confirmed, mut hands) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        subject.set(0.0).await;
        settled_at(&subject, "blue").await;
        let (split, generation) = (subject.split(100.0), subject.next());
        let begin = Instant::now();
        let set = async {
            let reading = subject.balancer.set(&split, generation).await.unwrap();
            assert!(reading.settled && reading.split == split, "{reading:?}");
            begin.elapsed()
        };
        let (set, seen) = tokio::join!(set, effect(&subject, begin));
        effects.push(seen);
        confirmed.push(set);
        subject.set(0.0).await;
        settled_at(&subject, "blue").await;
        let begin = Instant::now();
        if subject.world.edit(100).await.is_ok() {
            hands.push(effect(&subject, begin).await);
        }
    }
    let ratio = match (median(&effects), median(&hands)) {
        (Some(set), Some(hand)) => format!("{:.2}", set / hand),
        _ => "-".to_owned(),
    };
    println!(
        "{name:<16} {:>17} {:>17} {:>17} {ratio:>8}",
        both(&effects),
        both(&confirmed),
        both(&hands)
    );
}

/// When the first request went to `green`.
async fn effect(subject: &Subject, begin: Instant) -> Duration {
    settled_at(subject, "green").await;
    begin.elapsed()
}

/// Asks, one request after another, until `slot` answers; where there is no traffic, until that is what can be read.
async fn settled_at(subject: &Subject, slot: &str) {
    let deadline = Instant::now() + EFFECT_MAX;
    let wanted = subject.split(if slot == "green" { 100.0 } else { 0.0 });
    loop {
        let left = AtomicI64::new(1);
        let one = Arc::new(move || left.fetch_sub(1, Ordering::Relaxed) > 0);
        let answers = match subject.world.load(one).await {
            Ok(counts) => counts.contains_key(slot),
            Err(_) => subject.balancer.read().await.is_ok_and(|reading| reading.split == wanted),
        };
        if answers {
            return;
        }
        assert!(Instant::now() < deadline, "no effect: {slot}");
    }
}

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut milliseconds: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    milliseconds.sort_by(f64::total_cmp);
    milliseconds
}

fn median(times: &[Duration]) -> Option<f64> {
    let all = sorted(times);
    all.get(all.len() / 2).copied()
}

/// `1.2 / 3.4`, or a dash.
fn both(times: &[Duration]) -> String {
    let all = sorted(times);
    let Some(median) = median(times) else { return "-".to_owned() };
    let last = (all.len() * 99).div_ceil(100).saturating_sub(1);
    format!("{median:.1} / {:.1}", all[last])
}
