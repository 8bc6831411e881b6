//! Event streams as AWS frames them: lengths, checksums, headers, payload, all of it binary.
//!
//! A frame whose checksum is wrong says nothing, and after a prelude that cannot be right nobody knows where
//! the next frame begins: from there on nothing is read. What is passed on is never changed by that.

use std::borrow::Cow;

use super::{EVENT_BYTES_MAX, Event, Frame};

/// Two lengths and their checksum.
const PRELUDE_BYTES: usize = 12;
/// The prelude and the checksum of all.
const LEAST_BYTES: usize = PRELUDE_BYTES + 4;
/// The longest headers that AWS allows.
const HEADERS_BYTES_MAX: usize = 128 * 1024;
/// The longest frame that AWS allows: headers and 24 MiB.
const FRAME_BYTES_MAX: usize = LEAST_BYTES + HEADERS_BYTES_MAX + 24 * 1024 * 1024;
const STRING: u8 = 7;

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The unfinished frame, as far as earlier pieces had it.
    kept: Vec<u8>,
    /// What is still to come of a frame that is too long to be kept.
    skipping: Option<usize>,
    /// Nothing can be made of the stream any more.
    lost: bool,
    /// `kept` was handed out as a finished frame.
    spent: bool,
}

impl Splitter {
    /// The next frame that ends in `piece`. `None`: the piece is used up, its end kept.
    pub fn next<'a>(&'a mut self, piece: &'a [u8]) -> Option<Frame<'a>> {
        if std::mem::take(&mut self.spent) {
            self.kept.clear();
        }
        if let Some(rest) = self.skipping {
            let used = rest.min(piece.len());
            self.skipping = (used < rest).then_some(rest - used);
            return self.skipping.is_none().then_some(Frame { bytes: &[], used, oversized: true });
        }
        if self.lost || piece.is_empty() {
            return None;
        }
        // The prelude, wherever it is cut.
        let before = self.kept.len();
        let mut prelude = [0; PRELUDE_BYTES];
        let kept = before.min(PRELUDE_BYTES);
        prelude[..kept].copy_from_slice(&self.kept[..kept]);
        let more = (PRELUDE_BYTES - kept).min(piece.len());
        prelude[kept..kept + more].copy_from_slice(&piece[..more]);
        if kept + more < PRELUDE_BYTES {
            self.kept.extend_from_slice(piece);
            return None;
        }
        let Some(length) = length(&prelude) else {
            self.lost = true;
            self.kept = Vec::new();
            // One damaged event stands for all that is not read.
            return Some(Frame { bytes: &[0], used: piece.len(), oversized: false });
        };
        let used = length - before;
        if length > EVENT_BYTES_MAX {
            self.kept = Vec::new();
            self.skipping = Some(used);
            return self.next(piece);
        }
        if piece.len() < used {
            self.kept.extend_from_slice(piece);
            return None;
        }
        if before == 0 {
            return Some(Frame { bytes: &piece[..used], used, oversized: false });
        }
        self.kept.extend_from_slice(&piece[..used]);
        self.spent = true;
        Some(Frame { bytes: &self.kept, used, oversized: false })
    }
}

/// The length of a frame by its prelude; `None`: it cannot be right.
fn length(prelude: &[u8; PRELUDE_BYTES]) -> Option<usize> {
    let (total, headers) = (number(&prelude[..4])?, number(&prelude[4..8])?);
    let checked = crc32(&prelude[..8]) == number(&prelude[8..])? as u32;
    let sane = headers <= HEADERS_BYTES_MAX && (LEAST_BYTES + headers..=FRAME_BYTES_MAX).contains(&total);
    (checked && sane).then_some(total)
}

/// What a frame says: its name is that of the event, the exception or the error.
pub fn event(frame: &[u8]) -> Event<'_> {
    read(frame).unwrap_or(Event { is_damaged: true, ..Event::default() })
}

fn read(frame: &[u8]) -> Option<Event<'_>> {
    let (body, sum) = frame.split_at_checked(frame.len().checked_sub(4)?)?;
    if crc32(body) != number(sum)? as u32 {
        return None;
    }
    let headers_bytes = number(body.get(4..8)?)?;
    let (headers, payload) = body.get(PRELUDE_BYTES..)?.split_at_checked(headers_bytes)?;
    let mut event = Event { data: Some(Cow::Borrowed(payload)), ..Event::default() };
    let mut rest = headers;
    while !rest.is_empty() {
        let (name, value) = header(&mut rest)?;
        match name {
            b":event-type" | b":exception-type" | b":error-code" => event.name = value,
            b":message-type" => event.is_error = matches!(value, Some(b"exception" | b"error")),
            _ => {}
        }
    }
    Some(event)
}

/// Takes one header off: its name, and its value where that is a string.
fn header<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let take = |rest: &mut &'a [u8], count: usize| {
        let (taken, left) = rest.split_at_checked(count)?;
        *rest = left;
        Some(taken)
    };
    let name_bytes = take(rest, 1)?[0];
    let name = take(rest, usize::from(name_bytes))?;
    let kind = take(rest, 1)?[0];
    let value_bytes = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        6 | STRING => number(take(rest, 2)?)?,
        9 => 16,
        _ => return None,
    };
    let value = take(rest, value_bytes)?;
    Some((name, (kind == STRING).then_some(value)))
}

