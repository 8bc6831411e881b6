//! Another try where it helps: the next key, the next provider, the same again. Never once a byte of
//! an answer went out, and each try is paid for on its own.

use crate::fake::answers::{End, Good, error_body, error_first, last_status, only, raw_then, status, status_with};
use crate::fake::{Behaviour, Bill, Fake, Step};
use crate::house::{House, Key, chat, chat_stream, cost, custom_provider, free_port, house_with, provider};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const ONE_CALL: Bill = Bill { input: 1_000, output: 100 };

/// OpenAI with two keys, the one called `a` tried first.
fn two_keys(config: &mut Value) {
    let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
    config["providers"]["openai"] = provider(&url, &[("a", "sk-a"), ("b", "sk-b")]);
}

/// The provider keys that were used, in their order.
fn keys_used(fake: &Fake) -> Vec<String> {
    let key = |header: Option<&str>| header.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    fake.seen().iter().map(|request| key(request.header("authorization"))).collect()
}

#[test]
fn a_failed_key_gives_way_to_the_next() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(10.0).await;
        let failures: Vec<(&str, Behaviour)> = vec![
            ("401", status(401)),
            ("402", status(402)),
            ("403", status(403)),
            ("429", status_with(429, &[("retry-after", "60")])),
            ("500", status(500)),
            ("502", status(502)),
            ("503", status(503)),
            ("504", status(504)),
            ("529", status(529)),
            ("reset", only(Step::Reset)),
            ("close", only(Step::Close)),
            ("half a head", raw_then("HTTP/1.1 200 OK\r\ncontent-t", Step::Close)),
        ];
        for (n, (name, failure)) in failures.into_iter().enumerate() {
            for stream in [false, true] {
                // On a kept connection, breaking off could mean that it was closed long ago.
                house.fake.script([failure.clone(), Good::ending(End::GoodThenClose).into()]);
                let reply = house.chat(&key, &if stream { chat_stream() } else { chat() }).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{name}: {reply:?}");
            }
            let calls = 2 * (n + 1);
            assert_eq!(house.fake.seen().len(), 2 * calls, "{name}");
            assert_eq!(house.spent(&key).await, calls as u64 * cost(ONE_CALL), "{name}");
        }
        assert!(keys_used(&house.fake).chunks(2).all(|pair| pair == ["sk-a", "sk-b"]));
    });
}

#[test]
fn a_stream_that_begins_with_an_error_gives_way_to_the_next() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([error_first(), Good::default().into()]);
        let reply = house.chat(&key, &chat_stream()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")));
        let text = String::from_utf8_lossy(&reply.body);
        assert!(!text.contains("overloaded") && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert_eq!(keys_used(&house.fake), ["sk-a", "sk-b"]);
        assert_eq!(house.spent(&key).await, cost(ONE_CALL));
    });
}

#[test]
fn a_provider_that_refuses_connections_gives_way_to_the_next() {
    let change = |config: &mut Value| {
        let nobody = format!("http://127.0.0.1:{}", free_port());
        config["providers"]["dead"] = custom_provider(&nobody, &[("dead", "sk-dead")]);
    };
    house_with(change, async |house| {
        let key = key_for_both(house, "dead").await;
        for body in [chat(), chat_stream()] {
            let mut body = body;
            body["model"] = json!("gpt-4o");
            let reply = house.chat(&key, &body).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
            assert_eq!(reply.header("x-tollgate-provider"), Some("openai"));
        }
        assert_eq!(house.fake.seen().len(), 2);
    });
}

/// A key that prefers `first`, and may use `openai` else.
async fn key_for_both(house: &House, first: &str) -> Key {
    let config = |provider: &str, weight: u32| json!({"provider": provider, "weight": weight, "allowed_models": ["gpt-4o"], "key_ids": ["*"]});
    house.key(json!({"provider_configs": [config(first, 1), config("openai", 0)]})).await
}

#[test]
fn a_failed_provider_gives_way_to_the_next() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["local"] = custom_provider(&url, &[("local", "sk-local")]);
        },
        async |house| {
            let key = key_for_both(house, "local").await;
            let mut body = chat();
            body["model"] = json!("gpt-4o");
            house.fake.script([status(503), Good::default().into()]);
            let reply = house.chat(&key, &body).await;
            assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")));
            assert_eq!(keys_used(&house.fake), ["sk-local", "sk-key-of-the-provider"]);
            // Named, a provider is the only one.
            house.fake.script([status(503)]);
            body["model"] = json!("local/gpt-4o");
            let reply = house.chat(&key, &body).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (503, Some("1")));
            assert_eq!(house.fake.seen().len(), 3);
        },
    );
}

