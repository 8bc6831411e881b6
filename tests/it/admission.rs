//! Who may spend what: the policy that never exceeds, its lowered caps, and the caps on one call and on a key.

use crate::fake::answers::{End, Good, Told, error_first, last_status, only};
use crate::fake::{Behaviour, Bill, Gate, Step};
use crate::house::{
    GPT_4O_INPUT, GPT_4O_OUTPUT, House, Key, chat, chat_stream, cost, eventually, house_with, nanos, soon,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";

/// A house whose limits are never exceeded.
fn strict_house(test: impl AsyncFnOnce(&mut House)) {
    house_with(|config| config["governance"] = json!({"admission": "never_exceed"}), test);
}

/// What is held at the key's first budget.
async fn held(house: &House, key: &Key) -> u64 {
    nanos(&house.quota(key).await["budgets"][0]["held"])
}

/// The value of one line of the metrics; absent: nothing was counted.
pub async fn metric(house: &House, line: &str) -> u64 {
    let reply = house.administer("GET", "/metrics", None).await;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0)
}

fn chat_capped(tokens: u64) -> Value {
    let mut body = chat();
    body["max_tokens"] = json!(tokens);
    body
}

#[test]
fn a_call_that_fits_is_sent_as_it_is() {
    strict_house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let reply = house.chat(&key, &chat_capped(100)).await;
        assert_eq!((reply.status, reply.header("x-tollgate-max-tokens")), (200, None));
        let seen = house.fake.seen()[0].json();
        assert_eq!((&seen["max_tokens"], seen.get("max_completion_tokens")), (&json!(100), None), "{seen}");
        // What the model can write at most fits, too.
        assert_eq!(house.chat(&key, &chat()).await.header("x-tollgate-max-tokens"), None);
        assert_eq!(house.fake.seen()[1].json().get("max_completion_tokens"), None);
    });
}

#[test]
fn the_last_cents_buy_a_shorter_answer() {
    strict_house(async |house| {
        let key = house.key_with_budget(0.01).await;
        house.fake.usually(Behaviour::new(|request| {
            // Half of what it may write.
            let cap = request.json()["max_completion_tokens"].as_u64().unwrap();
            Good::billing(10, cap / 2).steps(request)
        }));
        let (mut spent, mut last, mut calls) = (0, u64::MAX, 0);
        let refusal = loop {
            let reply = house.chat(&key, &chat()).await;
            if reply.status != 200 {
                break reply.refused(402, "budget_exceeded");
            }
            let seen = house.fake.seen().last().unwrap().json();
            let cap = seen["max_completion_tokens"].as_u64().unwrap();
            assert_eq!(reply.header("x-tollgate-max-tokens"), Some(&*cap.to_string()));
            assert!((16..last).contains(&cap), "{cap} after {last}");
            spent += cost(Bill { input: 10, output: cap / 2 });
            (last, calls) = (cap, calls + 1);
            assert_eq!(house.spent(&key).await, spent);
            assert!(spent <= 10_000_000, "{spent} after {calls} calls");
        };
        assert!(refusal.contains("the call may cost") && refusal.contains("are left"), "{refusal}");
        // What is left does not buy 16 tokens at the dearest rate, with the bound of the input.
        assert!(calls > 3 && spent >= 9_000_000, "{spent} in {calls} calls");
    });
}

