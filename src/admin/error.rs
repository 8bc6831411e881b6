//! Every way in which the API says no, in the one envelope.
//!
//! What the store could not do is logged; the caller learns that it failed, not where.

use crate::store::{StoreError, StoreErrorKind};
use crate::wire::error::{Envelope, ExtraFields};
use crate::wire::faults::{Fault, Faults};
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer other than 2xx.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// The field it is about, if it is about one.
    param: Option<String>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None }
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn with_status(mut self, status: StatusCode) -> ApiError {
        self.status = status;
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn about(mut self, param: impl Into<String>) -> ApiError {
        self.param = Some(param.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let envelope = Envelope {
            status: self.status.as_u16(),
            kind: kind(self.status),
            message: &self.message,
            param: self.param.as_deref(),
            extra: ExtraFields::default(),
        };
        let json = [(CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, envelope.to_bytes()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                WWW_AUTHENTICATE,
                "Bearer, Basic realm=\"tollgate\"".parse().expect("a plain word is a header value"),
            );
        }
        response
    }
}

const fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::CONFLICT => "conflict",
        StatusCode::PRECONDITION_FAILED => "precondition_failed",
        StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "internal_error",
        _ => "invalid_request",
    }
}

/// Everything that is wrong with a body, in one answer. A single problem is told in the contract's own words;
/// the field then stands in `param`, and in the message only where those words leave it open.
impl From<Faults> for ApiError {
    fn from(faults: Faults) -> ApiError {
        let prefix = if faults.iter().any(|fault| fault.mistyped) { "Invalid JSON: " } else { "" };
        let first = faults.iter().next();
        let message = match first {
            Some(only) if faults.iter().len() == 1 && is_plain(only) => only.message.clone(),
            _ => format!("{prefix}{faults}"),
        };
        let error = ApiError::bad_request(message);
        match first.filter(|fault| !fault.path.is_empty()) {
            Some(fault) => error.about(fault.path.clone()),
            None => error,
        }
    }
}

/// Whether the contract's words name the field well enough: the object's own fields, not those of one among
/// several.
fn is_plain(Fault { path, message, .. }: &Fault) -> bool {
    let field = path.split(['.', '[']).next().unwrap_or("");
    let names_it =
        matches!(
            field,
            "" | "name"
                | "model_name"
                | "budget"
                | "budgets"
                | "rate_limit"
                | "targets"
                | "scope_id"
                | "concurrency_and_buffer_size"
        ) || matches!(&**path, "provider" | "custom_provider_config" | "custom_provider_config.base_provider_type");
    names_it && !message.starts_with("must be ")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error.kind {
            StoreErrorKind::NameTaken => ApiError::new(StatusCode::CONFLICT, sentence(&error)).about("name"),
            StoreErrorKind::ValueTaken | StoreErrorKind::IdTaken | StoreErrorKind::NotUnresolved => {
                ApiError::new(StatusCode::CONFLICT, sentence(&error))
            }
            StoreErrorKind::Busy => {
                tracing::warn!(%error, "a change was refused");
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The store is busy and nothing was changed; try again")
            }
            StoreErrorKind::TooLong => {
                tracing::warn!(%error, "a question to the ledger was ended");
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The question takes too long; ask for a shorter span")
            }
            _ => {
                tracing::error!(%error, "the store failed");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The store failed and nothing was changed; see the log",
                )
            }
        }
    }
}

fn sentence(error: &StoreError) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The quota's own form of an unknown credential: `error` is a plain text, here and nowhere else.
pub fn quota_unauthorized(why: &str) -> Response {
    (StatusCode::UNAUTHORIZED, Json(json!({ "error": why }))).into_response()
}
