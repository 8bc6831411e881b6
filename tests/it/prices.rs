//! List prices from elsewhere, and calls charged by them.

use crate::fake::answers::{Good, status};
use crate::house::{chat, eventually, free_port, house_with};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A price table with one model, at so many dollars for a million tokens in and ten times that out.
fn table(dollars: u32) -> String {
    let price = json!({
        "litellm_provider": "openai", "mode": "chat", "max_input_tokens": 128_000,
        "input_cost_per_token": f64::from(dollars) * 1e-6, "output_cost_per_token": f64::from(dollars) * 1e-5,
    });
    json!({ "sample_spec": {"mode": "words"}, "gpt-4o": price }).to_string()
}

/// Answers every request with what is there at that moment; nothing there is a server error.
async fn shelf(port: u16) -> Arc<Mutex<Option<String>>> {
    let body: Arc<Mutex<Option<String>>> = Arc::default();
    let shared = Arc::clone(&body);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let _ = stream.read(&mut head).await;
            let body = shared.lock().unwrap().clone();
            let (status, body) = body.map_or((500, String::new()), |body| (200, body));
            let answer =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    body
}

#[test]
fn prices_come_from_a_url_and_stay_when_it_fails() {
    let port = free_port();
    house_with(
        |config| config["pricing"] = json!({"catalog": format!("http://127.0.0.1:{port}/prices.json")}),
        async |house| {
            let prices = async |house: &crate::house::House| {
                house.administer("GET", "/readyz", None).await.json()["checks"]["prices"].clone()
            };
            house.fake.usually(Good::billing(1_000, 100));
            let key = house.key_with_budget(100.0).await;
            // Nobody answered there yet, so the first look failed or is about to: the built-in list holds.
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
            assert_eq!(house.spent(&key).await, 1_000 * 2_500 + 100 * 10_000);
            let shown = prices(house).await;
            assert_eq!((&shown["source"], &shown["models"]), (&json!("builtin"), &json!(96)));
            // With the table on its shelf, the next start has it.
            house.stop();
            let body = shelf(port).await;
            *body.lock().unwrap() = Some(table(4));
            house.open();
            eventually("the table to be there", async || prices(house).await["models"] == 1).await;
            let good = prices(house).await;
            assert_eq!((&good["ok"], &good["source"]), (&json!(true), &json!("the URL at 127.0.0.1")));
            let before = house.spent(&key).await;
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
            assert_eq!(house.spent(&key).await, before + 1_000 * 4_000 + 100 * 40_000);
            let metrics = house.administer("GET", "/metrics", None).await;
            let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
            assert!(metrics.contains("tollgate_prices 1\n"), "{metrics}");
            // A start at which it does not answer has the last table, and says that it could not be refreshed.
            house.stop();
            *body.lock().unwrap() = None;
            house.open();
            eventually("the look to fail", async || prices(house).await["ok"] == false).await;
            let kept = prices(house).await;
            assert_eq!((&kept["sha256"], &kept["models"]), (&good["sha256"], &json!(1)));
            assert!(kept["error"].as_str().unwrap().contains("status 500"), "{kept}");
            assert_eq!(house.administer("GET", "/readyz", None).await.status, 200);
            let before = house.spent(&key).await;
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
            assert_eq!(house.spent(&key).await, before + 1_000 * 4_000 + 100 * 40_000);
        },
    );
}

#[test]
fn the_key_that_was_used_decides_the_price() {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["openai"] = crate::house::provider(&url, &[("main", "sk-one"), ("spare", "sk-two")]);
        },
        async |house| {
            house.fake.usually(Good::billing(1_000, 100));
            let key = house.key_with_budget(100.0).await;
            let over = |scope: Value, dollars: f64| {
                let mut body = json!({"name": format!("{scope}"), "match_type": "exact", "pattern": "gpt-4o",
                    "request_types": ["chat_completion"],
                    "patch": {"input_cost_per_token": dollars, "output_cost_per_token": 0, "input_cost_per_request": 1}});
                body.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
                body
            };
            let scopes = [
                (json!({"scope_kind": "provider", "provider_id": "openai"}), 0.001),
                (json!({"scope_kind": "provider_key", "provider_key_id": "spare"}), 0.002),
            ];
            for (scope, dollars) in scopes {
                let made =
                    house.administer("POST", "/api/governance/pricing-overrides", Some(over(scope, dollars))).await;
                assert_eq!(made.status, 201, "{made:?}");
            }
            const DOLLAR: u64 = 1_000_000_000;
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
            assert_eq!(house.spent(&key).await, 2 * DOLLAR);
            // The first key is refused, the second one serves: its price holds, and a fee for each request.
            house.fake.script([status(429)]);
            assert_eq!(house.chat(&key, &chat()).await.status, 200);
            assert_eq!(house.spent(&key).await, 2 * DOLLAR + 3 * DOLLAR);
            // The ledger says so: newest first.
            house.written().await;
            let ledger = house.administer("GET", "/api/ledger?explain=true&limit=10", None).await.json();
            let parts: Vec<&Value> =
                ledger["entries"].as_array().unwrap().iter().map(|entry| &entry["parts"]).collect();
            let dear = json!([
                {"kind": "input", "units": 1_000, "price": 0.002, "cost": 2},
                {"kind": "output", "units": 100, "price": 0, "cost": 0},
                {"kind": "request", "units": 1, "price": 1, "cost": 1},
            ]);
            assert!(parts.contains(&&dear), "{ledger}");
        },
    );
}
