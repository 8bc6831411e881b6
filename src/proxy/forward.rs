//! Attempts: one exchange with one target after the other, until one of them answers.
//!
//! This drives Pingora's connector itself instead of its proxy pump, because only so can a body of
//! any size be sent again, an answer's head be held back until it is known to be good, and every
//! ending be settled at one place. What the pump would have done is done here: timeouts, the silent
//! retry on a stale connection, header hygiene. Nothing is tried again once a byte went downstream.

use super::admit::{Admitted, admit};
use super::call::Request;
use super::dial::{DialError, Line, Origin};
use super::exchange::Exchange;
use super::meter::{Answer, client_left, pump, read_on};
use super::respond::{own_headers, write_whole};
use super::settle::{End, settle};
use super::{Failure, Gateway, Halt};
use crate::governance::entity::Network;
use crate::governance::route::Target;
use crate::governance::view::{Caller, Level, Measure};
use crate::provider::{Reader, Reading, openai};
use crate::state::Snapshot;
use crate::state::clock::{since, stopwatch};
use crate::state::outbox::Ending;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, RetryType};
use pingora_proxy::Session;
use std::fmt::Write;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// All tries of one request, whatever the targets and their retries add up to.
const ATTEMPTS_MAX: usize = 16;
/// Kept connections that turn out to be closed, before a new one is made.
const STALE_MAX: u32 = 3;
const STALE_WITHIN: Duration = Duration::from_secs(1);
/// An error answer is kept up to this size while other targets are tried.
const KEPT_MAX: usize = 64 * 1024;
const KEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a client may tell the provider in headers. Everything else stays here.
static PASSED_ON: [HeaderName; 6] = [
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("openai-beta"),
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
const OURS: [&str; 3] = ["access-control-", "x-ratelimit-", "x-tollgate-"];
static PROVIDER: HeaderName = HeaderName::from_static("x-tollgate-provider");
static MODEL: HeaderName = HeaderName::from_static("x-tollgate-model");

/// Everything that the attempts of one request share.
pub(super) struct Job<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) snapshot: &'a Snapshot,
    pub(super) caller: Option<&'a Caller>,
    pub(super) request: &'a Request,
}

/// How one attempt ended, for the loop over attempts.
enum Attempt {
    /// The client has its answer, or as much of it as came.
    Answered,
    ClientGone,
    /// Nothing reached the client; another target may try.
    Failed(Failed),
}

enum Failed {
    Failure(Failure),
    /// The provider's own error answer, complete.
    Answer {
        head: Box<ResponseHeader>,
        body: Bytes,
        target: usize,
    },
}

/// Tries the targets in their order, each with its own hold, until one answers.
pub(super) async fn forward(
    job: &Job<'_>,
    session: &mut Session,
    x: &mut Exchange,
    targets: &[Target],
) -> Result<(), Halt> {
    let tries = tries(targets);
    let mut dead = [false; ATTEMPTS_MAX];
    let mut refused = None;
    let mut failed = None;
    for (n, &(at, round)) in tries.iter().enumerate() {
        if dead[at] {
            continue;
        }
        let target = &targets[at];
        if round > 0 && wait(job, session, &target.provider.network, round).await.is_none() {
            return Err(Halt::ClientGone);
        }
        let now = job.gateway.state.clock.now();
        let admitted = match admit(&job.gateway.state, job.snapshot, job.caller, &job.request.call, target, now) {
            Ok(admitted) => admitted,
            Err(refusal) if refusal.is_about_target() => {
                dead[at] = true;
                refused.get_or_insert(refusal);
                continue;
            }
            Err(refusal) => {
                refused = Some(refusal);
                break;
            }
        };
        x.attempts += 1;
        let more = tries[n + 1..].iter().any(|&(next, _)| !dead[next]);
        match attempt(job, session, x, (at, target), admitted, more).await {
            Attempt::Answered => return Ok(()),
            Attempt::ClientGone => return Err(Halt::ClientGone),
            Attempt::Failed(failure) => {
                dead[at] = failure.condemns_key();
                tracing::debug!(provider = %target.provider.name, failure = %failure.describe(), "attempt failed");
                failed = Some(failure);
            }
        }
    }
    match (failed, refused) {
        (Some(Failed::Answer { head, body, target }), _) => {
            let version = session.req_header().version;
            let head = client_head(job, x, *head, &targets[target], Some(body.len()), version);
            write_whole(session, x, head, body).await;
            Ok(())
        }
        (Some(Failed::Failure(failure)), _) => Err(Halt::Failed(failure)),
        (None, Some(refusal)) => Err(Halt::Refused(refusal)),
        (None, None) => unreachable!("there is at least one target, and each try fails, answers or is refused"),
    }
}

