//! What holds together by the rules and still does not make sense: the reasoning of `check`.

use std::collections::BTreeMap;

use super::build::{finding, length};
use super::codes;
use super::diagnostic::{Diagnostics, Severity};
use super::file::Span;
use super::fleet::{Fleet, Keeping, Region, Steps, Target};
use super::pipeline::{PipelineFile, StageFile};
use super::plan::{Analysis, Criterion, Hook, Location, Measurement, Plan, Test};
use super::region_file::is_largest;
use super::selector;
use crate::units::{Millis, RegionName, Weight};

/// After this time hosted CI ends a job.
const CI_JOB_MAX: Millis = Millis::from_secs(6 * 3_600);
/// From nothing to this weight in one step is no canary.
const JUMP_HUNDREDTHS: u16 = 5_000;
/// Users who go by old answers for longer than this make a rollback slow.
const EFFECT_LAG_MAX: Millis = Millis::from_secs(30);

/// What a fleet promises and cannot keep.
pub fn fleet(fleet: &Fleet, problems: &mut Diagnostics) {
    // A cohort fails over with its region.
    for (name, region) in fleet.regions.iter().filter(|(_, it)| it.cohort_of.is_none()) {
        failover(name, region, problems);
    }
}

fn failover(name: &RegionName, region: &Region, problems: &mut Diagnostics) {
    let (Some(probe), Some(promised)) = (&region.health, region.failover_within) else { return };
    let noticed = Millis(probe.interval.0.saturating_mul(u64::from(probe.failures)));
    let dns = region.dns_lifetime.unwrap_or_default();
    let needed = noticed.plus(dns);
    if needed <= promised {
        return;
    }
    let message = format!(
        "{name} cannot fail over in {promised}: probes every {} x {} failures + {dns} of DNS lifetime are {needed}",
        probe.interval, probe.failures
    );
    let help = "probe more often, shorten the DNS lifetime, or promise less";
    problems.push(finding(
        Severity::Warning,
        codes::FAILOVER_TOO_SLOW,
        probe.at.clone(),
        8,
        message,
        help,
    ));
}

/// What a pipeline asks that does not make sense for this fleet.
pub fn plan(pipeline: &PipelineFile, plan: &Plan, fleet: &Fleet, problems: &mut Diagnostics) {
    let mut reasoner = Reasoner { pipeline, plan, fleet, problems };
    reasoner.dominated();
    reasoner.gaps();
    reasoner.first_wave();
    reasoner.jumps();
    reasoner.ends_early();
    reasoner.outlasts_ci();
    reasoner.unproven();
    reasoner.empty();
    reasoner.approvals();
    reasoner.windows();
    reasoner.keeping();
    reasoner.coarse();
    reasoner.mirrors();
    reasoner.affinity();
    reasoner.lingering();
}

struct Reasoner<'a> {
    pipeline: &'a PipelineFile,
    plan: &'a Plan,
    fleet: &'a Fleet,
    problems: &'a mut Diagnostics,
}

impl<'a> Reasoner<'a> {
    fn say(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
        help: &str,
    ) {
        let location = span.location(&self.pipeline.file);
        self.problems.push(finding(severity, code, location, span.length, message, help));
    }

    fn warn(&mut self, code: &'static str, span: Span, message: String, help: &str) {
        self.say(Severity::Warning, code, span, message, help);
    }

    fn warn_at(
        &mut self,
        code: &'static str,
        at: &Location,
        length: u32,
        message: String,
        help: &str,
    ) {
        self.warn(code, Span { line: at.line, column: at.column, length }, message, help);
    }

