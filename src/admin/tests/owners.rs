//! Teams and customers over REST.

use super::*;

const TEAMS: &str = "/api/governance/teams";
const CUSTOMERS: &str = "/api/governance/customers";
const RULES: &str = "/api/governance/routing-rules";

fn limits() -> Value {
    json!({
        "budget": {"max_limit": 10, "reset_duration": "1d"},
        "rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1h",
                       "request_max_limit": 10, "request_reset_duration": "1m"},
    })
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_team_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let customer = house.post(CUSTOMERS, json!({"name": "Acme"})).await.one("customer");
    let free = json!({"profile": {"a": [1]}, "config": {}, "claims": {"b": null}});
    let body = with(with(json!({"name": "core", "customer_id": customer["id"]}), limits()), free.clone());
    let made = house.post(TEAMS, body).await.good();
    assert_eq!(made["message"], "Team created successfully");
    let team = &made["team"];
    let path = format!("{TEAMS}/{}", id(team));
    assert!(uuid::Uuid::parse_str(text(&team["id"])).is_ok());
    assert_eq!(
        (&team["name"], &team["customer_id"], &team["virtual_keys"]),
        (&json!("core"), &customer["id"], &json!([]))
    );
    assert_eq!((&team["budget"]["current_usage"], &team["budget_id"]), (&json!(0), &team["budget"]["id"]));
    assert_eq!(
        (&team["rate_limit"]["request_max_limit"], &team["rate_limit_id"]),
        (&json!(10), &team["rate_limit"]["id"])
    );
    assert_eq!(team["budgets"], json!([team["budget"]]));
    for (name, value) in free.as_object().unwrap() {
        assert_eq!(team[name], *value);
    }
    // The customer is there, one level deep.
    let name = |value: &Value| value["customer"]["name"].clone();
    assert_eq!((name(team), team["customer"].get("teams")), (json!("Acme"), None));
    assert_eq!(house.get(&path).await.one("team"), *team);
    assert_eq!(house.get(TEAMS).await.good()["teams"], json!([team]));

    let changed = house.put(&path, json!({"name": "platform", "customer_id": ""})).await.good();
    assert_eq!(changed["message"], "Team updated successfully");
    let changed = &changed["team"];
    assert_eq!(
        (&changed["name"], &changed["customer_id"], changed.get("customer")),
        (&json!("platform"), &Value::Null, None)
    );
    assert_eq!(changed["budgets"], team["budgets"]);
    assert_eq!(house.delete(&path).await.good(), json!({"message": "Team deleted successfully"}));
    assert_eq!(house.get("/api/governance/budgets").await.good()["count"], 0);
    assert_eq!(house.get("/api/governance/rate-limits").await.good()["count"], 0);
}

#[tokio::test]
async fn a_customer_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let made = house.post(CUSTOMERS, with(json!({"name": "Acme"}), limits())).await.good();
    assert_eq!(made["message"], "Customer created successfully");
    let customer = &made["customer"];
    let path = format!("{CUSTOMERS}/{}", id(customer));
    assert_eq!(
        (&customer["name"], &customer["teams"], &customer["virtual_keys"]),
        (&json!("Acme"), &json!([]), &json!([]))
    );
    assert_eq!(
        (&customer["budget"]["max_limit"], &customer["rate_limit"]["token_max_limit"]),
        (&json!(10), &json!(1000))
    );

    let team = house.post(TEAMS, json!({"name": "core", "customer_id": customer["id"]})).await.one("team");
    let direct = house.create(json!({"name": "direct", "customer_id": customer["id"]})).await.key();
    let through = house.create(json!({"name": "through", "team_id": team["id"]})).await.key();
    let shown = house.get(&path).await.one("customer");
    // A key that hangs under one of its teams is not listed, and what is listed has no lists of its own.
    let ids = |list: &Value| list.as_array().unwrap().iter().map(|object| object["id"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (ids(&shown["teams"]), ids(&shown["virtual_keys"])),
        (vec![team["id"].clone()], vec![direct["id"].clone()])
    );
    assert_eq!((shown["teams"][0].get("virtual_keys"), shown["virtual_keys"][0].get("value")), (None, None));
    let shown = house.get(&format!("{TEAMS}/{}", id(&team))).await.one("team");
    assert_eq!(ids(&shown["virtual_keys"]), vec![through["id"].clone()]);
    assert_eq!((&through["team"]["name"], through.get("customer")), (&json!("core"), None));
    assert_eq!(direct["customer"]["name"], "Acme");

    let changed = house.put(&path, json!({"name": "Acme & Sons"})).await.good();
    assert_eq!(
        (&changed["message"], &changed["customer"]["name"]),
        (&json!("Customer updated successfully"), &json!("Acme & Sons"))
    );
    assert_eq!(house.get(CUSTOMERS).await.good()["customers"], json!([changed["customer"]]));
    assert_eq!(house.delete(&path).await.good(), json!({"message": "Customer deleted successfully"}));
}

