//! A hunt for a broken promise over many seeds.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sample::{self, BAKE, POLL};
use super::shrink::shrink;
use super::{Coverage, Options, Report, Simulation};
use crate::spec::plan::Plan;
use crate::units::Millis;

/// Of the sample's seeds every such one is judged by the real statistics.
const STATISTICS_EVERY: u64 = 40;

/// What a hunt came to.
#[derive(Debug)]
pub struct Hunted {
    /// Rollouts that were simulated.
    pub rollouts: u64,
    /// How often everything happened.
    pub coverage: Coverage,
    /// The lowest seed found that breaks a promise, with as few faults as still do, and its history.
    pub broken: Option<Box<Report>>,
}

/// Runs every seed on all cores, until one breaks a promise; on variations of the sample plan, or on `plan`. `done` hears
/// of each.
#[must_use]
pub fn hunt(
    seeds: Range<u64>,
    plan: Option<&Plan>,
    options: &Options,
    done: &(dyn Fn() + Sync),
) -> Hunted {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(seeds.start);
    let rollouts = AtomicU64::new(0);
    let broken: Mutex<Option<u64>> = Mutex::new(None);
    let planned = |seed: u64| plan.cloned().unwrap_or_else(|| Simulation::plan(seed));
    let work = || {
        let mut coverage = Coverage::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return coverage;
            }
            let own = options_of(seed, plan, options);
            let report = Simulation::new(seed, planned(seed), own).run();
            coverage.add(&report.coverage);
            rollouts.fetch_add(1, Ordering::Relaxed);
            done();
            if !report.violations.is_empty()
                && let Ok(mut broken) = broken.lock()
            {
                *broken = Some(broken.map_or(seed, |known| known.min(seed)));
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    let mut coverage = Coverage::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(counts) => coverage.add(&counts),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let broken = broken.into_inner().unwrap_or_default();
    let broken = broken.map(|seed| {
        let own = options_of(seed, plan, options);
        Box::new(smallest(seed, &planned(seed), &own))
    });
    Hunted { rollouts: rollouts.into_inner(), coverage, broken }
}

/// One seed in so many is judged by the real statistics on requests, the others have drawn verdicts.
fn options_of(seed: u64, plan: Option<&Plan>, options: &Options) -> Options {
    let statistics = plan.is_none() && seed.is_multiple_of(STATISTICS_EVERY);
    Options { statistics: options.statistics || statistics, ..options.clone() }
}

/// A seed that breaks a promise with as few faults as still do, and its history.
#[must_use]
pub fn smallest(seed: u64, plan: &Plan, options: &Options) -> Report {
    let again = |faults| {
        let simulation = Simulation::with_faults(seed, plan.clone(), faults, options.clone());
        simulation.keeping_history().run()
    };
    let first = Simulation::new(seed, plan.clone(), options.clone()).run();
    again(shrink(first, again).faults)
}

/// A user's plan with the clocks of the sample: half a minute for each step, looks every ten seconds.
#[must_use]
pub fn shortened(mut plan: Plan) -> Plan {
    for stage in &mut plan.stages {
        stage.steps.iter_mut().for_each(|step| step.bake = step.bake.min(BAKE));
        stage.duration = stage.duration.min(BAKE);
        stage.max_duration = stage.max_duration.min(BAKE.plus(BAKE)).max(stage.duration);
        stage.min_requests = stage.min_requests.min(1_000);
    }
    plan.regions.values_mut().for_each(|region| {
        (region.poll, region.settle) = (POLL, Millis::ZERO);
    });
    let usual = sample::plan().policy;
    plan.policy.on_missing.after = plan.policy.on_missing.after.min(usual.on_missing.after);
    let (own, usual) = (&mut plan.policy.on_source_error, usual.on_source_error);
    own.page_after = own.page_after.min(usual.page_after);
    own.after = own.after.min(usual.after);
    plan
}

/// The time within which a plan's rollout has to be over once all is well.
#[must_use]
pub fn patience(plan: &Plan) -> Millis {
    let steps: usize = plan.stages.iter().map(|stage| stage.steps.len()).sum();
    Options::default().patience.plus(Millis(BAKE.0 * 4 * steps as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outstanding::{Action, outstanding};
    use crate::engine::rollout::Rollout;

    #[test]
    fn a_wrong_engine_is_found_in_a_users_plan_and_a_right_one_is_not() {
        let mut plan = sample::plan();
        let hour = Millis::from_secs(3_600);
        for stage in &mut plan.stages {
            (stage.duration, stage.max_duration) = (hour, hour.plus(hour));
            stage.steps.iter_mut().for_each(|step| step.bake = hour);
        }
        let plan = shortened(plan);
        let right = Options { patience: patience(&plan), ..Options::default() };
        let hunted = hunt(0..200, Some(&plan), &right, &|| {});
        assert!(hunted.broken.is_none() && hunted.rollouts == 200, "{:?}", hunted.broken);

        fn raises_while_paused(state: &Rollout) -> Vec<Action> {
            outstanding(&Rollout { paused: None, ..state.clone() })
        }
        let wrong = Options { outstanding: raises_while_paused, ..right };
        let hunted = hunt(0..2_000, Some(&plan), &wrong, &|| {});
        let broken = hunted.broken.expect("a wrong one that nobody notices");
        assert!(broken.violations[0].contains("paused"), "{:?}", broken.violations);
        assert!(!broken.history.is_empty() && broken.faults.len() <= 3, "{:?}", broken.faults);
    }
}
