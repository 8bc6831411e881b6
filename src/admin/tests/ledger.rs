//! Calls that were open when a process died.

use super::*;
use crate::governance::view::{LimitKey, Measure};
use crate::state::counters::Cell;
use crate::state::outbox::{ChargeId, Delta, Entry};
use std::sync::Arc;

const UNRESOLVED: &str = "/api/ledger/unresolved";

/// Puts an entry into the books, as a recovery or the writer would, and what it costs on the key's budget.
fn book(house: &House, key: &Value, id: u128, ending: Ending, nanos: i64) {
    let at = house.admin.state.clock.now();
    let snapshot = house.admin.state.snapshot();
    let caller = snapshot.view.caller_by_id(text(&key["id"])).unwrap();
    let budget = LimitKey { id: text(&key["budgets"][0]["id"]).into(), measure: Measure::Money };
    let (_, start) = snapshot.tally(&caller.limits[0], at);
    let cell = Arc::new(Cell::new(budget.clone(), start, 0));
    let entry = Entry {
        id: ChargeId(id),
        tag: CallTag {
            virtual_key: Some(Arc::clone(&caller.key.id)),
            team: caller.team_id(),
            customer: caller.customer_id(),
            provider: "local".into(),
            model: "m".into(),
            kind: RequestKind::ChatCompletion,
            admitted_at: at,
            price: None,
        },
        settled_at: at,
        ending,
        usage: Usage::estimated(30, 70),
        cost: Nanos::new(nanos),
        deltas: [Delta { cell, amount: nanos }].into_iter().collect(),
        place: None,
    };
    house.admin.store.ledger().unwrap().append(&[entry]).unwrap();
    assert!(house.admin.state.credit(&budget, start, nanos));
}

async fn usage(house: &House, key: &Value) -> Value {
    house.get(&format!("{KEYS}/{}", text(&key["id"]))).await.key()["budgets"][0]["current_usage"].clone()
}

fn correct(id: u128) -> String {
    format!("/api/ledger/{id:032x}/correct")
}

#[tokio::test]
async fn what_a_dead_process_left_is_listed_and_corrected() {
    let house = House::new();
    let key = house.create(json!({"name": "k", "budget": {"max_limit": 10, "reset_duration": "1d"}})).await.key();
    assert_eq!(
        house.get(UNRESOLVED).await.good(),
        json!({"entries": [], "count": 0, "total_count": 0, "limit": 25, "offset": 0})
    );
    for id in 1..=3 {
        house.pass(1_000);
        book(&house, &key, id, Ending::Unresolved, DOLLAR);
    }
    book(&house, &key, 4, Ending::Completed, DOLLAR / 2);
    assert_eq!(usage(&house, &key).await, 3.5);
    let listed = house.get(&format!("{UNRESOLVED}?limit=2&offset=1")).await.good();
    let ids: Vec<&str> = listed["entries"].as_array().unwrap().iter().map(|entry| text(&entry["id"])).collect();
    assert_eq!(ids, [format!("{:032x}", 2), format!("{:032x}", 1)]);
    assert_eq!((&listed["count"], &listed["total_count"], &listed["offset"]), (&json!(2), &json!(3), &json!(1)));
    let entry = json!({
        "id": format!("{:032x}", 1), "admitted_at": "2023-11-14T22:13:21Z", "recovered_at": "2023-11-14T22:13:21Z",
        "virtual_key_id": key["id"], "provider": "local", "model": "m", "request_type": "chat_completion",
        "input_tokens": 30, "output_tokens": 70, "cost": 1, "corrections": 0,
    });
    assert_eq!(listed["entries"][1], entry);

    let bill = json!({"cost": 0.25, "output_tokens": 8});
    let mut corrected = entry.clone();
    (corrected["cost"], corrected["output_tokens"], corrected["corrections"]) = (json!(0.25), json!(8), json!(1));
    for _ in 0..2 {
        let reply = house.post(&correct(1), bill.clone()).await;
        assert_eq!(reply.good(), json!({"message": "Ledger entry corrected successfully", "entry": corrected}));
        assert_eq!(usage(&house, &key).await, 2.75);
    }
    assert_eq!(house.get(UNRESOLVED).await.good()["total_count"], 2);
    // It may turn out otherwise.
    assert_eq!(house.post(&correct(1), json!({"cost": 2})).await.one("entry")["corrections"], 2);
    assert_eq!(usage(&house, &key).await, 4.5);
    let log = house.get("/api/governance/audit?object_type=ledger_entry").await.good();
    assert_eq!(log["total_count"], 2);
    let first = &log["entries"][1];
    assert_eq!((&first["action"], &first["object_id"]), (&json!("corrected"), &entry["id"]));
    assert_eq!((&first["before"], &first["after"]), (&entry, &corrected));
}

#[tokio::test]
async fn only_what_can_be_corrected_is() {
    let house = House::new();
    let key = house.create(json!({"name": "k", "budget": {"max_limit": 10, "reset_duration": "1d"}})).await.key();
    book(&house, &key, 1, Ending::Unresolved, DOLLAR);
    book(&house, &key, 2, Ending::Completed, DOLLAR);
    let cost = || json!({"cost": 0});
    house.post(&correct(2), cost()).await.refused(409, "The ledger entry is not an unresolved one");
    for path in [correct(3), "/api/ledger/1/correct".into(), correct(1).replace("001/", "00A/")] {
        house.post(&path, cost()).await.refused(404, "Ledger entry not found");
    }
    for (body, param) in [
        (json!({}), "cost"),
        (json!({"cost": -1}), "cost"),
        (json!({"cost": 1e12}), "cost"),
        (json!({"cost": 1, "input_tokens": -1}), "input_tokens"),
        (json!({"cost": 1, "output_tokens": 0.5}), "output_tokens"),
    ] {
        let reply = house.post(&correct(1), body.clone()).await;
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{body}: {}", reply.text);
    }
    assert_eq!(
        (usage(&house, &key).await, house.get(UNRESOLVED).await.good()["total_count"].clone()),
        (json!(2), json!(1))
    );
}
