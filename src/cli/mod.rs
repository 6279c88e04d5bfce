//! The command line: one file per command.

mod args;
mod demo;
pub mod exit;
mod failure;
mod follow;
mod output;
mod session;
mod summary;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use exit::Exit;
use failure::Failure;

/// Parses the command line, does it, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; a closed standard output is none of ours.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    log_to_stderr(args.log.as_deref());
    // Another provider may only be there already if this ran before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no runtime: {error}")))
        .and_then(|runtime| runtime.block_on(dispatch(args)));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::note(&format!("{}: {}", output::styled(output::BAD, "error"), failure.what));
            if let Some(help) = failure.help {
                output::note(&format!("{}: {help}", output::styled(output::WARN, "help")));
            }
            failure.exit.into()
        }
    }
}

async fn dispatch(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Demo(demo) => demo::run(demo, args.output).await,
    }
}

fn log_to_stderr(filter: Option<&str>) {
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
