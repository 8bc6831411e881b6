//! Databases of former versions.

use super::*;
use crate::state::outbox::ChargeId;

const FIRST: &str = include_str!("../sqlite/0001_first.sql");

/// What the first version wrote, by table: all columns of it.
const FORMER: [(&str, &str); 7] = [
    ("meta", "name, value"),
    (
        "virtual_keys",
        "id, name, description, digest, sealed, is_active, mcp_configs, config_hash, created_at, updated_at",
    ),
    ("provider_configs", "id, virtual_key_id, provider, weight, allowed_models, blacklisted_models, key_ids"),
    (
        "budgets",
        "id, owner_type, owner_id, max_nanos, reset_duration, calendar_aligned, anchor, created_at, updated_at",
    ),
    (
        "rate_limits",
        "id, owner_type, owner_id, tokens_max, tokens_reset, tokens_anchor, requests_max, requests_reset,
         requests_anchor, created_at, updated_at",
    ),
    (
        "ledger",
        "id, admitted_at, settled_at, virtual_key_id, provider, model, kind, ending, estimated, tier, input, cache_read,
         cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output, cost_nanos",
    ),
    ("balances", "limit_id, measure, window_start, spent"),
];

/// Where the columns of a former table are now.
fn shown_as(file: &Connection, table: &'static str) -> &'static str {
    let is_view = "SELECT count(*) FROM pragma_table_list WHERE name = 'ledger_entries'";
    let entries: i64 = file.query_row(is_view, (), |row| row.get(0)).unwrap();
    if table == "ledger" && entries > 0 { "ledger_entries" } else { table }
}

/// All values of the former tables, as text.
fn content(path: &Path) -> Vec<String> {
    let file = Connection::open(path).unwrap();
    let mut content = Vec::new();
    for (table, columns) in FORMER {
        let quoted: Vec<String> = columns.split(',').map(|column| format!("quote({column})")).collect();
        let from = shown_as(&file, table);
        let sql = format!("SELECT '{table} ' || concat_ws(', ', {}) FROM {from}", quoted.join(", "));
        let mut rows = file.prepare(&sql).unwrap();
        content.extend(rows.query_map((), |row| row.get(0)).unwrap().map(|row| row.unwrap()));
    }
    content.sort();
    content
}

/// Writes what is in `house` as the first version would have.
fn former(house: House) -> TempDir {
    let (path, new) = (house.dir.path().join("data/old.db"), house.path());
    let House { dir, store } = house;
    drop(store);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(FIRST).unwrap();
    old.pragma_update(None, "application_id", 0x544f_4c4c).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute("ATTACH ?1 AS new", [new.to_string_lossy()]).unwrap();
    for (table, columns) in FORMER {
        let from = if table == "ledger" { "ledger_entries" } else { table };
        old.execute(&format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{from}"), ()).unwrap();
    }
    old.close().unwrap();
    std::fs::rename(path, new).unwrap();
    dir
}

/// Writes what is in `house` as the third version would have: all tables of it, from what is called the same now.
fn third(house: House) -> TempDir {
    let (path, new) = (house.dir.path().join("data/old.db"), house.path());
    let House { dir, store } = house;
    drop(store);
    let old = Connection::open(&path).unwrap();
    for step in [FIRST, include_str!("../sqlite/0002_governance.sql"), include_str!("../sqlite/0003_journal.sql")] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "application_id", 0x544f_4c4c).unwrap();
    old.pragma_update(None, "user_version", 3).unwrap();
    old.pragma_update(None, "foreign_keys", false).unwrap();
    old.execute("ATTACH ?1 AS new", [new.to_string_lossy()]).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut rows = old.prepare(sql).unwrap();
        rows.query_map((), |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect()
    };
    let tables = texts("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'");
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let columns = texts(&format!("SELECT name FROM pragma_table_info('{table}', 'main')")).join(", ");
        let from = match &*table {
            "ledger" => "new.ledger_entries".to_owned(),
            "unresolved_windows" => {
                "(SELECT *, id AS entry_id FROM new.unresolved_windows JOIN new.ledger_entries ON number = entry)"
                    .to_owned()
            }
            other => format!("new.{other}"),
        };
        old.execute_batch(&format!(
            "DELETE FROM main.{table}; INSERT INTO main.{table} ({columns}) SELECT {columns} FROM {from}"
        ))
        .unwrap();
    }
    old.close().unwrap();
    std::fs::rename(path, new).unwrap();
    dir
}

