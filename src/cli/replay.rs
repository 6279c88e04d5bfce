//! `tidegate replay`: what a policy would have done in the past.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, Loaded, PipelineArgs};
use super::judge::read_samples;
use super::output::{self, BAD, DIM, Format, GOOD, styled};
use super::past::{self, Moment, Roles, StableArgs, Window, known_table, length};
use crate::engine::evidence::{self, Sample};
use crate::ports::MetricsError;
use crate::replay::halves::{self, FalseRollbacks, Halved, Halves, Known};
use crate::replay::plot::{self, Thresholds};
use crate::replay::sampled::Sampled;
use crate::replay::{End, Replay, Replayed, replay};
use crate::spec::plan::{Measurement, Plan};
use crate::units::{AnalysisName, Millis, Timestamp, Version};

/// Odds for harm at which a rollout holds.
const HOLD: f64 = 20.0;

/// What a policy would have done in the past: rollouts one after another on the traffic that was there, by the same
/// code as live; or, with `--aa`, how often it would have called back stable from itself.
///
/// Ends with 0 when rollouts were promoted and none went back, 5 when one went back, 8 when none came to an end. With
/// `--aa`: 1 when more went back than the policy promises, beyond chance.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate replay pipelines/first.yaml --from 14d --version v2 --stable-version v1\n  tidegate replay pipelines/first.yaml --from 7d --aa --stable-version v1\n  tidegate replay pipelines/first.yaml --samples looks.jsonl --compare pipelines/stricter.yaml --plot looks.svg"
)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    files: PipelineArgs,
    /// Begin: a time, or so long ago
    #[arg(long, value_name = "TIME|AGO", default_value = "24h")]
    from: Moment,
    /// End
    #[arg(long, value_name = "TIME|AGO", default_value = "now")]
    to: Moment,
    /// From look to look [default: the pipeline's poll, at least 1s]
    #[arg(long, value_name = "LENGTH", value_parser = length)]
    step: Option<Millis>,
    /// A file of samples instead of Prometheus: see docs/samples.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "step", "aa"])]
    samples: Option<PathBuf>,
    /// Another pipeline over the same past
    #[arg(long, value_name = "PIPELINE", conflicts_with = "aa")]
    compare: Option<PathBuf>,
    /// Stable against itself: half of its instances play the canary
    #[arg(long)]
    aa: bool,
    /// How often the past is gone through with `--aa`, each time with other halves
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    splits: u32,
    /// Draws the halves
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// After a rollback the next rollout begins so much later
    #[arg(long, value_name = "LENGTH", default_value = "1h", value_parser = length)]
    pause: Millis,
    /// Draws evidence against thresholds
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// The version that played canary, where metrics are labelled with it
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    #[command(flatten)]
    stable: StableArgs,
}

/// What a replay says.
#[derive(Debug, Serialize)]
struct Said {
    from: Timestamp,
    to: Timestamp,
    policies: Vec<Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aa: Option<AgainstItself>,
    /// Checks that nobody can ask about the past.
    taken_to_hold: Vec<AnalysisName>,
}

#[derive(Debug, Serialize)]
struct Policy {
    pipeline: String,
    #[serde(flatten)]
    replayed: Replayed,
}

/// Stable against itself.
#[derive(Debug, Serialize)]
struct AgainstItself {
    false_rollbacks: FalseRollbacks,
    known: Vec<Known>,
    /// Gauges and checks cannot be split by instance.
    left_out: Vec<AnalysisName>,
}

pub(super) async fn run(args: ReplayArgs, format: Format) -> Result<Exit, Failure> {
    let loaded = files::load(&args.files)?;
    let said = match (&args.samples, args.aa) {
        (Some(_), _) => of_samples(&args, &loaded).await?,
        (None, true) => against_itself(&args, &loaded).await?,
        (None, false) => of_series(&args, &loaded).await?,
    };
    if let Some(file) = &args.plot {
        draw(file, &loaded.plan, &said)?;
    }
    output::emit(format, &said, text)?;
    Ok(exit(&said))
}