#[test]
fn every_spelling_of_the_cap_is_lowered_and_nothing_else_is_changed() {
    strict_house(async |house| {
        let check = async |path: &str, body: &str, before: &str, after: &str| {
            let key = house.key_with_budget(0.01).await;
            let sent = house.http.post(format!("{}{path}", house.proxy)).bearer_auth(&key.value).body(body.to_owned());
            let reply = sent.header("content-type", "application/json").send().await.unwrap();
            assert_eq!(reply.status(), 200, "{body}");
            let cap = reply.headers()["x-tollgate-max-tokens"].to_str().unwrap().to_owned();
            let expected = body.replace("openai/", "").replacen(before, &after.replace("CAP", &cap), 1);
            let seen = house.fake.seen().last().unwrap().body.clone();
            assert_eq!(String::from_utf8_lossy(&seen), expected);
        };
        let chat = r#"{ "model":"openai/gpt-4o" ,"messages":[{"role":"user","content":"hi"}]MORE}"#;
        for (member, lowered) in [
            (r#","max_tokens":9000"#, r#","max_tokens":CAP"#),
            (r#","max_completion_tokens": 9000 "#, r#","max_completion_tokens": CAP "#),
            (r#","max_completion_tokens":null"#, r#","max_completion_tokens":CAP"#),
        ] {
            check(CHAT, &chat.replace("MORE", member), member, lowered).await;
        }
        check(CHAT, &chat.replace("MORE", ""), "{", r#"{"max_completion_tokens":CAP,"#).await;
        let responses = r#"{"model":"openai/gpt-4o","input":"hi","max_output_tokens":9000}"#;
        check("/v1/responses", responses, "9000", "CAP").await;
        let text = r#"{"model":"openai/gpt-4o","prompt":"hi","max_tokens":9000}"#;
        check("/v1/completions", text, "9000", "CAP").await;
    });
}

#[test]
fn each_of_several_answers_has_its_part() {
    strict_house(async |house| {
        let cap = async |n: u64| {
            let key = house.key_with_budget(0.01).await;
            let mut body = chat_capped(9_000);
            body["n"] = json!(n);
            let reply = house.chat(&key, &body).await;
            reply.header("x-tollgate-max-tokens").unwrap().parse::<u64>().unwrap()
        };
        let (one, four) = (cap(1).await, cap(4).await);
        assert_eq!(four, one / 4);
    });
}

#[test]
fn a_cap_leaves_room_for_thinking() {
    strict_house(async |house| {
        let key = house.key_with_budget(0.01).await;
        let mut body = chat_capped(9_000);
        body["reasoning"] = json!({"max_tokens": 200});
        let cap: u64 = house.chat(&key, &body).await.header("x-tollgate-max-tokens").unwrap().parse().unwrap();
        assert!(cap >= 216, "{cap}");
        body["reasoning"] = json!({"max_tokens": 8_000});
        house.chat(&key, &body).await.refused(402, "budget_exceeded");
        assert_eq!(house.fake.seen().len(), 1);
    });
}

#[test]
fn a_token_limit_lowers_the_cap_too() {
    strict_house(async |house| {
        let limit = json!({"token_max_limit": 500, "token_reset_duration": "1h"});
        let key = house.key(json!({"rate_limit": limit})).await;
        let reply = house.chat(&key, &chat_capped(9_000)).await;
        let cap: u64 = reply.header("x-tollgate-max-tokens").unwrap().parse().unwrap();
        assert!((100..500).contains(&cap), "{cap}");
        let mut long = chat_capped(20);
        long["messages"][0]["content"] = json!("word ".repeat(200));
        let reply = house.chat(&key, &long).await;
        reply.refused(429, "token_limited");
        assert_eq!(reply.header("retry-after"), None, "that much never fits");
    });
}

/// Every way to fail before any output, and whether the provider may have done something by then.
fn failures() -> impl Iterator<Item = (String, Behaviour, bool)> {
    let refusals = [400, 401, 402, 403, 404, 422, 429].map(|status| (status.to_string(), last_status(status), false));
    let faults = [500, 503].map(|status| (status.to_string(), last_status(status), true));
    let breaks = [("reset", Step::Reset), ("close", Step::Close), ("stall", Step::Stall)];
    let breaks = breaks.map(|(name, step)| (name.to_owned(), only(step), true));
    refusals.into_iter().chain(faults).chain(breaks)
}

#[test]
fn a_failure_after_the_request_was_sent_is_charged_as_held() {
    house_with(
        |config| {
            config["governance"] = json!({"admission": "never_exceed"});
            config["providers"]["openai"]["network_config"]["default_request_timeout_in_seconds"] = json!(1);
        },
        async |house| {
            // The hold, seen while the call is in flight.
            let key = house.key_with_budget(1.0).await;
            let gate = Gate::new();
            house.fake.script([Good::gated(&gate)]);
            let mut body = chat_stream();
            body["max_tokens"] = json!(100);
            let mut open = house.post(CHAT, &key, &body).send().await.unwrap();
            soon("a chunk", open.chunk()).await.unwrap().unwrap();
            let hold = held(house, &key).await;
            assert!(hold > 100 * GPT_4O_OUTPUT, "{hold}");
            (0..50).for_each(|_| gate.open());
            drop(open);
            for (name, behaviour, charged) in failures() {
                let key = house.key_with_budget(1.0).await;
                house.fake.script([behaviour]);
                assert!(house.chat(&key, &body).await.status >= 400);
                assert_eq!(house.spent(&key).await, if charged { hold } else { 0 }, "{name}");
            }
            // An error in the place of a stream's first event is a failure, too, but one that was passed on.
            let key = house.key_with_budget(1.0).await;
            house.fake.script([error_first()]);
            assert_eq!(house.chat(&key, &body).await.status, 200);
            assert_eq!(house.spent(&key).await, hold, "error first");
            assert!(metric(house, r#"tollgate_estimated_charges_total{provider="openai"}"#).await >= 6);
        },
    );
}

#[test]
fn what_never_reached_the_provider_costs_nothing() {
    house_with(
        |config| {
            config["governance"] = json!({"admission": "never_exceed"});
            config["providers"]["openai"]["network_config"]["base_url"] = json!("http://127.0.0.1:9");
        },
        async |house| {
            let key = house.key_with_budget(1.0).await;
            assert_eq!(house.chat(&key, &chat()).await.status, 502);
            assert_eq!(house.spent(&key).await, 0);
        },
    );
}

#[test]
fn an_untold_usage_is_estimated_and_not_charged_at_the_bound() {
    strict_house(async |house| {
        for (body, end) in [(chat_stream(), End::Good), (chat_stream(), End::CloseAfter(4))] {
            let key = house.key_with_budget(1.0).await;
            house.fake.script([Good { end, ..Good::telling(Told::Nothing) }]);
            let sent = house.post(CHAT, &key, &body).send().await.unwrap();
            let _ = sent.bytes().await;
            let spent = house.spent(&key).await;
            let (least, most) = (3 * GPT_4O_OUTPUT, 50 * GPT_4O_INPUT + 60 * GPT_4O_OUTPUT);
            assert!((least..=most).contains(&spent), "{end:?}: {spent}");
        }
    });
}

#[test]
fn what_is_billed_beyond_the_bound_is_charged_and_itemised() {
    strict_house(async |house| {
        let key = house.key_with_budget(1.0).await;
        let excess = "tollgate_excess_nanodollars_total{provider=\"openai\"}";
        house.fake.script([Good::billing(10, 100)]);
        assert_eq!(house.chat(&key, &chat_capped(100)).await.status, 200);
        assert_eq!((house.spent(&key).await, metric(house, excess).await), (cost(Bill { input: 10, output: 100 }), 0));
        // A liar: told to stop at 100, it wrote 10,000.
        let lie = Bill { input: 10, output: 10_000 };
        house.fake.script([Good::billing(lie.input, lie.output)]);
        assert_eq!(house.chat(&key, &chat_capped(100)).await.status, 200);
        let spent = house.spent(&key).await;
        assert_eq!(spent, cost(Bill { input: 10, output: 100 }) + cost(lie));
        let beyond = metric(house, excess).await;
        assert!(beyond > cost(lie) * 9 / 10 && beyond < cost(lie), "{beyond}");
    });
}

/// 1,000 calls at once, against a budget for 50 of them.
fn a_thousand_at_once(admission: &'static str, least_percent: u64, most: u64) {
    const BILL: Bill = Bill { input: 10, output: 100 };
    let limit = 50 * cost(BILL);
    house_with(
        |config| {
            config["governance"] = json!({"admission": admission});
            config["server"]["threads"] = json!(2);
        },
        async |house| {
            let key = house.key_with_budget(0.05125).await;
            house.fake.usually(Behaviour::new(|request| {
                let cap = request.json()["max_tokens"].as_u64().unwrap();
                Good::billing(BILL.input, cap).steps(request)
            }));
            let (house, key) = (&*house, &key);
            let one = async |n: u64| loop {
                let reply = house.chat(key, &chat_capped(100)).await;
                match reply.status {
                    200 => return 1,
                    429 => {
                        reply.refused(429, "budget_exceeded");
                        assert_eq!(reply.retry_after(), 1);
                        tokio::time::sleep(Duration::from_millis(50 + n % 100)).await;
                    }
                    _ => {
                        reply.refused(402, "budget_exceeded");
                        return 0;
                    }
                }
            };
            let served: u64 = join_all((0..1_000).map(one)).await.into_iter().sum();
            let spent = house.spent(key).await;
            assert!((limit * least_percent / 100..=limit + most).contains(&spent), "{spent} of {limit}");
            // Where caps are lowered, more of them fit: at the very most as many as are lowered to the least.
            let least = cost(Bill { input: BILL.input, output: 16 });
            assert!((50..=limit / least).contains(&served), "{served} were served");
            assert_eq!(spent, cost(house.fake.billed()), "the books and the bill differ");
        },
    );
}

#[test]
fn a_thousand_at_once_never_exceed_and_nearly_all_can_be_spent() {
    a_thousand_at_once("never_exceed", 98, 0);
}

#[test]
fn a_thousand_at_once_exceed_by_one_call_at_most() {
    a_thousand_at_once("remaining", 100, cost(Bill { input: 10, output: 100 }));
}

#[test]
fn one_call_may_cost_so_much_and_no_more() {
    let with = |admission: &'static str| {
        move |config: &mut Value| {
            config["governance"] = json!({"admission": admission, "max_request_cost": 0.01});
        }
    };
    house_with(with("remaining"), async |house| {
        let key = house.key_with_budget(10.0).await;
        let reply = house.chat(&key, &chat_capped(9_000)).await;
        let message = reply.refused(400, "request_too_costly");
        assert_eq!((&reply.json()["error"]["param"], reply.header("retry-after")), (&json!("max_tokens"), None));
        // The cap that it names passes, and one more does not.
        let fits: u64 = message.split("cap of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(message.contains("one may cost 0.01 at most") && fits > 100, "{message}");
        assert_eq!(house.chat(&key, &chat_capped(fits)).await.status, 200);
        house.chat(&key, &chat_capped(fits + 1)).await.refused(400, "request_too_costly");
        let mut long = chat_capped(1);
        long["messages"][0]["content"] = json!("word ".repeat(2_000));
        let message = house.chat(&key, &long).await.refused(400, "request_too_costly");
        assert!(!message.contains("cap of"), "{message}");
        assert_eq!(house.fake.seen().len(), 1);
    });
    house_with(with("never_exceed"), async |house| {
        let key = house.key_with_budget(10.0).await;
        let reply = house.chat(&key, &chat_capped(9_000)).await;
        let cap: u64 = reply.header("x-tollgate-max-tokens").unwrap().parse().unwrap();
        assert!((100..1_000).contains(&cap), "{cap}");
    });
}

#[test]
fn a_key_may_have_so_many_calls_in_flight() {
    house_with(
        |config| config["governance"] = json!({"max_in_flight_per_key": 2}),
        async |house| {
            let (key, other) = (house.key_with_budget(1.0).await, house.key_with_budget(1.0).await);
            let gate = Gate::new();
            house.fake.script([Good::gated(&gate), Good::gated(&gate)]);
            let mut open = Vec::new();
            for _ in 0..2 {
                let mut response = house.post(CHAT, &key, &chat_stream()).send().await.unwrap();
                soon("a chunk", response.chunk()).await.unwrap().unwrap();
                open.push(response);
            }
            let reply = house.chat(&key, &chat()).await;
            let message = reply.refused(429, "too_many_in_flight");
            assert!(message.contains("2 calls in flight"), "{message}");
            assert_eq!(reply.retry_after(), 1);
            assert_eq!(house.chat(&other, &chat()).await.status, 200);
            // One client leaves, the other has its answer: both places are free again.
            open.pop();
            eventually("a free place", async || house.chat(&key, &chat()).await.status == 200).await;
            (0..50).for_each(|_| gate.open());
            while open[0].chunk().await.unwrap().is_some() {}
            for _ in 0..3 {
                eventually("a free place", async || house.chat(&key, &chat()).await.status == 200).await;
            }
        },
    );
}
