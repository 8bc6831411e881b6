//! What becomes of failures: who is asked next and how often, who is left alone afterwards, and what it costs.

use crate::fake::answers::{End, Good, error_body, error_first, last_status, only, raw, raw_then, status, status_with};
use crate::fake::{Behaviour, Bill, Fake, Gate, Step};
use crate::house::{House, Key, chat, chat_stream, cost, custom_provider, eventually, house_with, provider, soon};
use serde_json::{Value, json};
use std::time::Duration;

const ONE_CALL: Bill = Bill { input: 1_000, output: 100 };

/// `local` and `openai`, which are the same fake; what nobody has a price for costs what gpt-4o does.
fn two_providers(change: impl FnOnce(&mut Value)) -> impl FnOnce(&mut Value) {
    |config| {
        let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        config["providers"]["local"] = custom_provider(&url, &[("local", "sk-local")]);
        config["pricing"] =
            json!({"unknown_model": {"input_cost_per_token": 0.0000025, "output_cost_per_token": 0.00001}});
        change(config);
    }
}

/// OpenAI alone, with this many retries and short waits.
fn retries(count: u32) -> impl FnOnce(&mut Value) {
    move |config| {
        let network = &mut config["providers"]["openai"]["network_config"];
        network["max_retries"] = json!(count);
        (network["retry_backoff_initial"], network["retry_backoff_max"]) = (json!(100), json!(200));
    }
}

fn two_keys(config: &mut Value) {
    let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
    config["providers"]["openai"] = provider(&url, &[("a", "sk-a"), ("b", "sk-b")]);
}

/// A key with a budget that prefers `local`, and may use `openai` else.
async fn key_for_both(house: &House) -> Key {
    let config = |provider: &str, weight: u32| json!({"provider": provider, "weight": weight, "allowed_models": ["gpt-4o"], "key_ids": ["*"]});
    let budget = json!({"max_limit": 10.0, "reset_duration": "1h"});
    house.key(json!({"budget": budget, "provider_configs": [config("local", 1), config("openai", 0)]})).await
}

/// A chat with no provider named.
fn bare(mut body: Value) -> Value {
    body["model"] = json!("gpt-4o");
    body
}

fn keys_used(fake: &Fake) -> Vec<String> {
    let key = |header: Option<&str>| header.unwrap_or_default().trim_start_matches("Bearer ").to_owned();
    fake.seen().iter().map(|request| key(request.header("authorization"))).collect()
}

/// A good answer of which nothing comes before the gate is opened.
fn late(gate: &Gate) -> Behaviour {
    let gate = gate.clone();
    Behaviour::new(move |request| {
        let mut steps = vec![Step::Await(gate.clone())];
        steps.extend(Good::default().steps(request));
        steps
    })
}

#[test]
fn whatever_the_first_provider_says_the_second_is_asked() {
    house_with(two_providers(|_| {}), async |house| {
        let key = key_for_both(house).await;
        let failures: Vec<(&str, Behaviour)> = vec![
            ("400", status(400)),
            ("401", status(401)),
            ("402", status(402)),
            ("403", status(403)),
            ("404", status(404)),
            ("408", status(408)),
            ("422", status(422)),
            ("429", status_with(429, &[("retry-after", "60")])),
            ("429 without a word", status(429)),
            ("500", status(500)),
            ("501", status(501)),
            ("503", status_with(503, &[("retry-after", "60")])),
            ("529", status(529)),
            ("reset", only(Step::Reset)),
            ("close", only(Step::Close)),
            ("half a head", raw_then("HTTP/1.1 200 OK\r\ncontent-t", Step::Close)),
            ("garbage", raw_then("\x16\x03\x01\0what is this\r\n\r\n", Step::Close)),
            ("a page", raw("HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>")),
        ];
        let mut calls = 0;
        for (name, failure) in failures {
            for body in [bare(chat()), bare(chat_stream())] {
                house.heal("local").await;
                // On a kept connection, breaking off could mean that it was closed long ago.
                house.fake.script([failure.clone(), Good::ending(End::GoodThenClose).into()]);
                let reply = house.chat(&key, &body).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{name}: {reply:?}");
                assert_eq!(reply.header("x-tollgate-provider"), Some("openai"), "{name}");
                calls += 1;
                assert_eq!(house.fake.seen().len(), 2 * calls, "{name}");
                assert_eq!(house.spent(&key).await, calls as u64 * cost(ONE_CALL), "{name}");
            }
        }
        // A stream that begins with an error.
        house.fake.script([error_first(), Good::default().into()]);
        let reply = house.chat(&key, &bare(chat_stream())).await;
        assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")));
        assert_eq!(house.spent(&key).await, (calls as u64 + 1) * cost(ONE_CALL));
    });
}

