//! What is charged, however a call ends: exactly the provider's bill where it is told, a fair estimate
//! where it is not, nothing where nothing was produced. And never more than the limit and one call.

use crate::fake::answers::{Cut, End, Good, Told, error_first, last_status, only, raw_then};
use crate::fake::{Behaviour, Bill, Gate, Step};
use crate::house::{
    GPT_4O_CACHED, GPT_4O_INPUT, GPT_4O_OUTPUT, House, Key, SOON, chat, chat_stream, cost, eventually, house,
    house_with, nanos, soon,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

/// The usual bill, which is also the usual usage: 1,000 tokens in, 100 out.
const USUAL: Bill = Bill { input: 1_000, output: 100 };

#[test]
fn told_usage_is_charged_exactly() {
    house(async |house| {
        let key = house.key_with_budget(10.0).await;
        let mut expected = 0;
        let mut check = async |body: Value, good: Good, nanos: u64| {
            house.fake.script([good]);
            assert_eq!(house.chat(&key, &body).await.status, 200);
            expected += nanos;
            assert_eq!(house.spent(&key).await, expected, "{body}");
        };
        check(chat(), Good::default(), cost(USUAL)).await;
        check(chat_stream(), Good::default(), cost(USUAL)).await;
        check(chat(), Good::billing(1, 1), GPT_4O_INPUT + GPT_4O_OUTPUT).await;
        // Words came, so "nothing" is not the truth: the estimate of what was sent and delivered.
        check(chat(), Good::billing(0, 0), 10 * GPT_4O_INPUT + 10 * GPT_4O_OUTPUT).await;
        let cached = json!({"prompt_tokens": 1_200, "completion_tokens": 7, "total_tokens": 1_207,
            "prompt_tokens_details": {"cached_tokens": 1_024}});
        let cached_cost = 176 * GPT_4O_INPUT + 1_024 * GPT_4O_CACHED + 7 * GPT_4O_OUTPUT;
        check(chat(), Good::telling(Told::This(cached.clone())), cached_cost).await;
        check(chat_stream(), Good::telling(Told::This(cached)), cached_cost).await;
        let reasoned = json!({"prompt_tokens": 10, "completion_tokens": 90, "total_tokens": 100,
            "completion_tokens_details": {"reasoning_tokens": 80}});
        check(chat(), Good::telling(Told::This(reasoned)), 10 * GPT_4O_INPUT + 90 * GPT_4O_OUTPUT).await;
        // Above the hold, and charged in full.
        check(chat(), Good::billing(100_000, 16_000), cost(Bill { input: 100_000, output: 16_000 })).await;
    });
}

#[test]
fn every_kind_of_request_is_charged() {
    house(async |house| {
        let key = house.key_with_budget(10.0).await;
        let mut expected = 0;
        let mut check = async |path: &str, body: Value, nanos: u64| {
            assert_eq!(house.call(path, &key, &body).await.status, 200, "{path}");
            expected += nanos;
            assert_eq!(house.spent(&key).await, expected, "{path} {body}");
        };
        for stream in [false, true] {
            let responses = json!({"model": "openai/gpt-4o", "input": "hello", "stream": stream});
            check("/v1/responses", responses, cost(USUAL)).await;
            let completion = json!({"model": "openai/gpt-4o", "prompt": "hello", "stream": stream});
            check("/v1/completions", completion, cost(USUAL)).await;
        }
        house.fake.usually(Good::billing(1_000, 0));
        let embedding = json!({"model": "openai/text-embedding-3-small", "input": ["hello", "there"]});
        check("/v1/embeddings", embedding, 1_000 * 20).await;
    });
}

#[test]
fn tokens_and_requests_count_against_rate_limits() {
    house(async |house| {
        let limit = json!({"token_max_limit": 100_000, "token_reset_duration": "1h",
            "request_max_limit": 100, "request_reset_duration": "1h"});
        let key = house.key(json!({"rate_limit": limit})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.chat(&key, &chat_stream()).await.status, 200);
        house.idle().await;
        let quota = house.quota(&key).await;
        assert_eq!(quota["rate_limit"]["token_current_usage"], 2_200, "{quota}");
        assert_eq!(quota["rate_limit"]["request_current_usage"], 2, "{quota}");
    });
}

#[test]
fn a_stream_is_the_same_bytes_with_and_without_usage() {
    house(async |house| {
        let key = house.key_with_budget(10.0).await;
        let good = Good::default();
        let mut spent = 0;
        for cut in [Cut::Events, Cut::Whole, Cut::Every(1), Cut::Every(7), Cut::Every(100)] {
            for asks in [None, Some(false), Some(true)] {
                house.fake.script([Good { cut, ..good.clone() }]);
                let mut body = chat_stream();
                if let Some(asks) = asks {
                    body["stream_options"] = json!({"include_usage": asks});
                }
                let reply = house.chat(&key, &body).await;
                let upstream = house.fake.seen().last().unwrap().json();
                assert_eq!(upstream["stream_options"]["include_usage"], true, "{upstream}");
                // What the provider sent, less the usage event that only the proxy had asked for.
                let mut expected = good.events(CHAT, &upstream);
                if asks != Some(true) {
                    expected.retain(|event| !event.contains(r#""choices":[]"#));
                }
                assert_eq!(String::from_utf8_lossy(&reply.body), expected.concat(), "{cut:?} {asks:?}");
                spent += cost(USUAL);
                assert_eq!(house.spent(&key).await, spent, "{cut:?} {asks:?}");
            }
        }
    });
}

/// What may be charged for a call whose usage was not told: at least a token for each word that was
/// delivered, at most a token for each byte that passed.
#[track_caller]
fn check_estimate(spent: u64, words: u64, bytes: u64) {
    let (least, most) = (words * GPT_4O_OUTPUT, 50 * GPT_4O_INPUT + bytes * GPT_4O_OUTPUT);
    assert!((least + 1..=most).contains(&spent), "{spent} is not between {least} and {most}");
}

#[test]
fn failures_before_any_output_cost_nothing() {
    house_with(
        |config| config["providers"]["openai"]["network_config"]["default_request_timeout_in_seconds"] = json!(1),
        async |house| {
            let key = house.key_with_budget(1.0).await;
            let behaviours = [400, 401, 403, 404, 429, 500, 503].map(last_status).into_iter().chain([
                only(Step::Reset),
                only(Step::Close),
                only(Step::Stall),
                raw_then("HTTP/1.1 200 OK\r\n", Step::Close),
            ]);
            for behaviour in behaviours {
                house.fake.script([behaviour]);
                assert!(house.chat(&key, &chat()).await.status >= 400);
                assert_eq!(house.spent(&key).await, 0);
            }
        },
    );
}

#[test]
fn an_answer_without_usage_is_charged_by_estimate() {
    house(async |house| {
        for body in [chat(), chat_stream()] {
            let key = house.key_with_budget(1.0).await;
            house.fake.script([Good::telling(Told::Nothing)]);
            assert_eq!(house.chat(&key, &body).await.status, 200);
            // Of a document nobody knows how much it took to write it, so the hold is the bound.
            check_estimate(house.spent(&key).await, 7, 4_100);
        }
    });
}

#[test]
fn absurd_usage_is_charged_as_held() {
    house(async |house| {
        for usage in [
            json!({"prompt_tokens": -5, "completion_tokens": 1}),
            json!({"prompt_tokens": 10, "completion_tokens": 1.5}),
            json!({"prompt_tokens": "10", "completion_tokens": "1"}),
            json!({"prompt_tokens": 900_000_000_000_000_000_u64, "completion_tokens": 1}),
            json!({"prompt_tokens": 10, "completion_tokens": 90_000_000}),
            json!({"tokens": 10}),
        ] {
            for (body, name) in [(chat(), "document"), (chat_stream(), "stream")] {
                let mut body = body;
                body["max_tokens"] = json!(50);
                let key = house.key_with_budget(1.0).await;
                house.fake.script([Good::telling(Told::This(usage.clone()))]);
                assert_eq!(house.chat(&key, &body).await.status, 200);
                let spent = house.spent(&key).await;
                // The hold: 50 tokens of output and a short prompt.
                let (least, most) = (50 * GPT_4O_OUTPUT, 50 * GPT_4O_OUTPUT + 50 * GPT_4O_INPUT);
                assert!((least..=most).contains(&spent), "{usage} in a {name}: {spent}");
            }
        }
    });
}

#[test]
fn a_broken_answer_is_charged_for_what_came() {
    house(async |house| {
        for end in [End::CloseAfter(4), End::ResetAfter(4)] {
            let key = house.key_with_budget(1.0).await;
            house.fake.script([Good::ending(end)]);
            let response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
            assert!(response.bytes().await.is_err(), "{end:?}: a broken stream looked whole");
            check_estimate(house.spent(&key).await, if end == End::CloseAfter(4) { 3 } else { 0 }, 40);
        }
        let key = house.key_with_budget(1.0).await;
        house.fake.script([Good::ending(End::CloseAfter(1))]);
        let response = house.post(CHAT, &key, &chat()).send().await.unwrap();
        assert!(response.bytes().await.is_err(), "a broken document looked whole");
        check_estimate(house.spent(&key).await, 0, 4_100);
    });
}

#[test]
fn a_stream_that_falls_silent_is_cut_and_charged_for_what_came() {
    house_with(
        |config| config["providers"]["openai"]["network_config"]["stream_idle_timeout_in_seconds"] = json!(1),
        async |house| {
            let key = house.key_with_budget(1.0).await;
            house.fake.script([Good::ending(End::StallAfter(4))]);
            let response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
            assert!(soon("the cut", response.bytes()).await.is_err(), "a stalled stream looked whole");
            house.fake.request(0).await.hung_up().await;
            check_estimate(house.spent(&key).await, 3, 40);
        },
    );
}

#[test]
fn an_error_within_a_stream_is_passed_on_and_charged_by_what_is_known() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([error_first()]);
        let reply = house.chat(&key, &chat_stream()).await;
        assert_eq!(reply.status, 200);
        assert!(String::from_utf8_lossy(&reply.body).contains("overloaded"));
        // Nothing was generated: at most the prompt is charged.
        assert!(house.spent(&key).await <= 50 * GPT_4O_INPUT);
    });
}

