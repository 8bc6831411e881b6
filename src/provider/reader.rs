//! Reads an answer while it passes.
//!
//! The bytes go out as they came, with one exception: a usage event that the proxy asked for and the
//! client did not. Reading never delays an answer, except for an unfinished event that could still be
//! that one. What is learnt stands at any moment, since an answer may end at any moment.

use bytes::Bytes;
use smallvec::SmallVec;

use super::dialect::openai::{event, usage_from_value};
use super::dialect::{Facts, FirstEvent, Garbage};
use super::json::{Found, Scanner};
use super::stream::sse::{Event, Splitter};
use crate::governance::request::RequestKind;
use crate::governance::usage::{ServiceTier, Usage};

/// Longer than any usage event: an unfinished event of this size is let go.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// What goes on to the client, in order.
pub type Out = SmallVec<[Bytes; 4]>;

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Unary(Box<Unary>),
    Stream(Box<Stream>),
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
    /// For an answer that is one JSON document.
    pub fn unary(kind: RequestKind) -> Reader {
        let scanner = Scanner::new(event::UNARY_WANTED, event::unary_text(kind));
        Reader { answer: Answer::Unary(Box::new(Unary { kind, scanner })) }
    }

    /// For an answer in server-sent events. `withhold_usage`: the client did not ask for the usage event.
    pub fn stream(kind: RequestKind, withhold_usage: bool) -> Reader {
        Reader { answer: Answer::Stream(Box::new(Stream::new(kind, withhold_usage))) }
    }

    /// Consumes a piece cut anywhere and appends to `out` what the client should see.
    pub fn chunk(&mut self, piece: Bytes, out: &mut Out) {
        match &mut self.answer {
            Answer::Unary(unary) => {
                unary.scanner.push(&piece);
                pass(piece, out);
            }
            Answer::Stream(stream) => stream.chunk(piece, out),
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
            Answer::Unary(_) => None,
            Answer::Stream(stream) => stream.first,
        }
    }

    /// What was learnt, at whatever point the answer ended.
    pub fn reading(&self) -> Reading {
        match &self.answer {
            Answer::Unary(unary) => unary.reading(),
            Answer::Stream(stream) => stream.reading(),
        }
    }
}

fn pass(piece: Bytes, out: &mut Out) {
    if !piece.is_empty() {
        out.push(piece);
    }
}

#[derive(Debug)]
struct Unary {
    kind: RequestKind,
    scanner: Scanner,
}

impl Unary {
    fn reading(&self) -> Reading {
        let tier = match self.scanner.found(1) {
            Found::Value(raw) => std::str::from_utf8(raw).ok().map(|raw| raw.trim_matches('"')),
            Found::Nothing | Found::TooLong => None,
        };
        let usage = match self.scanner.found(0) {
            Found::Nothing => None,
            Found::TooLong => Some(Err(Garbage::TooLong)),
            Found::Value(raw) if raw == b"null" => None,
            Found::Value(raw) => Some(
                std::str::from_utf8(raw)
                    .map_err(|_| Garbage::Malformed)
                    .and_then(|raw| usage_from_value(self.kind, raw, tier)),
            ),
        };
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
    kind: RequestKind,
    withhold: bool,
    splitter: Splitter,
    /// The beginning of the unfinished event, while it may turn out to be the one to withhold.
    held: Vec<u8>,
    /// The unfinished event is on its way out already.
    let_go: bool,
    /// How far the unfinished event was looked through.
    sought: usize,
    first: Option<FirstEvent>,
    usage: Option<Result<Usage, Garbage>>,
    tier: Option<ServiceTier>,
    text_bytes: u64,
    text_events: u64,
    finished: bool,
}

impl Stream {
    fn new(kind: RequestKind, withhold: bool) -> Stream {
        Stream {
            kind,
            withhold,
            splitter: Splitter::default(),
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
        while let Some(frame) = self.splitter.next(&piece[at..]) {
            let end = at + frame.used;
            // Too long to be read: all that is known is that it is there.
            let facts = if frame.oversized { Some(Facts::default()) } else { facts(self.kind, frame.bytes) };
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
        let rest = std::mem::take(&mut self.splitter);
        if let Some(mut facts) = rest.unfinished().and_then(|rest| facts(self.kind, rest)) {
            // Cut in the middle, its usage is no garbage: it just did not arrive.
            facts.usage = facts.usage.filter(Result::is_ok);
            self.learn(facts);
        }
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
        unfinished.is_some_and(|unfinished| event::may_be_usage_only(unfinished, &mut self.sought))
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
        let (usage, garbage) = match &self.usage {
            None => (None, None),
            Some(Ok(usage)) => (Some(Usage { tier: self.tier.unwrap_or(usage.tier), ..*usage }), None),
            Some(Err(garbage)) => (None, Some(garbage.clone())),
        };
        let delivered_tokens = self.text_bytes.div_ceil(4).max(self.text_events);
        Reading { usage, garbage, delivered_tokens, finished: self.finished }
    }
}

/// What an event says; `None` for one without data, such as a comment that keeps the line open.
fn facts(kind: RequestKind, bytes: &[u8]) -> Option<Facts> {
    let event = Event::parse(bytes);
    event.data.filter(|data| !data.is_empty()).map(|data| event::read(kind, event.name, &data))
}

#[cfg(test)]
mod tests;
