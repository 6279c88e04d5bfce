//! What the answers mean. Pure.

use std::collections::BTreeSet;

use super::LookContext;
use super::fetch::{Both, Fetched, SumKind};
use super::histogram::{self, Buckets};
use super::memory::{ArmMemory, Memory};
use crate::engine::poll::{Arm, DarkArm, Measured, MissingReason};
use crate::metrics::increments::{sample_age, series_key};
use crate::ports::{Increase, Series};
use crate::units::{Timestamp, Weight, shown};

/// What one arm yielded.
enum State<T> {
    /// It has no weight and does not count; whether it has samples.
    Idle { alive: bool },
    /// No data, and why.
    Dark(MissingReason),
    /// No sample since the last look, but not yet stale.
    Unchanged,
    /// New samples.
    Counted(T),
}

pub(super) fn digest(memory: &mut Memory, fetched: Fetched, context: &LookContext<'_>) -> Measured {
    let found = match fetched {
        Fetched::Failed(what) => Err(what),
        Fetched::NotDue => Ok(Measured::NotDue),
        Fetched::Answer(answer) => {
            memory.asked = Some(context.at);
            Ok(Measured::Check { held: answer.held, detail: answer.detail })
        }
        Fetched::Values(values) => {
            memory.asked = Some(context.at);
            Ok(boolean(&values))
        }
        Fetched::Gauge(arms) => gauge(memory, arms, context),
        Fetched::Proportion { arms, part_is_good } => {
            proportion(memory, &arms, part_is_good, context)
        }
        Fetched::Buckets(arms) => buckets(memory, &arms, context),
        Fetched::Sums { shared: true, .. } => Err(SHARED.to_owned()),
        Fetched::Sums { arms, kind, end, first, .. } => {
            memory.summed = Some(end);
            sums(memory, arms, kind, first, context)
        }
    };
    found.unwrap_or_else(Measured::SourceError)
}

const SHARED: &str =
    "a series belongs to both arms: the selector lacks a variable that tells them apart";

fn boolean(values: &[Series]) -> Measured {
    let last = |series: &Series| series.samples.last().map(|(_, value)| *value);
    let numbers: Vec<f64> = values.iter().filter_map(last).collect();
    if numbers.iter().any(|value| value.is_nan()) {
        return Measured::Missing { arm: DarkArm::Both, why: MissingReason::NotANumber };
    }
    let held = !numbers.is_empty() && numbers.iter().all(|value| *value != 0.0);
    let detail = match numbers.as_slice() {
        [] => "no value".to_owned(),
        [one] => format!("value {one}"),
        [first, ..] => format!("{} values, the first {first}", numbers.len()),
    };
    Measured::Check { held, detail }
}

fn newest<'a>(series: impl Iterator<Item = &'a Series>) -> Option<Timestamp> {
    series.filter_map(|series| series.samples.last()).map(|(at, _)| *at).max()
}

/// Whether the arm is dark, unchanged or has something new; `NaN` and infinity are no numbers.
fn arm_state(
    memory: &mut ArmMemory,
    reads: Option<&[Vec<Series>]>,
    weighted: bool,
    context: &LookContext<'_>,
) -> State<()> {
    let newest = reads.and_then(|reads| newest(reads.first()?.iter()));
    let alive = sample_age(newest, context.at) <= context.window().stale_after();
    if !weighted {
        return State::Idle { alive };
    }
    let fresh = memory.saw(newest);
    if !alive {
        let known =
            sample_age(memory.newest, context.at) <= crate::metrics::increments::FORGET_AFTER;
        return State::Dark(if known { MissingReason::Stale } else { MissingReason::NoSeries });
    }
    let odd = |series: &Series| series.samples.last().is_some_and(|(_, value)| !value.is_finite());
    if reads.is_some_and(|reads| reads.iter().flatten().any(odd)) {
        return State::Dark(MissingReason::NotANumber);
    }
    if fresh { State::Counted(()) } else { State::Unchanged }
}

/// Both arms' states into what is reported when nothing can be counted; the counted ones otherwise.
fn combine<T>(canary: State<T>, stable: State<T>) -> Result<(Option<T>, Option<T>), Measured> {
    let missing = |arm, why| Err(Measured::Missing { arm, why });
    match (canary, stable) {
        (State::Dark(why), State::Dark(_) | State::Idle { alive: false }) => {
            missing(DarkArm::Both, why)
        }
        (State::Idle { alive: false }, State::Dark(why)) => missing(DarkArm::Both, why),
        (State::Dark(why), _) => missing(DarkArm::Canary, why),
        (_, State::Dark(why)) => missing(DarkArm::Stable, why),
        (State::Counted(canary), State::Counted(stable)) => Ok((Some(canary), Some(stable))),
        (State::Counted(canary), _) => Ok((Some(canary), None)),
        (_, State::Counted(stable)) => Ok((None, Some(stable))),
        _ => Err(Measured::NotDue),
    }
}

fn weighted(context: &LookContext<'_>) -> (bool, bool) {
    (!context.reach.is_none(), context.reach.weight != Weight::FULL)
}