#[test]
fn every_entry_of_the_third_version_comes_through() {
    let house = House::new();
    let one = house.add("1", "one");
    // Ids of several processes, with every byte in use, among them what the low part holds and does not hold.
    let ids = [1, 0xff_ffff_ffff, 1 << 40, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, u128::MAX - (9 << 40)];
    let endings = [Ending::Unresolved, Ending::Completed, Ending::ClientGone, Ending::Unresolved, Ending::TimedOut];
    let state = house.state(&one);
    (0..ids.len()).for_each(|_| spend(&state, &one, 100));
    let mut batch = state.outbox().take(99);
    for (place, (entry, id)) in batch.iter_mut().zip(ids).enumerate() {
        entry.id = ChargeId(id);
        entry.ending = endings[place % endings.len()];
        entry.settled_at = at(NOW + 7 * i64::try_from(place).unwrap());
        entry.tag.model = format!("model {place}").into();
        entry.usage.input = 300 + u64::try_from(place).unwrap();
    }
    house.store.ledger().unwrap().append(&batch).unwrap();
    let actual = Actual { input: Some(1), output: None, cost: Nanos::new(50) };
    let correct = |house: &House, id: u128, own: u128| {
        house.store.correct((ChargeId(id), ChargeId(own)), &actual, at(NOW + 99), |_, _| record()).unwrap().1
    };
    let corrected = correct(&house, u128::MAX, 77);
    let all = |house: &House| {
        let mut all = house.store.ledger_entries(&LedgerFilter::default(), None, 99).unwrap();
        all.sort_by_key(|entry| entry.id);
        all
    };
    let before = all(&house);
    assert_eq!((before.len(), before[1].corrects), (7, Some(u128::MAX)));
    let dir = third(house);
    let house = House { store: open(&dir, KEY).unwrap(), dir };
    let mut after = all(&house);
    for entry in &mut after {
        assert_eq!((&entry.team, &entry.customer, &entry.price), (&None, &None, &None));
    }
    assert_eq!(after, before);
    assert_eq!(verify(&house.path()).unwrap().mismatches, Vec::<String>::new());
    // What comes again is known, and what is open can still be corrected, in its windows.
    assert_eq!(house.store.ledger().unwrap().append(&batch).unwrap(), 0);
    assert_eq!(house.store.unresolved(9, 0).unwrap().1, 2);
    assert_eq!(correct(&house, u128::MAX, 78), corrected);
    let spent_before = spent(&house.store, "1-b", Measure::Money);
    correct(&house, 1, 79);
    assert_eq!(spent(&house.store, "1-b", Measure::Money), spent_before.map(|spent| spent - 50));
    assert_eq!(verify(&house.path()).unwrap().mismatches, Vec::<String>::new());
}

/// The indexes and triggers, as they were written.
fn schema(path: &Path) -> Vec<String> {
    let file = Connection::open(path).unwrap();
    let sql = "SELECT sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql <> ''";
    let mut rows = file.prepare(sql).unwrap();
    let mut schema: Vec<String> = rows.query_map((), |row| row.get(0)).unwrap().map(|row| row.unwrap()).collect();
    schema.sort();
    schema
}

#[test]
fn a_database_of_the_first_version_comes_through() {
    let house = House::new();
    let (one, two) = (house.add("1", "one"), house.add("2", "two"));
    let state = house.state(&one);
    spend(&state, &one, 100);
    house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    // An id that was given and is free: it must not be given again.
    let three = VirtualKey { provider_configs: vec![config(77, "openai", vec![])], ..key("3", "three") };
    house.apply(&[house.valued(&three, "three")]).unwrap();
    let dir = former(house);
    let path = dir.path().join("data/t.db");
    Connection::open(&path).unwrap().execute("DELETE FROM virtual_keys WHERE id = '3'", ()).unwrap();
    let (before, copy) = (content(&path), dir.path().join("data/t.db.backup-v1"));
    assert!(before.len() > 10 && !copy.exists());
    let house = House { store: open(&dir, KEY).unwrap(), dir };
    assert_eq!(content(&path), before);
    assert_eq!(content(&copy), before);
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(house.keys(), [one.clone(), two]);
    assert_eq!(house.store.virtual_key_values(["1"]).unwrap()["1"].expose(), "sk-bf-one");
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(100));
    assert_eq!(spent(&house.store, "1-r", Measure::Tokens), Some(2));
    assert_eq!(house.store.load().unwrap().highest_config_id, 77);
    // The tables that were built anew are kept in order as before.
    let (was, is) = (schema(&copy), schema(&path));
    assert!(was.len() == 7 && was.iter().all(|part| is.contains(part)), "{was:#?} {is:#?}");
    house.apply(&[Edit::RemoveVirtualKey("1".into()), Edit::RemoveVirtualKey("2".into())]).unwrap();
    let left: Vec<_> = house.rows().into_iter().filter(|(_, rows)| *rows > 0).collect();
    assert_eq!(left, [("ledger", 1)]);
    // And once more: nothing is copied.
    let house = house.reopened();
    assert_eq!(std::fs::read_dir(house.path().parent().unwrap()).unwrap().count(), 4);
}
