//! Providers behind a proxy: reached through it or not at all, on connections that nobody else is given.

use crate::binary::{Program, tollgate};
use crate::fake::answers::Good;
use crate::fake::proxy::{Asked, FakeProxy, Manner};
use crate::fake::{Bill, Gate};
use crate::house::{
    ADMIN_TOKEN, Dir, House, Key, chat, chat_stream, cost, custom_provider, eventually, free_port, house, house_with,
    runtime, soon,
};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

const CHAT: &str = "/v1/chat/completions";
const ONE_CALL: Bill = Bill { input: 1_000, output: 100 };
const USER: &str = "the-user";
const PASSWORD: &str = "the-password-of-the-proxy";
const KINDS: [&str; 2] = ["http", "socks5"];

/// `proxy_config` for a proxy on this machine.
fn through(kind: &str, port: u16, user: Option<(&str, &str)>) -> Value {
    let (username, password) = user.unzip();
    json!({"type": kind, "url": format!("{kind}://127.0.0.1:{port}"), "username": username, "password": password})
}

/// The provider's name at this port, which only a proxy knows.
fn unknown_name(port: u16) -> String {
    format!("http://llm.test:{port}")
}

fn wish(target: String, user: Option<(&str, &str)>) -> Asked {
    Asked { target, credential: user.map(|(user, password)| format!("{user}:{password}")) }
}

/// Runs `test` in a house with a proxy that leads to its provider.
fn proxied(test: impl AsyncFnOnce(&mut House, &FakeProxy)) {
    house(async |house| {
        let proxy = FakeProxy::start(house.fake.port).await;
        test(house, &proxy).await;
    });
}

/// What an administrator says of OpenAI: where it is, and what stands before it.
async fn declare(house: &House, url: &str, proxy: Value) {
    let body = json!({
        "network_config": {"base_url": url, "default_request_timeout_in_seconds": 2},
        "proxy_config": proxy,
    });
    let reply = house.administer("PUT", "/api/providers/openai", Some(body)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!String::from_utf8_lossy(&reply.body).contains(PASSWORD), "{reply:?}");
}

async fn answered(house: &House, key: &Key) {
    let reply = house.chat(key, &chat()).await;
    assert_eq!((reply.status, reply.header("x-tollgate-attempts")), (200, Some("1")), "{reply:?}");
}

#[test]
fn every_kind_of_proxy_leads_to_the_provider() {
    for kind in KINDS {
        for user in [None, Some((USER, PASSWORD))] {
            proxied(async |house, proxy| {
                let key = house.key_with_budget(1.0).await;
                let url = unknown_name(house.fake.port);
                declare(house, &url, through(kind, proxy.port, user)).await;
                if let Some((user, password)) = user {
                    proxy.behave(Manner::Guarded(user, password));
                }
                let good = Good::default();
                house.fake.script([good.clone(), good.clone(), good]);
                answered(house, &key).await;
                let reply = house.chat(&key, &chat_stream()).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                assert!(reply.body.ends_with(b"data: [DONE]\n\n"), "{reply:?}");
                answered(house, &key).await;
                // One connection served all three.
                assert_eq!(proxy.asked(), [wish(format!("llm.test:{}", house.fake.port), user)], "{kind}");
                assert_eq!((house.fake.seen().len(), house.fake.connections()), (3, 1), "{kind}");
                for request in house.fake.seen() {
                    let host = format!("llm.test:{}", house.fake.port);
                    assert_eq!((&*request.path, request.header("host")), (CHAT, Some(&*host)));
                    assert_eq!(request.header("proxy-authorization"), None);
                }
                assert_eq!(house.spent(&key).await, 3 * cost(ONE_CALL));
            });
        }
    }
}

