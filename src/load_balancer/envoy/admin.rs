//! What an Envoy says of itself on its admin port: routes in force, backends, start time. Only asks, never changes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::join_all;
use serde::Deserialize;
use serde_yaml::Value;

use super::http::{self, Get};
use super::reading::Seen;
use super::{Pair, marker, route};
use crate::ports::Backends;
use crate::units::{SlotName, shown};

/// The admin ports of one target's Envoys.
#[derive(Debug)]
pub struct Admin {
    envoys: Vec<Envoy>,
    /// Where the runtime may override the weights of a route: by which prefix.
    prefix: Option<String>,
}

#[derive(Debug)]
struct Envoy {
    address: String,
    get: Get,
    /// What does not change while it runs, kept so that an Envoy out of reach does not look restarted.
    last: Mutex<Identity>,
}

/// Which process of which node answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Identity {
    node: Option<String>,
    started: Option<String>,
}

/// All that the Envoys say.
#[derive(Debug)]
pub struct View {
    /// By instance, in the order of the addresses; those out of reach included.
    pub seen: Vec<Seen>,
    /// By slot, the worst instance's; `None` when no instance told.
    pub backends: Option<BTreeMap<SlotName, Backends>>,
    /// Changes when any of them restarts.
    pub restart_marker: Option<String>,
}

impl Admin {
    /// For the addresses of the fleet file.
    pub fn new(addresses: &[String]) -> Result<Self, http::Error> {
        let envoy = |address: &String| {
            Ok(Envoy { address: address.clone(), get: Get::new(address)?, last: Mutex::default() })
        };
        let envoys = addresses.iter().map(envoy).collect::<Result<_, _>>()?;
        Ok(Self { envoys, prefix: None })
    }

    /// For routes whose weights the runtime may override; whoever asks looks at the runtime as well.
    #[must_use]
    pub fn overridden(self, prefix: &str) -> Self {
        Self { prefix: Some(prefix.to_owned()), ..self }
    }

    /// The weights in force at each Envoy, all asked at once.
    pub async fn routes(&self, route: &str, pair: &Pair) -> Vec<Seen> {
        join_all(self.envoys.iter().map(|envoy| envoy.route(route, pair, self.prefix.as_deref())))
            .await
    }

    /// Everything, all asked at once. Instances carry their node's id where they tell it, else their address.
    pub async fn view(&self, route: &str, pair: &Pair) -> View {
        let each = self.envoys.iter().map(async |envoy| {
            let identity = envoy.identify().await;
            let mut seen = envoy.route(route, pair, self.prefix.as_deref()).await;
            if let Some(node) = &identity.node {
                seen.name.clone_from(node);
            }
            (seen, envoy.backends(pair).await, identity.started)
        });
        let mut seen = Vec::new();
        let mut backends = Vec::new();
        let mut started = Vec::new();
        for (one, pools, start) in join_all(each).await {
            started.push(start.map(|start| format!("{}={start}", one.name)));
            seen.push(one);
            backends.extend(pools);
        }
        let restart_marker =
            started.into_iter().collect::<Option<Vec<_>>>().map(|all| all.join(" "));
        View {
            seen,
            backends: worst(backends),
            restart_marker: restart_marker.filter(|text| !text.is_empty()),
        }
    }
}

/// Per slot the fewest healthy, with that instance's total.
fn worst(views: Vec<BTreeMap<SlotName, Backends>>) -> Option<BTreeMap<SlotName, Backends>> {
    views.into_iter().reduce(|mut all, view| {
        for (slot, backends) in view {
            let kept = all.entry(slot).or_insert(backends);
            if backends.healthy < kept.healthy {
                *kept = backends;
            }
        }
        all
    })
}

