//! The methods against reference vectors: one JSON file with a tolerance per section.
//!
//! `TIDEGATE_VECTORS=FILE` checks another file of the same shape. A section that the file does not have is not checked;
//! one that is unknown here fails by name.

use serde_json::Value;

use super::clumpiness::{DesignEffect, fano, pod_variance};
use super::combine::stand_out;
use super::conditions::warmup_factor;
use super::evidence::{BAD_MULTIPLES, OK_MULTIPLES};
use super::histogram::{quantile, quantile_interval, share_up_to};
use super::mean::{
    best_rho, log_mixture_one_sided, log_mixture_two_sided, long_run_factor, mean_radius,
};
use super::plan::first_passage;
use super::projection::{Rates, log_e_value, project};
use super::traffic_split::log_split_e_value;
use super::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors.json");

type Check = fn(&mut Section<'_>);

const SECTIONS: [(&str, Check); 16] = [
    ("window_evalues", window_evalues),
    ("count_monitor", count_monitor),
    ("design_effect", design_effect),
    ("histogram_interpolation", histogram_interpolation),
    ("quantile_interval", quantile_intervals),
    ("latency_monitor", latency_monitor),
    ("normal_mixture", normal_mixture),
    ("mean_monitor", mean_monitor),
    ("traffic_split", traffic_split),
    ("combine", combine),
    ("planning", planning),
    ("counter_increase", counter_increases),
    ("warmup", warmup),
    ("decide", decisions),
    ("interval", interval),
    ("examples", examples),
];

/// A section under check: its data, its tolerance, and how many values were compared.
struct Section<'v> {
    name: &'v str,
    data: &'v Value,
    tolerance: f64,
    checked: usize,
}

impl Section<'_> {
    /// `got` against the number at `at[key]`; "inf", "-inf" and null stand for themselves.
    fn close(&mut self, at: &Value, key: &str, got: impl Into<Option<f64>>) {
        self.close_value(&at[key], key, got.into());
    }

    fn close_value(&mut self, want: &Value, what: &str, got: Option<f64>) {
        self.checked += 1;
        let (Some(want), Some(got)) = (optional(want), got) else {
            assert_eq!(got, optional(want), "{} / {what}", self.name);
            return;
        };
        let near = (got - want).abs() <= self.tolerance * want.abs().max(1.0);
        assert!(near || got == want, "{} / {what}: got {got}, want {want}", self.name);
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, want: T) {
        self.checked += 1;
        assert_eq!(got, want, "{} / {what}", self.name);
    }
}

fn optional(value: &Value) -> Option<f64> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.parse().unwrap()),
        other => Some(other.as_f64().unwrap()),
    }
}

fn number(at: &Value, key: &str) -> f64 {
    optional(&at[key]).unwrap_or_else(|| panic!("no number {key} in {at}"))
}

fn number_or(at: &Value, key: &str, default: f64) -> f64 {
    optional(&at[key]).unwrap_or(default)
}

fn items<'v>(at: &'v Value, key: &str) -> &'v [Value] {
    at[key].as_array().map_or(&[], Vec::as_slice)
}

fn numbers(at: &Value, key: &str) -> Vec<f64> {
    items(at, key).iter().map(|value| optional(value).unwrap()).collect()
}

fn histogram(at: &Value, edges: &[f64], cumulative: &str, total: &str) -> Histogram {
    Histogram::new(edges.to_vec(), numbers(at, cumulative), number(at, total))
}

fn window(at: &Value, seconds: f64) -> Window {
    let arm = |events, requests| Arm::new(number(at, events), number(at, requests));
    Window::new(arm("xc", "nc"), arm("xs", "ns"), seconds)
}

fn limit(at: &Value) -> Limit {
    Limit::new(number(at, "a"), number(at, "b"))
}