#[tokio::test]
async fn what_is_wrong_with_an_owner_is_said_in_the_contracts_words() {
    let house = House::new();
    for (path, title) in [(TEAMS, "Team"), (CUSTOMERS, "Customer")] {
        let nameless = format!("{title} name is required");
        let budget = |budget: Value| json!({"name": "a", "budget": budget});
        let rate = |rate: Value| json!({"name": "a", "rate_limit": rate});
        let cases = [
            (json!({}), &*nameless),
            (json!({"name": null}), &nameless),
            (json!({"name": " "}), &nameless),
            (budget(json!({"max_limit": -1, "reset_duration": "1d"})), "Budget max_limit cannot be negative: -1.00"),
            (
                budget(json!({"max_limit": 0, "reset_duration": "1d"})),
                "budget max limit cannot be negative or zero: 0.00",
            ),
            (budget(json!({"max_limit": 1})), "budget reset duration is required"),
            (budget(json!({"max_limit": 1, "reset_duration": "xyz"})), "Invalid reset duration format: xyz"),
            (budget(json!({"max_limit": 1, "reset_duration": "-1h"})), "Invalid reset duration format: -1h"),
            (budget(json!({"max_limit": 1, "reset_duration": "0s"})), "Invalid reset duration format: 0s"),
            (budget(json!({"max_limit": 1, "reset_duration": "1d2h"})), "Invalid reset duration format: 1d2h"),
            (
                rate(json!({"token_max_limit": 0, "token_reset_duration": "1h"})),
                "Invalid rate limit: rate limit token max limit cannot be negative or zero: 0",
            ),
            (
                rate(json!({"request_max_limit": -3, "request_reset_duration": "1h"})),
                "Invalid rate limit: rate limit request max limit cannot be negative or zero: -3",
            ),
            (rate(json!({"token_max_limit": 5})), "Invalid rate limit: rate limit token reset duration is required"),
            (
                rate(json!({"request_max_limit": 5})),
                "Invalid rate limit: rate limit request reset duration is required",
            ),
            (
                rate(json!({"token_max_limit": 5, "token_reset_duration": "x"})),
                "Invalid rate limit: invalid rate limit token reset duration format: x",
            ),
            (
                rate(json!({"request_max_limit": 5, "request_reset_duration": "x"})),
                "Invalid rate limit: invalid rate limit request reset duration format: x",
            ),
        ];
        let cases: Vec<(Value, u16, &str)> = cases.into_iter().map(|(body, says)| (body, 400, says)).collect();
        house.refuses(Method::POST, path, &cases).await;
        // An update is told the same; its name may be absent.
        let made = house.post(path, json!({"name": "a"})).await.good();
        let path = format!("{path}/{}", id(&made[title.to_lowercase()]));
        let whole = "both max_limit and reset_duration are required when creating a new budget";
        let cases: Vec<(Value, u16, &str)> = cases
            .into_iter()
            .skip(2)
            .map(|(body, status, says)| {
                (body, status, if says == "budget reset duration is required" { whole } else { says })
            })
            .collect();
        house.refuses(Method::PUT, &path, &cases).await;
    }
    let unknown = "customer_id: there is no customer 'none'";
    house.refuses(Method::POST, TEAMS, &[(json!({"name": "a", "customer_id": "none"}), 400, unknown)]).await;
    let team = format!("{TEAMS}/{}", id(&house.get(TEAMS).await.good()["teams"][0]));
    house.refuses(Method::PUT, &team, &[(json!({"customer_id": "none"}), 400, unknown)]).await;
}

