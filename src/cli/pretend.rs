//! A pretend provider for the demo: OpenAI's chat completions, unary and streamed, with usage.
//!
//! It answers every model with the same few sentences, on a loopback port of its own.

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

const ANSWER: &str = "This answer comes from a pretend provider inside Tollgate. It knows nothing, but it counts \
    every token, and Tollgate charges each of them to your virtual key. Ask a few more times and see the budget end.";
/// Between two words of a stream.
const PACE: Duration = Duration::from_millis(40);

#[derive(Deserialize)]
struct Chat {
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

pub(super) fn router() -> Router {
    Router::new().route("/v1/chat/completions", post(chat))
}

async fn chat(body: Bytes) -> Response {
    let chat: Chat = match serde_json::from_slice(&body) {
        Ok(chat) => chat,
        Err(error) => {
            let error = json!({"error": {"message": error.to_string(), "type": "invalid_request_error"}});
            return (StatusCode::BAD_REQUEST, Json(error)).into_response();
        }
    };
    let usage = usage(&chat);
    if chat.stream { streamed(&chat, &usage) } else { whole(&chat, &usage) }
}

/// About a token for four bytes, as models count.
fn usage(chat: &Chat) -> Value {
    let prompt = chat
        .messages
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default().len() / 4 + 4)
        .sum::<usize>();
    let completion = ANSWER.len() / 4;
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn whole(chat: &Chat, usage: &Value) -> Response {
    Json(json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": chat.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": usage,
    }))
    .into_response()
}

fn streamed(chat: &Chat, usage: &Value) -> Response {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": 0, "model": chat.model,
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}]), Value::Null)
    };
    let mut events: Vec<String> =
        ANSWER.split_inclusive(' ').map(|word| delta(json!({"content": word}), Value::Null)).collect();
    events.push(delta(json!({}), json!("stop")));
    if chat.stream_options.include_usage {
        events.push(chunk(json!([]), usage.clone()));
    }
    events.push("data: [DONE]\n\n".to_owned());
    let paced = stream::unfold(events.into_iter(), async |mut events| {
        let event = events.next()?;
        tokio::time::sleep(PACE).await;
        Some((Ok::<_, Infallible>(event), events))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(paced)).into_response()
}
