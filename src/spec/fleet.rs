//! The fleet: what the operator owns. The only file that may hold URLs, commands and references to secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::access::{Access, Api};
use super::plan::{Authority, Hook, Location};
pub use super::targets::*;
use crate::units::{Millis, RegionName, ServiceName, SlotName, Weight};

/// The operator's file, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// The file as given.
    pub file: String,
    /// Where Tidegate keeps its state, relative to the working directory.
    pub state: PathBuf,
    /// At least one.
    pub regions: BTreeMap<RegionName, Region>,
    /// At least one.
    pub services: BTreeMap<ServiceName, Service>,
    /// HTTP and command checks that analyses name.
    pub checks: BTreeMap<String, FleetCheck>,
    /// Where Envoys fetch their routes; needed by `envoy` targets.
    pub xds: Option<Served>,
    /// Where Traefiks fetch their weights; needed by `traefik_http` targets.
    pub traefik_provider: Option<Served>,
    /// Who is told, by a name of the operator's.
    pub notify: BTreeMap<String, Notify>,
    /// Who is told of a page, and who later while nobody acknowledges it; empty: everybody at once.
    pub escalation: Vec<Level>,
    /// Numbers about regions that `/metrics` tells, by their names.
    pub reported: BTreeMap<String, Reported>,
    /// Who may do what.
    pub access: Access,
    /// Where the API is, beside the socket.
    pub api: Option<Api>,
}

impl Fleet {
    /// The region that a cohort is a slice of; none for a region itself.
    #[must_use]
    pub fn cohort_of(&self, name: &RegionName) -> Option<&RegionName> {
        self.regions.get(name)?.cohort_of.as_ref()
    }
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Notify {
    /// How.
    pub kind: NotifyKind,
    /// Only what somebody has to act on.
    pub pages_only: bool,
}

/// A way of telling.
#[derive(Debug, Clone, PartialEq)]
pub enum NotifyKind {
    /// POST of a signed CloudEvent.
    Webhook {
        /// Where.
        url: String,
        /// Key of the signature.
        secret: Secret,
    },
    /// A Slack incoming webhook, whose URL is the secret.
    Slack {
        /// Where.
        url: Secret,
    },
    /// PagerDuty's Events API.
    PagerDuty {
        /// Of the service there.
        routing_key: Secret,
        /// Where.
        url: String,
    },
    /// Alertmanager.
    Alertmanager {
        /// Its base URL.
        url: String,
    },
    /// An e-mail.
    Email(Email),
    /// A program; `{text}` and `{key}` are arguments of their own.
    Command(Vec<String>),
}

/// An e-mail, over SMTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Email {
    /// Host of the mail server; TLS is used unless it is on loopback.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// Sender.
    pub from: String,
    /// Receivers; at least one.
    pub to: Vec<String>,
    /// Name and password at the server.
    pub login: Option<(String, Secret)>,
}

/// A number that is asked of Prometheus.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// One series of one value; `$region` is bound.
    pub promql: String,
    /// Whose source is asked for a number about the whole fleet; none: every region's for its own.
    pub region: Option<RegionName>,
}

/// A level of the escalation.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// `regional_operations`, `global_platform`, ...
    pub name: String,
    /// After a page that nobody acknowledged.
    pub after: Millis,
    /// Names of targets.
    pub notify: Vec<String>,
    /// A region's own ones, instead.
    pub regions: BTreeMap<RegionName, Vec<String>>,
}

/// One region.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Where the file says it.
    pub at: Location,
    /// The region of whose traffic this is a slice, chosen by a header or a cookie; none for a region itself.
    pub cohort_of: Option<RegionName>,
    /// Share of all users; a cohort's own ones usually count in its region.
    pub share: Weight,
    /// `primary`, `secondary`, `regional`, ...; for people.
    pub role: Option<String>,
    /// Rules that apply there; for people and checks.
    pub compliance: Vec<String>,
    /// Instances of a service there, for capacity.
    pub instances: Option<u32>,
    /// Values for `$region` and further variables, as metrics spell them.
    pub labels: BTreeMap<String, String>,
    /// Where numbers come from.
    pub metrics: MetricsSource,
    /// How often metrics are polled.
    pub poll: Millis,
    /// How often the source itself scrapes.
    pub scrape_interval: Millis,
    /// Time after a confirmed weight before samples count.
    pub settle: Millis,
    /// How the region's health is probed.
    pub health: Option<Probe>,
    /// Lifetime of the DNS answers that lead there.
    pub dns_lifetime: Option<Millis>,
    /// How fast traffic is promised to leave a failed region.
    pub failover_within: Option<Millis>,
}