/// The order of attempts: the keys of a provider, then again as often as it says, then the next provider.
fn tries(targets: &[Target]) -> Vec<(usize, u32)> {
    let mut order = Vec::with_capacity(targets.len());
    let mut start = 0;
    for group in targets.chunk_by(|a, b| a.choice == b.choice) {
        let indices = start..start + group.len();
        start = indices.end;
        order.extend(indices.clone().map(|at| (at, 0)));
        let retries = group[0].provider.network.max_retries;
        order.extend(indices.cycle().zip(1..=retries));
    }
    order.retain(|&(at, _)| at < ATTEMPTS_MAX);
    order.truncate(ATTEMPTS_MAX);
    order
}

/// Waits before a retry: doubling, bounded, and spread by a fifth so that clients do not march in step.
async fn wait(job: &Job<'_>, session: &mut Session, network: &Network, round: u32) -> Option<()> {
    let doubled = network.retry_backoff_initial.saturating_mul(1 << (round - 1).min(16));
    let base = doubled.min(network.retry_backoff_max);
    // An id is as good as a die here: its last digits differ from request to request.
    let spread = 80 + u32::try_from(job.gateway.state.new_id().0 % 41 * 7 % 41).unwrap_or(0);
    let pause = (base * spread / 100).min(network.retry_backoff_max);
    unless_client_leaves(session, pin!(tokio::time::sleep(pause))).await
}

/// Runs `work` with an eye on the client. It comes pinned: moving a future of some kilobytes is not
/// free. `None`: the client left first, and must not be asked again.
async fn unless_client_leaves<T>(session: &mut Session, work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match watched(session, work, Duration::ZERO).await {
        Watched::Done(done) => Some(done),
        Watched::LeftAndDone(_) | Watched::Left => None,
    }
}

/// What became of some work while the client was watched.
enum Watched<T> {
    Done(T),
    /// The client left, and the work was still done within the time allowed for that.
    LeftAndDone(T),
    Left,
}

async fn watched<T>(session: &mut Session, mut work: Pin<&mut impl Future<Output = T>>, drain: Duration) -> Watched<T> {
    tokio::select! {
        biased;
        done = &mut work => return Watched::Done(done),
        () = client_left(session) => {}
    }
    if drain.is_zero() {
        return Watched::Left;
    }
    timeout(drain, work).await.map_or(Watched::Left, Watched::LeftAndDone)
}

