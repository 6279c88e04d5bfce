//! Pipeline files: ordered regional stages, criteria, triggers and policy, as written.

use super::calendar;
use super::codes;
use super::decode::{Decoder, Fields, Spanned};
use super::file::{self, Node, Span, Value};
use super::plan::{
    Approvals, ManualRollback, OnApprovalTimeout, OnFail, OnMissing, OnNewVersion, OnNonconcurrent,
    OnSourceError, OnUndecided, Policy, Promotion,
};
use crate::units::{Millis, PipelineName, RegionName, StageName, Weight};

/// One pipeline file, decoded but not yet held against analyses and fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineFile {
    /// The file as given.
    pub file: String,
    /// Its own name, or the file's stem.
    pub name: PipelineName,
    /// Stages whose names could be read, in order.
    pub stages: Vec<StageFile>,
    /// The triggers as written.
    pub triggers: Vec<Spanned<String>>,
    /// Where the triggers stand, if they do.
    pub triggers_span: Option<Span>,
    /// What to do when it is not simply going well.
    pub policy: Policy,
    /// Whether the file says `on_fail` itself.
    pub on_fail_said: bool,
    /// Who may roll back by hand.
    pub manual_rollback: ManualRollback,
    /// Where `required_approvers` stands.
    pub approvers_span: Option<Span>,
    /// Defaults of all stages.
    pub defaults: StageDefaults,
}

/// What may stand in a stage or, for all stages, beside them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageDefaults {
    /// Canary requests without which nothing passes.
    pub min_requests: Option<u64>,
    /// Longest time of the last step, and where it stands.
    pub max_duration: Option<(Millis, Span)>,
    /// What happens when that passes undecided.
    pub on_undecided: Option<OnUndecided>,
}

/// One stage as written; `None` where a value is missing or wrong (which was reported).
#[derive(Debug, Clone, PartialEq)]
pub struct StageFile {
    /// Its name.
    pub name: StageName,
    /// Where the name stands.
    pub span: Span,
    /// Its regions.
    pub regions: Vec<Spanned<RegionName>>,
    /// Weight within each region; 0 where requests are only mirrored.
    pub weight: Option<Spanned<Weight>>,
    /// Share of the requests that the canary gets copies of.
    pub mirror: Option<Spanned<Weight>>,
    /// Criteria as written.
    pub criteria: Vec<Spanned<String>>,
    /// Bake of the last step.
    pub duration: Option<Spanned<Millis>>,
    /// Weights before the last one.
    pub steps: Vec<StepFile>,
    /// Regions that rise at the same time.
    pub max_parallel_regions: Option<usize>,
    /// Its own values of what may stand beside the stages.
    pub own: StageDefaults,
    /// A person has to say `promote` first.
    pub gate: Option<String>,
    /// So many people have to approve it first.
    pub approvals: Option<Approvals>,
}

/// One step of a stage as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepFile {
    /// Where it stands.
    pub span: Span,
    /// Weight within the regions.
    pub weight: Weight,
    /// Its own bake.
    pub duration: Option<Millis>,
}

/// How long an approval counts where the file says nothing.
const APPROVAL_MAX: Millis = Millis::from_secs(24 * 3_600);

