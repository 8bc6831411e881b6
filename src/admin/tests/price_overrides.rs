//! Pricing overrides over REST.

use super::*;

const OVERRIDES: &str = "/api/governance/pricing-overrides";

fn with(more: Value) -> Value {
    let mut body = an_override();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_override_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let reply = house
        .post(OVERRIDES, with(json!({"patch": {"input_cost_per_token": 0.0000025, "output_cost_per_token": 0}})))
        .await;
    assert_eq!(reply.status, 201);
    let made = reply.json();
    assert_eq!(made["message"], "Pricing override created successfully");
    let over = &made["pricing_override"];
    let whole = json!({"id": over["id"], "name": "one", "scope_kind": "global", "match_type": "exact", "pattern": "m",
        "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 0.0000025, "output_cost_per_token": 0},
        "pricing_patch": over["pricing_patch"], "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:13:20Z"});
    assert_eq!(*over, whole, "absent identifiers are left out, and a price of nothing is a price");
    let patch: Value = serde_json::from_str(text(&over["pricing_patch"])).unwrap();
    assert_eq!(patch, over["patch"]);
    let path = format!("{OVERRIDES}/{}", id(over));
    assert_eq!(house.get(&path).await.good(), json!({ "pricing_override": over }));
    assert_eq!(house.get(OVERRIDES).await.good(), json!({"pricing_overrides": [over], "count": 1}));
    // PUT and PATCH are the same: what is absent stays.
    for method in [Method::PUT, Method::PATCH] {
        for keep in [json!({}), over.clone(), json!({"name": null, "patch": null, "request_types": null})] {
            assert_eq!(house.call(method.clone(), &path, keep).await.one("pricing_override"), *over);
        }
        let body = json!({"name": method.as_str(), "patch": {"input_cost_per_image": 0.04}, "match_type": "wildcard", "pattern": "*"});
        let changed = house.call(method.clone(), &path, body).await.good();
        assert_eq!(changed["message"], "Pricing override updated successfully");
        let changed = &changed["pricing_override"];
        assert_eq!(changed["patch"], json!({"input_cost_per_image": 0.04}), "the patch is replaced as a whole");
        assert_eq!((&changed["pattern"], &changed["name"]), (&json!("*"), &json!(method.as_str())));
        house.call(method, &path, over).await.good();
    }
    assert_eq!(house.put(&path, json!({"patch": {}})).await.one("pricing_override")["patch"], json!({}));
    let older = json!({"pricing_patch": "{\"input_cost_per_token\": 0.000003}"});
    assert_eq!(
        house.put(&path, older).await.one("pricing_override")["patch"],
        json!({"input_cost_per_token": 0.000003})
    );
    assert_eq!(house.delete(&path).await.good(), json!({"message": "Pricing override deleted successfully"}));
    house.delete(&path).await.refused(404, "Pricing override not found");
}

