//! All evidence of harm together.
//!
//! A weighted average of wealths is a wealth again, whatever depends on whatever, so one threshold bounds the whole
//! rollout's chance of a false rollback. What may not roll back stands in it at 1, as if it had never been bet.

use super::monitors::MonitorSet;
use super::{Judge, LOG_HOLD};
use crate::spec::plan::{OnFail, OnNonconcurrent, Plan};
use crate::stats::numbers::{log_add, log_sum};
use crate::units::Timestamp;

/// What a test that proves harm may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing: it is shown.
    Shown,
    /// Hold, because "no increase at all" was tested without history.
    HoldsUnverified,
    /// Hold, because the pipeline says so.
    HoldsOnFail,
    /// Roll back.
    RollsBack,
}

/// One test's evidence of harm.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetHarm {
    pub(super) role: Role,
    /// ln of the concurrent evidence.
    pub(super) log: f64,
    /// Proven by it, given the test's part.
    pub(super) is_proven: bool,
    /// Proven only against what stable was before.
    pub(super) is_proven_nonconcurrent: bool,
    /// Stable is beyond the same limit.
    pub(super) is_shared: bool,
}

/// Every test's evidence, in the judge's order, and all of it together.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    pub(super) sets: Vec<SetHarm>,
    /// ln of the combined evidence that may roll back.
    pub(super) log_rollback: f64,
    /// The same with what may only hold.
    pub(super) log_all: f64,
    /// Evidence that is not concurrent may roll back: the pipeline says so, or a fixed limit agrees.
    pub(super) nonconcurrent_rolls_back: bool,
}

impl Harm {
    pub(super) fn weigh(judge: &Judge, plan: &Plan, now: Timestamp) -> Self {
        let sets: Vec<SetHarm> =
            judge.sets.iter().map(|set| weigh(judge, plan, set, now)).collect();
        let both = || judge.sets.iter().zip(&sets);
        let log_rollback = average(both().map(|(set, harm)| {
            let counts = harm.role == Role::RollsBack && !harm.is_shared;
            (set.weight, counts.then_some(harm.log), harm.role)
        }));
        let log_all = average(both().map(|(set, harm)| {
            let counts = matches!(harm.role, Role::RollsBack | Role::HoldsUnverified);
            let log = match set.log_harm_nonconcurrent() {
                Some(other) => log_add(harm.log, other) - std::f64::consts::LN_2,
                None => harm.log,
            };
            (set.weight, (counts && !harm.is_shared).then_some(log), harm.role)
        }));
        let agrees = both().any(|(set, harm)| {
            harm.role == Role::RollsBack
                && set.stable.is_some()
                && !harm.is_shared
                && harm.log >= LOG_HOLD
        });
        let nonconcurrent_rolls_back =
            agrees || plan.policy.on_nonconcurrent == OnNonconcurrent::Rollback;
        Self { sets, log_rollback, log_all, nonconcurrent_rolls_back }
    }

    /// Whether the combined evidence is a proof although no single test's may be.
    pub(super) fn is_proven(&self, plan: &Plan) -> bool {
        self.log_rollback >= -plan.policy.alpha.ln()
    }
}

fn weigh(judge: &Judge, plan: &Plan, set: &MonitorSet, now: Timestamp) -> SetHarm {
    let role = role(judge, plan, set);
    let log = set.log_harm();
    let nonconcurrent = set.log_harm_nonconcurrent();
    SetHarm {
        role,
        log,
        is_proven: set.proves(plan, log),
        is_proven_nonconcurrent: nonconcurrent.is_some_and(|log| set.proves(plan, log)),
        is_shared: set.is_shared() || set.was_shared(now) && !set.proves(plan, log),
    }
}

fn role(judge: &Judge, plan: &Plan, set: &MonitorSet) -> Role {
    let uses =
        |it: &&crate::spec::plan::Criterion| it.analysis == set.analysis && it.test == set.test;
    if set.dry_run {
        Role::Shown
    } else if set.has_no_margin() && !judge.is_verified(plan, &set.analysis) {
        Role::HoldsUnverified
    } else if plan.policy.on_fail == OnFail::Hold && !plan.triggers.iter().any(|it| uses(&it)) {
        Role::HoldsOnFail
    } else {
        Role::RollsBack
    }
}

/// ln of the average of the given wealths by weight; `None` and what weight is left stand at 1.
fn average(parts: impl Iterator<Item = (f64, Option<f64>, Role)>) -> f64 {
    let (mut logs, mut rest) = (Vec::new(), 1.0);
    for (weight, log, role) in parts {
        if let Some(log) = log.filter(|_| role != Role::Shown) {
            logs.push(log + weight.ln());
            rest -= weight;
        }
    }
    // Rounding leaves a speck when every test counts.
    log_add(log_sum(logs.into_iter()), if rest > 1e-12 { rest.ln() } else { f64::NEG_INFINITY })
}
