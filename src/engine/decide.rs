//! The only place with opinions: what follows from a state, an input and the time.
//!
//! `decide` never changes anything; it returns facts. What is safe is decided first: ways back before holds, holds
//! before steps forward.

use std::borrow::Cow;

use super::event::{Actor, Cause, Event};
use super::input::{Command, Input};
use super::reason::Reason;
use super::rollout::{Phase, Rollout};
use super::{advance, hooks, polled, reading};
use crate::units::{Generation, Timestamp};

/// What follows, and why nothing more does.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Facts to record, in order; empty when nothing changes.
    pub events: Vec<Event>,
    /// Why it stands where it then stands.
    pub why: Vec<Reason>,
    /// The answer to a command.
    pub answer: Answer,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No command was given.
    None,
    /// It is done or under way.
    Accepted,
    /// It is so already.
    NothingToDo(String),
    /// It cannot be done now.
    Refused(String),
}

/// Decides. Pure: the same arguments give the same answer.
#[must_use]
pub fn decide(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
    let mut turn = Turn::new(state, now);
    let answer = match input {
        Input::Recovered => {
            turn.record(Event::Recovered);
            Answer::None
        }
        Input::Woke => Answer::None,
        Input::Read(region) => {
            reading::take(&mut turn, region);
            Answer::None
        }
        Input::EffectUnknown { region, generation, what } => {
            reading::effect_unknown(&mut turn, region, *generation, what);
            Answer::None
        }
        Input::Polled(look) => {
            polled::take(&mut turn, look);
            Answer::None
        }
        Input::HookEnded { call, standing } => {
            hooks::ended(&mut turn, call, standing);
            Answer::None
        }
        Input::Commanded { by, command } => commanded(&mut turn, by, command),
    };
    advance::follow_up(&mut turn);
    let why = super::why::why(&turn.state, now);
    Decision { events: turn.events, why, answer }
}

/// One turn: the state as it becomes while facts are found.
pub(super) struct Turn<'a> {
    pub(super) state: Cow<'a, Rollout>,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
}

impl<'a> Turn<'a> {
    fn new(state: &'a Rollout, now: Timestamp) -> Self {
        Self { state: Cow::Borrowed(state), now, events: Vec::new() }
    }

    /// Finds a fact and takes it in.
    pub(super) fn record(&mut self, event: Event) {
        self.state.to_mut().apply(&event, self.now);
        self.events.push(event);
    }

    /// The generation of the next change of weights.
    pub(super) fn next_generation(&self) -> Generation {
        self.state.generation.max(self.state.found).next()
    }

    /// Back, unless it is going back already or is over.
    pub(super) fn roll_back(
        &mut self,
        cause: Cause,
        judged: bool,
        judgement: Option<&super::verdict::Judgement>,
    ) {
        if self.state.phase.is_over() || self.state.phase == Phase::RollingBack {
            return;
        }
        let judgement = judgement.filter(|_| judged).cloned().map(Box::new);
        let generation = self.next_generation();
        self.record(Event::RollbackStarted { cause, generation, judgement });
    }
}

fn commanded(turn: &mut Turn, by: &Actor, command: &Command) -> Answer {
    let phase = turn.state.phase;
    if phase.is_over() {
        return Answer::NothingToDo("the rollout is over".to_owned());
    }
    match command {
        Command::Rollback { .. } if phase == Phase::RollingBack => {
            Answer::NothingToDo("it is rolling back already".to_owned())
        }
        Command::Rollback { reason } => {
            let cause = Cause::Asked { by: by.clone(), reason: reason.clone() };
            turn.roll_back(cause, false, None);
            Answer::Accepted
        }
        Command::Queue { next, supersede } => {
            turn.record(Event::Queued(next.clone()));
            if *supersede {
                let reason = format!("{} takes its place", next.version);
                turn.roll_back(Cause::Asked { by: by.clone(), reason }, false, None);
            }
            Answer::Accepted
        }
        Command::Release => Answer::NothingToDo("it is not in quarantine".to_owned()),
        _ if phase == Phase::RollingBack => Answer::Refused("it is rolling back".to_owned()),
        Command::Pause { .. } if turn.state.paused.is_some() => {
            Answer::NothingToDo("it is paused already".to_owned())
        }
        Command::Pause { reason } => {
            turn.record(Event::Paused { by: by.clone(), reason: reason.clone() });
            Answer::Accepted
        }
        Command::Resume if turn.state.paused.is_none() => {
            Answer::NothingToDo("it is not paused".to_owned())
        }
        Command::Resume => {
            let generation = turn.next_generation();
            turn.record(Event::Resumed { by: by.clone(), generation });
            Answer::Accepted
        }
        Command::Promote => advance::by_hand(turn, by),
    }
}
