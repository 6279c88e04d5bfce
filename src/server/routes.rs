//! Routes of the local API.

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Json, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::Peer;
use crate::driver::channels::Handle;
use crate::driver::view::View;
use crate::engine::decide::Answer;
use crate::engine::event::Actor;
use crate::engine::input::Command;

/// Longest body of a command.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Longest reason that a person may give, in characters.
const REASON_MAX: usize = 500;

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

/// A problem, after RFC 9457.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// Stable short name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence.
    pub detail: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [("content-type", "application/problem+json")];
        (status, kind, serde_json::to_string(&self).unwrap_or_default()).into_response()
    }
}

pub(super) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/rollout", get(view))
        .route("/v1/rollout/command", post(command))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(owner_only))
        .with_state(handle)
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
    let detail = "only the user who runs Tidegate may use its socket".to_owned();
    Problem { title: "not_allowed".to_owned(), status: 403, detail }.into_response()
}

async fn view(State(handle): State<Handle>) -> Json<View> {
    let view = handle.views().borrow().as_ref().clone();
    Json(view)
}

async fn command(
    State(handle): State<Handle>,
    Json(request): Json<CommandRequest>,
) -> Result<Json<CommandAnswer>, Problem> {
    let reason: String =
        request.reason.chars().filter(|c| !c.is_control()).take(REASON_MAX).collect();
    let note =
        (request.command == Verb::Rollback).then(|| "approval not enforced: local run".to_owned());
    let by = Actor { name: super::user(), note };
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
        Answer::Refused(detail) => {
            Err(Problem { title: "refused".to_owned(), status: 409, detail })
        }
    }
}
