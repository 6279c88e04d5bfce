//! What a job is told: outputs, annotations, a step summary. Nothing in them is taken for markup or for a command.

use std::fmt::Write as _;
use std::io::Write as _;

use super::super::exit::Exit;
use super::super::failure::Failure;
use super::super::output;
use super::named;
use crate::engine::rollout::Rollout;
use crate::engine::verdict::Outcome as Verdict;
use crate::engine::why::outcome_text;
use crate::spec::plan::Plan;
use crate::spec::{Diagnostic, Severity};

/// Most bytes of a summary; GitHub takes 1 MiB.
const SUMMARY_BYTES_MAX: usize = 512 * 1024;
/// Longest value of an output, in characters.
const VALUE_MAX: usize = 2_000;

/// How a step ended.
#[derive(Debug, Default)]
pub struct Outcome {
    state: String,
    rollout: String,
    proven: bool,
    cause: String,
    digest: String,
    next: String,
    verdict: String,
    /// Where the rollout can be asked for.
    pub url: String,
}

impl Outcome {
    /// Of a command that ended so.
    pub fn of(command: &str, ended: &Result<Exit, Failure>, state: Option<&Rollout>) -> Self {
        let name = match ended {
            Ok(Exit::Waiting) => "waiting",
            Ok(Exit::Undecided) => "undecided",
            Ok(Exit::TimedOut) => "timed_out",
            Err(_) => "failed",
            Ok(_) if command == "plan" => "checked",
            Ok(_) => state.map_or("checked", named),
        };
        let Some(rollout) = state else {
            return Self { state: name.to_owned(), ..Self::default() };
        };
        let service = &rollout.id.service;
        let next = match rollout.phase.is_over() {
            true => format!("tidegate history {service}"),
            false => format!("tidegate run --resume {service}"),
        };
        Self {
            state: name.to_owned(),
            rollout: rollout.id.to_string(),
            proven: named(rollout) == "promoted" && rollout.is_proven(),
            cause: rollout.cause.as_ref().map_or(String::new(), ToString::to_string),
            digest: rollout.plan.digest.clone(),
            next,
            verdict: rollout.judgement.as_ref().map_or("", |it| word(&it.stage)).to_owned(),
            url: String::new(),
        }
    }

    /// Of a check of files.
    pub fn checked(plan: Option<&Plan>) -> Self {
        let state = if plan.is_some() { "checked" } else { "failed" }.to_owned();
        let digest = plan.map_or(String::new(), |plan| plan.digest.clone());
        Self { state, digest, ..Self::default() }
    }
}

fn word(outcome: &Verdict) -> &'static str {
    match outcome {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Undecided(_) => "undecided",
    }
}

/// While it lives, the runner takes nothing on standard output for a command.
pub struct Guard(String);

impl Guard {
    /// From now on; an error without a source of chance.
    pub fn new() -> Result<Self, Failure> {
        let mut bytes = [0; 16];
        let read = std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
        read.map_err(|error| Failure::new(format!("no chance: {error}")))?;
        let token = format!("tidegate-{:032x}", u128::from_be_bytes(bytes));
        output::line(&format!("::stop-commands::{token}"));
        Ok(Self(token))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        output::line(&format!("::{}::", self.0));
    }
}

/// A problem at its line.
pub fn annotate(problem: &Diagnostic) {
    let kind = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let at = &problem.location;
    let (file, title) = (property(&at.file), property(problem.code));
    let text = data(&format!("{}; {}", problem.message, problem.help));
    output::line(&format!(
        "::{kind} file={file},line={},col={},title={title}::{text}",
        at.line, at.column
    ));
}

