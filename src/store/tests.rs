//! One suite over a real file in a directory of its own.

mod audit;
mod books;
mod changes;
mod copies;
mod entities;
mod journal;
mod ledger;
mod simulator;
mod upgrade;

use super::*;
use crate::governance::edit::Edit;
use crate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use crate::governance::time::{Span, Timestamp, Window};
use crate::governance::usage::Usage;
use crate::governance::view::{Digest, Measure};
use crate::state::clock::Clock;
use crate::state::hold::Spend;
use crate::state::outbox::{CallTag, Ending};
use crate::state::{Ask, State};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const KEY: &str = "an encryption key for tests";
const NOW: i64 = 1_700_000_000_000;

/// A directory that goes when the test ends.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tollgate-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn budget(id: &str, max: i64, span: &str) -> Budget {
    let window = Window::rolling(Span::parse(span).unwrap());
    Budget { id: id.into(), max: Nanos::new(max), window, anchor: at(NOW), created_at: at(NOW), updated_at: at(NOW) }
}

fn rate(id: &str, tokens: Option<i64>, requests: Option<i64>) -> RateLimit {
    let quota = |max| Quota { max, window: Window::rolling(Span::parse("1h").unwrap()), anchor: at(NOW) };
    RateLimit {
        id: id.into(),
        tokens: tokens.map(quota),
        requests: requests.map(quota),
        created_at: at(NOW),
        updated_at: at(NOW),
    }
}

fn config(id: i64, provider: &str, budgets: Vec<Budget>) -> ProviderConfig {
    ProviderConfig {
        id,
        provider: provider.into(),
        weight: Some(Weight::ONE),
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec!["o1".into()]),
        key_ids: KeySet::Only(vec!["k1".into()]),
        limits: Limits { budgets, rate_limit: None },
    }
}

