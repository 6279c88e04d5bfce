//! Pipeline, analyses and fleet held against each other: the checked plan of a rollout.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::analysis::AnalysisFile;
use super::codes;
use super::cohort;
use super::criterion::{self, Side};
use super::decode::{Decoder, Spanned, nearest};
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::file::Span;
use super::fleet::{Fleet, Region, Service};
use super::pipeline::{PipelineFile, StageFile};
use super::plan::{
    Approvals, CheckSource, Criterion, CriterionId, Measurement, OnUndecided, Plan, RegionPlan,
    Stage, Test,
};
use super::selector::{self, Track};
use super::steps::{self, Before};
use crate::units::{AnalysisName, Millis, RegionName, ServiceName, Version, Weight};

/// Canary requests without which nothing passes, unless the pipeline says otherwise.
pub const MIN_REQUESTS: u64 = 1_000;

/// Builds the plan of `service`; `None` while there is an error in `problems`.
pub fn plan(
    pipeline: &PipelineFile,
    analyses: &BTreeMap<AnalysisName, AnalysisFile>,
    fleet: &Fleet,
    service_name: &ServiceName,
    problems: &mut Diagnostics,
) -> Option<Plan> {
    let mut builder = Builder {
        decoder: Decoder::new(&pipeline.file),
        analyses,
        fleet,
        service: fleet.services.get(service_name),
        used: BTreeSet::new(),
    };
    if builder.service.is_none() {
        let help = nearest(service_name.as_str(), fleet.services.keys().map(ServiceName::as_str));
        let help = help.map_or_else(
            || "add it under `services`".to_owned(),
            |name| format!("did you mean `{name}`?"),
        );
        let message = format!("there is no service `{service_name}` in {}", fleet.file);
        builder.decoder.error(codes::UNKNOWN_SERVICE, Span::START, message, help);
    }
    let stages = builder.stages(pipeline);
    let triggers = builder.criteria(&pipeline.triggers, Side::Trigger, "trigger");
    builder.contradictions(&stages, &triggers);
    if let Some(service) = builder.service {
        cohort::check_pipeline(&mut builder.decoder, pipeline, fleet, service);
    }
    let mut all = std::mem::take(&mut builder.decoder.problems);
    all.extend(builder.arms(service_name, &stages));
    problems.extend(all);
    let service = builder.service?;
    if problems.has_errors() || stages.is_empty() {
        return None;
    }
    let regions = stages.iter().flat_map(|stage| &stage.regions).filter_map(|name| {
        let Region { share, poll, settle, cohort_of, .. } = fleet.regions.get(name)?;
        let (share, poll, settle, cohort_of) = (*share, *poll, *settle, cohort_of.clone());
        Some((name.clone(), RegionPlan { share, poll, settle, cohort_of }))
    });
    let mut policy = pipeline.policy.clone();
    cohort::extend_calendar(&mut policy, fleet);
    let mut plan = Plan {
        pipeline: pipeline.name.clone(),
        service: service_name.clone(),
        digest: String::new(),
        regions: regions.collect(),
        analyses: analyses
            .iter()
            .filter(|(name, _)| builder.used.contains(*name))
            .map(|(name, file)| (name.clone(), file.analysis()))
            .collect(),
        stages,
        triggers,
        policy,
        manual_rollback: pipeline.manual_rollback.clone(),
        authority: service.authority,
        hooks: service.hooks.keys().copied().collect(),
        requests_per_user: service.affinity.as_ref().map(|users| users.requests_per_user),
    };
    plan.digest = digest(&plan);
    Some(plan)
}

/// SHA-256 over the plan's canonical JSON (keys sorted, no spaces) without its `digest`, in hex.
#[must_use]
pub fn digest(plan: &Plan) -> String {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.remove("digest");
    }
    Sha256::digest(value.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Builder<'a> {
    decoder: Decoder,
    analyses: &'a BTreeMap<AnalysisName, AnalysisFile>,
    fleet: &'a Fleet,
    service: Option<&'a Service>,
    used: BTreeSet<AnalysisName>,
}

