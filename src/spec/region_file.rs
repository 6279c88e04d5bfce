//! Regions of the fleet file, and cohorts: slices of a region's traffic that say only what is different about them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::codes;
use super::decode::{Decoder, Fields, Spanned, nearest};
use super::file::{Node, Span, Value};
use super::fleet::{MetricsSource, Probe, Prometheus, Region, Scrape, ScrapeEndpoint};
use super::fleet_file::{REGIONS_MAX, decode_auth, decode_url, named};
use crate::units::{Millis, RegionName, Weight};

/// What an entry says by itself.
struct Said {
    span: Span,
    cohort_of: Option<Spanned<RegionName>>,
    share: Option<Weight>,
    role: Option<String>,
    compliance: Option<Vec<String>>,
    instances: Option<u32>,
    labels: BTreeMap<String, String>,
    metrics: Option<MetricsSource>,
    poll: Option<Millis>,
    scrape_interval: Option<Millis>,
    settle: Option<Millis>,
    health: Option<Probe>,
    dns_lifetime: Option<Millis>,
    failover_within: Option<Millis>,
}

/// All regions and cohorts that can be told, and the names of all that stand there.
pub(super) fn decode(
    decoder: &mut Decoder,
    node: &Node,
) -> Option<(BTreeMap<RegionName, Region>, BTreeSet<RegionName>)> {
    let said = named(decoder, node, REGIONS_MAX, "regions", decode_said)?;
    let names = said.keys().cloned().collect();
    let whole = said.iter().filter(|(_, it)| it.cohort_of.is_none());
    let mut regions: BTreeMap<RegionName, Region> =
        whole.filter_map(|(name, it)| Some((name.clone(), region(decoder, it)?))).collect();
    for (name, it) in &said {
        let Some(whole) = &it.cohort_of else { continue };
        if is_region(decoder, name, whole, &said)
            && let Some(whole) = regions.get(&whole.value)
        {
            regions.insert(name.clone(), cohort(decoder, it, whole));
        }
    }
    Some((regions, names))
}