    fn dominated(&mut self) {
        let (plan, triggers) = (self.plan, &self.plan.triggers);
        for (index, trigger) in triggers.iter().enumerate() {
            let tighter = triggers.iter().enumerate().find(|(other, tighter)| {
                *other != index
                    && same_measure(plan, trigger, tighter)
                    && fires_first(&tighter.test, &trigger.test)
            });
            let Some((_, tighter)) = tighter else { continue };
            let message = format!(
                "`{}` can never be the first to fire: `{}` measures the same and fires {}",
                trigger.text,
                tighter.text,
                at_which(&tighter.test)
            );
            let help = format!("drop it, or give it a tighter limit than line {}", tighter.at.line);
            self.warn_at(
                codes::DOMINATED_TRIGGER,
                &trigger.at,
                length(&trigger.text),
                message,
                &help,
            );
        }
    }

    fn gaps(&mut self) {
        if self.pipeline.on_fail_said {
            return;
        }
        let plan = self.plan;
        for criterion in plan.stages.iter().flat_map(|stage| &stage.criteria) {
            let same: Vec<&Criterion> = plan
                .triggers
                .iter()
                .filter(|trigger| trigger.analysis == criterion.analysis)
                .collect();
            let closed = same.iter().any(|trigger| trigger.test == criterion.test);
            let Some(trigger) = same.first().filter(|_| !closed && criterion.test.is_statistical())
            else {
                continue;
            };
            let message = format!(
                "between {} and {} only `on_fail` decides",
                at_limit(&criterion.test),
                at_limit(&trigger.test)
            );
            let help = format!(
                "the trigger is at line {}; say `on_fail: rollback` or `hold`, or add a trigger at the criterion's limit",
                trigger.at.line
            );
            self.warn_at(codes::GAP, &criterion.at, length(&criterion.text), message, &help);
        }
    }

    fn first_wave(&mut self) {
        let Some((step, stage)) = self
            .plan
            .stages
            .first()
            .and_then(|s| s.steps.first())
            .zip(self.pipeline.stages.first())
        else {
            return;
        };
        let largest = stage.regions.iter().find(|region| {
            // Those that a header chooses are few, whatever their region is.
            let whole = self.fleet.regions.get(&region.value).filter(|it| it.cohort_of.is_none());
            let share = whole.map(|region| region.share);
            step.weights.contains_key(&region.value)
                && share.is_some_and(|share| is_largest(share, &self.fleet.regions))
        });
        if let Some(region) = largest {
            let share =
                self.fleet.regions.get(&region.value).map_or(Weight::ZERO, |region| region.share);
            let message = format!(
                "the first wave is the largest region: {} has {share} of all users",
                region.value
            );
            self.warn(
                codes::FIRST_WAVE_LARGEST,
                region.span,
                message,
                "start with a smaller region",
            );
        }
    }

