//! Virtual keys over REST.

use super::*;

pub(super) fn whole() -> Value {
    json!({
        "name": "ci", "description": "d",
        "budget": {"max_limit": 10.5, "reset_duration": "1d"},
        "rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1h"},
        "provider_configs": [{"provider": "local", "weight": 0.5, "allowed_models": ["*"], "key_ids": ["main"],
                              "budget": {"max_limit": 5, "reset_duration": "1M"}}],
        "mcp_configs": [{"mcp_client_name": "x", "tools_to_execute": ["*"]}],
        "unknown": true,
    })
}

#[tokio::test]
async fn a_key_is_created_shown_and_deleted() {
    let house = House::new();
    let made = house.create(whole()).await;
    assert_eq!(made.json()["message"], "Virtual key created successfully");
    assert_eq!(made.headers["content-type"], "application/json");
    let key = made.key();
    let id = text(&key["id"]).to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    let value = text(&key["value"]).to_owned();
    assert!(value.starts_with("sk-bf-") && value.len() == 42);
    assert_eq!((&key["name"], &key["is_active"], &key["description"]), (&json!("ci"), &json!(true), &json!("d")));
    assert_eq!((&key["team_id"], &key["customer_id"]), (&Value::Null, &Value::Null));
    assert_eq!(key["created_at"], "2023-11-14T22:13:20Z");
    let budget = &key["budget"];
    assert_eq!((&budget["max_limit"], &budget["reset_duration"]), (&json!(10.5), &json!("1d")));
    assert_eq!((&budget["current_usage"], &budget["calendar_aligned"]), (&json!(0), &json!(false)));
    assert_eq!((&budget["last_reset"], &key["budget_id"]), (&json!("2023-11-14T22:13:20Z"), &budget["id"]));
    assert_eq!(key["budgets"], json!([budget]));
    let rate = &key["rate_limit"];
    assert_eq!((&rate["token_max_limit"], &rate["token_current_usage"]), (&json!(1000), &json!(0)));
    assert_eq!((rate.get("request_max_limit"), &rate["request_current_usage"]), (None, &json!(0)));
    let config = &key["provider_configs"][0];
    assert_eq!((&config["weight"], &config["allow_all_keys"]), (&json!(0.5), &json!(false)));
    assert_eq!((&config["key_ids"], &config["keys"][0]["name"]), (&json!(["main"]), &json!("main by name")));
    assert_eq!((&config["virtual_key_id"], &config["blacklisted_models"]), (&json!(id), &json!([])));
    assert_eq!(config["budgets"][0]["max_limit"], 5);
    let tools = json!([{"id": 1, "virtual_key_id": id, "mcp_client_name": "x", "tools_to_execute": ["*"]}]);
    assert_eq!(key["mcp_configs"], tools);
    assert!(key.get("config_hash").is_none() && !made.text.contains("sk-provider-secret"));

    // It holds for the next request, and it is what every other way shows.
    house.spend(&value, 2 * DOLLAR);
    let shown = house.get(&format!("{KEYS}/{id}")).await.key();
    assert_eq!((&shown["budget"]["current_usage"], &shown["value"]), (&json!(2), &json!(value)));
    assert_eq!(shown["rate_limit"]["token_current_usage"], 7);
    assert_eq!(shown["provider_configs"][0]["budget"]["current_usage"], 2);
    assert_eq!(house.get(&format!("{KEYS}/{id}?from_memory=true")).await.key(), shown);
    assert_eq!(house.get(KEYS).await.json()["virtual_keys"], json!([shown]));

    let gone = house.call(Method::DELETE, &format!("{KEYS}/{id}"), "").await;
    assert_eq!(gone.json(), json!({"message": "Virtual key deleted successfully"}));
    assert!(house.hold(&value, 1).is_none_or(|hold| hold.tag().virtual_key.is_none()));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let missing = house.call(method, &format!("{KEYS}/{id}"), "{").await;
        assert_eq!((missing.status, missing.message()), (404, "Virtual key not found".to_owned()));
    }
    assert_eq!(house.quota(&[("x-bf-vk", &value)]).await.status, 401);
}

