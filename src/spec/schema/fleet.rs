//! The fleet file.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::PercentText;
use super::targets::TargetBody;

/// The fleet: what the operator owns.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FleetDocument {
    /// Where Tidegate keeps its state; default `.tidegate`.
    state: Option<String>,
    regions: BTreeMap<String, RegionBody>,
    services: BTreeMap<String, ServiceBody>,
    checks: Option<BTreeMap<String, CheckBody>>,
    /// Where Envoys fetch their routes.
    xds: Option<ServedBody>,
    /// Where Traefiks fetch their weights, for `traefik_http`.
    traefik_provider: Option<ServedBody>,
    /// Who is told, by a name of your own.
    notify: Option<BTreeMap<String, NotifyBody>>,
    /// Who is told of a page, the first level at once, later ones while nobody acknowledges it.
    escalation: Option<Vec<LevelBody>>,
    /// Numbers about regions that `/metrics` tells.
    reported: Option<ReportedBody>,
    access: Option<AccessBody>,
    api: Option<ApiBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ReportedBody {
    service_availability_per_region: Option<Question>,
    cross_region_latency: Option<Question>,
    data_replication_lag: Option<Question>,
    regional_error_rates: Option<Question>,
    capacity_utilization_per_region: Option<Question>,
    total_system_availability: Option<Question>,
    global_user_experience_score: Option<Question>,
    cross_region_failover_success_rate: Option<Question>,
    disaster_recovery_readiness: Option<Question>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Question {
    /// One series of one value; `$region` is bound.
    promql: String,
    /// The region whose numbers are asked, for one about the whole fleet.
    source: Option<String>,
}

/// A level of the escalation.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LevelBody {
    /// Default: regional_operations, global_platform, executive_leadership, crisis_management.
    name: Option<String>,
    /// Default: 0, 5, 15 and 30 minutes.
    after: Option<String>,
    /// Names of `notify`.
    notify: Vec<String>,
    /// A region's own ones, instead.
    regions: Option<BTreeMap<String, Vec<String>>>,
}

