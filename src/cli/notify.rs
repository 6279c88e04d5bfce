//! `tidegate notify test`: whether those who should be told are.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs};
use super::output::{self, BAD, Format, GOOD, styled};
use super::remote::StateArgs;
use crate::notify::escalation::{Open, Pages};
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
        /// The targets of this level of the escalation only
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
        level: Option<u8>,
        #[command(flatten)]
        fleet: FleetArgs,
    },
    /// Pages that nobody has acknowledged
    #[command(after_help = "Example:\n  tidegate notify open")]
    Open(StateArgs),
    /// Say that you have a page in hand: nobody else is told of it
    #[command(after_help = "Example:\n  tidegate notify ack api-gateway-7/42/0badcafe")]
    Ack {
        /// Its key, as it stands in the message; `all` for every one
        key: String,
        #[command(flatten)]
        state: StateArgs,
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
    match args.command {
        NotifyCommand::Test { page, level, fleet } => test(page, level, &fleet, format).await,
        NotifyCommand::Open(state) => open(&state, format),
        NotifyCommand::Ack { key, state } => acknowledge(&key, &state, format),
    }
}

fn pages(state: &StateArgs) -> Result<(Pages, Vec<Open>), Failure> {
    let pages = Pages::of(&state.folder()?.join("outbox"));
    let open = pages.list().map_err(|error| Failure::new(error.to_string()))?;
    Ok((pages, open))
}

fn open(state: &StateArgs, format: Format) -> Result<Exit, Failure> {
    let (_, open) = pages(state)?;
    output::emit(format, &open, |open| {
        let line = |page: &Open| {
            format!("{}  level {} told  {}\n", page.notice.key, page.told, page.notice.text)
        };
        open.iter().map(line).collect()
    })?;
    Ok(Exit::Done)
}

fn acknowledge(key: &str, state: &StateArgs, format: Format) -> Result<Exit, Failure> {
    let (pages, open) = pages(state)?;
    // Who reads a message of a level has the key with the level's name behind it.
    let own = key.split("/level-").next().unwrap_or(key);
    let meant = open.iter().map(|page| &page.notice.key).filter(|it| key == "all" || *it == own);
    let mut acknowledged = Vec::new();
    for key in meant {
        if pages.acknowledge(key).map_err(|error| Failure::new(error.to_string()))? {
            acknowledged.push(key.clone());
        }
    }
    if acknowledged.is_empty() && key != "all" {
        return Err(Failure::new("there is no such page, or it is acknowledged already")
            .exit(Exit::Usage)
            .help("`tidegate notify open` lists them"));
    }
    output::emit(format, &acknowledged, |all| format!("acknowledged: {}", all.join(", ")))?;
    Ok(Exit::Done)
}

async fn test(
    page: bool,
    level: Option<u8>,
    fleet: &FleetArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let fleet = files::fleet(fleet)?;
    if fleet.notify.is_empty() {
        return Err(Failure::new("the fleet has nobody to tell").help("add `notify` to it"));
    }
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = "this is a test of Tidegate; nothing happened".to_owned();
    let notice = Waiting::new(&Notice::new(format!("test/{at}"), page, text), at);
    let mut all = Vec::new();
    let of_level = |name: &String| {
        let level = level.and_then(|level| fleet.escalation.get(usize::from(level) - 1));
        level.is_none_or(|level| {
            level.notify.contains(name) || level.regions.values().any(|names| names.contains(name))
        })
    };
    if level.is_some_and(|level| usize::from(level) > fleet.escalation.len()) {
        return Err(Failure::new("the fleet's escalation has no such level").exit(Exit::Usage));
    }
    for (name, target) in fleet.notify.iter().filter(|(name, _)| of_level(name)) {
        let page = page || level.is_some();
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
