//! The adapter for Amazon Route 53, on moto: its API is real, nobody answers DNS.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_route53 as dns;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use dns::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType,
};
use tidegate::load_balancer::aws::Route53Balancer;
use tidegate::ports::{LoadBalancer, Outcome, Split};
use tidegate::spec::fleet::{AwsAccess, AwsCredentials, RecordKind, Route53, Secret};
use tidegate::units::{Generation, Weight};

use crate::conformance::{self, Fault, Reason};
use crate::parts::backend::Counts;
use crate::parts::meddler::{Meddler, Mood, Protocol};
use crate::parts::moto::Moto;

const NAME: &str = "www.example.org.";
const MARKER: &str = "_a._tidegate.www.example.org.";

const REST: Protocol = Protocol {
    changes: |method, _| method != Method::GET,
    taken: |_| {
        "<ChangeResourceRecordSetsResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeInfo>\
         <Id>/change/C1</Id><Status>INSYNC</Status><SubmittedAt>2026-01-01T00:00:00.000Z</SubmittedAt>\
         </ChangeInfo></ChangeResourceRecordSetsResponse>"
            .to_owned()
    },
};

struct World {
    moto: Moto,
    meddler: Meddler,
    strict: Strict,
    zone: String,
}

impl World {
    async fn start() -> Self {
        let moto = Moto::start().await;
        let zone = begin(&moto).await;
        let strict = Strict::start(&moto, zone.clone()).await;
        let meddler = Meddler::speaking(REST, strict.address).await;
        Self { moto, meddler, strict, zone }
    }

    fn settings(&self) -> Route53 {
        self.moto.credentials();
        let folder = self.moto.folder();
        let secret = |name: &str| Secret::File(folder.join(name));
        let credentials = AwsCredentials {
            access_key: secret("id"),
            secret_key: secret("key"),
            session_token: None,
        };
        let access = AwsAccess {
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("http://{}", self.meddler.address)),
            profile: None,
            credentials: Some(credentials),
        };
        let sets = ["blue", "green"].map(|slot| (slot.parse().unwrap(), format!("web-{slot}")));
        Route53 {
            access,
            zone: self.zone.clone(),
            name: "www.example.org".to_owned(),
            record: RecordKind::A,
            set_identifiers: sets.into(),
        }
    }

    fn balancer(&self) -> Route53Balancer {
        Route53Balancer::new("web us_east_1 dns".to_owned(), &self.settings()).unwrap()
    }

    async fn change(&self, sets: Vec<(ChangeAction, ResourceRecordSet)>) {
        change(&self.moto, &self.zone, sets).await;
    }

    async fn upsert(&self, sets: [ResourceRecordSet; 2]) {
        self.change(sets.map(|set| (ChangeAction::Upsert, set)).into()).await;
    }
}

/// A zone with two weighted sets; `blue` has all of the weight.
async fn begin(moto: &Moto) -> String {
    let client = dns::Client::new(&moto.config());
    moto.seeded(1).await;
    let made = client.create_hosted_zone().name("example.org").caller_reference("1").send().await;
    let id = made.unwrap().hosted_zone.unwrap().id;
    let zone = id.rsplit('/').next().unwrap().to_owned();
    let sets = [set("web-blue", 1), set("web-green", 0)];
    change(moto, &zone, sets.map(|set| (ChangeAction::Create, set)).into()).await;
    zone
}

async fn change(moto: &Moto, zone: &str, sets: Vec<(ChangeAction, ResourceRecordSet)>) {
    let changes = sets.into_iter().map(|(action, set)| {
        Change::builder().action(action).resource_record_set(set).build().unwrap()
    });
    let batch = ChangeBatch::builder().set_changes(Some(changes.collect())).build().unwrap();
    let client = dns::Client::new(&moto.config());
    let call = client.change_resource_record_sets().hosted_zone_id(zone).change_batch(batch);
    call.send().await.unwrap();
}

async fn records(moto: &Moto, zone: &str) -> Vec<ResourceRecordSet> {
    let client = dns::Client::new(&moto.config());
    let told = client.list_resource_record_sets().hosted_zone_id(zone).send().await.unwrap();
    told.resource_record_sets
}

fn record(value: &str) -> ResourceRecord {
    ResourceRecord::builder().value(value).build().unwrap()
}

fn set(id: &str, weight: i64) -> ResourceRecordSet {
    let set = ResourceRecordSet::builder().name(NAME).r#type(RrType::A).ttl(10);
    let address = if id == "web-blue" { "192.0.2.1" } else { "192.0.2.2" };
    set.set_identifier(id).weight(weight).resource_records(record(address)).build().unwrap()
}

