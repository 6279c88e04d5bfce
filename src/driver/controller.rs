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
use crate::engine::event::{Actor, Adopted, Queued};
use crate::engine::input::Command;
use crate::ports::Journal;
use crate::spec::plan::{OnNewVersion, Plan};
use crate::units::{RolloutId, Seq, ServiceName, Version};

/// Pause before a rollout whose driving ended in an error is taken up again.
const AGAIN: Duration = Duration::from_secs(5);

/// What an API asks of whoever drives rollouts.
#[async_trait]
pub trait Rollouts: Send + Sync {
    /// The newest rollout of every service, those under way as they are now.
    async fn list(&self) -> Result<Vec<Known>, Error>;

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
    pub fn new(sites: BTreeMap<ServiceName, Arc<Site>>, journal: Arc<dyn Journal>) -> Self {
        Self(Arc::new(Inner { sites, journal, running: Mutex::default() }))
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

    fn known(&self, service: &ServiceName) -> Result<&Arc<Site>, Error> {
        self.sites.get(service).ok_or_else(|| Error::NoSuchService(service.clone()))
    }
}

#[async_trait]
impl Rollouts for Controller {
    async fn list(&self) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for service in self.0.journal.services().await? {
            if service.rollouts == 0 {
                continue;
            }
            let id = RolloutId { service: service.name, number: service.rollouts };
            if let Some(handle) = self.handle(&id) {
                all.push(Known { running: true, view: Arc::clone(&handle.views().borrow()) });
                continue;
            }
            let Some((rollout, _)) = self.0.journal.rollout(&id).await? else { continue };
            let at = rollout.ended_at.unwrap_or(rollout.phase_since);
            let view = Arc::new(View::of(&rollout, at, Seq(0), None));
            all.push(Known { running: false, view });
        }
        Ok(all)
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
