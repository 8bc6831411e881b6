//! Where the reference behaves badly, and this does not. Each test names what goes wrong there.

use super::*;
use rusqlite::Connection;

const TEAMS: &str = "/api/governance/teams";
const CUSTOMERS: &str = "/api/governance/customers";
const RULES: &str = "/api/governance/routing-rules";

fn budget(dollars: i64) -> Value {
    json!({"max_limit": dollars, "reset_duration": "1d"})
}

fn open() -> Value {
    json!([{"provider": "local", "allowed_models": ["*"], "key_ids": ["*"], "weight": 1}])
}

/// There, a header of an answer brought the provider's key.
#[tokio::test]
async fn no_header_of_an_answer_has_a_secret() {
    let house = House::new();
    house.post("/api/providers/local/keys", a_provider_key()).await.good();
    for path in [
        "/api/providers",
        "/api/providers/local",
        "/api/providers/local/keys",
        "/api/providers/local/keys/main",
        "/api/keys",
    ] {
        let reply = house.get(path).await;
        let names: Vec<&str> = reply.headers.keys().map(|name| name.as_str()).collect();
        assert!(
            names.iter().all(|name| ["cache-control", "content-type", "content-length", "etag"].contains(name)),
            "{path}: {names:?}"
        );
    }
}

/// There, one of the two spellings was ignored on create, and the key unlimited.
#[tokio::test]
async fn a_budget_counts_in_either_spelling() {
    let house = House::new();
    let same = budget(1);
    for (name, body) in [
        ("one", json!({ "budget": same })),
        ("list", json!({ "budgets": [same] })),
        ("both", json!({ "budget": same, "budgets": [same] })),
    ] {
        let mut body = body;
        body["name"] = name.into();
        body["provider_configs"] = open();
        let key = house.create(body).await.key();
        assert_eq!((&key["budget"]["max_limit"], &key["budgets"]), (&json!(1), &json!([key["budget"]])), "{name}");
        house.spend(text(&key["value"]), DOLLAR);
        assert!(house.hold(text(&key["value"]), 1).is_none(), "{name}");
    }
    let two = json!({"name": "two", "budget": budget(1), "budgets": [budget(2)]});
    house.create(two).await.refused(400, "does not agree with 'budgets'; send one of the two");
}

/// There, an update that mentions neither takes the key out of both.
#[tokio::test]
async fn a_rename_keeps_a_key_in_its_team() {
    let house = House::new();
    let team = house.post(TEAMS, json!({"name": "t", "budget": budget(1)})).await.one("team");
    let customer = house.post(CUSTOMERS, json!({"name": "c"})).await.one("customer");
    let key = house.create(json!({"name": "k", "team_id": team["id"], "provider_configs": open()})).await.key();
    let put = async |body: Value| {
        let key = house.update(&id(&key), body).await.key();
        (key["team_id"].clone(), key["customer_id"].clone())
    };
    for body in [json!({"name": "renamed"}), json!({"is_active": true}), json!({"budget": budget(9)}), json!({})] {
        assert_eq!(put(body).await, (team["id"].clone(), Value::Null));
    }
    house.spend(text(&key["value"]), DOLLAR);
    assert!(house.hold(text(&key["value"]), 1).is_none(), "the team's budget still holds");
    assert_eq!(put(json!({"customer_id": customer["id"]})).await, (Value::Null, customer["id"].clone()));
    assert_eq!(put(json!({"team_id": team["id"]})).await, (team["id"].clone(), Value::Null));
    assert_eq!(put(json!({"team_id": null})).await, (Value::Null, Value::Null));
    assert_eq!(put(json!({"customer_id": customer["id"]})).await, (Value::Null, customer["id"].clone()));
    assert_eq!(put(json!({"team_id": ""})).await, (Value::Null, customer["id"].clone()), "it was in no team");
    assert_eq!(put(json!({"customer_id": ""})).await, (Value::Null, Value::Null));
}

