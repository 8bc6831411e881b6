//! The answer on its way: read once as it passes, and never held longer than it must be.

use super::dial::Line;
use super::exchange::Exchange;
use crate::provider::{FirstEvent, Out, Reader, Reading};
use crate::state::clock::stopwatch;
use crate::state::outbox::Ending;
use bytes::Bytes;
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora_proxy::Session;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Out that are there already go out together: fewer writes for a burst.
const GATHER_MAX: usize = 4;
/// How long an answer that is all but over is read on for its usage after its client left.
const USAGE_WAIT: Duration = Duration::from_secs(2);
/// A head is held back for its first event up to this many bytes.
const JUDGE_MAX: usize = 64 * 1024;
/// A client that takes nothing for this long has left.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// An answer that is to be passed on.
pub(super) struct Answer {
    pub(super) head: Box<ResponseHeader>,
    /// What was read of its body already. Nobody reads it again.
    pub(super) begun: Bytes,
    /// Absent for error answers, of which nothing is charged.
    pub(super) reader: Option<Reader>,
    pub(super) first_piece_by: Instant,
    /// Absent for streams, which may go on for as long as they are not silent.
    pub(super) all_by: Option<Instant>,
    pub(super) idle: Duration,
    /// Hold the head back until the first event is known not to be an error.
    pub(super) judge_first_event: bool,
    /// How long to read on for usage after the client left.
    pub(super) drain: Duration,
}

/// What became of it.
pub(super) struct Pumped {
    pub(super) ending: Ending,
    pub(super) reading: Reading,
    /// Nothing of it reached the client; another target may try.
    pub(super) unseen: bool,
    /// The answer is a stream whose first event is an error.
    pub(super) error_first: bool,
    /// The connection to the provider was read to the end of its answer.
    pub(super) line_is_clean: bool,
}

/// Resolves when the client is gone. It must not be asked again after that.
pub(super) async fn client_left(session: &mut Session) {
    // Data beyond the body is as good as gone: the connection cannot be used any more.
    let _ = session.as_downstream_mut().read_body_or_idle(true).await;
    session.set_keepalive(None);
}

enum Next {
    Piece(pingora::Result<Option<Bytes>>),
    Alarm,
    ClientLeft,
}

/// Passes the answer on, piece by piece.
pub(super) async fn pump(session: &mut Session, x: &mut Exchange, line: &mut Line, answer: Answer) -> Pumped {
    let Answer { head, begun, mut reader, first_piece_by, all_by, idle, judge_first_event, drain } = answer;
    let status = head.status.as_u16();
    let mut head = Some(head);
    let mut out = Out::new();
    if !begun.is_empty() {
        out.push(begun);
    }
    let mut judging = judge_first_event;
    let mut held = 0;
    // Met while looking whether more was there. The session would not tell it a second time: to it the
    // broken answer is over, and looks whole.
    let mut fault = None;
    // One alarm for the whole answer: when it rings it looks whether it was put off meanwhile. A timer for
    // each read would cost more than the read.
    let mut due = all_by.unwrap_or(first_piece_by);
    let mut alarm = pin!(tokio::time::sleep_until(due.into()));
    line.session.set_read_timeout(None);
    let (ending, clean) = loop {
        if due < alarm.deadline().into_std() {
            // Silence within the answer is borne for less long than silence before it.
            alarm.as_mut().reset(due.into());
        }
        let next = match fault.take() {
            Some(fault) => Next::Piece(Err(fault)),
            None => tokio::select! {
                biased;
                piece = line.session.read_response_body() => Next::Piece(piece),
                () = client_left(session) => Next::ClientLeft,
                () = &mut alarm => Next::Alarm,
            },
        };
        let mut done;
        match next {
            Next::Piece(Ok(Some(piece))) => {
                if all_by.is_none() && !judging {
                    due = stopwatch() + idle;
                }
                held += piece.len();
                take(&mut reader, piece, &mut out);
                done = line.session.response_done();
                for _ in 1..GATHER_MAX {
                    if done {
                        break;
                    }
                    match ready_now(line).await {
                        Some(Ok(Some(piece))) => {
                            held += piece.len();
                            take(&mut reader, piece, &mut out);
                            done = line.session.response_done();
                        }
                        Some(Ok(None)) => done = true,
                        Some(Err(error)) => {
                            fault = Some(error);
                            break;
                        }
                        None => break,
                    }
                }
            }
            Next::Piece(Ok(None)) => done = true,
            Next::Piece(Err(error)) => {
                let timed_out = *error.etype() == ErrorType::ReadTimedout;
                break (if timed_out { Ending::TimedOut } else { Ending::UpstreamBroke }, false);
            }
            Next::Alarm if stopwatch() < due => {
                alarm.as_mut().reset(due.into());
                continue;
            }
            // Comments that keep the line open are no event to judge; they have waited long enough.
            Next::Alarm if judging && held > 0 => {
                due = stopwatch() + idle;
                alarm.as_mut().reset(due.into());
                (judging, done) = (false, false);
            }
            Next::Alarm => break (Ending::TimedOut, false),
            Next::ClientLeft => {
                x.client_left = true;
                return left_behind(line, reader, drain).await;
            }
        }
        if done && let Some(reader) = &mut reader {
            reader.flush(&mut out);
        }
        if judging {
            match reader.as_ref().and_then(Reader::first_event) {
                Some(FirstEvent::Error) => {
                    return pumped(Ending::UpstreamFailed, reader.as_ref(), true, done);
                }
                None if !done && held < JUDGE_MAX => continue,
                _ => {
                    judging = false;
                    due = all_by.unwrap_or_else(|| stopwatch() + idle);
                }
            }
        }
        if write(session, &mut head, &mut out, done).await.is_err() {
            x.client_left = true;
            return left_behind(line, reader, drain).await;
        }
        x.status = Some(status);
        if done {
            break (Ending::Completed, true);
        }
    };
    if ending != Ending::Completed && x.status.is_some() {
        // What came is passed on, and then cut: a clean end would make half an answer look whole.
        let _ = write(session, &mut head, &mut out, false).await;
        session.set_keepalive(None);
        session.as_downstream_mut().shutdown().await;
    }
    pumped(ending, reader.as_ref(), x.status.is_none(), clean)
}