fn levels(at: &Value) -> Levels {
    Levels::new(number_or(at, "alpha_k", 0.01), number_or(at, "beta", 0.05))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the vectors are a file, which may be another one")]
fn vectors_all_sections() {
    let file = std::env::var_os("TIDEGATE_VECTORS").unwrap_or_else(|| FILE.into());
    let file = file.to_string_lossy();
    let text = std::fs::read_to_string(&*file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let mut total = 0;
    for (name, data) in vectors.as_object().unwrap() {
        if name.starts_with('_') {
            continue;
        }
        let known = SECTIONS.iter().find(|(known, _)| known == name);
        let (_, check) = known.unwrap_or_else(|| panic!("unknown section {name} in {file}"));
        let tolerance = number_or(data, "tol", 0.0);
        let mut section = Section { name, data, tolerance, checked: 0 };
        check(&mut section);
        assert!(section.checked > 0, "section {name} of {file} has nothing to check");
        println!("{name}: {} values within {tolerance:e}", section.checked);
        total += section.checked;
    }
    println!("{total} values of {file}");
    assert!(total > 0, "{file} has no sections");
}

#[test]
fn vectors_unknown_values_are_noticed() {
    let data = serde_json::json!({"inf": "-inf", "none": null, "one": 1.0});
    let mut section = Section { name: "self", data: &data, tolerance: 1e-9, checked: 0 };
    section.close(&data, "inf", f64::NEG_INFINITY);
    section.close(&data, "none", None);
    section.close(&data, "one", 1.0 + 1e-10);
    assert_eq!(section.checked, 3);
    let off = std::panic::catch_unwind(|| {
        let mut section = Section { name: "self", data: &data, tolerance: 1e-9, checked: 0 };
        section.close(&data, "one", 1.0 + 1e-8);
    });
    assert!(off.is_err());
}

fn window_evalues(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let bet = Rates { canary: number(case, "tc"), stable: number(case, "ts") };
        let window = window(case, 10.0);
        for (name, family) in [("poisson", Family::Poisson), ("bernoulli", Family::Bernoulli)] {
            let want = &case[name];
            if want.is_null() {
                continue;
            }
            let Window { canary, stable, .. } = window;
            let nearest = project(family, bet, canary.requests, stable.requests, limit(case));
            section.close(want, "pc", nearest.canary);
            section.close(want, "ps", nearest.stable);
            section.close(want, "log_e", log_e_value(family, &window, bet, limit(case)));
        }
    }
}

fn count_monitor(section: &mut Section<'_>) {
    section.equal("bad_mult", BAD_MULTIPLES.to_vec(), numbers(section.data, "bad_mult"));
    section.equal("ok_mult", OK_MULTIPLES.to_vec(), numbers(section.data, "ok_mult"));
    for sequence in items(section.data, "sequences") {
        let family = match sequence["family"].as_str() {
            Some("bernoulli") => Family::Bernoulli,
            _ => Family::Poisson,
        };
        let mut monitor = CountMonitor::new(family, limit(sequence), levels(sequence))
            .with_rate_max(number_or(sequence, "cap_rate", family.rate_max()));
        let preload = |key| number_or(sequence, key, 0.0);
        monitor.preload(Arm::new(preload("preload_x"), preload("preload_n")));
        for step in items(sequence, "steps") {
            if step["stage_change"].as_bool() == Some(true) {
                monitor.traffic_step();
            }
            let factor = number_or(step, "warmup", 1.0);
            let conditions = Conditions {
                clumpiness: number_or(step, "phi", number_or(sequence, "phi", 1.0)),
                quorum: number_or(sequence, "quorum", 2.0),
                limit_factor: factor,
                ok_paused: factor > 1.05,
                ..Conditions::default()
            };
            let seconds = number_or(step, "dt", number_or(sequence, "dt", 10.0));
            monitor.update(&window(step, seconds), &conditions);
            section.close(step, "log_bad", monitor.log_bad());
            section.close(step, "log_ok", monitor.log_ok());
            section.close(step, "lam_after", monitor.stable_rate());
        }
    }
}

fn design_effect(section: &mut Section<'_>) {
    let blocks: Vec<u32> =
        numbers(section.data, "blocks").iter().map(|polls| *polls as u32).collect();
    let blocks = blocks.try_into().unwrap_or([1, 6, 30]);
    for case in items(section.data, "cases") {
        let columns = ["xc", "nc", "xs", "ns"].map(|key| numbers(case, key));
        let [xc, nc, xs, ns] = &columns;
        let windows: Vec<Window> = (0..xc.len())
            .map(|poll| {
                let canary = Arm::new(xc[poll], nc[poll]);
                Window::new(canary, Arm::new(xs[poll], ns[poll]), 10.0)
            })
            .collect();
        let mut effect = DesignEffect::new(Family::Poisson, 1.0, blocks);
        effect.add_split(&windows);
        section.close(case, "phi", effect.clumpiness());
        let (residual, variance) = effect.sums();
        for (sums, key) in [(residual, "S"), (variance, "V")] {
            for (got, want) in sums.into_iter().zip(items(case, key)) {
                section.close_value(want, key, Some(got));
            }
        }
        let stable: Vec<Arm> = windows.iter().map(|window| window.stable).collect();
        section.close(case, "fano", fano(Family::Poisson, &stable));
    }
    if !section.data["pod_tau2"].is_null() {
        check_pod_tau2(section, &section.data["pod_tau2"]);
    }
}

fn check_pod_tau2(section: &mut Section<'_>, case: &Value) {
    let counts = numbers(case, "x").into_iter().zip(numbers(case, "n"));
    let pods: Vec<Arm> = counts.map(|(events, requests)| Arm::new(events, requests)).collect();
    section.close(case, "tau2", pod_variance(&pods));
}

fn histogram_interpolation(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let (edges, shares) = (numbers(case, "bounds"), numbers(case, "cdf"));
        if let Some(probability) = optional(&case["p"]) {
            let found = quantile(&edges, &shares, probability).unwrap();
            section.close(case, "estimate", found.estimate);
            section.close(case, "lower", found.lower);
            section.close(case, "upper", found.upper);
        }
        if let Some(time) = optional(&case["v"]) {
            section.close(case, "cdf_at_v", share_up_to(&edges, &shares, time));
        }
    }
}