/// Writes outputs and summary where the runner wants them, and says why a rollout went back.
pub fn write(outcome: &Outcome, state: Option<&Rollout>) -> Result<(), Failure> {
    if outcome.state == "rolled_back" {
        output::line(&format!("::error title=rolled back::{}", data(&outcome.cause)));
    }
    let outputs = [
        ("state", outcome.state.clone()),
        ("rollout", outcome.rollout.clone()),
        ("proven", outcome.proven.to_string()),
        ("cause", outcome.cause.clone()),
        ("plan-digest", outcome.digest.clone()),
        ("next", outcome.next.clone()),
        ("verdict", outcome.verdict.clone()),
        ("url", outcome.url.clone()),
    ];
    let line = |(name, value): &(&str, String)| format!("{name}={}\n", single_line(value));
    append("GITHUB_OUTPUT", &outputs.iter().map(line).collect::<String>())?;
    let mut text = summary(outcome, state);
    if text.len() > SUMMARY_BYTES_MAX {
        let end = (0..=SUMMARY_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("\n\n(cut)\n");
    }
    append("GITHUB_STEP_SUMMARY", &text)
}

fn append(variable: &str, text: &str) -> Result<(), Failure> {
    let Some(path) = std::env::var_os(variable) else { return Ok(()) };
    let failed = |error: std::io::Error| Failure::new(format!("{variable}: {error}"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.map_err(failed)?.write_all(text.as_bytes()).map_err(failed)
}

fn summary(outcome: &Outcome, state: Option<&Rollout>) -> String {
    let mut text = format!("### Tidegate: {}\n\n", markdown(&outcome.state.replace('_', " ")));
    let Some(rollout) = state else { return text };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}: {} → {}\n",
        markdown(&rollout.id.to_string()),
        markdown(rollout.stable_version.as_str()),
        markdown(rollout.version.as_str())
    );
    if !outcome.cause.is_empty() {
        let _ = writeln!(text, "**Why it went back:** {}\n", markdown(&outcome.cause));
    }
    text.push_str("| stage | region | wanted | read back |\n|---|---|---|---|\n");
    for (name, region) in &rollout.regions {
        let read = region.seen().map_or("not read".to_owned(), |reach| reach.to_string());
        let stage = rollout.stage().name.to_string();
        let cells = [stage, name.to_string(), region.wanted().to_string(), read];
        let _ = writeln!(text, "| {} |", cells.map(|cell| markdown(&cell)).join(" | "));
    }
    let verdicts = rollout.judgement.iter().flat_map(|judgement| &judgement.verdicts);
    text.push_str("\n| rule | verdict | canary | stable |\n|---|---|---|---|\n");
    for verdict in verdicts {
        let count = |arm: Option<(f64, f64)>| {
            arm.map_or("-".to_owned(), |(bad, all)| format!("{bad:.0} of {all:.0}"))
        };
        let numbers = &verdict.numbers;
        let cells = [
            verdict.text.clone(),
            outcome_text(&verdict.outcome),
            count(numbers.canary),
            count(numbers.stable),
        ];
        let _ = writeln!(text, "| {} |", cells.map(|cell| markdown(&cell)).join(" | "));
    }
    let _ = writeln!(text, "\nNext: <code>{}</code>", markdown(&outcome.next));
    text
}

/// Text in a table's cell: nothing of it is markup.
fn markdown(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars().take(VALUE_MAX) {
        match character {
            '&' | '<' | '>' | '|' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '!' | '#' | '~'
            | '\\' | '@' => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "&#{};", u32::from(character));
            }
            character if character.is_control() => safe.push(' '),
            character => safe.push(character),
        }
    }
    safe
}

fn single_line(text: &str) -> String {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    text.chars().take(VALUE_MAX).map(plain).collect()
}

/// The text of a command to the runner.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A value before the text.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup_or_a_command() {
        let evil = "x</td><img src=a>|`rm`[a](b)\n::set-output name=a::b";
        let shown = markdown(evil);
        for part in ["<", ">", "|", "`", "[", "\n"] {
            assert!(!shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(single_line("a\nstate=promoted"), "a state=promoted");
        assert_eq!(data("100%\n::error::x"), "100%25%0A::error::x");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
    }
}
