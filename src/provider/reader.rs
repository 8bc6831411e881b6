//! Reads an answer while it passes.
//!
//! The bytes go out as they came, with one exception: a usage event that the proxy asked for and the
//! client did not. Reading never delays an answer, except for an unfinished event that could still be
//! that one. What is learnt stands at any moment, since an answer may end at any moment.

use std::fmt;

use bytes::Bytes;
use smallvec::SmallVec;

use super::dialect::{Document, Facts, FirstEvent, Garbage, Listener, Told, document};
use super::json::Scanner;
use super::stream::{Event, Splitter, array, frames, sse};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{ServiceTier, Source, Usage};

/// Longer than any usage event: an unfinished event of this size is let go.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What goes on to the client, in order.
pub type Out = SmallVec<[Bytes; 4]>;

/// How an answer is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One JSON document.
    Document,
    /// Server-sent events.
    Events,
    /// An array of JSON objects.
    Array,
    /// AWS event-stream frames.
    Frames,
    /// Nothing that tells what was used: sound, or plain text.
    Opaque,
    /// Something that cannot be read although it should be, such as a compressed document.
    Sealed,
}

impl Framing {
    /// Whether the answer comes event by event.
    pub fn is_stream(self) -> bool {
        matches!(self, Framing::Events | Framing::Array | Framing::Frames)
    }
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Unary(Box<Unary>),
    Stream(Box<Stream>),
    /// Passes as it is, and this is all that is known of it.
    Unread(Option<Garbage>),
}

/// What was learnt from an answer so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// As the provider reported it last. `None` beside `garbage`: its last report made no sense.
    pub usage: Option<Usage>,
    pub garbage: Option<Garbage>,
    /// About how many tokens were generated and seen: one for each event with text at least, and one for
    /// four bytes of text. Hidden reasoning is not in it.
    pub delivered_tokens: u64,
    /// Generation came to its end; the answer was not cut short.
    pub finished: bool,
}

impl Reader {
    /// For the answer to a call. `withhold_usage`: the client did not ask for the event that tells the usage.
    pub fn new(dialect: Dialect, kind: RequestKind, framing: Framing, withhold_usage: bool) -> Reader {
        let splitter = match framing {
            Framing::Document => {
                let document = document(dialect, kind);
                let scanner = Scanner::new(document.wanted, document.texts);
                return Reader { answer: Answer::Unary(Box::new(Unary { kind, document, scanner })) };
            }
            Framing::Opaque => return Reader { answer: Answer::Unread(None) },
            Framing::Sealed => return Reader { answer: Answer::Unread(Some(Garbage::Unreadable)) },
            Framing::Events => Splitter::Events(sse::Splitter::default()),
            Framing::Array => Splitter::Array(array::Splitter::default()),
            Framing::Frames => Splitter::Frames(frames::Splitter::default()),
        };
        let withhold = withhold_usage && framing == Framing::Events;
        let stream = Stream::new(Listener::new(dialect, kind), splitter, withhold);
        Reader { answer: Answer::Stream(Box::new(stream)) }
    }

    /// Consumes a piece cut anywhere and appends to `out` what the client should see.
    pub fn chunk(&mut self, piece: Bytes, out: &mut Out) {
        match &mut self.answer {
            Answer::Unary(unary) => {
                unary.scanner.push(&piece);
                pass(piece, out);
            }
            Answer::Stream(stream) => stream.chunk(piece, out),
            Answer::Unread(_) => pass(piece, out),
        }
    }

    /// The upstream ended: lets out what was held back.
    pub fn flush(&mut self, out: &mut Out) {
        if let Answer::Stream(stream) = &mut self.answer {
            stream.flush(out);
        }
    }

    /// What the first complete event of a stream is. `None`: not known yet, or not a stream. Comments do not
    /// count; `response.created` does, and is content.
    pub fn first_event(&self) -> Option<FirstEvent> {
        match &self.answer {
            Answer::Unary(_) | Answer::Unread(_) => None,
            Answer::Stream(stream) => stream.first,
        }
    }

    /// What was learnt, at whatever point the answer ended.
    pub fn reading(&self) -> Reading {
        match &self.answer {
            Answer::Unary(unary) => unary.reading(),
            Answer::Stream(stream) => stream.reading(),
            Answer::Unread(garbage) => Reading { garbage: garbage.clone(), ..Reading::default() },
        }
    }
}

fn pass(piece: Bytes, out: &mut Out) {
    if !piece.is_empty() {
        out.push(piece);
    }
}

struct Unary {
    kind: RequestKind,
    document: Document,
    scanner: Scanner,
}

impl fmt::Debug for Unary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Unary").field("kind", &self.kind).field("scanner", &self.scanner).finish_non_exhaustive()
    }
}

impl Unary {
    fn reading(&self) -> Reading {
        let usage = (self.document.usage)(self.kind, self.scanner.found());
        Reading {
            usage: usage.as_ref().and_then(|usage| usage.as_ref().ok().copied()),
            garbage: usage.and_then(Result::err),
            delivered_tokens: self.scanner.text_bytes().div_ceil(4),
            finished: self.scanner.is_closed(),
        }
    }
}

