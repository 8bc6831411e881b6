//! What a provider says that speaks Gemini's dialect.

use super::answers::{document, status_saying, stream};
use super::{Behaviour, Request};
use serde_json::{Value, json};

pub const WORDS: [&str; 3] = ["Hello", " from", " Gemini é!"];

/// A good answer with this usage, as whatever was asked for.
pub fn good(usage: Value) -> Behaviour {
    Behaviour::new(move |request| {
        let verb = request.path.split('?').next().unwrap_or_default().rsplit(':').next().unwrap_or_default();
        match verb {
            "countTokens" => document(&json!({"totalTokens": 31})),
            "embedContent" => document(&json!({"embedding": {"values": [0.25, -0.5]}, "usageMetadata": usage})),
            "batchEmbedContents" => {
                document(&json!({"embeddings": [{"values": [0.25, -0.5]}], "usageMetadata": usage}))
            }
            "streamGenerateContent" => streamed(request, &usage),
            _ => document(&part(content(request), Some("STOP"), Some(&usage))),
        }
    })
}

fn content(request: &Request) -> Value {
    match request.json()["tools"].is_array() {
        true => json!({"functionCall": {"id": "f1", "name": "weather", "args": {"city": "Zürich"}}}),
        false => json!({"text": WORDS.concat()}),
    }
}

fn part(content: Value, reason: Option<&str>, usage: Option<&Value>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": [content]}, "index": 0});
    if let Some(reason) = reason {
        candidate["finishReason"] = json!(reason);
    }
    let mut part = json!({"candidates": [candidate], "modelVersion": "gemini-2.5-pro"});
    if let Some(usage) = usage {
        part["usageMetadata"] = usage.clone();
    }
    part
}

fn streamed(request: &Request, usage: &Value) -> Vec<super::Step> {
    let early = json!({"promptTokenCount": usage["promptTokenCount"]});
    let mut parts: Vec<Value> = WORDS.iter().map(|word| part(json!({"text": word}), None, Some(&early))).collect();
    parts.push(part(json!({"text": ""}), Some("STOP"), Some(usage)));
    if request.path.contains("alt=sse") {
        return stream("text/event-stream", parts.into_iter().map(|part| format!("data: {part}\r\n\r\n").into_bytes()));
    }
    let last = parts.len() - 1;
    let pieces = parts.into_iter().enumerate().map(|(n, part)| {
        let (before, after) = (if n == 0 { "[" } else { "," }, if n == last { "]" } else { "\r\n" });
        format!("{before}{part}{after}").into_bytes()
    });
    stream("application/json; charset=UTF-8", pieces.collect::<Vec<_>>().into_iter())
}

/// An answer with this status, as Google writes its errors.
pub fn status(code: u16, status: &str, reason: &str) -> Behaviour {
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason});
    let body = json!({"error": {"code": code, "message": "the fake says no", "status": status, "details": [info]}});
    status_saying(code, &[], &body.to_string())
}