/// One attempt: a connection, the request, the answer. Every way out settles the hold.
async fn attempt(
    job: &Job<'_>,
    session: &mut Session,
    x: &mut Exchange,
    (at, target): (usize, &Target),
    mut admitted: Admitted,
    more: bool,
) -> Attempt {
    let (gateway, call) = (job.gateway, &job.request.call);
    let settle = |admitted, end: End<'_>| settle(&gateway.state, &gateway.metrics, call, admitted, end);
    let reached = reach(job, session, target, &mut admitted).await;
    let (mut line, head) = match reached {
        Ok(reached) => reached,
        Err(Stop::Failed(ending, failure)) => {
            settle(admitted, End::NoCharge(ending));
            return Attempt::Failed(Failed::Failure(failure));
        }
        Err(Stop::ClientGone(reading)) => {
            settle(
                admitted,
                match &reading {
                    None => End::NoCharge(Ending::ClientGone),
                    Some(reading) => End::Answered { ending: Ending::ClientGone, reading },
                },
            );
            return Attempt::ClientGone;
        }
    };
    gateway.metrics.first_byte(since(x.started));
    if refuses_our_account(head.status) || (more && is_worth_another_try(head.status)) {
        settle(admitted, End::NoCharge(Ending::UpstreamFailed));
        let body = keep(&mut line).await;
        gateway.dialer.release(line).await;
        return Attempt::Failed(set_aside(target, at, head, body));
    }
    let deadline = stopwatch() + target.provider.network.request_timeout;
    let (success, events, length) = (head.status.is_success(), is_event_stream(&head), length_kept(job, target, &head));
    let answer = Answer {
        reader: success.then(|| reader(job, target, &head)),
        head: client_head(job, x, head, target, length, session.req_header().version),
        first_piece_by: deadline,
        all_by: (!events).then_some(deadline),
        idle: target.provider.network.stream_idle_timeout,
        // Only while another target could take over is it worth holding the head back.
        judge_first_event: more && success && events,
        drain: gateway.options.drain_after_disconnect,
    };
    let pumped = pump(session, x, &mut line, answer).await;
    // An error that came instead of an answer costs nothing, unless the provider itself says so.
    let Reading { usage, delivered_tokens, .. } = &pumped.reading;
    let nothing = (pumped.unseen || pumped.error_first) && usage.is_none() && *delivered_tokens == 0;
    let end = match (success && !nothing, pumped.ending) {
        (true, ending) => End::Answered { ending, reading: &pumped.reading },
        (false, Ending::Completed) => End::NoCharge(Ending::UpstreamFailed),
        (false, ending) => End::NoCharge(ending),
    };
    settle(admitted, end);
    if pumped.line_is_clean {
        gateway.dialer.release(line).await;
    } else {
        line.session.shutdown().await;
    }
    match (pumped.unseen, pumped.ending) {
        (true, _) if pumped.error_first => {
            Attempt::Failed(Failed::Failure(Failure::ErrorFirst { provider: target.provider.name.to_string() }))
        }
        (true, ending) => Attempt::Failed(Failed::Failure(before_any_byte(target, ending))),
        (false, Ending::ClientGone) => Attempt::ClientGone,
        (false, _) => Attempt::Answered,
    }
}

/// Why an attempt got no answer.
enum Stop {
    Failed(Ending, Failure),
    /// With what was still learnt about the answer, if the request was sent at all.
    ClientGone(Option<Reading>),
}

