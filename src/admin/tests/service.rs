//! Health, metrics, and the listener itself.

use super::*;

#[tokio::test]
async fn readiness_names_each_check() {
    let house = House::new();
    let ready = house.get("/readyz").await;
    assert_eq!(ready.status, 200);
    let checks = ready.json()["checks"].clone();
    assert_eq!(
        checks.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["config_reload", "ledger", "prices", "snapshot", "store"]
    );
    assert!(checks.as_object().unwrap().values().all(|check| check["ok"] == true));
    house.admin.reload.refused("server.listen: no such address".into());
    let ready = house.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["checks"]["config_reload"]["ok"]), (200, &json!(false)));
    house.admin.reload.good();
    assert_eq!(house.get("/readyz").await.json()["checks"]["config_reload"]["ok"], true);
    house.admin.prices.good("builtin", "ab12", 96);
    house.admin.prices.failed("the URL at x", "status 500".into());
    let ready = house.get("/readyz").await;
    let prices = json!({
        "ok": false, "source": "builtin", "sha256": "ab12", "models": 96, "error": "the URL at x: status 500",
    });
    assert_eq!((ready.status, &ready.json()["checks"]["prices"]), (200, &prices));
    assert_eq!(house.get("/healthz").await.json(), json!({"status": "ok"}));
}

#[test]
fn the_listener_serves_until_it_is_told_to_stop() {
    let house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve(listener, house.router.clone()).unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let (mut text, request) = (String::new(), b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    io::Write::write_all(&mut stream, request).unwrap();
    io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    server.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn the_pages_are_open() {
    let house = House::new();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/page.js", "text/javascript; charset=utf-8"),
        ("/console/page.css", "text/css; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
            let reply = house.send(request).await;
            assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{path}");
            assert_eq!(reply.text.is_empty(), method == Method::HEAD);
            // No page of ours loads anything from elsewhere, or is shown inside another.
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        }
    }
    assert_eq!(house.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await.json(), DOCUMENT.root);
}
