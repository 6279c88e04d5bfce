//! Tidegate's driver on a world, as `run` puts it together, within the test's own process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate::driver::Error;
use tidegate::driver::channels::Handle;
use tidegate::driver::clock::SystemClock;
use tidegate::driver::effects::RegionBalancers;
use tidegate::driver::service::{adopt, start};
use tidegate::driver::site::{RegionSite, Site};
use tidegate::driver::supervisor::Driver;
use tidegate::driver::view::View;
use tidegate::engine::decide::Answer;
use tidegate::engine::event::{Actor, Event, Fact};
use tidegate::engine::input::Command;
use tidegate::engine::rollout::{Phase, Rollout};
use tidegate::hooks::FleetHooks;
use tidegate::load_balancer::connect;
use tidegate::metrics::check::Checks;
use tidegate::metrics::prometheus::Prometheus;
use tidegate::notify::Log;
use tidegate::ports::{Journal, MetricsSource};
use tidegate::spec::fleet;
use tidegate::spec::plan::Plan;
use tidegate::store::Store;
use tidegate::units::{RegionName, RolloutId, Seq, ServiceName, Version};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::world::Address;

/// Views of a rollout as they come.
pub type Views = watch::Receiver<Arc<View>>;

/// A service of a world, its store open.
pub struct Controller {
    pub store: Arc<Store>,
    pub site: Arc<Site>,
}

/// One rollout being driven; it stops where it is with this value.
pub struct Driven {
    pub id: RolloutId,
    pub handle: Handle,
    pub views: Views,
    task: JoinHandle<Result<Rollout, Error>>,
}

/// Somebody.
pub fn person() -> Actor {
    Actor { name: "ada".to_owned(), note: None }
}

/// The service of every world.
pub fn service() -> ServiceName {
    ServiceName::new("api-gateway").unwrap()
}

impl Controller {
    /// Opens the store and connects everything.
    pub async fn open(address: &Address) -> Self {
        let store = Arc::new(Store::open(&address.state).unwrap());
        let fleet = address.fleet();
        let connected = connect(&fleet, Some(&service()), &BTreeMap::new()).await.unwrap();
        let mut targets: BTreeMap<RegionName, Vec<_>> = BTreeMap::new();
        for (key, balancer) in &connected.targets {
            targets.entry(key.region.clone()).or_default().push(Arc::clone(balancer));
        }
        let region = |(name, targets): (RegionName, Vec<_>)| {
            let balancers = RegionBalancers { region: name.clone(), targets };
            let metrics = source(&fleet.regions[&name].metrics);
            (name, RegionSite { balancers, metrics, prober: None })
        };
        let regions = targets.into_iter().map(region).collect();
        let site = Site {
            hooks: Arc::new(FleetHooks::default()),
            service: service(),
            regions,
            checker: Arc::new(Checks::new(BTreeMap::new())),
            journal: Arc::clone(&store) as Arc<dyn Journal>,
            clock: Arc::new(SystemClock::new()),
            notifier: Arc::new(Log),
            fleet: Arc::new(fleet),
        };
        Self { store, site: Arc::new(site) }
    }

    /// Opens a world's service for the first time: `v1` is stable.
    pub async fn adopt(address: &Address) -> Self {
        let controller = Self::open(address).await;
        adopt(&controller.site, Version::new("v1").unwrap(), false, person()).await.unwrap();
        controller
    }

    /// Begins a rollout and drives it.
    pub async fn start(&self, plan: Plan, version: &str) -> Driven {
        let version = Version::new(version).unwrap();
        let id = start(&self.site, plan, version, person()).await.unwrap();
        self.resume(id).await
    }

    /// Drives a rollout from where it stands.
    pub async fn resume(&self, id: RolloutId) -> Driven {
        let (driver, handle) = Driver::resume(Arc::clone(&self.site), &id).await.unwrap();
        Driven {
            id,
            views: handle.views(),
            handle,
            task: tokio::spawn(async move { driver.drive().await }),
        }
    }

