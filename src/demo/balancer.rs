//! A region's proxy as the driver sees it: weights through the admin port, read back from there.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use super::http::{Answer, Failure, once};
use super::proxy::{State, WEIGHTS_PATH, Wanted};
use crate::ports::{
    Capabilities, Fencing, LoadBalancer, LoadBalancerError, Outcome, Reading, Split, Steps,
};
use crate::units::{Generation, RegionName, shown};

/// Longest wait for the admin port to connect, and again to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Sets and reads one region's proxy over HTTP.
#[derive(Debug, Clone)]
pub struct ProxyBalancer {
    region: RegionName,
    admin: SocketAddr,
}

impl ProxyBalancer {
    /// For the proxy whose admin port is `admin`; connects for each call.
    #[must_use]
    pub fn new(region: RegionName, admin: SocketAddr) -> Self {
        Self { region, admin }
    }

    fn error(&self, what: impl Into<String>, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.describe(), what: what.into(), outcome }
    }

    async fn ask(&self, method: Method, body: Bytes) -> Result<Bytes, LoadBalancerError> {
        match once(self.admin, method, WEIGHTS_PATH, body, TIMEOUT).await {
            Ok(answer) if answer.status.is_success() => Ok(answer.body),
            Ok(answer) => Err(self.refusal(&answer)),
            Err(Failure::NotSent(what)) => Err(self.error(what, Outcome::NotSent)),
            Err(Failure::Lost(what)) => Err(self.error(what, Outcome::Unknown)),
        }
    }

    fn refusal(&self, answer: &Answer) -> LoadBalancerError {
        let said = shown(String::from_utf8_lossy(&answer.body).trim());
        let outcome = match answer.status {
            StatusCode::CONFLICT => Outcome::Superseded,
            status if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        self.error(format!("answered {}: {said}", answer.status.as_u16()), outcome)
    }
}

#[async_trait]
impl LoadBalancer for ProxyBalancer {
    fn describe(&self) -> String {
        format!("demo proxy of {} at {}", self.region, self.admin)
    }

    fn capabilities(&self) -> Capabilities {
        // The proxy lives exactly as long as its world: it has no restart that could lose weights.
        Capabilities {
            steps: Steps::Hundredths,
            weights_survive_restart: true,
            sees_instances: false,
            fencing: Fencing::Marker,
            effect_lag: crate::units::Millis::ZERO,
            mirror: crate::spec::fleet::Mirroring::None,
            sees_requests: true,
            keeps_users: crate::spec::fleet::Keeping::Nobody,
        }
    }

    async fn read(&self) -> Result<Reading, LoadBalancerError> {
        let body = self.ask(Method::GET, Bytes::new()).await?;
        let state: State = serde_json::from_slice(&body)
            .map_err(|_| self.error("answered something else than its state", Outcome::Unknown))?;
        Ok(Reading {
            split: state.weights,
            settled: true,
            generation: state.generation,
            instances: Vec::new(),
            backends: Some(state.pools),
            restart_marker: Some(state.started),
            note: None,
        })
    }

    async fn set(
        &self,
        split: &Split,
        generation: Generation,
    ) -> Result<Reading, LoadBalancerError> {
        let wanted = Wanted { weights: split.clone(), generation };
        let body = serde_json::to_vec(&wanted)
            .map_err(|_| self.error("the weights have no text", Outcome::Misconfigured))?;
        self.ask(Method::PUT, body.into()).await?;
        // It was sent, so a failure to read it back leaves the effect unknown.
        self.read().await.map_err(|error| LoadBalancerError { outcome: Outcome::Unknown, ..error })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_proxy_that_is_not_there_was_sent_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let balancer = ProxyBalancer::new("here".parse().unwrap(), address);
        let error = balancer.set(&Split::default(), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::NotSent);
    }

    #[tokio::test]
    async fn a_proxy_that_hangs_up_leaves_the_effect_unknown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hangs_up = std::thread::spawn(move || drop(listener.accept()));
        let balancer = ProxyBalancer::new("here".parse().unwrap(), address);
        let error = balancer.set(&Split::default(), Generation(1)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Unknown);
        hangs_up.join().unwrap();
    }
}
