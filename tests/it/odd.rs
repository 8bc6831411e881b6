//! Legal, but not what one is used to: answers without a length, hints before the answer, compressed
//! and mislabelled ones, and clients of an older or newer kind.

use crate::fake::answers::{Good, raw as bytes, raw_then};
use crate::fake::{Behaviour, Bill, Gate, Step};
use crate::house::{GPT_4O_OUTPUT, Key, Reply, chat, chat_stream, cost, house, nanos, soon};
use crate::raw::{Raw, request};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

/// A good answer to a chat, as text.
fn document() -> String {
    Good::default().document(CHAT, &json!({"model": "gpt-4o"}))
}

#[test]
fn hints_before_an_answer_are_passed_over() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let document = document();
        house.fake.script([bytes(format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{document}",
            document.len()
        ))]);
        let reply = house.chat(&key, &chat()).await;
        assert_eq!((reply.status, &reply.body[..]), (200, document.as_bytes()));
        assert_eq!(house.spent(&key).await, cost(house.fake.billed()) + cost(Bill { input: 1_000, output: 100 }));
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        for version in ["1.0", "1.1"] {
            let head = format!("HTTP/{version} 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n");
            house.fake.script([raw_then(format!("{head}{}", document()), Step::Close)]);
            let reply = house.chat(&key, &chat()).await;
            assert_eq!((reply.status, &reply.body[..]), (200, document().as_bytes()), "{version}");
        }
        assert_eq!(house.spent(&key).await, 2 * cost(Bill { input: 1_000, output: 100 }));
    });
}

#[test]
fn a_stream_with_a_length_loses_it_with_its_usage() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let asked = json!({"model": "gpt-4o", "stream": true, "stream_options": {"include_usage": true}});
        let events = Good::default().events(CHAT, &asked);
        let whole = events.concat();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n", whole.len());
        house.fake.script([bytes(format!("{head}{whole}"))]);
        let reply = house.chat(&key, &chat_stream()).await;
        let expected: String = events.into_iter().filter(|event| !event.contains(r#""choices":[]"#)).collect();
        assert_eq!(String::from_utf8_lossy(&reply.body), expected);
        assert_eq!(house.spent(&key).await, cost(Bill { input: 1_000, output: 100 }));
    });
}

#[test]
fn a_document_in_answer_to_a_stream_is_charged_by_its_usage() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let document = document();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", document.len());
        house.fake.script([bytes(format!("{head}{document}"))]);
        let reply = house.chat(&key, &chat_stream()).await;
        assert_eq!(&reply.body[..], document.as_bytes());
        assert_eq!(house.spent(&key).await, cost(Bill { input: 1_000, output: 100 }));
    });
}

#[test]
fn a_compressed_answer_passes_and_is_charged_by_estimate() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let body = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff, 0, 1, 2];
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        house.fake.script([bytes([head.as_bytes(), &body].concat())]);
        let reply = house.chat(&key, &chat()).await;
        assert_eq!((reply.status, &reply.body[..]), (200, &body[..]));
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        assert!((GPT_4O_OUTPUT..=5_000 * GPT_4O_OUTPUT).contains(&house.spent(&key).await));
    });
}

#[test]
fn a_client_of_http_1_0_is_served() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        for body in [chat(), chat_stream()] {
            let mut raw = Raw::connect(house).await;
            let text = request(CHAT, &key.value, "", &body.to_string()).replace("HTTP/1.1", "HTTP/1.0");
            raw.send(text).await;
            let head = raw.head().await.unwrap();
            assert_eq!(head.status, 200);
            assert!(head.headers.get("transfer-encoding").is_none(), "{}", head.text);
            let mut got = 0;
            while let Some(more) = soon("the rest", raw.take()).await {
                got += more;
                let length = head.headers.get("content-length").map(|value| value.to_str().unwrap().parse().unwrap());
                if length == Some(got) {
                    break;
                }
            }
            assert!(got > 100);
        }
    });
}

#[test]
fn refusals_over_http_2_keep_the_connection() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let ask = async |key: &Key, body: String| {
            let request = http2.post(format!("{}{CHAT}", house.proxy)).bearer_auth(&key.value).body(body);
            Reply::read(soon("an answer", request.send()).await.unwrap()).await
        };
        ask(&Key::unknown(), chat().to_string()).await.refused(401, "virtual_key_not_found");
        // Refused with a body still on its way.
        ask(&Key::unknown(), "x".repeat(3 * 1024 * 1024)).await.refused(401, "virtual_key_not_found");
        ask(&key, "{}".to_owned()).await.refused(400, "invalid_request");
        assert_eq!(ask(&key, chat().to_string()).await.status, 200);
    });
}

#[test]
fn many_at_once_make_no_more_requests_than_are_allowed() {
    house(async |house| {
        let key = house.key(json!({"rate_limit": {"request_max_limit": 10, "request_reset_duration": "1h"}})).await;
        let (house, key) = (&*house, &key);
        let statuses: Vec<u16> = join_all((0..60).map(async |_| house.chat(key, &chat()).await.status)).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
        assert_eq!(house.fake.seen().len(), 10);
        house.idle().await;
        assert_eq!(house.quota(key).await["rate_limit"]["request_current_usage"], 10);
    });
}

