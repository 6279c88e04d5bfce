//! Every rollout of a fleet, one task each: what the daemon drives. One that waits or fails delays no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::channels::Handle;
use super::site::Site;
use super::supervisor::Driver;
use super::view::View;
use super::{Error, service};
use crate::engine::decide::Answer;
use crate::engine::event::{Actor, Adopted, Emergency, Event, Queued};
use crate::engine::input::Command;
use crate::ports::Journal;
use crate::spec::fleet::Fleet;
use crate::spec::plan::{OnNewVersion, Plan};
use crate::units::{Millis, RolloutId, Seq, ServiceName, Version};

/// Pause before a rollout whose driving ended in an error is taken up again.
const AGAIN: Duration = Duration::from_secs(5);

/// What an API asks of whoever drives rollouts.
#[async_trait]
pub trait Rollouts: Send + Sync {
    /// The newest rollout of every service, those under way as they are now.
    async fn list(&self) -> Result<Vec<Known>, Error>;

    /// One of them, by its name.
    async fn find(&self, id: &RolloutId) -> Result<Option<Known>, Error>;

    /// The newest of a service.
    async fn newest(&self, service: &ServiceName) -> Result<Option<Known>, Error>;

    /// The services that can be driven here.
    fn services(&self) -> Vec<ServiceName>;

    /// The fleet they belong to.
    fn fleet(&self) -> Arc<Fleet>;

    /// One under way whose own loop has not turned for so long; a loop turns several times a second.
    fn silent(&self, _longest: Duration) -> Option<RolloutId> {
        None
    }

    /// Approvals are asked for: the fleet says who people are.
    fn enforces(&self) -> bool;

    /// A command on a service: to its rollout where one is under way.
    async fn tell(
        &self,
        service: &ServiceName,
        by: Actor,
        command: Command,
    ) -> Result<Answer, Error>;

    /// One that is under way.
    fn handle(&self, id: &RolloutId) -> Option<Handle>;

    /// The fleet's service.
    fn site(&self, service: &ServiceName) -> Option<Arc<Site>>;

    /// Begins one and drives it, or lets it wait, as its plan says.
    async fn start(
        &self,
        service: &ServiceName,
        plan: Plan,
        version: Version,
        by: Actor,
    ) -> Result<Begun, Error>;

    /// Records what a service runs now.
    async fn adopt(
        &self,
        service: &ServiceName,
        version: Version,
        as_is: bool,
        by: Actor,
    ) -> Result<Adopted, Error>;
}

/// A rollout as it is known.
#[derive(Debug, Clone)]
pub struct Known {
    /// Somebody drives it.
    pub running: bool,
    /// How it stands.
    pub view: Arc<View>,
}

/// What came of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is driven.
    Rollout(RolloutId),
    /// It begins when this one is over.
    Behind(RolloutId),
}

/// The rollouts of a fleet.
pub struct Controller(Arc<Inner>);

struct Inner {
    fleet: Arc<Fleet>,
    sites: BTreeMap<ServiceName, Arc<Site>>,
    journal: Arc<dyn Journal>,
    running: Mutex<BTreeMap<RolloutId, Running>>,
}

struct Running {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Controller {
    /// For these services; nothing is driven yet.
    #[must_use]
    pub fn new(
        fleet: Arc<Fleet>,
        sites: BTreeMap<ServiceName, Arc<Site>>,
        journal: Arc<dyn Journal>,
    ) -> Self {
        Self(Arc::new(Inner { fleet, sites, journal, running: Mutex::default() }))
    }

    /// Takes up every rollout that is not over, and begins what waited for one that is.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn resume_all(&self) -> Result<(), Error> {
        for service in self.0.journal.services().await? {
            let Some(site) = self.0.sites.get(&service.name) else {
                if let Some(id) = service.open {
                    warn!(rollout = %id, "the fleet has no such service any more: not driven");
                }
                continue;
            };
            match service.open {
                Some(id) => Inner::drive(&self.0, Arc::clone(site), &id).await?,
                None => Inner::go_on(&self.0, site).await?,
            }
        }
        Ok(())
    }

