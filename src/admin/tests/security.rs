//! What strangers, and administrators who are careless, must not get.

use super::*;
use crate::wire::faults::Faults;

#[test]
fn only_a_wrong_type_is_called_invalid_json() {
    let check = |mistyped: bool, path: &str, message: &str, expected: &str| {
        let mut faults = Faults::default();
        if mistyped {
            faults.mistyped(path, message)
        } else {
            faults.add(path, message)
        }
        let said = format!("{:?}", ApiError::from(faults));
        assert!(said.contains(&format!("message: {expected:?}")), "{said}");
    };
    check(
        true,
        "max_retries",
        "must be a whole number, not a string",
        "Invalid JSON: max_retries: must be a whole number, not a string",
    );
    check(false, "max_retries", "must be between 0 and 10, not 11", "max_retries: must be between 0 and 10, not 11");
    check(true, "", "must be an object, not an array", "Invalid JSON: must be an object, not an array");
    check(false, "budget.x", "must be positive", "budget.x: must be positive");
    check(false, "name", "is taken", "is taken");
}

/// An object with further members.
fn with(mut object: Value, members: Value) -> Value {
    let (object_members, members) = (object.as_object_mut().unwrap(), members.as_object().unwrap().clone());
    object_members.extend(members);
    object
}

const CONFIG: &str = "/api/config";
const AUDIT: &str = "/api/governance/audit";

#[tokio::test]
async fn the_environment_is_not_shown() {
    let house = House::new();
    let by_file = "names an environment variable, which only the config file can use here";
    let own = "environment variable TOLLGATE_ENCRYPTION_KEY is Tollgate's own and is not used here";
    for (path, text, says) in [
        ("auth_config.admin_username", json!("env.PATH"), by_file),
        ("auth_config.admin_username", json!({"env_var": "env.PATH"}), by_file),
        ("auth_config.admin_username", json!({"value": "env.PATH"}), by_file),
        ("auth_config.admin_username", json!("env.TOLLGATE_ENCRYPTION_KEY"), by_file),
        ("auth_config.admin_password", json!("env.TOLLGATE_ENCRYPTION_KEY"), own),
        ("auth_config.admin_password", json!({"env_var": "TOLLGATE_ENCRYPTION_KEY", "from_env": true}), own),
    ] {
        let member = path.rsplit('.').next().unwrap();
        let reply = house.put(CONFIG, json!({"auth_config": {member: text}})).await;
        reply.refused(400, &format!("{path}: {says}"));
    }
    let key = |members: Value| with(json!({"name": "k", "value": "sk"}), members);
    house.post("/api/providers", json!({"provider": "bedrock"})).await.good();
    house.post("/api/providers", json!({"provider": "azure"})).await.good();
    for (provider, path, body, says) in [
        ("local", "value", key(json!({"value": "env.TOLLGATE_ENCRYPTION_KEY"})), own),
        ("bedrock", "bedrock_key_config.region", key(json!({"bedrock_key_config": {"region": "env.PATH"}})), by_file),
        (
            "azure",
            "azure_key_config.endpoint",
            key(json!({"azure_key_config": {"endpoint": {"env_var": "env.PATH"}}})),
            by_file,
        ),
        (
            "bedrock",
            "bedrock_key_config.secret_key",
            key(json!({"bedrock_key_config": {"region": "r", "secret_key": "env.TOLLGATE_ENCRYPTION_KEY"}})),
            own,
        ),
    ] {
        let reply = house.post(&format!("/api/providers/{provider}/keys"), body).await;
        reply.refused(400, &format!("{path}: {says}"));
    }
    // A secret may come from there: it is never shown.
    let body = key(json!({"bedrock_key_config": {"region": "r", "secret_key": "env.PATH"}}));
    let made = house.post("/api/providers/bedrock/keys", body).await.good();
    assert_eq!(made["bedrock_key_config"]["secret_key"]["env_var"], "env.PATH");
}