impl Builder<'_> {
    fn stages(&mut self, pipeline: &PipelineFile) -> Vec<Stage> {
        let mut before = Before::default();
        let mut stages = Vec::new();
        for file in &pipeline.stages {
            stages.extend(self.stage(pipeline, file, &mut before));
        }
        stages
    }

    fn stage(
        &mut self,
        pipeline: &PipelineFile,
        file: &StageFile,
        before: &mut Before,
    ) -> Option<Stage> {
        let regions = self.regions(file);
        let criteria = self.criteria(&file.criteria, Side::Criterion, file.name.as_str());
        let times = self.times(pipeline, file);
        let asked = file.weight.as_ref()?;
        let weight = asked.value.min(pipeline.policy.holdback.complement());
        match &file.mirror {
            Some(mirror) => self.mirrors(file, mirror, &regions, before),
            None => self.rises(file, asked.span, weight, &regions, &before.weights),
        }
        let (duration, max_duration) = times?;
        let steps = steps::expand(&mut self.decoder, file, weight, &regions, duration, before);
        if let Some(last) = steps.last() {
            before.weights.clone_from(&last.weights);
            before.mirrors.clone_from(&last.mirrors);
        }
        Some(Stage {
            name: file.name.clone(),
            at: self.decoder.at(file.span),
            regions,
            weight,
            mirror: file.mirror.as_ref().map(|mirror| mirror.value).unwrap_or_default(),
            criteria,
            steps,
            duration,
            max_duration,
            min_requests: file
                .own
                .min_requests
                .or(pipeline.defaults.min_requests)
                .unwrap_or(MIN_REQUESTS),
            on_undecided: file
                .own
                .on_undecided
                .or(pipeline.defaults.on_undecided)
                .unwrap_or(OnUndecided::Wait),
            gate: file.gate.clone().or_else(|| file.approvals.map(asks)),
            approvals: file.approvals,
        })
    }

    fn regions(&mut self, file: &StageFile) -> Vec<RegionName> {
        let mut regions: Vec<RegionName> = Vec::new();
        for Spanned { value, span } in &file.regions {
            if regions.contains(value) {
                let message = format!("`{value}` stands in this stage twice");
                self.decoder.error(
                    codes::DUPLICATE_REGION,
                    *span,
                    message,
                    "remove one of the two",
                );
                continue;
            }
            if !self.fleet.regions.contains_key(value) {
                let known = self.fleet.regions.keys().map(RegionName::as_str);
                let help = nearest(value.as_str(), known).map_or_else(
                    || format!("add it to {}", self.fleet.file),
                    |name| format!("did you mean `{name}`?"),
                );
                self.decoder.error(
                    codes::UNKNOWN_REGION,
                    *span,
                    format!("there is no region `{value}` in the fleet"),
                    help,
                );
            } else if self.service.is_some_and(|service| !service.targets.contains_key(value)) {
                let message = format!("the service has no load balancer in `{value}`");
                let help = format!("add it to its `targets` in {}", self.fleet.file);
                self.decoder.error(codes::NO_TARGET, *span, message, help);
            }
            regions.push(value.clone());
        }
        regions
    }

    fn times(&mut self, pipeline: &PipelineFile, file: &StageFile) -> Option<(Millis, Millis)> {
        let duration = file.duration.as_ref()?.value;
        let twice = duration.plus(duration);
        let Some((longest, span)) = file.own.max_duration.or(pipeline.defaults.max_duration) else {
            return Some((duration, twice));
        };
        if longest < duration {
            let message = format!(
                "`max_duration` {longest} is shorter than the duration {duration} of `{}`",
                file.name
            );
            self.decoder.error(
                codes::STAGE_DURATION,
                span,
                message,
                "make it at least the duration",
            );
        }
        Some((duration, longest))
    }

    fn rises(
        &mut self,
        file: &StageFile,
        span: Span,
        weight: Weight,
        regions: &[RegionName],
        before: &BTreeMap<RegionName, Weight>,
    ) {
        let had = |region: &RegionName| before.get(region).copied().unwrap_or_default();
        if let Some(region) = regions.iter().find(|region| had(region) > weight) {
            let message =
                format!("`{}` lowers {region} from {} to {weight}", file.name, had(region));
            let help = format!("raise this to {} or more, or drop the stage", had(region));
            self.decoder.error(codes::STAGES_NOT_INCREASING, span, message, help);
        } else if !regions.is_empty() && regions.iter().all(|region| had(region) == weight) {
            let message = format!("`{}` raises no region above the stage before", file.name);
            self.decoder.error(
                codes::STAGES_NOT_INCREASING,
                span,
                message,
                "raise the weight, name more regions, or drop the stage",
            );
        }
    }

    /// Copies come before any weight, in one step.
    fn mirrors(
        &mut self,
        file: &StageFile,
        mirror: &Spanned<Weight>,
        regions: &[RegionName],
        before: &Before,
    ) {
        let had = |region: &RegionName| before.weights.get(region).copied().unwrap_or_default();
        if let Some(region) = regions.iter().find(|region| !had(region).is_zero()) {
            let message = format!(
                "`{}` mirrors in {region}, where the canary has {} by then",
                file.name,
                had(region)
            );
            let help = "a region mirrors before it shifts: move the stage forward";
            self.decoder.error(codes::MIRROR, mirror.span, message, help);
        } else if !regions.is_empty()
            && regions.iter().all(|region| before.mirrors.get(region) == Some(&mirror.value))
        {
            let message = format!("`{}` changes nothing after the stage before", file.name);
            let help = "mirror another share, name more regions, or drop the stage";
            self.decoder.error(codes::STAGES_NOT_INCREASING, mirror.span, message, help);
        }
    }

    fn criteria(&mut self, texts: &[Spanned<String>], side: Side, group: &str) -> Vec<Criterion> {
        let mut criteria: Vec<Criterion> = Vec::new();
        for text in texts {
            let Some(syntax) = criterion::parse(&mut self.decoder, text) else { continue };
            let resolved =
                criterion::resolve(&mut self.decoder, text, &syntax, side, self.analyses);
            let Some((analysis, test)) = resolved else { continue };
            let id = CriterionId(format!("{group}/{}", text.value.trim()));
            if criteria.iter().any(|other| other.analysis == analysis && other.test == test) {
                let message = format!("`{}` stands here twice", crate::units::shown(&text.value));
                self.decoder.error(
                    codes::DUPLICATE_CRITERION,
                    text.span,
                    message,
                    "remove one of the two",
                );
                continue;
            }
            self.used.insert(analysis.clone());
            let at = self.decoder.at(text.span);
            criteria.push(Criterion { id, text: text.value.trim().to_owned(), at, analysis, test });
        }
        criteria
    }

    fn contradictions(&mut self, stages: &[Stage], triggers: &[Criterion]) {
        for criterion in stages.iter().flat_map(|stage| &stage.criteria) {
            let same = triggers.iter().filter(|trigger| trigger.analysis == criterion.analysis);
            for trigger in same.filter(|trigger| is_tighter(&trigger.test, &criterion.test)) {
                let span = Span {
                    line: trigger.at.line,
                    column: trigger.at.column,
                    length: length(&trigger.text),
                };
                let message =
                    format!("`{}` rolls back what `{}` accepts", trigger.text, criterion.text);
                let help = format!(
                    "give the trigger a limit of at least that at line {}",
                    criterion.at.line
                );
                self.decoder.error(codes::CONTRADICTING_CRITERIA, span, message, help);
            }
        }
    }

    /// Two arms must be two arms: every selector is bound for both and compared.
    fn arms(&self, name: &ServiceName, stages: &[Stage]) -> Diagnostics {
        let mut problems = Diagnostics::default();
        let Some(service) = self.service else { return problems };
        let reached: BTreeSet<&RegionName> =
            stages.iter().flat_map(|stage| &stage.regions).collect();
        let regions: Vec<_> =
            reached.into_iter().filter_map(|name| self.fleet.regions.get_key_value(name)).collect();
        for analysis in self.used.iter().filter_map(|name| self.analyses.get(name)) {
            let mut decoder = Decoder::new(&analysis.file);
            self.fleet_check(analysis, &mut decoder);
            for selector in &analysis.selectors {
                let mut all = BTreeMap::new();
                for &(region_name, region) in &regions {
                    let bound = both_arms(&selector.value, (name, service), (region_name, region));
                    all.extend(bound.clone().ok().map(|arms| (region_name, arms)));
                    report_arms(&mut decoder, analysis, selector, bound);
                }
                if !matches!(analysis.measurement, Measurement::Check { .. }) {
                    cohort::check_selector(&mut decoder, selector, &self.fleet.regions, &all);
                }
            }
            problems.extend(decoder.problems);
        }
        problems
    }

    fn fleet_check(&self, analysis: &AnalysisFile, decoder: &mut Decoder) {
        let Measurement::Check { source: CheckSource::Fleet(check), .. } = &analysis.measurement
        else {
            return;
        };
        if !self.fleet.checks.contains_key(check) {
            let known = nearest(check, self.fleet.checks.keys().map(String::as_str));
            let help = known.map_or_else(
                || format!("define it under `checks` in {}", self.fleet.file),
                |name| format!("did you mean `{name}`?"),
            );
            let message = format!("the fleet has no check `{}`", crate::units::shown(check));
            decoder.error(
                codes::UNKNOWN_CHECK,
                analysis.check_span.unwrap_or(Span::START),
                message,
                help,
            );
        }
    }
}