/// Where a region's numbers come from.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsSource {
    /// A Prometheus server.
    Prometheus(Prometheus),
    /// The listed `/metrics` endpoints themselves.
    Scrape(Scrape),
}

/// A Prometheus server (or one that speaks its API).
#[derive(Debug, Clone, PartialEq)]
pub struct Prometheus {
    /// Base URL.
    pub url: String,
    /// Credentials.
    pub auth: Option<Auth>,
    /// Extra certificate authority, PEM.
    pub ca: Option<PathBuf>,
    /// Longest time for one query.
    pub timeout: Millis,
    /// Most bytes of one answer.
    pub bytes_max: u64,
    /// Ask for sums over series (form D7), for services with too many series to read one by one.
    pub aggregated: bool,
}

/// Endpoints that Tidegate scrapes itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Scrape {
    /// URLs that answer in the Prometheus text format.
    pub endpoints: Vec<ScrapeEndpoint>,
    /// Credentials.
    pub auth: Option<Auth>,
    /// Longest time for one endpoint.
    pub timeout: Millis,
    /// Most bytes of one answer.
    pub bytes_max: u64,
}

/// One scraped endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeEndpoint {
    /// Where.
    pub url: String,
    /// Labels added to every series from there (an own `instance` label is always added).
    pub labels: BTreeMap<String, String>,
}

/// Credentials for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer`.
    Bearer(Secret),
    /// Name and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
}

/// Where a secret is; never the secret itself. Read again at each use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// An environment variable.
    Env(String),
    /// A file; surrounding white space is cut.
    File(PathBuf),
}

/// How health is probed: an HTTP GET that must answer 2xx.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Where the file says it.
    pub at: Location,
    /// What is asked.
    pub url: Option<String>,
    /// How often.
    pub interval: Millis,
    /// Failures in a row until unhealthy.
    pub failures: u32,
    /// Successes in a row until healthy again.
    pub successes: u32,
    /// Longest wait for an answer.
    pub timeout: Millis,
}

/// One service of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Where the file says it.
    pub at: Location,
    /// Team that owns it.
    pub owner: Option<String>,
    /// What Tidegate may do.
    pub authority: Authority,
    /// The two pools, under the operator's own names.
    pub slots: [SlotName; 2],
    /// Variables of selectors, per arm: value templates over `{version}`, `{slot}`, `{region}`, `{service}`, `{track}`.
    pub metrics: BTreeMap<String, String>,
    /// Load balancers per region; a region is confirmed when all of its targets are.
    pub targets: BTreeMap<RegionName, Vec<Target>>,
    /// Users stay on the arm that they met first.
    pub affinity: Option<Affinity>,
    /// The operator's own programs around a rollout.
    pub hooks: BTreeMap<Hook, FleetHook>,
}

/// A port at which load balancers fetch what they need from Tidegate.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// Address and port.
    pub listen: std::net::SocketAddr,
    /// Needed beyond loopback.
    pub tls: Option<MutualTls>,
}

/// Mutual TLS of such a port.
#[derive(Debug, Clone, PartialEq)]
pub struct MutualTls {
    /// Server certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: Secret,
    /// Authority of the clients' certificates, PEM.
    pub client_ca: PathBuf,
}

/// What a hook runs. Values take the place of whole arguments: `{service}`, `{region}`, `{slot}`, `{version}`, `{key}`.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetHook {
    /// What does it.
    pub run: HookRun,
    /// What tells whether it is done, asked before it is tried again; without one it is tried again.
    pub status: Option<HookRun>,
    /// Longest time of one try.
    pub timeout: Millis,
}

/// One way of running something.
#[derive(Debug, Clone, PartialEq)]
pub enum HookRun {
    /// POST with a JSON body and an `Idempotency-Key`; 2xx is done.
    Http {
        /// Where.
        url: String,
        /// Credentials.
        auth: Option<Auth>,
    },
    /// A program without a shell; exit code 0 is done.
    Command(Vec<String>),
}

/// A check that the operator defines.
#[derive(Debug, Clone, PartialEq)]
pub enum FleetCheck {
    /// GET; holds on 2xx.
    Http {
        /// Where; `{region}`, `{service}`, `{version}` are replaced, percent-encoded.
        url: String,
        /// Credentials.
        auth: Option<Auth>,
    },
    /// Runs without a shell; holds on exit code 0.
    Command(Vec<String>),
}
