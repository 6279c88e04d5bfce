//! Talking to whoever drives rollouts through a socket, and looking into the store when nobody does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect::state_dir;
use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs};
use crate::driver::view::View;
use crate::engine::event::Adopted;
use crate::server::SOCKET;
use crate::server::routes::{
    AdoptRequest, CommandAnswer, CommandRequest, Listed, Problem, StartAnswer, StartRequest,
};
use crate::units::{RolloutId, ServiceName};

/// Longest wait for an answer of a local process.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The same where load balancers have to be read first.
const ADOPT_MAX: Duration = Duration::from_secs(40);

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

/// Whoever drives rollouts on a state directory.
pub struct Remote {
    client: reqwest::Client,
    socket: PathBuf,
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
        Ok(Self { client, socket })
    }

    /// The newest rollout of every service that it knows.
    pub async fn rollouts(&self) -> Result<Vec<Listed>, Failure> {
        self.answer(self.client.get("http://tidegate/v1/rollouts")).await
    }

    /// The rollout that is meant: by its name or its service's, or the only one under way.
    pub async fn one(&self, named: Option<&str>) -> Result<Listed, Failure> {
        let all = self.rollouts().await?;
        let names: Vec<_> = all
            .iter()
            .filter(|one| one.running)
            .map(|one| one.view.rollout.id.to_string())
            .collect();
        let is_meant = |one: &Listed| match named {
            Some(name) => {
                let id = &one.view.rollout.id;
                id.to_string() == name || id.service.as_str() == name
            }
            None => one.running && names.len() == 1,
        };
        if let Some(one) = all.into_iter().find(is_meant) {
            return Ok(one);
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

    /// Asks for something.
    pub async fn command(
        &self,
        id: &RolloutId,
        request: &CommandRequest,
    ) -> Result<CommandAnswer, Failure> {
        let url = format!("http://tidegate/v1/rollouts/{id}/command");
        self.answer(self.client.post(url).json(request)).await
    }

    /// Begins a rollout.
    pub async fn start(&self, request: &StartRequest) -> Result<StartAnswer, Failure> {
        self.answer(self.client.post("http://tidegate/v1/rollouts").json(request)).await
    }

    /// Goes back from a service's last promotion.
    pub async fn undo(&self, service: &ServiceName) -> Result<StartAnswer, Failure> {
        let url = format!("http://tidegate/v1/services/{service}/undo");
        self.answer(self.client.post(url)).await
    }

    /// Takes a service over.
    pub async fn adopt(
        &self,
        service: &ServiceName,
        request: &AdoptRequest,
    ) -> Result<Adopted, Failure> {
        let url = format!("http://tidegate/v1/services/{service}/adopt");
        let request = self.client.post(url).json(request).timeout(ADOPT_MAX);
        self.answer(request).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, Failure> {
        let gone = |error: reqwest::Error| {
            Failure::new(format!(
                "no answer from {}: {}",
                self.socket.display(),
                super::failure::chain(&error)
            ))
            .exit(Exit::NotConnected)
        };
        let response = request.send().await.map_err(gone)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(gone);
        }
        let problem: Problem = response.json().await.map_err(gone)?;
        let exit = match status.as_u16() {
            403 => Exit::NotConnected,
            422 => Exit::Usage,
            _ => Exit::Error,
        };
        Err(Failure::new(problem.detail).exit(exit))
    }
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