#[tokio::test]
async fn only_a_name_is_required_and_the_key_may_use_nothing() {
    let house = House::new();
    let key = house.create(json!({"name": "bare"})).await.key();
    assert_eq!((&key["provider_configs"], &key["mcp_configs"], &key["budgets"]), (&json!([]), &json!([]), &json!([])));
    assert_eq!((key.get("budget"), key.get("rate_limit"), &key["description"]), (None, None, &json!("")));
    // Ids in a body are not taken over.
    let copy = json!({"id": key["id"], "value": key["value"], "name": "copy",
        "provider_configs": [{"id": 77, "provider": "openai"}]});
    let copy = house.create(copy).await.key();
    assert!(copy["id"] != key["id"] && copy["value"] != key["value"] && copy["provider_configs"][0]["id"] != 77);
    assert_eq!(copy["provider_configs"][0]["weight"], Value::Null);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_contracts_words() {
    let house = House::new();
    house.create(json!({"name": "taken"})).await.key();
    let one = |config: Value| json!({"name": "a", "provider_configs": [config]});
    let budget = |budget: Value| json!({"name": "a", "budget": budget});
    let cases = [
        (json!({}), 400, "Virtual key name is required"),
        (json!({"name": "  "}), 400, "Virtual key name is required"),
        (
            json!({"name": "a", "team_id": "t", "customer_id": "c"}),
            400,
            "VirtualKey cannot be attached to both Team and Customer",
        ),
        (json!({"name": "a", "team_id": "t"}), 400, "team_id: there is no team 't'"),
        (budget(json!({"max_limit": -1, "reset_duration": "1d"})), 400, "Budget max_limit cannot be negative: -1.00"),
        (
            budget(json!({"max_limit": 0, "reset_duration": "1d"})),
            400,
            "budget max limit cannot be negative or zero: 0.00",
        ),
        (budget(json!({"max_limit": 1})), 400, "budget reset duration is required"),
        (
            budget(json!({"max_limit": 1, "reset_duration": "1h", "calendar_aligned": true})),
            400,
            "calendar alignment needs exactly 1d, 1w, 1M or 1Y, not 1h",
        ),
        (
            budget(json!({"max_limit": 1, "reset_duration": "3M", "calendar_aligned": true})),
            400,
            "calendar alignment needs exactly 1d, 1w, 1M or 1Y, not 3M",
        ),
        (budget(json!({"max_limit": 1, "reset_duration": "xyz"})), 400, "Invalid reset duration format: xyz"),
        (
            budget(json!({"max_limit": "1", "reset_duration": "1d"})),
            400,
            "Invalid JSON: budget.max_limit: must be a number, not a string",
        ),
        (json!({"name": 7}), 400, "Invalid JSON: name: must be a string, not a number"),
        (json!([1]), 400, "Invalid JSON: must be an object, not an array"),
        (
            json!({"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1d"}, {"max_limit": 2, "reset_duration": "1d"}]}),
            400,
            "Duplicate reset_duration in budgets: 1d",
        ),
        (
            json!({"name": "a", "rate_limit": {"token_max_limit": 0, "token_reset_duration": "1h"}}),
            400,
            "Invalid rate limit: rate limit token max limit cannot be negative or zero: 0",
        ),
        (
            json!({"name": "a", "rate_limit": {"token_max_limit": 5}}),
            400,
            "Invalid rate limit: rate limit token reset duration is required",
        ),
        (
            one(json!({"provider": "nope"})),
            400,
            "provider_configs[0].provider: provider 'nope' is neither built in nor configured",
        ),
        (
            one(json!({"provider": "local", "budget": {"max_limit": 0, "reset_duration": "1d"}})),
            400,
            "provider_configs[0].budget.max_limit: budget max limit cannot be negative or zero: 0.00",
        ),
        (
            one(json!({"provider": "local", "key_ids": ["spare"]})),
            400,
            "provider_configs[0].key_ids[0]: provider 'local' has no key 'spare'",
        ),
        (
            one(json!({"provider": "local", "allowed_models": ["*", "m"]})),
            400,
            "provider_configs[0].allowed_models: '*' means everything and stands alone",
        ),
        (
            one(json!({"provider": "local", "weight": -0.5})),
            400,
            "provider_configs[0].weight: weight '-0.5' is negative",
        ),
        (
            json!({"name": "a", "provider_configs": [{"provider": "local"}, {"provider": "local"}]}),
            400,
            "provider_configs[1].provider: there are two configs for provider 'local'",
        ),
        (
            json!({"name": "a", "mcp_configs": [{"mcp_client_name": "x"}, {"mcp_client_name": "x"}]}),
            400,
            "mcp_configs[1].mcp_client_name: there are two configs for MCP client 'x'",
        ),
        (json!({"name": "taken"}), 409, "Virtual key name 'taken' is taken"),
    ];
    house.refuses(Method::POST, KEYS, &cases).await;
    // Several at once, each with its path.
    let many = json!({"is_active": 1, "provider_configs": [{"provider": "x"}]});
    let message = house.create(many).await.message();
    for says in ["is_active: must be true or false", "name: Virtual key name", "provider_configs[0].provider: "] {
        assert!(message.contains(says), "{message}");
    }
    let reply = house.call(Method::POST, KEYS, "{\"name\": ").await;
    assert!(reply.status == 400 && reply.message().starts_with("Invalid JSON: EOF"), "{}", reply.text);
    let reply = house.call(Method::POST, KEYS, "x".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!((reply.status, reply.json()["status_code"].clone()), (413, json!(413)));
}

