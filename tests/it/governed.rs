//! What administrators change holds for the next call: every level of limits, and every object of the API.

use crate::fake::Bill;
use crate::fake::answers::Good;
use crate::house::{
    ADMIN_TOKEN, House, Key, PROVIDER_KEY, Reply, chat, cost, free_port, house, house_with, nanos, provider,
};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

const GOVERNANCE: &str = "/api/governance";

/// Creates an object and returns it.
async fn create(house: &House, kind: &str, one: &str, body: Value) -> Value {
    let reply = house.administer("POST", &format!("{GOVERNANCE}/{kind}"), Some(body)).await;
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    reply.json()[one].clone()
}

async fn show(house: &House, path: &str) -> Value {
    let reply = house.administer("GET", &format!("{GOVERNANCE}/{path}"), None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

async fn put(house: &House, path: &str, body: Value) -> Value {
    let reply = house.administer("PUT", path, Some(body)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

fn id(object: &Value) -> &str {
    object["id"].as_str().unwrap_or_else(|| panic!("{object} has no id"))
}

/// A budget that one call of the fake provider's uses up.
fn one_call() -> Value {
    json!({"max_limit": 0.000001, "reset_duration": "1h"})
}

#[test]
fn a_team_shares_its_budget() {
    house(async |house| {
        let team = create(house, "teams", "team", json!({"name": "crew", "budget": one_call()})).await;
        let one = house.key(json!({"team_id": id(&team)})).await;
        let two = house.key(json!({"team_id": id(&team)})).await;
        assert_eq!(house.chat(&one, &chat()).await.status, 200);
        house.idle().await;
        let refusal = house.chat(&two, &chat()).await;
        let message = refusal.refused(402, "budget_exceeded");
        assert!(message.contains("Team budget exceeded") && !message.contains("crew"), "{message}");
        assert!(refusal.retry_after() > 3_000);
        // One truth: the team, its budget and the flat list say the same.
        let spent = |budget: &Value| nanos(&budget["current_usage"]);
        let team = show(house, &format!("teams/{}", id(&team))).await["team"].clone();
        let flat = show(house, "budgets").await;
        assert!(spent(&team["budget"]) > 0);
        assert_eq!(spent(&flat["budgets"][0]), spent(&team["budget"]));
        assert_eq!((&flat["budgets"][0]["owner_type"], &flat["budgets"][0]["owner_id"]), (&json!("team"), &team["id"]));
        assert_eq!(team["virtual_keys"].as_array().map(Vec::len), Some(2));
        assert!(!team.to_string().contains(&one.value), "a nested key shows its value");
        // The holder of a key does not learn what the team spent.
        assert_eq!(house.quota(&one).await["budgets"], json!([]));
    });
}

#[test]
fn a_customer_pays_for_its_teams_and_its_own_keys() {
    house(async |house| {
        let customer = create(house, "customers", "customer", json!({"name": "acme", "budget": one_call()})).await;
        let team = create(house, "teams", "team", json!({"name": "crew", "customer_id": id(&customer)})).await;
        let own = house.key(json!({"customer_id": id(&customer)})).await;
        let member = house.key(json!({"team_id": id(&team)})).await;
        assert_eq!(house.chat(&member, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&own, &chat()).await.refused(402, "budget_exceeded");
        assert!(message.contains("Customer budget exceeded"), "{message}");
        // Raised, it lets through at once; and a reset forgets what was spent.
        let path = format!("{GOVERNANCE}/customers/{}", id(&customer));
        put(house, &path, json!({"budget": {"max_limit": 100}})).await;
        assert_eq!(house.chat(&own, &chat()).await.status, 200);
        put(house, &path, json!({"budget": {"max_limit": 0.000001}})).await;
        house.chat(&own, &chat()).await.refused(402, "budget_exceeded");
        let budget = show(house, &format!("customers/{}", id(&customer))).await["customer"]["budget"].clone();
        let reset = format!("{GOVERNANCE}/budgets/{}/reset", id(&budget));
        let reply = house.administer("POST", &reset, None).await;
        assert_eq!((reply.status, nanos(&reply.json()["budget"]["current_usage"])), (200, 0), "{reply:?}");
        assert_eq!(house.chat(&own, &chat()).await.status, 200);
        // Deleted, it limits nobody, and nobody went with it.
        house.idle().await;
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        for key in [&own, &member] {
            assert_eq!(house.chat(key, &chat()).await.status, 200);
        }
        let team = show(house, &format!("teams/{}", id(&team))).await["team"].clone();
        assert_eq!(team["customer_id"], Value::Null);
    });
}

#[test]
fn providers_and_models_have_limits_of_their_own() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let requests = json!({"rate_limit": {"request_max_limit": 1, "request_reset_duration": "1h"}});
        let path = format!("{GOVERNANCE}/providers/openai");
        let told = put(house, &path, requests.clone()).await;
        assert_eq!(
            (&told["provider"]["provider"], &told["rate_limit"]),
            (&json!("openai"), &told["provider"]["rate_limit"])
        );
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&key, &chat()).await.refused(429, "request_limited");
        assert!(message.contains("Provider-level rate limit check failed") && message.contains("openai"), "{message}");
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        let body = json!({"model_name": "gpt-4o", "provider": "openai", "budget": one_call()});
        let config = create(house, "model-configs", "model_config", body).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
        assert!(message.contains("Model:gpt-4o"), "{message}");
        // Another model is not meant.
        let mut other = chat();
        other["model"] = json!("openai/gpt-4o-mini");
        assert_eq!(house.chat(&key, &other).await.status, 200);
        let path = format!("{GOVERNANCE}/model-configs/{}", id(&config));
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
    });
}

#[test]
fn a_rotated_key_has_one_value() {
    house(async |house| {
        let old = house.key_with_budget(1.0).await;
        assert_eq!(house.chat(&old, &chat()).await.status, 200);
        let spent = house.spent(&old).await;
        let reply = house.administer("POST", &format!("{GOVERNANCE}/virtual-keys/{}/rotate", old.id), None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let value = reply.json()["virtual_key"]["value"].as_str().unwrap().to_owned();
        let new = Key { id: old.id.clone(), value };
        assert_ne!(old.value, new.value);
        house.chat(&old, &chat()).await.refused(401, "virtual_key_not_found");
        assert_eq!(house.spent(&new).await, spent);
        assert_eq!(house.chat(&new, &chat()).await.status, 200);
    });
}

#[test]
fn providers_and_their_keys_are_made_over_rest() {
    house(async |house| {
        let body = json!({
            "provider": "house",
            "custom_provider_config": {"base_provider_type": "openai"},
            "network_config": {"base_url": house.fake.url()},
        });
        let reply = house.administer("POST", "/api/providers", Some(body.clone())).await;
        assert_eq!((reply.status, &reply.json()["name"]), (200, &json!("house")), "{reply:?}");
        assert_eq!(house.administer("POST", "/api/providers", Some(body)).await.status, 409);
        let configs = json!([{"provider": "house", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}]);
        let caller = house.key(json!({"provider_configs": configs})).await;
        let mut call = chat();
        call["model"] = json!("house/gpt-4o");
        house.chat(&caller, &call).await.refused(503, "no_provider_key");
        let keys = "/api/providers/house/keys";
        let secret = "sk-a-secret-of-this-test";
        let reply = house.administer("POST", keys, Some(json!({"name": "spare", "value": secret}))).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let made = reply.json();
        assert!(!reply.json().to_string().contains(secret), "{made}");
        let reply = house.chat(&caller, &call).await;
        assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("house")), "{reply:?}");
        let sent = house.fake.seen().last().unwrap().header("authorization").map(str::to_owned);
        assert_eq!(sent, Some(format!("Bearer {secret}")));
        // What was read is written back: the redacted secret stays what it was.
        let path = format!("{keys}/{}", id(&made));
        let mut edited = made.clone();
        edited["weight"] = json!(0.5);
        let reply = house.administer("PUT", &path, Some(edited)).await;
        assert_eq!((reply.status, &reply.json()["weight"]), (200, &json!(0.5)), "{reply:?}");
        assert_eq!(house.chat(&caller, &call).await.status, 200);
        let sent = house.fake.seen().last().unwrap().header("authorization").map(str::to_owned);
        assert_eq!(sent, Some(format!("Bearer {secret}")));
        // Both outlive the process.
        house.idle().await;
        house.stop();
        house.open();
        assert_eq!(house.chat(&caller, &call).await.status, 200);
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        house.chat(&caller, &call).await.refused(503, "no_provider_key");
        assert_eq!(house.administer("DELETE", "/api/providers/house", None).await.status, 200);
        assert_eq!(house.administer("DELETE", "/api/providers/house", None).await.status, 404);
        house.chat(&caller, &call).await.refused(400, "unknown_provider");
    });
}

