//! Buckets of one arm out of the series of its processes. Pure.

use std::collections::BTreeMap;

use crate::engine::poll::{ArmHistogram, Measured};
use crate::metrics::increments::{histogram_key, series_key};
use crate::ports::Series;

/// Requests by upper bound, cumulative, and all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Buckets {
    /// Finite bounds ascending, with the requests at or below each.
    pub cumulative: Vec<(f64, f64)>,
    pub total: f64,
    /// Nothing was counted yet, so that the layout is not known.
    pub is_empty: bool,
}

impl Buckets {
    /// From sums by the text of `le`.
    pub(super) fn from_sums(sums: &BTreeMap<String, f64>) -> Result<Self, String> {
        let mut layout = BTreeMap::new();
        for (text, amount) in sums {
            layout.insert(Bound(bound(text)?), *amount);
        }
        Self::from_layout(layout)
    }

    fn from_layout(mut layout: BTreeMap<Bound, f64>) -> Result<Self, String> {
        if layout.is_empty() {
            return Ok(Self { is_empty: true, ..Self::default() });
        }
        let total = layout
            .remove(&Bound(f64::INFINITY))
            .ok_or("no bucket le=\"+Inf\": the selector does not return whole histograms")?;
        let mut reached = 0.0_f64;
        let mut cumulative = Vec::new();
        for (Bound(bound), amount) in layout {
            reached = reached.max(amount.min(total));
            cumulative.push((bound, reached));
        }
        Ok(Self { cumulative, total, is_empty: false })
    }

    fn at(&self, wanted: f64) -> Option<f64> {
        self.cumulative.iter().find(|(bound, _)| *bound == wanted).map(|(_, amount)| *amount)
    }
}

/// A bound in order of size; never NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

fn bound(text: &str) -> Result<f64, String> {
    let parsed: Option<f64> = text.parse().ok();
    parsed.filter(|bound| !bound.is_nan()).ok_or_else(|| {
        "a series without a usable label `le`: the selector does not name buckets".to_owned()
    })
}

/// One arm's buckets: a histogram with a sample missing is left out whole; of several layouts the common bounds stay.
pub(super) fn arm(read: &[Series], gained: &BTreeMap<u64, f64>) -> Result<Buckets, String> {
    let mut histograms: BTreeMap<u64, Option<BTreeMap<Bound, f64>>> = BTreeMap::new();
    for series in read {
        let bound = Bound(bound(series.labels.get("le").map_or("", String::as_str))?);
        let layout = histograms
            .entry(histogram_key(&series.labels))
            .or_insert_with(|| Some(BTreeMap::new()));
        match (gained.get(&series_key(&series.labels)), layout.as_mut()) {
            (Some(amount), Some(layout)) => {
                layout.insert(bound, *amount);
            }
            _ => *layout = None,
        }
    }
    let mut sum: Option<BTreeMap<Bound, f64>> = None;
    for layout in histograms.into_values().flatten() {
        sum = Some(match sum {
            None => layout,
            Some(sum) => sum
                .into_iter()
                .filter_map(|(bound, amount)| Some((bound, amount + layout.get(&bound)?)))
                .collect(),
        });
    }
    Buckets::from_layout(sum.unwrap_or_default())
}

/// Both arms over the bounds that they share; fewer than two are an error.
pub(super) fn measured(
    canary: Option<Buckets>,
    stable: Option<Buckets>,
) -> Result<Measured, String> {
    let known = [&canary, &stable].into_iter().flatten().filter(|arm| !arm.is_empty);
    let known: Vec<&Buckets> = known.collect();
    let Some(first) = known.first() else { return Ok(Measured::NotDue) };
    let shared = |bound: &f64| known.iter().all(|arm| arm.at(*bound).is_some());
    let bounds: Vec<f64> =
        first.cumulative.iter().map(|(bound, _)| *bound).filter(shared).collect();
    if bounds.len() < 2 {
        return Err(format!(
            "the arms share {} bucket bounds, at least 2 are needed",
            bounds.len()
        ));
    }
    let over = |arm: Option<Buckets>| {
        let arm = arm.unwrap_or_default();
        let cumulative = bounds.iter().map(|bound| arm.at(*bound).unwrap_or(0.0)).collect();
        ArmHistogram { cumulative, total: arm.total }
    };
    Ok(Measured::Histogram { canary: over(canary), stable: over(stable), bounds: bounds.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(pairs: &[(&str, f64)]) -> Buckets {
        let sums = pairs.iter().map(|(le, n)| ((*le).to_owned(), *n)).collect();
        Buckets::from_sums(&sums).unwrap()
    }

    #[test]
    fn arms_are_compared_over_the_bounds_they_share() {
        let canary = sums(&[("0.1", 1.0), ("0.2", 2.0), ("0.5", 3.0), ("+Inf", 4.0)]);
        let stable = sums(&[("0.1", 5.0), ("0.5", 7.0), ("1", 8.0), ("+Inf", 9.0)]);
        let found = measured(Some(canary), Some(stable)).unwrap();
        let Measured::Histogram { bounds, canary, stable } = found else { panic!("{found:?}") };
        assert_eq!(bounds, [0.1, 0.5]);
        assert_eq!((canary.cumulative, canary.total), (vec![1.0, 3.0], 4.0));
        assert_eq!((stable.cumulative, stable.total), (vec![5.0, 7.0], 9.0));
    }

    #[test]
    fn too_few_shared_bounds_and_half_histograms_are_errors() {
        let canary = sums(&[("0.1", 1.0), ("+Inf", 4.0)]);
        let stable = sums(&[("0.2", 1.0), ("+Inf", 4.0)]);
        assert!(measured(Some(canary), Some(stable)).is_err());
        for half in [[("0.1".to_owned(), 1.0)], [("wide".to_owned(), 1.0)]] {
            assert!(Buckets::from_sums(&half.into()).is_err());
        }
    }
}
