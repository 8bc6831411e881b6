use bytes::Bytes;

use super::*;
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::Usage;
use crate::provider::{FirstEvent, Framing, Garbage, Out, Reader, Reading, Rewrite};

const CHAT: RequestKind = RequestKind::ChatCompletion;

#[test]
fn what_is_asked_for() {
    let call = read(
        CHAT,
        br#"{"model":"command-a","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hello"}]}"#,
    )
    .unwrap();
    assert_eq!((&*call.model, call.stream, call.output_cap), ("command-a", true, Some(64)));
    assert_eq!((call.weight.text_bytes, call.weight.messages), (5, 1));
    let rerank =
        br#"{"model":"rerank-v4.0","query":"hello","documents":["a","bc"],"max_tokens_per_doc":64,"max_tokens":7}"#;
    let rerank = read(RequestKind::Rerank, rerank).unwrap();
    assert_eq!((rerank.output_cap, rerank.stream), (None, false));
    assert!(rerank.weight.text_bytes >= 8 && rerank.input_bound().is_some());
    let embed =
        br#"{"model":"embed-v4.0","texts":["hello","you"],"input_type":"x","images":["data:image/png;base64,AAAA"]}"#;
    assert!(read(RequestKind::Embedding, embed).unwrap().weight.text_bytes >= 8);
}

#[test]
fn what_cannot_be_understood_is_named() {
    let check = |body: &str, field: Option<&str>| {
        let error = read(CHAT, body.as_bytes()).expect_err(body);
        assert_eq!(error.field.as_deref(), field, "{body}: {error}");
    };
    check("[]", None);
    check(r#"{"model":"m","Stream":true}"#, None);
    check("{}", Some("model"));
    check(r#"{"model":"m","model":"m"}"#, Some("model"));
    check(r#"{"model":"m","max_tokens":0.5}"#, Some("max_tokens"));
    for member in ["messages", "tools", "thinking", "documents", "x"] {
        let body = format!(r#"{{"model":"m","{member}":{}1{}}}"#, r#"{"a":"#.repeat(200_000), "}".repeat(200_000));
        assert!(read(CHAT, body.as_bytes()).is_err(), "{member}");
    }
}

#[test]
fn rewriting_changes_nothing_else() {
    let body = Bytes::from_static(br#"{"stream": false, "model" : "m", "max_tokens":9.0}"#);
    let wanted = Rewrite { model: "other", ask_usage: true, output_cap: Some(("max_tokens", 7)) };
    let rewritten = read(CHAT, &body).unwrap().rewrite(&body, wanted);
    assert_eq!(rewritten, &br#"{"stream": false, "model" : "other", "max_tokens":7}"#[..]);
    let body = Bytes::from_static(br#"{"model":"m"}"#);
    assert_eq!(read(CHAT, &body).unwrap().rewrite(&body, wanted), &br#"{"max_tokens":7,"model":"other"}"#[..]);
    assert_eq!(read(RequestKind::Rerank, &body).unwrap().rewrite(&body, wanted), &br#"{"model":"other"}"#[..]);
}

#[test]
fn garbage_is_named() {
    let usage = |raw: &str| {
        let mut reader = Reader::new(Dialect::Cohere, CHAT, Framing::Document, false);
        reader.chunk(Bytes::from(format!(r#"{{"id":"x","usage":{raw}}}"#)), &mut Out::new());
        let Reading { usage, garbage, .. } = reader.reading();
        usage.ok_or_else(|| garbage.unwrap())
    };
    let check = |raw: &str, expected: Result<Usage, Garbage>| assert_eq!(usage(raw), expected, "{raw}");
    let units = |raw: &str| format!(r#"{{"billed_units":{raw}}}"#);
    check("[]", Err(Garbage::Malformed));
    check("{}", Err(Garbage::NoCounts));
    check(&units("{}"), Err(Garbage::NoCounts));
    for wrong in ["-1", "1.5", "\"7\"", "1e30", "true"] {
        check(&units(&format!(r#"{{"input_tokens":{wrong}}}"#)), Err(Garbage::Count { field: "input_tokens" }));
    }
    check(&units(r#"{"search_units":-1.0}"#), Err(Garbage::Count { field: "search_units" }));
    check(&units(r#"{"input_tokens":1,"input_tokens":1}"#), Err(Garbage::Malformed));
    check(&units(r#"{"input_tokens":7.0,"new":{}}"#), Ok(Usage { input: 7, ..Usage::default() }));
    let cached = r#"{"billed_units":{"input_tokens":7.0,"output_tokens":2.0},"cached_tokens":5.0}"#;
    check(cached, Ok(Usage { input: 2, cache_read: 5, output: 2, ..Usage::default() }));
    // Where nothing is billed apart, what was seen is what counts.
    check(r#"{"tokens":{"input_tokens":9,"output_tokens":1}}"#, Ok(Usage { input: 9, output: 1, ..Usage::default() }));
}

#[test]
fn a_stream_may_end_anywhere() {
    let event = |json: &str| format!("data: {json}\n\n");
    let start = event(r#"{"id":"x","type":"message-start","delta":{"message":{"role":"assistant","content":[]}}}"#);
    let text = event(r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hello you"}}}}"#);
    let end = event(
        r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":7,"output_tokens":5}}}}"#,
    );
    let error = event(r#"{"type":"message-end","delta":{"finish_reason":"ERROR","error":"overloaded"}}"#);
    let check = |events: &[&String], usage: Option<u64>, delivered: u64, finished: bool, first| {
        let mut reader = Reader::new(Dialect::Cohere, CHAT, Framing::Events, false);
        events.iter().for_each(|event| reader.chunk(Bytes::from(event.to_string()), &mut Out::new()));
        let reading = reader.reading();
        let seen = (reading.usage.map(|usage| usage.output), reading.delivered_tokens, reading.finished);
        assert_eq!((seen, reader.first_event()), ((usage, delivered, finished), Some(first)), "{events:?}");
    };
    check(&[&start], None, 0, false, FirstEvent::Content);
    check(&[&start, &text], None, 3, false, FirstEvent::Content);
    check(&[&start, &text, &end], Some(5), 3, true, FirstEvent::Content);
    check(&[&start, &text, &end, &end], Some(5), 3, true, FirstEvent::Content);
    check(&[&start, &text, &error], None, 3, true, FirstEvent::Content);
    check(&[&error], None, 0, true, FirstEvent::Error);
}