impl Envoy {
    async fn route(&self, route: &str, pair: &Pair, prefix: Option<&str>) -> Seen {
        // Only plain names are safe inside the query's regular expression; others are picked out of the whole answer.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let filter =
            if route.bytes().all(plain) { format!("&name_regex=^{route}$") } else { String::new() };
        let name = self.name();
        let mut problem = "shows no such route".to_owned();
        // Routes come over the network or from a file, or stand in the configuration itself.
        for kind in ["dynamic_route_configs", "static_route_configs"] {
            let path = format!("/config_dump?resource={kind}{filter}");
            match self.get.get(&path).await {
                Ok(dump) => match read_dump(&dump, route, pair, prefix) {
                    Ok((splits, generation)) => {
                        return Seen { name, splits, generation, connected: true, problem: None };
                    }
                    Err(what) => problem = what,
                },
                // Envoy answers so when it has no routes of that kind at all.
                Err(http::Error::Status(404)) => {}
                Err(error) => return Seen::problem(name, false, error.to_string()),
            }
        }
        Seen::problem(name, true, problem)
    }

    fn name(&self) -> String {
        let last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.node.clone().unwrap_or_else(|| self.address.clone())
    }

    async fn identify(&self) -> Identity {
        let path = "/config_dump?mask=last_updated,bootstrap.node.id";
        let found = self.get.get(path).await.ok().and_then(|body| read_identity(&body));
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(identity) = found {
            *last = identity;
        }
        last.clone()
    }

    async fn backends(&self, pair: &Pair) -> Option<BTreeMap<SlotName, Backends>> {
        let body = self.get.get("/clusters?format=json").await.ok()?;
        read_backends(&body, pair)
    }
}

/// Every weighted list of the route, and its generation.
fn read_dump(
    body: &[u8],
    name: &str,
    pair: &Pair,
    prefix: Option<&str>,
) -> Result<(Vec<crate::ports::Split>, Option<crate::units::Generation>), String> {
    #[derive(Deserialize)]
    struct Dump {
        #[serde(default)]
        configs: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        version_info: String,
        route_config: Option<Value>,
    }
    let dump: Dump =
        serde_json::from_slice(body).map_err(|_| "answer is not a configuration dump")?;
    let named = |entry: &Entry| {
        let route = entry.route_config.as_ref();
        route.and_then(|route| route.get("name")).and_then(Value::as_str) == Some(name)
    };
    let entry = dump
        .configs
        .into_iter()
        .find(named)
        .ok_or_else(|| format!("shows no route `{}`", shown(name)))?;
    let mut route = entry.route_config.unwrap_or_default();
    if let Some(prefix) = prefix {
        route::without_prefix(&mut route, pair, prefix).map_err(|error| error.to_string())?;
    }
    let splits = route::splits(&route, pair).map_err(|error| error.to_string())?;
    let generation =
        marker::read(&route, pair).or_else(|| marker::read_version(&entry.version_info, pair));
    Ok((splits, generation))
}

