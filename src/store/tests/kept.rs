//! What the ledger forgets, and what it finds when it is checked.

use super::books::{DAY, HOUR, World, no_groups, some_calls};
use super::*;

#[test]
fn what_is_too_old_goes_and_the_sums_stay() {
    let keep = Keep { entries: Some(2 * DAY), hours: Some(4 * DAY) };
    let mut world = some_calls(keep);
    for _ in 0..30 {
        world.admit(0, 0, 3, 0);
        world.settle(0, false);
    }
    world.finish();
    let (before, hours) = (world.sums(&no_groups(), &[Group::Day]), world.sums(&no_groups(), &[Group::Hour]));
    let rows = |world: &World| {
        ["ledger", "ledger_hours", "ledger_days"].map(|table| world.house.raw(&format!("SELECT count(*) FROM {table}")))
    };
    assert_eq!(rows(&world), [34, 4, 4]);
    world.tidy();
    assert_eq!(rows(&world), [34, 4, 4]);
    // Only the last hour's are left.
    world.now += 2 * DAY - HOUR / 2;
    world.tidy();
    assert_eq!(rows(&world), [31, 4, 4]);
    world.now += 2 * HOUR;
    world.tidy();
    assert_eq!(rows(&world), [0, 4, 4]);
    assert_eq!(world.sums(&no_groups(), &[Group::Hour]), hours);
    let report = verify(&world.house.path()).unwrap();
    assert_eq!((report.mismatches, report.hours_since), (vec![], None));
    assert!(report.entries_since.is_some_and(|since| since > at(NOW + HOUR)));
    // What takes entries to answer says what it lacks.
    let estimated = LedgerFilter { estimated: Some(true), ..no_groups() };
    assert_eq!(world.sums(&estimated, &[Group::Day]).complete_from, report.entries_since);
    world.now += 3 * DAY;
    world.tidy();
    assert_eq!(rows(&world), [0, 0, 4]);
    assert_eq!(world.sums(&no_groups(), &[Group::Day]), before);
    assert!(world.sums(&no_groups(), &[Group::Hour]).complete_from.is_some());
    assert_eq!(world.verified(), Vec::<String>::new());
}

#[test]
fn a_clock_that_leaps_ahead_makes_nothing_old_for_a_week() {
    let mut world = some_calls(Keep { entries: Some(2 * DAY), hours: Some(4 * DAY) });
    let entries = |world: &World| world.house.raw("SELECT count(*) FROM ledger");
    let start = world.now;
    // (what the clock says, in days, and how many entries are left then)
    let check = |world: &mut World, steps: &[(i64, i64)]| {
        for &(day, left) in steps {
            world.now = start + day * DAY;
            world.tidy();
            assert_eq!(entries(world), left, "on day {day} of {steps:?}");
        }
    };
    // Ten years ahead, and back in time: nothing is lost. Then ahead, and further ahead: each time for a week.
    check(&mut world, &[(0, 4), (3_650, 4), (3_654, 4), (1, 4), (400, 4), (406, 4), (3_650, 4), (3_656, 4), (1, 4)]);
    // Calls that come meanwhile are no witnesses.
    world.now = start + 1_000 * DAY;
    world.turn_clocks();
    world.admit(0, 0, 1, 0);
    world.settle(0, false);
    world.finish();
    check(&mut world, &[(1_000, 5), (1_006, 5)]);
    // A machine that was off for so long has the right time.
    check(&mut world, &[(1_008, 0)]);
    assert_eq!(world.verified(), Vec::<String>::new());
    // What is less than a week ahead is believed at once, as every day.
    let mut world = some_calls(Keep { entries: Some(2 * DAY), hours: None });
    let start = world.now;
    world.tidy();
    world.now = start + 6 * DAY;
    world.tidy();
    assert_eq!(entries(&world), 0);
    // A ledger that was never looked through believes its latest call.
    let mut world = some_calls(Keep { entries: Some(2 * DAY), hours: None });
    world.now += 30 * DAY;
    world.tidy();
    assert_eq!(entries(&world), 4);
}

#[test]
fn every_tampering_is_found() {
    let check = |sql: &str, says: &[&str]| {
        let world = some_calls(Keep::FOREVER);
        assert_eq!(world.verified(), Vec::<String>::new());
        world.house.raw_execute(sql);
        let found = world.verified();
        assert!(!found.is_empty(), "{sql}");
        for words in says {
            assert!(found.iter().any(|line| line.contains(words)), "{words} in {found:#?}");
        }
        assert!(found.iter().all(|line| !line.contains('\n')));
    };
    check(
        "UPDATE balances SET spent = spent - 1 WHERE limit_id = '1-c'",
        &[
            "budget 1-c (money), window from 2023-11-14T22:13:20Z: the balance is 0.000000039 dollars, and entries come to 0.00000004 dollars",
        ],
    );
    check(
        "UPDATE balances SET spent = spent + 1 WHERE limit_id = '1-r' AND measure = 'tokens'",
        &["rate limit 1-r (tokens)"],
    );
    check(
        "DELETE FROM ledger WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
        &["budget 1-c (money)", "1-r (requests)", "hour 2023-11-14T22:00:00Z"],
    );
    check(
        "UPDATE ledger SET cost_nanos = 11 WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
        &["budget 1-c", "hour 2023-11-14T22:00:00Z"],
    );
    check(
        "UPDATE ledger SET input = 3 WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
        &["1-r (tokens)", "tokens differ"],
    );
    check(
        "DELETE FROM ledger_hours WHERE at = 1699999200000",
        &["hour 2023-11-14T22:00:00Z", "there is no sum", "day 2023-11-14"],
    );
    check("UPDATE ledger_days SET cost_nanos = 0", &["day 2023-11-14T00:00:00Z"]);
    check("DELETE FROM ledger_charges", &["it names a charge that is not there"]);
    check(
        "DELETE FROM balances WHERE limit_id = '1-c'",
        &["budget 1-c (money): it has no balance, and 4 entries were charged to it"],
    );
    check(
        "UPDATE ledger_hours SET calls = calls + 1 WHERE at = 1699999200000",
        &[
            "hour 2023-11-14T22:00:00Z, virtual key 1, openai, \"m\": the sum is 3 calls and 0.00000002 dollars, and entries come to 2 and 0.00000002",
        ],
    );
    check(
        "INSERT INTO ledger_days SELECT at + 86400000, account, 1, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7 FROM ledger_days LIMIT 1",
        &["day 2023-11-15T00:00:00Z", "come to 0 and 0"],
    );
    check(
        "UPDATE ledger SET admitted_at = admitted_at + 3600000 WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
        &["hour 2023-11-14T22:00:00Z", "hour 2023-11-14T23:00:00Z"],
    );
    check(
        "UPDATE ledger SET account = 99 WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
        &["it names an account that is not there"],
    );
    check("UPDATE balances SET carried = 1 WHERE limit_id = '1-m'", &["budget 1-m (money)"]);
}

#[test]
fn an_older_database_is_checked_from_its_upgrade_on() {
    let mut world = some_calls(Keep::FOREVER);
    // As the upgrade leaves it: nobody knows what former entries were charged to.
    world.house.raw_execute("UPDATE ledger SET charged = NULL");
    world.house.raw_execute("UPDATE balances SET carried = spent");
    world.admit(0, 0, 3, 0);
    world.settle(0, false);
    world.finish();
    assert_eq!(world.verified(), Vec::<String>::new());
    world.house.raw_execute("UPDATE balances SET spent = spent + 1 WHERE limit_id = '1-c'");
    assert_eq!(world.verified().len(), 1);
}
