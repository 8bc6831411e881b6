//! One house for each test: a fake provider, a Tollgate in front of it, and clients for both doors.

use crate::fake::{Bill, Fake};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;
use tollgate::app::Running;
use tollgate::config;

/// What administrators show.
pub const ADMIN_TOKEN: &str = "the-token-of-the-administrators";
/// What the provider is shown, unless a test says otherwise.
pub const PROVIDER_KEY: &str = "sk-key-of-the-provider";
/// How long anything may take that happens soon.
pub const SOON: Duration = Duration::from_secs(20);

/// The price of gpt-4o in nano-dollars per token.
pub const GPT_4O_INPUT: u64 = 2_500;
pub const GPT_4O_CACHED: u64 = 1_250;
pub const GPT_4O_OUTPUT: u64 = 10_000;

/// What gpt-4o costs for this much, in nano-dollars.
pub fn cost(bill: Bill) -> u64 {
    bill.input * GPT_4O_INPUT + bill.output * GPT_4O_OUTPUT
}

/// A running house.
pub struct House {
    pub fake: Fake,
    pub http: reqwest::Client,
    /// `http://127.0.0.1:port` of the proxy and of the admin listener.
    pub proxy: String,
    pub admin: String,
    pub config: Value,
    dir: Dir,
    running: Option<Running>,
}

/// Runs `test` in a house with the usual configuration.
pub fn house(test: impl AsyncFnOnce(&mut House)) {
    house_with(|_| {}, test);
}

/// Runs `test` in a house whose configuration was changed. However the test was treated, nothing may
/// be held at its end.
pub fn house_with(change: impl FnOnce(&mut Value), test: impl AsyncFnOnce(&mut House)) {
    runtime().block_on(async {
        let mut house = House::start(change).await;
        test(&mut house).await;
        house.idle().await;
        house.stop();
    });
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl House {
    pub async fn start(change: impl FnOnce(&mut Value)) -> House {
        let fake = Fake::start().await;
        let dir = Dir::new();
        let (proxy, admin) = (free_port(), free_port());
        let mut config = usual_config(&fake, &dir, proxy, admin);
        change(&mut config);
        let mut house = House {
            fake,
            http: reqwest::Client::builder().build().unwrap(),
            proxy: format!("http://127.0.0.1:{proxy}"),
            admin: format!("http://127.0.0.1:{admin}"),
            config,
            dir,
            running: None,
        };
        house.open();
        house
    }

    /// Starts Tollgate on the configuration as it is.
    pub fn open(&mut self) {
        let text = serde_json::to_string_pretty(&self.config).unwrap();
        let settings = config::read(&text, "tollgate.yaml", self.dir.path(), &|_: &str| None);
        let settings = settings.unwrap_or_else(|faults| panic!("{faults:?}"));
        self.running = Some(Running::start(settings).unwrap());
    }

    /// Stops Tollgate; its files stay.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }

    pub fn open_holds(&self) -> i64 {
        self.running.as_ref().map_or(0, |running| running.state().outbox().open_holds())
    }

    /// Waits until nothing is held any more.
    pub async fn idle(&self) {
        eventually("every hold to end", async || self.open_holds() == 0).await;
    }

    pub fn proxy_port(&self) -> u16 {
        self.proxy.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Creates a virtual key: everything of the usual provider, and what `body` adds or replaces.
    pub async fn key(&self, body: Value) -> Key {
        let mut wanted = json!({
            "name": format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            "provider_configs": [{"provider": "openai", "weight": 1, "allowed_models": ["*"], "key_ids": ["*"]}],
        });
        wanted.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let reply = self.administer("POST", "/api/governance/virtual-keys", Some(wanted)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let key = reply.json()["virtual_key"].clone();
        Key { id: key["id"].as_str().unwrap().to_owned(), value: key["value"].as_str().unwrap().to_owned() }
    }

    /// Creates a virtual key that may spend so many dollars an hour.
    pub async fn key_with_budget(&self, dollars: f64) -> Key {
        self.key(json!({"budget": {"max_limit": dollars, "reset_duration": "1h"}})).await
    }

    /// Speaks to the admin API as an administrator.
    pub async fn administer(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let request =
            self.http.request(method.parse().unwrap(), format!("{}{path}", self.admin)).bearer_auth(ADMIN_TOKEN);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        Reply::read(request.send().await.unwrap()).await
    }

    /// A request to the proxy, not yet sent.
    pub fn post(&self, path: &str, key: &Key, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.proxy)).bearer_auth(&key.value).json(body)
    }

    /// One call, with its whole answer.
    pub async fn call(&self, path: &str, key: &Key, body: &Value) -> Reply {
        Reply::read(self.post(path, key, body).send().await.unwrap()).await
    }

    pub async fn chat(&self, key: &Key, body: &Value) -> Reply {
        self.call("/v1/chat/completions", key, body).await
    }

    pub async fn get(&self, path: &str, key: &Key) -> Reply {
        let request = self.http.get(format!("{}{path}", self.proxy)).bearer_auth(&key.value);
        Reply::read(request.send().await.unwrap()).await
    }

    /// What the holder of a key sees of its limits.
    pub async fn quota(&self, key: &Key) -> Value {
        let reply = self.get("/api/governance/virtual-keys/quota", key).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Nano-dollars spent on the key's first budget, once every call is settled. Both doors must say
    /// the same, and nothing may be held.
    pub async fn spent(&self, key: &Key) -> u64 {
        self.idle().await;
        let quota = self.quota(key).await;
        let seen = nanos(&quota["budgets"][0]["current_usage"]);
        assert_eq!(nanos(&quota["budgets"][0]["held"]), 0, "{quota}");
        let reply = self.administer("GET", &format!("/api/governance/virtual-keys/{}", key.id), None).await;
        assert_eq!(nanos(&reply.json()["virtual_key"]["budgets"][0]["current_usage"]), seen, "{reply:?}");
        seen
    }

    /// Waits until the ledger has everything that was settled.
    pub async fn written(&self) {
        self.idle().await;
        let running = self.running.as_ref().unwrap();
        eventually("the ledger to be written", async || running.state().outbox().unwritten() == 0).await;
    }
}

/// Dollars as JSON shows them, in nano-dollars.
#[track_caller]
pub fn nanos(dollars: &Value) -> u64 {
    let dollars = dollars.as_f64().unwrap_or_else(|| panic!("{dollars} is no amount"));
    (dollars * 1e9).round() as u64
}

/// A virtual key as its holder has it.
#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub value: String,
}

impl Key {
    /// A credential that nobody gave out.
    pub fn unknown() -> Key {
        Key { id: String::new(), value: "sk-bf-00000000-0000-4000-8000-000000000000".to_owned() }
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub async fn read(response: reqwest::Response) -> Reply {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.unwrap() }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that this is a refusal of ours as every client understands it, and returns its message.
    #[track_caller]
    pub fn refused(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.header("content-type").is_some_and(|value| value.starts_with("application/json")), "{self:?}");
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        let body = self.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!(kind), &json!(kind)), "{body}");
        assert_eq!((&body["is_bifrost_error"], &body["status_code"]), (&json!(false), &json!(status)), "{body}");
        assert!(body["error"]["code"].is_string() && body["extra_fields"].is_object(), "{body}");
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty() && !message.contains("sk-"), "{body}");
        message.to_owned()
    }

    /// Seconds in `retry-after`.
    #[track_caller]
    pub fn retry_after(&self) -> u64 {
        self.header("retry-after").and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// A chat that everybody may ask for.
pub fn chat() -> Value {
    json!({"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Say hello."}]})
}

