//! A dry run of a call.

use super::*;
use crate::governance::catalog::Catalog;
use crate::governance::pricing::Price;

const EXPLAIN: &str = "/api/governance/explain";

/// A house in which the model `m` of `local` has a price.
fn priced() -> House {
    let house = House::new();
    let mut catalog = Catalog::default();
    catalog.insert("local", "m", None, Price::default());
    let edits = vec![Edit::Catalog(Arc::new(catalog))];
    let commit = |_: &Snapshot, _: &View, _: &[Edit], ()| Ok::<(), ApiError>(());
    house.admin.state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
    house
}

async fn a_key(house: &House, more: Value) -> Value {
    let configs = json!([{"provider": "local", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
    let mut body = json!({"name": "k", "provider_configs": configs});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    house.create(body).await.key()
}

#[tokio::test]
async fn a_call_that_would_be_served_is_explained_and_not_counted() {
    let house = priced();
    let more = json!({"budget": {"max_limit": 1, "reset_duration": "1d"}, "rate_limit": {"request_max_limit": 2, "request_reset_duration": "1m"}});
    let key = a_key(&house, more).await;
    let rule = json!({"name": "r", "scope": "virtual_key", "scope_id": key["id"], "targets": [{"provider": "local", "weight": 1}]});
    let rule = house.post("/api/governance/routing-rules", rule).await.one("rule");
    let before = house.get(&format!("{KEYS}/{}", id(&key))).await.text;
    for (who, model) in [(&key["id"], "local/m"), (&key["value"], "m")] {
        for _ in 0..3 {
            let told = house.post(EXPLAIN, json!({"virtual_key": who, "model": model})).await.good();
            assert_eq!(told["decision"], "allow");
            let taken = &told["candidates"][0];
            assert_eq!(
                (&taken["provider"], &taken["model"], &taken["key_id"]),
                (&json!("local"), &json!("m"), &json!("main"))
            );
            assert_eq!((&told["rules"][0]["id"], &told["rules"][0]["name"]), (&rule["id"], &json!("r")));
            assert_eq!(
                (&told["budgets"][0]["id"], &told["rate_limits"][0]["id"]),
                (&key["budget_id"], &key["rate_limit_id"])
            );
        }
    }
    assert_eq!(house.get(&format!("{KEYS}/{}", id(&key))).await.text, before);
    assert!(house.get("/metrics").await.text.contains("\ntollgate_open_holds 0\n"));
    assert_eq!(house.get("/api/governance/audit?object_type=call").await.good()["count"], 0);
    // The value itself is not repeated.
    let told = house.post(EXPLAIN, json!({"virtual_key": key["value"], "model": "m"})).await;
    assert!(!told.text.contains("sk-bf-"));
}

#[tokio::test]
async fn every_refusal_is_told_as_the_call_would_be() {
    let house = priced();
    let key = a_key(&house, json!({})).await;
    let ask = async |body: Value| {
        let told = house.post(EXPLAIN, body).await.good();
        assert_eq!(told["decision"], "refuse", "{told}");
        (
            told["code"].as_str().unwrap().to_owned(),
            told["status_code"].as_u64().unwrap(),
            text(&told["reason"]).to_owned(),
        )
    };
    let check = async |body: Value, code: &str, status: u64| {
        let (found, found_status, reason) = ask(body.clone()).await;
        assert_eq!((&*found, found_status), (code, status), "{body}: {reason}");
        reason
    };
    check(json!({"model": "m"}), "virtual_key_required", 401).await;
    check(json!({"virtual_key": "sk-bf-none", "model": "m"}), "virtual_key_not_found", 401).await;
    let me = |model: &str| json!({"virtual_key": key["id"], "model": model});
    assert_eq!(
        check(me("other/m"), "provider_blocked", 403).await,
        "Provider 'other' is not allowed for this virtual key"
    );
    let only = json!({"provider_configs": [{"provider": "local", "allowed_models": ["m"], "blacklisted_models": []}]});
    house.update(&id(&key), only).await.good();
    assert_eq!(check(me("local/x"), "model_blocked", 403).await, "Model 'x' is not allowed for this virtual key");
    house.update(&id(&key), json!({"provider_configs": [{"provider": "local", "key_ids": []}]})).await.good();
    check(me("local/m"), "model_blocked", 403).await;
    house
        .update(
            &id(&key),
            json!({"provider_configs": [{"provider": "local", "key_ids": ["*"], "allowed_models": ["*"]}]}),
        )
        .await
        .good();

    // Limits, of whichever level.
    let budget = json!({"budget": {"max_limit": 1, "reset_duration": "1d"}});
    let team = house
        .post("/api/governance/teams", json!({"name": "secretive", "budget": {"max_limit": 3, "reset_duration": "1d"}}))
        .await
        .one("team");
    house.update(&id(&key), budget).await.good();
    house.update(&id(&key), json!({"team_id": team["id"]})).await.good();
    check(me("local/x"), "model_not_priced", 403).await;
    house.spend(text(&key["value"]), DOLLAR);
    let reason = check(me("local/m"), "budget_exceeded", 402).await;
    assert!(reason.starts_with("Budget exceeded: VK budget exceeded: 1 >= 1 dollars"), "{reason}");
    house.update(&id(&key), json!({"budget": {}})).await.good();
    house.spend(text(&key["value"]), 2 * DOLLAR);
    let reason = check(me("local/m"), "budget_exceeded", 402).await;
    assert!(reason.contains("Team budget exceeded: 3 >= 3 dollars") && !reason.contains("secretive"), "{reason}");
    house
        .update(
            &id(&key),
            json!({"team_id": null, "rate_limit": {"request_max_limit": 1, "request_reset_duration": "1m"}}),
        )
        .await
        .good();
    house.spend(text(&key["value"]), 0);
    check(me("local/m"), "request_limited", 429).await;
    house
        .update(
            &id(&key),
            json!({"rate_limit": {"request_max_limit": null, "token_max_limit": 7, "token_reset_duration": "1m"}}),
        )
        .await
        .good();
    house.spend(text(&key["value"]), 0);
    check(me("local/m"), "token_limited", 429).await;
    house.update(&id(&key), json!({"rate_limit": {}})).await.good();

    // The key itself comes before all that, and what everybody must send before the key.
    house.update(&id(&key), json!({"is_active": false})).await.good();
    assert_eq!(check(me("local/m"), "virtual_key_blocked", 403).await, "Virtual key is inactive");
    house.put("/api/config", json!({"client_config": {"required_headers": ["x-project"]}})).await.good();
    assert_eq!(check(me("local/m"), "missing_required_headers", 400).await, "missing required headers: x-project");
    house.update(&id(&key), json!({"is_active": true})).await.good();
    let with_header = json!({"virtual_key": key["id"], "model": "local/m", "headers": {"X-Project": "a"}});
    assert_eq!(house.post(EXPLAIN, with_header).await.good()["decision"], "allow");
    // Nobody is asked who they are any more, but a key that nobody has is still nobody's.
    house
        .put("/api/config", json!({"client_config": {"required_headers": [], "enforce_auth_on_inference": false}}))
        .await
        .good();
    check(json!({"virtual_key": "sk-bf-none", "model": "m"}), "virtual_key_not_found", 403).await;
    assert_eq!(house.post(EXPLAIN, json!({"model": "local/m"})).await.good()["decision"], "allow");
}

#[tokio::test]
async fn what_is_wrong_with_the_question_is_said() {
    let house = House::new();
    for (body, param) in [
        (json!({}), "model"),
        (json!({"model": ""}), "model"),
        (json!({"model": 7}), "model"),
        (json!({"model": "m", "request_type": "telepathy"}), "request_type"),
        (json!({"model": "m", "headers": []}), "headers"),
        (json!({"model": "m", "body": "x"}), "body"),
        (json!({"model": "m", "virtual_key": 1}), "virtual_key"),
    ] {
        let reply = house.post(EXPLAIN, body.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
}

#[tokio::test]
async fn what_no_provider_would_serve_is_told() {
    let house = priced();
    let key = a_key(&house, json!({})).await;
    let configs = |configs: Value| json!({ "provider_configs": configs });
    let check = async |model: &str, kind: &str, code: &str, status: u64| {
        let body = json!({"virtual_key": key["id"], "model": model, "request_type": kind});
        let told = house.post(EXPLAIN, body).await.good();
        let found = [&told["decision"], &told["code"], &told["status_code"]];
        assert_eq!(found, [&json!("refuse"), &json!(code), &json!(status)], "{model}: {told}");
        let over = told["candidates"].as_array().unwrap();
        assert!(over.iter().all(|candidate| candidate["decision"] == "skipped"), "{told}");
    };
    // Allowed, built in, and not configured.
    let all = json!({"provider": "openai", "allowed_models": ["*"], "key_ids": []});
    house.update(&id(&key), configs(json!([all, {"provider": "local"}]))).await.good();
    check("openai/m", "chat_completion", "unknown_provider", 400).await;
    check("nobody/m", "chat_completion", "unknown_provider", 400).await;
    // No provider is chosen by weight.
    house.update(&id(&key), configs(json!([{"provider": "local", "weight": null}]))).await.good();
    check("m", "chat_completion", "model_unresolved", 400).await;
    // A kind of request that the provider is not for.
    let chat = json!({"base_provider_type": "openai", "allowed_requests": {"chat_completion": true}});
    let network = json!({"base_url": "http://127.0.0.1:1"});
    let body = json!({"network_config": network, "custom_provider_config": chat});
    house.put("/api/providers/local", body).await.good();
    check("local/m", "embedding", "unsupported_operation", 400).await;
    // No key of the provider is left for it.
    let off = json!({"name": "main", "value": "********", "enabled": false});
    house.put("/api/providers/local/keys/main", off).await.good();
    check("local/m", "chat_completion", "no_provider_key", 503).await;
}

#[tokio::test]
async fn rules_and_what_was_passed_over_are_told() {
    let house = priced();
    let key = a_key(&house, json!({})).await;
    let rule = async |body: Value| {
        let mut wanted = json!({"targets": [{"provider": "local", "weight": 1}]});
        wanted.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        house.post("/api/governance/routing-rules", wanted).await.one("rule")
    };
    let scope = json!({"scope": "virtual_key", "scope_id": key["id"]});
    let of_key = |more: Value| {
        let mut body = scope.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    rule(of_key(json!({"name": "off", "enabled": false}))).await;
    rule(of_key(json!({"name": "absent", "priority": 1, "cel_expression": "headers.nope == 'a'"}))).await;
    rule(of_key(json!({"name": "broken", "priority": 2, "cel_expression": "body.seed > 'a'"}))).await;
    rule(of_key(json!({"name": "step", "priority": 3, "chain_rule": true, "cel_expression": "model == 'm'", "targets": [{"model": "n", "weight": 1}]}))).await;
    rule(json!({"name": "last", "fallbacks": ["local/m", "other/x"], "cel_expression": "model == 'n' && params.a == 'b' && input_tokens > 1"})).await;
    rule(json!({"name": "never", "priority": 1})).await;
    let asked = json!({
        "virtual_key": key["id"], "model": "m", "query": "A=b",
        "body": {"seed": 7, "messages": [{"role": "user", "content": "hello"}], "fallbacks": ["local/y"]},
    });
    let told = house.post(EXPLAIN, asked).await.good();
    let rules: Vec<String> = told["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| format!("{} {}: {}", rule["round"], text(&rule["name"]), text(&rule["result"])))
        .collect();
    assert_eq!(
        rules,
        [
            "1 off: disabled",
            "1 absent: no_match",
            "1 broken: error",
            "1 step: match",
            "1 last: not_reached",
            "1 never: not_reached",
            "2 off: disabled",
            "2 absent: no_match",
            "2 broken: error",
            "2 step: no_match",
            "2 last: match",
            "2 never: not_reached",
        ]
    );
    assert_eq!((&told["decision"], &told["rule"]["name"]), (&json!("allow"), &json!("last")), "{told}");
    assert_eq!(told["rules"][1]["reason"], "there is no 'nope'");
    assert_eq!(told["rules"][2]["reason"], "a comparison cannot be used on int and string");
    assert_eq!(told["rules"][3]["reason"], "it sends the request to model 'n'; it is a chain rule");
    let candidates: Vec<String> = told["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!("{} {}/{}: {}", one["choice"], text(&one["provider"]), text(&one["model"]), text(&one["decision"]))
        })
        .collect();
    // What the rule says about fallbacks stands instead of what the body says.
    assert_eq!(candidates, ["0 local/n: taken", "1 local/m: next", "null other/x: skipped"]);
    // Nothing of a dry run is counted.
    assert!(told["rules"].as_array().unwrap().iter().all(|rule| rule["matches"] == 0 && rule["errors"] == 0));
    for (body, param) in [
        (json!({"model": "m", "headers": {"a b": "c"}}), "headers.a b"),
        (json!({"model": "m", "body": {"fallbacks": "local"}}), "body.fallbacks"),
        (json!({"model": "m", "query": 7}), "query"),
    ] {
        let reply = house.post(EXPLAIN, body.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    // More headers than a map of them has room for.
    let headers: serde_json::Map<String, Value> = (0..40_000).map(|n| (format!("h{n}"), json!(""))).collect();
    assert_eq!(house.post(EXPLAIN, json!({"model": "m", "headers": headers})).await.status, 400);
}
