//! Endpoints that Tidegate scrapes itself: for people without Prometheus.
//!
//! Each endpoint is read once per instant, however many selectors are asked for; one that fails is an error that names
//! it, never fewer series.

mod evaluate;
mod matching;

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Client;
use tokio::sync::Mutex;

use super::text;
use crate::http;
use crate::ports::{MetricsError, MetricsSource, Series};
use crate::spec::fleet;
use crate::units::{Timestamp, shown};

/// Most series of all endpoints together.
const SERIES_MAX: usize = 20_000;

/// The listed endpoints of one region.
pub struct Scrape {
    endpoints: Vec<Endpoint>,
    config: fleet::Scrape,
    /// What the newest instant found, so that it is asked for once.
    last: Mutex<Option<(Timestamp, Found)>>,
}

type Found = Result<Arc<Vec<Series>>, MetricsError>;

struct Endpoint {
    client: Client,
    /// Host and port: the label `instance`, and its name in errors.
    instance: String,
    config: fleet::ScrapeEndpoint,
}

impl Scrape {
    /// Prepares the clients; asks nothing yet. HTTPS trusts the system's authorities.
    pub fn new(config: &fleet::Scrape) -> Result<Self, http::Error> {
        let endpoint = |endpoint: &fleet::ScrapeEndpoint| -> Result<Endpoint, http::Error> {
            let url = http::checked_url(&endpoint.url)?;
            let port = url.port_or_known_default().unwrap_or(0);
            Ok(Endpoint {
                client: http::client(&endpoint.url, config.timeout, None)?,
                instance: format!("{}:{port}", url.host_str().unwrap_or_default()),
                config: endpoint.clone(),
            })
        };
        let endpoints = config.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, config: config.clone(), last: Mutex::new(None) })
    }

    /// Every series of every endpoint at `at`.
    async fn all(&self, at: Timestamp) -> Found {
        // Held while scraping: whoever asks for the same instant waits for this answer.
        let mut last = self.last.lock().await;
        if let Some((of, found)) = &*last
            && *of == at
        {
            return found.clone();
        }
        let reads = self.endpoints.iter().map(|endpoint| self.read(endpoint, at));
        let found = joined(futures_util::future::join_all(reads).await);
        *last = Some((at, found.clone()));
        found
    }

    async fn read(&self, endpoint: &Endpoint, at: Timestamp) -> Result<Vec<Series>, MetricsError> {
        let lines = self.lines(endpoint).await.map_err(|(what, misconfigured)| MetricsError {
            source_name: format!("scrape of {}", shown(&endpoint.instance)),
            what,
            misconfigured,
        })?;
        let series = |mut line: text::Line| {
            for (name, value) in &endpoint.config.labels {
                line.labels.insert(name.clone(), value.clone());
            }
            let instance = endpoint.config.labels.get("instance").unwrap_or(&endpoint.instance);
            line.labels.insert("instance".to_owned(), instance.clone());
            let time = line.time_ms.map_or(at, Timestamp);
            Series { labels: line.labels, samples: vec![(time, line.value)] }
        };
        Ok(lines.into_iter().map(series).collect())
    }

    async fn lines(&self, endpoint: &Endpoint) -> Result<Vec<text::Line>, (String, bool)> {
        let said = |error: http::Error| {
            let misconfigured = matches!(error, http::Error::Secret { .. });
            (error.to_string(), misconfigured)
        };
        let request = endpoint.client.get(&endpoint.config.url);
        let request = http::with_auth(request, self.config.auth.as_ref()).map_err(said)?;
        let response = request.send().await.map_err(|error| said(error.into()))?;
        if !response.status().is_success() {
            let credentials = matches!(response.status().as_u16(), 401 | 403);
            return Err((format!("answered HTTP {}", response.status()), credentials));
        }
        let bytes = http::body(response, self.config.bytes_max).await.map_err(said)?;
        text::parse(&bytes).map_err(|error| (error.to_string(), false))
    }

    fn misconfigured(&self, what: String) -> MetricsError {
        MetricsError { source_name: self.describe(), what, misconfigured: true }
    }
}

fn joined(reads: Vec<Result<Vec<Series>, MetricsError>>) -> Found {
    let mut all: Vec<Series> = Vec::new();
    for read in reads {
        all.extend(read?);
        if all.len() > SERIES_MAX {
            return Err(MetricsError {
                source_name: "scrape".to_owned(),
                what: format!("more than {SERIES_MAX} series"),
                misconfigured: true,
            });
        }
    }
    Ok(Arc::new(all))
}

#[async_trait]
impl MetricsSource for Scrape {
    fn describe(&self) -> String {
        format!("scrape of {} endpoints", self.endpoints.len())
    }

    async fn raw(
        &self,
        selector: &str,
        after: Timestamp,
        at: Timestamp,
    ) -> Result<Vec<Series>, MetricsError> {
        let selector =
            matching::Selector::parse(selector).map_err(|what| self.misconfigured(what))?;
        let all = self.all(at).await?;
        let newer =
            |series: &&Series| series.samples.iter().all(|(time, _)| *time > after && *time <= at);
        Ok(all.iter().filter(|one| selector.matches(&one.labels)).filter(newer).cloned().collect())
    }

    async fn evaluate(&self, expression: &str, at: Timestamp) -> Result<Vec<Series>, MetricsError> {
        let parsed = evaluate::parse(expression).map_err(|what| self.misconfigured(what))?;
        let all = self.all(at).await?;
        evaluate::evaluate(&parsed, &all, at).map_err(|what| self.misconfigured(what))
    }
}
