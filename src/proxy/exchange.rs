//! What is known so far about one request.

use crate::governance::entity::RoutingRule;
use crate::governance::time::Timestamp;
use crate::state::clock::stopwatch;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// The context that Pingora carries from hook to hook.
pub struct Exchange {
    /// For measuring how long things take.
    pub(super) started: Instant,
    /// When the request arrived, by the clock that windows go by.
    pub(super) arrived: Timestamp,
    /// The client's own id if it sent a decent one, else ours. Echoed and logged; never a key of the books.
    pub(super) request_id: Option<HeaderValue>,
    /// Attempts so far, the current one included.
    pub(super) attempts: u32,
    /// What the current attempt's answers are capped at, where the call itself allows more.
    pub(super) lowered: Option<u64>,
    /// The status that the client saw.
    pub(super) status: Option<u16>,
    /// The routing rule that decided where it goes, the last one of a chain.
    pub(super) rule: Option<Arc<RoutingRule>>,
    /// The web page that calls, if it may read the answer.
    pub(super) page: Option<HeaderValue>,
    /// The client left before its answer was complete.
    pub(super) client_left: bool,
    _open: OpenRequest,
}

impl Exchange {
    pub(super) fn new(arrived: Timestamp, open: &Arc<AtomicI64>) -> Exchange {
        Exchange {
            started: stopwatch(),
            arrived,
            request_id: None,
            attempts: 0,
            lowered: None,
            status: None,
            rule: None,
            page: None,
            client_left: false,
            _open: OpenRequest::count(open),
        }
    }

    pub(super) fn request_id_text(&self) -> Option<&str> {
        self.request_id.as_ref().and_then(|id| id.to_str().ok())
    }
}

/// Counts a request as open for as long as it lives, however it ends.
struct OpenRequest(Arc<AtomicI64>);

impl OpenRequest {
    fn count(open: &Arc<AtomicI64>) -> OpenRequest {
        open.fetch_add(1, Ordering::AcqRel);
        OpenRequest(Arc::clone(open))
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The client's `x-request-id`, if it is one: up to 128 visible ASCII characters.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get("x-request-id")?;
    let decent = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    decent.then(|| id.clone())
}
