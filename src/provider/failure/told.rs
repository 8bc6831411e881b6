//! What an error answer tells in its head and body, in whatever shape: object, array, text or web page.

use super::wait::asked_wait;
use crate::governance::time::Timestamp;
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// No code is longer; a text that is one is not looked at.
const CODE_BYTES_MAX: usize = 128;
const CODES_MAX: usize = 16;
/// Of a message only the beginning is looked at.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// The parts of an error answer that mean something to us. Nothing of it is shown to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Codes, types and reasons, in lower case.
    codes: Vec<String>,
    /// In lower case.
    message: String,
    /// When asking again makes sense, if the answer says so.
    pub wait: Option<Duration>,
    /// What the provider itself says about trying again.
    pub should_retry: Option<bool>,
}

impl Told {
    /// Reads an answer. `body` may be cut.
    pub fn read(headers: &HeaderMap, body: &[u8], now: Timestamp) -> Told {
        let mut told = Told::default();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(kind) = header("x-amzn-errortype") {
            told.code(kind.split(':').next().unwrap_or_default());
        }
        told.should_retry = match header("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        let parsed = serde_json::from_slice::<Value>(body).ok();
        let mut delay = None;
        match &parsed {
            // Streams without events, and Google's imitation of OpenAI, wrap the error in a list.
            Some(Value::Array(list)) => list.first().into_iter().for_each(|error| told.object(error, &mut delay)),
            Some(error) => told.object(error, &mut delay),
            None => {}
        }
        told.wait = asked_wait(headers, delay.as_deref(), &told.message, now);
        told
    }

    /// Looks at an error object and at those that it has inside, wherever providers put them.
    fn object(&mut self, value: &Value, delay: &mut Option<String>) {
        const INSIDE: [&str; 3] = ["error", "detail", "details"];
        let mut below: Vec<(&Value, u8)> = vec![(value, 0)];
        while let Some((value, depth)) = below.pop() {
            let Value::Object(members) = value else {
                match value {
                    Value::String(text) => self.say(text),
                    Value::Array(list) if depth < 4 => below.extend(list.iter().take(8).map(|item| (item, depth + 1))),
                    _ => {}
                }
                continue;
            };
            for name in ["code", "type", "status", "reason", "error_code", "__type"] {
                match members.get(name) {
                    Some(Value::String(code)) => self.code(code.rsplit('#').next().unwrap_or_default()),
                    Some(Value::Number(code)) => self.code(&code.to_string()),
                    _ => {}
                }
            }
            for name in ["message", "Message"] {
                if let Some(Value::String(message)) = members.get(name) {
                    self.say(message);
                }
            }
            if let Some(Value::String(text)) = members.get("retryDelay") {
                delay.get_or_insert_with(|| text.clone());
            }
            if depth < 4 {
                below.extend(INSIDE.iter().filter_map(|name| Some((members.get(*name)?, depth + 1))));
            }
        }
    }

    fn code(&mut self, code: &str) {
        if self.codes.len() < CODES_MAX && (1..=CODE_BYTES_MAX).contains(&code.len()) {
            self.codes.push(code.to_ascii_lowercase());
        }
    }

    fn say(&mut self, message: &str) {
        if self.message.is_empty() {
            let letters = message.char_indices().take_while(|(at, _)| *at < MESSAGE_BYTES_MAX);
            self.message = letters.map(|(_, letter)| letter.to_ascii_lowercase()).collect();
        }
    }

    /// Whether one of the codes is among these, which are in lower case.
    pub(super) fn has_any(&self, codes: &[&str]) -> bool {
        self.codes.iter().any(|code| codes.contains(&&**code))
    }

    /// Whether the message has one of these in it.
    pub(super) fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.message.contains(words))
    }
}

#[cfg(test)]
impl Told {
    pub(super) fn codes_for_tests(&self) -> usize {
        self.codes.len()
    }
}