#[test]
fn a_stream_passes_piece_by_piece() {
    proxied(async |house, proxy| {
        let key = house.key_with_budget(1.0).await;
        declare(house, &unknown_name(house.fake.port), through("http", proxy.port, None)).await;
        let gate = Gate::new();
        house.fake.script([Good::gated(&gate)]);
        let mut response = soon("the head", house.post(CHAT, &key, &chat_stream()).send()).await.unwrap();
        let first = soon("the first piece", response.chunk()).await.unwrap().unwrap();
        assert!(first.starts_with(b"data: "));
        // The client leaves in the middle: the provider learns of it through the proxy.
        drop(response);
        house.fake.request(0).await.hung_up().await;
        house.idle().await;
        assert!(house.spent(&key).await > 0);
    });
}

#[test]
fn a_proxy_that_does_not_lead_on_is_not_gone_around() {
    let user = Some((USER, PASSWORD));
    for kind in KINDS {
        proxied(async |house, proxy| {
            let key = house.key_with_budget(1.0).await;
            // Within everybody's reach, were it not for the proxy.
            let url = house.fake.url();
            for (manner, user, asks, status) in [
                (Manner::Refuse(403), None, true, 502),
                (Manner::Refuse(407), user, true, 502),
                (Manner::Refuse(503), user, true, 502),
                (Manner::Guarded(USER, "another"), user, kind == "http", 502),
                (Manner::Guarded(USER, PASSWORD), None, kind == "http", 502),
                (Manner::HangUp, user, true, 502),
                (Manner::Hang, user, kind == "http", 504),
            ] {
                declare(house, &url, through(kind, proxy.port, user)).await;
                proxy.behave(manner.clone());
                for body in [chat(), chat_stream()] {
                    let code = if status == 504 { "request_timed_out" } else { "upstream_unreachable" };
                    let message = house.chat(&key, &body).await.refused(status, code);
                    assert!(!message.contains(PASSWORD) && !message.contains("proxy"), "{message}");
                    assert_eq!(proxy.asked().len(), usize::from(asks), "{kind} {manner:?}");
                }
            }
            // Nobody is there at all.
            declare(house, &url, through(kind, free_port(), None)).await;
            house.chat(&key, &chat()).await.refused(502, "upstream_unreachable");
            assert_eq!((house.fake.seen().len(), house.fake.connections()), (0, 0), "{kind}");
            assert_eq!(house.spent(&key).await, 0);
            let quota = house.quota(&key).await;
            assert_eq!(quota["budgets"][0]["current_usage"].as_f64(), Some(0.0), "{quota}");
            // It was the proxy's fault, and is over with it.
            proxy.behave(Manner::Open);
            declare(house, &url, through(kind, proxy.port, None)).await;
            answered(house, &key).await;
        });
    }
}

#[test]
fn a_client_that_leaves_while_the_proxy_hangs_holds_nothing() {
    proxied(async |house, proxy| {
        let key = house.key_with_budget(1.0).await;
        declare(house, &house.fake.url(), through("http", proxy.port, None)).await;
        proxy.behave(Manner::Hang);
        let call = house.post(CHAT, &key, &chat()).timeout(Duration::from_millis(300)).send();
        assert!(call.await.unwrap_err().is_timeout());
        assert_eq!(house.spent(&key).await, 0);
        assert_eq!(house.fake.connections(), 0);
    });
}

#[test]
fn another_provider_takes_over_where_a_proxy_refuses() {
    runtime().block_on(async {
        let proxy = FakeProxy::start(free_port()).await;
        proxy.behave(Manner::Refuse(403));
        let mut house = House::start(|config| {
            let url = config["providers"]["openai"]["network_config"]["base_url"].as_str().unwrap();
            let mut behind = custom_provider(url, &[("behind", "sk-behind")]);
            behind["proxy_config"] = through("http", proxy.port, None);
            config["providers"]["behind"] = behind;
        })
        .await;
        let config = |provider: &str, weight: u32| json!({"provider": provider, "weight": weight, "allowed_models": ["gpt-4o"], "key_ids": ["*"]});
        let key = house.key(json!({"provider_configs": [config("behind", 1), config("openai", 0)]})).await;
        let mut body = chat();
        body["model"] = json!("gpt-4o");
        let reply = house.chat(&key, &body).await;
        assert_eq!((reply.status, reply.header("x-tollgate-provider")), (200, Some("openai")), "{reply:?}");
        assert_eq!((proxy.asked().len(), house.fake.seen().len()), (1, 1));
        house.idle().await;
        house.stop();
    });
}

