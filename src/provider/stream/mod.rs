//! Incremental, bounded decoders for streamed answers: where one event ends and the next begins.
//!
//! Pieces come cut anywhere. Only an unfinished event is kept, up to a bound; one that grows beyond it is let
//! go and reported without its bytes.

pub mod array;
pub mod frames;
pub mod sse;

use std::borrow::Cow;

/// Longest event that is kept to be read: the last one of the responses API repeats the whole answer.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One event as it stands in the stream, with what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Empty when oversized.
    pub bytes: &'a [u8],
    /// How many bytes of the piece at hand belong to it.
    pub used: usize,
    pub oversized: bool,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event<'a> {
    pub name: Option<&'a [u8]>,
    /// Copied only when it comes in several lines.
    pub data: Option<Cow<'a, [u8]>>,
    /// The framing itself says that this is an error.
    pub is_error: bool,
    /// What it says cannot be known: it was damaged on its way.
    pub is_damaged: bool,
}

/// How the events of a stream are told apart.
#[derive(Debug)]
pub enum Splitter {
    Events(sse::Splitter),
    Array(array::Splitter),
    Frames(frames::Splitter),
}

impl Splitter {
    /// The next event that ends in `piece`. `None`: the piece is used up, its end kept.
    pub fn next<'a>(&'a mut self, piece: &'a [u8]) -> Option<Frame<'a>> {
        match self {
            Splitter::Events(splitter) => splitter.next(piece),
            Splitter::Array(splitter) => splitter.next(piece),
            Splitter::Frames(splitter) => splitter.next(piece),
        }
    }

    /// The unfinished event so far; `None` once it is too long to be kept.
    pub fn unfinished(&self) -> Option<&[u8]> {
        match self {
            Splitter::Events(splitter) => splitter.unfinished(),
            // What has no end here says nothing.
            Splitter::Array(_) | Splitter::Frames(_) => Some(&[]),
        }
    }

    /// Nothing more comes: what is unfinished is forgotten.
    pub fn end(&mut self) {
        *self = match self {
            Splitter::Events(_) => Splitter::Events(sse::Splitter::default()),
            Splitter::Array(_) => Splitter::Array(array::Splitter::default()),
            Splitter::Frames(_) => Splitter::Frames(frames::Splitter::default()),
        };
    }
}
