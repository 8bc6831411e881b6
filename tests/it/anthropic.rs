//! Anthropic's dialect: its SDK's requests go to its provider, its usage is what is charged, and its errors
//! are ours when we refuse.

use crate::fake::answers::{Good, raw_then, stream};
use crate::fake::anthropic::{WORDS, error_first, event, good, status};
use crate::fake::{Behaviour, Step};
use crate::house::{House, Key, Reply, house_with, provider};
use serde_json::{Value, json};

const MESSAGES: &str = "/anthropic/v1/messages";

/// The price of claude-sonnet-5-5 in nano-dollars per token.
const INPUT: u64 = 2_000;
const CACHED: u64 = 100;
const WRITTEN: u64 = 2_500;
const WRITTEN_LONG: u64 = 4_000;
const OUTPUT: u64 = 10_000;

/// A house whose second provider is Anthropic, with two keys.
pub fn anthropic_house(test: impl AsyncFnOnce(&mut House)) {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["anthropic"] = provider(&url, &[("a", "sk-ant-a"), ("b", "sk-ant-b")]);
        },
        async |house| {
            house.fake.usually(good(plain()));
            test(house).await;
        },
    );
}

/// What a key of Anthropic's clients is like.
pub async fn anthropic_key(house: &House, more: Value) -> Key {
    let mut body = json!({"provider_configs": [{"provider": "anthropic", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    house.key(body).await
}

fn budget(dollars: f64) -> Value {
    json!({"budget": {"max_limit": dollars, "reset_duration": "1h"}})
}

fn plain() -> Value {
    json!({"input_tokens": 1_000, "output_tokens": 100})
}

fn message(stream: bool) -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 200, "stream": stream, "messages": [{"role": "user", "content": "Say hello."}]})
}

/// Checks that this is an error as Anthropic writes them, and returns its message.
#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str, code: &str) -> String {
    let body = reply.json();
    let seen = (reply.status, &body["type"], &body["error"]["type"], &body["error"]["details"]["error_code"]);
    assert_eq!(seen, (status, &json!("error"), &json!(kind), &json!(code)), "{body}");
    assert_eq!(body["request_id"].as_str(), reply.header("x-request-id"), "{body}");
    body["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_message_is_charged_by_its_usage() {
    anthropic_house(async |house| {
        let cached = json!({
            "input_tokens": 25, "cache_creation_input_tokens": 1_000, "cache_read_input_tokens": 4_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 800},
            "output_tokens": 310, "service_tier": "standard",
        });
        let cost = 25 * INPUT + 4_000 * CACHED + 200 * WRITTEN + 800 * WRITTEN_LONG + 310 * OUTPUT;
        for (usage, cost) in [(plain(), 1_000 * INPUT + 100 * OUTPUT), (cached, cost)] {
            for stream in [false, true] {
                let key = anthropic_key(house, budget(1.0)).await;
                house.fake.script([good(usage.clone())]);
                let reply = house.call(MESSAGES, &key, &message(stream)).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("anthropic")), "{reply:?}");
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(WORDS.iter().all(|word| text.contains(word)), "{text}");
                assert_eq!(house.spent(&key).await, cost, "{usage} {stream}");
            }
        }
    });
}

#[test]
fn the_provider_sees_one_credential_and_the_client_s_version() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, json!({})).await;
        let url = format!("{}{MESSAGES}?beta=true&key={}", house.proxy, key.value);
        let send = async |headers: &[(&str, &str)]| {
            let mut request = house.http.post(&url).json(&message(false));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            Reply::read(request.send().await.unwrap()).await
        };
        let both = [("anthropic-version", "2026-10-21"), ("anthropic-beta", "a-2025,b-2026")];
        let reply = send(&[("x-api-key", &key.value), both[0], both[1], ("x-amz-date", "x"), ("cookie", "x=y")]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let reply = send(&[("authorization", &format!("Bearer {}", key.value))]).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = house.fake.seen();
        for request in &seen {
            assert_eq!(request.path, "/v1/messages?beta=true");
            assert_eq!(request.header("x-api-key"), Some("sk-ant-a"));
            assert_eq!(request.header("accept-encoding"), Some("identity"));
            for stays in ["authorization", "x-amz-date", "cookie", "x-goog-api-key"] {
                assert_eq!(request.header(stays), None);
            }
            assert!(!format!("{:?}", request.headers).contains("sk-bf-"));
        }
        assert_eq!(seen[0].header("anthropic-version"), Some("2026-10-21"));
        assert_eq!(seen[0].header("anthropic-beta"), Some("a-2025,b-2026"));
        assert_eq!(seen[1].header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(seen[1].header("anthropic-beta"), None);
    });
}

#[test]
fn the_name_of_the_model_is_the_provider_s() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, budget(1.0)).await;
        let mut body = message(true);
        body["model"] = json!("anthropic/claude-sonnet-5-5");
        assert_eq!(house.call(MESSAGES, &key, &body).await.status, 200);
        assert_eq!(house.fake.seen()[0].json(), message(true));
    });
}

