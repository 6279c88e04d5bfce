//! What one server counts, and its `/metrics` page.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper edges of the latency buckets in milliseconds; close together around what the servers do.
const EDGES_MS: [u16; 22] = [
    5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100, 125, 150, 200, 250, 300, 500, 1_000,
    2_500,
];

/// Counters of one server; each request is counted in all of them before it is answered.
#[derive(Default)]
pub(super) struct Telemetry {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// By bucket, not cumulative; the last one has no upper edge.
    buckets: [AtomicU64; EDGES_MS.len() + 1],
    micros: AtomicU64,
    /// One to five stars.
    stars: [AtomicU64; 5],
    /// Sum of the stars and number of ratings since the page was last read.
    fresh: Mutex<(u64, u64)>,
    /// Mean of the last ratings in thousandths of a star; 0 before the first.
    score_thousandths: AtomicU64,
}

impl Telemetry {
    /// Counts one request. `stars` outside 1 to 5 are not counted.
    pub fn observe(&self, failed: bool, took: Duration, stars: Option<u8>) {
        let code = if failed { &self.failed } else { &self.succeeded };
        code.fetch_add(1, Relaxed);
        let bucket = EDGES_MS.partition_point(|&edge| took > Duration::from_millis(edge.into()));
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let rating = stars.and_then(|stars| self.stars.get(usize::from(stars).wrapping_sub(1)));
        if let (Some(rating), Some(stars)) = (rating, stars) {
            rating.fetch_add(1, Relaxed);
            if let Ok(mut fresh) = self.fresh.lock() {
                *fresh = (fresh.0 + u64::from(stars), fresh.1 + 1);
            }
        }
    }

    /// Requests answered, the failed ones included, and the failed ones.
    pub fn served(&self) -> (u64, u64) {
        let failed = self.failed.load(Relaxed);
        (self.succeeded.load(Relaxed) + failed, failed)
    }

    /// The page in the Prometheus text format. `labels` come before each metric's own: `a="b",c="d"`.
    ///
    /// Every series is there from the start, at 0, as good exporters do.
    pub fn page(&self, labels: &str) -> String {
        let mut page = String::with_capacity(4096);
        self.counters(&mut page, labels);
        self.histogram(&mut page, labels);
        self.score(&mut page, labels);
        page
    }

    /// The mean of the ratings since the page was last read, so that each look sees new ones; the one before, if none.
    fn score(&self, page: &mut String, labels: &str) {
        if let Ok(mut fresh) = self.fresh.lock() {
            let (sum, count) = std::mem::take(&mut *fresh);
            if let Some(mean) = (1_000 * sum).checked_div(count) {
                self.score_thousandths.store(mean, Relaxed);
            }
        }
        let thousandths = self.score_thousandths.load(Relaxed);
        if thousandths > 0 {
            page.push_str("# HELP user_satisfaction_score Mean of the newest ratings, in stars.\n");
            page.push_str("# TYPE user_satisfaction_score gauge\n");
            let score = thousandths as f64 / 1_000.0;
            let _ = writeln!(page, "user_satisfaction_score{{{labels}}} {score}");
        }
    }

    fn counters(&self, page: &mut String, labels: &str) {
        page.push_str("# HELP service_up The server answers.\n# TYPE service_up gauge\n");
        let _ = writeln!(page, "service_up{{{labels}}} 1");
        page.push_str("# HELP http_requests_total Requests answered.\n");
        page.push_str("# TYPE http_requests_total counter\n");
        for (code, count) in [("200", &self.succeeded), ("500", &self.failed)] {
            let count = count.load(Relaxed);
            let _ = writeln!(page, "http_requests_total{{{labels},code=\"{code}\"}} {count}");
        }
        page.push_str("# HELP ratings_total Ratings that users left, by stars.\n");
        page.push_str("# TYPE ratings_total counter\n");
        for (stars, count) in (1..).zip(&self.stars) {
            let count = count.load(Relaxed);
            let _ = writeln!(page, "ratings_total{{{labels},stars=\"{stars}\"}} {count}");
        }
    }

    fn histogram(&self, page: &mut String, labels: &str) {
        page.push_str("# HELP http_request_duration_seconds Time until the answer.\n");
        page.push_str("# TYPE http_request_duration_seconds histogram\n");
        let edges = EDGES_MS.iter().map(|&edge| (f64::from(edge) / 1_000.0).to_string());
        let mut total = 0;
        for (edge, count) in edges.chain(["+Inf".to_owned()]).zip(&self.buckets) {
            total += count.load(Relaxed);
            let _ = writeln!(
                page,
                "http_request_duration_seconds_bucket{{{labels},le=\"{edge}\"}} {total}"
            );
        }
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(page, "http_request_duration_seconds_sum{{{labels}}} {seconds}");
        let _ = writeln!(page, "http_request_duration_seconds_count{{{labels}}} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_in_every_metric_once() {
        let telemetry = Telemetry::default();
        telemetry.observe(false, Duration::from_millis(20), Some(5));
        telemetry.observe(false, Duration::from_micros(20_001), None);
        telemetry.observe(true, Duration::from_secs(60), Some(1));
        telemetry.observe(true, Duration::ZERO, Some(9));
        assert_eq!(telemetry.served(), (4, 2));
        let page = telemetry.page("region=\"r\"");
        for line in [
            "http_requests_total{region=\"r\",code=\"200\"} 2",
            "http_requests_total{region=\"r\",code=\"500\"} 2",
            "http_request_duration_seconds_bucket{region=\"r\",le=\"0.005\"} 1",
            "http_request_duration_seconds_bucket{region=\"r\",le=\"0.02\"} 2",
            "http_request_duration_seconds_bucket{region=\"r\",le=\"0.025\"} 3",
            "http_request_duration_seconds_bucket{region=\"r\",le=\"2.5\"} 3",
            "http_request_duration_seconds_bucket{region=\"r\",le=\"+Inf\"} 4",
            "http_request_duration_seconds_sum{region=\"r\"} 60.040001",
            "http_request_duration_seconds_count{region=\"r\"} 4",
            "ratings_total{region=\"r\",stars=\"1\"} 1",
            "ratings_total{region=\"r\",stars=\"3\"} 0",
            "ratings_total{region=\"r\",stars=\"5\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} not in\n{page}");
        }
    }
}
