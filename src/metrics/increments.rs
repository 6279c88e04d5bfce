//! What counters gained between polls: exact, per series, from raw samples.
//!
//! Rates are never used: they extrapolate. Each series keeps its last raw sample; what lies between that one and the
//! newer ones is its increment. A counter that fell was reset, and its new value is what it gained. A series seen for
//! the first time only sets its origin, unless it provably appeared since the last poll (its target was scraped then
//! and did not have it, as with the first failure of a healthy process): then it counts from 0. A series without a
//! new sample is left out of every sum of this poll and caught up later.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ports::Series;
use crate::units::{Millis, Timestamp};

/// A series that has not been seen for this long is forgotten.
pub const FORGET_AFTER: Millis = Millis::from_secs(300);

/// Labels that together say which process or target a series came from.
const TARGET_LABELS: [&str; 5] = ["instance", "job", "namespace", "pod", "container"];

/// The counters of one arm: last raw sample per series, and when each target was last seen.
///
/// Small and bounded: as many entries as the arm had series in the last five minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    series: BTreeMap<u64, Point>,
    targets: BTreeMap<u64, Timestamp>,
    newest: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point(Timestamp, f64);

/// What one poll found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advance {
    /// By series key: what it gained. Series without a new sample, and those that only set their origin, are absent.
    pub gained: BTreeMap<u64, f64>,
    /// At least one sample is newer than any before.
    pub fresh: bool,
}

/// Which poll it is, in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The end: newer samples are not looked at.
    pub at: Timestamp,
    /// Samples older than this do not even set an origin (the confirmed weight).
    pub not_before: Timestamp,
    /// The previous poll; `None`: origins are set and nothing is counted.
    pub after: Option<Timestamp>,
    /// How often the source scrapes.
    pub scrape_interval: Millis,
}

impl Window {
    /// A newest sample older than this is stale: two scrape intervals and one second.
    #[must_use]
    pub fn stale_after(&self) -> Millis {
        Millis(self.scrape_interval.0.saturating_mul(2)).plus(Millis::from_secs(1))
    }
}