/// There, the live counter keeps what the database forgot, and writes it back.
#[tokio::test]
async fn calendar_alignment_starts_from_nothing_everywhere() {
    let house = House::new();
    let body = json!({"name": "k", "provider_configs": open(), "budget": {"max_limit": 2, "reset_duration": "1M"}});
    let key = house.create(body).await.key();
    house.spend(text(&key["value"]), 2 * DOLLAR);
    assert!(house.hold(text(&key["value"]), 1).is_none());
    let changed = house.update(&id(&key), json!({"budget": {"calendar_aligned": true}})).await.key();
    assert_eq!((&changed["budget"]["current_usage"], &changed["budget"]["max_limit"]), (&json!(0), &json!(2)));
    house.spend(text(&key["value"]), DOLLAR);
    for path in [format!("{KEYS}/{}", id(&key)), format!("{KEYS}/{}?from_memory=true", id(&key))] {
        assert_eq!(house.get(&path).await.key()["budget"]["current_usage"], 1);
    }
    // Once aligned, aligning it again is no change.
    let again = house.update(&id(&key), json!({"budget": {"calendar_aligned": true}})).await.key();
    assert_eq!(again["budget"]["current_usage"], 1);
}

/// There, an edit of a limit reset what a team had spent.
#[tokio::test]
async fn usage_survives_every_edit() {
    let house = House::new();
    let limits = json!({"budget": budget(9), "rate_limit": {"token_max_limit": 99, "token_reset_duration": "1d"}});
    let with = |more: Value| {
        let mut body = limits.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let customer = house.post(CUSTOMERS, with(json!({"name": "c"}))).await.one("customer");
    let team = house.post(TEAMS, with(json!({"name": "t", "customer_id": customer["id"]}))).await.one("team");
    let config = with(json!({"provider": "local", "allowed_models": ["*"], "key_ids": ["*"]}));
    let key = house.create(with(json!({"name": "k", "team_id": team["id"], "provider_configs": [config]}))).await.key();
    house.spend(text(&key["value"]), DOLLAR);
    let check = async |after: &str| {
        for (path, many, usage) in [("budgets", "budgets", 1), ("rate-limits", "rate_limits", 7)] {
            let listed = house.get(&format!("/api/governance/{path}")).await.good();
            assert_eq!(listed["count"], 4, "{after}");
            for limit in listed[many].as_array().unwrap() {
                let used = limit.get("current_usage").unwrap_or(&limit["token_current_usage"]);
                assert_eq!(*used, usage, "{after}: {limit}");
            }
        }
    };
    check("the call").await;
    let change = json!({"budget": {"max_limit": 20}, "rate_limit": {"token_max_limit": 500}});
    let window = json!({"budget": {"reset_duration": "2d"}, "rate_limit": {"token_reset_duration": "2d"}});
    for body in [json!({"name": "renamed"}), change, window] {
        house.put(&format!("{CUSTOMERS}/{}", id(&customer)), body.clone()).await.good();
        house.put(&format!("{TEAMS}/{}", id(&team)), body.clone()).await.good();
        house.update(&id(&key), body.clone()).await.good();
        let mut config = body.clone();
        config["provider"] = "local".into();
        house.update(&id(&key), json!({ "provider_configs": [config] })).await.good();
        check(&body.to_string()).await;
    }
    // What others are about is not touched, either.
    house.put("/api/config", json!({"client_config": {"required_headers": ["x"]}})).await.good();
    house.put("/api/providers/local", json!({"network_config": {"base_url": "http://127.0.0.1:2"}})).await.good();
    house.post(&format!("{KEYS}/{}/rotate", id(&key)), json!({})).await.good();
    check("what others are about").await;
}

/// There, deleting one of its owners deleted a budget that others counted on.
#[tokio::test]
async fn deleting_an_owner_deletes_its_own_limits_only() {
    let house = House::new();
    let customer = house.post(CUSTOMERS, json!({"name": "c", "budget": budget(9)})).await.one("customer");
    let team =
        house.post(TEAMS, json!({"name": "t", "customer_id": customer["id"], "budget": budget(9)})).await.one("team");
    let make = async |name: &str| {
        house
            .create(json!({"name": name, "team_id": team["id"], "provider_configs": open(), "budget": budget(9)}))
            .await
            .key()
    };
    let [gone, stays] = [make("gone").await, make("stays").await];
    house.spend(text(&gone["value"]), DOLLAR);
    house.delete(&format!("{KEYS}/{}", id(&gone))).await.good();
    let left = async || {
        let listed = house.get("/api/governance/budgets").await.good();
        let mut left: Vec<(String, i64)> = listed["budgets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|budget| (text(&budget["owner_id"]).to_owned(), budget["current_usage"].as_i64().unwrap()))
            .collect();
        left.sort();
        left
    };
    let expect = |owners: &[(&Value, i64)]| {
        let mut owners: Vec<(String, i64)> = owners.iter().map(|(owner, used)| (id(owner), *used)).collect();
        owners.sort();
        owners
    };
    assert_eq!(left().await, expect(&[(&customer, 1), (&team, 1), (&stays, 0)]));
    house.delete(&format!("{TEAMS}/{}", id(&team))).await.good();
    assert_eq!(left().await, expect(&[(&customer, 1), (&stays, 0)]));
    house.delete(&format!("{CUSTOMERS}/{}", id(&customer))).await.good();
    assert_eq!(left().await, expect(&[(&stays, 0)]));
}

/// There, an update without `key_ids` locks the key out, and what was read cannot be written back.
#[tokio::test]
async fn an_update_without_key_ids_keeps_the_keys() {
    let house = House::new();
    for (name, ids) in [("some", json!(["main"])), ("all", json!(["*"]))] {
        let config = json!({"provider": "local", "key_ids": ids, "allowed_models": ["m"], "blacklisted_models": ["x"], "weight": 0.5});
        let key = house.create(json!({"name": name, "provider_configs": [config]})).await.key();
        let before = key["provider_configs"].clone();
        let written = |mut configs: Value, without: &str| {
            configs[0].as_object_mut().unwrap().remove(without);
            json!({ "provider_configs": configs })
        };
        let put = async |body: Value| house.update(&id(&key), body).await.key()["provider_configs"].clone();
        for body in [
            json!({ "provider_configs": before }),
            written(before.clone(), "key_ids"),
            written(before.clone(), "keys"),
            written(before.clone(), "id"),
            json!({"provider_configs": [{"provider": "local"}]}),
            json!({"provider_configs": [{"id": before[0]["id"]}]}),
        ] {
            assert_eq!(put(body).await, before, "{name}");
        }
    }
    // As answers show them, and as plain ids.
    let key = house.create(json!({"name": "k", "provider_configs": [{"provider": "local"}]})).await.key();
    for keys in [json!(["main"]), json!([{"key_id": "main"}])] {
        house.update(&id(&key), json!({"provider_configs": [{"provider": "local", "key_ids": []}]})).await.good();
        let changed =
            house.update(&id(&key), json!({"provider_configs": [{"provider": "local", "keys": keys}]})).await.key();
        assert_eq!(changed["provider_configs"][0]["key_ids"], json!(["main"]));
    }
}

/// There, a rule that cannot be read is stored and never matches.
#[tokio::test]
async fn an_expression_that_cannot_be_read_is_not_stored() {
    let house = House::new();
    let body = json!({"name": "r", "cel_expression": "model = \"m\"", "targets": [{"provider": "local", "weight": 1}]});
    let reply = house.post(RULES, body).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("cel_expression")));
    assert_eq!(house.get(RULES).await.good()["count"], 0);
}

