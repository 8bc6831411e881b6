//! Budgets and rate limits of all owners, their reset, and the limits on providers.

use super::*;

const BUDGETS: &str = "/api/governance/budgets";
const RATES: &str = "/api/governance/rate-limits";
const PROVIDERS: &str = "/api/governance/providers";

fn both() -> Value {
    json!({"budget": {"max_limit": 10, "reset_duration": "1d"},
        "rate_limit": {"request_max_limit": 10, "request_reset_duration": "1m"}})
}

fn named(name: &str, more: Value) -> Value {
    let mut body = both();
    body["name"] = name.into();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn every_limit_is_listed_with_its_owner() {
    let house = House::new();
    let customer = house.post("/api/governance/customers", named("c", json!({}))).await.one("customer");
    let team = house.post("/api/governance/teams", named("t", json!({}))).await.one("team");
    let mut config = both();
    config["provider"] = "local".into();
    let key = house.create(named("k", json!({"team_id": team["id"], "provider_configs": [config]}))).await.key();
    let mut model = both();
    model["model_name"] = "m".into();
    let model = house.post("/api/governance/model-configs", model).await.one("model_config");
    house.put(&format!("{PROVIDERS}/local"), both()).await.good();
    house.spend(text(&key["value"]), DOLLAR);
    let held = house.hold(text(&key["value"]), DOLLAR / 4).unwrap();

    let config = key["provider_configs"][0]["id"].as_i64().unwrap().to_string();
    let owners = [
        ("provider", "local".to_owned(), "1", 0.0),
        ("model_config", id(&model), "0", 0.0),
        ("customer", id(&customer), "0", 0.0),
        ("team", id(&team), "1", 0.25),
        ("virtual_key", id(&key), "1", 0.25),
        ("provider_config", config, "1", 0.25),
    ];
    for (path, many) in [(BUDGETS, "budgets"), (RATES, "rate_limits")] {
        let listed = house.get(path).await.good();
        assert_eq!((&listed["count"], listed.as_object().unwrap().len()), (&json!(6), 2));
        for (kind, owner, ..) in &owners {
            let of = |limit: &&Value| limit["owner_type"] == *kind && limit["owner_id"] == **owner;
            assert_eq!(listed[many].as_array().unwrap().iter().filter(of).count(), 1, "{kind} {owner}");
        }
        assert_eq!(house.get(&format!("{path}?from_memory=true")).await.good(), listed);
    }
    // What stands there is live, with what is in flight.
    let listed = house.get(BUDGETS).await.good();
    let of = |kind: &str| {
        let found = listed["budgets"].as_array().unwrap().iter().find(|budget| budget["owner_type"] == kind).unwrap();
        (found["current_usage"].clone(), found["held"].clone())
    };
    assert_eq!(of("team"), (json!(1), json!(0.25)));
    assert_eq!(of("provider_config"), (json!(1), json!(0.25)));
    assert_eq!(of("customer"), (json!(0), json!(0)));
    drop(held);
}

#[tokio::test]
async fn a_budget_is_reset_by_hand() {
    let house = House::new();
    let key = json!({"name": "k", "provider_configs": [{"provider": "local"}],
        "budgets": [{"max_limit": 2, "reset_duration": "1d"}, {"max_limit": 9, "reset_duration": "1M", "calendar_aligned": true}]});
    let key = house.create(key).await.key();
    let value = text(&key["value"]).to_owned();
    house.spend(&value, 2 * DOLLAR);
    let late = house.hold(&value, 1);
    assert!(late.is_none(), "the day's budget is spent");
    house.pass(60_000);
    let reset = async |budget: &Value| house.post(&format!("{BUDGETS}/{}/reset", id(budget)), json!({})).await.good();
    let [day, month] = [&key["budgets"][0], &key["budgets"][1]];
    let done = reset(day).await;
    assert_eq!(done["message"], "Budget reset successfully");
    let now = &done["budget"];
    assert_eq!((&now["id"], &now["current_usage"], &now["max_limit"]), (&day["id"], &json!(0), &json!(2)));
    assert_eq!((&now["owner_type"], &now["owner_id"]), (&json!("virtual_key"), &key["id"]));
    // A rolling window starts anew with this moment; only this budget is touched.
    assert_eq!(
        (&now["last_reset"], &now["resets_at"]),
        (&json!("2023-11-14T22:14:20Z"), &json!("2023-11-15T22:14:20Z"))
    );
    let shown = house.get(&format!("{KEYS}/{}", id(&key))).await.key();
    assert_eq!((&shown["budgets"][0]["current_usage"], &shown["budgets"][1]["current_usage"]), (&json!(0), &json!(2)));
    house.spend(&value, DOLLAR);
    // What is in flight is charged to what was before.
    let late = house.hold(&value, DOLLAR).unwrap();
    let now = reset(month).await["budget"].clone();
    assert_eq!((&now["current_usage"], &now["held"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&now["last_reset"], &now["resets_at"]),
        (&json!("2023-11-01T00:00:00Z"), &json!("2023-12-01T00:00:00Z"))
    );
    late.settle(Ending::Completed, Usage::default(), Spend { cost: Nanos::new(DOLLAR), tokens: 1 });
    let shown = house.get(&format!("{KEYS}/{}", id(&key))).await.key();
    assert_eq!((&shown["budgets"][0]["current_usage"], &shown["budgets"][1]["current_usage"]), (&json!(2), &json!(0)));
    let audit = house.get("/api/governance/audit?object_type=budget").await.good();
    assert_eq!(
        (&audit["count"], &audit["entries"][0]["action"], &audit["entries"][0]["object_id"]),
        (&json!(2), &json!("reset"), &month["id"])
    );
    // A rate limit is no budget.
    let rate = house
        .update(&id(&key), json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1m"}}))
        .await
        .key();
    house
        .post(&format!("{BUDGETS}/{}/reset", text(&rate["rate_limit_id"])), json!({}))
        .await
        .refused(404, "Budget not found");
}

#[tokio::test]
async fn limits_on_a_provider_are_set_and_taken_away() {
    let house = House::new();
    assert_eq!(house.get(PROVIDERS).await.good(), json!({"providers": [], "count": 0}));
    let path = format!("{PROVIDERS}/local");
    // Nothing to remove is fine.
    let gone = json!({"message": "Provider governance deleted successfully"});
    assert_eq!(house.delete(&path).await.good(), gone);
    let set = house.put(&path, both()).await.good();
    assert_eq!(set["message"], "Provider governance updated successfully");
    let provider = &set["provider"];
    assert_eq!((&provider["provider"], &provider["budget"]["max_limit"]), (&json!("local"), &json!(10)));
    // Both inside and flat.
    assert_eq!((&set["budget"], &set["rate_limit"]), (&provider["budget"], &provider["rate_limit"]));
    assert_eq!(house.get(PROVIDERS).await.good(), json!({"providers": [provider], "count": 1}));
    for keep in [json!({}), json!({"budget": null, "rate_limit": null}), both()] {
        assert_eq!(house.put(&path, keep).await.good()["provider"], *provider);
    }
    let set = house
        .put(
            &path,
            json!({"budget": {"max_limit": 3}, "rate_limit": {"token_max_limit": 5, "token_reset_duration": "1h"}}),
        )
        .await
        .good();
    assert_eq!((&set["budget"]["id"], &set["budget"]["max_limit"]), (&provider["budget"]["id"], &json!(3)));
    assert_eq!(
        (&set["rate_limit"]["request_max_limit"], &set["rate_limit"]["token_max_limit"]),
        (&json!(10), &json!(5))
    );
    let set = house.put(&path, json!({"budget": {}})).await.good();
    assert_eq!((set.get("budget"), &set["rate_limit"]["token_max_limit"]), (None, &json!(5)));
    let set = house.put(&path, json!({"rate_limit": {}})).await.good();
    assert_eq!(set["provider"], json!({"provider": "local", "budgets": []}));
    assert_eq!(house.get(PROVIDERS).await.good()["count"], 0);
    house.put(&path, both()).await.good();
    assert_eq!(house.delete(&path).await.good(), gone);
    assert_eq!(house.get(PROVIDERS).await.good()["count"], 0);
    assert_eq!(house.get("/api/providers/local").await.status, 200, "the provider itself stays");
    // Built in, but not configured.
    house.put(&format!("{PROVIDERS}/openai"), both()).await.refused(404, "Provider not found");
    for (body, says) in [
        (json!({"budget": {"max_limit": -1, "reset_duration": "1d"}}), "Budget max_limit cannot be negative: -1.00"),
        (
            json!({"budget": {"max_limit": 1}}),
            "both max_limit and reset_duration are required when creating a new budget",
        ),
        (
            json!({"rate_limit": {"token_max_limit": 1}}),
            "Invalid rate limit: rate limit token reset duration is required",
        ),
    ] {
        house.put(&path, body).await.refused(400, says);
    }
}

#[tokio::test]
async fn a_provider_takes_its_limits_with_it() {
    let house = House::new();
    house.put(&format!("{PROVIDERS}/local"), both()).await.good();
    house.delete("/api/providers/local").await.good();
    assert_eq!(house.get(PROVIDERS).await.good()["count"], 0);
    assert_eq!(house.get(BUDGETS).await.good()["count"], 0);
    house.put(&format!("{PROVIDERS}/local"), both()).await.refused(404, "Provider not found");
}

#[tokio::test]
async fn durations_and_calendars() {
    let house = House::new();
    let teams = "/api/governance/teams";
    let make = async |duration: &str, aligned: bool| {
        let budget = json!({"max_limit": 1, "reset_duration": duration, "calendar_aligned": aligned});
        house.post(teams, json!({"name": "a", "budget": budget})).await
    };
    for (duration, ends) in [
        ("500ms", "2023-11-14T22:13:20.500Z"),
        ("30s", "2023-11-14T22:13:50Z"),
        ("1h30m", "2023-11-14T23:43:20Z"),
        ("1.5h", "2023-11-14T23:43:20Z"),
        ("1d", "2023-11-15T22:13:20Z"),
        ("1w", "2023-11-21T22:13:20Z"),
        ("1M", "2023-12-14T22:13:20Z"),
        ("1Y", "2024-11-13T22:13:20Z"),
    ] {
        let budget = make(duration, false).await.one("team")["budget"].take();
        assert_eq!((&budget["reset_duration"], &budget["resets_at"]), (&json!(duration), &json!(ends)));
        assert_eq!(budget["last_reset"], "2023-11-14T22:13:20Z");
    }
    for (duration, start, end) in [
        ("1d", "2023-11-14T00:00:00Z", "2023-11-15T00:00:00Z"),
        ("1w", "2023-11-13T00:00:00Z", "2023-11-20T00:00:00Z"),
        ("1M", "2023-11-01T00:00:00Z", "2023-12-01T00:00:00Z"),
        ("1Y", "2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
    ] {
        let budget = make(duration, true).await.one("team")["budget"].take();
        assert_eq!((&budget["last_reset"], &budget["resets_at"]), (&json!(start), &json!(end)));
    }
    for bad in ["", "1", "d", "1D", "1 d", "0d", "-1d", "1d1d", "1h1d", "abc", "1Q", "1e3s"] {
        let reply = make(bad, false).await;
        assert_eq!(reply.status, 400, "{bad}");
        let says = if bad.is_empty() { "budget reset duration is required" } else { "Invalid reset duration format: " };
        assert!(reply.message().starts_with(says), "{bad}: {}", reply.text);
    }
    for bad in ["2d", "3M", "1h", "30s", "24h"] {
        let reply = make(bad, true).await;
        assert!(reply.status == 400 && reply.message().contains("calendar"), "{bad}: {}", reply.text);
    }
}