#[test]
fn a_change_of_proxy_counts_from_the_next_call_on() {
    proxied(async |house, proxy| {
        let key = house.key(json!({})).await;
        let other = FakeProxy::start(house.fake.port).await;
        let (url, target) = (house.fake.url(), format!("127.0.0.1:{}", house.fake.port));
        let user = Some((USER, PASSWORD));
        let mut connections = 0;
        for (now, user, asked) in [
            // A connection is kept from each of these, and the next may not have it.
            (None, None, (0, 0)),
            (Some(proxy), None, (1, 0)),
            (Some(&other), None, (0, 1)),
            (Some(proxy), user, (1, 0)),
            // These were made in the same way before.
            (Some(proxy), None, (0, 0)),
            (None, None, (0, 0)),
        ] {
            let proxy_config = now.map_or(Value::Null, |proxy| through("http", proxy.port, user));
            declare(house, &url, proxy_config).await;
            answered(house, &key).await;
            answered(house, &key).await;
            let seen = (proxy.asked(), other.asked());
            assert_eq!((seen.0.len(), seen.1.len()), asked, "{seen:?}");
            assert!(seen.0.iter().chain(&seen.1).all(|asked| *asked == wish(target.clone(), user)), "{seen:?}");
            connections += usize::from(connections == 0) + asked.0 + asked.1;
            assert_eq!(house.fake.connections(), connections);
        }
        // The same host and user by SOCKS5 is another way.
        declare(house, &url, through("socks5", proxy.port, user)).await;
        answered(house, &key).await;
        assert_eq!(proxy.asked(), [wish(target, user)]);
    });
}

#[test]
fn providers_with_other_ways_share_no_connection() {
    runtime().block_on(async {
        let (fake_port, user) = (free_port(), Some((USER, PASSWORD)));
        // The provider is started by the house, so the proxies lead to a port that leads on.
        let (one, two) = (FakeProxy::start(fake_port).await, FakeProxy::start(fake_port).await);
        let mut house = House::start(|config| {
            let url = format!("http://127.0.0.1:{fake_port}");
            for (name, proxy) in [
                ("direct", Value::Null),
                ("one", through("http", one.port, None)),
                ("known", through("http", one.port, user)),
                ("socks", through("socks5", one.port, None)),
                ("two", through("http", two.port, None)),
            ] {
                config["providers"][name] = custom_provider(&url, &[(name, "sk-x")]);
                config["providers"][name]["proxy_config"] = proxy;
            }
            config["governance"] = json!({"default_access": "allow"});
        })
        .await;
        let lead_on = tokio::net::TcpListener::bind(("127.0.0.1", fake_port)).await.unwrap();
        let end = house.fake.port;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = lead_on.accept().await {
                tokio::spawn(async move {
                    let mut origin = tokio::net::TcpStream::connect(("127.0.0.1", end)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut origin).await;
                });
            }
        });
        let key = house.key(json!({"provider_configs": []})).await;
        for _ in 0..3 {
            for name in ["direct", "one", "known", "socks", "two"] {
                let mut body = chat();
                body["model"] = json!(format!("{name}/gpt-4o"));
                let reply = house.chat(&key, &body).await;
                assert_eq!(reply.status, 200, "{name}: {reply:?}");
            }
        }
        let target = format!("127.0.0.1:{fake_port}");
        assert_eq!(one.asked(), [wish(target.clone(), None), wish(target.clone(), user), wish(target.clone(), None)]);
        assert_eq!(two.asked(), [wish(target, None)]);
        assert_eq!((house.fake.seen().len(), house.fake.connections()), (15, 5));
        house.idle().await;
        house.stop();
    });
}