#[test]
fn counting_tokens_costs_nothing() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, budget(1.0)).await;
        let reply = house.call("/anthropic/v1/messages/count_tokens", &key, &message(false)).await;
        assert_eq!((reply.status, &reply.json()["input_tokens"]), (200, &json!(2_095)), "{reply:?}");
        assert_eq!(house.fake.seen()[0].path, "/v1/messages/count_tokens");
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn models_are_listed_as_its_sdk_reads_them() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, json!({})).await;
        let list = house.get("/anthropic/v1/models", &key).await.json();
        let ids: Vec<&str> =
            list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
        assert!(
            ids.contains(&"anthropic/claude-sonnet-5-5") && ids.iter().all(|id| id.starts_with("anthropic/")),
            "{list}"
        );
        assert_eq!((&list["has_more"], &list["last_id"]), (&json!(false), &json!(ids.last())));
        let one = house.get("/anthropic/v1/models/claude-sonnet-5-5", &key).await;
        assert_eq!((one.status, &one.json()["type"]), (200, &json!("model")), "{one:?}");
        assert!(!house.get("/v1/models", &key).await.json().to_string().contains("claude"));
        let reply = house.get("/anthropic/v1/models/nobody", &key).await;
        refused(&reply, 404, "not_found_error", "not_found");
    });
}

#[test]
fn refusals_are_errors_of_the_dialect() {
    anthropic_house(async |house| {
        let spent = anthropic_key(house, budget(0.001)).await;
        assert_eq!(house.call(MESSAGES, &spent, &message(false)).await.status, 200);
        house.idle().await;
        let reply = house.call(MESSAGES, &spent, &message(true)).await;
        assert!(refused(&reply, 402, "billing_error", "budget_exceeded").contains("VK budget exceeded"));
        assert!(reply.retry_after() > 0);
        let limited = json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}});
        let limited = anthropic_key(house, limited).await;
        assert_eq!(house.call(MESSAGES, &limited, &message(false)).await.status, 200);
        let reply = house.call(MESSAGES, &limited, &message(false)).await;
        refused(&reply, 429, "rate_limit_error", "request_limited");
        refused(
            &house.call(MESSAGES, &Key::unknown(), &message(false)).await,
            401,
            "authentication_error",
            "virtual_key_not_found",
        );
        let narrow = json!({"provider_configs": [{"provider": "anthropic", "weight": 1, "allowed_models": ["claude-haiku-5-5"], "key_ids": ["*"]}]});
        let narrow = house.key(narrow).await;
        refused(&house.call(MESSAGES, &narrow, &message(false)).await, 403, "permission_error", "model_blocked");
        let mut wrong = message(false);
        wrong["max_tokens"] = json!("many");
        let reply = house.call(MESSAGES, &spent, &wrong).await;
        assert!(refused(&reply, 400, "invalid_request_error", "invalid_request").contains("'max_tokens'"));
        refused(
            &house.call("/anthropic/v1/complete", &spent, &message(false)).await,
            404,
            "not_found_error",
            "not_found",
        );
        let seen = house.fake.seen().len();
        assert_eq!(seen, 2, "nothing that was refused reached the provider");
    });
}

#[test]
fn nothing_is_translated_and_it_is_said_so() {
    anthropic_house(async |house| {
        let openai = house.key(json!({})).await;
        let mut body = message(false);
        body["model"] = json!("openai/gpt-4o");
        let message =
            refused(&house.call(MESSAGES, &openai, &body).await, 400, "invalid_request_error", "unsupported_operation");
        assert!(message.contains("'openai' speaks OpenAI's dialect, and this request is in Anthropic's"), "{message}");
        // A bare model means the prefix's own provider, or what the key has.
        body["model"] = json!("gpt-4o");
        let message =
            refused(&house.call(MESSAGES, &openai, &body).await, 400, "invalid_request_error", "unsupported_operation");
        assert!(message.contains("speaks OpenAI's dialect"), "{message}");
        assert_eq!(house.fake.seen().len(), 0);
    });
}

#[test]
fn an_overloaded_provider_gives_way_to_the_next_key() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, budget(1.0)).await;
        let failures =
            [status(529, "overloaded_error"), status(429, "rate_limit_error"), status(401, "authentication_error")];
        for (n, failure) in failures.into_iter().chain([error_first()]).enumerate() {
            house.heal("anthropic").await;
            house.fake.script([failure, good(plain())]);
            let reply = house.call(MESSAGES, &key, &message(true)).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{n}: {reply:?}");
            assert_eq!(house.spent(&key).await, (n as u64 + 1) * (1_000 * INPUT + 100 * OUTPUT), "{n}");
        }
        // The last one's own answer is passed on, unless it is about our account.
        house.heal("anthropic").await;
        house.fake.script([status(529, "overloaded_error"), status(529, "overloaded_error")]);
        let reply = house.call(MESSAGES, &key, &message(false)).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (529, &json!("overloaded_error")), "{reply:?}");
        house.fake.script([status(401, "authentication_error"), status(401, "authentication_error")]);
        let reply = house.call(MESSAGES, &key, &message(false)).await;
        refused(&reply, 502, "api_error", "upstream_credentials_rejected");
    });
}