fn states(
    memory: &mut Memory,
    arms: &Both<Vec<Vec<Series>>>,
    context: &LookContext<'_>,
) -> Result<(State<()>, State<()>), String> {
    if let (Some(canary), Some(stable)) = (&arms.canary, &arms.stable) {
        let keys: BTreeSet<u64> =
            canary.iter().flatten().map(|series| series_key(&series.labels)).collect();
        if stable.iter().flatten().any(|series| keys.contains(&series_key(&series.labels))) {
            return Err(SHARED.to_owned());
        }
    }
    let all = arms.canary.iter().chain(&arms.stable).flatten().flatten();
    if all.flat_map(|series| &series.samples).any(|(_, value)| *value < 0.0) {
        return Err("a negative sample: the selector does not name a counter".to_owned());
    }
    let (canary, stable) = weighted(context);
    Ok((
        arm_state(&mut memory.canary, arms.canary.as_deref(), canary, context),
        arm_state(&mut memory.stable, arms.stable.as_deref(), stable, context),
    ))
}

fn proportion(
    memory: &mut Memory,
    arms: &Both<Vec<Vec<Series>>>,
    part_is_good: bool,
    context: &LookContext<'_>,
) -> Result<Measured, String> {
    let (canary, stable) = states(memory, arms, context)?;
    let count = |memory: &mut ArmMemory, reads: &Option<Vec<Vec<Series>>>, state: State<()>| {
        map(state, || {
            arm_counts(memory, reads.as_deref().unwrap_or_default(), part_is_good, context)
        })
    };
    let canary = count(&mut memory.canary, &arms.canary, canary);
    let stable = count(&mut memory.stable, &arms.stable, stable);
    Ok(counts(memory, canary, stable, context))
}

fn map<T>(state: State<()>, count: impl FnOnce() -> T) -> State<T> {
    match state {
        State::Counted(()) => State::Counted(count()),
        State::Idle { alive } => State::Idle { alive },
        State::Dark(why) => State::Dark(why),
        State::Unchanged => State::Unchanged,
    }
}

fn arm_counts(
    memory: &mut ArmMemory,
    reads: &[Vec<Series>],
    part_is_good: bool,
    context: &LookContext<'_>,
) -> Arm {
    let slices: Vec<&[Series]> = reads.iter().map(Vec::as_slice).collect();
    let advance = memory.counters.advance(&slices, &context.window());
    let sum = |index: usize| -> f64 {
        let keys: BTreeSet<u64> =
            reads.get(index).into_iter().flatten().map(|one| series_key(&one.labels)).collect();
        keys.iter().filter_map(|key| advance.gained.get(key)).sum()
    };
    arm_of(sum(0), sum(1), part_is_good)
}

/// An arm from its totals: never more bad (or good) events than events.
fn arm_of(total: f64, part: f64, part_is_good: bool) -> Arm {
    let part = part.clamp(0.0, total);
    Arm { bad: if part_is_good { total - part } else { part }, total }
}

fn counts(
    memory: &mut Memory,
    canary: State<Arm>,
    stable: State<Arm>,
    context: &LookContext<'_>,
) -> Measured {
    let (canary, stable) = match combine(canary, stable) {
        Ok(arms) => arms,
        Err(other) => return other,
    };
    if context.after.is_none() {
        return Measured::NotDue;
    }
    let total = |arm: Option<Arm>| arm.map(|arm| arm.total);
    if let Some(silent) = traffic(memory, total(canary), total(stable), context) {
        return silent;
    }
    Measured::Counts { canary: canary.unwrap_or_default(), stable: stable.unwrap_or_default() }
}

/// What is reported instead of zeros once an arm must be taken for one without traffic.
fn traffic(
    memory: &mut Memory,
    canary: Option<f64>,
    stable: Option<f64>,
    context: &LookContext<'_>,
) -> Option<Measured> {
    let share = context.reach.canary_fraction();
    let (has_canary, has_stable) = weighted(context);
    let likely = |other: Option<f64>, own: f64| {
        if own < 1.0 { other.unwrap_or(0.0) * own / (1.0 - own) } else { 0.0 }
    };
    let silent = |memory: &mut ArmMemory, own: Option<f64>, likely: f64| {
        own.is_some_and(|own| memory.is_silent(own, likely, context))
    };
    let canary_silent = has_canary && silent(&mut memory.canary, canary, likely(stable, share));
    let stable_silent =
        has_stable && silent(&mut memory.stable, stable, likely(canary, 1.0 - share));
    let arm = match (canary_silent, stable_silent) {
        (true, true) => DarkArm::Both,
        // Without anything concurrent it is not known whose fault the silence is.
        (true, false) if !has_stable => DarkArm::Both,
        (false, true) if !has_canary => DarkArm::Both,
        (true, false) => DarkArm::Canary,
        (false, true) => DarkArm::Stable,
        (false, false) => return None,
    };
    Some(Measured::Missing { arm, why: MissingReason::NoTraffic })
}