/// The pipelines to be held against the past: the one, and the one it is compared with.
fn pipelines(args: &ReplayArgs, loaded: &Loaded) -> Result<Vec<Plan>, Failure> {
    let mut plans = vec![loaded.plan.clone()];
    if let Some(other) = &args.compare {
        let files = PipelineArgs { pipeline: other.clone(), ..args.files.clone() };
        plans.push(files::load(&files)?.plan);
    }
    Ok(plans)
}

async fn of_samples(args: &ReplayArgs, loaded: &Loaded) -> Result<Said, Failure> {
    let Some(file) = &args.samples else { return Err(Failure::new("which samples?")) };
    // Stages are the replayed policy's own.
    let anywhere = |sample: Sample| Sample { stage: 0, step: 0, generation: None, ..sample };
    let looks = read_samples(file, |samples| {
        evidence::looks(&loaded.plan, samples.into_iter().map(anywhere).collect())
    })?;
    let ends = looks.first().zip(looks.last()).map(|(first, last)| (first.poll.at, last.poll.at));
    let Some((first, to)) = ends else { return Err(Failure::new("no samples")) };
    // The first look counts as well.
    let from = first.minus(Millis(1));
    let mut policies = Vec::new();
    for plan in pipelines(args, loaded)? {
        let mut past = Sampled::new(looks.clone());
        let replayed = replay(&plan, &mut past, from, args.pause, &mut |_| {}).await;
        policies.push(Policy { pipeline: plan.pipeline.to_string(), replayed: read(replayed)? });
    }
    Ok(Said { from, to, policies, aa: None, taken_to_hold: Vec::new() })
}

fn window(args: &ReplayArgs, plan: &Plan) -> Result<Window, Failure> {
    let poll = plan.regions.values().map(|region| region.poll).min();
    let step = args.step.or(poll).unwrap_or(Millis::from_secs(15));
    Window::new(args.from, args.to, step)
}

/// The plan as if it looked every `step`.
fn paced(mut plan: Plan, step: Millis) -> Plan {
    plan.regions.values_mut().for_each(|region| region.poll = step);
    plan
}

async fn of_series(args: &ReplayArgs, loaded: &Loaded) -> Result<Said, Failure> {
    let window = window(args, &loaded.plan)?;
    let roles = Roles::new(loaded, &args.stable, args.version.as_ref()).await;
    let plans = pipelines(args, loaded)?;
    let bar = window.bar(plans.len() as u64);
    let (mut policies, mut taken_to_hold) = (Vec::new(), Vec::new());
    for plan in plans {
        let plan = paced(plan, window.step);
        bar.set_message(plan.pipeline.to_string());
        let mut past = past::past(loaded, &plan, &roles, window, None).await?;
        let done = bar.position();
        let mut each = |at: Timestamp| bar.set_position(done + at.since(window.from).0 / 1_000);
        let replayed = replay(&plan, &mut past, window.from, args.pause, &mut each).await;
        taken_to_hold.extend(asked_of_the_fleet(&plan));
        policies.push(Policy { pipeline: plan.pipeline.to_string(), replayed: read(replayed)? });
    }
    bar.finish_and_clear();
    taken_to_hold.sort();
    taken_to_hold.dedup();
    Ok(Said { from: window.from, to: window.to, policies, aa: None, taken_to_hold })
}

fn asked_of_the_fleet(plan: &Plan) -> Vec<AnalysisName> {
    use crate::spec::plan::CheckSource;
    let of_fleet = |measurement: &Measurement| {
        matches!(measurement, Measurement::Check { source: CheckSource::Fleet(_), .. })
    };
    let all = plan.analyses.iter().filter(|(_, analysis)| of_fleet(&analysis.measurement));
    all.map(|(name, _)| name.clone()).collect()
}

