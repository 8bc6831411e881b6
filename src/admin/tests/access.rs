//! Who may use the API, and which paths there are.

use super::*;

#[tokio::test]
async fn everything_else_wants_the_token() {
    let house = House::new();
    let ask = async |method: Method, path: &str, token: Option<&str>| {
        let request = Request::builder().method(method).uri(path);
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        house.send(request.body(Body::empty()).unwrap()).await
    };
    for path in [KEYS, "/metrics", "/api/governance/virtual-keys/x", "/nothing"] {
        // Guesses that are too many wait.
        house.pass(61_000);
        for token in [None, Some("Bearer wrong"), Some(TOKEN), Some("Bearer "), Some("Basic x")] {
            let reply = ask(Method::GET, path, token).await;
            assert_eq!((reply.status, reply.json()["status_code"].clone()), (401, json!(401)), "{path} {token:?}");
            assert_eq!(reply.headers["www-authenticate"], "Bearer, Basic realm=\"tollgate\"");
        }
    }
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(ask(Method::GET, path, None).await.status, 200, "{path}");
    }
    assert_eq!(ask(Method::DELETE, KEYS, Some(&format!("bearer  {TOKEN}"))).await.status, 405);
}

#[tokio::test]
async fn without_a_token_only_this_machine_is_served() {
    let house = House::with(Setup { token: None, ..Setup::default() });
    let check = async |headers: &[(&str, &str)], status: u16| {
        let request = headers.iter().fold(Request::get(KEYS), |request, (name, value)| request.header(*name, *value));
        assert_eq!(house.send(request.body(Body::empty()).unwrap()).await.status, status, "{headers:?}");
    };
    check(&[("host", "127.0.0.1:8081")], 200).await;
    check(&[("host", "localhost"), ("origin", "http://localhost:8081")], 200).await;
    check(&[("host", "rebound.example")], 403).await;
    check(&[("host", "127.0.0.1"), ("origin", "https://evil.example")], 403).await;
    check(&[("host", "127.0.0.1"), ("origin", "null")], 403).await;
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_slashes() {
    let house = House::new();
    let missing = house.get("/api/nothing").await;
    assert_eq!((missing.status, missing.json()["status_code"].clone()), (404, json!(404)));
    let wrong = house.call(Method::PATCH, KEYS, "").await;
    assert_eq!((wrong.status, wrong.json()["status_code"].clone()), (405, json!(405)));
    assert!(wrong.headers.contains_key("allow"));
    let slash = house.get(&format!("{KEYS}/?limit=1")).await;
    assert_eq!((slash.status, slash.headers["location"].to_str().unwrap()), (308, &*format!("{KEYS}?limit=1")));
    let key = house.create(json!({"name": "a"})).await.key();
    let encoded: String = text(&key["id"]).bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(house.get(&format!("{KEYS}/{encoded}")).await.key()["id"], key["id"]);
}

#[tokio::test]
async fn pages_of_listed_origins_may_call() {
    let setup = Setup { allowed_origins: vec!["https://console.example".into()], ..Setup::default() };
    let house = House::with(setup);
    let send = async |method: Method, path: &str, headers: &[(&str, &str)]| {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        house.send(request.body(Body::empty()).unwrap()).await
    };
    let bearer = format!("Bearer {TOKEN}");
    let asks = [
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization, if-match, x-else"),
    ];
    for (origin, listed) in [("https://console.example", true), ("https://evil.example", false), ("null", false)] {
        // A browser that asks first brings no credential.
        let preflight = send(Method::OPTIONS, KEYS, &[("origin", origin), asks[0], asks[1]]).await;
        assert_eq!(preflight.status, if listed { 204 } else { 401 }, "{origin}");
        if listed {
            assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization, if-match"));
            assert!(preflight.header("access-control-allow-methods").unwrap().contains("PATCH"));
        }
        for (headers, status) in
            [(&[("origin", origin), ("authorization", &*bearer)][..], 200), (&[("origin", origin)], 401)]
        {
            let reply = send(Method::GET, KEYS, headers).await;
            assert_eq!(reply.status, status);
            assert_eq!(reply.header("access-control-allow-origin"), listed.then_some(origin));
            assert_eq!(reply.header("access-control-allow-credentials"), None);
            if listed {
                let exposed = reply.header("access-control-expose-headers").unwrap();
                assert!(exposed.contains("etag") && exposed.contains("idempotency-replayed"), "{exposed}");
                assert_eq!(reply.header("vary"), Some("origin"));
            }
        }
    }
    // Closed by default.
    let house = House::new();
    let request = Request::options(KEYS).header("origin", "https://console.example").header(asks[0].0, asks[0].1);
    let reply = house.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, None));
}

#[tokio::test]
async fn a_path_written_otherwise_is_not_more_open() {
    let house = House::new();
    for path in [
        "/api/governance/virtual-keys/%71uota",
        "//api/governance/virtual-keys",
        "/API/governance/virtual-keys",
        "/console/../api/keys",
        "/%2e%2e/api/keys",
        "/healthz/x",
        "/metrics%2f",
    ] {
        let reply = house.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert!([401, 404].contains(&reply.status), "{path}: {}", reply.status);
    }
}
