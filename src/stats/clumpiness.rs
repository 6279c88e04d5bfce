//! Do errors come alone or in clumps, and are pods alike?
//!
//! One failing dependency makes twenty errors at once; a test that counts them as twenty independent facts finds harm
//! where there is none. The clumpiness phi says how many errors make one independent fact; evidence is divided by it.
//! It is measured where nothing differs: stable pods play canary against the other stable pods (A/A splits), in history
//! and live. **Never from the real canary**, whose regression would raise phi and hide itself.
//!
//! Estimates by the method of moments; exact is only the division, for independent clumps no larger than phi.
//! Blocks of 1 poll, 1 and 5 minutes catch clumps that last.

use serde::{Deserialize, Serialize};

use super::window::{Arm, Family, Window, clean_seconds};

/// Weight of the assumption "no clumps" in a [`DesignEffect`], as expected events.
pub const PRIOR_WEIGHT: f64 = 10.0;
/// Seconds of stable data before a live estimate may be used.
pub const LIVE_SECONDS_MIN: f64 = 300.0;

const SCALES: usize = 3;
const BLOCK_POLLS_MAX: f64 = 10_000.0;

/// Polls per block for polls of `poll_seconds`: one poll, one minute, five minutes.
pub fn block_polls(poll_seconds: f64) -> [u32; SCALES] {
    let polls = |seconds: f64| {
        let polls = (seconds / poll_seconds).ceil();
        if polls.is_finite() && polls >= 1.0 { polls.min(BLOCK_POLLS_MAX) as u32 } else { 1 }
    };
    [1, polls(60.0), polls(300.0)]
}

/// Clumpiness from A/A splits: the largest, over three block lengths, of squared residuals to expected variance.
///
/// Serves history (all at once) and live use (poll by poll); several splits share one estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesignEffect {
    family: Family,
    block_polls: [u32; SCALES],
    residual: [f64; SCALES],
    variance: [f64; SCALES],
}

/// One A/A split under way: its incomplete blocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    open: [OpenBlock; SCALES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OpenBlock {
    polls: u32,
    sum: Window,
}

impl DesignEffect {
    /// An estimate that starts at `prior` (1: no clumps) with the weight of ten expected events.
    ///
    /// `family` Bernoulli for shares of any size, whose variance is smaller than their mean.
    pub fn new(family: Family, prior: f64, block_polls: [u32; SCALES]) -> Self {
        Self {
            family,
            block_polls: block_polls.map(|polls| polls.max(1)),
            residual: [PRIOR_WEIGHT * prior.max(1.0); SCALES],
            variance: [PRIOR_WEIGHT; SCALES],
        }
    }

    /// Takes in the next poll of a split. Unreadable polls count as empty ones.
    pub fn observe(&mut self, split: &mut Split, window: &Window) {
        let window = window.cleaned();
        for (scale, block) in split.open.iter_mut().enumerate() {
            block.add(&window);
            if block.polls >= self.block_polls[scale] {
                let OpenBlock { sum, .. } = std::mem::take(block);
                self.close(scale, sum.canary, sum.stable);
            }
        }
    }

    /// Takes in a whole split, poll after poll; incomplete last blocks are dropped.
    pub fn add_split(&mut self, windows: &[Window]) {
        let mut split = Split::default();
        windows.iter().for_each(|window| self.observe(&mut split, window));
    }

    /// The clumpiness, at least 1.
    pub fn clumpiness(&self) -> f64 {
        let ratios = self.residual.iter().zip(self.variance);
        ratios.map(|(residual, variance)| residual / variance).fold(1.0, f64::max)
    }

    /// Squared residuals and expected variance per block length, the prior included.
    #[cfg(test)]
    pub(super) fn sums(&self) -> ([f64; SCALES], [f64; SCALES]) {
        (self.residual, self.variance)
    }

    fn close(&mut self, scale: usize, canary: Arm, stable: Arm) {
        let requests = canary.requests + stable.requests;
        if requests <= 0.0 {
            return;
        }
        let events = canary.events + stable.events;
        let share = canary.requests / requests;
        let misses = match self.family {
            Family::Poisson => 1.0,
            Family::Bernoulli => 1.0 - events / requests,
        };
        self.residual[scale] += (canary.events - events * share).powi(2);
        self.variance[scale] += events * share * (1.0 - share) * misses;
    }
}