    fn jumps(&mut self) {
        let mut before: BTreeMap<&RegionName, Weight> = BTreeMap::new();
        let (pipeline, plan) = (self.pipeline, self.plan);
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            for step in &stage.steps {
                for (region, weight) in &step.weights {
                    let had = before.insert(region, *weight).unwrap_or_default();
                    // All of a cohort at once is what a cohort is for.
                    let is_cohort = self.fleet.cohort_of(region).is_some();
                    if !is_cohort && had.is_zero() && weight.hundredths() >= JUMP_HUNDREDTHS {
                        let message = format!(
                            "{region} goes from 0 to {weight} in one step, without a canary"
                        );
                        let help = "add `steps: [5, 25]` to the stage, with `max_parallel_regions: 1` to go region by region";
                        self.warn(codes::NO_CANARY, region_span(file, region), message, help);
                    }
                }
            }
        }
    }

    /// What the load balancers cannot keep over their own restart.
    fn keeping(&mut self) {
        let plan = self.plan;
        let Some(service) = self.fleet.services.get(&plan.service) else { return };
        let forgets =
            |(_, target): &(_, &Target)| !target.adapter.capabilities().weights_survive_restart;
        let Some((region, target)) = self.targets().find(forgets) else { return };
        if plan.hooks.contains(&Hook::Persist) {
            return;
        }
        let kind = target.adapter.kind();
        let message = format!(
            "{region} {}: `{kind}` comes back from a restart with the weights of its configuration",
            target.name
        );
        let help = "add a `persist` hook to the service that makes the new weights stay";
        let (code, at) = (codes::WEIGHTS_DO_NOT_STAY, service.at.clone());
        self.problems.push(finding(Severity::Error, code, at, 1, message, help));
    }

    /// Weights that a load balancer cannot show.
    fn coarse(&mut self) {
        let (pipeline, plan) = (self.pipeline, self.plan);
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            let asked: Vec<_> = stage.steps.iter().flat_map(|step| &step.weights).collect();
            let found = self.targets().find_map(|(region, target)| {
                let steps = target.adapter.capabilities().steps;
                let is_coarse = |weight: &Weight| !steps.show(*weight);
                let weight =
                    asked.iter().find(|(name, weight)| *name == region && is_coarse(weight))?.1;
                Some((region, target, steps, *weight))
            });
            let Some((region, target, steps, weight)) = found else { continue };
            let (kind, steps) = (target.adapter.kind(), steps.says());
            let message = format!("{weight} in {region} does not fit `{kind}` there: {steps}");
            let help = match target.adapter.capabilities().steps {
                Steps::Ends => "0 or 100, in one step",
                Steps::Percents => "a whole percent always fits",
                _ => "a whole or half percent always fits",
            };
            self.say(Severity::Error, codes::TOO_FINE, file.span, message, help);
        }
    }

    /// Copies that a load balancer cannot make.
    fn mirrors(&mut self) {
        let (pipeline, plan) = (self.pipeline, self.plan);
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            let cannot = |(region, target): &(&RegionName, &Target)| {
                let copies = target.adapter.capabilities().mirror.copies(stage.mirror);
                stage.regions.contains(region) && !copies
            };
            let Some((region, target)) = self.targets().find(cannot) else { continue };
            let message = format!(
                "{region} {} cannot mirror {}: `{}` {}",
                target.name,
                stage.mirror,
                target.adapter.kind(),
                target.adapter.capabilities().mirror.says()
            );
            let help = "start with a small weight there instead";
            let span = file.mirror.as_ref().map_or(file.span, |mirror| mirror.span);
            self.say(Severity::Error, codes::MIRROR, span, message, help);
        }
    }

    /// Users who are to stay where they are, and a load balancer that moves them; or who stay, and nobody says so.
    fn affinity(&mut self) {
        let wanted = self.plan.requests_per_user.is_some();
        let keeps = |target: &Target| target.adapter.capabilities().keeps_users;
        let found: Vec<_> = self
            .targets()
            .filter(|(_, target)| match keeps(target) {
                Keeping::Nobody => wanted,
                Keeping::OwnKey => true,
                Keeping::Users => false,
            })
            .collect();
        for (region, target) in found {
            let (severity, what, help) = if wanted {
                let help = "leave `affinity` out, or use one that can (docs/strategies.md)";
                (Severity::Error, "cannot keep users on one arm", help)
            } else {
                let help = "say `affinity` instead of `key`: {cookie: ..., requests_per_user: 50}";
                (Severity::Warning, "keeps users on one arm, and evidence counts requests", help)
            };
            let message = format!("{region} {}: `{}` {what}", target.name, target.adapter.kind());
            let (code, at) = (codes::AFFINITY, target.at.clone());
            self.problems.push(finding(severity, code, at, 1, message, help));
        }
    }

    /// Answers that users keep for long: they hold up a rollback.
    fn lingering(&mut self) {
        let lag = |target: &Target| target.adapter.capabilities().effect_lag;
        let slow: Vec<_> =
            self.targets().filter(|(_, target)| lag(target) > EFFECT_LAG_MAX).collect();
        for (region, target) in slow {
            let message = format!(
                "{region} {}: users keep an answer for {}, so a rollback needs at least that long to reach them",
                target.name,
                lag(target)
            );
            let help = format!("give the name a `ttl` of at most {EFFECT_LAG_MAX}");
            let (code, at) = (codes::DNS_LIFETIME, target.at.clone());
            self.problems.push(finding(Severity::Warning, code, at, 1, message, &help));
        }
    }

    /// The service's load balancers in the regions of the plan.
    fn targets(&self) -> impl Iterator<Item = (&'a RegionName, &'a Target)> {
        let (plan, fleet) = (self.plan, self.fleet);
        let service = fleet.services.get(&plan.service);
        let all = service.into_iter().flat_map(|service| &service.targets);
        let reached = all.filter(|(region, _)| plan.regions.contains_key(*region));
        reached.flat_map(|(region, targets)| targets.iter().map(move |target| (region, target)))
    }

    fn windows(&mut self) {
        let (pipeline, plan) = (self.pipeline, self.plan);
        let calendar = plan.policy.calendar();
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            let needed = stage.steps.iter().map(|step| step.bake).fold(Millis::ZERO, Millis::plus);
            for region in &stage.regions {
                let Some(longest) = calendar.longest(region).filter(|it| *it < needed) else {
                    continue;
                };
                let message = format!(
                    "stage {} bakes {needed} and starts only if that fits into a window; the longest in {region} is {longest}",
                    stage.name
                );
                let help = "lengthen the window, or shorten the stage";
                self.say(Severity::Error, codes::WINDOW_TOO_SHORT, file.span, message, help);
            }
        }
    }

    fn ends_early(&mut self) {
        let (pipeline, plan) = (self.pipeline, self.plan);
        let full = plan.policy.holdback.complement();
        let mut last: BTreeMap<&RegionName, (Weight, Span)> = BTreeMap::new();
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            for region in &stage.regions {
                last.insert(region, (stage.weight, region_span(file, region)));
            }
        }
        for (region, (weight, span)) in last {
            if weight < full {
                let message = format!(
                    "the stages end at {weight} in {region}: promotion raises it to {} without a look",
                    Weight::FULL
                );
                let help = "add a last stage with `traffic_percentage: 100` that names it";
                self.warn(codes::ENDS_EARLY, span, message, help);
            }
        }
    }

    fn outlasts_ci(&mut self) {
        let bakes = self.plan.stages.iter().flat_map(|stage| &stage.steps).map(|step| step.bake);
        let total = bakes.fold(Millis::ZERO, Millis::plus);
        let span = self
            .pipeline
            .stages
            .last()
            .and_then(|stage| stage.duration.as_ref())
            .map(|duration| duration.span);
        if let Some(span) = span.filter(|_| total > CI_JOB_MAX) {
            let message = format!(
                "all bakes together take {total} and outlast a hosted CI job ({CI_JOB_MAX})"
            );
            let help = "run it on a machine of your own, or shorten the stages";
            self.warn(codes::OUTLASTS_CI, span, message, help);
        }
    }

    fn unproven(&mut self) {
        let full = self.plan.policy.holdback.complement();
        let (pipeline, plan) = (self.pipeline, self.plan);
        let mut proven: Vec<&RegionName> = Vec::new();
        for (stage, file) in plan.stages.iter().zip(&pipeline.stages) {
            if stage.criteria.iter().any(|criterion| criterion.test.is_statistical()) {
                proven.extend(&stage.regions);
            }
            for region in stage
                .regions
                .iter()
                .filter(|region| stage.weight >= full && !proven.contains(region))
            {
                let message = format!(
                    "{region} reaches {} although no statistical criterion is asked there",
                    stage.weight
                );
                let help =
                    "add a criterion such as `error_rate_increase < 1%` to a stage that names it";
                self.warn(codes::UNPROVEN_REGION, region_span(file, region), message, help);
            }
        }
    }

    fn empty(&mut self) {
        for file in self.pipeline.stages.iter().filter(|stage| stage.criteria.is_empty()) {
            let message = format!("`{}` has no criteria: nothing is proven by it", file.name);
            self.warn(codes::NO_CRITERIA, file.span, message, "add `validation_criteria`");
        }
        if self.plan.triggers.is_empty() {
            let span = self.pipeline.triggers_span.unwrap_or(Span::START);
            let help = "add `rollback_procedures.automatic_rollback_triggers`";
            self.warn(codes::NO_TRIGGERS, span, "no trigger rolls back".to_owned(), help);
        }
    }

    fn approvals(&mut self) {
        let count = self.plan.manual_rollback.required_approvers;
        if let Some(span) = self.pipeline.approvers_span.filter(|_| count > 1) {
            let message = format!(
                "the {count} approvers of a manual rollback are not enforced for a local run"
            );
            let help = "a daemon whose fleet has `access` asks for them; a local run records `approval not enforced: local run`";
            self.say(Severity::Note, codes::APPROVAL_NOT_ENFORCED, span, message, help);
        }
    }
}

