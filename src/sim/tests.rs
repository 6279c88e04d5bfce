//! Thousands of rollouts with faults, and wrong engines that must be found.

use super::*;
use crate::engine::decide::{Decision, decide};
use crate::engine::event::Event;
use crate::engine::input::Input;
use crate::engine::outstanding::{Action, outstanding};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::{DataState, Outcome};
use crate::units::{Millis, Timestamp};

fn run(seed: u64, options: &Options) -> Report {
    Simulation::new(seed, Simulation::plan(seed), options.clone()).run()
}

/// Runs them; how often everything happened.
#[track_caller]
fn run_all(seeds: std::ops::Range<u64>, options: &Options) -> Coverage {
    let hunted = seeds::hunt(seeds, None, options, &|| {});
    if let Some(broken) = hunted.broken {
        let Report { seed, violations, history, faults, .. } = *broken;
        let history = history.join("\n");
        panic!("seed {seed}\n{violations:#?}\n{history}\nfaults that it takes: {faults:?}");
    }
    hunted.coverage
}

#[test]
fn five_thousand_rollouts_break_no_promise() {
    let coverage = run_all(0..5_000, &Options::default());
    println!("{coverage}");
    assert_eq!(coverage.unseen(), Vec::<String>::new());
}

#[test]
fn rollouts_crowded_with_faults_break_no_promise() {
    let options = Options { faults_max: 40, ..Options::default() };
    run_all(100_000..100_600, &options);
}

#[test]
fn five_hundred_rollouts_with_the_real_statistics_break_no_promise() {
    let options = Options { statistics: true, ..Options::default() };
    let coverage = run_all(0..500, &options);
    println!("{coverage}");
    for seen in
        ["cause Breach", "end Promoted", "event StagePassed", "truth Bad", "event Recovered"]
    {
        assert!(coverage.of(seen) > 20, "{seen}");
    }
}

/// A rollout with crashes at the faults' times and nothing else, and the same without.
fn with_and_without_crashes(seed: u64, options: &Options) -> [Report; 2] {
    let all = Simulation::new(seed, Simulation::plan(seed), options.clone()).run().faults;
    let crashes = all.into_iter().filter(|planned| matches!(planned.fault, Fault::Crash(_)));
    [crashes.collect(), Vec::new()].map(|faults| {
        let plan = Simulation::plan(seed);
        Simulation::with_faults(seed, plan, faults, options.clone()).keeping_history().run()
    })
}

#[test]
fn a_rollout_that_dies_on_its_way_takes_the_way_of_one_that_does_not() {
    for statistics in [false, true] {
        let options = Options { statistics, faults_max: 20, ..Options::default() };
        let seeds = if statistics { 0..150 } else { 0..1_500 };
        let mut died = 0;
        for seed in seeds {
            let [crashed, whole] = with_and_without_crashes(seed, &options);
            // Drawn metrics go dark after so many looks, and a death takes looks away.
            if ["CanaryDark", "SourceDark", "Flapping"]
                .iter()
                .any(|truth| whole.coverage.of(&format!("truth {truth}")) > 0)
            {
                continue;
            }
            died += crashed.coverage.of("recovered");
            assert_eq!(
                (&crashed.story, crashed.phase),
                (&whole.story, whole.phase),
                "seed {seed}, statistics {statistics}: {:?}\n{}\n\n{}",
                crashed.faults,
                crashed.history.join("\n"),
                whole.history.join("\n"),
            );
        }
        println!("{died} deaths, statistics {statistics}");
        assert!(died > 100, "{died}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let once = || {
            let plan = Simulation::plan(seed);
            Simulation::new(seed, plan, Options::default()).keeping_history().run()
        };
        assert_eq!(once().history, once().history, "seed {seed}");
    }
}

/// A wrong engine or driver breaks a promise within 2,000 seeds; otherwise the simulation proves nothing.
#[track_caller]
fn is_found(options: &Options, promise: &str) {
    let found = (0..2_000).find(|&seed| {
        run(seed, options).violations.iter().any(|violation| violation.contains(promise))
    });
    let seed = found.expect("a wrong one that nobody notices");
    println!("found by seed {seed}: {promise}");
}

#[test]
fn an_engine_that_takes_any_look_for_a_current_one_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let Input::Polled(look) = input else { return decide(state, input, now) };
        let mut look = look.clone();
        look.judgement.generation = state.generation;
        decide(state, &Input::Polled(look), now)
    }
    is_found(&Options { decide: wrong, ..Options::default() }, "a look at other weights");
}

#[test]
fn an_engine_that_raises_while_paused_is_found() {
    fn wrong(state: &Rollout) -> Vec<Action> {
        outstanding(&Rollout { paused: None, ..state.clone() })
    }
    is_found(&Options { outstanding: wrong, ..Options::default() }, "a raise while paused");
}

#[test]
fn an_engine_that_gives_weight_to_an_empty_pool_is_found() {
    fn wrong(state: &Rollout) -> Vec<Action> {
        let mut blind = state.clone();
        blind.regions.values_mut().for_each(|region| region.backends = None);
        outstanding(&blind)
    }
    let options = Options { outstanding: wrong, faults_max: 40, ..Options::default() };
    is_found(&options, "no backend is healthy");
}