/// A big-endian number of at most four bytes.
fn number(bytes: &[u8]) -> Option<usize> {
    (bytes.len() <= 4).then(|| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// The checksum of IEEE 802.3, as zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| CRC_TABLE[usize::from(sum as u8 ^ byte)] ^ sum >> 8)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let (mut sum, mut bit) = (at as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[at] = sum;
        at += 1;
    }
    table
};

/// Frames for tests: what AWS would send for this.
#[cfg(test)]
pub fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(name.len() as u8);
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(STRING);
        encoded.extend_from_slice(&(value.len() as u16).to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    let mut frame = ((LEAST_BYTES + encoded.len() + payload.len()) as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As botocore reads them.
    const DELTA: &str = "0000009400000057b4ab9aee0b3a6576656e742d74797065070011636f6e74656e74426c6f636b44656c7461\
        0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e74\
        7b22636f6e74656e74426c6f636b496e646578223a302c2264656c7461223a7b2274657874223a224869227d7d1f944657";
    const EXCEPTION: &str = "0000008800000061de0175f40f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e\
        0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e\
        7b226d657373616765223a22736c6f7720646f776e227d832ee072";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter_map(|byte| (byte as char).to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// Name, payload, whether an error, whether damaged.
    type Said = (String, String, bool, bool);

    fn said<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = splitter.next(piece) {
                assert!(!frame.oversized);
                let event = event(frame.bytes);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let data = event.data.as_deref().map(text).unwrap_or_default();
                found.push((event.name.map(text).unwrap_or_default(), data, event.is_error, event.is_damaged));
                piece = &piece[frame.used..];
            }
        }
        found
    }

    #[test]
    fn frames_of_aws_are_read() {
        let (delta, exception) = (bytes(DELTA), bytes(EXCEPTION));
        assert_eq!((delta.len(), exception.len()), (148, 136));
        let delta_said =
            ("contentBlockDelta".into(), r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#.into(), false, false);
        let exception_said = ("throttlingException".into(), r#"{"message":"slow down"}"#.into(), true, false);
        let stream = [delta.clone(), exception, delta].concat();
        let expected: Vec<Said> = vec![delta_said.clone(), exception_said, delta_said];
        assert_eq!(said([&stream[..]]), expected);
        for cut in 1..stream.len() {
            assert_eq!(said(stream.chunks(cut)), expected, "{cut}");
        }
        let made = frame(
            &[(":event-type", "contentBlockDelta"), (":content-type", "application/json"), (":message-type", "event")],
            br#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#,
        );
        assert_eq!(made, bytes(DELTA));
    }

    #[test]
    fn every_kind_of_header_is_skipped() {
        let mut rest: &[u8] = &[
            1, b'a', 0, 1, b'b', 1, 1, b'c', 2, 9, 1, b'd', 3, 9, 9, 1, b'e', 4, 9, 9, 9, 9, 1, b'f', 5, 1, 2, 3, 4, 5,
            6, 7, 8, 1, b'g', 6, 0, 2, 9, 9, 1, b'h', 7, 0, 1, b'x', 1, b'i', 8, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let mut names = Vec::new();
        while let Some((name, value)) = header(&mut rest) {
            names.push((name[0], value.map(<[u8]>::to_vec)));
        }
        assert!(rest.is_empty());
        assert_eq!(names.len(), 9);
        assert_eq!(names[7], (b'h', Some(b"x".to_vec())));
        assert_eq!(header(&mut &[1, b'a', 10][..]), None);
    }

    #[test]
    fn a_damaged_frame_says_so() {
        let (delta, good) = (bytes(DELTA), said([&bytes(DELTA)[..]]));
        // In the payload: the next frame is read all the same.
        let mut damaged = [delta.clone(), delta.clone()].concat();
        damaged[130] ^= 1;
        let found = said([&damaged[..]]);
        assert_eq!((found[0].3, &found[1]), (true, &good[0]));
        // In the prelude: nobody knows where the next one begins.
        for at in [0, 3, 5, 9] {
            let mut damaged = [delta.clone(), delta.clone()].concat();
            damaged[at] ^= 1;
            for cut in [1, 7, 200, 1_000] {
                let found = said(damaged.chunks(cut));
                assert_eq!((found.len(), found[0].3), (1, true), "{at} {cut}");
            }
        }
    }

    #[test]
    fn a_long_frame_is_let_go() {
        let long = frame(&[(":event-type", "x")], &vec![b'x'; EVENT_BYTES_MAX]);
        let stream = [long, bytes(DELTA)].concat();
        for cut in [1_000, 65_536, stream.len()] {
            let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
            for mut piece in stream.chunks(cut) {
                while let Some(frame) = splitter.next(piece) {
                    frames.push((frame.bytes.len(), frame.oversized));
                    piece = &piece[frame.used..];
                }
            }
            assert_eq!(frames, [(0, true), (148, false)], "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(stream in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50) {
            said(stream.chunks(cut));
            event(&stream);
        }
    }
}
