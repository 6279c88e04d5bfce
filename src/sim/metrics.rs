//! What the metrics say, drawn once per rollout.

use rand::{Rng, RngExt};

use super::sample;
use crate::engine::poll::{DarkArm, MissingReason};
use crate::engine::rollout::Rollout;
use crate::engine::verdict::{DataState, HoldEvidence, Judgement, Outcome};
use crate::units::{Generation, Timestamp};

/// What is true of the new version and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// As good as stable.
    Good,
    /// Worse, proven from this stage on.
    Bad(usize),
    /// Never proven either way.
    Undecided,
    /// The canary's data vanish.
    CanaryDark,
    /// The source stops answering.
    SourceDark,
    /// Nobody uses it.
    NoTraffic,
    /// Data come and go.
    Flapping,
    /// Signs of harm that never become proof.
    SignsOfHarm,
    /// Proven violated where the pipeline says to hold.
    HeldFail,
    /// Good, but not at once.
    Slow,
    /// Good, but the first stage has too little traffic to show it.
    NeedsMore,
}

/// The metrics of one rollout.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// What is true.
    pub truth: Truth,
    generation: Generation,
    looks: u64,
    looks_all: u64,
}

impl Metrics {
    /// Draws what is true.
    pub(super) fn draw(random: &mut impl Rng) -> Self {
        let truth = match random.random_range(0..16) {
            0..=4 => Truth::Good,
            5 | 6 => Truth::Bad(random.random_range(0..3)),
            7 => Truth::Undecided,
            8 => Truth::CanaryDark,
            9 => Truth::SourceDark,
            10 => Truth::NoTraffic,
            11 => Truth::Flapping,
            12 => Truth::SignsOfHarm,
            13 => Truth::HeldFail,
            14 => Truth::NeedsMore,
            _ => Truth::Slow,
        };
        Self { truth, generation: Generation(0), looks: 0, looks_all: 0 }
    }

    /// The same for the real statistics, which make of it what they can: good, or bad from a stage on.
    pub(super) fn bad_from(&mut self) -> Option<usize> {
        match self.truth {
            Truth::Bad(stage) => Some(stage),
            _ => {
                self.truth = Truth::Good;
                None
            }
        }
    }

    /// One look at the weights that `state` has.
    pub(super) fn look(&mut self, state: &Rollout) -> Judgement {
        if self.generation != state.generation {
            (self.generation, self.looks) = (state.generation, 0);
        }
        self.looks += 1;
        self.looks_all += 1;
        let requests = 600 * self.looks;
        let early = sample::undecided(requests);
        let after = |looks| if self.looks >= looks { Outcome::Pass } else { early.clone() };
        let outcome = match self.truth {
            Truth::Good | Truth::Flapping | Truth::CanaryDark | Truth::SourceDark => after(2),
            Truth::Slow => after(5),
            Truth::Bad(stage) if state.stage < stage => after(2),
            Truth::NeedsMore if state.stage > 0 => after(2),
            Truth::HeldFail if self.looks > 2 => Outcome::Fail,
            _ => early,
        };
        let mut judgement = sample::judgement(state, &outcome, requests);
        // A mark that tells looks apart, whatever the clock does.
        judgement.at = Timestamp(self.looks_all);
        self.spoil(state, &mut judgement);
        judgement
    }

    fn spoil(&self, state: &Rollout, judgement: &mut Judgement) {
        let exposed = !judgement.data.is_empty();
        match self.truth {
            Truth::Bad(stage) if state.stage >= stage && self.looks >= 2 && exposed => {
                judgement.stage = Outcome::Fail;
                judgement.log_harm = 5.0;
                judgement.breach = Some(sample::breach());
            }
            Truth::CanaryDark if self.looks_all > 4 => darken(judgement, &missing(DarkArm::Canary)),
            Truth::NoTraffic => {
                let (why, analysis) = (MissingReason::NoTraffic, "error_rate".to_owned());
                darken(judgement, &DataState::Dark { arm: DarkArm::Both, why, analysis });
            }
            Truth::SourceDark if self.looks_all > 4 => {
                darken(judgement, &DataState::SourceError("503".to_owned()));
            }
            Truth::Flapping if self.looks_all % 5 > 2 => {
                darken(judgement, &missing(DarkArm::Stable));
            }
            Truth::SignsOfHarm if self.looks > 1 => {
                judgement.log_harm = 3.5;
                judgement.hold = Some(HoldEvidence::SignOfHarm { log_harm: 3.5 });
            }
            _ => {}
        }
    }
}

fn missing(arm: DarkArm) -> DataState {
    DataState::Dark { arm, why: MissingReason::NoSeries, analysis: "error_rate".to_owned() }
}

fn darken(judgement: &mut Judgement, state: &DataState) {
    judgement.stage = sample::undecided(0);
    judgement.data.values_mut().for_each(|data| *data = state.clone());
}
