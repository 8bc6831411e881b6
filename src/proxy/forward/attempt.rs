//! One attempt: a connection, the request, the answer, and the end of its hold whichever way it went.

use super::heads::{client_head, upstream_head};
use super::{Attempt, Failed, Job, Said, Sign};
use crate::governance::route::Target;
use crate::provider::address::{Address, address, output_cap_name};
use crate::provider::failure::{Again, Told, Verdict, verdict};
use crate::provider::{Framing, Reader, Reading, Rewrite, framing};
use crate::proxy::Failure;
use crate::proxy::admit::Admitted;
use crate::proxy::dial::{DialError, Line};
use crate::proxy::exchange::Exchange;
use crate::proxy::meter::{Answer, client_left, pump, read_on};
use crate::proxy::settle::{End, settle};
use crate::state::clock::{since, stopwatch};
use crate::state::health::Pass;
use crate::state::outbox::Ending;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, RetryType};
use pingora_proxy::Session;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Kept connections that turn out to be closed, before a new one is made: one, since nobody can prove that the
/// request was not read, and an attempt has one hold.
const STALE_MAX: u32 = 1;
/// A connection that was closed while nobody looked says so within one way there and back. A provider that read the
/// request and then broke off has worked on it, and may bill it.
const STALE_WITHIN: Duration = Duration::from_millis(150);
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

/// What could be done if this attempt fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    pub(super) again: bool,
    pub(super) other_key: bool,
    pub(super) elsewhere: bool,
}

impl Ways {
    /// Whether a failure of this kind is followed by another attempt.
    fn lead_on(self, verdict: &Verdict) -> bool {
        (self.again && verdict.again != Again::Never)
            || (self.other_key && verdict.other_key)
            || (self.elsewhere && verdict.elsewhere)
    }
}