#[tokio::test]
async fn every_scope_has_its_identifiers() {
    let house = House::new();
    let key = id(&house.create(json!({"name": "k"})).await.key());
    let scopes = [
        ("global", json!({})),
        ("provider", json!({"provider_id": "local"})),
        ("provider_key", json!({"provider_key_id": "main"})),
        ("virtual_key", json!({"virtual_key_id": key})),
        ("virtual_key_provider", json!({"virtual_key_id": key, "provider_id": "local"})),
        ("virtual_key_provider_key", json!({"virtual_key_id": key, "provider_key_id": "main"})),
        ("virtual_key_provider_key", json!({"virtual_key_id": key, "provider_key_id": "main", "provider_id": "local"})),
    ];
    let all = ["virtual_key_id", "provider_id", "provider_key_id"];
    for (kind, ids) in &scopes {
        let mut body = with(json!({"scope_kind": kind, "virtual_key_id": "", "provider_id": null}));
        body.as_object_mut().unwrap().extend(ids.as_object().unwrap().clone());
        let made = house.post(OVERRIDES, body.clone()).await;
        assert_eq!(made.status, 201, "{kind}: {}", made.text);
        let over = &made.json()["pricing_override"];
        for name in all {
            assert_eq!(over.get(name), ids.get(name), "{kind} {name}");
        }
        // One too few, and one too many.
        for name in ids.as_object().unwrap().keys() {
            if ids.as_object().unwrap().len() == 3 && name == "provider_id" {
                continue;
            }
            let mut body = body.clone();
            body[name] = "".into();
            house
                .post(OVERRIDES, body)
                .await
                .refused(400, &format!("{name}: {name} is required for scope_kind '{kind}'"));
        }
        for name in all.into_iter().filter(|name| ids.get(name).is_none() && *kind != "virtual_key_provider_key") {
            let mut body = body.clone();
            body[name] = match name {
                "virtual_key_id" => key.as_str(),
                "provider_id" => "local",
                _ => "main",
            }
            .into();
            house
                .post(OVERRIDES, body)
                .await
                .refused(400, &format!("{name}: {name} does not belong to scope_kind '{kind}'"));
        }
    }
    // A change of scope brings or blanks identifiers.
    let over = house.post(OVERRIDES, with(json!({"scope_kind": "provider", "provider_id": "local"}))).await.json()["pricing_override"].clone();
    let path = format!("{OVERRIDES}/{}", id(&over));
    house
        .put(&path, json!({"scope_kind": "global"}))
        .await
        .refused(400, "provider_id: provider_id does not belong to scope_kind 'global'");
    let changed = house.put(&path, json!({"scope_kind": "global", "provider_id": ""})).await.one("pricing_override");
    assert_eq!((&changed["scope_kind"], changed.get("provider_id")), (&json!("global"), None));

    let list = async |query: &str| house.get(&format!("{OVERRIDES}?{query}")).await.good()["count"].clone();
    assert_eq!(list("").await, 8);
    assert_eq!(list("scope_kind=global").await, 2);
    assert_eq!(list("scope_kind=virtual_key_provider_key").await, 2);
    assert_eq!(list("provider_id=local").await, 3);
    assert_eq!(list("provider_id=local&scope_kind=provider").await, 1);
    assert_eq!(list(&format!("virtual_key_id={key}")).await, 4);
    assert_eq!(list(&format!("virtual_key_id={key}&provider_key_id=main")).await, 2);
    assert_eq!(list("provider_key_id=spare").await, 0);
    assert_eq!(list("provider_id=&scope_kind=").await, 8);
    let reply = house.get(&format!("{OVERRIDES}?scope_kind=planet")).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("scope_kind")));
}

