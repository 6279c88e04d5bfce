//! Routes of the local API.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Json, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use super::{Current, Peer};
use crate::driver::channels::Handle;
use crate::driver::controller::{Begun, Known, Rollouts};
use crate::driver::view::View;
use crate::driver::{self};
use crate::engine::decide::Answer;
use crate::engine::event::{Actor, Adopted};
use crate::engine::input::Command;
use crate::spec::plan_from_text;
use crate::units::{RolloutId, Seq, ServiceName, Version};

/// Longest body of a command.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest body of a start: a pipeline and its analyses.
const START_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest reason that a person may give, in characters.
const REASON_MAX: usize = 500;
/// Facts that a listener who was away is told at most.
const FACTS_MAX: usize = 10_000;

/// A command as it comes over the socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRequest {
    /// `promote`, `pause`, `resume`, `release` or `rollback`.
    pub command: Verb,
    /// Why, for the audit.
    #[serde(default)]
    pub reason: String,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// One step forward, or the gate opened.
    Promote,
    /// Nothing is raised until `resume`.
    Pause,
    /// On with it.
    Resume,
    /// Out of quarantine.
    Release,
    /// Back.
    Rollback,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// Something is different now.
    pub changed: bool,
    /// Why not, if not.
    pub reason: Option<String>,
}

/// A rollout to begin: the owner's files as they are, and the version.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The service.
    pub service: ServiceName,
    /// The version to roll out.
    pub version: Version,
    /// The pipeline: the file's name and its text.
    pub pipeline: TextFile,
    /// The analyses beside it.
    pub analyses: Vec<TextFile>,
}

/// A file that a user wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Its name for messages.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// The answer to a start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartAnswer {
    /// Something is different now.
    pub changed: bool,
    /// The rollout; none where the version is stable already, or waits.
    pub rollout: Option<RolloutId>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<RolloutId>,
}

/// A service to take over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// The version that runs now.
    pub version: Version,
    /// A split in progress is taken as it is.
    #[serde(default)]
    pub as_is: bool,
}

/// A rollout and whether somebody drives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listed {
    /// Somebody does.
    pub running: bool,
    /// How it stands.
    #[serde(flatten)]
    pub view: View,
}

/// A problem, after RFC 9457.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// Stable short name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence, or one per line for a file with several mistakes.
    pub detail: String,
}

impl Problem {
    fn new(title: &str, status: u16, detail: impl ToString) -> Self {
        Self { title: title.to_owned(), status, detail: detail.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [("content-type", "application/problem+json")];
        (status, kind, serde_json::to_string(&self).unwrap_or_default()).into_response()
    }
}

impl From<driver::Error> for Problem {
    fn from(error: driver::Error) -> Self {
        use driver::Error as Fault;
        let (title, status) = match &error {
            Fault::NoSuchRollout(_) | Fault::NoSuchService(_) => ("not_found", 404),
            Fault::Open(_) => ("under_way", 409),
            Fault::NothingToUndo(..) => ("nothing_to_undo", 409),
            Fault::NotAdopted(_) | Fault::RegionNotAdopted { .. } => ("not_adopted", 409),
            Fault::SplitInProgress { .. } | Fault::NotSettled(..) => ("not_settled", 409),
            _ => ("failed", 500),
        };
        Self::new(title, status, error)
    }
}

pub(super) fn router(rollouts: Current) -> Router {
    Router::new()
        .route("/v1/rollouts", get(list).post(start))
        .route("/v1/rollouts/{id}", get(view))
        .route(
            "/v1/rollouts/{id}/command",
            post(command).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)),
        )
        .route("/v1/rollouts/{id}/events", get(events))
        .route("/v1/services/{service}/adopt", post(adopt))
        .route("/v1/services/{service}/undo", post(undo))
        .layer(DefaultBodyLimit::max(START_BYTES_MAX))
        .layer(middleware::from_fn(owner_only))
        .with_state(rollouts)
}

/// Only the user who runs Tidegate.
async fn owner_only(
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if peer.uid == Some(rustix::process::geteuid().as_raw()) {
        return next.run(request).await;
    }
    Problem::new("not_allowed", 403, "only the user who runs Tidegate may use its socket")
        .into_response()
}

fn current(rollouts: &Current) -> Arc<dyn Rollouts> {
    Arc::clone(&rollouts.borrow())
}

fn by() -> Actor {
    Actor { name: super::user(), note: None }
}

async fn list(State(rollouts): State<Current>) -> Result<Json<Vec<Listed>>, Problem> {
    let all = current(&rollouts).list().await?;
    let listed = |Known { running, view }| Listed { running, view: View::clone(&view) };
    Ok(Json(all.into_iter().map(listed).collect()))
}

async fn view(
    State(rollouts): State<Current>,
    Path(id): Path<RolloutId>,
) -> Result<Json<Listed>, Problem> {
    let all = current(&rollouts).list().await?;
    let found = all.into_iter().find(|known| known.view.rollout.id == id);
    let Known { running, view } = found.ok_or(driver::Error::NoSuchRollout(id))?;
    Ok(Json(Listed { running, view: View::clone(&view) }))
}

fn running(rollouts: &Current, id: &RolloutId) -> Result<Handle, Problem> {
    let gone = || Problem::new("not_running", 409, format!("{id} is not under way"));
    current(rollouts).handle(id).ok_or_else(gone)
}

