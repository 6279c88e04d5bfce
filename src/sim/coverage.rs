//! How often everything happened that a simulation can do.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Everything that a run over all seeds has to have seen.
pub const EXPECTED: &[(&str, &[&str])] = &[
    (
        "answer",
        &["Accepted", "NotCounted", "NothingToDo", "Refused", "Waiting", "not sent", "unknown"],
    ),
    ("cause", &["Asked", "Breach", "CanaryUnhealthy", "HandEdit", "NoData", "SourceDark"]),
    (
        "command",
        &["Approve", "AskRollback", "Pause", "Promote", "PromoteApproved", "Resume", "Rollback"],
    ),
    ("crash", &["AfterAnswer", "AfterRecord", "AfterSend", "BeforeRecord", "Recovering"]),
    ("drift", &["Ceiling", "Newer", "Restart", "TowardsCanary"]),
    ("end", &["Promoted", "RolledBack"]),
    (
        "event",
        &[
            "ApprovalTimedOut",
            "Approved",
            "BackendsSeen",
            "DataOverdue",
            "DebtPaid",
            "DriftFound",
            "EffectUnknown",
            "GateOpened",
            "GateReached",
            "HookEnded",
            "HookStarted",
            "Judged",
            "Paused",
            "Polled",
            "Prepared",
            "Promoted",
            "PromotionStarted",
            "Recovered",
            "RegionHealth",
            "RegionRead",
            "Resumed",
            "RollbackAsked",
            "RollbackOverdue",
            "RollbackStarted",
            "RolledBack",
            "ShiftOverdue",
            "StageNotProven",
            "StagePassed",
            "StageUndecided",
            "StepEntered",
        ],
    ),
    (
        "fault",
        &[
            "AllDead",
            "AnswerLate",
            "AnswerLost",
            "Approve",
            "AskRollback",
            "BlackHole",
            "CanaryDead",
            "ClockBack",
            "ClockForward",
            "Crash",
            "Edit",
            "Lags",
            "Lie",
            "Newer",
            "NotSent",
            "Pause",
            "PauseAndPromote",
            "Promote",
            "PromoteApproved",
            "Restart",
            "Resume",
            "Rollback",
            "RollbackAndPromote",
            "StaleLook",
            "StaleRead",
            "Unhealthy",
            "WriteLate",
        ],
    ),
    ("hook", &["Done", "Failed", "Unknown"]),
    ("late", &["answer"]),
    (
        "reason",
        &[
            "ApprovalsNeeded",
            "Baking",
            "CanaryDark",
            "Drifted",
            "Gate",
            "Held",
            "HookFailed",
            "HookRuns",
            "IdleSlotHasTraffic",
            "NoHealthyBackend",
            "NotConfirmed",
            "NotProven",
            "NotRead",
            "ObserveOnly",
            "Over",
            "Owed",
            "Paused",
            "RaiseByHand",
            "RegionUnhealthy",
            "RollbackAsked",
            "RollingBack",
            "SourceDark",
            "StageNotProven",
            "TooFewRequests",
            "Undecided",
            "WayBackTooNarrow",
        ],
    ),
    ("struck", &["AnswerLate", "AnswerLost", "Lie", "NotSent", "WriteLate"]),
    (
        "truth",
        &[
            "Bad",
            "CanaryDark",
            "Flapping",
            "Good",
            "HeldFail",
            "NeedsMore",
            "NoTraffic",
            "SignsOfHarm",
            "Slow",
            "SourceDark",
            "Undecided",
        ],
    ),
    ("waits", &["Baking", "Gated", "Preparing", "Promoting", "Shifting"]),
];

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// One more of `kind` with the name of the enum's variant.
    pub fn see(&mut self, kind: &str, value: &impl fmt::Debug) {
        let name = format!("{kind} {}", variant(value));
        *self.0.entry(name).or_default() += 1;
    }

    /// One more of `name`.
    pub fn count(&mut self, name: &str) {
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    /// How often `name` happened.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// What a run over many variations of the sample should have seen, and did not.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        let all = EXPECTED.iter().flat_map(|(kind, names)| names.iter().map(move |it| (kind, it)));
        let names = all.map(|(kind, name)| format!("{kind} {name}"));
        names.filter(|name| self.of(name) == 0).collect()
    }

    /// Every count by its name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Adds all counts of another one.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, count)| writeln!(formatter, "{count:>9}  {name}"))
    }
}

/// The name of an enum's variant, read from its debug text without writing all of it.
pub(crate) fn variant(value: &impl fmt::Debug) -> String {
    struct Head(String);
    impl Write for Head {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            self.0.push_str(name);
            if name.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut head = Head(String::new());
    // An error only says that the name has ended.
    let _ = write!(head, "{value:?}");
    head.0
}