/// What a stream costs that told its input at once and then broke off.
#[test]
fn a_cut_stream_is_charged_what_it_told_and_what_was_seen() {
    anthropic_house(async |house| {
        let key = anthropic_key(house, budget(1.0)).await;
        let start = json!({"type": "message_start", "message": {"usage": {"input_tokens": 1_000, "output_tokens": 1}}});
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word".repeat(50)}});
        let pieces = [event(&start).into_bytes(), event(&delta).into_bytes()];
        let cut = Behaviour::new(move |_| {
            let mut steps = stream("text/event-stream", pieces.clone().into_iter());
            steps.pop();
            steps.push(Step::Close);
            steps
        });
        house.fake.script([cut]);
        let sent = house.post(MESSAGES, &key, &message(true)).send().await.unwrap();
        assert_eq!(sent.status(), 200);
        assert!(sent.bytes().await.is_err(), "half an answer must not look whole");
        assert_eq!(house.spent(&key).await, 1_000 * INPUT + 50 * OUTPUT);
    });
}

#[test]
fn usage_that_cannot_be_is_not_believed() {
    anthropic_house(async |house| {
        for usage in [
            json!({"input_tokens": -5, "output_tokens": 100}),
            json!({"input_tokens": 1.5, "output_tokens": 100}),
            json!({"input_tokens": 1_000, "output_tokens": 100_000_000}),
            json!({}),
        ] {
            for stream in [false, true] {
                let key = anthropic_key(house, budget(1.0)).await;
                house.fake.script([good(usage.clone())]);
                assert_eq!(house.call(MESSAGES, &key, &message(stream)).await.status, 200);
                // The hold: some input, and as many as may be written.
                let spent = house.spent(&key).await;
                assert!((OUTPUT..=200 * OUTPUT + 100 * INPUT).contains(&spent), "{usage} {stream}: {spent}");
            }
        }
        // A compressed answer passes, and says nothing.
        let key = anthropic_key(house, budget(1.0)).await;
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n";
        house.fake.script([raw_then([head.as_bytes(), &[0x1f, 0x8b, 8, 0]].concat(), Step::Close)]);
        let reply = house.call(MESSAGES, &key, &message(true)).await;
        assert_eq!((reply.status, reply.header("content-encoding")), (200, Some("gzip")));
        assert_eq!(house.spent(&key).await, 200 * OUTPUT + 10 * INPUT);
    });
}

/// A custom provider that is like Anthropic is spoken to like it.
#[test]
fn a_custom_provider_takes_after_its_base() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            let mut mine = provider(&url, &[("mine", "sk-mine")]);
            mine["custom_provider_config"] = json!({"base_provider_type": "anthropic"});
            config["providers"]["mine"] = mine;
            config["pricing"] = json!({"unknown_model": "free"});
        },
        async |house| {
            house.fake.usually(good(plain()));
            let through = json!([{"provider": "mine", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
            let key = house.key(json!({"provider_configs": through})).await;
            for model in ["mine/claude", "claude"] {
                let mut body = message(false);
                body["model"] = json!(model);
                let reply = house.call(MESSAGES, &key, &body).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("mine")), "{reply:?}");
            }
            assert_eq!(house.fake.seen()[0].header("x-api-key"), Some("sk-mine"));
            // On OpenAI's paths it is refused.
            let body = json!({"model": "mine/claude", "messages": []});
            let message = house.chat(&key, &body).await.refused(400, "unsupported_operation");
            assert!(message.contains("'mine' speaks Anthropic's dialect"), "{message}");
        },
    );
}

/// OpenAI's SDK below its own prefix, with the version and without.
#[test]
fn openai_has_a_prefix_too() {
    anthropic_house(async |house| {
        house.fake.usually(Good::default());
        let both = json!({"provider_configs": [
            {"provider": "anthropic", "weight": 9, "allowed_models": ["*"], "key_ids": ["*"]},
            {"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]},
        ]});
        let key = house.key(both).await;
        for path in ["/openai/v1/chat/completions", "/openai/chat/completions", "/langchain/openai/v1/chat/completions"]
        {
            let reply = house.call(path, &key, &json!({"model": "gpt-4o", "messages": []})).await;
            assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")), "{path}: {reply:?}");
        }
        assert!(house.fake.seen().iter().all(|request| request.path == "/v1/chat/completions"));
    });
}
