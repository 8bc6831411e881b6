//! Versions of objects, and requests that may be sent again.

use super::*;

const STALE: &str = "This was changed since it was read: its ETag is not the one in If-Match";
const USED: &str = "This Idempotency-Key was used for another request";
const DAY: i64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn an_object_is_changed_only_if_it_is_what_was_read() {
    let house = House::new();
    for kind in &KINDS {
        let (path, made) = kind.make(&house).await;
        let tag = house.get(&path).await.header("etag").unwrap().to_owned();
        assert_eq!(made.header("etag"), Some(&*tag), "{path}");
        let put = async |condition: &str| {
            house.pass(1);
            house.call_with(Method::PUT, &path, &[("if-match", condition)], (kind.update)()).await
        };
        let before = house.get(&path).await.text;
        for stale in ["\"x\"", "x", "", "\"x\", \"y\"", &format!("W/{tag}"), tag.trim_matches('"')] {
            put(stale).await.refused(412, STALE);
            house.call_with(Method::DELETE, &path, &[("if-match", stale)], "").await.refused(412, STALE);
        }
        let request = Request::delete(&path).header("authorization", format!("Bearer {TOKEN}"));
        let request = request.header("if-match", &b"\"\xff\""[..]).body(Body::empty()).unwrap();
        house.send(request).await.refused(412, STALE);
        assert_eq!(house.get(&path).await.text, before);
        let changed = put(&format!("\"x\", {tag}")).await;
        assert_eq!(changed.status, 200);
        let newer = changed.header("etag").unwrap();
        assert_eq!(house.get(&path).await.header("etag"), Some(newer));
        assert_ne!(newer, tag);
        put(&tag).await.refused(412, STALE);
        assert_eq!(put("*").await.status, 200);
        // In two lines, as one would write a list.
        let newest = house.get(&path).await.header("etag").unwrap().to_owned();
        let lines = [("if-match", "\"x\""), ("if-match", &*newest)];
        assert_eq!(house.call_with(Method::PUT, &path, &lines, (kind.update)()).await.status, 200);
        let newest = house.get(&path).await.header("etag").unwrap().to_owned();
        house.call_with(Method::DELETE, &path, &[("if-match", newer)], "").await.refused(412, STALE);
        assert_eq!(house.call_with(Method::DELETE, &path, &[("if-match", &newest)], "").await.status, 200);
        // What is not there is not there, whatever the condition.
        assert_eq!(house.call_with(Method::DELETE, &path, &[("if-match", "*")], "").await.status, 404);
    }
}

#[tokio::test]
async fn a_patch_has_conditions_too() {
    let house = House::new();
    let (path, made) = KINDS[5].make(&house).await;
    let tag = made.header("etag").unwrap();
    house.pass(1);
    let patch = async |tag: &str| house.call_with(Method::PATCH, &path, &[("if-match", tag)], renamed()).await;
    assert_eq!(patch(tag).await.status, 200);
    patch(tag).await.refused(412, STALE);
}

#[tokio::test]
async fn a_provider_that_is_not_there_has_no_version() {
    let house = House::new();
    let put = async |condition: &str| {
        let body = a_provider();
        house.call_with(Method::PUT, "/api/providers/mine", &[("if-match", condition)], body).await
    };
    put("\"x\"").await.refused(412, STALE);
    put("*").await.refused(412, STALE);
    assert_eq!(house.get("/api/providers/mine").await.status, 404);
}

#[tokio::test]
async fn settings_and_limits_of_providers_have_versions() {
    let house = House::new();
    let limits = "/api/governance/providers/local";
    let first = house.put(limits, json!({"budget": {"max_limit": 5, "reset_duration": "1d"}})).await;
    let tag = first.header("etag").unwrap().to_owned();
    let put = async |path: &str, tag: &str, body: Value| {
        house.pass(1);
        house.call_with(Method::PUT, path, &[("if-match", tag)], body).await
    };
    let second = put(limits, &tag, json!({"budget": {"max_limit": 6}})).await;
    assert_eq!(second.good()["budget"]["max_limit"], 6);
    put(limits, &tag, json!({"budget": {"max_limit": 7}})).await.refused(412, STALE);
    house.call_with(Method::DELETE, limits, &[("if-match", &tag)], "").await.refused(412, STALE);
    let tag = second.header("etag").unwrap();
    assert_eq!(house.call_with(Method::DELETE, limits, &[("if-match", tag)], "").await.status, 200);

    let tag = house.get("/api/config").await.header("etag").unwrap().to_owned();
    let body = json!({"client_config": {"required_headers": ["x-a"]}});
    let changed = put("/api/config", &tag, body.clone()).await;
    assert_eq!(house.get("/api/config").await.header("etag"), changed.header("etag"));
    put("/api/config", &tag, body).await.refused(412, STALE);
}

