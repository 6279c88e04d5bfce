//! The API server: bounded calls as the kubeconfig's user, and what a failure means for the effect.

use std::error::Error as _;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, header};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::ports::{LoadBalancerError, Outcome};
use crate::spec::fleet::Kubernetes;
use crate::units::shown_lines;

/// Longest time for one call.
const CALL_MAX: Duration = Duration::from_secs(3);
/// Longest time for getting ready: a kubeconfig may name a program that fetches a token.
const READY_MAX: Duration = Duration::from_secs(5);
/// Longest answer; an object has at most 1.5 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Most characters of a refusal that are shown.
const WORDS_MAX: usize = 300;
/// Where the words about a field begin that the cluster's definition does not have.
const UNKNOWN_FIELD: &str = "strict decoding error";
/// Only names and labels of a list's objects, not all of them.
const METADATA_ALONE: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// The API server of a cluster.
pub struct ApiServer {
    label: String,
    settings: Kubernetes,
    /// Made at the first use, and again when it is not let in any more.
    client: Mutex<Option<Client>>,
}

/// What is asked for.
struct Call<'a> {
    method: Method,
    path: &'a str,
    accept: &'static str,
    patch: Option<String>,
}

impl ApiServer {
    /// For a target of the fleet; nothing is read or asked yet.
    pub fn new(label: String, settings: &Kubernetes) -> Self {
        Self { label, settings: settings.clone(), client: Mutex::new(None) }
    }

    /// An error about this target.
    pub fn failure(&self, what: impl std::fmt::Display, outcome: Outcome) -> LoadBalancerError {
        LoadBalancerError { target: self.label.clone(), what: what.to_string(), outcome }
    }

    /// An object.
    pub async fn get(&self, path: &str) -> Result<Value, LoadBalancerError> {
        let call = Call { method: Method::GET, path, accept: "application/json", patch: None };
        let (status, body) = self.call(&call).await?;
        self.taken(&call, status, &body)
    }

    /// A list; `None` where we may not look, or where there is no such thing.
    pub async fn list(
        &self,
        path: &str,
        metadata_alone: bool,
    ) -> Result<Option<Value>, LoadBalancerError> {
        let accept = if metadata_alone { METADATA_ALONE } else { "application/json" };
        let call = Call { method: Method::GET, path, accept, patch: None };
        let (status, body) = self.call(&call).await?;
        if matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        self.taken(&call, status, &body).map(Some)
    }

