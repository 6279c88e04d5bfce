//! Two regions, two services and five people around a controller and its API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::access::audit::Auditor;
use tidegate::access::token::Tokens;
use tidegate::driver::clock::SystemClock;
use tidegate::driver::controller::{Controller, Rollouts};
use tidegate::driver::effects::RegionBalancers;
use tidegate::driver::site::{RegionSite, Site};
use tidegate::engine::event::Actor;
use tidegate::hooks::FleetHooks;
use tidegate::metrics;
use tidegate::ports::{
    Capabilities, Clock, Fencing, Journal, LoadBalancer, LoadBalancerError, Notice, Notifier,
    Reading, Split, Steps,
};
use tidegate::server::{Api, Listening, Parts, listen_tcp};
use tidegate::spec;
use tidegate::spec::access::Permission;
use tidegate::spec::fleet::Fleet;
use tidegate::store::Store;
use tidegate::units::{Generation, Millis, RegionName, ServiceName, Timestamp, Weight};
use tokio::sync::watch;

pub const DAY: Millis = Millis::from_secs(24 * 3_600);

pub const FLEET: &str = r#"
regions:
  eu_west_1: {share: 40%, prometheus: {url: "http://127.0.0.1:9"}, scrape_interval: 1s}
  us_east_1: {share: 60%, prometheus: {url: "http://127.0.0.1:9"}, scrape_interval: 1s}
services:
  api-gateway:
    authority: full
    slots: [blue, green]
    metrics: {version: "{version}"}
    targets:
      eu_west_1: [{name: edge, envoy_file: {route: w, path: w.yaml, clusters: {blue: b, green: g}, admin: ["http://127.0.0.1:9"]}}]
      us_east_1: [{name: edge, envoy_file: {route: w, path: w.yaml, clusters: {blue: b, green: g}, admin: ["http://127.0.0.1:9"]}}]
  web:
    authority: full
    slots: [blue, green]
    metrics: {version: "{version}"}
    targets:
      us_east_1: [{name: edge, envoy_file: {route: w, path: w.yaml, clusters: {blue: b, green: g}, admin: ["http://127.0.0.1:9"]}}]
access:
  roles:
    reader: {allow: [read]}
    operator: {allow: [read, promote, approve, pause, resume, rollback, release, freeze, review, audit]}
    releaser: {allow: [read, start, adopt, undo]}
    eu-operator: {allow: [read, pause, rollback, audit], regions: [eu_west_1]}
  people:
    ana: {roles: [operator], certificate: ana.ops.internal}
    ben: {roles: [operator]}
    rita: {roles: [releaser]}
    rob: {roles: [reader]}
    eve: {roles: [eu-operator]}
    bot: {roles: [releaser], github: {repository_id: "4711", environment: production, job_workflow_ref: "org/repo/.github/workflows/release.yml@refs/heads/main"}}
  regions:
    eu_west_1: {releaser: [read, start, undo]}
"#;

pub const PEOPLE: [&str; 5] = ["ana", "ben", "rita", "rob", "eve"];

/// A stage that needs two approvals, and a way back that needs two people.
pub const PIPELINE: &str = r#"deployment_pipeline:
  regional_stages:
    canary:
      regions: [REGIONS]
      traffic_percentage: 5
      validation_criteria: [error_rate_increase < 1%]
      duration: 1h
      approvals: 2
  rollback_procedures:
    automatic_rollback_triggers: [error_rate > 50%]
    manual_rollback_authorization: {required_approvers: 2, maximum_rollback_time: 15m}
"#;

pub const ANALYSIS: &str = r#"kind: proportion
unit: requests
bad: http_requests_total{version="$version", code=~"5.."}
total: http_requests_total{version="$version"}
"#;

/// Everything. It ends with this value.
pub struct World {
    pub listening: Listening,
    pub tokens: BTreeMap<String, String>,
    pub told: Arc<Told>,
    pub refused: Arc<Refused>,
    pub folder: tempfile::TempDir,
    pub api: Api,
    current: watch::Sender<Arc<dyn Rollouts>>,
    controller: Arc<Controller>,
    store: Arc<Store>,
    balancers: Balancers,
    client: reqwest::Client,
}

/// What people were told.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Notice>>);

#[async_trait]
impl Notifier for Told {
    async fn notify(&self, notice: &Notice) {
        self.0.lock().unwrap().push(notice.clone());
    }
}

