//! What is asked and answered.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::driver::controller::Known;
use crate::driver::view::View;
use crate::engine::rollout::Phase;
use crate::units::{RegionName, RolloutId, ServiceName, Version, Weight};

/// What can be asked of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// One step forward, or the gate opened.
    Promote,
    /// Nothing is raised until `resume`.
    Pause,
    /// On with it.
    Resume,
    /// Out of quarantine.
    Release,
    /// Back.
    Rollback,
    /// A vote.
    Approve,
}

impl Verb {
    /// The last part of its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Release => "release",
            Self::Rollback => "rollback",
            Self::Approve => "approve",
        }
    }
}

/// Why, for the audit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// One line.
    #[serde(default)]
    pub reason: String,
    /// For a vote: digest of the plan that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandAnswer {
    /// Something is different now.
    pub changed: bool,
    /// Why not, if not; or what it waits for.
    pub reason: Option<String>,
}

/// A rollout to begin: the owner's files as they are, and the version.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The service.
    #[schemars(with = "String")]
    pub service: ServiceName,
    /// The version to roll out.
    #[schemars(with = "String")]
    pub version: Version,
    /// The pipeline: the file's name and its text.
    pub pipeline: TextFile,
    /// The analyses beside it.
    pub analyses: Vec<TextFile>,
    /// Digest of the plan that was looked at: another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
}

/// Files to look at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The service.
    #[schemars(with = "String")]
    pub service: ServiceName,
    /// The pipeline: the file's name and its text.
    pub pipeline: TextFile,
    /// The analyses beside it.
    pub analyses: Vec<TextFile>,
}

/// A file that a user wrote.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Its name for messages.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// What files come to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CheckAnswer {
    /// They can be rolled out.
    pub valid: bool,
    /// Every problem, with place and help; empty when there is none.
    pub problems: String,
    /// Digest of the plan, where there is one.
    pub plan_digest: Option<String>,
}

/// What a rollout of files would do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PlanAnswer {
    /// Digest of the plan.
    pub plan_digest: String,
    /// Stages in order.
    pub stages: Vec<PlannedStage>,
    /// Rules that take it back.
    pub triggers: Vec<String>,
    /// People that a manual rollback asks for.
    pub rollback_approvers: u32,
}

/// One stage of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStage {
    /// Its name.
    pub name: String,
    /// Its regions.
    #[schemars(with = "Vec<String>")]
    pub regions: Vec<RegionName>,
    /// Canary weight at its end, in percent.
    pub weight_percent: f64,
    /// Share of the requests that the canary gets copies of, in percent.
    #[serde(default)]
    pub mirror_percent: f64,
    /// Bake of its last step, in seconds.
    pub duration_seconds: f64,
    /// What has to be proven.
    pub criteria: Vec<String>,
    /// People that have to approve it before.
    pub approvals: Option<u32>,
}

/// The answer to a start.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StartAnswer {
    /// Something is different now.
    pub changed: bool,
    /// The rollout; none where the version is stable already, or waits.
    #[schemars(with = "Option<String>")]
    pub rollout: Option<RolloutId>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub behind: Option<RolloutId>,
    /// What is taken back instead, because the version is the stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cancels: Option<RolloutId>,
}

/// A service to take over.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The version that runs now.
    #[schemars(with = "String")]
    pub version: Version,
    /// A split in progress is taken as it is.
    #[serde(default)]
    pub as_is: bool,
}

/// One person, alone, in an emergency.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassRequest {
    /// `pause`, `rollback` or `freeze`.
    pub action: String,
    /// Whose secret is used.
    #[schemars(with = "String")]
    pub region: RegionName,
    /// Why, for the review.
    pub reason: String,
    /// The secret. It is used up.
    pub secret: String,
}

/// A rollout and whether somebody drives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// Somebody does.
    pub running: bool,
    /// How it stands.
    #[serde(flatten)]
    pub view: View,
}

/// One service's newest rollout in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Which.
    #[schemars(with = "String")]
    pub rollout: RolloutId,
    /// The version that is rolled out.
    #[schemars(with = "String")]
    pub version: Version,
    /// Somebody drives it.
    pub running: bool,
    /// Where in its life it is.
    pub phase: String,
    /// Its stage.
    pub stage: String,
    /// Share of all users at the canary, 0 to 1.
    pub exposure: f64,
    /// Canary weight by region as read back, in percent; none while it is not known.
    #[schemars(with = "BTreeMap<String, Option<f64>>")]
    pub weights: BTreeMap<RegionName, Option<f64>>,
    /// Why it is not further.
    pub why: Vec<String>,
}

impl Row {
    /// The row of a view.
    #[must_use]
    pub fn of(running: bool, view: &View) -> Self {
        let rollout = &view.rollout;
        let weights = rollout
            .regions
            .iter()
            .map(|(name, region)| (name.clone(), region.observed.map(Weight::percent)));
        Self {
            rollout: rollout.id.clone(),
            version: rollout.version.clone(),
            running,
            phase: phase_name(rollout.phase).to_owned(),
            stage: rollout.stage().name.to_string(),
            exposure: view.exposure,
            weights: weights.collect(),
            why: view.why.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<Known> for Listed {
    fn from(Known { running, view }: Known) -> Self {
        Self { running, view: View::clone(&view) }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "Preparing",
        Phase::Gated => "Gated",
        Phase::Shifting => "Shifting",
        Phase::Baking => "Baking",
        Phase::Promoting => "Promoting",
        Phase::Promoted => "Promoted",
        Phase::Retired => "Retired",
        Phase::RollingBack => "RollingBack",
        Phase::RolledBack => "RolledBack",
    }
}

/// Some services' newest rollouts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// By service, in order.
    pub items: Vec<Row>,
    /// For the next page; none at the end.
    pub next: Option<String>,
}

/// Whether somebody may do something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CanAnswer {
    /// Who asks.
    pub name: String,
    /// They may.
    pub allowed: bool,
    /// Why not, if not.
    pub reason: Option<String>,
}

/// The fleet without its addresses and secrets.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FleetAnswer {
    /// By region: its share of all users, in percent.
    #[schemars(with = "BTreeMap<String, f64>")]
    pub regions: BTreeMap<RegionName, f64>,
    /// Services that may be seen.
    #[schemars(with = "BTreeMap<String, FleetService>")]
    pub services: BTreeMap<ServiceName, FleetService>,
}

/// One service of it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct FleetService {
    /// The team that owns it.
    pub owner: Option<String>,
    /// What Tidegate may do.
    pub authority: String,
    /// Where it runs.
    #[schemars(with = "Vec<String>")]
    pub regions: Vec<RegionName>,
    /// Why no version begins.
    pub frozen: Option<String>,
}
