//! What judging costs: prints figures and ratios of one run. Machines are noisy; compare ratios.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use tidegate::sim::statistics::{Rule, Scenario};
use tidegate::stats::count::StableRate;
use tidegate::stats::histogram::Histogram;
use tidegate::stats::{
    Arm, Conditions, CountMonitor, Family, LatencyMonitor, Levels, Limit, Wealth, Window,
};

/// How long each figure is measured.
const MEASURE: Duration = Duration::from_secs(2);

/// Seconds per call, the best of several rounds: the others were disturbed.
fn seconds_per_call(mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut calls = 1_u32;
    while begin.elapsed() < MEASURE {
        let round = Instant::now();
        (0..calls).for_each(|_| call());
        let took = round.elapsed();
        best = best.min(took.as_secs_f64() / f64::from(calls));
        if took < Duration::from_millis(20) {
            calls *= 2;
        }
    }
    best
}

fn histogram(scale: f64, total: f64) -> Histogram {
    let edges: Vec<f64> = (1..=40).map(|n| 0.005 * 1.2_f64.powi(n)).collect();
    let share = |edge: &f64| 1.0 - (-edge / scale).exp();
    let cumulative = edges.iter().map(|edge| (share(edge) * total).floor()).collect();
    Histogram { edges, cumulative, total }
}

fn main() {
    let conditions = Conditions::with_history(1.5);
    let logs = seconds_per_call(|| {
        let sum: f64 = (1..=100).map(|n| black_box(f64::from(n)).ln()).sum();
        black_box(sum);
    }) / 100.0;

    let mut monitor =
        CountMonitor::new(Family::Poisson, Limit::difference(0.001), Levels::default());
    let window = Window::new(Arm::new(1.0, 500.0), Arm::new(10.0, 9_500.0), 1.0);
    let update = seconds_per_call(|| {
        black_box(monitor.update(black_box(&window), &conditions));
    });
    println!("count update           {:>12.0} per second", 1.0 / update);
    println!("                       {:>12.1} times the time of one ln", update / logs);

    // What changes from poll to poll; the rest of a monitor is its limit and levels.
    let state = size_of::<Wealth>() + size_of::<StableRate>();
    println!("count monitor          {state:>12} bytes of state");
    println!("                       {:>12} bytes with its settings", size_of::<CountMonitor>());

    let mut latency = LatencyMonitor::new(0.99, 1.1, Levels::default());
    let (canary, stable) = (histogram(0.05, 500.0), histogram(0.05, 9_500.0));
    latency.preload(&stable);
    let update = seconds_per_call(|| {
        black_box(latency.update(black_box(&canary), black_box(&stable), 1.0, &conditions));
    });
    println!("latency, 40 buckets    {:>12.2} microseconds per update", update * 1e6);

    let drawn = Scenario::new(1_000.0, 0.0).draw(&mut Pcg64Mcg::seed_from_u64(1));
    let ours = seconds_per_call(|| {
        black_box(Rule::Worse(0.001).first(black_box(&drawn), 0));
    });
    let rank = seconds_per_call(|| {
        black_box(Rule::RankEachMinute.first(black_box(&drawn), 0));
    });
    println!("half an hour, 180 looks {:>11.1} microseconds", ours * 1e6);
    println!("rank test, 26 looks    {:>12.1} microseconds", rank * 1e6);
    println!("ratio                  {:>12.1}", rank / ours);
}