#[tokio::test]
async fn an_update_keeps_what_it_does_not_name() {
    let house = House::new();
    let key = house.create(whole()).await.key();
    let (id, value) = (text(&key["id"]).to_owned(), text(&key["value"]).to_owned());
    house.spend(&value, DOLLAR);
    house.hand.fetch_add(1_000, Ordering::SeqCst);
    let reply = house.update(&id, json!({"name": "new"})).await;
    assert_eq!(reply.json()["message"], "Virtual key updated successfully");
    let renamed = reply.key();
    let mut expected = house.get(&format!("{KEYS}/{id}")).await.key();
    assert_eq!(renamed, expected);
    assert_eq!((&renamed["updated_at"], &renamed["created_at"]), (&json!("2023-11-14T22:13:21Z"), &key["created_at"]));
    for same in ["value", "budget_id", "rate_limit_id", "mcp_configs", "description"] {
        assert_eq!(renamed[same], key[same], "{same}");
    }
    // Nulls keep, too; and an answer can be written back.
    let nulls = json!({"name": null, "description": null, "is_active": null, "budget": null, "budgets": null,
        "rate_limit": null, "provider_configs": null, "mcp_configs": null, "team_id": null, "customer_id": ""});
    assert_eq!(house.update(&id, nulls).await.key(), expected);
    assert_eq!(house.update(&id, renamed.clone()).await.key(), expected);
    expected["is_active"] = false.into();
    assert_eq!(house.update(&id, json!({"is_active": false})).await.key(), expected);
    for (body, status, says) in [
        (json!({"name": ""}), 400, "Virtual key name is required"),
        (json!({"team_id": "t", "customer_id": "c"}), 400, "VirtualKey cannot be attached to both Team and Customer"),
        (
            json!({"provider_configs": [{"id": 99}]}),
            400,
            "provider_configs[0].id: this virtual key has no provider config 99",
        ),
        (json!({"provider_configs": [{"provider": "local"}, {"provider": "local"}]}), 400, "two configs for provider"),
        (json!({"budget": {"max_limit": -1}}), 400, "Budget max_limit cannot be negative: -1.00"),
        (json!({"budget": {"reset_duration": "2h", "calendar_aligned": true}}), 400, "calendar alignment needs"),
    ] {
        let reply = house.update(&id, body).await;
        assert!(reply.status == status && reply.message().contains(says), "{}", reply.text);
    }
    house.create(json!({"name": "taken"})).await.key();
    assert_eq!(house.update(&id, json!({"name": "taken"})).await.status, 409);
    assert_eq!(house.update("none", json!({"name": ""})).await.status, 404);
    assert_eq!(house.get(&format!("{KEYS}/{id}")).await.key(), expected);
}

