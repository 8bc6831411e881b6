//! Providers, their keys and their models over REST.

use super::*;
use crate::governance::catalog::Catalog;
use crate::governance::pricing::Price;

const PROVIDERS: &str = "/api/providers";

fn with(body: Value, more: Value) -> Value {
    let mut body = body;
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_provider_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let whole = json!({"provider": "mine",
        "network_config": {"base_url": "http://127.0.0.1:1/v1/", "extra_headers": {"X-Title": "in clear", "X-Org-Token": format!("t{SECRET}0009")},
            "default_request_timeout_in_seconds": 7, "max_retries": 2, "retry_backoff_initial": 200, "retry_backoff_max": 900},
        "concurrency_and_buffer_size": {"concurrency": 3, "buffer_size": 4},
        "send_back_raw_request": true, "send_back_raw_response": true, "store_raw_request_response": true,
        "custom_provider_config": {"base_provider_type": "openai", "allowed_requests": {"chat_completion": true, "embedding": false}}});
    let made = house.post(PROVIDERS, whole.clone()).await.good();
    assert_eq!(
        (&made["name"], &made["provider_status"], &made["key_count"]),
        (&json!("mine"), &json!("active"), &json!(0))
    );
    assert_eq!(made["concurrency_and_buffer_size"], whole["concurrency_and_buffer_size"]);
    assert_eq!(made["proxy_config"], Value::Null);
    for flag in ["send_back_raw_request", "send_back_raw_response", "store_raw_request_response"] {
        assert_eq!(made[flag], true);
    }
    let network = &made["network_config"];
    assert_eq!((&network["base_url"], &network["max_retries"]), (&json!("http://127.0.0.1:1/v1"), &json!(2)));
    assert_eq!(network["stream_idle_timeout_in_seconds"], 60);
    // What looks like a credential is redacted, and sent back it stays what it was.
    assert_eq!(network["extra_headers"]["x-title"], "in clear");
    assert_eq!(network["extra_headers"]["x-org-token"], format!("t-se{}0009", "*".repeat(24)));
    let custom = &made["custom_provider_config"];
    assert_eq!(
        (&custom["allowed_requests"]["chat_completion"], &custom["allowed_requests"]["embedding"]),
        (&json!(true), &json!(false))
    );
    assert!(made.get("keys").is_none());
    let path = format!("{PROVIDERS}/mine");
    assert_eq!(house.get(&path).await.good(), made);
    let list = house.get(PROVIDERS).await.good();
    let names: Vec<&str> =
        list["providers"].as_array().unwrap().iter().map(|provider| text(&provider["name"])).collect();
    assert_eq!((names, &list["total"]), (vec!["local", "mine", "other"], &json!(3)));
    assert_eq!(house.put(&path, made.clone()).await.good(), made);
    let header = |house: &House| {
        let snapshot = house.admin.state.snapshot();
        let provider = snapshot.view.provider("mine").unwrap();
        provider
            .network
            .extra_headers
            .iter()
            .map(|(_, value)| value.expose().to_owned())
            .find(|value| value.contains(SECRET))
    };
    assert_eq!(header(&house), Some(format!("t{SECRET}0009")));
    // The whole of it: what is absent has its default, but for how much may be in flight, and what it is.
    let changed = house.put(&path, json!({"network_config": {"base_url": "http://127.0.0.1:2"}})).await.good();
    assert_eq!(
        (&changed["network_config"]["extra_headers"], &changed["send_back_raw_request"]),
        (&json!({}), &json!(false))
    );
    assert_eq!(changed["concurrency_and_buffer_size"], whole["concurrency_and_buffer_size"]);
    assert_eq!(changed["custom_provider_config"]["base_provider_type"], "openai");
    assert_eq!(house.delete(&path).await.good(), changed, "as it was");
    house.get(&path).await.refused(404, "Provider not found: mine");
    // Absent on create: the defaults.
    let made = house.post(PROVIDERS, a_provider()).await.good();
    assert_eq!(made["concurrency_and_buffer_size"], json!({"concurrency": 1000, "buffer_size": 5000}));
}