/// A series' key: stable over restarts, the same for the same labels.
#[must_use]
pub fn series_key(labels: &BTreeMap<String, String>) -> u64 {
    key(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The key without the label `le`: the histogram that a bucket belongs to.
#[must_use]
pub fn histogram_key(labels: &BTreeMap<String, String>) -> u64 {
    let rest = labels.iter().filter(|(name, _)| *name != "le");
    key(rest.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The target; `None` when the labels do not say which process it was.
fn target_key(labels: &BTreeMap<String, String>) -> Option<u64> {
    if !labels.contains_key("instance") && !labels.contains_key("pod") {
        return None;
    }
    Some(key(TARGET_LABELS.iter().filter_map(|&name| Some((name, labels.get(name)?.as_str())))))
}

fn key<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hash = Sha256::new();
    for (name, value) in labels {
        // 0xff stands in no UTF-8 text.
        hash.update(name.as_bytes());
        hash.update([0xff]);
        hash.update(value.as_bytes());
        hash.update([0xff]);
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// How old the newest sample is; the longest time there is without any.
#[must_use]
pub fn sample_age(newest: Option<Timestamp>, now: Timestamp) -> Millis {
    newest.map_or(Millis(u64::MAX), |newest| now.since(newest))
}

impl Counters {
    /// Takes in what the selectors of one arm returned and returns what each series gained.
    ///
    /// `reads`: one list per selector; a series that several return is counted once.
    pub fn advance(&mut self, reads: &[&[Series]], window: &Window) -> Advance {
        let merged = merged(reads, window);
        let resets = histogram_resets(&merged, &self.series);
        let known = self.targets.clone();
        let mut advance = Advance::default();
        for (&id, (labels, samples)) in &merged {
            let Some(&(last_at, last_value)) = samples.last() else { continue };
            let previous = self.series.get(&id).copied();
            let start = previous.or_else(|| appeared(labels, samples, &known, window));
            if window.after.is_some()
                && let Some(Point(from, value)) = start
                && last_at > from
            {
                let group = resets.get(&histogram_key(labels));
                let newer = samples.iter().filter(|(at, _)| *at > from);
                advance.gained.insert(id, gained(value, newer, group));
            }
            if previous.is_none_or(|Point(at, _)| last_at > at) {
                self.series.insert(id, Point(last_at, last_value));
            }
            if let Some(target) = target_key(labels) {
                let seen = self.targets.entry(target).or_insert(last_at);
                *seen = (*seen).max(last_at);
            }
            advance.fresh |= self.newest.is_none_or(|newest| last_at > newest);
        }
        self.newest = self.newest.max(self.series.values().map(|point| point.0).max());
        self.forget(window.at);
        advance
    }

    /// The newest sample ever seen, also after [`reset`](Self::reset).
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// How many series are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Forgets all origins, so that no increment reaches over a change of weights.
    pub fn reset(&mut self) {
        self.series.clear();
        self.targets.clear();
    }

    fn forget(&mut self, now: Timestamp) {
        self.series.retain(|_, point| now.since(point.0) <= FORGET_AFTER);
        self.targets.retain(|_, seen| now.since(*seen) <= FORGET_AFTER);
    }
}

/// Where a new series starts: at 0, just before its first sample, if its target was there before without it.
fn appeared(
    labels: &BTreeMap<String, String>,
    samples: &[(Timestamp, f64)],
    known: &BTreeMap<u64, Timestamp>,
    window: &Window,
) -> Option<Point> {
    let seen = *known.get(&target_key(labels)?)?;
    let first = samples.first()?.0;
    let alive = window.after?.minus(window.stale_after());
    (seen < first && seen >= alive).then(|| Point(Timestamp(first.0.saturating_sub(1)), 0.0))
}

type Merged<'a> = BTreeMap<u64, (&'a BTreeMap<String, String>, Vec<(Timestamp, f64)>)>;

/// The series of all reads, each once, with the finite samples that may be looked at.
fn merged<'a>(reads: &[&'a [Series]], window: &Window) -> Merged<'a> {
    let horizons = horizons(reads, window);
    let mut all: Merged<'a> = BTreeMap::new();
    for series in reads.iter().copied().flatten() {
        let target = target_key(&series.labels);
        let until = target.and_then(|target| horizons.get(&target)).copied().unwrap_or(window.at);
        let usable = |at: Timestamp| at >= window.not_before && at <= until.min(window.at);
        let entry = all.entry(series_key(&series.labels)).or_insert((&series.labels, Vec::new()));
        let finite = series.samples.iter().filter(|(at, value)| usable(*at) && value.is_finite());
        entry.1.extend(finite);
    }
    for (_, samples) in all.values_mut() {
        samples.sort_by_key(|(at, _)| *at);
        samples.dedup_by_key(|(at, _)| *at);
    }
    all
}

/// Per target the newest instant that every selector has reached: one query may have seen a scrape that an earlier one
/// had not. A selector that is further behind than one and a half intervals has lost its series and is not waited for.
fn horizons(reads: &[&[Series]], window: &Window) -> BTreeMap<u64, Timestamp> {
    let mut reached: BTreeMap<u64, BTreeSet<Timestamp>> = BTreeMap::new();
    for read in reads {
        let mut newest: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for series in *read {
            let last = series.samples.iter().rev().map(|(at, _)| *at).find(|at| *at <= window.at);
            if let (Some(target), Some(last)) = (target_key(&series.labels), last) {
                let seen = newest.entry(target).or_insert(last);
                *seen = (*seen).max(last);
            }
        }
        newest.into_iter().for_each(|(target, at)| {
            reached.entry(target).or_default().insert(at);
        });
    }
    let patience = Millis(window.scrape_interval.0.saturating_mul(3) / 2);
    let common = |instants: &BTreeSet<Timestamp>| {
        let latest = *instants.last()?;
        instants.iter().copied().find(|at| latest.since(*at) <= patience)
    };
    reached.iter().filter_map(|(target, instants)| Some((*target, common(instants)?))).collect()
}

/// Instants at which a histogram was reset: when one bucket fell, all of them started again.
fn histogram_resets(
    merged: &Merged<'_>,
    known: &BTreeMap<u64, Point>,
) -> BTreeMap<u64, BTreeSet<Timestamp>> {
    let mut resets: BTreeMap<u64, BTreeSet<Timestamp>> = BTreeMap::new();
    for (id, (labels, samples)) in
        merged.iter().filter(|(_, (labels, _))| labels.contains_key("le"))
    {
        let mut last = known.get(id).copied();
        for &(at, value) in samples {
            if last.is_some_and(|Point(before, high)| at > before && value < high) {
                resets.entry(histogram_key(labels)).or_default().insert(at);
            }
            last = Some(Point(at, value));
        }
    }
    resets
}

/// The sum of what lies between successive samples; a fall, or a known reset, counts the new value whole.
fn gained<'a>(
    start: f64,
    samples: impl Iterator<Item = &'a (Timestamp, f64)>,
    resets: Option<&BTreeSet<Timestamp>>,
) -> f64 {
    let mut last = start;
    let mut sum = 0.0;
    for &(at, value) in samples {
        let reset = value < last || resets.is_some_and(|resets| resets.contains(&at));
        sum += if reset { value } else { value - last };
        last = value;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(u64, f64)]) -> Series {
        Series {
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            samples: samples.iter().map(|(at, value)| (Timestamp(*at), *value)).collect(),
        }
    }

    fn window(after: Option<u64>, at: u64) -> Window {
        Window {
            at: Timestamp(at),
            not_before: Timestamp(0),
            after: after.map(Timestamp),
            scrape_interval: Millis::from_secs(1),
        }
    }

    /// What all series together gained, poll by poll, starting with the one that sets origins.
    fn walk(polls: &[(u64, Vec<Series>)]) -> Vec<Vec<f64>> {
        let mut counters = Counters::default();
        let mut after = None;
        polls
            .iter()
            .map(|(at, reads)| {
                let advance = counters.advance(&[reads], &window(after, *at));
                after = Some(*at);
                advance.gained.into_values().collect()
            })
            .collect()
    }

    const POD: &[(&str, &str)] = &[("instance", "a"), ("code", "200")];

    #[test]
    fn the_first_poll_sets_origins_and_later_ones_count_what_was_gained() {
        let found = walk(&[
            (1_000, vec![series(POD, &[(500, 100.0), (1_000, 110.0)])]),
            (2_000, vec![series(POD, &[(1_000, 110.0), (2_000, 125.0)])]),
        ]);
        assert_eq!(found, [vec![], vec![15.0]]);
    }

    #[test]
    fn every_reset_between_two_raw_samples_is_seen() {
        let found = walk(&[
            (1_000, vec![series(POD, &[(1_000, 100.0)])]),
            (4_000, vec![series(POD, &[(2_000, 5.0), (3_000, 2.0), (4_000, 9.0)])]),
        ]);
        assert_eq!(found[1], [5.0 + 2.0 + 7.0]);
    }

    #[test]
    fn a_missing_sample_leaves_the_series_out_and_is_caught_up() {
        let other = &[("instance", "b"), ("code", "200")];
        let both = |at, a, b| vec![series(POD, &[(at, a)]), series(other, &[(at, b)])];
        let found = walk(&[
            (1_000, both(1_000, 10.0, 20.0)),
            (2_000, vec![series(other, &[(2_000, 25.0)])]),
            (3_000, both(3_000, 16.0, 26.0)),
        ]);
        assert_eq!(found[1], [5.0]);
        let mut third = found[2].clone();
        third.sort_by(f64::total_cmp);
        assert_eq!(third, [1.0, 6.0]);
    }

    #[test]
    fn the_first_failure_of_a_living_target_counts_from_zero() {
        let failure = &[("instance", "a"), ("code", "500")];
        let found = walk(&[
            (1_000, vec![series(POD, &[(1_000, 10.0)])]),
            (2_000, vec![series(POD, &[(2_000, 12.0)]), series(failure, &[(2_000, 3.0)])]),
        ]);
        assert_eq!(found[1].iter().sum::<f64>(), 5.0);
    }

    #[test]
    fn a_new_target_only_sets_its_origin() {
        let other = &[("instance", "b"), ("code", "200")];
        let unnamed = &[("code", "500")];
        let found = walk(&[
            (1_000, vec![series(POD, &[(1_000, 10.0)])]),
            (2_000, vec![series(other, &[(2_000, 999.0)]), series(unnamed, &[(2_000, 7.0)])]),
        ]);
        assert!(found[1].is_empty(), "{found:?}");
    }

    #[test]
    fn a_series_that_two_selectors_return_counts_once_and_to_the_same_instant() {
        let mut counters = Counters::default();
        let first = [series(POD, &[(1_000, 10.0)])];
        counters.advance(&[&first, &first], &window(None, 1_000));
        let early = [series(POD, &[(1_000, 10.0)])];
        let late = [series(POD, &[(1_000, 10.0), (2_000, 14.0)])];
        let waiting = counters.advance(&[&early, &late], &window(Some(1_000), 2_000));
        assert_eq!(waiting, Advance::default());
        let found = counters.advance(&[&late, &late], &window(Some(2_000), 2_500));
        assert_eq!(found.gained.into_values().collect::<Vec<_>>(), [4.0]);
    }

    #[test]
    fn one_bucket_that_fell_resets_the_whole_histogram() {
        let bucket =
            |le: &str, samples: &[(u64, f64)]| series(&[("instance", "a"), ("le", le)], samples);
        let found = walk(&[
            (1_000, vec![bucket("0.1", &[(1_000, 5.0)]), bucket("+Inf", &[(1_000, 50.0)])]),
            (2_000, vec![bucket("0.1", &[(2_000, 7.0)]), bucket("+Inf", &[(2_000, 8.0)])]),
        ]);
        assert_eq!(found[1].iter().sum::<f64>(), 15.0);
    }

    #[test]
    fn samples_from_before_the_confirmed_weight_set_no_origin() {
        let mut counters = Counters::default();
        let strict = Window { not_before: Timestamp(1_500), ..window(None, 2_000) };
        let advance = counters.advance(&[&[series(POD, &[(1_000, 10.0)])]], &strict);
        assert!(counters.is_empty() && !advance.fresh);
    }

    #[test]
    fn a_reset_of_origins_keeps_windows_apart() {
        let mut counters = Counters::default();
        counters.advance(&[&[series(POD, &[(1_000, 10.0)])]], &window(None, 1_000));
        counters.reset();
        let advance =
            counters.advance(&[&[series(POD, &[(2_000, 90.0)])]], &window(Some(1_000), 2_000));
        assert!(advance.gained.is_empty());
        assert_eq!(counters.newest(), Some(Timestamp(2_000)));
    }

    #[test]
    fn what_is_long_gone_is_forgotten_and_the_rest_outlives_a_restart() {
        let mut counters = Counters::default();
        counters.advance(&[&[series(POD, &[(1_000, 10.0)])]], &window(None, 1_000));
        let text = serde_json::to_string(&counters).unwrap();
        assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), counters);
        counters.advance(&[&[]], &window(Some(1_000), 302_000));
        assert!(counters.is_empty());
    }
}