/// One attempt: a connection, the request, the answer. Every way out settles the hold.
pub(super) async fn attempt(
    job: &Job<'_>,
    session: &mut Session,
    x: &mut Exchange,
    (at, target): (usize, &Target),
    mut admitted: Admitted,
    ways: Ways,
    pass: Option<&Pass>,
) -> Attempt {
    let (gateway, call) = (job.gateway, &job.request.call);
    let settle = |admitted, end: End<'_>| settle(&gateway.state, &gateway.metrics, call, admitted, end);
    let reached = reach(job, session, target, &mut admitted).await;
    let (mut line, head) = match reached {
        Ok(reached) => reached,
        Err(Stop::Failed(ending, failure, verdict)) => {
            settle(admitted, End::Failed(ending));
            return Attempt::Failed(failed(failure, verdict));
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
    if head.status.is_client_error() || head.status.is_server_error() {
        settle(admitted, without_output(head.status, Ending::UpstreamFailed));
        return refused(job, session, x, (at, target), (line, head), ways).await;
    }
    let status = head.status;
    let (success, events) = (status.is_success(), framed(job, &head).is_stream());
    if let Some(pass) = pass.filter(|_| success) {
        pass.answering();
    }
    let judge = events && success && ways.lead_on(&Verdict::ERROR_FIRST);
    let reader = success.then(|| reader(job, target, &head));
    let answer = answer(job, session, x, target, head, Answered { reader, judge, begun: Bytes::new() });
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
    put_away(job, line, pumped.line_is_clean).await;
    let provider = target.provider.name.to_string();
    match (pumped.unseen, pumped.ending) {
        (true, _) if pumped.error_first => {
            Attempt::Failed(failed(Failure::ErrorFirst { provider }, Verdict::ERROR_FIRST))
        }
        (true, Ending::TimedOut) => Attempt::Failed(failed(Failure::TimedOut { provider }, Verdict::TIMED_OUT)),
        (true, _) => Attempt::Failed(failed(Failure::BrokeOff { provider }, Verdict::BROKEN)),
        (false, Ending::ClientGone) => Attempt::ClientGone,
        (false, Ending::Completed) if !pumped.error_first => Attempt::Answered(Sign::Well),
        // The client had some of it, so that nothing can be done; but it counts.
        (false, _) => Attempt::Answered(Sign::Unwell(Verdict::BROKEN, None)),
    }
}

fn failed(failure: Failure, verdict: Verdict) -> Failed {
    Failed { said: Said::Failure(failure), verdict, wait: None }
}

/// An error answer: what it means, and whether it is passed on or set aside.
async fn refused(
    job: &Job<'_>,
    session: &mut Session,
    x: &mut Exchange,
    (at, target): (usize, &Target),
    (mut line, head): (Line, ResponseHeader),
    ways: Ways,
) -> Attempt {
    let Some((body, whole)) = unless_client_leaves(session, pin!(keep(&mut line))).await else {
        line.session.shutdown().await;
        return Attempt::ClientGone;
    };
    let told = Told::read(&head.headers, &body, job.gateway.state.clock.now());
    let status = head.status.as_u16();
    let verdict = verdict(target.provider.base(), status, &told);
    let failed = |said| Attempt::Failed(Failed { said, verdict, wait: told.wait });
    let provider = target.provider.name.to_string();
    if verdict.ours {
        // The house's own key, or its purse, was refused. The client has no part in that, and must not see the answer.
        tracing::warn!(%provider, key = target.key.as_ref().map(|key| &*key.id), "provider refused its key");
        put_away(job, line, whole).await;
        return failed(Said::Failure(Failure::CredentialsRejected { provider }));
    }
    if whole {
        put_away(job, line, true).await;
        return failed(Said::Answer { head: Box::new(head), body, target: at });
    }
    if ways.lead_on(&verdict) {
        line.session.shutdown().await;
        return failed(Said::Failure(Failure::Status { provider, status }));
    }
    // Nobody else is asked, so the client gets all of it, however long it is.
    let answer = answer(job, session, x, target, head, Answered { reader: None, judge: false, begun: body });
    let pumped = pump(session, x, &mut line, answer).await;
    put_away(job, line, pumped.line_is_clean).await;
    match (pumped.unseen, pumped.ending) {
        (_, Ending::ClientGone) => Attempt::ClientGone,
        (true, _) => failed(Said::Failure(Failure::Status { provider, status })),
        (false, _) => Attempt::Answered(Sign::Unwell(verdict, told.wait)),
    }
}

/// Keeps a connection that was read to the end of its answer, and closes any other.
async fn put_away(job: &Job<'_>, mut line: Line, clean: bool) {
    match clean {
        true => job.gateway.dialer.release(line).await,
        false => line.session.shutdown().await,
    }
}

/// What differs from one answer to another, beside its head.
struct Answered {
    reader: Option<Reader>,
    judge: bool,
    begun: Bytes,
}

fn answer(
    job: &Job<'_>,
    session: &Session,
    x: &Exchange,
    target: &Target,
    head: ResponseHeader,
    Answered { reader, judge, begun }: Answered,
) -> Answer {
    let network = &target.provider.network;
    let deadline = stopwatch() + network.request_timeout;
    let (events, length) = (framed(job, &head).is_stream(), length_kept(job, target, &head));
    Answer {
        reader,
        head: client_head(job, x, head, target, length, session.req_header().version),
        begun,
        first_piece_by: deadline,
        all_by: (!events).then_some(deadline),
        idle: network.stream_idle_timeout,
        // Only while another target could take over is it worth holding the head back.
        judge_first_event: judge,
        drain: job.gateway.options.drain_after_disconnect,
    }
}

/// The end of an attempt that wrote nothing. A provider that refused has done nothing that it could bill; one that
/// failed may have.
fn without_output(status: StatusCode, ending: Ending) -> End<'static> {
    if status.is_server_error() || status.is_success() { End::Failed(ending) } else { End::NoCharge(ending) }
}

/// Why an attempt got no answer.
enum Stop {
    Failed(Ending, Failure, Verdict),
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
    let failed = |failure, verdict| Stop::Failed(Ending::UpstreamFailed, failure, verdict);
    let unreachable = |error: &DialError| failed(unreachable(name(), error), Verdict::UNREACHABLE);
    let (way, query) = ((&request.route, request.call.stream), session.req_header().uri.query());
    let addressed = address(provider, target.key.as_deref(), way, &target.upstream_model, query);
    let Some(Address { base, path }) = addressed else {
        tracing::warn!(provider = %provider.name, "nobody said where this provider is");
        return Err(failed(Failure::Unreachable { provider: name() }, Verdict::UNSPEAKABLE));
    };
    let origin = gateway.dialer.origin(&base).map_err(|error| unreachable(&error))?;
    let path = format!("{}{path}", origin.path());
    let body = request.call.rewrite(
        &request.body,
        Rewrite {
            model: &target.upstream_model,
            ask_usage: asks_usage(job, target),
            output_cap: admitted.lowered.map(|tokens| (output_cap_name(provider, request.call.kind), tokens)),
        },
    );
    let deadline = stopwatch() + network.request_timeout;
    let mut stale = 0;
    loop {
        let dial = timeout(network.request_timeout, gateway.dialer.connect(&origin, provider, stale >= STALE_MAX));
        let mut line = match unless_client_leaves(session, pin!(dial)).await {
            Some(Ok(Ok(line))) => line,
            Some(Ok(Err(error))) => return Err(unreachable(&error)),
            Some(Err(_)) => {
                return Err(failed(Failure::ConnectTimedOut { provider: name() }, Verdict::UNREACHABLE));
            }
            None => return Err(Stop::ClientGone(Unread::Refused)),
        };
        let h2 = line.session.as_http2().is_some();
        let head = upstream_head(job, session.req_header(), (&origin, &path), target, &body, h2).map_err(|error| {
            tracing::warn!(provider = %provider.name, %error, "no request can be made for this provider");
            failed(Failure::Unreachable { provider: name() }, Verdict::UNSPEAKABLE)
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
            true => Stop::Failed(Ending::TimedOut, Failure::TimedOut { provider: name() }, Verdict::TIMED_OUT),
            false => {
                // Only the kind of the error: its text may hold what the provider sent.
                let kind = error.etype().as_str();
                tracing::warn!(provider = %provider.name, kind, "provider broke off before its answer");
                failed(Failure::Unreachable { provider: name() }, Verdict::BROKEN)
            }
        });
    }
}

/// Whether the provider must be asked for usage that the client did not ask for.
fn asks_usage(job: &Job<'_>, target: &Target) -> bool {
    job.request.call.may_ask_usage() && !target.provider.tells_usage_unasked()
}

fn reader(job: &Job<'_>, target: &Target, head: &ResponseHeader) -> Reader {
    let call = &job.request.call;
    Reader::new(call.format, call.kind, framed(job, head), asks_usage(job, target))
}

/// How the answer with this head is made up.
fn framed(job: &Job<'_>, head: &ResponseHeader) -> Framing {
    let said = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    framing(&job.request.call, said(header::CONTENT_TYPE), said(header::CONTENT_ENCODING))
}

/// The answer's length, unless something may be taken out of it.
fn length_kept(job: &Job<'_>, target: &Target, head: &ResponseHeader) -> Option<usize> {
    if framed(job, head) == Framing::Events && asks_usage(job, target) {
        return None;
    }
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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

/// Reads a small error answer, so that its connection can be kept and its text used. False: there is more of it.
async fn keep(line: &mut Line) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    let read = async {
        while body.len() < KEPT_MAX {
            match line.session.read_response_body().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    let whole = timeout(KEPT_TIMEOUT, read).await.unwrap_or(false);
    (body.freeze(), whole)
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
