//! Bounded calls to admin ports: plain HTTP, no redirects, no proxy.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use crate::units::shown;

/// Most bytes of one answer.
const BYTES_MAX: usize = 16 << 20;
/// Longest time for one answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `host:port` or `http://host:port`.
    #[error("`{0}` is not an admin address: write host:port")]
    Address(String),
    /// Nobody answers.
    #[error("does not answer")]
    Silent,
    /// Not in time.
    #[error("did not answer within 2 s")]
    Late,
    /// The connection broke.
    #[error("broke off the connection")]
    Broken,
    /// Cut off or longer than 16 MiB.
    #[error("answer is cut off or too long")]
    Body,
    /// Not 200.
    #[error("answered with status {0}")]
    Status(u16),
}

/// Asks one admin port.
#[derive(Debug, Clone)]
pub struct Get {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Get {
    /// For `host:port` or `http://host:port`.
    pub fn new(address: &str) -> Result<Self, Error> {
        let wrong = || Error::Address(shown(address));
        let host = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let authority: hyper::http::uri::Authority = host.parse().map_err(|_| wrong())?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        connector.set_nodelay(true);
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self { base: format!("http://{authority}"), client })
    }

    /// The body of a 200 answer. `path` begins with `/`.
    pub async fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.ask(Method::GET, path).await
    }

    /// The same for a change.
    pub async fn post(&self, path: &str) -> Result<Bytes, Error> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        let asked = tokio::time::timeout(TIMEOUT, self.fetch(method, path)).await;
        asked.map_err(|_| Error::Late)?
    }

    async fn fetch(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.body(Empty::new()).map_err(|_| Error::Address(shown(path)))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { Error::Silent } else { Error::Broken })?;
        if response.status() != 200 {
            return Err(Error::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        Ok(body.map_err(|_| Error::Body)?.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["127.0.0.1:9901", "http://envoy.internal:9901/", "[::1]:9901"] {
            assert!(Get::new(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1", "https://a:1", "user:word@a:1", "a:1/path", "a b:1"] {
            assert!(Get::new(bad).is_err(), "{bad}");
        }
    }
}
