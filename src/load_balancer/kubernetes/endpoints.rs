//! How many pods of each slot may get traffic, where we may look.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::Pair;
use super::api_server::ApiServer;
use crate::ports::{Backends, LoadBalancerError, Outcome};
use crate::spec::fleet::{HttpRoute, VirtualService};
use crate::units::SlotName;

type BySlot = BTreeMap<SlotName, Backends>;

/// Objects of one answer, and most answers that are asked for.
const PAGE: &str = "50";
const PAGES_MAX: usize = 20;

/// Counts the endpoints of both Services; `None` where we may not.
pub async fn of_services(
    server: &ApiServer,
    route: &HttpRoute,
    pair: &Pair,
) -> Result<Option<BySlot>, LoadBalancerError> {
    let mut counts = BySlot::new();
    for (slot, service) in pair.slots().iter().zip(pair.names()) {
        let Some(ready) = endpoints(server, &route.namespace, service).await? else {
            return Ok(None);
        };
        counts.insert(slot.clone(), counted(ready.values().copied()));
    }
    Ok(Some(counts))
}

/// Counts the endpoints of a Service by the subsets that the DestinationRule makes of it; `None` where we may not.
pub async fn of_subsets(
    server: &ApiServer,
    service: &VirtualService,
    host: &str,
    pair: &Pair,
) -> Result<Option<BySlot>, LoadBalancerError> {
    let Some(name) = &service.destination_rule else { return Ok(None) };
    let namespace = &service.namespace;
    let rule =
        format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destinationrules/{name}");
    let rule = server.get(&rule).await?;
    // A short name is one of the same namespace.
    let mut parts = host.split('.');
    let (host, of) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(namespace));
    let Some(ready) = endpoints(server, of, host).await? else { return Ok(None) };
    let mut counts = BySlot::new();
    for (slot, subset) in pair.slots().iter().zip(pair.names()) {
        let labels = labels(&rule, subset).ok_or_else(|| {
            let what = format!("destination rule `{name}` has no subset `{subset}` with labels");
            server.failure(what, Outcome::Misconfigured)
        })?;
        let path = format!("/api/v1/namespaces/{of}/pods");
        let Some(pods) = all(server, &path, &labels, true).await? else { return Ok(None) };
        let name = |pod: &Value| pod.pointer("/metadata/name")?.as_str().map(str::to_owned);
        let pods: BTreeSet<_> = pods.iter().filter_map(name).collect();
        let own = ready.iter().filter(|(pod, _)| pods.contains(*pod));
        counts.insert(slot.clone(), counted(own.map(|(_, is_ready)| *is_ready)));
    }
    Ok(Some(counts))
}

fn counted(ready: impl Iterator<Item = bool>) -> Backends {
    let mut counts = Backends { healthy: 0, total: 0 };
    for is_ready in ready {
        counts.total += 1;
        counts.healthy += u32::from(is_ready);
    }
    counts
}

/// `k=v,k=v`
fn labels(rule: &Value, subset: &str) -> Option<String> {
    let subsets = rule.pointer("/spec/subsets")?.as_array()?;
    let found = subsets.iter().find(|it| it.get("name").and_then(Value::as_str) == Some(subset))?;
    let labels = found.get("labels")?.as_object().filter(|labels| !labels.is_empty())?;
    let pairs = labels.iter().map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    Some(pairs.collect::<Option<Vec<_>>>()?.join(","))
}

/// By pod, or by address where it is no pod, whether it is ready. A pod with two addresses stands in two slices.
async fn endpoints(
    server: &ApiServer,
    namespace: &str,
    service: &str,
) -> Result<Option<BTreeMap<String, bool>>, LoadBalancerError> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let labels = format!("kubernetes.io/service-name={service}");
    let Some(slices) = all(server, &path, &labels, false).await? else { return Ok(None) };
    let mut ready = BTreeMap::new();
    let listed = |slice: &Value| slice.get("endpoints").and_then(Value::as_array).cloned();
    for endpoint in slices.iter().filter_map(listed).flatten() {
        let name = endpoint.pointer("/targetRef/name").or(endpoint.pointer("/addresses/0"));
        let Some(name) = name.and_then(Value::as_str) else { continue };
        // What is not said is ready, by the API's own words.
        let is_ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool);
        *ready.entry(name.to_owned()).or_insert(false) |= is_ready.unwrap_or(true);
    }
    Ok(Some(ready))
}

/// All objects with these labels; `None` where we may not look.
async fn all(
    server: &ApiServer,
    path: &str,
    labels: &str,
    metadata_alone: bool,
) -> Result<Option<Vec<Value>>, LoadBalancerError> {
    let (mut found, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let path = format!("{path}?{}", query(labels, &next));
        let Some(mut page) = server.list(&path, metadata_alone).await? else { return Ok(None) };
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            found.extend(items);
        }
        let more = page.pointer("/metadata/continue").and_then(Value::as_str);
        next = more.unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    Ok(Some(found))
}

fn query(labels: &str, next: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("labelSelector", labels).append_pair("limit", PAGE);
    if !next.is_empty() {
        query.append_pair("continue", next);
    }
    query.finish()
}