/// Decodes a pipeline; its problems are added to `decoder`. `stem` names it unless it names itself.
pub fn decode(decoder: &mut Decoder, stem: &str, text: &str) -> Option<PipelineFile> {
    let (node, problems) = file::parse(&decoder.file, text);
    decoder.problems.extend(problems);
    let node = node?;
    let mut root = decoder.fields(&node)?;
    let body = root.require(decoder, "deployment_pipeline", |_, node| Some(node));
    root.finish(decoder);
    let mut fields = decoder.fields(body?)?;
    let name = match fields.take("name") {
        Some(node) => decoder.name(node),
        None => PipelineName::new(stem)
            .map_err(|error| {
                decoder.error(
                    codes::INVALID_NAME,
                    Span::START,
                    error.to_string(),
                    "rename the file, or give it a `name`",
                )
            })
            .ok(),
    };
    let stages = fields.require(decoder, "regional_stages", decode_stages).unwrap_or_default();
    let defaults = decode_defaults(decoder, &mut fields);
    let on_fail_said = fields.key_span("on_fail").is_some();
    let policy = decode_policy(decoder, &mut fields);
    let mut rollback = Rollback::default();
    if let Some(node) = fields.take("rollback_procedures") {
        rollback.decode(decoder, node);
    }
    for key in ["steps", "max_parallel_regions", "gates"] {
        if let Some(span) = fields.key_span(key) {
            let _ = fields.take(key);
            decoder.error(
                codes::UNKNOWN_KEY,
                span,
                format!("`{key}` belongs into a stage"),
                "move it into the stages it is meant for",
            );
        }
    }
    fields.finish(decoder);
    Some(PipelineFile {
        file: decoder.file.clone(),
        name: name?,
        stages,
        triggers: rollback.triggers,
        triggers_span: rollback.triggers_span,
        policy,
        on_fail_said,
        manual_rollback: rollback.manual,
        approvers_span: rollback.approvers_span,
        defaults,
    })
}

fn decode_stages(decoder: &mut Decoder, node: &Node) -> Option<Vec<StageFile>> {
    let Value::Map(entries) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    if entries.is_empty() || entries.len() > 50 {
        decoder.error(
            codes::STAGES,
            node.span,
            format!("a pipeline has 1 to 50 stages, not {}", entries.len()),
            "",
        );
    }
    let mut stages = Vec::new();
    for (key, node) in entries.iter().take(50) {
        match StageName::new(key.text.as_str()) {
            Ok(name) => stages.extend(decode_stage(decoder, name, key.span, node)),
            Err(error) => decoder.error(codes::INVALID_NAME, key.span, error.to_string(), ""),
        }
    }
    Some(stages)
}

fn decode_stage(
    decoder: &mut Decoder,
    name: StageName,
    span: Span,
    node: &Node,
) -> Option<StageFile> {
    let mut fields = decoder.fields(node)?;
    fields.span = span;
    let regions = fields.require(decoder, "regions", |decoder, node| {
        let regions = decoder.each(node, |decoder, node| {
            Some(Spanned { value: decoder.name::<RegionName>(node)?, span: node.span })
        })?;
        if matches!(&node.value, Value::List(list) if list.is_empty()) {
            decoder.error(codes::INVALID_VALUE, node.span, "a stage needs at least one region", "");
        }
        Some(regions)
    });
    let mirror = fields.get(decoder, "mirror", decode_mirror);
    let weight = decode_stage_weight(decoder, &mut fields, mirror.is_some());
    let duration = fields.require(decoder, "duration", |decoder, node| {
        let value = decoder.duration(node)?;
        if value == Millis::ZERO {
            decoder.error(codes::STAGE_DURATION, node.span, "a bake of no time is no bake", "");
        }
        Some(Spanned { value, span: node.span })
    });
    let criteria = fields.get(decoder, "validation_criteria", |decoder, node| {
        decoder.each(node, Decoder::spanned_text)
    });
    let steps = fields
        .get(decoder, "steps", |decoder, node| decoder.each(node, decode_step))
        .unwrap_or_default();
    let parallel =
        fields.get(decoder, "max_parallel_regions", |decoder, node| decoder.count(node, 1, 200));
    let own = decode_defaults(decoder, &mut fields);
    let gate = fields.get(decoder, "gates", decode_gate);
    let approvals = fields.get(decoder, "approvals", decode_approvals);
    refuse_misplaced(decoder, &mut fields);
    fields.finish(decoder);
    Some(StageFile {
        name,
        span,
        regions: regions.unwrap_or_default(),
        weight,
        mirror,
        criteria: criteria.unwrap_or_default(),
        duration,
        steps,
        max_parallel_regions: parallel.and_then(|count| usize::try_from(count).ok()),
        own,
        gate,
        approvals,
    })
}

