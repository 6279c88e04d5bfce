//! The frozen plan of a rollout: what a pipeline, its analyses and the fleet come to once they are checked.
//!
//! A plan is self-contained (it is journaled with the rollout) and holds nothing secret: no URL, no credential, no
//! command. Those stay in the [fleet](super::fleet).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::windows::{Calendar, Freeze, Window};
use crate::units::{
    AnalysisName, Millis, PipelineName, Reach, RegionName, ServiceName, StageName, Weight,
};

/// Everything a rollout needs to know, frozen when it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the pipeline (its file's stem unless it names itself).
    pub pipeline: PipelineName,
    /// The service it was planned for.
    pub service: ServiceName,
    /// SHA-256 over the plan without this field, in hex.
    pub digest: String,
    /// Stages in order; at least one.
    pub stages: Vec<Stage>,
    /// What rolls back when proven, at every stage.
    pub triggers: Vec<Criterion>,
    /// Every analysis that a criterion or trigger names.
    pub analyses: BTreeMap<AnalysisName, Analysis>,
    /// Every region that a stage names.
    pub regions: BTreeMap<RegionName, RegionPlan>,
    /// What to do when it is not simply going well.
    pub policy: Policy,
    /// Who may roll back by hand.
    pub manual_rollback: ManualRollback,
    /// What Tidegate may do to this service's load balancers.
    pub authority: Authority,
    /// Hooks that the fleet has for the service; what they run stands there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hooks: BTreeSet<Hook>,
    /// Users stay on one arm, and one of them sends at most so many requests; none where each request is drawn anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_user: Option<u32>,
}

impl Plan {
    /// Users that reach the canary while `weights` hold, 0 to 1 over all regions of the fleet.
    #[must_use]
    pub fn exposure(&self, weights: &BTreeMap<RegionName, Weight>) -> f64 {
        let part = |(name, weight): (&RegionName, &Weight)| {
            self.regions.get(name).map_or(0.0, |region| region.share.fraction() * weight.fraction())
        };
        weights.iter().map(part).sum()
    }

    /// Cohorts of a region among those that the plan names.
    pub fn cohorts_of<'a>(
        &'a self,
        region: &'a RegionName,
    ) -> impl Iterator<Item = &'a RegionName> {
        let own = |(_, it): &(_, &RegionPlan)| it.cohort_of.as_ref() == Some(region);
        self.regions.iter().filter(own).map(|(name, _)| name)
    }

    /// Whether a hook is run in this region. A cohort has its region's slots: what is done to a slot is done once, in the
    /// region. Only its weights are its own.
    #[must_use]
    pub fn runs(&self, hook: Hook, region: &RegionName) -> bool {
        hook == Hook::Persist || !self.is_cohort(region)
    }

    /// Whether this is a slice of another region of the plan.
    #[must_use]
    pub fn is_cohort(&self, region: &RegionName) -> bool {
        let whole = self.regions.get(region).and_then(|it| it.cohort_of.as_ref());
        whole.is_some_and(|whole| self.regions.contains_key(whole))
    }

    /// Requests that share their luck at least: those of one user, where users stay on an arm; 1 or more.
    #[must_use]
    pub fn clumps_min(&self) -> f64 {
        self.requests_per_user.map_or(1.0, f64::from)
    }

    /// Every criterion and trigger, in the order of stages, triggers last.
    pub fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        self.stages.iter().flat_map(|stage| &stage.criteria).chain(&self.triggers)
    }
}

/// What the operator's own programs do around a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// Puts the new version into the idle slot, before the first stage.
    Deploy,
    /// Makes the final weights outlive the load balancer's own restart, before the promotion.
    Persist,
    /// Whatever has to happen with a promotion, right before it.
    Promote,
    /// Takes the previous version out, some time after the promotion.
    Retire,
}

impl Hook {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 4] = [
        ("deploy", Self::Deploy),
        ("persist", Self::Persist),
        ("promote", Self::Promote),
        ("retire", Self::Retire),
    ];
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, hook)| hook == self).map_or("", |(name, _)| name);
        formatter.write_str(name)
    }
}

/// What the plan needs to know of a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionPlan {
    /// Share of all users.
    pub share: Weight,
    /// How often it is looked at.
    pub poll: Millis,
    /// Time after a confirmed weight before its samples count; default one scrape interval.
    pub settle: Millis,
    /// The region whose slots it shares, where it is a slice of that region's traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort_of: Option<RegionName>,
}

/// One regional stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Where the pipeline says it.
    pub at: Location,
    /// Regions it names, in order.
    pub regions: Vec<RegionName>,
    /// Canary weight within each named region at the end of the stage.
    pub weight: Weight,
    /// Share of the requests there that the canary gets copies of, before it gets any weight.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    pub mirror: Weight,
    /// What must be proven; may be empty.
    pub criteria: Vec<Criterion>,
    /// The steps to get there; the last one holds `weight` in every region of the stage. At least one.
    pub steps: Vec<Step>,
    /// Bake of the last step.
    pub duration: Millis,
    /// Longest time the last step may take to be proven; at least `duration`.
    pub max_duration: Millis,
    /// Canary requests without which nothing passes.
    pub min_requests: u64,
    /// What happens when `max_duration` passes undecided.
    pub on_undecided: OnUndecided,
    /// A person has to say `promote` before this stage starts.
    pub gate: Option<String>,
    /// So many people have to approve it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
}

