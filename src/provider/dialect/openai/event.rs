//! What one event of a stream says. Every event gets one cheap pass; only those that carry usage are parsed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Facts, Garbage, Media};
use super::media::of_sound;
use super::usage::usage_from_value;
use crate::governance::request::RequestKind;
use crate::governance::usage::ServiceTier;
use crate::provider::json::{Value, members, text_len};
use crate::provider::stream::sse::field;

/// Reads an event: its name, if it has one, and its data.
pub fn read(kind: RequestKind, name: Option<&[u8]>, data: &[u8]) -> Facts {
    let mut facts = Facts { error: name == Some(b"error"), ..Facts::default() };
    if data == b"[DONE]" {
        facts.last = true;
        return facts;
    }
    let responses = kind == RequestKind::Responses;
    let media = Media::is_of(kind);
    let mut carries_usage = false;
    // Some servers give the same reasoning under several keys.
    let mut reasoning_bytes = 0;
    // Some repeat all text so far in a `message` beside the delta; its members are deeper than it.
    let mut aside: Option<usize> = None;
    members(data, |depth, key, value| {
        if aside.is_some_and(|outer| depth <= outer) {
            aside = None;
        }
        match (key, value) {
            (b"usage", Value::Object) => carries_usage = true,
            (b"message", Value::Object) => aside = aside.or(Some(depth)),
            (b"error", Value::Object | Value::Text(_)) if depth == 1 => facts.error = true,
            (b"finish_reason", Value::Text(_)) => facts.last = true,
            (b"service_tier", Value::Text(word)) if depth <= 2 => {
                facts.tier = std::str::from_utf8(word).ok().map(ServiceTier::from_word);
            }
            (b"type", Value::Text(word)) if responses && depth == 1 => match word {
                b"error" | b"response.failed" => (facts.error, facts.last) = (true, true),
                b"response.completed" | b"response.incomplete" => facts.last = true,
                _ => {}
            },
            (b"type", Value::Text(b"error")) if depth == 1 => facts.error = true,
            (b"type", Value::Text(word)) if media && depth == 1 && is_last(word) => facts.last = true,
            (b"delta", Value::Text(text)) if media && depth == 1 => facts.text_bytes += text_len(text),
            _ if media => {}
            // Here the finished texts come again whole; only deltas count.
            (b"delta", Value::Text(text)) if responses && depth == 1 => facts.text_bytes += text_len(text),
            _ if responses || aside.is_some() => {}
            (b"content" | b"refusal" | b"arguments", Value::Text(text)) => facts.text_bytes += text_len(text),
            (b"text", Value::Text(text)) if kind == RequestKind::TextCompletion => facts.text_bytes += text_len(text),
            (b"reasoning" | b"reasoning_content" | b"text", Value::Text(text)) => {
                reasoning_bytes = text_len(text).max(reasoning_bytes);
            }
            _ => {}
        }
    });
    facts.text_bytes += reasoning_bytes;
    if carries_usage {
        read_usage(kind, data, &mut facts);
    }
    facts
}

/// Whether an event of pictures or sound with this word for its type is the last.
fn is_last(word: &[u8]) -> bool {
    [&b"image_generation.completed"[..], b"speech.audio.done", b"transcript.text.done"].contains(&word)
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow)]
    x_groq: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Nested<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

fn read_usage(kind: RequestKind, data: &[u8], facts: &mut Facts) {
    let Ok(chunk) = serde_json::from_slice::<Chunk>(data) else {
        facts.usage = Some(Err(Garbage::Malformed));
        return;
    };
    let own = object(chunk.usage);
    facts.usage_only = own.is_some() && chunk.choices.is_some_and(|choices| is_empty_array(choices.get()));
    let usage = own.or_else(|| nested(chunk.x_groq)).or_else(|| nested(chunk.response));
    facts.usage = usage.map(|raw| match kind {
        RequestKind::Transcription => of_sound(kind, raw),
        _ => usage_from_value(kind, raw, None),
    });
}

fn object(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get).filter(|raw| raw.starts_with('{'))
}

fn nested(outer: Option<&RawValue>) -> Option<&str> {
    let nested: Nested = serde_json::from_str(object(outer)?).ok()?;
    object(nested.usage)
}

fn is_empty_array(raw: &str) -> bool {
    raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|inside| inside.trim().is_empty())
}