async fn against_itself(args: &ReplayArgs, loaded: &Loaded) -> Result<Said, Failure> {
    let window = window(args, &loaded.plan)?;
    let roles = Roles::new(loaded, &args.stable, args.version.as_ref()).await;
    let (plan, left_out) = halves::countable(&loaded.plan);
    if plan.analyses.is_empty() {
        return Err(Failure::new(
            "nothing in this pipeline counts requests: gauges and checks cannot be split",
        ));
    }
    let plan = paced(plan, window.step);
    let halves = Halves::new(args.seed);
    let past = past::past(loaded, &plan, &roles, window, Some(&halves)).await?;
    let mut past = Halved::new(past, halves, window.step);
    let bar = window.bar(u64::from(args.splits));
    let mut all = Vec::new();
    for split in 0..args.splits {
        bar.set_message(format!("{} of {} splits", split + 1, args.splits));
        let done = u64::from(split) * (window.to.since(window.from).0 / 1_000);
        let mut each = |at: Timestamp| bar.set_position(done + at.since(window.from).0 / 1_000);
        let found = replay(&plan, &mut past, window.from, Millis::ZERO, &mut each).await;
        all.push(read(found)?);
        if past.instances().await < 2 {
            let what = format!(
                "stable had {} instances: two are needed to split it",
                past.instances().await
            );
            return Err(
                Failure::new(what).help("--stable-slot and --stable-version say who was stable")
            );
        }
    }
    bar.finish_and_clear();
    let false_rollbacks = halves::false_rollbacks(&all, plan.policy.alpha);
    let left_out = left_out.into_iter().collect();
    let aa = AgainstItself { false_rollbacks, known: past.clumpiness.known(), left_out };
    let pipeline = plan.pipeline.to_string();
    let policies =
        all.into_iter().map(|replayed| Policy { pipeline: pipeline.clone(), replayed }).collect();
    let (from, to) = (window.from, window.to);
    Ok(Said { from, to, policies, aa: Some(aa), taken_to_hold: Vec::new() })
}

fn read(replayed: Result<Replayed, MetricsError>) -> Result<Replayed, Failure> {
    replayed.map_err(|error| {
        Failure::new(format!("the past cannot be read: {error}")).exit(Exit::NotConnected)
    })
}

fn draw(file: &std::path::Path, plan: &Plan, said: &Said) -> Result<(), Failure> {
    let named: Vec<_> =
        said.policies.iter().take(2).map(|it| (it.pipeline.clone(), &it.replayed)).collect();
    let (alpha, beta) = (plan.policy.alpha, plan.policy.beta);
    let picture =
        plot::svg(&named, Thresholds { back: 1.0 / alpha, hold: HOLD, proven: 1.0 / beta });
    std::fs::write(file, picture)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

fn exit(said: &Said) -> Exit {
    if let Some(AgainstItself { false_rollbacks, .. }) = &said.aa {
        let is_broken = false_rollbacks.interval.0 > false_rollbacks.promised;
        return if is_broken { Exit::Error } else { Exit::Done };
    }
    // The first policy is the one that was asked about.
    let own = said.policies.first().map(|it| it.replayed.rollouts.as_slice()).unwrap_or_default();
    let any = |end: End| own.iter().any(|replay| replay.end == end);
    match () {
        () if any(End::RolledBack) => Exit::RolledBack,
        () if any(End::Promoted) => Exit::Done,
        () => Exit::Undecided,
    }
}

fn text(said: &Said) -> String {
    let mut out = format!("{} to {}\n", time(said.from), time(said.to));
    if let Some(aa) = &said.aa {
        out.push_str(&aa_text(aa));
    } else {
        for policy in &said.policies {
            out.push_str(&policy_text(policy));
        }
        if said.policies.len() > 1 {
            out.push_str(&compared(&said.policies));
        }
    }
    if !said.taken_to_hold.is_empty() {
        let names: Vec<_> = said.taken_to_hold.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "- taken to hold, as nobody can ask about the past: {}",
            names.join(", ")
        );
    }
    out
}