/// A key with a number for its id; its provider config has ten times that.
fn key(id: &str, name: &str) -> VirtualKey {
    let config_id = id.parse::<i64>().unwrap() * 10;
    VirtualKey {
        id: id.into(),
        name: name.into(),
        description: "for tests".into(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: Limits {
            budgets: vec![budget(&format!("{id}-b"), 1_000, "1h")],
            rate_limit: Some(Box::new(rate(&format!("{id}-r"), Some(50_000), None))),
        },
        provider_configs: vec![config(config_id, "openai", vec![budget(&format!("{id}-c"), 700, "1d")])],
        mcp_configs: r#"[{"mcp_client_name":"x"}]"#.into(),
        config_hash: String::new(),
        created_at: at(NOW),
        updated_at: at(NOW),
    }
}

struct House {
    dir: TempDir,
    store: Store,
}

impl House {
    fn new() -> House {
        let dir = TempDir::new();
        let store = open(&dir, KEY).unwrap();
        House { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data/t.db")
    }

    /// What is left after the process is gone.
    fn reopened(self) -> House {
        let House { dir, store } = self;
        drop(store);
        let store = open(&dir, KEY).unwrap();
        House { dir, store }
    }

    fn apply(&self, edits: &[Edit]) -> Result<(), StoreError> {
        self.store.apply(edits, &record())
    }

    /// A key without its value, as it is changed.
    fn changed(&self, key: &VirtualKey) -> Edit {
        let digest = self.store.hasher().digest(value(&key.name).expose().as_bytes());
        Edit::VirtualKey { key: Arc::new(key.clone()), digest, value: None }
    }

    /// A key with the value that belongs to `name`.
    fn valued(&self, key: &VirtualKey, name: &str) -> Edit {
        let value = value(name);
        let digest = self.store.hasher().digest(value.expose().as_bytes());
        Edit::VirtualKey { key: Arc::new(key.clone()), digest, value: Some(value) }
    }

    fn add(&self, id: &str, name: &str) -> VirtualKey {
        let key = key(id, name);
        self.apply(&[self.valued(&key, name)]).unwrap();
        key
    }

    /// The virtual keys, by id.
    fn keys(&self) -> Vec<VirtualKey> {
        let edits = self.store.load().unwrap().edits;
        let keys = edits.into_iter().filter_map(|edit| match edit {
            Edit::VirtualKey { key, .. } => Some(VirtualKey::clone(&key)),
            _ => None,
        });
        let mut keys: Vec<VirtualKey> = keys.collect();
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        keys
    }

    /// What is stored, as it is loaded, in an order of its own.
    fn shown(&self) -> Vec<String> {
        let loaded = self.store.load().unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        shown(&loaded.edits)
    }

    /// A state in which `key` spends.
    fn state(&self, key: &VirtualKey) -> Arc<State> {
        let (clock, _) = Clock::manual(at(NOW));
        let state = State::new(clock, self.store.hasher(), 10_000);
        let edits = vec![self.changed(key)];
        let done: Result<(), ()> =
            state.change(&self.store.balances().unwrap(), |_| Ok((edits, ())), |_, _, _, ()| Ok(()));
        done.unwrap();
        Arc::new(state)
    }

    fn raw_execute(&self, sql: &str) {
        assert!(Connection::open(self.path()).unwrap().execute(sql, ()).unwrap() > 0, "{sql}");
    }

    /// What each table holds, but for what the database knows about itself.
    fn rows(&self) -> Vec<(&'static str, i64)> {
        TABLES.iter().map(|table| (*table, self.raw(&format!("SELECT count(*) FROM {table}")))).collect()
    }

    /// Whether a text stands somewhere in the database's files.
    fn is_in_files(&self, text: &str) -> bool {
        let files = std::fs::read_dir(self.path().parent().unwrap()).unwrap();
        let mut files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    fn raw(&self, sql: &str) -> i64 {
        Connection::open(self.path()).unwrap().query_row(sql, (), |row| row.get(0)).unwrap()
    }
}

fn open(dir: &TempDir, key: &str) -> Result<Store, StoreError> {
    Store::open(&dir.path().join("data/t.db"), &Secret::new(key))
}

/// Every table that holds what is declared, or what was spent.
const TABLES: [&str; 15] = [
    "balances",
    "budgets",
    "customers",
    "ledger",
    "model_configs",
    "pricing_overrides",
    "provider_configs",
    "provider_keys",
    "provider_limits",
    "providers",
    "rate_limits",
    "routing_rules",
    "settings",
    "teams",
    "virtual_keys",
];

fn record() -> Record {
    Record { actor: "token".into(), at: at(NOW), audit: Vec::new(), replay: None }
}

/// Edits as texts that say all but secrets, without the values of virtual keys.
fn shown(edits: &[Edit]) -> Vec<String> {
    let mut shown: Vec<String> = edits
        .iter()
        .map(|edit| match edit {
            Edit::VirtualKey { key, digest, .. } => format!("VirtualKey({key:?}, {digest:?})"),
            other => format!("{other:?}"),
        })
        .collect();
    shown.sort();
    shown
}

fn value(name: &str) -> Secret {
    Secret::new(format!("sk-bf-{name}"))
}

/// One settled call of `key` that costs `cost` and uses two tokens.
fn spend(state: &State, key: &VirtualKey, cost: i64) {
    let snapshot = state.snapshot();
    let digest: Digest = state.hasher.digest(value(&key.name).expose().as_bytes());
    let caller = snapshot.view.caller(&digest).map(|caller| &**caller);
    let tag = CallTag {
        virtual_key: Some(Arc::clone(&key.id)),
        team: None,
        customer: None,
        provider: "openai".into(),
        model: "m".into(),
        kind: RequestKind::ChatCompletion,
        admitted_at: state.clock.now(),
        price: None,
    };
    let spend = Spend { cost: Nanos::new(cost), tokens: 2 };
    // What is held need not be what it comes to.
    let held = Spend { cost: Nanos::new(1), tokens: 2 };
    let ask = Ask {
        caller,
        config: Some(0),
        upstream_model: "m",
        usage: Usage::default(),
        spend: held,
        bound: (Usage::default(), spend),
        tag,
    };
    let mut hold = state.admit(&snapshot, ask).unwrap();
    hold.mark_sent();
    hold.settle(Ending::Completed, Usage::estimated(1, 1), spend);
}

fn limit(id: &str, measure: Measure) -> LimitKey {
    LimitKey { id: id.into(), measure }
}

fn spent(store: &Store, id: &str, measure: Measure) -> Option<i64> {
    store.balances().unwrap().get(&limit(id, measure)).map(|balance| balance.spent)
}

#[test]
fn another_key_opens_nothing() {
    let house = House::new();
    house.add("1", "one");
    let House { dir, store } = house;
    drop(store);
    let before = std::fs::read(dir.path().join("data/t.db")).unwrap();
    for wrong in ["another key of good length", "tiny"] {
        let error = open(&dir, wrong).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::WrongEncryptionKey);
        assert!(error.to_string().contains("sealed with another encryption key"), "{error}");
        assert!(!error.to_string().contains('\n') && !error.to_string().contains(wrong));
    }
    assert_eq!(std::fs::read(dir.path().join("data/t.db")).unwrap(), before);
    open(&dir, KEY).unwrap();
    assert_eq!(open(&TempDir::new(), "short").unwrap_err().kind, StoreErrorKind::WrongEncryptionKey);
}

#[test]
fn files_that_are_not_ours_are_refused_and_left_alone() {
    let check = |spoil: &dyn Fn(&Path), kind: StoreErrorKind, says: &str| {
        let house = House::new();
        let path = house.path();
        let House { dir, store } = house;
        drop(store);
        spoil(&path);
        let before = std::fs::read(&path).unwrap();
        let error = open(&dir, KEY).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(says) && !error.to_string().contains('\n'), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    let pragma = |path: &Path, pragma: &str, value: i32| {
        Connection::open(path).unwrap().pragma_update(None, pragma, value).unwrap();
    };
    check(&|path| pragma(path, "user_version", 99), StoreErrorKind::NewerSchema, "schema version 99");
    check(&|path| pragma(path, "application_id", 1), StoreErrorKind::Damaged, "not a Tollgate database");
    check(
        &|path| std::fs::write(path, "plain text, and no database").unwrap(),
        StoreErrorKind::Damaged,
        "not a database",
    );
    check(
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[100..].fill(0x55);
            std::fs::write(path, bytes).unwrap();
        },
        StoreErrorKind::Damaged,
        "malformed",
    );
}

#[test]
fn only_the_owner_can_read_the_files() {
    let house = House::new();
    house.add("1", "one");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(house.path().parent().unwrap()), 0o700);
    let mut seen = 0;
    for file in std::fs::read_dir(house.path().parent().unwrap()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
        seen += 1;
    }
    assert_eq!(seen, 3, "database, -wal and -shm");
}