/// A stage that mirrors has no weight yet: copies beside it would get into the same numbers.
fn decode_stage_weight(
    decoder: &mut Decoder,
    fields: &mut Fields<'_>,
    mirrors: bool,
) -> Option<Spanned<Weight>> {
    let read = |decoder: &mut Decoder, node: &Node| {
        let value = decoder.weight(node)?;
        if value.is_zero() != mirrors {
            let (message, help) = if mirrors {
                ("a stage either mirrors or shifts weights", "say 0, and shift in the next stage")
            } else {
                ("a stage without traffic shows nothing", "raise it, or say `mirror: 10%`")
            };
            decoder.error(codes::INVALID_WEIGHT, node.span, message, help);
        }
        Some(Spanned { value, span: node.span })
    };
    if mirrors && fields.key_span("traffic_percentage").is_none() {
        return Some(Spanned { value: Weight::ZERO, span: fields.span });
    }
    fields.require(decoder, "traffic_percentage", read)
}

fn decode_mirror(decoder: &mut Decoder, node: &Node) -> Option<Spanned<Weight>> {
    let value = decoder.weight(node)?;
    if value.is_zero() {
        let help = "say how many of the requests are copied, such as 10%";
        decoder.error(codes::INVALID_WEIGHT, node.span, "0 mirrors nothing", help);
    }
    Some(Spanned { value, span: node.span })
}

fn decode_step(decoder: &mut Decoder, node: &Node) -> Option<StepFile> {
    let (weight, duration) = match &node.value {
        Value::Map(_) => {
            let mut fields = decoder.fields(node)?;
            let weight = fields.require(decoder, "traffic_percentage", Decoder::weight);
            let duration = fields.get(decoder, "duration", Decoder::positive);
            fields.finish(decoder);
            (weight?, duration)
        }
        _ => (decoder.weight(node)?, None),
    };
    Some(StepFile { span: node.span, weight, duration })
}

fn decode_gate(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let mut texts = decoder.each(node, Decoder::text)?;
    if texts.len() != 1 {
        decoder.error(
            codes::INVALID_VALUE,
            node.span,
            "a stage has one gate",
            "write one text: what the person confirms with `promote`",
        );
        return None;
    }
    texts.pop()
}

/// A number of people, or that and how long their word counts.
fn decode_approvals(decoder: &mut Decoder, node: &Node) -> Option<Approvals> {
    let count = |decoder: &mut Decoder, node: &Node| decoder.count(node, 1, 20);
    if !matches!(node.value, Value::Map(_)) {
        return Some(Approvals { required: count(decoder, node)?, expires_after: APPROVAL_MAX });
    }
    let mut fields = decoder.fields(node)?;
    let required = fields.require(decoder, "required", count);
    let expires = fields.get(decoder, "expires_after", Decoder::positive);
    fields.finish(decoder);
    Some(Approvals { required: required?, expires_after: expires.unwrap_or(APPROVAL_MAX) })
}

/// Keys that are known, but stand beside the stages.
fn refuse_misplaced(decoder: &mut Decoder, fields: &mut Fields<'_>) {
    let keys = [
        "holdback",
        "on_fail",
        "on_missing",
        "on_source_error",
        "on_nonconcurrent",
        "alpha",
        "beta",
        "promotion",
        "keep_previous",
        "on_new_version",
        "windows",
        "freezes",
    ];
    for key in keys {
        if let Some(span) = fields.key_span(key) {
            let _ = fields.take(key);
            let message = format!("`{key}` holds for the whole rollout");
            decoder.error(codes::UNKNOWN_KEY, span, message, "move it beside `regional_stages`");
        }
    }
}

fn decode_defaults(decoder: &mut Decoder, fields: &mut Fields<'_>) -> StageDefaults {
    let choices = [
        ("wait", OnUndecided::Wait),
        ("carry", OnUndecided::Carry),
        ("proceed", OnUndecided::Proceed),
    ];
    StageDefaults {
        min_requests: fields.get(decoder, "min_requests", |decoder, node| {
            decoder.whole(node, 1, 1_000_000_000_000)
        }),
        max_duration: fields.get(decoder, "max_duration", |decoder, node| {
            Some((decoder.positive(node)?, node.span))
        }),
        on_undecided: fields
            .get(decoder, "on_undecided", |decoder, node| decoder.choice(node, &choices)),
    }
}

