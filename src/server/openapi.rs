//! OpenAPI 3.1 of the API, made from the table of routes.

use axum::Json;
use axum::extract::State;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Api;
use super::guard::Need;
use super::problem::Problem;
use super::table::{Route, table};

pub(super) async fn serve(State(_): State<Api>) -> Json<Value> {
    Json(document())
}

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for route in table() {
        let operation = operation(&route, &mut generator, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate", "version": env!("CARGO_PKG_VERSION"),
            "description": "Rollouts of a fleet: what is going on, and what may be asked. Problems after RFC 9457. Changes take an Idempotency-Key, commands an If-Match with the ETag of the rollout."
        },
        "security": [{"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "tg_<id>_<secret>, or a token of GitHub Actions"},
                "certificate": {"type": "mutualTLS"}
            },
            "schemas": schemas
        }
    })
}

fn operation(
    route: &Route,
    generator: &mut schemars::SchemaGenerator,
    problem: &schemars::Schema,
) -> Value {
    let parameters: Vec<_> = route
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let gives = route.gives.map_or_else(|| json!({"type": "object"}), |of| json!(of(generator)));
    let kind =
        if route.path.ends_with("/events") { "text/event-stream" } else { "application/json" };
    let refused = json!({"description": "A problem", "content": {"application/problem+json": {"schema": problem}}});
    let mut operation = json!({
        "summary": route.about,
        "parameters": parameters,
        "x-permission": permission(route.need),
        "responses": {"200": {"description": "Done", "content": {kind: {"schema": gives}}}, "default": refused}
    });
    if let Some(takes) = route.takes {
        let schema = json!(takes(generator));
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// What a route asks for, for people.
pub(super) fn permission(need: Need) -> String {
    match need {
        Need::Anybody => "anybody known".to_owned(),
        Need::OnRollout(permission) | Need::OnService(permission) | Need::InBody(permission) => {
            permission.to_string()
        }
        Need::OnRegion(permission) => format!("{permission} in the region"),
    }
}
