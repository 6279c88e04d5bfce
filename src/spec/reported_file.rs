//! Numbers about regions that `/metrics` tells, as the fleet file asks for them.

use std::collections::{BTreeMap, BTreeSet};

use super::codes;
use super::decode::{Decoder, nearest};
use super::file::{Node, Value};
use super::fleet::Reported;
use super::selector;
use crate::units::{RegionName, shown};

/// Numbers of each region.
const REGIONAL: [&str; 5] = [
    "service_availability_per_region",
    "cross_region_latency",
    "data_replication_lag",
    "regional_error_rates",
    "capacity_utilization_per_region",
];
/// Numbers of the whole fleet, asked of one region's source.
const GLOBAL: [&str; 4] = [
    "total_system_availability",
    "global_user_experience_score",
    "cross_region_failover_success_rate",
    "disaster_recovery_readiness",
];

/// By name: `{promql: ...}`, with a `source` for a number about the whole fleet.
pub(super) fn decode(
    decoder: &mut Decoder,
    node: &Node,
    regions: &BTreeSet<RegionName>,
) -> Option<BTreeMap<String, Reported>> {
    let Value::Map(entries) = &node.value else {
        let _ = decoder.fields(node);
        return None;
    };
    let mut reported = BTreeMap::new();
    for (key, node) in entries {
        let name = key.text.as_str();
        let is_global = GLOBAL.contains(&name);
        if !is_global && !REGIONAL.contains(&name) {
            let known = || REGIONAL.into_iter().chain(GLOBAL);
            let near = nearest(name, known());
            let names = known().collect::<Vec<_>>().join(", ");
            let help =
                near.map_or(format!("there are: {names}"), |it| format!("did you mean `{it}`?"));
            let message = format!("`{}` is no number that is told", shown(name));
            decoder.error(codes::UNKNOWN_KEY, key.span, message, help);
            continue;
        }
        let Some(mut fields) = decoder.fields(node) else { continue };
        fields.span = key.span;
        let promql = fields.require(decoder, "promql", |decoder, node| {
            let text = decoder.text(node)?;
            match selector::check(&text) {
                Ok(_) => Some(text),
                Err(error) => {
                    decoder.error(codes::INVALID_VALUE, node.span, error.to_string(), "");
                    None
                }
            }
        });
        let region = fields.get(decoder, "source", Decoder::name::<RegionName>);
        let unknown = region.as_ref().is_some_and(|region| !regions.contains(region));
        if unknown || fields.key_span("source").is_some() != is_global {
            let help = "a number about the whole fleet names as `source` the region whose numbers are asked, and no other does";
            decoder.error(codes::INVALID_VALUE, key.span, "which source is asked?", help);
        }
        fields.finish(decoder);
        reported.extend(promql.map(|promql| (name.to_owned(), Reported { promql, region })));
    }
    Some(reported)
}
