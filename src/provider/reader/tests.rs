use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const CHAT: RequestKind = RequestKind::ChatCompletion;
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}],\"usage\":null}\n\n";

fn unary_reader() -> Reader {
    Reader::new(Dialect::OpenAi, CHAT, Framing::Document, false)
}

fn stream_reader(kind: RequestKind, withhold: bool) -> Reader {
    Reader::new(Dialect::OpenAi, kind, Framing::Events, withhold)
}

/// What went out with each piece, and the reader then.
fn feed(mut reader: Reader, pieces: &[&str]) -> (Vec<String>, Reader) {
    let passed = pieces.iter().map(|piece| {
        let mut out = Out::new();
        reader.chunk(Bytes::copy_from_slice(piece.as_bytes()), &mut out);
        String::from_utf8(out.concat()).unwrap()
    });
    (passed.collect(), reader)
}

fn flushed(reader: &mut Reader) -> String {
    let mut out = Out::new();
    reader.flush(&mut out);
    String::from_utf8(out.concat()).unwrap()
}

#[test]
fn pieces_pass_uncopied() {
    for mut reader in [unary_reader(), stream_reader(CHAT, false), stream_reader(CHAT, true)] {
        let piece = Bytes::from(format!("{TEXT}{TEXT}"));
        let mut out = Out::new();
        reader.chunk(piece.clone(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].as_ptr(), piece.as_ptr());
    }
}

#[test]
fn only_what_may_be_usage_is_held() {
    let check = |pieces: &[&str], expected: &[&str], last: &str| {
        let (passed, mut reader) = feed(stream_reader(CHAT, true), pieces);
        assert_eq!(passed, expected, "{pieces:?}");
        assert_eq!(flushed(&mut reader), last, "{pieces:?}");
    };
    check(&[TEXT, USAGE, "data: [DONE]\n\n"], &[TEXT, "", "data: [DONE]\n\n"], "");
    // Let go as soon as its choices are not empty; the rest follows at once.
    check(
        &["data: {\"id\":1,", "\"choices\":[", "{\"delta\":", "{}}]}", "\n\n"],
        &["", "", "data: {\"id\":1,\"choices\":[{\"delta\":", "{}}]}", "\n\n"],
        "",
    );
    check(&["data: [DO", "NE]\n\n"], &["data: [DO", "NE]\n\n"], "");
    // What is held at the end goes out.
    check(&["data: {\"choices\":[],\"us"], &[""], "data: {\"choices\":[],\"us");
    check(&["data: {\"choices\":[],", "\"x\":1}\n\n"], &["", "data: {\"choices\":[],\"x\":1}\n\n"], "");
    check(&[&USAGE[..30], &USAGE[30..], TEXT], &["", "", TEXT], "");
    let both = format!("{}{TEXT}", &USAGE[30..]);
    check(&[TEXT, &USAGE[..30], &both], &[TEXT, "", TEXT], "");
}

#[test]
fn a_long_event_is_let_go() {
    let long = format!("data: {{\"x\":\"{}", "y".repeat(HELD_BYTES_MAX));
    let (passed, mut reader) = feed(stream_reader(CHAT, true), &["data: {\"a\":1,", &long[6..], "z\"", "}\n\n", USAGE]);
    assert_eq!(passed[0], "");
    assert!(passed[1].starts_with("data: {\"a\":1,") && passed[1].len() == long.len() + 7);
    assert_eq!(passed[2..], ["z\"", "}\n\n", ""]);
    assert_eq!(flushed(&mut reader), "");

    let huge = "y".repeat(300 * 1024);
    let (passed, reader) = feed(stream_reader(CHAT, true), &["data: {", &huge, "\n\n", USAGE]);
    assert_eq!(passed, ["", &format!("data: {{{huge}"), "\n\n", ""]);
    assert_eq!(reader.reading().usage.unwrap().output, 4);
    assert_eq!(reader.first_event(), Some(FirstEvent::Content));
}

#[test]
fn the_first_event_decides() {
    let check = |kind, stream: &str, expected| {
        let (_, reader) = feed(stream_reader(kind, true), &[stream]);
        assert_eq!(reader.first_event(), expected, "{stream}");
    };
    check(CHAT, "", None);
    check(CHAT, ": ping\n\n", None);
    check(CHAT, "data: {\"error\":{}}\n", None);
    check(CHAT, "data: {\"error\":{}}\n\n", Some(FirstEvent::Error));
    check(CHAT, ": ping\n\nevent: error\ndata: {}\n\n", Some(FirstEvent::Error));
    check(CHAT, "data: {\"choices\":[]}\n\ndata: {\"error\":{}}\n\n", Some(FirstEvent::Content));
    check(RequestKind::Responses, "data: {\"type\":\"response.failed\"}\n\n", Some(FirstEvent::Error));
    check(RequestKind::Responses, "data: {\"type\":\"response.created\"}\n\n", Some(FirstEvent::Content));
}

