//! The wire formats, and what they have in common.
//!
//! Each dialect offers the same four things: its paths, its request read into a call, the usage of its
//! documents read into `Usage`, and the `Facts` of one event of its stream. None of them knows how bytes
//! travel. Which dialect is meant is decided here and nowhere below.

mod anthropic;
mod bedrock;
mod call;
mod cohere;
mod count;
mod gemini;
mod media;
mod members;
pub mod openai;
pub mod path;
mod weight;
mod words;

use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{ServiceTier, Usage};
use crate::provider::json::Found;
use crate::provider::reader::Framing;
use crate::provider::stream::Event;

pub use call::{Call, Rewrite};
pub use media::Media;
pub use path::{Door, Route, upstream_path};
pub use weight::Weight;
use weight::{Part, Shape, Weigher};

/// A request that cannot be understood, and so cannot be governed. The client gets 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The member at fault, where it is one.
    pub field: Option<String>,
    /// For people; holds nothing of the body but names of members.
    pub message: String,
}

impl CallError {
    fn of(field: &str, what: &str) -> CallError {
        CallError { field: Some(field.to_owned()), message: format!("'{field}' {what}") }
    }

    fn body(message: impl Into<String>) -> CallError {
        CallError { field: None, message: message.into() }
    }
}

/// A usage report that says nothing we may charge by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    #[error("usage is not a well-formed JSON object")]
    Malformed,
    #[error("usage is longer than any real one")]
    TooLong,
    #[error("the answer cannot be read: it is compressed, or was damaged on its way")]
    Unreadable,
    #[error("usage.{field} is not a count of tokens")]
    Count { field: &'static str },
    #[error("usage counts neither input nor output")]
    NoCounts,
}

/// What a report says of the usage, if there is one.
pub(in crate::provider) type Told = Option<Result<Usage, Garbage>>;

/// What the first event of a stream turned out to be: while it is an error, another target may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstEvent {
    Error,
    Content,
}

/// What one event of a stream tells the reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::provider) struct Facts {
    /// UTF-8 bytes of generated text the event carries.
    pub text_bytes: u64,
    pub usage: Told,
    pub tier: Option<ServiceTier>,
    /// The event exists only because usage was asked for, and carries nothing else.
    pub usage_only: bool,
    pub error: bool,
    /// Nothing more is generated after this event.
    pub last: bool,
}

/// Reads the body of a request that came by this route.
pub fn read_call(route: &Route, body: &[u8]) -> Result<Call, CallError> {
    match route.dialect {
        Dialect::OpenAi => openai::read(route.kind, body),
        Dialect::Anthropic => anthropic::read(route.kind, body),
        Dialect::Gemini => gemini::read(route, body),
        Dialect::Bedrock => bedrock::read(route, body),
        Dialect::Cohere => cohere::read(route.kind, body),
    }
}

/// Reads the body of a request that came by this route and is of this type.
pub fn read_typed_call(route: &Route, content_type: Option<&str>, body: &[u8]) -> Result<Call, CallError> {
    if !route.is_form() {
        return read_call(route, body);
    }
    let boundary = content_type.and_then(openai::form::boundary);
    let wrong = || CallError::body("the body must be multipart/form-data, and its content type name the boundary");
    openai::form::read(route.kind, boundary.ok_or_else(wrong)?, body)
}

/// How the answer to a call is made up, as its head says.
pub fn framing(call: &Call, content_type: Option<&str>, content_encoding: Option<&str>) -> Framing {
    if content_encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Framing::Sealed;
    }
    let kind = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    let is = |name: &str| kind.eq_ignore_ascii_case(name);
    if is("text/event-stream") {
        Framing::Events
    } else if is("application/vnd.amazon.eventstream") {
        Framing::Frames
    } else if call.stream && call.dialect == Dialect::Gemini {
        Framing::Array
    } else if Media::is_of(call.kind) && !is("application/json") {
        Framing::Opaque
    } else {
        Framing::Document
    }
}

/// How an answer that is one JSON document is read.
pub(in crate::provider) struct Document {
    /// The top-level keys that say what was used.
    pub wanted: &'static [&'static str],
    /// Keys whose strings were generated.
    pub texts: &'static [&'static str],
    /// Reads the usage from what was found below those keys.
    pub usage: fn(RequestKind, &[Found]) -> Told,
}

pub(in crate::provider) fn document(dialect: Dialect, kind: RequestKind) -> Document {
    if kind == RequestKind::CountTokens {
        return FREE;
    }
    match dialect {
        Dialect::Anthropic => anthropic::DOCUMENT,
        Dialect::Gemini => gemini::DOCUMENT,
        Dialect::Bedrock => bedrock::DOCUMENT,
        Dialect::Cohere => cohere::document(kind),
        Dialect::OpenAi => openai::document(kind),
    }
}

/// What nobody charges for.
const FREE: Document = Document { wanted: &[], texts: &[], usage: |_, _| Some(Ok(Usage::default())) };

/// Reads the events of one stream, one after the other.
#[derive(Debug)]
pub(in crate::provider) enum Listener {
    OpenAi(RequestKind),
    Anthropic(anthropic::Listener),
    Gemini,
    Bedrock,
    Cohere,
}

impl Listener {
    pub fn new(dialect: Dialect, kind: RequestKind) -> Listener {
        match dialect {
            Dialect::Anthropic => Listener::Anthropic(anthropic::Listener::default()),
            Dialect::Gemini => Listener::Gemini,
            Dialect::Bedrock => Listener::Bedrock,
            Dialect::Cohere => Listener::Cohere,
            Dialect::OpenAi => Listener::OpenAi(kind),
        }
    }

    /// What an event says; `None` for one without data, such as a comment that keeps the line open.
    pub fn hear(&mut self, event: &Event<'_>) -> Option<Facts> {
        if event.is_damaged {
            return Some(Facts { usage: Some(Err(Garbage::Unreadable)), ..Facts::default() });
        }
        let data = event.data.as_deref().filter(|data| !data.is_empty())?;
        match self {
            Listener::OpenAi(kind) => Some(openai::event::read(*kind, event.name, data)),
            Listener::Anthropic(listener) => listener.hear(event, data),
            Listener::Gemini => Some(gemini::hear(data)),
            Listener::Bedrock => Some(bedrock::hear(event, data)),
            Listener::Cohere => Some(cohere::hear(event.name, data)),
        }
    }

    /// Whether the unfinished event in `bytes` can still turn out to be a usage-only one. `sought` remembers
    /// from where to look the next time; it starts at 0.
    pub fn may_be_usage_only(&self, bytes: &[u8], sought: &mut usize) -> bool {
        matches!(self, Listener::OpenAi(_)) && openai::event::may_be_usage_only(bytes, sought)
    }
}

/// The value below a wanted key as text; `None` where there is none, and for null.
fn raw(found: &Found) -> Option<Result<&str, Garbage>> {
    match found {
        Found::Nothing => None,
        Found::TooLong => Some(Err(Garbage::TooLong)),
        Found::Value(raw) if raw == b"null" => None,
        Found::Value(raw) => Some(std::str::from_utf8(raw).map_err(|_| Garbage::Malformed)),
    }
}