    /// A JSON patch; `false` when the object is not the one any more that the patch was made for.
    ///
    /// A field that the cluster's definition does not have is refused. Dropped without a word, as it is by default, it would
    /// leave the rest to mean something else: a filter without its fraction copies everything.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<bool, LoadBalancerError> {
        let manager = &self.settings.field_manager;
        self.patched(&format!("{path}?fieldValidation=Strict&fieldManager={manager}"), patch).await
    }

    /// The same as far as the server goes without keeping anything: rights, admission, validation.
    pub async fn dry_patch(&self, path: &str, patch: &Value) -> Result<bool, LoadBalancerError> {
        let manager = &self.settings.field_manager;
        let query = format!("dryRun=All&fieldValidation=Strict&fieldManager={manager}");
        self.patched(&format!("{path}?{query}"), patch).await
    }

    async fn patched(&self, path: &str, patch: &Value) -> Result<bool, LoadBalancerError> {
        let patch = Some(patch.to_string());
        let call = Call { method: Method::PATCH, path, accept: "application/json", patch };
        let (status, body) = self.call(&call).await?;
        if status == StatusCode::CONFLICT {
            return Ok(false);
        }
        self.taken(&call, status, &body).map(|_| true)
    }

    async fn call(&self, call: &Call<'_>) -> Result<(StatusCode, Vec<u8>), LoadBalancerError> {
        let mut answer = self.exchange(&self.client(false).await?, call).await?;
        if answer.0 == StatusCode::UNAUTHORIZED {
            // Nothing was done. What let us in may have run out: there may be something newer now.
            answer = self.exchange(&self.client(true).await?, call).await?;
        }
        Ok(answer)
    }

    async fn exchange(
        &self,
        client: &Client,
        call: &Call<'_>,
    ) -> Result<(StatusCode, Vec<u8>), LoadBalancerError> {
        let lost = call.lost();
        let request = Request::builder()
            .method(call.method.clone())
            .uri(call.path)
            .header(header::ACCEPT, call.accept)
            .header(header::CONTENT_TYPE, "application/json-patch+json")
            .body(Body::from(call.patch.clone().unwrap_or_default().into_bytes()))
            .map_err(|_| self.failure("this is no path", Outcome::Misconfigured))?;
        let exchanged = async {
            let sent = client.send(request).await;
            let response = sent.map_err(|error| self.unanswered(&error, lost))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let broken = |_| self.failure("the answer broke off or is too long", lost);
            Ok((status, body.map_err(broken)?.to_bytes().to_vec()))
        };
        let late = |_| self.failure("no complete answer in time", lost);
        tokio::time::timeout(CALL_MAX, exchanged).await.map_err(late)?
    }

    /// Ready to call; `fresh`: with what the kubeconfig says now.
    async fn client(&self, fresh: bool) -> Result<Client, LoadBalancerError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|_| !fresh) {
            return Ok(client.clone());
        }
        let wrong = |what: &str| self.failure(what, Outcome::Misconfigured);
        let mut config = config(&self.settings).await.map_err(wrong)?;
        // What was asked is looked at before it is asked again, and that is for the controller to decide.
        config.default_retry = false;
        config.connect_timeout = Some(CALL_MAX);
        config.proxy_url = None;
        // Fails only when another provider was installed first, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // It may run a program of the kubeconfig's, and waits for it.
        let made = tokio::task::spawn_blocking(move || Client::try_from(config));
        let made = tokio::time::timeout(READY_MAX, made).await;
        let made = made.map_err(|_| self.failure("no credentials in time", Outcome::NotSent))?;
        let client = made
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| wrong("the kubeconfig's credentials or certificates cannot be used"))?;
        *kept = Some(client.clone());
        Ok(client)
    }

    fn unanswered(&self, error: &kube::Error, lost: Outcome) -> LoadBalancerError {
        if matches!(error, kube::Error::Auth(_)) {
            return self.failure("the credentials cannot be had", Outcome::Misconfigured);
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            let sent = error.downcast_ref::<hyper_util::client::legacy::Error>();
            if sent.is_some_and(hyper_util::client::legacy::Error::is_connect) {
                return self.failure("no connection", Outcome::NotSent);
            }
            cause = error.source();
        }
        self.failure("the connection broke or the answer is not HTTP", lost)
    }

    /// The answer as JSON, or what the server has against it.
    fn taken(
        &self,
        call: &Call<'_>,
        status: StatusCode,
        body: &[u8],
    ) -> Result<Value, LoadBalancerError> {
        let lost = call.lost();
        let body: Option<Value> = serde_json::from_slice(body).ok();
        if status.is_success() {
            return body.ok_or_else(|| self.failure("an answer that is not JSON", lost));
        }
        let said = body.as_ref().and_then(|body| body.get("message")?.as_str()).map(words);
        let outcome = match status.as_u16() {
            401 | 403 | 404 | 405 => Outcome::Misconfigured,
            // A list that went stale between two pages; too many who ask: nothing was done.
            410 | 429 => Outcome::NotSent,
            // It may have done it before it broke.
            500.. => lost,
            _ => Outcome::Refused,
        };
        let what = match (status.as_u16(), said) {
            (401, _) => "it does not know who we are (401)".to_owned(),
            (404, None) => "the cluster does not know this kind of object".to_owned(),
            (_, Some(said)) => said,
            (code, None) => format!("it answers {code}"),
        };
        Err(self.failure(what, outcome))
    }
}

/// What a server said, short enough and safe to show; who may not do what stands late in its sentences. What it does not
/// know stands behind the whole object.
fn words(said: &str) -> String {
    let said = said.rfind(UNKNOWN_FIELD).map_or(said, |at| &said[at..]);
    let words: Vec<_> = said.split_whitespace().collect();
    let words: String = words.join(" ").chars().take(WORDS_MAX).collect();
    shown_lines(&words)
}

impl Call<'_> {
    /// What is known of the effect when no answer comes.
    fn lost(&self) -> Outcome {
        if self.method == Method::GET { Outcome::NotSent } else { Outcome::Unknown }
    }
}

/// Where the server is and who we are there. The words say nothing of what stands in the file.
async fn config(settings: &Kubernetes) -> Result<Config, &'static str> {
    let options = KubeConfigOptions { context: settings.context.clone(), ..Default::default() };
    let said = |error| match error {
        KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath => {
            "the kubeconfig cannot be read"
        }
        KubeconfigError::LoadContext(_) | KubeconfigError::CurrentContextNotSet => {
            "the kubeconfig has no such context"
        }
        KubeconfigError::LoadClusterOfContext(_) | KubeconfigError::MissingClusterUrl => {
            "the kubeconfig does not say where the context's cluster is"
        }
        _ => "the kubeconfig cannot be used",
    };
    match (&settings.kubeconfig, &settings.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(said)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(said)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(said),
        (None, None) => {
            let nowhere = |_| "neither a kubeconfig nor a pod's service account is here";
            Config::infer().await.map_err(nowhere)
        }
    }
}