#[test]
fn a_kept_connection_that_the_proxy_closed_costs_no_attempt() {
    proxied(async |house, proxy| {
        let key = house.key(json!({})).await;
        declare(house, &unknown_name(house.fake.port), through("socks5", proxy.port, None)).await;
        for _ in 0..3 {
            answered(house, &key).await;
            proxy.cut();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((proxy.asked().len(), house.fake.seen().len()), (3, 3));
    });
}

#[test]
fn a_password_is_sealed_and_survives() {
    proxied(async |house, proxy| {
        proxy.behave(Manner::Guarded(USER, PASSWORD));
        let key = house.key(json!({})).await;
        let url = unknown_name(house.fake.port);
        declare(house, &url, through("http", proxy.port, Some((USER, PASSWORD)))).await;
        // What is shown can be sent back, and the password stays.
        let shown = house.administer("GET", "/api/providers/openai", None).await.json();
        assert_eq!(shown["proxy_config"]["password"], "<REDACTED>", "{shown}");
        declare(house, &url, shown["proxy_config"].clone()).await;
        answered(house, &key).await;
        house.idle().await;
        house.stop();
        let store = house.config["store"]["path"].as_str().unwrap().to_owned();
        for file in [store.clone(), format!("{store}-wal")] {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()), "{file}");
        }
        house.open();
        answered(house, &key).await;
        assert_eq!(proxy.asked().len(), 2);
    });
}

#[test]
fn tls_is_spoken_with_the_provider_behind_the_proxy() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
    let tls = json!({"cert": format!("{fixtures}/server.pem"), "key": format!("{fixtures}/server.key")});
    // One Tollgate with TLS at its door is the provider of another.
    house_with(
        |config| config["server"]["tls"] = tls,
        async |provider| {
            let proxy = FakeProxy::start(provider.proxy_port()).await;
            let key = provider.key(json!({})).await;
            // Somebody else's port, so that it cannot be reached but through the proxy.
            let declared = |name: &str, url: &str, kind: &str| {
                let mut declared = custom_provider(url, &[(name, &key.value)]);
                declared["network_config"]["ca_cert_pem"] = json!(include_str!("../fixtures/tls/authority.pem"));
                declared["proxy_config"] = through(kind, proxy.port, None);
                declared
            };
            let mut house = House::start(|config| {
                config["providers"]["http"] = declared("http", "https://localhost:9", "http");
                config["providers"]["socks5"] = declared("socks5", "https://localhost:9", "socks5");
                config["providers"]["mistaken"] = declared("mistaken", "https://llm.test:9", "http");
                config["governance"] = json!({"default_access": "allow"});
            })
            .await;
            let caller = house.key(json!({"provider_configs": []})).await;
            // The certificate is that of localhost, whoever leads there.
            for (name, status, target) in
                [("http", 200, "localhost:9"), ("socks5", 200, "localhost:9"), ("mistaken", 502, "llm.test:9")]
            {
                let mut body = chat();
                body["model"] = json!(format!("{name}/openai/gpt-4o"));
                let reply = house.chat(&caller, &body).await;
                assert_eq!(reply.status, status, "{name}: {reply:?}");
                assert_eq!(proxy.asked(), [wish(target.to_owned(), None)], "{name}");
            }
            assert_eq!(provider.fake.seen().len(), 2);
            house.idle().await;
            house.stop();
        },
    );
}

