//! What the numbers say: every look at the metrics goes in, a [`Judgement`] with its evidence comes out.
//!
//! Pure: no clock, no I/O. The judge is a value that is stored after every poll; one that is read back goes on with
//! exactly the same bits. A fresh one in mid-rollout would forget evidence, and the same poll fed twice would count it
//! twice: both are for the caller to avoid.
//!
//! Read [`history`] (what is known beforehand), `record` (what is remembered of an analysis in a region), `watch`, `pool`
//! and `monitors` (one test: per region, pooled, at 100 %, stable alone), then `harm` (the evidence together), `outcome`
//! (verdicts), `breach` (in words).

mod attribution;
mod breach;
mod checks;
mod clumps;
mod cohorts;
mod harm;
pub mod history;
mod monitors;
mod nonconcurrent;
mod numbers;
mod outcome;
mod pool;
mod proportion;
mod reading;
pub mod recheck;
mod record;
mod traffic;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use history::{History, RegionHistory, StableMemory};

use self::checks::Checks;
use self::harm::Harm;
use self::monitors::{Look, MonitorSet};
use self::reading::Reading;
use self::record::{Record, Status, Tally};
use self::watch::Terms;
use super::poll::{Measured, Poll, RegionPoll};
use super::verdict::Judgement;
use crate::spec::plan::{Measurement, Plan, Step};
use crate::stats::Conditions;
use crate::units::{AnalysisName, Generation, Millis, Reach, RegionName, Timestamp, Weight};

/// ln 20: evidence at which nothing is raised any more.
const LOG_HOLD: f64 = 2.995_732_273_553_991;
/// Intervals and forecasts are for people and costly; they are made anew once in so many polls.
const POLLS_PER_FORECAST: u64 = 10;
/// Requests assumed behind a gauge's value when nothing counts them.
const GAUGE_EVENTS: f64 = 100.0;
/// How long a shared outage holds after it was last seen.
const SHARED_OUTAGE_LASTS: Millis = Millis::from_secs(60);

/// Judges one rollout, poll by poll. Its size grows with tests and regions only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    stage: usize,
    step: usize,
    generation: Generation,
    entered: bool,
    polls: u64,
    history: History,
    regions: BTreeMap<RegionName, Region>,
    sets: Vec<MonitorSet>,
    checks: Checks,
    /// Requests that share their luck at least; see [`Plan::clumps_min`].
    #[serde(default = "one")]
    clumps_min: f64,
}

fn one() -> f64 {
    1.0
}

/// What is remembered of one region.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Region {
    weight: Weight,
    /// Share of the requests that the canary got copies of.
    #[serde(default, skip_serializing_if = "Weight::is_unset")]
    mirror: Weight,
    looked_at: Timestamp,
    /// The generation of the last look.
    generation: Generation,
    /// New instances are still allowed for.
    is_warming_up: bool,
    records: BTreeMap<AnalysisName, Record>,
}

impl Region {
    fn reach(&self) -> Reach {
        Reach { weight: self.weight, mirror: self.mirror }
    }
}

type Readings<'a> = BTreeMap<(&'a RegionName, &'a AnalysisName), Reading>;

