//! Good and failed requests of two versions by chance, poll after poll, in the ways that real services fail.

use rand::{Rng, RngExt};
use rand_distr::{Beta, Binomial, Distribution, Geometric, Poisson};

use crate::stats::clumpiness::block_polls;
use crate::stats::{Arm, DesignEffect, Family, Window};

/// Length of a poll.
pub const POLL_SECONDS: f64 = 10.0;
/// Polls of a rollout: half an hour.
pub const POLLS: usize = 180;
/// Polls of history: an hour.
pub(super) const HISTORY_POLLS: usize = 360;
/// Stable pods that take turns as pseudo canary in the history of a service whose pods are not told apart.
pub(super) const SPLITS: usize = 10;
/// The canary's share of the traffic.
pub(super) const SHARE: f64 = 0.05;
/// Pods of a service whose pods are told apart; the first is the canary.
const PODS: usize = 20;
/// Stable's share of failed requests.
pub(super) const STABLE_RATE: f64 = 0.001;
/// Share of failed requests in both arms while both are down.
const OUTAGE_RATE: f64 = 0.05;
/// Polls that an outage of both arms lasts.
const OUTAGE_POLLS: usize = 12;
/// Largest clump of a heavy-tailed service.
const PARETO_MAX: f64 = 200.0;
/// Mean length of a pod's bad episode and mean time to the next, in polls.
const EPISODE_POLLS: [f64; 2] = [6.0, 120.0];
/// How many times as often a pod fails in a bad episode.
const EPISODE_FACTOR: f64 = 10.0;

/// How failures come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Errors {
    /// One by one.
    Independent,
    /// Each poll's rate is drawn anew per arm, with this intra-class correlation.
    Overdispersed(f64),
    /// In clumps of geometric size with this mean.
    Clumps(f64),
    /// Pods are told apart, and fail in clumps of geometric size with this mean.
    PodClumps(f64),
    /// Pods are told apart, and fail in clumps with a heavy tail, up to 200 at once.
    PodPareto,
    /// Pods are told apart, and each has bad minutes of its own.
    PodEpisodes,
}

/// What traffic and rates do over the half hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Nothing changes.
    Steady,
    /// The canary's share goes 5, 25, 50 %, stable's rate rises to five times, traffic more than doubles.
    Ramp,
    /// Both arms are down for two minutes.
    Outage,
}

/// One simulated service and rollout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scenario {
    /// Requests per second, both arms together.
    pub per_second: f64,
    /// How much more often the canary fails, as a share of requests.
    pub effect: f64,
    /// The poll from which on it does.
    pub onset: usize,
    /// How failures come.
    pub errors: Errors,
    /// What else happens.
    pub course: Course,
    /// Clumpiness that is known beforehand; without, an hour of history tells it.
    pub clumpiness: Option<f64>,
}

/// What is known from history.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Clumpiness of the errors.
    pub clumpiness: f64,
    /// What stable did lately.
    pub stable: Arm,
}

/// A rollout and the history before it.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// From history.
    pub known: Known,
    /// Each poll.
    pub polls: Vec<Window>,
    /// Polls at which traffic is shifted, the first included.
    pub steps: Vec<usize>,
    /// Canary's share of the traffic at the start.
    pub share: f64,
}

impl Scenario {
    /// Requests fail one by one, nothing else happens.
    #[must_use]
    pub const fn new(per_second: f64, effect: f64) -> Self {
        Self {
            per_second,
            effect,
            onset: 0,
            errors: Errors::Independent,
            course: Course::Steady,
            clumpiness: None,
        }
    }

    /// Draws a rollout.
    pub fn draw(&self, random: &mut impl Rng) -> Drawn {
        let (known, polls) = match self.errors {
            Errors::Independent | Errors::Overdispersed(_) | Errors::Clumps(_) => {
                (self.history(random), self.rollout(random))
            }
            Errors::PodClumps(_) | Errors::PodPareto | Errors::PodEpisodes => self.pods(random),
        };
        let steps = match self.course {
            Course::Ramp => vec![0, POLLS / 3, 2 * POLLS / 3],
            _ => vec![0],
        };
        Drawn { known, polls, steps, share: self.share(0) }
    }

    fn share(&self, poll: usize) -> f64 {
        match self.course {
            Course::Ramp if poll >= 2 * POLLS / 3 => 0.5,
            Course::Ramp if poll >= POLLS / 3 => 0.25,
            _ => SHARE,
        }
    }

    fn rollout(&self, random: &mut impl Rng) -> Vec<Window> {
        let outage = random.random_range(0..POLLS - OUTAGE_POLLS);
        let poll = |poll: usize| {
            let part = poll as f64 / (POLLS - 1) as f64;
            let is_down = (outage..outage + OUTAGE_POLLS).contains(&poll);
            let (mut per_second, mut rate) = (self.per_second, STABLE_RATE);
            match self.course {
                Course::Ramp => {
                    (per_second, rate) =
                        (per_second * (0.6 + 0.8 * part), rate * (1.0 + 4.0 * part));
                }
                Course::Outage if is_down => rate = rate.max(OUTAGE_RATE),
                _ => {}
            }
            let canary = if poll >= self.onset { rate + self.effect } else { rate };
            let share = self.share(poll);
            Window::new(
                self.arm(per_second * share, canary, random),
                self.arm(per_second * (1.0 - share), rate, random),
                POLL_SECONDS,
            )
        };
        (0..POLLS).map(poll).collect()
    }