/// What was refused and kept: regions, who, what.
#[derive(Default)]
pub struct Refused(pub Mutex<Vec<(Vec<String>, String, String)>>);

impl Auditor for Refused {
    fn refused(&self, regions: &[RegionName], by: &str, what: &str, _: Timestamp) {
        let regions = regions.iter().map(ToString::to_string).collect();
        self.0.lock().unwrap().push((regions, by.to_owned(), what.to_owned()));
    }

    fn read(&self, _: &RegionName, after: u64, _: usize) -> Result<Vec<Value>, String> {
        let all =
            [json!({"seq": 1, "service": "web"}), json!({"seq": 2, "service": "api-gateway"})];
        Ok(all.into_iter().filter(|it| it["seq"].as_u64() > Some(after)).collect())
    }
}

/// A balancer that does what it is told.
pub struct InMemory(Mutex<(Split, Generation)>, AtomicBool);

impl InMemory {
    fn new() -> Self {
        let slots = [("blue", Weight::FULL), ("green", Weight::ZERO)];
        let split = slots.map(|(slot, weight)| (slot.parse().unwrap(), weight));
        Self(Mutex::new((split.into(), Generation(0))), AtomicBool::new(false))
    }

    fn now(&self) -> Reading {
        let (split, generation) = self.0.lock().unwrap().clone();
        Reading {
            split,
            settled: true,
            generation: Some(generation),
            instances: Vec::new(),
            backends: None,
            restart_marker: Some("start".to_owned()),
            note: None,
        }
    }
}

#[async_trait]
impl LoadBalancer for InMemory {
    fn describe(&self) -> String {
        "in memory".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mirror: tidegate::ports::Mirroring::None,
            steps: Steps::Hundredths,
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: Millis::ZERO,
            sees_requests: true,
            keeps_users: tidegate::spec::fleet::Keeping::Nobody,
        }
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        if self.1.load(Ordering::Relaxed) {
            // As one that neither answers nor breaks off.
            std::future::pending::<()>().await;
        }
        Ok(self.now())
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        *self.0.lock().unwrap() = (split.clone(), generation);
        Ok(self.now())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// The stable short name of a problem.
    pub fn title(&self) -> &str {
        self.body["title"].as_str().unwrap_or_default()
    }
}

pub fn fleet(text: &str) -> Fleet {
    let (fleet, problems) = spec::fleet_from_text("tidegate.yaml", text);
    fleet.unwrap_or_else(|| panic!("{problems}"))
}

impl World {
    pub async fn start() -> Self {
        Self::with(FLEET).await
    }

