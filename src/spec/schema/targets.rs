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
    kubernetes: Option<KubernetesBody>,
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

/// Weights in an object of a Kubernetes API: exactly one of `http_route`, `virtual_service`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct KubernetesBody {
    /// The kubeconfig's context; default: its current one.
    context: Option<String>,
    /// Default: `$KUBECONFIG`, then the user's own, then the service account of the pod.
    kubeconfig: Option<String>,
    /// Default `tidegate`.
    field_manager: Option<String>,
    http_route: Option<HttpRouteBody>,
    virtual_service: Option<VirtualServiceBody>,
}

/// An HTTPRoute of the Gateway API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpRouteBody {
    name: String,
    namespace: String,
    /// Its place or its name; default: every rule that has both backends.
    rule: Option<RuleBody>,
    /// Slot to Service.
    backends: BTreeMap<String, String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RuleBody {
    Place(u32),
    Name(String),
}

/// A VirtualService of Istio; in whole percents.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct VirtualServiceBody {
    name: String,
    namespace: String,
    /// With it the pods of the subsets are counted.
    destination_rule: Option<String>,
    /// Name of the HTTP route; default: every one that has both subsets.
    http: Option<String>,
    /// Only destinations with this host.
    host: Option<String>,
    /// Slot to subset.
    subsets: BTreeMap<String, String>,
}
