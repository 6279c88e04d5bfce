//! `status`, `watch`, `why`, `history`: what is going on, and what was.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use comfy_table::{Table, presets};

use super::exit::Exit;
use super::failure::Failure;
use super::output::{self, BAD, Format, GOOD, WARN, styled};
use super::remote::{ApiArgs, Remote, Shown};
use crate::driver::view::{self, View};
use crate::engine::event::{Event, Fact};
use crate::engine::rollout::{Phase, Rollout};
use crate::engine::verdict::Outcome;
use crate::engine::why::outcome_text;
use crate::ports::Journal;
use crate::server::dto::Row;
use crate::store::{Store, offline};
use crate::units::{Seq, ServiceName, Timestamp};

/// What is going on, or what was recorded last.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this service
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    #[command(flatten)]
    api: ApiArgs,
}

/// What happened, oldest first.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate history api-gateway --limit 20")]
pub(super) struct HistoryArgs {
    /// The service
    service: ServiceName,
    /// At most so many of the newest facts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) async fn status(args: StatusArgs, format: Format) -> Result<Exit, Failure> {
    let found = views(&args).await?;
    if found.is_empty() {
        return Err(Failure::new("no rollout is recorded there")
            .help("`tidegate adopt`, then `tidegate run`"));
    }
    for (running, view) in &found {
        output::emit(format, &Shown { running: *running, view }, |shown| {
            table(shown.view, shown.running)
        })?;
    }
    Ok(Exit::Done)
}

pub(super) async fn why(args: StatusArgs, format: Format) -> Result<Exit, Failure> {
    for (_, view) in views(&args).await? {
        output::emit(format, &view.why, |why| {
            let lines: Vec<_> = why.iter().map(|reason| format!("- {reason}")).collect();
            if lines.is_empty() { "nothing stands in the way".to_owned() } else { lines.join("\n") }
        })?;
    }
    Ok(Exit::Done)
}