impl Judge {
    /// A judge of a service without history: every verdict is unverified.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self::with_history(plan, History::default())
    }

    /// A judge that knows how stable behaved before.
    #[must_use]
    pub fn with_history(plan: &Plan, history: History) -> Self {
        Self {
            stage: 0,
            step: 0,
            generation: Generation::default(),
            entered: false,
            polls: 0,
            history,
            regions: BTreeMap::new(),
            sets: MonitorSet::all(plan),
            checks: Checks::new(),
            clumps_min: plan.clumps_min(),
        }
    }

    /// The weights of `step` of `stage` are confirmed everywhere under `generation`: half of the stake that was kept back
    /// goes on this, and what is counted per generation starts over. Evidence goes on. Repeating it changes nothing.
    pub fn enter(&mut self, plan: &Plan, stage: usize, step: usize, generation: Generation) {
        // A stage that the plan does not have is its last one: never less is watched.
        let stage = stage.min(plan.stages.len().saturating_sub(1));
        if self.entered && self.generation == generation {
            return;
        }
        (self.stage, self.step, self.generation, self.entered) = (stage, step, generation, true);
        self.sets.iter_mut().for_each(MonitorSet::traffic_step);
        let records = self.regions.values_mut().flat_map(|region| region.records.values_mut());
        records.for_each(|record| record.tally = Tally::default());
        self.restart_checks();
    }

    /// Takes one look in and says what is known now. Regions where nothing reaches the canary only teach what stable is like.
    ///
    /// A poll of another generation than the entered one is evidence, but proves nothing about the current weights.
    pub fn observe(&mut self, plan: &Plan, poll: &Poll) -> Judgement {
        let readings = self.read(poll);
        self.bet(plan, poll, &readings);
        self.learn(plan, poll, &readings);
        self.take_checks(plan, poll);
        for set in self.sets.iter_mut().filter(|set| set.is_shared()) {
            set.shared_at = Some(poll.at);
        }
        if self.polls.is_multiple_of(POLLS_PER_FORECAST) {
            self.forecast_all(plan);
        }
        self.polls += 1;
        let harm = Harm::weigh(self, plan, poll.at);
        let judgement = self.judge(plan, poll, &harm);
        self.sets.iter_mut().for_each(|set| set.forget_shared(plan));
        judgement
    }

    fn forecast_all(&mut self, plan: &Plan) {
        let new = |set: &MonitorSet| (self.interval(plan, set), self.forecast(plan, set));
        let all: Vec<_> = self.sets.iter().map(new).collect();
        for (set, (interval, forecast)) in self.sets.iter_mut().zip(all) {
            (set.interval, set.forecast) = (interval, forecast);
        }
    }

    /// Notes how every look went; the numbers of those that have any.
    fn read<'a>(&mut self, poll: &'a Poll) -> Readings<'a> {
        let mut readings = Readings::new();
        for (name, look) in &poll.regions {
            let region = self.regions.entry(name.clone()).or_default();
            (region.weight, region.mirror, region.looked_at) = (look.weight, look.mirror, poll.at);
            region.generation = poll.generation;
            region.is_warming_up = Conditions::default().warming_up(ready(look)).ok_paused;
            for (analysis, record) in &mut region.records {
                if !look.measured.contains_key(analysis) {
                    record.status = Status::Unseen;
                }
            }
            for (analysis, measured) in &look.measured {
                let record = region.records.entry(analysis.clone()).or_insert_with(|| {
                    let known = self.history.of(analysis, name);
                    Record {
                        memory: known.map(|it| it.stable.clone()).unwrap_or_default(),
                        ..Record::default()
                    }
                });
                match Reading::new(measured) {
                    Ok(Some(reading)) => {
                        record.status = Status::Present;
                        readings.insert((name, analysis), reading);
                    }
                    Ok(None) => note(&mut record.status, measured),
                    Err(text) => record.status = Status::SourceError(text),
                }
            }
        }
        readings
    }

    /// Every test that applies takes the poll in, under conditions known before it.
    fn bet(&mut self, plan: &Plan, poll: &Poll, readings: &Readings) {
        let mut sets = std::mem::take(&mut self.sets);
        for set in sets.iter_mut().filter(|set| self.applies(plan, set)) {
            let analysis = set.analysis.clone();
            let looks = poll.regions.iter().filter_map(|(name, look)| {
                let reading = readings.get(&(name, &analysis))?;
                self.look(name, look, &analysis, reading, readings)
            });
            let looks: Vec<Look> = looks.collect();
            if !looks.is_empty() {
                set.observe(plan, &looks);
            }
        }
        self.sets = sets;
    }

    fn look<'a>(
        &'a self,
        name: &'a RegionName,
        look: &RegionPoll,
        analysis: &AnalysisName,
        reading: &'a Reading,
        readings: &Readings,
    ) -> Option<Look<'a>> {
        let record = self.regions.get(name)?.records.get(analysis)?;
        let warm = self.conditions(name, analysis, record);
        let events = match reading {
            Reading::Level { .. } => canary_requests(name, readings),
            _ => 0.0,
        };
        let seconds = look.window.as_secs_f64();
        Some(Look {
            region: name,
            has_canary: !look.reach().is_none(),
            is_full: look.weight == Weight::FULL,
            reading,
            memory: &record.memory,
            terms: Terms { seconds, conditions: warm.warming_up(ready(look)), events },
            warm,
        })
    }

    /// How evidence of one analysis in one region is weighed, apart from warm-up.
    fn conditions(
        &self,
        region: &RegionName,
        analysis: &AnalysisName,
        record: &Record,
    ) -> Conditions {
        let conditions = match self.history.of(analysis, region) {
            Some(known) => Conditions::with_history(known.clumpiness.max(1.0)),
            None => Conditions::without_history(record.clumps.clumpiness()),
        };
        conditions.as_clumpy_as(self.clumps_min)
    }

    /// Learns from stable and counts, after all bets are settled.
    fn learn(&mut self, plan: &Plan, poll: &Poll, readings: &Readings) {
        for ((name, analysis), reading) in readings {
            let Some(look) = poll.regions.get(*name) else { continue };
            let record = self.regions.get_mut(*name).and_then(|it| it.records.get_mut(*analysis));
            let Some(record) = record else { continue };
            let seconds = look.window.as_secs_f64();
            // What trickles through at 100 % is not stable as users know it.
            if look.weight != Weight::FULL {
                record.learn(reading, quantile(plan, analysis), seconds);
            }
            if poll.generation == self.generation {
                record.tally.add(reading, seconds);
            }
        }
    }

    /// Whether a trigger or a criterion of a stage reached so far uses this test.
    fn applies(&self, plan: &Plan, set: &MonitorSet) -> bool {
        let reached = plan.stages.iter().take(self.stage + 1).flat_map(|stage| &stage.criteria);
        let mut criteria = reached.chain(&plan.triggers);
        criteria.any(|it| it.analysis == set.analysis && it.test == set.test)
    }

    /// Regions where something reaches the canary, or should by the current step.
    fn canary_regions(&self, plan: &Plan) -> Vec<RegionName> {
        let step = plan.stages.get(self.stage).and_then(|stage| stage.steps.get(self.step));
        let wanted = step.into_iter().flat_map(Step::reached);
        let seen = self.regions.iter().filter(|(_, region)| !region.reach().is_none());
        let mut names: Vec<_> = wanted.chain(seen.map(|(name, _)| name)).cloned().collect();
        names.sort();
        names.dedup();
        names
    }
}

fn ready(look: &RegionPoll) -> Option<f64> {
    look.ready_for.map(Millis::as_secs_f64)
}

fn note(status: &mut Status, measured: &Measured) {
    match measured {
        Measured::Missing { arm, why } => *status = Status::Missing { arm: *arm, why: *why },
        Measured::SourceError(text) => *status = Status::SourceError(text.clone()),
        // Nothing was asked since: what was true stays true, missing data too.
        _ => {}
    }
}

/// Canary requests of this poll in one region, as the analysis with the most of them counts; without any such analysis
/// enough not to wait for.
fn canary_requests(region: &RegionName, readings: &Readings) -> f64 {
    let counts = readings.iter().filter(|((name, _), _)| *name == region);
    let counts = counts.filter_map(|(_, reading)| reading.requests());
    counts.map(|(canary, _)| canary).reduce(f64::max).unwrap_or(GAUGE_EVENTS)
}

fn quantile(plan: &Plan, analysis: &AnalysisName) -> f64 {
    match plan.analyses.get(analysis).map(|analysis| &analysis.measurement) {
        Some(Measurement::Latency { quantile, .. }) => *quantile,
        _ => 0.5,
    }
}
