//! Facts: what happened, in the past tense. The journal holds these and nothing else; they are never re-decided.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hooks::Standing;
use super::poll::{MissingReason, Poll};
use super::verdict::{Breach, Judgement};
use crate::spec::plan::{CriterionId, Hook, Plan};
use crate::units::{
    Generation, Millis, RegionName, RolloutId, ServiceName, SlotName, Timestamp, Version, Weight,
};

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// When it was decided.
    pub at: Timestamp,
    /// The service concerned.
    pub service: ServiceName,
    /// The rollout concerned; none for facts about the service itself.
    pub rollout: Option<RolloutId>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A service was taken over as it stands.
    Adopted(Adopted),
    /// A rollout began; nothing has been written to a load balancer.
    Started(Box<Started>),
    /// The idle slot was read back without traffic in every region.
    Prepared,
    /// A stage waits for a person.
    GateReached {
        /// Index of the stage.
        stage: usize,
        /// What the pipeline says of the gate.
        gate: String,
    },
    /// A person let a stage begin.
    GateOpened {
        /// Index of the stage.
        stage: usize,
        /// Who.
        by: Actor,
    },
    /// New weights are wanted: the intent behind every raise.
    StepEntered {
        /// Index of the stage.
        stage: usize,
        /// Index of the step within it.
        step: usize,
        /// The generation of these weights.
        generation: Generation,
        /// Canary weight of every region of the plan.
        weights: BTreeMap<RegionName, Weight>,
        /// Share of the requests that the canary gets copies of, of every region that mirrors.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        mirrors: BTreeMap<RegionName, Weight>,
        /// Who let it begin, if it was not the evidence.
        by: Option<Actor>,
    },
    /// A region's weights were read, and they differ from what was known.
    RegionRead {
        /// Which.
        region: RegionName,
        /// Canary's weight.
        weight: Weight,
        /// Share of the requests that it gets copies of.
        #[serde(default, skip_serializing_if = "Weight::is_unset")]
        mirror: Weight,
        /// It is the wanted weight of this generation, on every instance.
        confirmed: Option<Generation>,
        /// The generation that all its targets store.
        stored: Option<Generation>,
        /// The balancer's mark of its own start.
        restart_marker: Option<String>,
        /// Why it is not settled, for people.
        note: Option<String>,
    },
    /// A region's backends changed.
    BackendsSeen {
        /// Which.
        region: RegionName,
        /// Its backends.
        backends: ArmBackends,
    },
    /// A call ended without an answer: it may have taken effect.
    EffectUnknown {
        /// Where.
        region: RegionName,
        /// The generation that was being set.
        generation: Generation,
        /// What is known.
        what: String,
    },
    /// Weights that were confirmed are no longer what they were.
    DriftFound {
        /// Where.
        region: RegionName,
        /// What they are.
        observed: Weight,
        /// Share of the requests that is copied there.
        #[serde(default, skip_serializing_if = "Weight::is_unset")]
        mirror: Weight,
        /// What they should be.
        desired: Weight,
        /// What it means.
        kind: Drift,
        /// The newer generation that was found there, if that is what it means.
        newer: Option<Generation>,
    },
    /// Every wait has a limit: weights are not confirmed for too long.
    ShiftOverdue {
        /// Regions that are not confirmed.
        regions: Vec<RegionName>,
    },
    /// A look at the metrics: the evidence behind the verdicts.
    Looked(Box<Poll>),
    /// The clocks after a poll.
    Polled {
        /// Their new readings.
        clocks: Clocks,
    },
    /// The health of a region changed.
    RegionHealth {
        /// Which.
        region: RegionName,
        /// Its probes succeed.
        healthy: bool,
    },
    /// A verdict, a hold or the state of the data changed.
    Judged(Box<Judgement>),
    /// Every criterion of a stage was proven at its confirmed weights.
    StagePassed {
        /// Index of the stage.
        stage: usize,
        /// The whole verdict.
        judgement: Box<Judgement>,
    },
    /// A stage reached its longest time undecided.
    StageUndecided {
        /// Index of the stage.
        stage: usize,
        /// The whole verdict.
        judgement: Box<Judgement>,
    },
    /// A stage was left without proof, by policy or by a person.
    StageNotProven {
        /// Index of the stage.
        stage: usize,
        /// Criteria that have still to be proven before promotion.
        owed: Vec<CriterionId>,
        /// Criteria that were let through.
        skipped: Vec<CriterionId>,
        /// The person, if it was not the policy.
        by: Option<Actor>,
    },
    /// A criterion that was owed is proven.
    DebtPaid {
        /// Which.
        criteria: Vec<CriterionId>,
    },
    /// Data was missing for so long that a person should look.
    DataOverdue {
        /// What is missing.
        what: String,
    },
    /// Nothing is raised until `resume`.
    Paused {
        /// Who, or `tidegate`.
        by: Actor,
        /// Why.
        reason: String,
    },
    /// Goes on, after a fresh read-back.
    Resumed {
        /// Who.
        by: Actor,
        /// The generation under which weights are confirmed anew.
        generation: Generation,
    },
    /// Back: the intent behind lowering canary to nothing in every region.
    RollbackStarted {
        /// Why.
        cause: Cause,
        /// The generation of the zero weights.
        generation: Generation,
        /// The verdict that led to it, if one did.
        judgement: Option<Box<Judgement>>,
    },
    /// Every region was read back at 0.
    RolledBack,
    /// Every stage is done; the weights are confirmed once more before roles change.
    PromotionStarted {
        /// The generation of the final weights.
        generation: Generation,
    },
    /// The canary's slot took the role stable.
    Promoted {
        /// Every criterion was proven; none was let through.
        proven: bool,
    },
    /// The previous slot is no longer kept.
    Retired,
    /// The controller started again and knows nothing of the load balancers yet.
    Recovered,
    /// Another version is to begin when this rollout is over; it takes the place of one that waited before.
    Queued(Box<Queued>),
    /// The version that waited does not begin after all.
    Unqueued {
        /// Why.
        reason: String,
    },
    /// A hook is to be run: the intent behind it.
    HookStarted {
        /// Where.
        region: RegionName,
        /// Which.
        hook: Hook,
        /// Part of its key.
        generation: Generation,
    },
    /// A hook has ended, or nobody knows how.
    HookEnded {
        /// Where.
        region: RegionName,
        /// Which.
        hook: Hook,
        /// Part of its key.
        generation: Generation,
        /// How.
        standing: Standing,
    },
    /// Deciding failed again and again: it stays as it is until a person takes it back or lets it go on.
    Quarantined {
        /// How often, one soon after the other.
        panics: u32,
    },
    /// It may go on.
    Released {
        /// Who.
        by: Actor,
    },
    /// A person asked for the way back where the pipeline wants more than one; it stands still from here on.
    RollbackAsked {
        /// Who; counts as one.
        by: Actor,
        /// Why.
        reason: String,
    },
    /// A person approved what waits for approval.
    Approved {
        /// What.
        matter: Matter,
        /// Who.
        by: Actor,
        /// At which weights.
        generation: Generation,
        /// Digest of the plan that was approved.
        digest: String,
    },
    /// Approvals that no longer count.
    ApprovalsDropped {
        /// What they were for.
        matter: Matter,
        /// Whose.
        names: Vec<String>,
    },
    /// Nobody else answered a request to roll back in half of its time.
    ApprovalTimedOut {
        /// It goes back all the same.
        proceeds: bool,
    },
    /// The person who asked for the way back takes that back.
    RollbackWithdrawn {
        /// Who.
        by: Actor,
    },
    /// A rollback that a person asked for takes longer than the pipeline allows.
    RollbackOverdue {
        /// Since it was asked for.
        after: Millis,
    },
    /// One person acted alone, with a secret kept for emergencies; somebody else has to look at it later.
    GlassBroken {
        /// Who.
        by: Actor,
        /// Whose secret.
        region: RegionName,
        /// What was done.
        action: Emergency,
        /// Why.
        reason: String,
    },
    /// Somebody else looked at what was done in an emergency.
    Reviewed {
        /// Who.
        by: Actor,
        /// What they say.
        note: String,
    },
    /// No version of this service is raised, and none begins.
    Frozen {
        /// Who.
        by: Actor,
        /// Why.
        reason: String,
    },
    /// Versions may begin again.
    Thawed {
        /// Who.
        by: Actor,
    },
}

