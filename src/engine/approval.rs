//! Approvals: how many people say yes before a stage begins, or before the way back that a person asks for.
//!
//! A vote is bound to the rollout, its generation, the matter and the plan's digest. It counts for distinct people only,
//! for a time only, and while its owner may still approve. Automatic ways back and a pause need none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::decide::{Answer, Turn};
use super::event::{Actor, Cause, Event, Matter};
use super::reason::Reason;
use super::rollout::{Phase, Rollout};
use super::{advance, why};
use crate::spec::plan::{Approvals, Authority, OnApprovalTimeout};
use crate::units::{Generation, Millis, Timestamp};

/// A person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Whose.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// At which weights.
    pub generation: Generation,
}

/// A way back that a person asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackAsked {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When: its longest time runs from here.
    pub at: Timestamp,
    /// Who said yes, the one who asked included.
    pub votes: Vec<Vote>,
    /// Nobody else answered in time, and it was said.
    pub timed_out: bool,
    /// It has taken longer than it may, and it was said.
    pub overdue: bool,
}

/// Takes a fact about approvals in.
pub(super) fn apply(state: &mut Rollout, event: &Event, at: Timestamp) {
    let generation = state.generation;
    match event {
        Event::RollbackAsked { by, reason } => {
            let (by, reason) = (by.name.clone(), reason.clone());
            let votes = vec![Vote { by: by.clone(), at, generation }];
            let asked = RollbackAsked { by, reason, at, votes, timed_out: false, overdue: false };
            state.rollback_asked = Some(asked);
        }
        Event::RollbackWithdrawn { .. } => state.rollback_asked = None,
        Event::Approved { matter, by, generation, .. } => {
            let vote = Vote { by: by.name.clone(), at, generation: *generation };
            if let Some(votes) = votes_mut(state, *matter) {
                votes.push(vote);
            }
        }
        Event::ApprovalsDropped { matter, names } => {
            if let Some(votes) = votes_mut(state, *matter) {
                votes.retain(|vote| !names.contains(&vote.by));
            }
        }
        Event::ApprovalTimedOut { .. } => {
            if let Some(asked) = &mut state.rollback_asked {
                asked.timed_out = true;
            }
        }
        Event::RollbackOverdue { .. } => {
            if let Some(asked) = &mut state.rollback_asked {
                asked.overdue = true;
            }
        }
        _ => {}
    }
}

fn votes_mut(state: &mut Rollout, matter: Matter) -> Option<&mut Vec<Vote>> {
    match matter {
        Matter::Rollback => state.rollback_asked.as_mut().map(|asked| &mut asked.votes),
        Matter::Stage(_) => Some(&mut state.votes),
    }
}

/// What waits for approval now, how many it wants, and how long a vote counts.
fn open(state: &Rollout) -> Option<(Matter, Approvals)> {
    let manual = &state.plan.manual_rollback;
    if state.rollback_asked.is_some() && state.phase != Phase::RollingBack {
        let (required, expires_after) = (manual.required_approvers, manual.maximum_rollback_time);
        return Some((Matter::Rollback, Approvals { required, expires_after }));
    }
    let approvals = state.stage().approvals.filter(|_| state.phase == Phase::Gated)?;
    Some((Matter::Stage(state.stage), approvals))
}

fn votes(state: &Rollout, matter: Matter) -> &[Vote] {
    match matter {
        Matter::Rollback => state.rollback_asked.as_ref().map_or(&[], |asked| &asked.votes),
        Matter::Stage(_) => &state.votes,
    }
}

/// A request to roll back stands over changes of weights, which only a confirmation of them can cause while it is open.
fn counts(state: &Rollout, matter: Matter, rule: Approvals, vote: &Vote, now: Timestamp) -> bool {
    let fresh = now.since(vote.at) < rule.expires_after;
    fresh && (matter == Matter::Rollback || vote.generation == state.generation)
}

fn counted(state: &Rollout, matter: Matter, rule: Approvals, now: Timestamp) -> usize {
    votes(state, matter).iter().filter(|vote| counts(state, matter, rule, vote, now)).count()
}

fn is_enough(count: usize, rule: Approvals) -> bool {
    u32::try_from(count).unwrap_or(u32::MAX) >= rule.required
}

/// Why it waits for people, if it does.
pub(super) fn reason(state: &Rollout, now: Timestamp) -> Option<Reason> {
    let (matter, rule) = open(state)?;
    let given = u32::try_from(counted(state, matter, rule, now)).unwrap_or(u32::MAX);
    let required = rule.required;
    Some(match (matter, &state.rollback_asked) {
        (Matter::Rollback, Some(asked)) => {
            let manual = &state.plan.manual_rollback;
            let proceeds = manual.on_approval_timeout == OnApprovalTimeout::Proceed;
            let left = half(manual.maximum_rollback_time).minus(now.since(asked.at));
            let proceeds_in = (proceeds && !asked.timed_out).then_some(left);
            let by = asked.by.clone();
            Reason::RollbackAsked { by, given, required, proceeds_in }
        }
        _ => Reason::ApprovalsNeeded { stage: state.stage().name.clone(), given, required },
    })
}

fn half(time: Millis) -> Millis {
    Millis(time.0 / 2)
}

