//! The load balancers of a service.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::fleet::SecretBody;

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TargetBody {
    name: String,
    envoy: Option<EnvoyBody>,
    haproxy: Option<HaproxyBody>,
    envoy_file: Option<EnvoyFileBody>,
    powerdns: Option<PowerDnsBody>,
    rfc2136: Option<Rfc2136Body>,
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

/// A name whose addresses PowerDNS picks by weight, set by its HTTP API.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PowerDnsBody {
    /// `http://10.0.0.53:8081`, without `/api/v1`.
    api: String,
    /// The API key.
    key: SecretBody,
    /// Default `localhost`, which is what PowerDNS calls itself.
    server: Option<String>,
    zone: String,
    name: String,
    /// `A` (the default) or `AAAA`.
    r#type: Option<String>,
    /// Whole seconds up to a day; default `5s`.
    ttl: Option<String>,
    /// Slot to its addresses.
    addresses: BTreeMap<String, Vec<String>>,
    /// Address and port of a name server that is asked as well when reading back.
    resolver: Option<String>,
}

/// A name at a name server that takes dynamic updates, signed with HMAC-SHA256; exactly one of `srv` and `address`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rfc2136Body {
    /// Host and port of the zone's primary.
    server: String,
    zone: String,
    name: String,
    /// Whole seconds up to a day; default `5s`.
    ttl: Option<String>,
    key: TsigKeyBody,
    /// Slot to service, with weights.
    srv: Option<BTreeMap<String, SrvTargetBody>>,
    /// Slot to addresses, all or nothing.
    address: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TsigKeyBody {
    name: String,
    /// In base64.
    secret: SecretBody,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SrvTargetBody {
    target: String,
    port: u16,
}