#[derive(Debug)]
struct Stream {
    listener: Listener,
    withhold: bool,
    splitter: Splitter,
    /// The beginning of the unfinished event, while it may turn out to be the one to withhold.
    held: Vec<u8>,
    /// The unfinished event is on its way out already.
    let_go: bool,
    /// How far the unfinished event was looked through.
    sought: usize,
    first: Option<FirstEvent>,
    usage: Told,
    tier: Option<ServiceTier>,
    text_bytes: u64,
    text_events: u64,
    finished: bool,
}

impl Stream {
    fn new(listener: Listener, splitter: Splitter, withhold: bool) -> Stream {
        Stream {
            listener,
            withhold,
            splitter,
            held: Vec::new(),
            let_go: false,
            sought: 0,
            first: None,
            usage: None,
            tier: None,
            text_bytes: 0,
            text_events: 0,
            finished: false,
        }
    }

    fn chunk(&mut self, piece: Bytes, out: &mut Out) {
        // Everything before `passed` is dealt with, everything before `at` is read.
        let (mut passed, mut at) = (0, 0);
        loop {
            // Which framing it is, is asked for below while the frame is borrowed from the splitter.
            let read = read_as(&self.splitter);
            let Some(frame) = self.splitter.next(&piece[at..]) else { break };
            let end = at + frame.used;
            // Too long to be read: all that is known is that it is there.
            let facts = if frame.oversized { Some(Facts::default()) } else { self.listener.hear(&read(frame.bytes)) };
            if self.withhold && !self.let_go && facts.as_ref().is_some_and(|facts| facts.usage_only) {
                self.held.clear();
                pass(piece.slice(passed..at), out);
                passed = end;
            } else {
                self.release(out);
            }
            if let Some(facts) = facts {
                self.learn(facts);
            }
            (self.let_go, self.sought, at) = (false, 0, end);
        }
        if self.withhold && !self.let_go && at < piece.len() {
            if self.may_be_usage() {
                pass(piece.slice(passed..at), out);
                self.held.extend_from_slice(&piece[at..]);
                return;
            }
            self.let_go = true;
            self.release(out);
        }
        pass(if passed == 0 { piece } else { piece.slice(passed..) }, out);
    }

    fn flush(&mut self, out: &mut Out) {
        self.release(out);
        let read = read_as(&self.splitter);
        if let Some(mut facts) = self.splitter.unfinished().and_then(|rest| self.listener.hear(&read(rest))) {
            // Cut in the middle, its usage is no garbage: it just did not arrive.
            facts.usage = facts.usage.filter(Result::is_ok);
            self.learn(facts);
        }
        self.splitter.end();
        (self.let_go, self.sought) = (false, 0);
    }

    /// What is held comes before everything of the piece at hand.
    fn release(&mut self, out: &mut Out) {
        if !self.held.is_empty() {
            out.push(Bytes::from(std::mem::take(&mut self.held)));
        }
    }

    fn may_be_usage(&mut self) -> bool {
        let unfinished = self.splitter.unfinished().filter(|unfinished| unfinished.len() <= HELD_BYTES_MAX);
        unfinished.is_some_and(|unfinished| self.listener.may_be_usage_only(unfinished, &mut self.sought))
    }

    fn learn(&mut self, facts: Facts) {
        self.first = self.first.or(Some(if facts.error { FirstEvent::Error } else { FirstEvent::Content }));
        self.usage = facts.usage.or(self.usage.take());
        self.tier = facts.tier.or(self.tier);
        self.text_bytes += facts.text_bytes;
        self.text_events += u64::from(facts.text_bytes > 0);
        self.finished |= facts.last;
    }

    fn reading(&self) -> Reading {
        let delivered_tokens = self.text_bytes.div_ceil(4).max(self.text_events);
        let (usage, garbage) = match &self.usage {
            None => (None, None),
            Some(Ok(usage)) => {
                let usage = Usage { tier: self.tier.unwrap_or(usage.tier), ..*usage };
                (Some(if self.finished { usage } else { so_far(usage, delivered_tokens) }), None)
            }
            Some(Err(garbage)) => (None, Some(garbage.clone())),
        };
        Reading { usage, garbage, delivered_tokens, finished: self.finished }
    }
}

/// A report from the middle of an answer: some tell their input at once, and some a running total. More was
/// generated since than it says, if more was seen.
fn so_far(usage: Usage, delivered_tokens: u64) -> Usage {
    let missing = delivered_tokens.saturating_sub(usage.output_total());
    Usage { output: usage.output + missing, source: Source::Estimated, ..usage }
}

/// How the bytes of this splitter's frames are read.
fn read_as(splitter: &Splitter) -> for<'a> fn(&'a [u8]) -> Event<'a> {
    match splitter {
        Splitter::Events(_) => sse::event,
        Splitter::Array(_) => array::event,
        Splitter::Frames(_) => frames::event,
    }
}

#[cfg(test)]
mod tests;