/// Whether the unfinished event in `bytes` can still turn out to be a usage-only one. `sought` remembers
/// from where to look the next time; it starts at 0.
pub fn may_be_usage_only(bytes: &[u8], sought: &mut usize) -> bool {
    const KEY: &[u8] = b"\"choices\"";
    // In a text the key's second quote would be escaped.
    let unseen = bytes.get(*sought..).unwrap_or_default();
    let Some(found) = memchr::memmem::find(unseen, KEY) else {
        *sought = bytes.len().saturating_sub(KEY.len() - 1).max(*sought);
        let data = field(bytes, b"data").map(<[u8]>::trim_ascii_start).unwrap_or_default();
        return matches!(data.first(), None | Some(b'{'));
    };
    *sought += found;
    let mut after = bytes[*sought + KEY.len()..].iter().filter(|byte| !byte.is_ascii_whitespace());
    // Whatever is still to come decides; only an empty array goes on being possible.
    [b':', b'[', b']'].iter().all(|expected| after.next().is_none_or(|byte| byte == expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governance::usage::Usage;

    const CHAT: RequestKind = RequestKind::ChatCompletion;

    #[track_caller]
    fn check(kind: RequestKind, data: &str, expected: Facts) {
        assert_eq!(read(kind, None, data.as_bytes()), expected, "{data}");
    }

    fn text(text_bytes: u64) -> Facts {
        Facts { text_bytes, ..Facts::default() }
    }

    #[test]
    fn generated_text_is_counted_once() {
        check(CHAT, r#"{"choices":[{"delta":{"role":"assistant","content":"hello"}}]}"#, text(5));
        check(CHAT, r#"{"choices":[{"delta":{"content":"a\nb"}}],"obfuscation":"xxxxxxxx"}"#, text(3));
        check(CHAT, r#"{"choices":[{"delta":{"content":null,"refusal":"no"}}]}"#, text(2));
        check(CHAT, r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"a\":"}}]}}]}"#, text(5));
        check(CHAT, r#"{"choices":[{"delta":{"reasoning":"abc","reasoning_content":"abc"}}]}"#, text(3));
        check(CHAT, r#"{"choices":[{"delta":{"reasoning":"abc","reasoning_details":[{"text":"abc"}]}}]}"#, text(3));
        check(CHAT, r#"{"choices":[{"message":{"content":"all so far"},"delta":{"content":"far"}}]}"#, text(3));
        check(CHAT, r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]}}]}"#, text(1));
        check(RequestKind::TextCompletion, r#"{"choices":[{"text":"four"}]}"#, text(4));
        check(RequestKind::Responses, r#"{"type":"response.output_text.delta","delta":"abc"}"#, text(3));
        check(RequestKind::Responses, r#"{"type":"response.output_text.done","text":"abc"}"#, text(0));
    }

    #[test]
    fn usage_is_found_where_it_may_stand() {
        let usage = |usage_only| Facts {
            usage: Some(Ok(Usage { input: 1, output: 2, ..Usage::default() })),
            usage_only,
            ..Facts::default()
        };
        let counts = r#"{"prompt_tokens":1,"completion_tokens":2}"#;
        check(CHAT, &format!(r#"{{"choices":[],"usage":{counts}}}"#), usage(true));
        check(CHAT, &format!(r#"{{"usage": {counts}, "choices": [ ]}}"#), usage(true));
        check(CHAT, &format!(r#"{{"choices":[{{"index":0}}],"usage":{counts}}}"#), usage(false));
        check(CHAT, &format!(r#"{{"usage":{counts}}}"#), usage(false));
        check(CHAT, &format!(r#"{{"choices":[],"x_groq":{{"id":"r","usage":{counts}}}}}"#), usage(false));
        check(CHAT, r#"{"choices":[],"usage":null}"#, Facts::default());
        check(CHAT, r#"{"choices":[],"prompt_filter_results":[{"usage":{"x":1}}]}"#, Facts::default());
        check(CHAT, r#"{"choices":[{"delta":{"content":"\"usage\":{}"}}]}"#, text(10));
        let garbage =
            Facts { usage: Some(Err(Garbage::Count { field: "prompt_tokens" })), usage_only: true, ..Facts::default() };
        check(CHAT, r#"{"choices":[],"usage":{"prompt_tokens":-1}}"#, garbage);
        let response =
            format!(r#"{{"type":"response.completed","response":{{"usage":{counts},"service_tier":"flex"}}}}"#);
        check(RequestKind::Responses, &response, Facts { last: true, tier: Some(ServiceTier::Flex), ..usage(false) });
    }

    #[test]
    fn ends_and_errors_are_seen() {
        let last = Facts { last: true, ..Facts::default() };
        let error = Facts { error: true, ..Facts::default() };
        let both = Facts { error: true, last: true, ..Facts::default() };
        check(CHAT, "[DONE]", last.clone());
        check(CHAT, r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, last.clone());
        check(CHAT, r#"{"choices":[{"delta":{},"finish_reason":null}]}"#, Facts::default());
        check(CHAT, r#"{"error":{"message":"overloaded"}}"#, error.clone());
        check(CHAT, r#"{"error":"overloaded"}"#, error.clone());
        check(CHAT, r#"{"error":null,"choices":[]}"#, Facts::default());
        check(RequestKind::Responses, r#"{"type":"error","code":"x"}"#, both.clone());
        check(RequestKind::Responses, r#"{"type":"response.failed","response":{"usage":null}}"#, both);
        check(RequestKind::Responses, r#"{"type":"response.created","response":{"error":null}}"#, Facts::default());
        assert_eq!(read(CHAT, Some(b"error"), b"{}"), error);
    }

    #[test]
    fn an_unfinished_event_is_judged_early() {
        let check = |bytes: &str, expected: bool| {
            let mut sought = 0;
            assert_eq!(may_be_usage_only(bytes.as_bytes(), &mut sought), expected, "{bytes}");
            let mut sought = 0;
            let by_bytes = (0..=bytes.len()).all(|end| may_be_usage_only(&bytes.as_bytes()[..end], &mut sought));
            assert_eq!(by_bytes, expected, "{bytes} byte by byte");
        };
        check("data: {\"id\":\"x\",\"choi", true);
        check("data: {\"choices\"", true);
        check("data: {\"choices\" : [ ", true);
        check("data: {\"choices\":[],\"usage\":{", true);
        check("data: {\"choices\":[{", false);
        check("data: {\"choices\": [ {\"index\"", false);
        check("data: {\"choices\":null", false);
        check("data: {\"x\":\"\\\"choices\\\":[{", true);
        check("data: [DO", false);
        check(": ping", true);
        check("event: x\ndata: {\"choices\":[{", false);
    }
}
