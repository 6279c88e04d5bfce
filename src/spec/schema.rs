//! JSON Schemas of the three files, for editors. The decoders decide; a test holds the two together key by key.

#![expect(dead_code, reason = "these types describe files; the decoders read them")]

mod fleet;
mod targets;

use std::collections::BTreeMap;

use schemars::{JsonSchema, schema_for};

/// Which file a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `pipelines/*.yaml`.
    Pipeline,
    /// `analysis/*.yaml`.
    Analysis,
    /// `tidegate.yaml`.
    Fleet,
}

/// The JSON Schema (2020-12) of one kind of file.
#[must_use]
pub fn schema(kind: Kind) -> serde_json::Value {
    match kind {
        Kind::Pipeline => schema_for!(PipelineDocument),
        Kind::Analysis => schema_for!(AnalysisDocument),
        Kind::Fleet => schema_for!(fleet::FleetDocument),
    }
    .to_value()
}

/// A number, or a number with `%`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum PercentText {
    Number(f64),
    Text(String),
}

/// A pipeline: which service version goes where, in which order, on which evidence.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PipelineDocument {
    deployment_pipeline: PipelineBody,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PipelineBody {
    /// Default: the file's stem.
    name: Option<String>,
    /// Stages in order.
    regional_stages: BTreeMap<String, StageBody>,
    rollback_procedures: Option<RollbackBody>,
    /// Canary requests without which nothing passes; default 1,000.
    min_requests: Option<u64>,
    /// Longest time of a stage's last step; default twice its duration.
    max_duration: Option<String>,
    on_undecided: Option<OnUndecidedWord>,
    /// Chance of rolling back a version within its limits; default 0.01.
    alpha: Option<PercentText>,
    /// Chance of proving a criterion that is violated; default 0.05.
    beta: Option<PercentText>,
    on_fail: Option<OnFailWord>,
    on_missing: Option<OnMissingBody>,
    on_source_error: Option<OnSourceErrorBody>,
    on_nonconcurrent: Option<OnFailWord>,
    promotion: Option<PromotionWord>,
    /// Share that stays on stable until the last stage is proven; default 0.
    holdback: Option<PercentText>,
    /// How long the previous slot stays deployed; default 1h.
    keep_previous: Option<String>,
    /// When weights may rise; default always.
    windows: Option<Vec<WindowBody>>,
    /// When they may not.
    freezes: Option<Vec<FreezeBody>>,
    /// When another version is under way; default `reject`.
    on_new_version: Option<OnNewVersionWord>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WindowBody {
    /// `mon` to `sun`; default all.
    days: Option<Vec<String>>,
    /// Such as `09:30`.
    from: String,
    /// Not after `from`: on the next day.
    to: String,
    /// IANA name such as `Europe/Berlin`.
    zone: String,
    /// Default: everywhere.
    regions: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FreezeBody {
    /// A day, or a day with a time: `2026-12-20T18:00`.
    from: String,
    to: String,
    zone: String,
    reason: String,
    regions: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StageBody {
    regions: Vec<String>,
    /// Canary weight within each named region; 0, or left out, in a stage that mirrors.
    traffic_percentage: Option<PercentText>,
    /// Share of the requests that the canary gets copies of, whose answers nobody gets; before any weight.
    mirror: Option<PercentText>,
    /// `<analysis>[_increase] <op> <quantity>`, or the name of a check.
    validation_criteria: Option<Vec<String>>,
    /// Such as `30_minutes`, `2_hours`, `90s`.
    duration: String,
    /// Weights before the last one.
    steps: Option<Vec<StepBody>>,
    /// Regions that rise at the same time; default all.
    max_parallel_regions: Option<u32>,
    /// One text: what a person confirms with `promote` before the stage starts.
    #[schemars(length(min = 1, max = 1))]
    gates: Option<Vec<String>>,
    /// People other than the one who started it that have to approve before the stage starts.
    approvals: Option<ApprovalsBody>,
    min_requests: Option<u64>,
    max_duration: Option<String>,
    on_undecided: Option<OnUndecidedWord>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ApprovalsBody {
    Number(u32),
    Full(ApprovalsFull),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ApprovalsFull {
    required: u32,
    /// How long a vote counts; default 24h.
    expires_after: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum StepBody {
    Number(f64),
    Text(String),
    Step(StepObject),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StepObject {
    traffic_percentage: PercentText,
    duration: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnUndecidedWord {
    Wait,
    Carry,
    Proceed,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnFailWord {
    Rollback,
    Hold,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum PromotionWord {
    Swap,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnNewVersionWord {
    Reject,
    Queue,
    Supersede,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OnMissingBody {
    Word(OnFailWord),
    Object(OnMissingObject),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnMissingObject {
    action: Option<OnFailWord>,
    after: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OnSourceErrorBody {
    Word(OnFailWord),
    Object(OnSourceErrorObject),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OnSourceErrorObject {
    page_after: Option<String>,
    action: Option<OnFailWord>,
    after: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RollbackBody {
    /// What rolls back when proven.
    automatic_rollback_triggers: Option<Vec<String>>,
    manual_rollback_authorization: Option<AuthorizationBody>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum AuthorizationBody {
    List(Vec<AuthorizationObject>),
    Object(AuthorizationObject),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AuthorizationObject {
    required_approvers: Option<u32>,
    maximum_rollback_time: Option<String>,
    communication_protocol: Option<String>,
    on_approval_timeout: Option<OnApprovalTimeoutWord>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum OnApprovalTimeoutWord {
    Proceed,
    Hold,
}

/// An analysis: how one metric or check is measured.
#[derive(JsonSchema)]
#[schemars(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum AnalysisDocument {
    /// Counters of bad (or good) and of all events. Exactly one of `bad` and `good`.
    Proportion {
        description: Option<String>,
        dry_run: Option<bool>,
        unit: Option<String>,
        bad: Option<String>,
        good: Option<String>,
        total: String,
    },
    /// A classic histogram.
    Latency {
        description: Option<String>,
        dry_run: Option<bool>,
        /// The `_bucket` series.
        buckets: String,
        /// `p95` (default) or `0.95`.
        quantile: Option<PercentText>,
        unit: Option<HistogramUnitWord>,
    },
    /// One value per arm.
    Gauge {
        description: Option<String>,
        dry_run: Option<bool>,
        query: String,
        /// Smallest and largest value possible.
        #[schemars(length(min = 2, max = 2))]
        range: Option<Vec<f64>>,
    },
    /// Yes or no. Exactly one of `promql` and `check`.
    Check {
        description: Option<String>,
        dry_run: Option<bool>,
        promql: Option<String>,
        /// Name of a check in the fleet file.
        check: Option<String>,
        every: Option<String>,
        timeout: Option<String>,
    },
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum HistogramUnitWord {
    Seconds,
    Milliseconds,
}