/// Shows the running rollout again whenever it changed, until it is over.
pub(super) async fn watch(args: StatusArgs, format: Format) -> Result<Exit, Failure> {
    let remote = args.api.remote()?;
    let mut named = args.service.as_ref().map(ToString::to_string);
    let mut shown: Option<View> = None;
    loop {
        let view = match remote.one(named.as_deref()).await {
            Ok(listed) => listed.view,
            // The run ended between two looks: what it recorded is the answer.
            Err(_) if shown.is_some() => return status(args, format).await,
            Err(failure) => return Err(failure),
        };
        named = Some(view.rollout.id.to_string());
        if shown.as_ref().is_none_or(|before| before.rollout != view.rollout) {
            output::emit(format, &Shown { running: true, view: &view }, |it| table(it.view, true))?;
        }
        if view.rollout.phase.is_over() {
            return Ok(if view.rollout.phase == Phase::RolledBack {
                Exit::RolledBack
            } else {
                Exit::Done
            });
        }
        shown = Some(view);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A line per service.
pub(super) async fn list(api: ApiArgs, format: Format) -> Result<Exit, Failure> {
    let args = StatusArgs { service: None, api };
    let rows = match args.api.running()? {
        Some(remote) => match remote.rows().await {
            Ok(rows) => rows,
            // The process ended meanwhile: what it recorded is the answer.
            Err(_) if args.api.server.server.is_none() => recorded_rows(&args).await?,
            Err(failure) => return Err(failure),
        },
        None => recorded_rows(&args).await?,
    };
    output::emit(format, &rows, |rows| {
        let mut table = Table::new();
        let head = ["rollout", "version", "phase", "stage", "at the canary", "why"];
        table.load_style(presets::NOTHING).set_header(head);
        for row in rows {
            let exposure = format!("{:.1} %", row.exposure * 100.0);
            let why = row.why.first().cloned().unwrap_or_default();
            let (id, version) = (row.rollout.to_string(), row.version.to_string());
            table.add_row([id, version, row.phase.clone(), row.stage.clone(), exposure, why]);
        }
        table.to_string()
    })?;
    Ok(Exit::Done)
}

async fn recorded_rows(args: &StatusArgs) -> Result<Vec<Row>, Failure> {
    let found = recorded(args).await?;
    Ok(found.iter().map(|(running, view)| Row::of(*running, view)).collect())
}

pub(super) async fn history(args: &HistoryArgs, format: Format) -> Result<Exit, Failure> {
    let (facts, state) = match args.api.server.server {
        Some(_) => {
            let remote = args.api.remote()?;
            let facts = remote.history(&args.service, args.limit).await?;
            let newest = remote.one(Some(args.service.as_str())).await.ok();
            (facts, newest.map(|one| one.view.rollout))
        }
        None => recorded_history(args)?,
    };
    output::emit(format, &facts, |facts| {
        let mut text = String::new();
        for (seq, fact) in facts {
            let line = state.as_ref().and_then(|state| view::line(state, &fact.event));
            if let Some(line) = line {
                let rollout = fact.rollout.as_ref().map_or(String::new(), ToString::to_string);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{seq:>6}  {}  {rollout}  {line}", time(fact.at));
            }
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Facts for people, and the newest rollout as all of them fold.
type History = (Vec<(Seq, Fact)>, Option<Rollout>);

fn recorded_history(args: &HistoryArgs) -> Result<History, Failure> {
    let mut facts = offline::facts(&args.api.state.folder()?, &args.service, None)?;
    let all: Vec<Fact> = facts.iter().map(|(_, fact)| fact.clone()).collect();
    // What every look found and how the clocks stood after it is for `evidence`.
    facts.retain(|(_, fact)| !matches!(fact.event, Event::Looked(_) | Event::Polled { .. }));
    facts.drain(..facts.len().saturating_sub(args.limit as usize));
    let newest = all.iter().rev().find_map(|fact| fact.rollout.clone());
    let state = newest
        .and_then(|id| Rollout::fold(all.iter().filter(|fact| fact.rollout.as_ref() == Some(&id))));
    Ok((facts, state))
}

pub(super) fn time(at: Timestamp) -> String {
    let stamp = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| at.0.to_string(), |stamp| format!("{stamp:.3}"))
}

/// The running rollout through its socket, or what the store recorded last.
async fn views(args: &StatusArgs) -> Result<Vec<(bool, View)>, Failure> {
    if let Some(remote) = args.api.running()? {
        match seen(&remote, args.service.as_ref()).await {
            Ok(found) => return Ok(found),
            // The process ended meanwhile: what it recorded is the answer.
            Err(_) if args.api.server.server.is_none() => {}
            Err(failure) => return Err(failure),
        }
    }
    recorded(args).await
}

async fn seen(
    remote: &Remote,
    service: Option<&ServiceName>,
) -> Result<Vec<(bool, View)>, Failure> {
    let mut found = Vec::new();
    for row in remote.rows().await? {
        if service.is_none_or(|only| *only == row.rollout.service) {
            let one = remote.one(Some(&row.rollout.to_string())).await?;
            found.push((one.running, one.view));
        }
    }
    Ok(found)
}

/// What the store recorded last.
async fn recorded(args: &StatusArgs) -> Result<Vec<(bool, View)>, Failure> {
    let folder = args.api.state.folder()?;
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let store = Store::open(&folder)?;
    let mut found = Vec::new();
    for service in store.services().await? {
        if args.service.as_ref().is_some_and(|only| *only != service.name) || service.rollouts == 0
        {
            continue;
        }
        let id =
            crate::units::RolloutId { service: service.name.clone(), number: service.rollouts };
        if let Some((rollout, _)) = store.rollout(&id).await? {
            let at = rollout.ended_at.unwrap_or(rollout.phase_since);
            found.push((false, View::of(&rollout, at, Seq(0), None)));
        }
    }
    Ok(found)
}

fn table(view: &View, running: bool) -> String {
    let rollout = &view.rollout;
    let mut text = headline(rollout, running);
    let mut regions = Table::new();
    regions.load_style(presets::NOTHING).set_header(["region", "wanted", "read back", "confirmed"]);
    for (name, region) in &rollout.regions {
        regions.add_row([
            name.to_string(),
            region.wanted().to_string(),
            region.seen().map_or("-".to_owned(), |reach| reach.to_string()),
            if region.confirmed == Some(rollout.generation) { "yes" } else { "no" }.to_owned(),
        ]);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{regions}");
    if let Some(judgement) = &view.judgement {
        for verdict in &judgement.verdicts {
            let outcome = match (&verdict.outcome, verdict.is_trigger) {
                (Outcome::Pass, true) => "quiet".to_owned(),
                (Outcome::Fail, true) => styled(BAD, "breached"),
                (Outcome::Undecided(_), true) => "quiet so far".to_owned(),
                (outcome, false) => outcome_text(outcome),
            };
            let numbers = &verdict.numbers;
            let count = |arm: Option<(f64, f64)>| {
                arm.map_or("-".to_owned(), |(bad, all)| format!("{bad:.0}/{all:.0}"))
            };
            let _ = writeln!(
                text,
                "  {:<44} {outcome} (canary {}, stable {})",
                verdict.text,
                count(numbers.canary),
                count(numbers.stable)
            );
        }
    }
    for reason in &view.why {
        let _ = writeln!(text, "  - {reason}");
    }
    text
}

fn headline(rollout: &Rollout, running: bool) -> String {
    let style = match rollout.phase {
        Phase::Promoted | Phase::Retired => GOOD,
        Phase::RollingBack | Phase::RolledBack => BAD,
        _ => WARN,
    };
    let phase = styled(style, &format!("{:?}", rollout.phase));
    let beside = if running || rollout.phase.is_over() {
        ""
    } else {
        " (no process drives it: tidegate run --resume)"
    };
    let cause = rollout.cause.as_ref().map_or(String::new(), |cause| format!("\n  why: {cause}"));
    format!(
        "{}: {} -> {}  {phase}{beside}\n  stage {} ({} of {}), {}{cause}\n",
        rollout.id,
        rollout.stable_version,
        rollout.version,
        rollout.stage().name,
        rollout.stage + 1,
        rollout.plan.stages.len(),
        rollout.generation,
    )
}