/// There, these are 500.
#[tokio::test]
async fn clashes_are_conflicts() {
    let house = House::new();
    let rule = |name: &str, priority: i64| json!({"name": name, "priority": priority, "targets": [{"provider": "local", "weight": 1}]});
    for kind in
        KINDS.iter().filter(|kind| ![TEAMS, CUSTOMERS, "/api/governance/pricing-overrides"].contains(&kind.path))
    {
        kind.make(&house).await;
        let reply = house.post(kind.path, (kind.create)()).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (409, &json!("conflict")), "{}", kind.path);
    }
    let second = house.create(json!({"name": "second"})).await.key();
    house.update(&id(&second), named()).await.refused(409, "Virtual key name 'one' is taken");
    let second = house.post(RULES, rule("second", 1)).await.one("rule");
    let path = format!("{RULES}/{}", id(&second));
    assert_eq!(house.put(&path, json!({"priority": 0})).await.status, 409);
    assert_eq!(house.put(&path, json!({"name": "one"})).await.status, 409);
    assert_eq!(house.post(RULES, rule("third", 1)).await.status, 409);
}

/// There, they are dropped in silence, and the old ones go on serving.
#[tokio::test]
async fn keys_in_an_update_of_a_provider_are_refused() {
    let house = House::new();
    let path = "/api/providers/local";
    let body = |keys: Value| json!({"network_config": {"base_url": "http://127.0.0.1:1"}, "keys": keys});
    let shown = house.get("/api/providers/local/keys").await.good()["keys"].clone();
    let elsewhere =
        "keys[0]: keys are not changed here; use /api/providers/local/keys and /api/providers/local/keys/{key_id}";
    let mut changed = shown.clone();
    changed[0]["weight"] = json!(0.5);
    for keys in
        [json!([{"name": "new", "value": "x"}]), json!([{"id": "main", "value": "another"}]), changed, json!(["main"])]
    {
        house.put(path, body(keys)).await.refused(400, elsewhere);
    }
    // What says nothing new may be there.
    for keys in [json!([]), json!(null), shown.clone(), json!([{"id": "main"}])] {
        assert_eq!(house.put(path, body(keys)).await.status, 200);
    }
    assert_eq!(house.get("/api/providers/local/keys").await.good()["keys"], shown);
}