/// How many people let a stage begin, and for how long their word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// Distinct people, without the one who started the rollout; at least 1.
    pub required: u32,
    /// A vote older than this does not count.
    pub expires_after: Millis,
}

/// One change of weights and how long it is held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Canary weight of every region that has one from this step on (earlier stages' regions included).
    pub weights: BTreeMap<RegionName, Weight>,
    /// Share of the requests that the canary gets copies of, of every region without weight that mirrors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mirrors: BTreeMap<RegionName, Weight>,
    /// Bake of this step.
    pub bake: Millis,
}

impl Step {
    /// What reaches the canary in a region from this step on.
    #[must_use]
    pub fn reach(&self, region: &RegionName) -> Reach {
        let of = |shares: &BTreeMap<RegionName, Weight>| shares.get(region).copied();
        let (weight, mirror) = (of(&self.weights), of(&self.mirrors));
        Reach { weight: weight.unwrap_or_default(), mirror: mirror.unwrap_or_default() }
    }

    /// Every region that something reaches the canary in.
    pub fn reached(&self) -> impl Iterator<Item = &RegionName> {
        let some = self.weights.iter().chain(&self.mirrors);
        some.filter(|(_, share)| !share.is_zero()).map(|(name, _)| name)
    }
}

/// Position in a file that a user wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// File as given, never an absolute path the user did not type.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A criterion (promotes when proven) or a trigger (rolls back when proven).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// Unique within the plan: `<stage>/<text>` or `trigger/<text>`.
    pub id: CriterionId,
    /// As the user wrote it.
    pub text: String,
    /// Where.
    pub at: Location,
    /// What is measured.
    pub analysis: AnalysisName,
    /// The limit. For a criterion "within it" is to be proven, for a trigger "beyond it".
    pub test: Test,
}

/// Names a criterion or trigger within a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CriterionId(pub String);

impl fmt::Display for CriterionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// The limit that a criterion or trigger speaks of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Share of bad events: canary ≤ `factor` × stable + `offset`. `factor` 0 is a limit on the canary alone.
    Rate {
        /// Multiplies stable's rate; ≥ 0.
        factor: f64,
        /// Added, as a share (0.001 is 0.1 percentage points); ≥ 0.
        offset: f64,
    },
    /// Canary's quantile ≤ `ratio` × stable's quantile.
    QuantileRatio {
        /// In (0, 1).
        quantile: f64,
        /// 1.1 is "+10 %"; ≥ 1.
        ratio: f64,
    },
    /// Canary's quantile ≤ `limit`.
    QuantileLimit {
        /// In (0, 1).
        quantile: f64,
        /// In the unit of the histogram's bounds.
        limit: f64,
    },
    /// Canary's gauge on the good side of `limit`.
    Level {
        /// The good side is above the limit.
        higher_is_better: bool,
        /// In the gauge's unit.
        limit: f64,
    },
    /// The check holds.
    Holds,
}

impl Test {
    /// Compares the two arms, rather than holding the canary against a fixed number.
    #[must_use]
    pub fn compares_arms(&self) -> bool {
        matches!(self, Self::QuantileRatio { .. })
            || matches!(self, Self::Rate { factor, .. } if *factor > 0.0)
    }

    /// Decided by statistics, not by a check.
    #[must_use]
    pub fn is_statistical(&self) -> bool {
        !matches!(self, Self::Holds)
    }
}

/// How one metric or check is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Its name.
    pub name: AnalysisName,
    /// The file it came from.
    pub file: String,
    /// What is measured.
    pub measurement: Measurement,
    /// Shown and recorded, never decides.
    pub dry_run: bool,
}

/// What an analysis measures. Selectors are PromQL as written, variables (`$service` ...) not yet bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measurement {
    /// Counters of bad (or good) and of all events.
    Proportion {
        /// What is counted, such as `requests`.
        unit: String,
        /// Selector of the counted kind.
        part: String,
        /// Whether `part` counts the good events; then the analysis reports the share of good ones.
        part_is_good: bool,
        /// Selector of all events.
        total: String,
    },
    /// A classic histogram's `_bucket` series.
    Latency {
        /// Selector of the buckets.
        buckets: String,
        /// Quantile that is compared, in (0, 1).
        quantile: f64,
    },
    /// One value per arm.
    Gauge {
        /// An expression that yields one value for the bound arm.
        query: String,
        /// Smallest and largest value possible; needed to prove anything without history.
        range: Option<(f64, f64)>,
    },
    /// Yes or no.
    Check {
        /// Where the answer comes from.
        source: CheckSource,
        /// How often it is asked.
        every: Millis,
        /// An answer later than this is an error.
        timeout: Millis,
    },
}

