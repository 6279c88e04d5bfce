//! AWS's APIs through AWS's own SDK: who asks, within which bounds, and what a failure means for the effect.
//!
//! A call is made once: the driver repeats, and looks first. TLS is rustls on ring, as everywhere here.

mod alb;
mod marks;
mod route53;

use std::error::Error;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_route53::config::http::HttpResponse;
use aws_sdk_route53::config::retry::RetryConfig;
use aws_sdk_route53::config::{IdentityCache, SharedHttpClient};
use aws_sdk_route53::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use tokio::sync::OnceCell;

pub use alb::AlbBalancer;
pub use route53::Route53Balancer;

use super::Unusable;
use crate::http;
use crate::ports::{LoadBalancerError, Outcome};
use crate::spec::fleet::{AwsAccess, AwsCredentials};
use crate::units::shown;

/// Longest time for one call, with the way to its credentials.
const CALL_MAX: Duration = Duration::from_secs(3);
/// Most characters of a refusal that are shown.
const WORDS_MAX: usize = 200;
/// AWS's words for "too much at once": nothing was done.
const TOO_MUCH: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "TooManyRequestsException",
    "PriorRequestNotComplete",
    "SlowDown",
];

/// The way to AWS for one target. Nothing is read or asked before the first call.
struct Session {
    label: String,
    access: AwsAccess,
    config: OnceCell<SdkConfig>,
}

impl Session {
    fn new(label: String, access: &AwsAccess) -> Result<Self, Unusable> {
        if let Some(endpoint) = &access.endpoint {
            http::checked_url(endpoint).map_err(Unusable::new)?;
        }
        Ok(Self { label, access: access.clone(), config: OnceCell::new() })
    }

    /// What clients are made of; they share its connections.
    async fn config(&self) -> &SdkConfig {
        self.config.get_or_init(|| self.load()).await
    }

    async fn load(&self) -> SdkConfig {
        let access = &self.access;
        let bounds = TimeoutConfig::builder().connect_timeout(CALL_MAX).operation_timeout(CALL_MAX);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(access.region.clone()))
            .http_client(self.client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(bounds.build());
        if let Some(endpoint) = &access.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(profile) = &access.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(credentials) = &access.credentials {
            // Read for each call, as every secret is.
            loader = loader
                .credentials_provider(Kept(credentials.clone()))
                .identity_cache(IdentityCache::no_cache());
        }
        loader.load().await
    }

    fn client(&self) -> SharedHttpClient {
        let builder = aws_smithy_http_client::Builder::new();
        match &self.access.endpoint {
            // A machine without certificate authorities must still reach an emulator.
            Some(endpoint) if endpoint.starts_with("http://") => builder.build_http(),
            _ => builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https(),
        }
    }

    /// An error about this target.
    fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.label.clone(), what: what.to_string(), outcome }
    }

    /// What a call that reads came to: a failure had no effect.
    fn read<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, LoadBalancerError> {
        answer.map_err(|error| self.failed(&error, Outcome::NotSent))
    }

    /// What a call that changes something came to.
    fn written<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        answer: Result<T, SdkError<E, HttpResponse>>,
    ) -> Result<T, LoadBalancerError> {
        answer.map_err(|error| self.failed(&error, Outcome::Unknown))
    }

    fn failed<E: ProvideErrorMetadata + Error + 'static>(
        &self,
        error: &SdkError<E, HttpResponse>,
        lost: Outcome,
    ) -> LoadBalancerError {
        if let Some(status) = error.raw_response().map(|raw| raw.status().as_u16()) {
            return self.refused(status, error.code(), error.message(), lost);
        }
        if let Some(credentials) = cause::<CredentialsError>(error) {
            let (what, outcome) = without_credentials(credentials);
            return self.failure(what, outcome);
        }
        let unconnected = cause::<hyper_util::client::legacy::Error>(error)
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        match error {
            SdkError::TimeoutError(_) => self.failure("no answer in time", lost),
            SdkError::DispatchFailure(_) if unconnected => {
                self.failure("no connection", Outcome::NotSent)
            }
            SdkError::ConstructionFailure(_) => {
                self.failure("the request could not be made", Outcome::Misconfigured)
            }
            SdkError::DispatchFailure(broken) if broken.is_timeout() => {
                self.failure("no answer in time", lost)
            }
            _ => self.failure("the connection broke", lost),
        }
    }

    /// An answer came; it is no success, or none that can be read.
    fn refused(
        &self,
        status: u16,
        code: Option<&str>,
        message: Option<&str>,
        lost: Outcome,
    ) -> LoadBalancerError {
        let code = code.unwrap_or_default();
        let outcome = match status {
            _ if TOO_MUCH.contains(&code) || status == 429 => Outcome::NotSent,
            401 | 403 | 404 => Outcome::Misconfigured,
            400..500 if is_of_the_configuration(code) => Outcome::Misconfigured,
            400..500 => Outcome::Refused,
            // It may have done it before it broke; a success that cannot be read may be anything.
            _ => lost,
        };
        let words: String = message.unwrap_or_default().chars().take(WORDS_MAX).collect();
        let words = shown(words.trim());
        let what = match (code, words.is_empty()) {
            ("", _) if status < 400 => format!("it answers {status} with something else"),
            ("", _) => format!("it answers {status}"),
            (code, true) => format!("it answers {}", shown(code)),
            (code, false) => format!("it answers {}: {words}", shown(code)),
        };
        self.failure(what, outcome)
    }
}

/// Reads once more where the first try came to nothing: a change that was made is worth a second look.
async fn twice<T, A>(ask: impl Fn() -> A) -> Result<T, LoadBalancerError>
where
    A: Future<Output = Result<T, LoadBalancerError>>,
{
    match ask().await {
        Err(error) if error.outcome == Outcome::NotSent => ask().await,
        answer => answer,
    }
}

/// What only a person can mend: names that are not there, keys and rights.
fn is_of_the_configuration(code: &str) -> bool {
    let begins = ["NoSuch", "AccessDenied", "ExpiredToken", "InvalidClientTokenId", "Signature"];
    let ends = ["NotFound", "NotFoundException", "NotAuthorized"];
    let unknown =
        ["UnrecognizedClientException", "UnauthorizedOperation", "MissingAuthenticationToken"];
    begins.iter().any(|begin| code.starts_with(begin))
        || ends.iter().any(|end| code.ends_with(end))
        || unknown.contains(&code)
}

/// Nothing was sent; a source that did not answer may answer later.
fn without_credentials(error: &CredentialsError) -> (String, Outcome) {
    match error {
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
            ("the source of AWS's credentials does not answer".to_owned(), Outcome::NotSent)
        }
        other => {
            let place = cause::<http::Error>(other).map(ToString::to_string);
            let place =
                place.unwrap_or_else(|| "nothing on AWS's default chain has any".to_owned());
            (format!("no credentials: {place}"), Outcome::Misconfigured)
        }
    }
}

/// The first error of a kind, from the outermost in.
fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Keys from where the fleet file says they are.
#[derive(Debug)]
struct Kept(AwsCredentials);

impl Kept {
    fn keys(&self) -> Result<Credentials, http::Error> {
        let token = self.0.session_token.as_ref().map(http::secret).transpose()?;
        let (id, key) = (http::secret(&self.0.access_key)?, http::secret(&self.0.secret_key)?);
        Ok(Credentials::new(id, key, token, None, "tidegate"))
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(
            self.keys().map_err(CredentialsError::invalid_configuration),
        )
    }
}
