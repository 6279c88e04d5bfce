//! `tidegate action`: what the GitHub Action runs. One command as somebody would type it, its inputs from the environment, its
//! outcome as outputs, annotations and a step summary.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::args::Args;
use super::connect::state_dir;
use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs, PipelineArgs};
use super::remote::Remote;
use crate::engine::rollout::{Phase, Rollout};
use crate::server::SOCKET;
use crate::store::offline;
use crate::units::{RolloutId, ServiceName};
use report::Outcome;

/// Run by action.yml: reads TIDEGATE_ACTION_* and writes GITHUB_OUTPUT and GITHUB_STEP_SUMMARY.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  TIDEGATE_ACTION_COMMAND=check TIDEGATE_ACTION_PIPELINE=pipelines/first.yaml tidegate action"
)]
pub(super) struct ActionArgs {
    #[command(flatten)]
    inputs: Inputs,
}

/// The action's inputs. What is empty was not given.
#[derive(Debug, clap::Args)]
struct Inputs {
    /// check, plan, run, start, watch, promote, approve, pause, resume or rollback
    #[arg(long, env = "TIDEGATE_ACTION_COMMAND", default_value = "run")]
    command: String,
    /// The pipeline
    #[arg(long, env = "TIDEGATE_ACTION_PIPELINE", default_value = "")]
    pipeline: String,
    /// The service
    #[arg(long, env = "TIDEGATE_ACTION_SERVICE", default_value = "")]
    service: String,
    /// The version
    #[arg(long, env = "TIDEGATE_ACTION_VERSION", default_value = "")]
    version: String,
    /// The operator's file
    #[arg(long, env = "TIDEGATE_ACTION_FLEET", default_value = "tidegate.yaml")]
    fleet: PathBuf,
    /// Folder of the analyses
    #[arg(long, env = "TIDEGATE_ACTION_ANALYSIS", default_value = "")]
    analysis: String,
    /// A daemon elsewhere
    #[arg(long, env = "TIDEGATE_ACTION_SERVER", default_value = "")]
    server: String,
    /// Digest of the plan that was looked at
    #[arg(long, env = "TIDEGATE_ACTION_PLAN_DIGEST", default_value = "")]
    plan_digest: String,
    /// State directory
    #[arg(long, env = "TIDEGATE_ACTION_STATE_DIR", default_value = "")]
    state_dir: String,
    /// Why
    #[arg(long, env = "TIDEGATE_ACTION_REASON", default_value = "")]
    reason: String,
    /// Minutes after which it hands over
    #[arg(long, env = "TIDEGATE_ACTION_TIME_LIMIT", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    time_limit: u64,
    /// Handing over is no failure
    #[arg(long, env = "TIDEGATE_ACTION_ALLOW_HANDOVER", default_value = "false", action = clap::ArgAction::Set)]
    allow_handover: bool,
}

pub(super) async fn run(args: ActionArgs) -> Result<Exit, Failure> {
    let inputs = args.inputs;
    if inputs.command == "check" {
        return check(&inputs);
    }
    let folder = inputs.folder()?;
    let line = inputs.command_line(&folder)?;
    let parsed = Args::try_parse_from(&line)
        .map_err(|error| Failure::new(error.to_string().trim().to_owned()).exit(Exit::Usage))?;
    // Nothing that is printed meanwhile is a command to the runner.
    let guard = report::Guard::new()?;
    let limit = Duration::from_secs(inputs.time_limit * 60);
    let done = tokio::time::timeout(limit, Box::pin(super::dispatch(parsed))).await;
    drop(guard);
    let ended = match done {
        Ok(ended) => ended,
        Err(_) => Ok(Exit::TimedOut),
    };
    let state = inputs.state(&folder).await;
    let mut outcome = Outcome::of(&inputs.command, &ended, state.as_ref());
    if let (Some(server), Some(state)) = (given(&inputs.server), &state) {
        outcome.url = format!("{}/v1/rollouts/{}", server.trim_end_matches('/'), state.id);
    }
    report::write(&outcome, state.as_ref())?;
    match ended {
        Ok(Exit::Waiting | Exit::Undecided | Exit::TimedOut) if inputs.allow_handover => {
            Ok(Exit::Done)
        }
        ended => ended,
    }
}