    /// Ends every task where it is; what was recorded is what the next controller finds.
    pub fn stop(&self) {
        self.0.running().clear();
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, BTreeMap<RolloutId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn drive(own: &Arc<Self>, site: Arc<Site>, id: &RolloutId) -> Result<(), Error> {
        let (driver, handle) = Driver::resume(Arc::clone(&site), id).await?;
        // The controller may be gone before its tasks know.
        let (controller, id) = (Arc::downgrade(own), id.clone());
        let started = id.clone();
        let task = tokio::spawn(async move {
            while let Err(error) = driver.drive().await {
                error!(rollout = %id, %error, "cannot be driven; taken up again soon");
                tokio::time::sleep(AGAIN).await;
            }
            info!(rollout = %id, "is over");
            let Some(controller) = controller.upgrade() else { return };
            tokio::spawn(async move { controller.ended(&site, &id).await });
        });
        own.running().insert(started, Running { handle, task });
        Ok(())
    }

    async fn ended(self: Arc<Self>, site: &Arc<Site>, id: &RolloutId) {
        self.running().remove(id);
        if let Err(error) = Self::go_on(&self, site).await {
            error!(service = %site.service, %error, "what waits cannot begin");
        }
    }

    /// Begins what waits, if anything does.
    fn go_on<'a>(own: &'a Arc<Self>, site: &'a Arc<Site>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match service::start_queued(site).await? {
                Some(id) => Self::drive(own, Arc::clone(site), &id).await,
                None => Ok(()),
            }
        })
    }

    /// The rollout of a service that is under way; there is one at most.
    fn running_of(&self, service: &ServiceName) -> Option<Handle> {
        let first = RolloutId { service: service.clone(), number: 0 };
        let running = self.running();
        let mut own = running.range(first..).take_while(|(id, _)| id.service == *service);
        own.next().map(|(_, one)| one.handle.clone())
    }

    fn known(&self, service: &ServiceName) -> Result<&Arc<Site>, Error> {
        self.sites.get(service).ok_or_else(|| Error::NoSuchService(service.clone()))
    }
}

#[async_trait]
impl Rollouts for Controller {
    async fn list(&self) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for service in self.services() {
            all.extend(self.newest(&service).await?);
        }
        Ok(all)
    }

    async fn find(&self, id: &RolloutId) -> Result<Option<Known>, Error> {
        if let Some(handle) = self.handle(id) {
            let view = Arc::clone(&handle.views().borrow());
            return Ok(Some(Known { running: true, view }));
        }
        let found = self.0.journal.rollout(id).await?;
        Ok(found.map(|(rollout, _)| {
            let at = rollout.ended_at.unwrap_or(rollout.phase_since);
            let view = Arc::new(View::of(&rollout, at, Seq(0), None));
            Known { running: false, view }
        }))
    }

    async fn newest(&self, service: &ServiceName) -> Result<Option<Known>, Error> {
        let running = self.0.running_of(service);
        if let Some(handle) = running {
            let view = Arc::clone(&handle.views().borrow());
            return Ok(Some(Known { running: true, view }));
        }
        let Some((known, _)) = self.0.journal.service(service).await? else { return Ok(None) };
        self.find(&RolloutId { service: service.clone(), number: known.rollouts }).await
    }

    fn services(&self) -> Vec<ServiceName> {
        self.0.sites.keys().cloned().collect()
    }

    fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.0.fleet)
    }

    fn silent(&self, longest: Duration) -> Option<RolloutId> {
        let now = self.0.sites.values().next()?.clock.now();
        let longest = Millis(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
        let running = self.0.running();
        let mut views = running.values().map(|one| Arc::clone(&one.handle.views().borrow()));
        let still = views.find(|view| {
            // In quarantine nothing turns until a person says so.
            let waits = view.rollout.quarantined.is_some() || view.rollout.phase.is_over();
            !waits && now.since(view.at) > longest
        });
        still.map(|view| view.rollout.id.clone())
    }

    fn enforces(&self) -> bool {
        !self.0.fleet.access.people.is_empty()
    }

    async fn tell(
        &self,
        service: &ServiceName,
        by: Actor,
        command: Command,
    ) -> Result<Answer, Error> {
        let site = self.0.known(service)?;
        if let Some(handle) = self.0.running_of(service) {
            return Ok(handle.ask(by, command).await);
        }
        let events = match command {
            Command::Freeze { reason } => vec![Event::Frozen { by, reason }],
            Command::Thaw => vec![Event::Thawed { by }],
            Command::Review { note } => vec![Event::Reviewed { by, note }],
            Command::BreakGlass { region, action: action @ Emergency::Freeze, reason } => {
                let (frozen, whose) = (reason.clone(), by.clone());
                vec![
                    Event::GlassBroken { by, region, action, reason },
                    Event::Frozen { by: whose, reason: frozen },
                ]
            }
            _ => return Ok(Answer::NothingToDo("no rollout is under way".to_owned())),
        };
        service::record(site, events).await?;
        Ok(Answer::Accepted)
    }

    fn handle(&self, id: &RolloutId) -> Option<Handle> {
        self.0.running().get(id).map(|one| one.handle.clone())
    }

    fn site(&self, service: &ServiceName) -> Option<Arc<Site>> {
        self.0.sites.get(service).cloned()
    }

    async fn start(
        &self,
        service: &ServiceName,
        plan: Plan,
        version: Version,
        by: Actor,
    ) -> Result<Begun, Error> {
        let site = self.0.known(service)?;
        let policy = plan.policy.on_new_version;
        let next = Queued { version: version.clone(), plan: plan.clone(), by: by.clone() };
        let open = match service::start(site, plan, version, by.clone()).await {
            Ok(id) => {
                Inner::drive(&self.0, Arc::clone(site), &id).await?;
                return Ok(Begun::Rollout(id));
            }
            Err(Error::Open(open)) if policy != OnNewVersion::Reject => open,
            Err(error) => return Err(error),
        };
        let handle = self.handle(&open).ok_or_else(|| Error::Open(open.clone()))?;
        let supersede = policy == OnNewVersion::Supersede;
        match handle.ask(by, Command::Queue { next: Box::new(next), supersede }).await {
            Answer::Accepted => Ok(Begun::Behind(open)),
            // It may have ended just now: what did not get into its record does not wait.
            _ => Err(Error::Open(open)),
        }
    }

    async fn adopt(
        &self,
        service: &ServiceName,
        version: Version,
        as_is: bool,
        by: Actor,
    ) -> Result<Adopted, Error> {
        service::adopt(self.0.known(service)?, version, as_is, by).await
    }
}