/// What is approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matter {
    /// The way back.
    Rollback,
    /// That a stage begins; its index.
    Stage(usize),
}

impl std::fmt::Display for Emergency {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::Pause => "pause",
            Self::Rollback => "rollback",
            Self::Freeze => "freeze",
        })
    }
}

/// What one person may do alone in an emergency: never a step forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emergency {
    /// Nothing is raised.
    Pause,
    /// Back.
    Rollback,
    /// Nothing is raised, and nothing begins.
    Freeze,
}

/// A service as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adopted {
    /// The version that runs in the stable slots.
    pub version: Version,
    /// By region.
    pub regions: BTreeMap<RegionName, AdoptedRegion>,
    /// The generation to go on from, where a load balancer was found at one that the service did not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Who.
    pub by: Actor,
}

/// A region of a service as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdoptedRegion {
    /// The slot with most of the traffic.
    pub stable: SlotName,
    /// The other one.
    pub idle: SlotName,
    /// Traffic that the idle slot had.
    pub idle_weight: Weight,
}

/// How a rollout began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The version that is rolled out.
    pub version: Version,
    /// The version that runs.
    pub stable_version: Version,
    /// Its generation, newer than any that the service had.
    pub generation: Generation,
    /// The frozen plan.
    pub plan: Plan,
    /// Which slot plays which role.
    pub slots: BTreeMap<RegionName, ArmSlots>,
    /// Who.
    pub by: Actor,
}

