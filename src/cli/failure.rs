//! What a command that failed says: one line of what, one of what to do, and an exit code.

use super::exit::Exit;
use crate::{driver, store};

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// What went wrong; a lower-case fragment.
    pub what: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Failure {
    /// An error without a special exit code.
    pub fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Error, what: what.into(), help: None }
    }

    /// With another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// An error and its sources in one line, each said once.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let failure = Self::new(error.chain());
        match &error {
            store::Error::InUse { .. } => failure
                .exit(Exit::InUse)
                .help("a rollout is running there: use `tidegate status`, or end that process"),
            store::Error::Journal { .. } | store::Error::JournalBehind { .. } => failure.help(
                "`tidegate restore` puts a backup into an empty directory; until then `tidegate rollback --offline` takes \
                 a canary out without it",
            ),
            _ => failure,
        }
    }
}

impl From<driver::Error> for Failure {
    fn from(error: driver::Error) -> Self {
        let failure = Self::new(chain(&error));
        match &error {
            driver::Error::NotAdopted(service) => failure.help(format!(
                "`tidegate adopt {service} --version <what runs now>` reads the weights and records it"
            )),
            driver::Error::RegionNotAdopted { service, .. } => {
                failure.help(format!("adopt it again: `tidegate adopt {service} --version <what runs now>`"))
            }
            driver::Error::Open(id) => failure.help(format!(
                "`tidegate run --resume {}` goes on with it; `tidegate rollback` ends it",
                id.service
            )),
            driver::Error::NotRecorded(_) => failure.help(
                "the weights are as they were set last; `tidegate run --resume` takes them over once the state can be written",
            ),
            driver::Error::SplitInProgress { .. } => {
                failure.help("finish that first, or give --as-is to take the larger slot as stable")
            }
            _ => failure,
        }
    }
}

impl From<crate::ports::JournalError> for Failure {
    fn from(error: crate::ports::JournalError) -> Self {
        Self::new(chain(&error))
    }
}