/// Whether `trigger` fires inside of what `criterion` accepts; only limits of the same kind can be compared.
fn is_tighter(trigger: &Test, criterion: &Test) -> bool {
    match (trigger, criterion) {
        (Test::Rate { factor: a, offset: b }, Test::Rate { factor, offset }) => {
            (a - factor).abs() < 1e-12 && *b < offset - 1e-12
                || (b - offset).abs() < 1e-12 && *a < factor - 1e-12 && *a > 0.0
        }
        (Test::QuantileRatio { ratio: a, .. }, Test::QuantileRatio { ratio, .. }) => a < ratio,
        (Test::QuantileLimit { limit: a, .. }, Test::QuantileLimit { limit, .. }) => a < limit,
        (
            Test::Level { higher_is_better: a, limit: b },
            Test::Level { higher_is_better, limit },
        ) => a != higher_is_better || if *a { b > limit } else { b < limit },
        _ => false,
    }
}

/// What a gate says that was not given words.
fn asks(approvals: Approvals) -> String {
    match approvals.required {
        1 => "somebody else has to approve".to_owned(),
        people => format!("{people} others have to approve"),
    }
}

pub(super) fn length(text: &str) -> u32 {
    u32::try_from(text.chars().count().max(1)).unwrap_or(u32::MAX)
}