/// There, that is a success; and deletes failed where something was referred to.
#[tokio::test]
async fn deletes_find_what_they_delete_or_say_so() {
    let house = House::new();
    house.delete("/api/providers/none").await.refused(404, "Provider not found: none");
    let customer = house.post(CUSTOMERS, json!({"name": "c"})).await.one("customer");
    let team = house.post(TEAMS, json!({"name": "t", "customer_id": customer["id"]})).await.one("team");
    let config = json!([{"provider": "local", "key_ids": ["main"]}]);
    let key = house.create(json!({"name": "k", "team_id": team["id"], "provider_configs": config})).await.key();
    let rule = json!({"name": "r", "targets": [{"provider": "local", "key_id": "main", "weight": 1}], "fallbacks": ["local/m"]});
    house.post(RULES, rule).await.good();
    for path in [
        "/api/providers/local/keys/main".to_owned(),
        "/api/providers/local".to_owned(),
        format!("{CUSTOMERS}/{}", id(&customer)),
        format!("{TEAMS}/{}", id(&team)),
        format!("{KEYS}/{}", id(&key)),
    ] {
        assert_eq!(house.delete(&path).await.status, 200, "{path}");
        assert_eq!(house.delete(&path).await.status, 404, "{path}");
    }
    // The rule that named them stays as it is; it can still be switched off.
    let rule = house.get(RULES).await.good()["rules"][0].clone();
    assert_eq!(rule["targets"][0]["key_id"], "main");
    let off = house
        .put(
            &format!("{RULES}/{}", id(&rule)),
            json!({"enabled": false, "targets": rule["targets"], "fallbacks": rule["fallbacks"]}),
        )
        .await;
    assert_eq!(off.one("rule")["enabled"], false);
}

