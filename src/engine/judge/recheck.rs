//! Whether a recorded verdict is what its own numbers say. For who reads the record later, without the samples.

use super::monitors::MonitorSet;
use crate::engine::verdict::{Judgement, Numbers, Outcome, Undecided, Verdict};
use crate::spec::plan::Plan;
use crate::stats::numbers::{log_add, log_sum};

/// What rounding in a record may be off by.
const ROUNDING: f64 = 1e-9;

/// Every verdict of a judgement that its numbers do not bear out, in one sentence each; empty for a right one.
#[must_use]
pub fn recheck(plan: &Plan, judgement: &Judgement) -> Vec<String> {
    let sets = MonitorSet::all(plan);
    let mut wrong = Vec::new();
    for verdict in &judgement.verdicts {
        let criterion = plan.criteria().find(|it| it.id == verdict.criterion);
        let Some(criterion) = criterion else {
            wrong.push(format!("{}: the plan has no such criterion", verdict.criterion));
            continue;
        };
        let tested =
            |set: &&MonitorSet| set.analysis == criterion.analysis && set.test == criterion.test;
        if let Some(set) = sets.iter().find(tested)
            && let Some(what) = contradiction(plan, set, verdict)
        {
            wrong.push(format!("{}: {what}", verdict.criterion));
        }
    }
    let fails = |verdict: &&Verdict| !verdict.dry_run && verdict.outcome == Outcome::Fail;
    if judgement.stage == Outcome::Pass && judgement.verdicts.iter().any(|it| fails(&it)) {
        wrong.push("the stage passed although a criterion is violated".to_owned());
    }
    if judgement.stage == Outcome::Pass && judgement.log_harm >= -plan.policy.alpha.ln() {
        wrong.push("the stage passed although harm is proven".to_owned());
    }
    wrong
}

fn contradiction(plan: &Plan, set: &MonitorSet, verdict: &Verdict) -> Option<String> {
    let numbers = &verdict.numbers;
    let needed = -plan.policy.beta.ln();
    let log_ok = numbers.log_ok.unwrap_or(f64::NEG_INFINITY);
    match &verdict.outcome {
        Outcome::Pass if log_ok + ROUNDING < needed => {
            Some(format!("passed with evidence of {log_ok:.4}, {needed:.4} are needed"))
        }
        Outcome::Pass if numbers.polls == 0 => Some("passed without a look".to_owned()),
        Outcome::Pass => {
            let least = plan.stages.iter().map(|stage| stage.min_requests).min()?;
            let (_, seen) = numbers.canary?;
            (seen < least as f64).then(|| format!("passed on {seen} of {least} requests"))
        }
        Outcome::Fail if !proves_harm(plan, set, numbers) => {
            Some(format!("failed with evidence of {:.4}", harm(plan, numbers)))
        }
        Outcome::Undecided(Undecided::NotEnoughData { requests, requests_min, .. }) => {
            let enough = requests >= requests_min && numbers.polls > 0 && !set.is_gauge();
            (enough && log_ok >= needed + ROUNDING)
                .then(|| "was left undecided although its evidence is enough".to_owned())
        }
        _ => None,
    }
}

/// Evidence that is not concurrent is not among the numbers.
fn proves_harm(plan: &Plan, set: &MonitorSet, numbers: &Numbers) -> bool {
    let nonconcurrent = numbers.unverified.as_ref().is_some_and(|it| it.contains("non-concurrent"));
    nonconcurrent || set.proves(plan, harm(plan, numbers) + ROUNDING)
}

/// ln of the evidence for harm: half pooled, half the average over the plan's regions.
fn harm(plan: &Plan, numbers: &Numbers) -> f64 {
    let regions = plan.regions.len().max(numbers.regions.len()).max(1);
    let idle = regions.saturating_sub(numbers.regions.len());
    let logs = numbers.regions.values().copied().chain(std::iter::repeat_n(0.0, idle));
    let average = log_sum(logs) - (regions as f64).ln();
    let pooled = numbers.log_bad.unwrap_or(f64::NEG_INFINITY);
    log_add(pooled, average) - std::f64::consts::LN_2
}
