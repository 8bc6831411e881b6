//! The settings over REST, and the password that they set.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

const CONFIG: &str = "/api/config";

#[tokio::test]
async fn settings_are_shown_and_changed_in_parts() {
    let house = House::new();
    let first = house.get(CONFIG).await.good();
    let client = &first["client_config"];
    assert_eq!((&client["enforce_auth_on_inference"], &client["required_headers"]), (&json!(true), &json!([])));
    assert_eq!((&client["allow_direct_keys"], &client["routing_chain_max_depth"]), (&json!(false), &json!(10)));
    assert_eq!(first["auth_config"]["is_enabled"], false);
    for keep in [
        json!({}),
        json!({"client_config": null, "auth_config": null}),
        json!({"client_config": {}, "auth_config": {}}),
    ] {
        let changed = house.put(CONFIG, keep).await.good();
        assert_eq!(changed["message"], "Configuration updated successfully");
        assert_eq!(changed["client_config"], *client);
    }
    let part = json!({"client_config": {"required_headers": ["X-Project"], "enforce_auth_on_inference": false}});
    let changed = house.put(CONFIG, part).await.good();
    let now = &changed["client_config"];
    assert_eq!((&now["required_headers"], &now["enforce_auth_on_inference"]), (&json!(["x-project"]), &json!(false)));
    // The older name counts, too.
    let changed = house.put(CONFIG, json!({"client_config": {"enforce_governance_header": true}})).await.good();
    assert_eq!(changed["client_config"]["enforce_auth_on_inference"], true);
    let further = json!({"drop_excess_requests": true, "header_filter_config": {"allowlist": ["a"], "denylist": []},
        "whitelisted_routes": ["/x*"], "routing_chain_max_depth": 3, "allowed_origins": ["https://a.example"],
        "allowed_headers": ["x-a"], "max_request_body_size_mb": 7});
    let changed = house.put(CONFIG, json!({ "client_config": further })).await.good();
    for (name, value) in further.as_object().unwrap() {
        assert_eq!(changed["client_config"][name], *value);
    }
    let shown = house.get(CONFIG).await.good();
    assert_eq!(shown["client_config"], changed["client_config"]);
    // What was read can be written back.
    assert_eq!(house.put(CONFIG, shown.clone()).await.good()["client_config"], shown["client_config"]);
    // It holds at once.
    assert_eq!(house.admin.state.snapshot().view.client.required_headers, ["x-project"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_setting_is_said() {
    let house = House::new();
    let client = |section: Value| json!({ "client_config": section });
    let auth = |section: Value| json!({ "auth_config": section });
    for (body, param) in [
        (client(json!({"allow_direct_keys": true})), "client_config.allow_direct_keys"),
        (client(json!({"required_headers": ["a b"]})), "client_config.required_headers[0]"),
        (client(json!({"required_headers": "x"})), "client_config.required_headers"),
        (client(json!({"allowed_origins": ["nonsense"]})), "client_config.allowed_origins[0]"),
        (client(json!({"max_request_body_size_mb": -1})), "client_config.max_request_body_size_mb"),
        (client(json!({"max_request_body_size_mb": 1025})), "client_config.max_request_body_size_mb"),
        (client(json!({"drop_excess_requests": 1})), "client_config.drop_excess_requests"),
        (auth(json!({"is_enabled": true})), "auth_config.admin_username"),
        (auth(json!({"is_enabled": true, "admin_username": "a"})), "auth_config.admin_password"),
        (auth(json!({"admin_username": "a:b"})), "auth_config.admin_username"),
        (auth(json!({"admin_password": "<REDACTED>"})), "auth_config.admin_password"),
        (auth(json!({"admin_password": "env.TOLLGATE_NO_SUCH_VARIABLE"})), "auth_config.admin_password"),
    ] {
        let reply = house.put(CONFIG, body.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    assert_eq!(house.get("/api/governance/audit").await.good()["total_count"], 0);
}

#[tokio::test]
async fn a_user_and_a_password_open_the_api() {
    let house = House::new();
    let password = format!("opens{SECRET}sesame");
    let ask = async |credential: &str| {
        let request = Request::get(KEYS).header("authorization", credential);
        house.send(request.body(Body::empty()).unwrap()).await.status
    };
    let basic = |user: &str, password: &str| format!("Basic {}", BASE64.encode(format!("{user}:{password}")));
    assert_eq!(ask(&basic("root", &password)).await, 401);
    let section = json!({"admin_username": "root", "admin_password": password, "is_enabled": true});
    let set = house.put(CONFIG, json!({ "auth_config": section })).await.good();
    assert_eq!(set["auth_config"]["is_enabled"], true);
    assert_eq!(set["auth_config"]["admin_password"], json!({"value": "<REDACTED>", "env_var": "", "from_env": false}));
    let right = basic("root", &password);
    assert_eq!(ask(&right).await, 200);
    assert_eq!(ask(&right.replace("Basic", "bASIC")).await, 200);
    // As clients of the reference send it.
    assert_eq!(ask(&right.replace("Basic", "Bearer")).await, 200);
    assert_eq!(ask(&format!("Bearer {TOKEN}")).await, 200, "the token is good in any case");
    for wrong in [
        basic("root", "wrong"),
        basic("Root", &password),
        basic("", &password),
        "Basic !".into(),
        "Basic".into(),
        basic("root", ""),
    ] {
        assert_eq!(ask(&wrong).await, 401, "{wrong}");
    }
    // Who did it is written down, and how they proved it is not.
    let request = Request::post(KEYS)
        .header("authorization", &right)
        .header("content-type", "application/json")
        .body(Body::from(named().to_string()))
        .unwrap();
    house.send(request).await.good();
    let entry = house.get("/api/governance/audit?limit=1").await.good()["entries"][0].clone();
    assert_eq!(entry["actor"], "basic:root");
    // Redacted, it stays; another user needs it again.
    let shown = house.get(CONFIG).await.good();
    house.put(CONFIG, shown).await.good();
    assert_eq!(ask(&right).await, 200);
    let reply = house.put(CONFIG, json!({"auth_config": {"admin_username": "other"}})).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("auth_config.admin_password")));
    house.put(CONFIG, json!({"auth_config": {"is_enabled": false}})).await.good();
    assert_eq!(ask(&right).await, 401);
}

#[tokio::test]
async fn with_a_password_this_machine_is_not_enough() {
    let house = House::with(Setup { token: None, ..Setup::default() });
    let send = async |method: Method, path: &str, headers: &[(&str, &str)], body: Value| {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(path), |r, (name, value)| r.header(*name, *value));
        house.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let here = ("host", "127.0.0.1:8081");
    let body =
        json!({"auth_config": {"admin_username": "root", "admin_password": "it is long enough", "is_enabled": true}});
    assert_eq!(send(Method::PUT, CONFIG, &[here, ("content-type", "application/json")], body).await.status, 200);
    assert_eq!(send(Method::GET, KEYS, &[here], json!({})).await.status, 401);
    let credential = format!("Basic {}", BASE64.encode("root:it is long enough"));
    assert_eq!(send(Method::GET, KEYS, &[here, ("authorization", &credential)], json!({})).await.status, 200);
}
