//! Whether there is data, and whether traffic goes where the weights say.

use std::collections::BTreeMap;

use super::record::{Record, Status};
use super::{Judge, Region};
use crate::engine::poll::{DarkArm, MissingReason};
use crate::engine::verdict::{DataState, HoldEvidence, Undecided};
use crate::spec::plan::Plan;
use crate::stats::Conditions;
use crate::units::{AnalysisName, Millis, RegionName, Timestamp, Weight};

/// Fewer requests than this say nothing about shares.
const REQUESTS_MIN: f64 = 200.0;
/// Two-sided 99.9 % of the bell curve.
const NORMAL_999: f64 = 3.29;

impl Judge {
    /// Why `analysis` says nothing now about some region with canary weight; `None` when it says something about all.
    pub(super) fn trouble(
        &self,
        plan: &Plan,
        regions: &[RegionName],
        analysis: &AnalysisName,
        now: Timestamp,
    ) -> Option<Undecided> {
        let waits = || {
            let requests = self.requests(regions, analysis).unwrap_or(0.0) as u64;
            Undecided::NotEnoughData {
                requests,
                requests_min: self.requests_min(plan),
                remaining: None,
            }
        };
        regions.iter().find_map(|name| {
            let Some(region) = self.regions.get(name).filter(|it| it.generation == self.generation)
            else {
                return Some(waits());
            };
            if is_stale(plan, name, region, now) {
                return Some(Undecided::NoData(MissingReason::Stale));
            }
            match &region.records.get(analysis).map_or(&Status::Unseen, |record| &record.status) {
                Status::Present => None,
                Status::Unseen => Some(waits()),
                Status::Missing { arm, why } => {
                    matters(region, *arm).then_some(Undecided::NoData(*why))
                }
                Status::SourceError(text) => {
                    Some(Undecided::SourceError(format!("{name}: {text}")))
                }
            }
        })
    }

    /// Whether there was data, by region that has canary weight and was looked at under this generation.
    pub(super) fn data(
        &self,
        plan: &Plan,
        regions: &[RegionName],
        now: Timestamp,
    ) -> BTreeMap<RegionName, DataState> {
        let state = |name: &RegionName, region: &Region| {
            if is_stale(plan, name, region, now) {
                let silent = now.since(region.looked_at);
                return DataState::SourceError(format!("not looked at for {silent}"));
            }
            let decides = self.sets.iter().filter(|set| !set.dry_run && self.applies(plan, set));
            let states = decides.filter_map(|set| {
                state_of(region, &set.analysis, &region.records.get(&set.analysis)?.status)
            });
            // A source that does not answer explains a dark arm, not the other way round.
            let worst = |state: &DataState| matches!(state, DataState::SourceError(_));
            states.max_by_key(worst).unwrap_or(DataState::Present)
        };
        let looked = regions.iter().filter_map(|name| {
            let region = self.regions.get(name).filter(|it| it.generation == self.generation)?;
            Some((name.clone(), state(name, region)))
        });
        looked.collect()
    }

    /// Whether a number that decides is missing in a region, as of the look at hand.
    pub(super) fn is_dark(&self, plan: &Plan, name: &RegionName) -> bool {
        let Some(region) = self.regions.get(name) else { return false };
        let mut decides = self.sets.iter().filter(|set| !set.dry_run && self.applies(plan, set));
        decides.any(|set| {
            let record = region.records.get(&set.analysis);
            record.is_some_and(|it| state_of(region, &set.analysis, &it.status).is_some())
        })
    }

    /// A region whose requests do not arrive in the confirmed shares, as far as chance allows to tell.
    pub(super) fn traffic_hold(&self, regions: &[RegionName]) -> Option<HoldEvidence> {
        regions.iter().find_map(|name| {
            let region = self.regions.get(name)?;
            let busiest = |one: &&Record, other: &&Record| all(one).total_cmp(&all(other));
            let record = region.records.values().max_by(busiest)?;
            let (requests, confirmed) = (all(record), region.reach().canary_fraction());
            let observed = record.tally.canary.requests / requests;
            let clumps = Conditions::without_history(None).as_clumpy_as(self.clumps_min).clumpiness;
            let chance = NORMAL_999 * (clumps * confirmed * (1.0 - confirmed) / requests).sqrt();
            let differs = observed < 0.5 * confirmed || observed > 2.0 * confirmed;
            (requests >= REQUESTS_MIN && differs && (observed - confirmed).abs() > chance).then(
                || HoldEvidence::TrafficDoesNotFollow { region: name.clone(), observed, confirmed },
            )
        })
    }

    /// Canary requests of `analysis` at this generation over `regions`; those of the busiest analysis for a gauge, and
    /// `None` when nothing counts requests.
    pub(super) fn requests(&self, regions: &[RegionName], analysis: &AnalysisName) -> Option<f64> {
        let of = |name: &RegionName| self.requests_in(name, analysis);
        regions.iter().filter_map(of).reduce(|one, other| one + other)
    }

    /// The same in one region.
    pub(super) fn requests_in(&self, region: &RegionName, analysis: &AnalysisName) -> Option<f64> {
        let records = &self.regions.get(region)?.records;
        let own = records.get(analysis).map(|record| record.tally.canary.requests);
        let others = records.values().map(|record| record.tally.canary.requests);
        own.filter(|count| *count > 0.0)
            .or_else(|| others.reduce(f64::max).filter(|_| self.is_gauge(analysis)))
            .filter(|count| *count > 0.0)
    }

    fn is_gauge(&self, analysis: &AnalysisName) -> bool {
        self.sets.iter().any(|set| set.analysis == *analysis && set.is_gauge())
    }

    /// Requests without which nothing passes in the current stage.
    pub(super) fn requests_min(&self, plan: &Plan) -> u64 {
        plan.stages.get(self.stage).map_or(u64::MAX, |stage| stage.min_requests)
    }
}

fn all(record: &Record) -> f64 {
    record.tally.canary.requests + record.tally.stable.requests
}

/// Not looked at for so long that what is known of it is old.
fn is_stale(plan: &Plan, name: &RegionName, region: &Region, now: Timestamp) -> bool {
    let poll = plan.regions.get(name).map_or(Millis::ZERO, |region| region.poll);
    now.since(region.looked_at) > Millis(poll.0.saturating_mul(3)).plus(Millis::from_secs(5))
}

/// Whether an arm that is dark should have had traffic.
fn matters(region: &Region, arm: DarkArm) -> bool {
    arm != DarkArm::Stable || region.weight != Weight::FULL
}

fn state_of(region: &Region, analysis: &AnalysisName, status: &Status) -> Option<DataState> {
    match status {
        Status::Missing { arm, why } if matters(region, *arm) => {
            Some(DataState::Dark { arm: *arm, why: *why, analysis: analysis.to_string() })
        }
        Status::SourceError(text) => Some(DataState::SourceError(format!("{analysis}: {text}"))),
        _ => None,
    }
}
