//! Checks: yes or no, counted over the whole bake, so that one good answer at the end is not a pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Judge;
use crate::engine::poll::{Measured, Poll};
use crate::engine::verdict::{Numbers, Outcome, Undecided};
use crate::spec::plan::{Criterion, Measurement, Plan};
use crate::units::{AnalysisName, RegionName};

/// Part of its runs at which a check must have held.
const HELD_SHARE_MIN: f64 = 0.9;
/// A trigger that is a check needs this many failed runs in a row: one bad answer is never enough.
const FAILED_RUNS_MIN: u64 = 3;

/// A check's runs in one region at this generation, those left out that came while the region's numbers were dark: then
/// nothing bakes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CheckRecord {
    runs: u64,
    held: u64,
    /// Failed runs since it last held, over generations.
    failed_in_a_row: u64,
    /// What the latest run said; `None` when it held or was never asked.
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    NotHeld(String),
    Error(String),
}

/// Every check, by analysis and region.
pub(super) type Checks = BTreeMap<AnalysisName, BTreeMap<RegionName, CheckRecord>>;

impl CheckRecord {
    fn take(&mut self, measured: &Measured, is_dark: bool) {
        let (held, trouble) = match measured {
            Measured::Check { held: true, .. } => (true, None),
            Measured::Check { detail, .. } => (false, Some(Trouble::NotHeld(detail.clone()))),
            Measured::NotDue => return,
            Measured::SourceError(text) => (false, Some(Trouble::Error(text.clone()))),
            _ => (false, Some(Trouble::Error("the check has no answer".to_owned()))),
        };
        if !is_dark {
            self.runs += 1;
            self.held += u64::from(held);
        }
        // An error is no answer: it never passes, and it never rolls back.
        match &trouble {
            None => self.failed_in_a_row = 0,
            Some(Trouble::NotHeld(_)) => self.failed_in_a_row += 1,
            Some(Trouble::Error(_)) => {}
        }
        self.trouble = trouble;
    }

    fn share(&self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.held as f64 / self.runs as f64 }
    }
}

impl Judge {
    /// Takes in the runs of every check in `poll`, where the canary has traffic; elsewhere there is nothing to check.
    pub(super) fn take_checks(&mut self, plan: &Plan, poll: &Poll) {
        let exposed = poll.regions.iter().filter(|(_, look)| !look.reach().is_none());
        for (region, look) in exposed {
            for (name, measured) in &look.measured {
                let is_check = plan.analyses.get(name).is_some_and(|analysis| {
                    matches!(analysis.measurement, Measurement::Check { .. })
                });
                if is_check {
                    let is_dark = self.is_dark(plan, region);
                    let records = self.checks.entry(name.clone()).or_default();
                    records.entry(region.clone()).or_default().take(measured, is_dark);
                }
            }
        }
    }

    /// Forgets the runs of the last generation.
    pub(super) fn restart_checks(&mut self) {
        for record in self.checks.values_mut().flat_map(BTreeMap::values_mut) {
            (record.runs, record.held) = (0, 0);
        }
    }

    /// Whether the check that `criterion` names holds in all of `regions`; for a trigger, whether it does not in one.
    pub(super) fn check_outcome(
        &self,
        criterion: &Criterion,
        is_trigger: bool,
        regions: &[RegionName],
    ) -> Outcome {
        let records = self.check_records(criterion, regions);
        if is_trigger && self.check_failed(criterion, regions) {
            return Outcome::Fail;
        }
        for (region, record) in &records {
            match &record.trouble {
                Some(Trouble::Error(text)) => {
                    return Outcome::Undecided(Undecided::SourceError(format!("{region}: {text}")));
                }
                Some(Trouble::NotHeld(text)) => {
                    return Outcome::Undecided(Undecided::CheckNotHeld(format!(
                        "{region}: {text}"
                    )));
                }
                None => {}
            }
        }
        // A region whose check has not run at this generation has shown nothing yet.
        let is_new = |region| records.get(region).is_none_or(|record| record.runs == 0);
        if regions.is_empty() || regions.iter().any(is_new) {
            return Outcome::Undecided(Undecided::NotEnoughData {
                requests: 0,
                requests_min: 0,
                remaining: None,
            });
        }
        let rare = records.iter().find(|(_, record)| record.share() < HELD_SHARE_MIN);
        match rare {
            Some((region, record)) => {
                let CheckRecord { held, runs, .. } = record;
                let text = format!("{region}: held at {held} of {runs} runs, 90 % are needed");
                Outcome::Undecided(Undecided::CheckNotHeld(text))
            }
            None => Outcome::Pass,
        }
    }

    /// Whether a check failed so often in a row, somewhere, that a trigger on it rolls back.
    pub(super) fn check_failed(&self, criterion: &Criterion, regions: &[RegionName]) -> bool {
        let records = self.check_records(criterion, regions);
        records.values().any(|record| record.failed_in_a_row >= FAILED_RUNS_MIN)
    }

    /// What a check said where it counts: without canary traffic, a check of the canary has nothing to say.
    fn check_records<'a>(
        &'a self,
        criterion: &Criterion,
        regions: &[RegionName],
    ) -> BTreeMap<&'a RegionName, &'a CheckRecord> {
        let all = self.checks.get(&criterion.analysis).into_iter().flatten();
        all.filter(|(name, _)| regions.contains(name)).collect()
    }

    /// Failed and all runs at this generation.
    pub(super) fn check_numbers(&self, criterion: &Criterion, regions: &[RegionName]) -> Numbers {
        let records = self.check_records(criterion, regions);
        let (runs, held) =
            records.values().fold((0, 0), |sum, it| (sum.0 + it.runs, sum.1 + it.held));
        Numbers {
            method: "check".to_owned(),
            effect: (runs > 0).then(|| held as f64 / runs as f64),
            canary: (runs > 0).then_some(((runs - held) as f64, runs as f64)),
            polls: runs,
            ..Numbers::default()
        }
    }
}