const ON_NEW_VERSION: [(&str, OnNewVersion); 3] = [
    ("reject", OnNewVersion::Reject),
    ("queue", OnNewVersion::Queue),
    ("supersede", OnNewVersion::Supersede),
];
const ON_FAIL: [(&str, OnFail); 2] = [("rollback", OnFail::Rollback), ("hold", OnFail::Hold)];

fn decode_policy(decoder: &mut Decoder, fields: &mut Fields<'_>) -> Policy {
    let default = Policy::default();
    let nonconcurrent = [("hold", OnNonconcurrent::Hold), ("rollback", OnNonconcurrent::Rollback)];
    Policy {
        alpha: fields.get(decoder, "alpha", decode_chance).unwrap_or(default.alpha),
        beta: fields.get(decoder, "beta", decode_chance).unwrap_or(default.beta),
        on_fail: fields
            .get(decoder, "on_fail", |decoder, node| decoder.choice(node, &ON_FAIL))
            .unwrap_or(default.on_fail),
        on_missing: fields.get(decoder, "on_missing", decode_missing).unwrap_or(default.on_missing),
        on_source_error: fields
            .get(decoder, "on_source_error", decode_source_error)
            .unwrap_or(default.on_source_error),
        on_nonconcurrent: fields
            .get(decoder, "on_nonconcurrent", |decoder, node| decoder.choice(node, &nonconcurrent))
            .unwrap_or(default.on_nonconcurrent),
        promotion: fields.get(decoder, "promotion", decode_promotion).unwrap_or(default.promotion),
        holdback: fields.get(decoder, "holdback", decode_holdback).unwrap_or(default.holdback),
        keep_previous: fields
            .get(decoder, "keep_previous", Decoder::duration)
            .unwrap_or(default.keep_previous),
        windows: fields.get(decoder, "windows", calendar::windows).unwrap_or_default(),
        freezes: fields.get(decoder, "freezes", calendar::freezes).unwrap_or_default(),
        on_new_version: fields
            .get(decoder, "on_new_version", |decoder, node| decoder.choice(node, &ON_NEW_VERSION))
            .unwrap_or_default(),
    }
}

fn decode_chance(decoder: &mut Decoder, node: &Node) -> Option<f64> {
    let text = decoder.text(node)?;
    let chance = text.strip_suffix('%').map_or_else(
        || super::quantity::number(&text),
        |percent| super::quantity::number(percent).map(|percent| percent / 100.0),
    );
    match chance {
        Ok(chance) if (1e-6..=0.5).contains(&chance) => Some(chance),
        _ => {
            decoder.error(
                codes::INVALID_VALUE,
                node.span,
                "a chance lies between 0.000001 and 0.5",
                "write for example 0.01 or 1%",
            );
            None
        }
    }
}

fn decode_holdback(decoder: &mut Decoder, node: &Node) -> Option<Weight> {
    let weight = decoder.weight(node)?;
    if weight.hundredths() > 5_000 {
        decoder.error(codes::INVALID_WEIGHT, node.span, "a holdback is at most 50%", "");
        return None;
    }
    Some(weight)
}

fn decode_promotion(decoder: &mut Decoder, node: &Node) -> Option<Promotion> {
    if matches!(&node.value, Value::Scalar { text, .. } if text == "refill") {
        let help = "use `swap`: the slot at 100% takes the role stable";
        decoder.error(
            codes::NOT_AVAILABLE,
            node.span,
            "`promotion: refill` is not available yet",
            help,
        );
        return None;
    }
    decoder.choice(node, &[("swap", Promotion::Swap)])
}