#[tokio::test]
async fn built_in_providers_need_a_name_only() {
    let house = House::new();
    let made = house.post(PROVIDERS, json!({"provider": "openai"})).await.good();
    assert_eq!(
        (&made["network_config"]["base_url"], made.get("custom_provider_config")),
        (&json!("https://api.openai.com"), None)
    );
    for name in crate::governance::entity::BUILT_IN_PROVIDERS.iter().filter(|name| **name != "openai") {
        let own = ["ollama", "sgl", "vllm"].contains(name);
        let network = if own { json!({"base_url": "http://127.0.0.1:1"}) } else { json!({}) };
        let reply = house.post(PROVIDERS, json!({"provider": name, "network_config": network})).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
        // What this version does not speak says so.
        let shown = reply.json();
        assert_eq!(shown["provider_status"] == "error", shown.get("description").is_some(), "{name}");
    }
    assert_eq!(house.get(PROVIDERS).await.good()["total"], 2 + 23);
}

#[tokio::test]
async fn what_is_wrong_with_a_provider_is_said_in_the_contracts_words() {
    let house = House::new();
    let custom = |section: Value| with(a_provider(), json!({ "custom_provider_config": section }));
    let bounds = |section: Value| with(a_provider(), json!({ "concurrency_and_buffer_size": section }));
    let waits = |initial: i64, max: i64| {
        let network =
            json!({"base_url": "http://127.0.0.1:1", "retry_backoff_initial": initial, "retry_backoff_max": max});
        with(a_provider(), json!({ "network_config": network }))
    };
    let millis = "must be 0 (the default) or 100 to 1000000 milliseconds";
    let initial = format!("network_config.retry_backoff_initial: {millis}");
    let max = format!("network_config.retry_backoff_max: {millis}");
    house
        .refuses(
            Method::POST,
            PROVIDERS,
            &[
                (json!({}), 400, "Missing provider"),
                (json!({"provider": null}), 400, "Missing provider"),
                (json!({"provider": " "}), 400, "Missing provider"),
                (json!({"provider": "local"}), 409, "Provider 'local' already exists"),
                (with(a_provider(), json!({"provider": "openai"})), 400, "Custom provider cannot be same as a standard provider"),
                (custom(json!({})), 400, "BaseProviderType is required when CustomProviderConfig is provided"),
                (custom(json!({"base_provider_type": ""})), 400, "BaseProviderType is required when CustomProviderConfig is provided"),
                (custom(json!({"base_provider_type": "mistral"})), 400, "BaseProviderType must be a standard provider"),
                (custom(json!({"base_provider_type": "mine"})), 400, "BaseProviderType must be a standard provider"),
                (
                    custom(json!({"base_provider_type": "bedrock", "is_key_less": true})),
                    400,
                    "custom_provider_config.is_key_less: a key-less provider cannot be like 'bedrock', whose requests are signed",
                ),
                (bounds(json!({"concurrency": 0})), 400, "Concurrency must be greater than 0"),
                (bounds(json!({"concurrency": -1})), 400, "Concurrency must be greater than 0"),
                (bounds(json!({"buffer_size": 0, "concurrency": 1})), 400, "Buffer size must be greater than 0"),
                (bounds(json!({"concurrency": 6, "buffer_size": 5})), 400, "Concurrency must be less than or equal to buffer size"),
                (waits(99, 900), 400, &initial),
                (waits(-1, 900), 400, &initial),
                (waits(500, 1_000_001), 400, &max),
                (waits(900, 800), 400, "network_config.retry_backoff_initial: is larger than retry_backoff_max"),
                (
                    with(a_provider(), json!({"proxy_config": {"type": "carrier-pigeon"}})),
                    400,
                    "proxy_config.type: must be one of: none, http, socks5, environment",
                ),
            ],
        )
        .await;
    for name in ["unheard-of", "with blanks", "a/b", "Openai", ""] {
        let reply = house
            .post(PROVIDERS, json!({"provider": name, "network_config": {"base_url": "http://127.0.0.1:1"}}))
            .await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!("provider")),
            "{name}: {}",
            reply.text
        );
    }
    for url in ["", "ftp://x", "http://", "http://user:pw@x", "http://x?y=1", "nonsense"] {
        let reply = house.post(PROVIDERS, with(a_provider(), json!({"network_config": {"base_url": url}}))).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("network_config.base_url")), "{url}");
        assert!(!reply.text.contains("pw@"));
    }
    for header in ["Authorization", "x-api-key", "host", "Cookie", "a b"] {
        let network = json!({"base_url": "http://127.0.0.1:1", "extra_headers": {header: "x"}});
        assert_eq!(
            house.post(PROVIDERS, with(a_provider(), json!({ "network_config": network }))).await.status,
            400,
            "{header}"
        );
    }
    // What it is like cannot change, and it stays a custom one.
    house
        .put(
            &format!("{PROVIDERS}/local"),
            json!({"network_config": {"base_url": "http://127.0.0.1:1"},
        "custom_provider_config": {"base_provider_type": "anthropic"}}),
        )
        .await
        .refused(400, "BaseProviderType cannot be changed");
}

