//! Looking into JSON as it passes, without building anything from it.
//!
//! `Scanner` takes a document in pieces cut anywhere and keeps the raw values of a few top-level keys;
//! `members` walks one that is there in full. Both trust that the document is well formed: from one
//! that is not they learn something wrong at worst. Keys spelled with escapes are not recognised.

use memchr::memchr2;

/// Longest raw value that is kept.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Longest key that is told from others.
const KEY_BYTES_MAX: usize = 32;

/// What became of a key that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Found {
    #[default]
    Nothing,
    /// The raw bytes of the value; of several the last.
    Value(Vec<u8>),
    TooLong,
}

/// Reads one document as it passes. Its memory does not grow with the document.
#[derive(Debug)]
pub struct Scanner {
    wanted: &'static [&'static str],
    found: Vec<Found>,
    counted: &'static [&'static str],
    text_bytes: u64,
    state: State,
    depth: u32,
    key: Key,
    /// The value at hand belongs to a counted key.
    counting: bool,
    /// Index of the wanted key whose value is being read.
    capture: Option<usize>,
    captured: Vec<u8>,
    overflowed: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    /// After a key's colon.
    Colon,
    /// In a string that may turn out to be a key.
    Name,
    /// In a string that is a member's value.
    Text,
    NameEscape,
    TextEscape,
    /// In the four digits of an escape, with those read so far.
    Hex {
        digits: u8,
        value: u16,
    },
}

/// The last string that was not a member's value.
#[derive(Debug, Default)]
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl Key {
    fn push(&mut self, more: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(more) {
            *place = *byte;
        }
        self.len = self.len.saturating_add(more.len());
    }

    /// Nothing when the key was too long to be one of ours.
    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Scanner {
    /// Looks for the values of the top-level keys `wanted`, and counts the text below the keys `counted`
    /// wherever they stand.
    pub fn new(wanted: &'static [&'static str], counted: &'static [&'static str]) -> Scanner {
        Scanner {
            wanted,
            found: vec![Found::Nothing; wanted.len()],
            counted,
            text_bytes: 0,
            state: State::Between,
            depth: 0,
            key: Key::default(),
            counting: false,
            capture: None,
            captured: Vec::new(),
            overflowed: false,
            closed: false,
        }
    }

    /// What became of the wanted keys, in their order.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// UTF-8 bytes of the counted texts so far, as they read once unescaped.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The document has ended with its last brace.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads on.
    pub fn push(&mut self, piece: &[u8]) {
        let mut at = 0;
        // Where the part of the piece starts that belongs to the value being captured.
        let mut capture_from = 0;
        while let Some(&byte) = piece.get(at) {
            if self.closed {
                return;
            }
            match self.state {
                State::Name | State::Text => {
                    let rest = &piece[at..];
                    let run = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    self.take(&rest[..run]);
                    at += run;
                    match (rest.get(run), self.state) {
                        (Some(b'"'), _) => self.state = State::Between,
                        (Some(_), State::Name) => self.state = State::NameEscape,
                        (Some(_), _) => self.state = State::TextEscape,
                        (None, _) => break,
                    }
                    at += 1;
                }
                State::NameEscape => {
                    // Makes the key one that nobody looks for.
                    self.key.push(b"\\");
                    self.state = State::Name;
                    at += 1;
                }
                State::TextEscape => {
                    if byte == b'u' {
                        self.state = State::Hex { digits: 0, value: 0 };
                    } else {
                        self.count(1);
                        self.state = State::Text;
                    }
                    at += 1;
                }
                State::Hex { digits, value } => match (byte as char).to_digit(16) {
                    Some(digit) => {
                        let value = value << 4 | digit as u16;
                        if digits == 3 {
                            self.count(utf8_len(value));
                            self.state = State::Text;
                        } else {
                            self.state = State::Hex { digits: digits + 1, value };
                        }
                        at += 1;
                    }
                    None => self.state = State::Text,
                },
                State::Colon => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => at += 1,
                    b'"' => {
                        self.counting = self.counted.iter().any(|key| key.as_bytes() == self.key.get());
                        self.state = State::Text;
                        at += 1;
                    }
                    _ => self.state = State::Between,
                },
                State::Between => {
                    let plain = if self.depth == 1 { &PLAIN_AT_TOP } else { &PLAIN };
                    let rest = &piece[at..];
                    let Some(run) = rest.iter().position(|&byte| !plain[byte as usize]) else { break };
                    at += run;
                    match rest[run] {
                        b'"' => {
                            self.key.len = 0;
                            self.state = State::Name;
                        }
                        b':' => {
                            self.state = State::Colon;
                            if self.depth == 1 && self.capture.is_none() {
                                self.capture = self.wanted.iter().position(|key| key.as_bytes() == self.key.get());
                                capture_from = at + 1;
                            }
                        }
                        b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                        b'}' | b']' => {
                            if self.depth == 1 {
                                self.keep(piece.get(capture_from..at).unwrap_or_default());
                                self.end_capture();
                                self.closed = true;
                            }
                            self.depth = self.depth.saturating_sub(1);
                        }
                        // A comma, which is plain below the top.
                        _ => {
                            self.keep(piece.get(capture_from..at).unwrap_or_default());
                            self.end_capture();
                        }
                    }
                    at += 1;
                }
            }
        }
        self.keep(piece.get(capture_from..).unwrap_or_default());
    }

    fn take(&mut self, run: &[u8]) {
        match self.state {
            State::Name => self.key.push(run),
            _ => self.count(run.len() as u64),
        }
    }

    fn count(&mut self, bytes: u64) {
        if self.counting {
            self.text_bytes += bytes;
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if self.capture.is_none() {
            return;
        }
        if self.captured.len() + part.len() > VALUE_BYTES_MAX {
            self.overflowed = true;
            self.captured.clear();
        } else if !self.overflowed {
            self.captured.extend_from_slice(part);
        }
    }

    fn end_capture(&mut self) {
        let captured = std::mem::take(&mut self.captured);
        let overflowed = std::mem::take(&mut self.overflowed);
        if let Some(index) = self.capture.take() {
            self.found[index] = if overflowed { Found::TooLong } else { Found::Value(captured.trim_ascii().to_vec()) };
        }
    }
}

