//! The audit log and the answers kept for requests that come again.

use super::*;
use crate::store::sqlite::{audit, replay};
use serde_json::json;

fn line(object_type: &'static str, id: &str) -> AuditLine {
    AuditLine {
        action: "update",
        object_type,
        object_id: id.into(),
        object_name: Some(format!("{id}'s name")),
        before: Some(json!({"a": 1})),
        after: None,
    }
}

fn query(object_type: Option<&str>, object_id: Option<&str>, limit: usize, offset: usize) -> AuditQuery {
    AuditQuery { object_type: object_type.map(str::to_owned), object_id: object_id.map(str::to_owned), limit, offset }
}

#[test]
fn the_log_is_read_in_pages_newest_first() {
    let house = House::new();
    for n in 0..5 {
        let audit = vec![line("team", &n.to_string()), line("customer", &n.to_string())];
        let actor = format!("basic:{n}");
        house.store.apply(&[], &Record { actor, at: at(NOW + n), audit, replay: None }).unwrap();
    }
    let check = |query: AuditQuery, ids: &[i64], total: usize| {
        let (entries, of) = house.store.audit(&query).unwrap();
        assert_eq!((entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), of), (ids.to_vec(), total), "{query:?}");
    };
    check(query(None, None, 3, 0), &[10, 9, 8], 10);
    check(query(None, None, 3, 8), &[2, 1], 10);
    check(query(None, None, 3, 99), &[], 10);
    check(query(None, None, 0, 0), &[], 10);
    check(query(None, None, usize::MAX, usize::MAX), &[], 10);
    check(query(Some("team"), None, 2, 1), &[7, 5], 5);
    check(query(None, Some("3"), 9, 0), &[8, 7], 2);
    check(query(Some("customer"), Some("3"), 9, 0), &[8], 1);
    check(query(Some("provider"), None, 9, 0), &[], 0);
    let (entries, _) = house.store.audit(&query(Some("team"), Some("4"), 1, 0)).unwrap();
    let expected = AuditEntry {
        id: 9,
        at: at(NOW + 4),
        actor: "basic:4".into(),
        action: "update".into(),
        object_type: "team".into(),
        object_id: "4".into(),
        object_name: Some("4's name".into()),
        before: Some(json!({"a": 1})),
        after: None,
    };
    assert_eq!(entries, [expected]);
}

#[test]
fn the_oldest_lines_go() {
    let house = House::new();
    house.raw_execute(&format!(
        "INSERT INTO audit (at, actor, action, object_type, object_id)
         WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < {})
         SELECT n, 'x', 'x', 'x', 'x' FROM n",
        audit::LINES_MAX
    ));
    house.store.apply(&[], &Record { audit: vec![line("team", "t"), line("team", "t")], ..record() }).unwrap();
    assert_eq!(house.raw("SELECT count(*) FROM audit"), audit::LINES_MAX);
    assert_eq!((house.raw("SELECT min(at) FROM audit"), house.raw("SELECT max(at) FROM audit")), (3, NOW));
}

fn answer(key: &str) -> NewReplay {
    let body = Secret::new(format!("body of {key}"));
    NewReplay { key: key.into(), fingerprint: [7; 32], status: 201, body, virtual_key: None }
}

fn keep(house: &House, key: &str, at: Timestamp) -> Result<(), StoreError> {
    house.store.apply(&[], &Record { at, replay: Some(answer(key)), ..record() })
}

#[test]
fn an_answer_is_kept_for_a_day() {
    let house = House::new();
    keep(&house, "a", at(NOW)).unwrap();
    let house = house.reopened();
    let kept = Replay { fingerprint: [7; 32], status: 201, body: Secret::new("body of a") };
    let check = |key: &str, now: i64, is_there: bool| {
        assert_eq!(house.store.replay(key, at(now)).unwrap(), is_there.then(|| kept.clone()), "{key} {now}");
    };
    check("a", NOW, true);
    check("b", NOW, false);
    check("a", NOW + replay::KEPT_MS - 1, true);
    check("a", NOW + replay::KEPT_MS, false);
    // The same request twice at once: it is done once.
    let error = keep(&house, "a", at(NOW + 1)).unwrap_err();
    assert_eq!((error.kind, error.is_conflict()), (StoreErrorKind::ReplayTaken, true));
    assert!(!error.to_string().contains("body"), "{error}");
    // A change without an answer forgets old ones, too.
    house.store.apply(&[], &Record { at: at(NOW + replay::KEPT_MS), ..record() }).unwrap();
    assert_eq!(house.raw("SELECT count(*) FROM replays"), 0);
    keep(&house, "a", at(NOW + replay::KEPT_MS)).unwrap();
}

#[test]
fn lines_that_cannot_be_read_are_lines_all_the_same() {
    let house = House::new();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    house.raw_execute(&format!(
        "INSERT INTO audit (at, actor, action, object_type, object_id, \"before\", \"after\")
         VALUES (1, 'x', 'updated', 'team', 't', '{deep}', '{{\"a\": 1}}'), (1, 'x', 'updated', 'team', 't', '{{', NULL)"
    ));
    let (entries, total) = house.store.audit(&query(None, None, 9, 0)).unwrap();
    let said: Vec<_> = entries.iter().map(|entry| (&entry.before, &entry.after)).collect();
    assert_eq!((total, said), (2, vec![(&None, &None), (&None, &Some(json!({"a": 1})))]));
}

#[test]
fn the_oldest_answers_go() {
    let house = House::new();
    house.raw_execute(&format!(
        "INSERT INTO replays (key, fingerprint, status, sealed, at)
         WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < {})
         SELECT 'key ' || n, zeroblob(32), 200, x'', {NOW} + n FROM n",
        replay::ANSWERS_MAX
    ));
    keep(&house, "a", at(NOW + 99_999)).unwrap();
    assert_eq!(house.raw("SELECT count(*) FROM replays"), replay::ANSWERS_MAX);
    assert_eq!(house.raw("SELECT count(*) FROM replays WHERE key IN ('a', 'key 1')"), 1);
    // An answer whose row is damaged is not given.
    let error = house.store.replay("key 2", at(NOW)).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged);
}
