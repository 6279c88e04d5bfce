//! `tidegate check`: every problem of a pipeline, its analyses and the fleet, at once.

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, PipelineArgs};
use super::output::{self, Format};
use crate::spec::{Diagnostics, Severity};

/// Check a pipeline against a fleet.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate check pipelines/multi-region.yaml --fleet examples/envoy/fleet.yaml"
)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    files: PipelineArgs,
    /// Warnings are errors, too
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Checked<'a> {
    ok: bool,
    digest: Option<String>,
    problems: &'a Diagnostics,
}

pub(super) fn run(args: &CheckArgs, format: Format) -> Result<Exit, Failure> {
    let (loaded, problems) = files::examine(&args.files);
    let bad = loaded.is_none() || (args.strict && problems.count(Severity::Warning) > 0);
    if format == Format::Table {
        files::show(&problems);
    }
    let digest = loaded.as_ref().map(|loaded| loaded.plan.digest.clone());
    let checked = Checked { ok: !bad, digest, problems: &problems };
    output::emit(format, &checked, |checked| {
        let count = |severity| problems.count(severity);
        let counts = format!(
            "{} errors, {} warnings, {} notes",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note)
        );
        let next = if checked.ok { "; next: tidegate plan" } else { "" };
        format!("{}: {counts}{next}", args.files.pipeline.display())
    })?;
    Ok(if bad { Exit::Usage } else { Exit::Done })
}
