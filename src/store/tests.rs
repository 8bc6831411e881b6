//! One suite over a real file in a directory of its own.

use super::writer::Writer;
use super::*;
use crate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use crate::governance::time::{Span, Timestamp, Window};
use crate::governance::usage::Usage;
use crate::governance::view::{Digest, Measure};
use crate::state::clock::{Clock, stopwatch};
use crate::state::hold::Spend;
use crate::state::outbox::{CallTag, Ending};
use crate::state::{Ask, State};
use crate::telemetry::Metrics;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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

fn config(provider: &str, budgets: Vec<Budget>) -> ProviderConfig {
    ProviderConfig {
        id: 0,
        provider: provider.into(),
        weight: Some(Weight::ONE),
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec!["o1".into()]),
        key_ids: KeySet::Only(vec!["k1".into()]),
        limits: Limits { budgets, rate_limit: None },
    }
}

fn key(id: &str, name: &str) -> VirtualKey {
    VirtualKey {
        id: id.into(),
        name: name.into(),
        description: "for tests".into(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: Limits {
            budgets: vec![budget(&format!("{id}-b"), 1_000, "1h")],
            rate_limit: Some(rate(&format!("{id}-r"), Some(50_000), None)),
        },
        provider_configs: vec![config("openai", vec![budget(&format!("{id}-c"), 700, "1d")])],
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

    fn add(&self, id: &str, name: &str) -> VirtualKey {
        let mut key = key(id, name);
        self.store.insert_virtual_key(&mut key, &value(name)).unwrap();
        key
    }

    /// A state in which `key` spends.
    fn state(&self, key: &VirtualKey) -> Arc<State> {
        let (clock, _) = Clock::manual(at(NOW));
        let state = State::new(clock, self.store.hasher(), 10_000);
        let digest = self.store.hasher().digest(value(&key.name).expose().as_bytes());
        let insert = |declared: &mut crate::governance::view::Declared| {
            declared.virtual_keys.insert(Arc::clone(&key.id), (digest, Arc::new(key.clone())));
            Ok::<(), ()>(())
        };
        state.change(&self.store.balances().unwrap(), insert).unwrap();
        Arc::new(state)
    }

    fn raw(&self, sql: &str) -> i64 {
        Connection::open(self.path()).unwrap().query_row(sql, (), |row| row.get(0)).unwrap()
    }
}

fn open(dir: &TempDir, key: &str) -> Result<Store, StoreError> {
    Store::open(&dir.path().join("data/t.db"), &Secret::new(key))
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
        provider: "openai".into(),
        model: "m".into(),
        kind: RequestKind::ChatCompletion,
        admitted_at: state.clock.now(),
    };
    let spend = Spend { cost: Nanos::new(cost), tokens: 2 };
    // What is held need not be what it comes to.
    let held = Spend { cost: Nanos::new(1), tokens: 2 };
    let mut hold =
        state.admit(&snapshot, Ask { caller, config: Some(0), usage: Usage::default(), spend: held, tag }).unwrap();
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
fn a_virtual_key_comes_back_as_it_went_in() {
    let house = House::new();
    let (one, mut two) = (house.add("1", "one"), key("2", "two"));
    two.limits.rate_limit = None;
    two.limits.budgets = vec![budget("long", 9, "1M"), budget("short", 8, "1m")];
    two.limits.budgets[0].window = Window::aligned(Span::parse("1M").unwrap()).unwrap();
    two.provider_configs[0].weight = None;
    two.provider_configs[0].key_ids = KeySet::All;
    two.provider_configs[0].limits.rate_limit = Some(rate("2-cr", None, Some(3)));
    let digest = house.store.insert_virtual_key(&mut two, &value("two")).unwrap();
    two.limits.budgets.reverse();
    assert!(two.provider_configs[0].id > one.provider_configs[0].id);
    assert_eq!(digest, house.store.hasher().digest(b"sk-bf-two"));
    let house = house.reopened();
    let keys = house.store.virtual_keys().unwrap();
    assert_eq!(keys, vec![(house.store.hasher().digest(b"sk-bf-one"), one), (digest, two)]);
    let values = house.store.virtual_key_values(["1", "2", "none"]).unwrap();
    assert_eq!((values.len(), values["1"].expose(), values["2"].expose()), (2, "sk-bf-one", "sk-bf-two"));
}

#[test]
fn no_value_is_in_the_file() {
    let house = House::new();
    house.add("1", "recognisable");
    let files = std::fs::read_dir(house.path().parent().unwrap()).unwrap();
    for file in files {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(18).any(|window| window == b"sk-bf-recognisable"));
    }
}

#[test]
fn what_is_taken_is_refused_and_nothing_is_half_done() {
    let house = House::new();
    let one = house.add("1", "one");
    let check = |id: &str, name: &str, of: &str, kind: StoreErrorKind| {
        let mut other = key(id, name);
        if kind == StoreErrorKind::IdTaken && id != "1" {
            other.limits.budgets[0].id = "1-b".into();
        }
        let error = house.store.insert_virtual_key(&mut other, &value(of)).unwrap_err();
        assert_eq!((error.kind, error.is_conflict()), (kind, true), "{error}");
        assert_eq!(house.store.virtual_keys().unwrap().len(), 1);
        assert!(!error.to_string().contains("sk-bf"));
    };
    check("2", "one", "two", StoreErrorKind::NameTaken);
    check("2", "two", "one", StoreErrorKind::ValueTaken);
    check("1", "two", "two", StoreErrorKind::IdTaken);
    check("3", "two", "two", StoreErrorKind::IdTaken);
    let mut two = house.add("2", "two");
    two.name = one.name;
    assert_eq!(house.store.update_virtual_key(&mut two, &[]).unwrap_err().kind, StoreErrorKind::NameTaken);
    let error = house.store.update_virtual_key(&mut key("3", "three"), &[]).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotFound);
}

