//! What one frame of a stream says. The usage comes after the answer has ended.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Facts, Garbage};
use super::usage::usage_from_value;
use crate::provider::json::{Value, members, text_len};
use crate::provider::stream::Event;

/// Reads a frame: its name and its payload.
pub fn hear(event: &Event<'_>, data: &[u8]) -> Facts {
    let mut facts = Facts { error: event.is_error, ..Facts::default() };
    match event.name.unwrap_or_default() {
        b"messageStop" => facts.last = true,
        b"metadata" => {
            let metadata = serde_json::from_slice::<Metadata>(data).map_err(|_| Garbage::Malformed);
            facts.usage = match metadata {
                Ok(Metadata { usage, service_tier }) => {
                    usage.map(|raw| usage_from_value(raw.get(), service_tier.map(RawValue::get)))
                }
                Err(garbage) => Some(Err(garbage)),
            };
        }
        b"contentBlockDelta" => members(data, |_, key, value| {
            // `input` is a tool's, as text.
            if let (b"text" | b"input", Value::Text(text)) = (key, value) {
                facts.text_bytes += text_len(text);
            }
        }),
        _ => {}
    }
    facts
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
}
