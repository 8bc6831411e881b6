//! Routing rules over REST.

use super::*;

const RULES: &str = "/api/governance/routing-rules";

fn to(targets: Value) -> Value {
    json!({"name": "a", "targets": targets})
}

fn more(more: Value) -> Value {
    let mut body = to(json!([{"provider": "local", "weight": 1}]));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_rule_is_created_shown_changed_and_deleted() {
    let house = House::new();
    // What is absent has its usual value.
    let made = house.post(RULES, to(json!([{"weight": 1}]))).await.good();
    assert_eq!(made["message"], "Routing rule created successfully");
    let rule = &made["rule"];
    let usual = json!({"id": rule["id"], "name": "a", "description": "", "enabled": true, "cel_expression": "",
        "targets": [{"weight": 1}], "fallbacks": [], "scope": "global", "scope_id": null, "priority": 0,
        "chain_rule": false, "query": null, "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:13:20Z"});
    assert_eq!(*rule, usual);
    let path = format!("{RULES}/{}", id(rule));
    assert_eq!(house.get(&path).await.good(), json!({ "rule": rule }));
    assert_eq!(house.delete(&path).await.good(), json!({"message": "Routing rule deleted successfully"}));

    let key = house.create(json!({"name": "k"})).await.key();
    let whole = json!({"name": "whole", "description": "d", "enabled": false, "cel_expression": "model == \"m\"",
        "targets": [{"provider": "local", "model": "m", "key_id": "main", "weight": 0.25}, {"provider": "other", "weight": 0.75}],
        "fallbacks": ["other/m", "other/", "local"], "scope": "virtual_key", "scope_id": key["id"], "priority": -3,
        "chain_rule": true, "query": {"combinator": "and", "rules": []}});
    let rule = house.post(RULES, whole.clone()).await.one("rule");
    for (name, value) in whole.as_object().unwrap().iter().filter(|(name, _)| *name != "targets") {
        assert_eq!(rule[name], *value);
    }
    // Heaviest first.
    assert_eq!(rule["targets"], json!([whole["targets"][1], whole["targets"][0]]));
    let path = format!("{RULES}/{}", id(&rule));
    let put = async |body: Value| house.put(&path, body).await.one("rule");
    let nulls: Value = whole
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (name.clone(), Value::Null))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let nulls = {
        let mut nulls = nulls;
        nulls.as_object_mut().unwrap().remove("scope_id");
        nulls
    };
    for keep in [json!({}), nulls, json!({"name": ""}), rule.clone()] {
        assert_eq!(put(keep.clone()).await, rule, "{keep}");
    }
    let changed = house
        .put(
            &path,
            json!({"enabled": true, "priority": 5, "cel_expression": "", "description": "",
        "chain_rule": false, "fallbacks": [], "query": {}, "name": "b", "targets": [{"model": "x", "weight": 1}]}),
        )
        .await
        .good();
    assert_eq!(changed["message"], "Routing rule updated successfully");
    let changed = &changed["rule"];
    assert_eq!(
        (&changed["fallbacks"], &changed["query"], &changed["targets"]),
        (&json!([]), &json!({}), &json!([{"model": "x", "weight": 1}]))
    );
    assert_eq!((&changed["name"], &changed["priority"], &changed["enabled"]), (&json!("b"), &json!(5), &json!(true)));
    assert_eq!((&changed["scope"], &changed["scope_id"]), (&json!("virtual_key"), &key["id"]));
    // Out of its scope, and back into one.
    let changed = put(json!({"scope": "global"})).await;
    assert_eq!((&changed["scope"], &changed["scope_id"]), (&json!("global"), &Value::Null));
    house
        .put(&path, json!({"scope": "virtual_key"}))
        .await
        .refused(400, "scope_id field is required when scope is not global");
    assert_eq!(put(json!({"scope": "virtual_key", "scope_id": key["id"]})).await["scope_id"], key["id"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_rule_is_said_in_the_contracts_words() {
    let house = House::new();
    house.post(RULES, json!({"name": "taken", "priority": 7, "targets": [{"weight": 1}]})).await.good();
    let team = house.post("/api/governance/teams", json!({"name": "t"})).await.one("team");
    let cel = |expression: &str| more(json!({ "cel_expression": expression, "priority": 1 }));
    let cases = [
        (json!({"targets": [{"weight": 1}]}), 400, "name field is required"),
        (more(json!({"name": " "})), 400, "name field is required"),
        (json!({"name": "a"}), 400, "at least one target is required"),
        (to(json!([])), 400, "at least one target is required"),
        (to(json!([{"weight": -1}])), 400, "each target weight must be positive"),
        (to(json!([{"weight": 0.9}])), 400, "target weights must sum to 1, got 0.9000"),
        (to(json!([{"weight": 0}])), 400, "target weights must sum to 1, got 0.0000"),
        (
            to(json!([{"provider": "local", "weight": 0.6}, {"provider": "other", "weight": 0.6}])),
            400,
            "target weights must sum to 1, got 1.2000",
        ),
        (to(json!([{"key_id": "main", "weight": 1}])), 400, "key_id requires provider to be set"),
        (
            to(json!([{"provider": "local", "key_id": "spare", "weight": 1}])),
            400,
            "provider 'local' has no key 'spare'",
        ),
        (to(json!([{"provider": "nope", "weight": 1}])), 400, "provider 'nope' is neither built in nor configured"),
        (
            to(
                json!([{"provider": "local", "model": "M", "weight": 0.5}, {"provider": "local", "model": "m", "weight": 0.5}]),
            ),
            400,
            "duplicate target entry: provider 'local', model 'm', key_id ''",
        ),
        (
            more(json!({"scope": "planet"})),
            400,
            "scope: scope 'planet' is none of: global, customer, team, virtual_key",
        ),
        (more(json!({"scope": "team"})), 400, "scope_id field is required when scope is not global"),
        (more(json!({"scope": "team", "scope_id": ""})), 400, "scope_id field is required when scope is not global"),
        (more(json!({"scope": "team", "scope_id": "x"})), 400, "there is no team 'x'"),
        (more(json!({"scope": "customer", "scope_id": team["id"]})), 400, ""),
        (more(json!({"scope": "virtual_key", "scope_id": "x"})), 400, "there is no virtual key 'x'"),
        (more(json!({"fallbacks": ["nope/m"]})), 400, ""),
        (more(json!({"fallbacks": [""]})), 400, ""),
        (more(json!({"name": "taken"})), 409, "routing rule with name 'taken' already exists for scope global"),
        (more(json!({"priority": 7})), 409, "routing rule with priority 7 already exists for scope global"),
        (cel("model =="), 400, ""),
        (cel("nonsense"), 400, ""),
        (cel("1 + 1"), 400, ""),
    ];
    let cases = cases.map(|(body, status, says)| match says {
        "" if body["scope"] == "customer" => (body, status, format!("there is no customer '{}'", id(&team))),
        "" => {
            let fallback = body["fallbacks"][0].as_str().unwrap_or_default().to_owned();
            let says = match body.get("fallbacks") {
                Some(_) => format!(
                    "fallbacks[0]: '{fallback}' is neither 'provider', 'provider/' nor 'provider/model' with a provider that is built in or configured"
                ),
                None => format!("cel_expression: {}", crate::governance::cel::Checker::default().read(text(&body["cel_expression"])).unwrap_err()),
            };
            (body, status, says)
        }
        says => (body, status, says.to_owned()),
    });
    let cases: Vec<(Value, u16, &str)> =
        cases.iter().map(|(body, status, says)| (body.clone(), *status, &**says)).collect();
    house.refuses(Method::POST, RULES, &cases).await;

    let mine = house.post(RULES, json!({"name": "mine", "targets": [{"weight": 1}]})).await.one("rule");
    let cases: Vec<(Value, u16, &str)> = cases
        .into_iter()
        .filter(|(body, _, says)| !says.starts_with("name field") && body.get("targets").is_some())
        .map(|(body, status, says)| {
            (
                body,
                status,
                if says == "at least one target is required" {
                    "at least one routing target is required"
                } else {
                    says
                },
            )
        })
        .collect();
    assert!(cases.len() > 18);
    house.refuses(Method::PUT, &format!("{RULES}/{}", id(&mine)), &cases).await;
    // In another scope, both are free.
    let scoped = more(json!({"name": "taken", "priority": 7, "scope": "team", "scope_id": team["id"]}));
    assert_eq!(house.post(RULES, scoped).await.status, 200);
}

#[tokio::test]
async fn a_bad_expression_is_refused_with_its_place() {
    let house = House::new();
    for (expression, column) in [("model ==", "column"), ("modell == \"m\"", "modell")] {
        let reply = house.post(RULES, more(json!({ "cel_expression": expression }))).await;
        assert!(reply.status == 400 && reply.message().contains(column), "{}", reply.text);
        assert_eq!(reply.json()["error"]["param"], "cel_expression");
    }
    for (priority, expression) in [
        "",
        "true",
        "model == \"m\" && provider == \"local\"",
        "headers[\"x-tier\"] == \"free\"",
        "params[\"a\"] == \"b\"",
        "request_type == \"chat_completion\"",
        "model.startsWith(\"gpt-4\")",
        "model.contains(\"a\") || model.endsWith(\"b\")",
        "model.matches(\"^gpt\")",
        "model in [\"a\", \"b\"]",
        "budget_used > 80",
        "tokens_used > 80 || request > 80",
        "team_name == \"t\" && customer_id != \"\"",
        "virtual_key_budget_used > 50.0",
        "team_budget_used + customer_budget_used > 9",
    ]
    .into_iter()
    .enumerate()
    {
        let body =
            more(json!({"name": expression, "cel_expression": expression, "priority": priority, "description": "x"}));
        let body = if expression.is_empty() { more(json!({"priority": priority})) } else { body };
        let reply = house.post(RULES, body).await;
        assert_eq!(reply.status, 200, "{expression}: {}", reply.text);
    }
}

#[tokio::test]
async fn weights_add_up_within_a_thousandth() {
    let house = House::new();
    for (i, weights) in [vec![1.0], vec![0.3333, 0.3333, 0.3334], vec![0.5, 0.4995], vec![0.5, 0.5005], vec![1.0, 0.0]]
        .into_iter()
        .enumerate()
    {
        let target = |(model, weight)| json!({"model": format!("m{model}"), "weight": weight});
        let targets: Vec<Value> = weights.into_iter().enumerate().map(target).collect();
        let body = json!({"name": format!("{i}"), "priority": i, "targets": targets});
        assert_eq!(house.post(RULES, body).await.status, 200);
    }
}

#[tokio::test]
async fn rules_are_listed_in_the_order_in_which_they_are_tried() {
    let house = House::new();
    let teams = [
        house.post("/api/governance/teams", json!({"name": "t"})).await,
        house.post("/api/governance/teams", json!({"name": "u"})).await,
    ];
    let [t, u] = teams.map(|team| id(&team.one("team")));
    for (name, priority, scope, scope_id, enabled) in [
        ("late", 9, "global", None, true),
        ("first", -1, "global", None, false),
        ("older", 0, "team", Some(&t), true),
        ("newer", 0, "team", Some(&u), false),
    ] {
        house.pass(1);
        let body =
            more(json!({"name": name, "priority": priority, "scope": scope, "scope_id": scope_id, "enabled": enabled}));
        house.post(RULES, body).await.good();
    }
    let check = async |query: &str, names: &[&str]| {
        let found = house.get(&format!("{RULES}{query}")).await.good();
        let found: Vec<&str> = found["rules"].as_array().unwrap().iter().map(|rule| text(&rule["name"])).collect();
        assert_eq!(found, names, "{query}");
    };
    check("", &["first", "newer", "older", "late"]).await;
    check("?scope=global", &["first", "late"]).await;
    check("?scope=team", &["newer", "older"]).await;
    check(&format!("?scope=team&scope_id={t}"), &["older"]).await;
    check(&format!("?scope_id={u}"), &["newer"]).await;
    check(&format!("?scope=customer&scope_id={u}"), &[]).await;
    check("?scope=customer", &[]).await;
    check("?scope=team&limit=1&offset=1", &["older"]).await;
    check("?from_memory=true", &["first", "newer", "older", "late"]).await;
    let reply = house.get(&format!("{RULES}?scope=planet")).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("scope")));
}