pub fn chat_stream() -> Value {
    let mut body = chat();
    body["stream"] = json!(true);
    body
}

/// Polls until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let polled = tokio::time::timeout(SOON, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(polled.await.is_ok(), "waited in vain for {what}");
}

/// What should not take long.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn usual_config(fake: &Fake, dir: &Dir, proxy: u16, admin: u16) -> Value {
    json!({
        "server": {
            "listen": [format!("127.0.0.1:{proxy}")],
            "threads": 1,
            "upgrade_socket": dir.path().join("upgrade.sock"),
        },
        "admin": {"listen": format!("127.0.0.1:{admin}"), "token": ADMIN_TOKEN},
        "store": {"path": dir.path().join("tollgate.db"), "encryption_key": "a key of more than sixteen characters"},
        "providers": {"openai": provider(&fake.url(), &[("main", PROVIDER_KEY)])},
        "log": {"level": "error"},
    })
}

/// A provider at `url` with these keys, the first of them tried first: the others weigh nothing.
pub fn provider(url: &str, keys: &[(&str, &str)]) -> Value {
    let key = |(n, (name, value)): (usize, &(&str, &str))| json!({"id": name, "name": name, "value": value, "weight": u8::from(n == 0), "models": ["*"]});
    json!({
        "keys": keys.iter().enumerate().map(key).collect::<Vec<_>>(),
        "network_config": {"base_url": url, "default_request_timeout_in_seconds": 10},
    })
}

/// A provider of another name that is spoken to like OpenAI.
pub fn custom_provider(url: &str, keys: &[(&str, &str)]) -> Value {
    let mut provider = provider(url, keys);
    provider["custom_provider_config"] = json!({"base_provider_type": "openai"});
    provider
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nobody listens on. Taken from below the ports that the system gives to clients, so that
/// no connection takes it before it is used.
pub fn free_port() -> u16 {
    static OFFSET: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 97 % 20_000).unwrap();
    loop {
        let offset = OFFSET.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (start + offset) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder that goes when the test does.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        let name = format!("house-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