#[tokio::test]
async fn what_is_wrong_with_an_override_is_said() {
    let house = House::new();
    let key = id(&house.create(json!({"name": "k"})).await.key());
    let kinds = "chat_completion, text_completion, responses, embedding, rerank, speech, transcription, image_generation, \
                 image_variation, image_edit, video_generation, video_remix";
    let foreign = format!("request_types[0]: request type 'batch_create' is none of: {kinds}");
    let cases = [
        (json!({"name": ""}), "name is required"),
        (json!({"name": "  "}), "name is required"),
        (
            json!({"scope_kind": "planet"}),
            "scope_kind: scope_kind 'planet' is none of: global, provider, provider_key, virtual_key, virtual_key_provider, virtual_key_provider_key",
        ),
        (
            json!({"scope_kind": "provider", "provider_id": "nope"}),
            "provider_id: provider 'nope' is neither built in nor configured",
        ),
        (
            json!({"scope_kind": "provider_key", "provider_key_id": "nope"}),
            "provider_key_id: there is no provider key 'nope'",
        ),
        (
            json!({"scope_kind": "virtual_key", "virtual_key_id": "nope"}),
            "virtual_key_id: there is no virtual key 'nope'",
        ),
        (
            json!({"scope_kind": "virtual_key_provider_key", "virtual_key_id": key, "provider_key_id": "main", "provider_id": "other"}),
            "provider_id: provider key 'main' is a key of 'local', not of 'other'",
        ),
        (json!({"match_type": "regex"}), "match_type: match_type 'regex' is none of: exact, wildcard"),
        (json!({"pattern": " "}), "pattern: pattern is required"),
        (json!({"pattern": "gpt-*"}), "pattern: pattern must not hold a '*' for match_type 'exact'"),
        (json!({"match_type": "wildcard"}), "pattern: pattern must end in its only '*' for match_type 'wildcard'"),
        (
            json!({"match_type": "wildcard", "pattern": "a*b*"}),
            "pattern: pattern must end in its only '*' for match_type 'wildcard'",
        ),
        (
            json!({"match_type": "wildcard", "pattern": "**"}),
            "pattern: pattern must end in its only '*' for match_type 'wildcard'",
        ),
        (json!({"request_types": []}), "request_types: at least one request type is required"),
        (json!({"request_types": ["batch_create"]}), &*foreign),
        (
            json!({"request_types": ["chat_completion_stream"]}),
            "request_types[0]: 'chat_completion' stands for its streams, too; leave out 'chat_completion_stream'",
        ),
        (
            json!({"patch": {"input_cost_per_tokn": 1}}),
            "patch.input_cost_per_tokn: there is no such price; did you mean 'input_cost_per_token'?",
        ),
        (
            json!({"patch": {"input_cost_per_token": "free"}}),
            "Invalid JSON: patch.input_cost_per_token: must be a number, not a string",
        ),
    ];
    let cases: Vec<(Value, u16, &str)> = cases.into_iter().map(|(body, says)| (with(body), 400, says)).collect();
    house.refuses(Method::POST, OVERRIDES, &cases).await;
    for missing in ["name", "scope_kind", "match_type", "pattern", "request_types"] {
        let mut body = an_override();
        body.as_object_mut().unwrap().remove(missing);
        let reply = house.post(OVERRIDES, body).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(missing)));
    }
    let negative = house.post(OVERRIDES, with(json!({"patch": {"output_cost_per_token": -1}}))).await;
    assert_eq!((negative.status, &negative.json()["error"]["param"]), (400, &json!("patch.output_cost_per_token")));
    let over = house.post(OVERRIDES, an_override()).await.json()["pricing_override"].clone();
    house.refuses(Method::PUT, &format!("{OVERRIDES}/{}", id(&over)), &cases).await;
}

#[tokio::test]
async fn overrides_go_with_what_they_are_for() {
    let house = House::new();
    let key = id(&house.create(json!({"name": "k"})).await.key());
    for ids in [
        json!({"scope_kind": "virtual_key", "virtual_key_id": key}),
        json!({"scope_kind": "virtual_key_provider", "virtual_key_id": key, "provider_id": "other"}),
        json!({"scope_kind": "provider_key", "provider_key_id": "main"}),
        json!({"scope_kind": "provider", "provider_id": "local"}),
        json!({"scope_kind": "provider", "provider_id": "other"}),
        json!({"scope_kind": "global"}),
    ] {
        assert_eq!(house.post(OVERRIDES, with(ids)).await.status, 201);
    }
    let left = async || house.get(OVERRIDES).await.good()["count"].clone();
    house.delete(&format!("{KEYS}/{key}")).await.good();
    assert_eq!(left().await, 4);
    house.delete("/api/providers/local/keys/main").await.good();
    assert_eq!(left().await, 3);
    house.delete("/api/providers/local").await.good();
    assert_eq!(left().await, 2);
    let deleted = house.get("/api/governance/audit?object_type=pricing_override&limit=100").await.good();
    let deleted = deleted["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "deleted").count();
    assert_eq!(deleted, 4);
}
