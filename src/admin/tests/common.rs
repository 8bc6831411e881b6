//! What holds for all kinds of objects alike.

use super::*;

/// Those whose lists come in pages, with the member that holds the list and the one that is searched.
const PAGED: [(usize, &str, &str); 5] = [
    (0, "virtual_keys", "name"),
    (1, "teams", "name"),
    (2, "customers", "name"),
    (3, "model_configs", "model_name"),
    (4, "rules", "name"),
];

#[tokio::test]
async fn one_is_made_read_changed_and_deleted() {
    let house = House::new();
    for kind in &KINDS {
        let (path, made) = kind.make(&house).await;
        assert_eq!(kind.object(&house.get(&path).await), kind.object(&made), "{path}");
        house.pass(1_000);
        let changed = house.put(&path, (kind.update)()).await;
        assert_eq!((changed.status, changed.header("content-type")), (200, Some("application/json")), "{path}");
        let read = kind.object(&house.get(&path).await);
        assert_eq!(kind.object(&changed), read, "{path}");
        assert_ne!(kind.object(&made), read, "{path}");
        assert_eq!(read["created_at"], kind.object(&made)["created_at"]);
        assert_ne!(read["updated_at"], read["created_at"]);
        if kind.one.is_some() {
            let title = kind.missing.strip_suffix(" not found").unwrap();
            assert_eq!(made.json()["message"], format!("{title} created successfully"));
            assert_eq!(changed.json()["message"], format!("{title} updated successfully"));
            let gone = house.delete(&path).await.good();
            assert_eq!(gone, json!({"message": format!("{title} deleted successfully")}));
        } else {
            assert_eq!(house.delete(&path).await.good(), read, "{path}: as it was");
        }
        assert_eq!(house.get(&path).await.status, 404);
    }
}

#[tokio::test]
async fn whether_it_exists_comes_before_what_is_wrong_with_the_body() {
    let house = House::new();
    for kind in &KINDS {
        let path = format!("{}/none", kind.path);
        house.get(&path).await.refused(404, kind.missing);
        house.delete(&path).await.refused(404, kind.missing);
        // A provider that is missing is made.
        if kind.path != "/api/providers" {
            house.call(Method::PUT, &path, "{").await.refused(404, kind.missing);
            house.put(&path, json!({"name": 7})).await.refused(404, kind.missing);
        }
    }
    house
        .call(Method::PATCH, "/api/governance/pricing-overrides/none", "{")
        .await
        .refused(404, "Pricing override not found");
    for (method, path, says) in [
        (Method::POST, "/api/governance/virtual-keys/none/rotate", "Virtual key not found"),
        (Method::POST, "/api/governance/budgets/none/reset", "Budget not found"),
        (Method::PUT, "/api/governance/providers/none", "Provider not found"),
        (Method::DELETE, "/api/governance/providers/none", "Provider not found"),
        (Method::GET, "/api/providers/none/keys", "Provider not found: none"),
        (Method::POST, "/api/providers/none/keys", "Provider not found: none"),
        (Method::GET, "/api/providers/none/keys/main", "Provider not found: none"),
        (Method::PUT, "/api/providers/none/keys/main", "Provider not found: none"),
        (Method::DELETE, "/api/providers/none/keys/main", "Provider not found: none"),
        // A key is another provider's as little as nobody's.
        (Method::GET, "/api/providers/local/keys/spare", "Key not found: spare"),
        (Method::DELETE, "/api/providers/local/keys/spare", "Key not found: spare"),
    ] {
        house.call(method, path, "{").await.refused(404, says);
    }
}

#[tokio::test]
async fn bodies_are_json_objects_of_at_most_a_mebibyte() {
    let house = House::new();
    let mut paths: Vec<(Method, String)> = vec![
        (Method::POST, "/api/governance/explain".into()),
        (Method::PUT, "/api/config".into()),
        (Method::PUT, "/api/governance/providers/local".into()),
    ];
    for kind in &KINDS {
        let (path, _) = kind.make(&house).await;
        paths.extend([(Method::POST, kind.path.to_owned()), (Method::PUT, path)]);
    }
    for (method, path) in paths {
        for body in ["", "{", "{\"name\": \"a\"} b", "nonsense"] {
            let reply = house.call(method.clone(), &path, body).await;
            assert_eq!(reply.status, 400, "{method} {path}: {}", reply.text);
            assert!(reply.message().starts_with("Invalid JSON: "), "{method} {path}: {}", reply.text);
        }
        for (body, is) in
            [(json!([1]), "an array"), (json!(null), "null"), (json!("x"), "a string"), (json!(1), "a number")]
        {
            let says = format!("Invalid JSON: must be an object, not {is}");
            house.call(method.clone(), &path, body).await.refused(400, &says);
        }
        let reply = house.call(method.clone(), &path, " ".repeat(BODY_BYTES_MAX + 1)).await;
        reply.refused(413, "The body is longer than 1 MiB");
        assert_eq!(reply.json()["error"]["type"], "payload_too_large");
    }
}

