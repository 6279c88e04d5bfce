//! `tidegate audit`: is the record whole, and what does it say.

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, BAD, Format, GOOD, styled};
use super::remote::StateArgs;
use crate::access::audit::verify::{self, Report};
use crate::units::RegionName;

/// Look into the audit: who did what, and on which numbers. Needs no daemon.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate audit verify\n  tidegate audit export --region eu_west_1 > eu_west_1.jsonl"
)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Chain, signatures, and every verdict computed again from its numbers; ends with 1 at the first wrong record
    Verify {
        /// The public key, in hex, that checkpoints have to be signed with [default: that of the first one]
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        state: StateArgs,
    },
    /// A region's records, a line of JSON each
    Export {
        /// The region
        #[arg(long)]
        region: RegionName,
        #[command(flatten)]
        state: StateArgs,
    },
}

pub(super) fn run(args: AuditArgs, format: Format) -> Result<Exit, Failure> {
    match args.what {
        What::Verify { key, state } => {
            let reports = verify::verify(&state.folder()?, key.as_deref())
                .map_err(|error| Failure::new(error.to_string()))?;
            if reports.is_empty() {
                return Err(Failure::new("there is no audit in this state directory"));
            }
            output::emit(format, &reports, |reports| {
                reports.iter().map(|report| said(report) + "\n").collect()
            })?;
            let whole = reports.iter().all(|report| report.wrong.is_none());
            Ok(if whole { Exit::Done } else { Exit::Error })
        }
        What::Export { region, state } => {
            verify::export(&state.folder()?, &region, |line| {
                output::line(line);
                Ok(())
            })
            .map_err(|error| Failure::new(error.to_string()))?;
            Ok(Exit::Done)
        }
    }
}

fn said(report: &Report) -> String {
    let Report { region, records, checkpoints, verdicts, wrong } = report;
    let counted = format!(
        "{records} records, {checkpoints} signed checkpoints, {verdicts} verdicts computed again"
    );
    match wrong {
        None => format!("{region}: {} ({counted})", styled(GOOD, "whole")),
        Some(wrong) => {
            format!(
                "{region}: {} at record {}: {} ({counted})",
                styled(BAD, "wrong"),
                wrong.seq,
                wrong.what
            )
        }
    }
}
