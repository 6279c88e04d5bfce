//! What can be typed.

use clap::{Parser, Subcommand};

use super::demo;
use super::output::Format;

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
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Walk three regions in an embedded world, with nothing else installed
    Demo(demo::DemoArgs),
}