impl OpenBlock {
    fn add(&mut self, window: &Window) {
        let add = |sum: &mut Arm, arm: Arm| {
            sum.events += arm.events;
            sum.requests += arm.requests;
        };
        add(&mut self.sum.canary, window.canary);
        add(&mut self.sum.stable, window.stable);
        self.polls += 1;
    }
}

/// Each group of `group` neighbouring pods against all other pods of one poll: the polls of that many A/A splits.
///
/// Groups should be as large as the canary. Pods that do not fill a group play on the other side only.
pub fn pod_splits(pods: &[Arm], group: usize, seconds: f64) -> impl Iterator<Item = Window> {
    let add = |sum: Arm, pod: &Arm| Arm::new(sum.events + pod.events, sum.requests + pod.requests);
    let total = pods.iter().fold(Arm::EMPTY, add);
    pods.chunks_exact(group.max(1)).map(move |canary| {
        let canary = canary.iter().fold(Arm::EMPTY, add);
        let stable = Arm::new(total.events - canary.events, total.requests - canary.requests);
        Window::new(canary, stable, seconds)
    })
}

/// Clumpiness of one arm alone, from how much neighbouring polls differ: the fallback without counts per pod.
///
/// Conservative: real variation of the rate looks like clumps too (evidence is often 3 to 10 times slower).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FanoLive {
    family: Family,
    total: Arm,
    previous: Arm,
    differences: f64,
    inverse_requests: f64,
    seconds: f64,
}

impl FanoLive {
    /// A fresh estimate.
    pub fn new(family: Family) -> Self {
        Self { family, ..Self::default() }
    }

    /// Takes in stable's next poll of `seconds`. An unreadable poll counts as empty.
    pub fn observe(&mut self, stable: Arm, seconds: f64) {
        let stable = stable.cleaned().unwrap_or(Arm::EMPTY);
        self.total.events += stable.events;
        self.total.requests += stable.requests;
        if let (Some(rate), Some(previous)) = (stable.rate(), self.previous.rate()) {
            self.differences += (rate - previous).powi(2);
            self.inverse_requests += stable.requests.recip() + self.previous.requests.recip();
        }
        if stable.requests > 0.0 {
            self.seconds += clean_seconds(seconds);
        }
        self.previous = stable;
    }

    /// The clumpiness, once five minutes of stable data exist.
    pub fn clumpiness(&self) -> Option<f64> {
        (self.seconds >= LIVE_SECONDS_MIN).then(|| self.estimate())
    }

    /// The estimate from whatever there is; 1 for no events. At least 1.
    pub fn estimate(&self) -> f64 {
        let Some(rate) = self.total.rate().filter(|rate| *rate > 0.0) else {
            return 1.0;
        };
        let misses = match self.family {
            Family::Poisson => 1.0,
            Family::Bernoulli => 1.0 - rate,
        };
        let expected = rate * misses * self.inverse_requests;
        if expected > 0.0 { (self.differences / expected).max(1.0) } else { 1.0 }
    }
}

/// The estimate of [`FanoLive`] from stable's `polls` in order.
pub fn fano(family: Family, polls: &[Arm]) -> f64 {
    let mut live = FanoLive::new(family);
    polls.iter().for_each(|poll| live.observe(*poll, 0.0));
    live.estimate()
}

/// Variance between pods of the relative rate, from per-pod totals (method of moments), at least 0.
///
/// `None` for fewer than two pods with requests, no events, or unreadable numbers.
pub fn pod_variance(pods: &[Arm]) -> Option<f64> {
    let pods: Option<Vec<Arm>> = pods.iter().map(|pod| pod.cleaned()).collect();
    let pods: Vec<Arm> = pods?.into_iter().filter(|pod| pod.requests > 0.0).collect();
    let events: f64 = pods.iter().map(|pod| pod.events).sum();
    let requests: f64 = pods.iter().map(|pod| pod.requests).sum();
    if pods.len() < 2 || events <= 0.0 {
        return None;
    }
    let expected = |pod: &Arm| pod.requests * events / requests;
    let spread: f64 =
        pods.iter().map(|pod| (pod.events - expected(pod)).powi(2) / expected(pod)).sum();
    let squares: f64 = pods.iter().map(|pod| expected(pod).powi(2)).sum();
    let excess = spread - (pods.len() - 1) as f64;
    Some((excess / (events - squares / events)).max(0.0))
}

