//! A Prometheus server as the source of numbers.
//!
//! Questions go through `prometheus-http-query`. Its answers are read here instead, as a stream with a limit, because
//! its own getters read without one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_http_query::Client;
use prometheus_http_query::error::Error as QueryError;
use prometheus_http_query::response::{Data, Sample};
use serde::Deserialize;

use crate::http;
use crate::ports::{Increase, MetricsError, MetricsSource, Series};
use crate::spec::fleet;
use crate::units::{Millis, Timestamp, shown};

/// Most series of one answer.
pub const SERIES_MAX: usize = 20_000;

/// One Prometheus server (or one that speaks its API).
pub struct Prometheus {
    client: Client,
    config: fleet::Prometheus,
    name: String,
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question<'a> {
    At(&'a str, Timestamp),
    Range { expression: &'a str, from: Timestamp, to: Timestamp, step: Millis },
}

/// The envelope of every answer.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
}

impl Prometheus {
    /// Prepares the client; asks nothing yet.
    pub fn new(config: &fleet::Prometheus) -> Result<Self, http::Error> {
        let base = config.url.trim_end_matches('/');
        let inner = http::client(base, config.timeout, config.ca.as_deref())?;
        let client = Client::from(inner, base).map_err(|_| http::Error::Url)?;
        // `from` keeps a base without a path as `/`, which it joins rightly.
        let host = http::checked_url(base)?.host_str().map(shown).unwrap_or_default();
        Ok(Self { client, config: config.clone(), name: format!("prometheus at {host}") })
    }

    fn wrong(&self, what: impl Into<String>, misconfigured: bool) -> MetricsError {
        MetricsError { source_name: self.name.clone(), what: what.into(), misconfigured }
    }

    fn http(&self, error: &http::Error) -> MetricsError {
        let misconfigured = matches!(error, http::Error::Secret { .. });
        self.wrong(error.to_string(), misconfigured)
    }

    /// Asks one query and reads the answer within the limits.
    async fn ask(&self, question: Question<'_>) -> Result<Data, MetricsError> {
        let deadline = self.config.timeout.duration() + Duration::from_millis(100);
        match tokio::time::timeout(deadline, self.exchange(question)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.http(&http::Error::Timeout)),
        }
    }