/// Begins a stream, takes some of its chunks, and leaves.
async fn leave_after(house: &House, key: &Key, chunks: usize) {
    let mut response = house.post(CHAT, key, &chat_stream()).send().await.unwrap();
    for _ in 0..chunks {
        soon("a chunk", response.chunk()).await.unwrap().unwrap();
    }
}

#[test]
fn a_client_that_leaves_in_mid_stream_stops_the_provider_and_pays_for_what_came() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let gate = Gate::new();
        house.fake.script([Good::gated(&gate)]);
        (0..3).for_each(|_| gate.open());
        leave_after(house, &key, 1).await;
        house.fake.request(0).await.hung_up().await;
        check_estimate(house.spent(&key).await, 0, 60);
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn a_client_that_leaves_before_the_head_stops_the_provider() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([only(Step::Stall), only(Step::Stall)]);
        for n in 0..2 {
            let asking = tokio::spawn(house.post(CHAT, &key, &if n == 0 { chat() } else { chat_stream() }).send());
            let request = house.fake.request(n).await;
            asking.abort();
            request.hung_up().await;
            // The prompt was read by the provider, perhaps.
            assert!(house.spent(&key).await <= 5_000 * GPT_4O_OUTPUT);
        }
        assert_eq!(house.fake.seen().len(), 2);
    });
}

