//! The rules that are held side by side: those of other tools, as they are documented, and ours.

use statrs::function::gamma::ln_gamma;

use super::counts::{Drawn, POLL_SECONDS, POLLS};
use super::rank;
use crate::stats::{Arm, Conditions, CountMonitor, Family, Levels, Limit, Window};

/// Polls in a minute.
pub(super) const MINUTE: usize = 6;
/// ln(1 / 1 %).
pub(super) const LOG_BAD: f64 = 4.605_170_185_988_092;
/// ln(1 / 5 %).
pub(super) const LOG_OK: f64 = 2.995_732_273_553_991;
/// Two-sided 95 %.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// A rule that may call a rollout back, or prove it, at some poll.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The canary's success rate of a minute is at least 99 %; so many failed minutes are allowed (Argo Rollouts,
    /// Flagger).
    Threshold(usize),
    /// A rank test over minutes with a growing window, every minute from the fifth on (Kayenta).
    RankEachMinute,
    /// The same, once, at the end.
    RankAtEnd,
    /// A two-proportion z-test over everything so far, after every poll from 100 canary requests on.
    RepeatedZ,
    /// A mixture for a constant, known share (Lindon and Malek).
    ShareMixture,
    /// Ours: worse than this margin.
    Worse(f64),
    /// Ours: worse than this margin, without clumpiness and quorum.
    WorseRaw(f64),
    /// Ours: proven within this margin.
    Within(f64),
    /// Ours: the canary alone against an absolute limit.
    Above(f64),
}

impl Rule {
    /// For the head of a column.
    #[must_use]
    pub fn name(self) -> String {
        let margin = |margin: f64| {
            if margin > 0.0 { format!("{:.1} pt", margin * 100.0) } else { "any".to_owned() }
        };
        match self {
            Self::Threshold(allowed) => format!("threshold, {allowed} allowed"),
            Self::RankEachMinute => "rank test, each minute".to_owned(),
            Self::RankAtEnd => "rank test, at the end".to_owned(),
            Self::RepeatedZ => "repeated z-test".to_owned(),
            Self::ShareMixture => "share mixture".to_owned(),
            Self::Worse(limit) => format!("tidegate, {}", margin(limit)),
            Self::WorseRaw(limit) => format!("tidegate raw, {}", margin(limit)),
            Self::Within(limit) => format!("tidegate proof, {}", margin(limit)),
            Self::Above(limit) => format!("tidegate, above {:.1} %", limit * 100.0),
        }
    }

    /// One of ours, with all safeguards.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Worse(_) | Self::Within(_) | Self::Above(_))
    }

    /// The first poll (from 0) after which the rule says so, no earlier than `from`.
    ///
    /// A rule that looks at everything so far starts with the first poll all the same; what it says before `from` does
    /// not count.
    #[must_use]
    pub fn first(self, drawn: &Drawn, from: usize) -> Option<usize> {
        let polls = &drawn.polls;
        match self {
            Self::Threshold(allowed) => threshold(polls, allowed),
            Self::RankEachMinute => rank_from(polls, 5),
            Self::RankAtEnd => rank_from(polls, POLLS / MINUTE),
            Self::RepeatedZ => repeated_z(polls),
            Self::ShareMixture => share_mixture(polls, drawn.share),
            Self::Worse(margin) => monitor(drawn, Limit::new(1.0, margin), false, worse),
            Self::WorseRaw(margin) => monitor(drawn, Limit::new(1.0, margin), true, worse),
            Self::Within(margin) => monitor(drawn, Limit::new(1.0, margin), false, within),
            Self::Above(limit) => monitor(drawn, Limit::absolute(limit), false, worse),
        }
        .filter(|poll| *poll >= from)
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.name()
    }
}

fn sum(polls: &[Window], arm: impl Fn(&Window) -> Arm) -> Arm {
    polls
        .iter()
        .map(arm)
        .fold(Arm::EMPTY, |sum, arm| Arm::new(sum.events + arm.events, sum.requests + arm.requests))
}

