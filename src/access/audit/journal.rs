//! A journal whose facts go into the audit as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::{error, warn};

use super::Audit;
use super::record::{Concerns, concerns, record};
use crate::engine::event::Fact;
use crate::engine::rollout::Rollout;
use crate::engine::service::ServiceState;
use crate::ports::{Checkpoint, Journal, JournalError};
use crate::units::{RegionName, RolloutId, Seq, ServiceName, Timestamp};

/// Facts that a ledger which is behind is given at most; older ones stand in the journal alone.
const BEHIND_MAX: usize = 100_000;

/// The journal, and the ledgers beside it.
pub struct Audited {
    inner: Arc<dyn Journal>,
    audit: Arc<Audit>,
    /// Digest of a rollout as the newest record left it.
    digests: Mutex<BTreeMap<RolloutId, String>>,
    /// Services whose ledgers may be behind.
    behind: Mutex<BTreeSet<ServiceName>>,
}

impl Audited {
    /// Brings every ledger to where the journal is.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn new(inner: Arc<dyn Journal>, audit: Arc<Audit>) -> Result<Self, JournalError> {
        let services = inner.services().await?.into_iter().map(|service| service.name);
        let behind = Mutex::new(services.collect());
        let own = Self { inner, audit, digests: Mutex::default(), behind };
        own.catch_up().await?;
        Ok(own)
    }

    async fn catch_up(&self) -> Result<(), JournalError> {
        let behind =
            std::mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner));
        for service in behind {
            let Some((state, seq)) = self.inner.service(&service).await? else { continue };
            self.after_restore(&state, seq);
            let oldest = state.regions.keys().map(|it| self.audit.cursor(it, service.as_str()));
            let oldest = oldest.min().unwrap_or(0);
            let missing = usize::try_from(seq.0.saturating_sub(oldest)).unwrap_or(BEHIND_MAX);
            if missing == 0 {
                continue;
            }
            if missing > BEHIND_MAX {
                warn!(%service, missing, "the oldest facts are not in the audit, the journal has them");
            }
            let facts = self.inner.history(&service, None, missing.min(BEHIND_MAX)).await?;
            for (seq, fact) in facts {
                self.take(&state, seq, &fact).await;
            }
        }
        Ok(())
    }

    /// A journal that is older than a ledger was restored: the ledger says so, and goes on from there.
    fn after_restore(&self, state: &ServiceState, seq: Seq) {
        for region in state.regions.keys() {
            if self.audit.cursor(region, state.name.as_str()) <= seq.0 {
                continue;
            }
            let what = "the journal is older than this ledger: it was restored";
            let record =
                json!({"kind": "restored", "service": state.name, "stream": seq, "what": what});
            if let Err(error) = self.audit.append(region, Timestamp(0), &record, true) {
                error!(%region, %error, "the audit is behind");
            }
        }
    }

    /// Puts one fact into the ledgers that do not have it.
    async fn take(&self, state: &ServiceState, seq: Seq, fact: &Fact) {
        let regions = match concerns(&fact.event) {
            Concerns::Nobody => return,
            Concerns::Region(region) => [region].into(),
            Concerns::These(regions) => regions,
            Concerns::All => self.regions(state, fact).await,
        };
        let (before, after) = self.digests(fact).await;
        let value = record(seq, fact, &before, &after);
        for region in regions {
            if self.audit.cursor(&region, fact.service.as_str()) >= seq.0 {
                continue;
            }
            if let Err(error) = self.audit.append(&region, fact.at, &value, false) {
                error!(%region, %error, "the audit is behind");
                let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
                behind.insert(fact.service.clone());
            }
        }
    }

    async fn regions(&self, state: &ServiceState, fact: &Fact) -> BTreeSet<RegionName> {
        let of_service = || state.regions.keys().cloned().collect();
        let Some(id) = &fact.rollout else { return of_service() };
        match self.inner.rollout(id).await {
            Ok(Some((rollout, _))) => rollout.plan.regions.keys().cloned().collect(),
            _ => of_service(),
        }
    }

    /// Digests of the rollout before and after a fact: what it was, and what it is once the whole append is in.
    async fn digests(&self, fact: &Fact) -> (String, String) {
        let Some(id) = &fact.rollout else { return (String::new(), String::new()) };
        let rollout = self.inner.rollout(id).await.ok().flatten().map(|(rollout, _)| rollout);
        let after = rollout.as_ref().map(digest).unwrap_or_default();
        let over = rollout.is_some_and(|rollout| rollout.phase.is_over());
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let before = digests.get(id).cloned().unwrap_or_default();
        if over {
            digests.remove(id);
        } else {
            digests.insert(id.clone(), after.clone());
        }
        (before, after)
    }
}

fn digest(rollout: &Rollout) -> String {
    let bytes = serde_json::to_vec(rollout).unwrap_or_default();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[async_trait]
impl Journal for Audited {
    async fn append(
        &self,
        service: &ServiceName,
        expected: Seq,
        facts: &[Fact],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Seq, JournalError> {
        let seq = self.inner.append(service, expected, facts, checkpoint).await?;
        let wanted = |fact: &Fact| !matches!(concerns(&fact.event), Concerns::Nobody);
        if !facts.iter().any(wanted) {
            return Ok(seq);
        }
        let was_behind =
            self.behind.lock().unwrap_or_else(PoisonError::into_inner).contains(service);
        if was_behind {
            // It takes these as well. What it cannot be given now it is given later.
            if let Err(error) = self.catch_up().await {
                error!(%service, %error, "the audit is behind");
            }
            return Ok(seq);
        }
        let known = self.inner.service(service).await?;
        let state =
            known.map_or_else(|| ServiceState::unknown(service.clone()), |(state, _)| state);
        let first = seq.0.saturating_sub(facts.len() as u64);
        for (fact, place) in facts.iter().zip(1..) {
            self.take(&state, Seq(first + place), fact).await;
        }
        Ok(seq)
    }

    async fn service(
        &self,
        service: &ServiceName,
    ) -> Result<Option<(ServiceState, Seq)>, JournalError> {
        self.inner.service(service).await
    }

    async fn services(&self) -> Result<Vec<ServiceState>, JournalError> {
        self.inner.services().await
    }

    async fn rollout(
        &self,
        id: &RolloutId,
    ) -> Result<Option<(Rollout, Option<Checkpoint>)>, JournalError> {
        self.inner.rollout(id).await
    }

    async fn open_rollouts(&self) -> Result<Vec<RolloutId>, JournalError> {
        self.inner.open_rollouts().await
    }

    async fn has_room(&self) -> Result<(), JournalError> {
        self.inner.has_room().await
    }

    async fn history(
        &self,
        service: &ServiceName,
        rollout: Option<&RolloutId>,
        limit: usize,
    ) -> Result<Vec<(Seq, Fact)>, JournalError> {
        self.inner.history(service, rollout, limit).await
    }
}
