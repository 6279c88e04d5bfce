//! What the world tells the engine. Inputs are never journaled; the facts they lead to are.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Actor, ArmBackends, Emergency, Queued};
use super::hooks::{HookCall, Standing};
use super::poll::Poll;
use super::verdict::Judgement;
use crate::units::{Generation, Reach, RegionName};

/// Everything that can happen to a rollout. A closed set.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The controller started again.
    Recovered,
    /// Time passed, and nothing else.
    Woke,
    /// A region's load balancers were read.
    Read(Box<RegionReading>),
    /// A call that could have changed weights ended without an answer.
    EffectUnknown {
        /// Where.
        region: RegionName,
        /// What was being set.
        generation: Generation,
        /// What is known, for people.
        what: String,
    },
    /// The metrics were looked at and judged.
    Polled(Box<Polled>),
    /// A hook has ended, or nobody knows how.
    HookEnded {
        /// Which.
        call: HookCall,
        /// How.
        standing: Standing,
    },
    /// A person wants something.
    Commanded {
        /// Who.
        by: Actor,
        /// What.
        command: Command,
    },
}

/// What all load balancers of a region say together.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionReading {
    /// Which.
    pub region: RegionName,
    /// The rollout's generation when the read began; an older one says nothing about now.
    pub asked_at: Generation,
    /// What reaches the canary; the most, where targets or instances differ.
    pub reach: Reach,
    /// Every target and instance was seen and agrees.
    pub settled: bool,
    /// The oldest generation found, where all targets store one.
    pub generation: Option<Generation>,
    /// Changes when a balancer restarts.
    pub restart_marker: Option<String>,
    /// Weights outlive the balancer's own restart: one does not change them, and a mark that is gone was taken away.
    pub keeps_weights: bool,
    /// Backends by arm, where they can be seen.
    pub backends: Option<ArmBackends>,
    /// Why it is not settled, for people.
    pub note: Option<String>,
}

/// One judged look.
#[derive(Debug, Clone, PartialEq)]
pub struct Polled {
    /// What was found; kept as evidence.
    pub poll: Option<Poll>,
    /// What the judge says of it.
    pub judgement: Judgement,
    /// Health by probed region.
    pub health: BTreeMap<RegionName, bool>,
}

/// What a person can want.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// One step forward, or the gate opened, whatever approvals it asks for.
    Promote,
    /// The same, but a gate that asks for approvals stays closed.
    PromoteApproved,
    /// Back, once as many people say so as the pipeline wants; it stands still at once.
    AskRollback {
        /// Why.
        reason: String,
        /// Who may approve it now.
        electors: BTreeSet<String>,
    },
    /// One vote for what waits for approval.
    Approve {
        /// Digest of the plan that was looked at, if the person named one.
        digest: Option<String>,
        /// Who may approve it now.
        electors: BTreeSet<String>,
    },
    /// One person, alone, in an emergency.
    BreakGlass {
        /// Whose secret was used.
        region: RegionName,
        /// What is done.
        action: Emergency,
        /// Why.
        reason: String,
    },
    /// What was done in an emergency was looked at.
    Review {
        /// What they say.
        note: String,
    },
    /// Nothing is raised, and nothing begins.
    Freeze {
        /// Why.
        reason: String,
    },
    /// Versions may begin again; what is paused stays so.
    Thaw,
    /// Nothing is raised until `Resume`.
    Pause {
        /// Why.
        reason: String,
    },
    /// On with it.
    Resume,
    /// Out of quarantine.
    Release,
    /// Another version begins when this one is over; at once, if this one is to go back for it.
    Queue {
        /// What begins then.
        next: Box<Queued>,
        /// This one goes back for it.
        supersede: bool,
    },
    /// Back.
    Rollback {
        /// Why.
        reason: String,
    },
}
