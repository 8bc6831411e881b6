//! What the events of a stream say. Usage comes at the beginning and grows towards the end.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Facts, Garbage};
use super::usage::Report;
use crate::governance::usage::Usage;
use crate::provider::json::{Value, members, text_len};
use crate::provider::stream::Event as Envelope;

/// Hears one stream.
#[derive(Debug, Default)]
pub struct Listener {
    report: Report,
}

impl Listener {
    /// Reads an event: its name, if it has one, and its data.
    pub fn hear(&mut self, event: &Envelope<'_>, data: &[u8]) -> Option<Facts> {
        if event.is_error {
            return Some(Facts { error: true, ..Facts::default() });
        }
        if event.name == Some(b"chunk") {
            return Some(self.unwrap(data));
        }
        self.read(event.name, data)
    }

    /// What a cloud has wrapped into a frame of its own.
    fn unwrap(&mut self, data: &[u8]) -> Facts {
        let wrapped: Option<Wrapped> = serde_json::from_slice(data).ok();
        let Some(inner) = wrapped.and_then(|wrapped| BASE64.decode(wrapped.bytes.as_bytes()).ok()) else {
            return Facts { usage: Some(Err(Garbage::Malformed)), ..Facts::default() };
        };
        self.read(None, &inner).unwrap_or_default()
    }

    fn read(&mut self, name: Option<&[u8]>, data: &[u8]) -> Option<Facts> {
        let mut facts = Facts { error: name == Some(b"error"), ..Facts::default() };
        let (mut kind, mut carries_usage) = (name.unwrap_or_default(), false);
        members(data, |depth, key, value| match (key, value) {
            (b"type", Value::Text(word)) if depth == 1 => kind = word,
            (b"usage", Value::Object) if depth <= 2 => carries_usage = true,
            (b"error", Value::Object) if depth == 1 => facts.error = true,
            (b"text" | b"thinking" | b"partial_json", Value::Text(text)) if depth == 2 => {
                facts.text_bytes += text_len(text);
            }
            (b"stop_reason", Value::Text(_)) if depth == 2 => facts.last = true,
            _ => {}
        });
        match kind {
            // Keeps the line open.
            b"ping" => return None,
            b"error" => facts.error = true,
            b"message_stop" => facts.last = true,
            _ => {}
        }
        if carries_usage {
            facts.usage = Some(self.update(data));
        }
        Some(facts)
    }

    fn update(&mut self, data: &[u8]) -> Result<Usage, Garbage> {
        let event: Event = serde_json::from_slice(data).map_err(|_| Garbage::Malformed)?;
        let nested = event.message.and_then(|message| message.usage);
        if let Some(raw) = nested.or(event.usage) {
            self.report.update(Report::read(raw.get())?);
        }
        self.report.usage()
    }
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}
