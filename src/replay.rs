//! What a policy would have done in the past: rollouts one after another over looks that are on record, judged and
//! decided by the code that does it live.
//!
//! Weights cannot be replayed: both arms have the traffic that they had. Within a region and stage the policy sees that
//! traffic as it was, also where its own weight would have been another one.

pub mod halves;
pub mod metered;
pub mod plot;
pub mod sampled;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Serialize;

use crate::engine::event::Actor;
use crate::engine::input::Command;
use crate::engine::poll::{Measured, RegionPoll};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::Judgement;
use crate::engine::why::why;
use crate::ports::MetricsError;
use crate::sim::course::{Course, Stand};
use crate::spec::plan::{Analysis, Criterion, CriterionId, Plan};
use crate::units::{Millis, RegionName, StageName, Timestamp, Weight};

/// Looks that are on record, in order of time.
#[async_trait]
pub trait Past: Send {
    /// The time of the first look after `now`; none when there is nothing more.
    fn next(&self, now: Timestamp) -> Option<Timestamp>;

    /// What the look at `at` found in each region that stands at a weight. Times go forward within a rollout.
    async fn look(
        &mut self,
        at: Timestamp,
        stands: &BTreeMap<RegionName, Stand>,
        analyses: &[Analysis],
    ) -> Result<BTreeMap<RegionName, RegionPoll>, MetricsError>;

    /// A rollout begins: nothing from before it counts.
    fn begin(&mut self);
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Replayed {
    /// Looks at the past.
    pub looks: u64,
    /// One after another.
    pub rollouts: Vec<Replay>,
    /// Evidence look by look.
    #[serde(skip)]
    pub evidence: Vec<Evidence>,
}

/// One rollout of the past that never was.
#[derive(Debug, Clone, Serialize)]
pub struct Replay {
    /// Its first moment.
    pub began: Timestamp,
    /// Its last.
    pub ended: Timestamp,
    /// How it ended.
    pub end: End,
    /// Every stage it reached, and when.
    pub stages: Vec<(StageName, Timestamp)>,
    /// The rule and the numbers, or what was in the way at the end.
    pub why: Option<String>,
    /// Requests it was judged on.
    pub requests: Requests,
    /// Highest ln of the combined evidence for harm.
    pub log_harm_max: f64,
    /// Let through without proof.
    pub not_proven: Vec<CriterionId>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every stage passed.
    Promoted,
    /// It went back.
    RolledBack,
    /// A stage was not proven in its longest time, and waits for a person.
    Undecided,
    /// The past ended before it did.
    Unfinished,
}

/// Requests of both arms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Requests {
    /// Canary's.
    pub canary: f64,
    /// Stable's.
    pub stable: f64,
}

/// How much a look knew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// When.
    pub at: Timestamp,
    /// ln of the combined evidence for harm.
    pub log_harm: f64,
    /// ln of the weakest proof that a limit of the stage is kept; none without a statistical criterion.
    pub log_proof: Option<f64>,
}

/// Replays `plan` from `from` on, rollout after rollout, until the past ends; after one that went back the next begins
/// `pause` later. People are taken to open every gate at once. `each` hears of every look.
///
/// # Errors
/// The past cannot be read.
pub async fn replay(
    plan: &Plan,
    past: &mut dyn Past,
    from: Timestamp,
    pause: Millis,
    each: &mut (dyn FnMut(Timestamp) + Send),
) -> Result<Replayed, MetricsError> {
    let mut replayed = Replayed::default();
    let mut begin = from;
    while past.next(begin).is_some() {
        past.begin();
        let replay = one(plan, past, begin, &mut replayed, each).await?;
        begin = match replay.end {
            End::RolledBack => replay.ended.plus(pause),
            _ => replay.ended,
        };
        replayed.rollouts.push(replay);
    }
    Ok(replayed)
}

