//! What is wrong with a file that a user wrote: where, what, and what helps.

use std::fmt;

use serde::Serialize;

use super::plan::Location;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing starts with it.
    Error,
    /// It can run, but not as its author may believe.
    Warning,
    /// Good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnostic {
    /// Stable name, one of [`super::codes::ALL`].
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: a lower-case fragment without secrets, safe to show.
    pub message: String,
    /// What helps; may be empty.
    pub help: String,
    /// Where it starts.
    pub location: Location,
    /// How many characters to underline, at least 1.
    pub length: u32,
}

/// `file:line:column: error[code]: message`, and the help on a second line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, severity, message, help, location, .. } = self;
        write!(formatter, "{location}: {severity}[{code}]: {message}")?;
        if help.is_empty() { Ok(()) } else { write!(formatter, "\n  help: {help}") }
    }
}

/// All problems found in one run, sorted by file and position.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Most problems that are kept; a file with more is not read by anybody.
    pub const MAX: usize = 500;

    /// Adds one, unless the same was said of the same place before.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.0.len() >= Self::MAX && diagnostic.severity != Severity::Error {
            return;
        }
        if self.0.len() < 2 * Self::MAX && !self.0.contains(&diagnostic) {
            let key = |d: &Diagnostic| {
                (d.location.file.clone(), d.location.line, d.location.column, d.severity)
            };
            let at = self.0.partition_point(|other| key(other) <= key(&diagnostic));
            self.0.insert(at, diagnostic);
        }
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        others.0.into_iter().for_each(|other| self.push(other));
    }

    /// Whether nothing may start.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All, sorted by file and position.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    /// All, sorted by file and position.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many of one severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|diagnostic| writeln!(formatter, "{diagnostic}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, column: u32) -> Diagnostic {
        Diagnostic {
            code: super::super::codes::UNKNOWN_KEY,
            severity: Severity::Error,
            message: "unknown key `x`".to_owned(),
            help: "did you mean `y`?".to_owned(),
            location: Location { file: "a.yaml".to_owned(), line, column },
            length: 1,
        }
    }

    #[test]
    fn problems_are_sorted_and_said_once() {
        let mut all = Diagnostics::default();
        for (line, column) in [(3, 1), (1, 9), (1, 2), (3, 1)] {
            all.push(at(line, column));
        }
        let lines: Vec<_> = all.iter().map(|d| (d.location.line, d.location.column)).collect();
        assert_eq!(lines, [(1, 2), (1, 9), (3, 1)]);
    }

    #[test]
    fn a_problem_is_one_line_and_its_help() {
        let text =
            "a.yaml:1:2: error[file::unknown_key]: unknown key `x`\n  help: did you mean `y`?";
        assert_eq!(at(1, 2).to_string(), text);
    }
}
