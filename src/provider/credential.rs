//! What a provider is shown and told in headers, by its dialect: exactly one credential, ours.

use http::{HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::address::aws_region;
use super::sign::{Signed, Signer, amz_date};
use crate::governance::entity::ProviderKey;
use crate::governance::request::Dialect;
use crate::governance::time::Timestamp;

/// What a client may tell the provider in headers. Everything else stays here.
pub fn passed_on(dialect: Dialect) -> &'static [HeaderName] {
    static OPENAI: [HeaderName; 1] = [HeaderName::from_static("openai-beta")];
    static ANTHROPIC: [HeaderName; 2] =
        [HeaderName::from_static("anthropic-version"), HeaderName::from_static("anthropic-beta")];
    static BEDROCK: [HeaderName; 5] = [
        HeaderName::from_static("x-amzn-bedrock-service-tier"),
        HeaderName::from_static("x-amzn-bedrock-guardrailidentifier"),
        HeaderName::from_static("x-amzn-bedrock-guardrailversion"),
        HeaderName::from_static("x-amzn-bedrock-trace"),
        HeaderName::from_static("x-amzn-bedrock-performanceconfig-latency"),
    ];
    match dialect {
        Dialect::OpenAi => &OPENAI,
        Dialect::Anthropic => &ANTHROPIC,
        Dialect::Bedrock => &BEDROCK,
        Dialect::Gemini | Dialect::Cohere => &[],
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

/// A request on its way, as far as a signature covers it.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub host: &'a str,
    pub path: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
    pub model: &'a str,
    pub now: Timestamp,
}

/// The headers by which the provider knows us; none for one that asks for nothing.
pub fn headers(dialect: Dialect, key: Option<&ProviderKey>, sent: Sent<'_>) -> Result<Headers, Unshowable> {
    let Some(key) = key else { return Ok(Headers::new()) };
    if !key.value.is_empty() {
        return Ok(SmallVec::from_iter([header_of(dialect, key.value.expose())?]));
    }
    match dialect {
        Dialect::Bedrock => signed(key, sent),
        _ => Ok(Headers::new()),
    }
}

pub type Headers = SmallVec<[(HeaderName, HeaderValue); 3]>;

/// Why a provider key cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unshowable {
    #[error("the provider key has characters that no header can carry")]
    Characters,
    #[error("the provider key has neither a value nor an access key with its secret")]
    Nothing,
}

/// The header in which the dialect carries a provider key.
fn header_of(dialect: Dialect, key: &str) -> Result<(HeaderName, HeaderValue), Unshowable> {
    match dialect {
        Dialect::OpenAi | Dialect::Cohere | Dialect::Bedrock => hidden(header::AUTHORIZATION, format!("Bearer {key}")),
        Dialect::Anthropic => hidden(HeaderName::from_static("x-api-key"), key.to_owned()),
        Dialect::Gemini => hidden(HeaderName::from_static("x-goog-api-key"), key.to_owned()),
    }
}

fn hidden(name: HeaderName, value: String) -> Result<(HeaderName, HeaderValue), Unshowable> {
    let mut value = HeaderValue::try_from(value).map_err(|_| Unshowable::Characters)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// What AWS wants: a signature over the request as it is sent.
fn signed(key: &ProviderKey, sent: Sent<'_>) -> Result<Headers, Unshowable> {
    let (Some(access_key), Some(secret_key)) = (key.cloud_text("access_key"), key.cloud_text("secret_key")) else {
        return Err(Unshowable::Nothing);
    };
    let region = aws_region(sent.model).or_else(|| key.cloud_text("region")).or_else(|| host_region(sent.host));
    let signer = Signer { access_key, secret_key, region: region.unwrap_or("us-east-1"), service: "bedrock" };
    let (date, token) = (amz_date(sent.now), key.cloud_text("session_token"));
    let mut covered = vec![("content-type", sent.content_type), ("host", sent.host), ("x-amz-date", &*date)];
    covered.extend(token.map(|token| ("x-amz-security-token", token)));
    let request = Signed { method: "POST", path: sent.path, headers: &covered, body: sent.body };
    let mut headers = Headers::new();
    headers.push(hidden(header::AUTHORIZATION, signer.authorization(request, &date))?);
    if let Some(token) = token {
        headers.push(hidden(HeaderName::from_static("x-amz-security-token"), token.to_owned())?);
    }
    headers.push((
        HeaderName::from_static("x-amz-date"),
        HeaderValue::try_from(date).map_err(|_| Unshowable::Characters)?,
    ));
    Ok(headers)
}

/// The region in the name of AWS's own host.
fn host_region(host: &str) -> Option<&str> {
    host.strip_prefix("bedrock-runtime.")?.split('.').next()
}
