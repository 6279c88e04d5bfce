//! `explain`, `schema`, `completions`: what the program knows about itself.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::args;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use crate::spec::codes;
use crate::spec::schema::{self, Kind};

/// What a diagnostic's code means and what to do about it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate explain fleet::inline_secret")]
pub(super) struct ExplainArgs {
    /// The code; all codes are listed without one
    code: Option<String>,
}

/// The JSON Schema of a kind of file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate schema pipeline > pipeline.schema.json")]
pub(super) struct SchemaArgs {
    /// Which file
    #[arg(value_enum)]
    kind: FileKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileKind {
    Pipeline,
    Analysis,
    Fleet,
}

/// A completion script for a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate completions bash > ~/.local/share/bash-completion/completions/tidegate"
)]
pub(super) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn explain(args: &ExplainArgs) -> Result<Exit, Failure> {
    let Some(code) = &args.code else {
        for (code, _) in codes::ALL {
            output::line(code);
        }
        return Ok(Exit::Done);
    };
    let text = codes::explain(code).ok_or_else(|| {
        Failure::new(format!("there is no code `{}`", crate::units::shown(code)))
            .exit(Exit::Usage)
            .help("`tidegate explain` lists them all")
    })?;
    output::line(&text);
    Ok(Exit::Done)
}

pub(super) fn schema(args: &SchemaArgs) -> Result<Exit, Failure> {
    let kind = match args.kind {
        FileKind::Pipeline => Kind::Pipeline,
        FileKind::Analysis => Kind::Analysis,
        FileKind::Fleet => Kind::Fleet,
    };
    let text = serde_json::to_string_pretty(&schema::schema(kind));
    output::line(&text.map_err(|error| Failure::new(error.to_string()))?);
    Ok(Exit::Done)
}

pub(super) fn completions(args: &CompletionArgs) -> Exit {
    let mut command = args::Args::command();
    clap_complete::generate(args.shell, &mut command, "tidegate", &mut std::io::stdout());
    Exit::Done
}
