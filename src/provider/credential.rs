//! What a provider is shown and told in headers, by its dialect: exactly one credential, ours.

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::governance::request::Dialect;

/// What a client may tell the provider in headers. Everything else stays here.
pub fn passed_on(dialect: Dialect) -> &'static [HeaderName] {
    static OPENAI: [HeaderName; 1] = [HeaderName::from_static("openai-beta")];
    static ANTHROPIC: [HeaderName; 2] =
        [HeaderName::from_static("anthropic-version"), HeaderName::from_static("anthropic-beta")];
    match dialect {
        Dialect::OpenAi => &OPENAI,
        Dialect::Anthropic => &ANTHROPIC,
        Dialect::Gemini | Dialect::Bedrock | Dialect::Cohere => &[],
    }
}

/// Headers that the dialect wants and a client may have left out.
pub fn defaults(dialect: Dialect) -> &'static [(HeaderName, HeaderValue)] {
    static ANTHROPIC: [(HeaderName, HeaderValue); 1] =
        [(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"))];
    match dialect {
        Dialect::Anthropic => &ANTHROPIC,
        _ => &[],
    }
}

/// The header in which the dialect carries a provider key, and its value. `None`: no header can carry it.
pub fn credential(dialect: Dialect, key: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match dialect {
        Dialect::OpenAi | Dialect::Cohere | Dialect::Bedrock => (header::AUTHORIZATION, format!("Bearer {key}")),
        Dialect::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
        Dialect::Gemini => (HeaderName::from_static("x-goog-api-key"), key.to_owned()),
    };
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// Whether an error answer refuses the account that the house has at the provider, or its purse. A client has no
/// part in that, and must not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountRefusal {
    Yes,
    No,
    /// Its body says it: `refused_in`.
    ByItsBody,
}

/// What the status of an error answer says of our account.
pub fn refusal(dialect: Dialect, status: StatusCode) -> AccountRefusal {
    match (dialect, status) {
        // A 402 would look like the client's own budget.
        (_, StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED) => AccountRefusal::Yes,
        // A wrong key is an invalid argument there.
        (Dialect::Gemini, StatusCode::BAD_REQUEST) => AccountRefusal::ByItsBody,
        _ => AccountRefusal::No,
    }
}

/// Whether the body of a doubtful answer refuses our key.
pub fn refused_in(body: &[u8]) -> bool {
    ["API_KEY_INVALID", "API key not valid", "API key expired"]
        .iter()
        .any(|word| memchr::memmem::find(body, word.as_bytes()).is_some())
}
