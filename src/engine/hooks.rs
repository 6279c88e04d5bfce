//! Hooks: what the operator's own programs do around a rollout. Effects under the same protocol as weights: intended on
//! record, done at least once, asked after when the end is unknown, recorded.
//!
//! A rollout waits for them on its way forward only; going back never does.

use serde::{Deserialize, Serialize};

use super::decide::Turn;
use super::event::{Actor, Event};
use super::reason::Reason;
use super::rollout::{Phase, Rollout};
use crate::spec::plan::Authority;
pub use crate::spec::plan::Hook;
use crate::units::{Generation, Reach, RegionName};

/// Tries of one hook whose end stays unknown, before a person is asked.
const ATTEMPTS_MAX: u32 = 3;

/// Where a hook stands in a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookState {
    /// The generation it was first intended under; part of its key.
    pub generation: Generation,
    /// Tries so far, this one included.
    pub attempts: u32,
    /// How the newest one stands.
    pub standing: Standing,
}

/// How a try stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Intended, and perhaps under way.
    Started,
    /// Done.
    Done,
    /// It said no.
    Failed(String),
    /// Nobody knows how it ended.
    Unknown(String),
}

/// A hook that has to be run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookCall {
    /// Where.
    pub region: RegionName,
    /// Which.
    pub hook: Hook,
    /// Part of its key: the same for every try of the same thing.
    pub generation: Generation,
    /// Which try, from 1.
    pub attempt: u32,
}

impl HookCall {
    /// It may have been done already: ask first.
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.attempt > 1
    }
}

/// Every hook that is intended and has no end yet.
#[must_use]
pub fn outstanding_hooks(state: &Rollout) -> Vec<HookCall> {
    if state.phase.is_over() || state.phase == Phase::RollingBack {
        return Vec::new();
    }
    let mut calls = Vec::new();
    for (name, region) in &state.regions {
        for (hook, stands) in &region.hooks {
            if stands.standing == Standing::Started {
                let (hook, generation, attempt) = (*hook, stands.generation, stands.attempts);
                calls.push(HookCall { region: name.clone(), hook, generation, attempt });
            }
        }
    }
    calls
}

/// Hooks that have to be done in every region before the current phase may end, in this order.
fn wanted(state: &Rollout) -> impl Iterator<Item = Hook> {
    let hooks: &[Hook] = match state.phase {
        _ if state.plan.authority != Authority::Full => &[],
        Phase::Preparing => &[Hook::Deploy],
        Phase::Promoting => &[Hook::Persist, Hook::Promote],
        _ => &[],
    };
    hooks.iter().copied().filter(|hook| state.plan.hooks.contains(hook))
}

fn is_done(state: &Rollout, hook: Hook) -> bool {
    let mut concerned = state.regions.iter().filter(|(name, _)| state.plan.runs(hook, name));
    concerned.all(|(_, region)| {
        region.hooks.get(&hook).is_some_and(|stands| stands.standing == Standing::Done)
    })
}

/// Only a slot without traffic is given something else to run; a region's cohorts use the same one.
fn is_idle(state: &Rollout, name: &RegionName) -> bool {
    let mut users = std::iter::once(name).chain(state.plan.cohorts_of(name));
    users
        .all(|user| state.regions.get(user).is_none_or(|region| region.seen() == Some(Reach::NONE)))
}

/// Every hook of this phase is done everywhere.
pub(super) fn all_done(state: &Rollout) -> bool {
    wanted(state).all(|hook| is_done(state, hook))
}

/// Why it is not further, as far as hooks are the reason.
pub(super) fn reasons(state: &Rollout) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, region) in &state.regions {
        for (hook, stands) in &region.hooks {
            let (region, hook) = (name.clone(), *hook);
            match &stands.standing {
                Standing::Done => {}
                Standing::Started => reasons.push(Reason::HookRuns { region, hook }),
                Standing::Failed(what) | Standing::Unknown(what) => {
                    reasons.push(Reason::HookFailed { region, hook, what: what.clone() });
                }
            }
        }
    }
    reasons
}

/// Intends the hooks that are due, one kind after the other; a failed one waits for a person.
pub(super) fn start_due(turn: &mut Turn) {
    let Some(hook) = wanted(&turn.state).find(|hook| !is_done(&turn.state, *hook)) else { return };
    if turn.state.is_held() {
        return;
    }
    let regions = turn.state.regions.keys().filter(|name| turn.state.plan.runs(hook, name));
    let regions: Vec<_> = regions.cloned().collect();
    for name in regions {
        let region = &turn.state.regions[&name];
        let is_ready = hook != Hook::Deploy || is_idle(&turn.state, &name);
        let stands = region.hooks.get(&hook).cloned();
        match stands.map(|stands| (stands.generation, stands.attempts, stands.standing)) {
            Some((_, _, Standing::Failed(what)) | (_, ATTEMPTS_MAX.., Standing::Unknown(what))) => {
                let reason = format!("hook {hook} in {name}: {what}");
                return turn.record(Event::Paused { by: Actor::tidegate(), reason });
            }
            // Since a first try somebody may have sent users there.
            _ if !is_ready => {}
            None => start(turn, name, hook, turn.state.generation),
            Some((generation, _, Standing::Unknown(_))) => start(turn, name, hook, generation),
            Some(_) => {}
        }
    }
}

fn start(turn: &mut Turn, region: RegionName, hook: Hook, generation: Generation) {
    turn.record(Event::HookStarted { region, hook, generation });
}

/// Takes the end of a hook in. One of another key or an earlier try says nothing about now.
pub(super) fn ended(turn: &mut Turn, call: &HookCall, standing: &Standing) {
    let region = turn.state.regions.get(&call.region);
    let stands = region.and_then(|region| region.hooks.get(&call.hook));
    let is_current = stands.is_some_and(|stands| {
        let same = stands.generation == call.generation && stands.attempts == call.attempt;
        same && stands.standing == Standing::Started
    });
    if is_current && *standing != Standing::Started {
        turn.record(Event::HookEnded {
            region: call.region.clone(),
            hook: call.hook,
            generation: call.generation,
            standing: standing.clone(),
        });
    }
}