#[test]
fn an_update_replaces_the_parts_and_keeps_what_was_spent() {
    let house = House::new();
    let mut one = house.add("1", "one");
    let state = house.state(&one);
    spend(&state, &one, 100);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    one.name = "renamed".into();
    one.limits.budgets[0].max = Nanos::new(5);
    one.limits.rate_limit = Some(rate("1-r", None, Some(9)));
    one.provider_configs.push(config("anthropic", vec![]));
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    let house = house.reopened();
    assert_eq!(house.store.virtual_keys().unwrap()[0].1, one);
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(100));
    // The half that went took its balance along.
    assert_eq!(spent(&house.store, "1-r", Measure::Tokens), None);
    // Two provider configs may change places, and one that goes takes its budget along.
    let (first, second) = (one.provider_configs[0].id, one.provider_configs[1].id);
    one.provider_configs[0].id = second;
    one.provider_configs[1].id = first;
    one.provider_configs[0].limits.budgets[0].id = "fresh".into();
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    one.provider_configs.truncate(1);
    house.store.update_virtual_key(&mut one, &[]).unwrap();
    assert_eq!(house.store.virtual_keys().unwrap()[0].1, one);
    assert_eq!(spent(&house.store, "1-c", Measure::Money), None);
    one.provider_configs[0].id = 99;
    assert_eq!(house.store.update_virtual_key(&mut one, &[]).unwrap_err().kind, StoreErrorKind::NotFound);
}

#[test]
fn a_deleted_key_leaves_only_its_entries() {
    let house = House::new();
    let one = house.add("1", "one");
    house.add("2", "two");
    let state = house.state(&one);
    spend(&state, &one, 100);
    let batch = state.outbox().take(9);
    house.store.ledger().unwrap().append(&batch).unwrap();
    assert!(house.store.delete_virtual_key("1").unwrap());
    assert!(!house.store.delete_virtual_key("1").unwrap());
    assert!(house.store.balances().unwrap().is_empty());
    for (table, left) in
        [("virtual_keys", 1), ("provider_configs", 1), ("budgets", 2), ("rate_limits", 1), ("ledger", 1)]
    {
        assert_eq!(house.raw(&format!("SELECT count(*) FROM {table}")), left, "{table}");
    }
    // A call that was still in flight when its key went: its balance is gone after the next start.
    spend(&state, &one, 50);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    let house = house.reopened();
    assert!(house.store.balances().unwrap().is_empty());
    assert_eq!(house.raw("SELECT sum(cost_nanos) FROM ledger"), 150);
}

#[test]
fn a_batch_counts_once_however_often_it_comes() {
    let house = House::new();
    let one = house.add("1", "one");
    let state = house.state(&one);
    (1..=10).for_each(|cost| spend(&state, &one, cost));
    let batch = state.outbox().take(99);
    let mut ledger = house.store.ledger().unwrap();
    assert_eq!(ledger.append(&batch[..4]).unwrap(), 4);
    // The writer died between the commit and the report of it.
    drop(ledger);
    let house = house.reopened();
    let mut ledger = house.store.ledger().unwrap();
    assert_eq!(ledger.append(&batch).unwrap(), 6);
    assert_eq!(ledger.append(&batch).unwrap(), 0);
    let check = |id, measure, amount| assert_eq!(spent(&house.store, id, measure), Some(amount));
    check("1-b", Measure::Money, 55);
    check("1-c", Measure::Money, 55);
    check("1-r", Measure::Tokens, 20);
    assert_eq!(house.raw("SELECT sum(cost_nanos) FROM ledger"), 55);
    assert_eq!(house.raw("SELECT sum(input + output) FROM ledger WHERE estimated = 1 AND ending = 'completed'"), 20);
    assert_eq!(ledger.balances().unwrap(), house.store.balances().unwrap());
}

