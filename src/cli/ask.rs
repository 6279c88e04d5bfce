//! `promote`, `pause`, `resume`, `rollback`: what a person says to a running rollout.

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, Format};
use super::remote::{Remote, StateArgs};
use crate::server::routes::{CommandRequest, Verb};

/// Say something to the running rollout.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// Why, for the record
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    state: StateArgs,
}

pub(super) async fn run(verb: Verb, args: AskArgs, format: Format) -> Result<Exit, Failure> {
    let remote = Remote::new(&args.state.folder()?)?;
    let answer = remote.command(&CommandRequest { command: verb, reason: args.reason }).await?;
    output::emit(format, &answer, |answer| match (&answer.reason, verb) {
        (Some(reason), _) => format!("nothing changed: {reason}"),
        (None, Verb::Rollback) => {
            "rolling back (approval not enforced: local run); next: tidegate watch".to_owned()
        }
        (None, Verb::Pause) => "paused; next: tidegate resume, or tidegate rollback".to_owned(),
        (None, _) => "done; next: tidegate status".to_owned(),
    })?;
    Ok(Exit::Done)
}
