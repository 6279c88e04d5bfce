//! `tidegate plan`: what a rollout will do, when, and what its traffic can decide.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::files::{self, Loaded, PipelineArgs};
use super::output::{self, BAD, Format, GOOD, styled};
use super::past::{self, Moment, Roles, StableArgs, Window, known_table, length};
use crate::engine::forecast::{self, Assumed, Forecast, Measured};
use crate::replay::halves::Known;
use crate::spec::plan::{Plan, Stage};
use crate::units::{AnalysisName, Millis, RegionName, StageName, Weight};

/// Stable's share of bad requests, where nothing is known of it.
const BASE_RATE: f64 = 0.001;
/// From look to look at the past.
const LOOK: Millis = Millis::from_secs(60);

/// Say beforehand what a rollout will do and what its traffic can decide.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate plan pipelines/multi-region.yaml --fleet examples/envoy/fleet.yaml --rps us_east_1=400,eu_west_1=240,ap_southeast_2=160\n  tidegate plan pipelines/multi-region.yaml --from-prometheus 7d"
)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    files: PipelineArgs,
    /// Requests per second by region
    #[arg(long, value_name = "REGION=N,...", value_delimiter = ',', value_parser = region_rate)]
    rps: Vec<(RegionName, f64)>,
    /// Stable's share of bad requests [default: as measured, or 0.1%]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    base_error_rate: Option<f64>,
    /// Clumpiness of errors, if history is known
    #[arg(long, value_name = "FACTOR")]
    phi: Option<f64>,
    /// Measure traffic, rates and clumpiness of stable over so much of the past
    #[arg(long, value_name = "LENGTH", value_parser = length)]
    from_prometheus: Option<Millis>,
    #[command(flatten)]
    stable: StableArgs,
    /// Chance with which an answer shall be there in time
    #[arg(long, default_value_t = 0.8)]
    power: f64,
}

