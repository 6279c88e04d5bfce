//! The same request once more: answered as before, done once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::access::Identity;

/// Longest key.
const KEY_MAX: usize = 200;
/// Answers that are kept, and for how long.
const KEPT_MAX: usize = 10_000;
const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Longest answer that is kept.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Answers to requests that carried a key. They are lost with the process: then what was done is found to be done.
#[derive(Default)]
pub(super) struct Replays(Mutex<BTreeMap<Key, Kept>>);

type Key = (String, String, String);

struct Kept {
    at: Instant,
    request: [u8; 32],
    /// None while it is under way.
    answer: Option<(StatusCode, HeaderValue, Bytes)>,
}

impl Replays {
    /// Answers `request` as before, if it came before with the same key.
    pub(super) async fn once(
        self: Arc<Self>,
        identity: &Identity,
        request: Request,
        next: Next,
        bytes_max: usize,
    ) -> Response {
        let Some(key) = request.headers().get("idempotency-key") else {
            return next.run(request).await;
        };
        let Some(key) = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_MAX)
        else {
            let what = format!("an Idempotency-Key has 1 to {KEY_MAX} visible characters");
            return Problem::new("invalid_key", 400, what).into_response();
        };
        let key = (identity.name.clone(), request.uri().path().to_owned(), key.to_owned());
        let (parts, body) = request.into_parts();
        let body = match axum::body::to_bytes(body, bytes_max).await {
            Ok(body) => body,
            Err(_) => {
                return Problem::new("too_large", 413, "the body is too long").into_response();
            }
        };
        if let Some(answer) = self.begin(&key, Sha256::digest(&body).into()) {
            return answer;
        }
        // A task of its own: it comes to its end, and its answer is kept, also when who asked is gone.
        let (own, kept) = (Arc::clone(&self), key.clone());
        let done = tokio::spawn(async move {
            let answer = next.run(Request::from_parts(parts, Body::from(body))).await;
            own.end(kept, answer).await
        });
        done.await.unwrap_or_else(|_| {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            Problem::new("failed", 500, "it could not be done").into_response()
        })
    }

    /// None: it is new, and begins.
    fn begin(&self, key: &Key, request: [u8; 32]) -> Option<Response> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT_MAX {
            all.retain(|_, kept| kept.at.elapsed() < KEPT_FOR);
        }
        if let Some(kept) = all.get(key).filter(|kept| kept.at.elapsed() < KEPT_FOR) {
            if kept.request != request {
                let what = "this Idempotency-Key came with another body before";
                return Some(Problem::new("idempotency_mismatch", 422, what).into_response());
            }
            let Some((status, kind, body)) = kept.answer.clone() else {
                let what = "the same request is under way";
                return Some(Problem::new("in_progress", 409, what).into_response());
            };
            let mut answer = (status, body).into_response();
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            return Some(answer);
        }
        if all.len() >= KEPT_MAX {
            return Some(Problem::too_many(Duration::from_secs(60)).into_response());
        }
        all.insert(key.clone(), Kept { at: Instant::now(), request, answer: None });
        None
    }

    async fn end(&self, key: Key, answer: Response) -> Response {
        let (parts, body) = answer.into_parts();
        let body =
            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What failed here may be tried again; what is too long to be kept as well.
        if parts.status.is_server_error() || body.len() > ANSWER_BYTES_MAX {
            all.remove(&key);
        } else if let Some(kept) = all.get_mut(&key) {
            let kind = parts.headers.get(header::CONTENT_TYPE).cloned();
            let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
            kept.answer = Some((parts.status, kind, body.clone()));
        }
        Response::from_parts(parts, Body::from(body))
    }
}