/// Gets the request to the provider and the answer's head back.
async fn reach(
    job: &Job<'_>,
    session: &mut Session,
    target: &Target,
    admitted: &mut Admitted,
) -> Result<(Line, ResponseHeader), Stop> {
    let Job { gateway, request, .. } = job;
    let (provider, network) = (&target.provider, &target.provider.network);
    let name = || provider.name.to_string();
    let failed = |failure| Stop::Failed(Ending::UpstreamFailed, failure);
    let (kind, stream) = (request.call.kind, request.call.stream);
    let Some((base, path)) = openai::address(provider, target.key.as_deref(), kind, stream) else {
        tracing::warn!(provider = %provider.name, "nobody said where this provider is");
        return Err(failed(Failure::Unreachable { provider: name() }));
    };
    let origin = gateway.dialer.origin(base).map_err(|error| failed(unreachable(name(), &error)))?;
    let path = format!("{}{path}", origin.path());
    let body = request.call.rewrite(&request.body, &target.upstream_model, asks_usage(job, target));
    let deadline = stopwatch() + network.request_timeout;
    let mut stale = 0;
    loop {
        let dial = timeout(network.request_timeout, gateway.dialer.connect(&origin, provider, stale >= STALE_MAX));
        let mut line = match unless_client_leaves(session, pin!(dial)).await {
            Some(Ok(Ok(line))) => line,
            Some(Ok(Err(error))) => return Err(failed(unreachable(name(), &error))),
            Some(Err(_)) => return Err(failed(Failure::ConnectTimedOut { provider: name() })),
            None => return Err(Stop::ClientGone(None)),
        };
        let h2 = line.session.as_http2().is_some();
        let head = upstream_head(session.req_header(), &origin, &path, target, body.len(), h2).map_err(|error| {
            tracing::warn!(provider = %provider.name, %error, "no request can be made for this provider");
            failed(Failure::Unreachable { provider: name() })
        })?;
        admitted.hold.mark_sent();
        let drain = gateway.options.drain_after_disconnect;
        let asked = stopwatch();
        let outcome = watched(session, pin!(ask(&mut line, head, &body, deadline)), drain).await;
        let error = match outcome {
            Watched::Done(Ok(head)) => return Ok((line, head)),
            Watched::Done(Err(error)) => error,
            Watched::LeftAndDone(Ok(head)) if !head.status.is_success() => {
                line.session.shutdown().await;
                return Err(Stop::ClientGone(None));
            }
            Watched::LeftAndDone(Ok(head)) => {
                let reading = read_on(&mut line, reader(job, target, &head), stopwatch() + drain).await;
                line.session.shutdown().await;
                return Err(Stop::ClientGone(Some(reading)));
            }
            Watched::LeftAndDone(Err(_)) | Watched::Left => {
                line.session.shutdown().await;
                return Err(Stop::ClientGone(Some(Reading::default())));
            }
        };
        line.session.shutdown().await;
        if line.reused && was_stale(&error, asked) {
            stale += 1;
            continue;
        }
        return Err(match is_timeout(&error) {
            true => Stop::Failed(Ending::TimedOut, Failure::TimedOut { provider: name() }),
            false => {
                // Only the kind of the error: its text may hold what the provider sent.
                let kind = error.etype().as_str();
                tracing::warn!(provider = %provider.name, kind, "provider broke off before its answer");
                failed(Failure::Unreachable { provider: name() })
            }
        });
    }
}

/// Whether the provider must be asked for usage that the client did not ask for.
fn asks_usage(job: &Job<'_>, target: &Target) -> bool {
    let call = &job.request.call;
    call.stream
        && !call.include_usage
        && openai::tells_usage_when_asked(call.kind)
        && !target.provider.tells_usage_unasked()
}

fn reader(job: &Job<'_>, target: &Target, head: &ResponseHeader) -> Reader {
    let kind = job.request.call.kind;
    if is_event_stream(head) { Reader::stream(kind, asks_usage(job, target)) } else { Reader::unary(kind) }
}

