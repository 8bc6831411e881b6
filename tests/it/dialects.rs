//! Providers that speak as OpenAI does are called where they are, each by its habits; others are declared
//! and refused call by call.

use crate::house::{Key, chat, chat_stream, custom_provider, house_with, provider};
use serde_json::{Value, json};

fn asked(mut body: Value, model: &str) -> Value {
    body["model"] = json!(model);
    body
}

#[test]
fn each_provider_is_spoken_to_in_its_way_or_not_at_all() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            let ollama = json!({"keys": [{"name": "local", "ollama_key_config": {"url": format!("{url}/v1")}}]});
            let mut few = custom_provider(&url, &[("few", "sk-few")]);
            few["custom_provider_config"]["allowed_requests"] = json!({"chat_completion": true});
            let providers = &mut config["providers"];
            providers["ollama"] = ollama;
            providers["mistral"] = provider(&url, &[("mistral", "sk-mistral")]);
            providers["anthropic"] = provider(&url, &[("anthropic", "sk-anthropic")]);
            providers["few"] = few;
            config["governance"] = json!({"default_access": "allow"});
        },
        async |house| {
            let key: Key = house.key(json!({"provider_configs": []})).await;
            let reply = house.chat(&key, &asked(chat(), "anthropic/claude")).await;
            let message = reply.refused(400, "unsupported_operation");
            assert!(
                message.contains("'anthropic' speaks Anthropic's dialect, and this request is in OpenAI's"),
                "{message}"
            );
            assert_eq!(house.chat(&key, &asked(chat(), "few/m")).await.status, 200);
            let message = house.chat(&key, &asked(chat_stream(), "few/m")).await.refused(400, "unsupported_operation");
            assert!(message.contains("'few' does not serve requests of the kind chat_completion_stream"), "{message}");
            assert_eq!(house.chat(&key, &asked(chat(), "ollama/llama")).await.status, 200);
            assert_eq!(house.chat(&key, &asked(chat_stream(), "mistral/large")).await.status, 200);
            assert_eq!(house.chat(&key, &asked(chat_stream(), "openai/gpt-4o")).await.status, 200);
            let seen = house.fake.seen();
            let [_, ollama, mistral, openai] = &seen[..] else { panic!("{} requests came", seen.len()) };
            assert_eq!(ollama.header("authorization"), None);
            assert_eq!(mistral.header("authorization"), Some("Bearer sk-mistral"));
            assert_eq!(mistral.json()["stream_options"], Value::Null);
            assert_eq!(openai.json()["stream_options"]["include_usage"], true);
        },
    );
}

#[test]
fn a_bare_model_passes_by_whom_nobody_can_speak_to() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            let mut anthropic = provider(&url, &[("anthropic", "sk-anthropic")]);
            anthropic["keys"][0]["models"] = json!(["gpt-4o"]);
            config["providers"]["anthropic"] = anthropic;
        },
        async |house| {
            let through = |name: &str, weight: u64| json!({"provider": name, "weight": weight, "allowed_models": ["*"], "key_ids": ["*"]});
            let both = house.key(json!({"provider_configs": [through("anthropic", 9), through("openai", 1)]})).await;
            let reply = house.chat(&both, &asked(chat(), "gpt-4o")).await;
            assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")), "{reply:?}");
            assert!(!house.get("/v1/models", &both).await.json().to_string().contains("anthropic"));
            let one = house.key(json!({"provider_configs": [through("anthropic", 9)]})).await;
            let message = house.chat(&one, &asked(chat(), "gpt-4o")).await.refused(400, "unsupported_operation");
            assert!(message.contains("does not translate between them"), "{message}");
        },
    );
}
