//! Bodies in JSON, with a problem that says where it is wrong.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A body, read strictly: no field that means nothing, none twice.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Err(Problem::new("not_json", 415, "a body is application/json"));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let status = axum::response::IntoResponse::into_response(rejection).status().as_u16();
            match status {
                413 => Problem::new("too_large", 413, "the body is too long"),
                _ => Problem::new("broken_body", 400, "the body did not come to its end"),
            }
        })?;
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let pointer = Some(error.path().to_string()).filter(|path| path != ".");
            let inner = error.into_inner();
            let (title, status) = match inner.is_data() {
                true => ("invalid_body", 422),
                false => ("invalid_json", 400),
            };
            // The message may repeat a value, which may be a secret: its kind is enough where it is one.
            Problem { pointer, ..Problem::new(title, status, safe(&inner)) }
        })?;
        let end = |error: serde_json::Error| Problem::new("invalid_json", 400, safe(&error));
        reader.end().map_err(end)?;
        Ok(Self(read))
    }
}

/// What is wrong without the text that was sent.
fn safe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let names = ["unknown field", "unknown variant", "missing field", "duplicate field"];
    if names.iter().any(|name| text.starts_with(name)) {
        return crate::units::shown(&text);
    }
    format!("not what is expected at line {} column {}", error.line(), error.column())
}
