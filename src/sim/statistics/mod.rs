//! How often each rule is wrong, and how fast it is right: the tables behind the statistics, from the product's own code.
//!
//! [`counts`] draws rollouts, [`rules`] judges each of them by every rule, [`table`] holds the settings and the targets.
//! A rollout depends on its setting and number only, so every cell can be drawn again.

pub mod counts;
pub mod rank;
pub mod rules;
pub mod table;

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use self::counts::POLL_SECONDS;
pub use self::counts::{Course, Errors, Scenario};
pub use self::rules::Rule;

/// What one rule did in one setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The rule.
    pub rule: String,
    /// Rollouts that were drawn.
    pub rollouts: usize,
    /// Share of them in which the rule spoke at or after the onset.
    pub share: f64,
    /// Median of the seconds from the onset to that; only if it spoke in more than half of them.
    pub median_seconds: Option<f64>,
}

/// Draws `rollouts` of them on all cores, and asks every rule; `done` hears of each rollout.
pub fn cells(
    scenario: &Scenario,
    rules: &[Rule],
    rollouts: usize,
    seed: u64,
    done: &(dyn Fn() + Sync),
) -> Vec<Cell> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found: Vec<(usize, Vec<Option<usize>>)> = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= rollouts {
                return found;
            }
            let mut random = Pcg64Mcg::seed_from_u64(seed ^ (number as u64) << 20);
            let drawn = scenario.draw(&mut random);
            let spoke = rules.iter().map(|rule| rule.first(&drawn, scenario.onset)).collect();
            found.push((number, spoke));
            done();
        }
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    let of_rule = |(index, rule): (usize, &Rule)| {
        let mut polls: Vec<usize> = found.iter().filter_map(|(_, spoke)| spoke[index]).collect();
        polls.sort_unstable();
        let share = polls.len() as f64 / rollouts as f64;
        // Those that never spoke come last.
        let median = (share > 0.5).then(|| polls[rollouts / 2]);
        Cell {
            rule: rule.name(),
            rollouts,
            share,
            median_seconds: median.map(|poll| (poll + 1 - scenario.onset) as f64 * POLL_SECONDS),
        }
    };
    rules.iter().enumerate().map(of_rule).collect()
}
