//! The error envelope, which OpenAI's SDKs and the reference's clients both understand.

use serde::Serialize;

/// One error. `kind` stands in three places, since clients look in different ones.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub status: u16,
    /// The stable name of what happened.
    pub kind: &'a str,
    pub message: &'a str,
    /// The request field at fault.
    pub param: Option<&'a str>,
    pub extra: ExtraFields<'a>,
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
    pub fn to_bytes(&self) -> Vec<u8> {
        let Envelope { status, kind, message, param, extra } = self;
        let error = Inner { kind, code: kind, message, param: *param };
        let body = Body { kind, is_bifrost_error: false, status_code: *status, error, extra_fields: extra };
        serde_json::to_vec(&body).expect("texts and numbers always have a JSON form")
    }
}
