//! `judge` and `evidence`: verdicts on recorded samples, by the same code as live.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, PipelineArgs};
use super::output::{self, BAD, Format, GOOD, styled};
use super::remote::StateArgs;
use crate::engine::event::Fact;
use crate::engine::evidence::{self, Look, Recorded, Sample};
use crate::engine::verdict::{Judgement, Outcome};
use crate::engine::why::criteria_text;
use crate::spec::plan::Plan;
use crate::store::offline;
use crate::units::{RolloutId, ServiceName, StageName, Timestamp};

/// Longest line of a samples file, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Most lines of a samples file.
const LINES_MAX: usize = 1_000_000;

/// Judge recorded samples as a rollout would have, look by look; or a rollout's own evidence, and compare.
///
/// Ends with 0 when the last stage is proven, 5 when the rollout would have gone back, 8 when neither is, and 1 when
/// the recorded verdicts of a rollout do not come out again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate judge pipelines/first.yaml --samples looks.jsonl\n  tidegate judge --rollout api-gateway-1"
)]
pub(super) struct JudgeArgs {
    /// The pipeline, for `--samples`
    #[arg(required_unless_present = "rollout")]
    pipeline: Option<PathBuf>,
    /// One JSON object per look and region: see docs/samples.md
    #[arg(long, value_name = "FILE", required_unless_present = "rollout")]
    samples: Option<PathBuf>,
    /// A rollout that was recorded, with the plan it had
    #[arg(long, value_name = "ROLLOUT", conflicts_with_all = ["pipeline", "samples"])]
    rollout: Option<RolloutId>,
    /// The service; may be left out when the fleet has only one
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Folder of the analyses [default: `analysis` beside the pipeline's folder]
    #[arg(long, value_name = "FOLDER")]
    analysis: Option<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
}

/// What a rollout saw: one JSON object per look and region, which `judge --samples` reads.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate evidence api-gateway-1 > looks.jsonl")]
pub(super) struct EvidenceArgs {
    /// The rollout
    rollout: RolloutId,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Serialize)]
struct Judged {
    looks: Vec<JudgedLook>,
    /// The verdict after the last look.
    verdict: Option<Judgement>,
    /// Recorded verdicts that were compared, and whether each came out again, bit for bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<usize>,
    reproduced: Option<bool>,
    /// Times of looks whose recorded verdict did not come out again.
    differing: Vec<Timestamp>,
}

#[derive(Debug, Serialize)]
struct JudgedLook {
    at: Timestamp,
    after_seconds: f64,
    stage: StageName,
    outcome: Outcome,
    /// ln of the combined evidence for harm.
    log_harm: f64,
    text: String,
}

pub(super) fn judge(args: JudgeArgs, format: Format) -> Result<Exit, Failure> {
    let judged = match (args.rollout, args.pipeline, args.samples) {
        (None, Some(pipeline), Some(file)) => {
            let (service, analysis, fleet) = (args.service, args.analysis, args.state.fleet);
            let plan = files::load(&PipelineArgs { pipeline, service, analysis, fleet })?.plan;
            let looks = read_samples(&file, |samples| evidence::looks(&plan, samples))?;
            judged(&plan, looks.into_iter().map(|look| (look, None)).collect())
        }
        (Some(id), ..) => {
            let Recorded { state, looks } = recorded(&args.state.folder()?, &id)?;
            judged(&state.plan, looks)
        }
        _ => return Err(Failure::new("needs a pipeline and --samples").exit(Exit::Usage)),
    };
    output::emit(format, &judged, table)?;
    Ok(exit(&judged))
}

pub(super) fn evidence(args: &EvidenceArgs) -> Result<Exit, Failure> {
    let recorded = recorded(&args.state.folder()?, &args.rollout)?;
    for (look, _) in &recorded.looks {
        evidence::samples(look).iter().for_each(output::json_line);
    }
    Ok(Exit::Done)
}

fn recorded(state: &Path, id: &RolloutId) -> Result<Recorded, Failure> {
    let facts = offline::facts(state, &id.service, Some(id))?;
    let facts: Vec<Fact> = facts.into_iter().map(|(_, fact)| fact).collect();
    evidence::of_rollout(&facts).ok_or_else(|| {
        Failure::new(format!("no rollout {id} is recorded there"))
            .help("`tidegate history SERVICE` lists what happened")
    })
}

