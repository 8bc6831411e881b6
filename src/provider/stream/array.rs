//! An array of JSON objects that arrives one by one, as Gemini streams when nobody asks for events.

use std::borrow::Cow;

use memchr::memchr2;

use super::{EVENT_BYTES_MAX, Event, Frame};

/// Cuts the array into its objects, each with what stands before it.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The unfinished object, as far as earlier pieces had it.
    kept: Vec<u8>,
    /// Of braces; brackets within them need no counting.
    depth: u32,
    in_string: bool,
    escaped: bool,
    oversized: bool,
    /// `kept` was handed out as a finished object.
    spent: bool,
}

impl Splitter {
    /// The next object that ends in `piece`. `None`: the piece is used up, its end kept.
    pub fn next<'a>(&'a mut self, piece: &'a [u8]) -> Option<Frame<'a>> {
        if std::mem::take(&mut self.spent) {
            self.kept.clear();
        }
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at += 1;
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            if self.in_string {
                match memchr2(b'"', b'\\', &piece[at - 1..]) {
                    None => break,
                    Some(run) => at += run,
                }
                match piece[at - 1] {
                    b'"' => self.in_string = false,
                    _ => self.escaped = true,
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.depth = self.depth.saturating_add(1),
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.finish(piece, at));
                    }
                }
                _ => {}
            }
        }
        self.keep(piece);
        None
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

/// What an object says: itself.
pub fn event(bytes: &[u8]) -> Event<'_> {
    let start = memchr::memchr(b'{', bytes);
    Event { data: start.map(|start| Cow::Borrowed(&bytes[start..])), ..Event::default() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn objects<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = splitter.next(piece) {
                let data = event(frame.bytes).data.unwrap_or_default();
                found.push(String::from_utf8_lossy(&data).into_owned());
                piece = &piece[frame.used..];
            }
        }
        found
    }

    #[test]
    fn each_object_is_an_event() {
        let check = |stream: &str, expected: &[&str]| {
            assert_eq!(objects([stream.as_bytes()]), expected, "{stream}");
            assert_eq!(objects(stream.as_bytes().chunks(1)), expected, "{stream} byte by byte");
        };
        check("", &[]);
        check("[]", &[]);
        check("[{}]", &["{}"]);
        check("[{\"a\":1},\r\n{\"b\":[{}]}\n]", &["{\"a\":1}", "{\"b\":[{}]}"]);
        check(r#"[{"a":"}\"{"},{"b":"\\"}]"#, &[r#"{"a":"}\"{"}"#, r#"{"b":"\\"}"#]);
        check(r#"[{"a":{"b":{}}},{"cut":"#, &[r#"{"a":{"b":{}}}"#]);
        check(r#"{"alone":1}"#, &[r#"{"alone":1}"#]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = [b"[{\"a\":\"".to_vec(), vec![b'x'; EVENT_BYTES_MAX], b"\"},{\"b\":1}]".to_vec()].concat();
        let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
        for mut piece in long.chunks(65_536) {
            while let Some(frame) = splitter.next(piece) {
                frames.push((frame.bytes.to_vec(), frame.oversized));
                piece = &piece[frame.used..];
            }
            assert!(splitter.kept.len() <= EVENT_BYTES_MAX);
        }
        assert_eq!(frames, [(vec![], true), (b",{\"b\":1}".to_vec(), false)]);
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(stream in r#"[\[\]{}",\\a]{0,60}"#, cut in 1_usize..7) {
            prop_assert_eq!(objects([stream.as_bytes()]), objects(stream.as_bytes().chunks(cut)));
        }

        #[test]
        fn any_bytes_are_survived(stream in vec(any::<u8>(), 0..200)) {
            objects(stream.chunks(3));
        }
    }
}