#[test]
fn everything_outlives_the_process() {
    house(async |house| {
        let limits = json!({"max_limit": 5, "reset_duration": "1d", "calendar_aligned": true});
        let customer = create(house, "customers", "customer", json!({"name": "acme", "budget": limits})).await;
        let team = json!({"name": "crew", "customer_id": id(&customer), "budget": limits, "claims": {"a": 1}});
        let team = create(house, "teams", "team", team).await;
        let key = house.key(json!({"team_id": id(&team), "budget": limits})).await;
        let scoped = json!({"name": "r", "cel_expression": "model == 'x'", "scope": "team", "scope_id": id(&team),
            "priority": 3, "targets": [{"provider": "openai", "weight": 1}], "fallbacks": ["openai/gpt-4o"]});
        create(house, "routing-rules", "rule", scoped).await;
        create(house, "model-configs", "model_config", json!({"model_name": "o1", "budget": limits})).await;
        let price = json!({"name": "p", "scope_kind": "virtual_key", "virtual_key_id": key.id, "match_type": "exact",
            "pattern": "gpt-4o", "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 0.5}});
        create(house, "pricing-overrides", "pricing_override", price).await;
        put(house, &format!("{GOVERNANCE}/providers/openai"), json!({"budget": limits})).await;
        put(house, "/api/config", json!({"client_config": {"required_headers": ["X-Tenant"]}})).await;
        let all = async |house: &House| {
            let mut all = Vec::new();
            for path in [
                "virtual-keys",
                "teams",
                "customers",
                "budgets",
                "rate-limits",
                "routing-rules",
                "model-configs",
                "providers",
                "pricing-overrides",
            ] {
                all.push(show(house, path).await);
            }
            all.push(house.administer("GET", "/api/config", None).await.json());
            all.push(house.administer("GET", "/api/providers", None).await.json());
            all
        };
        let before = all(house).await;
        house.stop();
        house.open();
        assert_eq!(all(house).await, before);
        house.chat(&key, &chat()).await.refused(400, "missing_required_headers");
        // Gone with the team: its rule; with the key: its price.
        for path in [format!("teams/{}", id(&team)), format!("virtual-keys/{}", key.id)] {
            assert_eq!(house.administer("DELETE", &format!("{GOVERNANCE}/{path}"), None).await.status, 200);
        }
        house.stop();
        house.open();
        assert_eq!(show(house, "routing-rules").await["rules"], json!([]));
        assert_eq!(show(house, "pricing-overrides").await["pricing_overrides"], json!([]));
    });
}

#[test]
fn settings_hold_for_the_next_call() {
    house(async |house| {
        let anonymous = async |house: &House| {
            let path = format!("{}/v1/chat/completions", house.proxy);
            Reply::read(house.http.post(path).json(&chat()).send().await.unwrap()).await
        };
        anonymous(house).await.refused(401, "virtual_key_required");
        let open = json!({"client_config": {"enforce_auth_on_inference": false, "max_request_body_size_mb": 1}});
        let told = put(house, "/api/config", open).await;
        assert_eq!(told["client_config"]["enforce_auth_on_inference"], json!(false));
        assert_eq!(anonymous(house).await.status, 200);
        let mut large = chat();
        large["messages"][0]["content"] = "x".repeat(2 << 20).into();
        let key = house.key(json!({})).await;
        house.chat(&key, &large).await.refused(413, "request_too_large");
    });
}

#[test]
fn pages_may_call_from_where_they_are_allowed() {
    let change = |config: &mut Value| config["client"] = json!({"allowed_origins": ["https://app.example.com"]});
    house_with(change, async |house| {
        let path = format!("{}/v1/chat/completions", house.proxy);
        let ask = |origin: &'static str| {
            let request = house.http.request("OPTIONS".parse().unwrap(), &path).header("origin", origin);
            request
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type,x-stainless-lang")
        };
        let reply = Reply::read(ask("https://app.example.com").send().await.unwrap()).await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{reply:?}");
        let allowed = |headers: &HeaderMap| headers.get("access-control-allow-origin").cloned();
        assert_eq!(allowed(&reply.headers).unwrap(), "https://app.example.com");
        let names = reply.header("access-control-allow-headers").unwrap();
        assert_eq!(names, "authorization, content-type, x-stainless-lang");
        Reply::read(ask("https://evil.example").send().await.unwrap()).await.refused(403, "origin_not_allowed");
        let key = house.key(json!({})).await;
        let call = async |origin: &str| {
            let request = house.post("/v1/chat/completions", &key, &chat()).header("origin", origin);
            Reply::read(request.send().await.unwrap()).await
        };
        let reply = call("https://app.example.com").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("https://app.example.com")));
        assert!(reply.header("access-control-expose-headers").unwrap().contains("x-request-id"));
        // Who is not a browser is not kept from calling; but no page may read the answer.
        let reply = call("https://evil.example").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    });
}

