//! The ledger asked: pages, filters, sums and what they say of each call.

use super::books::{World, no_groups, some_calls};
use super::*;

#[test]
fn entries_come_by_page_and_filter() {
    let world = some_calls(Keep::FOREVER);
    let store = &world.house.store;
    let all = store.ledger_entries(&no_groups(), None, 100).unwrap();
    assert!(all.is_sorted_by_key(|entry| std::cmp::Reverse((entry.admitted_at, entry.id))));
    assert_eq!(all.iter().map(|entry| &*entry.model).collect::<Vec<_>>(), ["=evil", "m", "n", "m"]);
    let first = &all[3];
    assert_eq!((first.admitted_at, first.settled_at, first.cost), (at(NOW), at(NOW), Nanos::new(10)));
    assert_eq!((first.virtual_key.as_deref(), first.team.as_deref(), &first.customer), (Some("1"), Some("t"), &None));
    assert_eq!(
        (&*first.kind, &*first.ending, first.estimated, &*first.tier),
        ("chat_completion", "completed", true, "standard")
    );
    assert_eq!(first.units, [2, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = store.ledger_entries(&no_groups(), after, 3).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor { admitted_at: last.admitted_at, id: last.id });
        paged.extend(page);
    }
    assert_eq!(paged, all);
    let check = |filter: LedgerFilter, places: &[usize]| {
        let found = store.ledger_entries(&filter, None, 100).unwrap();
        let expected: Vec<_> = places.iter().map(|place| all[*place].clone()).collect();
        assert_eq!(found, expected, "{filter:?}");
        // Sums and entries select the same.
        let sums = store.ledger_sums(&filter, &[Group::Provider], 9).unwrap().unwrap();
        assert_eq!(sums.total.calls, i64::try_from(places.len()).unwrap(), "{filter:?}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(no_groups(), &[0, 1, 2, 3]);
    check(LedgerFilter { from: Some(at(NOW + 1_000)), ..no_groups() }, &[0, 1, 2]);
    check(LedgerFilter { to: Some(at(NOW + 1_000)), ..no_groups() }, &[3]);
    check(LedgerFilter { from: Some(at(NOW + 9)), to: Some(at(NOW)), ..no_groups() }, &[]);
    check(LedgerFilter { model: text("m"), ..no_groups() }, &[1, 3]);
    check(LedgerFilter { model: text("m' OR 1=1 --"), ..no_groups() }, &[]);
    check(LedgerFilter { provider: text("openai"), team: text("t"), ..no_groups() }, &[0, 1, 2, 3]);
    check(LedgerFilter { team: text("u"), ..no_groups() }, &[]);
    check(LedgerFilter { customer: text("c"), ..no_groups() }, &[]);
    check(LedgerFilter { virtual_key: text("1"), kind: text("chat_completion"), ..no_groups() }, &[0, 1, 2, 3]);
    check(LedgerFilter { kind: text("embedding"), ..no_groups() }, &[]);
    check(LedgerFilter { ending: text("completed"), model: text("n"), ..no_groups() }, &[2]);
    check(LedgerFilter { estimated: Some(false), ..no_groups() }, &[]);
    // Too many groups are none.
    assert_eq!(store.ledger_sums(&no_groups(), &[Group::Model], 2).unwrap(), None);
}

#[test]
fn a_page_follows_the_one_before_whatever_comes_in_between() {
    let mut world = World::new(Keep::FOREVER);
    // Many at the same instant: only their ids tell them apart.
    let call = |world: &mut World, early| {
        world.admit(0, 0, 1, early);
        world.settle(0, false);
        world.flush(usize::MAX);
    };
    for step in 0..30 {
        call(&mut world, [0, 0, 5][step % 3]);
    }
    let before = world.house.store.ledger_entries(&no_groups(), None, 100).unwrap();
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = world.house.store.ledger_entries(&no_groups(), after, 4).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor { admitted_at: last.admitted_at, id: last.id });
        paged.extend(page);
        // Newer ones, and one that was admitted before all and is settled late.
        world.now += 3;
        world.turn_clocks();
        call(&mut world, 0);
        if paged.len() == 8 {
            call(&mut world, 1_000);
        }
    }
    let late = paged.pop().unwrap();
    assert!(paged.iter().all(|entry| entry.admitted_at > late.admitted_at));
    assert_eq!(paged, before);
}