#[test]
fn a_drain_after_the_client_left_learns_the_true_usage() {
    house_with(
        |config| config["server"]["drain_after_disconnect"] = json!("10s"),
        async |house| {
            let key = house.key_with_budget(1.0).await;
            let gate = Gate::new();
            // In mid-stream.
            house.fake.script([Good::gated(&gate)]);
            leave_after(house, &key, 1).await;
            (0..50).for_each(|_| gate.open());
            assert_eq!(house.spent(&key).await, cost(USUAL));
            assert!(!house.fake.request(0).await.has_hung_up());
            // Before the head, of a stream and of a document.
            for (n, body) in [(1, chat_stream()), (2, chat())] {
                let (before, gate) = (house.spent(&key).await, Gate::new());
                house.fake.script([delayed(&gate)]);
                let asking = tokio::spawn(house.post(CHAT, &key, &body).send());
                let request = house.fake.request(n).await;
                asking.abort();
                gate.open();
                assert_eq!(house.spent(&key).await - before, cost(USUAL), "{body}");
                assert!(!request.has_hung_up());
            }
        },
    );
}

/// A good answer that begins when the test says so.
fn delayed(gate: &Gate) -> Behaviour {
    let gate = gate.clone();
    Behaviour::new(move |request| {
        let mut steps = vec![Step::Await(gate.clone())];
        steps.extend(Good::default().steps(request));
        steps
    })
}

#[test]
fn a_drain_ends_when_its_time_is_over() {
    house_with(
        |config| config["server"]["drain_after_disconnect"] = json!("200ms"),
        async |house| {
            let key = house.key_with_budget(1.0).await;
            house.fake.script([Good::ending(End::StallAfter(3))]);
            leave_after(house, &key, 1).await;
            house.fake.request(0).await.hung_up().await;
            check_estimate(house.spent(&key).await, 1, 60);
        },
    );
}