#[tokio::test]
async fn usage_does_not_make_another_version() {
    let house = House::new();
    let team = house
        .post("/api/governance/teams", json!({"name": "t", "budget": {"max_limit": 9, "reset_duration": "1d"}}))
        .await;
    let team = format!("/api/governance/teams/{}", id(&team.one("team")));
    let body = json!({"name": "k", "team_id": team.rsplit('/').next(), "provider_configs": [{"provider": "local"}],
        "budget": {"max_limit": 9, "reset_duration": "1d"}});
    let key = house.create(body).await.key();
    let paths = [team, format!("{KEYS}/{}", id(&key))];
    let tags = async || {
        let [a, b] = [house.get(&paths[0]).await, house.get(&paths[1]).await];
        [a, b].map(|reply| reply.header("etag").unwrap().to_owned())
    };
    let before = tags().await;
    house.spend(text(&key["value"]), DOLLAR);
    assert_eq!(tags().await, before);
    assert_eq!(house.get(&paths[0]).await.one("team")["budget"]["current_usage"], 1);
}

#[tokio::test]
async fn the_same_create_sent_again_makes_nothing() {
    let house = House::new();
    for (i, kind) in KINDS.iter().enumerate() {
        let key = format!("create {i}");
        let send = async |path: &str, body: Value| {
            house.call_with(Method::POST, path, &[("idempotency-key", &key)], body).await
        };
        let first = send(kind.path, (kind.create)()).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (kind.made, None));
        let list = house.get(kind.path).await.text;
        house.pass(1_000);
        for _ in 0..2 {
            let again = send(kind.path, (kind.create)()).await;
            assert_eq!((again.status, &again.text), (first.status, &first.text));
            assert_eq!(again.header("idempotency-replayed"), Some("true"));
            assert_eq!(again.header("etag"), first.header("etag"));
            assert_eq!(again.header("content-type"), Some("application/json"));
        }
        // It is for this request only: not for another body, not for another path.
        let mut changed = (kind.create)();
        changed["description"] = "another".into();
        send(kind.path, changed).await.refused(409, USED);
        let other = &KINDS[(i + 1) % KINDS.len()];
        send(other.path, (other.create)()).await.refused(409, USED);
        assert_eq!(house.get(kind.path).await.text, list);
    }
    let audit = house.get("/api/governance/audit").await.good();
    assert_eq!(audit["total_count"], KINDS.len());
}

#[tokio::test]
async fn a_create_that_failed_is_not_remembered() {
    let house = House::new();
    for (i, kind) in KINDS.iter().enumerate() {
        let key = format!("create {i}");
        let send =
            async |body: String| house.call_with(Method::POST, kind.path, &[("idempotency-key", &key)], body).await;
        assert_eq!(send("{".to_owned()).await.status, 400);
        assert_eq!(send("{}".to_owned()).await.status, 400);
        let made = send((kind.create)().to_string()).await;
        assert_eq!((made.status, made.header("idempotency-replayed")), (kind.made, None), "{}", made.text);
    }
    // Nor is one that clashed.
    let send = async || house.call_with(Method::POST, KEYS, &[("idempotency-key", "clash")], named()).await;
    assert_eq!(send().await.status, 409);
    let taken = house.get(KEYS).await.json()["virtual_keys"][0].clone();
    house.delete(&format!("{KEYS}/{}", id(&taken))).await.good();
    assert_eq!(send().await.status, 200);
}

#[tokio::test]
async fn idempotency_keys_are_short_printable_texts() {
    let house = House::new();
    let send = async |key: &[u8]| {
        let request = Request::post("/api/governance/teams").header("authorization", format!("Bearer {TOKEN}"));
        house.send(request.header("idempotency-key", key).body(Body::from(named().to_string())).unwrap()).await
    };
    for bad in [&b""[..], &[b'a'; 256], b"caf\xc3\xa9", b"a\tb"] {
        send(bad).await.refused(400, "Idempotency-Key must be 1 to 255 printable ASCII characters");
    }
    for good in [&b"a"[..], &[b'a'; 255], b"a key, with blanks"] {
        assert_eq!(send(good).await.status, 200);
    }
    assert_eq!(house.get("/api/governance/teams").await.json()["count"], 3);
}

#[tokio::test]
async fn an_idempotency_key_is_free_again_after_a_day() {
    let house = House::new();
    let send = async || {
        let headers = [("idempotency-key", "daily")];
        house.call_with(Method::POST, "/api/governance/teams", &headers, named()).await.one("team")
    };
    let first = send().await;
    house.pass(DAY - 1);
    assert_eq!(send().await, first);
    house.pass(2);
    assert_ne!(send().await["id"], first["id"]);
}