fn decode_missing(decoder: &mut Decoder, node: &Node) -> Option<OnMissing> {
    let default = OnMissing::default();
    if !matches!(node.value, Value::Map(_)) {
        return Some(OnMissing { action: decoder.choice(node, &ON_FAIL)?, ..default });
    }
    let mut fields = decoder.fields(node)?;
    let action = fields.get(decoder, "action", |decoder, node| decoder.choice(node, &ON_FAIL));
    let after = fields.get(decoder, "after", Decoder::duration);
    fields.finish(decoder);
    Some(OnMissing {
        action: action.unwrap_or(default.action),
        after: after.unwrap_or(default.after),
    })
}

fn decode_source_error(decoder: &mut Decoder, node: &Node) -> Option<OnSourceError> {
    let default = OnSourceError::default();
    if !matches!(node.value, Value::Map(_)) {
        return Some(OnSourceError { action: decoder.choice(node, &ON_FAIL)?, ..default });
    }
    let mut fields = decoder.fields(node)?;
    let page_after = fields.get(decoder, "page_after", Decoder::duration);
    let action = fields.get(decoder, "action", |decoder, node| decoder.choice(node, &ON_FAIL));
    let after = fields.get(decoder, "after", Decoder::duration);
    fields.finish(decoder);
    Some(OnSourceError {
        page_after: page_after.unwrap_or(default.page_after),
        action: action.unwrap_or(default.action),
        after: after.unwrap_or(default.after),
    })
}

#[derive(Default)]
struct Rollback {
    triggers: Vec<Spanned<String>>,
    triggers_span: Option<Span>,
    manual: ManualRollback,
    approvers_span: Option<Span>,
}

impl Rollback {
    fn decode(&mut self, decoder: &mut Decoder, node: &Node) {
        let Some(mut fields) = decoder.fields(node) else { return };
        self.triggers_span = fields.key_span("automatic_rollback_triggers");
        let triggers = fields.get(decoder, "automatic_rollback_triggers", |decoder, node| {
            decoder.each(node, Decoder::spanned_text)
        });
        self.triggers = triggers.unwrap_or_default();
        if let Some(node) = fields.take("manual_rollback_authorization") {
            self.authorization(decoder, node);
        }
        fields.finish(decoder);
    }

    /// A map, or a list of maps with one key each.
    fn authorization(&mut self, decoder: &mut Decoder, node: &Node) {
        let mut entries = Vec::new();
        match &node.value {
            Value::List(list) => {
                for item in list {
                    match &item.value {
                        Value::Map(map) if map.len() == 1 => entries.extend(map.iter().cloned()),
                        _ => decoder.error(
                            codes::WRONG_TYPE,
                            item.span,
                            "expected one `key: value`",
                            "",
                        ),
                    }
                }
            }
            Value::Map(map) => entries.clone_from(map),
            Value::Scalar { .. } => {
                let _ = decoder.fields(node);
                return;
            }
        }
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(other, _)| other.text == key.text) {
                let message = format!(
                    "the key `{}` stands here a second time",
                    crate::units::shown(&key.text)
                );
                decoder.error(codes::DUPLICATE_KEY, key.span, message, "remove one of the two");
            }
        }
        let mut fields = Fields::new(node.span, &entries);
        let timeout = [("proceed", OnApprovalTimeout::Proceed), ("hold", OnApprovalTimeout::Hold)];
        self.approvers_span = fields.key_span("required_approvers");
        if let Some(count) =
            fields.get(decoder, "required_approvers", |decoder, node| decoder.count(node, 1, 20))
        {
            self.manual.required_approvers = count;
        }
        if let Some(time) = fields.get(decoder, "maximum_rollback_time", Decoder::positive) {
            self.manual.maximum_rollback_time = time;
        }
        if let Some(text) = fields.get(decoder, "communication_protocol", Decoder::text) {
            self.manual.communication_protocol = text;
        }
        if let Some(what) = fields
            .get(decoder, "on_approval_timeout", |decoder, node| decoder.choice(node, &timeout))
        {
            self.manual.on_approval_timeout = what;
        }
        fields.finish(decoder);
    }
}
