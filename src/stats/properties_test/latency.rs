//! Latency monitors on histograms that change shape, layout or readability.

use super::super::absolute_latency::edges_around;
use super::*;
use crate::stats::numbers::normal_cdf;

const EDGES: [f64; 8] = [10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];

/// Requests with lognormal times (median 50, spread 0.7), `slower` times slowed down.
fn histogram(edges: &[f64], requests: f64, slower: f64) -> Histogram {
    let below = |edge: &f64| requests * normal_cdf((edge / (50.0 * slower)).ln() / 0.7);
    Histogram::new(edges.to_vec(), edges.iter().map(below).collect(), requests)
}

fn monitor(slowdown: f64) -> LatencyMonitor {
    let mut monitor = LatencyMonitor::new(0.99, slowdown, Levels::default());
    monitor.preload(&histogram(&EDGES, 50_000.0, 1.0));
    monitor
}

fn run(monitor: &mut LatencyMonitor, canary: &Histogram, stable: &Histogram, polls: usize) {
    for _ in 0..polls {
        monitor.update(canary, stable, 10.0, &Conditions::default());
    }
}

#[test]
fn a_slow_canary_is_found_and_an_equal_one_proven() {
    let stable = histogram(&EDGES, 9000.0, 1.0);
    let mut slow = monitor(1.1);
    run(&mut slow, &histogram(&EDGES, 1000.0, 1.5), &stable, 12);
    assert!(slow.log_bad() > 100.0_f64.ln() && slow.log_ok() < 0.0);
    let mut equal = monitor(1.1);
    run(&mut equal, &histogram(&EDGES, 1000.0, 1.0), &stable, 60);
    assert!(equal.log_bad() < 0.0 && equal.log_ok() > 20.0_f64.ln());
    assert!(equal.log_ok_bracketed() < 20.0_f64.ln(), "the bracket reaches down to kappa 1");
    assert_eq!(equal.last_choice().unwrap().edge, 250.0);
    assert!(!equal.choose_edge().unwrap().is_too_far(0.99));
}

#[test]
fn the_bracket_holds_the_interpolated_value() {
    for slowdown in [1.0, 1.05, 1.3, 2.0, 4.0] {
        let choice = monitor(slowdown).choose_edge().unwrap();
        assert!(choice.kappa_min <= choice.kappa && choice.kappa <= choice.kappa_max, "{choice:?}");
    }
    assert!(monitor(0.01).choose_edge().is_some(), "an edge beyond the last is no reason to panic");
}

#[test]
fn unreadable_or_missing_histograms_decide_nothing() {
    let stable = histogram(&EDGES, 9000.0, 1.0);
    let slow = histogram(&EDGES, 1000.0, 3.0);
    for broken in UNREADABLE {
        for index in [0, EDGES.len() - 1] {
            let mut spoiled = slow.clone();
            spoiled.cumulative[index] = broken;
            let mut watched = monitor(1.1);
            let before = watched.clone();
            assert_eq!(
                watched.update(&spoiled, &stable, 10.0, &Conditions::default()),
                Evidence::NONE
            );
            assert_eq!(
                watched.update(&slow, &spoiled, 10.0, &Conditions::default()),
                Evidence::NONE
            );
            assert_eq!(watched, before);
        }
    }
    let mut dark = monitor(1.1);
    run(&mut dark, &Histogram::default(), &stable, 50);
    run(&mut dark, &histogram(&EDGES, 0.0, 1.0), &stable, 50);
    assert!(dark.log_bad().abs() < 1e-9 && dark.log_ok().abs() < 1e-9);
    let mut fresh = LatencyMonitor::new(0.99, 1.1, Levels::default());
    assert_eq!(fresh.choose_edge(), None);
    fresh.update(&slow, &stable, 10.0, &Conditions::default());
    assert_eq!(fresh.log_bad(), 0.0, "nothing is known about stable before the first poll");
}

#[test]
fn layouts_are_cut_down_to_what_they_share() {
    let other = [20.0, 50.0, 250.0, 400.0];
    let mut mixed = monitor(1.1);
    let stable = histogram(&EDGES, 9000.0, 1.0);
    run(&mut mixed, &histogram(&other, 1000.0, 1.5), &stable, 12);
    assert_eq!(mixed.last_choice().unwrap().edge, 250.0);
    assert!(mixed.log_bad() > 100.0_f64.ln());
    run(&mut mixed, &histogram(&other, 1000.0, 1.5), &Histogram::default(), 3);
    assert!(mixed.choose_edge().is_some(), "a poll without stable must not erase what is known");
    run(&mut mixed, &histogram(&other, 1000.0, 1.5), &histogram(&other, 9000.0, 1.0), 12);
    assert_eq!(mixed.last_choice().unwrap().edge, 250.0);
    let disjoint = [30.0, 270.0];
    run(&mut mixed, &histogram(&disjoint, 1e3, 1.0), &histogram(&disjoint, 9e3, 1.0), 2);
    assert_eq!(mixed.last_choice().unwrap().edge, 270.0);
}

#[test]
fn a_pause_learns_but_does_not_bet() {
    let mut paused = monitor(1.1);
    let conditions = Conditions::default().warming_up(Some(10.0));
    let slow = histogram(&EDGES, 1000.0, 3.0);
    let evidence = paused.update(&slow, &histogram(&EDGES, 9000.0, 1.0), 10.0, &conditions);
    assert_eq!(evidence, Evidence::NONE);
    assert_ne!(paused, monitor(1.1));
}

#[test]
fn state_survives_a_restart() {
    let mut kept = monitor(1.1);
    let mut absolute = AbsoluteLatencyMonitor::new(0.99, 300.0, Levels::default());
    let (canary, stable) = (histogram(&EDGES, 777.0, 1.2), histogram(&EDGES, 9111.0, 1.0));
    for _ in 0..5 {
        kept.update(&canary, &stable, 10.0, &Conditions::default());
        absolute.update(&canary, &stable, 10.0, &Conditions::default());
        let text = serde_json::to_string(&(&kept, &absolute)).unwrap();
        let back: (LatencyMonitor, AbsoluteLatencyMonitor) = serde_json::from_str(&text).unwrap();
        assert_eq!((&back.0, &back.1), (&kept, &absolute));
        (kept, absolute) = back;
    }
}

#[test]
fn a_fixed_limit_is_judged_by_the_edges_around_it() {
    assert_eq!(edges_around(&EDGES, 250.0), (Some(250.0), Some(250.0)));
    assert_eq!(edges_around(&EDGES, 300.0), (Some(500.0), Some(250.0)));
    assert_eq!(edges_around(&EDGES, 5.0), (Some(10.0), None));
    assert_eq!(edges_around(&EDGES, 9e3), (None, Some(2500.0)));
    assert_eq!(edges_around(&[], 5.0), (None, None));
    let judge = |limit: f64, slower: f64| {
        let mut monitor = AbsoluteLatencyMonitor::new(0.99, limit, Levels::default());
        let canary = histogram(&EDGES, 1000.0, slower);
        for _ in 0..40 {
            monitor.update(&canary, &Histogram::default(), 10.0, &Conditions::default());
        }
        (monitor.log_bad() >= 100.0_f64.ln(), monitor.log_ok() >= 20.0_f64.ln())
    };
    // The 99th percentile stands at 255 times the slowdown.
    assert_eq!(judge(500.0, 1.0), (false, true));
    assert_eq!(judge(250.0, 2.0), (true, false));
    assert_eq!(judge(300.0, 1.2), (false, false), "306 lies between the edges around 300");
    assert_eq!(judge(9e3, 99.0), (false, false), "no edge lies above the limit");
}
