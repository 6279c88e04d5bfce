//! `tidegate notify test`: whether those who should be told are.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs};
use super::output::{self, BAD, Format, GOOD, styled};
use crate::notify::target::{Waiting, deliver, wants};
use crate::ports::Notice;

/// Look after who is told.
#[derive(Debug, Args)]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, Subcommand)]
enum NotifyCommand {
    /// Tell every target of the fleet that this is a test; ends with 1 if one was not told
    #[command(after_help = "Example:\n  tidegate notify test --page")]
    Test {
        /// As something that somebody has to act on
        #[arg(long)]
        page: bool,
        #[command(flatten)]
        fleet: FleetArgs,
    },
}

#[derive(Serialize)]
struct Told {
    target: String,
    told: bool,
    /// Why not, or why it does not want to be.
    why: Option<String>,
}

pub(super) async fn run(args: NotifyArgs, format: Format) -> Result<Exit, Failure> {
    let NotifyCommand::Test { page, fleet } = args.command;
    let fleet = files::fleet(&fleet)?;
    if fleet.notify.is_empty() {
        return Err(Failure::new("the fleet has nobody to tell").help("add `notify` to it"));
    }
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = "this is a test of Tidegate; nothing happened".to_owned();
    let notice = Waiting::new(&Notice { key: format!("test/{at}"), page, text }, at);
    let mut all = Vec::new();
    for (name, target) in &fleet.notify {
        let (told, why) = if wants(target, page) {
            let why = deliver(target, &notice).await.err();
            (why.is_none(), why.map(|why| why.to_string()))
        } else {
            (false, Some("wants pages only".to_owned()))
        };
        let failed = !told && wants(target, page);
        all.push((failed, Told { target: name.clone(), told, why }));
    }
    let exit = if all.iter().any(|(failed, _)| *failed) { Exit::Error } else { Exit::Done };
    let all: Vec<Told> = all.into_iter().map(|(_, told)| told).collect();
    output::emit(format, &all, |all| all.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    Ok(exit)
}

fn line(told: &Told) -> String {
    match (&told.why, told.told) {
        (_, true) => format!("{}: {}", told.target, styled(GOOD, "told")),
        (why, false) => {
            let why = why.as_deref().unwrap_or_default();
            format!("{}: {}: {why}", told.target, styled(BAD, "not told"))
        }
    }
}