/// There, what a body refers to is looked at within the transaction, and a mistake is a failure without a reason.
#[tokio::test]
async fn what_a_caller_can_mend_is_told_with_its_field() {
    let house = House::new();
    let config = |more: Value| {
        let mut config = json!({"provider": "local"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "k", "provider_configs": [config]})
    };
    for (path, body, param) in [
        (KEYS, json!({"name": "k", "team_id": "none"}), "team_id"),
        (KEYS, json!({"name": "k", "customer_id": "none"}), "customer_id"),
        (KEYS, json!({"name": "k", "budget": {"max_limit": 0, "reset_duration": "1d"}}), "budget.max_limit"),
        (KEYS, config(json!({"key_ids": ["none"]})), "provider_configs[0].key_ids[0]"),
        (KEYS, config(json!({"key_ids": ["spare"]})), "provider_configs[0].key_ids[0]"),
        (KEYS, config(json!({"provider": "none"})), "provider_configs[0].provider"),
        (KEYS, config(json!({"budget": {"max_limit": 1}})), "provider_configs[0].budget.reset_duration"),
        (
            KEYS,
            config(json!({"rate_limit": {"token_max_limit": 1}})),
            "provider_configs[0].rate_limit.token_reset_duration",
        ),
        (KEYS, config(json!({"id": 4711})), "provider_configs[0].id"),
        (TEAMS, json!({"name": "t", "customer_id": "none"}), "customer_id"),
        (
            TEAMS,
            json!({"name": "t", "rate_limit": {"token_max_limit": 0, "token_reset_duration": "1d"}}),
            "rate_limit.token_max_limit",
        ),
        ("/api/governance/model-configs", json!({"model_name": "m", "provider": "none"}), "provider"),
        (RULES, json!({"name": "r", "scope": "team", "scope_id": "none", "targets": [{"weight": 1}]}), "scope_id"),
        (RULES, json!({"name": "r", "targets": [{"provider": "none", "weight": 1}]}), "targets[0].provider"),
    ] {
        // An id of a new key's config is not looked at.
        let status = if param.ends_with(".id") { 200 } else { 400 };
        let reply = house.post(path, body.clone()).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text);
        if status == 400 {
            assert_eq!(reply.json()["error"]["param"], param, "{body}");
        }
    }
    // Names that could be anything are texts, and nothing else.
    for name in ["Robert'); DROP TABLE virtual_keys;--", "%", "日本語", "a\u{301}", "\u{1F600}", &"x".repeat(255)] {
        assert_eq!(house.create(json!({ "name": name })).await.key()["name"], name);
    }
    for name in ["a\0b", "a\nb", &"x".repeat(256)] {
        assert_eq!(house.create(json!({ "name": name })).await.status, 400);
    }
}

/// There, lists are maps, or null, and an export is cut at a hundred.
#[tokio::test]
async fn lists_are_arrays_and_exports_whole() {
    let house = House::new();
    for (path, many) in [
        (KEYS, "virtual_keys"),
        (TEAMS, "teams"),
        (CUSTOMERS, "customers"),
        (RULES, "rules"),
        ("/api/governance/budgets", "budgets"),
        ("/api/governance/rate-limits", "rate_limits"),
        ("/api/governance/model-configs", "model_configs"),
        ("/api/governance/pricing-overrides", "pricing_overrides"),
        ("/api/governance/providers", "providers"),
        ("/api/governance/audit", "entries"),
    ] {
        let list = house.get(path).await.good();
        assert_eq!((&list[many], &list["count"]), (&json!([]), &json!(0)), "{path}");
    }
    for i in 0..130 {
        house.create(json!({"name": format!("k{i}")})).await.key();
    }
    let counted = async |query: &str| {
        let list = house.get(&format!("{KEYS}?{query}")).await.good();
        assert_eq!(list["total_count"], 130);
        list["count"].as_u64().unwrap()
    };
    assert_eq!(counted("export=true").await, 130);
    assert_eq!(counted("export=true&limit=120").await, 120);
    assert_eq!(counted("export=false&limit=120").await, 100);
    assert_eq!(counted("limit=120").await, 100);
    assert_eq!(counted("offset=0").await, 25);
    assert_eq!(counted("").await, 130);
}