fn quantile_intervals(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let histogram = histogram(case, &numbers(case, "bounds"), "cum", "total");
        let [p, alpha, k] = ["p", "alpha", "k"].map(|key| number(case, key));
        let (lower, upper) = quantile_interval(&histogram, p, alpha, k);
        section.close(case, "lower", lower);
        section.close(case, "upper", upper);
    }
}

fn latency_monitor(section: &mut Section<'_>) {
    for sequence in items(section.data, "sequences") {
        let edges = numbers(sequence, "bounds");
        let [p, r] = ["p", "r"].map(|key| number(sequence, key));
        let mut monitor = LatencyMonitor::new(p, r, levels(sequence));
        if !sequence["preload_cum"].is_null() {
            monitor.preload(&histogram(sequence, &edges, "preload_cum", "preload_total"));
        }
        let conditions = Conditions {
            quorum: number_or(sequence, "quorum", 2.0),
            ..Conditions::with_history(number_or(sequence, "phi", 1.0))
        };
        for step in items(sequence, "steps") {
            let canary = histogram(step, &edges, "canary_cum", "canary_total");
            let stable = histogram(step, &edges, "stable_cum", "stable_total");
            let seconds = number_or(step, "dt", number_or(sequence, "dt", 10.0));
            monitor.update(&canary, &stable, seconds, &conditions);
            let choice = monitor.last_choice();
            section.close(step, "edge_index", choice.map(|it| it.index as f64));
            section.close(step, "tail", choice.map(|it| it.tail));
            section.close(step, "kappa", choice.map(|it| it.kappa));
            section.close(step, "kappa_lo", choice.map(|it| it.kappa_min));
            section.close(step, "kappa_hi", choice.map(|it| it.kappa_max));
            section.close(step, "log_bad", monitor.log_bad());
            section.close(step, "log_ok", monitor.log_ok());
        }
    }
}

