//! HTTP APIs that load balancers are told by: bounded, and with an answer to what a failure means for the effect.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};

use super::Unusable;
use crate::http;
use crate::ports::{LoadBalancerError, Outcome};
use crate::spec::fleet::{Auth, Secret};
use crate::units::{Millis, shown};

/// Longest time for one call.
const CALL_MAX: Millis = Millis::from_secs(4);
/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Most characters of a refusal that are shown.
const WORDS_MAX: usize = 200;

/// An API at a base URL.
pub struct Api {
    label: String,
    /// As given, for an API that is one address.
    exact: url::Url,
    /// With a `/` at its end, so that paths are joined to it.
    base: url::Url,
    client: Client,
    login: Option<Login>,
}

/// How a call says who it is.
#[derive(Debug, Clone)]
pub enum Login {
    /// The `Authorization` header.
    Auth(Auth),
    /// A header of the API's own.
    Header(&'static str, Secret),
}

/// An answer that is not a failure.
pub struct Answer {
    /// 2xx, or one that the caller asked to see.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is to be called.
pub struct Call<'a> {
    method: Method,
    path: &'a str,
    headers: Vec<(&'static str, String)>,
    body: Option<serde_json::Value>,
    seen: &'static [u16],
}

impl<'a> Call<'a> {
    /// Reads; a failure has no effect.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, headers: Vec::new(), body: None, seen: &[] }
    }

    /// Changes something: what became of it is unknown when no answer comes.
    pub fn write(method: Method, path: &'a str, body: serde_json::Value) -> Self {
        Self { method, body: Some(body), ..Self::get(path) }
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// These statuses are answers as well.
    pub fn seeing(mut self, statuses: &'static [u16]) -> Self {
        self.seen = statuses;
        self
    }
}

impl Api {
    /// For a base URL; `label` names the target for people. Nothing is asked yet.
    pub fn new(label: String, base: &str, login: Option<Login>) -> Result<Self, Unusable> {
        let exact = http::checked_url(base).map_err(Unusable::new)?;
        let mut url = exact.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let client = http::client(base, CALL_MAX, None).map_err(Unusable::new)?;
        Ok(Self { label, exact, base: url, client, login })
    }

    /// An error about this target.
    pub fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.label.clone(), what: what.to_string(), outcome }
    }

    /// One call. `path` is relative to the base URL, without a leading `/`; an empty one is the URL as given.
    pub async fn call(&self, call: Call<'_>) -> Result<Answer, LoadBalancerError> {
        let writes = call.method != Method::GET;
        let lost = if writes { Outcome::Unknown } else { Outcome::NotSent };
        let wrong = |what: String| self.failure(what, Outcome::Misconfigured);
        let url = match call.path {
            "" => self.exact.clone(),
            path => self.base.join(path).map_err(|_| wrong("this is no path".to_owned()))?,
        };
        let mut request = self.client.request(call.method, url);
        for (name, value) in call.headers {
            let value = HeaderValue::from_str(&value);
            request = request.header(name, value.map_err(|_| wrong(format!("header {name}")))?);
        }
        request = self.identified(request).map_err(|error| wrong(error.to_string()))?;
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unanswered(error, lost))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = http::body(response, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| self.failure(error, lost))?;
        if status.is_success() || call.seen.contains(&status.as_u16()) {
            return Ok(Answer { status, headers, body });
        }
        Err(self.refused(status, &body, lost))
    }

    fn identified(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::RequestBuilder, http::Error> {
        match &self.login {
            None => Ok(request),
            Some(Login::Auth(auth)) => http::with_auth(request, Some(auth)),
            Some(Login::Header(name, secret)) => {
                let place = match secret {
                    Secret::Env(name) => format!("variable {name}"),
                    Secret::File(path) => path.display().to_string(),
                };
                let mut value = HeaderValue::from_str(&http::secret(secret)?).map_err(|_| {
                    let what = "holds characters that no header may have".to_owned();
                    http::Error::Secret { place, what }
                })?;
                value.set_sensitive(true);
                Ok(request.header(HeaderName::from_static(name), value))
            }
        }
    }

    fn unanswered(&self, error: reqwest::Error, lost: Outcome) -> LoadBalancerError {
        let outcome = if error.is_connect() { Outcome::NotSent } else { lost };
        self.failure(http::Error::from(error), outcome)
    }

    fn refused(&self, status: StatusCode, body: &[u8], lost: Outcome) -> LoadBalancerError {
        let words: String = String::from_utf8_lossy(body).chars().take(WORDS_MAX).collect();
        let words = shown(words.trim());
        let outcome = match status.as_u16() {
            401 | 403 | 404 | 405 => Outcome::Misconfigured,
            409 | 412 => Outcome::Superseded,
            // It may have done it before it broke.
            500.. => lost,
            _ => Outcome::Refused,
        };
        let what = match status.as_u16() {
            401 | 403 => format!("it does not let us in ({status})"),
            _ if words.is_empty() => format!("it answers {status}"),
            _ => format!("it answers {status}: {words}"),
        };
        self.failure(what, outcome)
    }
}
