//! Every route, what it asks of who calls it, and what it takes and gives. Router, OpenAPI and docs/access.md are made
//! from this one table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tower_http::limit::RequestBodyLimitLayer;

use super::dto::{
    AdoptRequest, BreakGlassRequest, CanAnswer, CheckAnswer, CheckRequest, CommandAnswer,
    CommandRequest, FleetAnswer, Page, PlanAnswer, StartAnswer, StartRequest,
};
use super::guard::{self, Need};
use super::problem::Problem;
use super::{Api, START_BYTES_MAX, openapi, routes};
use crate::spec::access::Permission as May;

/// One route.
pub(super) struct Route {
    /// `GET` or `POST`.
    pub(super) method: &'static str,
    /// With parameters in braces.
    pub(super) path: &'static str,
    /// What it asks of who calls it.
    pub(super) need: Need,
    /// What it does, in one line.
    pub(super) about: &'static str,
    /// What it takes.
    pub(super) takes: Option<SchemaOf>,
    /// What it gives; none for what is described by its own page.
    pub(super) gives: Option<SchemaOf>,
    handler: fn() -> MethodRouter<Api>,
}

/// The schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

type Handler = fn() -> MethodRouter<Api>;

const fn reads(path: &'static str, need: Need, about: &'static str, handler: Handler) -> Route {
    Route { method: "GET", path, need, about, takes: None, gives: None, handler }
}

const fn does(path: &'static str, need: Need, about: &'static str, handler: Handler) -> Route {
    Route { method: "POST", path, need, about, takes: None, gives: None, handler }
}

impl Route {
    fn takes<T: JsonSchema>(self) -> Self {
        Self { takes: Some(of::<T>), ..self }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self { gives: Some(of::<T>), ..self }
    }

    fn command(path: &'static str, may: May, about: &'static str, handler: Handler) -> Self {
        does(path, Need::OnRollout(may), about, handler)
            .takes::<CommandRequest>()
            .gives::<CommandAnswer>()
    }

    fn of_service(path: &'static str, may: May, about: &'static str, handler: Handler) -> Self {
        does(path, Need::OnService(may), about, handler)
    }
}

/// All of them.
pub(super) fn table() -> Vec<Route> {
    let mut all = reading();
    all.extend(commands());
    all.extend(services());
    all
}

fn reading() -> Vec<Route> {
    vec![
        reads(
            "/v1/rollouts",
            Need::Anybody,
            "The newest rollouts that may be seen, in pages",
            || get(routes::list),
        )
        .gives::<Page>(),
        reads("/v1/rollouts/{id}", Need::OnRollout(May::Read), "How it stands", || {
            get(routes::view)
        }),
        reads("/v1/rollouts/{id}/why", Need::OnRollout(May::Read), "Why it is not further", || {
            get(routes::why)
        }),
        reads(
            "/v1/rollouts/{id}/events",
            Need::OnRollout(May::Read),
            "Facts as they are recorded, as server-sent events",
            || get(routes::events),
        ),
        reads(
            "/v1/rollouts/{id}/evidence",
            Need::OnRollout(May::Read),
            "The newest verdict with its numbers",
            || get(routes::evidence),
        ),
        reads(
            "/v1/services/{service}",
            Need::OnService(May::Read),
            "A service's newest rollout",
            || get(routes::newest),
        ),
        reads(
            "/v1/services/{service}/history",
            Need::OnService(May::Read),
            "What happened to a service, oldest first",
            || get(routes::history),
        ),
        reads(
            "/v1/audit/{region}",
            Need::OnRegion(May::Audit),
            "A region's audit, in pages",
            || get(routes::audit),
        ),
        reads("/v1/fleet", Need::Anybody, "Regions and the services that may be seen", || {
            get(routes::fleet)
        })
        .gives::<FleetAnswer>(),
        reads("/v1/access/can-i", Need::Anybody, "Whether who asks may do something", || {
            get(routes::can_i)
        })
        .gives::<CanAnswer>(),
        reads("/v1/openapi.json", Need::Anybody, "This description", || get(openapi::serve)),
    ]
}