/// Where a check's answer comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckSource {
    /// A PromQL expression; holds when every value it returns is non-zero and there is at least one.
    Promql(String),
    /// A check that the fleet file defines under this name (HTTP or command).
    Fleet(String),
}

/// What to do when it is not simply going well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Chance of rolling back a version within its limits, over the whole rollout; in (0, 0.5].
    pub alpha: f64,
    /// Chance of proving a criterion that is violated; in (0, 0.5].
    pub beta: f64,
    /// A criterion proven violated.
    pub on_fail: OnFail,
    /// Only the canary is dark.
    pub on_missing: OnMissing,
    /// Both arms dark, or the source does not answer.
    pub on_source_error: OnSourceError,
    /// An increase trigger breached at 100 %, where nothing concurrent is left.
    pub on_nonconcurrent: OnNonconcurrent,
    /// How promotion happens.
    pub promotion: Promotion,
    /// Share that stays on stable until the last stage is proven.
    pub holdback: Weight,
    /// How long the previous slot stays deployed after promotion.
    pub keep_previous: Millis,
    /// When weights may rise; none: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// When they may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
    /// What this version does when another one is under way.
    #[serde(default, skip_serializing_if = "OnNewVersion::is_reject")]
    pub on_new_version: OnNewVersion,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            alpha: 0.01,
            beta: 0.05,
            on_fail: OnFail::Rollback,
            on_missing: OnMissing::default(),
            on_source_error: OnSourceError::default(),
            on_nonconcurrent: OnNonconcurrent::Hold,
            promotion: Promotion::Swap,
            holdback: Weight::ZERO,
            keep_previous: Millis::from_secs(3_600),
            windows: Vec::new(),
            freezes: Vec::new(),
            on_new_version: OnNewVersion::Reject,
        }
    }
}

impl Policy {
    /// When weights may rise.
    #[must_use]
    pub fn calendar(&self) -> Calendar<'_> {
        Calendar { windows: &self.windows, freezes: &self.freezes }
    }
}

/// What a proven violation of a criterion does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFail {
    /// Roll back.
    Rollback,
    /// Hold for a person.
    Hold,
}

/// What happens when only the canary is dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnMissing {
    /// After holding for `after`.
    pub action: OnFail,
    /// How long to hold first.
    pub after: Millis,
}

impl Default for OnMissing {
    fn default() -> Self {
        Self { action: OnFail::Rollback, after: Millis::from_secs(300) }
    }
}

/// What happens when both arms are dark or the source does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnSourceError {
    /// A person is told after this long.
    pub page_after: Millis,
    /// What happens after `after`.
    pub action: OnFail,
    /// How long to hold before `action`.
    pub after: Millis,
}

impl Default for OnSourceError {
    fn default() -> Self {
        Self {
            page_after: Millis::from_secs(600),
            action: OnFail::Hold,
            after: Millis::from_secs(1_800),
        }
    }
}

/// What happens when `max_duration` passes undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUndecided {
    /// Wait for a person.
    Wait,
    /// Go on while there is no sign of harm; the criterion stays owed.
    Carry,
    /// Go on while there is no sign of harm, without the debt.
    Proceed,
}

/// What a breach of an increase trigger does where nothing concurrent is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNonconcurrent {
    /// Hold and page, unless an absolute trigger agrees.
    Hold,
    /// Roll back.
    Rollback,
}

/// What a version does that comes while another one is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNewVersion {
    /// It is refused.
    #[default]
    Reject,
    /// It begins when the other one is over; a later one takes its place.
    Queue,
    /// The other one goes back first.
    Supersede,
}

impl OnNewVersion {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_reject(&self) -> bool {
        *self == Self::Reject
    }
}

/// How promotion happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// The slot at 100 % takes the role stable; no weight moves.
    Swap,
}

/// What Tidegate may do to a service's load balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// Nothing is written; what would have been done is recorded.
    Observe,
    /// Canary weight is only ever lowered.
    RollbackOnly,
    /// Everything.
    Full,
}

/// Who may roll back by hand, and how fast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualRollback {
    /// Distinct people, the requester included; at least 1.
    pub required_approvers: u32,
    /// From the request to every region read back at 0.
    pub maximum_rollback_time: Millis,
    /// How stakeholders are told.
    pub communication_protocol: String,
    /// Without a second answer by half of the time.
    pub on_approval_timeout: OnApprovalTimeout,
}

impl Default for ManualRollback {
    fn default() -> Self {
        Self {
            required_approvers: 1,
            maximum_rollback_time: Millis::from_secs(900),
            communication_protocol: "immediate_stakeholder_notification".to_owned(),
            on_approval_timeout: OnApprovalTimeout::Proceed,
        }
    }
}

/// What decides when nobody answers a request to roll back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnApprovalTimeout {
    /// Roll back.
    Proceed,
    /// Stay paused.
    Hold,
}