#[tokio::test]
async fn limits_change_and_usage_stays() {
    let house = House::new();
    let key = house.create(whole()).await.key();
    let (id, value) = (text(&key["id"]).to_owned(), text(&key["value"]).to_owned());
    house.spend(&value, DOLLAR);
    let put = async |body: Value| house.update(&id, body).await.key();
    let usage = |key: &Value| (key["budget"]["current_usage"].clone(), key["budget_id"].clone());
    let changed = put(json!({"budget": {"max_limit": 1}})).await;
    assert_eq!(
        (usage(&changed), &changed["budget"]["reset_duration"]),
        ((json!(1), key["budget_id"].clone()), &json!("1d"))
    );
    assert!(house.hold(&value, 1).is_none(), "lowered to what was spent: refused at once");
    let changed = put(json!({"budget": {"max_limit": 3, "reset_duration": "2d"}})).await;
    assert_eq!(usage(&changed), (json!(1), key["budget_id"].clone()));
    house.spend(&value, DOLLAR);
    // The list is matched by duration.
    let list = json!({"budgets": [{"max_limit": 7, "reset_duration": "2d"}, {"max_limit": 4, "reset_duration": "1h"}]});
    let changed = put(list).await;
    assert_eq!(changed["budgets"].as_array().unwrap().len(), 2);
    assert_eq!((&changed["budget"]["reset_duration"], &changed["budget"]["current_usage"]), (&json!("1h"), &json!(0)));
    assert_eq!((&changed["budgets"][1]["id"], &changed["budgets"][1]["current_usage"]), (&key["budget_id"], &json!(2)));
    assert_eq!(put(changed.clone()).await["budgets"], changed["budgets"], "two budgets can be written back");
    let changed = put(json!({"budgets": [{"max_limit": 7, "reset_duration": "2d"}]})).await;
    assert_eq!(usage(&changed), (json!(2), key["budget_id"].clone()));
    // Removed, and made anew with nothing spent.
    let changed = put(json!({"budget": {}})).await;
    assert_eq!((changed.get("budget"), &changed["budgets"]), (None, &json!([])));
    let refused = house.update(&id, json!({"budget": {"max_limit": 1}})).await;
    assert_eq!(refused.message(), "both max_limit and reset_duration are required when creating a new budget");
    let changed = put(json!({"budget": {"max_limit": 1, "reset_duration": "1d"}})).await;
    assert_eq!(changed["budget"]["current_usage"], 0);
    assert_eq!(put(json!({"budgets": []})).await["budgets"], json!([]));

    // Each half of a rate limit on its own.
    let rate = &key["rate_limit_id"];
    let changed = put(json!({"rate_limit": {"request_max_limit": 2, "request_reset_duration": "1m"}})).await;
    let shown = &changed["rate_limit"];
    assert_eq!((&shown["token_max_limit"], &shown["request_max_limit"]), (&json!(1000), &json!(2)));
    assert_eq!(
        (&shown["token_current_usage"], &shown["request_current_usage"], &shown["id"]),
        (&json!(14), &json!(0), rate)
    );
    let changed = put(json!({"rate_limit": {"token_max_limit": 9, "request_max_limit": null}})).await;
    let shown = &changed["rate_limit"];
    assert_eq!((&shown["token_max_limit"], &shown["token_reset_duration"]), (&json!(9), &json!("1h")));
    assert_eq!(shown.get("request_max_limit"), None);
    assert_eq!(put(json!({"rate_limit": {}})).await.get("rate_limit"), None);
    assert_eq!(
        put(json!({"rate_limit": {"token_max_limit": 9, "token_reset_duration": "1h"}})).await["rate_limit"]["token_current_usage"],
        0
    );
}