/// The one rollout of a process that drives no other.
pub struct Single {
    /// The way to it.
    pub handle: Handle,
    /// Its service.
    pub site: Arc<Site>,
}

impl Single {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.handle.views().borrow())
    }
}

#[async_trait]
impl Rollouts for Single {
    async fn list(&self) -> Result<Vec<Known>, Error> {
        Ok(vec![Known { running: true, view: self.view() }])
    }

    async fn find(&self, id: &RolloutId) -> Result<Option<Known>, Error> {
        let view = self.view();
        Ok((view.rollout.id == *id).then_some(Known { running: true, view }))
    }

    async fn newest(&self, service: &ServiceName) -> Result<Option<Known>, Error> {
        let view = self.view();
        Ok((view.rollout.id.service == *service).then_some(Known { running: true, view }))
    }

    fn services(&self) -> Vec<ServiceName> {
        vec![self.site.service.clone()]
    }

    fn fleet(&self) -> Arc<Fleet> {
        Arc::clone(&self.site.fleet)
    }

    /// A run in the foreground belongs to the one who started it.
    fn enforces(&self) -> bool {
        false
    }

    async fn tell(
        &self,
        service: &ServiceName,
        by: Actor,
        command: Command,
    ) -> Result<Answer, Error> {
        if self.site.service != *service {
            return Err(Error::NoSuchService(service.clone()));
        }
        Ok(self.handle.ask(by, command).await)
    }

    fn handle(&self, id: &RolloutId) -> Option<Handle> {
        (self.view().rollout.id == *id).then(|| self.handle.clone())
    }

    fn site(&self, service: &ServiceName) -> Option<Arc<Site>> {
        (self.site.service == *service).then(|| Arc::clone(&self.site))
    }

    async fn start(
        &self,
        _service: &ServiceName,
        _plan: Plan,
        _version: Version,
        _by: Actor,
    ) -> Result<Begun, Error> {
        Err(Error::Open(self.view().rollout.id.clone()))
    }

    async fn adopt(
        &self,
        _service: &ServiceName,
        _version: Version,
        _as_is: bool,
        _by: Actor,
    ) -> Result<Adopted, Error> {
        Err(Error::Open(self.view().rollout.id.clone()))
    }
}
