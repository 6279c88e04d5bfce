//! The only place with opinions: what follows from a state, an input and the time.
//!
//! `decide` never changes anything; it returns facts. What is safe is decided first: ways back before holds, holds
//! before steps forward.

use std::borrow::Cow;

use super::event::{Actor, Cause, Emergency, Event};
use super::input::{Command, Input};
use super::reason::Reason;
use super::rollout::{Phase, Rollout};
use super::{advance, approval, hooks, polled, reading};
use crate::spec::plan::Approvals;
use crate::units::{Generation, RegionName, Timestamp};

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
    /// It is taken down, and waits for other people; what it waits for.
    Waiting(String),
    /// A vote that does not count.
    NotCounted {
        /// A stable short name.
        code: &'static str,
        /// Why.
        what: String,
    },
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
    approval::follow_up(&mut turn);
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
        Command::Review { note } => {
            turn.record(Event::Reviewed { by: by.clone(), note: note.clone() });
            Answer::Accepted
        }
        Command::Freeze { reason } => freeze(turn, by, reason),
        Command::Thaw => {
            turn.record(Event::Thawed { by: by.clone() });
            Answer::Accepted
        }
        Command::BreakGlass { region, action, reason } => {
            break_glass(turn, by, region, *action, reason)
        }
        Command::AskRollback { .. } if phase == Phase::RollingBack => {
            Answer::NothingToDo("it is rolling back already".to_owned())
        }
        Command::AskRollback { reason, electors } => {
            approval::ask_rollback(turn, by, reason, electors)
        }
        _ if phase == Phase::RollingBack => Answer::Refused("it is rolling back".to_owned()),
        Command::Approve { digest, electors } => {
            approval::approve(turn, by, digest.as_deref(), electors)
        }
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
        Command::Resume if turn.state.rollback_asked.is_some() => withdraw(turn, by),
        Command::Resume => {
            let generation = turn.next_generation();
            turn.record(Event::Resumed { by: by.clone(), generation });
            Answer::Accepted
        }
        Command::PromoteApproved if phase == Phase::Gated && approvals(turn).is_some() => {
            let what = "this stage asks for approvals: `tidegate approve`".to_owned();
            Answer::NotCounted { code: "needs_approval", what }
        }
        Command::Promote | Command::PromoteApproved => advance::by_hand(turn, by),
    }
}

fn approvals(turn: &Turn) -> Option<Approvals> {
    turn.state.stage().approvals
}

/// Only who asked for the way back takes that back; then it goes on.
fn withdraw(turn: &mut Turn, by: &Actor) -> Answer {
    if turn.state.rollback_asked.as_ref().is_some_and(|asked| asked.by != by.name) {
        let what = "a rollback was asked for: approve it, or let the one who asked resume";
        return Answer::Refused(what.to_owned());
    }
    turn.record(Event::RollbackWithdrawn { by: by.clone() });
    let generation = turn.next_generation();
    turn.record(Event::Resumed { by: by.clone(), generation });
    Answer::Accepted
}

fn freeze(turn: &mut Turn, by: &Actor, reason: &str) -> Answer {
    turn.record(Event::Frozen { by: by.clone(), reason: reason.to_owned() });
    if turn.state.paused.is_none() && turn.state.phase != Phase::RollingBack {
        let reason = format!("frozen: {reason}");
        turn.record(Event::Paused { by: by.clone(), reason });
    }
    Answer::Accepted
}

fn break_glass(
    turn: &mut Turn,
    by: &Actor,
    region: &RegionName,
    action: Emergency,
    reason: &str,
) -> Answer {
    let (by, reason) = (by.clone(), reason.to_owned());
    let broken = Event::GlassBroken {
        by: by.clone(),
        region: region.clone(),
        action,
        reason: reason.clone(),
    };
    turn.record(broken);
    match action {
        Emergency::Freeze => return freeze(turn, &by, &reason),
        Emergency::Rollback => turn.roll_back(Cause::Asked { by, reason }, false, None),
        Emergency::Pause if turn.state.paused.is_some() => {}
        Emergency::Pause if turn.state.phase == Phase::RollingBack => {}
        Emergency::Pause => turn.record(Event::Paused { by, reason }),
    }
    Answer::Accepted
}