#[test]
fn a_slow_provider_has_its_time_once() {
    let change = two_providers(|config| {
        let url = config["providers"]["local"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        config["providers"]["local"] = custom_provider(&url, &[("a", "sk-a"), ("b", "sk-b")]);
        let network = &mut config["providers"]["local"]["network_config"];
        (network["default_request_timeout_in_seconds"], network["max_retries"]) = (json!(1), json!(3));
    });
    house_with(change, async |house| {
        let key = key_for_both(house).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let slow = [only(Step::Stall), raw_then(head, Step::Stall)];
        for (n, slow) in slow.into_iter().enumerate() {
            house.heal("local").await;
            house.fake.script([slow, Good::default().into()]);
            let reply = house.chat(&key, &bare(chat_stream())).await;
            // Neither its other key nor a retry: it may have served, and been paid for, what it did not say.
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
            assert_eq!(reply.header("x-tollgate-provider"), Some("openai"));
            assert_eq!(house.fake.seen().len(), 2 * (n + 1));
            assert_eq!(house.spent(&key).await, (n as u64 + 1) * cost(ONE_CALL));
        }
    });
}

#[test]
fn retries_follow_the_table() {
    house_with(retries(2), async |house| {
        let key = house.key_with_budget(10.0).await;
        let should_not = |code| status_with(code, &[("x-should-retry", "false")]);
        let failures: Vec<(&str, Behaviour, usize, u16)> = vec![
            ("400", status(400), 1, 400),
            ("401", status(401), 1, 502),
            ("402", status(402), 1, 502),
            ("403", status(403), 1, 403),
            ("404", status(404), 1, 404),
            ("408", status(408), 2, 408),
            ("409", status(409), 2, 409),
            ("424", status(424), 2, 424),
            ("429", status(429), 3, 429),
            ("429 for no time", status_with(429, &[("retry-after", "0")]), 3, 429),
            ("429 for a moment", status_with(429, &[("retry-after-ms", "120")]), 3, 429),
            ("429 for long", status_with(429, &[("retry-after", "60")]), 1, 429),
            ("498", status(498), 3, 498),
            ("499", status(499), 1, 499),
            ("500", status(500), 3, 500),
            ("501", status(501), 1, 501),
            ("502", status(502), 3, 502),
            ("503 for long", status_with(503, &[("retry-after", "60")]), 1, 503),
            ("504", status(504), 3, 504),
            ("522", status(522), 3, 522),
            ("500 that knows better", should_not(500), 1, 500),
            // On a kept connection, breaking off could mean that it was closed long ago.
            ("529", last_status(529), 3, 529),
            ("reset", only(Step::Reset), 3, 502),
        ];
        let mut calls = 0;
        for (name, failure, asked, seen) in failures {
            house.heal("openai").await;
            house.fake.script(vec![failure.clone(); asked]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!(reply.header("x-tollgate-attempts"), Some(&*asked.to_string()), "{name}: {reply:?}");
            assert_eq!(reply.status, seen, "{name}");
            calls += asked;
            assert_eq!(house.fake.seen().len(), calls, "{name}");
        }
        assert_eq!(house.spent(&key).await, 0);
        // One that recovers is charged once.
        house.heal("openai").await;
        house.fake.script([status(529), error_first(), Good::default().into()]);
        let reply = house.chat(&key, &chat_stream()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("3")));
        assert_eq!(house.spent(&key).await, cost(ONE_CALL));
    });
}

#[test]
fn a_limited_key_rests_for_its_model_until_it_is_told() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(10.0).await;
        let mini = json!({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]});
        house.fake.script([status_with(429, &[("retry-after", "600")]), Good::default().into()]);
        for (body, attempts) in [(chat(), "2"), (chat(), "1"), (mini, "1"), (chat(), "1")] {
            let reply = house.chat(&key, &body).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some(attempts)), "{reply:?}");
        }
        assert_eq!(keys_used(&house.fake), ["sk-a", "sk-b", "sk-b", "sk-a", "sk-b"]);
        assert_eq!(house.metric(r#"tollgate_ejections_total{provider="openai",what="resting_model"}"#).await, 1);
        assert_eq!(house.metric(r#"tollgate_provider_healthy{provider="openai"}"#).await, 1);
        // When both must rest there is nobody else to ask, and the one that is back sooner is asked.
        let five_minutes = || status_with(429, &[("x-ratelimit-reset-requests", "5m0s")]);
        house.fake.script([five_minutes(), five_minutes()]);
        for _ in 0..2 {
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (429, Some("1")));
        }
        assert_eq!(keys_used(&house.fake)[5..], ["sk-b", "sk-b"]);
    });
}