fn basic(password: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("root:{password}")))
}

async fn set_password(house: &House) -> String {
    let password = format!("opens{SECRET}sesame");
    let section = json!({"admin_username": "root", "admin_password": password, "is_enabled": true});
    house.put(CONFIG, json!({ "auth_config": section })).await.good();
    basic(&password)
}

#[tokio::test]
async fn another_sites_page_changes_nothing_with_a_browsers_password() {
    let setup = Setup { allowed_origins: vec!["https://console.example".into()], ..Setup::default() };
    let house = House::with(setup);
    let credential = set_password(&house).await;
    let bearer = format!("Bearer {TOKEN}");
    let check = async |credential: &str, headers: &[(&str, &str)], status: u16| {
        let request = Request::post(KEYS).header("authorization", credential).header("host", "admin.example:8081");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        house.pass(1);
        let name = house.admin.state.clock.now().to_string();
        let reply = house.send(request.body(Body::from(json!({ "name": name }).to_string())).unwrap()).await;
        assert_eq!(reply.status, status, "{headers:?} {}", reply.text);
    };
    let json = ("content-type", "application/json");
    for (headers, status) in [
        (&[json][..], 200),
        (&[("content-type", "application/vnd.api+json; charset=utf-8")], 200),
        (&[json, ("origin", "http://admin.example:8081")], 200),
        (&[json, ("origin", "https://admin.example:8081"), ("sec-fetch-site", "same-origin")], 200),
        (&[json, ("origin", "https://console.example"), ("sec-fetch-site", "cross-site")], 200),
        (&[json, ("origin", "https://evil.example")], 403),
        (&[json, ("origin", "http://admin.example")], 403),
        (&[json, ("origin", "null")], 403),
        (&[json, ("sec-fetch-site", "cross-site")], 403),
        (&[json, ("sec-fetch-site", "none")], 200),
        (&[("content-type", "text/plain")], 400),
        (&[("content-type", "application/x-www-form-urlencoded")], 400),
        (&[("content-type", "application/jsonp")], 400),
        (&[], 400),
    ] {
        check(&credential, headers, status).await;
    }
    // No browser sends a token by itself.
    for (headers, status) in [
        (&[][..], 200),
        (&[("content-type", "application/x-www-form-urlencoded")], 200),
        (&[("content-type", "text/plain")], 200),
        (&[json, ("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], 200),
    ] {
        check(&bearer, headers, status).await;
    }
    // Reading is no better, and what has no body needs no type.
    let send = async |request: axum::http::request::Builder| {
        let request = request.header("authorization", &credential).header("host", "admin.example");
        house.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(send(Request::get(KEYS).header("origin", "https://evil.example")).await, 403);
    assert_eq!(send(Request::get(KEYS)).await, 200);
    assert_eq!(send(Request::delete(format!("{KEYS}/none"))).await, 404);
}

#[tokio::test]
async fn without_a_token_a_body_says_that_it_is_json() {
    let house = House::with(Setup { token: None, ..Setup::default() });
    let check = async |kind: Option<&str>, status: u16| {
        let request = Request::post(KEYS).header("host", "localhost");
        let request = kind.iter().fold(request, |request, kind| request.header("content-type", *kind));
        let reply = house.send(request.body(Body::from(named().to_string())).unwrap()).await;
        assert_eq!(reply.status, status, "{kind:?} {}", reply.text);
    };
    check(None, 400).await;
    check(Some("text/plain"), 400).await;
    check(Some("application/x-www-form-urlencoded"), 400).await;
    check(Some("application/json"), 200).await;
}

#[tokio::test]
async fn who_guesses_is_counted_and_waits() {
    let house = House::new();
    let credential = set_password(&house).await;
    let ask = async |credential: &str| {
        let request = Request::get(KEYS).header("authorization", credential);
        let began = crate::state::clock::stopwatch();
        let reply = house.send(request.body(Body::empty()).unwrap()).await;
        (reply.status, crate::state::clock::since(began) >= Duration::from_millis(500))
    };
    for i in 0..10 {
        let guess = if i % 2 == 0 { basic("a guess") } else { "Bearer a-guess".to_owned() };
        assert_eq!(ask(&guess).await, (401, false), "{i}");
    }
    assert_eq!(ask("Bearer another").await, (401, true));
    assert_eq!(ask(&credential).await, (200, false), "who knows it does not wait");
    // Who brings nothing guesses nothing.
    let nothing = house.send(Request::get(KEYS).body(Body::empty()).unwrap()).await;
    assert_eq!(nothing.status, 401);
    let metrics = house.get("/metrics").await.text;
    assert!(metrics.contains("\ntollgate_admin_auth_failures_total 11\n"), "{metrics}");
    house.pass(60_001);
    assert_eq!(ask("Bearer later").await, (401, false));
}

#[tokio::test]
async fn a_short_password_is_refused() {
    let house = House::new();
    let set = async |password: &str| {
        let section = json!({"admin_username": "root", "admin_password": password, "is_enabled": true});
        house.put(CONFIG, json!({ "auth_config": section })).await
    };
    set("eleven-char").await.refused(400, "auth_config.admin_password: is shorter than 12 characters");
    set("zwölf-zwölf").await.refused(400, "auth_config.admin_password: is shorter than 12 characters");
    set(&format!("12{SECRET}x")).await.refused(400, "auth_config.admin_password: is shorter than 12 characters");
    set(&format!("123{SECRET}x")).await.good();
}

#[tokio::test]
async fn nobody_keeps_what_the_api_says() {
    let house = House::new();
    for path in [KEYS, "/api/keys", "/api/nothing", QUOTA_PATH] {
        assert_eq!(house.get(path).await.header("cache-control"), Some("no-store"), "{path}");
    }
    let refused = house.send(Request::get(KEYS).body(Body::empty()).unwrap()).await;
    assert_eq!((refused.status, refused.header("cache-control")), (401, Some("no-store")));
}

#[tokio::test]
async fn a_value_that_is_no_more_is_not_given_again() {
    let house = House::new();
    let send = async |name: &str| {
        house.call_with(Method::POST, KEYS, &[("idempotency-key", name)], json!({ "name": name })).await
    };
    let (rotated, deleted, kept) = (send("rotated").await.key(), send("deleted").await.key(), send("kept").await.key());
    house.post(&format!("{KEYS}/{}/rotate", id(&rotated)), json!({})).await.good();
    house.delete(&format!("{KEYS}/{}", id(&deleted))).await.good();
    house.update(&id(&kept), json!({"description": "d"})).await.good();
    // The name is taken: the request is a new one.
    assert_eq!(send("rotated").await.status, 409);
    assert_ne!(send("deleted").await.key()["id"], deleted["id"]);
    let again = send("kept").await;
    assert_eq!((again.header("idempotency-replayed"), &again.key()["value"]), (Some("true"), &kept["value"]));
}

#[tokio::test]
async fn json_of_ones_own_is_bounded_and_compared() {
    let house = House::new();
    let deep = |levels: usize| (0..levels).fold(json!({"a": 1}), |inner, _| json!({ "a": inner }));
    let team = |profile: Value| json!({"name": "t", "profile": profile});
    let teams = "/api/governance/teams";
    house.post(teams, team(deep(32))).await.refused(400, "profile: is nested deeper than 32 levels");
    let provider = |config: Value| with(a_provider(), json!({ "openai_config": config }));
    house
        .post("/api/providers", provider(deep(100)))
        .await
        .refused(400, "openai_config: is nested deeper than 32 levels");
    house
        .post("/api/providers", provider(json!({"a": "x".repeat(70_000)})))
        .await
        .refused(400, "openai_config: is longer than 65536 bytes");
    house.post("/api/providers", json!({"provider": "bedrock"})).await.good();
    let body = json!({"name": "b", "bedrock_key_config": {"region": "r", "batch_s3_config": deep(33)}});
    let says = "bedrock_key_config.batch_s3_config: is nested deeper than 32 levels";
    house.post("/api/providers/bedrock/keys", body).await.refused(400, says);
    let says = "client_config.compat: is nested deeper than 32 levels";
    house.put(CONFIG, json!({"client_config": {"compat": deep(32)}})).await.refused(400, says);

    // Members that answers have elsewhere are one's own here.
    let made = house.post(teams, team(json!({"keys": 1, "team": "a", "value": "x", "provider_configs": []}))).await;
    let path = format!("{teams}/{}", id(&made.one("team")));
    let (tag, was) = (made.header("etag").unwrap(), made.one("team")["profile"].clone());
    let mut profile = was.clone();
    profile["keys"] = json!(2);
    let changed = house.put(&path, json!({ "profile": profile })).await;
    assert_ne!(changed.header("etag").unwrap(), tag);
    let entry = house.get(&format!("{AUDIT}?limit=1")).await.good()["entries"][0].clone();
    assert_eq!((&entry["before"]["profile"], &entry["after"]["profile"]), (&was, &profile));
}

#[tokio::test]
async fn a_change_of_a_providers_key_is_its_own() {
    let house = House::new();
    let keys = "/api/providers/local/keys";
    let made = house.post(keys, a_provider_key()).await.good();
    house.pass(1_000);
    house.put(&format!("{keys}/{}", id(&made)), with(a_provider_key(), json!({"weight": 0.5}))).await.good();
    house.pass(1_000);
    house.delete(&format!("{keys}/{}", id(&made))).await.good();
    let log = house.get(AUDIT).await.good();
    let said: Vec<_> =
        log["entries"].as_array().unwrap().iter().map(|e| [&e["action"], &e["object_type"], &e["object_id"]]).collect();
    let (kind, key) = (json!("provider_key"), &made["id"]);
    assert_eq!(
        said,
        [[&json!("deleted"), &kind, key], [&json!("updated"), &kind, key], [&json!("created"), &kind, key]]
    );
    let updated = &log["entries"][1];
    assert_eq!((&updated["before"]["weight"], &updated["after"]["weight"]), (&made["weight"], &json!(0.5)));
    assert_eq!(updated["object_name"], made["name"]);
    assert!(text(&updated["after"]["value"]["value"]).contains("****"));
    // Those of a whole provider come with it.
    let body = with(a_provider(), json!({"keys": [with(a_provider_key(), json!({"name": "first"}))]}));
    house.post("/api/providers", body).await.good();
    let log = house.get(&format!("{AUDIT}?limit=2")).await.good();
    let said: Vec<_> =
        log["entries"].as_array().unwrap().iter().map(|e| [text(&e["action"]), text(&e["object_type"])]).collect();
    assert_eq!(said, [["created", "provider_key"], ["created", "provider"]]);
}

#[tokio::test]
async fn long_lists_are_refused_before_they_are_compared() {
    let house = House::new();
    let names = |count: usize| -> Value { (0..count).map(|n| format!("x-{n}")).collect() };
    for member in ["required_headers", "allowed_headers"] {
        let says = format!("client_config.{member}: has more than 100 entries");
        house.put(CONFIG, json!({"client_config": {member: names(60_000)}})).await.refused(400, &says);
        house.put(CONFIG, json!({"client_config": {member: names(100)}})).await.good();
    }
    let origins: Value = (0..101).map(|n| format!("https://x{n}.example")).collect();
    let says = "client_config.allowed_origins: has more than 100 entries";
    house.put(CONFIG, json!({"client_config": {"allowed_origins": origins}})).await.refused(400, says);
    let headers: serde_json::Map<String, Value> = (0..101).map(|n| (format!("x-{n}"), "v".into())).collect();
    let network = json!({"base_url": "http://127.0.0.1:1", "extra_headers": headers});
    let body = with(a_provider(), json!({ "network_config": network }));
    house.post("/api/providers", body).await.refused(400, "network_config.extra_headers: has more than 100 entries");
    let tools: Value = (0..1_001).map(|n| json!({ "mcp_client_id": n })).collect();
    house
        .create(json!({"name": "k", "mcp_configs": tools}))
        .await
        .refused(400, "mcp_configs: has more than 1000 entries");
}

/// What was logged while `work` was at it, a line each.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let lines: Arc<Mutex<Vec<u8>>> = Arc::default();
    #[derive(Clone)]
    struct To(Arc<Mutex<Vec<u8>>>);
    impl io::Write for To {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let to = To(Arc::clone(&lines));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

fn customer(name: &str) -> crate::governance::entity::Customer {
    let at = Timestamp::default();
    let limits = crate::governance::entity::Limits::default();
    let (config_hash, created_at, updated_at) = (String::new(), at, at);
    crate::governance::entity::Customer {
        id: name.into(),
        name: name.into(),
        limits,
        config_hash,
        created_at,
        updated_at,
    }
}

#[test]
fn only_what_was_done_is_logged() {
    let house = House::new();
    let terms = change::Terms::read(change::Actor("token".into()), &HeaderMap::new());
    let put = |edits: Vec<Edit>| house.admin.change(&terms, |_| Ok(edits)).map(drop);
    let acme = || Edit::Customer(Arc::new(customer("acme")));
    let lines = logged(|| put(vec![acme()]).unwrap());
    assert!(lines.len() == 1 && lines[0].contains("created") && lines[0].contains("acme"), "{lines:?}");
    // The id of another object's budget: the store takes none of it.
    let limited = |name: &str| {
        let mut customer = customer(name);
        let mut faults = Faults::default();
        let body = json!({"name": name, "budget": {"id": "one", "max_limit": 1, "reset_duration": "1d"}});
        let mut change = crate::wire::change::Change {
            known: &View::default(),
            new_id: &mut || "one".to_owned(),
            now: Timestamp::default(),
            checker: &mut crate::governance::cel::Checker::default(),
            own_ids: true,
        };
        let read = crate::wire::owner::customer(&body, None, &mut change, &mut faults).unwrap();
        customer.limits = read.limits;
        Edit::Customer(Arc::new(customer))
    };
    put(vec![limited("first")]).unwrap();
    let lines = logged(|| assert!(put(vec![limited("second")]).is_err()));
    assert_eq!(lines, Vec::<String>::new());
}

#[test]
fn an_update_is_answered_with_what_it_made() {
    use crate::admin::owners::Customers;
    use crate::admin::resource::Resource;
    let house = House::new();
    let terms = change::Terms::read(change::Actor("token".into()), &HeaderMap::new());
    let change = |edit: Edit| house.admin.change(&terms, |_| Ok(vec![edit])).unwrap();
    let made = change(Edit::Customer(Arc::new(customer("acme"))));
    change(Edit::RemoveCustomer("acme".into()));
    let shown = Customers::show(&made.lens(&house.admin, HashMap::new()), "acme").unwrap();
    assert_eq!(shown["name"], "acme");
}

#[test]
fn which_request_it_was_tells_nothing_of_it() {
    let hasher = |byte: u8| crate::state::digest::KeyHasher::new(&[byte; 32]);
    let terms = |byte: u8, body: &str| {
        let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), "k".parse().unwrap())]);
        let actor = change::Actor("token".into());
        let terms =
            change::Terms::of_create(actor, &headers, &Method::POST, "/p", body.as_bytes(), &hasher(byte)).unwrap();
        format!("{terms:?}")
    };
    assert_eq!(terms(1, "body"), terms(1, "body"));
    assert_ne!(terms(1, "body"), terms(1, "bodx"));
    assert_ne!(terms(1, "body"), terms(2, "body"));
}
