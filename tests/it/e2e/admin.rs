//! What the Envoys really do, read without any code of Tidegate, and whether all of it was recorded before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tidegate::engine::event::{Event, Fact};
use tidegate::units::{RegionName, Seq, Timestamp, Weight};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PAUSE: Duration = Duration::from_millis(40);

/// Asks admin ports.
#[derive(Clone)]
pub struct Admin(Client<HttpConnector, Empty<Bytes>>);

impl Admin {
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// The weight of cluster `api-<slot>` in force at an Envoy; `None` while it does not answer.
    pub async fn weight(&self, admin: SocketAddr, slot: &str) -> Option<Weight> {
        let uri = format!("http://{admin}/config_dump?resource=dynamic_route_configs");
        let response = self.0.get(uri.parse().unwrap()).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        let dump: Value = serde_json::from_slice(&body).ok()?;
        let clusters = dump
            .pointer(
                "/configs/0/route_config/virtual_hosts/0/routes/0/route/weighted_clusters/clusters",
            )?
            .as_array()?;
        let of = |one: &Value| one["weight"].as_u64().unwrap_or(0);
        let name = format!("api-{slot}");
        let part = clusters.iter().find(|one| one["name"] == name.as_str())?;
        Weight::from_ratio(of(part), clusters.iter().map(of).sum())
    }
}

/// A weight that an Envoy had, and a time at which it surely had it already.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    pub at: Timestamp,
    pub region: RegionName,
    pub weight: Weight,
}

/// Looks at all Envoys all the time, and notes every change of weights.
pub struct Witness {
    sights: Arc<Mutex<Vec<Sight>>>,
    /// How often all Envoys were looked at.
    rounds: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Watches the weight of `slot`.
    pub fn start(envoys: Vec<(RegionName, SocketAddr)>, slot: &'static str) -> Self {
        let sights = Arc::<Mutex<Vec<Sight>>>::default();
        let noted = Arc::clone(&sights);
        let (finished, rounds) = watch::channel(0);
        let task = tokio::spawn(async move {
            let (admin, mut known) = (Admin::new(), BTreeMap::new());
            loop {
                for (region, address) in &envoys {
                    let Some(weight) = admin.weight(*address, slot).await else { continue };
                    if known.insert(region.clone(), weight) != Some(weight) {
                        let sight = Sight { at: now(), region: region.clone(), weight };
                        noted.lock().unwrap().push(sight);
                    }
                }
                finished.send_modify(|rounds| *rounds += 1);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { sights, rounds, task }
    }

    /// Every change so far, the first look included.
    pub fn sights(&self) -> Vec<Sight> {
        self.sights.lock().unwrap().clone()
    }

    /// The weights that a region had, one after the other, up to those it has now.
    pub async fn of(&self, region: &str) -> Vec<f64> {
        let mut rounds = self.rounds.clone();
        // The round under way may have passed this region already.
        let whole = *rounds.borrow() + 2;
        rounds.wait_for(|rounds| *rounds >= whole).await.expect("the witness looks");
        let sights = self.sights();
        let own = sights.iter().filter(|sight| sight.region.as_str() == region);
        own.map(|sight| sight.weight.percent()).collect()
    }

    /// Every weight seen was wanted by one of the two newest intents that stood in the journal at that time.
    pub fn assert_recorded(&self, history: &[(Seq, Fact)]) {
        for sight in self.sights() {
            let intents = history.iter().filter(|(_, fact)| fact.at <= sight.at);
            let wanted: Vec<_> =
                intents.filter_map(|(_, fact)| intent(&fact.event, &sight.region)).collect();
            let recorded = sight.weight.is_zero() && wanted.len() < 2
                || wanted.iter().rev().take(2).any(|weight| *weight == sight.weight);
            assert!(recorded, "{sight:?} was not recorded before: {wanted:?}");
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The weight that an event wants in a region.
fn intent(event: &Event, region: &RegionName) -> Option<Weight> {
    match event {
        Event::StepEntered { weights, .. } => {
            Some(weights.get(region).copied().unwrap_or_default())
        }
        Event::RollbackStarted { .. } => Some(Weight::ZERO),
        Event::PromotionStarted { .. } => Some(Weight::FULL),
        _ => None,
    }
}

/// Now, by the wall clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}