fn buckets(
    memory: &mut Memory,
    arms: &Both<Vec<Vec<Series>>>,
    context: &LookContext<'_>,
) -> Result<Measured, String> {
    let (canary, stable) = states(memory, arms, context)?;
    let count = |memory: &mut ArmMemory, reads: &Option<Vec<Vec<Series>>>, state| {
        let Some(read) = reads.as_ref().and_then(|reads| reads.first()) else {
            return Ok(map(state, Buckets::default));
        };
        let mut outcome = Ok(());
        let counted = map(state, || {
            let advance = memory.counters.advance(&[read], &context.window());
            histogram::arm(read, &advance.gained).unwrap_or_else(|what| {
                outcome = Err(what);
                Buckets::default()
            })
        });
        outcome.map(|()| counted)
    };
    let canary = count(&mut memory.canary, &arms.canary, canary)?;
    let stable = count(&mut memory.stable, &arms.stable, stable)?;
    histograms(memory, canary, stable, context)
}

fn histograms(
    memory: &mut Memory,
    canary: State<Buckets>,
    stable: State<Buckets>,
    context: &LookContext<'_>,
) -> Result<Measured, String> {
    let (canary, stable) = match combine(canary, stable) {
        Ok(arms) => arms,
        Err(other) => return Ok(other),
    };
    if context.after.is_none() {
        return Ok(Measured::NotDue);
    }
    let total = |arm: &Option<Buckets>| arm.as_ref().map(|arm| arm.total);
    if let Some(silent) = traffic(memory, total(&canary), total(&stable), context) {
        return Ok(silent);
    }
    histogram::measured(canary, stable)
}

fn sums(
    memory: &mut Memory,
    arms: Both<Vec<Increase>>,
    kind: SumKind,
    first: bool,
    context: &LookContext<'_>,
) -> Result<Measured, String> {
    let (canary, stable) = weighted(context);
    let state = |memory: &mut ArmMemory, reads: &Option<Vec<Increase>>, weighted: bool| {
        let newest = reads.as_ref().and_then(|reads| reads.first()?.newest);
        let fetched = newest
            .map(|at| vec![vec![Series { labels: Default::default(), samples: vec![(at, 0.0)] }]]);
        arm_state(memory, fetched.as_deref(), weighted, context)
    };
    let canary = state(&mut memory.canary, &arms.canary, canary);
    let stable = state(&mut memory.stable, &arms.stable, stable);
    let sum = |reads: &Option<Vec<Increase>>, index: usize| -> f64 {
        let read = reads.as_ref().and_then(|reads| reads.get(index));
        read.map_or(0.0, |read| read.sums.values().sum())
    };
    let context = &LookContext { after: context.after.filter(|_| !first), ..context.clone() };
    match kind {
        SumKind::Proportion { part_is_good } => {
            let arm = |reads| arm_of(sum(reads, 0), sum(reads, 1), part_is_good);
            let canary = map(canary, || arm(&arms.canary));
            let stable = map(stable, || arm(&arms.stable));
            Ok(counts(memory, canary, stable, context))
        }
        SumKind::Buckets => {
            let arm = |reads: Option<Vec<Increase>>| {
                let sums = reads.and_then(|reads| reads.into_iter().next()).unwrap_or_default();
                Buckets::from_sums(&sums.sums)
            };
            let (canary_sums, stable_sums) = (arm(arms.canary)?, arm(arms.stable)?);
            let canary = map(canary, || canary_sums);
            let stable = map(stable, || stable_sums);
            histograms(memory, canary, stable, context)
        }
    }
}

fn gauge(
    memory: &mut Memory,
    arms: Both<(Vec<Series>, Vec<Series>)>,
    context: &LookContext<'_>,
) -> Result<Measured, String> {
    let (canary, stable) = weighted(context);
    let canary = gauge_arm(&mut memory.canary, arms.canary, canary, context)?;
    let stable = gauge_arm(&mut memory.stable, arms.stable, stable, context)?;
    let (canary, stable) = match combine(canary, stable) {
        Ok(arms) => arms,
        Err(other) => return Ok(other),
    };
    if context.after.is_none() {
        return Ok(Measured::NotDue);
    }
    Ok(Measured::Gauge { canary, stable })
}

fn gauge_arm(
    memory: &mut ArmMemory,
    found: Option<(Vec<Series>, Vec<Series>)>,
    weighted: bool,
    context: &LookContext<'_>,
) -> Result<State<f64>, String> {
    let (values, inputs) = found.unwrap_or_default();
    let reads = vec![inputs];
    let state = arm_state(memory, Some(&reads), weighted, context);
    if !weighted {
        return Ok(map(state, || 0.0));
    }
    if let [first, second, ..] = values.as_slice() {
        let name = |series: &Series| shown(&format!("{:?}", series.labels));
        return Err(format!(
            "several values where one is expected: {}, {}",
            name(first),
            name(second)
        ));
    }
    let value = values.first().and_then(|one| one.samples.last()).map(|(_, value)| *value);
    Ok(match (state, value) {
        (State::Dark(why), _) => State::Dark(why),
        (_, None) => State::Dark(MissingReason::NoSeries),
        (_, Some(value)) if !value.is_finite() => State::Dark(MissingReason::NotANumber),
        (state, Some(value)) => map(state, || value),
    })
}