#[test]
fn a_rejected_or_empty_key_is_left_alone() {
    let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let quota =
        format!("HTTP/1.1 429 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{quota}", quota.len());
    for (failure, what) in [(status(401), "rejected_key"), (status(402), "resting_key"), (raw(quota), "resting_key")] {
        house_with(two_keys, async |house| {
            let key = house.key_with_budget(10.0).await;
            house.fake.script([failure.clone(), Good::default().into()]);
            for attempts in ["2", "1", "1"] {
                let reply = house.chat(&key, &chat()).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some(attempts)), "{reply:?}");
            }
            assert_eq!(keys_used(&house.fake), ["sk-a", "sk-b", "sk-b", "sk-b"]);
            let metric = format!(r#"tollgate_ejections_total{{provider="openai",what="{what}"}}"#);
            assert_eq!(house.metric(&metric).await, 1);
            assert_eq!(house.spent(&key).await, 3 * cost(ONE_CALL));
            // When none is left, administrators see it, and the client does not see whose account it is about.
            house.fake.script([failure.clone()]);
            house.chat(&key, &chat()).await.refused(502, "upstream_credentials_rejected");
            let shown = house.administer("GET", "/api/providers/openai", None).await.json();
            assert_eq!(shown["provider_status"], "error", "{shown}");
            assert!(shown["description"].as_str().unwrap().contains("each of its keys"), "{shown}");
            assert_eq!(house.metric(r#"tollgate_provider_healthy{provider="openai"}"#).await, 0);
            // It is asked all the same: there is nobody else.
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
        });
    }
}

#[test]
fn a_provider_that_keeps_failing_is_asked_last() {
    house_with(two_providers(|_| {}), async |house| {
        let key = key_for_both(house).await;
        let tag = |reply: &crate::house::Reply| reply.header("etag").unwrap().to_owned();
        let before = house.administer("GET", "/api/providers/local", None).await;
        // Failures of every kind count, also those that the client saw the beginning of.
        let cut = Good::ending(End::CloseAfter(3));
        let then_close = Good::ending(End::GoodThenClose);
        house.fake.script([cut.into(), status(500), then_close.into(), only(Step::Reset)]);
        assert!(
            house.post("/v1/chat/completions", &key, &bare(chat_stream())).send().await.unwrap().bytes().await.is_err()
        );
        house.fake.script([Good::default().into(), error_first(), Good::default().into(), status(529)]);
        for _ in 0..4 {
            let reply = house.chat(&key, &bare(chat_stream())).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
        }
        let reply = house.chat(&key, &bare(chat())).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("1")), "{reply:?}");
        assert_eq!(reply.header("x-tollgate-provider"), Some("openai"));
        let shown = house.administer("GET", "/api/providers/local", None).await;
        assert_eq!(shown.json()["provider_status"], "error", "{shown:?}");
        assert!(shown.json()["description"].as_str().unwrap().contains("5 calls in a row"), "{shown:?}");
        assert_eq!(tag(&shown), tag(&before), "health is no part of what is declared");
        assert_eq!(house.metric(r#"tollgate_provider_healthy{provider="local"}"#).await, 0);
        assert_eq!(house.metric(r#"tollgate_ejections_total{provider="local",what="provider"}"#).await, 1);
        // Named, it is the only one, and is asked.
        let mut named = chat();
        named["model"] = json!("local/gpt-4o");
        assert_eq!(house.chat(&key, &named).await.status, 200);
        eventually("the provider to be well", async || {
            house.administer("GET", "/api/providers/local", None).await.json()["provider_status"] == "active"
        })
        .await;
        assert_eq!(house.chat(&key, &bare(chat())).await.header("x-tollgate-provider"), Some("local"));
    });
}

#[test]
fn the_last_usable_key_is_asked_however_often_it_fails() {
    house_with(two_keys, async |house| {
        let key = house.key_with_budget(10.0).await;
        let failing = |key: &'static str| {
            let (bad, good) = (status(500), Behaviour::from(Good::default()));
            Behaviour::new(move |request| {
                let fails = request.header("authorization") == Some(key);
                if fails { bad.steps(request) } else { good.steps(request) }
            })
        };
        // Another key that is good keeps the provider itself in favour.
        house.fake.usually(failing("Bearer sk-a"));
        for n in 0..8 {
            let reply = house.chat(&key, &chat()).await;
            let attempts = if n < 5 { "2" } else { "1" };
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some(attempts)), "{n}: {reply:?}");
        }
        let ejections = r#"tollgate_ejections_total{provider="openai",what="key"}"#;
        assert_eq!(house.metric(ejections).await, 1);
        // The one that is left is never ejected.
        house.fake.usually(failing("Bearer sk-b"));
        for _ in 0..5 {
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (500, Some("1")), "{reply:?}");
        }
        assert_eq!(house.metric(ejections).await, 1);
        assert_eq!(house.spent(&key).await, 8 * cost(ONE_CALL));
    });
}

