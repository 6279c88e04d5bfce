use super::*;

fn run(seed: u64, options: &Options) -> Report {
    Simulation::new(seed, Simulation::plan(seed), options.clone()).run()
}

/// The same seed with as few faults as still break something, and what happened.
fn smallest(failed: Report, options: &Options) -> String {
    let seed = failed.seed;
    let again = |faults| {
        let plan = Simulation::plan(seed);
        Simulation::with_faults(seed, plan, faults, options.clone()).keeping_history().run()
    };
    let faults = failed.faults.clone();
    let smallest = shrink(failed, again);
    let smallest = if smallest.history.is_empty() { again(faults) } else { smallest };
    format!(
        "seed {seed}\n{:#?}\n{}\nfaults {:?}\n{:?}",
        smallest.violations,
        smallest.history.join("\n"),
        smallest.faults,
        Simulation::plan(seed).stages.iter().map(|stage| &stage.steps).collect::<Vec<_>>()
    )
}

fn run_all(seeds: std::ops::Range<u64>, options: &Options) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let report = run(seed, options);
        coverage.add(&report.coverage);
        if !report.violations.is_empty() {
            panic!("{}", smallest(report, options));
        }
    }
    coverage
}

#[test]
fn five_thousand_rollouts_break_no_promise() {
    let options = Options::default();
    let halves = [0..2_500, 2_500..5_000];
    let runs = halves.map(|seeds| {
        let options = options.clone();
        std::thread::spawn(move || run_all(seeds, &options))
    });
    let mut coverage = Coverage::default();
    for run in runs {
        match run.join() {
            Ok(counts) => coverage.add(&counts),
            Err(cause) => std::panic::resume_unwind(cause),
        }
    }
    println!("{coverage}");
}
