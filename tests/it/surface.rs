//! What else a client sees: headers on both sides, the models, the quota, and whether we are there.

use crate::fake::answers::Good;
use crate::house::{Key, Reply, chat, chat_stream, house, house_with};
use crate::raw::{Raw, request};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_request_id_is_echoed_or_made() {
    house(async |house| {
        let key = house.key(json!({})).await;
        let ask = async |id: Option<&str>| {
            let request = house.post(CHAT, &key, &chat());
            let request = id.into_iter().fold(request, |request, id| request.header("x-request-id", id));
            request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
        };
        assert_eq!(ask(Some("my-request-1")).await, "my-request-1");
        let (one, two) = (ask(None).await, ask(None).await);
        assert!(one.len() >= 16 && one != two && one != "req_of_the_provider");
        for indecent in ["with blank", &"x".repeat(500)] {
            assert_ne!(ask(Some(indecent)).await, indecent);
        }
        let refused = house.chat(&Key::unknown(), &chat()).await;
        assert!(refused.header("x-request-id").is_some());
    });
}

#[test]
fn an_answer_says_who_gave_it() {
    house(async |house| {
        let key = house.key(json!({})).await;
        for body in [chat(), chat_stream()] {
            let reply = house.chat(&key, &body).await;
            assert_eq!(reply.header("x-tollgate-provider"), Some("openai"));
            assert_eq!(reply.header("x-tollgate-model"), Some("gpt-4o"));
            assert_eq!(reply.header("x-tollgate-attempts"), Some("1"));
        }
    });
}

#[test]
fn an_answer_tells_what_is_left_of_a_rate_limit() {
    house(async |house| {
        let limit = json!({"token_max_limit": 10_000_000, "token_reset_duration": "1h",
            "request_max_limit": 10, "request_reset_duration": "1m"});
        let key = house.key(json!({"rate_limit": limit})).await;
        house.chat(&key, &chat()).await;
        house.idle().await;
        let reply = house.chat(&key, &chat()).await;
        let number = |name: &str| reply.header(name).unwrap().parse::<u64>().unwrap();
        assert_eq!(number("x-ratelimit-limit-requests"), 10);
        assert_eq!(number("x-ratelimit-remaining-requests"), 8);
        assert_eq!(number("x-ratelimit-limit-tokens"), 10_000_000);
        // The call itself holds what it is expected to use.
        assert!((9_980_000..=10_000_000 - 1_100).contains(&number("x-ratelimit-remaining-tokens")), "{reply:?}");
        for name in ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"] {
            assert!(reply.header(name).unwrap().ends_with('s'), "{reply:?}");
        }
        let free = house.key(json!({})).await;
        assert_eq!(house.chat(&free, &chat()).await.header("x-ratelimit-limit-requests"), None);
    });
}