/// Bytes that change nothing outside of strings.
const PLAIN: [bool; 256] = plain(b"\":{}[]");
const PLAIN_AT_TOP: [bool; 256] = plain(b"\":{}[],");

const fn plain(except: &[u8]) -> [bool; 256] {
    let mut table = [true; 256];
    let mut at = 0;
    while at < except.len() {
        table[except[at] as usize] = false;
        at += 1;
    }
    table
}

/// Bytes that an escaped UTF-16 unit comes to; a surrogate is half of four.
fn utf8_len(unit: u16) -> u64 {
    match unit {
        0..=0x7f => 1,
        0x80..=0x7ff | 0xd800..=0xdfff => 2,
        _ => 3,
    }
}

/// The value of a member, as far as its first byte tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// What stands between the quotes, escapes included.
    Text(&'a [u8]),
    Object,
    /// With whether it is empty.
    Array {
        empty: bool,
    },
    Null,
    Other,
}

/// Shows every member of a document, at whatever depth: 1 for those of the outermost object.
pub fn members<'a>(json: &'a [u8], mut visit: impl FnMut(usize, &'a [u8], Value<'a>)) {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let Some(end) = string_end(json, at) else { return };
                let key = &json[at..end];
                at = skip_space(json, end + 1);
                if json.get(at) != Some(&b':') {
                    continue;
                }
                at = skip_space(json, at + 1);
                // Containers are entered by the loop itself.
                let value = match json.get(at) {
                    Some(b'"') => {
                        let Some(end) = string_end(json, at + 1) else { return };
                        let text = &json[at + 1..end];
                        at = end + 1;
                        Value::Text(text)
                    }
                    Some(b'{') => Value::Object,
                    Some(b'[') => Value::Array { empty: json.get(skip_space(json, at + 1)) == Some(&b']') },
                    Some(b'n') => Value::Null,
                    Some(_) => Value::Other,
                    None => return,
                };
                visit(depth, key, value);
            }
            _ => {}
        }
    }
}

