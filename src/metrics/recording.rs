//! The past of a source, read in chunks: what a replay looks at, look after look.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::ports::{MetricsError, MetricsSource, Series};
use crate::units::{Millis, Timestamp};

/// Samples that a chunk should have; about two megabytes of an answer.
const CHUNK_SAMPLES: f64 = 60_000.0;
/// Length of the first chunk, before it is known how many samples there are.
const CHUNK_FIRST: Millis = Millis::from_secs(1_800);
/// Longest chunk.
const CHUNK_MAX: Millis = Millis::from_secs(86_400);
/// Values of one series in a chunk; Prometheus gives 11,000.
const VALUES_MAX: u64 = 10_000;

/// Answers questions that go forward in time from chunks that were read ahead.
pub struct Recording {
    source: Arc<dyn MetricsSource>,
    step: Millis,
    end: Timestamp,
    raw: Mutex<BTreeMap<String, Chunk>>,
    values: Mutex<BTreeMap<String, Chunk>>,
}

/// What was read ahead for one selector or expression.
struct Chunk {
    from: Timestamp,
    to: Timestamp,
    series: Vec<Series>,
    /// How much to read next.
    length: Millis,
}

impl Chunk {
    const EMPTY: Self = Self {
        from: Timestamp(u64::MAX),
        to: Timestamp(0),
        series: Vec::new(),
        length: CHUNK_FIRST,
    };

    fn holds(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= from && to <= self.to
    }

    /// Takes in what was read, and how much that was.
    fn fill(&mut self, from: Timestamp, to: Timestamp, series: Vec<Series>) {
        let samples: usize = series.iter().map(|one| one.samples.len()).sum();
        let per_ms = samples as f64 / to.since(from).0.max(1) as f64;
        // Not at once: the next chunk may have more series.
        let most = Millis(self.length.0.saturating_mul(4)).min(CHUNK_MAX);
        let fitting = Millis((CHUNK_SAMPLES / per_ms) as u64);
        let length = fitting.max(Millis::from_secs(60)).min(most);
        *self = Self { from, to, series, length };
    }
}

impl Recording {
    /// The past of `source` up to `end`, to be asked for values every `step` of whole seconds.
    #[must_use]
    pub fn new(source: Arc<dyn MetricsSource>, step: Millis, end: Timestamp) -> Self {
        Self { source, step, end, raw: Mutex::default(), values: Mutex::default() }
    }
}

#[async_trait]
impl MetricsSource for Recording {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Series>, MetricsError> {
        let mut chunks = self.raw.lock().await;
        let chunk = chunks.entry(selector.to_owned()).or_insert(Chunk::EMPTY);
        if !chunk.holds(after, at) {
            let to = after.plus(chunk.length).min(self.end).max(at);
            let series = self.source.raw(selector, after, to).await?;
            chunk.fill(after, to, series);
        }
        let part = |series: &Series| {
            let first = series.samples.partition_point(|(time, _)| *time <= after);
            let last = series.samples.partition_point(|(time, _)| *time <= at);
            let samples = series.samples.get(first..last).filter(|part| !part.is_empty())?;
            Some(Series { labels: series.labels.clone(), samples: samples.to_vec() })
        };
        Ok(chunk.series.iter().filter_map(part).collect())
    }

    async fn evaluate(&self, expression: &str, at: Timestamp) -> Result<Vec<Series>, MetricsError> {
        let mut chunks = self.values.lock().await;
        let chunk = chunks.entry(expression.to_owned()).or_insert(Chunk::EMPTY);
        if !chunk.holds(at, at) {
            let length = chunk.length.min(Millis(self.step.0.saturating_mul(VALUES_MAX)));
            let to = at.plus(length).min(self.end).max(at);
            let series = self.source.evaluate_range(expression, at, to, self.step).await?;
            chunk.fill(at, to, series);
        }
        let now = |series: &Series| {
            let index = series.samples.binary_search_by_key(&at, |(time, _)| *time).ok()?;
            let samples = vec![series.samples[index]];
            Some(Series { labels: series.labels.clone(), samples })
        };
        Ok(chunk.series.iter().filter_map(now).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// One series with a sample every 15 s, whose value is its time in seconds.
    #[derive(Default)]
    struct Clockwork(AtomicUsize);

    fn samples(from: u64, to: u64, step: u64) -> Vec<Series> {
        let first = from.div_ceil(step);
        let samples = (first..=to / step).map(|n| (Timestamp(n * step), (n * step / 1_000) as f64));
        vec![Series { labels: BTreeMap::new(), samples: samples.collect() }]
    }

    #[async_trait]
    impl MetricsSource for Clockwork {
        fn describe(&self) -> String {
            "clockwork".to_owned()
        }

        async fn raw(
            &self,
            _: &str,
            after: Timestamp,
            at: Timestamp,
        ) -> Result<Vec<Series>, MetricsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(samples(after.0 + 1, at.0, 15_000))
        }

        async fn evaluate(&self, _: &str, at: Timestamp) -> Result<Vec<Series>, MetricsError> {
            Ok(samples(at.0, at.0, 1))
        }

        async fn evaluate_range(
            &self,
            _: &str,
            from: Timestamp,
            to: Timestamp,
            step: Millis,
        ) -> Result<Vec<Series>, MetricsError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(samples(from.0, to.0, step.0))
        }
    }

    #[tokio::test]
    async fn every_look_finds_what_the_source_has_and_few_questions_reach_it() {
        let clockwork = Arc::new(Clockwork::default());
        let (step, end) = (Millis::from_secs(15), Timestamp(400_000_000));
        let recording = Recording::new(Arc::clone(&clockwork) as _, step, end);
        let mut looks = 0;
        for at in (100_005_000..end.0).step_by(15_000) {
            let (after, at) = (Timestamp(at - 40_000), Timestamp(at));
            let found = recording.raw("m", after, at).await.unwrap();
            assert_eq!(found, samples(after.0 + 1, at.0, 15_000));
            let value = recording.evaluate("m", at).await.unwrap();
            assert_eq!(value, samples(at.0, at.0, 15_000));
            looks += 1;
        }
        let asked = clockwork.0.load(Ordering::Relaxed);
        assert!(looks > 19_000 && asked < 30, "{asked} questions for {looks} looks");
        // Back to the beginning.
        let (after, at) = (Timestamp(100_000_000), Timestamp(100_030_000));
        assert_eq!(recording.raw("m", after, at).await.unwrap()[0].samples.len(), 2);
    }
}
