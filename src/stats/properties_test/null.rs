//! No false alarms: what a bet wins on average, and how often a monitor is ever wrong, while the limit is kept.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::*;

/// ln of a Poisson probability for each count from 0 until the tail no longer matters.
fn poisson_logs(mean: f64) -> Vec<f64> {
    let mut logs = vec![-mean];
    while logs.len() < 20 || logs.len() as f64 <= mean + 12.0 * mean.sqrt() {
        let count = logs.len() as f64;
        logs.push(logs[logs.len() - 1] + (mean / count).ln());
    }
    logs
}

/// Poisson count by multiplying uniforms; for small means.
fn poisson(random: &mut Pcg64Mcg, mean: f64) -> f64 {
    let floor = (-mean).exp();
    let mut product = random.random::<f64>();
    let mut count = 0.0;
    while product > floor {
        product *= random.random::<f64>();
        count += 1.0;
    }
    count
}

#[test]
fn no_bet_wins_on_average_at_the_limit() {
    for limit in [Limit::difference(0.01), Limit::ratio(1.5), Limit::absolute(0.03)] {
        for clumpiness in [1.0, 3.0] {
            for stable_rate in [0.005, 0.02] {
                let (canary, stable) = (150.0, 400.0);
                let means = (canary * limit.at(stable_rate), stable * stable_rate);
                for capped in [false, true] {
                    let caps = Caps::for_counts(Levels::default(), 2.0);
                    let caps = if capped { caps } else { Caps::NONE };
                    // The learned rate may be wrong; the guarantee must not depend on it.
                    for learned in [stable_rate, 3.0 * stable_rate] {
                        let terms = Terms {
                            clumpiness,
                            caps,
                            ..bare_terms(Family::Poisson, limit, learned)
                        };
                        expect_at_most_one(&terms, (canary, stable), means);
                    }
                }
            }
        }
    }
}

fn expect_at_most_one(terms: &Terms, requests: (f64, f64), means: (f64, f64)) {
    let mut mean: Evidence = Evidence::NONE;
    for (canary, canary_log) in poisson_logs(means.0).into_iter().enumerate() {
        for (stable, stable_log) in poisson_logs(means.1).into_iter().enumerate() {
            let window = Window::new(
                Arm::new(canary as f64, requests.0),
                Arm::new(stable as f64, requests.1),
                10.0,
            );
            let evidence = terms.evidence(&window);
            let chance = canary_log + stable_log;
            let add = |sum: &mut f64, log: f64| *sum += (log + chance).exp();
            mean.bad.iter_mut().zip(evidence.bad).for_each(|(sum, log)| add(sum, log));
            mean.ok.iter_mut().zip(evidence.ok).for_each(|(sum, log)| add(sum, log));
        }
    }
    let worst = mean.bad.into_iter().chain(mean.ok).fold(0.0, f64::max);
    assert!(worst <= 1.0 + 1e-6, "{worst} for {terms:?}");
}

#[test]
fn monitors_are_seldom_ever_wrong_at_the_limit() {
    const RUNS: u32 = 600;
    let mut random = Pcg64Mcg::new(20_240_229);
    let (mut false_bad, mut false_ok, mut bad_wealth) = (0, 0, 0.0);
    for _ in 0..RUNS {
        let mut monitor =
            CountMonitor::new(Family::Poisson, Limit::difference(0.005), Levels::default());
        monitor.preload(Arm::new(50.0, 10_000.0));
        let (mut bad, mut ok) = (false, false);
        for poll in 0..90 {
            if poll % 30 == 0 {
                monitor.traffic_step();
            }
            // Stable's rate drifts; the canary stays exactly at the limit.
            let stable_rate = 0.005 * (1.0 + 0.5 * (f64::from(poll) / 15.0).sin());
            let canary = Arm::new(poisson(&mut random, 100.0 * (stable_rate + 0.005)), 100.0);
            let stable = Arm::new(poisson(&mut random, 900.0 * stable_rate), 900.0);
            monitor.update(&Window::new(canary, stable, 10.0), &Conditions::default());
            bad |= monitor.log_bad() >= 100.0_f64.ln();
            ok |= monitor.log_ok() >= 20.0_f64.ln();
        }
        false_bad += u32::from(bad);
        false_ok += u32::from(ok);
        bad_wealth += monitor.log_bad().exp() / f64::from(RUNS);
    }
    assert!(false_bad <= RUNS / 100, "{false_bad} of {RUNS}");
    assert!(false_ok <= RUNS / 20, "{false_ok} of {RUNS}");
    assert!(bad_wealth <= 1.1, "{bad_wealth}");
}

#[test]
fn a_bounded_score_at_its_limit_is_seldom_called_wrong() {
    const RUNS: u32 = 400;
    let mut random = Pcg64Mcg::new(7);
    let (mut false_bad, mut false_ok) = (0, 0);
    for _ in 0..RUNS {
        let mut monitor = BoundedMeanMonitor::new(4.0, 1.0, 5.0, Levels::default()).unwrap();
        let (mut bad, mut ok) = (false, false);
        for _ in 0..120 {
            // 5 with chance 3/4 and 1 otherwise: as wild as a score with mean 4 can be.
            let score = if random.random::<f64>() < 0.75 { 5.0 } else { 1.0 };
            monitor.update(score, 10.0, 1.0, 2.0);
            bad |= monitor.log_bad() >= 100.0_f64.ln();
            ok |= monitor.log_ok() >= 20.0_f64.ln();
        }
        false_bad += u32::from(bad);
        false_ok += u32::from(ok);
    }
    assert!(false_bad <= RUNS / 100, "{false_bad} of {RUNS}");
    assert!(false_ok <= RUNS / 20, "{false_ok} of {RUNS}");
}