#[test]
fn a_proxy_is_not_asked_for_what_nobody_may_reach() {
    for (policy, served, refused) in [
        (
            "allow",
            &["llm.test", "127.0.0.1", "localhost"][..],
            &["169.254.169.254", "metadata.google.internal", "2852039166"][..],
        ),
        // The proxy itself is at a private address, so it is asked for nothing at all.
        ("deny", &[], &["llm.test", "127.0.0.1", "10.0.0.1", "localhost", "169.254.169.254"]),
    ] {
        house_with(
            |config| config["server"]["upstream_private_addresses"] = json!(policy),
            async |house| {
                let key = house.key(json!({})).await;
                let proxy = FakeProxy::start(house.fake.port).await;
                for host in served {
                    declare(house, &format!("http://{host}:9"), through("http", proxy.port, None)).await;
                    answered(house, &key).await;
                    assert_eq!(proxy.asked(), [wish(format!("{host}:9"), None)], "{policy}");
                }
                for host in refused {
                    declare(house, &format!("http://{host}:9"), through("http", proxy.port, None)).await;
                    house.chat(&key, &chat()).await.refused(502, "upstream_unreachable");
                    assert_eq!(proxy.asked(), [], "{policy} {host}");
                }
            },
        );
    }
}

#[test]
fn the_environment_s_proxies_are_used_where_they_are_wanted() {
    const KEY: &str = "sk-bf-00000000-0000-4000-8000-00000000c1c1";
    runtime().block_on(async {
        let fake = crate::fake::Fake::start().await;
        let proxy = FakeProxy::start(fake.port).await;
        proxy.behave(Manner::Guarded(USER, PASSWORD));
        let (dir, port, admin) = (Dir::new(), free_port(), free_port());
        let provider = |name: &str, url: &str, kind: &str| {
            let mut declared = custom_provider(url, &[(name, "sk-x")]);
            declared["proxy_config"] = json!({"type": kind});
            declared
        };
        let config = json!({
            "server": {"listen": [format!("127.0.0.1:{port}")], "threads": 1, "upgrade_socket": dir.path().join("upgrade.sock")},
            "admin": {"listen": format!("127.0.0.1:{admin}"), "token": ADMIN_TOKEN},
            "store": {"path": dir.path().join("tollgate.db"), "encryption_key": "a key of more than sixteen characters"},
            "providers": {
                "behind": provider("behind", "http://llm.test:9", "environment"),
                "exempt": provider("exempt", &fake.url(), "environment"),
                "straight": provider("straight", &format!("http://localhost:{}", fake.port), "none"),
                "lost": provider("lost", "http://llm.test:9", "none"),
                // There is a proxy for http alone, so nobody knows this name.
                "tls": provider("tls", "https://llm.test:9", "environment"),
            },
            "governance": {"default_access": "allow", "virtual_keys": [{"name": "ci", "value": KEY}]},
            "log": {"level": "error"},
        });
        let file = dir.path().join("tollgate.yaml");
        std::fs::write(&file, serde_json::to_string_pretty(&config).unwrap()).unwrap();
        let mut command = tollgate();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        let variable = format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", proxy.port);
        command.env("http_proxy", variable).env("no_proxy", "127.0.0.0/8,other.test");
        let spawned = command.args(["serve", "--config"]).arg(&file).stderr(Stdio::inherit()).spawn().unwrap();
        let _program = Program(spawned);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        eventually("the program to be ready", async || {
            let ready = http.get(format!("http://127.0.0.1:{port}/health")).send().await;
            ready.is_ok_and(|reply| reply.status() == 200)
        })
        .await;
        let (host, user) = ("llm.test:9".to_owned(), Some((USER, PASSWORD)));
        for (name, status, asked) in [
            ("behind", 200, vec![wish(host, user)]),
            ("exempt", 200, vec![]),
            ("straight", 200, vec![]),
            ("lost", 502, vec![]),
            ("tls", 502, vec![]),
        ] {
            let mut body = chat();
            body["model"] = json!(format!("{name}/gpt-4o"));
            let call = http.post(format!("http://127.0.0.1:{port}{CHAT}")).bearer_auth(KEY).json(&body);
            assert_eq!(call.send().await.unwrap().status().as_u16(), status, "{name}");
            assert_eq!(proxy.asked(), asked, "{name}");
        }
        assert_eq!(fake.seen().len(), 3);
    });
}
