//! Heads of messages: what of a client's reaches the provider, and what of a provider's the client.

use super::Job;
use crate::governance::route::Target;
use crate::governance::view::{Level, Measure};
use crate::provider::credential;
use crate::proxy::dial::Origin;
use crate::proxy::exchange::Exchange;
use crate::proxy::respond::own_headers;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use pingora::ErrorType;
use pingora::http::{RequestHeader, ResponseHeader};
use std::fmt::Write;

/// What a client may tell the provider in headers, beside what its dialect has for that. Everything else stays
/// here.
static PASSED_ON: [HeaderName; 5] = [
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("x-client-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];
/// What a provider's answer keeps to itself: the connection's own headers and the account behind the
/// key. Its `x-ratelimit-*`, which are about that account, too, are kept back beside these.
static KEPT_BACK: [HeaderName; 11] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TRAILER,
    header::SET_COOKIE,
    header::ALT_SVC,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("proxy-connection"),
];
/// Headers that only we may write: a provider's limits are about our account there.
const OURS: [&str; 4] = ["access-control-", "anthropic-", "x-ratelimit-", "x-tollgate-"];
static PROVIDER: HeaderName = HeaderName::from_static("x-tollgate-provider");
static MODEL: HeaderName = HeaderName::from_static("x-tollgate-model");
static MAX_TOKENS: HeaderName = HeaderName::from_static("x-tollgate-max-tokens");

pub(super) fn upstream_head(
    job: &Job<'_>,
    client: &RequestHeader,
    (origin, path): (&Origin, &str),
    target: &Target,
    body: &Bytes,
    h2: bool,
) -> pingora::Result<RequestHeader> {
    let bad = |what| pingora::Error::explain(ErrorType::InvalidHTTPHeader, what);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::POST;
    let headers = &mut parts.headers;
    headers.reserve(12);
    let uri = if h2 {
        let scheme = if origin.is_tls() { "https" } else { "http" };
        parts.version = Version::HTTP_2;
        Uri::try_from(format!("{scheme}://{}{path}", origin.authority().to_str().unwrap_or_default()))
    } else {
        headers.insert(header::HOST, origin.authority().clone());
        Uri::try_from(path)
    };
    parts.uri = uri.map_err(|_| bad("the provider's URL and path make no URI"))?;
    let dialect = job.request.call.dialect;
    for (name, value) in credential::defaults(dialect) {
        headers.insert(name.clone(), value.clone());
    }
    for name in PASSED_ON.iter().chain(credential::passed_on(dialect)) {
        if let Some(value) = client.headers.get(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in &target.provider.network.extra_headers {
        let value = HeaderValue::from_str(value.expose()).map_err(|_| bad("an extra header has no header's value"))?;
        headers.insert(HeaderName::try_from(name).map_err(|_| bad("an extra header has no header's name"))?, value);
    }
    headers.insert(header::CONTENT_TYPE, job.request.content_type.clone());
    // A compressed answer could not be read as it passes.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    // Last, since a signature covers what is sent.
    let sent = credential::Sent {
        host: origin.authority().to_str().unwrap_or_default(),
        path,
        content_type: job.request.content_type.to_str().unwrap_or_default(),
        body,
        model: &target.upstream_model,
        now: job.gateway.state.clock.now(),
    };
    let shown = credential::headers(dialect, target.key.as_deref(), sent);
    let unshown = |error| pingora::Error::because(ErrorType::InvalidHTTPHeader, "the provider key", error);
    headers.extend(shown.map_err(unshown)?);
    Ok(RequestHeader::from(parts))
}

/// The answer's head as the client gets it.
pub(super) fn client_head(
    job: &Job<'_>,
    x: &Exchange,
    upstream: ResponseHeader,
    target: &Target,
    length: Option<usize>,
    version: Version,
) -> Box<ResponseHeader> {
    let mut parts = http::response::Parts::from(upstream);
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    let ours = |name: &&HeaderName| OURS.iter().any(|prefix| name.as_str().starts_with(prefix));
    let posing: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    for name in KEPT_BACK.iter().chain(&posing) {
        headers.remove(name);
    }
    let has_body = !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    match length {
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        None => {
            headers.remove(header::CONTENT_LENGTH);
            if version == Version::HTTP_11 && has_body {
                headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
    }
    own_headers(headers, x);
    for (name, value) in [(&PROVIDER, &*target.provider.name), (&MODEL, &target.model)] {
        // A model may have any name, and not every name can stand in a header.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name.clone(), value);
        }
    }
    if let Some(tokens) = x.lowered.filter(|_| parts.status.is_success()) {
        headers.insert(MAX_TOKENS.clone(), tokens.into());
    }
    limit_headers(job, target, headers);
    Box::new(ResponseHeader::from(parts))
}

/// `x-ratelimit-*` for the tightest of the caller's own token and request limits.
fn limit_headers(job: &Job<'_>, target: &Target, headers: &mut HeaderMap) {
    let Some(caller) = job.caller else { return };
    let now = job.gateway.state.clock.now();
    for (measure, names) in &LIMIT_HEADERS {
        let limits = caller.limits_through(target.config).filter(|limit| limit.key.measure == *measure);
        let tightest = limits
            .map(|limit| {
                let (tally, start) = job.snapshot.tally(limit, now);
                (
                    limit.max.saturating_sub(tally.used).max(0),
                    limit.level == Level::VirtualKey,
                    limit.max,
                    limit.window.end(start),
                )
            })
            .min();
        if let Some((remaining, _, max, end)) = tightest {
            let [limit_name, remaining_name, reset_name] = names;
            headers.insert(limit_name.clone(), max.into());
            headers.insert(remaining_name.clone(), remaining.into());
            let reset = HeaderValue::try_from(spoken(end.since(now))).expect("digits and letters are visible ASCII");
            headers.insert(reset_name.clone(), reset);
        }
    }
}

static LIMIT_HEADERS: [(Measure, [HeaderName; 3]); 2] = [
    (
        Measure::Requests,
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
    ),
    (
        Measure::Tokens,
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ),
];

/// A time to wait as OpenAI writes it: `1h2m3s`, `6m0s`, `12s`, `250ms`.
fn spoken(millis: u64) -> String {
    let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
    let mut text = String::new();
    let written = match (hours, minutes, seconds) {
        (0, 0, 0) => write!(text, "{millis}ms"),
        (0, 0, _) => write!(text, "{seconds}s"),
        (0, _, _) => write!(text, "{minutes}m{seconds}s"),
        _ => write!(text, "{hours}h{minutes}m{seconds}s"),
    };
    written.expect("writing to a string does not fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spoken_as_openai_does() {
        let check = |millis, text: &str| assert_eq!(spoken(millis), text);
        check(250, "250ms");
        check(12_000, "12s");
        check(360_000, "6m0s");
        check(3_723_000, "1h2m3s");
    }
}