#[test]
fn an_absurd_charge_does_not_stop_the_ledger() {
    let house = House::new();
    let mut one = key("1", "one");
    one.limits.budgets[0].max = Nanos::MAX;
    one.provider_configs.clear();
    house.store.insert_virtual_key(&mut one, &value("one")).unwrap();
    let state = house.state(&one);
    spend(&state, &one, i64::MAX - 1);
    spend(&state, &one, 7);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(i64::MAX));
}

#[test]
fn the_latest_window_is_the_balance_and_old_ones_go() {
    let house = House::new();
    let one = house.add("1", "one");
    let mut ledger = house.store.ledger().unwrap();
    let hour = 3_600_000;
    // Windows in and out of order: the call of the first hour ends late.
    let states: Vec<_> = (0..4).map(|n| (n, house.state(&one))).collect();
    let batches = states.iter().map(|(n, state)| {
        if let Clock::Manual(hand) = &state.clock {
            hand.store(NOW + n * hour, std::sync::atomic::Ordering::SeqCst);
        }
        spend(state, &one, 10 + n);
        state.outbox().take(9)
    });
    let batches: Vec<_> = batches.collect();
    for n in [1, 2, 3, 0] {
        ledger.append(&batches[n]).unwrap();
    }
    let balance = house.store.balances().unwrap()[&limit("1-b", Measure::Money)];
    assert_eq!((balance.start, balance.spent), (at(NOW + 3 * hour), 13));
    assert_eq!(house.raw("SELECT count(*) FROM balances WHERE limit_id = '1-b'"), 2);
    assert_eq!(house.raw("SELECT spent FROM balances WHERE limit_id = '1-c'"), 10 + 11 + 12 + 13);
}

#[test]
fn a_restarted_limit_begins_with_nothing_and_stays_so() {
    let house = House::new();
    let mut one = house.add("1", "one");
    let state = house.state(&one);
    spend(&state, &one, 100);
    spend(&state, &one, 5);
    let late = state.outbox().take(9);
    house.store.ledger().unwrap().append(&late[..1]).unwrap();
    let restart = Restart { key: limit("1-b", Measure::Money), at: at(NOW + 1) };
    house.store.update_virtual_key(&mut one, std::slice::from_ref(&restart)).unwrap();
    state.restart(&restart.key, restart.at);
    house.store.ledger().unwrap().append(&late).unwrap();
    spend(&state, &one, 3);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    let house = house.reopened();
    assert_eq!(house.store.balances().unwrap()[&restart.key], Balance { start: restart.at, spent: 3 });
    assert_eq!(spent(&house.store, "1-c", Measure::Money), Some(108));
}

