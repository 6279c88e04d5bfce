//! Talking to a running rollout through its socket, and looking into the store when none runs.

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
use crate::server::SOCKET;
use crate::server::routes::{CommandAnswer, CommandRequest, Problem};

/// Longest wait for an answer of a local process.
const ANSWER_MAX: Duration = Duration::from_secs(10);

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

/// A running rollout.
pub struct Remote {
    client: reqwest::Client,
    socket: PathBuf,
}

impl Remote {
    /// The rollout that runs on a state directory.
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

    /// What is going on.
    pub async fn view(&self) -> Result<View, Failure> {
        self.answer(self.client.get("http://tidegate/v1/rollout")).await
    }

    /// Asks for something.
    pub async fn command(&self, request: &CommandRequest) -> Result<CommandAnswer, Failure> {
        self.answer(self.client.post("http://tidegate/v1/rollout/command").json(request)).await
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
        let exit = if status.as_u16() == 403 { Exit::NotConnected } else { Exit::Error };
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
