//! How often each rule is wrong, and how fast it is right: the tables behind the statistics, from the product's own code.
//!
//! [`counts`] draws rollouts and [`rules`] judges each of them by every rule, [`latency`] does both for response times, [`rollout`] for several regions and criteria together, [`table`] holds the settings and the targets.
//! A rollout depends on its setting and number only, so every cell can be drawn again.

pub mod counts;
pub mod latency;
pub mod rank;
pub mod rollout;
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
    /// Seconds from the onset by which it spoke in 80 % of them.
    pub seconds_80: Option<f64>,
}

/// Draws a rollout and says for each rule after which poll it spoke first.
pub type Spoke<'a> = dyn Fn(&mut Pcg64Mcg) -> Vec<Option<usize>> + Sync + 'a;

/// Draws `rollouts` of them on all cores, and asks every rule of `names`; `done` hears of each rollout.
pub fn cells(
    names: &[String],
    spoke: &Spoke<'_>,
    onset: usize,
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
            found.push((number, spoke(&mut random)));
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
    let of_rule = |(index, name): (usize, &String)| {
        let mut polls: Vec<usize> = found.iter().filter_map(|(_, spoke)| spoke[index]).collect();
        polls.sort_unstable();
        // Those that never spoke come last.
        let seconds =
            |part: usize| polls.get(part).map(|poll| (poll + 1 - onset) as f64 * POLL_SECONDS);
        Cell {
            rule: name.clone(),
            rollouts,
            share: polls.len() as f64 / rollouts as f64,
            median_seconds: seconds(rollouts / 2),
            seconds_80: seconds((rollouts * 4).div_ceil(5).saturating_sub(1)),
        }
    };
    names.iter().enumerate().map(of_rule).collect()
}
