//! Answers of our own: refusals, failures and the few things that the proxy serves itself.
//!
//! The connection stays open after them wherever the protocol allows: refusals come in floods.

use super::Failure;
use super::exchange::Exchange;
use super::meter::send;
use crate::governance::refusal::Refusal;
use crate::governance::request::{Dialect, RequestKind};
use crate::wire::cors;
use crate::wire::error::{Envelope, ExtraFields, Shape};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora_proxy::Session;

/// A body that was not read is read and thrown away up to this size, to keep the connection.
const DRAIN_MAX: u64 = 64 * 1024;
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static RULE: HeaderName = HeaderName::from_static("x-tollgate-rule");
static ATTEMPTS: HeaderName = HeaderName::from_static("x-tollgate-attempts");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is known of the call when it is refused: how the answer must look, and its `extra_fields`.
#[derive(Debug)]
pub(super) struct About {
    pub(super) dialect: Dialect,
    pub(super) kind: Option<RequestKind>,
    pub(super) model: Option<String>,
    pub(super) provider: Option<String>,
}

/// Says a governed "no".
pub(super) async fn refusal(
    session: &mut Session,
    refusal: &Refusal,
    about: &About,
    x: &mut Exchange,
) -> pingora::Result<()> {
    let extra = match refusal {
        Refusal::MethodNotAllowed { allowed, .. } => Some((header::ALLOW, HeaderValue::from_static(allowed))),
        _ => refusal.retry_after(x.arrived).map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))),
    };
    let said =
        Said { status: refusal.status(), code: refusal.code(), message: &refusal.to_string(), param: refusal.param() };
    error(session, said, about, extra, x).await
}

/// Says that the call failed on its way.
pub(super) async fn failure(
    session: &mut Session,
    failure: &Failure,
    about: &About,
    x: &mut Exchange,
) -> pingora::Result<()> {
    let said = Said { status: failure.status(), code: failure.code(), message: &failure.to_string(), param: None };
    error(session, said, about, None, x).await
}

/// What went wrong.
struct Said<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
}

/// Says it as the dialect of the call does.
async fn error(
    session: &mut Session,
    said: Said<'_>,
    about: &About,
    extra: Option<(HeaderName, HeaderValue)>,
    x: &mut Exchange,
) -> pingora::Result<()> {
    let Said { status, code, message, param } = said;
    let request_id = x.request_id.as_ref().and_then(|id| id.to_str().ok());
    let envelope = Envelope { status, kind: code, message, param, request_id, extra: about.extra() };
    let Shape { status, body, header } = envelope.shaped(about.dialect);
    let header = header.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    json(session, status, body, extra.into_iter().chain(header), x).await
}

impl Default for About {
    fn default() -> About {
        About { dialect: Dialect::OpenAi, kind: None, model: None, provider: None }
    }
}

impl About {
    fn extra(&self) -> ExtraFields<'_> {
        ExtraFields {
            provider: self.provider.as_deref(),
            model_requested: self.model.as_deref(),
            request_type: self.kind.map(RequestKind::as_str),
        }
    }
}

/// Sends a JSON body of our own.
pub(super) async fn json(
    session: &mut Session,
    status: u16,
    mut body: Vec<u8>,
    extra: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    x: &mut Exchange,
) -> pingora::Result<()> {
    make_reusable(session).await;
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = code;
    // For people who read it in a shell.
    body.push(b'\n');
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.extend(extra);
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    own_headers(headers, x);
    let head = ResponseHeader::from(parts);
    write_whole(session, x, Box::new(head), Bytes::from(body)).await;
    Ok(())
}

/// Answers a browser that asks what it may send.
pub(super) async fn preflight(session: &mut Session, allowed: HeaderMap, x: &mut Exchange) {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::NO_CONTENT;
    parts.headers = allowed;
    own_headers(&mut parts.headers, x);
    write_whole(session, x, Box::new(ResponseHeader::from(parts)), Bytes::new()).await;
}

/// Sends an answer that is complete already.
pub(super) async fn write_whole(session: &mut Session, x: &mut Exchange, head: Box<ResponseHeader>, body: Bytes) {
    x.status = Some(head.status.as_u16());
    let tasks = vec![HttpTask::Header(head, false), HttpTask::Body(Some(body), true)];
    if send(session, tasks).await.is_err() {
        // The client did not wait for its answer. That is no fault of ours, and nothing to log.
        x.client_left = true;
        session.set_keepalive(None);
    }
}

/// The headers that every answer carries.
pub(super) fn own_headers(headers: &mut HeaderMap, x: &Exchange) {
    if let Some(id) = &x.request_id {
        headers.insert(REQUEST_ID.clone(), id.clone());
    }
    if x.attempts > 0 {
        headers.insert(ATTEMPTS.clone(), x.attempts.into());
    }
    // A rule may have any name, and not every name can stand in a header.
    let rule = x.rule.as_ref().and_then(|rule| [&*rule.name, &*rule.id].into_iter().find_map(header_text));
    headers.extend(rule.map(|rule| (RULE.clone(), rule)));
    if let Some(page) = &x.page {
        cors::mark(headers, page.clone());
    }
}

fn header_text(text: &str) -> Option<HeaderValue> {
    let shown = !text.is_empty() && text.trim() == text && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    HeaderValue::from_str(text).ok().filter(|_| shown)
}

/// Reads what is left of a small body; a connection with more than that unread is closed.
async fn make_reusable(session: &mut Session) {
    if session.is_body_done() {
        return;
    }
    let length = session.get_header(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let small = length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length <= DRAIN_MAX);
    let expects = session.req_header().headers.contains_key(header::EXPECT);
    if session.req_header().version == Version::HTTP_2 {
        return;
    }
    if small && !expects {
        session.set_total_drain_timeout(Some(std::time::Duration::from_secs(5)));
        if session.drain_request_body().await.is_ok() {
            return;
        }
    }
    session.set_keepalive(None);
}