fn marker(generation: u32) -> ResourceRecordSet {
    let value = format!("\"generation={generation} change=somebody\"");
    let set = ResourceRecordSet::builder().name(MARKER).r#type(RrType::Txt).ttl(60);
    set.resource_records(record(&value)).build().unwrap()
}

fn split(green: f64) -> Split {
    let green = Weight::from_percent(green).unwrap();
    Split::from([("green".parse().unwrap(), green), ("blue".parse().unwrap(), green.complement())])
}

/// What AWS's documentation says and moto does not do: a record is deleted only with the value that it has, and created
/// only where there is none. Also: changes that take their time, and somebody who comes in between.
struct Strict {
    address: SocketAddr,
    inside: Arc<Inside>,
    task: tokio::task::JoinHandle<()>,
}

struct Inside {
    moto: SocketAddr,
    zone: String,
    dns: dns::Client,
    http: reqwest::Client,
    /// One change at a time.
    state: tokio::sync::Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    /// Batches that came.
    batches: Vec<String>,
    /// No change is done.
    is_pending: bool,
    /// The marker that somebody writes just before the next batch.
    in_between: Option<ResourceRecordSet>,
}

impl Strict {
    async fn start(moto: &Moto, zone: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = tokio::sync::Mutex::default();
        let (dns, http) = (dns::Client::new(&moto.config()), crate::parts::moto::client());
        let inside = Inside { moto: moto.address, zone, dns, http, state };
        let inside = Arc::new(inside);
        let app = axum::Router::new().fallback(strictly).with_state(Arc::clone(&inside));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, inside, task }
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn strictly(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    let mut flow = inside.state.lock().await;
    let is_pending = flow.is_pending;
    // Only changes wait for each other.
    let _alone = if head.method == Method::POST {
        if let Some(marker) = flow.in_between.take() {
            let change = Change::builder().action(ChangeAction::Upsert).resource_record_set(marker);
            let batch = ChangeBatch::builder().changes(change.build().unwrap()).build().unwrap();
            let call = inside.dns.change_resource_record_sets().hosted_zone_id(&inside.zone);
            call.change_batch(batch).send().await.unwrap();
        }
        flow.batches.push(text.clone());
        let told = inside.dns.list_resource_record_sets().hosted_zone_id(&inside.zone);
        let Ok(told) = told.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
        if let Some(refusal) = refusal(&text, &told.resource_record_sets) {
            return (StatusCode::BAD_REQUEST, refusal).into_response();
        }
        Some(flow)
    } else {
        drop(flow);
        None
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let asked = inside.http.request(head.method, format!("http://{}{path}", inside.moto));
    let asked = asked.headers(head.headers).body(body);
    let Ok(answer) = asked.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let mut text = answer.text().await.unwrap();
    if is_pending {
        text = text.replace("INSYNC", "PENDING");
    }
    (status, Body::from(text)).into_response()
}

/// What AWS answers to a batch that does not fit what there is.
fn refusal(batch: &str, records: &[ResourceRecordSet]) -> Option<String> {
    let between = |text: &str, tag: &str| {
        let rest = text.split(&format!("<{tag}>")).nth(1)?;
        Some(rest.split("</").next()?.replace("&quot;", "\""))
    };
    let mut present: Vec<(String, String)> = records
        .iter()
        .filter(|set| set.r#type == RrType::Txt)
        .map(|set| (set.name.clone(), set.resource_records()[0].value().to_owned()))
        .collect();
    for change in batch.split("<Change>").skip(1) {
        let (action, name) = (between(change, "Action")?, between(change, "Name")?);
        let value = between(change, "Value").unwrap_or_default();
        let at = present.iter().position(|(known, _)| *known == name);
        let wrong = match (action.as_str(), at) {
            ("DELETE", Some(at)) if present[at].1 == value => {
                present.remove(at);
                continue;
            }
            ("DELETE", Some(_)) => "the values provided do not match the current values",
            ("DELETE", None) => "it was not found",
            ("CREATE", Some(_)) => "it already exists",
            _ => continue,
        };
        return Some(format!(
            "<ErrorResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Error><Type>Sender</Type>\
             <Code>InvalidChangeBatch</Code><Message>[{action} {name}: {wrong}]</Message></Error>\
             <RequestId>1</RequestId></ErrorResponse>"
        ));
    }
    None
}

#[async_trait]
impl conformance::World for World {
    fn target(&self) -> String {
        let (zone, credentials) = (&self.zone, self.moto.credentials());
        format!(
            "route53: {{zone: {zone}, name: www.example.org, type: A, endpoint: \"http://{}\", \
             credentials: {credentials}, set_identifiers: {{blue: web-blue, green: web-green}}}}",
            self.meddler.address
        )
    }

    fn bad(&self) -> Vec<(String, &'static str)> {
        let with = |zone: &str, name: &str, kind: &str, sets: &str| {
            format!(
                "route53: {{zone: {zone}, name: {name}, type: {kind}, set_identifiers: {sets}}}"
            )
        };
        let (www, sets) = ("www.example.org", "{blue: b, green: g}");
        vec![
            (with("/hostedzone/Z1", www, "A", sets), "no id of a hosted zone"),
            (with("Z1", "\"www.example.org;\"", "A", sets), "no name of a record"),
            (with("Z1", "\"*.example.org\"", "A", sets), "no name of a record"),
            (with("Z1", www, "TXT", sets), "AAAA"),
            (with("Z1", www, "A", "{blue: b, green: b}"), "two different names"),
            (with("Z1", www, "A", "{blue: b, red: g}"), "blue: ..., green: ..."),
            (with("Z1", www, "A", "{blue: \"a\\nb\", green: g}"), "cannot be a set identifier"),
            (with("Z1", www, "A", &format!("{sets}, region: Frankfurt")), "no region of AWS"),
            (with("Z1", www, "A", &format!("{sets}, endpoint: \"http://dns.internal\"")), "leaves"),
        ]
    }

    async fn load(&self, _: Arc<dyn Fn() -> bool + Send + Sync>) -> Result<Counts, Reason> {
        Err("the emulator has no data plane")
    }

    async fn edit(&mut self, canary_percent: u32) -> Result<(), Reason> {
        let canary = i64::from(canary_percent);
        self.upsert([set("web-blue", 100 - canary), set("web-green", canary)]).await;
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Reason> {
        match fault {
            Fault::Restart => {
                return Err("AWS's DNS is not restarted by anybody, and the emulator forgets all");
            }
            Fault::Reload => return Err("it has no configuration to read again"),
            Fault::Gone => self.moto.kill(),
            Fault::Back => {
                self.moto.restart().await;
                assert_eq!(begin(&self.moto).await, self.zone, "another name after a restart");
            }
            Fault::Slow => self.meddler.be(Mood::Slow),
            Fault::Refusing => self.meddler.be(Mood::Refusing),
            Fault::Lying => self.meddler.be(Mood::Lying),
            Fault::Honest => self.meddler.be(Mood::Honest),
            Fault::CanarySick | Fault::CanaryWell => return Err("it shows no backends"),
        }
        Ok(())
    }
}

/// A world of its own for the suite.
pub async fn world() -> Box<dyn conformance::World> {
    Box::new(World::start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53_does_what_every_adapter_must() {
    conformance::hold("route53", world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53_changes_the_weights_alone_and_all_in_one_batch() {
    let world = World::start().await;
    let alias = |id: &str, weight| {
        let to = AliasTarget::builder()
            .hosted_zone_id("Z2")
            .dns_name(format!("{id}.elb.amazonaws.com."));
        let to = to.evaluate_target_health(true).build().unwrap();
        let set = ResourceRecordSet::builder().name(NAME).r#type(RrType::A).set_identifier(id);
        set.weight(weight).alias_target(to).health_check_id("h1").build().unwrap()
    };
    world.upsert([alias("web-blue", 3), alias("web-green", 0)]).await;
    let reading = world.balancer().set(&split(5.0), Generation(3)).await.unwrap();
    assert!(reading.settled, "{reading:?}");
    assert_eq!((&reading.split, reading.generation), (&split(5.0), Some(Generation(3))));
    let batches = world.strict.inside.state.lock().await.batches.clone();
    assert_eq!(batches.len(), 1, "{batches:?}");
    assert_eq!(batches[0].matches("<Change>").count(), 3, "{batches:?}");
    let kept = records(&world.moto, &world.zone).await;
    assert!(
        kept.contains(&alias("web-blue", 190)) && kept.contains(&alias("web-green", 10)),
        "{kept:?}"
    );

    // With a marker: it is deleted as it was read, and another one created. The same again sends nothing.
    world.balancer().set(&split(50.0), Generation(4)).await.unwrap();
    world.balancer().set(&split(50.0), Generation(4)).await.unwrap();
    let batches = world.strict.inside.state.lock().await.batches.clone();
    assert_eq!((batches.len(), batches[1].matches("<Action>DELETE").count()), (2, 1));
    let typed = world.balancer().by_hand(&split(0.0), Generation(9)).await.unwrap().remove(0);
    let zone = format!("change-resource-record-sets --hosted-zone-id {}", world.zone);
    assert!(typed.contains(&zone), "{typed}");
    assert!(
        typed.contains("web-green.elb.amazonaws.com.") && typed.contains(r#""Weight":200"#),
        "{typed}"
    );
}

/// The emulator checks no range, so that nothing out of range may reach it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53_sends_nothing_that_aws_would_not_take() {
    let world = World::start().await;
    world.upsert([set("web-blue", 256), set("web-green", 0)]).await;
    assert_eq!(world.balancer().read().await.unwrap().split, split(0.0), "moto takes weight 256");
    let steps = world.balancer().capabilities().steps;
    for half in 0..=200 {
        let pair = steps.pair(Weight::from_percent(f64::from(half) / 2.0).unwrap()).unwrap();
        assert!(pair.iter().all(|weight| *weight <= 255) && pair != [0, 0], "{pair:?}");
    }
    // Both at 0 is not nobody: all get the same.
    world.upsert([set("web-blue", 0), set("web-green", 0)]).await;
    assert_eq!(world.balancer().read().await.unwrap().split, split(50.0));
    world.balancer().set(&split(1.0), Generation(1)).await.unwrap();

    let count = world.strict.inside.state.lock().await.batches.len();
    world.change(vec![(ChangeAction::Create, set("web-red", 0))]).await;
    let refused = world.balancer().set(&split(5.0), Generation(2)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    assert!(refused.what.contains("other record sets"), "{refused}");
    let mut settings = world.settings();
    settings.set_identifiers.insert("green".parse().unwrap(), "web-violet".to_owned());
    let strange = Route53Balancer::new("web".to_owned(), &settings).unwrap();
    let refused = strange.set(&split(5.0), Generation(2)).await.unwrap_err();
    assert!(refused.what.contains("no record set `web-violet`"), "{refused}");
    settings.zone = "Z0".to_owned();
    let strange = Route53Balancer::new("web".to_owned(), &settings).unwrap();
    let refused = strange.set(&split(5.0), Generation(2)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::Misconfigured, "{refused}");
    assert_eq!(world.strict.inside.state.lock().await.batches.len(), count);
}

/// By AWS's documentation, not by moto: a batch over a marker that is another one by now changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53_loses_to_whoever_came_in_between() {
    let world = World::start().await;
    let balancer = world.balancer();
    balancer.set(&split(5.0), Generation(3)).await.unwrap();
    for (theirs, outcome) in [(9, Outcome::Superseded), (2, Outcome::NotSent)] {
        world.strict.inside.state.lock().await.in_between = Some(marker(theirs));
        let refused = balancer.set(&split(50.0), Generation(4)).await.unwrap_err();
        assert_eq!(refused.outcome, outcome, "{refused}");
        let seen = balancer.read().await.unwrap();
        assert_eq!((&seen.split, seen.generation), (&split(5.0), Some(Generation(theirs.into()))));
        world.change(vec![(ChangeAction::Upsert, marker(3))]).await;
    }
    // The first marker of all is created, not put over another one.
    world.change(vec![(ChangeAction::Delete, marker(3))]).await;
    world.strict.inside.state.lock().await.in_between = Some(marker(4));
    let refused = balancer.set(&split(50.0), Generation(4)).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::NotSent, "{refused}");
    assert_eq!(balancer.set(&split(50.0), Generation(4)).await.unwrap().split, split(50.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route53_is_confirmed_when_all_of_its_servers_have_it() {
    let world = World::start().await;
    let balancer = world.balancer();
    world.strict.inside.state.lock().await.is_pending = true;
    let begin = std::time::Instant::now();
    let reading = balancer.set(&split(5.0), Generation(1)).await.unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(9), "{:?}", begin.elapsed());
    assert!(!reading.settled && reading.split == split(5.0), "{reading:?}");
    assert!(reading.note.unwrap().contains("not all of AWS's name servers"));
    assert!(!balancer.read().await.unwrap().settled);
    world.strict.inside.state.lock().await.is_pending = false;
    let reading = balancer.read().await.unwrap();
    assert!(reading.settled && reading.note.is_none(), "{reading:?}");
}