#[tokio::test]
async fn a_provider_is_created_by_put() {
    let house = House::new();
    let mut body = a_provider();
    body.as_object_mut().unwrap().remove("provider");
    let made = house.put(&format!("{PROVIDERS}/mine"), body).await.good();
    assert_eq!((&made["name"], &made["key_count"]), (&json!("mine"), &json!(0)));
    let created = house.get("/api/governance/audit?object_id=mine").await.good()["entries"][0].clone();
    assert_eq!((&created["action"], &created["before"]), (&json!("created"), &Value::Null));
    let reply = house
        .put(&format!("{PROVIDERS}/unheard-of"), json!({"network_config": {"base_url": "http://127.0.0.1:1"}}))
        .await;
    assert_eq!(reply.status, 400);
    assert_eq!(house.put(&format!("{PROVIDERS}/openai"), json!({})).await.status, 200);
}

#[tokio::test]
async fn keys_come_with_a_new_provider() {
    let house = House::new();
    let keys = json!([
        {"name": "first", "value": format!("sk-first{SECRET}0001"), "weight": 0.5, "models": ["m"]},
        {"id": "second", "name": "2nd", "value": format!("sk-second{SECRET}0002")},
    ]);
    let made = house.post(PROVIDERS, with(a_provider(), json!({ "keys": keys }))).await.good();
    assert_eq!((&made["key_count"], made.get("keys")), (&json!(2), None));
    let listed = house.get(&format!("{PROVIDERS}/mine/keys")).await.good();
    assert_eq!(
        (&listed["total"], &listed["keys"][0]["weight"], &listed["keys"][1]["id"]),
        (&json!(2), &json!(0.5), &json!("second"))
    );
    assert_eq!(listed["keys"][0]["value"]["value"], format!("sk-f{}0001", "*".repeat(24)));
    // One transaction: nothing of it, or all.
    let body = |keys: Value| with(a_provider(), json!({"provider": "another", "keys": keys}));
    for (keys, status) in [
        (json!([{"name": "fine", "value": "x"}, {"name": "", "value": "x"}]), 400),
        (json!([{"name": "fine", "value": "x"}, {"name": "fine", "value": "y"}]), 409),
        (json!([{"name": "2nd", "value": "x"}]), 409),
        (json!([{"id": "main", "name": "fine", "value": "x"}]), 409),
        (json!([{"name": "fine"}]), 400),
        (json!({}), 400),
    ] {
        let reply = house.post(PROVIDERS, body(keys)).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        assert_eq!(house.get(&format!("{PROVIDERS}/another")).await.status, 404);
    }
    let keyless = json!({"custom_provider_config": {"base_provider_type": "openai", "is_key_less": true}});
    let reply = house.post(PROVIDERS, with(body(json!([{"name": "fine", "value": "x"}])), keyless.clone())).await;
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("keys")));
    house.post(PROVIDERS, with(body(json!([])), keyless)).await.good();
    let reply = house.post(&format!("{PROVIDERS}/another/keys"), a_provider_key()).await;
    reply.refused(400, "a key-less provider takes no keys");
}

