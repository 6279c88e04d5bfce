//! `tidegate run`: the engine in the foreground.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::connect::{Connection, connect};
use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs, PipelineArgs};
use super::output::{self, Format, note};
use super::session::{Manner, drive, interrupted};
use super::summary::Summary;
use crate::driver::{self, service};
use crate::engine::event::Actor;
use crate::server::user;
use crate::spec::Severity;
use crate::units::{RolloutId, ServiceName, Version};

/// Roll a version out, in the foreground, until it is promoted or rolled back.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate run pipelines/multi-region.yaml --service api-gateway --version v2\n  tidegate run --resume api-gateway   # go on after an interruption"
)]
pub(super) struct RunArgs {
    /// The pipeline
    #[arg(required_unless_present = "resume")]
    pipeline: Option<PathBuf>,
    /// The service; may be left out when the fleet has only one
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// The version to roll out
    #[arg(long, required_unless_present = "resume")]
    version: Option<Version>,
    /// Go on with the rollout of this service that is under way
    #[arg(long, value_name = "SERVICE", conflicts_with_all = ["pipeline", "version"])]
    resume: Option<ServiceName>,
    /// Wait for a person even without a terminal, and keep serving weights
    #[arg(long)]
    stay: bool,
    /// Do not start when the files have warnings (exit code 8)
    #[arg(long)]
    strict: bool,
    /// Folder of the analyses [default: `analysis` beside the pipeline's folder]
    #[arg(long, value_name = "FOLDER")]
    analysis: Option<PathBuf>,
    /// State directory [default: the fleet's]
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
}

pub(super) async fn run(args: RunArgs, format: Format) -> Result<Exit, Failure> {
    let (connection, id) = match &args.resume {
        Some(service) => take_up(&args, service).await?,
        None => match begin(&args, format).await? {
            Begun::Rollout(connection, id) => (*connection, id),
            Begun::Nothing(exit) => return Ok(exit),
        },
    };
    let attended = args.stay || std::io::stdin().is_terminal();
    let manner = Manner { format, attended };
    let (exit, state) = drive(&connection, &id, manner).await?;
    connection.site.notifier.drain(std::time::Duration::from_secs(5)).await;
    let summary = Summary::of(&state, next(exit, &id));
    match format {
        Format::Table => output::line(summary.table().trim_end()),
        _ => output::json_line(&summary),
    }
    if args.stay && matches!(exit, Exit::Done | Exit::RolledBack) {
        note("staying, so that the weights go on being served; end with ctrl-c");
        // The weights are served until somebody ends this; that is what --stay asks for. How it ended is known.
        let _ = interrupted().await;
    }
    Ok(exit)
}

enum Begun {
    Rollout(Box<Connection>, RolloutId),
    Nothing(Exit),
}

#[derive(Serialize)]
struct Unchanged {
    changed: bool,
    version: Version,
    reason: String,
}

async fn begin(args: &RunArgs, format: Format) -> Result<Begun, Failure> {
    let (Some(pipeline), Some(version)) = (args.pipeline.clone(), args.version.clone()) else {
        return Err(Failure::new("a pipeline and --version are needed").exit(Exit::Usage));
    };
    let loaded = files::load(&PipelineArgs {
        pipeline,
        service: args.service.clone(),
        analysis: args.analysis.clone(),
        fleet: args.fleet.clone(),
    })?;
    let warnings = loaded.problems.count(Severity::Warning);
    if args.strict && warnings > 0 {
        files::show(&loaded.problems);
        return Err(
            Failure::new(format!("{warnings} warnings, and --strict")).exit(Exit::Undecided)
        );
    }
    if warnings > 0 && format == Format::Table {
        note(&format!("{warnings} warnings; `tidegate check` shows them"));
    }
    let connection = connect(loaded.fleet, loaded.service, args.state.as_deref()).await?;
    let by = Actor { name: user(), note: None };
    match service::start(&connection.site, loaded.plan, version, by).await {
        Ok(id) => Ok(Begun::Rollout(Box::new(connection), id)),
        Err(driver::Error::AlreadyStable(version)) => {
            let reason = format!("{version} is stable already");
            output::emit(format, &Unchanged { changed: false, version, reason }, |it| {
                it.reason.clone()
            })?;
            Ok(Begun::Nothing(Exit::Done))
        }
        Err(error) => Err(error.into()),
    }
}

async fn take_up(
    args: &RunArgs,
    service: &ServiceName,
) -> Result<(Connection, RolloutId), Failure> {
    let fleet = files::fleet(&args.fleet)?;
    let service = files::service_of(&fleet, Some(service))?;
    let connection = connect(fleet, service.clone(), args.state.as_deref()).await?;
    let known = connection.site.journal.service(&service).await?;
    let open = known.and_then(|(state, _)| state.open);
    let id = open.ok_or_else(|| Failure::new(format!("{service} has no rollout under way")))?;
    Ok((connection, id))
}

fn next(exit: Exit, id: &RolloutId) -> Option<String> {
    let service = &id.service;
    match exit {
        Exit::RolledBack => Some(format!("tidegate history {service}")),
        Exit::Waiting | Exit::Undecided | Exit::Signal(_) => Some(format!(
            "the weights stay; tidegate run --resume {service} goes on (add --stay to wait for a person)"
        )),
        _ => None,
    }
}
