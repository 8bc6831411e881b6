//! The official OpenAI SDK for Python speaks through us, changed in nothing but base URL and key.

use crate::fake::Behaviour;
use crate::fake::answers::Good;
use crate::house::{chat, house, soon};
use serde_json::json;
use std::process::Command;

#[test]
fn the_official_sdk_works_unchanged() {
    let Ok(python) = std::env::var("TOLLGATE_TEST_PYTHON") else {
        panic!("this test needs a Python with the openai package: run tests/run, which makes one");
    };
    house(async |house| {
        house.fake.usually(Behaviour::new(|request| {
            let calls_tool = request.json()["model"] == "gpt-4o-mini";
            Good { calls_tool, ..Good::default() }.steps(request)
        }));
        let key = house.key_with_budget(10.0).await;
        let spent = house.key_with_budget(0.001).await;
        let limited = house.key(json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}})).await;
        for used in [&spent, &limited] {
            assert_eq!(house.chat(used, &chat()).await.status, 200);
        }
        house.idle().await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/openai_sdk.py");
        let mut command = Command::new(python);
        command.args(["-X", "utf8", script, &house.proxy, &key.value, &spent.value, &limited.value]);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = soon("the script", run).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(house.spent(&key).await > 0);
    });
}