/// Reads a file of samples, which `looks` puts together; what is wrong with them is told with its line.
pub(super) fn read_samples(
    path: &Path,
    looks: impl FnOnce(Vec<Sample>) -> Result<Vec<Look>, evidence::Error>,
) -> Result<Vec<Look>, Failure> {
    let wrong = |line: usize, what: &dyn std::fmt::Display| {
        Failure::new(format!("{}:{line}: {what}", path.display()))
            .exit(Exit::Usage)
            .help("one JSON object per look and region: see docs/samples.md")
    };
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())).exit(Exit::Usage))?;
    let mut reader = BufReader::new(file);
    let (mut samples, mut lines): (Vec<Sample>, Vec<usize>) = (Vec::new(), Vec::new());
    for number in 1.. {
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX + 1;
        let length = reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(|error| wrong(number, &error))?;
        if length == 0 {
            break;
        }
        if line.len() as u64 == limit || number > LINES_MAX {
            let what = format!("longer than {LINE_BYTES_MAX} bytes a line or {LINES_MAX} lines");
            return Err(wrong(number, &what));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        samples.push(serde_json::from_slice(&line).map_err(|error| wrong(number, &error))?);
        lines.push(number);
    }
    if samples.is_empty() {
        return Err(wrong(1, &"no samples"));
    }
    looks(samples).map_err(|error| wrong(lines[error.index()], &error))
}

fn judged(plan: &Plan, looks: Vec<(Look, Option<Judgement>)>) -> Judged {
    let (looks, recorded): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
    let compares = recorded.iter().any(Option::is_some);
    let mut recorded = recorded.into_iter();
    let mut out = Judged {
        looks: Vec::new(),
        verdict: None,
        compared: compares.then_some(0),
        reproduced: None,
        differing: Vec::new(),
    };
    let begin = looks.first().map_or(Timestamp(0), |look| look.poll.at);
    evidence::judge(plan, &looks, |look, judgement| {
        let stage = &plan.stages[look.stage];
        out.looks.push(JudgedLook {
            at: look.poll.at,
            after_seconds: look.poll.at.since(begin).as_secs_f64(),
            stage: stage.name.clone(),
            outcome: judgement.stage.clone(),
            log_harm: judgement.log_harm,
            text: text(judgement),
        });
        if let Some(before) = recorded.next().flatten() {
            out.compared = out.compared.map(|count| count + 1);
            if before != *judgement {
                out.differing.push(look.poll.at);
            }
        }
        out.verdict = Some(judgement.clone());
        judgement.breach.as_ref().is_none_or(|breach| breach.only_holds)
    });
    out.reproduced = out.compared.map(|_| out.differing.is_empty());
    out
}

/// The verdict in a line.
fn text(judgement: &Judgement) -> String {
    if let Some(breach) = &judgement.breach {
        return breach.text.clone();
    }
    criteria_text(judgement).unwrap_or_default()
}

fn exit(judged: &Judged) -> Exit {
    if judged.reproduced == Some(false) {
        return Exit::Error;
    }
    let Some(verdict) = &judged.verdict else { return Exit::Undecided };
    let goes_back = verdict.breach.as_ref().is_some_and(|breach| !breach.only_holds);
    match verdict.stage {
        _ if goes_back => Exit::RolledBack,
        Outcome::Pass => Exit::Done,
        _ => Exit::Undecided,
    }
}

fn table(judged: &Judged) -> String {
    let mut out = String::new();
    for look in &judged.looks {
        let odds = look.log_harm.exp();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:>9}  {:<24} harm {odds:>8.3}  {}",
            format!("{:.1}s", look.after_seconds),
            look.stage,
            look.text
        );
    }
    let end = match exit(judged) {
        Exit::RolledBack => styled(BAD, "it goes back"),
        Exit::Done => styled(GOOD, "proven"),
        _ => "undecided".to_owned(),
    };
    let _ = writeln!(out, "after {} looks: {end}", judged.looks.len());
    match (judged.compared, judged.reproduced) {
        (Some(count), Some(true)) => {
            let _ = writeln!(out, "{count} recorded verdicts came out again, bit for bit");
        }
        (Some(count), _) => {
            let differing = judged.differing.len();
            let said = format!("{differing} of {count} recorded verdicts did not come out again");
            let _ = writeln!(out, "{}", styled(BAD, &said));
        }
        _ => {}
    }
    out
}