fn normal_mixture(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let [s, v, t, alpha] = ["s", "v", "t_opt", "alpha"].map(|key| number(case, key));
        let (one, two) = (best_rho(t, 2.0 * alpha), best_rho(t, alpha));
        section.close(case, "rho_onesided", one);
        section.close(case, "log_onesided", log_mixture_one_sided(s, v, one));
        section.close(case, "rho_twosided", two);
        section.close(case, "log_twosided", log_mixture_two_sided(s, v, two));
    }
    for case in items(section.data, "radius") {
        let [t, sigma, alpha, rho] = ["t", "sigma", "alpha", "rho"].map(|key| number(case, key));
        section.close(case, "radius", mean_radius(t, sigma, alpha, rho));
    }
}

fn mean_monitor(section: &mut Section<'_>) {
    for sequence in items(section.data, "sequences") {
        mean_sequence(section, sequence);
    }
    let bounded = &section.data["bounded"];
    if !bounded.is_null() {
        bounded_sequence(section, bounded);
    }
    let long_run = &section.data["long_run"];
    if !long_run.is_null() {
        let block = number_or(long_run, "block", 30.0) as usize;
        let spread = long_run_factor(&numbers(long_run, "x"), block).unwrap();
        section.close(long_run, "variance", spread.variance);
        section.close(long_run, "f", spread.long_run_factor);
    }
}

fn mean_sequence(section: &mut Section<'_>, sequence: &Value) {
    let long_run_factor = number(sequence, "f");
    let variance = optional(&sequence["s2"]);
    let monitor_settings = MeanSettings {
        limit: 0.0,
        alpha: number(sequence, "alpha"),
        history: variance.map(|variance| Spread { variance, long_run_factor }),
        polls_optimal: number(sequence, "t_opt"),
        polls_min: number(sequence, "t_min") as u32,
        events_min: if variance.is_some() { 0.0 } else { number(sequence, "min_events") },
    };
    let mut monitor = MeanMonitor::new(monitor_settings);
    let limit = number(sequence, "limit");
    for (score, step) in numbers(sequence, "score").into_iter().zip(items(sequence, "steps")) {
        monitor.update(limit - score, number(sequence, "events_per_poll"));
        section.close(step, "log_bad", monitor.log_bad());
        section.close(step, "log_ok", monitor.log_ok());
    }
}

fn bounded_sequence(section: &mut Section<'_>, bounded: &Value) {
    section.equal("fractions", bounded_mean::FRACTIONS.to_vec(), numbers(bounded, "fractions"));
    let [limit, low, high] = ["limit", "lo", "hi"].map(|key| number(bounded, key));
    let mut monitor = BoundedMeanMonitor::new(limit, low, high, levels(bounded)).unwrap();
    let [seconds, factor, quorum] = ["dt", "f", "quorum"].map(|key| number(bounded, key));
    for (score, step) in numbers(bounded, "score").into_iter().zip(items(bounded, "steps")) {
        monitor.update(score, seconds, factor, quorum);
        section.close(step, "log_bad", monitor.log_bad());
        section.close(step, "log_ok", monitor.log_ok());
    }
}

fn traffic_split(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let (counts, shares) = (numbers(case, "counts"), numbers(case, "theta0"));
        section.close(case, "log_e", log_split_e_value(&counts, &shares, number(case, "k")));
    }
}

fn combine(section: &mut Section<'_>) {
    for case in items(section.data, "average") {
        let pairs = numbers(case, "logs").into_iter().zip(numbers(case, "weights"));
        let parts: Vec<Part> = pairs.map(|(log, weight)| Part::new(log, weight)).collect();
        section.close(case, "log_mean", log_average(&parts));
    }
    for case in items(section.data, "e_bh") {
        let logs: Vec<f64> = numbers(case, "e").into_iter().map(f64::ln).collect();
        let found = stand_out(&logs, number(case, "q"));
        let found: Vec<f64> = found.into_iter().map(|index| index as f64).collect();
        section.equal("rejected", found, numbers(case, "rejected"));
    }
}