/// Whether a cohort's `cohort_of` is a region of the fleet; says so otherwise.
fn is_region(
    decoder: &mut Decoder,
    name: &RegionName,
    whole: &Spanned<RegionName>,
    said: &BTreeMap<RegionName, Said>,
) -> bool {
    let Spanned { value: whole, span } = whole;
    let regions = said.iter().filter(|(_, it)| it.cohort_of.is_none()).map(|(name, _)| name);
    let near = nearest(whole.as_str(), regions.map(RegionName::as_str));
    let help = near.map_or_else(
        || "name the region whose traffic it is a slice of".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    let message = match said.get(whole) {
        _ if name == whole => format!("`{name}` cannot be a cohort of itself"),
        None => format!("there is no region `{whole}`"),
        Some(Said { cohort_of: Some(further), .. }) => {
            let further = further.value.clone();
            let help = format!("`cohort_of: {further}`: a request is in one cohort at most");
            let message = format!("`{whole}` is a cohort itself");
            decoder.error(codes::COHORT, *span, message, help);
            return false;
        }
        Some(_) => return true,
    };
    decoder.error(codes::COHORT, *span, message, help);
    false
}

fn decode_said(decoder: &mut Decoder, _name: &RegionName, span: Span, node: &Node) -> Option<Said> {
    let mut fields = decoder.fields(node)?;
    fields.span = span;
    let cohort_of = fields.get(decoder, "cohort_of", |decoder, node| {
        Some(Spanned { value: decoder.name(node)?, span: node.span })
    });
    let is_cohort = fields.key_span("cohort_of").is_some();
    let share = match is_cohort {
        true => fields.get(decoder, "share", Decoder::weight),
        false => fields.require(decoder, "share", Decoder::weight),
    };
    let role = fields.get(decoder, "role", Decoder::text);
    let compliance =
        fields.get(decoder, "compliance", |decoder, node| decoder.each(node, Decoder::text));
    let instances =
        fields.get(decoder, "instances", |decoder, node| decoder.count(node, 1, 1_000_000));
    let labels = fields.get(decoder, "labels", Decoder::texts).unwrap_or_default();
    let prometheus =
        fields.get(decoder, "prometheus", decode_prometheus).map(MetricsSource::Prometheus);
    let scrape = fields.get(decoder, "scrape", decode_scrape).map(MetricsSource::Scrape);
    check_sources(decoder, &fields, is_cohort);
    let scrape_interval = fields.get(decoder, "scrape_interval", Decoder::positive);
    let poll = fields.get(decoder, "poll", Decoder::positive);
    let settle = fields.get(decoder, "settle", Decoder::duration);
    let health = fields.get(decoder, "health", decode_probe);
    let dns_lifetime = fields.get(decoder, "dns_lifetime", Decoder::duration);
    let failover_within = fields.get(decoder, "failover_within", Decoder::positive);
    fields.refuse(decoder, &[("coordinates", "remove it; regions are not placed on a map yet")]);
    fields.finish(decoder);
    // Nothing more can be said of one that is a cohort of nothing.
    if is_cohort && cohort_of.is_none() {
        return None;
    }
    Some(Said {
        span,
        cohort_of,
        share,
        role,
        compliance,
        instances,
        labels,
        metrics: prometheus.or(scrape),
        poll,
        scrape_interval,
        settle,
        health,
        dns_lifetime,
        failover_within,
    })
}

/// One source of numbers; a cohort may have its region's.
fn check_sources(decoder: &mut Decoder, fields: &Fields<'_>, is_cohort: bool) {
    let said = ["prometheus", "scrape"].map(|key| fields.key_span(key).is_some());
    let count = said.into_iter().filter(|said| *said).count();
    if count == 1 || (count == 0 && is_cohort) {
        return;
    }
    let message = match is_cohort {
        true => "a cohort has one of `prometheus` and `scrape`, or its region's",
        false => "a region needs exactly one of `prometheus` and `scrape`",
    };
    let help = "it says where the region's numbers come from";
    decoder.error(codes::MISSING_KEY, fields.span, message, help);
}

fn region(decoder: &Decoder, said: &Said) -> Option<Region> {
    let scrape_interval = said.scrape_interval.unwrap_or(Millis::from_secs(15));
    Some(Region {
        at: decoder.at(said.span),
        cohort_of: None,
        share: said.share?,
        role: said.role.clone(),
        compliance: said.compliance.clone().unwrap_or_default(),
        instances: said.instances,
        labels: said.labels.clone(),
        metrics: said.metrics.clone()?,
        poll: said.poll.unwrap_or(scrape_interval),
        scrape_interval,
        settle: said.settle.unwrap_or(scrape_interval),
        health: said.health.clone(),
        dns_lifetime: said.dns_lifetime,
        failover_within: said.failover_within,
    })
}

/// Its region, but for what it says itself. Its users are users of the region, so it has no share of its own unless said.
fn cohort(decoder: &Decoder, said: &Said, whole: &Region) -> Region {
    let whole = whole.clone();
    let mut labels = whole.labels;
    labels.extend(said.labels.clone());
    Region {
        at: decoder.at(said.span),
        cohort_of: said.cohort_of.as_ref().map(|whole| whole.value.clone()),
        share: said.share.unwrap_or_default(),
        role: said.role.clone().or(whole.role),
        compliance: said.compliance.clone().unwrap_or(whole.compliance),
        instances: said.instances.or(whole.instances),
        labels,
        metrics: said.metrics.clone().unwrap_or(whole.metrics),
        poll: said.poll.or(said.scrape_interval).unwrap_or(whole.poll),
        scrape_interval: said.scrape_interval.unwrap_or(whole.scrape_interval),
        settle: said.settle.or(said.scrape_interval).unwrap_or(whole.settle),
        health: said.health.clone().or(whole.health),
        dns_lifetime: said.dns_lifetime.or(whole.dns_lifetime),
        failover_within: said.failover_within.or(whole.failover_within),
    }
}

/// The shares of all regions, and of cohorts that say one, are those of all users.
pub(super) fn check_shares(decoder: &mut Decoder, regions: &BTreeMap<RegionName, Region>) {
    let sum: u32 = regions.values().map(|region| u32::from(region.share.hundredths())).sum();
    // Thirds written with two digits miss a hundredth each.
    let slack = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let Some(first) = regions.values().min_by_key(|region| region.at.line) else { return };
    if sum.abs_diff(10_000) > slack && !decoder.problems.has_errors() {
        let span = Span { line: first.at.line, column: first.at.column, length: 1 };
        let message =
            format!("the shares of all regions sum to {} %, not 100 %", f64::from(sum) / 100.0);
        decoder.error(codes::SHARES, span, message, "a share is the region's part of all users");
    }
}

fn decode_prometheus(decoder: &mut Decoder, node: &Node) -> Option<Prometheus> {
    let mut fields = decoder.fields(node)?;
    let url = fields.require(decoder, "url", decode_url);
    let auth = decode_auth(decoder, &mut fields);
    let ca = fields.get(decoder, "ca", Decoder::text).map(PathBuf::from);
    let timeout =
        fields.get(decoder, "timeout", Decoder::positive).unwrap_or(Millis::from_secs(10));
    let bytes_max = decode_bytes(decoder, &mut fields);
    let aggregated = fields.get(decoder, "aggregated", Decoder::truth).unwrap_or(false);
    fields.finish(decoder);
    Some(Prometheus { url: url?, auth, ca, timeout, bytes_max, aggregated })
}

fn decode_scrape(decoder: &mut Decoder, node: &Node) -> Option<Scrape> {
    let mut fields = decoder.fields(node)?;
    let endpoints = fields.require(decoder, "endpoints", |decoder, node| {
        let endpoints = decoder.each(node, decode_endpoint)?;
        if matches!(&node.value, Value::List(list) if list.is_empty() || list.len() > 1_000) {
            decoder.error(codes::INVALID_VALUE, node.span, "expected 1 to 1,000 endpoints", "");
        }
        Some(endpoints)
    });
    let auth = decode_auth(decoder, &mut fields);
    let timeout = fields.get(decoder, "timeout", Decoder::positive).unwrap_or(Millis::from_secs(5));
    let bytes_max = decode_bytes(decoder, &mut fields);
    fields.finish(decoder);
    Some(Scrape { endpoints: endpoints?, auth, timeout, bytes_max })
}

fn decode_endpoint(decoder: &mut Decoder, node: &Node) -> Option<ScrapeEndpoint> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(ScrapeEndpoint { url: decode_url(decoder, node)?, labels: BTreeMap::new() });
    }
    let mut fields = decoder.fields(node)?;
    let url = fields.require(decoder, "url", decode_url);
    let labels = fields.get(decoder, "labels", Decoder::texts).unwrap_or_default();
    fields.finish(decoder);
    Some(ScrapeEndpoint { url: url?, labels })
}

