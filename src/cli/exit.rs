//! Exit codes. Documented in the README; scripts rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or promoted, or nothing to do.
    Done,
    /// An error.
    Error,
    /// The command line or a file is wrong.
    Usage,
    /// Cannot connect, or not allowed.
    NotConnected,
    /// The state directory is in use.
    InUse,
    /// Rolled back.
    RolledBack,
    /// Waiting for an approval or a gate.
    Waiting,
    /// Timed out.
    TimedOut,
    /// Undecided at `max_duration`; the state is kept.
    Undecided,
    /// Ended by a signal; the weights stay.
    Signal(u8),
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotConnected => 3,
            Self::InUse => 4,
            Self::RolledBack => 5,
            Self::Waiting => 6,
            Self::TimedOut => 7,
            Self::Undecided => 8,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