#[test]
fn a_user_and_a_password_open_the_admin_listener_beside_the_token() {
    let auth = json!({"is_enabled": true, "admin_username": "root", "admin_password": "correct horse"});
    house_with(
        |config| config["auth_config"] = auth,
        async |house| {
            let path = format!("{}{GOVERNANCE}/teams", house.admin);
            let as_user = async |name: &str, password: &str| {
                house.http.get(&path).basic_auth(name, Some(password)).send().await.unwrap().status().as_u16()
            };
            assert_eq!(as_user("root", "correct horse").await, 200);
            assert_eq!(as_user("root", "wrong horse").await, 401);
            assert_eq!(as_user("boot", "correct horse").await, 401);
            assert_eq!(house.http.get(&path).bearer_auth(ADMIN_TOKEN).send().await.unwrap().status(), 200);
            // A page of somebody else's that makes a browser send what it remembers.
            let foreign = async |name: &'static str, value: String| {
                let request = house.http.post(&path).basic_auth("root", Some("correct horse")).header(name, value);
                let request = request.header("content-type", "application/json");
                request.body(r#"{"name": "planted"}"#).send().await.unwrap().status().as_u16()
            };
            assert_eq!(foreign("origin", "https://evil.example".to_owned()).await, 403);
            assert_eq!(foreign("sec-fetch-site", "cross-site".to_owned()).await, 403);
            assert_eq!(foreign("origin", house.admin.clone()).await, 200);
            // As the reference's clients send it.
            let pair = "cm9vdDpjb3JyZWN0IGhvcnNl";
            assert_eq!(house.http.get(&path).bearer_auth(pair).send().await.unwrap().status(), 200);
            let shown = house.administer("GET", "/api/config", None).await;
            assert!(!shown.json().to_string().contains("correct horse"), "{shown:?}");
            house
                .http
                .post(&path)
                .basic_auth("root", Some("correct horse"))
                .json(&json!({"name": "crew"}))
                .send()
                .await
                .unwrap();
            let audit = show(house, "audit").await;
            assert_eq!(
                (&audit["entries"][0]["actor"], &audit["entries"][0]["action"]),
                (&json!("basic:root"), &json!("created"))
            );
        },
    );
}