#[tokio::test]
async fn provider_configs_are_reconciled() {
    let house = House::new();
    let key = house.create(whole()).await.key();
    let (id, value) = (text(&key["id"]).to_owned(), text(&key["value"]).to_owned());
    house.spend(&value, DOLLAR);
    let put = async |body: Value| house.update(&id, body).await.key()["provider_configs"].clone();
    let first = key["provider_configs"][0].clone();
    // Without an id it is matched by provider; what is absent stays.
    let configs = put(json!({"provider_configs": [{"provider": "local", "weight": 2}, {"provider": "openai", "allowed_models": ["*"]}]})).await;
    assert_eq!(
        (&configs[0]["id"], &configs[0]["weight"], &configs[0]["key_ids"]),
        (&first["id"], &json!(2), &json!(["main"]))
    );
    assert_eq!((&configs[0]["allowed_models"], &configs[0]["budget"]["current_usage"]), (&json!(["*"]), &json!(1)));
    assert_eq!((&configs[1]["key_ids"], &configs[1]["allow_all_keys"]), (&json!([]), &json!(false)));
    // By id, with a null weight, keys as answers show them, and the rest deleted with its limits.
    let configs = put(json!({"provider_configs": [{"id": first["id"], "weight": null, "keys": [{"key_id": "main"}],
        "budget": {"max_limit": 6}}]}))
    .await;
    assert_eq!(configs.as_array().unwrap().len(), 1);
    assert_eq!((&configs[0]["weight"], &configs[0]["key_ids"]), (&Value::Null, &json!(["main"])));
    assert_eq!((&configs[0]["budget"]["max_limit"], &configs[0]["budget"]["current_usage"]), (&json!(6), &json!(1)));
    let configs = put(json!({"provider_configs": [{"provider": "local", "key_ids": ["*"]}]})).await;
    assert_eq!((&configs[0]["allow_all_keys"], &configs[0]["key_ids"]), (&json!(true), &json!(["*"])));
    assert_eq!(put(json!({"provider_configs": configs})).await, configs);
    assert_eq!(put(json!({"provider_configs": []})).await, json!([]));
}

#[tokio::test]
async fn turning_to_the_calendar_starts_from_nothing() {
    let house = House::new();
    let key = house.create(json!({"name": "a", "budget": {"max_limit": 9, "reset_duration": "1M"}, "provider_configs": [{"provider": "local"}]})).await.key();
    let (id, value) = (text(&key["id"]).to_owned(), text(&key["value"]).to_owned());
    house.spend(&value, DOLLAR);
    let late = house.hold(&value, DOLLAR).unwrap();
    let changed = house.update(&id, json!({"budget": {"calendar_aligned": true}})).await.key();
    let budget = &changed["budget"];
    assert_eq!(
        (&budget["id"], &budget["current_usage"], &budget["max_limit"]),
        (&key["budget_id"], &json!(0), &json!(9))
    );
    assert_eq!(
        (&budget["last_reset"], &budget["resets_at"]),
        (&json!("2023-11-01T00:00:00Z"), &json!("2023-12-01T00:00:00Z"))
    );
    // A call that was admitted before belongs to what was before.
    late.settle(Ending::Completed, Usage::default(), Spend { cost: Nanos::new(DOLLAR), tokens: 1 });
    house.spend(&value, 3 * DOLLAR);
    let shown = house.get(&format!("{KEYS}/{id}")).await.key();
    assert_eq!((&shown["budget"]["current_usage"], &shown["budget"]["held"]), (&json!(3), &json!(0)));
    house.hand.store(1_701_388_800_000, Ordering::SeqCst);
    assert_eq!(house.get(&format!("{KEYS}/{id}")).await.key()["budget"]["current_usage"], 0);
}