#[test]
fn what_may_have_been_billed_is_charged_where_nothing_may_be_exceeded() {
    let change = |config: &mut Value| {
        two_keys(config);
        config["governance"]["admission"] = json!("never_exceed");
    };
    house_with(change, async |house| {
        for (name, failure, billed) in [
            ("429", status(429), false),
            ("401", status(401), false),
            ("500", status(500), true),
            ("close", only(Step::Close), true),
        ] {
            house.heal("openai").await;
            let key = house.key_with_budget(10.0).await;
            house.fake.script([failure, Good::ending(End::GoodThenClose).into()]);
            let reply = house.chat(&key, &chat()).await;
            let spent = house.spent(&key).await;
            let answered = if reply.status == 200 { cost(ONE_CALL) } else { 0 };
            assert!(spent >= answered && (spent > answered) == billed, "{name}: {spent} {reply:?}");
        }
    });
}

#[test]
fn an_error_answer_of_any_length_is_passed_on_whole() {
    house_with(
        |_| {},
        async |house| {
            let key = house.key_with_budget(1.0).await;
            let text = "x".repeat(200_000);
            let long =
                format!("HTTP/1.1 500 X\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            house.fake.script([raw(long)]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, reply.body.len()), (500, text.len()));
            assert!(reply.body.iter().all(|byte| *byte == b'x'));
            assert_eq!((house.fake.seen().len(), house.spent(&key).await), (1, 0));
        },
    );
}

#[test]
fn attempts_are_bounded_and_the_next_provider_has_its_own() {
    let change = two_providers(|config| {
        let url = config["providers"]["local"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        let names: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let keys: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "sk-local")).collect();
        config["providers"]["local"] = custom_provider(&url, &keys);
        config["providers"]["local"]["network_config"]["max_retries"] = json!(10);
    });
    house_with(change, async |house| {
        let key = key_for_both(house).await;
        house.fake.script(vec![status(429); 15]);
        let reply = house.chat(&key, &bare(chat())).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("16")), "{reply:?}");
        assert_eq!(reply.header("x-tollgate-provider"), Some("openai"));
        assert_eq!((house.fake.seen().len(), house.spent(&key).await), (16, cost(ONE_CALL)));
        // Once it has failed often enough, the rest of its keys is not asked.
        house.heal("local").await;
        house.fake.script(vec![status(500); 5]);
        let reply = house.chat(&key, &bare(chat())).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("6")), "{reply:?}");
    });
}