fn read_identity(body: &[u8]) -> Option<Identity> {
    let dump: Value = serde_json::from_slice(body).ok()?;
    let bootstrap = dump.get("configs")?.as_sequence()?.iter().find(|config| {
        let kind = config.get("@type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with(".BootstrapConfigDump"))
    })?;
    let text = |value: &Value| value.as_str().map(shown);
    let node = bootstrap.get("bootstrap").and_then(|value| value.get("node")?.get("id"));
    Some(Identity {
        node: node.and_then(text).filter(|node| !node.is_empty()),
        started: bootstrap.get("last_updated").and_then(text),
    })
}

fn read_backends(body: &[u8], pair: &Pair) -> Option<BTreeMap<SlotName, Backends>> {
    #[derive(Deserialize)]
    struct Clusters {
        cluster_statuses: Vec<Cluster>,
    }
    #[derive(Deserialize)]
    struct Cluster {
        name: String,
        #[serde(default)]
        host_statuses: Vec<Host>,
    }
    #[derive(Deserialize)]
    struct Host {
        #[serde(default)]
        health_status: BTreeMap<String, serde_json::Value>,
    }
    let clusters: Clusters = serde_json::from_slice(body).ok()?;
    let healthy = |host: &&Host| {
        host.health_status.iter().all(|(key, value)| match value {
            serde_json::Value::String(status) => {
                key != "eds_health_status"
                    || matches!(status.as_str(), "HEALTHY" | "UNKNOWN" | "DEGRADED")
            }
            // `failed_active_health_check`, `failed_outlier_check`, `pending_active_hc`, ...: true is bad news.
            serde_json::Value::Bool(set) => !set || key == "failed_active_degraded_check",
            _ => true,
        })
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let pools = pair.slots().iter().zip(pair.names()).map(|(slot, name)| {
        let hosts = clusters.cluster_statuses.iter().find(|cluster| cluster.name == *name);
        let hosts = hosts.map(|cluster| cluster.host_statuses.as_slice()).unwrap_or_default();
        let backends = Backends {
            healthy: count(hosts.iter().filter(healthy).count()),
            total: count(hosts.len()),
        };
        (slot.clone(), backends)
    });
    Some(pools.collect())
}

/// Reads any bytes as each of an Envoy's answers and as a route document.
#[cfg(feature = "fault-injection")]
pub fn read_anything(bytes: &[u8]) {
    let clusters = [("blue", "api-blue"), ("green", "api-green")];
    let named = |(slot, cluster): (&str, &str)| Some((slot.parse().ok()?, cluster.to_owned()));
    let Ok(pair) = Pair::new(&clusters.into_iter().filter_map(named).collect()) else { return };
    if let Ok((splits, _)) = read_dump(bytes, "web", &pair, None) {
        let whole = |split: &crate::ports::Split| {
            split.values().map(|weight| u32::from(weight.hundredths())).sum::<u32>() == 10_000
        };
        assert!(splits.iter().all(whole), "every split that is read sums to 100 %");
    }
    // Each is either understood or not; neither may panic.
    let _ = (read_identity(bytes), read_backends(bytes, &pair));
    let Ok(mut document) = std::str::from_utf8(bytes)
        .map_err(|_| ())
        .and_then(|text| route::parse(text).map_err(|_| ()))
    else {
        return;
    };
    let Ok(found) = route::find(&mut document, "web") else { return };
    let Some(half) = pair.split(1, 2) else { return };
    if route::set_split(found, &pair, &half).is_ok() {
        let splits = route::splits(found, &pair).unwrap_or_default();
        assert!(!splits.is_empty(), "what was set is read again");
        let _ = super::marker::write(found, &pair, crate::units::Generation(7));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};
    use crate::units::Generation;

    #[test]
    fn a_dump_gives_weights_and_generation() {
        let dump = br#"{"configs": [{"version_info": "api-blue/api-green=4", "route_config": {"name": "web",
            "virtual_hosts": [{"routes": [{"route": {"weighted_clusters": {"clusters": [
            {"name": "api-blue", "weight": 95}, {"name": "api-green", "weight": 5}]}}}]}]}}]}"#;
        assert_eq!(
            read_dump(dump, "web", &pair(), None),
            Ok((vec![split(5.0)], Some(Generation(4))))
        );
        assert!(read_dump(dump, "else", &pair(), None).unwrap_err().contains("no route `else`"));
        assert!(read_dump(b"<html>", "web", &pair(), None).is_err());
        assert!(read_dump(b"{}", "web", &pair(), None).is_err());
    }

    #[test]
    fn unhealthy_backends_do_not_count() {
        let body = br#"{"cluster_statuses": [{"name": "api-blue", "host_statuses": [
            {"health_status": {"eds_health_status": "HEALTHY"}},
            {"health_status": {"eds_health_status": "HEALTHY", "failed_active_health_check": true}},
            {"health_status": {"eds_health_status": "DRAINING"}}, {}]}]}"#;
        let pools = read_backends(body, &pair()).unwrap();
        assert_eq!(pools[&"blue".parse().unwrap()], Backends { healthy: 2, total: 4 });
        assert_eq!(pools[&"green".parse().unwrap()], Backends { healthy: 0, total: 0 });
    }

    #[test]
    fn the_worst_instance_counts() {
        let view =
            |healthy| BTreeMap::from([("blue".parse().unwrap(), Backends { healthy, total: 3 })]);
        let all = worst(vec![view(3), view(1), view(2)]).unwrap();
        assert_eq!(all[&"blue".parse().unwrap()].healthy, 1);
        assert_eq!(worst(Vec::new()), None);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let body = br#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": {"node": {"id": "edge-1"}}, "last_updated": "2026-01-02T03:04:05.678Z"}]}"#;
        let started = Some("2026-01-02T03:04:05.678Z".to_owned());
        assert_eq!(
            read_identity(body),
            Some(Identity { node: Some("edge-1".to_owned()), started })
        );
        assert_eq!(read_identity(b"[]"), None);
    }
}