/// A version that waits for another one's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// Which.
    pub version: Version,
    /// The frozen plan.
    pub plan: Plan,
    /// Who.
    pub by: Actor,
}

/// Which slot plays which role in a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmSlots {
    /// Canary's.
    pub canary: SlotName,
    /// Stable's.
    pub stable: SlotName,
}

/// A person, or Tidegate itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Login name, or `tidegate`.
    pub name: String,
    /// What the audit should know: `approval not enforced: local run`.
    pub note: Option<String>,
}

impl Actor {
    /// Tidegate itself.
    #[must_use]
    pub fn tidegate() -> Self {
        Self { name: "tidegate".to_owned(), note: None }
    }
}

/// Backends of both arms in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmBackends {
    /// Healthy ones of the canary.
    pub canary_healthy: u32,
    /// All of the canary.
    pub canary_total: u32,
    /// Healthy ones of stable.
    pub stable_healthy: u32,
    /// All of stable.
    pub stable_total: u32,
}

/// What a changed weight means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// The balancer restarted and lost the weights: they are set again.
    Restart,
    /// Somebody raised the canary: hold for a person.
    TowardsCanary,
    /// Somebody lowered the canary: adopted as the region's ceiling until `resume`.
    Ceiling,
    /// A newer generation has been here: another controller, or this state is an old copy.
    Newer,
}

/// Time that counts, in this stage. It grows by at most one poll interval per poll, so no clock jump can add to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// With confirmed weights, data and healthy regions, in this step.
    pub bake: Millis,
    /// At this step's confirmed weights, in all.
    pub elapsed: Millis,
    /// Without data of the canary alone, in a row.
    pub canary_dark: Millis,
    /// Without data of both arms or of the source, in a row.
    pub source_dark: Millis,
    /// When it was last looked; none after a restart.
    pub polled_at: Option<Timestamp>,
}

impl Cause {
    /// Its kind, as one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Breach(_) => "breach",
            Self::NoData { .. } => "no_data",
            Self::SourceDark(_) => "source_dark",
            Self::Asked { .. } => "asked",
            Self::HandEdit { .. } => "hand_edit",
            Self::CanaryUnhealthy { .. } => "canary_unhealthy",
        }
    }
}

/// Why it went back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A trigger, a violated criterion or the combined evidence.
    Breach(Breach),
    /// The canary's data stayed away while stable had data.
    NoData {
        /// Where.
        region: RegionName,
        /// Which analysis.
        analysis: String,
        /// How it is missing.
        why: MissingReason,
    },
    /// The source stayed away, and the pipeline says to go back then.
    SourceDark(String),
    /// A person asked.
    Asked {
        /// Who.
        by: Actor,
        /// Why.
        reason: String,
    },
    /// Somebody set the weight to 0 by hand.
    HandEdit {
        /// Where.
        region: RegionName,
    },
    /// No healthy backend is left in the canary's slot.
    CanaryUnhealthy {
        /// Where.
        region: RegionName,
    },
}