#[tokio::test]
async fn a_key_is_created_shown_changed_and_deleted() {
    let house = House::new();
    let keys = format!("{PROVIDERS}/local/keys");
    let made = house.post(&keys, json!({"name": "one", "value": format!("sk-one{SECRET}0002")})).await.good();
    let usual = json!({"id": made["id"], "name": "one", "provider": "local", "models": ["*"], "blacklisted_models": [], "weight": 1,
        "enabled": true, "use_for_batch_api": false, "aliases": {}, "created_at": "2023-11-14T22:13:20Z", "updated_at": "2023-11-14T22:13:20Z",
        "value": {"value": format!("sk-o{}0002", "*".repeat(24)), "env_var": "", "from_env": false}});
    assert_eq!(made, usual);
    let path = format!("{keys}/{}", id(&made));
    assert_eq!(house.get(&path).await.good(), made);
    assert_eq!(house.get(&keys).await.good()["keys"][1], made);
    let all = house.get("/api/keys").await.good();
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|key| text(&key["name"])).collect();
    assert_eq!(names, ["main by name", "one", "spare by name"]);
    assert_eq!(all[1], made);

    let value = |house: &House| {
        let snapshot = house.admin.state.snapshot();
        let provider = snapshot.view.provider("local").unwrap();
        provider.keys[1].value.expose().to_owned()
    };
    let put = async |body: Value| house.put(&path, body).await.good();
    // Written back as it was read, the secret stays; and so under every form of redaction.
    for same in [
        made["value"].clone(),
        made["value"]["value"].clone(),
        json!("<REDACTED>"),
        json!("********"),
        json!({"value": "<REDACTED>"}),
    ] {
        assert_eq!(put(with(made.clone(), json!({ "value": same }))).await, made, "{same}");
        assert_eq!(value(&house), format!("sk-one{SECRET}0002"));
    }
    let whole = json!({"id": "ignored", "name": "two", "value": "short", "models": ["a", "b"], "blacklisted_models": ["b"], "weight": 0,
        "enabled": false, "use_for_batch_api": true, "aliases": {"a": "a-1"}});
    let changed = put(whole.clone()).await;
    assert_eq!((&changed["id"], &changed["value"]["value"]), (&made["id"], &json!("*****")));
    assert_eq!(value(&house), "short");
    for (name, value) in whole.as_object().unwrap().iter().filter(|(name, _)| !["id", "value"].contains(&&***name)) {
        assert_eq!(changed[name], *value);
    }
    // The whole of it: what is absent has its default again; no models at all is something else.
    let changed = put(json!({"name": "two", "value": "*****"})).await;
    assert_eq!((&changed["models"], &changed["weight"], &changed["enabled"]), (&json!(["*"]), &json!(1), &json!(true)));
    assert_eq!(value(&house), "short");
    assert_eq!(put(json!({"name": "two", "value": "x", "models": []})).await["models"], json!([]));
    let gone = house.get(&path).await.good();
    assert_eq!(house.delete(&path).await.good(), gone, "as it was, redacted");
    assert_eq!(house.get(&keys).await.good()["total"], 1);
    // An id of one's own.
    assert_eq!(house.post(&keys, json!({"id": "mine", "name": "one", "value": "x"})).await.good()["id"], "mine");
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_said() {
    let house = House::new();
    let keys = format!("{PROVIDERS}/local/keys");
    let with = |more: Value| with(a_provider_key(), more);
    let taken = "name: API key names must be unique across providers: 'spare by name'";
    for (body, status, param) in [
        (json!({}), 400, "name"),
        (with(json!({"name": " "})), 400, "name"),
        (json!({"name": "a"}), 400, "value"),
        (with(json!({"value": ""})), 400, "value"),
        (with(json!({"value": "********"})), 400, "value"),
        (with(json!({"value": "env.TOLLGATE_NO_SUCH_VARIABLE"})), 400, "value"),
        (with(json!({"value": 7})), 400, "value"),
        (with(json!({"weight": -1})), 400, "weight"),
        (with(json!({"models": ["*", "m"]})), 400, "models"),
        (with(json!({"models": ["m", "m"]})), 400, "models"),
        (with(json!({"blacklisted_models": ["m", "*"]})), 400, "blacklisted_models"),
        (with(json!({"enabled": "yes"})), 400, "enabled"),
        (with(json!({"azure_key_config": {"endpoint": "https://x"}})), 400, "azure_key_config"),
        (with(json!({"name": "spare by name"})), 409, "name"),
        (with(json!({"id": "spare"})), 409, "id"),
    ] {
        let reply = house.post(&keys, body.clone()).await;
        let found = reply.json()["error"]["param"].clone();
        let found = text(&found).split('[').next().unwrap();
        assert_eq!((reply.status, found), (status, param), "{body}: {}", reply.text);
        assert!(!reply.text.contains("env.T") || param == "value");
    }
    house
        .put(&format!("{keys}/main"), with(json!({"name": "spare by name"})))
        .await
        .refused(409, taken.strip_prefix("name: ").unwrap());
    assert_eq!(house.get(&keys).await.good()["total"], 1);
    // Its own name is not taken.
    house.put(&format!("{keys}/main"), with(json!({"name": "main by name"}))).await.good();
    for (provider, config, missing) in [
        ("azure", json!({"azure_key_config": {"endpoint": "https://x.example"}}), "azure_key_config.endpoint"),
        ("vertex", json!({"vertex_key_config": {"project_id": "p", "region": "r"}}), "vertex_key_config"),
        ("ollama", json!({"ollama_key_config": {"url": "http://127.0.0.1:1"}}), "ollama_key_config.url"),
        ("sgl", json!({"sgl_key_config": {"url": "http://127.0.0.1:1"}}), "sgl_key_config.url"),
        ("vllm", json!({"vllm_key_config": {"url": "http://127.0.0.1:1"}}), "vllm_key_config.url"),
        (
            "bedrock",
            json!({"bedrock_key_config": {"access_key": "a", "secret_key": format!("b{SECRET}0003"), "region": "r"}}),
            "",
        ),
    ] {
        house.post(PROVIDERS, json!({ "provider": provider })).await.good();
        let keys = format!("{PROVIDERS}/{provider}/keys");
        // These need no value, but most of them their own object.
        let bare = house.post(&keys, json!({"name": provider})).await;
        if missing.is_empty() {
            bare.good();
        } else {
            let param = bare.json()["error"]["param"].clone();
            assert!(bare.status == 400 && missing.starts_with(text(&param)), "{}", bare.text);
        }
        let mut body = config;
        body["name"] = format!("{provider} 2").into();
        house.post(&keys, body).await.good();
    }
}