fn time(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default()
}

fn policy_text(policy: &Policy) -> String {
    let Policy { pipeline, replayed } = policy;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["began", "took", "end", "stages", "requests of the canary", "of stable"]);
    for replay in &replayed.rollouts {
        table.add_row([
            time(replay.began),
            replay.took().to_string(),
            end_text(replay),
            replay.stages.len().to_string(),
            format!("{:.0}", replay.requests.canary),
            format!("{:.0}", replay.requests.stable),
        ]);
    }
    let mut out = format!("\n{pipeline}: {}\n{table}\n", counted(replayed));
    for replay in &replayed.rollouts {
        if let Some(why) = &replay.why {
            let _ = writeln!(out, "{}  {why}", styled(DIM, &time(replay.ended)));
        }
    }
    out
}

fn end_text(replay: &Replay) -> String {
    match replay.end {
        End::Promoted => styled(GOOD, "promoted"),
        End::RolledBack => styled(BAD, "rolled back"),
        End::Undecided => "undecided".to_owned(),
        End::Unfinished => "not over yet".to_owned(),
    }
}

fn count(replayed: &Replayed, end: End) -> usize {
    replayed.rollouts.iter().filter(|it| it.end == end).count()
}

fn counted(replayed: &Replayed) -> String {
    format!(
        "{} looks, {} rollouts: {} promoted, {} rolled back, {} undecided",
        replayed.looks,
        replayed.rollouts.len(),
        count(replayed, End::Promoted),
        count(replayed, End::RolledBack),
        count(replayed, End::Undecided)
    )
}

/// Two policies side by side.
fn compared(policies: &[Policy]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let names = policies.iter().map(|it| it.pipeline.clone());
    table.set_header(std::iter::once(String::new()).chain(names));
    let row = |name: &str, of: &dyn Fn(&Replayed) -> String| {
        let cells = policies.iter().map(|it| of(&it.replayed));
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let first_back = |replayed: &Replayed| {
        let back = replayed.rollouts.iter().find(|it| it.end == End::RolledBack);
        back.map_or("-".to_owned(), |it| time(it.ended))
    };
    let quickest = |replayed: &Replayed| {
        let done = replayed.rollouts.iter().filter(|it| it.end == End::Promoted);
        done.map(Replay::took).min().map_or("-".to_owned(), |took| took.to_string())
    };
    table.add_row(row("promoted", &|it| count(it, End::Promoted).to_string()));
    table.add_row(row("rolled back", &|it| count(it, End::RolledBack).to_string()));
    table.add_row(row("undecided", &|it| count(it, End::Undecided).to_string()));
    table.add_row(row("first rollback", &first_back));
    table.add_row(row("quickest promotion", &quickest));
    format!("\n{table}\n")
}

fn aa_text(aa: &AgainstItself) -> String {
    let FalseRollbacks { rollouts, rolled_back, share, interval, promised } = &aa.false_rollbacks;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut out = format!(
        "stable against itself: {rolled_back} of {rollouts} rollouts went back, {} (between {} and {} at 95 %); promised: at most {}\n\n",
        percent(*share),
        percent(interval.0),
        percent(interval.1),
        percent(*promised)
    );
    let _ = writeln!(out, "{}", known_table(&aa.known));
    let highest = aa.known.iter().map(|it| it.clumpiness).fold(1.0, f64::max);
    let _ = writeln!(
        out,
        "- for `tidegate plan`: --phi {highest:.2}, or --from-prometheus for each by itself"
    );
    if !aa.left_out.is_empty() {
        let names: Vec<_> = aa.left_out.iter().map(ToString::to_string).collect();
        let _ =
            writeln!(out, "- left out, as they cannot be split by instance: {}", names.join(", "));
    }
    out
}
