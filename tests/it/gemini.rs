//! Gemini's dialect: the model and the stream are in the path, the usage is a total so far.

use crate::fake::gemini::{WORDS, good, status};
use crate::house::{House, Key, Reply, house_with, provider};
use serde_json::{Value, json};

const PRO: &str = "/genai/v1beta/models/gemini-2.5-pro";

/// The price of gemini-2.5-pro in nano-dollars per token.
const INPUT: u64 = 1_250;
const CACHED: u64 = 125;
const OUTPUT: u64 = 10_000;

/// A house whose second provider is Gemini, with two keys.
pub fn gemini_house(test: impl AsyncFnOnce(&mut House)) {
    house_with(
        |config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap().to_owned();
            config["providers"]["gemini"] = provider(&url, &[("a", "AIza-a"), ("b", "AIza-b")]);
        },
        async |house| {
            house.fake.usually(good(plain()));
            test(house).await;
        },
    );
}

pub async fn gemini_key(house: &House, dollars: f64) -> Key {
    let through = json!([{"provider": "gemini", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
    house.key(json!({"provider_configs": through, "budget": {"max_limit": dollars, "reset_duration": "1h"}})).await
}

fn plain() -> Value {
    json!({"promptTokenCount": 1_000, "candidatesTokenCount": 60, "thoughtsTokenCount": 40, "totalTokenCount": 1_100})
}

fn contents() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}], "generationConfig": {"maxOutputTokens": 200}})
}

#[track_caller]
fn refused(reply: &Reply, code: u16, status: &str, reason: &str) -> String {
    let error = reply.json()["error"].clone();
    let seen = (reply.status, &error["code"], &error["status"], &error["details"][0]["reason"]);
    assert_eq!(seen, (code, &json!(code), &json!(status), &json!(reason)), "{error}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn contents_are_charged_by_their_usage() {
    gemini_house(async |house| {
        let cached = json!({"promptTokenCount": 900, "cachedContentTokenCount": 400, "candidatesTokenCount": 7, "toolUsePromptTokenCount": 50});
        let cost = 550 * INPUT + 400 * CACHED + 7 * OUTPUT;
        for (usage, cost) in [(plain(), 1_000 * INPUT + 100 * OUTPUT), (cached, cost)] {
            for verb in ["generateContent", "streamGenerateContent?alt=sse", "streamGenerateContent"] {
                let key = gemini_key(house, 1.0).await;
                house.fake.script([good(usage.clone())]);
                let reply = house.call(&format!("{PRO}:{verb}"), &key, &contents()).await;
                assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("gemini")), "{reply:?}");
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(WORDS.iter().all(|word| text.contains(word)), "{text}");
                assert_eq!(house.spent(&key).await, cost, "{usage} {verb}");
            }
        }
        let key = gemini_key(house, 1.0).await;
        let reply = house.call(&format!("{PRO}:countTokens"), &key, &contents()).await;
        assert_eq!((reply.status, &reply.json()["totalTokens"]), (200, &json!(31)), "{reply:?}");
        assert_eq!(house.spent(&key).await, 0);
        let embed = json!({"content": {"parts": [{"text": "hello"}]}});
        house.fake.script([good(json!({"promptTokenCount": 40}))]);
        let path = "/genai/v1/models/gemini-embedding-001:embedContent";
        assert_eq!(house.call(path, &key, &embed).await.status, 200);
        assert_eq!(house.spent(&key).await, 40 * 150);
    });
}

#[test]
fn the_virtual_key_stays_here_wherever_it_stood() {
    gemini_house(async |house| {
        let key = gemini_key(house, 1.0).await;
        let url = format!("{}/genai/v1/models/gemini%2Fgemini-2.5-pro:streamGenerateContent", house.proxy);
        let asked = format!("{url}?key={}&alt=sse&fields=candidates&prettyPrint=false", key.value);
        let reply = Reply::read(house.http.post(asked).json(&contents()).send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let sent = house.http.post(&url).header("x-goog-api-key", &key.value).header("x-goog-fieldmask", "candidates");
        let reply = Reply::read(sent.json(&contents()).send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let seen = house.fake.seen();
        assert_eq!(seen[0].path, "/v1/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
        assert_eq!(seen[1].path, "/v1/models/gemini-2.5-pro:streamGenerateContent");
        for request in &seen {
            assert_eq!(request.header("x-goog-api-key"), Some("AIza-a"));
            assert!(request.header("authorization").is_none() && request.header("x-goog-fieldmask").is_none());
            assert!(!format!("{request:?}").contains("sk-bf-"));
            assert_eq!(request.json(), contents());
        }
        assert_eq!(house.spent(&key).await, 2 * (1_000 * INPUT + 100 * OUTPUT));
    });
}

#[test]
fn errors_are_those_of_the_dialect() {
    gemini_house(async |house| {
        let path = format!("{PRO}:generateContent");
        let spent = gemini_key(house, 0.001).await;
        assert_eq!(house.call(&path, &spent, &contents()).await.status, 200);
        house.idle().await;
        let reply = house.call(&path, &spent, &contents()).await;
        assert!(refused(&reply, 402, "FAILED_PRECONDITION", "BUDGET_EXCEEDED").contains("VK budget exceeded"));
        let reply = house.call(&path, &Key::unknown(), &contents()).await;
        refused(&reply, 401, "UNAUTHENTICATED", "VIRTUAL_KEY_NOT_FOUND");
        let key = gemini_key(house, 1.0).await;
        let reply = house.call(&path, &key, &json!({"generationConfig": 7})).await;
        assert!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_REQUEST").contains("'generationConfig'"));
        let reply = house.call("/genai/v1/models/openai%2Fgpt-4o:generateContent", &key, &contents()).await;
        refused(&reply, 403, "PERMISSION_DENIED", "PROVIDER_BLOCKED");
        let reply = house.call(&format!("{PRO}:predict"), &key, &contents()).await;
        refused(&reply, 404, "NOT_FOUND", "NOT_FOUND");
        // What the client did wrong, it hears from the provider, and only once.
        house.fake.script([status(400, "INVALID_ARGUMENT", "BAD_SCHEMA")]);
        let reply = house.call(&path, &key, &contents()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (400, Some("1")), "{reply:?}");
        assert_eq!(reply.json()["error"]["details"][0]["reason"], "BAD_SCHEMA");
        // That the house's key is no good, it does not: the next key is tried.
        let wrong = || status(400, "INVALID_ARGUMENT", "API_KEY_INVALID");
        house.fake.script([wrong(), good(plain())]);
        let reply = house.call(&path, &key, &contents()).await;
        assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("2")), "{reply:?}");
        house.fake.script([wrong(), wrong()]);
        let reply = house.call(&path, &key, &contents()).await;
        refused(&reply, 502, "UNAVAILABLE", "UPSTREAM_CREDENTIALS_REJECTED");
        assert_eq!(house.spent(&key).await, 1_000 * INPUT + 100 * OUTPUT);
    });
}

#[test]
fn models_are_listed_as_its_sdk_reads_them() {
    gemini_house(async |house| {
        let key = gemini_key(house, 1.0).await;
        let list = house.get("/genai/v1beta/models", &key).await.json();
        assert!(list["models"].to_string().contains("models/gemini/gemini-2.5-pro"), "{list}");
        assert_eq!(house.get("/genai/v1beta/models/gemini-2.5-pro", &key).await.status, 200);
    });
}