#[tokio::test]
async fn names_of_owners_need_not_be_unique() {
    let house = House::new();
    for path in [TEAMS, CUSTOMERS] {
        for _ in 0..2 {
            assert_eq!(house.post(path, json!({"name": "same"})).await.status, 200);
        }
    }
}

#[tokio::test]
async fn an_update_of_an_owner_keeps_what_it_does_not_name() {
    let house = House::new();
    let acme = house.post(CUSTOMERS, json!({"name": "Acme"})).await.one("customer");
    for (path, one) in [(TEAMS, "team"), (CUSTOMERS, "customer")] {
        let mut body = with(json!({"name": "a"}), limits());
        if one == "team" {
            body["customer_id"] = acme["id"].clone();
        }
        let made = house.post(path, body).await.one(one);
        let path = format!("{path}/{}", id(&made));
        let nulls = json!({"name": null, "customer_id": null, "budget": null, "budgets": null, "rate_limit": null});
        for body in [json!({}), nulls, made.clone()] {
            assert_eq!(house.put(&path, body).await.one(one), made);
        }
        // A blank name is a mistake, not a wish.
        house
            .put(&path, json!({"name": ""}))
            .await
            .refused(400, &format!("{} name is required", if one == "team" { "Team" } else { "Customer" }));
    }
}

#[tokio::test]
async fn limits_of_owners_change_by_halves_and_keep_their_usage() {
    let house = House::new();
    for (path, one) in [(TEAMS, "team"), (CUSTOMERS, "customer")] {
        let made = house.post(path, with(json!({"name": "a"}), limits())).await.one(one);
        let key = json!({"name": one, format!("{one}_id"): made["id"], "provider_configs": [{"provider": "local"}]});
        let key = house.create(key).await.key();
        house.spend(text(&key["value"]), DOLLAR);
        let path = format!("{path}/{}", id(&made));
        let put = async |body: Value| house.put(&path, body).await.one(one);
        let rate = |object: &Value| {
            let rate = &object["rate_limit"];
            let of = |name: &str| rate.get(name).cloned().unwrap_or_default();
            json!([
                of("token_max_limit"),
                of("token_reset_duration"),
                of("request_max_limit"),
                of("request_reset_duration")
            ])
        };
        let changed = put(json!({"budget": {"max_limit": 20}})).await;
        assert_eq!((&changed["budget"]["max_limit"], &changed["budget"]["current_usage"]), (&json!(20), &json!(1)));
        assert_eq!(changed["budget_id"], made["budget_id"]);
        // A half of which something is given is changed; the other stays.
        let changed = put(json!({"rate_limit": {"token_max_limit": 500}})).await;
        assert_eq!(rate(&changed), json!([500, "1h", 10, "1m"]));
        let changed = put(json!({"rate_limit": {"request_reset_duration": "2m"}})).await;
        assert_eq!(rate(&changed), json!([500, "1h", 10, "2m"]));
        assert_eq!(
            (&changed["rate_limit"]["token_current_usage"], &changed["rate_limit_id"]),
            (&json!(7), &made["rate_limit_id"])
        );
        // A null limit takes its half away.
        let changed = put(json!({"rate_limit": {"request_max_limit": null}})).await;
        assert_eq!(rate(&changed), json!([500, "1h", null, null]));
        let changed = put(json!({"rate_limit": {"token_max_limit": null}})).await;
        assert_eq!(changed.get("rate_limit"), None);
        let changed = put(json!({"rate_limit": {"request_max_limit": 3, "request_reset_duration": "1m"}})).await;
        assert_eq!(rate(&changed), json!([null, null, 3, "1m"]));
        assert_eq!(put(json!({"rate_limit": {}})).await.get("rate_limit"), None);
        // All four null, as the reference writes it, is nothing as well.
        put(json!({"rate_limit": {"token_max_limit": 3, "token_reset_duration": "1m"}})).await;
        let nulls = json!({"token_max_limit": null, "token_reset_duration": null, "request_max_limit": null, "request_reset_duration": null});
        assert_eq!(put(json!({ "rate_limit": nulls })).await.get("rate_limit"), None);
        assert_eq!(put(json!({"budget": {"max_limit": null, "reset_duration": null}})).await.get("budget"), None);
        let changed = put(json!({"budget": {"max_limit": 2, "reset_duration": "1w"}})).await;
        assert_eq!(changed["budget"]["current_usage"], 0);
        // Made without a limit, a rate limit is none.
        let empty = house
            .post(path.rsplit_once('/').unwrap().0, json!({"name": "e", "rate_limit": {}, "budget": {}}))
            .await
            .one(one);
        assert_eq!((empty.get("rate_limit"), empty.get("budget")), (None, None));
    }
}

