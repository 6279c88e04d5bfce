//! Writing results: for people, or as JSON or YAML with `-o`.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::Failure;

/// The form of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Writes one result.
pub fn emit<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| Failure::new(error.to_string()))?
        }
        Format::Yaml => {
            serde_yaml::to_string(value).map_err(|error| Failure::new(error.to_string()))?
        }
    };
    line(text.trim_end());
    Ok(())
}

/// Writes one compact JSON object, for streams of them.
pub fn json_line<T: Serialize>(value: &T) {
    if let Ok(text) = serde_json::to_string(value) {
        line(&text);
    }
}

/// Writes a line to standard output. A reader that has gone away is no error.
pub fn line(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Writes a line to standard error.
pub fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Progress towards `length` on standard error; nothing without a terminal.
#[must_use]
pub fn bar(length: u64) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(length)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:40} {percent} %  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar
}

/// A style, unless there is no terminal or NO_COLOR is set (which the stream takes care of).
#[must_use]
pub fn styled(style: anstyle::Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Good news.
pub const GOOD: anstyle::Style = anstyle::AnsiColor::Green.on_default().bold();
/// Bad news.
pub const BAD: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
/// Things to note.
pub const WARN: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();
/// Side remarks.
pub const DIM: anstyle::Style = anstyle::Style::new().dimmed();