#[test]
fn spending_survives_a_restart_of_the_process() {
    let house = House::new();
    let one = house.add("1", "one");
    let state = house.state(&one);
    spend(&state, &one, 600);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    let house = house.reopened();
    let state = house.state(&one);
    let snapshot = state.snapshot();
    let caller = snapshot.view.callers().next().unwrap().1;
    let tallies = caller.limits.iter().map(|limit| snapshot.tally(limit, at(NOW)).0.spent);
    assert_eq!(tallies.collect::<Vec<_>>(), [600, 2]);
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

fn until(what: &str, done: impl Fn() -> bool) {
    let start = stopwatch();
    while !done() {
        assert!(crate::state::clock::since(start) < Duration::from_secs(20), "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_locked_database_loses_nothing() {
    let house = House::new();
    let one = house.add("1", "one");
    let state = house.state(&one);
    let metrics = Metrics::new();
    let ledger = house.store.ledger().unwrap();
    let writer = Writer::start(Arc::clone(state.outbox()), ledger, metrics.clone(), state.clock.clone(), None).unwrap();
    let intruder = Connection::open(house.path()).unwrap();
    intruder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..300).for_each(|_| spend(&state, &one, 1));
    until("the writer fails", || writer.health().failing().is_some());
    let failing = writer.health().failing().unwrap();
    assert_eq!(failing.since, at(NOW));
    assert!(failing.error.contains("locked"), "{}", failing.error);
    (0..300).for_each(|_| spend(&state, &one, 1));
    assert_eq!(state.outbox().unwritten(), 600);
    intruder.execute_batch("ROLLBACK").unwrap();
    until("the writer recovers", || state.outbox().unwritten() == 0 && writer.health().failing().is_none());
    (0..100).for_each(|_| spend(&state, &one, 1));
    writer.stop(Duration::from_secs(5)).unwrap();
    assert_eq!(spent(&house.store, "1-c", Measure::Money), Some(700));
    assert_eq!(house.raw("SELECT count(*) FROM ledger"), 700);
    assert_eq!((metrics.ledger_written.get(), metrics.ledger_unwritten.get(), metrics.open_holds.get()), (700, 0, 0));
    assert!(metrics.ledger_failures.get() > 0);
}

#[test]
fn a_writer_that_cannot_flush_says_so() {
    let house = House::new();
    let one = house.add("1", "one");
    let state = house.state(&one);
    let ledger = house.store.ledger().unwrap();
    let writer = Writer::start(Arc::clone(state.outbox()), ledger, Metrics::new(), state.clock.clone(), None).unwrap();
    let intruder = Connection::open(house.path()).unwrap();
    intruder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    (0..600).for_each(|_| spend(&state, &one, 1));
    let left = writer.stop(Duration::from_millis(50)).unwrap_err();
    assert_eq!(left.unwritten, 600);
    assert!(left.reason.contains("locked"), "{left}");
}

#[test]
fn the_file_is_applied_when_its_own_entry_changed() {
    let house = House::new();
    house.add("api", "made by the api");
    let apply = |body: serde_json::Value, hash: &str| {
        let report = house.store.apply_declared(vec![(body, hash.to_owned())], at(NOW)).unwrap();
        let keys = house.store.virtual_keys().unwrap();
        assert_eq!(keys.len(), 2);
        (report, keys.into_iter().find(|(_, key)| &*key.id != "api").unwrap())
    };
    let body = |max: i64, more: &str| {
        serde_json::json!({"name": "ci", "description": more,
            "budgets": [{"max_limit": max, "reset_duration": "1d"}, {"max_limit": 1, "reset_duration": "1h"}],
            "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "key_ids": ["*"],
                "budget": {"max_limit": 3, "reset_duration": "1d"}}]})
    };
    let (report, (digest, first)) = apply(body(10, ""), "h1");
    assert_eq!((report.created, report.updated.len(), report.kept), (vec!["ci".to_owned()], 0, 0));
    let value = |id: &str| house.store.virtual_key_values([id]).unwrap()[id].expose().to_owned();
    let made = value(&first.id);
    assert!(made.starts_with("sk-bf-"));
    // An edit through the API stays until the file's entry changes.
    let mut edited = first.clone();
    edited.description = "edited".into();
    house.store.update_virtual_key(&mut edited, &[]).unwrap();
    let (report, (_, kept)) = apply(body(10, ""), "h1");
    assert_eq!((report.kept, &*kept.description), (1, "edited"));
    let (report, (same, changed)) = apply(body(20, "by the file"), "h2");
    assert_eq!((report.updated, &*changed.description), (vec!["ci".to_owned()], "by the file"));
    let ids = |key: &VirtualKey| -> Vec<Arc<str>> { key.all_budgets().map(|budget| Arc::clone(&budget.id)).collect() };
    assert_eq!((same, ids(&changed), &changed.id), (digest, ids(&first), &first.id));
    assert_eq!(changed.provider_configs[0].id, first.provider_configs[0].id);
    assert_eq!(changed.limits.budgets[1].max, Nanos::new(20_000_000_000));
    // The value stays unless the file brings one.
    assert_eq!(value(&first.id), made);
    let mut own = body(20, "");
    own["value"] = "sk-bf-own".into();
    own["id"] = (*first.id).into();
    own["name"] = "renamed".into();
    own["budgets"][0]["calendar_aligned"] = true.into();
    let (report, (digest, renamed)) = apply(own, "h3");
    assert_eq!((value(&first.id), digest), ("sk-bf-own".to_owned(), house.store.hasher().digest(b"sk-bf-own")));
    assert_eq!((&*renamed.name, ids(&renamed)), ("renamed", ids(&first)));
    let restarted = LimitKey { id: Arc::clone(&first.limits.budgets[1].id), measure: Measure::Money };
    assert_eq!(report.restarts, [Restart { key: restarted, at: at(NOW) }]);
}

#[test]
fn a_file_that_clashes_changes_nothing() {
    let house = House::new();
    house.add("1", "one");
    let fresh = serde_json::json!({"name": "fresh"});
    let clash = serde_json::json!({"name": "other", "value": "sk-bf-one"});
    let declared = vec![(fresh, "a".to_owned()), (clash, "b".to_owned())];
    let error = house.store.apply_declared(declared, at(NOW)).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::ValueTaken);
    assert_eq!(house.store.virtual_keys().unwrap().len(), 1);
}