/// There, what the store has and what is enforced may differ until a restart.
#[tokio::test]
async fn what_cannot_be_stored_is_not_enforced() {
    let house = House::new();
    let made: Vec<(String, String)> = {
        let mut made = Vec::new();
        for kind in &KINDS {
            let (path, reply) = kind.make(&house).await;
            made.push((path, reply.text));
        }
        made
    };
    // Whatever is written is written with a line of the log.
    let other = Connection::open(database(&house.dir)).unwrap();
    other.execute_batch("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END").unwrap();
    let failed = "The store failed and nothing was changed; see the log";
    for (kind, (path, _)) in KINDS.iter().zip(&made) {
        let (list, one) = (house.get(kind.path).await.text, house.get(path).await.text);
        let mut another = (kind.create)();
        for name in ["name", "model_name", "provider"] {
            if another.get(name).is_some() {
                another[name] = "unheard".into();
            }
        }
        if another.get("targets").is_some() {
            another["priority"] = 9.into();
        }
        house.post(kind.path, another).await.refused(500, failed);
        house.pass(1);
        house.put(path, (kind.update)()).await.refused(500, failed);
        house.delete(path).await.refused(500, failed);
        assert_eq!((house.get(kind.path).await.text, house.get(path).await.text), (list, one));
    }
    other.execute_batch("DROP TRIGGER no").unwrap();
    for (path, _) in made.iter().rev() {
        assert_eq!(house.delete(path).await.status, 200, "{path}");
    }
}

/// There, who belongs to whom holds after a restart only.
#[tokio::test]
async fn associations_hold_for_the_next_request() {
    let house = House::new();
    let team = house.post(TEAMS, json!({"name": "t", "budget": budget(1)})).await.one("team");
    let customer = house.post(CUSTOMERS, json!({"name": "c", "budget": budget(1)})).await.one("customer");
    let key = house.create(json!({"name": "k", "provider_configs": open()})).await.key();
    let value = text(&key["value"]).to_owned();
    house.spend(&value, 5 * DOLLAR);
    house.update(&id(&key), json!({"team_id": team["id"]})).await.good();
    house.spend(&value, DOLLAR);
    assert!(house.hold(&value, 1).is_none());
    let shown = house.get(&format!("{TEAMS}/{}", id(&team))).await.one("team");
    assert_eq!((&shown["budget"]["current_usage"], &shown["virtual_keys"][0]["id"]), (&json!(1), &key["id"]));
    house.update(&id(&key), json!({"team_id": null})).await.good();
    house.spend(&value, DOLLAR);
    // Through its team it is the customer's, too.
    house.put(&format!("{TEAMS}/{}", id(&team)), json!({"customer_id": customer["id"], "budget": {}})).await.good();
    house.update(&id(&key), json!({"team_id": team["id"]})).await.good();
    house.spend(&value, DOLLAR);
    assert!(house.hold(&value, 1).is_none());
    house.put(&format!("{TEAMS}/{}", id(&team)), json!({"customer_id": ""})).await.good();
    house.spend(&value, DOLLAR);
    assert_eq!(
        house.get(&format!("{CUSTOMERS}/{}", id(&customer))).await.one("customer")["budget"]["current_usage"],
        1
    );
}

/// There, spending cannot be forgiven.
#[tokio::test]
async fn a_budget_that_is_reset_admits_again() {
    let house = House::new();
    let key = house.create(json!({"name": "k", "provider_configs": open(), "budget": budget(1)})).await.key();
    house.spend(text(&key["value"]), DOLLAR);
    assert!(house.hold(text(&key["value"]), 1).is_none());
    house.post(&format!("/api/governance/budgets/{}/reset", text(&key["budget_id"])), json!({})).await.good();
    house.spend(text(&key["value"]), DOLLAR);
}