/// A person asks for the way back; where one is enough, it begins.
pub(super) fn ask_rollback(
    turn: &mut Turn,
    by: &Actor,
    reason: &str,
    electors: &BTreeSet<String>,
) -> Answer {
    if turn.state.plan.manual_rollback.required_approvers <= 1 {
        let cause = Cause::Asked { by: by.clone(), reason: reason.to_owned() };
        turn.roll_back(cause, false, None);
        return Answer::Accepted;
    }
    if turn.state.rollback_asked.is_some() {
        return approve(turn, by, None, electors);
    }
    let reason = reason.to_owned();
    turn.record(Event::RollbackAsked { by: by.clone(), reason: reason.clone() });
    if turn.state.paused.is_none() {
        let reason = format!("a rollback was asked for: {reason}");
        turn.record(Event::Paused { by: by.clone(), reason });
    }
    waiting(turn)
}

fn waiting(turn: &Turn) -> Answer {
    let said = reason(&turn.state, turn.now).map(|reason| reason.to_string());
    Answer::Waiting(said.unwrap_or_default())
}

/// One vote. The last one that is needed lets it happen.
pub(super) fn approve(
    turn: &mut Turn,
    by: &Actor,
    digest: Option<&str>,
    electors: &BTreeSet<String>,
) -> Answer {
    let Some((matter, rule)) = open(&turn.state) else {
        return Answer::NothingToDo("nothing waits for an approval".to_owned());
    };
    if digest.is_some_and(|digest| digest != turn.state.plan.digest) {
        let what = "another plan was looked at than the one that runs";
        return Answer::NotCounted { code: "plan_digest_changed", what: what.to_owned() };
    }
    if let Matter::Stage(_) = matter
        && by.name == turn.state.started_by
    {
        let what = format!("{} started it and cannot approve it", by.name);
        return Answer::NotCounted { code: "requester_cannot_approve", what };
    }
    drop_votes(turn, matter, rule, electors);
    if votes(&turn.state, matter).iter().any(|vote| vote.by == by.name) {
        let what = format!("{} has said yes already; somebody else has to", by.name);
        return Answer::NotCounted { code: "same_identity", what };
    }
    let (generation, digest) = (turn.state.generation, turn.state.plan.digest.clone());
    turn.record(Event::Approved { matter, by: by.clone(), generation, digest });
    let enough = is_enough(counted(&turn.state, matter, rule, turn.now), rule);
    match matter {
        Matter::Rollback if enough => {
            roll_back(turn);
            Answer::Accepted
        }
        Matter::Stage(_) if enough && open_gate(turn) => Answer::Accepted,
        _ => waiting(turn),
    }
}

/// Votes that are too old, of other weights, or of people who may not approve any more.
fn drop_votes(turn: &mut Turn, matter: Matter, rule: Approvals, electors: &BTreeSet<String>) {
    let lost = |vote: &&Vote| {
        !electors.contains(&vote.by) || !counts(&turn.state, matter, rule, vote, turn.now)
    };
    let names: Vec<_> =
        votes(&turn.state, matter).iter().filter(lost).map(|vote| vote.by.clone()).collect();
    if !names.is_empty() {
        turn.record(Event::ApprovalsDropped { matter, names });
    }
}

fn roll_back(turn: &mut Turn) {
    let Some(asked) = turn.state.rollback_asked.clone() else { return };
    let others = asked.votes.iter().filter(|vote| vote.by != asked.by);
    let others: Vec<_> = others.map(|vote| vote.by.as_str()).collect();
    let note = match others.as_slice() {
        [] => "nobody else answered in time".to_owned(),
        names => format!("approved by {}", names.join(", ")),
    };
    let by = Actor { name: asked.by, note: Some(note) };
    turn.roll_back(Cause::Asked { by, reason: asked.reason }, false, None);
}

/// Opens the gate that has its approvals, unless something else stands in the way.
fn open_gate(turn: &mut Turn) -> bool {
    let Some((matter @ Matter::Stage(stage), rule)) = open(&turn.state) else { return false };
    let state = &turn.state;
    let free = state.all_confirmed()
        && state.paused.is_none()
        && state.plan.authority != Authority::Observe
        && why::closed(state, turn.now).is_none()
        && why::capacity(state).is_empty();
    if !free || !is_enough(counted(state, matter, rule, turn.now), rule) {
        return false;
    }
    let last = state.votes.last().map(|vote| vote.by.clone()).unwrap_or_default();
    let names: Vec<_> = state.votes.iter().map(|vote| vote.by.as_str()).collect();
    let by = Actor { note: Some(format!("approved by {}", names.join(", "))), name: last };
    turn.record(Event::GateOpened { stage, by: by.clone() });
    advance::begin_stage(turn, stage, &by);
    true
}

/// What time brings: a request that nobody answered, a way back that takes too long, a gate that may open now.
pub(super) fn follow_up(turn: &mut Turn) {
    open_gate(turn);
    let asked = turn.state.rollback_asked.clone().filter(|_| !turn.state.phase.is_over());
    let Some(asked) = asked else { return };
    let manual = turn.state.plan.manual_rollback.clone();
    let (longest, since) = (manual.maximum_rollback_time, turn.now.since(asked.at));
    let is_back = turn.state.phase == Phase::RollingBack;
    if !is_back && !asked.timed_out && since >= half(longest) {
        let proceeds = manual.on_approval_timeout == OnApprovalTimeout::Proceed;
        turn.record(Event::ApprovalTimedOut { proceeds });
        if proceeds {
            roll_back(turn);
        }
    }
    if !asked.overdue && since >= longest {
        turn.record(Event::RollbackOverdue { after: longest });
    }
}
