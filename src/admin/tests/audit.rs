//! Who changed what.

use super::*;

const AUDIT: &str = "/api/governance/audit";

#[tokio::test]
async fn every_kind_of_change_is_written_down() {
    let house = House::new();
    let types = [
        "virtual_key",
        "team",
        "customer",
        "model_config",
        "routing_rule",
        "pricing_override",
        "provider",
        "provider_key",
    ];
    for (kind, object_type) in KINDS.iter().zip(types) {
        let (path, made) = kind.make(&house).await;
        house.pass(1_000);
        house.put(&path, (kind.update)()).await;
        house.pass(1_000);
        house.delete(&path).await;
        let object = kind.object(&made);
        let (id, actions) = (text(&object[kind.id]), ["deleted", "updated", "created"]);
        let log = house.get(&format!("{AUDIT}?object_type={object_type}&object_id={id}")).await.good();
        let entries = log["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &log["count"], &log["total_count"]), (3, &json!(3), &json!(3)), "{}", kind.path);
        for (entry, action) in entries.iter().zip(actions) {
            assert_eq!(
                (&entry["action"], &entry["actor"], &entry["object_id"]),
                (&json!(action), &json!("token"), &json!(id))
            );
            assert_eq!(entry["before"].is_null(), action == "created");
            assert_eq!(entry["after"].is_null(), action == "deleted");
            assert_ne!(entry["before"], entry["after"]);
        }
        assert!(entries.is_sorted_by(|a, b| text(&a["at"]) > text(&b["at"]) && a["id"].as_i64() > b["id"].as_i64()));
        if let Some(name) = object.get("name").or_else(|| object.get("model_name")) {
            assert_eq!(entries[2]["object_name"], *name);
            assert!(entries[2]["after"].to_string().contains(text(name)));
        }
    }
}

#[tokio::test]
async fn further_changes_are_written_down() {
    let house = House::new();
    let key = house.create(json!({"name": "k", "budget": {"max_limit": 9, "reset_duration": "1M"}})).await.key();
    let limits = "/api/governance/providers/local";
    let last = async |action: &str, object_type: &str, object_id: &str| {
        let entry = house.get(&format!("{AUDIT}?limit=1")).await.good()["entries"][0].clone();
        assert_eq!(
            [&entry["action"], &entry["object_type"], &entry["object_id"]].map(text),
            [action, object_type, object_id]
        );
        entry
    };
    house.post(&format!("{KEYS}/{}/rotate", id(&key)), json!({})).await.good();
    let rotated = last("rotated", "virtual_key", &id(&key)).await;
    assert_eq!(rotated["object_name"], "k");
    house.post(&format!("/api/governance/budgets/{}/reset", text(&key["budget_id"])), json!({})).await.good();
    last("reset", "budget", text(&key["budget_id"])).await;
    house.put(limits, json!({"budget": {"max_limit": 5, "reset_duration": "1d"}})).await.good();
    let set = last("created", "provider_governance", "local").await;
    assert_eq!(set["after"]["budget"]["max_limit"], 5);
    house.put(limits, json!({"budget": {"max_limit": 6}})).await.good();
    let set = last("updated", "provider_governance", "local").await;
    assert_eq!((&set["before"]["budget"]["max_limit"], &set["after"]["budget"]["max_limit"]), (&json!(5), &json!(6)));
    house.delete(limits).await.good();
    last("deleted", "provider_governance", "local").await;
    house.put("/api/config", json!({"client_config": {"required_headers": ["x-a"]}})).await.good();
    let set = last("updated", "client_config", "client_config").await;
    assert_eq!(set["after"]["required_headers"], json!(["x-a"]));
    let section =
        json!({"admin_username": "root", "admin_password": format!("long{SECRET}enough"), "is_enabled": true});
    house.put("/api/config", json!({ "auth_config": section })).await.good();
    last("updated", "auth_config", "auth_config").await;
    // Usage is no change of what is declared.
    house.update(&id(&key), json!({"budget": {"calendar_aligned": true}})).await.key();
    let log = house.get(&format!("{AUDIT}?object_id={}", id(&key))).await.good();
    assert_eq!(log["entries"][0]["action"], "updated");
    assert!(!log.to_string().contains("current_usage"));
}

#[tokio::test]
async fn what_was_refused_is_not_written_down() {
    let house = House::new();
    for kind in &KINDS {
        house.post(kind.path, json!({})).await;
        house.delete(&format!("{}/none", kind.path)).await;
    }
    house.put("/api/config", json!({"client_config": {"required_headers": 7}})).await;
    house.delete("/api/governance/providers/local").await.good();
    assert_eq!(
        house.get(AUDIT).await.good(),
        json!({"entries": [], "count": 0, "total_count": 0, "limit": 25, "offset": 0})
    );
}

#[tokio::test]
async fn the_log_comes_in_pages() {
    let house = House::new();
    for i in 0..30 {
        house
            .post(
                if i % 2 == 0 { "/api/governance/teams" } else { "/api/governance/customers" },
                json!({"name": format!("n{i}")}),
            )
            .await;
    }
    let check = async |query: &str, names: &[&str], [total, limit, offset]: [usize; 3]| {
        let log = house.get(&format!("{AUDIT}{query}")).await.good();
        let found: Vec<&str> =
            log["entries"].as_array().unwrap().iter().map(|entry| text(&entry["object_name"])).collect();
        assert_eq!(found[..names.len()], *names, "{query}");
        assert_eq!(log["count"], found.len());
        assert_eq!(
            [&log["total_count"], &log["limit"], &log["offset"]],
            [total, limit, offset].map(|n| json!(n)).each_ref(),
            "{query}"
        );
        found.len()
    };
    assert_eq!(check("", &["n29", "n28"], [30, 25, 0]).await, 25);
    assert_eq!(check("?limit=2&offset=1", &["n28", "n27"], [30, 2, 1]).await, 2);
    assert_eq!(check("?limit=0&offset=29", &["n0"], [30, 25, 29]).await, 1);
    assert_eq!(check("?limit=1000", &[], [30, 100, 0]).await, 30);
    assert_eq!(check("?object_type=team", &["n28", "n26"], [15, 25, 0]).await, 15);
    assert_eq!(check("?object_type=team&limit=1", &["n28"], [15, 1, 0]).await, 1);
    assert_eq!(check("?object_type=nonsense", &[], [0, 25, 0]).await, 0);
    assert_eq!(check("?object_id=", &["n29"], [30, 25, 0]).await, 25);
    for (query, says) in [
        ("limit=x", "Invalid limit parameter: must be a number"),
        ("offset=-1", "Invalid offset parameter: must be non-negative"),
    ] {
        house.get(&format!("{AUDIT}?{query}")).await.refused(400, says);
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    // That no answer has one is seen to where answers are received.
    let house = House::new();
    let key = house.create(json!({"name": "k"})).await.key();
    house.post(&format!("{KEYS}/{}/rotate", id(&key)), json!({})).await.good();
    house.update(&id(&key), json!({"name": "l"})).await.good();
    let headers = json!({"X-Token": format!("header{SECRET}0001")});
    let body = json!({"provider": "mine", "network_config": {"base_url": "http://127.0.0.1:1", "extra_headers": headers},
        "custom_provider_config": {"base_provider_type": "openai"}, "keys": [a_provider_key()]});
    house.post("/api/providers", body).await.good();
    let bedrock = json!({"provider": "bedrock", "keys": [{"name": "b", "bedrock_key_config":
        {"access_key": format!("a{SECRET}1"), "secret_key": format!("s{SECRET}2"), "session_token": format!("t{SECRET}3"), "region": "r"}}]});
    house.post("/api/providers", bedrock).await.good();
    let vertex = json!({"provider": "vertex", "keys": [{"name": "v", "vertex_key_config":
        {"project_id": "p", "region": "r", "auth_credentials": format!("{{\"private_key\": \"{SECRET}\"}}")}}]});
    house.post("/api/providers", vertex).await.good();
    for provider in ["mine", "bedrock", "vertex"] {
        house.get(&format!("/api/providers/{provider}/keys")).await.good();
        house.delete(&format!("/api/providers/{provider}")).await.good();
    }
    house.get("/api/keys").await.good();
    let log = house.get(&format!("{AUDIT}?limit=100")).await;
    assert_eq!(log.good()["total_count"], 15);
    assert!(log.text.contains("****"), "redacted, they are there");
}
