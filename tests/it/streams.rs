//! Answers on their way: each piece at once, nothing held, nothing made to look whole that is not.

use crate::fake::Gate;
use crate::fake::answers::{Cut, End, Good, LONG_STREAM_END, long_stream};
use crate::house::{GPT_4O_OUTPUT, chat, chat_stream, eventually, house, house_with, provider, soon};
use crate::raw::{Raw, request};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

#[test]
fn each_chunk_arrives_before_the_next_is_sent() {
    // With one key, and with a second one that could take over, for which the head is held back.
    for keys in [&[("a", "sk-a")][..], &[("a", "sk-a"), ("b", "sk-b")]] {
        let change = |config: &mut serde_json::Value| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["openai"] = provider(&url, keys);
        };
        house_with(change, async |house| {
            let key = house.key_with_budget(1.0).await;
            let gate = Gate::new();
            let good = Good::gated(&gate);
            house.fake.script([good.clone()]);
            let mut response = soon("the head", house.post(CHAT, &key, &chat_stream()).send()).await.unwrap();
            let mut asked = chat_stream();
            (asked["model"], asked["stream_options"]) = (json!("gpt-4o"), json!({"include_usage": true}));
            let mut expected = good.events(CHAT, &asked);
            let withheld = expected.iter().position(|event| event.contains(r#""choices":[]"#)).unwrap();
            expected.remove(withheld);
            for (n, event) in expected.iter().enumerate() {
                // The gate stands before every piece but the first: nothing more was sent than this.
                if n > 0 {
                    gate.open();
                }
                if n == withheld {
                    gate.open();
                }
                let mut got = Vec::new();
                while got.len() < event.len() {
                    got.extend_from_slice(&soon("the next event", response.chunk()).await.unwrap().unwrap());
                }
                assert_eq!(String::from_utf8_lossy(&got), *event);
            }
            assert_eq!(response.chunk().await.unwrap(), None);
        });
    }
}

#[test]
fn a_broken_stream_is_a_cut_over_http_1() {
    house(async |house| {
        let key = house.key(json!({})).await;
        for end in [End::CloseAfter(3), End::ResetAfter(3)] {
            house.fake.script([Good::ending(end)]);
            let mut raw = Raw::connect(house).await;
            raw.send(request(CHAT, &key.value, "", &chat_stream().to_string())).await;
            let head = raw.head().await.unwrap();
            assert_eq!((head.status, &head.headers["transfer-encoding"]), (200, &"chunked".parse().unwrap()));
            let (body, ended) = raw.chunks().await;
            assert!(!ended, "{end:?}: a good end after {body:?}");
        }
        // A document that is shorter than it says.
        house.fake.script([Good::ending(End::CloseAfter(1))]);
        let mut raw = Raw::connect(house).await;
        raw.send(request(CHAT, &key.value, "", &chat().to_string())).await;
        let head = raw.head().await.unwrap();
        assert!(head.headers.contains_key("content-length"), "{}", head.text);
        let length: usize = head.headers["content-length"].to_str().unwrap().parse().unwrap();
        let mut got = 0;
        while let Some(more) = soon("the cut", raw.take()).await {
            got += more;
        }
        assert!(got < length);
    });
}

#[test]
fn a_broken_stream_is_an_error_over_http_2() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        for end in [End::CloseAfter(3), End::ResetAfter(3)] {
            for body in [chat_stream(), chat()] {
                house.fake.script([Good::ending(if body["stream"] == true { end } else { End::CloseAfter(1) })]);
                let sent =
                    http2.post(format!("{}{CHAT}", house.proxy)).bearer_auth(&key.value).json(&body).send().await;
                // The reset may be here before anybody looked at the head.
                let Ok(response) = sent else { continue };
                assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
                let read = soon("the cut", response.bytes()).await;
                assert!(read.is_err(), "{end:?} {body}: a broken answer looked whole: {read:?}");
            }
        }
        // The connection still serves whole ones.
        for body in [chat_stream(), chat()] {
            let sent = http2.post(format!("{}{CHAT}", house.proxy)).bearer_auth(&key.value).json(&body).send().await;
            assert!(!sent.unwrap().bytes().await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_stream_over_http_2_is_whole_and_charged() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let url = format!("{}{CHAT}", house.proxy);
        let response = http2.post(&url).bearer_auth(&key.value).json(&chat_stream()).send().await.unwrap();
        assert!(response.headers().get("transfer-encoding").is_none());
        let text = response.text().await.unwrap();
        assert!(text.ends_with("data: [DONE]\n\n") && !text.contains(r#""usage":{"#), "{text}");
        assert_eq!(house.spent(&key).await, crate::house::cost(house.fake.billed()));
    });
}

#[test]
fn a_client_that_leaves_over_http_2_stops_the_provider() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let gate = Gate::new();
        house.fake.script([Good::gated(&gate)]);
        let url = format!("{}{CHAT}", house.proxy);
        let mut response = http2.post(&url).bearer_auth(&key.value).json(&chat_stream()).send().await.unwrap();
        response.chunk().await.unwrap().unwrap();
        // Only this stream is reset; its connection lives on.
        drop(response);
        house.fake.request(0).await.hung_up().await;
        assert!((1..100 * GPT_4O_OUTPUT).contains(&house.spent(&key).await));
        let again = http2.post(&url).bearer_auth(&key.value).json(&chat()).send().await.unwrap();
        assert_eq!(again.status(), 200);
    });
}

#[test]
fn a_long_stream_cut_anywhere_passes_unchanged() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let words: Vec<String> = (0..2_000).map(|n| format!(" word-{n}-é\"\\\n")).collect();
        for cut in [Cut::Every(1_009), Cut::Every(65_000)] {
            let good = Good { words: words.clone(), cut, ..Good::default() };
            house.fake.script([good.clone()]);
            let reply = house.chat(&key, &chat_stream()).await;
            let upstream = house.fake.seen().last().unwrap().json();
            let mut expected = good.events(CHAT, &upstream);
            expected.retain(|event| !event.contains(r#""choices":[]"#));
            assert!(reply.body == expected.concat().as_bytes(), "{cut:?}");
        }
    });
}

#[test]
fn a_slow_reader_slows_the_provider_down() {
    house(async |house| {
        let key = house.key(json!({})).await;
        // More than all buffers of sockets on the way can hold.
        let event =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(64 * 1024 - 64));
        let events = 1_000;
        let (behaviour, sent) = long_stream(&event, events);
        house.fake.script([behaviour]);
        let mut response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
        let mut got = response.chunk().await.unwrap().unwrap().len();
        // It fills what buffers there are, and stops: while we read nothing, it cannot come to its end.
        let mut last = usize::MAX;
        eventually("the provider to stop", async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = sent.load(Ordering::Relaxed);
            std::mem::replace(&mut last, now) == now
        })
        .await;
        assert!(last < events, "a reader that reads nothing was sent everything");
        while let Some(chunk) = response.chunk().await.unwrap() {
            got += chunk.len();
        }
        assert_eq!(got, events * event.len() + LONG_STREAM_END.len());
    });
}
