//! What a provider says that speaks Anthropic's dialect.

use super::answers::{document, status_saying, stream};
use super::{Behaviour, Bill, Step};
use serde_json::{Value, json};

pub const WORDS: [&str; 3] = ["Hello", " from", " Claude é!"];

/// A good message with this usage; `counts` is what a stream tells only at its end.
pub fn good(usage: Value) -> Behaviour {
    Behaviour::new(move |request| {
        let asked = request.json();
        if request.path.contains("/count_tokens") {
            return document(&json!({"input_tokens": 2_095}));
        }
        let calls_tool = asked["tools"].is_array() && asked["messages"].as_array().is_some_and(|all| all.len() == 1);
        let bill = Bill {
            input: usage["input_tokens"].as_u64().unwrap_or(0),
            output: usage["output_tokens"].as_u64().unwrap_or(0),
        };
        let mut steps = if asked["stream"] == true {
            let events = events(&asked["model"], &usage, calls_tool);
            stream("text/event-stream; charset=utf-8", events.into_iter().map(String::into_bytes))
        } else {
            document(&message(&asked["model"], content(calls_tool), reason(calls_tool), usage.clone()))
        };
        steps.insert(0, Step::Bill(bill));
        steps
    })
}

fn content(calls_tool: bool) -> Value {
    match calls_tool {
        true => json!([{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}]),
        false => json!([{"type": "text", "text": WORDS.concat()}]),
    }
}

fn reason(calls_tool: bool) -> Value {
    json!(if calls_tool { "tool_use" } else { "end_turn" })
}

fn message(model: &Value, content: Value, reason: Value, usage: Value) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": reason, "stop_sequence": null, "usage": usage,
    })
}

fn events(model: &Value, usage: &Value, calls_tool: bool) -> Vec<String> {
    let mut first = usage.clone();
    first["output_tokens"] = json!(1);
    let (block, deltas): (Value, Vec<Value>) = match calls_tool {
        true => (
            json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}),
            ["", "{\"city\":", "\"Zürich\"}"]
                .iter()
                .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
                .collect(),
        ),
        false => (
            json!({"type": "text", "text": ""}),
            WORDS.iter().map(|word| json!({"type": "text_delta", "text": word})).collect(),
        ),
    };
    let mut all = vec![
        json!({"type": "message_start", "message": message(model, json!([]), Value::Null, first)}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "ping"}),
    ];
    all.extend(deltas.into_iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})));
    all.push(json!({"type": "content_block_stop", "index": 0}));
    let told = json!({"output_tokens": usage["output_tokens"]});
    all.push(json!({"type": "message_delta", "delta": {"stop_reason": reason(calls_tool), "stop_sequence": null}, "usage": told}));
    all.push(json!({"type": "message_stop"}));
    all.iter().map(event).collect()
}

pub fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

/// A stream that answers 200 and begins with an error, behind a ping.
pub fn error_first() -> Behaviour {
    Behaviour::new(|_| {
        let events = [
            json!({"type": "ping"}),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ];
        stream("text/event-stream", events.iter().map(|one| event(one).into_bytes()))
    })
}

/// An answer with this status, as Anthropic writes its errors.
pub fn status(status: u16, kind: &str) -> Behaviour {
    let body = json!({"type": "error", "error": {"type": kind, "message": "the fake says no"}, "request_id": "req_1"});
    status_saying(status, &[], &body.to_string())
}