#[tokio::test]
async fn a_key_from_the_environment_shows_where_it_is_from() {
    // What every process has.
    let path = std::env::var("PATH").unwrap();
    let house = House::new();
    let keys = format!("{PROVIDERS}/local/keys");
    for (i, value) in
        [json!("env.PATH"), json!({"env_var": "env.PATH", "from_env": true}), json!({"value": "", "env_var": "PATH"})]
            .into_iter()
            .enumerate()
    {
        let made = house.post(&keys, json!({"name": format!("k{i}"), "value": value})).await.good();
        assert_eq!((&made["value"]["env_var"], &made["value"]["from_env"]), (&json!("env.PATH"), &json!(true)));
        assert!(text(&made["value"]["value"]).contains("****") && !made.to_string().contains(&path));
        assert_eq!(house.put(&format!("{keys}/{}", id(&made)), made.clone()).await.good()["value"], made["value"]);
    }
}

#[tokio::test]
async fn a_deleted_key_locks_its_users_out() {
    let house = House::new();
    let config = json!({"provider": "local", "key_ids": ["main"], "allowed_models": ["*"]});
    let key = house.create(json!({"name": "k", "provider_configs": [config]})).await.key();
    house.delete(&format!("{PROVIDERS}/local/keys/main")).await.good();
    let config = house.get(&format!("{KEYS}/{}", id(&key))).await.key()["provider_configs"][0].clone();
    assert_eq!(
        (&config["key_ids"], &config["keys"], &config["allow_all_keys"]),
        (&json!([]), &json!([]), &json!(false))
    );
    // A provider that goes leaves what names it.
    house.delete(&format!("{PROVIDERS}/local")).await.good();
    let config = house.get(&format!("{KEYS}/{}", id(&key))).await.key()["provider_configs"][0].clone();
    assert_eq!((&config["provider"], &config["allowed_models"]), (&json!("local"), &json!(["*"])));
}