fn both_arms(
    text: &str,
    (service_name, service): (&ServiceName, &Service),
    (region_name, region): (&RegionName, &Region),
) -> Result<(String, String), selector::Error> {
    // Any two versions do: what matters is whether the selectors differ.
    let bind = |slot: usize, version: &str, track| {
        let version = Version::new(version).map_err(|_| selector::Error::Unprintable)?;
        let slot = &service.slots[slot];
        let variables = selector::arm_variables(
            service_name,
            service,
            region_name,
            region,
            slot,
            &version,
            track,
        );
        selector::bind(text, &variables)
    };
    Ok((bind(0, "1", Track::Stable)?, bind(1, "2", Track::Canary)?))
}

fn report_arms(
    decoder: &mut Decoder,
    analysis: &AnalysisFile,
    selector: &Spanned<String>,
    bound: Result<(String, String), selector::Error>,
) {
    let is_check = matches!(analysis.measurement, Measurement::Check { .. });
    match bound {
        Ok((stable, canary)) if stable == canary && !is_check => {
            let used = selector::check(&selector.value).unwrap_or_default();
            let names = |name: &str| ["version", "track", "slot"].contains(&name);
            let (code, message) = if used.iter().any(|name| names(name)) {
                (codes::EQUAL_ARMS, "for this service both arms come out the same here")
            } else {
                (codes::NO_ARM_VARIABLE, "this reads the same series for stable and canary")
            };
            let help = "use a variable that tells the arms apart, such as version=\"$version\", and spell it in the service's `metrics`";
            decoder.error(code, selector.span, message, help);
        }
        Ok(_) => {}
        Err(selector::Error::Unknown(name)) => {
            let help = "there are $service, $region, $version, $track, the region's labels and the service's `metrics`";
            decoder.error(
                codes::UNKNOWN_VARIABLE,
                selector.span,
                format!("`${name}` has no value here"),
                help,
            );
        }
        Err(error) => decoder.error(codes::SELECTOR, selector.span, error.to_string(), ""),
    }
}

/// A finding of [`super::reason`] at a place in any file.
pub(super) fn finding(
    severity: Severity,
    code: &'static str,
    location: super::plan::Location,
    length: u32,
    message: String,
    help: &str,
) -> Diagnostic {
    Diagnostic { code, severity, message, help: help.to_owned(), location, length }
}
