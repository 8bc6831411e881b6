//! What is asked: the path, then the body, read whole and understood before anything is decided.

use super::Halt;
use crate::governance::refusal::Refusal;
use crate::governance::request::Dialect;
use crate::provider::{Call, CallError, Door, Route, dialect, read_typed_call};
use crate::state::clock::stopwatch;
use crate::wire::fallbacks;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, header};
use pingora_proxy::Session;
use std::time::Duration;
use tokio::time::timeout;

/// A body that stops coming is given up after this.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A body that comes in drops is given up after this.
const BODY_TOTAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Memory is reserved for what has come, not for what a header promises.
const RESERVE_MAX: usize = 1024 * 1024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A call to a model.
    Call(Route),
    /// The models that the caller may use, or one of them.
    Models { id: Option<String> },
    /// The caller's own limits.
    Quota,
    /// Whether the proxy is there.
    Health,
}

/// Reads the request line. The dialect is that of the path, also where it leads nowhere.
pub(super) fn ask(method: &Method, path: &str) -> (Dialect, Result<Ask, Refusal>) {
    let own = match path {
        "/api/governance/virtual-keys/quota" => Some(Ask::Quota),
        "/health" => Some(Ask::Health),
        _ => None,
    };
    let (dialect, door) = dialect::path::read(path);
    let ask = own.or(door.map(|door| match door {
        Door::Call(route) => Ask::Call(route),
        Door::Models { id } => Ask::Models { id },
    }));
    let Some(ask) = ask else {
        let path = path.chars().take(256).collect();
        return (dialect, Err(Refusal::NotFound { kind: "such path", path }));
    };
    let allowed = if matches!(ask, Ask::Call(_)) { Method::POST } else { Method::GET };
    if *method != allowed {
        let allowed = if allowed == Method::GET { "GET" } else { "POST" };
        return (dialect, Err(Refusal::MethodNotAllowed { method: method.to_string(), allowed }));
    }
    (dialect, Ok(ask))
}

/// A request understood, its bytes kept as they came.
pub(super) struct Request {
    pub(super) route: Route,
    pub(super) call: Call,
    /// Without the fallbacks.
    pub(super) body: Bytes,
    /// What the body is: JSON, or a form as the client says it.
    pub(super) content_type: HeaderValue,
    /// The client's own. Absent: it said nothing about them.
    pub(super) fallbacks: Option<Vec<String>>,
}

/// Reads the body up to `max` bytes and understands it.
pub(super) async fn read(session: &mut Session, route: Route, max: u64) -> Result<Request, Halt> {
    let body = read_body(session, max).await?;
    let (body, fallbacks) = fallbacks::take(body)?;
    let said = session.req_header().headers.get(header::CONTENT_TYPE).filter(|_| route.is_form());
    let call = read_typed_call(&route, said.and_then(|said| said.to_str().ok()), &body).map_err(invalid)?;
    let content_type = said.cloned().unwrap_or(JSON);
    Ok(Request { route, call, body, content_type, fallbacks })
}

fn invalid(error: CallError) -> Halt {
    Halt::Refused(Refusal::InvalidRequest { field: error.field, message: error.message })
}

async fn read_body(session: &mut Session, max: u64) -> Result<Bytes, Halt> {
    let announced = session
        .req_header()
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<u64>().ok());
    let too_large = || Halt::Refused(Refusal::BodyTooLarge { max });
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    if session.req_header().headers.contains_key(header::EXPECT) {
        // Pingora does not say "continue" by itself, and curl would wait a second for it.
        session.as_downstream_mut().write_continue_response().await.map_err(|_| Halt::ClientGone)?;
    }
    let all_by = stopwatch() + BODY_TOTAL_TIMEOUT;
    let late = || {
        let message = format!(
            "the body did not arrive in time: {} s for a part, {} s for all of it",
            BODY_READ_TIMEOUT.as_secs(),
            BODY_TOTAL_TIMEOUT.as_secs()
        );
        Halt::Refused(Refusal::InvalidRequest { field: None, message })
    };
    // Pingora's own timeout does not hold for HTTP/2.
    let mut next = async || {
        let patience = BODY_READ_TIMEOUT.min(all_by.saturating_duration_since(stopwatch()));
        match timeout(patience, session.as_downstream_mut().read_request_body()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(_)) => Err(Halt::ClientGone),
            Err(_) => Err(late()),
        }
    };
    // Most bodies come in one piece, and are then never copied.
    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    if first.len() as u64 > max {
        return Err(too_large());
    }
    let Some(second) = next().await? else { return Ok(first) };
    let announced = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = BytesMut::with_capacity(
        announced.clamp(first.len() + second.len(), RESERVE_MAX.max(first.len() + second.len())),
    );
    body.extend_from_slice(&first);
    body.extend_from_slice(&second);
    while let Some(piece) = next().await? {
        if (body.len() + piece.len()) as u64 > max {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    if body.len() as u64 > max {
        return Err(too_large());
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_what_they_say() {
        let status = |method: Method, path: &str| ask(&method, path).1.map_err(|refusal| refusal.status());
        assert!(matches!(status(Method::POST, "/v1/chat/completions"), Ok(Ask::Call(_))));
        assert_eq!(
            status(Method::GET, "/v1/models/openai/gpt-4o"),
            Ok(Ask::Models { id: Some("openai/gpt-4o".into()) })
        );
        assert_eq!(status(Method::GET, "/health"), Ok(Ask::Health));
        assert_eq!(status(Method::GET, "/v1/chat/completions"), Err(405));
        assert_eq!(status(Method::POST, "/v1/nothing"), Err(404));
        assert_eq!(status(Method::GET, "/v1/models/"), Err(404));
        assert_eq!(ask(&Method::GET, "/anthropic/nothing").0, Dialect::Anthropic);
    }
}
