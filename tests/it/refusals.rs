//! What bad input gets: the right "no", in the shape that clients know, on a connection that stays open.

use crate::fake::Step;
use crate::fake::answers::{Good, only, raw as bytes, raw_then, status};
use crate::house::{Key, Reply, chat, chat_stream, custom_provider, free_port, house, house_with, provider};
use crate::raw::{Raw, request};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn no_key_no_service() {
    house(async |house| {
        let reply =
            Reply::read(house.http.post(format!("{}{CHAT}", house.proxy)).json(&chat()).send().await.unwrap()).await;
        reply.refused(401, "virtual_key_required");
        assert!(reply.header("www-authenticate").is_some());
        // A provider's own key is no virtual key.
        let foreign = Key { id: String::new(), value: "sk-proj-123".to_owned() };
        assert_eq!(house.chat(&foreign, &chat()).await.status, 401);
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn an_unknown_key_is_401() {
    house(async |house| {
        house.chat(&Key::unknown(), &chat()).await.refused(401, "virtual_key_not_found");
        assert_eq!(house.get("/v1/models", &Key::unknown()).await.status, 401);
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn an_inactive_key_is_403_and_may_ask_for_its_quota() {
    house(async |house| {
        let key = house.key(json!({"is_active": false})).await;
        house.chat(&key, &chat()).await.refused(403, "virtual_key_blocked");
        assert_eq!(house.quota(&key).await["is_active"], false);
    });
}

#[test]
fn a_key_that_is_switched_off_is_refused_at_once() {
    house(async |house| {
        let key = house.key(json!({})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        let path = format!("/api/governance/virtual-keys/{}", key.id);
        assert_eq!(house.administer("PUT", &path, Some(json!({"is_active": false}))).await.status, 200);
        house.chat(&key, &chat()).await.refused(403, "virtual_key_blocked");
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        house.chat(&key, &chat()).await.refused(401, "virtual_key_not_found");
    });
}

#[test]
fn two_different_keys_are_401() {
    house(async |house| {
        let (one, two) = (house.key(json!({})).await, house.key(json!({})).await);
        let sent = house.post(CHAT, &one, &chat()).header("x-api-key", &two.value).send().await.unwrap();
        Reply::read(sent).await.refused(401, "virtual_key_ambiguous");
        let sent = house.post(CHAT, &one, &chat()).header("x-api-key", &one.value).send().await.unwrap();
        assert_eq!(sent.status(), 200);
    });
}

#[test]
fn a_key_is_found_in_each_of_its_headers() {
    house(async |house| {
        let key = house.key(json!({})).await;
        for name in ["x-bf-vk", "x-api-key", "x-goog-api-key"] {
            let request = house.http.post(format!("{}{CHAT}", house.proxy)).header(name, &key.value);
            assert_eq!(request.json(&chat()).send().await.unwrap().status(), 200, "{name}");
        }
    });
}

#[test]
fn a_provider_that_the_key_may_not_use_is_403() {
    house(async |house| {
        let nothing = house.key(json!({"provider_configs": []})).await;
        house.chat(&nothing, &chat()).await.refused(403, "provider_blocked");
        let openai = house.key(json!({})).await;
        let mut other = chat();
        other["model"] = json!("anthropic/claude-sonnet-4-5");
        let message = house.chat(&openai, &other).await.refused(403, "provider_blocked");
        assert!(message.contains("anthropic"), "{message}");
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn a_model_that_the_key_may_not_use_is_403() {
    house(async |house| {
        let configs = json!([{"provider": "openai", "weight": 1, "allowed_models": ["gpt-4o-mini"], "key_ids": ["*"]}]);
        let key = house.key(json!({"provider_configs": configs})).await;
        let message = house.chat(&key, &chat()).await.refused(403, "model_blocked");
        assert!(message.contains("gpt-4o"), "{message}");
        let mut allowed = chat();
        allowed["model"] = json!("openai/gpt-4o-mini");
        assert_eq!(house.chat(&key, &allowed).await.status, 200);
        allowed["model"] = json!("gpt-4o-mini");
        assert_eq!(house.chat(&key, &allowed).await.status, 200);
        assert_eq!(house.fake.seen().len(), 2);
    });
}

#[test]
fn a_model_without_a_price_is_403_where_a_budget_applies() {
    house(async |house| {
        let mut body = chat();
        body["model"] = json!("openai/a-model-nobody-has-priced");
        let limited = house.key_with_budget(1.0).await;
        house.chat(&limited, &body).await.refused(403, "model_not_priced");
        assert!(house.fake.seen().is_empty());
        // Where no budget applies it is served, and costs nothing.
        let unlimited = house.key(json!({})).await;
        assert_eq!(house.chat(&unlimited, &body).await.status, 200);
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn an_unknown_provider_is_400_and_names_the_known_ones() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let mut body = chat();
        body["model"] = json!("nobody/gpt-4o");
        let message = house.chat(&key, &body).await.refused(400, "unknown_provider");
        assert!(message.contains("nobody") && message.contains("openai"), "{message}");
    });
}

/// Sends a body as it stands, and returns the refusal's message and field.
#[track_caller]
fn check_body(reply: &Reply, field: Option<&str>) {
    let message = reply.refused(400, "invalid_request");
    let body = reply.json();
    assert_eq!(body["error"].get("param").and_then(Value::as_str), field, "{body}");
    assert!(field.is_none_or(|field| message.contains(field)), "{message}");
}

#[test]
fn a_body_that_cannot_be_understood_is_400_and_names_the_field() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let mut raw = Raw::connect(house).await;
        let mut check = async |body: &str, field: Option<&str>| {
            raw.send(request(CHAT, &key.value, "", body)).await;
            check_body(&raw.reply().await, field);
        };
        check("", None).await;
        check("hello", None).await;
        check("[]", None).await;
        check(r#"{"model": "openai/gpt-4o""#, None).await;
        check("{\"model\": \"\u{1}\"}", None).await;
        check("{}", Some("model")).await;
        check(r#"{"model": null}"#, Some("model")).await;
        check(r#"{"model": 4}"#, Some("model")).await;
        check(r#"{"model": ""}"#, Some("model")).await;
        check(r#"{"model": "openai/"}"#, Some("model")).await;
        check(r#"{"model": "openai/gpt-4o", "stream": "yes"}"#, Some("stream")).await;
        check(r#"{"model": "openai/gpt-4o", "max_tokens": -1}"#, Some("max_tokens")).await;
        check(r#"{"model": "openai/gpt-4o", "max_tokens": 1.5}"#, Some("max_tokens")).await;
        check(r#"{"model": "openai/gpt-4o", "n": 0}"#, Some("n")).await;
        // Every one of them came over the same connection.
        raw.send(request(CHAT, &key.value, "", &chat().to_string())).await;
        assert_eq!(raw.reply().await.status, 200);
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn a_member_that_counts_may_not_appear_twice() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let mut raw = Raw::connect(house).await;
        for (field, twice) in [
            ("model", r#""model":"openai/gpt-4o-mini""#),
            ("stream", r#""stream":false,"stream":true"#),
            ("max_tokens", r#""max_tokens":1,"max_tokens":100000"#),
            // Escapes make no other name of it.
            ("model", r#""m\u006fdel":"openai/gpt-4o-mini""#),
        ] {
            let body = format!(r#"{{"model":"openai/gpt-4o",{twice},"messages":[]}}"#);
            raw.send(request(CHAT, &key.value, "", &body)).await;
            check_body(&raw.reply().await, Some(field));
        }
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn a_body_above_the_limit_is_413() {
    house_with(
        |config| config["server"]["max_request_body"] = json!("64KiB"),
        async |house| {
            let key = house.key(json!({})).await;
            let mut body = chat();
            body["messages"][0]["content"] = json!("x".repeat(100_000));
            let body = body.to_string();
            // Announced: refused before it is read.
            let mut raw = Raw::connect(house).await;
            raw.send(request(CHAT, &key.value, "", &body)).await;
            raw.reply().await.refused(413, "request_too_large");
            // Not announced: refused when it is too much.
            let mut raw = Raw::connect(house).await;
            raw.send(format!(
                "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-bf-vk: {}\r\ntransfer-encoding: chunked\r\n\r\n",
                key.value
            ))
            .await;
            for piece in body.as_bytes().chunks(10_000) {
                if !raw.try_send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await {
                    break;
                }
            }
            raw.reply().await.refused(413, "request_too_large");
            // Up to the limit it is taken.
            let mut fits = chat();
            fits["messages"][0]["content"] = json!("x".repeat(64 * 1024 - chat().to_string().len() - 100));
            assert_eq!(house.chat(&key, &fits).await.status, 200);
            assert_eq!(house.fake.seen().len(), 1);
        },
    );
}

#[test]
fn a_length_together_with_chunks_is_400() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let mut raw = Raw::connect(house).await;
        raw.send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-bf-vk: {}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            key.value
        ))
        .await;
        raw.reply().await.refused(400, "ambiguous_length");
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn an_exhausted_budget_is_402_and_says_which_and_until_when() {
    house(async |house| {
        let key = house.key_with_budget(0.0035).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let reply = house.chat(&key, &chat()).await;
        let message = reply.refused(402, "budget_exceeded");
        for part in ["VK", "budget", "exceeded", "0.0035", "1h", "T"] {
            assert!(message.contains(part), "{message} lacks {part}");
        }
        assert!((1..=3_600).contains(&reply.retry_after()));
        let extra = &reply.json()["extra_fields"];
        assert_eq!((&extra["provider"], &extra["request_type"]), (&json!("openai"), &json!("chat_completion")));
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn the_budget_of_a_provider_config_is_402_and_says_so() {
    house(async |house| {
        let configs = json!([{"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"],
            "budget": {"max_limit": 0.001, "reset_duration": "1d"}}]);
        let key = house.key(json!({"provider_configs": configs})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
        assert!(!message.contains("VK"), "{message}");
    });
}

#[test]
fn an_exhausted_rate_limit_is_429() {
    house(async |house| {
        let requests = house.key(json!({"rate_limit": {"request_max_limit": 2, "request_reset_duration": "1h"}})).await;
        for _ in 0..2 {
            assert_eq!(house.chat(&requests, &chat()).await.status, 200);
        }
        house.idle().await;
        let reply = house.chat(&requests, &chat()).await;
        let message = reply.refused(429, "request_limited");
        assert!(message.contains("2/2") && message.contains("VK"), "{message}");
        assert!((1..=3_600).contains(&reply.retry_after()));

        let tokens = house.key(json!({"rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1h"}})).await;
        assert_eq!(house.chat(&tokens, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&tokens, &chat()).await.refused(429, "token_limited");
        assert!(message.contains("1100/1000"), "{message}");
        assert_eq!(house.fake.seen().len(), 3);
    });
}

#[test]
fn money_that_is_only_held_is_429_and_comes_back() {
    house(async |house| {
        let gate = crate::fake::Gate::new();
        house.fake.script([Good::gated(&gate)]);
        let key = house.key_with_budget(0.001).await;
        let mut open = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
        let reply = house.chat(&key, &chat()).await;
        let message = reply.refused(429, "budget_exceeded");
        assert!(message.contains("held"), "{message}");
        assert_eq!(reply.retry_after(), 1);
        (0..50).for_each(|_| gate.open());
        while open.chunk().await.unwrap().is_some() {}
    });
}

#[test]
fn an_unreachable_provider_is_502() {
    let nobody = free_port();
    let change = |config: &mut Value| {
        config["providers"]["openai"] = provider(&format!("http://127.0.0.1:{nobody}"), &[("main", "sk-x")])
    };
    house_with(change, async |house| {
        let key = house.key_with_budget(1.0).await;
        let reply = house.chat(&key, &chat()).await;
        reply.refused(502, "upstream_unreachable");
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn a_provider_that_breaks_off_before_its_answer_is_502() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        for behaviour in [
            only(Step::Reset),
            only(Step::Close),
            bytes("garbage\r\n\r\n"),
            raw_then("HTTP/1.1 200 OK\r\ncontent", Step::Close),
        ] {
            house.fake.script([behaviour]);
            let reply = house.chat(&key, &chat()).await;
            reply.refused(502, "upstream_unreachable");
        }
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn a_provider_that_is_silent_is_504() {
    let change = |config: &mut Value| {
        config["providers"]["openai"]["network_config"]["default_request_timeout_in_seconds"] = json!(1);
    };
    house_with(change, async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([only(Step::Stall), only(Step::Stall)]);
        house.chat(&key, &chat()).await.refused(504, "request_timed_out");
        house.fake.request(0).await.hung_up().await;
        house.chat(&key, &chat_stream()).await.refused(504, "request_timed_out");
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn a_provider_at_a_forbidden_address_is_not_called() {
    house_with(
        |config| config["server"]["upstream_private_addresses"] = json!("deny"),
        async |house| {
            let key = house.key(json!({})).await;
            house.chat(&key, &chat()).await.refused(502, "upstream_unreachable");
            assert!(house.fake.seen().is_empty());
        },
    );
}

#[test]
fn a_rejected_provider_key_is_our_fault_and_not_the_clients() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([status(401)]);
        let reply = house.chat(&key, &chat()).await;
        reply.refused(502, "upstream_credentials_rejected");
        assert!(!reply.body.windows(8).any(|window| window == b"the fake"));
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn other_errors_of_the_provider_are_passed_on_as_they_are() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        for code in [400, 403, 404, 422, 429, 500, 503, 529] {
            house.fake.script([crate::fake::answers::status_with(code, &[("retry-after", "7")])]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!(reply.status, code);
            assert_eq!(reply.body, crate::fake::answers::error_body(code).as_bytes());
            assert_eq!((reply.header("retry-after"), reply.header("x-tollgate-attempts")), (Some("7"), Some("1")));
        }
        assert_eq!(house.spent(&key).await, 0);
    });
}

#[test]
fn paths_and_methods_that_are_not_there() {
    house(async |house| {
        let key = house.key(json!({})).await;
        house.call("/v1/nothing", &key, &chat()).await.refused(404, "not_found");
        house.get(CHAT, &key).await.refused(405, "method_not_allowed");
        house.call("/v1/models", &key, &json!({})).await.refused(405, "method_not_allowed");
        house.get("/v1/models/openai/no-such-model", &key).await.refused(404, "not_found");
    });
}

#[test]
fn a_kind_of_request_that_the_provider_does_not_serve_is_400() {
    let change = |config: &mut Value| {
        let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        let mut provider = custom_provider(&url, &[("local", "sk-local")]);
        provider["custom_provider_config"]["allowed_requests"] = json!({"chat_completion": true});
        config["providers"]["local"] = provider;
    };
    house_with(change, async |house| {
        let configs = json!([{"provider": "local", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
        let key = house.key(json!({"provider_configs": configs})).await;
        let embed = json!({"model": "local/e", "input": "x"});
        house.call("/v1/embeddings", &key, &embed).await.refused(400, "unsupported_operation");
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn required_headers_are_required() {
    house_with(
        |config| config["client"] = json!({"required_headers": ["x-tenant"]}),
        async |house| {
            let key = house.key(json!({})).await;
            let message = house.chat(&key, &chat()).await.refused(400, "missing_required_headers");
            assert!(message.contains("x-tenant"));
            let sent = house.post(CHAT, &key, &chat()).header("X-Tenant", "a").send().await.unwrap();
            assert_eq!(sent.status(), 200);
        },
    );
}

#[test]
fn a_connection_survives_every_refusal() {
    house(async |house| {
        let key = house.key(json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}})).await;
        let mut raw = Raw::connect(house).await;
        let good = chat().to_string();
        let unknown = Key::unknown().value;
        let blocked = good.replace("openai/gpt-4o", "anthropic/x");
        for (key, body, status) in [
            ("", &*good, 401),
            (&*unknown, &*good, 401),
            (&*key.value, "{}", 400),
            (&*key.value, &*blocked, 403),
            (&*key.value, &*good, 200),
            (&*key.value, &*good, 429),
            (&*key.value, &*good, 429),
        ] {
            raw.send(request(CHAT, key, "", body)).await;
            assert_eq!(raw.reply().await.status, status, "{body}");
            house.idle().await;
        }
        raw.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(raw.reply().await.status, 200);
    });
}