#[test]
fn a_file_of_the_reference_loads_as_it_stands() {
    let port = free_port();
    let change = move |config: &mut Value| {
        let _ = port;
        config["$schema"] = json!("https://example.com/schema");
        config["client"] =
            json!({"drop_excess_requests": false, "enable_logging": true, "enforce_governance_header": true});
        config["governance"] = json!({
            "budgets": [
                {"id": "b-customer", "max_limit": 100, "reset_duration": "1M"},
                {"id": "b-team", "max_limit": 0.000001, "reset_duration": "1d", "current_usage": 0},
            ],
            "rate_limits": [{"id": "r-key", "request_max_limit": 100, "request_reset_duration": "1m"}],
            "customers": [{"id": "acme", "name": "Acme", "budget_id": "b-customer"}],
            "teams": [{"id": "crew", "name": "Crew", "customer_id": "acme", "budget_id": "b-team"}],
            "virtual_keys": [{
                "id": "vk", "name": "ci", "value": "sk-bf-of-the-file", "is_active": true, "team_id": "crew",
                "rate_limit_id": "r-key",
                "provider_configs": [{"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}],
            }],
            "routing_rules": [{
                "id": "rule", "name": "cheap", "enabled": true, "cel_expression": "model == 'gpt-4o' && budget_used > 80",
                "targets": [{"provider": "openai", "model": "gpt-4o-mini", "weight": 1}], "scope": "global", "priority": 1,
            }],
            "model_configs": [{"id": "mc", "model_name": "gpt-4o", "provider": "openai"}],
        });
    };
    house_with(change, async |house| {
        let key = Key { id: "vk".to_owned(), value: "sk-bf-of-the-file".to_owned() };
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let message = house.chat(&key, &chat()).await.refused(402, "budget_exceeded");
        assert!(message.contains("Team budget exceeded"), "{message}");
        let shown = show(house, "virtual-keys/vk").await["virtual_key"].clone();
        assert_eq!((&shown["team"]["name"], &shown["rate_limit_id"]), (&json!("Crew"), &json!("r-key")));
        assert!(shown["config_hash"].as_str().is_some_and(|hash| !hash.is_empty()), "{shown}");
        let budgets = show(house, "budgets").await;
        let ids: Vec<&Value> = budgets["budgets"].as_array().unwrap().iter().map(|budget| &budget["id"]).collect();
        assert_eq!(ids, ["b-customer", "b-team"]);
        assert_eq!(
            show(house, "routing-rules").await["rules"][0]["cel_expression"],
            "model == 'gpt-4o' && budget_used > 80"
        );
    });
}

#[test]
fn the_file_is_in_force_when_it_changes_and_the_api_in_between() {
    let declared =
        json!({"customers": [{"id": "acme", "name": "Acme", "budget": {"max_limit": 5, "reset_duration": "1d"}}]});
    let start = declared.clone();
    house_with(
        move |config| config["governance"] = start,
        async |house| {
            let path = format!("{GOVERNANCE}/customers/acme");
            put(house, &path, json!({"name": "Acme & Co", "budget": {"max_limit": 7}})).await;
            house.stop();
            house.open();
            let kept = show(house, "customers/acme").await["customer"].clone();
            assert_eq!((&kept["name"], &kept["budget"]["max_limit"]), (&json!("Acme & Co"), &json!(7)));
            house.stop();
            house.config["governance"]["customers"][0]["budget"]["max_limit"] = json!(9);
            house.config["providers"]["openai"] =
                provider(&house.fake.url(), &[("main", PROVIDER_KEY), ("more", "sk-more")]);
            house.open();
            let changed = show(house, "customers/acme").await["customer"].clone();
            assert_eq!((&changed["name"], &changed["budget"]["max_limit"]), (&json!("Acme"), &json!(9)));
            assert_eq!(changed["budget"]["id"], kept["budget"]["id"]);
            let keys = house.administer("GET", "/api/providers/openai/keys", None).await.json();
            assert_eq!(keys["total"], json!(2));
        },
    );
}

#[test]
fn a_request_sent_again_changes_nothing() {
    house(async |house| {
        let send = async |house: &House, key: &str, body: Value| {
            let request = house.http.post(format!("{}{GOVERNANCE}/virtual-keys", house.admin)).bearer_auth(ADMIN_TOKEN);
            Reply::read(request.header("idempotency-key", key).json(&body).send().await.unwrap()).await
        };
        let first = send(house, "one", json!({"name": "ci"})).await;
        let again = send(house, "one", json!({"name": "ci"})).await;
        assert_eq!((first.status, again.status, again.header("idempotency-replayed")), (200, 200, Some("true")));
        assert_eq!(first.json(), again.json());
        assert_eq!(send(house, "one", json!({"name": "other"})).await.status, 409);
        assert_eq!(show(house, "virtual-keys").await["count"], json!(1));
        // Kept over a restart, and nowhere in clear.
        house.stop();
        house.open();
        assert_eq!(send(house, "one", json!({"name": "ci"})).await.json(), first.json());
    });
}

#[test]
fn who_changes_what_was_read_says_so() {
    house(async |house| {
        house.fake.usually(Good::default());
        let key = house.key_with_budget(5.0).await;
        let path = format!("{}{GOVERNANCE}/virtual-keys/{}", house.admin, key.id);
        let read = Reply::read(house.http.get(&path).bearer_auth(ADMIN_TOKEN).send().await.unwrap()).await;
        let tag = read.header("etag").unwrap().to_owned();
        // Usage is no change.
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        let update = async |tag: &str, body: Value| {
            let request = house.http.put(&path).bearer_auth(ADMIN_TOKEN).header("if-match", tag);
            Reply::read(request.json(&body).send().await.unwrap()).await
        };
        let updated = update(&tag, json!({"description": "new"})).await;
        assert_eq!(updated.status, 200, "{updated:?}");
        assert_eq!(update(&tag, json!({"description": "newer"})).await.status, 412);
        assert_eq!(update(updated.header("etag").unwrap(), json!({"description": "newer"})).await.status, 200);
        assert_eq!(update("*", json!({"description": "newest"})).await.status, 200);
    });
}

#[test]
fn overrides_price_the_calls_that_they_are_for() {
    house(async |house| {
        house.fake.usually(Good::billing(1_000, 100));
        let key = house.key_with_budget(100.0).await;
        let other = house.key_with_budget(100.0).await;
        let over = |patch: Value| {
            json!({"name": "ours", "scope_kind": "virtual_key", "virtual_key_id": key.id, "match_type": "wildcard",
                "pattern": "gpt-4*", "request_types": ["chat_completion"], "patch": patch})
        };
        let patch = json!({"input_cost_per_token": 0.001, "output_cost_per_token": 0});
        let made = create(house, "pricing-overrides", "pricing_override", over(patch)).await;
        for key in [&key, &other] {
            assert_eq!(house.chat(key, &chat()).await.status, 200);
        }
        let bill = Bill { input: 1_000, output: 100 };
        assert_eq!((house.spent(&key).await, house.spent(&other).await), (1_000_000_000, cost(bill)));
        // A zero makes free; taken away, the list's price is back. What was charged stays.
        let path = format!("{GOVERNANCE}/pricing-overrides/{}", id(&made));
        put(house, &path, json!({"patch": {"input_cost_per_token": 0, "output_cost_per_token": 0}})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, 1_000_000_000);
        assert_eq!(house.administer("DELETE", &path, None).await.status, 200);
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        assert_eq!(house.spent(&key).await, 1_000_000_000 + cost(bill));
        // A model that no list prices has the override's price alone.
        let mut unknown = chat();
        unknown["model"] = json!("openai/house-model");
        house.chat(&key, &unknown).await.refused(403, "model_not_priced");
        let mut own = over(json!({"input_cost_per_token": 0.001, "output_cost_per_token": 0}));
        own["pattern"] = json!("house-*");
        create(house, "pricing-overrides", "pricing_override", own).await;
        let before = house.spent(&key).await;
        assert_eq!(house.chat(&key, &unknown).await.status, 200);
        assert_eq!(house.spent(&key).await, before + 1_000_000_000);
    });
}

#[test]
fn what_was_done_to_a_declared_object_over_rest_is_not_undone_by_a_start() {
    let declared = json!({
        "virtual_keys": [
            {"name": "deleted", "value": "sk-bf-deleted"},
            {"name": "renamed", "value": "sk-bf-renamed"},
            {"name": "rotated", "value": "sk-bf-rotated", "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "key_ids": ["*"]}]},
        ],
        "customers": [{"id": "acme", "name": "Acme", "budget": {"max_limit": 5, "reset_duration": "1d"}}],
    });
    let start = declared.clone();
    house_with(
        move |config| config["governance"] = start,
        async |house| {
            let of = async |house: &House, name: &str| {
                let found = show(house, &format!("virtual-keys?search={name}")).await["virtual_keys"][0].clone();
                Key { id: id(&found).to_owned(), value: found["value"].as_str().unwrap().to_owned() }
            };
            let team = create(house, "teams", "team", json!({"name": "crew"})).await;
            let (deleted, renamed, rotated) =
                (of(house, "deleted").await, of(house, "renamed").await, of(house, "rotated").await);
            let path = |key: &Key| format!("{GOVERNANCE}/virtual-keys/{}", key.id);
            assert_eq!(house.administer("DELETE", &path(&deleted), None).await.status, 200);
            assert_eq!(house.administer("DELETE", &format!("{GOVERNANCE}/customers/acme"), None).await.status, 200);
            put(house, &path(&renamed), json!({"name": "other name"})).await;
            put(house, &path(&rotated), json!({"description": "by REST"})).await;
            assert_eq!(house.administer("POST", &format!("{}/rotate", path(&rotated)), None).await.status, 200);
            let fresh = of(house, "rotated").await;
            // A rule of the file that is for a team of the API's goes with the team, and is not missed.
            house.stop();
            house.config["governance"]["routing_rules"] = json!([{"name": "r", "scope": "team", "scope_id": id(&team),
            "targets": [{"provider": "openai", "weight": 1}]}]);
            house.open();
            assert_eq!(
                house.administer("DELETE", &format!("{GOVERNANCE}/teams/{}", id(&team)), None).await.status,
                200
            );
            house.stop();
            house.open();
            assert_eq!(show(house, "virtual-keys").await["count"], json!(2));
            assert_eq!(show(house, "customers").await["count"], json!(0));
            house.chat(&deleted, &chat()).await.refused(401, "virtual_key_not_found");
            house.chat(&rotated, &chat()).await.refused(401, "virtual_key_not_found");
            assert_eq!(house.chat(&fresh, &chat()).await.status, 200);
            // Another word of the entry brings it into force again, but for a value that did not change with it.
            house.idle().await;
            house.stop();
            house.config["governance"]["virtual_keys"][2]["description"] = json!("by the file");
            house.config["governance"]["virtual_keys"][0]["description"] = json!("again");
            house.open();
            let shown = show(house, &format!("virtual-keys/{}", rotated.id)).await["virtual_key"].clone();
            assert_eq!((&shown["description"], &shown["value"]), (&json!("by the file"), &json!(fresh.value)));
            assert_eq!(of(house, "deleted").await.value, deleted.value);
            // A value that is changed in the file is in force.
            house.stop();
            house.config["governance"]["virtual_keys"][2]["value"] = json!("sk-bf-third");
            house.open();
            assert_eq!(of(house, "rotated").await.value, "sk-bf-third");
        },
    );
}

#[test]
fn a_provider_key_that_the_file_drops_serves_no_more() {
    let two = |house: &House| provider(&house.fake.url(), &[("main", PROVIDER_KEY), ("leaked", "sk-leaked-key")]);
    house(async |house| {
        house.stop();
        house.config["providers"]["openai"] = two(house);
        house.open();
        let made = house
            .administer("POST", "/api/providers/openai/keys", Some(json!({"name": "rest", "value": "sk-rest"})))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        let configs = json!([{"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["leaked"]}]);
        let key = house.key(json!({"provider_configs": configs})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        house.idle().await;
        house.stop();
        house.config["providers"]["openai"] = provider(&house.fake.url(), &[("main", PROVIDER_KEY)]);
        house.open();
        let keys = house.administer("GET", "/api/providers/openai/keys", None).await.json();
        let mut names: Vec<&str> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["main", "rest"]);
        // Who could use no other key is locked out, and stays so if a key of that id comes back.
        house.chat(&key, &chat()).await.refused(403, "model_blocked");
        house.stop();
        house.config["providers"]["openai"] = two(house);
        house.open();
        house.chat(&key, &chat()).await.refused(403, "model_blocked");
    });
}

#[test]
fn another_password_in_the_variable_is_another_password() {
    // The variable is this process's own: no other test reads it.
    let auth = |password: &str| json!({"is_enabled": true, "admin_username": "root", "admin_password": password});
    let first = auth("correct horse battery");
    house_with(
        move |config| config["auth_config"] = first,
        async |house| {
            let status = async |house: &House, password: &str| {
                let request =
                    house.http.get(format!("{}{GOVERNANCE}/teams", house.admin)).basic_auth("root", Some(password));
                request.send().await.unwrap().status().as_u16()
            };
            assert_eq!(status(house, "correct horse battery").await, 200);
            put(house, "/api/config", json!({"auth_config": {"admin_password": "set over REST, long"}})).await;
            house.stop();
            house.open();
            assert_eq!(status(house, "set over REST, long").await, 200);
            house.stop();
            house.config["auth_config"] = auth("another horse battery");
            house.open();
            assert_eq!(status(house, "set over REST, long").await, 401);
            assert_eq!(status(house, "another horse battery").await, 200);
        },
    );
}
