//! Databases of former versions.

use super::*;

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

/// All values of the former tables, as text.
fn content(path: &Path) -> Vec<String> {
    let file = Connection::open(path).unwrap();
    let mut content = Vec::new();
    for (table, columns) in FORMER {
        let quoted: Vec<String> = columns.split(',').map(|column| format!("quote({column})")).collect();
        let sql = format!("SELECT '{table} ' || concat_ws(', ', {}) FROM {table}", quoted.join(", "));
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
        old.execute(&format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}"), ()).unwrap();
    }
    old.close().unwrap();
    std::fs::rename(path, new).unwrap();
    dir
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