#[tokio::test]
async fn a_body_needs_no_content_type() {
    // Clients of the reference send none, or another; what is inside counts.
    let house = House::new();
    for kind in
        ["application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"]
    {
        let body = json!({ "name": kind });
        let reply = house.call_with(Method::POST, "/api/governance/teams", &[("content-type", kind)], body).await;
        assert_eq!(reply.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn members_of_the_wrong_type_are_named() {
    let house = House::new();
    for (method, path, body, says) in [
        (Method::POST, KEYS, json!({"name": 7}), "name: must be a string, not a number"),
        (
            Method::POST,
            KEYS,
            json!({"name": "a", "is_active": "yes"}),
            "is_active: must be true or false, not a string",
        ),
        (
            Method::POST,
            KEYS,
            json!({"name": "a", "provider_configs": {}}),
            "provider_configs: must be an array, not an object",
        ),
        (
            Method::POST,
            KEYS,
            json!({"name": "a", "provider_configs": [7]}),
            "provider_configs[0]: must be an object, not a number",
        ),
        (Method::POST, KEYS, json!({"name": "a", "rate_limit": 7}), "rate_limit: must be an object, not a number"),
        (
            Method::POST,
            KEYS,
            json!({"name": "a", "rate_limit": {"token_max_limit": 1.5, "token_reset_duration": "1h"}}),
            "rate_limit.token_max_limit: must be a whole number of at most 64 bits, not 1.5",
        ),
        (
            Method::POST,
            "/api/governance/teams",
            json!({"name": "a", "budget": []}),
            "budget: must be an object, not an array",
        ),
        (Method::POST, "/api/governance/customers", json!({"name": true}), "name: must be a string, not a boolean"),
        (
            Method::POST,
            "/api/governance/routing-rules",
            json!({"name": "a", "targets": "x"}),
            "targets: must be an array, not a string",
        ),
        (Method::POST, "/api/providers", json!({"provider": 7}), "provider: must be a string, not a number"),
        (Method::POST, "/api/governance/explain", json!({"model": 7}), "model: must be a string, not a number"),
        (Method::PUT, "/api/config", json!({"client_config": 7}), "client_config: must be an object, not a number"),
    ] {
        let reply = house.call(method, path, &body).await;
        assert_eq!((reply.status, reply.message()), (400, format!("Invalid JSON: {says}")), "{body}");
        let param = reply.json()["error"]["param"].clone();
        assert_eq!(text(&param), says.split(':').next().unwrap());
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let house = House::new();
    for (which, many, searched) in PAGED {
        let kind = &KINDS[which];
        for (i, name) in ["Zed", "100%_a", "beta", "BETAMAX"].into_iter().enumerate() {
            let mut body = (kind.create)();
            body[searched] = name.into();
            if many == "rules" {
                // Lists of rules are in the order of priorities.
                body["priority"] = i.into();
            }
            house.pass(1);
            assert_eq!(house.post(kind.path, body).await.status, 200);
        }
        let check = async |query: &str, names: &[&str], [total, limit, offset]: [usize; 3]| {
            let reply = house.get(&format!("{}{query}", kind.path)).await.good();
            let list = reply[many].as_array().unwrap();
            let found: Vec<&str> = list.iter().map(|object| text(&object[searched])).collect();
            assert_eq!(found, names, "{many}{query}");
            let envelope = json!({"count": names.len(), "total_count": total, "limit": limit, "offset": offset});
            for (name, value) in envelope.as_object().unwrap() {
                assert_eq!(reply[name], *value, "{name} of {many}{query}");
            }
        };
        let all = ["Zed", "100%_a", "beta", "BETAMAX"];
        check("", &all, [4, 4, 0]).await;
        check("?limit=2", &all[..2], [4, 2, 0]).await;
        check("?limit=2&offset=1", &all[1..3], [4, 2, 1]).await;
        check("?offset=3", &all[3..], [4, 25, 3]).await;
        check("?offset=0", &all, [4, 25, 0]).await;
        check("?limit=0", &all, [4, 25, 0]).await;
        check("?limit=101", &all, [4, 100, 0]).await;
        check("?limit=9223372036854775807&offset=4", &[], [4, 100, 4]).await;
        check("?search=BETA", &all[2..], [2, 25, 0]).await;
        check("?search=beta&limit=1&offset=1", &all[3..], [2, 1, 1]).await;
        check("?search=%25", &all[1..2], [1, 25, 0]).await;
        check("?search=_", &all[1..2], [1, 25, 0]).await;
        check("?search=none", &[], [0, 25, 0]).await;
        check("?search=", &all, [4, 25, 0]).await;
        for (query, says) in [
            ("limit=x", "Invalid limit parameter: must be a number"),
            ("limit=", "Invalid limit parameter: must be a number"),
            ("limit=1.5", "Invalid limit parameter: must be a number"),
            ("limit=-1", "Invalid limit parameter: must be non-negative"),
            ("offset=x", "Invalid offset parameter: must be a number"),
            ("offset=-1", "Invalid offset parameter: must be non-negative"),
        ] {
            house.get(&format!("{}?{query}", kind.path)).await.refused(400, says);
        }
    }
}

#[tokio::test]
async fn switches_are_true_or_false() {
    let house = House::new();
    let lists = ["virtual-keys", "teams", "customers", "budgets", "rate-limits", "routing-rules"];
    let mut switches: Vec<(String, &str)> =
        lists.iter().map(|list| (format!("/api/governance/{list}"), "from_memory")).collect();
    for which in [0, 1, 2] {
        switches.push((KINDS[which].make(&house).await.0, "from_memory"));
    }
    switches.push((KEYS.to_owned(), "export"));
    for path in ["/api/models", "/api/models/details"] {
        switches.push((path.to_owned(), "unfiltered"));
    }
    for (path, name) in switches {
        for good in ["true", "false"] {
            assert_eq!(house.get(&format!("{path}?{name}={good}")).await.status, 200, "{path}?{name}={good}");
        }
        for bad in ["1", "yes", "True", ""] {
            let says = format!("Invalid {name} parameter: must be true or false");
            house.get(&format!("{path}?{name}={bad}")).await.refused(400, &says);
        }
    }
}

#[tokio::test]
async fn from_memory_lists_are_whole_arrays() {
    let house = House::new();
    for (which, many) in [(0, "virtual_keys"), (1, "teams"), (2, "customers")] {
        let kind = &KINDS[which];
        let path = format!("{}?from_memory=true", kind.path);
        assert_eq!(house.get(&path).await.good(), json!({many: [], "count": 0}));
        let (one, made) = kind.make(&house).await;
        let object = kind.object(&made);
        assert_eq!(house.get(&path).await.good(), json!({many: [object], "count": 1}));
        assert_eq!(house.get(&format!("{one}?from_memory=true")).await.good(), house.get(&one).await.good());
    }
    for (path, many) in [("budgets", "budgets"), ("rate-limits", "rate_limits")] {
        let reply = house.get(&format!("/api/governance/{path}?from_memory=true")).await.good();
        assert_eq!(reply, json!({many: [], "count": 0}));
    }
}

#[tokio::test]
async fn a_trailing_slash_is_sent_on() {
    let house = House::new();
    for kind in &KINDS {
        for (path, to) in [
            (format!("{}/", kind.path), kind.path.to_owned()),
            (format!("{}/?limit=1&a=%20b", kind.path), format!("{}?limit=1&a=%20b", kind.path)),
            (format!("{}/x//", kind.path), format!("{}/x", kind.path)),
        ] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                let reply = house.call(method, &path, "{").await;
                assert_eq!((reply.status, reply.header("location")), (308, Some(&*to)), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let house = House::new();
    // What is allowed is held to the document, as every answer is.
    for (path, _) in routes() {
        let path = path.replace(['{', '}'], "");
        for method in [Method::PATCH, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            if DOCUMENT.operation(&method, &path).is_none() {
                house.call(method, &path, "").await.refused(405, "This path does not take this method");
            }
        }
    }
}

#[tokio::test]
async fn ids_in_paths_may_be_percent_encoded() {
    let house = House::new();
    for kind in &KINDS {
        let (path, made) = kind.make(&house).await;
        let id = path.rsplit('/').next().unwrap();
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let reply = house.get(&format!("{}/{encoded}", kind.path)).await;
        assert_eq!(kind.object(&reply), kind.object(&made));
        // What is no text is nobody's id, and neither is one with a slash in it.
        for id in ["%ff%fe", "a%2Fb", "%00"] {
            assert_eq!(house.get(&format!("{}/{id}", kind.path)).await.status, 404, "{id}");
            assert_eq!(house.delete(&format!("{}/{id}", kind.path)).await.status, 404, "{id}");
        }
    }
}

#[tokio::test]
async fn what_is_unknown_in_a_body_is_ignored() {
    let house = House::new();
    for kind in &KINDS {
        let mut body = (kind.create)();
        body["somebody_elses"] = json!({"a": 1});
        let made = house.post(kind.path, body).await;
        assert_eq!(made.status, kind.made);
        assert!(!made.text.contains("somebody_elses"));
    }
}
