//! Requests on their way up: of any size, framed in any way, unchanged but for the model's name.

use crate::fake::answers::{End, Good, only, raw_then, status};
use crate::fake::{Behaviour, Read, Step};
use crate::house::{House, Key, Reply, chat, custom_provider, house, house_with, provider, soon};
use crate::raw::{Raw, request};
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const MIB: usize = 1024 * 1024;

/// A chat of about so many bytes.
fn long_chat(bytes: usize) -> String {
    format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"openai/gpt-4o","temperature":0.10}}"#,
        "x".repeat(bytes)
    )
}

/// What of a body must reach the provider.
fn upstream(body: &str) -> String {
    body.replace("openai/gpt-4o", "gpt-4o")
}

async fn post(client: &reqwest::Client, house: &House, key: &Key, body: &str) -> Reply {
    let request = client.post(format!("{}{CHAT}", house.proxy)).bearer_auth(&key.value).body(body.to_owned());
    Reply::read(soon("an answer", request.send()).await.unwrap()).await
}

#[test]
fn every_byte_but_the_models_name_stays() {
    house(async |house| {
        let key = house.key(json!({})).await;
        for body in [
            r#" { "model" :  "openai/gpt-4o" , "messages":[],"big":12345678901234567890.50,"a":1,"a":2 } "#,
            r#"{"messages":[{"role":"user","content":"\u00e9\ud83d\ude00 model \"model\":\"openai/gpt-4o-mini\""}],"model":"gpt-4o"}"#,
            "{\"model\":\"gpt-4o\",\"messages\":[],\"store\":null,\"unknown\":{\"deep\":[1e400,-0.0,{}]}}",
        ] {
            let body = body.replace("1e400", "1e40");
            let reply = post(&house.http, house, &key, &body).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            let seen = house.fake.seen().last().unwrap().body.clone();
            assert_eq!(String::from_utf8_lossy(&seen), body.replace(r#""openai/gpt-4o""#, r#""gpt-4o""#));
        }
    });
}

#[test]
fn sizes_around_every_buffer_pass() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let frame = long_chat(0).len();
        for size in [1_000, 65_535, 65_536, 65_537, 131_072, 131_073, 5 * MIB] {
            let body = long_chat(size - frame);
            assert_eq!(body.len(), size);
            assert_eq!(post(&house.http, house, &key, &body).await.status, 200, "{size}");
            let seen = house.fake.seen().last().unwrap().clone();
            assert!(seen.body == upstream(&body).as_bytes(), "{size}: {} bytes arrived", seen.body.len());
            assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()));
        }
    });
}

#[test]
fn twenty_mebibytes_pass_over_http_1_and_2_and_fall_over() {
    let change = |config: &mut Value| {
        let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        config["providers"]["openai"] = provider(&url, &[("a", "sk-a"), ("b", "sk-b")]);
        config["providers"]["local"] = custom_provider(&url, &[("local", "sk-local")]);
    };
    house_with(change, async |house| {
        let key = house.key(json!({})).await;
        let body = long_chat(20 * MIB);
        let expected = upstream(&body);
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for client in [&house.http, &http2] {
            for first in [None, Some(status(503)), Some(only(Step::Reset)), Some(early(status(500)))] {
                let before = house.fake.seen().len();
                let attempts = if first.is_some() { "2" } else { "1" };
                house.fake.script(first.into_iter().chain([Good::ending(End::GoodThenClose).into()]));
                let reply = post(client, house, &key, &body).await;
                assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some(attempts)), "{reply:?}");
                let seen = house.fake.seen();
                assert_eq!((seen.len() - before).to_string(), attempts);
                assert!(seen.last().unwrap().body == expected.as_bytes());
            }
        }
    });
}

/// Answers before the body was read, and closes.
fn early(behaviour: Behaviour) -> Behaviour {
    behaviour.reading(Read::Head)
}

#[test]
fn a_long_body_falls_over_to_another_provider() {
    let change = |config: &mut Value| {
        let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
        config["providers"]["local"] = custom_provider(&url, &[("local", "sk-local")]);
    };
    house_with(change, async |house| {
        let config = |provider: &str, weight: u32| json!({"provider": provider, "weight": weight, "allowed_models": ["gpt-4o"], "key_ids": ["*"]});
        let key = house.key(json!({"provider_configs": [config("local", 1), config("openai", 0)]})).await;
        let body = upstream(&long_chat(MIB));
        house.fake.script([status(503), Good::default().into()]);
        let reply = post(&house.http, house, &key, &body).await;
        assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")));
        assert!(house.fake.seen().iter().all(|request| request.body == body.as_bytes()));
    });
}

#[test]
fn an_answer_before_the_body_was_read_is_passed_on() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let body = long_chat(8 * MIB);
        // Still reading, and not reading any more.
        let text = crate::fake::answers::error_body(413);
        let head = format!(
            "HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        for behaviour in [status(413), raw_then(head, Step::Close)] {
            house.fake.script([early(behaviour)]);
            let reply = post(&house.http, house, &key, &body).await;
            assert_eq!((reply.status, &reply.body[..]), (413, text.as_bytes()), "{reply:?}");
        }
    });
}

#[test]
fn a_provider_that_reads_slowly_gets_everything() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let body = long_chat(4 * MIB);
        house.fake.script([Behaviour::from(Good::default()).reading(Read::Slowly(Duration::from_millis(2)))]);
        assert_eq!(post(&house.http, house, &key, &body).await.status, 200);
        assert!(house.fake.seen()[0].body == upstream(&body).as_bytes());
    });
}

#[test]
fn a_body_in_chunks_gets_a_length() {
    house(async |house| {
        let key = house.key(json!({})).await;
        for size in [10, 200_000] {
            let body = long_chat(size);
            let mut raw = Raw::connect(house).await;
            let head = format!(
                "POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-bf-vk: {}\r\ntransfer-encoding: chunked\r\n\r\n",
                key.value
            );
            raw.send(head).await;
            for piece in body.as_bytes().chunks(9_999) {
                raw.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
            }
            raw.send("0\r\n\r\n").await;
            assert_eq!(raw.reply().await.status, 200);
            let seen = house.fake.seen().last().unwrap().clone();
            assert!(seen.body == upstream(&body).as_bytes());
            assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()));
            assert_eq!(seen.header("transfer-encoding"), None);
            // The connection goes on.
            raw.send(request(CHAT, &key.value, "", &chat().to_string())).await;
            assert_eq!(raw.reply().await.status, 200);
        }
    });
}

#[test]
fn a_client_that_expects_continue_is_told_so() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let body = long_chat(100_000);
        let mut raw = Raw::connect(house).await;
        let whole = request(CHAT, &key.value, "expect: 100-continue\r\n", &body);
        let (head, body) = whole.split_at(whole.len() - body.len());
        raw.send(head).await;
        assert_eq!(raw.head().await.unwrap().status, 100);
        raw.send(body).await;
        assert_eq!(raw.reply().await.status, 200);
        assert_eq!(house.fake.seen()[0].header("expect"), None);
        // Somebody who may not go on is not told to.
        let mut raw = Raw::connect(house).await;
        raw.send(head.replace(&key.value, &Key::unknown().value)).await;
        assert_eq!(raw.reply().await.status, 401);
    });
}

#[test]
fn a_client_that_leaves_in_mid_upload_is_no_call() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let whole = request(CHAT, &key.value, "", &long_chat(100_000));
        let mut raw = Raw::connect(house).await;
        raw.send(&whole[..50_000]).await;
        drop(raw);
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.spent(&key).await;
        assert_eq!(house.fake.seen().len(), 1);
    });
}