    /// Stable pods take turns as pseudo canary.
    fn history(&self, random: &mut impl Rng) -> Known {
        let mut effect = DesignEffect::new(Family::Poisson, 1.0, block_polls(POLL_SECONDS));
        let mut stable = Arm::EMPTY;
        let splits = if self.clumpiness.is_some() { 1 } else { SPLITS };
        for split in 0..splits {
            let windows: Vec<_> = (0..HISTORY_POLLS)
                .map(|_| {
                    Window::new(
                        self.arm(self.per_second * SHARE, STABLE_RATE, random),
                        self.arm(self.per_second * (1.0 - SHARE), STABLE_RATE, random),
                        POLL_SECONDS,
                    )
                })
                .collect();
            effect.add_split(&windows);
            if split == 0 {
                windows.iter().for_each(|window| remember(&mut stable, window.stable));
            }
        }
        Known { clumpiness: self.clumpiness.unwrap_or_else(|| effect.clumpiness()), stable }
    }

    fn arm(&self, per_second: f64, rate: f64, random: &mut impl Rng) -> Arm {
        let requests = poisson(per_second * POLL_SECONDS, random);
        let failed = match self.errors {
            Errors::Overdispersed(correlation) => {
                let weight = (1.0 - correlation) / correlation;
                let rate = Beta::new(rate * weight, (1.0 - rate) * weight)
                    .map_or(rate, |beta| beta.sample(random));
                binomial(requests, rate, random)
            }
            Errors::Clumps(mean) => clumps(requests, rate, mean, random, geometric),
            _ => binomial(requests, rate, random),
        };
        Arm::new(failed, requests)
    }

    /// History and rollout of twenty pods, the first of which is the canary from the end of the history on.
    fn pods(&self, random: &mut impl Rng) -> (Known, Vec<Window>) {
        let [bad, good] = EPISODE_POLLS;
        let mut is_bad: Vec<bool> =
            (0..PODS).map(|_| random.random_bool(bad / (bad + good))).collect();
        let mut effect = DesignEffect::new(Family::Poisson, 1.0, block_polls(POLL_SECONDS));
        let mut splits = vec![crate::stats::clumpiness::Split::default(); PODS - 1];
        let (mut stable, mut polls) = (Arm::EMPTY, Vec::with_capacity(POLLS));
        for poll in 0..HISTORY_POLLS + POLLS {
            let is_history = poll < HISTORY_POLLS;
            let pods: Vec<Arm> = is_bad
                .iter_mut()
                .enumerate()
                .map(|(pod, is_bad)| {
                    *is_bad = if *is_bad {
                        !random.random_bool(1.0 / bad)
                    } else {
                        random.random_bool(1.0 / good)
                    };
                    let regresses = pod == 0 && !is_history && poll - HISTORY_POLLS >= self.onset;
                    let rate = if regresses { STABLE_RATE + self.effect } else { STABLE_RATE };
                    self.pod(rate, *is_bad, random)
                })
                .collect();
            let others = sum(&pods[1..]);
            if !is_history {
                polls.push(Window::new(pods[0], others, POLL_SECONDS));
                continue;
            }
            remember(&mut stable, others);
            for (pod, split) in pods[1..].iter().zip(&mut splits) {
                let rest = Arm::new(others.events - pod.events, others.requests - pod.requests);
                effect.observe(split, &Window::new(*pod, rest, POLL_SECONDS));
            }
        }
        (Known { clumpiness: effect.clumpiness(), stable }, polls)
    }

    fn pod(&self, rate: f64, is_bad: bool, random: &mut impl Rng) -> Arm {
        let requests = poisson(self.per_second * POLL_SECONDS / PODS as f64, random);
        let failed = match self.errors {
            Errors::PodClumps(mean) => clumps(requests, rate, mean, random, geometric),
            Errors::PodPareto => clumps(requests, rate, 2.6, random, pareto),
            _ => {
                let [bad, good] = EPISODE_POLLS;
                let usual = rate / (1.0 + (EPISODE_FACTOR - 1.0) * bad / (bad + good));
                let now = if is_bad { usual * EPISODE_FACTOR } else { usual };
                binomial(requests, now, random)
            }
        };
        Arm::new(failed, requests)
    }
}

fn sum(pods: &[Arm]) -> Arm {
    let add = |sum: Arm, pod: &Arm| Arm::new(sum.events + pod.events, sum.requests + pod.requests);
    pods.iter().fold(Arm::EMPTY, add)
}

/// With the half-life of the monitors' own memory.
fn remember(stable: &mut Arm, seen: Arm) {
    let kept = (-POLL_SECONDS / 600.0).exp2();
    *stable = Arm::new(stable.events * kept + seen.events, stable.requests * kept + seen.requests);
}

pub(super) fn poisson(mean: f64, random: &mut impl Rng) -> f64 {
    Poisson::new(mean).map_or(0.0, |it| it.sample(random))
}

pub(super) fn binomial(requests: f64, rate: f64, random: &mut impl Rng) -> f64 {
    // Whole and from 0 on by construction.
    Binomial::new(requests as u64, rate.clamp(0.0, 1.0)).map_or(0.0, |it| it.sample(random) as f64)
}

/// Failures in clumps whose sizes have mean `mean`.
fn clumps<R: Rng>(
    requests: f64,
    rate: f64,
    mean: f64,
    random: &mut R,
    size: impl Fn(f64, &mut R) -> f64,
) -> f64 {
    let count = poisson(requests * rate / mean, random) as u64;
    (0..count).map(|_| size(mean, random)).sum::<f64>().min(requests)
}

fn geometric(mean: f64, random: &mut impl Rng) -> f64 {
    Geometric::new(1.0 / mean).map_or(1.0, |it| it.sample(random) as f64 + 1.0)
}

fn pareto(_mean: f64, random: &mut impl Rng) -> f64 {
    let uniform: f64 = 1.0 - random.random::<f64>();
    uniform.powf(-1.0 / 1.5).floor().min(PARETO_MAX)
}
