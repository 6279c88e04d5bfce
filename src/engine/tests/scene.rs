//! A rollout and a clock to check against.

use crate::engine::decide::{Answer, Decision, decide};
use crate::engine::event::Event;
use crate::engine::input::{Command, Input, Polled, RegionReading};
use crate::engine::invariants;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::{DataState, Judgement, Outcome};
use crate::sim::coverage::variant;
use crate::sim::sample;
use crate::spec::plan::Plan;
use crate::units::{Timestamp, Weight};

pub(super) const ALL: [&str; 3] = ["ap_southeast_2", "eu_west_1", "us_east_1"];

/// A rollout and what time it is.
pub(super) struct Scene {
    pub(super) state: Rollout,
    pub(super) now: Timestamp,
}

impl Scene {
    pub(super) fn new(plan: Plan) -> Self {
        Self { state: sample::rollout(plan), now: Timestamp(1_000_000) }
    }

    /// Prepared, and at the confirmed weights of the first step (or at its gate).
    pub(super) fn baking(plan: Plan) -> Self {
        let mut scene = Self::new(plan);
        scene.confirm();
        scene.confirm();
        scene
    }

    /// At the confirmed weights of the last step.
    pub(super) fn last_stage(plan: Plan) -> Self {
        let mut scene = Self::baking(plan);
        while scene.state.next_step().is_some() {
            scene.bake();
            scene.confirm();
        }
        scene
    }

    /// Decides, checks the names of the facts and that a second turn changes nothing, and takes them in.
    #[track_caller]
    pub(super) fn check(&mut self, input: Input, expect: &[&str]) -> Decision {
        let decision = decide(&self.state, &input, self.now);
        let names: Vec<_> = decision.events.iter().map(variant).collect();
        assert_eq!(names, expect, "{:?}\n{:#?}", self.state.phase, decision.why);
        let broken = invariants::violations_of_turn(&self.state, &decision.events);
        assert!(broken.is_empty(), "{broken:?}");
        for event in &decision.events {
            self.state.apply(event, self.now);
        }
        let broken = invariants::violations(&self.state);
        assert!(broken.is_empty(), "{broken:?}");
        let repeats = !matches!(&input, Input::Recovered)
            && !matches!(
                &input,
                Input::Commanded {
                    command: Command::Promote
                        | Command::PromoteApproved
                        | Command::BreakGlass { .. }
                        | Command::Review { .. },
                    ..
                }
            );
        if repeats {
            let again = decide(&self.state, &input, self.now);
            assert!(again.events.is_empty(), "a second turn finds {:?}", again.events);
        }
        decision
    }

    #[track_caller]
    pub(super) fn read(&mut self, reading: RegionReading, expect: &[&str]) -> Decision {
        self.check(Input::Read(Box::new(reading)), expect)
    }

    #[track_caller]
    pub(super) fn command(&mut self, command: Command, expect: &[&str]) -> Answer {
        self.check(Input::Commanded { by: sample::person(), command }, expect).answer
    }

    /// One poll interval later, this judgement.
    #[track_caller]
    pub(super) fn judged(&mut self, judgement: Judgement, expect: &[&str]) -> Decision {
        self.now = self.now.plus(sample::POLL);
        self.check(looked(judgement), expect)
    }

    /// One poll interval later, every criterion with this outcome on 2,000 requests.
    #[track_caller]
    pub(super) fn look(&mut self, outcome: &Outcome, expect: &[&str]) -> Decision {
        self.judged(sample::judgement(&self.state, outcome, 2_000), expect)
    }

    /// One poll interval later, this state of the data in every region with canary weight.
    #[track_caller]
    pub(super) fn dark(&mut self, data: &DataState, expect: &[&str]) -> Decision {
        let mut judgement = sample::judgement(&self.state, &sample::undecided(0), 0);
        judgement.data.values_mut().for_each(|state| *state = data.clone());
        self.judged(judgement, expect)
    }

    /// What reads as wanted in this region.
    pub(super) fn wanted(&self, name: &str) -> RegionReading {
        let region = &self.state.regions[&sample::region(name)];
        let reading = sample::reading(name, region.desired.percent(), self.state.generation.0);
        RegionReading { reach: region.wanted(), ..reading }
    }

    /// What reads as wanted, but with this weight.
    pub(super) fn at(&self, name: &str, percent: f64) -> RegionReading {
        RegionReading { reach: sample::percent(percent).into(), ..self.wanted(name) }
    }

    /// Reads every region as wanted.
    pub(super) fn confirm(&mut self) {
        for name in ALL {
            let input = Input::Read(Box::new(self.wanted(name)));
            for event in decide(&self.state, &input, self.now).events {
                self.state.apply(&event, self.now);
            }
        }
    }

    /// Reads every region as wanted, but not this one.
    pub(super) fn confirm_but(&mut self, left_out: &str) {
        for name in ALL.into_iter().filter(|name| *name != left_out) {
            self.read(self.wanted(name), &["BackendsSeen", "RegionRead"]);
        }
    }

    /// Looks that pass until the step is left.
    pub(super) fn bake(&mut self) {
        let (stage, step, phase) = (self.state.stage, self.state.step, self.state.phase);
        for _ in 0..10 {
            self.now = self.now.plus(sample::POLL);
            let input = looked(sample::judgement(&self.state, &Outcome::Pass, 2_000));
            for event in decide(&self.state, &input, self.now).events {
                self.state.apply(&event, self.now);
            }
            let state = &self.state;
            if (state.stage, state.step, state.phase) != (stage, step, phase) {
                return;
            }
        }
    }

    /// Canary weights that are wanted, in percent, in the order of the regions' names.
    pub(super) fn weights(&self) -> Vec<f64> {
        self.state.regions.values().map(|region| region.desired.percent()).collect()
    }

    /// Writes that are outstanding: region and percent.
    pub(super) fn writes(&self) -> Vec<(String, f64)> {
        let write = |action: Action| match action {
            Action::Set { region, weight, .. } => Some((region.to_string(), weight.percent())),
            Action::Read { .. } => None,
        };
        outstanding(&self.state).into_iter().filter_map(write).collect()
    }

    #[track_caller]
    pub(super) fn is_back(&self) {
        assert_eq!(self.state.phase, Phase::RollingBack);
        assert!(self.state.regions.values().all(|region| region.desired == Weight::ZERO));
    }
}

fn looked(judgement: Judgement) -> Input {
    Input::Polled(Box::new(Polled { poll: None, judgement, health: [].into() }))
}

pub(super) fn pause() -> Command {
    Command::Pause { reason: "lunch".to_owned() }
}

pub(super) fn rollback() -> Command {
    Command::Rollback { reason: "it looks wrong".to_owned() }
}

/// Nothing is written while the rollout is at rest.
#[track_caller]
pub(super) fn is_silent(scene: &Scene) {
    assert_eq!(scene.writes(), []);
}

/// The causes and intents, for a look at their content.
pub(super) fn causes(decision: &Decision) -> Vec<String> {
    let cause = |event: &Event| match event {
        Event::RollbackStarted { cause, .. } => Some(variant(cause)),
        _ => None,
    };
    decision.events.iter().filter_map(cause).collect()
}