fn commands() -> Vec<Route> {
    vec![
        does("/v1/rollouts", Need::InBody(May::Start), "Begin a rollout", || post(routes::start))
            .takes::<StartRequest>()
            .gives::<StartAnswer>(),
        Route::command(
            "/v1/rollouts/{id}/promote",
            May::Promote,
            "One step forward without proof",
            || post(routes::promote),
        ),
        Route::command(
            "/v1/rollouts/{id}/approve",
            May::Approve,
            "A vote for what waits for approval",
            || post(routes::approve),
        ),
        Route::command(
            "/v1/rollouts/{id}/pause",
            May::Pause,
            "Nothing is raised until resume",
            || post(routes::pause),
        ),
        Route::command("/v1/rollouts/{id}/resume", May::Resume, "Go on after a pause", || {
            post(routes::resume)
        }),
        Route::command(
            "/v1/rollouts/{id}/rollback",
            May::Rollback,
            "Ask for the way back; a vote where somebody asked already",
            || post(routes::rollback),
        ),
        Route::command("/v1/rollouts/{id}/release", May::Release, "Out of quarantine", || {
            post(routes::release)
        }),
        does("/v1/pipelines/check", Need::InBody(May::Read), "Every problem of files", || {
            post(routes::check)
        })
        .takes::<CheckRequest>()
        .gives::<CheckAnswer>(),
        does("/v1/pipelines/plan", Need::InBody(May::Read), "What a rollout would do", || {
            post(routes::plan)
        })
        .takes::<CheckRequest>()
        .gives::<PlanAnswer>(),
    ]
}

fn services() -> Vec<Route> {
    vec![
        Route::of_service(
            "/v1/services/{service}/adopt",
            May::Adopt,
            "Take a service over as it stands",
            || post(routes::adopt),
        )
        .takes::<AdoptRequest>(),
        Route::of_service(
            "/v1/services/{service}/undo",
            May::Undo,
            "Back from the last promotion",
            || post(routes::undo),
        )
        .gives::<StartAnswer>(),
        Route::of_service(
            "/v1/services/{service}/retry",
            May::Start,
            "The version that was rolled back, once more",
            || post(routes::retry),
        )
        .gives::<StartAnswer>(),
        Route::of_service(
            "/v1/services/{service}/freeze",
            May::Freeze,
            "No version is raised or begins",
            || post(routes::freeze),
        )
        .takes::<CommandRequest>()
        .gives::<CommandAnswer>(),
        Route::of_service(
            "/v1/services/{service}/thaw",
            May::Freeze,
            "Versions may begin again",
            || post(routes::thaw),
        )
        .takes::<CommandRequest>()
        .gives::<CommandAnswer>(),
        Route::of_service(
            "/v1/services/{service}/review",
            May::Review,
            "What was done in an emergency was looked at",
            || post(routes::review),
        )
        .takes::<CommandRequest>()
        .gives::<CommandAnswer>(),
        does(
            "/v1/services/{service}/break-glass",
            Need::Anybody,
            "One person alone, with a region's secret: pause, rollback or freeze",
            || post(routes::break_glass),
        )
        .takes::<BreakGlassRequest>()
        .gives::<CommandAnswer>(),
    ]
}

/// The router of the table.
pub(super) fn router(api: Api) -> Router {
    let mut router = Router::new();
    for route in table() {
        let state = (api.clone(), route.need);
        let handler = (route.handler)().route_layer(from_fn_with_state(state, guard::authorize));
        router = router.route(route.path, handler);
    }
    router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || {
            Problem::new("method_not_allowed", 405, "there is no such method here")
        })
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(START_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), guard::enter))
        .layer(map_response(as_problem))
        .with_state(api)
}

/// What the framework refuses by itself says so in its own words; here it becomes a problem.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_text = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !status.is_client_error() || !is_text {
        return response;
    }
    let title = status.canonical_reason().unwrap_or("refused").to_lowercase().replace(' ', "_");
    Problem::new(&title, status.as_u16(), "the request cannot be taken as it is").into_response()
}
