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
    aws_alb: Option<AwsAlbBody>,
    route53: Option<Route53Body>,
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