#[test]
fn an_engine_that_believes_the_clock_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let mut credulous = state.clone();
        let ages = Millis::from_secs(10_000_000);
        credulous.plan.regions.values_mut().for_each(|region| region.poll = ages);
        decide(&credulous, input, now)
    }
    is_found(&Options { decide: wrong, ..Options::default() }, "of real time");
}

#[test]
fn a_driver_that_believes_its_own_echo_is_found() {
    is_found(&Options { believes_echo: true, ..Options::default() }, "but it is");
}

#[test]
fn a_driver_that_takes_an_old_answer_for_a_new_one_is_found() {
    let options = Options { forgets_question: true, faults_max: 40, ..Options::default() };
    is_found(&options, "that nobody made");
}

#[test]
fn a_driver_that_answers_before_it_records_is_found() {
    let options = Options { answers_early: true, faults_max: 40, ..Options::default() };
    is_found(&options, "was told it goes back");
}

#[test]
fn a_driver_that_begins_its_evidence_anew_after_a_crash_is_found() {
    let options = Options { statistics: true, forgets_wealth: true, ..Options::default() };
    is_found(&options, "looks became that of");
}

#[test]
fn a_driver_that_takes_a_hook_without_an_end_for_done_is_found() {
    is_found(&Options { believes_hooks: true, ..Options::default() }, "is not done in");
}

/// As if every region had been read back at what is wanted.
fn credulous(state: &Rollout) -> Rollout {
    let mut state = state.clone();
    let generation = state.generation;
    for region in state.regions.values_mut() {
        region.confirmed = Some(generation);
        region.observed = Some(region.desired);
    }
    state
}

#[test]
fn an_engine_that_promotes_on_an_old_confirmation_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let is_promoting = state.phase == Phase::Promoting;
        decide(&if is_promoting { credulous(state) } else { state.clone() }, input, now)
    }
    let options = Options { decide: wrong, ..Options::default() };
    is_found(&options, "promoted without a fresh read-back");
}

#[test]
fn an_engine_that_takes_a_rollback_for_done_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let goes_back = state.phase == Phase::RollingBack;
        decide(&if goes_back { credulous(state) } else { state.clone() }, input, now)
    }
    let options = Options { decide: wrong, ..Options::default() };
    is_found(&options, "rolled back without a read-back");
}

#[test]
fn an_engine_that_takes_missing_data_for_a_pass_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let Input::Polled(look) = input else { return decide(state, input, now) };
        let mut look = look.clone();
        let data = &mut look.judgement.data;
        if data.values().any(|data| *data != DataState::Present) {
            data.values_mut().for_each(|data| *data = DataState::Present);
            look.judgement.stage = Outcome::Pass;
        }
        decide(state, &Input::Polled(look), now)
    }
    let options = Options { decide: wrong, ..Options::default() };
    is_found(&options, "a look that proved nothing");
}

#[test]
fn an_engine_that_raises_while_it_goes_back_is_found() {
    fn wrong(state: &Rollout) -> Vec<Action> {
        let mut raising = state.clone();
        if state.phase == Phase::RollingBack {
            raising.phase = Phase::Shifting;
            for (name, region) in &mut raising.regions {
                region.desired = state.step().weights.get(name).copied().unwrap_or_default();
            }
        }
        outstanding(&raising)
    }
    is_found(&Options { outstanding: wrong, ..Options::default() }, "not back");
}

#[test]
fn an_engine_that_reuses_a_generation_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let mut decision = decide(state, input, now);
        for event in &mut decision.events {
            if let Event::RollbackStarted { generation, .. } = event {
                *generation = state.generation;
            }
        }
        decision
    }
    is_found(&Options { decide: wrong, ..Options::default() }, "under an old generation");
}

#[test]
fn an_engine_that_forgets_its_debts_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        decide(&Rollout { owed: Default::default(), ..state.clone() }, input, now)
    }
    is_found(&Options { decide: wrong, ..Options::default() }, "promoted with debts");
}

#[test]
fn an_engine_that_takes_a_cohort_for_a_region_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let mut blind = state.clone();
        blind.plan.regions.values_mut().for_each(|region| region.cohort_of = None);
        decide(&blind, input, now)
    }
    let options = Options { decide: wrong, faults_max: 40, ..Options::default() };
    is_found(&options, "which has no slots of its own");
    is_found(&options, "whose slot may serve");
}

#[test]
fn an_engine_that_shortens_bakes_is_found() {
    fn wrong(state: &Rollout, input: &Input, now: Timestamp) -> Decision {
        let mut hasty = state.clone();
        for step in hasty.plan.stages.iter_mut().flat_map(|stage| &mut stage.steps) {
            step.bake = Millis(step.bake.0 / 2);
        }
        decide(&hasty, input, now)
    }
    is_found(&Options { decide: wrong, ..Options::default() }, "a bake cut short");
}
