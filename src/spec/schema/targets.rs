//! The load balancers of a service.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::fleet::{BasicBody, SecretBody};

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TargetBody {
    name: String,
    envoy: Option<EnvoyBody>,
    haproxy: Option<HaproxyBody>,
    envoy_file: Option<EnvoyFileBody>,
    caddy: Option<CaddyBody>,
    nginx: Option<NginxBody>,
    traefik: Option<TraefikBody>,
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

/// Two upstreams of a `reverse_proxy` handler of Caddy, by its admin API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CaddyBody {
    /// Base URL of the admin API.
    admin: String,
    /// The handler's `@id`.
    id: String,
    /// Slot to dial address.
    upstreams: BTreeMap<String, String>,
    /// Caddy is started with `--resume`; default false.
    persisted: Option<bool>,
}

/// A variable of nginx that holds the name of an upstream, by an included file that Tidegate writes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NginxBody {
    /// The included file; nobody else writes it.
    include: String,
    /// For example `$web_pool`.
    variable: String,
    /// What decides who goes where; default `$request_id`.
    key: Option<String>,
    /// Slot to upstream.
    upstreams: BTreeMap<String, String>,
    /// The location that shows what is in force.
    status: String,
    /// Default `nginx -t -q`.
    test: Option<Vec<String>>,
    /// Default `nginx -s reload`.
    reload: Option<Vec<String>>,
}

/// A weighted service of Traefik over two services, by a file of its file provider that Tidegate writes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TraefikBody {
    /// The file, in a folder that Traefik watches; nobody else writes it.
    path: String,
    /// The weighted service, without `@file`.
    service: String,
    /// Slot to service.
    services: BTreeMap<String, String>,
    /// Base URL of Traefik's API.
    api: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
}