/// Where the string ends whose first byte is at `from`.
fn string_end(json: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + memchr2(b'"', b'\\', json.get(from..)?)?;
        if json[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// UTF-8 bytes of a string whose raw form is at hand, as it reads once unescaped.
pub fn text_len(raw: &[u8]) -> u64 {
    let mut len = 0;
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (bytes, used) = match rest.get(at + 1) {
            Some(b'u') => (utf8_len(hex(rest.get(at + 2..at + 6).unwrap_or_default())), 6),
            _ => (1, 2),
        };
        len += at as u64 + bytes;
        rest = rest.get(at + used..).unwrap_or_default();
    }
    len + rest.len() as u64
}

fn hex(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |value, &byte| value << 4 | (byte as char).to_digit(16).unwrap_or(0) as u16)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const WANTED: &[&str] = &["usage", "service_tier"];
    const COUNTED: &[&str] = &["content", "text"];

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Scanner {
        let mut scanner = Scanner::new(WANTED, COUNTED);
        pieces.into_iter().for_each(|piece| scanner.push(piece));
        scanner
    }

    fn facts(scanner: &Scanner) -> (Found, Found, u64, bool) {
        (scanner.found()[0].clone(), scanner.found()[1].clone(), scanner.text_bytes(), scanner.is_closed())
    }

    #[track_caller]
    fn check(json: &str, usage: Option<&str>, tier: Option<&str>, text_bytes: u64) {
        let found = |raw: Option<&str>| raw.map_or(Found::Nothing, |raw| Found::Value(raw.as_bytes().to_vec()));
        let expected = (found(usage), found(tier), text_bytes, true);
        assert_eq!(facts(&scan([json.as_bytes()])), expected, "{json}");
        assert_eq!(facts(&scan(json.as_bytes().chunks(1))), expected, "{json} byte by byte");
    }

    #[test]
    fn top_level_values_are_found() {
        check("{}", None, None, 0);
        check(r#"{"usage":{"a":1}}"#, Some(r#"{"a":1}"#), None, 0);
        check(r#"{ "usage" : { "a" : [1,2] } , "x" : 1 }"#, Some(r#"{ "a" : [1,2] }"#), None, 0);
        check(r#"{"usage":null,"service_tier":"flex"}"#, Some("null"), Some(r#""flex""#), 0);
        check("{\"service_tier\":\n\"a,}b\"\n}", None, Some(r#""a,}b""#), 0);
        check(r#"{"usage":1,"usage":2}"#, Some("2"), None, 0);
        check(r#"{"x":{"usage":1},"y":["usage",{"usage":2}]}"#, None, None, 0);
        check(r#"{"x":"usage","usage":3}"#, Some("3"), None, 0);
        check(r#"{"x":"\"usage\":7,","usage":3}"#, Some("3"), None, 0);
        check(r#"{"x\\":"\\","usage":{"s":"}\"}"}}"#, Some(r#"{"s":"}\"}"}"#), None, 0);
        check(r#"{"usage\n":1,"us\u0061ge":2,"a very long key indeed that ends in usage":4}"#, None, None, 0);
    }

    #[test]
    fn text_is_counted_as_it_reads() {
        check(r#"{"choices":[{"message":{"role":"x","content":"hello"}}]}"#, None, None, 5);
        check(r#"{"content":"a\n\"b\\","text":"\u00e9\u0041\u20ac\ud83d\ude00"}"#, None, None, 5 + 2 + 1 + 3 + 4);
        check(r#"{"content":{"text":"ab"},"x":["content","text"]}"#, None, None, 2);
        check(r#"{"content":["abc"],"text":null}"#, None, None, 0);
        for raw in ["", "abc", r"a\n", r"\u00e9\u0041\u20ac\ud83d\ude00", r#"\"\\\/x"#] {
            let text: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            assert_eq!(text_len(raw.as_bytes()), text.len() as u64, "{raw}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let json = format!(r#"{{"usage":{{"x":"{}"}},"service_tier":"flex"}}"#, "y".repeat(VALUE_BYTES_MAX));
        for cut in [1, 7, json.len()] {
            let scanner = scan(json.as_bytes().chunks(cut));
            assert_eq!(scanner.found()[0], Found::TooLong);
            assert_eq!(scanner.found()[1], Found::Value(br#""flex""#.to_vec()));
            assert!(scanner.captured.capacity() <= 2 * VALUE_BYTES_MAX);
        }
    }

    #[test]
    fn members_are_shown_with_their_depth() {
        let mut seen = Vec::new();
        let json = br#"{"a":1,"b":{"c":"x\"y","d":[ ]},"e":[{"f":null}, "g"],"h" : "i"}"#;
        members(json, |depth, key, value| seen.push((depth, std::str::from_utf8(key).unwrap(), value)));
        assert_eq!(
            seen,
            [
                (1, "a", Value::Other),
                (1, "b", Value::Object),
                (2, "c", Value::Text(br#"x\"y"#)),
                (2, "d", Value::Array { empty: true }),
                (1, "e", Value::Array { empty: false }),
                (3, "f", Value::Null),
                (1, "h", Value::Text(b"i")),
            ]
        );
    }

    fn jsonish() -> impl Strategy<Value = Vec<u8>> {
        let tokens: [&[u8]; 13] =
            [b"\"usage\"", b"\"content\"", b":", b",", b"{", b"}", b"[", b"]", b"\"", b"\\", b"\\u0", b" 12 ", b"\xff"];
        let token = proptest::sample::select(tokens.to_vec());
        vec(token, 0..60).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(json in jsonish(), cut in 1_usize..9) {
            let whole = scan([&json[..]]);
            prop_assert_eq!(facts(&whole), facts(&scan(json.chunks(cut))));
            members(&json, |_, key, _| assert!(key.len() <= json.len()));
            text_len(&json);
        }

        #[test]
        fn any_bytes_are_survived(json in vec(any::<u8>(), 0..200)) {
            scan(json.chunks(3));
            members(&json, |_, _, _| {});
            text_len(&json);
        }
    }
}
