//! Looking at the metrics of every region whose weight is confirmed, and of no other.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::site::Site;
use crate::engine::event::Event;
use crate::engine::poll::{Poll, RegionPoll};
use crate::engine::rollout::Rollout;
use crate::metrics::meter::{LookContext, Meter};
use crate::ports::Subject;
use crate::spec::plan::{Analysis, Measurement};
use crate::spec::selector::{Track, arm_variables};
use crate::units::{AnalysisName, Generation, Millis, Reach, RegionName, Timestamp};

/// What has to be remembered between looks; stored after each of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measuring {
    regions: BTreeMap<RegionName, RegionMeasuring>,
}

/// One region at one confirmed weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RegionMeasuring {
    #[serde(rename = "weight")]
    reach: Reach,
    confirmed_at: Timestamp,
    looked_at: Option<Timestamp>,
    meter: Meter,
}

/// A look that is about to happen.
pub struct Look {
    generation: Generation,
    at: Timestamp,
    regions: BTreeMap<RegionName, RegionMeasuring>,
}

/// What a look found.
pub struct Measured {
    poll: Poll,
    /// It was a little too early: a source that scrapes as often as it is polled had nothing new in some region.
    pub too_early: bool,
    regions: BTreeMap<RegionName, RegionMeasuring>,
}

impl Measuring {
    /// Windows are tied to confirmed weights: they begin with one and never reach over a change.
    pub fn follow(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::RegionRead { region, weight, mirror, confirmed: Some(_), .. } => {
                let reach = Reach { weight: *weight, mirror: *mirror };
                if self.regions.get(region).is_some_and(|known| known.reach == reach) {
                    return;
                }
                let fresh = RegionMeasuring {
                    reach,
                    confirmed_at: at,
                    looked_at: None,
                    meter: self
                        .regions
                        .remove(region)
                        .map(|old| restarted(old.meter))
                        .unwrap_or_default(),
                };
                self.regions.insert(region.clone(), fresh);
            }
            Event::DriftFound { region, .. } => {
                self.regions.remove(region);
            }
            _ => {}
        }
    }

    /// What is to be looked at now.
    #[must_use]
    pub fn prepare(&self, state: &Rollout, at: Timestamp) -> Look {
        let measurable = |name: &&RegionName| {
            state.regions.get(*name).is_some_and(|region| {
                region.confirmed == Some(state.generation) && region.observed.is_some()
            })
        };
        let names = self.regions.keys().filter(measurable);
        let regions = names.map(|name| (name.clone(), self.regions[name].clone())).collect();
        Look { generation: state.generation, at, regions }
    }

    /// Keeps what a look has to remember; regions whose weight changed meanwhile are left out.
    pub fn take(&mut self, measured: Measured) -> Poll {
        let mut poll = measured.poll;
        for (name, looked) in measured.regions {
            match self.regions.get_mut(&name) {
                Some(known)
                    if known.confirmed_at == looked.confirmed_at && known.reach == looked.reach =>
                {
                    *known = looked;
                }
                _ => {
                    poll.regions.remove(&name);
                }
            }
        }
        poll
    }
}

fn restarted(mut meter: Meter) -> Meter {
    meter.reset_origins();
    meter
}

impl Look {
    /// Looks at all regions at once.
    pub async fn perform(self, site: &Site, rollout: &Rollout, at: Timestamp) -> Measured {
        let analyses = reached(rollout);
        let looks = self.regions.into_iter().map(|(name, mut region)| {
            let analyses = &analyses;
            async move {
                let window = region.looked_at.map_or(Millis::ZERO, |before| at.since(before));
                let measured =
                    look_at(site, rollout, &name, &mut region, analyses.clone(), at).await?;
                let Reach { weight, mirror } = region.reach;
                let poll = RegionPoll { weight, mirror, window, ready_for: None, measured };
                region.looked_at = Some(at);
                Some((name, poll, region))
            }
        });
        let mut regions = BTreeMap::new();
        let mut poll = Poll { at: self.at, generation: self.generation, regions: BTreeMap::new() };
        for (name, looked, region) in join_all(looks).await.into_iter().flatten() {
            poll.regions.insert(name.clone(), looked);
            regions.insert(name, region);
        }
        let too_early = poll.regions.iter().any(|(name, look)| {
            let scraped = site.fleet.regions.get(name).map(|region| region.scrape_interval);
            scraped.is_some_and(|every| every <= rollout.poll()) && is_without_news(look, &analyses)
        });
        Measured { poll, regions, too_early }
    }
}

/// The source has not scraped since the last look.
fn is_without_news(look: &RegionPoll, analyses: &[&Analysis]) -> bool {
    let is_check = |it: &&&Analysis| matches!(it.measurement, Measurement::Check { .. });
    let mut numbers = analyses.iter().filter(|it| !is_check(it)).peekable();
    let not_due = |it: &&Analysis| {
        look.measured.get(&it.name) == Some(&crate::engine::poll::Measured::NotDue)
    };
    numbers.peek().is_some() && numbers.all(not_due)
}

/// Analyses of triggers and of every stage reached so far.
fn reached(rollout: &Rollout) -> Vec<&Analysis> {
    let plan = &rollout.plan;
    let stages = plan.stages.iter().take(rollout.stage + 1).flat_map(|stage| &stage.criteria);
    let names: BTreeSet<&AnalysisName> =
        stages.chain(&plan.triggers).map(|criterion| &criterion.analysis).collect();
    names.into_iter().filter_map(|name| plan.analyses.get(name)).collect()
}

async fn look_at(
    site: &Site,
    rollout: &Rollout,
    name: &RegionName,
    region: &mut RegionMeasuring,
    analyses: Vec<&Analysis>,
    at: Timestamp,
) -> Option<BTreeMap<AnalysisName, crate::engine::poll::Measured>> {
    let (connected, slots) = (site.regions.get(name)?, rollout.slots.get(name)?);
    let (fleet_region, service) =
        (site.fleet.regions.get(name)?, site.fleet.services.get(&site.service)?);
    let variables = |slot, version, track| {
        arm_variables(&site.service, service, name, fleet_region, slot, version, track)
    };
    let canary = variables(&slots.canary, &rollout.version, Track::Canary);
    let stable = variables(&slots.stable, &rollout.stable_version, Track::Stable);
    let subject = Subject {
        service: site.service.clone(),
        version: rollout.version.clone(),
        region: name.clone(),
    };
    let settle = rollout.plan.regions.get(name).map_or(Millis::ZERO, |plan| plan.settle);
    let context = LookContext {
        analyses,
        canary: &canary,
        stable: &stable,
        subject: &subject,
        reach: region.reach,
        at,
        after: region.looked_at,
        not_before: region.confirmed_at.plus(settle),
        scrape_interval: fleet_region.scrape_interval,
    };
    let source = connected.metrics.as_ref();
    Some(region.meter.look(source, site.checker.as_ref(), &context).await)
}
