//! The journal of a simulated rollout, and what it allows.

use std::collections::BTreeMap;

use super::sample;
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::Rollout;
use crate::spec::plan::Plan;
use crate::units::{Generation, Reach, RegionName, RolloutId, Timestamp, Weight};

/// Facts in order, and the weights that they ask for by generation.
#[derive(Debug)]
pub(super) struct Recorded {
    facts: Vec<Fact>,
    id: RolloutId,
    wanted: BTreeMap<Generation, BTreeMap<RegionName, Reach>>,
}

impl Recorded {
    pub(super) fn new(plan: Plan, at: Timestamp) -> Self {
        let id = RolloutId { service: plan.service.clone(), number: 1 };
        let mut recorded = Self { facts: Vec::new(), id, wanted: BTreeMap::new() };
        let started = sample::started(plan);
        let zero = started.plan.regions.keys().map(|name| (name.clone(), Reach::NONE)).collect();
        recorded.wanted.insert(started.generation, zero);
        recorded.append(Event::Started(Box::new(started)), at);
        recorded
    }

    pub(super) fn append(&mut self, event: Event, at: Timestamp) {
        if let Some((generation, weights)) = self.asks(&event) {
            self.wanted.insert(generation, weights);
        }
        let service = self.id.service.clone();
        self.facts.push(Fact { at, service, rollout: Some(self.id.clone()), event });
    }

    /// What a restart finds.
    pub(super) fn fold(&self) -> Rollout {
        Rollout::fold(&self.facts).expect("the first fact is the start")
    }

    /// The same, through what stands on disk.
    pub(super) fn fold_from_disk(&self) -> Rollout {
        let text = serde_json::to_string(&self.facts).expect("facts can be written");
        let facts: Vec<Fact> = serde_json::from_str(&text).expect("facts can be read");
        Rollout::fold(&facts).expect("the first fact is the start")
    }

    /// The weight that was recorded for a region, if `generation` is the newest.
    pub(super) fn intent(&self, generation: Generation, region: &RegionName) -> Option<Reach> {
        let (newest, weights) = self.wanted.last_key_value()?;
        (*newest == generation).then(|| weights.get(region).copied()).flatten()
    }

    pub(super) fn generation(&self) -> Generation {
        self.wanted.last_key_value().map_or(Generation(0), |(newest, _)| *newest)
    }

    fn asks(&self, event: &Event) -> Option<(Generation, BTreeMap<RegionName, Reach>)> {
        let newest: &BTreeMap<RegionName, Reach> = self.wanted.last_key_value()?.1;
        let all = |weight: Reach| newest.keys().map(|name| (name.clone(), weight)).collect();
        match event {
            Event::StepEntered { generation, weights, mirrors, .. } => {
                let reach = |(name, weight): (&RegionName, &Weight)| {
                    let mirror = mirrors.get(name).copied().unwrap_or_default();
                    (name.clone(), Reach { weight: *weight, mirror })
                };
                Some((*generation, weights.iter().map(reach).collect()))
            }
            Event::Resumed { generation, .. } => Some((*generation, newest.clone())),
            Event::RollbackStarted { generation, .. } => Some((*generation, all(Reach::NONE))),
            Event::PromotionStarted { generation } => Some((*generation, all(Weight::FULL.into()))),
            _ => None,
        }
    }
}
