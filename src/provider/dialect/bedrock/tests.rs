use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{ServiceTier, Source, Usage};
use crate::provider::dialect::path;
use crate::provider::stream::frames::frame;
use crate::provider::{Call, CallError, Door, FirstEvent, Framing, Garbage, Out, Reader, Reading, Rewrite, read_call};

const CHAT: RequestKind = RequestKind::ChatCompletion;

fn try_read(verb: &str, body: &str) -> Result<Call, CallError> {
    let (_, Some(Door::Call(route))) = path::read(&format!("/bedrock/model/us.x%3A0/{verb}")) else { panic!() };
    read_call(&route, body.as_bytes())
}

fn call(body: &str) -> Call {
    try_read("converse", body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn what_is_asked_for() {
    let call = call(r#"{"inferenceConfig":{"maxTokens":64},"serviceTier":{"type":"flex"}}"#);
    assert_eq!((&*call.model, call.stream, call.output_cap, call.tier), ("us.x:0", false, Some(64), ServiceTier::Flex));
    assert!(try_read("converse-stream", "{}").unwrap().stream);
    let invoked =
        r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#;
    let call = try_read("invoke-with-response-stream", invoked).unwrap();
    assert_eq!((call.dialect, call.format), (Dialect::Bedrock, Dialect::Anthropic));
    assert_eq!((&*call.model, call.stream, call.output_cap, call.weight.text_bytes), ("us.x:0", true, Some(9), 5));
    let counted = r#"{"input":{"converse":{"messages":[{"content":[{"text":"hello"}]}]}}}"#;
    assert_eq!(try_read("count-tokens", counted).unwrap().kind, RequestKind::CountTokens);
}

#[test]
fn what_cannot_be_understood_is_named() {
    let check = |verb: &str, body: &str, field: Option<&str>| {
        let error = try_read(verb, body).expect_err(body);
        assert_eq!(error.field.as_deref(), field, "{body}: {error}");
    };
    for body in ["", "[]", "null", "{", r#"{"InferenceConfig":{}}"#] {
        check("converse", body, None);
    }
    check("converse", r#"{"inferenceConfig":{},"inferenceConfig":{}}"#, Some("inferenceConfig"));
    check("converse", r#"{"inferenceConfig":7}"#, Some("inferenceConfig"));
    for wrong in ["-1", "0", "1.5", "\"5\"", "1e30"] {
        check("converse", &format!(r#"{{"inferenceConfig":{{"maxTokens":{wrong}}}}}"#), Some("maxTokens"));
    }
    // A second cap would hold in place of the first.
    check("converse", r#"{"additionalModelRequestFields":{"max_tokens":9}}"#, Some("max_tokens"));
    check("converse", r#"{"serviceTier":"flex"}"#, Some("serviceTier"));
    check("invoke", r#"{"inputText":"hello"}"#, Some("anthropic_version"));
    check("invoke", r#"{"anthropic_version":"x","model":"m"}"#, Some("model"));
    check("invoke", r#"{"anthropic_version":"x","stream":true}"#, Some("stream"));
    for member in ["messages", "toolConfig", "inferenceConfig", "additionalModelRequestFields", "serviceTier", "x"] {
        let body = format!(r#"{{"{member}":{}1{}}}"#, r#"{"a":"#.repeat(200_000), "}".repeat(200_000));
        assert!(try_read("converse", &body).is_err(), "{member}");
    }
}

#[test]
fn the_input_is_weighed() {
    // text bytes, messages, blobs, whether it is bounded
    let check = |body: &str, expected: (u64, u64, u64, bool)| {
        let call = call(body);
        let Call { weight, .. } = &call;
        let seen = (weight.text_bytes, weight.messages, weight.blobs, call.input_bound().is_some());
        assert_eq!(seen, expected, "{body}");
    };
    let content = |block: &str| format!(r#"{{"messages":[{{"role":"user","content":[{block}]}}]}}"#);
    check(&content(r#"{"text":"hello"}"#), (5, 1, 0, true));
    check(r#"{"system":[{"text":"abc"}]}"#, (3, 0, 0, true));
    check(&content(r#"{"image":{"format":"png","source":{"bytes":"AAAA"}}}"#), (0, 1, 1, true));
    check(&content(r#"{"document":{"format":"pdf","name":"n","source":{"bytes":"AAAA"}}}"#), (0, 1, 1, false));
    check(&content(r#"{"document":{"format":"txt","name":"n","source":{"text":"hello"}}}"#), (5, 1, 0, true));
    check(&content(r#"{"video":{"format":"mp4","source":{"s3Location":{"uri":"s3://x"}}}}"#), (0, 1, 1, false));
    let used = call(&content(r#"{"toolUse":{"toolUseId":"t","name":"n","input":{"bytes":"hello","image":"x"}}}"#));
    assert!(used.weight.text_bytes >= 6 && used.weight.blobs == 0);
    let tools = |tool: &str| call(&format!(r#"{{"toolConfig":{{"tools":[{tool}],"toolChoice":{{"auto":{{}}}}}}}}"#));
    assert!(tools(r#"{"toolSpec":{"name":"n","inputSchema":{"json":{}}}}"#).input_bound().is_some());
    assert!(tools(r#"{"systemTool":{"name":"web"}}"#).input_bound().is_none());
    check(r#"{"promptVariables":{"a":{"text":"x"}}}"#, (0, 0, 0, false));
}

#[test]
fn a_cap_is_put_where_it_belongs() {
    let check = |body: &str, expected: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let wanted = Rewrite { model: "other", ask_usage: true, output_cap: Some(("maxTokens", 7)) };
        let rewritten = call(body).rewrite(&bytes, wanted);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
        assert_eq!(call(expected).output_cap, Some(7));
    };
    check("{}", r#"{"inferenceConfig":{"maxTokens":7}}"#);
    check(r#"{"messages":[]}"#, r#"{"inferenceConfig":{"maxTokens":7},"messages":[]}"#);
    check(r#"{"inferenceConfig":null}"#, r#"{"inferenceConfig":{"maxTokens":7}}"#);
    check(r#"{"inferenceConfig":{"topP":1.0}}"#, r#"{"inferenceConfig":{"maxTokens":7,"topP":1.0}}"#);
    check(r#"{"inferenceConfig":{"maxTokens":50}}"#, r#"{"inferenceConfig":{"maxTokens":7}}"#);
}

#[test]
fn garbage_is_named() {
    let usage = |raw: &str| {
        let mut reader = Reader::new(Dialect::Bedrock, CHAT, Framing::Document, false);
        reader.chunk(Bytes::from(format!(r#"{{"output":{{}},"usage":{raw}}}"#)), &mut Out::new());
        let Reading { usage, garbage, .. } = reader.reading();
        usage.ok_or_else(|| garbage.unwrap())
    };
    let wrong = |field: &'static str| Err(Garbage::Count { field });
    let check = |raw: &str, expected: Result<Usage, Garbage>| assert_eq!(usage(raw), expected, "{raw}");
    check("[]", Err(Garbage::Malformed));
    check("{}", Err(Garbage::NoCounts));
    check(r#"{"totalTokens":5}"#, Err(Garbage::NoCounts));
    check(r#"{"inputTokens":-1,"outputTokens":1}"#, wrong("inputTokens"));
    check(r#"{"inputTokens":1,"outputTokens":0.5}"#, wrong("outputTokens"));
    check(r#"{"inputTokens":1e30}"#, wrong("inputTokens"));
    check(r#"{"inputTokens":1,"inputTokens":1}"#, Err(Garbage::Malformed));
    check(r#"{"inputTokens":1,"cacheDetails":[{"ttl":"1h","inputTokens":-1}]}"#, wrong("cacheDetails.inputTokens"));
    let odd = r#"{"inputTokens":1,"new":{},"cacheDetails":[{"ttl":"9y","inputTokens":3}]}"#;
    check(odd, Ok(Usage { input: 1, cache_write: 3, ..Usage::default() }));
    let alias = r#"{"inputTokens":1,"cacheReadInputTokenCount":4,"cacheWriteInputTokenCount":5}"#;
    check(alias, Ok(Usage { input: 1, cache_read: 4, cache_write: 5, ..Usage::default() }));
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    frame(&[(":event-type", name), (":message-type", "event")], payload.as_bytes())
}

fn exception() -> Vec<u8> {
    let headers = [(":exception-type", "throttlingException"), (":message-type", "exception")];
    frame(&headers, br#"{"message":"slow down"}"#)
}

fn streamed(format: Dialect, frames: &[Vec<u8>]) -> (Reading, Option<FirstEvent>) {
    let mut reader = Reader::new(format, CHAT, Framing::Frames, false);
    frames.iter().for_each(|frame| reader.chunk(Bytes::copy_from_slice(frame), &mut Out::new()));
    (reader.reading(), reader.first_event())
}

#[test]
fn a_stream_may_end_anywhere() {
    let start = event("messageStart", r#"{"role":"assistant"}"#);
    let text = event("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"Hello you"},"p":"abcdefgh"}"#);
    let stop = event("messageStop", r#"{"stopReason":"end_turn"}"#);
    let metadata = event("metadata", r#"{"metrics":{"latencyMs":9},"usage":{"inputTokens":7,"outputTokens":5}}"#);
    let check = |frames: &[&Vec<u8>], usage: Option<u64>, delivered: u64, finished: bool| {
        let frames: Vec<Vec<u8>> = frames.iter().map(|frame| (*frame).clone()).collect();
        let (reading, first) = streamed(Dialect::Bedrock, &frames);
        let seen = (reading.usage.map(|usage| usage.output), reading.delivered_tokens, reading.finished);
        assert_eq!(seen, (usage, delivered, finished));
        assert_eq!(first, Some(FirstEvent::Content));
    };
    check(&[&start], None, 0, false);
    check(&[&start, &text], None, 3, false);
    // Whoever leaves here has it all, but for what it cost.
    check(&[&start, &text, &stop], None, 3, true);
    check(&[&start, &text, &stop, &metadata], Some(5), 3, true);
    check(&[&start, &text, &stop, &metadata, &metadata], Some(5), 3, true);
    check(&[&start, &text, &exception()], None, 3, false);
    // Damaged on its way: what it used is not known, and not nothing.
    let mut damaged = metadata.clone();
    let at = damaged.len() - 10;
    damaged[at] ^= 1;
    let (reading, _) = streamed(Dialect::Bedrock, &[start, stop, damaged]);
    assert_eq!((reading.usage, reading.garbage), (None, Some(Garbage::Unreadable)));
    assert_eq!(streamed(Dialect::Bedrock, &[exception()]).1, Some(FirstEvent::Error));
    assert_eq!(streamed(Dialect::Anthropic, &[exception()]).1, Some(FirstEvent::Error));
}

#[test]
fn what_is_wrapped_is_read() {
    let wrap = |inner: &str| event("chunk", &format!(r#"{{"bytes":"{}","p":"abc"}}"#, BASE64.encode(inner)));
    let start = wrap(r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#);
    let text = wrap(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello you"}}"#);
    let delta = wrap(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}}"#);
    let stop = wrap(
        r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":7}}"#,
    );
    let (reading, first) = streamed(Dialect::Anthropic, &[start.clone(), text.clone(), delta, stop]);
    assert_eq!(reading.usage, Some(Usage { input: 9, output: 7, ..Usage::default() }));
    assert_eq!((reading.finished, first), (true, Some(FirstEvent::Content)));
    let (reading, _) = streamed(Dialect::Anthropic, &[start, text]);
    assert_eq!(reading.usage, Some(Usage { input: 9, output: 3, source: Source::Estimated, ..Usage::default() }));
    let (reading, _) = streamed(Dialect::Anthropic, &[event("chunk", r#"{"bytes":"???"}"#)]);
    assert_eq!(reading.garbage, Some(Garbage::Malformed));
}
