//! What every route does. Whether who calls may was asked before, except where the body names the service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::dto::{
    AdoptRequest, BreakGlassRequest, CanAnswer, CheckAnswer, CheckRequest, CommandAnswer,
    CommandRequest, FleetAnswer, FleetService, Listed, Page, PlanAnswer, PlannedStage, Row,
    StartAnswer, StartRequest, TextFile, Verb,
};
use super::guard::Caller;
use super::problem::Problem;
use super::{Api, events as sse};
use crate::access::who_may;
use crate::driver::controller::{Begun, Known};
use crate::driver::{self};
use crate::engine::decide::Answer;
use crate::engine::event::{Actor, Adopted, Emergency, Event};
use crate::engine::input::Command;
use crate::engine::rollout::Rollout;
use crate::spec::access::Permission;
use crate::spec::plan::Plan;
use crate::spec::{Diagnostics, plan_from_text};
use crate::units::{RegionName, RolloutId, Seq, ServiceName};

/// Longest reason that a person may give, in characters.
const REASON_MAX: usize = 500;
/// Rows of a page, unless asked for; and at most.
const PAGE: (usize, usize) = (50, 200);
/// Facts and audit records of one answer at most.
const FACTS_MAX: usize = 1_000;
/// Facts that are looked through for them.
const HISTORY_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    limit: Option<u64>,
    cursor: Option<String>,
}

impl Paging {
    /// Rows, and the name after which they begin. A cursor that is not ours is refused.
    fn read(&self) -> Result<(usize, Option<ServiceName>), Problem> {
        let asked = self.limit.map_or(PAGE.0, |limit| usize::try_from(limit).unwrap_or(PAGE.1));
        let wrong = || Problem::new("invalid_cursor", 400, "this is not a cursor of a page before");
        let after = match &self.cursor {
            None => None,
            Some(cursor) => {
                let (name, sum) = cursor.rsplit_once('.').ok_or_else(wrong)?;
                let own = sum == format!("{:08x}", crc32fast::hash(name.as_bytes()));
                Some(name.parse().ok().filter(|_| own).ok_or_else(wrong)?)
            }
        };
        Ok((asked.clamp(1, PAGE.1), after))
    }
}

fn cursor(name: &ServiceName) -> String {
    format!("{name}.{:08x}", crc32fast::hash(name.as_str().as_bytes()))
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    paging: Result<Query<Paging>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let invalid = |_| Problem::new("invalid_query", 400, "there are `limit` and `cursor`");
    let (limit, after) = paging.map_err(invalid)?.0.read()?;
    let rollouts = api.rollouts();
    let (mut items, mut next) = (Vec::new(), None);
    for service in rollouts.services() {
        if after.as_ref().is_some_and(|after| service <= *after) {
            continue;
        }
        let Some(known) = rollouts.newest(&service).await? else { continue };
        let regions = known.view.rollout.plan.regions.keys();
        let fleet = rollouts.fleet();
        if caller.0.may(&fleet.access, Permission::Read, &service, regions).is_err() {
            continue;
        }
        if items.len() == limit {
            next = items.last().map(|row: &Row| cursor(&row.rollout.service));
            break;
        }
        items.push(Row::of(known.running, &known.view));
    }
    Ok(Json(Page { items, next }))
}

async fn found(api: &Api, id: &RolloutId) -> Result<Known, Problem> {
    api.rollouts().find(id).await?.ok_or_else(Problem::not_found)
}

fn listed(known: Known) -> Response {
    let tag = [(header::ETAG, format!("\"{}\"", known.view.seq))];
    (tag, Json(Listed::from(known))).into_response()
}

pub(super) async fn view(
    State(api): State<Api>,
    Path(id): Path<RolloutId>,
) -> Result<Response, Problem> {
    Ok(listed(found(&api, &id).await?))
}

pub(super) async fn newest(
    State(api): State<Api>,
    Path(service): Path<ServiceName>,
) -> Result<Response, Problem> {
    let known = api.rollouts().newest(&service).await?;
    Ok(listed(known.ok_or_else(Problem::not_found)?))
}

pub(super) async fn why(
    State(api): State<Api>,
    Path(id): Path<RolloutId>,
) -> Result<Json<Value>, Problem> {
    let view = found(&api, &id).await?.view;
    let lines: Vec<_> = view.why.iter().map(ToString::to_string).collect();
    Ok(Json(json!({"why": view.why, "text": lines})))
}