#[test]
fn an_answer_may_end_anywhere() {
    let reading = |reader, pieces: &[&str]| feed(reader, pieces).1.reading();
    let stream = |pieces: &[&str]| reading(stream_reader(CHAT, false), pieces);
    assert_eq!(stream(&[]), Reading::default());
    assert_eq!(stream(&[TEXT, TEXT, TEXT]), Reading { delivered_tokens: 4, ..Reading::default() });
    assert_eq!(stream(&[TEXT, &USAGE[..40]]), Reading { delivered_tokens: 2, ..Reading::default() });
    assert!(stream(&[USAGE]).usage.is_some());
    // The last report wins, also over a good one.
    let garbage = "data: {\"choices\":[],\"usage\":{}}\n\n";
    assert_eq!(stream(&[USAGE, garbage]).garbage, Some(Garbage::NoCounts));
    assert_eq!(stream(&[USAGE, garbage]).usage, None);
    assert_eq!(stream(&[garbage, USAGE]).garbage, None);
    // The upstream forgot the last empty line.
    let (_, mut reader) = feed(stream_reader(CHAT, false), &[&USAGE[..USAGE.len() - 2]]);
    assert_eq!(reader.reading().usage, None);
    flushed(&mut reader);
    assert_eq!(reader.reading().usage.unwrap().input, 3);
    // Cut for good in the middle of its usage.
    let (_, mut reader) = feed(stream_reader(CHAT, false), &[&USAGE[..60]]);
    flushed(&mut reader);
    assert_eq!(reader.reading(), Reading::default());

    let unary = |pieces: &[&str]| reading(unary_reader(), pieces);
    let cut = unary(&[r#"{"choices":[{"message":{"content":"hello"#]);
    assert_eq!(cut, Reading { delivered_tokens: 2, ..Reading::default() });
    assert_eq!(unary(&[r#"{"usage":null}"#]), Reading { finished: true, ..Reading::default() });
    assert_eq!(unary(&[r#"{"usage":"#, "[1]}"]).garbage, Some(Garbage::Malformed));
    let long = format!(r#"{{"usage":{{"x":"{}"}}}}"#, "y".repeat(20_000));
    assert_eq!(unary(&[&long]).garbage, Some(Garbage::TooLong));
}

proptest! {
    /// However malformed the stream: nothing is lost but whole usage events, and the cut does not matter.
    #[test]
    fn any_stream_is_survived(
        parts in vec(proptest::sample::select(vec![USAGE, TEXT, "data: {\"choices\":", "[]", "[{", "\n", "\r\n", "\n\n",
            "data: [DONE]\n\n", ": x\n", "\"usage\":{}", "}", "event: error\n", "data: ", "\"choices\"", "é"]), 0..12),
        cut in 1_usize..40,
    ) {
        let stream = Bytes::from(parts.concat());
        for withhold in [false, true] {
            let run = |cut: usize| {
                let (mut reader, mut out) = (stream_reader(CHAT, withhold), Out::new());
                for from in (0..stream.len()).step_by(cut) {
                    reader.chunk(stream.slice(from..stream.len().min(from + cut)), &mut out);
                }
                reader.flush(&mut out);
                (out.concat(), reader.reading(), reader.first_event())
            };
            let (whole, cut) = (run(stream.len().max(1)), run(cut));
            prop_assert_eq!(&whole.1, &cut.1);
            prop_assert_eq!(&whole.2, &cut.2);
            if !withhold {
                prop_assert_eq!(&whole.0, &stream);
                prop_assert_eq!(&cut.0, &stream);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(pieces in vec(vec(any::<u8>(), 0..40), 0..8), withhold: bool) {
        for mut reader in [unary_reader(), stream_reader(CHAT, withhold), stream_reader(RequestKind::Responses, true)] {
            let mut out = Out::new();
            for piece in &pieces {
                reader.chunk(Bytes::copy_from_slice(piece), &mut out);
            }
            reader.flush(&mut out);
            prop_assert_eq!(out.concat(), pieces.concat());
            reader.reading();
        }
    }
}
