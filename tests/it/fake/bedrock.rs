//! What a provider says that speaks Bedrock's dialect, in its binary frames.

use super::Behaviour;
use super::answers::{document, status_saying, stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

pub const WORDS: [&str; 3] = ["Hello", " from", " Bedrock é!"];
const KIND: &str = "application/vnd.amazon.eventstream";

/// A good answer with this usage, as converse has it.
pub fn good(usage: Value) -> Behaviour {
    Behaviour::new(move |request| match request.path.rsplit('/').next().unwrap_or_default() {
        "converse" => document(&json!({
            "output": {"message": {"role": "assistant", "content": [{"text": WORDS.concat()}]}},
            "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 9},
        })),
        "converse-stream" => stream(KIND, frames(&usage).into_iter()),
        "invoke" => document(&json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": WORDS.concat()}], "usage": claude(&usage),
        })),
        "invoke-with-response-stream" => stream(KIND, invoked(&usage).into_iter()),
        "count-tokens" => document(&json!({"inputTokens": 31})),
        other => panic!("{other} is not served"),
    })
}

fn claude(usage: &Value) -> Value {
    json!({"input_tokens": usage["inputTokens"], "output_tokens": usage["outputTokens"]})
}

pub fn frames(usage: &Value) -> Vec<Vec<u8>> {
    let mut frames = vec![event("messageStart", &json!({"role": "assistant"}))];
    frames.extend(
        WORDS.iter().map(|word| event("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": word}}))),
    );
    frames.push(event("contentBlockStop", &json!({"contentBlockIndex": 0})));
    frames.push(event("messageStop", &json!({"stopReason": "end_turn"})));
    frames.push(event("metadata", &json!({"usage": usage, "metrics": {"latencyMs": 9}})));
    frames
}

fn invoked(usage: &Value) -> Vec<Vec<u8>> {
    let told = claude(usage);
    let mut events = vec![
        json!({"type": "message_start", "message": {"usage": {"input_tokens": told["input_tokens"], "output_tokens": 1}}}),
    ];
    events.extend(
        WORDS.iter().map(
            |word| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}),
        ),
    );
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": told["output_tokens"]}}));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(|one| event("chunk", &json!({"bytes": BASE64.encode(one.to_string())}))).collect()
}

fn event(name: &str, payload: &Value) -> Vec<u8> {
    frame(&[(":event-type", name), (":content-type", "application/json"), (":message-type", "event")], payload)
}

/// A frame as AWS makes them.
fn frame(headers: &[(&str, &str)], payload: &Value) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (name, value) in headers {
        encoded.push(u8::try_from(name.len()).unwrap());
        encoded.extend_from_slice(name.as_bytes());
        encoded.push(7);
        encoded.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        encoded.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut frame = length(16 + encoded.len() + payload.len()).to_vec();
    frame.extend_from_slice(&length(encoded.len()));
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32(&frame).to_be_bytes());
    frame
}

/// Bit by bit, unlike the code under test.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A stream that begins with an exception.
pub fn exception_first() -> Behaviour {
    let headers = [
        (":exception-type", "throttlingException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    let frame = frame(&headers, &json!({"message": "slow down"}));
    Behaviour::new(move |_| stream(KIND, [frame.clone()].into_iter()))
}

/// An answer with this status, as AWS writes its errors.
pub fn status(code: u16, kind: &str) -> Behaviour {
    let body = json!({"message": "User: arn:aws:iam::123456789012:user/house says no"});
    status_saying(code, &[("x-amzn-errortype", kind)], &body.to_string())
}
