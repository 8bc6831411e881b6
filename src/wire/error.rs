//! Errors, in the shape that the SDKs of each dialect expect. On OpenAI's paths that is the envelope that its
//! SDKs and the reference's clients both understand.

use crate::governance::request::Dialect;
use serde::Serialize;
use serde_json::{Value, json};

/// One error. `kind` stands in three places, since clients look in different ones.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub status: u16,
    /// The stable name of what happened.
    pub kind: &'a str,
    pub message: &'a str,
    /// The request field at fault.
    pub param: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub extra: ExtraFields<'a>,
}

/// An error as it goes out.
#[derive(Debug)]
pub struct Shape {
    pub status: u16,
    pub body: Vec<u8>,
    /// A header in which the dialect's SDKs look for the kind of error.
    pub header: Option<(&'static str, &'static str)>,
}

/// What is known of the call that failed.
#[derive(Debug, Default, Serialize)]
pub struct ExtraFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_requested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_type: Option<&'a str>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    is_bifrost_error: bool,
    status_code: u16,
    error: Inner<'a>,
    extra_fields: &'a ExtraFields<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
}

impl Envelope<'_> {
    /// The error as this dialect writes it.
    pub fn shaped(&self, dialect: Dialect) -> Shape {
        let shape = |body: Value| Shape { status: self.status, body: body.to_string().into_bytes(), header: None };
        match dialect {
            Dialect::OpenAi => Shape { status: self.status, body: self.to_bytes(), header: None },
            Dialect::Anthropic => shape(self.anthropic()),
            Dialect::Gemini => shape(self.gemini()),
            Dialect::Bedrock => self.bedrock(),
            Dialect::Cohere => shape(json!({"id": self.request_id, "message": self.message, "code": self.kind})),
        }
    }

    /// With our own code where Anthropic has its stable one.
    fn anthropic(&self) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 | 405 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        let error = json!({"type": kind, "message": self.message, "details": {"error_code": self.kind}});
        json!({"type": "error", "error": error, "request_id": self.request_id})
    }

    /// As AWS writes errors: what happened stands in a header. The reason is our own code.
    fn bedrock(&self) -> Shape {
        let (status, kind) = match self.status {
            // What its SDKs know of a credential that is no good.
            401 | 403 => (403, "AccessDeniedException"),
            402 => (402, "ServiceQuotaExceededException"),
            404 | 405 => (self.status, "ResourceNotFoundException"),
            429 => (429, "ThrottlingException"),
            503 => (503, "ServiceUnavailableException"),
            504 => (504, "ModelTimeoutException"),
            400..=499 => (self.status, "ValidationException"),
            _ => (self.status, "InternalServerException"),
        };
        let body = json!({"message": self.message, "reason": self.kind});
        Shape { status, body: body.to_string().into_bytes(), header: Some(("x-amzn-errortype", kind)) }
    }

    /// As Google's services write errors; the reason is our own code.
    fn gemini(&self) -> Value {
        let status = match self.status {
            401 => "UNAUTHENTICATED",
            402 => "FAILED_PRECONDITION",
            403 => "PERMISSION_DENIED",
            404 | 405 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            502 | 503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            400..=499 => "INVALID_ARGUMENT",
            _ => "INTERNAL",
        };
        let info = json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "tollgate", "reason": self.kind.to_ascii_uppercase(),
        });
        json!({"error": {"code": self.status, "message": self.message, "status": status, "details": [info]}})
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Envelope { status, kind, message, param, extra, .. } = self;
        let error = Inner { kind, code: kind, message, param: *param };
        let body = Body { kind, is_bifrost_error: false, status_code: *status, error, extra_fields: extra };
        serde_json::to_vec(&body).expect("texts and numbers always have a JSON form")
    }
}
