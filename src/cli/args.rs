//! What can be typed.

use clap::{Parser, Subcommand};

use super::action::ActionArgs;
use super::adopt::AdoptArgs;
use super::ask::{ApproveArgs, AskArgs, ReleaseArgs, RollbackArgs};
use super::audit::AuditArgs;
use super::auth::AuthArgs;
use super::check::CheckArgs;
use super::demo::DemoArgs;
use super::doctor::DoctorArgs;
use super::emergency::{BreakGlassArgs, RetryArgs, ServiceArgs};
use super::judge::{EvidenceArgs, JudgeArgs};
use super::notify::NotifyArgs;
use super::output::Format;
use super::plan::PlanArgs;
use super::reference::{CompletionArgs, ExplainArgs, SchemaArgs};
use super::remote::ApiArgs;
use super::replay::ReplayArgs;
use super::retire::RetireArgs;
use super::run::RunArgs;
use super::serve::ServeArgs;
use super::simulate::SimulateArgs;
use super::start::StartArgs;
use super::status::{HistoryArgs, StatusArgs};
use super::store::{BackupArgs, ExportArgs, RestoreArgs, StoreArgs};
use super::undo::UndoArgs;

/// Moves a service to a new version region by region: forward on evidence, back by itself.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Try it without any setup: tidegate demo\nExit codes and files: see the README"
)]
pub(super) struct Args {
    /// Form of the result
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(super) output: Format,
    /// Log to standard error: off, info, tidegate=debug, ...
    #[arg(long, global = true, env = "TIDEGATE_LOG", value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// Form of the log
    #[arg(long, global = true, env = "TIDEGATE_LOG_FORMAT", value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// A line each, for people
    #[default]
    Text,
    /// A JSON object on a line each
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Walk three regions in an embedded world, with nothing else installed
    Demo(DemoArgs),
    /// Every problem of a pipeline, its analyses and the fleet, at once
    Check(CheckArgs),
    /// Ask every load balancer what it can do, what it does now, and how fast it answers
    Doctor(DoctorArgs),
    /// What a rollout will do, when, and what its traffic can decide
    Plan(PlanArgs),
    /// Record what a service runs now
    Adopt(AdoptArgs),
    /// Roll a version out, in the foreground
    Run(RunArgs),
    /// Drive every rollout of a fleet: the daemon
    Serve(ServeArgs),
    /// Let the daemon roll a version out
    Start(StartArgs),
    /// Every service's newest rollout
    #[command(after_help = "Example:\n  tidegate list -o json")]
    List(ApiArgs),
    /// What is going on, or what was recorded last
    #[command(after_help = "Example:\n  tidegate status -o json")]
    Status(StatusArgs),
    /// Show the running rollout whenever it changes
    #[command(after_help = "Example:\n  tidegate watch --fleet tidegate.yaml")]
    Watch(StatusArgs),
    /// Why it is not further
    #[command(after_help = "Example:\n  tidegate why")]
    Why(StatusArgs),
    /// One step forward without proof, or open a gate
    #[command(after_help = "Example:\n  tidegate promote --reason 'seen by the owner'")]
    Promote(AskArgs),
    /// Say yes to what waits for approval: a stage, or the way back that somebody asked for
    #[command(after_help = "Example:\n  tidegate approve api-gateway-7")]
    Approve(ApproveArgs),
    /// Raise nothing until resume
    #[command(after_help = "Example:\n  tidegate pause --reason 'incident 4711'")]
    Pause(AskArgs),
    /// Go on after a pause
    #[command(after_help = "Example:\n  tidegate resume")]
    Resume(AskArgs),
    /// Take the canary out everywhere
    #[command(
        alias = "abort",
        after_help = "Examples:\n  tidegate rollback --reason 'checkout fails'\n  tidegate rollback --offline --service api-gateway   # without daemon and state"
    )]
    Rollback(RollbackArgs),
    /// Let a rollout go on that was put in quarantine
    #[command(after_help = "Example:\n  tidegate release api-gateway")]
    Release(ReleaseArgs),
    /// Try what was rolled back once more
    Retry(RetryArgs),
    /// Raise nothing of a service, and let no version begin
    #[command(after_help = "Example:\n  tidegate freeze api-gateway --reason 'end of the quarter'")]
    Freeze(ServiceArgs),
    /// Let versions begin again
    #[command(after_help = "Example:\n  tidegate thaw api-gateway")]
    Thaw(ServiceArgs),
    /// Pause, roll back or freeze alone, in an emergency
    BreakGlass(BreakGlassArgs),
    /// Say that somebody looked at what was done in an emergency
    #[command(
        after_help = "Example:\n  tidegate review api-gateway --reason 'was right, incident 4711'"
    )]
    Review(ServiceArgs),
    /// Look into the audit: who did what, and on which numbers
    Audit(AuditArgs),
    /// Look after who may do what
    Auth(AuthArgs),
    /// Back from a promotion, without stages
    Undo(UndoArgs),
    /// Take the previous version out after a promotion
    Retire(RetireArgs),
    /// What happened to a service
    History(HistoryArgs),
    /// Judge recorded samples, or a rollout's own evidence, again
    Judge(JudgeArgs),
    /// What a rollout saw, as a samples file
    Evidence(EvidenceArgs),
    /// What a policy would have done in the past
    Replay(ReplayArgs),
    /// How often each rule is wrong and how fast it is right, by simulation
    Simulate(SimulateArgs),
    /// Look after who is told
    Notify(NotifyArgs),
    /// Look after the state directory
    Store(StoreArgs),
    /// Copy the journal, also while a rollout runs
    Backup(BackupArgs),
    /// Put a backup into an empty state directory
    Restore(RestoreArgs),
    /// Every fact as a line of JSON
    Export(ExportArgs),
    /// What the GitHub Action runs
    Action(ActionArgs),
    /// What a diagnostic's code means
    Explain(ExplainArgs),
    /// The JSON Schema of a kind of file
    Schema(SchemaArgs),
    /// A completion script for a shell
    Completions(CompletionArgs),
}
