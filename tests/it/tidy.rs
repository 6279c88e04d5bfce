//! Holds the house in order: who may use whom, how large a file gets, how a log line reads.

mod lexer;
mod source;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use lexer::Token;
use source::Source;

/// The library's modules in reading order, and what of the library each may use.
///
/// An entry may be narrower than a module (`metrics::meter`). A module may always use itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("stats", &[]),
    ("spec", &["units"]),
    ("engine", &["spec", "stats", "units"]),
    ("sim", &["engine", "spec", "stats", "units"]),
    // Places where tests let the program fail; nothing without its feature.
    ("faults", &[]),
    // What others run or serve, asked within bounds.
    ("command", &["units"]),
    ("http", &["spec", "units"]),
    ("ports", &["engine", "spec", "units"]),
    // Measuring and probing are the driver's work; their own I/O stands behind a port.
    ("driver", &["ports", "engine", "spec", "units", "faults", "metrics::meter", "regions::probe"]),
    ("load_balancer", &["ports", "spec", "units", "command", "http"]),
    // What a poll measured is the engine's type: the judge says what it needs.
    ("metrics", &["ports", "engine::poll", "spec", "units", "command", "http"]),
    // A rollout of the simulator on numbers that were measured.
    ("replay", &["ports", "sim", "engine", "spec", "stats", "units", "metrics::meter"]),
    ("store", &["ports", "engine", "units", "faults"]),
    ("regions", &["ports", "spec", "units", "http"]),
    ("hooks", &["ports", "spec", "units", "command", "http"]),
    ("notify", &["ports", "spec", "units", "command", "http"]),
    ("access", &["ports", "engine", "spec", "units", "http"]),
    // Its tests make rollouts to show.
    ("server", &["access", "driver", "ports", "engine", "spec", "units", "http", "sim::sample"]),
    // A world to try things in; the command line drives it.
    ("demo", &["ports", "spec", "units"]),
    ("cli", &["*"]),
    // Everything that reads what others wrote.
    ("fuzzing", &["*"]),
];

/// Lines of a file of the library without its tests.
const LINES_MAX: usize = 600;

/// Crates under the library without its features.
const PURE_CRATES_MAX: usize = 60;

/// What the pure modules never bring along.
const NEVER_PURE: &[&str] = &["tokio", "hyper", "reqwest", "axum", "tonic", "sled"];

/// Words that may begin a message with a capital: names, and what is always written so.
const NAMES: &[&str] =
    &["Envoy", "Prometheus", "PromQL", "HAProxy", "Tidegate", "Traefik", "Caddy"];

#[test]
fn imports_follow_the_layers() {
    let mut wrong = Vec::new();
    for source in source::library() {
        let user = source.module();
        if user == "lib" || user == "main" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == user) else {
            wrong.push(format!("{}: module {user} has no row in the table", source.name));
            continue;
        };
        for (line, path) in source.uses() {
            let mut narrower = allowed.iter().copied().chain([user.as_str(), "*"]);
            let fits = |entry: &str| {
                (entry == "*" && allowed.contains(&"*"))
                    || path == entry
                    || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"))
            };
            if !narrower.any(fits) {
                wrong.push(format!("{}:{line}: {user} may not use {path}", source.name));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_tables_of_faults_and_of_abuse_name_tests_that_are_there() {
    for (page, title, column) in TABLES {
        let rows = names_tests(page, title, column);
        // Straight to the terminal: `cargo test` keeps what a passed test prints to itself.
        writeln!(std::io::stderr(), "{page}: {rows} rows, each with its tests").unwrap();
    }
}

/// Pages with a table, the heading before it, and which column names tests.
const TABLES: [(&str, &str, usize); 3] = [
    ("docs/robustness.md", "## Faults", 4),
    ("docs/access.md", "## Abuse", 4),
    ("docs/scenarios.md", "## Scenarios", 3),
];

/// How many rows the table has.
fn names_tests(page: &str, title: &str, column: usize) -> usize {
    let page = read(page);
    let table = page.split(title).nth(1).unwrap();
    let rows = table.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| row") && !line.starts_with("| handle")
    });
    let rows: Vec<_> = rows.collect();
    let tests: String = source::all().into_iter().map(|source| source.text).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let named: Vec<&str> =
            row.split('|').nth(column).unwrap().split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("no test is named: {row}"));
        }
        let missing = named.iter().filter(|name| !tests.contains(&format!("fn {name}(")));
        wrong.extend(missing.map(|name| format!("there is no test {name}")));
    }
    none(&wrong);
    rows.len()
}

