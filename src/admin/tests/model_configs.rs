//! Limits on models over REST.

use super::*;

const CONFIGS: &str = "/api/governance/model-configs";

#[tokio::test]
async fn a_model_config_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let body = json!({"model_name": "gpt-4o", "provider": "local", "budget": {"max_limit": 5, "reset_duration": "1d"},
        "rate_limit": {"request_max_limit": 9, "request_reset_duration": "1m"}});
    let made = house.post(CONFIGS, body).await.good();
    assert_eq!(made["message"], "Model config created successfully");
    let config = &made["model_config"];
    let path = format!("{CONFIGS}/{}", id(config));
    assert_eq!((&config["model_name"], &config["provider"]), (&json!("gpt-4o"), &json!("local")));
    assert_eq!(
        (&config["budget_id"], &config["rate_limit_id"]),
        (&config["budget"]["id"], &config["rate_limit"]["id"])
    );
    assert_eq!(house.get(&path).await.good(), json!({ "model_config": config }));
    assert_eq!(house.get(CONFIGS).await.good()["model_configs"], json!([config]));
    let put = async |body: Value| house.put(&path, body).await.one("model_config");
    for keep in
        [json!({}), json!({"model_name": null, "provider": null, "budget": null, "rate_limit": null}), config.clone()]
    {
        assert_eq!(put(keep).await, *config);
    }
    let changed = house.put(&path, json!({"model_name": "o1", "provider": "openai"})).await.good();
    assert_eq!(changed["message"], "Model config updated successfully");
    assert_eq!(
        (&changed["model_config"]["model_name"], &changed["model_config"]["provider"]),
        (&json!("o1"), &json!("openai"))
    );
    // Whoever serves it.
    assert!(put(json!({"provider": ""})).await["provider"].is_null());
    let changed =
        put(json!({"budget": {"max_limit": 6}, "rate_limit": {"token_max_limit": 5, "token_reset_duration": "1h"}}))
            .await;
    assert_eq!((&changed["budget_id"], &changed["budget"]["max_limit"]), (&config["budget_id"], &json!(6)));
    assert_eq!(changed["rate_limit"]["request_max_limit"], 9);
    let changed = put(json!({"budget": {}, "rate_limit": {}})).await;
    assert_eq!((changed.get("budget"), changed.get("rate_limit")), (None, None));
    assert_eq!(house.delete(&path).await.good(), json!({"message": "Model config deleted successfully"}));
    assert_eq!(house.get(CONFIGS).await.good()["count"], 0);
}

#[tokio::test]
async fn its_limits_go_with_it() {
    let house = House::new();
    let body = json!({"model_name": "m", "budget": {"max_limit": 5, "reset_duration": "1d"},
        "rate_limit": {"request_max_limit": 9, "request_reset_duration": "1m"}});
    let config = house.post(CONFIGS, body).await.one("model_config");
    house.delete(&format!("{CONFIGS}/{}", id(&config))).await.good();
    assert_eq!(house.get("/api/governance/budgets").await.good()["count"], 0);
    assert_eq!(house.get("/api/governance/rate-limits").await.good()["count"], 0);
}

#[tokio::test]
async fn there_is_one_for_each_model_and_provider() {
    let house = House::new();
    // Neither a budget nor a rate limit is needed, and null or "" mean every provider.
    for body in [
        json!({"model_name": "m"}),
        json!({"model_name": "m", "provider": "local"}),
        json!({"model_name": "n", "provider": ""}),
    ] {
        assert_eq!(house.post(CONFIGS, body).await.status, 200);
    }
    let local = "Model config for model 'm' with provider 'local' already exists";
    let global = "Model config for model 'm' (global) already exists";
    house
        .refuses(
            Method::POST,
            CONFIGS,
            &[
                (json!({"model_name": "m"}), 409, global),
                (json!({"model_name": "m", "provider": null}), 409, global),
                (json!({"model_name": "m", "provider": ""}), 409, global),
                (json!({"model_name": "m", "provider": "local"}), 409, local),
                (json!({}), 400, "Model name is required"),
                (json!({"model_name": " "}), 400, "Model name is required"),
                (
                    json!({"model_name": "m", "provider": "nope"}),
                    400,
                    "provider 'nope' is neither built in nor configured",
                ),
                (
                    json!({"model_name": "x", "budget": {"max_limit": 0, "reset_duration": "1d"}}),
                    400,
                    "budget max limit cannot be negative or zero: 0.00",
                ),
                (
                    json!({"model_name": "x", "rate_limit": {"token_max_limit": 1}}),
                    400,
                    "Invalid rate limit: rate limit token reset duration is required",
                ),
            ],
        )
        .await;
    let other = house.post(CONFIGS, json!({"model_name": "other"})).await.one("model_config");
    house
        .refuses(
            Method::PUT,
            &format!("{CONFIGS}/{}", id(&other)),
            &[
                (json!({"model_name": "m"}), 409, global),
                (json!({"model_name": "m", "provider": "local"}), 409, local),
                (json!({"model_name": ""}), 400, "Model name is required"),
                (json!({"provider": "nope"}), 400, "provider 'nope' is neither built in nor configured"),
            ],
        )
        .await;
}
