//! What a simulated rollout is about.

use rand::{Rng, RngExt};

use super::sample;
use crate::engine::decide::{Decision, decide};
use crate::engine::input::Input;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::rollout::Rollout;
use crate::spec::plan::{
    Approvals, Authority, Hook, OnApprovalTimeout, OnFail, OnUndecided, Plan, Step,
};
use crate::units::{Millis, Timestamp};

/// How a simulation is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Faults happen before this time; afterwards the world is well and people help.
    pub faults_until: Millis,
    /// A rollout that is not over this long after the faults is stuck.
    pub patience: Millis,
    /// At most this many faults.
    pub faults_max: usize,
    /// What decides: the engine, or a wrong one that has to be found.
    pub decide: fn(&Rollout, &Input, Timestamp) -> Decision,
    /// What is outstanding: the engine, or a wrong one.
    pub outstanding: fn(&Rollout) -> Vec<Action>,
    /// Requests are drawn and the real statistics judge them, instead of verdicts that are drawn.
    pub statistics: bool,
    /// A wrong driver: keeps what it has read over a restart, and begins the evidence anew.
    pub forgets_wealth: bool,
    /// A wrong driver: takes what it asked for as what it read.
    pub believes_echo: bool,
    /// A wrong driver: takes a hook whose end is unknown for done.
    pub believes_hooks: bool,
    /// A wrong driver: takes every answer as one to the newest question.
    pub forgets_question: bool,
    /// A wrong driver: tells people that their command is accepted before it is recorded.
    pub answers_early: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults_until: Millis::from_secs(300),
            patience: Millis::from_secs(2_400),
            faults_max: 8,
            decide,
            outstanding,
            statistics: false,
            forgets_wealth: false,
            believes_echo: false,
            believes_hooks: false,
            forgets_question: false,
            answers_early: false,
        }
    }
}

/// A variation of the sample plan that the real statistics can decide.
pub(super) fn decidable(plan: Plan) -> Plan {
    let mut plan = plan;
    for stage in &mut plan.stages {
        stage.max_duration = Millis::from_secs(900);
    }
    plan
}

/// A variation of the sample plan: steps, waves, gates, holdback, authority, policies.
pub(super) fn plan(random: &mut impl Rng) -> Plan {
    let mut plan = sample::plan();
    plan.authority = match random.random_range(0..8) {
        0 => Authority::Observe,
        1 => Authority::RollbackOnly,
        _ => Authority::Full,
    };
    let policies = [OnUndecided::Wait, OnUndecided::Carry, OnUndecided::Proceed];
    for stage in &mut plan.stages {
        stage.on_undecided = policies[random.random_range(0..3)];
        if random.random_bool(0.15) {
            stage.gate = Some("a person looks first".to_owned());
        }
    }
    if random.random_bool(0.15) {
        let approvals = Approvals { required: 2, expires_after: Millis::from_secs(600) };
        let stage = &mut plan.stages[random.random_range(0..3)];
        stage.gate = Some("two others approve".to_owned());
        stage.approvals = Some(approvals);
    }
    if random.random_bool(0.5) {
        plan.manual_rollback.required_approvers = 2;
        plan.manual_rollback.maximum_rollback_time = Millis::from_secs(120);
    }
    if random.random_bool(0.3) {
        plan.manual_rollback.on_approval_timeout = OnApprovalTimeout::Hold;
    }
    if random.random_bool(0.3) {
        plan.policy.on_missing.action = OnFail::Hold;
    }
    if random.random_bool(0.3) {
        plan.policy.on_source_error.action = OnFail::Rollback;
    }
    if random.random_bool(0.3) {
        plan.hooks = [Hook::Deploy, Hook::Persist, Hook::Promote].into();
    }
    if random.random_bool(0.3) {
        hold_back(&mut plan);
    }
    if random.random_bool(0.4) {
        add_steps(&mut plan, random);
    }
    if random.random_bool(0.2) {
        plan.stages.insert(0, sample::mirror("us_east_1", 20.0));
    }
    if random.random_bool(0.25) {
        add_cohort(&mut plan, random.random_bool(0.5));
    }
    plan
}

/// One of the regions is a slice of another; half of it may come before everybody.
fn add_cohort(plan: &mut Plan, goes_first: bool) {
    let (name, half) = (sample::region("ap_southeast_2"), sample::percent(50.0));
    let Some(cohort) = plan.regions.get_mut(&name) else { return };
    cohort.cohort_of = Some(sample::region("us_east_1"));
    if goes_first {
        for step in plan.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
            let weight = step.weights.entry(name.clone()).or_default();
            *weight = half.max(*weight);
        }
        plan.stages.insert(0, sample::stage("testers", None, &[name.as_str()], half.percent()));
    }
}

fn hold_back(plan: &mut Plan) {
    plan.policy.holdback = sample::percent(2.0);
    let last = plan.stages.len() - 1;
    for weight in plan.stages[last].steps.iter_mut().flat_map(|step| step.weights.values_mut()) {
        *weight = sample::percent(98.0);
    }
}

/// Steps within a stage: all regions together at half the way, or one region after another.
fn add_steps(plan: &mut Plan, random: &mut impl Rng) {
    let stage = random.random_range(1..plan.stages.len());
    let before = plan.stages[stage - 1].steps.last().map(|step| step.weights.clone());
    let mut weights = before.unwrap_or_default();
    let regions = plan.stages[stage].regions.clone();
    let last = plan.stages[stage].steps[0].clone();
    let mut steps = Vec::new();
    if random.random_bool(0.5) {
        for region in &regions[..regions.len() - 1] {
            weights.insert(region.clone(), last.weights[region]);
            let (weights, bake) = (weights.clone(), Millis::from_secs(10));
            steps.push(Step { weights, bake, ..last.clone() });
        }
    } else {
        for percent in [28.0, 60.0].into_iter().map(sample::percent) {
            let lower = |weight: &&mut crate::units::Weight| **weight > percent;
            let mut half = last.weights.clone();
            half.values_mut().filter(lower).for_each(|weight| *weight = percent);
            steps.push(Step { weights: half, bake: Millis::from_secs(10), ..last.clone() });
        }
    }
    steps.push(last);
    plan.stages[stage].steps = steps;
}
