//! What one event of a stream says. The last one has the usage, or the error.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Facts, Garbage};
use super::usage::usage_from_value;
use crate::provider::json::{Value, members, text_len};

/// Reads an event: its name, if it has one, and its data.
pub fn hear(name: Option<&[u8]>, data: &[u8]) -> Facts {
    let mut facts = Facts::default();
    if data == b"[DONE]" {
        facts.last = true;
        return facts;
    }
    let (mut kind, mut text_bytes) = (name.unwrap_or_default(), 0);
    members(data, |depth, key, value| match (key, value) {
        (b"type", Value::Text(word)) if depth == 1 => kind = word,
        (b"finish_reason", Value::Text(word)) if depth == 2 => {
            facts.last = true;
            facts.error |= word == b"ERROR";
        }
        (b"error", Value::Text(_) | Value::Object) if depth <= 2 => facts.error = true,
        (b"text" | b"thinking" | b"tool_plan" | b"arguments", Value::Text(text)) => text_bytes += text_len(text),
        _ => {}
    });
    match kind {
        b"content-delta" | b"tool-plan-delta" | b"tool-call-start" | b"tool-call-delta" => {
            facts.text_bytes = text_bytes
        }
        b"message-end" => {
            facts.last = true;
            let end = serde_json::from_slice::<End>(data).map_err(|_| Garbage::Malformed);
            facts.usage = match end {
                Ok(end) => end.delta.and_then(|delta| delta.usage).map(|raw| usage_from_value(raw.get())),
                Err(garbage) => Some(Err(garbage)),
            };
        }
        _ => {}
    }
    facts
}

#[derive(Deserialize)]
struct End<'a> {
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}
