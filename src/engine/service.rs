//! What is known of a service beyond its rollouts: which slot holds which version and plays which role, by region.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{Emergency, Event, Fact, Queued};
use crate::units::{
    Generation, RegionName, RolloutId, ServiceName, SlotName, Timestamp, Version, Weight,
};

/// Emergencies that wait for a review at most.
const BROKEN_MAX: usize = 100;

/// A service as the journal knows it. Folded from the same facts as its rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Which.
    pub name: ServiceName,
    /// The stable version; none before adoption.
    pub stable: Option<Version>,
    /// Roles and versions by region.
    pub regions: BTreeMap<RegionName, Slots>,
    /// The newest generation that any of its rollouts used.
    pub generation: Generation,
    /// How many rollouts it had.
    pub rollouts: u64,
    /// The one that is under way.
    pub open: Option<RolloutId>,
    /// The one that was promoted last; its previous slot may still be kept.
    pub promoted: Option<RolloutId>,
    /// The newest version whose every criterion was proven.
    pub proven: Option<Version>,
    /// When it was adopted.
    pub adopted_at: Option<Timestamp>,
    /// What begins when the one under way is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<Box<Queued>>,
    /// No version begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
    /// What was done in an emergency and nobody else has looked at yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_review: Vec<Broken>,
}

/// Why no version begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// What one person did alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// Who.
    pub by: String,
    /// What.
    pub action: Emergency,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Roles and versions of a service's slots in one region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// The slot that plays stable.
    pub stable: SlotName,
    /// The other one.
    pub idle: SlotName,
    /// What the idle slot has of the traffic outside of a rollout: more than nothing only where it was adopted so.
    #[serde(default)]
    pub idle_weight: Weight,
    /// What is known to be deployed where.
    pub versions: BTreeMap<SlotName, Version>,
}

impl ServiceState {
    /// A service nothing is known of.
    #[must_use]
    pub fn unknown(name: ServiceName) -> Self {
        Self {
            name,
            stable: None,
            regions: BTreeMap::new(),
            generation: Generation::default(),
            rollouts: 0,
            open: None,
            promoted: None,
            proven: None,
            adopted_at: None,
            queued: None,
            frozen: None,
            to_review: Vec::new(),
        }
    }

    /// Takes one fact in. `version` is the version that the fact's rollout rolls out.
    pub fn apply(&mut self, fact: &Fact, version: Option<&Version>) {
        match &fact.event {
            Event::Adopted(adopted) => {
                self.stable = Some(adopted.version.clone());
                self.adopted_at = Some(fact.at);
                self.generation = self.generation.max(adopted.generation.unwrap_or_default());
                let slots = |region: &super::event::AdoptedRegion| Slots {
                    stable: region.stable.clone(),
                    idle: region.idle.clone(),
                    idle_weight: region.idle_weight,
                    versions: [(region.stable.clone(), adopted.version.clone())].into(),
                };
                self.regions = adopted
                    .regions
                    .iter()
                    .map(|(name, region)| (name.clone(), slots(region)))
                    .collect();
            }
            Event::Queued(next) => self.queued = Some(next.clone()),
            Event::Unqueued { .. } => self.queued = None,
            Event::Frozen { by, reason } => {
                let (by, reason) = (by.name.clone(), reason.clone());
                self.frozen = Some(Frozen { by, reason, at: fact.at });
            }
            Event::Thawed { .. } => self.frozen = None,
            Event::GlassBroken { by, action, reason, .. } => {
                let (by, reason) = (by.name.clone(), reason.clone());
                self.to_review.push(Broken { by, action: *action, reason, at: fact.at });
                // Years of them would be nobody's review.
                self.to_review.truncate(BROKEN_MAX);
            }
            Event::Reviewed { .. } => self.to_review.clear(),
            Event::Started(started) => {
                self.queued = None;
                self.open.clone_from(&fact.rollout);
                self.rollouts = fact.rollout.as_ref().map_or(self.rollouts, |id| id.number);
                self.generation = self.generation.max(started.generation);
                for (region, slots) in &mut self.regions {
                    match started.slots.get(region) {
                        Some(arms) => {
                            slots.versions.insert(arms.canary.clone(), started.version.clone());
                        }
                        // A region that takes no part must not change roles when this version is promoted.
                        None => slots
                            .versions
                            .retain(|slot, held| *slot != slots.idle || *held != started.version),
                    }
                }
            }
            Event::Resumed { generation, .. }
            | Event::RollbackStarted { generation, .. }
            | Event::PromotionStarted { generation } => {
                self.generation = self.generation.max(*generation);
            }
            // Nothing is raised before the idle slots of all its regions are read back at 0.
            Event::StepEntered { generation, .. } => {
                self.generation = self.generation.max(*generation);
                self.rest(version);
            }
            Event::RolledBack => {
                self.open = None;
                self.rest(version);
            }
            Event::Promoted { proven } => self.apply_promoted(fact, version, *proven),
            _ => {}
        }
    }

    /// Outside of the rollout of `version` its regions' idle slots have no traffic any more.
    fn rest(&mut self, version: Option<&Version>) {
        for slots in self.regions.values_mut() {
            if slots.versions.get(&slots.idle) == version && version.is_some() {
                slots.idle_weight = Weight::ZERO;
            }
        }
    }

    fn apply_promoted(&mut self, fact: &Fact, version: Option<&Version>, proven: bool) {
        self.open = None;
        self.promoted.clone_from(&fact.rollout);
        let Some(version) = version else { return };
        self.stable = Some(version.clone());
        if proven {
            self.proven = Some(version.clone());
        }
        for slots in self.regions.values_mut() {
            if slots.versions.get(&slots.idle) == Some(version) {
                std::mem::swap(&mut slots.stable, &mut slots.idle);
            }
        }
    }
}
