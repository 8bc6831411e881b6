//! What one part of a stream says. Each is a whole answer of its own, and its usage is a total so far.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Facts, Garbage};
use super::usage::usage_from_value;
use crate::provider::json::{Value, members, text_len};

/// Reads a part.
pub fn hear(data: &[u8]) -> Facts {
    let mut facts = Facts::default();
    let mut carries_usage = false;
    // What was found elsewhere is quoted there.
    let mut aside: Option<usize> = None;
    members(data, |depth, key, value| {
        if aside.is_some_and(|outer| depth <= outer) {
            aside = None;
        }
        match (key, value) {
            (b"usageMetadata", Value::Object) if depth == 1 => carries_usage = true,
            (b"error", Value::Object) if depth == 1 => facts.error = true,
            (b"groundingMetadata" | b"citationMetadata", Value::Object) => aside = aside.or(Some(depth)),
            (b"finishReason" | b"blockReason", Value::Text(_)) => facts.last = true,
            (b"text" | b"code", Value::Text(text)) if aside.is_none() => facts.text_bytes += text_len(text),
            _ => {}
        }
    });
    if carries_usage {
        let part = serde_json::from_slice::<Part>(data).map_err(|_| Garbage::Malformed);
        facts.usage = match part {
            Ok(part) => part.usage_metadata.map(|raw| usage_from_value(raw.get())),
            Err(garbage) => Some(Err(garbage)),
        };
    }
    facts
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
}
