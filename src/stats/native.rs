//! Exponential histograms laid out on fixed edges.
//!
//! Bucket i of a histogram with schema s counts the values in (b^(i-1), b^i] with b = 2^(2^-s). A coarser schema merges
//! neighbours, so counts at the coarser edges stay exact, and histograms whose schemas differ between scrapes or arms can
//! be brought to the coarsest. Empty buckets are not sent, so the range of edges must be fixed by whoever asks: two polls
//! must not have two layouts. With schema 3 or finer a limit of +10 % on a quantile needs no interpolation to speak of.

use super::histogram::Histogram;

/// More edges than this are refused.
const EDGES_MAX: i64 = 2048;
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Increments of an exponential histogram over one poll. Values below 0 do not occur in times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NativeHistogram {
    /// Resolution, -4 (coarse) to 8.
    pub schema: i32,
    /// Values too close to 0 to be resolved.
    pub zero_count: f64,
    /// (bucket index, values in it), in any order.
    pub buckets: Vec<(i32, f64)>,
}

impl NativeHistogram {
    /// The same values on all edges of `schema` within \[`low`, `high`\]; values above `high` count in the total only.
    ///
    /// `None` when `schema` is finer than the histogram's own or unknown, the range is empty or holds more than 2,048
    /// edges, or the result is not readable (NaN, infinite or negative counts).
    pub fn expand(&self, schema: i32, low: f64, high: f64) -> Option<Histogram> {
        let known = SCHEMAS.contains(&schema) && SCHEMAS.contains(&self.schema);
        if !known || schema > self.schema || !(low > 0.0 && low < high && high.is_finite()) {
            return None;
        }
        let per_octave = f64::from(schema).exp2();
        let first = (low.log2() * per_octave - 1e-9).ceil() as i64;
        let last = (high.log2() * per_octave + 1e-9).floor() as i64;
        if last < first || last - first >= EDGES_MAX {
            return None;
        }
        let mut counts = vec![0.0; (last - first + 1) as usize];
        counts[0] = self.zero_count;
        let mut above = 0.0;
        for (index, count) in &self.buckets {
            let index = coarser(i64::from(*index), self.schema - schema).max(first);
            match counts.get_mut((index - first) as usize) {
                Some(bucket) => *bucket += count,
                None => above += count,
            }
        }
        let mut below = 0.0;
        for count in &mut counts {
            below += *count;
            *count = below;
        }
        let edges = (first..=last).map(|index| (index as f64 / per_octave).exp2()).collect();
        Some(Histogram::new(edges, counts, below + above)).filter(Histogram::is_readable)
    }
}

/// The bucket that holds bucket `index` after merging neighbours `steps` times.
fn coarser(index: i64, steps: i32) -> i64 {
    ((index - 1) >> steps) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(schema: i32) -> NativeHistogram {
        let buckets = vec![(-30, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (40, 5.0)];
        NativeHistogram { schema, zero_count: 10.0, buckets }
    }

    #[test]
    fn counts_stand_at_their_edges() {
        let histogram = native(0).expand(0, 0.5, 16.0).unwrap();
        assert_eq!(histogram.edges, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(histogram.cumulative, [11.0, 11.0, 13.0, 16.0, 20.0, 20.0]);
        assert_eq!(histogram.total, 25.0);
    }

    #[test]
    fn merging_keeps_counts_at_common_edges() {
        let fine = native(1).expand(1, 0.5, 16.0).unwrap();
        let coarse = native(1).expand(0, 0.5, 16.0).unwrap();
        assert_eq!(fine.restricted(&coarse.edges), coarse);
        assert_eq!(coarser(-3, 1), -1);
        assert_eq!(coarser(2, 1), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(native(0).expand(1, 0.5, 16.0).is_none());
        assert!(native(8).expand(8, 1e-6, 1e6).is_none());
        assert!(native(0).expand(0, f64::NAN, 16.0).is_none());
        assert!(native(0).expand(0, 16.0, 0.5).is_none());
        assert!(native(0).expand(-99, 0.5, 16.0).is_none());
        for broken in [f64::NAN, f64::INFINITY, -1.0] {
            let buckets = vec![(1, broken)];
            let histogram = NativeHistogram { schema: 0, zero_count: 0.0, buckets };
            assert!(histogram.expand(0, 0.5, 16.0).is_none());
        }
    }
}
