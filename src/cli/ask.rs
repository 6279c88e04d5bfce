//! `promote`, `pause`, `resume`, `release`, `rollback`: what a person says to a running rollout.

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::offline::{self, OfflineArgs};
use super::output::{self, Format};
use super::remote::ApiArgs;
use crate::driver::clock::SystemClock;
use crate::driver::service;
use crate::engine::event::Actor;
use crate::server::dto::{CommandAnswer, CommandRequest, Verb};
use crate::server::user;
use crate::store::Store;
use crate::units::ServiceName;

/// Say something to the running rollout.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The rollout or its service; may be left out when only one is under way
    #[arg(value_name = "ROLLOUT")]
    rollout: Option<String>,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// Say yes to what waits for approval: a stage, or the way back that somebody asked for.
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Digest of the plan that you looked at; another one is refused
    #[arg(long, value_name = "DIGEST")]
    plan_digest: Option<String>,
}

/// Take the canary out everywhere.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Do it at the load balancers themselves, with the fleet file alone; a controller adopts it on its return
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    with: OfflineArgs,
}

/// Let a rollout go on that was put in quarantine.
#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    /// The service
    service: ServiceName,
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn rollback(args: RollbackArgs, format: Format) -> Result<Exit, Failure> {
    if args.offline {
        return offline::rollback(&args.with, &args.ask.api.state, format).await;
    }
    run(Verb::Rollback, args.ask, format).await
}

pub(super) async fn approve(args: ApproveArgs, format: Format) -> Result<Exit, Failure> {
    say(Verb::Approve, args.ask, args.plan_digest, format).await
}

/// Through the socket where the rollout is being driven; otherwise in the record, for the next `run --resume`.
pub(super) async fn release(args: ReleaseArgs, format: Format) -> Result<Exit, Failure> {
    if args.api.running()?.is_some() {
        let rollout = Some(args.service.to_string());
        let ask = AskArgs { rollout, reason: args.reason, api: args.api };
        return run(Verb::Release, ask, format).await;
    }
    let folder = args.api.state.folder()?;
    let store = Store::open(&folder)?;
    let by = Actor { name: user(), note: None };
    service::release(&store, &SystemClock::new(), &args.service, by).await?;
    let answer = CommandAnswer { changed: true, reason: None };
    output::emit(format, &answer, |_| {
        format!("released; next: tidegate run --resume {}", args.service)
    })?;
    Ok(Exit::Done)
}

pub(super) async fn run(verb: Verb, args: AskArgs, format: Format) -> Result<Exit, Failure> {
    say(verb, args, None, format).await
}

async fn say(
    verb: Verb,
    args: AskArgs,
    plan_digest: Option<String>,
    format: Format,
) -> Result<Exit, Failure> {
    let remote = args.api.remote()?;
    let id = remote.one(args.rollout.as_deref()).await?.view.rollout.id;
    let request = CommandRequest { reason: args.reason, plan_digest };
    let answer = remote.command(&id, verb, &request).await?;
    output::emit(format, &answer, |answer| match (&answer.reason, verb) {
        (Some(reason), _) if answer.changed => format!("waits: {reason}"),
        (Some(reason), _) => format!("nothing changed: {reason}"),
        (None, Verb::Rollback) => "rolling back; next: tidegate watch".to_owned(),
        (None, Verb::Approve) => "approved; next: tidegate watch".to_owned(),
        (None, Verb::Pause) => "paused; next: tidegate resume, or tidegate rollback".to_owned(),
        (None, _) => "done; next: tidegate status".to_owned(),
    })?;
    Ok(Exit::Done)
}
