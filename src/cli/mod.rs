//! The command line: one file per command.

/// Name of the user who runs this.
#[must_use]
pub fn user() -> String {
    "me".into()
}
