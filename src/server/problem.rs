//! What went wrong, after RFC 9457.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Denied;
use crate::driver;

/// A problem: a stable short name, the HTTP status, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Stable short name.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence, or one per line for a file with several mistakes.
    pub detail: String,
    /// Where in the body it is, as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Seconds to wait before the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem.
    pub fn new(title: &str, status: u16, detail: impl ToString) -> Self {
        let (title, detail) = (title.to_owned(), detail.to_string());
        Self { title, status, detail, pointer: None, retry_after: None }
    }

    /// Nobody that is known. The same for every reason.
    pub fn unauthenticated() -> Self {
        Self::new("unauthenticated", 401, "a token or a certificate that counts is needed")
    }

    /// There is nothing like that, or nothing that may be seen.
    pub fn not_found() -> Self {
        Self::new("not_found", 404, "there is nothing here")
    }

    /// Too much at once.
    pub fn too_many(wait: std::time::Duration) -> Self {
        let retry_after = Some(wait.as_secs().saturating_add(1));
        Self { retry_after, ..Self::new("too_many_requests", 429, "too many requests; wait") }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, kind, body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::new("not_allowed", 403, denied)
    }
}

impl From<driver::Error> for Problem {
    fn from(error: driver::Error) -> Self {
        use driver::Error as Fault;
        let (title, status) = match &error {
            Fault::NoSuchRollout(_) | Fault::NoSuchService(_) => ("not_found", 404),
            Fault::Open(_) => ("under_way", 409),
            Fault::Frozen { .. } => ("frozen", 409),
            Fault::NothingToUndo(..) => ("nothing_to_undo", 409),
            Fault::NothingToRetry(..) => ("nothing_to_retry", 409),
            Fault::NotAdopted(_) | Fault::RegionNotAdopted { .. } => ("not_adopted", 409),
            Fault::SplitInProgress { .. } | Fault::NotSettled(..) => ("not_settled", 409),
            _ => ("failed", 500),
        };
        Self::new(title, status, error)
    }
}
