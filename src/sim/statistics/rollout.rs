//! A whole rollout by chance: three regions, four criteria, three stages, one answer for all of them together.

use rand::Rng;

use super::counts::{POLL_SECONDS, POLLS, STABLE_RATE, binomial, poisson};
use super::rules::{LOG_BAD, LOG_OK};
use crate::stats::{
    Arm, Conditions, CountMonitor, Evidence, Family, Levels, Limit, Part, PooledMonitor, Window,
    log_average,
};

/// Parts of the traffic, by region.
const REGIONS: [f64; 3] = [0.6, 0.3, 0.1];
/// The canary's share of the traffic, by stage.
const STAGES: [f64; 3] = [0.05, 0.25, 0.5];
/// Polls of a stage: ten minutes.
const STAGE_POLLS: usize = POLLS / STAGES.len();
/// Seconds of stable's traffic that a memory with a half-life of ten minutes holds.
pub(super) const MEMORY_SECONDS: f64 = 600.0 / std::f64::consts::LN_2;
/// Evidence at which nothing is raised any more.
const LOG_HOLD: f64 = LOG_OK;
/// Chance of a false rollback, and of a false proof.
const LEVELS: Levels = Levels::new(0.01, 0.05);

/// What is counted, and what the pipeline allows.
#[derive(Debug, Clone, Copy)]
struct Criterion {
    family: Family,
    /// Stable's share of such requests.
    rate: f64,
    limit: Limit,
}

/// Errors at most 0.1 points more; p99 and p50 at most 10 % slower (as shares above a bucket edge); errors below 1 %.
const CRITERIA: [Criterion; 4] = [
    Criterion { family: Family::Poisson, rate: STABLE_RATE, limit: Limit::difference(0.001) },
    Criterion { family: Family::Bernoulli, rate: SLOW_99, limit: Limit::ratio(1.421) },
    Criterion { family: Family::Poisson, rate: STABLE_RATE, limit: Limit::absolute(0.01) },
    Criterion { family: Family::Bernoulli, rate: SLOW_50, limit: Limit::ratio(1.108) },
];
/// Stable's shares of requests above the edges next to its p99 and its p50.
const SLOW_99: f64 = 0.0107;
const SLOW_50: f64 = 0.5;

/// What is wrong with the canary in a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Harm {
    /// How much more often it fails, as a share of requests.
    pub errors: f64,
    /// How many times as many requests are above the edge next to stable's p99.
    pub slow_99: f64,
    /// The same for the median.
    pub slow_50: f64,
}

impl Harm {
    /// Nothing is wrong.
    pub const NONE: Self = Self { errors: 0.0, slow_99: 1.0, slow_50: 1.0 };

    /// It fails more often.
    #[must_use]
    pub const fn errors(errors: f64) -> Self {
        Self { errors, ..Self::NONE }
    }
}

/// A service in three regions and a canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Requests per second, all regions together.
    pub per_second: f64,
    /// By region, the largest first.
    pub harm: [Harm; 3],
    /// The poll from which on it is harmful.
    pub onset: usize,
}

/// What is asked of a rollout, in the order of the columns.
pub const COLUMNS: [&str; 4] = [BACK, "regions only, averaged", "regions only, corrected", PROVEN];
/// Rolled back.
pub const BACK: &str = "tidegate";
/// Every criterion proven, over all regions together.
pub const PROVEN: &str = "tidegate proof";

/// One criterion in all regions, as the judge weighs them: half together, half spread over the regions.
struct Watched {
    criterion: Criterion,
    regions: Vec<CountMonitor>,
    pooled: PooledMonitor,
}

impl Watched {
    fn new(criterion: Criterion, per_second: f64) -> Self {
        let alpha = 0.5 * LEVELS.alpha / CRITERIA.len() as f64;
        let Criterion { family, rate, limit } = criterion;
        let monitor = |part: f64| {
            let levels = Levels::new(alpha / REGIONS.len() as f64, LEVELS.beta);
            let mut monitor = CountMonitor::new(family, limit, levels);
            let requests = per_second * part * MEMORY_SECONDS;
            monitor.preload(Arm::new(requests * rate, requests));
            monitor
        };
        let pooled = PooledMonitor::new(Levels::new(alpha, LEVELS.beta));
        Self { criterion, regions: REGIONS.map(monitor).to_vec(), pooled }
    }