fn pumped(ending: Ending, reader: Option<&Reader>, unseen: bool, line_is_clean: bool) -> Pumped {
    Pumped {
        ending,
        reading: reader.map(Reader::reading).unwrap_or_default(),
        unseen,
        error_first: reader.and_then(Reader::first_event) == Some(FirstEvent::Error),
        line_is_clean,
    }
}

/// The client left in the middle of the answer.
async fn left_behind(line: &mut Line, reader: Option<Reader>, drain: Duration) -> Pumped {
    let reading = match reader {
        // All was generated, and only the usage is still to come: it would be wrong to guess what is about to
        // be said.
        Some(reader) if reader.reading().finished => read_on(line, reader, stopwatch() + drain.max(USAGE_WAIT)).await,
        Some(reader) => read_on(line, reader, stopwatch() + drain).await,
        None => Reading::default(),
    };
    Pumped { ending: Ending::ClientGone, reading, unseen: false, error_first: false, line_is_clean: false }
}

fn left(by: Instant) -> Duration {
    by.saturating_duration_since(stopwatch()).max(Duration::from_millis(1))
}

fn take(reader: &mut Option<Reader>, piece: Bytes, out: &mut Out) {
    match reader {
        Some(reader) => reader.chunk(piece, out),
        None => out.push(piece),
    }
}

/// The next piece if it is there already.
async fn ready_now(line: &mut Line) -> Option<pingora::Result<Option<Bytes>>> {
    let mut read = pin!(line.session.read_response_body());
    poll_fn(|context| {
        Poll::Ready(match read.as_mut().poll(context) {
            Poll::Ready(piece) => Some(piece),
            Poll::Pending => None,
        })
    })
    .await
}

/// Sends what is to be sent: the head if it is still here, the pieces, the end.
async fn write(
    session: &mut Session,
    head: &mut Option<Box<ResponseHeader>>,
    out: &mut Out,
    done: bool,
) -> pingora::Result<()> {
    if out.is_empty() && !done && head.is_none() {
        return Ok(());
    }
    let mut tasks = Vec::with_capacity(out.len() + 2);
    tasks.extend(head.take().map(|head| HttpTask::Header(head, false)));
    tasks.extend(out.drain(..).map(|piece| HttpTask::Body(Some(piece), false)));
    if done {
        tasks.push(HttpTask::Body(None, true));
    }
    send(session, tasks).await
}

/// Writes to the client, for as long as a client may take nothing. Pingora itself bounds only writes of
/// bodies.
pub(super) async fn send(session: &mut Session, tasks: Vec<HttpTask>) -> pingora::Result<()> {
    match timeout(CLIENT_WRITE_TIMEOUT, session.write_response_tasks(tasks)).await {
        Ok(written) => written.map(|_| ()),
        Err(_) => pingora::Error::e_explain(ErrorType::WriteTimedout, "the client takes nothing"),
    }
}

/// After the client left: reads on for the usage until `by`, and passes nothing on.
pub(super) async fn read_on(line: &mut Line, mut reader: Reader, by: Instant) -> Reading {
    let mut unseen = Out::new();
    while stopwatch() < by {
        line.session.set_read_timeout(Some(left(by)));
        match line.session.read_response_body().await {
            Ok(Some(piece)) => reader.chunk(piece, &mut unseen),
            Ok(None) => {
                reader.flush(&mut unseen);
                break;
            }
            Err(_) => break,
        }
        unseen.clear();
    }
    reader.reading()
}
