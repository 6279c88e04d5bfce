//! Why it stands where it stands, as data. Command line, API, log and dashboard render the same values.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Drift;
use crate::spec::plan::{CriterionId, Hook};
use crate::spec::windows::stamp;
use crate::units::{Millis, Reach, RegionName, StageName, Timestamp, Weight};

/// One thing that stands in the way of the next step, or what is going on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Load balancers have not been read since the controller started, or after a lost answer.
    NotRead {
        /// Where.
        region: RegionName,
        /// What is known.
        note: Option<String>,
    },
    /// The idle slot has traffic although nothing was rolled out.
    IdleSlotHasTraffic {
        /// Where.
        region: RegionName,
        /// How much.
        weight: Weight,
    },
    /// A slot that is to get traffic has no healthy backend.
    NoHealthyBackend {
        /// Where.
        region: RegionName,
    },
    /// The way back has no healthy backend.
    WayBackTooNarrow {
        /// Where.
        region: RegionName,
    },
    /// The weight is not read back yet.
    NotConfirmed {
        /// Where.
        region: RegionName,
        /// Wanted.
        desired: Reach,
        /// Read.
        observed: Option<Reach>,
        /// Why not, as the adapter says.
        note: Option<String>,
    },
    /// Tidegate may not raise weights here: somebody else has to.
    RaiseByHand {
        /// Where.
        region: RegionName,
        /// To what.
        desired: Reach,
    },
    /// Weights changed, and nobody here did it.
    Drifted {
        /// Where.
        region: RegionName,
        /// What it means.
        kind: Drift,
        /// Read.
        observed: Option<Reach>,
        /// Wanted.
        desired: Reach,
    },
    /// Somebody changes a region's weight again and again: two writers, and one of them has to stop.
    Contested {
        /// Where.
        region: RegionName,
        /// How often.
        edits: u32,
    },
    /// Somebody paused it.
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A stage waits for a person.
    Gate {
        /// Which.
        stage: StageName,
        /// What the pipeline says.
        gate: String,
    },
    /// Somebody asked for the way back, and others have to agree.
    RollbackAsked {
        /// Who.
        by: String,
        /// Who agreed so far, the one who asked included.
        given: u32,
        /// Needed.
        required: u32,
        /// Until it goes back without another answer, if it will.
        proceeds_in: Option<Millis>,
    },
    /// A stage waits for people's approval.
    ApprovalsNeeded {
        /// Which.
        stage: StageName,
        /// So far.
        given: u32,
        /// Needed.
        required: u32,
    },
    /// Weights may not rise at this time.
    Closed {
        /// What stands in the way.
        what: String,
        /// When that may be over.
        until: Option<Timestamp>,
    },
    /// The bake is not over.
    Baking {
        /// What is left.
        remaining: Millis,
    },
    /// A criterion is not proven.
    NotProven {
        /// Which.
        criterion: CriterionId,
        /// Why.
        why: String,
    },
    /// The stage as a whole is not proven.
    StageNotProven {
        /// Why.
        why: String,
    },
    /// The canary's data is missing.
    CanaryDark {
        /// Where and what.
        what: String,
        /// Until it rolls back, if it will.
        rollback_in: Option<Millis>,
    },
    /// Data of both arms is missing, or the source does not answer.
    SourceDark {
        /// Where and what.
        what: String,
        /// Until it rolls back, if it will.
        rollback_in: Option<Millis>,
    },
    /// There are signs that something is wrong, not proven.
    Held {
        /// What.
        what: String,
    },
    /// The region's own probes fail.
    RegionUnhealthy {
        /// Which.
        region: RegionName,
    },
    /// Fewer canary requests than needed.
    TooFewRequests {
        /// So far.
        requests: u64,
        /// Needed.
        requests_min: u64,
    },
    /// The longest time of the stage has passed without proof; a person has to decide.
    Undecided {
        /// Which.
        stage: StageName,
    },
    /// A criterion of an earlier stage has still to be proven.
    Owed {
        /// Which.
        criteria: Vec<CriterionId>,
    },
    /// A hook is under way.
    HookRuns {
        /// Where.
        region: RegionName,
        /// Which.
        hook: Hook,
    },
    /// A hook failed, or nobody knows how it ended.
    HookFailed {
        /// Where.
        region: RegionName,
        /// Which.
        hook: Hook,
        /// What it said.
        what: String,
    },
    /// Deciding failed again and again.
    Quarantined,
    /// Facts do not reach the disk.
    NotRecorded {
        /// Why.
        what: String,
    },
    /// Going back.
    RollingBack {
        /// Why.
        cause: String,
    },
    /// Tidegate only observes this service.
    ObserveOnly,
    /// It is over.
    Over,
}

impl Reason {
    /// Only a person can end this.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        match self {
            Self::Drifted { kind, .. } => *kind != Drift::Restart,
            Self::Quarantined
            | Self::Contested { .. }
            | Self::Paused { .. }
            | Self::Gate { .. }
            | Self::RollbackAsked { .. }
            | Self::ApprovalsNeeded { .. }
            | Self::Undecided { .. }
            | Self::RaiseByHand { .. }
            | Self::IdleSlotHasTraffic { .. } => true,
            _ => false,
        }
    }
}

