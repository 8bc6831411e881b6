//! What the holder of a virtual key may know.

use super::virtual_keys::whole;
use super::*;

#[tokio::test]
async fn the_quota_is_for_the_holder() {
    let house = House::new();
    let key = house.create(whole()).await.key();
    let value = text(&key["value"]).to_owned();
    house.spend(&value, DOLLAR);
    let held = house.hold(&value, DOLLAR / 2).unwrap();
    let bearer = format!("bearer {value}");
    for header in
        [("x-bf-vk", &*value), ("authorization", &*bearer), ("x-api-key", &*value), ("x-goog-api-key", &*value)]
    {
        assert_eq!(house.quota(&[header]).await.status, 200, "{header:?}");
    }
    let reply = house.quota(&[("x-bf-vk", &value)]).await;
    let quota = reply.json();
    assert_eq!((&quota["virtual_key_name"], &quota["is_active"]), (&json!("ci"), &json!(true)));
    let budget = &quota["budgets"][0];
    assert_eq!(
        (&budget["current_usage"], &budget["held"], &budget["max_limit"]),
        (&json!(1), &json!(0.5), &json!(10.5))
    );
    assert_eq!(
        (&quota["rate_limit"]["token_current_usage"], &quota["rate_limit"]["token_held"]),
        (&json!(7), &json!(7))
    );
    let config = &quota["provider_configs"][0];
    assert_eq!(
        (&config["provider"], &config["rate_limit"], &config["budgets"][0]["current_usage"]),
        (&json!("local"), &Value::Null, &json!(1))
    );
    for secret in [&*value, "main", "key_ids", "sk-provider"] {
        assert!(!reply.text.contains(secret), "{secret}");
    }
    drop(held);
    house
        .update(text(&key["id"]), json!({"is_active": false, "budgets": [], "rate_limit": {}, "provider_configs": []}))
        .await
        .key();
    let quota = house.quota(&[("x-bf-vk", &value)]).await.json();
    assert_eq!(
        quota,
        json!({"virtual_key_name": "ci", "is_active": false, "budgets": [], "rate_limit": null, "provider_configs": []})
    );
    for headers in [
        &[][..],
        &[("x-bf-vk", "sk-bf-no")],
        &[("x-bf-vk", &value), ("x-api-key", "sk-bf-no")],
        &[("authorization", "Bearer nothing")],
    ] {
        let reply = house.quota(headers).await;
        assert_eq!(reply.status, 401);
        assert!(reply.json()["error"].is_string() && !reply.text.contains("sk-bf-"), "{}", reply.text);
    }
    assert_eq!(house.call(Method::POST, QUOTA_PATH, "").await.status, 405);
}
