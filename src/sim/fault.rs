//! What goes wrong, and what people do, at a drawn time.

use rand::{Rng, RngExt};

use super::options::Options;
use super::sample::percent;
use crate::units::{Millis, Weight};

/// A fault and when it happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Since the start, in real time.
    pub at: Millis,
    /// What.
    pub fault: Fault,
}

/// What happens to the world. Regions are counted in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The next write is applied, its answer is lost.
    AnswerLost(usize),
    /// The next call times out, and its answer arrives long after.
    AnswerLate(usize),
    /// The next write times out and is applied later, where generations are stored.
    WriteLate(usize),
    /// The next write never leaves.
    NotSent(usize),
    /// The next write is accepted and not applied.
    Lie(usize),
    /// The next reading is one of the past.
    StaleRead(usize),
    /// An instance lags for a while.
    Lags(usize, Millis),
    /// Somebody sets the weight by hand.
    Edit(usize, Weight),
    /// Another controller has been here, at this weight.
    Newer(usize, Weight),
    /// The balancer restarts and loses its weights.
    Restart(usize),
    /// No call gets through for a while.
    BlackHole(usize, Millis),
    /// The canary's backends are gone for a while.
    CanaryDead(usize, Millis),
    /// All backends are gone for a while.
    AllDead(usize, Millis),
    /// Probes fail for a while.
    Unhealthy(usize, Millis),
    /// The next look is one of older weights.
    StaleLook,
    /// `promote`.
    Promote,
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
    /// `rollback`.
    Rollback,
    /// A request to roll back, where others have to agree.
    AskRollback,
    /// One vote.
    Approve,
    /// `promote` where approvals are enforced.
    PromoteApproved,
    /// `rollback` and `promote` in one instant.
    RollbackAndPromote,
    /// `pause`, then `promote`.
    PauseAndPromote,
    /// The controller dies at the next such point.
    Crash(CrashPoint),
    /// The clock jumps three days ahead.
    ClockForward,
    /// The clock of the next process is two hours behind.
    ClockBack,
}

impl Fault {
    /// The balancer that it happens to, if it is one of theirs.
    pub(super) fn region(&self) -> Option<usize> {
        match self {
            Self::AnswerLost(region)
            | Self::AnswerLate(region)
            | Self::WriteLate(region)
            | Self::NotSent(region)
            | Self::Lie(region)
            | Self::StaleRead(region)
            | Self::Lags(region, _)
            | Self::Edit(region, _)
            | Self::Newer(region, _)
            | Self::Restart(region)
            | Self::BlackHole(region, _)
            | Self::CanaryDead(region, _)
            | Self::AllDead(region, _)
            | Self::Unhealthy(region, _) => Some(*region),
            _ => None,
        }
    }
}

/// Where the controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Decided, nothing recorded.
    BeforeRecord,
    /// Recorded, nothing sent.
    AfterRecord,
    /// Sent, no answer yet.
    AfterSend,
    /// Answered, the answer not recorded.
    AfterAnswer,
    /// While it recovers from another crash.
    Recovering,
}

/// Draws faults as the options say in a world of so many regions, in order of time.
pub(super) fn draw(random: &mut impl Rng, regions: usize, options: &Options) -> Vec<Planned> {
    let count = random.random_range(0..=options.faults_max);
    let until = options.faults_until.0;
    let mut planned: Vec<_> = (0..count)
        .map(|_| Planned { at: Millis(random.random_range(0..until)), fault: one(random, regions) })
        .collect();
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn one(random: &mut impl Rng, regions: usize) -> Fault {
    let region = random.random_range(0..regions.max(1));
    let time = Millis::from_secs(random.random_range(5..90));
    let weight = [0.0, 1.0, 5.0, 25.0, 50.0, 100.0][random.random_range(0..6)];
    let weight = percent(weight);
    match random.random_range(0..30) {
        0 => Fault::AnswerLost(region),
        1 => Fault::AnswerLate(region),
        2 => Fault::WriteLate(region),
        3 => Fault::NotSent(region),
        4 => Fault::Lie(region),
        5 => Fault::StaleRead(region),
        6 => Fault::Lags(region, time),
        7 => Fault::Edit(region, weight),
        8 => Fault::Newer(region, weight),
        9 => Fault::Restart(region),
        10 => Fault::BlackHole(region, time),
        11 => Fault::CanaryDead(region, time),
        12 => Fault::AllDead(region, time),
        13 => Fault::Unhealthy(region, time),
        14 => Fault::StaleLook,
        15 => Fault::Promote,
        16 => Fault::Pause,
        17 => Fault::Resume,
        18 if random.random_bool(0.3) => Fault::Rollback,
        19 if random.random_bool(0.3) => Fault::RollbackAndPromote,
        20 => Fault::PauseAndPromote,
        21 => Fault::ClockForward,
        22 => Fault::ClockBack,
        23 if random.random_bool(0.4) => Fault::AskRollback,
        24 => Fault::Approve,
        25 => Fault::PromoteApproved,
        _ => Fault::Crash(crash_point(random)),
    }
}

fn crash_point(random: &mut impl Rng) -> CrashPoint {
    use CrashPoint::{AfterAnswer, AfterRecord, AfterSend, BeforeRecord, Recovering};
    [BeforeRecord, AfterRecord, AfterSend, AfterAnswer, Recovering][random.random_range(0..5)]
}
