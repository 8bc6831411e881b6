//! The API as clients meet it: the router called in-process, over a real database. Every answer that any of these
//! tests receives is held to the document.

mod access;
mod audit;
mod common;
mod conditions;
mod config;
mod contract;
mod document;
mod explain;
mod faults;
mod ledger;
mod ledger_query;
mod limits;
mod model_configs;
mod owners;
mod price_overrides;
mod providers;
mod quota;
mod rules;
mod security;
mod service;
mod virtual_keys;

use super::*;
use crate::governance::edit::Edit;
use crate::governance::entity::{CustomProvider, KeyValue, ModelSet, Network, Provider, ProviderKey, Weight};
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::governance::usage::Usage;
use crate::governance::view::View;
use crate::state::clock::Clock;
use crate::state::hold::{Hold, Spend};
use crate::state::outbox::{CallTag, Ending};
use crate::state::{Ask, Snapshot};
use crate::store::Record;
use crate::store::tests::TempDir;
use crate::store::writer::Writer;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use document::DOCUMENT;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use tower::ServiceExt;

const TOKEN: &str = "the admin token of these tests";
const KEYS: &str = "/api/governance/virtual-keys";
/// 2023-11-14T22:13:20Z, a Tuesday.
const NOW: i64 = 1_700_000_000_000;
const DOLLAR: i64 = 1_000_000_000;
/// Every secret in these tests but the virtual keys' has this in its middle, which no answer ever shows.
const SECRET: &str = "-secret-";

struct House {
    dir: TempDir,
    hand: Arc<AtomicI64>,
    admin: Admin,
    router: Router,
    writer: Option<Writer>,
    /// The operations that were called.
    called: Mutex<BTreeSet<String>>,
}

/// How a house is set up.
struct Setup {
    token: Option<&'static str>,
    metrics_auth: bool,
    show_virtual_keys: bool,
    allowed_origins: Vec<String>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { token: Some(TOKEN), metrics_auth: true, show_virtual_keys: true, allowed_origins: vec![] }
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.text)).to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A good answer.
    fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// The object within a good answer.
    fn one(&self, member: &str) -> Value {
        self.good()[member].take()
    }

    /// The virtual key of a good answer.
    fn key(&self) -> Value {
        self.one("virtual_key")
    }

    /// A refusal in exactly these words.
    fn refused(&self, status: u16, says: &str) {
        assert_eq!((self.status, &*self.message()), (status, says), "{}", self.text);
    }
}

fn provider(name: &str, key: &str) -> Provider {
    let at = Timestamp::default();
    let network = Network { base_url: Some("http://127.0.0.1:1".into()), ..Network::default() };
    let custom =
        CustomProvider { base: "openai", keyless: false, allowed_requests: None, path_overrides: BTreeMap::new() };
    let key = ProviderKey {
        id: key.into(),
        name: format!("{key} by name"),
        value: KeyValue::text(format!("sk-provider{SECRET}0001")),
        weight: Weight::ONE,
        models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec![]),
        aliases: BTreeMap::new(),
        enabled: true,
        use_for_batch_api: false,
        cloud: None,
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    };
    Provider { network, custom: Some(custom), keys: vec![Arc::new(key)], ..Provider::new(name, at) }
}

impl House {
    /// With two providers, `local` with the key `main` and `other` with the key `spare`.
    fn new() -> House {
        House::with(Setup::default())
    }