fn decode_bytes(decoder: &mut Decoder, fields: &mut Fields<'_>) -> u64 {
    let bytes =
        fields.get(decoder, "max_bytes", |decoder, node| decoder.whole(node, 1_024, 1 << 30));
    bytes.unwrap_or(16 << 20)
}

fn decode_probe(decoder: &mut Decoder, node: &Node) -> Option<Probe> {
    let mut fields = decoder.fields(node)?;
    let url = fields.get(decoder, "url", decode_url);
    let interval =
        fields.get(decoder, "interval", Decoder::positive).unwrap_or(Millis::from_secs(5));
    let failures =
        fields.get(decoder, "failures", |decoder, node| decoder.count(node, 1, 100)).unwrap_or(3);
    let successes =
        fields.get(decoder, "successes", |decoder, node| decoder.count(node, 1, 100)).unwrap_or(2);
    let timeout = fields.get(decoder, "timeout", Decoder::positive);
    let at = decoder.at(fields.key_span("interval").unwrap_or(node.span));
    fields.finish(decoder);
    let timeout = timeout.unwrap_or(Millis::from_secs(2).min(interval));
    Some(Probe { at, url, interval, failures, successes, timeout })
}

/// Whether `share` is that of a largest region while a smaller one exists. Cohorts are no regions to begin with.
pub(super) fn is_largest(share: Weight, regions: &BTreeMap<RegionName, Region>) -> bool {
    let mut shares = regions.values().filter(|it| it.cohort_of.is_none()).map(|it| it.share);
    shares.clone().all(|other| other <= share) && shares.any(|other| other < share)
}
