//! Tokens of GitHub Actions (OpenID Connect): signature, issuer, audience, time, then the job's own claims.
//!
//! One algorithm, RS256, whatever the token says. Keys are fetched from the issuer, kept, and fetched again at most once
//! per [`FETCH_PAUSE`], however many unknown keys tokens name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::token::LEEWAY;
use super::{Identity, Via};
use crate::http;
use crate::spec::access::{Access, GithubIssuer, GithubJob};
use crate::units::{Millis, Timestamp};

/// Pause between two fetches of the keys.
pub const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// After this long keys are fetched again although they are known.
const KEYS_LIFE: Duration = Duration::from_secs(3_600);
/// Longest token, and most bytes of the keys.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
const KEYS_BYTES_MAX: u64 = 256 * 1024;
const FETCH_MAX: Millis = Millis::from_secs(5);

/// Why a token does not count. Who asked is told nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no such token.
    #[error("not a token of this issuer: {0}")]
    Malformed(&'static str),
    /// Signed by somebody else, or not at all.
    #[error("its signature is wrong")]
    Signature,
    /// No key of that name.
    #[error("its key is unknown")]
    UnknownKey,
    /// The keys cannot be fetched.
    #[error("the issuer's keys cannot be fetched: {0}")]
    Keys(String),
    /// A claim is not what it has to be.
    #[error("its claim `{0}` does not fit")]
    Claim(&'static str),
    /// Nobody of the fleet is this job; the claims that did not fit.
    #[error("no job of the fleet fits: {0}")]
    NoSuchJob(String),
}

impl Error {
    /// The token is right, but its job may not come in.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::NoSuchJob(_))
    }
}

/// What reads the tokens of one issuer.
pub struct Github {
    issuer: GithubIssuer,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

/// Strict in its types: a claim of another type is no claim.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    nbf: Option<u64>,
    iat: u64,
    repository_id: String,
    #[serde(default)]
    environment: String,
    job_workflow_ref: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Github {
    /// For this issuer; nothing is fetched yet.
    #[must_use]
    pub fn new(issuer: GithubIssuer) -> Self {
        Self { issuer, keys: Mutex::default() }
    }

    /// Who comes with this token.
    ///
    /// # Errors
    /// It does not count, or its job is nobody of the fleet.
    pub async fn identify(
        &self,
        token: &str,
        access: &Access,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let claims = self.verified(token).await?;
        self.check(&claims, now)?;
        let job = GithubJob {
            repository_id: claims.repository_id,
            environment: claims.environment,
            job_workflow_ref: claims.job_workflow_ref,
        };
        let known = access.people.iter().filter_map(|(name, it)| Some((name, it.github.as_ref()?)));
        let mut wrong = Vec::new();
        for (name, wanted) in known {
            let misfits = misfits(wanted, &job);
            if misfits.is_empty() {
                return Ok(Identity { name: name.clone(), via: Via::Github, scopes: None });
            }
            wrong.push(format!("{name}: {}", misfits.join(", ")));
        }
        Err(Error::NoSuchJob(wrong.join("; ")))
    }

    async fn verified(&self, token: &str) -> Result<Claims, Error> {
        let mut parts = token.split('.');
        let (Some(head), Some(body), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Malformed("three parts"));
        };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::Malformed("its length"));
        }
        let header: Header = decoded(head)?;
        if header.alg != "RS256" {
            return Err(Error::Malformed("its algorithm"));
        }
        let signature =
            URL_SAFE_NO_PAD.decode(signature).map_err(|_| Error::Malformed("its signature"))?;
        let (n, e) = self.key(&header.kid).await?;
        let signed = &token.as_bytes()[..head.len() + 1 + body.len()];
        RsaPublicKeyComponents { n, e }
            .verify(&RSA_PKCS1_2048_8192_SHA256, signed, &signature)
            .map_err(|_| Error::Signature)?;
        decoded(body)
    }

    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Error> {
        let (now, leeway) = (now.0 / 1_000, LEEWAY.0 / 1_000);
        let for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.issuer.audience,
            Audience::Many(audiences) => audiences.contains(&self.issuer.audience),
        };
        let early = |at: u64| at > now.saturating_add(leeway);
        if claims.iss != self.issuer.issuer {
            Err(Error::Claim("iss"))
        } else if !for_us {
            Err(Error::Claim("aud"))
        } else if claims.exp.saturating_add(leeway) <= now {
            Err(Error::Claim("exp"))
        } else if early(claims.iat) {
            Err(Error::Claim("iat"))
        } else if claims.nbf.is_some_and(early) {
            Err(Error::Claim("nbf"))
        } else {
            Ok(())
        }
    }

    async fn key(&self, name: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut keys = self.keys.lock().await;
        let old = keys.fetched.is_none_or(|at| at.elapsed() > KEYS_LIFE);
        let may_fetch = keys.tried.is_none_or(|at| at.elapsed() > FETCH_PAUSE);
        if may_fetch && (old || !keys.known.contains_key(name)) {
            keys.tried = Some(Instant::now());
            let fetched = self.fetch().await;
            match fetched {
                Ok(known) => (keys.known, keys.fetched) = (known, Some(Instant::now())),
                // The issuer is away: the keys that are known count on.
                Err(error) if keys.known.is_empty() => return Err(error),
                Err(error) => tracing::warn!(%error, "the keys that are known count on"),
            }
        }
        keys.known.get(name).cloned().ok_or(Error::UnknownKey)
    }

    async fn fetch(&self) -> Result<BTreeMap<String, (Vec<u8>, Vec<u8>)>, Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        #[derive(Deserialize)]
        struct Key {
            kty: String,
            kid: String,
            n: String,
            e: String,
        }
        let failed = |error: http::Error| Error::Keys(error.to_string());
        let url = format!("{}/.well-known/jwks", self.issuer.issuer.trim_end_matches('/'));
        let client = http::client(&url, FETCH_MAX, None).map_err(failed)?;
        let response = client.get(&url).send().await.map_err(|error| failed(error.into()))?;
        if !response.status().is_success() {
            return Err(Error::Keys(format!("HTTP {}", response.status().as_u16())));
        }
        let body = http::body(response, KEYS_BYTES_MAX).await.map_err(failed)?;
        let set: Set = serde_json::from_slice(&body)
            .map_err(|_| Error::Keys("the answer holds no keys".to_owned()))?;
        let mut known = BTreeMap::new();
        for key in set.keys {
            // Keys of other kinds are none of ours.
            let Ok(key) = serde_json::from_value::<Key>(key) else { continue };
            let (n, e) = (URL_SAFE_NO_PAD.decode(&key.n), URL_SAFE_NO_PAD.decode(&key.e));
            if let (true, Ok(n), Ok(e)) = (key.kty == "RSA", n, e) {
                known.insert(key.kid, (n, e));
            }
        }
        Ok(known)
    }
}

fn decoded<T: DeserializeOwned>(part: &str) -> Result<T, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed("base64"))?;
    serde_json::from_slice(&bytes).map_err(|_| Error::Malformed("its claims"))
}

/// The claims by which a job is not the one that is wanted.
fn misfits(wanted: &GithubJob, job: &GithubJob) -> Vec<&'static str> {
    let claims = [
        ("repository_id", wanted.repository_id == job.repository_id),
        ("environment", wanted.environment == job.environment),
        ("job_workflow_ref", wanted.job_workflow_ref == job.job_workflow_ref),
    ];
    claims.into_iter().filter(|(_, fits)| !fits).map(|(name, _)| name).collect()
}