/// One plain sentence.
impl fmt::Display for Reason {
    #[expect(clippy::too_many_lines, reason = "one arm per reason, nothing else")]
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRead { region, note } => {
                write!(out, "{region}: load balancer not read yet{}", noted(note.as_deref()))
            }
            Self::IdleSlotHasTraffic { region, weight } => {
                write!(
                    out,
                    "{region}: the idle slot has {weight} of the traffic although nothing is rolled out"
                )
            }
            Self::NoHealthyBackend { region } => {
                write!(out, "{region}: the canary's slot has no healthy backend")
            }
            Self::WayBackTooNarrow { region } => {
                write!(out, "{region}: way back too narrow, the stable slot has no healthy backend")
            }
            Self::NotConfirmed { region, desired, observed, note } => {
                let read = observed.map_or("nothing".to_owned(), |reach| reach.to_string());
                write!(
                    out,
                    "{region}: {desired} wanted, {read} read back{}",
                    noted(note.as_deref())
                )
            }
            Self::RaiseByHand { region, desired } => {
                write!(
                    out,
                    "{region}: authority is rollback_only, raise the canary to {desired} by hand"
                )
            }
            Self::Drifted { region, kind, observed, desired } => {
                let read = observed.map_or("?".to_owned(), |reach| reach.to_string());
                let what = match kind {
                    Drift::Restart => "the load balancer restarted and lost its weights",
                    Drift::TowardsCanary => {
                        "somebody raised the canary by hand; resume sets it back"
                    }
                    Drift::Ceiling => "somebody lowered the canary by hand; resume sets it back",
                    Drift::Newer => {
                        "a newer generation has been here: another controller, or this state is old"
                    }
                };
                write!(out, "{region}: {read} read, {desired} wanted: {what}")
            }
            Self::Contested { region, edits } => write!(
                out,
                "{region}: contested, somebody else has set this weight {edits} times; find out who before `resume`"
            ),
            Self::Paused { by, reason } => write!(out, "paused by {by}: {reason}"),
            Self::Gate { stage, gate } => write!(out, "stage {stage} waits for a person: {gate}"),
            Self::RollbackAsked { by, given, required, proceeds_in } => {
                let then = proceeds_in.map_or(String::new(), |left| {
                    format!("; goes back in {left} without another answer")
                });
                write!(
                    out,
                    "{by} asked to roll back, {given} of {required} people agree{then}; `tidegate approve`"
                )
            }
            Self::ApprovalsNeeded { stage, given, required } => {
                write!(out, "stage {stage} has {given} of {required} approvals; `tidegate approve`")
            }
            Self::Closed { what, until } => {
                let until = until.map_or(String::new(), |at| format!("; again at {}", stamp(at)));
                write!(out, "{what}{until}")
            }
            Self::Baking { remaining } => write!(out, "baking, {remaining} left"),
            Self::NotProven { criterion, why } => write!(out, "{criterion} is not proven: {why}"),
            Self::StageNotProven { why } => write!(out, "the stage is not proven: {why}"),
            Self::CanaryDark { what, rollback_in } => {
                write!(out, "no data of the canary: {what}{}", rolls_back(*rollback_in))
            }
            Self::SourceDark { what, rollback_in } => {
                write!(out, "no data: {what}{}", rolls_back(*rollback_in))
            }
            Self::Held { what } => write!(out, "holding: {what}"),
            Self::RegionUnhealthy { region } => write!(out, "{region}: its health probe fails"),
            Self::TooFewRequests { requests, requests_min } => {
                write!(out, "{requests} of at least {requests_min} canary requests seen")
            }
            Self::Undecided { stage } => {
                write!(
                    out,
                    "stage {stage} reached its longest time undecided; promote or roll back"
                )
            }
            Self::Owed { criteria } => {
                let names: Vec<_> = criteria.iter().map(ToString::to_string).collect();
                write!(out, "still to be proven before promotion: {}", names.join(", "))
            }
            Self::HookRuns { region, hook } => write!(out, "{region}: hook {hook} is under way"),
            Self::HookFailed { region, hook, what } => {
                write!(out, "{region}: hook {hook}: {what}")
            }
            Self::Quarantined => write!(
                out,
                "in quarantine, deciding failed again and again; release lets it go on, rollback takes it back"
            ),
            Self::NotRecorded { what } => {
                write!(out, "nothing is raised, because nothing can be recorded: {what}")
            }
            Self::RollingBack { cause } => write!(out, "rolling back: {cause}"),
            Self::ObserveOnly => {
                write!(out, "authority is observe: nothing is written to a load balancer")
            }
            Self::Over => write!(out, "it is over"),
        }
    }
}

fn noted(note: Option<&str>) -> String {
    note.map_or(String::new(), |note| format!(" ({note})"))
}

fn rolls_back(remaining: Option<Millis>) -> String {
    remaining.map_or(String::new(), |left| format!("; rolls back in {left} unless it returns"))
}

/// One plain sentence for a cause.
impl fmt::Display for super::event::Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breach(breach) => out.write_str(&breach.text),
            Self::NoData { region, analysis, why } => {
                let why = match why {
                    super::poll::MissingReason::NoSeries => "no series",
                    super::poll::MissingReason::Stale => "stale samples",
                    super::poll::MissingReason::NotANumber => "not a number",
                    super::poll::MissingReason::NoTraffic => "no traffic",
                };
                write!(
                    out,
                    "no data of the canary in {region} while stable has data: {analysis}, {why}"
                )
            }
            Self::SourceDark(what) => write!(out, "no data from the source: {what}"),
            Self::Asked { by, reason } => write!(out, "asked by {}: {reason}", by.name),
            Self::HandEdit { region } => write!(out, "{region}: the canary was set to 0 by hand"),
            Self::CanaryUnhealthy { region } => {
                write!(out, "{region}: no healthy backend is left in the canary's slot")
            }
        }
    }
}