async fn one(
    plan: &Plan,
    past: &mut dyn Past,
    began: Timestamp,
    replayed: &mut Replayed,
    each: &mut (dyn FnMut(Timestamp) + Send),
) -> Result<Replay, MetricsError> {
    let mut course = Course::new(plan.clone(), began);
    let mut replay = Replay {
        began,
        ended: began,
        end: End::Unfinished,
        stages: Vec::new(),
        why: None,
        requests: Requests::default(),
        log_harm_max: f64::NEG_INFINITY,
        not_proven: Vec::new(),
    };
    while let Some(at) = past.next(course.now()) {
        replay.note_stage(course.state(), course.now());
        let stands = course.confirmed().map(|(name, stand)| (name.clone(), *stand)).collect();
        let regions = past.look(at, &stands, &course.reached()).await?;
        replay.requests.add(&regions);
        let criteria = stage_criteria(course.state());
        if let Some(judgement) = course.looked(at, regions) {
            let known = Evidence::of(&judgement, &criteria);
            replay.log_harm_max = replay.log_harm_max.max(known.log_harm);
            replayed.evidence.push(known);
        }
        if course.state().phase == Phase::Gated {
            let by = Actor { name: "replay".to_owned(), note: None };
            course.command(by, Command::Promote);
        }
        course.drain();
        replayed.looks += 1;
        replay.ended = at;
        each(at);
        if let Some(end) = end(course.state()) {
            replay.end = end;
            break;
        }
    }
    let state = course.state();
    replay.not_proven = state.not_proven.iter().cloned().collect();
    replay.why = match replay.end {
        End::Promoted => None,
        End::RolledBack => state.cause.as_ref().map(ToString::to_string),
        _ => why(state, replay.ended).first().map(ToString::to_string),
    };
    Ok(replay)
}

fn end(state: &Rollout) -> Option<End> {
    match state.phase {
        Phase::Promoted | Phase::Retired => Some(End::Promoted),
        Phase::RolledBack => Some(End::RolledBack),
        _ if state.undecided => Some(End::Undecided),
        _ => None,
    }
}

fn stage_criteria(state: &Rollout) -> Vec<CriterionId> {
    let is_statistical = |it: &&Criterion| it.test.is_statistical();
    state.stage().criteria.iter().filter(is_statistical).map(|it| it.id.clone()).collect()
}

impl Replay {
    fn note_stage(&mut self, state: &Rollout, now: Timestamp) {
        if state.phase != Phase::Preparing && state.stage == self.stages.len() {
            self.stages.push((state.stage().name.clone(), now));
        }
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Millis {
        self.ended.since(self.began)
    }
}

impl Evidence {
    fn of(judgement: &Judgement, criteria: &[CriterionId]) -> Self {
        let own = judgement.verdicts.iter().filter(|it| criteria.contains(&it.criterion));
        let proofs = own.map(|it| it.numbers.log_ok.unwrap_or(0.0));
        let (at, log_harm) = (judgement.at, judgement.log_harm);
        Self { at, log_harm, log_proof: proofs.reduce(f64::min) }
    }
}

impl Requests {
    /// Those of a look, as the analysis with the most of them in each region counts.
    fn add(&mut self, regions: &BTreeMap<RegionName, RegionPoll>) {
        for look in regions.values() {
            let found = requests(look.measured.values());
            self.canary += found.canary;
            self.stable += found.stable;
        }
    }
}

fn requests<'a>(measured: impl Iterator<Item = &'a Measured>) -> Requests {
    let totals = measured.filter_map(|it| match it {
        Measured::Counts { canary, stable } => {
            Some(Requests { canary: canary.total, stable: stable.total })
        }
        Measured::Histogram { canary, stable, .. } => {
            Some(Requests { canary: canary.total, stable: stable.total })
        }
        _ => None,
    });
    let all = |it: &Requests| it.canary + it.stable;
    totals.max_by(|one, other| all(one).total_cmp(&all(other))).unwrap_or_default()
}

/// The canary's part of the traffic that was there; `usual` where one of the arms had none.
fn share(found: Requests, usual: Weight) -> Weight {
    let (canary, stable) = (found.canary.round() as u64, found.stable.round() as u64);
    if canary == 0 || stable == 0 {
        return usual;
    }
    let least = Weight::try_from(1).unwrap_or(usual);
    let part = Weight::from_ratio(canary, canary + stable).unwrap_or(usual);
    part.clamp(least, least.complement())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_stands_at_the_share_that_its_traffic_had() {
        let usual = Weight::from_percent(5.0).unwrap();
        let at = |canary: f64, stable: f64| share(Requests { canary, stable }, usual).percent();
        assert_eq!(at(25.0, 75.0), 25.0);
        assert_eq!(at(1.0, 1e9), 0.01);
        assert_eq!(at(1e9, 1.0), 99.99);
        assert_eq!([at(0.0, 10.0), at(10.0, 0.0)], [5.0, 5.0]);
    }
}