fn is_event_stream(head: &ResponseHeader) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// The answer's length, unless something may be taken out of it.
fn length_kept(job: &Job<'_>, target: &Target, head: &ResponseHeader) -> Option<usize> {
    if is_event_stream(head) && asks_usage(job, target) {
        return None;
    }
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// An error answer that is not passed on, or not yet.
fn set_aside(target: &Target, at: usize, head: ResponseHeader, body: Option<Bytes>) -> Failed {
    let provider = target.provider.name.to_string();
    if refuses_our_account(head.status) {
        // The house's own key, or its purse, was refused. The client has no part in that, and must not see the answer.
        tracing::warn!(%provider, key = target.key.as_ref().map(|key| &*key.id), "provider refused its key");
        return Failed::Failure(Failure::CredentialsRejected { provider });
    }
    match body {
        Some(body) => Failed::Answer { head: Box::new(head), body, target: at },
        None => Failed::Failure(Failure::Status { provider, status: head.status.as_u16() }),
    }
}

/// The answer broke after its head, and nothing of it had been passed on.
fn before_any_byte(target: &Target, ending: Ending) -> Failure {
    let provider = target.provider.name.to_string();
    match ending {
        Ending::TimedOut => Failure::TimedOut { provider },
        _ => Failure::BrokeOff { provider },
    }
}

/// Sends the request and waits for the answer's head, skipping informational ones.
async fn ask(line: &mut Line, head: RequestHeader, body: &Bytes, deadline: Instant) -> pingora::Result<ResponseHeader> {
    line.session.set_write_timeout(Some(deadline.saturating_duration_since(stopwatch()).max(Duration::from_millis(1))));
    line.session.set_read_timeout(None);
    line.session.write_request_header(Box::new(head)).await?;
    let written = async {
        line.session.write_request_body(body.clone(), true).await?;
        line.session.finish_request_body().await
    };
    let written = written.await;
    line.half_sent = written.is_err();
    // A provider may answer before it has read everything, and close: its answer says more than our
    // broken pipe.
    loop {
        // Not the session's own timeout, which every byte of a trickling head would put off.
        let patience = deadline.saturating_duration_since(stopwatch());
        let Ok(read) = timeout(patience, line.session.read_response_header()).await else {
            return pingora::Error::e_explain(ErrorType::ReadTimedout, "no head came in time");
        };
        match (read, &written) {
            (Ok(()), _) => {}
            (Err(_), Err(_)) => return written.map(|()| unreachable!("just matched as an error")),
            (Err(error), Ok(())) => return Err(error),
        }
        let head = line.session.response_header().expect("a head was just read");
        if !head.status.is_informational() {
            return Ok(head.clone());
        }
        if stopwatch() >= deadline {
            return pingora::Error::e_explain(ErrorType::ReadTimedout, "only informational answers came");
        }
    }
}

/// Reads a small error answer to its end, so that its connection can be kept and its text used.
async fn keep(line: &mut Line) -> Option<Bytes> {
    let read = async {
        let mut body = Vec::new();
        while let Some(piece) = line.session.read_response_body().await.ok()? {
            if body.len() + piece.len() > KEPT_MAX {
                return None;
            }
            body.extend_from_slice(&piece);
        }
        Some(Bytes::from(body))
    };
    timeout(KEPT_TIMEOUT, read).await.ok().flatten()
}

fn upstream_head(
    client: &RequestHeader,
    origin: &Origin,
    path: &str,
    target: &Target,
    length: usize,
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
    for name in &PASSED_ON {
        if let Some(value) = client.headers.get(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in &target.provider.network.extra_headers {
        let value = HeaderValue::from_str(value.expose()).map_err(|_| bad("an extra header has no header's value"))?;
        headers.insert(HeaderName::try_from(name).map_err(|_| bad("an extra header has no header's name"))?, value);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A compressed answer could not be read as it passes.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Some(key) = target.key.as_ref().filter(|key| !key.value.is_empty()) {
        let value = HeaderValue::try_from(format!("Bearer {}", key.value.expose()));
        let mut value = value.map_err(|_| bad("the provider key has characters that no header can carry"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(RequestHeader::from(parts))
}

/// The answer's head as the client gets it.
fn client_head(
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

fn is_worth_another_try(status: StatusCode) -> bool {
    matches!(status.as_u16(), 403 | 429 | 500..=599)
}

/// A 402 from a provider is about our account there; to a client it would look like its own budget.
fn refuses_our_account(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PAYMENT_REQUIRED)
}

fn is_timeout(error: &pingora::Error) -> bool {
    matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout)
}

/// A kept connection that the provider had closed while nobody used it: it fails at once, and in a way
/// that Pingora takes for that. Anything later may be an answer that broke, and asking again would be
/// paid for twice.
fn was_stale(error: &pingora::Error, asked: Instant) -> bool {
    let closed = *error.etype() == ErrorType::WriteError
        || matches!(error.retry, RetryType::ReusedOnly | RetryType::Decided(true));
    closed && since(asked) < STALE_WITHIN
}

fn unreachable(provider: String, error: &DialError) -> Failure {
    tracing::warn!(%provider, %error, "no connection to provider");
    if error.timed_out() {
        return Failure::ConnectTimedOut { provider };
    }
    Failure::Unreachable { provider }
}

impl Failed {
    /// The key itself is no good; trying it again would be noise.
    fn condemns_key(&self) -> bool {
        match self {
            Failed::Failure(Failure::CredentialsRejected { .. }) => true,
            Failed::Answer { head, .. } => head.status == StatusCode::FORBIDDEN,
            Failed::Failure(_) => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Failed::Failure(failure) => failure.to_string(),
            Failed::Answer { head, .. } => format!("status {}", head.status),
        }
    }
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
