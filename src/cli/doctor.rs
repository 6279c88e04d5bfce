//! `tidegate doctor`: what each load balancer can do, whether it answers, and how fast. Changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{Table, presets};
use futures_util::future::join_all;
use serde::Serialize;

use super::connect::{known, state_dir};
use super::exit::Exit;
use super::failure::{Failure, chain};
use super::files;
use super::output::{self, BAD, Format, GOOD, WARN, styled};
use super::remote::StateArgs;
use crate::load_balancer::{self, TargetKey};
use crate::ports::{Capabilities, LoadBalancer, LoadBalancerError, Outcome, Reading, Split};
use crate::spec::fleet::Fleet;
use crate::store::offline::remembered;
use crate::units::{Generation, RegionName, ServiceName, TargetName};

/// Reads that a latency is the median of.
const READS: usize = 5;
/// Longest time for one call.
const CALL_MAX: Duration = Duration::from_secs(15);

/// Ask every load balancer of the fleet what it does now, and how fast.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate doctor\n  tidegate doctor --service api-gateway -o json\n\n\
    A dry set does all that setting weights does, but the write. Fencing: A the balancer itself refuses a write over\n\
    something that has changed; B a generation stands beside the weights; C only the process remembers it."
)]
pub(super) struct DoctorArgs {
    /// One service [default: all]
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Serialize)]
struct Report {
    well: bool,
    targets: Vec<TargetReport>,
    /// Services whose load balancers could not be connected, and why.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct TargetReport {
    service: ServiceName,
    region: RegionName,
    target: TargetName,
    what: String,
    capabilities: Capabilities,
    grade: char,
    /// Median of five.
    read_ms: Option<f64>,
    dry_set_ms: Option<f64>,
    reading: Option<Reading>,
    problem: Option<Problem>,
}

#[derive(Serialize)]
struct Problem {
    what: String,
    outcome: Outcome,
    /// What to make of it.
    advice: &'static str,
}

impl From<LoadBalancerError> for Problem {
    fn from(error: LoadBalancerError) -> Self {
        Self { what: error.what, outcome: error.outcome, advice: error.outcome.advice() }
    }
}

pub(super) async fn run(args: DoctorArgs, format: Format) -> Result<Exit, Failure> {
    let fleet = files::fleet(&args.state.fleet)?;
    let wanted = match &args.service {
        Some(named) => vec![files::service_of(&fleet, Some(named))?],
        None => fleet.services.keys().cloned().collect(),
    };
    let folder = state_dir(&fleet, args.state.state.as_deref());
    let report = examine(&fleet, &folder, &wanted).await;
    let exit = if report.well { Exit::Done } else { Exit::Error };
    output::emit(format, &report, said)?;
    Ok(exit)
}

async fn examine(fleet: &Fleet, folder: &std::path::Path, wanted: &[ServiceName]) -> Report {
    // What an xDS server has to begin with is what the journal says, read without a lock.
    let kept = remembered(folder);
    let mut open = kept.open;
    let recorded = kept.services.into_values().map(|state| {
        let rollout = open.remove(&state.name);
        (state, rollout)
    });
    let known = known(fleet, &recorded.collect::<Vec<_>>());
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    for service in wanted {
        match load_balancer::connect(fleet, Some(service), &known).await {
            Ok(connected) => {
                let all = connected.targets.iter().map(|(key, it)| ask(key, it));
                targets.extend(join_all(all).await);
            }
            Err(error) => problems.push(format!(
                "{service}: {} (where a controller serves these load balancers, `tidegate status` shows them)",
                chain(&error)
            )),
        }
    }
    let settled = |it: &TargetReport| it.reading.as_ref().is_some_and(|reading| reading.settled);
    let well = problems.is_empty() && targets.iter().all(|it| it.problem.is_none() && settled(it));
    Report { well, targets, problems }
}

async fn ask(key: &TargetKey, balancer: &Arc<dyn LoadBalancer>) -> TargetReport {
    let capabilities = balancer.capabilities();
    let mut report = TargetReport {
        service: key.service.clone(),
        region: key.region.clone(),
        target: key.target.clone(),
        what: balancer.describe(),
        capabilities,
        grade: capabilities.fencing.grade(),
        read_ms: None,
        dry_set_ms: None,
        reading: None,
        problem: None,
    };
    // The first one connects, and one that comes to us may need a moment.
    let first = match bounded(balancer.survey()).await {
        Ok((reading, _)) => reading,
        Err(problem) => return TargetReport { problem: Some(problem), ..report },
    };
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        match bounded(balancer.read()).await {
            Ok((_, time)) => times.push(time),
            Err(problem) => report.problem = Some(problem),
        }
    }
    times.sort_by(f64::total_cmp);
    report.read_ms = times.get(times.len() / 2).copied();
    let (split, generation): (Split, _) =
        (first.split.clone(), first.generation.unwrap_or_default());
    match bounded(balancer.dry_set(&split, generation.max(Generation(1)))).await {
        Ok(((), time)) => report.dry_set_ms = Some(time),
        Err(problem) => report.problem = Some(problem),
    }
    report.reading = Some(first);
    report
}

/// An answer and its milliseconds.
async fn bounded<T>(
    call: impl Future<Output = Result<T, LoadBalancerError>>,
) -> Result<(T, f64), Problem> {
    let begin = Instant::now();
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(answer) => Ok((answer?, begin.elapsed().as_secs_f64() * 1_000.0)),
        Err(_) => {
            let outcome = Outcome::NotSent;
            let what = format!("no answer within {} s", CALL_MAX.as_secs());
            Err(Problem { what, outcome, advice: outcome.advice() })
        }
    }
}

fn said(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "region", "target", "grade", "steps", "sees", "restart", "read", "dry set", "now",
    ]);
    let milliseconds =
        |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
    for it in &report.targets {
        let can = it.capabilities;
        table.add_row([
            it.region.to_string(),
            it.what.clone(),
            it.grade.to_string(),
            can.steps.says(),
            if can.sees_requests { "headers, cookies" } else { "names" }.to_owned(),
            if can.weights_survive_restart { "keeps" } else { "forgets" }.to_owned(),
            milliseconds(it.read_ms),
            milliseconds(it.dry_set_ms),
            now(it),
        ]);
    }
    let mut lines = vec![table.to_string()];
    lines.extend(report.problems.iter().map(|problem| styled(BAD, problem)));
    lines.push(match report.well {
        true => "next: tidegate check PIPELINE, then tidegate adopt SERVICE --version VERSION"
            .to_owned(),
        false => "next: docs/load-balancers.md says what each kind asks for".to_owned(),
    });
    lines.join("\n")
}

fn now(it: &TargetReport) -> String {
    if let Some(problem) = &it.problem {
        return styled(BAD, &format!("{}: {}", problem.what, problem.advice));
    }
    let Some(reading) = &it.reading else { return String::new() };
    let split = reading.split.to_string();
    match (&reading.note, reading.settled) {
        (_, true) => styled(GOOD, &split),
        (note, false) => {
            let note = note.as_deref().unwrap_or("not every instance agrees");
            format!("{split}, {}", styled(WARN, note))
        }
    }
}
