//! One attempt: a connection, the request, the answer, and the end of its hold whichever way it went.

use super::heads::{client_head, upstream_head};
use super::{Attempt, Failed, Job};
use crate::governance::route::Target;
use crate::provider::{Reader, Reading, Rewrite, openai};
use crate::proxy::Failure;
use crate::proxy::admit::Admitted;
use crate::proxy::dial::{DialError, Line};
use crate::proxy::exchange::Exchange;
use crate::proxy::meter::{Answer, client_left, pump, read_on};
use crate::proxy::settle::{End, settle};
use crate::state::clock::{since, stopwatch};
use crate::state::outbox::Ending;
use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, RetryType};
use pingora_proxy::Session;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Kept connections that turn out to be closed, before a new one is made.
const STALE_MAX: u32 = 3;
const STALE_WITHIN: Duration = Duration::from_secs(1);
/// An error answer is kept up to this size while other targets are tried.
const KEPT_MAX: usize = 64 * 1024;
const KEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs `work` with an eye on the client. It comes pinned: moving a future of some kilobytes is not
/// free. `None`: the client left first, and must not be asked again.
pub(super) async fn unless_client_leaves<T>(
    session: &mut Session,
    work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
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
pub(super) async fn attempt(
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
            settle(admitted, End::Failed(ending));
            return Attempt::Failed(Failed::Failure(failure));
        }
        Err(Stop::ClientGone(reading)) => {
            let ending = Ending::ClientGone;
            settle(
                admitted,
                match &reading {
                    Unread::Refused => End::NoCharge(ending),
                    Unread::Failed => End::Failed(ending),
                    Unread::Read(reading) => End::Answered { ending, reading },
                },
            );
            return Attempt::ClientGone;
        }
    };
    gateway.metrics.first_byte(since(x.started));
    if refuses_our_account(head.status) || (more && is_worth_another_try(head.status)) {
        settle(admitted, without_output(head.status, Ending::UpstreamFailed));
        let body = keep(&mut line).await;
        gateway.dialer.release(line).await;
        return Attempt::Failed(set_aside(target, at, head, body));
    }
    let deadline = stopwatch() + target.provider.network.request_timeout;
    let status = head.status;
    let (success, events, length) = (status.is_success(), is_event_stream(&head), length_kept(job, target, &head));
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
        (false, Ending::Completed) => without_output(status, Ending::UpstreamFailed),
        (false, ending) => without_output(status, ending),
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

/// The end of an attempt that wrote nothing. A provider that refused has done nothing that it could bill; one that
/// failed may have.
fn without_output(status: StatusCode, ending: Ending) -> End<'static> {
    if status.is_server_error() || status.is_success() { End::Failed(ending) } else { End::NoCharge(ending) }
}

/// Why an attempt got no answer.
enum Stop {
    Failed(Ending, Failure),
    ClientGone(Unread),
}

/// What was still learnt about an answer that nobody waits for.
enum Unread {
    /// The request was not sent, or it was refused.
    Refused,
    Failed,
    Read(Reading),
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
    let body = request.call.rewrite(
        &request.body,
        Rewrite {
            model: &target.upstream_model,
            ask_usage: asks_usage(job, target),
            output_cap: admitted.lowered.map(|tokens| (openai::output_cap_name(provider, kind), tokens)),
        },
    );
    let deadline = stopwatch() + network.request_timeout;
    let mut stale = 0;
    loop {
        let dial = timeout(network.request_timeout, gateway.dialer.connect(&origin, provider, stale >= STALE_MAX));
        let mut line = match unless_client_leaves(session, pin!(dial)).await {
            Some(Ok(Ok(line))) => line,
            Some(Ok(Err(error))) => return Err(failed(unreachable(name(), &error))),
            Some(Err(_)) => return Err(failed(Failure::ConnectTimedOut { provider: name() })),
            None => return Err(Stop::ClientGone(Unread::Refused)),
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
                let failed = head.status.is_server_error();
                return Err(Stop::ClientGone(if failed { Unread::Failed } else { Unread::Refused }));
            }
            Watched::LeftAndDone(Ok(head)) => {
                let reading = read_on(&mut line, reader(job, target, &head), stopwatch() + drain).await;
                line.session.shutdown().await;
                return Err(Stop::ClientGone(Unread::Read(reading)));
            }
            Watched::LeftAndDone(Err(_)) | Watched::Left => {
                line.session.shutdown().await;
                return Err(Stop::ClientGone(Unread::Read(Reading::default())));
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