pub(super) async fn evidence(
    State(api): State<Api>,
    Path(id): Path<RolloutId>,
) -> Result<Json<Value>, Problem> {
    let view = found(&api, &id).await?.view;
    Ok(Json(json!({"at": view.at, "judgement": view.judgement})))
}

#[derive(Deserialize)]
pub(super) struct Limit {
    limit: Option<u64>,
    after: Option<u64>,
}

impl Limit {
    fn rows(&self) -> usize {
        let asked = self.limit.map_or(100, |limit| usize::try_from(limit).unwrap_or(FACTS_MAX));
        asked.clamp(1, FACTS_MAX)
    }
}

pub(super) async fn history(
    State(api): State<Api>,
    Path(service): Path<ServiceName>,
    Query(limit): Query<Limit>,
) -> Result<Json<Value>, Problem> {
    let site = api.rollouts().site(&service).ok_or_else(Problem::not_found)?;
    let _turn = api.heavy().await;
    let facts = site.journal.history(&service, None, HISTORY_MAX).await;
    let mut facts = facts.map_err(driver::Error::from)?;
    // What every look found and how the clocks stood after it is evidence.
    facts.retain(|(_, fact)| !matches!(fact.event, Event::Looked(_) | Event::Polled { .. }));
    facts.drain(..facts.len().saturating_sub(limit.rows()));
    Ok(Json(json!(facts)))
}

pub(super) async fn audit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(region): Path<RegionName>,
    Query(limit): Query<Limit>,
) -> Result<Json<Value>, Problem> {
    let failed = |error: String| Problem::new("failed", 500, error);
    let _turn = api.heavy().await;
    let (audit, of, after, most) =
        (api.audit(), region.clone(), limit.after.unwrap_or(0), limit.rows());
    let read = tokio::task::spawn_blocking(move || audit.read(&of, after, most)).await;
    let mut rows = read.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    let next = rows.last().and_then(|row| row.get("seq").cloned());
    // A role for some services reads what concerns those.
    let fleet = api.rollouts().fleet();
    rows.retain(|row| {
        let service = row.get("service").and_then(|name| name.as_str()?.parse().ok());
        service.is_none_or(|service: ServiceName| {
            caller.0.may(&fleet.access, Permission::Audit, &service, [&region]).is_ok()
        })
    });
    Ok(Json(json!({"items": rows, "next": next})))
}