    /// With another fleet file.
    pub async fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Arc::new(fleet(text));
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let (told, refused) = (Arc::new(Told::default()), Arc::new(Refused::default()));
        let places = fleet.services.iter().flat_map(|(service, it)| {
            it.targets.keys().map(|region| (service.clone(), region.clone()))
        });
        let balancers = places.map(|place| (place, Arc::new(InMemory::new()))).collect();
        let controller = Arc::new(controller(&fleet, &store, &balancers, &told));
        let by = Actor { name: "ada".to_owned(), note: None };
        for service in fleet.services.keys() {
            let version = "v1".parse().unwrap();
            controller.adopt(service, version, false, by.clone()).await.unwrap();
        }
        let (current, rollouts) = watch::channel(Arc::clone(&controller) as Arc<dyn Rollouts>);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let api = Api::new(Parts {
            state: folder.path().to_owned(),
            rollouts,
            audit: Arc::clone(&refused) as Arc<dyn Auditor>,
            clock: Arc::clone(&clock),
        });
        let tls = fleet.api.as_ref().and_then(|api| api.tls.clone());
        let listening = listen_tcp("127.0.0.1:0".parse().unwrap(), tls.as_ref(), &api).unwrap();
        let made = |name: &str| {
            let tokens = Tokens::of(folder.path());
            (name.to_owned(), tokens.create(name, None, DAY, clock.now()).unwrap().1)
        };
        let tokens = PEOPLE.map(made).into();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            listening,
            tokens,
            told,
            refused,
            folder,
            api,
            current,
            controller,
            store,
            balancers,
            client,
        }
    }

    /// From now on a service's balancer in a region answers nobody.
    pub fn hang(&self, service: &str, region: &str) {
        let place = (service.parse().unwrap(), region.parse().unwrap());
        self.balancers[&place].1.store(true, Ordering::Relaxed);
    }

    /// As after SIGHUP with this file.
    pub async fn reload(&mut self, text: &str) {
        let fleet = Arc::new(fleet(text));
        self.controller.stop();
        self.controller = Arc::new(controller(&fleet, &self.store, &self.balancers, &self.told));
        self.controller.resume_all().await.unwrap();
        self.current.send_replace(Arc::clone(&self.controller) as Arc<dyn Rollouts>);
    }

    /// A token of a person that is limited to this.
    pub fn token(&self, person: &str, scopes: &[Permission]) -> String {
        let scopes = Some(scopes.iter().copied().collect());
        let now = SystemClock::new().now();
        Tokens::of(self.folder.path()).create(person, scopes, DAY, now).unwrap().1
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listening.address)
    }

    /// A request by a person of the fleet.
    pub async fn get(&self, who: &str, path: &str) -> Answer {
        self.send(self.client.get(self.url(path)).bearer_auth(&self.tokens[who])).await
    }

    pub async fn post(&self, who: &str, path: &str, body: Value) -> Answer {
        self.send(self.request(path).bearer_auth(&self.tokens[who]).json(&body)).await
    }

    /// A POST that the test completes.
    pub fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    /// A GET that the test completes.
    pub fn reading(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(self.url(path))
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body, headers }
    }

    /// Begins v2 of a service as rita may, and waits until it stands at its gate.
    pub async fn begin(&self, service: &str) -> String {
        let answer = self.post("rita", "/v1/rollouts", start(service)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.body["rollout"].as_str().unwrap().to_owned();
        self.until(&id, "gated").await;
        id
    }

    /// Waits until people were told this.
    pub async fn until_told(&self, text: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !self.told.0.lock().unwrap().iter().any(|it| it.text.contains(text)) {
            assert!(std::time::Instant::now() < deadline, "nobody was told: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a rollout is in a phase.
    pub async fn until(&self, id: &str, phase: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get("ana", &format!("/v1/rollouts/{id}")).await;
            if answer.body["rollout"]["phase"] == phase {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "never {phase}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A start of v2 as the API takes it.
pub fn start(service: &str) -> Value {
    let regions = if service == "web" { "us_east_1" } else { "eu_west_1, us_east_1" };
    json!({
        "service": service, "version": "v2",
        "pipeline": {"name": "pipelines/p.yaml", "text": PIPELINE.replace("REGIONS", regions)},
        "analyses": [{"name": "analysis/error_rate.yaml", "text": ANALYSIS}],
    })
}

type Balancers = BTreeMap<(ServiceName, RegionName), Arc<InMemory>>;

fn controller(
    fleet: &Arc<Fleet>,
    store: &Arc<Store>,
    balancers: &Balancers,
    told: &Arc<Told>,
) -> Controller {
    let sites = fleet.services.keys().map(|name| {
        let site = site(fleet, name, store, balancers, told);
        (name.clone(), Arc::new(site))
    });
    let journal = Arc::clone(store) as Arc<dyn Journal>;
    Controller::new(Arc::clone(fleet), sites.collect(), journal)
}

fn site(
    fleet: &Arc<Fleet>,
    service: &ServiceName,
    store: &Arc<Store>,
    balancers: &Balancers,
    told: &Arc<Told>,
) -> Site {
    let regions = fleet.services[service].targets.keys().map(|name| {
        let balancer =
            Arc::clone(&balancers[&(service.clone(), name.clone())]) as Arc<dyn LoadBalancer>;
        let site = RegionSite {
            balancers: RegionBalancers { region: name.clone(), targets: vec![balancer] },
            metrics: metrics::connect(&fleet.regions[name]).unwrap(),
            prober: None,
        };
        (name.clone(), site)
    });
    Site {
        fleet: Arc::clone(fleet),
        service: service.clone(),
        regions: regions.collect(),
        checker: Arc::new(metrics::check::Checks::new(BTreeMap::new())),
        hooks: Arc::new(FleetHooks::default()),
        journal: Arc::clone(store) as Arc<dyn Journal>,
        clock: Arc::new(SystemClock::new()),
        notifier: Arc::clone(told) as Arc<dyn Notifier>,
    }
}
