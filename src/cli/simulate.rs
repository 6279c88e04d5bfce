//! `tidegate simulate`: what the statistics and the engine promise, drawn by chance from the product's own code.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, FleetArgs, PipelineArgs};
use super::output::{self, BAD, Format, GOOD, note, styled};
use crate::sim::statistics::table::{Drawn, Rules, rows};
use crate::sim::{Options, seeds as hunted};
use crate::units::ServiceName;

/// Rollouts of a setting in a quick run.
const ROLLOUTS: usize = 400;
/// Rollouts of a setting with `--full`.
const ROLLOUTS_FULL: usize = 4_000;

/// Draw many rollouts. `--seeds`: in a world of faults, and no promise of the engine may break. `--statistics`: how often
/// each rule is wrong and how fast it is right, other tools' rules and ours.
///
/// Ends with 1 when a promise breaks, or one of our targets is missed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate simulate --seeds 0..20000\n  tidegate simulate --seeds 0..2000 --pipeline pipelines/first.yaml\n  tidegate simulate --statistics\n  tidegate simulate --statistics --full -o json > tables.json"
)]
pub(super) struct SimulateArgs {
    /// Rollouts in a world of crashes, lost and lying answers, hand edits, dead backends and people at the worst moment
    #[arg(long, value_name = "FROM..TO", required_unless_present = "statistics", conflicts_with = "statistics", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// With `--seeds`: this pipeline, with shortened clocks, instead of variations of a built-in one
    #[arg(long, value_name = "PIPELINE", requires = "seeds")]
    pipeline: Option<PathBuf>,
    /// Most faults of a rollout
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=200))]
    faults: u32,
    /// The service; may be left out when the fleet has only one
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Folder of the analyses [default: `analysis` beside the pipeline's folder]
    #[arg(long, value_name = "FOLDER")]
    analysis: Option<PathBuf>,
    #[command(flatten)]
    fleet: FleetArgs,
    /// The tables of docs/statistics.md
    #[arg(long)]
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

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` are no seeds: expected 0..20000, at most ten million");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let (from, to): (u64, u64) =
        (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from < to && to - from <= 10_000_000 { Ok(from..to) } else { Err(wrong()) }
}

/// What a hunt says.
#[derive(Serialize)]
struct Said {
    seeds: Range<u64>,
    rollouts: u64,
    /// How often everything happened.
    seen: BTreeMap<String, u64>,
    /// What should have been seen, and was not.
    unseen: Vec<String>,
    broken: Option<Broken>,
}

/// A promise that broke.
#[derive(Serialize)]
struct Broken {
    seed: u64,
    violations: Vec<String>,
    /// Those without which it does not break.
    faults: Vec<String>,
    history: Vec<String>,
}

/// Rollouts after which everything should have been seen.
const ROLLOUTS_TO_SEE_ALL: u64 = 5_000;

pub(super) fn run(args: &SimulateArgs, format: Format) -> Result<Exit, Failure> {
    match args.seeds.clone() {
        Some(seeds) => hunt(args, seeds, format),
        None => statistics(args, format),
    }
}

fn hunt(args: &SimulateArgs, seeds: Range<u64>, format: Format) -> Result<Exit, Failure> {
    let plan = args.pipeline.clone().map(|pipeline| {
        let (service, analysis) = (args.service.clone(), args.analysis.clone());
        let files = PipelineArgs { pipeline, service, analysis, fleet: args.fleet.clone() };
        files::load(&files).map(|loaded| hunted::shortened(loaded.plan))
    });
    let plan = plan.transpose()?;
    let usual = Options::default();
    let patience = plan.as_ref().map_or(usual.patience, hunted::patience);
    let options = Options { patience, faults_max: args.faults as usize, ..usual };
    let bar = output::bar(seeds.end - seeds.start);
    bar.set_message(format!("seeds {}..{}", seeds.start, seeds.end));
    let found = hunted::hunt(seeds.clone(), plan.as_ref(), &options, &|| bar.inc(1));
    bar.finish_and_clear();
    let asks_all = plan.is_none()
        && args.faults >= 8
        && found.broken.is_none()
        && found.rollouts >= ROLLOUTS_TO_SEE_ALL;
    let said = Said {
        rollouts: found.rollouts,
        seen: found.coverage.counts().map(|(name, count)| (name.to_owned(), count)).collect(),
        unseen: if asks_all { found.coverage.unseen() } else { Vec::new() },
        broken: found.broken.map(|report| Broken {
            seed: report.seed,
            violations: report.violations,
            faults: report.faults.iter().map(|fault| format!("{fault:?}")).collect(),
            history: report.history,
        }),
        seeds,
    };
    output::emit(format, &said, hunt_text)?;
    let is_well = said.broken.is_none() && said.unseen.is_empty();
    Ok(if is_well { Exit::Done } else { Exit::Error })
}

fn hunt_text(said: &Said) -> String {
    let mut text = String::new();
    for (name, count) in &said.seen {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{count:>9}  {name}");
    }
    for name in &said.unseen {
        let _ = writeln!(text, "{:>9}  {name}: {}", 0, styled(BAD, "never seen"));
    }
    let Range { start, end } = said.seeds;
    match &said.broken {
        None => {
            let well = styled(GOOD, "no promise was broken");
            let _ = writeln!(text, "{} rollouts, seeds {start}..{end}: {well}", said.rollouts);
        }
        Some(broken) => {
            for line in &broken.history {
                let _ = writeln!(text, "{line}");
            }
            for fault in &broken.faults {
                let _ = writeln!(text, "it takes {fault}");
            }
            for violation in &broken.violations {
                let _ = writeln!(text, "{}: {violation}", styled(BAD, "broken"));
            }
            let _ = writeln!(text, "seed {} after {} rollouts", broken.seed, said.rollouts);
        }
    }
    text
}

fn statistics(args: &SimulateArgs, format: Format) -> Result<Exit, Failure> {
    let usual = if args.full { ROLLOUTS_FULL } else { ROLLOUTS };
    let rollouts = args.rollouts.map_or(usual, |count| count as usize);
    let rows = rows();
    let bar = output::bar((rows.len() * rollouts) as u64);
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
