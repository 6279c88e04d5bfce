//! The binary as a user meets it: help, exit codes, machine-readable output, the demo.

use std::process::{Command, Output};

use serde_json::Value;

const FLEET: [&str; 2] = ["--fleet", "examples/envoy/fleet.yaml"];

fn tidegate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("TIDEGATE_FLEET")
        .env_remove("TIDEGATE_STATE");
    command.output().expect("the binary runs")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

#[test]
fn every_command_explains_itself() {
    let (help, _) = ends(&tidegate(&["--help"]), 0);
    for command in [
        "demo",
        "check",
        "plan",
        "adopt",
        "run",
        "status",
        "watch",
        "why",
        "promote",
        "pause",
        "resume",
        "rollback",
        "history",
        "judge",
        "evidence",
        "simulate",
        "explain",
        "schema",
        "completions",
    ] {
        assert!(help.contains(command), "{command} is not in the help");
        let (own, _) = ends(&tidegate(&[command, "--help"]), 0);
        assert!(own.contains("Example"), "{command} --help has no example:\n{own}");
    }
    ends(&tidegate(&["completions", "bash"]), 0);
    ends(&tidegate(&["frobnicate"]), 2);
}

#[test]
fn check_reports_what_does_not_hold_together() {
    let check = [&["check", "pipelines/multi-region.yaml"][..], &FLEET].concat();
    let (_, err) = ends(&tidegate(&check), 0);
    for finding in [
        "reason::failover_too_slow",
        "reason::dominated_trigger",
        "reason::gap",
        "reason::first_wave_largest",
        "reason::no_canary",
        "reason::outlasts_ci",
        "reason::approval_not_enforced",
    ] {
        assert!(err.contains(finding), "{finding} is not in\n{err}");
        ends(&tidegate(&["explain", finding]), 0);
    }
    let (out, _) = ends(&tidegate(&[&check[..], &["-o", "json"]].concat()), 0);
    let checked: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(checked["ok"], true);
    let problems = checked["problems"].as_array().expect("a list");
    assert!(problems.iter().all(|it| it["location"]["line"].as_u64() > Some(0)));
    ends(&tidegate(&[&check[..], &["--strict"]].concat()), 2);
}

#[test]
fn a_file_that_is_not_there_or_not_right_is_said_so_without_a_panic() {
    ends(&tidegate(&[&["check", "pipelines/none.yaml"][..], &FLEET].concat()), 2);
    ends(&tidegate(&["check", "pipelines/multi-region.yaml", "--fleet", "none.yaml"]), 2);
    ends(&tidegate(&[&["check", "Cargo.toml"][..], &FLEET].concat()), 2);
    ends(&tidegate(&["explain", "no::such_code"]), 2);
}

#[test]
fn plan_says_what_the_traffic_cannot_show_and_how_to_change_it() {
    let rps = "us_east_1=400,eu_west_1=240,ap_southeast_2=160";
    let plan = [&["plan", "pipelines/multi-region.yaml", "--rps", rps][..], &FLEET].concat();
    let (out, _) = ends(&tidegate(&plan), 0);
    assert!(out.contains("error_rate_increase < 0.1%: not in time"), "{out}");
    assert!(out.contains("instead of 30m, or") && out.contains("6h30m"), "{out}");
    let (out, _) = ends(&tidegate(&[&plan[..], &["--phi", "1", "-o", "json"]].concat()), 0);
    let planned: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(planned["stages"][0]["forecasts"][0]["in_time"], true, "{out}");
    assert_eq!(planned["steps"][2]["exposure_percent"], 100.0);
    ends(&tidegate(&[&plan[..], &["--power", "2"]].concat()), 2);
}

#[test]
fn schemas_are_json() {
    for kind in ["pipeline", "analysis", "fleet"] {
        let (out, _) = ends(&tidegate(&["schema", kind]), 0);
        let schema: Value = serde_json::from_str(&out).expect("JSON");
        let shaped =
            ["properties", "oneOf", "anyOf", "$ref"].iter().any(|key| !schema[key].is_null());
        assert!(shaped, "{kind}");
    }
}

#[test]
fn asking_where_nothing_runs_cannot_connect() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().to_str().expect("text");
    for command in ["promote", "pause", "resume", "rollback", "abort", "watch"] {
        let (_, err) = ends(&tidegate(&[command, "--state", state]), 3);
        assert!(err.contains("help:"), "{err}");
    }
}

/// Runs the demo and returns the summary that closes its stream.
fn demo(version: &str, code: i32) -> Value {
    let _alone = super::e2e::world::TURN.blocking_lock();
    let (out, _) =
        ends(&tidegate(&["demo", "--version", version, "--rps", "1000", "-o", "json"]), code);
    let begin = out.find("\n{\n").expect("a summary after the stream");
    serde_json::from_str(&out[begin..]).expect("JSON")
}

#[test]
fn the_demo_rolls_failing_servers_back_by_rule_file_and_numbers() {
    let summary = demo("errors", 5);
    let cause = summary["cause"].as_str().expect("a cause");
    assert!(cause.contains("pipelines/demo.yaml:"), "{cause}");
    let weights = summary["weights"].as_object().expect("weights");
    assert_eq!(weights.len(), 3);
    assert!(weights.values().all(|weight| weight == 0), "{weights:?}");
}

#[test]
fn the_demo_never_promotes_servers_that_fall_silent() {
    let summary = demo("silent", 5);
    assert!(summary["cause"].as_str().expect("a cause").contains("no data"), "{summary}");
}

#[test]
fn the_demo_promotes_servers_that_do_well() {
    let summary = demo("good", 0);
    assert_eq!(summary["phase"], "promoted");
    assert_eq!(summary["proven"], true);
}
