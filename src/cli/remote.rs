//! Talking to whoever drives rollouts, through its socket or over the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::connect::state_dir;
use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs};
use crate::driver::view::View;
use crate::engine::event::{Adopted, Fact};
use crate::server::SOCKET;
use crate::server::dto::{
    AdoptRequest, CommandAnswer, CommandRequest, Listed, Page, Row, StartAnswer, StartRequest, Verb,
};
use crate::server::problem::Problem;
use crate::units::{RolloutId, Seq, ServiceName};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The same where load balancers have to be read first.
const ADOPT_MAX: Duration = Duration::from_secs(40);
/// The same of who gives tokens to jobs.
const TOKEN_MAX: crate::units::Millis = crate::units::Millis::from_secs(10);
/// Longest file with a token or a certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the state is.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// State directory [default: the fleet's]
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_STATE")]
    pub state: Option<PathBuf>,
    #[command(flatten)]
    pub fleet: FleetArgs,
}

impl StateArgs {
    /// The state directory that is meant. No fleet file is needed when it is named.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.state {
            Some(folder) => Ok(folder.clone()),
            None => files::fleet(&self.fleet).map(|fleet| state_dir(&fleet, None)),
        }
    }
}

/// Where a daemon elsewhere is, and who comes. A token is read from TIDEGATE_TOKEN or a file, never from an argument.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// A daemon elsewhere [default: the one on the state directory]
    #[arg(long, value_name = "URL", env = "TIDEGATE_SERVER")]
    pub server: Option<String>,
    /// File with the token; TIDEGATE_TOKEN holds it otherwise
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Authority of the daemon's certificate, PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA")]
    pub ca: Option<PathBuf>,
    /// Client certificate and its key in one file, PEM
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CLIENT_CERTIFICATE")]
    pub client_certificate: Option<PathBuf>,
}

/// Which daemon is meant.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

impl ApiArgs {
    /// The daemon that is meant.
    pub fn remote(&self) -> Result<Remote, Failure> {
        match &self.server.server {
            Some(url) => Remote::over_network(url, &self.server),
            None => Remote::new(&self.state.folder()?),
        }
    }

    /// The daemon that is meant, if one is; none: what is recorded has to do.
    pub fn running(&self) -> Result<Option<Remote>, Failure> {
        if self.server.server.is_some() || self.state.folder()?.join(SOCKET).exists() {
            return self.remote().map(Some);
        }
        Ok(None)
    }
}

/// Whoever drives rollouts.
pub struct Remote {
    client: reqwest::Client,
    base: String,
    name: String,
    token: Mutex<Option<HeaderValue>>,
    job: Option<Job>,
}

/// A job of GitHub Actions that may ask for tokens of its own; each counts for some minutes only.
struct Job {
    url: String,
    bearer: HeaderValue,
}

impl Job {
    /// The one that this process runs in, if it does.
    fn of_this_process() -> Option<Self> {
        let url = std::env::var("ACTIONS_ID_TOKEN_REQUEST_URL").ok()?;
        let bearer = std::env::var("ACTIONS_ID_TOKEN_REQUEST_TOKEN").ok()?;
        let audience = std::env::var("TIDEGATE_AUDIENCE").unwrap_or_default();
        let audience = if audience.is_empty() { "tidegate" } else { &audience };
        let join = if url.contains('?') { '&' } else { '?' };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {bearer}")).ok()?;
        bearer.set_sensitive(true);
        Some(Self { url: format!("{url}{join}audience={audience}"), bearer })
    }

    async fn token(&self) -> Result<HeaderValue, Failure> {
        #[derive(serde::Deserialize)]
        struct Given {
            value: String,
        }
        let failed = |what: &str| {
            Failure::new(format!("no token from GitHub Actions: {what}")).exit(Exit::NotConnected)
        };
        let client = crate::http::client(&self.url, TOKEN_MAX, None)
            .map_err(|error| failed(&error.to_string()))?;
        let request = client.get(&self.url).header(AUTHORIZATION, self.bearer.clone());
        let answer = request.send().await.map_err(|_| failed("no answer"))?;
        let given: Given = answer.json().await.map_err(|_| failed("not an answer of its"))?;
        bearer(&given.value)
    }
}