fn region_span(file: &StageFile, region: &RegionName) -> Span {
    file.regions.iter().find(|other| other.value == *region).map_or(file.span, |other| other.span)
}

/// Whether two triggers look at the same numbers: the same analysis, or bad and good of the same requests.
fn same_measure(plan: &Plan, left: &Criterion, right: &Criterion) -> bool {
    let analysis = |criterion: &Criterion| plan.analyses.get(&criterion.analysis);
    left.analysis == right.analysis
        || analysis(left).zip(analysis(right)).is_some_and(|(left, right)| same_events(left, right))
}

fn same_events(left: &Analysis, right: &Analysis) -> bool {
    let parts = |analysis: &Analysis| match &analysis.measurement {
        Measurement::Proportion { part, part_is_good, total, .. } => {
            Some((part.clone(), *part_is_good, total.clone()))
        }
        _ => None,
    };
    let (Some(left), Some(right)) = (parts(left), parts(right)) else { return false };
    if !selector::same(&left.2, &right.2) {
        return false;
    }
    if left.1 == right.1 {
        selector::same(&left.0, &right.0)
    } else {
        selector::complementary(&left.0, &right.0)
    }
}

/// Whether `tighter` is always beyond its limit when `laxer` is.
fn fires_first(tighter: &Test, laxer: &Test) -> bool {
    match (tighter, laxer) {
        (Test::Rate { factor: a, offset: b }, Test::Rate { factor, offset }) => {
            a <= factor && b <= offset && (a < factor || b < offset)
        }
        (
            Test::QuantileRatio { quantile: p, ratio: a },
            Test::QuantileRatio { quantile, ratio },
        ) => p == quantile && a < ratio,
        (
            Test::QuantileLimit { quantile: p, limit: a },
            Test::QuantileLimit { quantile, limit },
        ) => p == quantile && a < limit,
        (
            Test::Level { higher_is_better: a, limit: b },
            Test::Level { higher_is_better, limit },
        ) => a == higher_is_better && if *a { b > limit } else { b < limit },
        _ => false,
    }
}

fn at_which(test: &Test) -> String {
    match test {
        Test::Rate { factor, offset } if *factor == 0.0 => {
            format!("from {} % of bad events on", percent(*offset))
        }
        _ => format!("from {} on", at_limit(test)),
    }
}

fn at_limit(test: &Test) -> String {
    match test {
        Test::Rate { factor, offset } if *factor == 0.0 => format!("{} %", percent(*offset)),
        Test::Rate { factor, offset } if *offset == 0.0 => {
            format!("+{} % relative", percent(factor - 1.0))
        }
        Test::Rate { offset, .. } => format!("+{} %", percent(*offset)),
        Test::QuantileRatio { ratio, .. } => format!("+{} %", percent(ratio - 1.0)),
        Test::QuantileLimit { limit, .. } | Test::Level { limit, .. } => limit.to_string(),
        Test::Holds => "holding".to_owned(),
    }
}

/// Without the dust of binary fractions.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}
