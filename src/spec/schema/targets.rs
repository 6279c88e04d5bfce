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
    envoy_runtime: Option<EnvoyRuntimeBody>,
    http: Option<OwnHttpBody>,
    exec: Option<OwnProgramBody>,
    caddy: Option<CaddyBody>,
    nginx: Option<NginxBody>,
    traefik: Option<TraefikBody>,
    traefik_http: Option<TraefikHttpBody>,
    kubernetes: Option<KubernetesBody>,
    aws_alb: Option<AwsAlbBody>,
    route53: Option<Route53Body>,
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

/// Weights of Envoys, overridden at their admin ports.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EnvoyRuntimeBody {
    route: String,
    /// `runtime_key_prefix` of the weighted clusters.
    prefix: String,
    clusters: BTreeMap<String, String>,
    admin: Vec<String>,
}

/// An endpoint of your own: PUT what is wanted, GET what is.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OwnHttpBody {
    url: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
    /// Its largest weight, if it has whole weights; default: every hundredth of a percent.
    weight_max: Option<u32>,
    /// Its weights outlive its restart; default false.
    keeps_weights: Option<bool>,
    /// It keeps the generation and refuses an older one; default false.
    keeps_generation: Option<bool>,
    /// It can copy requests to a slot.
    copies: Option<bool>,
}

/// A program of your own: one JSON document in, one out.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OwnProgramBody {
    /// The program and its arguments; there is no shell.
    command: Vec<String>,
    /// Longest time of one call; default 5s.
    timeout: Option<String>,
    weight_max: Option<u32>,
    keeps_weights: Option<bool>,
    keeps_generation: Option<bool>,
    /// It can copy requests to a slot.
    copies: Option<bool>,
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

/// A weighted service of Traefik over two services, fetched from Tidegate by Traefik's HTTP provider.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TraefikHttpBody {
    /// The weighted service, without `@http`.
    service: String,
    /// Slot to service, with its provider: `web-blue@file`.
    services: BTreeMap<String, String>,
    /// Base URL of Traefik's API.
    api: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
    /// The slot that everybody is sent to while nothing is recorded and Traefik has no weights; default: the first one.
    begin: Option<String>,
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

/// Two target groups in a forward action of AWS's application load balancer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AwsAlbBody {
    region: String,
    /// The ARN of a listener's rule; this or `listener`.
    rule: Option<String>,
    /// The ARN of a listener, for its default action.
    listener: Option<String>,
    /// Slot to ARN.
    target_groups: BTreeMap<String, String>,
    /// Another address than AWS's own; plain http on this machine only.
    endpoint: Option<String>,
    /// Of AWS's own configuration files.
    profile: Option<String>,
    credentials: Option<AwsCredentialsBody>,
}

/// Two weighted record sets of Amazon Route 53.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Route53Body {
    /// The id of the hosted zone.
    zone: String,
    name: String,
    /// `A`, `AAAA` or `CNAME`.
    r#type: String,
    /// Slot to set identifier.
    set_identifiers: BTreeMap<String, String>,
    /// Default `us-east-1`, where the API is.
    region: Option<String>,
    /// Another address than AWS's own; plain http on this machine only.
    endpoint: Option<String>,
    /// Of AWS's own configuration files.
    profile: Option<String>,
    credentials: Option<AwsCredentialsBody>,
}

/// Keys, instead of what AWS's default chain finds.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AwsCredentialsBody {
    access_key: SecretBody,
    secret_key: SecretBody,
    session_token: Option<SecretBody>,
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
