//! Every rollout of a fleet, one task each: what the daemon drives. One that waits or fails delays no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::channels::Handle;
use super::site::Site;
use super::supervisor::Driver;
use super::view::View;
use super::{Error, service};
use crate::engine::event::{Actor, Adopted};
use crate::ports::Journal;
use crate::spec::plan::Plan;
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

    /// Begins one and drives it.
    async fn start(
        &self,
        service: &ServiceName,
        plan: Plan,
        version: Version,
        by: Actor,
    ) -> Result<RolloutId, Error>;

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

/// The rollouts of a fleet.
pub struct Controller {
    sites: BTreeMap<ServiceName, Arc<Site>>,
    journal: Arc<dyn Journal>,
    running: Arc<Mutex<BTreeMap<RolloutId, Running>>>,
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
        Self { sites, journal, running: Arc::default() }
    }

    /// Takes up every rollout that is not over.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn resume_all(&self) -> Result<(), Error> {
        for id in self.journal.open_rollouts().await? {
            match self.sites.get(&id.service) {
                Some(site) => self.drive(Arc::clone(site), &id).await?,
                None => warn!(rollout = %id, "the fleet has no such service any more: not driven"),
            }
        }
        Ok(())
    }

    /// Views of all that is under way.
    #[must_use]
    pub fn views(&self) -> Vec<Arc<View>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().map(|one| Arc::clone(&one.handle.views().borrow())).collect()
    }

    async fn drive(&self, site: Arc<Site>, id: &RolloutId) -> Result<(), Error> {
        let (driver, handle) = Driver::resume(site, id).await?;
        let (running, own) = (Arc::clone(&self.running), id.clone());
        let task = tokio::spawn(async move {
            while let Err(error) = driver.drive().await {
                error!(rollout = %own, %error, "cannot be driven; taken up again soon");
                tokio::time::sleep(AGAIN).await;
            }
            info!(rollout = %own, "is over");
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&own);
        });
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id.clone(), Running { handle, task });
        Ok(())
    }

    fn known(&self, service: &ServiceName) -> Result<&Arc<Site>, Error> {
        self.sites.get(service).ok_or_else(|| Error::NoSuchService(service.clone()))
    }
}

#[async_trait]
impl Rollouts for Controller {
    async fn list(&self) -> Result<Vec<Known>, Error> {
        let mut all = Vec::new();
        for service in self.journal.services().await? {
            if service.rollouts == 0 {
                continue;
            }
            let id = RolloutId { service: service.name, number: service.rollouts };
            if let Some(handle) = self.handle(&id) {
                all.push(Known { running: true, view: Arc::clone(&handle.views().borrow()) });
                continue;
            }
            let Some((rollout, _)) = self.journal.rollout(&id).await? else { continue };
            let at = rollout.ended_at.unwrap_or(rollout.phase_since);
            let view = Arc::new(View::of(&rollout, at, Seq(0), None));
            all.push(Known { running: false, view });
        }
        Ok(all)
    }

    fn handle(&self, id: &RolloutId) -> Option<Handle> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.get(id).map(|one| one.handle.clone())
    }

    fn site(&self, service: &ServiceName) -> Option<Arc<Site>> {
        self.sites.get(service).cloned()
    }

    async fn start(
        &self,
        service: &ServiceName,
        plan: Plan,
        version: Version,
        by: Actor,
    ) -> Result<RolloutId, Error> {
        let site = self.known(service)?;
        let id = service::start(site, plan, version, by).await?;
        self.drive(Arc::clone(site), &id).await?;
        Ok(id)
    }

    async fn adopt(
        &self,
        service: &ServiceName,
        version: Version,
        as_is: bool,
        by: Actor,
    ) -> Result<Adopted, Error> {
        service::adopt(self.known(service)?, version, as_is, by).await
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
    ) -> Result<RolloutId, Error> {
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
