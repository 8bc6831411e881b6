use bytes::Bytes;

use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::{Source, Usage};
use crate::provider::dialect::path;
use crate::provider::{Call, CallError, Door, FirstEvent, Framing, Garbage, Out, Reader, Reading, Rewrite, read_call};

const CHAT: RequestKind = RequestKind::ChatCompletion;

fn try_read(verb: &str, body: &str) -> Result<Call, CallError> {
    let (_, Some(Door::Call(route))) = path::read(&format!("/genai/v1/models/gemini-2.5-pro:{verb}")) else { panic!() };
    read_call(&route, body.as_bytes())
}

fn call(body: &str) -> Call {
    try_read("generateContent", body).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn what_is_asked_for() {
    let check = |body: &str, expected: (Option<u64>, u64)| {
        let call = call(body);
        assert_eq!((call.output_cap, call.choices), expected, "{body}");
        assert_eq!((&*call.model, call.stream), ("gemini-2.5-pro", false));
    };
    check("{}", (None, 1));
    check(r#"{"generationConfig":{"maxOutputTokens":5,"candidateCount":3}}"#, (Some(5), 3));
    check(r#"{"generation_config":{"max_output_tokens":5,"candidate_count":null}}"#, (Some(5), 1));
    check(r#"{"generationConfig":{"maxOutputTokens":0}}"#, (None, 1));
    check(r#"{"generationConfig":null}"#, (None, 1));
    assert!(try_read("streamGenerateContent", "{}").unwrap().stream);
}

#[test]
fn what_cannot_be_understood_is_named() {
    let check = |verb: &str, body: &str, field: Option<&str>| {
        let error = try_read(verb, body).expect_err(body);
        assert_eq!(error.field.as_deref(), field, "{body}: {error}");
    };
    let chat = |body: &str, field| check("generateContent", body, field);
    for body in ["", "[]", "null", "{", r#"{"GenerationConfig":{}}"#] {
        chat(body, None);
    }
    // Two spellings of one member are that member twice.
    chat(r#"{"generationConfig":{},"generation_config":{}}"#, Some("generationConfig"));
    let twice = r#"{"generationConfig":{"maxOutputTokens":5,"max_output_tokens":9}}"#;
    chat(twice, Some("maxOutputTokens"));
    chat(r#"{"generationConfig":[]}"#, Some("generationConfig"));
    chat(r#"{"generationConfig":{"maxOutputTokens":-1}}"#, Some("maxOutputTokens"));
    chat(r#"{"generationConfig":{"candidateCount":1000}}"#, Some("candidateCount"));
    chat(r#"{"model":"models/other"}"#, Some("model"));
    check("batchEmbedContents", r#"{"requests":[{"model":"models/other"}]}"#, Some("model"));
    check("batchEmbedContents", r#"{"requests":{}}"#, Some("requests"));
    check("batchEmbedContents", r#"{"requests":[7]}"#, Some("requests"));
    for member in ["contents", "tools", "generationConfig", "requests", "x"] {
        let body = format!(r#"{{"{member}":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(try_read("generateContent", &body).is_err(), "{member}");
        let body = format!(r#"{{"generationConfig":{{"{member}":{}1{}}}}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(try_read("generateContent", &body).is_err(), "{member}");
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
    let parts = |parts: &str| format!(r#"{{"contents":[{{"role":"user","parts":[{parts}]}}]}}"#);
    check(&parts(r#"{"text":"hello"}"#), (5, 1, 0, true));
    check(r#"{"systemInstruction":{"parts":[{"text":"abc"}]}}"#, (3, 0, 0, true));
    check(&parts(r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#), (0, 1, 1, true));
    check(&parts(r#"{"inline_data":{"data":"AAAA","mime_type":"image/png"}}"#), (0, 1, 1, true));
    check(&parts(r#"{"inlineData":{"mimeType":"text/plain","data":"hello"}}"#), (5, 1, 0, true));
    for unbounded in ["audio/mp3", "video/mp4", "application/pdf"] {
        check(&parts(&format!(r#"{{"inlineData":{{"mimeType":"{unbounded}","data":"AAAA"}}}}"#)), (0, 1, 1, false));
    }
    check(&parts(r#"{"fileData":{"fileUri":"gs://x","mimeType":"image/png"}}"#), (0, 1, 1, false));
    assert!(call(&parts(r#"{"functionResponse":{"name":"n","response":{"data":"hello"}}}"#)).weight.text_bytes > 5);
    let tools = |tool: &str| call(&format!(r#"{{"tools":[{tool}]}}"#)).input_bound().is_some();
    assert!(tools(r#"{"functionDeclarations":[{"name":"n"}]}"#) && tools(r#"{"function_declarations":[]}"#));
    assert!(!tools(r#"{"googleSearch":{}}"#) && !tools(r#"{"codeExecution":{}}"#));
    check(r#"{"cachedContent":"cachedContents/x"}"#, (0, 0, 0, false));
    let embed = try_read("embedContent", r#"{"content":{"parts":[{"text":"hello"}]},"taskType":"X"}"#).unwrap();
    assert_eq!((embed.kind, embed.weight.text_bytes), (RequestKind::Embedding, 5));
    let batch = r#"{"requests":[{"model":"models/gemini-2.5-pro","content":{"parts":[{"text":"hello"}]}},{"content":{"parts":[{"text":"you"}]}}]}"#;
    assert_eq!(try_read("batchEmbedContents", batch).unwrap().weight.text_bytes, 8);
}

#[test]
fn rewriting_changes_nothing_else() {
    let check = |verb: &str, body: &str, model: &str, output_cap: Option<u64>, expected: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let rewritten = try_read(verb, body)
            .unwrap()
            .rewrite(&bytes, Rewrite { model, ask_usage: true, output_cap: output_cap.map(|cap| ("", cap)) });
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{body}");
        assert_eq!(body == expected, rewritten.as_ptr() == bytes.as_ptr(), "{body}: copied only if changed");
    };
    let chat = |body: &str, expected: &str| {
        check("generateContent", body, "gemini-2.5-pro", Some(7), expected);
        assert_eq!(call(expected).output_cap, Some(7), "{expected}");
    };
    check("generateContent", r#"{"contents":[]}"#, "other", None, r#"{"contents":[]}"#);
    chat(r#"{"contents":[]}"#, r#"{"generationConfig":{"maxOutputTokens":7},"contents":[]}"#);
    chat("{}", r#"{"generationConfig":{"maxOutputTokens":7}}"#);
    chat(r#"{"generationConfig":null}"#, r#"{"generationConfig":{"maxOutputTokens":7}}"#);
    chat(r#"{"generationConfig":{ }}"#, r#"{"generationConfig":{"maxOutputTokens":7 }}"#);
    let other = r#"{"generation_config":{"temperature":1.0}}"#;
    chat(other, r#"{"generation_config":{"maxOutputTokens":7,"temperature":1.0}}"#);
    chat(r#"{"generation_config":{"max_output_tokens": 50}}"#, r#"{"generation_config":{"max_output_tokens": 7}}"#);
    let batch = r#"{"requests":[{"model":"models/gemini-2.5-pro"},{"model":"gemini-2.5-pro"}]}"#;
    let renamed = r#"{"requests":[{"model":"models/other"},{"model":"models/other"}]}"#;
    check("batchEmbedContents", batch, "other", Some(7), renamed);
}

fn usage(raw: &str) -> Result<Usage, Garbage> {
    let mut reader = Reader::new(Dialect::Gemini, CHAT, Framing::Document, false);
    reader.chunk(Bytes::from(format!(r#"{{"candidates":[],"usageMetadata":{raw}}}"#)), &mut Out::new());
    let Reading { usage, garbage, .. } = reader.reading();
    usage.ok_or_else(|| garbage.unwrap())
}

#[test]
fn garbage_is_named() {
    let wrong = |field: &'static str| Err(Garbage::Count { field });
    let check = |raw: &str, expected: Result<Usage, Garbage>| assert_eq!(usage(raw), expected, "{raw}");
    check("[]", Err(Garbage::Malformed));
    check("{}", Err(Garbage::NoCounts));
    check(r#"{"totalTokenCount":5}"#, Err(Garbage::NoCounts));
    check(r#"{"promptTokenCount":-1}"#, wrong("promptTokenCount"));
    check(r#"{"promptTokenCount":1.5}"#, wrong("promptTokenCount"));
    check(r#"{"promptTokenCount":1,"candidatesTokenCount":1e30}"#, wrong("candidatesTokenCount"));
    check(r#"{"promptTokenCount":1,"thoughtsTokenCount":"7"}"#, wrong("thoughtsTokenCount"));
    let detail = r#"{"promptTokenCount":1,"promptTokensDetails":[{"modality":"NEW","tokenCount":-1}]}"#;
    check(detail, wrong("tokenCount"));
    check(r#"{"promptTokenCount":1,"promptTokenCount":1}"#, Err(Garbage::Malformed));
    check(r#"{"promptTokenCount":7}"#, Ok(Usage { input: 7, ..Usage::default() }));
    let odd = r#"{"promptTokenCount":7,"promptTokensDetails":[{"modality":"SMELL","tokenCount":3},{}],"trafficType":"NEW","serviceTier":"NEW"}"#;
    check(odd, Ok(Usage { input: 7, ..Usage::default() }));
    // More cached than sent: the rest is nothing, not a debt.
    check(r#"{"promptTokenCount":7,"cachedContentTokenCount":9}"#, Ok(Usage { cache_read: 9, ..Usage::default() }));
}

#[test]
fn a_stream_may_end_anywhere() {
    let part = |text: &str, usage: &str, reason: &str| {
        format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}{reason}}}]{usage}}}"#)
    };
    let first = part("Hello there, you.", r#","usageMetadata":{"promptTokenCount":9}"#, "");
    let second = part("And you!", r#","usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":30}"#, "");
    let last = part(
        "",
        r#","usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":31,"thoughtsTokenCount":4}"#,
        r#","finishReason":"STOP""#,
    );
    let check = |parts: &[&str], expected: Option<(u64, Source)>| {
        for framing in [Framing::Array, Framing::Events] {
            let mut reader = Reader::new(Dialect::Gemini, CHAT, framing, false);
            for (n, part) in parts.iter().enumerate() {
                let piece = match framing {
                    Framing::Events => format!("data: {part}\n\n"),
                    _ => format!("{}{part}", if n == 0 { "[" } else { ",\n" }),
                };
                reader.chunk(Bytes::from(piece), &mut Out::new());
            }
            let reading = reader.reading();
            assert_eq!(reading.usage.map(|usage| (usage.output, usage.source)), expected, "{parts:?} {framing:?}");
            assert!(reading.usage.is_none_or(|usage| usage.input == 9));
        }
    };
    check(&[], None);
    check(&[&first], Some((5, Source::Estimated)));
    check(&[&first, &second], Some((30, Source::Estimated)));
    check(&[&first, &second, &last], Some((35, Source::Exact)));
    check(&[&first, &last, &last], Some((35, Source::Exact)));
    check(&[&first, r#"{"usageMetadata":null}"#], Some((5, Source::Estimated)));
}

#[test]
fn the_first_event_decides() {
    let check = |framing, stream: &str, expected| {
        let mut reader = Reader::new(Dialect::Gemini, CHAT, framing, false);
        reader.chunk(Bytes::copy_from_slice(stream.as_bytes()), &mut Out::new());
        assert_eq!(reader.first_event(), expected, "{stream}");
    };
    let error = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
    check(Framing::Array, &format!("[{error}\n]"), Some(FirstEvent::Error));
    check(Framing::Events, &format!("data: {error}\n\n"), Some(FirstEvent::Error));
    check(Framing::Array, &format!(r#"[{{"candidates":[]}},{error}]"#), Some(FirstEvent::Content));
    check(Framing::Array, r#"[{"candidates":[{"content":{"#, None);
}