/// The smallest limit factor that one unlucky pod cannot break: exp(2.33 tau sqrt(1/canary + 1/stable)).
///
/// No length of observation separates a pod that is unlucky for ever from a bad version; a limit below this factor is
/// worth a warning. `pod_variance` is tau squared; infinite without pods on either side.
pub fn pod_lottery_factor(pod_variance: f64, canary_pods: u32, stable_pods: u32) -> f64 {
    const ONE_IN_A_HUNDRED: f64 = 2.33;
    let pods = f64::from(canary_pods).recip() + f64::from(stable_pods).recip();
    (ONE_IN_A_HUNDRED * (pod_variance * pods).sqrt()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_the_length_of_a_poll() {
        assert_eq!(block_polls(10.0), [1, 6, 30]);
        assert_eq!(block_polls(15.0), [1, 4, 20]);
        assert_eq!(block_polls(7.0), [1, 9, 43]);
        assert_eq!(block_polls(600.0), [1, 1, 1]);
        for odd in [0.0, -1.0, f64::NAN] {
            assert!(block_polls(odd).iter().all(|polls| (1..=10_000).contains(polls)));
        }
    }

    #[test]
    fn live_and_batch_agree_and_unreadable_polls_do_not_matter() {
        let polls: Vec<Window> = (0..90)
            .map(|poll| {
                let events = f64::from(poll % 7);
                Window::new(Arm::new(events, 100.0), Arm::new(3.0 * events, 900.0), 10.0)
            })
            .collect();
        let mut batch = DesignEffect::new(Family::Poisson, 1.0, [1, 6, 30]);
        batch.add_split(&polls);
        let mut live = DesignEffect::new(Family::Poisson, 1.0, [1, 6, 30]);
        let mut split = Split::default();
        for poll in &polls {
            live.observe(&mut split, poll);
            let text = serde_json::to_string(&(&live, &split)).unwrap();
            (live, split) = serde_json::from_str(&text).unwrap();
        }
        assert_eq!(batch, live);
        let before = live.clumpiness();
        live.observe(&mut split, &Window::new(Arm::new(f64::NAN, 1.0), Arm::EMPTY, 10.0));
        assert_eq!(live.clumpiness(), before);
    }

    #[test]
    fn a_live_estimate_waits_five_minutes() {
        let mut live = FanoLive::new(Family::Poisson);
        for poll in 0..30 {
            assert_eq!(live.clumpiness(), None, "poll {poll}");
            live.observe(Arm::new(if poll % 10 == 0 { 60.0 } else { 0.0 }, 1000.0), 10.0);
            live.observe(Arm::EMPTY, 10.0);
            live.observe(Arm::new(f64::NAN, 1000.0), 10.0);
        }
        assert_eq!(live.clumpiness(), Some(1.0), "no two neighbouring polls had data");
        live.observe(Arm::new(60.0, 1000.0), 10.0);
        live.observe(Arm::new(0.0, 1000.0), 10.0);
        assert!(live.estimate() > 3.0);
    }

    #[test]
    fn pods_split_into_groups_and_the_rest() {
        let pods = [Arm::new(1.0, 10.0), Arm::new(2.0, 20.0), Arm::new(3.0, 30.0)];
        let splits: Vec<Window> = pod_splits(&pods, 2, 10.0).collect();
        assert_eq!(splits, [Window::new(Arm::new(3.0, 30.0), Arm::new(3.0, 30.0), 10.0)]);
        assert_eq!(pod_splits(&pods, 1, 10.0).count(), 3);
        assert_eq!(pod_variance(&pods[..1]), None);
        assert_eq!(pod_variance(&pods), Some(0.0));
        assert!((pod_lottery_factor(0.01, 1, 1_000_000) - 1.2624).abs() < 1e-3);
    }
}