    fn with(setup: Setup) -> House {
        let Setup { token, metrics_auth, show_virtual_keys, allowed_origins } = setup;
        let dir = TempDir::new();
        let store = Store::open(&database(&dir), &Secret::new("an encryption key for tests")).unwrap();
        let (clock, hand) = Clock::manual(Timestamp::from_millis(NOW));
        let state = Arc::new(State::new(clock.clone(), store.hasher(), 1_000));
        let providers = [("local", "main"), ("other", "spare")].map(|(name, key)| Arc::new(provider(name, key)));
        let edits: Vec<Edit> = providers.map(Edit::Provider).into();
        let record = Record { actor: "test".into(), at: Timestamp::from_millis(NOW), audit: vec![], replay: None };
        let commit = |_: &Snapshot, _: &View, edits: &[Edit], ()| store.apply(edits, &record);
        state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
        let metrics = Metrics::new();
        let ledger = store.ledger().unwrap();
        let writer = Writer::start(Arc::clone(state.outbox()), ledger, metrics.clone(), clock, None).unwrap();
        let admin = Admin::new(Parts {
            state,
            store: Arc::new(store),
            metrics,
            ledger: writer.health(),
            reload: Arc::default(),
            token: token.map(Secret::new),
            metrics_auth,
            allowed_origins,
            show_virtual_keys,
        });
        let router = router(admin.clone());
        House { dir, hand, router, admin, writer: Some(writer), called: Mutex::default() }
    }

    /// Every request goes through here, and every answer is held to the document.
    async fn send(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let reply = Reply { status: head.status.as_u16(), headers: head.headers, text };
        DOCUMENT.check(&method, &path, &reply);
        let said = format!("{:?} {}", reply.headers, reply.text);
        for secret in [SECRET, TOKEN, "sk-bf-"] {
            let may = secret == "sk-bf-" && !path.contains("/audit");
            assert!(may || !said.contains(secret), "{path}: {said}");
        }
        if let Some(operation) = DOCUMENT.operation(&method, &path) {
            self.called.lock().unwrap().insert(operation.id.clone());
        }
        reply
    }

    async fn call(&self, method: Method, path: &str, body: impl ToString) -> Reply {
        self.call_with(method, path, &[], body).await
    }