#[test]
fn no_credential_crosses_the_house() {
    house(async |house| {
        let key = house.key(json!({})).await;
        house.fake.usually(Good {
            headers: [
                ("connection", "keep-alive"),
                ("keep-alive", "timeout=5"),
                ("set-cookie", "session=1"),
                ("openai-organization", "org-of-the-house"),
                ("x-of-the-provider", "stays"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            ..Good::default()
        });
        let mut raw = Raw::connect(house).await;
        let more = format!(
            "x-api-key: {0}\r\nx-goog-api-key: {0}\r\nx-bf-vk: {0}\r\ncookie: a=b\r\nproxy-authorization: Basic eDp5\r\n\
             te: trailers\r\nupgrade: h2c\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nx-bf-whatever: 1\r\n\
             openai-organization: org-of-the-client\r\nforwarded: for=1.2.3.4\r\nx-forwarded-for: 1.2.3.4\r\n\
             accept-encoding: gzip, br\r\nuser-agent: the-client/1\r\naccept: application/json\r\n",
            key.value
        );
        raw.send(request(CHAT, &key.value, &more, &chat().to_string())).await;
        let reply = raw.reply().await;
        assert_eq!(reply.status, 200, "{reply:?}");

        let seen = house.fake.seen()[0].clone();
        assert_eq!(seen.header("authorization"), Some("Bearer sk-key-of-the-provider"));
        assert_eq!(seen.header("host"), Some(&*format!("127.0.0.1:{}", house.fake.port)));
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(
            (seen.header("user-agent"), seen.header("accept")),
            (Some("the-client/1"), Some("application/json"))
        );
        for (name, value) in &seen.headers {
            assert!(!value.contains("sk-bf-"), "the virtual key reached the provider in {name}");
            let stays = [
                "cookie",
                "proxy-authorization",
                "te",
                "upgrade",
                "x-hop",
                "forwarded",
                "x-forwarded-for",
                "openai-organization",
            ];
            assert!(!stays.contains(&&**name) && !name.starts_with("x-bf-"), "{name} reached the provider");
        }
        assert!(!String::from_utf8_lossy(&seen.body).contains("sk-bf-"));

        for (name, value) in &reply.headers {
            assert!(!value.to_str().unwrap().contains("sk-key"), "the provider's key reached the client in {name}");
        }
        for name in ["set-cookie", "openai-organization", "keep-alive"] {
            assert_eq!(reply.header(name), None);
        }
        assert_eq!(reply.header("x-of-the-provider"), Some("stays"));
    });
}

#[test]
fn extra_headers_of_the_provider_are_added_and_replace_no_credential() {
    let change = |config: &mut Value| {
        config["providers"]["openai"]["network_config"]["extra_headers"] = json!({"x-team": "blue"});
    };
    house_with(change, async |house| {
        let key = house.key(json!({})).await;
        assert_eq!(house.chat(&key, &chat()).await.status, 200);
        let seen = house.fake.seen()[0].clone();
        assert_eq!(
            (seen.header("x-team"), seen.header("authorization")),
            (Some("blue"), Some("Bearer sk-key-of-the-provider"))
        );
    });
}

#[test]
fn models_are_those_that_the_key_may_use() {
    let change = |config: &mut Value| {
        config["providers"]["openai"]["keys"][0]["models"] = json!(["gpt-4o", "gpt-4o-mini"]);
    };
    house_with(change, async |house| {
        let models = async |key: &Key| {
            let reply = house.get("/v1/models", key).await;
            assert_eq!((reply.status, &reply.json()["object"]), (200, &json!("list")));
            let ids = reply.json()["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|model| model["id"].as_str().unwrap().to_owned())
                .collect();
            let ids: Vec<String> = ids;
            ids
        };
        let all = house.key(json!({})).await;
        assert_eq!(models(&all).await, ["openai/gpt-4o", "openai/gpt-4o-mini"]);
        let one = json!([{"provider": "openai", "weight": 1, "allowed_models": ["gpt-4o-mini"], "key_ids": ["*"]}]);
        let one = house.key(json!({"provider_configs": one})).await;
        assert_eq!(models(&one).await, ["openai/gpt-4o-mini"]);
        let none = house.key(json!({"provider_configs": []})).await;
        assert!(models(&none).await.is_empty());
        assert_eq!(house.get("/v1/models/openai/gpt-4o", &all).await.json()["id"], "openai/gpt-4o");
        assert_eq!(house.get("/v1/models/openai/gpt-4o", &one).await.status, 404);
        assert!(house.fake.seen().is_empty());
    });
}

#[test]
fn health_needs_no_key() {
    house(async |house| {
        let reply = Reply::read(house.http.get(format!("{}/health", house.proxy)).send().await.unwrap()).await;
        assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("ok")));
        let reply = Reply::read(house.http.get(format!("{}/readyz", house.admin)).send().await.unwrap()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    });
}

#[test]
fn a_quota_is_shown_to_the_keys_holder_alone() {
    house(async |house| {
        let path = "/api/governance/virtual-keys/quota";
        let key = house.key(json!({"name": "mine", "budget": {"max_limit": 2, "reset_duration": "1d"}})).await;
        let quota = house.quota(&key).await;
        assert_eq!((&quota["virtual_key_name"], &quota["is_active"]), (&json!("mine"), &json!(true)), "{quota}");
        let budget = &quota["budgets"][0];
        assert_eq!((budget["max_limit"].as_f64(), budget["reset_duration"].as_str()), (Some(2.0), Some("1d")));
        assert_eq!(budget["current_usage"].as_f64(), Some(0.0));
        assert_eq!(quota["rate_limit"], Value::Null);
        assert_eq!(quota["provider_configs"][0]["provider"], "openai");
        assert!(!quota.to_string().contains("sk-"), "{quota}");
        for reply in [
            house.get(path, &Key::unknown()).await,
            Reply::read(house.http.get(format!("{}{path}", house.proxy)).send().await.unwrap()).await,
        ] {
            assert_eq!(reply.status, 401);
            assert!(reply.json()["error"].is_string(), "{reply:?}");
        }
    });
}

#[test]
fn nothing_is_held_in_the_metrics_when_nothing_is_open() {
    house(async |house| {
        let key = house.key_with_budget(1.0).await;
        house.chat(&key, &chat()).await;
        house.written().await;
        let metrics = house.administer("GET", "/metrics", None).await;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        assert!(text.lines().any(|line| line == "tollgate_open_holds 0"), "{text}");
        assert!(!text.contains("sk-") && !text.contains(&key.id), "{text}");
    });
}

#[test]
fn administrators_must_show_their_token() {
    house(async |house| {
        for path in ["/api/governance/virtual-keys", "/api/providers", "/metrics"] {
            let reply = house.http.get(format!("{}{path}", house.admin)).send().await.unwrap();
            assert_eq!(reply.status(), 401, "{path}");
            let wrong = house.http.get(format!("{}{path}", house.admin)).bearer_auth("wrong").send().await.unwrap();
            assert_eq!(wrong.status(), 401, "{path}");
        }
    });
}