pub(super) async fn fleet(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<FleetAnswer>, Problem> {
    let fleet = api.rollouts().fleet();
    let regions = fleet.regions.iter().map(|(name, it)| (name.clone(), it.share.percent()));
    let mut services = BTreeMap::new();
    for (name, service) in &fleet.services {
        let at: BTreeSet<_> = service.targets.keys().cloned().collect();
        if !caller.sees(&api, name, &at) {
            continue;
        }
        let known = match api.rollouts().site(name) {
            Some(site) => site.journal.service(name).await.map_err(driver::Error::from)?,
            None => None,
        };
        let frozen = known.and_then(|(state, _)| state.frozen);
        let row = FleetService {
            owner: service.owner.clone(),
            authority: json!(service.authority).as_str().unwrap_or_default().to_owned(),
            regions: at.into_iter().collect(),
            frozen: frozen.map(|it| format!("by {}: {}", it.by, it.reason)),
        };
        services.insert(name.clone(), row);
    }
    Ok(Json(FleetAnswer { regions: regions.collect(), services }))
}

#[derive(Deserialize)]
pub(super) struct Question {
    permission: String,
    service: ServiceName,
    region: Option<RegionName>,
}

pub(super) async fn can_i(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(question): Query<Question>,
) -> Result<Json<CanAnswer>, Problem> {
    let wrong = |what: String| Problem::new("invalid_query", 400, what);
    let permission = question.permission.parse().map_err(wrong)?;
    let regions = match question.region {
        Some(region) => [region].into(),
        None => api.regions_of(&question.service).ok_or_else(Problem::not_found)?,
    };
    let access = &api.rollouts().fleet().access;
    let reason = caller.0.may(access, permission, &question.service, &regions).err();
    let reason = reason.map(|denied| denied.to_string());
    Ok(Json(CanAnswer { name: caller.0.name.clone(), allowed: reason.is_none(), reason }))
}

fn checked(
    api: &Api,
    caller: &Caller,
    permission: Permission,
    service: &ServiceName,
    (pipeline, analyses): (TextFile, Vec<TextFile>),
) -> Result<(Option<Plan>, Diagnostics), Problem> {
    // Who may nothing there is not told what the fleet has.
    let regions = api.regions_of(service).ok_or_else(Problem::not_found)?;
    if !caller.sees(api, service, &regions) {
        return Err(Problem::not_found());
    }
    let site = api.rollouts().site(service).ok_or_else(Problem::not_found)?;
    let stem = |name: &str| {
        let stem = std::path::Path::new(name).file_stem();
        stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let analyses: Vec<_> =
        analyses.into_iter().map(|file| (stem(&file.name), file.name, file.text)).collect();
    let (plan, problems) =
        plan_from_text(&pipeline.name, &pipeline.text, &analyses, &site.fleet, service);
    let plan = plan.filter(|_| !problems.has_errors());
    let asked: BTreeSet<_> = match &plan {
        Some(plan) => plan.regions.keys().cloned().collect(),
        None => regions,
    };
    caller.may(api, permission, service, &asked)?;
    Ok((plan, problems))
}

pub(super) async fn check(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CheckRequest>,
) -> Result<Json<CheckAnswer>, Problem> {
    let files = (request.pipeline, request.analyses);
    let (plan, problems) = checked(&api, &caller, Permission::Read, &request.service, files)?;
    let plan_digest = plan.map(|plan| plan.digest);
    let valid = plan_digest.is_some();
    Ok(Json(CheckAnswer { valid, problems: problems.to_string(), plan_digest }))
}

pub(super) async fn plan(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CheckRequest>,
) -> Result<Json<PlanAnswer>, Problem> {
    let files = (request.pipeline, request.analyses);
    let (plan, problems) = checked(&api, &caller, Permission::Read, &request.service, files)?;
    let plan = plan.ok_or_else(|| Problem::new("invalid_files", 422, problems))?;
    let stages = plan.stages.iter().map(|stage| PlannedStage {
        name: stage.name.to_string(),
        regions: stage.regions.clone(),
        weight_percent: stage.weight.percent(),
        mirror_percent: stage.mirror.percent(),
        duration_seconds: stage.duration.as_secs_f64(),
        criteria: stage.criteria.iter().map(|criterion| criterion.text.clone()).collect(),
        approvals: stage.approvals.map(|approvals| approvals.required),
    });
    Ok(Json(PlanAnswer {
        stages: stages.collect(),
        triggers: plan.triggers.iter().map(|trigger| trigger.text.clone()).collect(),
        rollback_approvers: plan.manual_rollback.required_approvers,
        plan_digest: plan.digest,
    }))
}

pub(super) async fn start(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<StartRequest>,
) -> Result<Json<StartAnswer>, Problem> {
    let StartRequest { service, version, pipeline, analyses, plan_digest } = request;
    let files = (pipeline, analyses);
    let (plan, problems) = checked(&api, &caller, Permission::Start, &service, files)?;
    let plan = plan.ok_or_else(|| Problem::new("invalid_files", 422, problems))?;
    if plan_digest.is_some_and(|digest| digest != plan.digest) {
        let what =
            format!("these files come to the plan {}, not to the one looked at", plan.digest);
        return Err(Problem::new("plan_digest_changed", 409, what));
    }
    let rollouts = api.rollouts();
    let open = rollouts.newest(&service).await?.filter(|known| known.running);
    if let Some(open) = open.filter(|open| open.view.rollout.stable_version == version) {
        return cancel(&api, &caller, &open.view.rollout).await;
    }
    begun(rollouts.start(&service, plan, version, caller.actor()).await)
}

/// The stable version is declared again: what is under way goes back, as if somebody had asked for that.
async fn cancel(api: &Api, caller: &Caller, open: &Rollout) -> Result<Json<StartAnswer>, Problem> {
    let (id, regions) = (&open.id, open.plan.regions.keys());
    caller.may(api, Permission::Rollback, &id.service, regions)?;
    let reason = format!("{} was declared again", open.stable_version);
    let request = CommandRequest { reason, plan_digest: None };
    let Json(answer) = command(api, caller, id, &HeaderMap::new(), request, Verb::Rollback).await?;
    let cancels = Some(id.clone());
    Ok(Json(StartAnswer { changed: answer.changed, rollout: None, behind: None, cancels }))
}

fn begun(begun: Result<Begun, driver::Error>) -> Result<Json<StartAnswer>, Problem> {
    let answer = |changed, rollout, behind| {
        Ok(Json(StartAnswer { changed, rollout, behind, cancels: None }))
    };
    match begun {
        Ok(Begun::Rollout(id)) => answer(true, Some(id), None),
        Ok(Begun::Behind(open)) => answer(true, None, Some(open)),
        Err(driver::Error::AlreadyStable(_)) => answer(false, None, None),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn undo(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
) -> Result<Json<StartAnswer>, Problem> {
    let rollouts = api.rollouts();
    let site = rollouts.site(&service).ok_or_else(Problem::not_found)?;
    let (plan, version) = driver::service::undoing(&site).await?;
    begun(rollouts.start(&service, plan, version, caller.actor()).await)
}

pub(super) async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
) -> Result<Json<StartAnswer>, Problem> {
    let rollouts = api.rollouts();
    let site = rollouts.site(&service).ok_or_else(Problem::not_found)?;
    let (plan, version) = driver::service::retrying(&site).await?;
    begun(rollouts.start(&service, plan, version, caller.actor()).await)
}

pub(super) async fn adopt(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Body(request): Body<AdoptRequest>,
) -> Result<Json<Adopted>, Problem> {
    let AdoptRequest { version, as_is } = request;
    Ok(Json(api.rollouts().adopt(&service, version, as_is, caller.actor()).await?))
}

/// One line of what a person says.
fn one_line(text: &str) -> Option<String> {
    let line: String = text.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

fn reason(text: &str) -> String {
    one_line(text).unwrap_or_else(|| "no reason given".to_owned())
}

macro_rules! commands {
    ($($name:ident = $verb:expr;)+) => {
        $(pub(super) async fn $name(
            State(api): State<Api>,
            Extension(caller): Extension<Caller>,
            Path(id): Path<RolloutId>,
            headers: HeaderMap,
            Body(request): Body<CommandRequest>,
        ) -> Result<Json<CommandAnswer>, Problem> {
            command(&api, &caller, &id, &headers, request, $verb).await
        })+
    };
}

commands! {
    promote = Verb::Promote;
    approve = Verb::Approve;
    pause = Verb::Pause;
    resume = Verb::Resume;
    rollback = Verb::Rollback;
    release = Verb::Release;
}

async fn command(
    api: &Api,
    caller: &Caller,
    id: &RolloutId,
    headers: &HeaderMap,
    request: CommandRequest,
    verb: Verb,
) -> Result<Json<CommandAnswer>, Problem> {
    let rollouts = api.rollouts();
    let gone = || Problem::new("not_running", 409, format!("{id} is not under way"));
    let handle = rollouts.handle(id).ok_or_else(gone)?;
    let view = Arc::clone(&handle.views().borrow());
    is_current(headers, view.seq)?;
    let enforced = rollouts.enforces();
    let mut by = caller.actor();
    if !enforced && matches!(verb, Verb::Rollback | Verb::Promote) {
        // It stands in the record that nobody was asked.
        let note = "approval not enforced: local run".to_owned();
        by.note = (verb == Verb::Rollback).then_some(note).or(by.note);
    }
    let command = match verb {
        Verb::Promote if enforced => Command::PromoteApproved,
        Verb::Promote => Command::Promote,
        Verb::Pause => Command::Pause { reason: reason(&request.reason) },
        Verb::Resume => Command::Resume,
        Verb::Release => Command::Release,
        Verb::Approve => {
            let electors = electors(api, &view.rollout);
            Command::Approve { digest: request.plan_digest, electors }
        }
        Verb::Rollback if enforced => {
            let electors = electors(api, &view.rollout);
            Command::AskRollback { reason: reason(&request.reason), electors }
        }
        Verb::Rollback => Command::Rollback { reason: reason(&request.reason) },
    };
    answered(handle.ask(by, command).await)
}

/// Who may vote now on what waits: roles are looked at again at every vote.
fn electors(api: &Api, rollout: &Rollout) -> BTreeSet<String> {
    let fleet = api.rollouts().fleet();
    let permissions: &[Permission] = match rollout.rollback_asked {
        Some(_) => &[Permission::Approve, Permission::Rollback],
        None => &[Permission::Approve],
    };
    let (service, regions) = (&rollout.id.service, rollout.plan.regions.keys());
    let mut all = who_may(&fleet.access, permissions, service, regions);
    // Whoever runs it may everything.
    all.insert(super::user());
    all
}

/// `If-Match` holds against the tag that the rollout was read with.
fn is_current(headers: &HeaderMap, seq: Seq) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let wanted = wanted.to_str().unwrap_or_default();
    let own = format!("\"{seq}\"");
    if wanted == "*" || wanted.split(',').any(|tag| tag.trim() == own) {
        return Ok(());
    }
    Err(Problem::new("changed_meanwhile", 412, format!("it stands at {own} now")))
}

fn answered(answer: Answer) -> Result<Json<CommandAnswer>, Problem> {
    let said = |changed, reason| Ok(Json(CommandAnswer { changed, reason }));
    match answer {
        Answer::Accepted | Answer::None => said(true, None),
        Answer::Waiting(why) => said(true, Some(why)),
        Answer::NothingToDo(why) => said(false, Some(why)),
        Answer::Refused(what) => Err(Problem::new("refused", 409, what)),
        Answer::NotCounted { code, what } => Err(Problem::new(code, 409, what)),
    }
}

/// The answer to a command on a service: it goes to its rollout where one is under way.
async fn told(
    api: &Api,
    service: &ServiceName,
    by: Actor,
    command: Command,
) -> Result<Json<CommandAnswer>, Problem> {
    answered(api.rollouts().tell(service, by, command).await?)
}

pub(super) async fn freeze(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Body(request): Body<CommandRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    let command = Command::Freeze { reason: reason(&request.reason) };
    told(&api, &service, caller.actor(), command).await
}

pub(super) async fn thaw(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Body(_): Body<CommandRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    told(&api, &service, caller.actor(), Command::Thaw).await
}

pub(super) async fn review(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Body(request): Body<CommandRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    let site = api.rollouts().site(&service).ok_or_else(Problem::not_found)?;
    let known = site.journal.service(&service).await.map_err(driver::Error::from)?;
    let broken = known.map(|(state, _)| state.to_review).unwrap_or_default();
    if broken.is_empty() {
        let reason = Some("there is nothing to review".to_owned());
        return Ok(Json(CommandAnswer { changed: false, reason }));
    }
    if broken.iter().any(|one| one.by == caller.0.name) {
        let what = format!("{} broke the glass; somebody else has to look at it", caller.0.name);
        return Err(Problem::new("requester_cannot_approve", 409, what));
    }
    let command = Command::Review { note: reason(&request.reason) };
    told(&api, &service, caller.actor(), command).await
}

pub(super) async fn break_glass(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(service): Path<ServiceName>,
    Body(request): Body<BreakGlassRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    let action = match request.action.as_str() {
        "pause" => Emergency::Pause,
        "rollback" => Emergency::Rollback,
        "freeze" => Emergency::Freeze,
        _ => {
            let what = "in an emergency there are pause, rollback and freeze: no way forward";
            return Err(Problem::new("not_allowed", 403, what));
        }
    };
    let why = one_line(&request.reason)
        .ok_or_else(|| Problem::new("no_reason", 422, "an emergency has a reason"))?;
    let regions = api.regions_of(&service).ok_or_else(Problem::not_found)?;
    let running = api.rollouts().newest(&service).await?.is_some_and(|known| known.running);
    if !running && action != Emergency::Freeze {
        return Err(Problem::new("not_running", 409, "no rollout is under way: there is freeze"));
    }
    api.break_glass(&caller.0, &regions, &request.region, &request.secret)?;
    let command = Command::BreakGlass { region: request.region, action, reason: why };
    told(&api, &service, caller.actor(), command).await
}

pub(super) async fn events(
    State(api): State<Api>,
    Path(id): Path<RolloutId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let gone = || Problem::new("not_running", 409, format!("{id} is not under way"));
    let handle = api.rollouts().handle(&id).ok_or_else(gone)?;
    let site = api.rollouts().site(&id.service).ok_or_else(Problem::not_found)?;
    let place = api.stream().ok_or_else(|| {
        Problem::new("too_many_streams", 503, "too many listen already; try again later")
    })?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(sse::stream(handle, site, id, Seq(last.unwrap_or(0)), place).into_response())
}