#[derive(Serialize)]
struct Planned {
    pipeline: String,
    service: String,
    digest: String,
    steps: Vec<PlannedStep>,
    stages: Vec<PlannedStage>,
    holdback: Weight,
    /// What stable was like, where that was asked for.
    measured: Vec<Known>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct PlannedStep {
    stage: StageName,
    weights: BTreeMap<RegionName, Weight>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mirrors: BTreeMap<RegionName, Weight>,
    exposure_percent: f64,
    bake: Millis,
    earliest_end: Millis,
}

#[derive(Serialize)]
struct PlannedStage {
    stage: StageName,
    canary_requests_per_second: Option<f64>,
    forecasts: Vec<Forecast>,
    checks_only: bool,
}

pub(super) async fn run(args: &PlanArgs, format: Format) -> Result<Exit, Failure> {
    if !(args.power > 0.0 && args.power < 1.0)
        || args.phi.is_some_and(|phi| !(1.0..=1e6).contains(&phi))
    {
        let what = "--power is between 0 and 1, --phi at least 1";
        return Err(Failure::new(what).exit(Exit::Usage));
    }
    let loaded = files::load(&args.files)?;
    let unknown = args.rps.iter().find(|(name, _)| !loaded.fleet.regions.contains_key(name));
    if let Some((name, _)) = unknown {
        return Err(
            Failure::new(format!("--rps: the fleet has no region {name}")).exit(Exit::Usage)
        );
    }
    let measured = match args.from_prometheus {
        Some(length) => measured(args, &loaded, length).await?,
        None => Vec::new(),
    };
    let planned = planned(&loaded, args, measured);
    output::emit(format, &planned, table)?;
    Ok(Exit::Done)
}

/// What stable was like, look by look as far apart as the source scrapes, at least a minute.
async fn measured(args: &PlanArgs, loaded: &Loaded, length: Millis) -> Result<Vec<Known>, Failure> {
    let scraped = loaded.fleet.regions.values().map(|region| region.scrape_interval).max();
    let step = scraped.unwrap_or(LOOK).max(LOOK);
    let to = past::now();
    let window = Window::new(Moment(to.minus(length)), Moment(to), step)?;
    let roles = Roles::new(loaded, &args.stable, None).await;
    let known = past::known(loaded, &roles, window).await?;
    if known.is_empty() {
        return Err(Failure::new(format!("stable had no requests in the last {length}")).help(
            "--stable-slot and --stable-version say who was stable; --rps goes without the past",
        ));
    }
    Ok(known)
}

fn planned(loaded: &Loaded, args: &PlanArgs, known: Vec<Known>) -> Planned {
    let plan = &loaded.plan;
    let assumed = assumed(args, &known);
    let stage = |stage: &Stage| {
        let known = !assumed.requests_per_second.is_empty();
        PlannedStage {
            stage: stage.name.clone(),
            canary_requests_per_second: known.then(|| forecast::canary_per_second(stage, &assumed)),
            forecasts: if known { forecast::stage(plan, stage, &assumed) } else { Vec::new() },
            checks_only: !stage.criteria.iter().any(|criterion| criterion.test.is_statistical()),
        }
    };
    Planned {
        pipeline: plan.pipeline.to_string(),
        service: plan.service.to_string(),
        digest: plan.digest.clone(),
        steps: steps(plan),
        stages: plan.stages.iter().map(stage).collect(),
        holdback: plan.policy.holdback,
        measured: known,
        notes: notes(plan, args),
    }
}

/// What was said goes before what was measured, and that before what is usual.
fn assumed(args: &PlanArgs, known: &[Known]) -> Assumed {
    let mut requests_per_second: BTreeMap<RegionName, f64> = BTreeMap::new();
    let mut measured: BTreeMap<AnalysisName, BTreeMap<RegionName, Measured>> = BTreeMap::new();
    for known in known {
        let rate = requests_per_second.entry(known.region.clone()).or_default();
        *rate = rate.max(known.requests_per_second);
        let is_count = known.times.edges.is_empty();
        let found = Measured {
            rate: args.base_error_rate.filter(|_| is_count).unwrap_or(known.rate),
            clumpiness: args.phi.unwrap_or(known.clumpiness),
            requests_per_second: known.requests_per_second,
            times: known.times.clone(),
        };
        measured.entry(known.analysis.clone()).or_default().insert(known.region.clone(), found);
    }
    requests_per_second.extend(args.rps.iter().cloned());
    Assumed {
        requests_per_second,
        base_rate: args.base_error_rate.unwrap_or(BASE_RATE),
        clumpiness: args.phi,
        power: args.power,
        measured,
    }
}

fn steps(plan: &Plan) -> Vec<PlannedStep> {
    let mut end = Millis::ZERO;
    let mut steps = Vec::new();
    for stage in &plan.stages {
        for step in &stage.steps {
            end = end.plus(step.bake);
            steps.push(PlannedStep {
                stage: stage.name.clone(),
                weights: step.weights.clone(),
                mirrors: step.mirrors.clone(),
                exposure_percent: plan.exposure(&step.weights) * 100.0,
                bake: step.bake,
                earliest_end: end,
            });
        }
    }
    steps
}

fn notes(plan: &Plan, args: &PlanArgs) -> Vec<String> {
    let mut notes = vec![format!(
        "chance of rolling back a version that is within its limits, over the whole rollout: at most {} %",
        plan.policy.alpha * 100.0
    )];
    if args.rps.is_empty() && args.from_prometheus.is_none() {
        let how =
            "give --from-prometheus 7d, or --rps REGION=N,..., to see what this traffic can decide";
        notes.push(how.to_owned());
    }
    if args.phi.is_none() && args.from_prometheus.is_none() {
        notes.push(
            "without history: clumpiness 5 and three polls at least; --phi says otherwise"
                .to_owned(),
        );
    }
    let full = plan.stages.last().is_some_and(|stage| stage.weight == Weight::FULL);
    notes.push(if full && plan.policy.holdback.is_zero() {
        "at 100 % nothing concurrent is left: absolute triggers go on, increases only hold; `holdback: 2%` keeps an arm"
            .to_owned()
    } else {
        format!("{} stay on stable until the last stage is proven: both arms stay comparable", plan.policy.holdback)
    });
    if plan.manual_rollback.required_approvers > 1 {
        notes.push(format!(
            "rollback by hand asks for {} people; a local run does not enforce it, and records that",
            plan.manual_rollback.required_approvers
        ));
    }
    notes
}

fn table(planned: &Planned) -> String {
    let mut text = format!(
        "{} for {}, digest {}\n\n",
        planned.pipeline,
        planned.service,
        &planned.digest[..12.min(planned.digest.len())]
    );
    let mut steps = comfy_table::Table::new();
    steps.load_style(comfy_table::presets::NOTHING);
    steps.set_header(["stage", "canary weights", "of all users", "bake", "earliest end"]);
    for step in &planned.steps {
        let mirrors = step.mirrors.iter().map(|(name, share)| format!("{name} {share} mirrored"));
        let weights: Vec<_> = step
            .weights
            .iter()
            .map(|(name, weight)| format!("{name} {weight}"))
            .chain(mirrors)
            .collect();
        steps.add_row([
            step.stage.to_string(),
            weights.join("\n"),
            format!("{:.1} %", step.exposure_percent),
            step.bake.to_string(),
            step.earliest_end.to_string(),
        ]);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{steps}\n");
    if !planned.measured.is_empty() {
        let _ = writeln!(text, "{}\n", known_table(&planned.measured));
    }
    for stage in &planned.stages {
        let rate = stage
            .canary_requests_per_second
            .map_or(String::new(), |rate| format!(", {rate:.1} canary requests/s"));
        let kind = if stage.checks_only { ": checks only, held over the whole bake" } else { "" };
        let _ = writeln!(text, "{}{rate}{kind}", stage.stage);
        for forecast in &stage.forecasts {
            let _ = writeln!(text, "  {}", forecast_line(forecast));
            if let Some(line) = found_line(forecast) {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    for note in &planned.notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn forecast_line(forecast: &Forecast) -> String {
    let Some(seconds) = forecast.seconds else {
        let remedy = forecast.remedy.as_deref().unwrap_or("by its own polls, not by traffic");
        return format!("{}: {remedy}", forecast.text);
    };
    let time = Millis((seconds * 1_000.0) as u64);
    let requests = forecast.requests.unwrap_or(0.0);
    let assumed = forecast.assumed.as_ref().map_or(String::new(), |what| format!(" (if {what})"));
    match &forecast.remedy {
        None => format!(
            "{}: {} in {time}, about {requests:.0} requests{assumed}",
            forecast.text,
            styled(GOOD, "proven")
        ),
        Some(remedy) => {
            format!("{}: {}; {remedy}{assumed}", forecast.text, styled(BAD, "not in time"))
        }
    }
}

/// The smallest harm that is found in time.
fn found_line(forecast: &Forecast) -> Option<String> {
    let stable = forecast.stable_rate?;
    let Some(canary) = forecast.smallest_found else {
        return Some("no harm whatever would be found within the stage".to_owned());
    };
    let unit = forecast.counted;
    Some(format!(
        "found within the stage: {} or more {unit}, where stable has {} ({:+.2} points)",
        percent(canary),
        percent(stable),
        (canary - stable) * 100.0
    ))
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

fn region_rate(text: &str) -> Result<(RegionName, f64), String> {
    let (name, rate) = text.split_once('=').ok_or("expected REGION=N")?;
    let name = RegionName::new(name.trim()).map_err(|error| error.to_string())?;
    let rate: f64 = rate.trim().parse().map_err(|_| format!("`{rate}` is not a number"))?;
    if rate.is_finite() && (0.0..=1e9).contains(&rate) {
        Ok((name, rate))
    } else {
        Err("expected 0 to 1e9".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) =
        text.trim().strip_suffix('%').map_or((text, 1.0), |percent| (percent, 100.0));
    let value: f64 =
        number.trim().parse().map_err(|_| format!("`{text}` is not a share: expected 0.1%"))?;
    let share = value / scale;
    if (0.0..1.0).contains(&share) {
        Ok(share)
    } else {
        Err("expected 0% to below 100%".to_owned())
    }
}
