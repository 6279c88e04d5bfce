//! `tidegate start`: a rollout that the daemon drives.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::files;
use super::output::{self, Format};
use super::remote::{ApiArgs, Remote};
use super::summary::Summary;
use crate::driver::supervisor::waits_for_person;
use crate::engine::rollout::{Phase, Rollout};
use crate::server::dto::{StartAnswer, StartRequest};
use crate::units::{RolloutId, ServiceName, Version};

/// Let the daemon roll a version out. It checks the files against its own fleet.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate start pipelines/multi-region.yaml --service api-gateway --version v2 --wait"
)]
pub(super) struct StartArgs {
    /// The pipeline
    pipeline: PathBuf,
    /// The service
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// The version to roll out
    #[arg(long)]
    version: Version,
    /// Until it is over, or waits for a person; the exit code says how it ended
    #[arg(long)]
    wait: bool,
    /// Folder of the analyses [default: `analysis` beside the pipeline's folder]
    #[arg(long, value_name = "FOLDER")]
    analysis: Option<PathBuf>,
    /// Digest of the plan that was looked at; another one is refused
    #[arg(long, value_name = "DIGEST")]
    plan_digest: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn run(args: StartArgs, format: Format) -> Result<Exit, Failure> {
    let (pipeline, analyses) = files::texts(&args.pipeline, args.analysis.as_deref())?;
    let remote = args.api.remote()?;
    let (service, version) = (args.service.clone(), args.version.clone());
    let plan_digest = args.plan_digest.clone();
    let answer =
        remote.start(&StartRequest { service, version, pipeline, analyses, plan_digest }).await?;
    output::emit(format, &answer, |answer| said(answer, &args))?;
    // What waits gets the next number.
    let next = |open: RolloutId| RolloutId { number: open.number + 1, ..open };
    match answer.rollout.or(answer.behind.map(next)) {
        Some(id) if args.wait => wait(&remote, &id, format).await,
        _ => Ok(Exit::Done),
    }
}

fn said(answer: &StartAnswer, args: &StartArgs) -> String {
    if let Some(open) = &answer.cancels {
        return format!("{} is stable: {open} is taken back; next: tidegate watch", args.version);
    }
    match (&answer.rollout, &answer.behind) {
        (Some(id), _) => {
            format!("{id} is under way; next: tidegate watch --service {}", args.service)
        }
        (None, Some(open)) => format!("{} begins when {open} is over", args.version),
        (None, None) => format!("{} is stable already", args.version),
    }
}

/// Looks until it is over or waits for a person.
pub(super) async fn wait(remote: &Remote, id: &RolloutId, format: Format) -> Result<Exit, Failure> {
    loop {
        let newest = remote.one(Some(id.service.as_str())).await?.view.rollout;
        if newest.id.number < id.number {
            tokio::time::sleep(Duration::from_millis(500)).await;
            continue;
        }
        let state = newest;
        let waits = state.phase != Phase::RollingBack && waits_for_person(&state);
        if state.phase.is_over() || waits {
            let exit = ended(&state);
            output::emit(format, &Summary::of(&state, None), Summary::table)?;
            return Ok(exit);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn ended(state: &Rollout) -> Exit {
    match state.phase {
        Phase::RolledBack => Exit::RolledBack,
        _ if state.phase.is_over() => Exit::Done,
        _ if state.undecided => Exit::Undecided,
        _ => Exit::Waiting,
    }
}