#[test]
fn a_client_that_leaves_during_a_wait_stops_everything() {
    let change = |config: &mut Value| {
        let network = &mut config["providers"]["openai"]["network_config"];
        network["max_retries"] = json!(5);
        (network["retry_backoff_initial"], network["retry_backoff_max"]) = (json!(9_000), json!(9_000));
    };
    house_with(change, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([status(500)]);
        let asked = tokio::spawn(house.post("/v1/chat/completions", &key, &chat()).send());
        house.fake.request(0).await;
        house.idle().await;
        asked.abort();
        eventually("the client to be gone", async || {
            house.metric(r#"tollgate_requests_total{status="gone"}"#).await == 1
        })
        .await;
        assert_eq!((house.fake.seen().len(), house.spent(&key).await), (1, 0));
    });
}

/// `local` serves one call at a time, and one may wait.
fn narrow(config: &mut Value) {
    config["providers"]["local"]["concurrency_and_buffer_size"] = json!({"concurrency": 1, "buffer_size": 1});
}

#[test]
fn calls_wait_for_their_turn_and_go_elsewhere_when_the_buffer_is_full() {
    house_with(two_providers(narrow), async |house| {
        let key = key_for_both(house).await;
        let gate = Gate::new();
        house.fake.script([late(&gate), late(&gate)]);
        let send = |body: Value| tokio::spawn(house.post("/v1/chat/completions", &key, &body).send());
        let waiting = async |count: u64| {
            eventually("somebody to wait", async || {
                house.metric(r#"tollgate_provider_waiting{provider="local"}"#).await == count
            })
            .await;
        };
        let first = send(bare(chat()));
        house.fake.request(0).await;
        let second = send(bare(chat()));
        waiting(1).await;
        assert_eq!(house.metric(r#"tollgate_provider_in_flight{provider="local"}"#).await, 1);
        // Who waits holds no money yet.
        assert_eq!(house.open_holds(), 1);
        house.fake.usually(Good::default());
        let mut named = chat();
        named["model"] = json!("local/gpt-4o");
        let message = house.chat(&key, &named).await.refused(503, "provider_full");
        assert!(message.contains("'local'"), "{message}");
        assert_eq!(house.fake.seen().len(), 1);
        // The script is for `local`: the other one must not take from it.
        gate.open();
        assert_eq!(soon("the first", first).await.unwrap().unwrap().status(), 200);
        house.fake.request(1).await;
        let third = send(bare(chat()));
        waiting(1).await;
        let elsewhere = house.chat(&key, &bare(chat())).await;
        assert_eq!((elsewhere.status, elsewhere.header("x-tollgate-provider")), (200, Some("openai")));
        assert_eq!(house.metric(r#"tollgate_provider_full_total{provider="local"}"#).await, 2);
        // Who leaves the queue makes room in it.
        third.abort();
        waiting(0).await;
        gate.open();
        assert_eq!(soon("the second", second).await.unwrap().unwrap().status(), 200);
        assert_eq!(house.chat(&key, &bare(chat())).await.header("x-tollgate-provider"), Some("local"));
        assert_eq!(house.spent(&key).await, 4 * cost(ONE_CALL));
    });
}

#[test]
fn one_slow_provider_does_not_slow_another() {
    house_with(two_providers(narrow), async |house| {
        let key = key_for_both(house).await;
        let gate = Gate::new();
        house.fake.script([late(&gate)]);
        let mut named = chat();
        named["model"] = json!("local/gpt-4o");
        let slow = tokio::spawn(house.post("/v1/chat/completions", &key, &named).send());
        house.fake.request(0).await;
        // A name that does not exist is looked up for nobody but its own provider.
        let network = json!({"base_url": "http://no-such-host.invalid"});
        let made = json!({"provider": "nowhere", "network_config": network, "custom_provider_config": {"base_provider_type": "openai"}, "keys": [{"name": "n", "value": "sk-n"}]});
        assert_eq!(house.administer("POST", "/api/providers", Some(made)).await.status, 200);
        let lost_key = house.key(json!({"provider_configs": [{"provider": "nowhere", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]})).await;
        let mut lost = chat();
        lost["model"] = json!("nowhere/gpt-4o");
        let lost = tokio::spawn(house.post("/v1/chat/completions", &lost_key, &lost).send());
        for _ in 0..5 {
            let reply = soon("the other provider", house.chat(&key, &chat())).await;
            assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")));
        }
        assert!(!slow.is_finished());
        gate.open();
        assert_eq!(slow.await.unwrap().unwrap().status(), 200);
        assert_eq!(soon("a failed look-up", lost).await.unwrap().unwrap().status(), 502);
    });
}

#[test]
fn equal_keys_share_the_calls_and_one_without_weight_gets_none() {
    let change = |config: &mut Value| {
        let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        let mut three = provider(&url, &[("a", "sk-a"), ("b", "sk-b"), ("c", "sk-c")]);
        three["keys"][1]["weight"] = json!(1);
        config["providers"]["openai"] = three;
    };
    house_with(change, async |house| {
        let key = house.key(json!({})).await;
        for _ in 0..64 {
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
        }
        let used = keys_used(&house.fake);
        let count = |key: &str| used.iter().filter(|used| *used == key).count();
        assert!(count("sk-a") > 0 && count("sk-b") > 0 && count("sk-c") == 0, "{used:?}");
    });
}

#[test]
fn an_answer_that_is_no_json_is_passed_on_and_paid_by_estimate() {
    house_with(
        |_| {},
        async |house| {
            let key = house.key_with_budget(1.0).await;
            house
                .fake
                .script([raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n{garbag")]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, &reply.body[..]), (200, &b"{garbag"[..]));
            assert_eq!(house.fake.seen().len(), 1);
            assert!(house.spent(&key).await > 0);
        },
    );
}

#[test]
fn the_last_answer_is_passed_on_whichever_provider_gave_it() {
    house_with(two_providers(|_| {}), async |house| {
        let key = key_for_both(house).await;
        house.fake.script([status(500), status_with(400, &[("x-of-the-provider", "yes")])]);
        let reply = house.chat(&key, &bare(chat())).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (400, Some("2")));
        assert_eq!(
            (reply.header("x-tollgate-provider"), reply.header("x-of-the-provider")),
            (Some("openai"), Some("yes"))
        );
        assert_eq!(reply.body, error_body(400).as_bytes());
        assert_eq!((house.fake.seen().len(), house.spent(&key).await), (2, 0));
    });
}

#[test]
fn a_stream_that_falls_silent_is_cut_and_counts() {
    let change = |config: &mut Value| {
        config["providers"]["openai"]["network_config"]["stream_idle_timeout_in_seconds"] = json!(1);
    };
    house_with(change, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([Good::ending(End::StallAfter(3))]);
        let response = house.post("/v1/chat/completions", &key, &chat_stream()).send().await.unwrap();
        let cut = soon("the cut", response.bytes()).await;
        assert!(cut.is_err(), "a broken answer looked whole");
        assert_eq!(house.fake.seen().len(), 1);
        assert!(house.spent(&key).await > 0);
    });
}

#[test]
fn waiting_in_vain_is_bounded() {
    let change = two_providers(|config| {
        narrow(config);
        config["providers"]["local"]["network_config"]["default_request_timeout_in_seconds"] = json!(1);
        // The call that has the place streams, so that its own time does not end it.
    });
    house_with(change, async |house| {
        let key = key_for_both(house).await;
        let gate = Gate::new();
        house.fake.script([Good::gated(&gate)]);
        let mut named = chat_stream();
        named["model"] = json!("local/gpt-4o");
        let slow = house.post("/v1/chat/completions", &key, &named).send().await.unwrap();
        assert_eq!(slow.status(), 200);
        let reply = soon("the turn that never comes", house.chat(&key, &bare(chat()))).await;
        assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")));
        (0..20).for_each(|_| gate.open());
        assert!(tokio::time::timeout(Duration::from_secs(20), slow.bytes()).await.unwrap().is_ok());
    });
}