#[tokio::test]
async fn models_are_listed_by_what_serves_them() {
    let house = House::new();
    let mut catalog = Catalog::default();
    let price = Price::default().within(Some(8_000), Some(4_000));
    for model in ["gpt-4o", "gpt-4o-2024-08-06", "o1", "o1-mini", "tts", "whisper"] {
        catalog.insert("local", model, None, price.clone());
    }
    let edits = vec![Edit::Catalog(Arc::new(catalog))];
    let commit = |_: &Snapshot, _: &View, _: &[Edit], ()| Ok::<(), ApiError>(());
    house.admin.state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
    let keys = format!("{PROVIDERS}/local/keys");
    house
        .put(&format!("{keys}/main"), json!({"name": "main", "value": "x", "models": ["gpt-4o", "o1", "own"]}))
        .await
        .good();
    house.post(&keys, json!({"id": "off", "name": "off", "value": "x", "enabled": false})).await.good();
    let names = async |query: &str| {
        let reply = house.get(&format!("/api/models?{query}")).await.good();
        let models = reply["models"].as_array().unwrap();
        let names: Vec<String> = models.iter().map(|model| text(&model["name"]).to_owned()).collect();
        (names.join(" "), reply["total"].as_u64().unwrap())
    };
    assert_eq!(names("").await, ("gpt-4o o1 own".into(), 3));
    assert_eq!(names("limit=2").await, ("gpt-4o o1".into(), 3));
    assert_eq!(names("query=GPT4O").await, ("gpt-4o".into(), 1));
    assert_eq!(names("provider=other").await, (String::new(), 0));
    assert_eq!(names("provider=").await.1, 3);
    assert_eq!(names("keys=main,nobody").await.1, 3);
    assert_eq!(names("keys=nobody").await.1, 3);
    assert_eq!(names("keys=off").await.1, 0);
    assert_eq!(names("unfiltered=true").await, ("gpt-4o gpt-4o-2024-08-06 o1 o1-mini own".into(), 7));
    assert_eq!(names("unfiltered=true&limit=0").await.0.split(' ').count(), 5);
    assert_eq!(names("unfiltered=true&limit=9").await.0.split(' ').count(), 7);
    let first = house.get("/api/models?limit=1").await.good()["models"][0].clone();
    assert_eq!(first, json!({"name": "gpt-4o", "provider": "local", "accessible_by_keys": ["main"]}));
    let details = house.get("/api/models/details?query=gpt").await.good();
    let known = json!({"name": "gpt-4o", "provider": "local", "accessible_by_keys": ["main"],
        "context_length": 8_000, "max_input_tokens": 8_000, "max_output_tokens": 4_000});
    assert_eq!(details, json!({"models": [known], "total": 1}));
    assert_eq!(house.get("/api/models/base").await.good(), json!({"models": ["gpt-4o", "o1", "own"], "total": 3}));
    for (query, says) in [("limit=x", "must be a number"), ("limit=-1", "must be non-negative")] {
        house.get(&format!("/api/models?{query}")).await.refused(400, &format!("Invalid limit parameter: {says}"));
    }
}