#[tokio::test]
async fn lists_are_paged_sorted_and_searched() {
    let house = House::new();
    for (name, active) in [("beta", true), ("Alpha", false), ("gam%ma", true)] {
        let body = json!({"name": name, "is_active": active, "budget": {"max_limit": 9, "reset_duration": "1d"}, "provider_configs": [{"provider": "local"}]});
        let key = house.create(body).await.key();
        house.hand.fetch_add(1, Ordering::SeqCst);
        if name != "beta" {
            house.spend(text(&key["value"]), name.len() as i64);
        }
    }
    let check = async |query: &str, names: &[&str], envelope: [u64; 3]| {
        let reply = house.get(&format!("{KEYS}{query}")).await.json();
        let found: Vec<&str> = reply["virtual_keys"].as_array().unwrap().iter().map(|key| text(&key["name"])).collect();
        assert_eq!(found, names, "{query}");
        assert_eq!(reply["count"], names.len());
        let [total, limit, offset] = ["total_count", "limit", "offset"].map(|name| reply[name].as_u64().unwrap());
        assert_eq!([total, limit, offset], envelope, "{query}");
    };
    check("", &["beta", "Alpha", "gam%ma"], [3, 3, 0]).await;
    check("?limit=2", &["beta", "Alpha"], [3, 2, 0]).await;
    check("?offset=1", &["Alpha", "gam%ma"], [3, 25, 1]).await;
    check("?limit=0&offset=9", &[], [3, 25, 9]).await;
    check("?limit=500", &["beta", "Alpha", "gam%ma"], [3, 100, 0]).await;
    check("?limit=500&export=true", &["beta", "Alpha", "gam%ma"], [3, 500, 0]).await;
    check("?search=ALPH", &["Alpha"], [1, 25, 0]).await;
    check("?search=%25", &["gam%ma"], [1, 25, 0]).await;
    check("?search=_", &[], [0, 25, 0]).await;
    check("?sort_by=name", &["Alpha", "beta", "gam%ma"], [3, 3, 0]).await;
    check("?sort_by=name&order=desc", &["gam%ma", "beta", "Alpha"], [3, 3, 0]).await;
    check("?sort_by=budget_spent&order=desc", &["gam%ma", "Alpha", "beta"], [3, 3, 0]).await;
    check("?sort_by=status", &["Alpha", "beta", "gam%ma"], [3, 3, 0]).await;
    check("?sort_by=created_at&order=desc", &["gam%ma", "Alpha", "beta"], [3, 3, 0]).await;
    check("?sort_by=nonsense", &["beta", "Alpha", "gam%ma"], [3, 3, 0]).await;
    check("?team_id=t&customer_id=c", &[], [0, 0, 0]).await;
    let memory = house.get(&format!("{KEYS}?from_memory=true")).await.json();
    assert_eq!((memory["count"].clone(), memory.as_object().unwrap().len()), (json!(3), 2));
    for (query, says) in [
        ("limit=x", "Invalid limit parameter: must be a number"),
        ("limit=-1", "Invalid limit parameter: must be non-negative"),
        ("offset=x", "Invalid offset parameter: must be a number"),
        ("offset=-1", "Invalid offset parameter: must be non-negative"),
        ("export=1", "Invalid export parameter: must be true or false"),
        ("from_memory=yes", "Invalid from_memory parameter: must be true or false"),
        ("order=sideways", "order must be asc or desc"),
    ] {
        let reply = house.get(&format!("{KEYS}?{query}")).await;
        assert_eq!((reply.status, reply.message()), (400, says.to_owned()));
    }
}