#[test]
fn the_pure_modules_deny_clock_and_chance() {
    let text = read("src/lib.rs");
    let deny = "#[deny(clippy::disallowed_methods, clippy::disallowed_types)]\npub mod ";
    let missing: Vec<_> = ["engine", "sim", "spec", "stats", "units"]
        .into_iter()
        .filter(|module| !text.contains(&format!("{deny}{module};")))
        .map(|module| format!("src/lib.rs: {module} does not deny what clippy.toml bans"))
        .collect();
    none(&missing);
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    for source in source::all() {
        if source.name.starts_with("src/") && source.lines() > LINES_MAX {
            let lines = source.lines();
            wrong
                .push(format!("{}: {lines} lines without tests, at most {LINES_MAX}", source.name));
        }
        if !source.text.starts_with("//!") {
            wrong.push(format!("{}: does not begin by saying what it is (//!)", source.name));
        }
    }
    none(&wrong);
}

#[test]
fn nothing_is_silenced_or_left_undone() {
    let mut wrong = Vec::new();
    for source in source::all() {
        for window in source.tokens.windows(3) {
            let [before, word, after] = window else { continue };
            let is = |sign| after.is_sign(sign);
            let found = match word.word() {
                Some("allow") if (before.is_sign('[') || before.is_sign(',')) && is('(') => {
                    "allow, use expect with a reason"
                }
                Some("todo" | "unimplemented" | "dbg") if is('!') => "a macro for unfinished work",
                _ => continue,
            };
            wrong.push(format!("{}:{}: {found}", source.name, word.line()));
        }
    }
    none(&wrong);
}

#[test]
fn messages_begin_in_lower_case() {
    let mut wrong = Vec::new();
    for source in source::library() {
        for (line, message) in source.messages() {
            let first = message.split([' ', ':', ',']).next().unwrap_or_default();
            let mut letters = first.chars();
            let capital = letters.next().is_some_and(char::is_uppercase)
                && letters.all(|letter| !letter.is_uppercase());
            if capital && !NAMES.contains(&first) {
                wrong.push(format!("{}:{line}: `{message}`", source.name));
            }
        }
    }
    none(&wrong);
}

/// A path of somebody's machine works for nobody else.
#[test]
fn no_file_names_a_home() {
    let homes = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for (name, text) in source::texts() {
        for (line, text) in text.lines().enumerate() {
            if homes.iter().any(|home| text.contains(home.as_str())) {
                wrong.push(format!("{name}:{}: {}", line + 1, text.trim()));
            }
        }
    }
    none(&wrong);
}

/// The statistics and the engine serve as a small library.
#[test]
fn the_pure_library_is_small() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--no-default-features", "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}", "--target", "all"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut crates: Vec<_> = listed
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect();
    crates.sort_unstable();
    crates.dedup();
    assert!(crates.iter().any(|(name, _)| *name == "statrs"), "not a tree: {listed}");
    assert!(crates.len() <= PURE_CRATES_MAX, "{} crates: {crates:?}", crates.len());
    let wrong: Vec<_> = crates.iter().filter(|(name, _)| NEVER_PURE.contains(name)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The checks above see what they look for.
#[test]
fn the_checks_see_what_they_look_for() {
    let text = r##"//! A file.
use crate::units::{Weight, Millis};
use crate::{engine::{decide, poll as p}, stats};
use super::super::store::Store; // use crate::comment::Out;
fn f<'a>(x: &'a str) -> char { let _ = "crate::text::X"; let _ = r#"a " crate::raw"#; '"' }
fn g() { info!(key = 1, "Looks wrong"); bail(crate::demo::SERVICE); }
#[error("Wrong too")]
pub(crate) struct X;
#[cfg(test)]
mod tests {
    use crate::cli::Args;
}
"##;
    let source = Source::new("src/metrics/prometheus.rs", text);
    let uses: Vec<_> = source.uses().into_iter().map(|(_, path)| path).collect();
    let expected = [
        "units::Weight",
        "units::Millis",
        "engine::decide",
        "engine::poll",
        "stats",
        "store::Store",
        "demo::SERVICE",
    ];
    assert_eq!(uses, expected);
    assert_eq!(source.module(), "metrics");
    assert_eq!(source.lines(), 8);
    let messages: Vec<_> = source.messages().into_iter().map(|(_, message)| message).collect();
    assert_eq!(messages, ["Looks wrong", "Wrong too"]);
    let tokens = lexer::tokens("a /* b /* c */ d */ 'e' b\"f\" r#type 'g: loop");
    let words: Vec<_> = tokens.iter().filter_map(Token::word).collect();
    assert_eq!(words, ["a", "type", "loop"]);
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} to mend:\n{}", wrong.len(), wrong.join("\n"));
}

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}
