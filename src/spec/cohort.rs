//! Cohorts held against the rest: whether a slice of a region's traffic can be told apart, set and finished by itself.
//!
//! A cohort is the requests of a region that a header or a cookie chooses. They are no random sample of its users, so they
//! have weights and numbers of their own; the slots are the region's. The engine knows a cohort as one more region.

use std::collections::BTreeMap;

use super::codes;
use super::decode::{Decoder, Spanned};
use super::file::Span;
use super::fleet::{Fleet, Region, Service};
use super::pipeline::PipelineFile;
use super::plan::{Location, Policy};
use crate::units::{RegionName, ServiceName};

type Regions = BTreeMap<RegionName, Region>;

const NUMBERS_HELP: &str = "requests chosen by a header are no random sample: give the cohort's route metrics of its own, \
    and a label that says which";

/// Both arms of a bound selector.
type Arms = (String, String);

/// What the fleet file itself says of its cohorts.
pub(super) fn check_fleet(
    decoder: &mut Decoder,
    regions: &Regions,
    services: &BTreeMap<ServiceName, Service>,
) {
    for (name, cohort) in regions {
        let Some((whole_name, whole)) = whole_of(cohort, regions) else { continue };
        if has_same_source(cohort, whole) && spells((name, cohort)) == spells((whole_name, whole)) {
            let message = format!(
                "`{name}` has the same labels as `{whole_name}`: their numbers cannot be told apart"
            );
            decoder.error(codes::COHORT_NUMBERS, span(&cohort.at), message, NUMBERS_HELP);
        }
        for service in services.values() {
            check_targets(decoder, name, whole_name, service);
        }
    }
}

/// A cohort's load balancers see requests, and are not those of the region.
fn check_targets(
    decoder: &mut Decoder,
    name: &RegionName,
    whole_name: &RegionName,
    service: &Service,
) {
    let Some(targets) = service.targets.get(name) else { return };
    let Some(whole) = service.targets.get(whole_name) else {
        let at = targets.first().map_or(&service.at, |target| &target.at);
        let message = format!(
            "the service has no load balancer in `{whole_name}`, of whose traffic `{name}` is a slice"
        );
        let help = format!("add `{whole_name}` to its `targets`");
        return decoder.error(codes::COHORT, span(at), message, help);
    };
    for target in targets {
        let kind = target.adapter.kind();
        if !target.adapter.capabilities().sees_requests {
            let message = format!("`{kind}` cannot send a cohort: a name sees no headers");
            let help = "name the balancer that has the route of these requests";
            decoder.error(codes::COHORT_BY_NAME, span(&target.at), message, help);
        } else if whole.iter().any(|other| other.adapter == target.adapter) {
            let message =
                format!("this sets the weights of `{whole_name}` itself, not those of `{name}`");
            let help =
                "give the route of these requests weights of its own, such as a backend of its own";
            decoder.error(codes::COHORT, span(&target.at), message, help);
        }
    }
}

/// A region and its cohorts share their slots: whatever is promoted in one of them has to be in the others.
pub(super) fn check_pipeline(
    decoder: &mut Decoder,
    pipeline: &PipelineFile,
    fleet: &Fleet,
    service: &Service,
) {
    let named = |name: &RegionName| {
        let mut all = pipeline.stages.iter().flat_map(|stage| &stage.regions);
        all.find(|region| region.value == *name).map(|region| region.span)
    };
    for cohort in service.targets.keys() {
        let Some(whole) = fleet.cohort_of(cohort) else { continue };
        let (span, missing, why) = match (named(whole), named(cohort)) {
            (Some(span), None) => {
                (span, cohort, format!("its cohort `{cohort}` would stay on the old version"))
            }
            (None, Some(span)) => {
                (span, whole, format!("`{whole}` would stay on the old version in the same slots"))
            }
            _ => continue,
        };
        let message = format!("no stage names `{missing}`: {why}");
        let help = format!(
            "name `{missing}` in a stage too: a region and its cohorts end at 100 % together"
        );
        decoder.error(codes::COHORT_LEFT_OUT, span, message, help);
    }
}

/// A selector that reads the same for a region and its cohort mixes both into one number.
pub(super) fn check_selector(
    decoder: &mut Decoder,
    selector: &Spanned<String>,
    regions: &Regions,
    bound: &BTreeMap<&RegionName, Arms>,
) {
    for (name, arms) in bound {
        let Some(cohort) = regions.get(*name) else { continue };
        let Some((whole_name, whole)) = whole_of(cohort, regions) else { continue };
        if has_same_source(cohort, whole) && bound.get(whole_name) == Some(arms) {
            let message = format!("this reads the same for `{whole_name}` and its cohort `{name}`");
            decoder.error(codes::COHORT_NUMBERS, selector.span, message, NUMBERS_HELP);
        }
    }
}

/// Windows and freezes of a region are those of its cohorts as well.
pub(super) fn extend_calendar(policy: &mut Policy, fleet: &Fleet) {
    let windows = policy.windows.iter_mut().map(|window| &mut window.regions);
    let freezes = policy.freezes.iter_mut().map(|freeze| &mut freeze.regions);
    for regions in windows.chain(freezes).flatten() {
        let is_concerned = |(_, it): &(_, &Region)| {
            it.cohort_of.as_ref().is_some_and(|whole| regions.contains(whole))
        };
        let more: Vec<_> =
            fleet.regions.iter().filter(is_concerned).map(|(name, _)| name.clone()).collect();
        regions.extend(more);
    }
}

fn whole_of<'a>(cohort: &Region, regions: &'a Regions) -> Option<(&'a RegionName, &'a Region)> {
    regions.get_key_value(cohort.cohort_of.as_ref()?)
}

/// Numbers from different places are different numbers, however they are spelled.
fn has_same_source(cohort: &Region, whole: &Region) -> bool {
    cohort.metrics == whole.metrics
}

/// What selectors may be bound to; `$region` is the name where no label says otherwise.
fn spells((name, region): (&RegionName, &Region)) -> BTreeMap<String, String> {
    let mut labels = region.labels.clone();
    labels.entry("region".to_owned()).or_insert_with(|| name.to_string());
    labels
}

fn span(at: &Location) -> Span {
    Span { line: at.line, column: at.column, length: 1 }
}
