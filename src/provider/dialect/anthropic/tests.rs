use bytes::Bytes;

use super::*;
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{ServiceTier, Source, Usage};
use crate::provider::{Call, FirstEvent, Framing, Garbage, Out, Reader, Reading, Rewrite};

const CHAT: RequestKind = RequestKind::ChatCompletion;

fn call(members: &str) -> Call {
    let body = format!(r#"{{"model":"claude","max_tokens":64{members}}}"#);
    read(CHAT, body.as_bytes()).unwrap_or_else(|error| panic!("{members}: {error}"))
}

#[test]
fn what_is_asked_for() {
    let call = read(CHAT, br#"{"max_tokens":64,"stream":true,"model":"claude","messages":[]}"#).unwrap();
    assert_eq!((&*call.model, call.stream, call.output_cap, call.choices), ("claude", true, Some(64), 1));
    assert!(!call.may_ask_usage());
    assert_eq!(read(CHAT, br#"{"model":"claude","max_tokens":0}"#).unwrap().output_cap, Some(0));
    assert_eq!(read(CHAT, br#"{"model":"claude"}"#).unwrap().output_cap, None);
    let counted = read(RequestKind::CountTokens, br#"{"model":"claude","stream":true}"#).unwrap();
    assert_eq!((counted.stream, counted.output_cap), (false, Some(0)));
}

#[test]
fn the_input_is_weighed() {
    // text bytes, messages, blobs, whether it is bounded
    let check = |members: &str, expected: (u64, u64, u64, bool)| {
        let call = call(&format!(",{members}"));
        let Call { weight, .. } = &call;
        let seen = (weight.text_bytes, weight.messages, weight.blobs, call.input_bound().is_some());
        assert_eq!(seen, expected, "{members}");
    };
    let user = |content: &str| format!(r#""messages":[{{"role":"user","content":{content}}}]"#);
    check(&user(r#""hello""#), (5, 1, 0, true));
    check(r#""system":"abc","messages":[]"#, (3, 0, 0, true));
    check(r#""system":[{"type":"text","text":"abc","cache_control":null}]"#, (3, 0, 0, true));
    let image = r#"[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]"#;
    check(&user(image), (0, 1, 1, true));
    let reversed = r#"[{"source":{"data":"AAAA","media_type":"image/png","type":"base64"},"type":"image"}]"#;
    check(&user(reversed), (0, 1, 1, true));
    let pdf = r#"[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]"#;
    check(&user(pdf), (0, 1, 1, false));
    // A text may come as a document; nobody hides it behind the word `data`.
    let text = r#"[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"hello"}}]"#;
    check(&user(text), (5, 1, 0, true));
    check(&user(r#"[{"type":"x","source":{"data":"hello"}}]"#), (5, 1, 0, true));
    check(&user(r#"[{"type":"image","source":{"type":"url","url":"https://h/x.png"}}]"#), (0, 1, 1, false));
    check(&user(r#"[{"type":"document","source":{"type":"file","file_id":"f"}}]"#), (0, 1, 1, false));
    // The input of a tool is the model's JSON, whatever its keys are called.
    let used = r#"[{"type":"tool_use","id":"t","name":"n","input":{"data":"hello","url":"x","type":"y"}}]"#;
    let call = call(&format!(",{}", user(used)));
    assert!(call.weight.text_bytes >= 20 && call.weight.blobs == 0, "{:?}", call.weight);
    assert!(call.input_bound().is_some());
    check(r#""tools":[{"name":"n","input_schema":{}}]"#, (24 + 5, 0, 0, true));
    for (tools, bounded) in [
        (r#"[{"type":"custom","name":"n"}]"#, true),
        (r#"[{"type":"bash_20250124","name":"bash"}]"#, true),
        (r#"[{"type":"web_search_20250305","name":"web_search"}]"#, false),
        (r#"[{"type":"code_execution_20250825","name":"c"}]"#, false),
    ] {
        assert_eq!(
            super::request::read(CHAT, format!(r#"{{"model":"m","tools":{tools}}}"#).as_bytes())
                .unwrap()
                .input_bound()
                .is_some(),
            bounded,
            "{tools}"
        );
    }
    check(r#""mcp_servers":[{"type":"url","url":"https://h"}]"#, (0, 0, 0, false));
    check(r#""mcp_servers":[]"#, (0, 0, 0, true));
    check(r#""container":"c_1""#, (0, 0, 0, false));
    check(r#""metadata":{"user_id":"someone"},"temperature":1"#, (0, 0, 0, true));
}

#[test]
fn what_cannot_be_understood_is_named() {
    let check = |body: &str, field: Option<&str>| {
        let error = read(CHAT, body.as_bytes()).expect_err(body);
        assert_eq!(error.field.as_deref(), field, "{body}: {error}");
    };
    for body in ["", "[]", "null", "{", r#"{"model":"m"} x"#, r#"{"model":"m","Max_Tokens":5}"#] {
        check(body, None);
    }
    check("{}", Some("model"));
    check(r#"{"model":7}"#, Some("model"));
    check(r#"{"model":"m","model":"n"}"#, Some("model"));
    check(r#"{"model":"m","mod\u0065l":"n"}"#, Some("model"));
    check(r#"{"model":"m","stream":"yes"}"#, Some("stream"));
    for wrong in ["-1", "1.5", "\"5\"", "[]", "1e30", "-0"] {
        check(&format!(r#"{{"model":"m","max_tokens":{wrong}}}"#), Some("max_tokens"));
    }
    check(r#"{"model":"m","service_tier":1}"#, Some("service_tier"));
    assert!(read(CHAT, b"{\"model\":\"m\",\"x\":\"\xff\"}").is_err());
    for member in ["messages", "tools", "metadata", "system", "stream", "model", "container"] {
        let body = format!(r#"{{"model":"m","{member}":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(read(CHAT, body.as_bytes()).is_err(), "{member}");
    }
}

#[test]
fn rewriting_changes_nothing_else() {
    let check = |body: &str, model: &str, output_cap: Option<u64>, expected: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let call = read(CHAT, body.as_bytes()).unwrap();
        let rewritten =
            call.rewrite(&bytes, Rewrite { model, ask_usage: false, output_cap: output_cap.map(|cap| ("", cap)) });
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
        assert_eq!(body == expected, rewritten.as_ptr() == bytes.as_ptr(), "{body}: copied only if changed");
    };
    let body = r#" { "max_tokens" : 64, "model":"anthropic/claude", "x":1.0 } "#;
    check(body, "anthropic/claude", None, body);
    check(body, "anthropic/claude", Some(64), body);
    check(body, "claude", Some(9), r#" { "max_tokens" : 9, "model":"claude", "x":1.0 } "#);
    check(r#"{"model":"m"}"#, "m", Some(9), r#"{"max_tokens":9,"model":"m"}"#);
}

fn usage(raw: &str) -> Result<Usage, Garbage> {
    let mut reader = Reader::new(Dialect::Anthropic, CHAT, Framing::Document, false);
    reader.chunk(Bytes::from(format!(r#"{{"type":"message","usage":{raw}}}"#)), &mut Out::new());
    let Reading { usage, garbage, .. } = reader.reading();
    usage.ok_or_else(|| garbage.unwrap())
}

#[test]
fn garbage_is_named() {
    let wrong = |field: &'static str| Err(Garbage::Count { field });
    let check = |raw: &str, expected: Result<Usage, Garbage>| assert_eq!(usage(raw), expected, "{raw}");
    check("[1]", Err(Garbage::Malformed));
    check("7", Err(Garbage::Malformed));
    check("{}", Err(Garbage::NoCounts));
    check(r#"{"cache_read_input_tokens":4}"#, Err(Garbage::NoCounts));
    check(r#"{"input_tokens":-1,"output_tokens":1}"#, wrong("input_tokens"));
    check(r#"{"input_tokens":1,"output_tokens":1.5}"#, wrong("output_tokens"));
    check(r#"{"input_tokens":"1","output_tokens":1}"#, wrong("input_tokens"));
    check(r#"{"input_tokens":18446744073709551615,"output_tokens":1}"#, wrong("input_tokens"));
    check(r#"{"input_tokens":1,"cache_read_input_tokens":-1}"#, wrong("cache_read_input_tokens"));
    let split = r#"{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":-1}}"#;
    check(split, wrong("ephemeral_1h_input_tokens"));
    check(r#"{"input_tokens":1,"iterations":[{"input_tokens":2,"output_tokens":-2}]}"#, wrong("output_tokens"));
    check(r#"{"input_tokens":1,"input_tokens":2,"output_tokens":3}"#, Err(Garbage::Malformed));
    check(r#"{"input_tokens":1,"server_tool_use":{"web_search_requests":5000000000}}"#, wrong("web_search_requests"));
    // What nobody knows yet does no harm.
    let odd = r#"{"input_tokens":1.0,"output_tokens":2,"service_tier":"wonderful","speed":"slow","y":{"z":[]},"iterations":[]}"#;
    check(odd, Ok(Usage { input: 1, output: 2, ..Usage::default() }));
    let fast = r#"{"input_tokens":1,"output_tokens":2,"service_tier":"standard","speed":"fast"}"#;
    check(fast, Ok(Usage { input: 1, output: 2, tier: ServiceTier::Priority, ..Usage::default() }));
    // A split that is more than its sum, and a sum without a split.
    let more = r#"{"input_tokens":1,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":3}}"#;
    check(more, Ok(Usage { input: 1, cache_write: 4, cache_write_long: 3, ..Usage::default() }));
    let plain = r#"{"input_tokens":1,"cache_creation_input_tokens":5}"#;
    check(plain, Ok(Usage { input: 1, cache_write: 5, ..Usage::default() }));
}

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there, you.\"}}\n\n";
const DELTA: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n";
const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
const ERROR: &str =
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no\"}}\n\n";

fn streamed(pieces: &[&str]) -> (Reading, Option<FirstEvent>) {
    let mut reader = Reader::new(Dialect::Anthropic, CHAT, Framing::Events, false);
    for piece in pieces {
        reader.chunk(Bytes::copy_from_slice(piece.as_bytes()), &mut Out::new());
    }
    (reader.reading(), reader.first_event())
}

#[test]
fn a_stream_may_end_anywhere() {
    let exact = |output| Some(Usage { input: 9, output, ..Usage::default() });
    let estimated = |output| exact(output).map(|usage| Usage { source: Source::Estimated, ..usage });
    let check = |pieces: &[&str], usage, finished| {
        let (reading, _) = streamed(pieces);
        assert_eq!((reading.usage, reading.finished), (usage, finished), "{pieces:?}");
    };
    check(&[PING], None, false);
    // The input is exact from the first event on; the output is what was seen.
    check(&[START], estimated(1), false);
    check(&[START, TEXT], estimated(5), false);
    check(&[START, TEXT, TEXT], estimated(9), false);
    check(&[START, TEXT, &DELTA[..90]], estimated(5), false);
    check(&[START, TEXT, DELTA], exact(7), true);
    check(&[START, TEXT, ERROR], estimated(5), false);
    // Told twice, counted once.
    check(&[START, START, TEXT, DELTA, DELTA], exact(7), true);
    let wrong = DELTA.replace('7', "-7");
    assert_eq!(streamed(&[START, &wrong]).0.garbage, Some(Garbage::Count { field: "output_tokens" }));
    check(&[START, &wrong, DELTA], exact(7), true);
}

#[test]
fn the_first_event_decides() {
    let check = |pieces: &[&str], expected| assert_eq!(streamed(pieces).1, expected, "{pieces:?}");
    check(&[PING], None);
    check(&[ERROR], Some(FirstEvent::Error));
    check(&[PING, ERROR], Some(FirstEvent::Error));
    check(&[&ERROR["event: error\n".len()..]], Some(FirstEvent::Error));
    check(&["event: error\ndata: {}\n\n"], Some(FirstEvent::Error));
    check(&[START, ERROR], Some(FirstEvent::Content));
}
