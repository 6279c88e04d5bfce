//! The load balancers of a service.

use std::collections::BTreeMap;

use schemars::JsonSchema;

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TargetBody {
    name: String,
    envoy: Option<EnvoyBody>,
    haproxy: Option<HaproxyBody>,
    envoy_file: Option<EnvoyFileBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EnvoyBody {
    route: String,
    /// Default `<route>.yaml`.
    route_file: Option<String>,
    clusters: BTreeMap<String, String>,
    /// Default: the region's name.
    node_cluster: Option<String>,
    min_instances: Option<u32>,
    forget_after: Option<String>,
    admin: Option<Vec<String>>,
}

/// Two servers of an HAProxy backend, by its runtime API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HaproxyBody {
    /// A path, or an address and port.
    socket: String,
    backend: String,
    /// Slot to server.
    servers: BTreeMap<String, String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EnvoyFileBody {
    route: String,
    path: String,
    clusters: BTreeMap<String, String>,
    admin: Vec<String>,
}