async fn command(
    State(rollouts): State<Current>,
    Path(id): Path<RolloutId>,
    Json(request): Json<CommandRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    let handle = running(&rollouts, &id)?;
    let reason: String =
        request.reason.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    let note =
        (request.command == Verb::Rollback).then(|| "approval not enforced: local run".to_owned());
    let by = Actor { note, ..by() };
    let or = |default: &str| if reason.is_empty() { default.to_owned() } else { reason.clone() };
    let command = match request.command {
        Verb::Promote => Command::Promote,
        Verb::Pause => Command::Pause { reason: or("no reason given") },
        Verb::Resume => Command::Resume,
        Verb::Release => Command::Release,
        Verb::Rollback => Command::Rollback { reason: or("no reason given") },
    };
    match handle.ask(by, command).await {
        Answer::Accepted | Answer::None => Ok(Json(CommandAnswer { changed: true, reason: None })),
        Answer::NothingToDo(why) => Ok(Json(CommandAnswer { changed: false, reason: Some(why) })),
        Answer::Waiting(why) => Ok(Json(CommandAnswer { changed: true, reason: Some(why) })),
        Answer::Refused(detail) => Err(Problem::new("refused", 409, detail)),
        Answer::NotCounted { code, what } => Err(Problem::new(code, 409, what)),
    }
}

async fn start(
    State(rollouts): State<Current>,
    Json(request): Json<StartRequest>,
) -> Result<Json<StartAnswer>, Problem> {
    let StartRequest { service, version, pipeline, analyses } = request;
    let rollouts = current(&rollouts);
    let site = rollouts.site(&service).ok_or(driver::Error::NoSuchService(service.clone()))?;
    let stem = |name: &str| {
        let stem = std::path::Path::new(name).file_stem();
        stem.map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let analyses: Vec<_> =
        analyses.into_iter().map(|file| (stem(&file.name), file.name, file.text)).collect();
    let (plan, problems) =
        plan_from_text(&pipeline.name, &pipeline.text, &analyses, &site.fleet, &service);
    let Some(plan) = plan.filter(|_| !problems.has_errors()) else {
        return Err(Problem::new("invalid_files", 422, problems));
    };
    begun(rollouts.start(&service, plan, version, by()).await)
}

fn begun(begun: Result<Begun, driver::Error>) -> Result<Json<StartAnswer>, Problem> {
    match begun {
        Ok(Begun::Rollout(id)) => {
            Ok(Json(StartAnswer { changed: true, rollout: Some(id), behind: None }))
        }
        Ok(Begun::Behind(open)) => {
            Ok(Json(StartAnswer { changed: true, rollout: None, behind: Some(open) }))
        }
        Err(driver::Error::AlreadyStable(_)) => {
            Ok(Json(StartAnswer { changed: false, rollout: None, behind: None }))
        }
        Err(error) => Err(error.into()),
    }
}

async fn undo(
    State(rollouts): State<Current>,
    Path(service): Path<ServiceName>,
) -> Result<Json<StartAnswer>, Problem> {
    let rollouts = current(&rollouts);
    let site = rollouts.site(&service).ok_or(driver::Error::NoSuchService(service.clone()))?;
    let (plan, version) = driver::service::undoing(&site).await?;
    begun(rollouts.start(&service, plan, version, by()).await)
}

async fn adopt(
    State(rollouts): State<Current>,
    Path(service): Path<ServiceName>,
    Json(request): Json<AdoptRequest>,
) -> Result<Json<Adopted>, Problem> {
    let AdoptRequest { version, as_is } = request;
    Ok(Json(current(&rollouts).adopt(&service, version, as_is, by()).await?))
}

/// Every fact of a rollout as it is recorded, from the one after `Last-Event-ID` on.
async fn events(
    State(rollouts): State<Current>,
    Path(id): Path<RolloutId>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Problem> {
    let handle = running(&rollouts, &id)?;
    let site = current(&rollouts).site(&id.service);
    let site = site.ok_or(driver::Error::NoSuchService(id.service.clone()))?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let told = Told { handle, site, id, after: Seq(last.unwrap_or(0)), waiting: Vec::new() };
    let stream = futures_util::stream::unfold(told, |mut told| async move {
        let (seq, text) = told.next().await?;
        Some((Ok(Sent::default().id(seq.to_string()).data(text)), told))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// How far a listener has come.
struct Told {
    handle: Handle,
    site: Arc<driver::site::Site>,
    id: RolloutId,
    after: Seq,
    /// The next ones, newest first.
    waiting: Vec<(Seq, String)>,
}

impl Told {
    /// The next fact, once there is one; none when the rollout is over or cannot be read.
    async fn next(&mut self) -> Option<(Seq, String)> {
        let mut views = self.handle.views();
        while self.waiting.is_empty() {
            let view = Arc::clone(&views.borrow_and_update());
            let history = self.site.journal.history(&self.id.service, Some(&self.id), FACTS_MAX);
            let newer = history.await.ok()?.into_iter().rev();
            let newer = newer.take_while(|(seq, _)| *seq > self.after);
            let text = |(seq, fact)| Some((seq, serde_json::to_string(&fact).ok()?));
            self.waiting = newer.filter_map(text).collect();
            let is_over = view.rollout.phase.is_over();
            if self.waiting.is_empty() && (is_over || views.changed().await.is_err()) {
                return None;
            }
        }
        let next = self.waiting.pop()?;
        self.after = next.0;
        Some(next)
    }
}