impl Remote {
    /// The process that runs on a state directory.
    pub fn new(state: &Path) -> Result<Self, Failure> {
        let socket = state.join(SOCKET);
        if !socket.exists() {
            return Err(Failure::new(format!("nothing runs on {}", state.display()))
                .exit(Exit::NotConnected)
                .help("`tidegate run` starts or goes on with a rollout; `tidegate status` shows what is recorded"));
        }
        let client = reqwest::Client::builder()
            .unix_socket(socket.clone())
            .timeout(ANSWER_MAX)
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        let name = socket.display().to_string();
        let (base, token) = ("http://localhost".to_owned(), Mutex::new(None));
        Ok(Self { client, base, name, token, job: None })
    }

    /// A daemon elsewhere, with the token that the environment holds.
    pub fn elsewhere(url: &str) -> Result<Self, Failure> {
        let path =
            |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let args = ServerArgs {
            server: Some(url.to_owned()),
            token_file: path("TIDEGATE_TOKEN_FILE"),
            ca: path("TIDEGATE_CA"),
            client_certificate: path("TIDEGATE_CLIENT_CERTIFICATE"),
        };
        Self::over_network(url, &args)
    }

    fn over_network(url: &str, args: &ServerArgs) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::new(what).exit(Exit::Usage);
        let parsed =
            crate::http::checked_url(url).map_err(|error| wrong(format!("`--server`: {error}")))?;
        let loopback = parsed.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost"
                || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        if parsed.scheme() == "http" && !loopback {
            return Err(wrong("a token goes over https only".to_owned())
                .help("write https://..., or listen on loopback"));
        }
        let mut builder = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &args.ca {
            let pem = read(path)?;
            let all = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|_| wrong(format!("{} holds no certificate", path.display())))?;
            builder = builder.tls_certs_only(all);
        }
        if let Some(path) = &args.client_certificate {
            let identity = reqwest::Identity::from_pem(read(path)?.as_bytes()).map_err(|_| {
                wrong(format!("{} holds no certificate with its key", path.display()))
            })?;
            builder = builder.identity(identity);
        }
        if parsed.scheme() == "http" {
            // A machine without certificate authorities must still reach a daemon on loopback.
            let tls = rustls::ClientConfig::builder()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder = builder.tls_backend_preconfigured(tls);
        }
        let client = builder.build().map_err(|error| Failure::new(error.to_string()))?;
        let base = url.trim_end_matches('/').to_owned();
        let token = token(args)?;
        let job = if token.is_none() { Job::of_this_process() } else { None };
        Ok(Self { client, name: base.clone(), base, token: Mutex::new(token), job })
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    /// The newest rollout of every service that may be seen, in short.
    pub async fn rows(&self) -> Result<Vec<Row>, Failure> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: Page =
                self.answer(self.get(&format!("/v1/rollouts?limit=200{cursor}"))).await?;
            rows.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(rows),
            }
        }
    }

    /// The rollout that is meant: by its name or its service's, or the only one under way.
    pub async fn one(&self, named: Option<&str>) -> Result<Listed, Failure> {
        if let Some(name) = named {
            if let Ok(id) = name.parse::<RolloutId>()
                && let Some(found) = self.found(&format!("/v1/rollouts/{id}")).await?
            {
                return Ok(found);
            }
            if let Ok(service) = name.parse::<ServiceName>()
                && let Some(found) = self.found(&format!("/v1/services/{service}")).await?
            {
                return Ok(found);
            }
        }
        let rows = self.rows().await?;
        let running: Vec<_> = rows.iter().filter(|row| row.running).collect();
        let names: Vec<_> = running.iter().map(|row| row.rollout.to_string()).collect();
        if let (None, [only]) = (named, running.as_slice()) {
            return self.answer(self.get(&format!("/v1/rollouts/{}", only.rollout))).await;
        }
        Err(match (named, names.is_empty()) {
            (Some(name), _) => Failure::new(format!("there is no rollout `{name}`"))
                .exit(Exit::Usage)
                .help(format!("under way: {}", names.join(", "))),
            (None, true) => Failure::new("no rollout is under way").exit(Exit::NotConnected),
            (None, false) => Failure::new("which rollout?")
                .exit(Exit::Usage)
                .help(format!("name one of: {}", names.join(", "))),
        })
    }

    /// None where there is nothing, or nothing that may be seen.
    async fn found(&self, path: &str) -> Result<Option<Listed>, Failure> {
        let response = self.send(self.get(path)).await?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(response).await.map(Some)
    }

    /// The facts of a service, oldest first, at most so many of the newest.
    pub async fn history(
        &self,
        service: &ServiceName,
        limit: u32,
    ) -> Result<Vec<(Seq, Fact)>, Failure> {
        self.answer(self.get(&format!("/v1/services/{service}/history?limit={limit}"))).await
    }

    /// Asks a rollout for something.
    pub async fn command(
        &self,
        id: &RolloutId,
        verb: Verb,
        request: &CommandRequest,
    ) -> Result<CommandAnswer, Failure> {
        let path = format!("/v1/rollouts/{id}/{}", verb.path());
        self.answer(self.post(&path).json(request)).await
    }

    /// Asks something of a service.
    pub async fn of_service(
        &self,
        service: &ServiceName,
        what: &str,
        request: &impl Serialize,
    ) -> Result<CommandAnswer, Failure> {
        let path = format!("/v1/services/{service}/{what}");
        self.answer(self.post(&path).json(request)).await
    }

    /// Whether who asks may do something.
    pub async fn can_i(
        &self,
        permission: &str,
        service: &ServiceName,
        region: Option<&str>,
    ) -> Result<crate::server::dto::CanAnswer, Failure> {
        let region = region.map_or_else(String::new, |region| format!("&region={region}"));
        let query = format!("permission={permission}&service={service}{region}");
        self.answer(self.get(&format!("/v1/access/can-i?{query}"))).await
    }

    /// Begins a rollout.
    pub async fn start(&self, request: &StartRequest) -> Result<StartAnswer, Failure> {
        self.answer(self.post("/v1/rollouts").json(request)).await
    }

    /// Goes back from a service's last promotion, or tries once more what was rolled back.
    pub async fn begin(&self, service: &ServiceName, what: &str) -> Result<StartAnswer, Failure> {
        self.answer(self.post(&format!("/v1/services/{service}/{what}"))).await
    }

    /// Takes a service over.
    pub async fn adopt(
        &self,
        service: &ServiceName,
        request: &AdoptRequest,
    ) -> Result<Adopted, Failure> {
        let request = self.post(&format!("/v1/services/{service}/adopt")).json(request);
        self.answer(request.timeout(ADOPT_MAX)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let again = request.try_clone();
        let answer = self.send_once(request, false).await?;
        match again {
            // A job's token counts for some minutes; a rollout takes longer.
            Some(again) if answer.status() == 401 && self.job.is_some() => {
                self.send_once(again, true).await
            }
            _ => Ok(answer),
        }
    }

    async fn send_once(
        &self,
        request: reqwest::RequestBuilder,
        fresh: bool,
    ) -> Result<reqwest::Response, Failure> {
        let mut token = self.token.lock().await;
        if let Some(job) = &self.job
            && (fresh || token.is_none())
        {
            *token = Some(job.token().await?);
        }
        let request = match token.clone() {
            Some(token) => request.header(AUTHORIZATION, token),
            None => request,
        };
        drop(token);
        request.send().await.map_err(|error| self.gone(&error))
    }

    fn gone(&self, error: &reqwest::Error) -> Failure {
        let why = super::failure::chain(error);
        Failure::new(format!("no answer from {}: {why}", self.name)).exit(Exit::NotConnected)
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Failure> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, Failure> {
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(|error| self.gone(&error));
        }
        let problem: Problem = response.json().await.map_err(|error| self.gone(&error))?;
        let failure = Failure::new(crate::units::shown_lines(&problem.detail));
        Err(match status.as_u16() {
            401 => failure.exit(Exit::NotConnected).help(
                "set TIDEGATE_TOKEN or --token-file; `tidegate auth token create` makes one where the daemon runs",
            ),
            403 => failure.exit(Exit::NotConnected),
            422 => failure.exit(Exit::Usage),
            _ => failure.exit(Exit::Error),
        })
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot read {}: {}", path.display(), error.kind())).exit(Exit::Usage)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn token(args: &ServerArgs) -> Result<Option<HeaderValue>, Failure> {
    let text = match &args.token_file {
        Some(path) => Some(read(path)?),
        None => std::env::var("TIDEGATE_TOKEN").ok(),
    };
    let Some(text) = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    bearer(&text).map(Some)
}

fn bearer(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| {
        Failure::new("the token holds characters that no header may have").exit(Exit::Usage)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a command prints besides its answer.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    /// Whether a process drives it now.
    pub running: bool,
    /// The view.
    #[serde(flatten)]
    pub view: &'a View,
}
