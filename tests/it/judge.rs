//! `judge` and `simulate` of the real binary, on files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use serde_json::{Value, json};

const JUDGE: [&str; 4] =
    ["judge", "pipelines/multi-region.yaml", "--fleet", "examples/envoy/fleet.yaml"];

struct Ended {
    code: Option<i32>,
    out: String,
    errors: String,
}

fn tidegate(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("TIDEGATE_STATE");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    Ended { code: output.status.code(), out: text(&output.stdout), errors }
}

fn judge(samples: &str, more: &[&str]) -> Ended {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, samples.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    tidegate(&[&JUDGE[..], &["--samples", path], more].concat())
}

/// Looks at stage 1 every 15 s; `bad` of the canary's 1,000 requests fail, as do 10 of stable's 19,000.
fn looks(count: u64, bad: u64) -> String {
    let mut lines = String::new();
    for look in 0..count {
        let measured = json!({
            "error_rate": {"counts": {
                "canary": {"bad": bad, "total": 1_000},
                "stable": {"bad": 10, "total": 19_000},
            }},
        });
        let line = json!({
            "at": 1_800_000_000_000_u64 + look * 15_000,
            "region": "us_east_1",
            "weight": 500,
            "window": 15_000,
            "measured": measured,
        });
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

#[test]
fn harm_in_a_file_is_found_with_its_rule_and_line() {
    let ended = judge(&looks(40, 200), &["-o", "json"]);
    assert_eq!(ended.code, Some(5), "{} {}", ended.out, ended.errors);
    let judged: Value = serde_json::from_str(&ended.out).unwrap();
    let looked = judged["looks"].as_array().unwrap();
    assert!((2..10).contains(&looked.len()), "it ends where a rollout would: {}", looked.len());
    let text = judged["verdict"]["breach"]["text"].as_str().unwrap();
    assert!(text.contains("pipelines/multi-region.yaml:") && text.contains("20.00 %"), "{text}");
}

#[test]
fn without_the_other_criteria_it_is_undecided_and_says_what_is_missing() {
    let ended = judge(&looks(40, 1), &[]);
    assert_eq!(ended.code, Some(8), "{} {}", ended.out, ended.errors);
    assert!(ended.out.contains("after 40 looks: undecided"), "{}", ended.out);
    assert!(ended.out.contains("user_satisfaction_score > 4.5"), "{}", ended.out);
}

#[test]
fn wrong_samples_are_refused_with_their_line() {
    let good = looks(2, 1);
    let wrong = [
        ("{\"at\": 1", "EOF"),
        ("{\"at\": 1800000000000, \"moon\": 3}", "moon"),
        ("{\"at\": 5}", "before the line above"),
        ("{\"at\": 1900000000000, \"region\": \"mars\"}", "no region mars"),
        ("{\"at\": 1900000000000, \"stage\": 7}", "no step 0 of stage 7"),
        (
            "{\"at\": 1900000000000, \"region\": \"us_east_1\", \"measured\": {\"error_rate\": {\"counts\": {\"canary\": \
             {\"bad\": 3, \"total\": 2}, \"stable\": {\"bad\": 0, \"total\": 2}}}}}",
            "more bad events than events",
        ),
    ];
    for (line, why) in wrong {
        let ended = judge(&format!("{good}{line}\n"), &[]);
        assert_eq!(ended.code, Some(2), "{line}: {}", ended.errors);
        assert!(ended.errors.contains(":3: ") && ended.errors.contains(why), "{}", ended.errors);
    }
    assert_eq!(judge("\n", &[]).code, Some(2));
}

#[test]
fn the_tables_of_the_statistics_come_from_one_command() {
    let arguments = ["simulate", "--statistics", "--rollouts", "10", "-o", "json"];
    let (one, two) = (tidegate(&arguments), tidegate(&arguments));
    assert_eq!(one.out, two.out, "the same seed draws the same");
    let rows: Vec<Value> = serde_json::from_str(&one.out).unwrap();
    assert!(rows.len() > 40, "{}", rows.len());
    // Each table has its own columns, the same in all of its rows.
    let mut columns: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for row in &rows {
        let rules: Vec<_> = row["cells"].as_array().unwrap().iter().map(|it| &it["rule"]).collect();
        let known = columns.entry(row["table"].to_string()).or_insert_with(|| rules.clone());
        assert!(rules.len() > 1 && *known == rules, "{row}");
    }
    assert!(columns.len() >= 7, "{:?}", columns.keys());
    let targets = rows.iter().flat_map(|row| row["targets"].as_array().unwrap());
    let ids: BTreeSet<_> = targets.map(|it| it["id"].to_string()).collect();
    assert!(ids.len() >= 9, "{ids:?}");
    assert!(one.errors.contains("seed"), "{}", one.errors);
}

#[test]
fn seeds_are_hunted_on_a_pipeline_of_ones_own() {
    let of = ["simulate", "--seeds", "0..60", "--pipeline", "pipelines/careful.yaml"];
    let ended =
        tidegate(&[&of[..], &["--fleet", "examples/envoy/fleet.yaml", "-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{} {}", ended.out, ended.errors);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&said["rollouts"], &said["broken"]), (&json!(60), &Value::Null));
    assert!(said["seen"]["event RollbackStarted"].as_u64().unwrap() > 5, "{}", said["seen"]);
    for wrong in ["7", "9..3", "a..b", "0..99999999999"] {
        assert_eq!(tidegate(&["simulate", "--seeds", wrong]).code, Some(2), "{wrong}");
    }
    assert_eq!(tidegate(&["simulate"]).code, Some(2));
}