fn threshold(polls: &[Window], allowed: usize) -> Option<usize> {
    let minutes = polls.chunks(MINUTE).enumerate();
    let failed = minutes.filter(|(_, minute)| {
        let canary = sum(minute, |poll| poll.canary);
        canary.requests > 0.0 && 1.0 - canary.events / canary.requests < 0.99
    });
    failed.map(|(minute, _)| minute * MINUTE + MINUTE - 1).nth(allowed)
}

fn rank_from(polls: &[Window], first_minute: usize) -> Option<usize> {
    let percent = |arm: fn(&Window) -> Arm| -> Vec<f64> {
        let minutes = polls.chunks(MINUTE).map(|minute| sum(minute, arm).rate().unwrap_or(0.0));
        minutes.map(|rate| rate * 100.0).collect()
    };
    let (canary, stable) = (percent(|poll| poll.canary), percent(|poll| poll.stable));
    let minute = (first_minute..=canary.len())
        .find(|minutes| rank::is_high(&canary[..*minutes], &stable[..*minutes]))?;
    Some(minute * MINUTE - 1)
}

fn repeated_z(polls: &[Window]) -> Option<usize> {
    let (mut canary, mut stable) = (Arm::EMPTY, Arm::EMPTY);
    polls.iter().position(|poll| {
        canary =
            Arm::new(canary.events + poll.canary.events, canary.requests + poll.canary.requests);
        stable =
            Arm::new(stable.events + poll.stable.events, stable.requests + poll.stable.requests);
        let events = canary.events + stable.events;
        if canary.requests < 100.0 || events == 0.0 {
            return false;
        }
        let rate = events / (canary.requests + stable.requests);
        let spread = rate * (1.0 - rate) * (1.0 / canary.requests + 1.0 / stable.requests);
        let apart = canary.events / canary.requests - stable.events / stable.requests;
        apart / spread.sqrt() > Z
    })
}

fn share_mixture(polls: &[Window], share: f64) -> Option<usize> {
    const WEIGHT: f64 = 100.0;
    let (mut canary, mut stable) = (0.0, 0.0);
    polls.iter().position(|poll| {
        canary += poll.canary.events;
        stable += poll.stable.events;
        let all = canary + stable;
        let part = |events: f64, share: f64| {
            ln_gamma(WEIGHT * share + events) - ln_gamma(WEIGHT * share) - events * share.ln()
        };
        let log = ln_gamma(WEIGHT) - ln_gamma(WEIGHT + all)
            + part(canary, share)
            + part(stable, 1.0 - share);
        log >= LOG_BAD && canary > all * share
    })
}

fn worse(monitor: &CountMonitor) -> bool {
    monitor.log_bad() >= LOG_BAD
}

fn within(monitor: &CountMonitor) -> bool {
    monitor.log_ok() >= LOG_OK
}

/// The product's own monitor, as the judge feeds it.
fn monitor(
    drawn: &Drawn,
    limit: Limit,
    is_raw: bool,
    says: impl Fn(&CountMonitor) -> bool,
) -> Option<usize> {
    let mut monitor = CountMonitor::new(Family::Poisson, limit, Levels::default());
    monitor.preload(drawn.known.stable);
    let conditions = if is_raw {
        // A quorum this small asks nothing of any poll.
        Conditions { quorum: 1e-9, ..Conditions::with_history(1.0) }
    } else {
        Conditions::with_history(drawn.known.clumpiness)
    };
    drawn.polls.iter().enumerate().position(|(index, poll)| {
        if index > 0 && drawn.steps.contains(&index) {
            monitor.traffic_step();
        }
        let window =
            if limit.factor > 0.0 { *poll } else { Window::one_sample(poll.canary, POLL_SECONDS) };
        monitor.update(&window, &conditions);
        says(&monitor)
    })
}