/// Who may do what. Without it only the user who runs Tidegate, through its socket.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AccessBody {
    roles: BTreeMap<String, RoleBody>,
    /// People and machines; the name is the identity that approvals count.
    people: BTreeMap<String, PersonBody>,
    /// By region and role: all that the role still allows there.
    regions: Option<BTreeMap<String, BTreeMap<String, Vec<PermissionWord>>>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RoleBody {
    allow: Vec<PermissionWord>,
    /// Default: all.
    services: Option<Vec<String>>,
    /// Default: all.
    regions: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum PermissionWord {
    Read,
    Start,
    Promote,
    Approve,
    Pause,
    Resume,
    Rollback,
    Undo,
    Release,
    Adopt,
    Freeze,
    Review,
    Audit,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PersonBody {
    roles: Vec<String>,
    /// Their user id on this machine, for the socket.
    uid: Option<u32>,
    /// A DNS name or URI in their client certificate.
    certificate: Option<String>,
    github: Option<GithubJobBody>,
}

/// A job of GitHub Actions, by what its token says.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct GithubJobBody {
    repository_id: String,
    environment: String,
    job_workflow_ref: String,
}

/// Where the API is, beside the socket.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ApiBody {
    /// Address and port.
    listen: String,
    /// Names that clients call it by.
    hosts: Option<Vec<String>>,
    /// Needed beyond loopback.
    tls: Option<ApiTlsBody>,
    /// Tokens of GitHub Actions are taken.
    github: Option<GithubIssuerBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ApiTlsBody {
    certificate: String,
    key: SecretBody,
    client_ca: Option<String>,
    /// Certificates that no longer count.
    revoked: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct GithubIssuerBody {
    /// Default: GitHub's own.
    issuer: Option<String>,
    /// Whom the tokens must be for.
    audience: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RegionBody {
    /// The region of whose traffic this is a slice that a header or a cookie chooses; what is not said here is as there.
    cohort_of: Option<String>,
    /// Share of all users; default 0 for a cohort, needed for a region.
    share: Option<PercentText>,
    role: Option<String>,
    compliance: Option<Vec<String>>,
    instances: Option<u32>,
    /// How metrics spell this region; also further variables.
    labels: Option<BTreeMap<String, String>>,
    prometheus: Option<PrometheusBody>,
    scrape: Option<ScrapeBody>,
    /// Default: the scrape interval.
    poll: Option<String>,
    /// Default 15s.
    scrape_interval: Option<String>,
    /// Default: the scrape interval.
    settle: Option<String>,
    health: Option<ProbeBody>,
    dns_lifetime: Option<String>,
    failover_within: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PrometheusBody {
    url: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
    ca: Option<String>,
    timeout: Option<String>,
    max_bytes: Option<u64>,
    aggregated: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ScrapeBody {
    endpoints: Vec<EndpointBody>,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
    timeout: Option<String>,
    max_bytes: Option<u64>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum EndpointBody {
    Url(String),
    Object(EndpointObject),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EndpointObject {
    url: String,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BasicBody {
    username: String,
    password: SecretBody,
}

/// Where a secret is: exactly one of `env` and `file`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SecretBody {
    env: Option<String>,
    file: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ProbeBody {
    url: Option<String>,
    interval: Option<String>,
    failures: Option<u32>,
    successes: Option<u32>,
    timeout: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ServiceBody {
    owner: Option<String>,
    /// Default `observe`.
    authority: Option<AuthorityWord>,
    #[schemars(length(min = 2, max = 2))]
    slots: Vec<String>,
    /// Variables of selectors over `{version}`, `{slot}`, `{region}`, `{service}`, `{track}`.
    metrics: Option<BTreeMap<String, String>>,
    targets: BTreeMap<String, Vec<TargetBody>>,
    /// Users stay on the arm that they met first, where all load balancers can see to it.
    affinity: Option<AffinityBody>,
    /// The operator's own programs around a rollout.
    hooks: Option<HooksBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AffinityBody {
    /// A cookie that the service gives its users; or `header`.
    cookie: Option<String>,
    /// A request header that tells users apart.
    header: Option<String>,
    /// Requests that one user sends at most while one version is rolled out.
    requests_per_user: u32,
}

/// Exactly one way of telling.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NotifyBody {
    /// Only what somebody has to act on; default false, for PagerDuty true.
    pages_only: Option<bool>,
    webhook: Option<WebhookBody>,
    slack: Option<SlackBody>,
    pagerduty: Option<PagerDutyBody>,
    email: Option<EmailBody>,
    alertmanager: Option<AlertmanagerBody>,
    /// A program; `{text}` and `{key}` are arguments of their own.
    command: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WebhookBody {
    url: String,
    /// Key of the signature (HMAC-SHA256).
    secret: SecretBody,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SlackBody {
    /// The incoming webhook's URL, which is a secret.
    url: SecretBody,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PagerDutyBody {
    routing_key: SecretBody,
    url: Option<String>,
}

/// Over SMTP, with TLS unless the server is on loopback.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EmailBody {
    server: String,
    /// Default 587.
    port: Option<u16>,
    from: String,
    to: Vec<String>,
    login: Option<BasicBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AlertmanagerBody {
    url: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HooksBody {
    /// Puts the version into the idle slot, before the first stage.
    deploy: Option<HookBody>,
    /// Makes the final weights outlive the load balancer's own restart, before the promotion.
    persist: Option<HookBody>,
    /// Whatever has to happen right before the promotion.
    promote: Option<HookBody>,
    /// Takes the previous version out; `tidegate retire`.
    retire: Option<HookBody>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum HookBody {
    /// A program and its arguments; values are arguments of their own: `{region}`, `{slot}`, `{version}`, `{service}`,
    /// `{key}`.
    Command(Vec<String>),
    Long(Box<HookLong>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HookLong {
    run: HookRunBody,
    /// Asked before a try whose end is unknown is repeated.
    status: Option<HookRunBody>,
    /// Longest time of one try; default 10m.
    timeout: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum HookRunBody {
    Command(Vec<String>),
    Http(HookHttp),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HookHttp {
    url: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum AuthorityWord {
    Observe,
    RollbackOnly,
    Full,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CheckBody {
    http: Option<HttpCheckBody>,
    command: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpCheckBody {
    url: String,
    bearer: Option<SecretBody>,
    basic: Option<BasicBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ServedBody {
    /// Address and port, such as 127.0.0.1:18000.
    listen: String,
    /// Needed beyond loopback.
    tls: Option<MutualTlsBody>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MutualTlsBody {
    certificate: String,
    key: SecretBody,
    client_ca: String,
}