fn plan_of(case: &Value) -> Plan {
    let traffic = Traffic {
        canary_per_second: number(case, "nc_per_s"),
        stable_per_second: number(case, "ns_per_s"),
    };
    Plan {
        levels: levels(case),
        power: number_or(case, "power", 0.8),
        clumpiness: number_or(case, "phi", 1.0),
        poll_seconds: number_or(case, "dt", 10.0),
        quorum: number_or(case, "quorum", 2.0),
        ..Plan::new(traffic, number(case, "stable_rate"), limit(case))
    }
}

fn planning(section: &mut Section<'_>) {
    for case in items(section.data, "times") {
        let plan = plan_of(case);
        let bad = plan.time_to_bad(number(case, "canary_rate"));
        section.close(case, "bad_seconds", bad.map_or(f64::INFINITY, |it| it.seconds));
        section.close(case, "best_bet", bad.map(|it| it.bet));
        section.close(case, "growth_per_s", bad.map_or(0.0, |it| it.growth_per_second));
        section.close(case, "variance_per_s", bad.map_or(0.0, |it| it.variance_per_second));
        let ok = plan.time_to_ok(plan.stable_rate).map_or(f64::INFINITY, |it| it.seconds);
        section.close(case, "ok_seconds_if_no_difference", ok);
    }
    for case in items(section.data, "mde") {
        section.close(case, "mde_rate", plan_of(case).smallest_detectable(number(case, "T")));
    }
    for case in items(section.data, "first_passage") {
        let [t, g, v, height] = ["t", "g", "v", "B"].map(|key| number(case, key));
        section.close(case, "p", first_passage(t, g, v, height));
    }
}

fn counter_increases(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let increase = counter_increase(optional(&case["prev"]), optional(&case["cur"]));
        section.close(case, "increase", increase);
    }
}

fn warmup(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        section.close(case, "factor", warmup_factor(number(case, "t")));
    }
}

fn decisions(section: &mut Section<'_>) {
    let line = |key| number(section.data, key);
    let thresholds = Thresholds { alpha: line("alpha"), warn: line("warn"), beta: line("beta") };
    for case in items(section.data, "cases") {
        let flag = |key: &str| case[key].as_bool().unwrap();
        let decision = decide(
            number(case, "log_bad"),
            &numbers(case, "logs_ok"),
            thresholds,
            flag("bake_done"),
            flag("time_left"),
        );
        section.equal(
            "decision",
            serde_json::to_value(decision).unwrap(),
            case["decision"].clone(),
        );
    }
}

fn interval(section: &mut Section<'_>) {
    let data = section.data;
    let (grid, alpha) = (numbers(data, "grid"), number(data, "alpha"));
    let mut interval = DifferenceInterval::new(Family::Poisson, &grid, alpha);
    if let [events, requests] = numbers(data, "preload")[..] {
        interval.preload(Arm::new(events, requests));
    }
    for poll in items(data, "windows") {
        let count = |index: usize| poll[index].as_f64().unwrap();
        let canary = Arm::new(count(0), count(1));
        interval.update(&Window::new(canary, Arm::new(count(2), count(3)), 10.0));
    }
    section.close_value(&data["result"][0], "lower", interval.lower());
    section.close_value(&data["result"][1], "upper", interval.upper());
}

fn examples(section: &mut Section<'_>) {
    for case in items(section.data, "cases") {
        let limit = Limit::absolute(0.01);
        let mut monitor = CountMonitor::new(Family::Poisson, limit, Levels::default());
        let canary = Arm::new(number(case, "xc"), number(case, "nc"));
        monitor.update(&Window::one_sample(canary, 10.0), &Conditions::default());
        let want = &case["log_bad_log_ok"];
        section.close_value(&want[0], "log_bad", Some(monitor.log_bad()));
        section.close_value(&want[1], "log_ok", Some(monitor.log_ok()));
    }
}