#[test]
fn a_limit_of_one_provider_gives_way_to_the_next() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["local"] = custom_provider(&url, &[("local", "sk-local")]);
        },
        async |house| {
            let limited = json!({"provider": "local", "weight": 1, "allowed_models": ["gpt-4o"], "key_ids": ["*"],
                "rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}});
            let other = json!({"provider": "openai", "weight": 0, "allowed_models": ["gpt-4o"], "key_ids": ["*"]});
            let key = house.key(json!({"provider_configs": [limited, other]})).await;
            let mut body = chat();
            body["model"] = json!("gpt-4o");
            for provider in ["local", "openai", "openai"] {
                let reply = house.chat(&key, &body).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some(provider)), "{reply:?}");
                house.idle().await;
            }
        },
    );
}

#[test]
fn when_all_fail_the_last_answer_is_passed_on_as_it_came() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([status(500), status_with(429, &[("retry-after", "33"), ("x-of-the-provider", "yes")])]);
        let reply = house.chat(&key, &chat()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (429, Some("2")));
        assert_eq!((reply.header("retry-after"), reply.header("x-of-the-provider")), (Some("33"), Some("yes")));
        assert_eq!(reply.body, error_body(429).as_bytes());
        // The last one has no answer to pass on.
        house.fake.script([last_status(503), only(Step::Reset)]);
        house.chat(&key, &chat()).await.refused(502, "upstream_unreachable");
        // The last one's answer is about our key, and nobody else's business.
        house.fake.script([status(503), status(401)]);
        house.chat(&key, &chat()).await.refused(502, "upstream_credentials_rejected");
        assert_eq!(house.fake.seen().len(), 6);
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn the_clients_own_mistake_is_not_tried_twice() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(1.0).await;
        for code in [400, 404, 413, 422] {
            house.fake.script([status(code)]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (code, Some("1")));
            assert_eq!(reply.body, error_body(code).as_bytes());
        }
        assert_eq!(house.fake.seen().len(), 4);
    });
}

#[test]
fn retries_ask_the_same_key_again() {
    let change = |config: &mut Value| {
        let network = &mut config["providers"]["openai"]["network_config"];
        (network["max_retries"], network["retry_backoff_initial"]) = (json!(2), json!(100));
    };
    house_with(change, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([last_status(500), only(Step::Reset), Good::default().into()]);
        let reply = house.chat(&key, &chat()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("3")));
        house.fake.script([status(500), status(503), status(502)]);
        let reply = house.chat(&key, &chat()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (502, Some("3")));
        // A rejected key is not asked again.
        house.fake.script([status(401)]);
        house.chat(&key, &chat()).await.refused(502, "upstream_credentials_rejected");
        assert_eq!(house.fake.seen().len(), 7);
        assert_eq!(house.spent(&key).await, cost(ONE_CALL));
    });
}

#[test]
fn nothing_is_tried_again_once_a_byte_went_out() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(1.0).await;
        let mut calls = 0;
        for end in [End::CloseAfter(3), End::ResetAfter(3)] {
            for body in [chat(), chat_stream()] {
                house.fake.script([Good::ending(if body["stream"] == true { end } else { End::CloseAfter(1) })]);
                let response = house.post(CHAT, &key, &body).send().await.unwrap();
                assert_eq!(response.status(), 200);
                assert!(response.bytes().await.is_err(), "{end:?}: a broken answer looked whole");
                calls += 1;
                assert_eq!(house.fake.seen().len(), calls);
            }
        }
    });
}

#[test]
fn a_kept_connection_that_was_closed_costs_no_attempt() {
    house_with(
        |_| {},
        async |house| {
            let key = house.key_with_budget(1.0).await;
            for n in 0..5 {
                house.fake.script([Good::ending(End::GoodThenClose)]);
                let reply = house.chat(&key, &chat()).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("1")), "{n}");
            }
            assert_eq!((house.fake.seen().len(), house.fake.connections()), (5, 5));
            // One that is closed only when the next request has been written on it.
            house.fake.script([Good::default().into(), only(Step::Close), Good::default().into()]);
            for _ in 0..2 {
                let reply = house.chat(&key, &chat()).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("1")), "{reply:?}");
            }
            assert_eq!(house.spent(&key).await, 7 * cost(ONE_CALL));
        },
    );
}

#[test]
fn connections_to_a_provider_are_kept() {
    house_with(
        |_| {},
        async |house| {
            let key = house.key(json!({})).await;
            house.fake.script([
                Good::default().into(),
                Good::default().into(),
                status(429),
                status(500),
                Good::default().into(),
            ]);
            for body in [chat(), chat_stream(), chat(), chat(), chat()] {
                house.chat(&key, &body).await;
                house.idle().await;
            }
            assert_eq!((house.fake.seen().len(), house.fake.connections()), (5, 1));
        },
    );
}