/// Every problem as an annotation at its line.
fn check(inputs: &Inputs) -> Result<Exit, Failure> {
    let service = inputs.named_service()?;
    let (loaded, problems) = files::examine(&PipelineArgs {
        pipeline: PathBuf::from(&inputs.pipeline),
        service,
        analysis: given(&inputs.analysis).map(PathBuf::from),
        fleet: FleetArgs { fleet: inputs.fleet.clone() },
    });
    problems.iter().for_each(report::annotate);
    let exit = if loaded.is_some() { Exit::Done } else { Exit::Usage };
    report::write(&Outcome::checked(loaded.as_ref().map(|it| &it.plan)), None)?;
    Ok(exit)
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

impl Inputs {
    fn named_service(&self) -> Result<Option<ServiceName>, Failure> {
        let parse = |name: &str| name.parse::<ServiceName>();
        let named = given(&self.service).map(parse).transpose();
        named.map_err(|error| Failure::new(error.to_string()).exit(Exit::Usage))
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = given(&self.state_dir) {
            return Ok(PathBuf::from(folder));
        }
        if given(&self.server).is_some() {
            return Ok(PathBuf::new());
        }
        let fleet = files::fleet(&FleetArgs { fleet: self.fleet.clone() })?;
        Ok(state_dir(&fleet, None))
    }

    /// What somebody would have typed. A rollout of the same version that is under way here is gone on with.
    fn command_line(&self, folder: &std::path::Path) -> Result<Vec<String>, Failure> {
        let mut line = vec!["tidegate".to_owned(), self.command.clone()];
        let mut option = |name: &str, value: Option<&str>| {
            line.extend(
                value.map(|value| [name.to_owned(), value.to_owned()]).into_iter().flatten(),
            );
        };
        let fleet = self.fleet.display().to_string();
        let state = folder.display().to_string();
        let (service, version) = (given(&self.service), given(&self.version));
        let server = given(&self.server);
        let state = Some(state.as_str()).filter(|_| server.is_none());
        if !matches!(self.command.as_str(), "plan" | "run") {
            option("--server", server);
        }
        match self.command.as_str() {
            "plan" => option("--service", service),
            "run" if self.is_open(folder)? => {
                option("--resume", service);
                option("--state", state);
            }
            "run" | "start" => {
                option("--service", service);
                option("--version", version);
                option("--analysis", given(&self.analysis));
                option("--state", state);
                if self.command == "start" {
                    option("--plan-digest", given(&self.plan_digest));
                }
            }
            "watch" => {
                option("--service", service);
                option("--state", state);
            }
            "promote" | "approve" | "pause" | "resume" | "rollback" => {
                option("--reason", given(&self.reason));
                option("--state", state);
                if self.command == "approve" {
                    option("--plan-digest", given(&self.plan_digest));
                }
            }
            other => {
                return Err(Failure::new(format!("`{other}` is no command of the action"))
                    .exit(Exit::Usage)
                    .help(
                        "check, plan, run, start, watch, promote, approve, pause, resume, rollback",
                    ));
            }
        }
        option("--fleet", Some(&fleet));
        match self.command.as_str() {
            "run" if line.iter().any(|it| it == "--resume") => {}
            "plan" | "run" | "start" => line.insert(2, self.pipeline.clone()),
            "promote" | "approve" | "pause" | "resume" | "rollback" if service.is_some() => {
                line.insert(2, self.service.clone());
            }
            _ => {}
        }
        if self.command == "start" {
            line.push("--wait".to_owned());
        }
        Ok(line)
    }

    fn is_open(&self, folder: &std::path::Path) -> Result<bool, Failure> {
        let Some(service) = self.named_service()? else { return Ok(false) };
        let known = offline::remembered(folder);
        let open = known.open.get(&service);
        Ok(open
            .is_some_and(|open| open.version.as_str() == self.version || self.version.is_empty()))
    }

    /// How the service's newest rollout stands, if that can be known.
    async fn state(&self, folder: &std::path::Path) -> Option<Rollout> {
        let service = self.named_service().ok().flatten();
        if let Some(server) = given(&self.server) {
            let named = service.as_ref().map(ServiceName::as_str);
            let listed = Remote::elsewhere(server).ok()?.one(named).await.ok()?;
            return Some(listed.view.rollout);
        }
        if folder.join(SOCKET).exists() {
            let named = service.as_ref().map(ServiceName::as_str);
            let listed = Remote::new(folder).ok()?.one(named).await.ok()?;
            return Some(listed.view.rollout);
        }
        let known = offline::remembered(folder);
        let state = match service {
            Some(service) => known.services.get(&service).cloned(),
            None => known.services.into_values().next(),
        }?;
        let id = RolloutId { service: state.name, number: state.rollouts };
        let facts = offline::facts(folder, &id.service, Some(&id)).ok()?;
        Rollout::fold(facts.iter().map(|(_, fact)| fact))
    }
}

/// The phase as the output `state` names it.
fn named(state: &Rollout) -> &'static str {
    match state.phase {
        Phase::Promoted | Phase::Retired => "promoted",
        Phase::RolledBack => "rolled_back",
        _ => "running",
    }
}