#[test]
fn many_at_once_spend_no_more_than_the_limit_and_one_call() {
    house_with(
        |config| config["server"]["threads"] = json!(2),
        async |house| {
            let key = house.key_with_budget(0.05).await;
            // No more than is held for it: what an estimate lacks would come on top.
            let bill = Bill { input: 10, output: 100 };
            house.fake.usually(Good::billing(bill.input, bill.output));
            let mut body = chat();
            body["max_tokens"] = json!(100);
            let (house, key) = (&*house, &key);
            let one = async |n: usize| {
                let body = if n.is_multiple_of(2) { body.clone() } else { chat_stream_of(&body) };
                loop {
                    let reply = house.chat(key, &body).await;
                    match reply.status {
                        200 => {}
                        429 => {
                            reply.refused(429, "budget_exceeded");
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        _ => return reply.refused(402, "budget_exceeded"),
                    }
                }
            };
            tokio::time::timeout(SOON * 2, join_all((0..200).map(one))).await.unwrap();
            let spent = house.spent(key).await;
            let limit = 50_000_000;
            assert!((limit..=limit + cost(bill)).contains(&spent), "{spent}");
            assert_eq!(spent, cost(house.fake.billed()), "the books and the bill differ");
        },
    );
}

fn chat_stream_of(body: &Value) -> Value {
    let mut body = body.clone();
    body["stream"] = json!(true);
    body
}

#[test]
fn what_was_spent_survives_a_restart() {
    house(async |house| {
        let limits = json!({"budget": {"max_limit": 0.0070, "reset_duration": "1h"},
            "rate_limit": {"token_max_limit": 100_000, "token_reset_duration": "1h", "request_max_limit": 50, "request_reset_duration": "1h"}});
        let key = house.key(limits).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, cost(USUAL));
        let before = house.quota(&key).await;
        house.stop();
        house.open();
        assert_eq!(house.spent(&key).await, cost(USUAL));
        let after = house.quota(&key).await;
        for field in ["token_current_usage", "request_current_usage"] {
            assert_eq!(after["rate_limit"][field], before["rate_limit"][field], "{after}");
        }
        assert_eq!(after["budgets"][0]["last_reset"], before["budgets"][0]["last_reset"]);
        // And counts on from there.
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, 2 * cost(USUAL));
        house.stop();
        house.open();
        house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
    });
}

#[test]
fn a_stop_charges_what_was_open() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.fake.script([Good::ending(End::StallAfter(4))]);
        let mut response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
        soon("a chunk", response.chunk()).await.unwrap().unwrap();
        assert_eq!(house.open_holds(), 1);
        house.stop();
        drop(response);
        house.open();
        let spent = house.spent(&key).await;
        assert!(spent > 0, "a call that was open at the stop was forgotten");
    });
}

#[test]
fn a_changed_limit_takes_effect_at_once_and_keeps_what_was_spent() {
    house(async |house| {
        let key = house.key_with_budget(0.0035).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, cost(USUAL));
        house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
        let path = format!("/api/governance/virtual-keys/{}", key.id);
        let set = async |limit: f64| {
            let body = json!({"budget": {"max_limit": limit, "reset_duration": "1h"}});
            assert_eq!(house.administer("PUT", &path, Some(body)).await.status, 200);
        };
        set(1.0).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, 2 * cost(USUAL));
        set(0.001).await;
        house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
        assert_eq!(house.spent(&key).await, 2 * cost(USUAL));
    });
}

#[test]
fn a_window_that_is_over_starts_again() {
    house(async |house| {
        let key = house.key(json!({"budget": {"max_limit": 0.001, "reset_duration": "2s"}})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        eventually("a refusal or a fresh window", async || house.chat(&key, &chat()).await.status == 402).await;
        eventually("the next window", async || house.chat(&key, &chat()).await.status == 200).await;
        house.idle().await;
        eventually("a window with nothing in it", async || {
            nanos(&house.quota(&key).await["budgets"][0]["current_usage"]) == 0
        })
        .await;
    });
}

#[test]
fn a_key_deleted_in_mid_call_still_pays_and_leaks_nothing() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let gate = Gate::new();
        house.fake.script([Good::gated(&gate)]);
        let mut response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
        let path = format!("/api/governance/virtual-keys/{}", key.id);
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        (0..50).for_each(|_| gate.open());
        while response.chunk().await.unwrap().is_some() {}
        house.written().await;
    });
}

#[test]
fn a_repeated_request_id_is_charged_each_time() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        for n in 1..=3 {
            let sent = house.post(CHAT, &key, &chat()).header("x-request-id", "the-same").send().await.unwrap();
            assert_eq!(sent.headers()["x-request-id"], "the-same");
            assert_eq!(house.spent(&key).await, n * cost(USUAL));
        }
    });
}