#[tokio::test]
async fn teams_are_filtered_by_their_customer() {
    let house = House::new();
    let acme = house.post(CUSTOMERS, json!({"name": "Acme"})).await.one("customer");
    let inside = house.post(TEAMS, json!({"name": "inside", "customer_id": acme["id"]})).await.one("team");
    house.pass(1);
    let outside = house.post(TEAMS, json!({"name": "outside"})).await.one("team");
    let check = async |query: String, teams: &[&Value]| {
        let found = house.get(&format!("{TEAMS}?{query}")).await.good();
        assert_eq!((&found["teams"], &found["total_count"]), (&json!(teams), &json!(teams.len())), "{query}");
    };
    check(format!("customer_id={}", id(&acme)), &[&inside]).await;
    check("customer_id=none".into(), &[]).await;
    check("customer_id=".into(), &[&inside, &outside]).await;
    check(format!("customer_id={}&search=out", id(&acme)), &[]).await;
}

#[tokio::test]
async fn what_belongs_to_a_deleted_owner_stays_on_its_own() {
    let house = House::new();
    let acme = house.post(CUSTOMERS, with(json!({"name": "Acme"}), limits())).await.one("customer");
    let core = house.post(TEAMS, with(json!({"name": "core", "customer_id": acme["id"]}), limits())).await.one("team");
    let direct = house
        .create(
            json!({"name": "direct", "customer_id": acme["id"], "budget": {"max_limit": 3, "reset_duration": "1d"}}),
        )
        .await
        .key();
    let through = house.create(json!({"name": "through", "team_id": core["id"]})).await.key();
    let rule = async |scope: &str, scope_id: &Value| {
        let body = json!({"name": scope, "scope": scope, "scope_id": scope_id, "targets": [{"provider": "local", "weight": 1}]});
        house.post(RULES, body).await.one("rule")
    };
    rule("customer", &acme["id"]).await;
    rule("team", &core["id"]).await;
    let kept = rule("virtual_key", &through["id"]).await;
    let key = async |key: &Value| house.get(&format!("{KEYS}/{}", id(key))).await.key();

    house.delete(&format!("{CUSTOMERS}/{}", id(&acme))).await.good();
    let core = house.get(&format!("{TEAMS}/{}", id(&core))).await.one("team");
    assert_eq!((&core["customer_id"], core.get("customer")), (&Value::Null, None));
    let now = key(&direct).await;
    assert_eq!(
        (&now["customer_id"], now.get("customer"), &now["budget_id"]),
        (&Value::Null, None, &direct["budget_id"])
    );
    assert_eq!(key(&through).await["team_id"], core["id"]);

    house.delete(&format!("{TEAMS}/{}", id(&core))).await.good();
    let now = key(&through).await;
    assert_eq!((&now["team_id"], now.get("team"), &now["value"]), (&Value::Null, None, &through["value"]));
    // Their limits went with them, and the rules that were for them alone.
    let budgets = house.get("/api/governance/budgets").await.good();
    assert_eq!((&budgets["count"], &budgets["budgets"][0]["id"]), (&json!(1), &direct["budget_id"]));
    assert_eq!(house.get("/api/governance/rate-limits").await.good()["count"], 0);
    assert_eq!(house.get(RULES).await.good()["rules"], json!([kept]));
    let deleted = house.get("/api/governance/audit?object_type=routing_rule").await.good();
    let deleted = deleted["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "deleted").count();
    assert_eq!(deleted, 2);
}
