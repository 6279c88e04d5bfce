//! `freeze`, `thaw`, `break-glass`, `review`, `retry`: what people say of a service.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, Format};
use super::remote::ApiArgs;
use super::start;
use crate::server::dto::{BreakGlassRequest, CommandAnswer, CommandRequest};
use crate::units::{RegionName, ServiceName};

/// Say something of a service to its daemon.
#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// The service
    service: ServiceName,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// One person, alone, in an emergency: pages, and has to be reviewed by somebody else.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate break-glass rollback api-gateway --region eu_west_1 --reason 'users cannot pay' --secret-file /safe/eu"
)]
pub(super) struct BreakGlassArgs {
    /// What
    #[arg(value_enum)]
    action: Action,
    /// The service
    service: ServiceName,
    /// Whose secret is used
    #[arg(long)]
    region: RegionName,
    /// Why, for the review
    #[arg(long)]
    reason: String,
    /// File with the secret; TIDEGATE_GLASS holds it otherwise
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArgs,
}

/// Never a step forward.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Action {
    /// Nothing is raised
    Pause,
    /// Back
    Rollback,
    /// Nothing is raised, and no version begins
    Freeze,
}

/// Try what was rolled back once more, with evidence of its own.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate retry api-gateway --wait")]
pub(super) struct RetryArgs {
    /// The service
    service: ServiceName,
    /// Until it is over, or waits for a person; the exit code says how it ended
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// `freeze`, `thaw` or `review`.
pub(super) async fn run(what: &str, args: ServiceArgs, format: Format) -> Result<Exit, Failure> {
    let request = CommandRequest { reason: args.reason, plan_digest: None };
    let answer = args.api.remote()?.of_service(&args.service, what, &request).await?;
    told(&answer, format)
}

fn told(answer: &CommandAnswer, format: Format) -> Result<Exit, Failure> {
    output::emit(format, answer, |answer| match &answer.reason {
        Some(reason) if !answer.changed => format!("nothing changed: {reason}"),
        Some(reason) => reason.clone(),
        None => "done; next: tidegate status".to_owned(),
    })?;
    Ok(Exit::Done)
}

pub(super) async fn break_glass(args: BreakGlassArgs, format: Format) -> Result<Exit, Failure> {
    let secret = match &args.secret_file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {}", path.display(), error.kind()))
                .exit(Exit::Usage)
        })?,
        None => std::env::var("TIDEGATE_GLASS").map_err(|_| {
            Failure::new("an emergency needs a region's secret")
                .exit(Exit::Usage)
                .help("`--secret-file FILE`, or TIDEGATE_GLASS; without a daemon: tidegate rollback --offline")
        })?,
    };
    let action = match args.action {
        Action::Pause => "pause",
        Action::Rollback => "rollback",
        Action::Freeze => "freeze",
    };
    let request = BreakGlassRequest {
        action: action.to_owned(),
        region: args.region,
        reason: args.reason,
        secret: secret.trim().to_owned(),
    };
    let answer = args.api.remote()?.of_service(&args.service, "break-glass", &request).await?;
    told(&answer, format)
}

pub(super) async fn retry(args: RetryArgs, format: Format) -> Result<Exit, Failure> {
    let remote = args.api.remote()?;
    let answer = remote.begin(&args.service, "retry").await?;
    output::emit(format, &answer, |answer| match &answer.rollout {
        Some(id) => format!("{id} is under way; next: tidegate watch --service {}", args.service),
        None => "nothing changed".to_owned(),
    })?;
    match answer.rollout {
        Some(id) if args.wait => start::wait(&remote, &id, format).await,
        _ => Ok(Exit::Done),
    }
}