#[tokio::test]
async fn a_value_may_be_shown_once() {
    let house = House::with(Setup { metrics_auth: false, show_virtual_keys: false, ..Setup::default() });
    let key = house.create(json!({"name": "a"})).await.key();
    assert!(text(&key["value"]).starts_with("sk-bf-"));
    let path = format!("{KEYS}/{}", text(&key["id"]));
    for reply in [house.get(&path).await, house.get(KEYS).await, house.update(text(&key["id"]), json!({})).await] {
        assert!(reply.status == 200 && !reply.text.contains("sk-bf-"));
    }
    assert!(!format!("{:?}", house.admin).contains(TOKEN));
    let open = house.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (open.status, open.headers["content-type"].to_str().unwrap()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(open.text.contains("\ntollgate_open_holds 0\n"));
}

#[tokio::test]
async fn a_rotated_key_has_another_value() {
    for show_virtual_keys in [true, false] {
        let house = House::with(Setup { show_virtual_keys, ..Setup::default() });
        let key = house.create(whole()).await.key();
        let (old, path) = (text(&key["value"]).to_owned(), format!("{KEYS}/{}", id(&key)));
        house.spend(&old, DOLLAR);
        house.pass(1_000);
        let rotated = house.post(&format!("{path}/rotate"), json!({})).await.good();
        assert_eq!(rotated["message"], "Virtual key rotated successfully");
        let mut rotated = rotated["virtual_key"].clone();
        let new = text(&rotated["value"]).to_owned();
        assert!(new.starts_with("sk-bf-") && new.len() == 42 && new != old);
        // The old one is nobody's from now on; what was spent stays.
        assert_eq!(house.quota(&[("x-bf-vk", &old)]).await.status, 401);
        let quota = house.quota(&[("x-bf-vk", &new)]).await.good();
        assert_eq!(quota["budgets"][0]["current_usage"], 1);
        if !show_virtual_keys {
            rotated.as_object_mut().unwrap().remove("value");
        }
        assert_eq!(house.get(&path).await.key(), rotated);
        assert_ne!(rotated["updated_at"], key["updated_at"]);
    }
}

#[tokio::test]
async fn a_key_belongs_to_one_owner() {
    let house = House::new();
    let team = house.post("/api/governance/teams", json!({"name": "t"})).await.one("team");
    let customer = house.post("/api/governance/customers", json!({"name": "c"})).await.one("customer");
    let both = "VirtualKey cannot be attached to both Team and Customer";
    let body = json!({"name": "k", "team_id": team["id"], "customer_id": customer["id"]});
    house.create(body.clone()).await.refused(400, both);
    // An empty one is none.
    let key = house.create(json!({"name": "k", "team_id": team["id"], "customer_id": ""})).await.key();
    assert_eq!((&key["team_id"], &key["customer_id"]), (&team["id"], &Value::Null));
    assert_eq!((&key["team"]["name"], key["team"].get("virtual_keys"), key.get("customer")), (&json!("t"), None, None));
    house.update(&id(&key), body).await.refused(400, both);
    for (body, says) in [
        (json!({"team_id": "none"}), "team_id: there is no team 'none'"),
        (json!({"customer_id": "none"}), "customer_id: there is no customer 'none'"),
    ] {
        house.update(&id(&key), body).await.refused(400, says);
    }
    let other = house.create(json!({"name": "o", "customer_id": customer["id"]})).await.key();
    let check = async |query: String, keys: &[&Value]| {
        let found = house.get(&format!("{KEYS}?{query}")).await.good();
        let found: Vec<&str> = found["virtual_keys"].as_array().unwrap().iter().map(|key| text(&key["name"])).collect();
        assert_eq!(found, keys.iter().map(|key| text(&key["name"])).collect::<Vec<_>>(), "{query}");
    };
    let (t, c) = (id(&team), id(&customer));
    check(format!("team_id={t}"), &[&key]).await;
    check(format!("customer_id={c}"), &[&other]).await;
    check(format!("team_id={t}&customer_id={c}&sort_by=name"), &[&key, &other]).await;
    check(format!("team_id={t}&customer_id=none"), &[&key]).await;
    check(format!("team_id={t}&search=o"), &[]).await;
    check("team_id=none".into(), &[]).await;
}