    /// Every fact of a rollout; the story is printed.
    pub async fn history(&self, id: &RolloutId) -> Vec<(Seq, Fact)> {
        let history = self.store.history(&service(), Some(id), 10_000).await.unwrap();
        tell(&history);
        history
    }
}

/// Prints when what happened.
fn tell(history: &[(Seq, Fact)]) {
    let Some(begin) = history.first().map(|(_, fact)| fact.at) else { return };
    for (seq, fact) in history {
        if let Some(name) = name(&fact.event) {
            println!("{:>7.2} s  {:>4}  {name}", fact.at.since(begin).as_secs_f64(), seq.0);
        }
    }
}

fn source(metrics: &fleet::MetricsSource) -> Arc<dyn MetricsSource> {
    let fleet::MetricsSource::Prometheus(config) = metrics else {
        panic!("every region of the world has a Prometheus")
    };
    Arc::new(Prometheus::new(config).unwrap())
}

impl Driven {
    /// Waits for a view.
    pub async fn until(
        &mut self,
        what: &str,
        seconds: u64,
        wanted: impl Fn(&View) -> bool,
    ) -> Arc<View> {
        until(&mut self.views, what, seconds, wanted).await
    }

    /// Waits until the current weights of a stage (from 0) are confirmed and bake.
    pub async fn until_baking(&mut self, stage: usize, seconds: u64) -> Arc<View> {
        let baking =
            |view: &View| view.rollout.phase == Phase::Baking && view.rollout.stage == stage;
        self.until(&format!("stage {stage} bakes"), seconds, baking).await
    }

    /// Waits until it is over.
    pub async fn until_over(&mut self, seconds: u64) -> Arc<View> {
        self.until("it is over", seconds, |view| view.rollout.phase.is_over()).await
    }

    /// Asks for something that is taken.
    pub async fn ask(&self, command: Command) {
        assert_eq!(self.handle.ask(person(), command).await, Answer::Accepted);
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for a view; what stands in the way is said when it does not come.
pub async fn until(
    views: &mut Views,
    what: &str,
    seconds: u64,
    wanted: impl Fn(&View) -> bool,
) -> Arc<View> {
    let waited =
        tokio::time::timeout(Duration::from_secs(seconds), views.wait_for(|view| wanted(view)));
    if let Ok(Ok(view)) = waited.await {
        return Arc::clone(&view);
    }
    let view = Arc::clone(&views.borrow());
    let why: Vec<_> = view.why.iter().map(ToString::to_string).collect();
    let judgement = view.judgement.as_ref();
    let verdicts: Vec<_> = judgement
        .into_iter()
        .flat_map(|it| &it.verdicts)
        .map(|it| format!("{}: {:?} {:?}", it.text, it.outcome, it.numbers))
        .collect();
    panic!(
        "never within {seconds} s: {what}; it is {:?} in stage {}, {:?}\nwhy: {}\ndata: {:?}\n{}",
        view.rollout.phase,
        view.rollout.stage,
        view.rollout.clocks,
        why.join("; "),
        judgement.map(|it| (&it.data, &it.hold, it.log_harm)),
        verdicts.join("\n"),
    );
}

/// Names of the events, one after the other, those of reading and polling left out.
pub fn names(history: &[(Seq, Fact)]) -> Vec<String> {
    history.iter().filter_map(|(_, fact)| name(&fact.event)).collect()
}

fn name(event: &Event) -> Option<String> {
    match event {
        Event::StepEntered { stage, .. } => Some(format!("stage {stage}")),
        Event::StagePassed { stage, .. } => Some(format!("passed {stage}")),
        Event::PromotionStarted { .. } => Some("promoting".to_owned()),
        Event::Promoted { proven } => Some(format!("promoted, proven: {proven}")),
        Event::RollbackStarted { .. } => Some("rolling back".to_owned()),
        Event::RolledBack => Some("rolled back".to_owned()),
        Event::DriftFound { kind, .. } => Some(format!("drift {kind:?}")),
        Event::Paused { .. } => Some("paused".to_owned()),
        Event::Resumed { .. } => Some("resumed".to_owned()),
        Event::Recovered => Some("recovered".to_owned()),
        _ => None,
    }
}