#[test]
fn what_is_no_token_is_told_with_its_price() {
    let mut world = some_calls(Keep::FOREVER);
    world.admit(0, 0, 9, 0);
    world.settle(0, false);
    world.finish();
    let drawn = world.house.store.ledger_entries(&no_groups(), None, 1).unwrap().remove(0);
    assert_eq!((drawn.units, drawn.other.get("searches")), ([2, 0, 0, 0, 0, 0, 0, 0, 0, 1], Some(&2)));
    assert_eq!((world.sums(&no_groups(), &[Group::Day]).total.units[9], world.verified()), (1, vec![]));
    let prices = r#"{"search_context_size_low":10000,"input_cost_per_token":500}"#;
    world.house.raw_execute(&format!("INSERT INTO ledger_prices (id, prices) VALUES (7, '{prices}')"));
    world.house.raw_execute(
        "UPDATE ledger SET price = 7, other = '{\"searches/low\":3}'
        WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
    );
    let all = world.house.store.ledger_entries(&no_groups(), None, 100).unwrap();
    let (one, plain) = (all.iter().find(|one| one.model == "n").unwrap(), &all[1]);
    assert_eq!((one.other.get("searches/low"), one.other.len(), plain.other.len()), (Some(&3), 1, 0));
    // 2 × 500 + 3 × 10,000 picos.
    let explained = LedgerEntry { cost: Nanos::new(31), ..one.clone() };
    let parts = explained.parts().unwrap();
    let told: Vec<_> = parts.iter().map(|part| (part.unit, part.count, part.rate.get())).collect();
    assert_eq!(told, [("input", 2, 500), ("searches", 3, 10_000)]);
    assert_eq!(LedgerEntry { cost: Nanos::new(30), ..explained }.parts(), None);
    assert_eq!(world.verified(), Vec::<String>::new());
    world.house.raw_execute(
        "UPDATE ledger SET other = '[]' WHERE account = (SELECT id FROM ledger_accounts WHERE model = 'n')",
    );
    let error = world.house.store.ledger_entries(&no_groups(), None, 100).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
}

#[test]
fn a_key_that_tries_names_of_models_does_not_make_the_sums_grow_without_end() {
    let mut world = World::new(Keep::FOREVER);
    world.admit(0, 0, 1, 0);
    world.settle(0, false);
    world.finish();
    let many = "INSERT INTO ledger_accounts (virtual_key_id, team_id, customer_id, provider, model)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
        SELECT '1', '', '', 'openai', 'try-' || i FROM n";
    world.house.raw_execute(many);
    let accounts = world.house.raw("SELECT count(*) FROM ledger_accounts");
    for model in [0, 1, 2] {
        world.admit(0, model, 1, 0);
        world.settle(0, false);
    }
    world.finish();
    // What was known stays itself; everything else is one.
    assert_eq!(world.house.raw("SELECT count(*) FROM ledger_accounts"), accounts + 1);
    let sums = world.sums(&no_groups(), &[Group::Model]);
    let models: Vec<_> = sums.groups.iter().map(|(key, sum)| (key[0].as_deref().unwrap(), sum.calls)).collect();
    assert_eq!(models, [("", 2), ("m", 2)]);
    // Each call still says for which model it was, and is found by it.
    let of = |model: &str| LedgerFilter { model: Some(model.to_owned()), ..no_groups() };
    for (model, calls) in [("m", 2), ("n", 1), ("=evil", 1), ("", 0), ("try-7", 0)] {
        let found = world.house.store.ledger_entries(&of(model), None, 9).unwrap();
        assert!(found.len() == calls && found.iter().all(|entry| entry.model == model), "{model}: {found:?}");
    }
    assert_eq!(world.verified(), Vec::<String>::new());
}
