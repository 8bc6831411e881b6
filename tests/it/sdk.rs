//! The official SDKs for Python speak through us, changed in nothing but base URL and key.

use crate::anthropic::{anthropic_house, anthropic_key};
use crate::bedrock::{bedrock_house, bedrock_key};
use crate::fake::answers::{Good, document};
use crate::fake::{Behaviour, Step};
use crate::gemini::{gemini_house, gemini_key};
use crate::house::{House, chat, house, soon};
use serde_json::json;
use std::process::Command;

/// Runs a script below `tests/sdk`; whatever it says stands in the way is shown.
async fn run(house: &House, script: &str, arguments: &[&str]) {
    let Ok(python) = std::env::var("TOLLGATE_TEST_PYTHON") else {
        panic!("this test needs a Python with the SDKs: run tests/run, which makes one");
    };
    let script = format!("{}/tests/sdk/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command.args(["-X", "utf8", &script, &house.proxy]).args(arguments);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = soon("the script", run).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_official_sdk_works_unchanged() {
    house(async |house| {
        house.fake.usually(Behaviour::new(|request| match &*request.path {
            "/v1/images/generations" => document(&json!({"created": 1, "data": [{"b64_json": "QUJD"}],
                "usage": {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}}})),
            "/v1/audio/speech" => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 11\r\n\r\n";
                vec![Step::Send([&head[..], b"\xff\xfb not text"].concat().into())]
            }
            "/v1/audio/transcriptions" => {
                document(&json!({"text": Good::default().words.concat(), "usage": {"type": "duration", "seconds": 9}}))
            }
            _ => {
                let calls_tool = request.json()["model"] == "gpt-4o-mini";
                Good { calls_tool, ..Good::default() }.steps(request)
            }
        }));
        let key = house.key_with_budget(10.0).await;
        let spent = house.key_with_budget(0.001).await;
        let limited = house.key(json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}})).await;
        for used in [&spent, &limited] {
            assert_eq!(house.chat(used, &chat()).await.status, 200);
        }
        house.idle().await;
        run(house, "openai_sdk.py", &[&key.value, &spent.value, &limited.value]).await;
        assert!(house.spent(&key).await > 0);
    });
}

#[test]
fn anthropic_s_sdk_works_unchanged() {
    anthropic_house(async |house| {
        let budget = |dollars: f64| json!({"budget": {"max_limit": dollars, "reset_duration": "1h"}});
        let key = anthropic_key(house, budget(10.0)).await;
        let spent = anthropic_key(house, budget(0.001)).await;
        let limit = json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}});
        let limited = anthropic_key(house, limit).await;
        let body =
            json!({"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        for used in [&spent, &limited] {
            assert_eq!(house.call("/anthropic/v1/messages", used, &body).await.status, 200);
        }
        house.idle().await;
        run(house, "anthropic_sdk.py", &[&key.value, &spent.value, &limited.value]).await;
        // Five messages of 1,000 and 100 tokens, and a count that costs nothing.
        assert_eq!(house.spent(&key).await, 5 * (1_000 * 2_000 + 100 * 10_000));
    });
}

#[test]
fn google_s_sdk_works_unchanged() {
    gemini_house(async |house| {
        let (key, spent) = (gemini_key(house, 10.0).await, gemini_key(house, 0.001).await);
        let body = json!({"contents": [{"parts": [{"text": "hi"}]}]});
        let path = "/genai/v1/models/gemini-2.5-pro:generateContent";
        assert_eq!(house.call(path, &spent, &body).await.status, 200);
        house.idle().await;
        run(house, "genai_sdk.py", &[&key.value, &spent.value]).await;
        // Generated four times with 1,000 and 100 tokens, embedded once as many, counted for nothing.
        assert_eq!(house.spent(&key).await, 4 * (1_000 * 1_250 + 100 * 10_000) + 1_000 * 150);
    });
}

#[test]
fn boto3_works_unchanged() {
    bedrock_house(async |house| {
        let (key, spent) = (bedrock_key(house, 10.0).await, bedrock_key(house, 0.001).await);
        let body = json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]});
        let path = "/bedrock/model/us.anthropic.claude-sonnet-4-6/converse";
        assert_eq!(house.call(path, &spent, &body).await.status, 200);
        house.idle().await;
        run(house, "bedrock_sdk.py", &[&key.value, &spent.value]).await;
        // Four answers of 1,000 and 100 tokens, and a count that costs nothing.
        assert_eq!(house.spent(&key).await, 4 * (1_000 * 3_300 + 100 * 16_500));
    });
}
