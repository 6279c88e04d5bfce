//! The command line: one file per command.

mod action;
mod adopt;
mod args;
mod ask;
mod audit;
mod auth;
mod check;
mod connect;
mod demo;
mod doctor;
mod emergency;
pub mod exit;
mod failure;
mod files;
mod follow;
mod judge;
mod notify;
mod offline;
mod output;
mod past;
mod plan;
mod reference;
mod remote;
mod replay;
mod retire;
mod run;
mod serve;
mod session;
mod simulate;
mod start;
mod status;
mod store;
mod summary;
mod undo;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, LogFormat};
use exit::Exit;
use failure::Failure;

use crate::server::dto::Verb;

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
    log_to_stderr(args.log.as_deref(), args.log_format);
    let _armed = crate::faults::arm();
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
    let format = args.output;
    match args.command {
        Command::Demo(demo) => demo::run(demo, format).await,
        Command::Check(check) => check::run(&check, format),
        Command::Doctor(it) => doctor::run(it, format).await,
        Command::Plan(plan) => plan::run(&plan, format).await,
        Command::Adopt(adopt) => adopt::run(adopt, format).await,
        Command::Run(run) => run::run(run, format).await,
        Command::Serve(it) => serve::run(it).await,
        Command::Start(it) => start::run(it, format).await,
        Command::List(of) => status::list(of, format).await,
        Command::Status(of) => status::status(of, format).await,
        Command::Watch(of) => status::watch(of, format).await,
        Command::Why(of) => status::why(of, format).await,
        Command::Promote(ask) => ask::run(Verb::Promote, ask, format).await,
        Command::Approve(it) => ask::approve(it, format).await,
        Command::Retry(it) => emergency::retry(it, format).await,
        Command::Freeze(it) => emergency::run("freeze", it, format).await,
        Command::Thaw(it) => emergency::run("thaw", it, format).await,
        Command::Review(it) => emergency::run("review", it, format).await,
        Command::BreakGlass(it) => emergency::break_glass(it, format).await,
        Command::Audit(it) => audit::run(it, format),
        Command::Auth(it) => auth::run(it, format).await,
        Command::Pause(ask) => ask::run(Verb::Pause, ask, format).await,
        Command::Resume(ask) => ask::run(Verb::Resume, ask, format).await,
        Command::Rollback(rollback) => ask::rollback(rollback, format).await,
        Command::Release(release) => ask::release(release, format).await,
        Command::Notify(it) => notify::run(it, format).await,
        Command::Undo(it) => undo::run(it, format).await,
        Command::Retire(it) => retire::run(it, format).await,
        Command::History(history) => status::history(&history, format).await,
        Command::Judge(judge) => judge::judge(judge, format),
        Command::Evidence(evidence) => judge::evidence(&evidence),
        Command::Replay(replay) => replay::run(replay, format).await,
        Command::Simulate(simulate) => simulate::run(&simulate, format),
        Command::Store(of) => store::store(of, format).await,
        Command::Backup(backup) => store::backup(&backup, format),
        Command::Restore(restore) => store::restore(&restore, format),
        Command::Export(export) => store::export(&export),
        Command::Action(it) => action::run(it).await,
        Command::Explain(explain) => reference::explain(&explain),
        Command::Schema(schema) => reference::schema(&schema),
        Command::Completions(completions) => Ok(reference::completions(&completions)),
    }
}

fn log_to_stderr(filter: Option<&str>, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or("off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
