//! The wire formats, and what they have in common.
//!
//! Each dialect offers the same three things: its request read into a call, its usage object read
//! into `Usage`, and the `Facts` of one event of its stream. None of them knows how bytes travel.

pub mod openai;
mod weight;

use crate::governance::usage::{ServiceTier, Usage};

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
    #[error("usage.{field} is not a count of tokens")]
    Count { field: &'static str },
    #[error("usage counts neither input nor output")]
    NoCounts,
}

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
    pub usage: Option<Result<Usage, Garbage>>,
    pub tier: Option<ServiceTier>,
    /// The event exists only because usage was asked for, and carries nothing else.
    pub usage_only: bool,
    pub error: bool,
    /// Nothing more is generated after this event.
    pub last: bool,
}