    async fn call_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl ToString) -> Reply {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {TOKEN}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, body).await
    }

    async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, body).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, "").await
    }

    /// Sends what is wrong, one after the other, and expects each to be refused in exactly these words, with
    /// nothing changed.
    async fn refuses(&self, method: Method, path: &str, cases: &[(Value, u16, &str)]) {
        let before = self.get(path).await.text;
        let mut wrong = Vec::new();
        for (body, status, says) in cases {
            let reply = self.call(method.clone(), path, body).await;
            if (reply.status, &*reply.message()) != (*status, *says) {
                wrong.push(format!("{body}: {} {}", reply.status, reply.message()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(self.get(path).await.text, before);
    }

    async fn create(&self, body: Value) -> Reply {
        self.post(KEYS, body).await
    }

    async fn update(&self, id: &str, body: Value) -> Reply {
        self.put(&format!("{KEYS}/{id}"), body).await
    }

    async fn quota(&self, headers: &[(&str, &str)]) -> Reply {
        let request =
            headers.iter().fold(Request::get(QUOTA_PATH), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Makes the clock go on.
    fn pass(&self, millis: i64) {
        self.hand.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets `nanos` aside under the key, through its first provider config if it has one.
    fn hold(&self, value: &str, nanos: i64) -> Option<Hold> {
        let state = &self.admin.state;
        let snapshot = state.snapshot();
        let caller = snapshot.view.caller(&state.hasher.digest(value.as_bytes()))?;
        let tag = CallTag {
            virtual_key: Some(Arc::clone(&caller.key.id)),
            team: caller.team_id(),
            customer: caller.customer_id(),
            provider: "local".into(),
            model: "m".into(),
            kind: RequestKind::ChatCompletion,
            admitted_at: state.clock.now(),
            price: None,
        };
        let spend = Spend { cost: Nanos::new(nanos), tokens: 7 };
        let usage = Usage::default();
        let ask = Ask {
            caller: Some(caller),
            config: Some(0),
            upstream_model: "m",
            usage,
            spend,
            bound: (usage, spend),
            tag,
        };
        let mut hold = state.admit(&snapshot, ask).ok()?;
        hold.mark_sent();
        Some(hold)
    }

    fn spend(&self, value: &str, nanos: i64) {
        let hold = self.hold(value, nanos).expect("the test leaves room");
        let (usage, spend) = hold.estimate();
        hold.settle(Ending::Completed, usage, spend);
    }

    /// The page names tests; what it says of this one is true of it.
    fn check_page(&self) {
        let called = self.called.lock().unwrap();
        let thread = std::thread::current();
        let Some(test) = thread.name().and_then(|name| name.strip_prefix("admin::tests::")) else { return };
        for (operation, (_, tests)) in contract::covered() {
            assert!(!tests.contains(&test) || called.contains(operation), "{test} does not call {operation}");
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.stop(Duration::from_secs(5)).unwrap();
        }
        if !std::thread::panicking() {
            self.check_page();
        }
    }
}

fn database(dir: &TempDir) -> PathBuf {
    dir.path().join("t.db")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The id of an object.
fn id(object: &Value) -> String {
    text(&object["id"]).to_owned()
}

/// A kind of object with a path of its own.
struct Kind {
    /// Of the collection.
    path: &'static str,
    /// The member of an answer that holds one; the provider's and its keys' are bare.
    one: Option<&'static str>,
    /// The member that paths name one by.
    id: &'static str,
    /// As messages call it.
    missing: &'static str,
    made: u16,
    create: fn() -> Value,
    update: fn() -> Value,
}

fn named() -> Value {
    json!({"name": "one"})
}

fn renamed() -> Value {
    json!({"name": "another"})
}

fn a_rule() -> Value {
    json!({"name": "one", "targets": [{"provider": "local", "weight": 1}]})
}

fn an_override() -> Value {
    json!({"name": "one", "scope_kind": "global", "match_type": "exact", "pattern": "m",
        "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 0.000001}})
}

fn a_provider() -> Value {
    json!({"provider": "mine", "network_config": {"base_url": "http://127.0.0.1:1"},
        "custom_provider_config": {"base_provider_type": "openai"}})
}

fn a_provider_key() -> Value {
    json!({"name": "one", "value": format!("sk-one{SECRET}0002")})
}

const KINDS: [Kind; 8] = [
    Kind {
        path: KEYS,
        one: Some("virtual_key"),
        id: "id",
        missing: "Virtual key not found",
        made: 200,
        create: named,
        update: renamed,
    },
    Kind {
        path: "/api/governance/teams",
        one: Some("team"),
        id: "id",
        missing: "Team not found",
        made: 200,
        create: named,
        update: renamed,
    },
    Kind {
        path: "/api/governance/customers",
        one: Some("customer"),
        id: "id",
        missing: "Customer not found",
        made: 200,
        create: named,
        update: renamed,
    },
    Kind {
        path: "/api/governance/model-configs",
        one: Some("model_config"),
        id: "id",
        missing: "Model config not found",
        made: 200,
        create: || json!({"model_name": "m"}),
        update: || json!({"model_name": "n"}),
    },
    Kind {
        path: "/api/governance/routing-rules",
        one: Some("rule"),
        id: "id",
        missing: "Routing rule not found",
        made: 200,
        create: a_rule,
        update: renamed,
    },
    Kind {
        path: "/api/governance/pricing-overrides",
        one: Some("pricing_override"),
        id: "id",
        missing: "Pricing override not found",
        made: 201,
        create: an_override,
        update: renamed,
    },
    Kind {
        path: "/api/providers",
        one: None,
        id: "name",
        missing: "Provider not found: none",
        made: 200,
        create: a_provider,
        update: || json!({"network_config": {"base_url": "http://127.0.0.1:2"}}),
    },
    Kind {
        path: "/api/providers/local/keys",
        one: None,
        id: "id",
        missing: "Key not found: none",
        made: 200,
        create: a_provider_key,
        update: || json!({"name": "another", "value": format!("sk-one{SECRET}0003")}),
    },
];

impl Kind {
    fn object(&self, reply: &Reply) -> Value {
        let whole = reply.json();
        self.one.map_or(whole.clone(), |one| whole[one].clone())
    }

    /// Makes one, and tells its path.
    async fn make(&self, house: &House) -> (String, Reply) {
        let made = house.post(self.path, (self.create)()).await;
        assert_eq!(made.status, self.made, "{}", made.text);
        (format!("{}/{}", self.path, text(&self.object(&made)[self.id])), made)
    }
}
