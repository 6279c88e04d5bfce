//! `tidegate simulate`: what the statistics promise, drawn by chance from the product's own code.

use std::fmt::Write;
use std::io::IsTerminal;

use clap::Args;
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, BAD, Format, GOOD, note, styled};
use crate::sim::statistics::table::{Drawn, Rules, rows};

/// Rollouts of a setting in a quick run.
const ROLLOUTS: usize = 400;
/// Rollouts of a setting with `--full`.
const ROLLOUTS_FULL: usize = 4_000;

/// Draw many rollouts, and show how often each rule is wrong and how fast it is right: other tools' rules and ours.
///
/// Ends with 1 when one of our targets is missed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate simulate --statistics\n  tidegate simulate --statistics --full -o json > tables.json"
)]
pub(super) struct SimulateArgs {
    /// The tables of docs/statistics.md
    #[arg(long, required = true)]
    statistics: bool,
    /// 4,000 rollouts of each setting instead of 400
    #[arg(long)]
    full: bool,
    /// Rollouts of each setting
    #[arg(long, value_name = "N", conflicts_with = "full", value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rollouts: Option<u32>,
    /// The first rollout's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: &SimulateArgs, format: Format) -> Result<Exit, Failure> {
    let usual = if args.full { ROLLOUTS_FULL } else { ROLLOUTS };
    let rollouts = args.rollouts.map_or(usual, |count| count as usize);
    let rows = rows();
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new((rows.len() * rollouts) as u64)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:40} {percent} %  {msg}  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut drawn = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let seed = args.seed.wrapping_add((number as u64) << 44);
        bar.set_message(row.label.clone());
        if bar.is_hidden() {
            note(&format!("{} of {}: {}, seed {seed}", number + 1, rows.len(), row.label));
        }
        drawn.push(row.draw(Rules::All, rollouts, seed, &|| bar.inc(1)));
    }
    bar.finish_and_clear();
    output::emit(format, &drawn, |drawn| table(drawn))?;
    let missed = drawn.iter().flat_map(|row| &row.targets).any(|target| !target.reached);
    Ok(if missed { Exit::Error } else { Exit::Done })
}

fn table(drawn: &[Drawn]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = drawn.iter().map(|row| row.table).collect();
    names.dedup();
    for name in names {
        let rows: Vec<_> = drawn.iter().filter(|row| row.table == name).collect();
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let rules = rows.iter().take(1).flat_map(|row| &row.cells).map(|cell| cell.rule.clone());
        table.set_header(std::iter::once(name.to_owned()).chain(rules));
        for row in &rows {
            let cells = row.cells.iter().map(|cell| {
                let share = format!("{:.1} %", cell.share * 100.0);
                cell.median_seconds.map_or(share.clone(), |time| format!("{share} / {time:.0} s"))
            });
            table.add_row(std::iter::once(row.label.clone()).chain(cells));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{table}\n");
    }
    let rollouts = drawn.iter().flat_map(|row| &row.cells).map(|cell| cell.rollouts).max();
    let _ = writeln!(
        text,
        "{} rollouts of half an hour each: share called back (or proven) / median seconds",
        rollouts.unwrap_or(0)
    );
    for row in drawn {
        for target in &row.targets {
            let said = if target.reached { styled(GOOD, "reached") } else { styled(BAD, "missed") };
            let _ = writeln!(
                text,
                "{:<4} {said}  {}: {} {}",
                target.id, row.label, target.rule, target.must
            );
        }
    }
    text
}