#[test]
fn requests_that_never_reached_a_provider_do_not_count() {
    let nobody = crate::house::free_port();
    let change = |config: &mut serde_json::Value| {
        config["providers"]["openai"]["network_config"]["base_url"] = json!(format!("http://127.0.0.1:{nobody}"));
    };
    crate::house::house_with(change, async |house| {
        let limit = json!({"request_max_limit": 5, "request_reset_duration": "1h", "token_max_limit": 100, "token_reset_duration": "1h"});
        let key = house.key(json!({"rate_limit": limit})).await;
        for _ in 0..10 {
            house.chat(&key, &chat()).await.refused(502, "upstream_unreachable");
            house.idle().await;
        }
        let quota = house.quota(&key).await;
        assert_eq!(quota["rate_limit"]["request_current_usage"], 0, "{quota}");
        assert_eq!(quota["rate_limit"]["token_current_usage"], 0, "{quota}");
    });
}

#[test]
fn clients_that_leave_at_any_moment_leak_nothing() {
    house(async |house| {
        let key = house.key_with_budget(100.0).await;
        let (house, key) = (&*house, &key);
        let leave = async |n: u64| {
            let body = if n.is_multiple_of(3) { chat() } else { chat_stream() };
            let patience = Duration::from_micros(n * 200);
            let call = async {
                let mut response = house.post(CHAT, key, &body).send().await.unwrap();
                for _ in 0..n % 5 {
                    response.chunk().await.unwrap();
                }
            };
            let _ = tokio::time::timeout(patience, call).await;
        };
        join_all((0..150).map(leave)).await;
        house.idle().await;
        // Nobody paid for more than was asked for, and the house still serves. A request that was on its way
        // when its client left may be paid for without the provider having seen it.
        let most = 150 * cost(Bill { input: 1_000, output: 5_000 });
        assert!(house.spent(key).await <= most);
        assert_eq!(house.chat(key, &chat()).await.status, 200);
        house.written().await;
    });
}

#[test]
fn an_error_in_mid_stream_ends_no_differently() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let event = |data: &str| crate::fake::answers::framed(format!("data: {data}\n\n").as_bytes());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let word = event(r#"{"choices":[{"index":0,"delta":{"content":"Hello"}}]}"#);
        let error = event(r#"{"error":{"message":"out of luck","type":"server_error"}}"#);
        house.fake.script([bytes([head.as_bytes(), &word, &error, b"0\r\n\r\n"].concat())]);
        let reply = house.chat(&key, &chat_stream()).await;
        assert_eq!(reply.status, 200);
        assert!(String::from_utf8_lossy(&reply.body).ends_with("\"type\":\"server_error\"}}\n\n"), "{reply:?}");
        assert!((GPT_4O_OUTPUT..50 * GPT_4O_OUTPUT).contains(&house.spent(&key).await));
    });
}

#[test]
fn comments_that_keep_a_stream_open_pass_at_once() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let gate = Gate::new();
        let comment = ": still thinking\n\n";
        let script = gate.clone();
        house.fake.script([Behaviour::new(move |request| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let first = [head.as_bytes(), &crate::fake::answers::framed(comment.as_bytes())].concat();
            let mut steps = vec![Step::Send(first.into()), Step::Await(script.clone())];
            // What comes after the head of a good stream.
            steps.extend(Good::default().steps(request).into_iter().skip(2));
            steps
        })]);
        let mut response = soon("the head", house.post(CHAT, &key, &chat_stream()).send()).await.unwrap();
        assert_eq!(soon("the comment", response.chunk()).await.unwrap().unwrap(), comment);
        gate.open();
        while let Some(_more) = soon("the rest", response.chunk()).await.unwrap() {}
        assert_eq!(house.spent(&key).await, cost(Bill { input: 1_000, output: 100 }));
    });
}

#[test]
fn every_level_pays_for_a_call() {
    house(async |house| {
        let config = json!({"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"],
            "budget": {"max_limit": 5, "reset_duration": "1d"},
            "rate_limit": {"token_max_limit": 100_000, "token_reset_duration": "1h"}});
        let budgets = json!([{"max_limit": 1, "reset_duration": "1h"}, {"max_limit": 9, "reset_duration": "1M"}]);
        let key = house.key(json!({"provider_configs": [config], "budgets": budgets})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let quota = house.quota(&key).await;
        let config = &quota["provider_configs"][0];
        for budget in [&quota["budgets"][0], &quota["budgets"][1], &config["budgets"][0]] {
            assert_eq!(nanos(&budget["current_usage"]), 3_500_000, "{quota}");
        }
        assert_eq!(config["rate_limit"]["token_current_usage"], 1_100, "{quota}");
    });
}
