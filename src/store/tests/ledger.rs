//! The ledger, its balances, and the thread that writes it.

use super::super::writer::Writer;
use super::*;
use crate::governance::edit::Restart;
use crate::state::clock::stopwatch;
use crate::telemetry::Metrics;
use std::time::Duration;

fn until(what: &str, done: impl Fn() -> bool) {
    let start = stopwatch();
    while !done() {
        assert!(crate::state::clock::since(start) < Duration::from_secs(20), "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
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
    assert_eq!(
        house.raw("SELECT sum(input + output) FROM ledger_entries WHERE estimated = 1 AND ending = 'completed'"),
        20
    );
    assert_eq!(ledger.balances().unwrap(), house.store.balances().unwrap());
}

#[test]
fn an_absurd_charge_does_not_stop_the_ledger() {
    let house = House::new();
    let mut one = key("1", "one");
    one.limits.budgets[0].max = Nanos::MAX;
    one.provider_configs.clear();
    house.apply(&[house.valued(&one, "one")]).unwrap();
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
    let one = house.add("1", "one");
    let state = house.state(&one);
    spend(&state, &one, 100);
    spend(&state, &one, 5);
    let late = state.outbox().take(9);
    house.store.ledger().unwrap().append(&late[..1]).unwrap();
    let restart = Restart { key: limit("1-b", Measure::Money), at: at(NOW + 1) };
    let edits = vec![house.changed(&one), Edit::Restart(restart.clone())];
    let commit = |_: &_, _: &_, edits: &[Edit], ()| house.apply(edits);
    state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
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
    let caller = snapshot.view.callers().next().unwrap();
    let tallies = caller.limits.iter().map(|limit| snapshot.tally(limit, at(NOW)).0.spent);
    assert_eq!(tallies.collect::<Vec<_>>(), [600, 2]);
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
    let left = writer.stop(Duration::from_secs(1)).unwrap_err();
    assert_eq!(left.unwritten, 600);
    assert!(left.reason.contains("locked"), "{left}");
}
