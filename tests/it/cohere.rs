//! Cohere's dialect: what is billed is what counts, and errors are in its shape.

use crate::fake::Behaviour;
use crate::fake::answers::{document, stream};
use crate::house::{Key, house_with, provider};
use serde_json::{Value, json};

/// The price of command-a-03-2025 in nano-dollars per token.
const INPUT: u64 = 2_500;
const OUTPUT: u64 = 10_000;

fn good() -> Behaviour {
    Behaviour::new(|request| {
        let usage = json!({"billed_units": {"input_tokens": 500.0, "output_tokens": 70.0}, "tokens": {"input_tokens": 900.0, "output_tokens": 80.0}});
        if request.json()["stream"] != true {
            return document(&json!({"id": "x", "message": {"role": "assistant", "content": []}, "usage": usage}));
        }
        let events = [
            json!({"type": "message-start", "id": "x"}),
            json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}}),
            json!({"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}}),
        ];
        stream("text/event-stream", events.into_iter().map(|event| format!("data: {event}\n\n").into_bytes()))
    })
}

#[test]
fn a_chat_is_charged_by_what_is_billed() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["cohere"] = provider(&url, &[("a", "co-key")]);
        },
        async |house| {
            house.fake.usually(good());
            let through = json!([{"provider": "cohere", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
            let budget = json!({"max_limit": 0.004, "reset_duration": "1h"});
            let key: Key = house.key(json!({"provider_configs": through, "budget": budget})).await;
            let chat = |stream: bool| -> Value {
                json!({"model": "command-a-03-2025", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "stream": stream})
            };
            for (n, stream) in [false, true].into_iter().enumerate() {
                let reply = house.call("/cohere/v2/chat", &key, &chat(stream)).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("cohere")), "{reply:?}");
                assert_eq!(house.spent(&key).await, (n as u64 + 1) * (500 * INPUT + 70 * OUTPUT));
            }
            let seen = house.fake.seen();
            assert!(seen.iter().all(|request| request.path == "/v2/chat"));
            assert!(seen.iter().all(|request| request.header("authorization") == Some("Bearer co-key")));
            assert_eq!(house.call("/cohere/v2/chat", &key, &chat(false)).await.status, 200);
            house.idle().await;
            let reply = house.call("/cohere/v2/chat", &key, &chat(false)).await;
            assert_eq!((reply.status, &reply.json()["code"]), (402, &json!("budget_exceeded")), "{reply:?}");
            assert!(reply.json()["message"].as_str().unwrap().contains("VK budget exceeded"));
        },
    );
}
