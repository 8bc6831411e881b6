//! Bodies of requests: JSON, and said to be.
//!
//! A page of another site can make a browser send any text, but not call it JSON without asking first.

use super::auth::Proof;
use super::error::ApiError;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use std::convert::Infallible;

/// The body of a request. What is wrong with it is told after whether the object is there.
pub(super) struct Body(Result<Bytes, ApiError>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Infallible;

    async fn from_request(request: Request, state: &S) -> Result<Body, Infallible> {
        let proof = request.extensions().get().copied().unwrap_or(Proof::Place);
        let is_json = may_be_json(request.headers(), proof);
        let received = Bytes::from_request(request, state).await.map_err(|rejected| match rejected.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is longer than 1 MiB")
            }
            status => ApiError::new(status, "The body could not be read"),
        });
        Ok(Body(match received {
            Ok(bytes) if !is_json && !bytes.is_empty() => Err(not_json()),
            received => received,
        }))
    }
}

pub(super) fn received(body: Body) -> Result<Bytes, ApiError> {
    body.0
}

pub(super) fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("Invalid JSON: {error}")))
}

/// Whether a body may be read as JSON: its head says so, or it comes with a token. That is sent by no browser of
/// its own accord, and its senders say nothing, or what `curl -d` says, or anything.
fn may_be_json(headers: &HeaderMap, proof: Proof) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase());
    let kind = kind.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let is_json =
        |kind: &str| kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
    proof == Proof::Bearer || kind.is_some_and(is_json)
}

fn not_json() -> ApiError {
    let message = "The body must be JSON, and the header 'Content-Type: application/json' say so";
    ApiError::bad_request(message).about("content-type")
}
