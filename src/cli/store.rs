//! `store`, `backup`, `restore`, `export`: what is kept, and keeping it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, BAD, Format, GOOD, styled};
use super::remote::StateArgs;
use crate::engine::event::Fact;
use crate::store::{Store, offline};
use crate::units::Seq;

/// Look after the state directory. Nothing may run on it.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Hold the state against the journal, record by record; ends with 1 on any difference
    #[command(after_help = "Example:\n  tidegate store verify --state .tidegate")]
    Verify(StateArgs),
    /// Make the state anew from the journal; the old one is kept beside it
    #[command(after_help = "Example:\n  tidegate store rebuild --state .tidegate")]
    Rebuild(StateArgs),
    /// Rewrite the journal without checkpoints that newer ones replaced (it is done by itself as well)
    #[command(after_help = "Example:\n  tidegate store compact --state .tidegate")]
    Compact(StateArgs),
    /// Go on to the newest format of the state directory, after a backup; the previous version refuses it then
    #[command(after_help = "Example:\n  tidegate store upgrade --state .tidegate")]
    Upgrade(StateArgs),
}

/// Copy the journal to a new folder, also while a rollout runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate backup backups/monday")]
pub(super) struct BackupArgs {
    /// A folder without a journal
    to: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

/// Put a backup into a state directory that has no journal.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate restore backups/monday --state .tidegate\n  tidegate restore backups/monday --verify"
)]
pub(super) struct RestoreArgs {
    /// The backup
    from: PathBuf,
    /// Only try it: restore into a folder that is thrown away, and hold state and journal against each other
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// Every fact as a line of JSON, in the order of the journal, also while a rollout runs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate export > facts.jsonl")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Serialize)]
struct Verified {
    state: PathBuf,
    differences: Vec<String>,
}

#[derive(Serialize)]
struct Rebuilt {
    state: PathBuf,
    /// Where the old state is.
    aside: Option<PathBuf>,
}

#[derive(Serialize)]
struct Compacted {
    state: PathBuf,
    bytes_before: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Copied {
    to: PathBuf,
    #[serde(flatten)]
    copied: offline::Copied,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: Seq,
    #[serde(flatten)]
    fact: &'a Fact,
}

pub(super) async fn store(args: StoreArgs, format: Format) -> Result<Exit, Failure> {
    match args.command {
        StoreCommand::Verify(state) => verify(&existing(&state)?, format),
        StoreCommand::Rebuild(state) => rebuild(&existing(&state)?, format),
        StoreCommand::Compact(state) => compact(&existing(&state)?, format).await,
        StoreCommand::Upgrade(state) => upgrade(&existing(&state)?, format),
    }
}

/// The state directory; a command that looks after one does not make it.
fn existing(args: &StateArgs) -> Result<PathBuf, Failure> {
    let folder = args.folder()?;
    if folder.join("journal").is_dir() {
        return Ok(folder);
    }
    Err(Failure::new(format!("there is no journal in {}", folder.display()))
        .help("--state names the state directory"))
}

fn verify(folder: &Path, format: Format) -> Result<Exit, Failure> {
    let differences = Store::open(folder)?.verify()?;
    let exit = if differences.is_empty() { Exit::Done } else { Exit::Error };
    let verified = Verified { state: folder.to_owned(), differences };
    output::emit(format, &verified, |verified| {
        if verified.differences.is_empty() {
            return format!("{}: state and journal agree", styled(GOOD, "well"));
        }
        let differences = verified.differences.join("\n");
        format!(
            "{differences}\n{}: `tidegate store rebuild` makes the state anew",
            styled(BAD, "the state is not what the journal says")
        )
    })?;
    Ok(exit)
}

fn rebuild(folder: &Path, format: Format) -> Result<Exit, Failure> {
    let aside = offline::set_state_aside(folder)?;
    Store::open(folder)?;
    let rebuilt = Rebuilt { state: folder.to_owned(), aside };
    output::emit(format, &rebuilt, |rebuilt| match &rebuilt.aside {
        Some(aside) => format!("made anew; the old state is {}", aside.display()),
        None => "made anew".to_owned(),
    })?;
    Ok(Exit::Done)
}

async fn compact(folder: &Path, format: Format) -> Result<Exit, Failure> {
    let store = Store::open(folder)?;
    let (bytes_before, _) = store.bytes()?;
    store.compact().await?;
    let (bytes, _) = store.bytes()?;
    let compacted = Compacted { state: folder.to_owned(), bytes_before, bytes };
    output::emit(format, &compacted, |it| {
        format!("the journal had {} bytes and has {}", it.bytes_before, it.bytes)
    })?;
    Ok(Exit::Done)
}

fn upgrade(folder: &Path, format: Format) -> Result<Exit, Failure> {
    let upgraded = offline::upgrade(folder)?;
    output::emit(format, &upgraded, |it| match &it.backup {
        Some(backup) => {
            format!("format {} is format {} now; as it was: {}", it.from, it.to, backup.display())
        }
        None => format!("it has format {} already", it.to),
    })?;
    Ok(Exit::Done)
}

pub(super) fn backup(args: &BackupArgs, format: Format) -> Result<Exit, Failure> {
    let copied = offline::backup(&existing(&args.state)?, &args.to)?;
    said(format, &args.to, copied)
}

pub(super) fn restore(args: &RestoreArgs, format: Format) -> Result<Exit, Failure> {
    if args.verify {
        let folder = tempfile::tempdir().map_err(|error| Failure::new(error.to_string()))?;
        offline::restore(&args.from, folder.path())?;
        return verify(folder.path(), format);
    }
    let folder = args.state.folder()?;
    let copied = offline::restore(&args.from, &folder)?;
    said(format, &folder, copied)
}

fn said(format: Format, to: &Path, copied: offline::Copied) -> Result<Exit, Failure> {
    output::emit(format, &Copied { to: to.to_owned(), copied }, |it| {
        format!("{} records, {} bytes in {}", it.copied.records, it.copied.bytes, it.to.display())
    })?;
    Ok(Exit::Done)
}

pub(super) fn export(args: &ExportArgs) -> Result<Exit, Failure> {
    let folder = existing(&args.state)?;
    offline::each_fact(&folder, |seq, fact| output::json_line(&Line { seq, fact }))?;
    Ok(Exit::Done)
}