    fn traffic_step(&mut self) {
        self.regions.iter_mut().for_each(CountMonitor::traffic_step);
        self.pooled.traffic_step();
    }

    fn observe(&mut self, windows: &[Window]) {
        let conditions = Conditions::with_history(1.0);
        let read = |(monitor, window): (&mut CountMonitor, &Window)| {
            let alone = Window::one_sample(window.canary, window.seconds);
            let is_alone = self.criterion.limit.factor == 0.0;
            monitor.update(if is_alone { &alone } else { window }, &conditions)
        };
        let evidence: Vec<Evidence> = self.regions.iter_mut().zip(windows).map(read).collect();
        self.pooled.update(&evidence, POLL_SECONDS, conditions.quorum);
    }
}

impl Scenario {
    /// Draws a rollout; for each of [`COLUMNS`] the first poll (from 0), not before the onset, after which it was so.
    pub fn first(&self, random: &mut impl Rng) -> Vec<Option<usize>> {
        let mut watched = CRITERIA.map(|criterion| Watched::new(criterion, self.per_second));
        let mut first = vec![None; COLUMNS.len()];
        for poll in 0..POLLS {
            let share = STAGES[poll / STAGE_POLLS];
            if poll > 0 && poll % STAGE_POLLS == 0 {
                watched.iter_mut().for_each(Watched::traffic_step);
            }
            let windows: Vec<[Window; 3]> =
                (0..REGIONS.len()).map(|region| self.region(region, poll, share, random)).collect();
            // Both criteria on errors count the same requests.
            for (criterion, which) in watched.iter_mut().zip([0, 1, 0, 2]) {
                let windows: Vec<_> = windows.iter().map(|region| region[which]).collect();
                criterion.observe(&windows);
            }
            for (first, is_so) in first.iter_mut().zip(answers(&watched)) {
                if is_so && first.is_none() && poll >= self.onset {
                    *first = Some(poll);
                }
            }
        }
        first
    }

    /// Failed requests, those above the edge next to the p99, and next to the p50.
    fn region(&self, region: usize, poll: usize, share: f64, random: &mut impl Rng) -> [Window; 3] {
        let harm = if poll >= self.onset { self.harm[region] } else { Harm::NONE };
        let requests = self.per_second * REGIONS[region] * POLL_SECONDS;
        let canary = poisson(requests * share, random);
        let stable = poisson(requests * (1.0 - share), random);
        [
            (STABLE_RATE + harm.errors, STABLE_RATE),
            (SLOW_99 * harm.slow_99, SLOW_99),
            (SLOW_50 * harm.slow_50, SLOW_50),
        ]
        .map(|(canary_rate, stable_rate)| {
            Window::new(
                Arm::new(binomial(canary, canary_rate, random), canary),
                Arm::new(binomial(stable, stable_rate, random), stable),
                POLL_SECONDS,
            )
        })
    }
}

fn answers(watched: &[Watched; 4]) -> [bool; 4] {
    let regions = || watched.iter().flat_map(|it| &it.regions).map(CountMonitor::log_bad);
    let own: Vec<Part> = regions().map(|log| Part::new(log, 1.0)).collect();
    let pooled = watched.iter().map(|it| Part::new(it.pooled.log_bad(), REGIONS.len() as f64));
    let all: Vec<Part> = pooled.chain(own.iter().copied()).collect();
    let harm = log_average(&all);
    let is_proven = |it: &Watched| it.pooled.log_ok() >= LOG_OK;
    [
        harm >= LOG_BAD,
        log_average(&own) >= LOG_BAD,
        regions().any(|log| log >= LOG_BAD + (own.len() as f64).ln()),
        harm < LOG_HOLD && watched.iter().all(is_proven),
    ]
}
