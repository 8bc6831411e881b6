//! Server-sent events: where one ends, and what it carries.
//!
//! Pieces come cut anywhere. Only an unfinished event is kept, up to a bound; one that grows beyond it
//! is let go and reported without its bytes. Lines end in `\n` or `\r\n`, an event in an empty line.

use std::borrow::Cow;

use memchr::memchr;

use super::{EVENT_BYTES_MAX, Event, Frame};

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The unfinished event, as far as earlier pieces had it.
    kept: Vec<u8>,
    /// Of the unfinished line: how long it is, and whether it so far is a lone carriage return.
    line_bytes: usize,
    line_is_return: bool,
    oversized: bool,
    /// `kept` was handed out as a finished event.
    spent: bool,
}

impl Splitter {
    /// The next event that ends in `piece`. `None`: the piece is used up, its end kept.
    pub fn next<'a>(&'a mut self, piece: &'a [u8]) -> Option<Frame<'a>> {
        if std::mem::take(&mut self.spent) {
            self.kept.clear();
        }
        let mut at = 0;
        while let Some(run) = memchr(b'\n', &piece[at..]) {
            let line = &piece[at..at + run];
            let empty = match self.line_bytes {
                0 => matches!(line, b"" | b"\r"),
                1 => self.line_is_return && line.is_empty(),
                _ => false,
            };
            self.line_bytes = 0;
            at += run + 1;
            if empty {
                return Some(self.finish(piece, at));
            }
        }
        let line = &piece[at..];
        self.line_is_return = self.line_bytes == 0 && line == b"\r" || line.is_empty() && self.line_is_return;
        self.line_bytes += line.len();
        self.keep(piece);
        None
    }

    /// The unfinished event so far; `None` once it is too long to be kept.
    pub fn unfinished(&self) -> Option<&[u8]> {
        if self.oversized {
            None
        } else if self.spent {
            Some(&[])
        } else {
            Some(&self.kept)
        }
    }

    fn finish<'a>(&'a mut self, piece: &'a [u8], used: usize) -> Frame<'a> {
        if !self.oversized && self.kept.is_empty() && used <= EVENT_BYTES_MAX {
            return Frame { bytes: &piece[..used], used, oversized: false };
        }
        self.keep(&piece[..used]);
        self.spent = true;
        let oversized = std::mem::take(&mut self.oversized);
        Frame { bytes: &self.kept, used, oversized }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.kept.len() + part.len() > EVENT_BYTES_MAX {
            self.oversized = true;
            self.kept = Vec::new();
        }
        if !self.oversized {
            self.kept.extend_from_slice(part);
        }
    }
}

/// What an event says.
pub fn event(bytes: &[u8]) -> Event<'_> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut event = Event::default();
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(more) = field(line, b"data") {
            match &mut event.data {
                None => event.data = Some(Cow::Borrowed(more)),
                Some(data) => {
                    let data = data.to_mut();
                    data.push(b'\n');
                    data.extend_from_slice(more);
                }
            }
        } else if let Some(name) = field(line, b"event") {
            event.name = Some(name);
        }
    }
    event
}

/// The value of a line, if the line is this field.
pub fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// All events, and what remains unfinished.
    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = splitter.next(piece) {
                assert!(!frame.oversized);
                events.push(frame.bytes.to_vec());
                piece = &piece[frame.used..];
            }
        }
        (events, splitter.unfinished().unwrap().to_vec())
    }

    #[track_caller]
    fn check(stream: &str, events: &[&str], rest: &str) {
        let expected = (events.iter().map(|e| e.as_bytes().to_vec()).collect(), rest.as_bytes().to_vec());
        assert_eq!(split([stream.as_bytes()]), expected, "{stream:?}");
        assert_eq!(split(stream.as_bytes().chunks(1)), expected, "{stream:?} byte by byte");
    }

    #[test]
    fn an_empty_line_ends_an_event() {
        check("", &[], "");
        check("data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"], "");
        check("data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"], "");
        check("data: a\r\n\ndata: b\n\r\n", &["data: a\r\n\n", "data: b\n\r\n"], "");
        check("data: a\ndata: b\n\n: c\n", &["data: a\ndata: b\n\n"], ": c\n");
        check("\n\r\n\n", &["\n", "\r\n", "\n"], "");
        check("a\r\r\n\n", &["a\r\r\n\n"], "");
        check("\r\r\n\n", &["\r\r\n\n"], "");
        check("data: a\n\r", &[], "data: a\n\r");
    }

    #[test]
    fn an_event_says() {
        let data = |bytes: &'static str| event(bytes.as_bytes()).data.map(|data| data.into_owned());
        assert_eq!(data("data: a\n\n").unwrap(), b"a");
        assert_eq!(data("data:a\r\n\r\n").unwrap(), b"a");
        assert_eq!(data(": x\ndata: a\nid: 7\ndata:  b\n\n").unwrap(), b"a\n b");
        assert_eq!(data("\u{feff}data: a\n\n").unwrap(), b"a");
        assert_eq!(data(": ping\n\n"), None);
        assert_eq!(data("database: 1\n\n"), None);
        assert_eq!(event(b"event: error\r\ndata: {}\r\n\r\n").name, Some(&b"error"[..]));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut long = b"data: ".to_vec();
        long.resize(EVENT_BYTES_MAX + 10, b'x');
        long.extend_from_slice(b"\n\ndata: y\n\n");
        for cut in [1_000, 65_536, long.len()] {
            let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
            for mut piece in long.chunks(cut) {
                while let Some(frame) = splitter.next(piece) {
                    frames.push((frame.bytes.to_vec(), frame.oversized));
                    piece = &piece[frame.used..];
                }
                assert!(splitter.kept.len() <= EVENT_BYTES_MAX);
            }
            assert_eq!(frames, [(vec![], true), (b"data: y\n\n".to_vec(), false)]);
        }
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(stream in "[ab\r\n:]{0,80}", cut in 1_usize..7) {
            let whole = split([stream.as_bytes()]);
            prop_assert_eq!(&whole, &split(stream.as_bytes().chunks(cut)));
            let (mut bytes, rest) = (whole.0.concat(), whole.1);
            bytes.extend(rest);
            prop_assert_eq!(bytes, stream.as_bytes());
        }

        #[test]
        fn any_bytes_are_survived(stream in vec(any::<u8>(), 0..200)) {
            split(stream.chunks(3));
            event(&stream);
        }
    }
}