    async fn exchange(&self, question: Question<'_>) -> Result<Data, MetricsError> {
        let response = self.send(question).await?.map_err(|error| match error {
            QueryError::Client(client) => match client.inner() {
                Some(inner) if inner.is_timeout() => self.http(&http::Error::Timeout),
                Some(inner) if inner.is_connect() => self.http(&http::Error::Connect),
                _ => self.http(&http::Error::Broken),
            },
            _ => self.http(&http::Error::Broken),
        })?;
        let status = response.status();
        let json = response
            .headers()
            .get(reqwest::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/json"));
        if matches!(status.as_u16(), 401 | 403) {
            return Err(self.wrong(format!("refuses the credentials (HTTP {status})"), true));
        }
        if status.is_redirection() || !json {
            let kind = if status.is_server_error() { "not ready or " } else { "" };
            return Err(self.wrong(format!("{kind}not Prometheus (HTTP {status})"), false));
        }
        let bytes = http::body(response, self.config.bytes_max).await;
        self.parsed(&bytes.map_err(|error| self.http(&error))?)
    }

    async fn send(
        &self,
        question: Question<'_>,
    ) -> Result<Result<reqwest::Response, QueryError>, MetricsError> {
        let authorization = match &self.config.auth {
            Some(auth) => Some(http::authorization(auth).map_err(|error| self.http(&error))?),
            None => None,
        };
        let timeout_ms = i64::try_from(self.config.timeout.0).unwrap_or(i64::MAX);
        let name = reqwest::header::AUTHORIZATION;
        Ok(match question {
            Question::At(expression, at) => {
                let query = self.client.query(expression).query("time", seconds(at));
                let query = query.timeout(timeout_ms);
                match authorization {
                    Some(value) => query.header(name, value).post_raw().await,
                    None => query.post_raw().await,
                }
            }
            Question::Range { expression, from, to, step } => {
                let (from, to) = (whole_seconds(from), whole_seconds(to));
                let query = self.client.query_range(expression, from, to, step.as_secs_f64());
                let query = query.timeout(timeout_ms);
                match authorization {
                    Some(value) => query.header(name, value).post_raw().await,
                    None => query.post_raw().await,
                }
            }
        })
    }

    fn parsed(&self, bytes: &[u8]) -> Result<Data, MetricsError> {
        let odd = || self.wrong("not Prometheus (the answer is not one of its query API)", false);
        let answer: Answer = serde_json::from_slice(bytes).map_err(|_| match native(bytes) {
            true => self.wrong("native histograms are not read; select classic buckets", true),
            false => odd(),
        })?;
        if answer.status == "success" {
            return answer.data.ok_or_else(odd);
        }
        // Only words from the API's own list are repeated, never its text: that may hold anything.
        Err(match answer.error_type.as_deref() {
            Some("bad_data") => self.wrong("refuses the query (bad_data)", true),
            Some("execution") => self.wrong("cannot execute the query (execution)", true),
            Some("timeout") => self.wrong("gave up on the query (timeout)", false),
            Some("canceled" | "internal" | "unavailable" | "not_found") => {
                self.wrong("could not answer the query", false)
            }
            _ => odd(),
        })
    }

    fn series(&self, data: Data) -> Result<Vec<Series>, MetricsError> {
        let count = match &data {
            Data::Vector(vector) => vector.len(),
            Data::Matrix(matrix) => matrix.len(),
            Data::Scalar(_) => 1,
        };
        if count > SERIES_MAX {
            let what = format!("{count} series, at most {SERIES_MAX} are read: use `aggregated`");
            return Err(self.wrong(what, true));
        }
        let labels = |metric: &std::collections::HashMap<String, String>| {
            metric.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let found = match data {
            Data::Vector(vector) => vector
                .iter()
                .map(|one| (labels(one.metric()), std::slice::from_ref(one.sample()).to_vec()))
                .collect(),
            Data::Matrix(matrix) => {
                matrix.iter().map(|one| (labels(one.metric()), one.samples().to_vec())).collect()
            }
            Data::Scalar(sample) => vec![(BTreeMap::new(), vec![sample])],
        };
        found
            .into_iter()
            .map(|(labels, samples)| {
                let samples: Option<Vec<_>> = samples.iter().map(point).collect();
                let samples =
                    samples.ok_or_else(|| self.wrong("a sample has no possible time", false))?;
                Ok(Series { labels, samples })
            })
            .collect()
    }

    /// Decision D7: increments summed by the server, over all series that have a sample at both ends.
    async fn summed(
        &self,
        selector: &str,
        by: Option<&str>,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Increase, MetricsError> {
        let increments = sum_of_increments(selector, by, at.since(after));
        let newest = format!("max(timestamp({selector}))");
        let (sums, age) = tokio::join!(self.evaluate(&increments, at), self.evaluate(&newest, at));
        let label = |series: &Series| {
            by.and_then(|name| series.labels.get(name)).cloned().unwrap_or_default()
        };
        let value = |series: &Series| series.samples.last().map(|(_, value)| *value);
        let newest = age?.first().and_then(value).and_then(timestamp);
        let sums =
            sums?.iter().filter_map(|series| Some((label(series), value(series)?))).collect();
        Ok(Increase { sums, newest })
    }
}

/// The expression of D7: what was gained over `window`, a counter that fell counting its new value whole.
///
/// Never `rate()` or `increase()`: they extrapolate.
#[must_use]
pub fn sum_of_increments(selector: &str, by: Option<&str>, window: Millis) -> String {
    let by = by.map_or_else(String::new, |label| format!(" by ({label})"));
    let ms = window.0.max(1);
    format!(
        "sum{by} (({selector} - {selector} offset {ms}ms >= 0) or ({selector} and {selector} offset {ms}ms))"
    )
}

#[async_trait]
impl MetricsSource for Prometheus {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Series>, MetricsError> {
        let range_ms = at.since(after).0;
        if range_ms == 0 {
            return Ok(Vec::new());
        }
        // A range selector evaluated at one instant returns the samples themselves, with their own times.
        let data = self.ask(Question::At(&format!("{selector}[{range_ms}ms]"), at)).await?;
        let mut all = self.series(data)?;
        for series in &mut all {
            series.samples.retain(|(time, _)| *time > after && *time <= at);
        }
        all.retain(|series| !series.samples.is_empty());
        Ok(all)
    }

    async fn evaluate(&self, expression: &str, at: Timestamp) -> Result<Vec<Series>, MetricsError> {
        let data = self.ask(Question::At(expression, at)).await?;
        self.series(data)
    }

    async fn evaluate_range(
        &self,
        expression: &str,
        from: Timestamp,
        to: Timestamp,
        step: Millis,
    ) -> Result<Vec<Series>, MetricsError> {
        let data = self.ask(Question::Range { expression, from, to, step }).await?;
        self.series(data)
    }

    async fn increase(
        &self,
        selector: &str,
        by: Option<&str>,
        after: Timestamp,
        at: Timestamp,
    ) -> Option<Result<Increase, MetricsError>> {
        if !self.config.aggregated {
            return None;
        }
        Some(self.summed(selector, by, after, at).await)
    }
}

/// As the API wants it: seconds with three decimals.
fn seconds(at: Timestamp) -> String {
    format!("{}.{:03}", at.0 / 1_000, at.0 % 1_000)
}

fn whole_seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX)
}

fn timestamp(seconds: f64) -> Option<Timestamp> {
    let ms = (seconds * 1_000.0).round();
    // Beyond 2^53 milliseconds are no longer exact, and no time either.
    (0.0..9.007e15).contains(&ms).then_some(Timestamp(ms as u64))
}

fn point(sample: &Sample) -> Option<(Timestamp, f64)> {
    Some((timestamp(sample.timestamp())?, sample.value()))
}

fn native(bytes: &[u8]) -> bool {
    let mark = b"\"histogram";
    bytes.windows(mark.len()).any(|window| window == mark)
}

/// Reads any bytes as an answer.
#[cfg(feature = "fault-injection")]
pub fn read_anything(bytes: &[u8]) {
    let config = fleet::Prometheus {
        url: "http://127.0.0.1:9".to_owned(),
        auth: None,
        ca: None,
        timeout: Millis::from_secs(1),
        bytes_max: 1 << 20,
        aggregated: false,
    };
    let Ok(source) = Prometheus::new(&config) else { return };
    let Ok(data) = source.parsed(bytes) else { return };
    if let Ok(series) = source.series(data) {
        assert!(series.len() <= SERIES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_asked_and_read_to_the_millisecond() {
        assert_eq!(seconds(Timestamp(1_700_000_000_007)), "1700000000.007");
        assert_eq!(timestamp(1_700_000_000.007), Some(Timestamp(1_700_000_000_007)));
        for wrong in [f64::NAN, -1.0, f64::INFINITY] {
            assert_eq!(timestamp(wrong), None);
        }
    }

    #[test]
    fn the_aggregated_expression_is_the_one_of_d7() {
        assert_eq!(
            sum_of_increments("m{a=\"b\"}", Some("le"), Millis::from_secs(15)),
            "sum by (le) ((m{a=\"b\"} - m{a=\"b\"} offset 15000ms >= 0) or \
             (m{a=\"b\"} and m{a=\"b\"} offset 15000ms))"
        );
    }
}
