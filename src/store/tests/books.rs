//! The ledger asked, shortened, checked, copied: whatever happens to it, what it says stays true.

use super::*;
use crate::governance::edit::Restart;
use crate::state::hold::Hold;
use crate::state::outbox::ChargeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const MODELS: [&str; 3] = ["m", "n", "=evil"];

fn no_groups() -> LedgerFilter {
    LedgerFilter::default()
}

/// A call of which the books were told.
#[derive(Debug, Clone, Copy)]
struct Known {
    at: Timestamp,
    model: &'static str,
    cost: i64,
}

/// A gateway, and perhaps its predecessor that does not hear of changes, over one database.
pub(super) struct World {
    pub(super) house: House,
    key: VirtualKey,
    states: Vec<Arc<State>>,
    now: i64,
    open: Vec<(Hold, Known)>,
    /// Settled, and in some outbox.
    waiting: usize,
    known: Vec<Known>,
    /// Of those, the ones that a process left open, with their places.
    unresolved: Vec<(ChargeId, usize)>,
    pub(super) ledger: Box<dyn Ledger>,
    keep: Keep,
}

fn ample() -> VirtualKey {
    let mut key = key("1", "one");
    let aligned = Window::aligned(Span::parse("1d").unwrap()).unwrap();
    key.limits.budgets[0].max = Nanos::new(i64::MAX / 4);
    let month = Budget { window: aligned, ..budget("1-m", i64::MAX / 4, "1d") };
    key.limits.budgets.push(month);
    key.limits.rate_limit = Some(Box::new(rate("1-r", Some(i64::MAX / 4), Some(i64::MAX / 4))));
    key.provider_configs[0].limits.budgets = vec![budget("1-c", i64::MAX / 4, "1w")];
    key
}

impl World {
    fn new(keep: Keep) -> World {
        let house = House::new();
        let key = ample();
        house.apply(&[house.valued(&key, "one")]).unwrap();
        let ledger = house.store.ledger_keeping(keep).unwrap();
        let states = vec![house.state(&key)];
        World {
            house,
            key,
            states,
            now: NOW,
            open: vec![],
            waiting: 0,
            known: vec![],
            unresolved: vec![],
            ledger,
            keep,
        }
    }

    fn turn_clocks(&self) {
        for state in &self.states {
            if let Clock::Manual(hand) = &state.clock {
                hand.store(self.now, Ordering::SeqCst);
            }
        }
    }

    /// A call that arrived `early` milliseconds before it was admitted.
    fn admit(&mut self, which: usize, model: usize, cost: i64, early: i64) {
        let state = Arc::clone(&self.states[which % self.states.len()]);
        let snapshot = state.snapshot();
        let digest = state.hasher.digest(value("one").expose().as_bytes());
        let Some(caller) = snapshot.view.caller(&digest) else { return };
        let known = Known { at: at(self.now - early), model: MODELS[model % 3], cost };
        let tag = CallTag {
            virtual_key: Some(Arc::clone(&self.key.id)),
            team: Some("t".into()),
            customer: None,
            provider: "openai".into(),
            model: known.model.into(),
            kind: RequestKind::ChatCompletion,
            admitted_at: known.at,
            price: None,
        };
        let spend = Spend { cost: Nanos::new(1), tokens: 2 };
        let bound = (Usage::default(), spend);
        let ask = Ask {
            caller: Some(caller),
            config: Some(0),
            upstream_model: known.model,
            usage: bound.0,
            spend,
            bound,
            tag,
        };
        let mut hold = state.admit(&snapshot, ask).unwrap();
        hold.mark_sent();
        self.open.push((hold, known));
    }

    fn settle(&mut self, which: usize, odd: bool) {
        if self.open.is_empty() {
            return;
        }
        let (hold, known) = self.open.remove(which % self.open.len());
        // A charge whose tokens are not those of its usage.
        let tokens = if odd { 7 } else { 3 };
        let ending = if known.cost % 7 == 5 { Ending::Unresolved } else { Ending::Completed };
        if ending == Ending::Unresolved {
            self.unresolved.push((hold.id(), self.known.len()));
        }
        // Three tokens, of a picture now and then.
        let usage = match known.cost % 3 {
            0 => Usage { image_output: 1, searches: 2, ..Usage::estimated(2, 0) },
            _ => Usage::estimated(2, 1),
        };
        hold.settle(ending, usage, Spend { cost: Nanos::new(known.cost), tokens });
        self.known.push(known);
        self.waiting += 1;
    }

    /// An administrator says what a call really cost.
    fn correct(&mut self, which: usize, cost: i64) {
        if self.unresolved.is_empty() {
            return;
        }
        let (id, place) = self.unresolved[which % self.unresolved.len()];
        let actual = Actual { input: None, output: None, cost: Nanos::new(cost) };
        let ids = (id, self.states[0].new_id());
        match self.house.store.correct(ids, &actual, at(self.now), |_, _| record()) {
            Ok(_) => self.known[place].cost = cost,
            // It is not written yet, or forgotten by now.
            Err(error) => assert_eq!(error.kind, StoreErrorKind::NotFound, "{error}"),
        }
    }

    fn flush(&mut self, most: usize) {
        for state in &self.states {
            let batch = state.outbox().take(most);
            assert_eq!(self.ledger.append(&batch).unwrap(), batch.len());
            // The writer did not hear of it, and comes again.
            assert_eq!(self.ledger.append(&batch).unwrap(), 0);
            self.waiting -= batch.len();
        }
    }

    fn change(&mut self, edits: Vec<Edit>) {
        let state = Arc::clone(self.states.last().unwrap());
        let commit = |_: &_, _: &_, edits: &[Edit], ()| self.house.apply(edits);
        state.change(&HashMap::new(), |_| Ok((edits, ())), commit).unwrap();
    }

    fn restart(&mut self, id: &str) {
        let key = limit(id, Measure::Money);
        self.change(vec![self.house.changed(&self.key), Edit::Restart(Restart { key, at: at(self.now) })]);
    }

    /// The key is deleted, and comes back with limits of the same ids.
    fn made_again(&mut self) {
        self.change(vec![Edit::RemoveVirtualKey(Arc::clone(&self.key.id))]);
        self.change(vec![self.house.valued(&self.key, "one")]);
    }

    /// A new process takes over; its predecessor may live on for a while.
    fn taken_over(&mut self) {
        self.flush(usize::MAX);
        let next = self.house.state(&self.key);
        self.states.push(next);
        if self.states.len() > 2 {
            // Its calls end with it.
            while !self.open.is_empty() {
                self.settle(0, false);
            }
            self.flush(usize::MAX);
            self.states.remove(0);
        }
        self.turn_clocks();
    }

    fn tidy(&mut self) {
        // Each time by another writer, as if time had passed.
        let mut ledger = self.house.store.ledger_keeping(self.keep).unwrap();
        (0..20).for_each(|_| ledger.tidy(at(self.now)).unwrap());
    }

    fn finish(&mut self) {
        while !self.open.is_empty() {
            self.settle(0, false);
        }
        self.flush(usize::MAX);
        assert_eq!(self.waiting, 0);
    }

    /// What should be answered, from memory.
    fn expected(&self, from: i64, to: i64, day: bool) -> BTreeMap<(String, &'static str), (i64, i64)> {
        let mut sums = BTreeMap::new();
        for known in self.known.iter().filter(|known| (from..to).contains(&known.at.millis())) {
            let length = if day { DAY } else { HOUR };
            let start = at(known.at.millis() - known.at.millis() % length);
            let sum: &mut (i64, i64) = sums.entry((start.to_string(), known.model)).or_default();
            *sum = (sum.0 + 1, sum.1 + known.cost);
        }
        sums
    }

    fn sums(&self, filter: &LedgerFilter, groups: &[Group]) -> LedgerSums {
        self.house.store.ledger_sums(filter, groups, 10_000).unwrap().unwrap()
    }

    fn verified(&self) -> Vec<String> {
        verify(&self.house.path()).unwrap().mismatches
    }
}

fn by_model(sums: &LedgerSums) -> BTreeMap<(String, &str), (i64, i64)> {
    let name = |key: &[Option<String>], place: usize| key[place].clone().unwrap();
    let groups = sums.groups.iter().map(|(key, sum)| {
        let model = MODELS.into_iter().find(|model| *model == name(key, 1)).unwrap();
        assert_eq!(sum.units[0], 2 * sum.calls);
        ((name(key, 0), model), (sum.calls, sum.cost.get()))
    });
    groups.collect()
}

#[derive(Debug, Clone)]
enum Step {
    Later(i64),
    Admit { which: usize, model: usize, cost: i64, early: i64 },
    Settle { which: usize, odd: bool },
    Flush(usize),
    Correct { which: usize, cost: i64 },
    Restart(usize),
    MadeAgain,
    TakenOver,
    Reopened,
    Tidy,
}

fn any_step() -> impl Strategy<Value = Step> {
    let admit = (any::<usize>(), 0..3usize, 0..50i64, prop_oneof![3 => Just(0), 1 => 1..2_000i64]);
    let admit = admit.prop_map(|(which, model, cost, early)| Step::Admit { which, model, cost, early });
    prop_oneof![
        4 => prop_oneof![1..3_000i64, 1..HOUR, 1..(2 * DAY)].prop_map(Step::Later),
        8 => admit,
        7 => (any::<usize>(), prop::bool::weighted(0.05)).prop_map(|(which, odd)| Step::Settle { which, odd }),
        4 => (1..20usize).prop_map(Step::Flush),
        2 => (any::<usize>(), 0..60i64).prop_map(|(which, cost)| Step::Correct { which, cost }),
        2 => (0..3usize).prop_map(Step::Restart),
        1 => Just(Step::MadeAgain),
        1 => Just(Step::TakenOver),
        1 => Just(Step::Reopened),
        1 => Just(Step::Tidy),
    ]
}

fn run(world: &mut World, step: &Step) {
    match *step {
        Step::Later(millis) => {
            world.now += millis;
            world.turn_clocks();
        }
        Step::Admit { which, model, cost, early } => world.admit(which, model, cost, early),
        Step::Settle { which, odd } => world.settle(which, odd),
        Step::Flush(most) => world.flush(most),
        Step::Correct { which, cost } => world.correct(which, cost),
        Step::Restart(which) => world.restart(["1-b", "1-m", "1-c"][which]),
        Step::MadeAgain => world.made_again(),
        Step::TakenOver => world.taken_over(),
        Step::Reopened => {
            world.house.store = open(&world.house.dir, KEY).unwrap();
            world.ledger = world.house.store.ledger_keeping(world.keep).unwrap();
        }
        Step::Tidy => world.tidy(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 3_000, ..ProptestConfig::default() })]

    /// Balances and sums are what the entries say, after every step, and sums by day are those of all calls
    /// there ever were.
    #[test]
    fn the_books_agree(steps in prop::collection::vec(any_step(), 1..60), keep in prop::option::of(1..4i64), cut in any::<(u32, u32)>()) {
        let keep = keep.map_or(Keep::FOREVER, |days| Keep { entries: Some(days * DAY / 2), hours: Some(days * DAY) });
        let mut world = World::new(keep);
        for step in &steps {
            run(&mut world, step);
            prop_assert_eq!(world.verified(), Vec::<String>::new(), "after {:?}", step);
        }
        world.finish();
        prop_assert_eq!(world.verified(), Vec::<String>::new());
        let all = world.sums(&no_groups(), &[Group::Day, Group::Model]);
        prop_assert_eq!(by_model(&all), world.expected(0, i64::MAX, true));
        prop_assert_eq!(all.total.calls, i64::try_from(world.known.len()).unwrap());
        prop_assert_eq!(all.complete_from, None);
        // Any span, in part from sums and in part from entries.
        let span = world.now + 1 - NOW;
        let (from, to) = (NOW - HOUR + i64::from(cut.0) % span.max(1), NOW + i64::from(cut.1) % span.max(1));
        let filter = LedgerFilter { from: Some(at(from)), to: Some(at(to)), ..no_groups() };
        let by_day = world.sums(&filter, &[Group::Day, Group::Model]);
        if by_day.complete_from.is_none() {
            prop_assert_eq!(by_model(&by_day), world.expected(from, to, true));
        }
        let by_hour = world.sums(&filter, &[Group::Hour, Group::Model]);
        if by_hour.complete_from.is_none() {
            prop_assert_eq!(by_model(&by_hour), world.expected(from, to, false));
        }
        // The same from entries alone.
        let entries = LedgerFilter { kind: Some("chat_completion".to_owned()), ..filter };
        let entries = world.sums(&entries, &[Group::Hour, Group::Model]);
        if entries.complete_from.is_none() {
            prop_assert_eq!(by_model(&entries), world.expected(from, to, false));
        }
        if keep == Keep::FOREVER {
            prop_assert_eq!(entries.complete_from, None);
        }
    }
}

/// Three calls in one hour, one in the next, of two models; all written.
pub(super) fn some_calls(keep: Keep) -> World {
    let mut world = World::new(keep);
    for (model, later) in [(0, 1_000), (1, 1_000), (0, 2 * HOUR), (2, 5)] {
        world.admit(0, model, 10, 0);
        world.settle(0, false);
        world.now += later;
        world.turn_clocks();
    }
    world.finish();
    world
}

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
    world.house.raw_execute("INSERT INTO ledger_prices (id, rates) VALUES (7, '{\"searches\":10000,\"input\":5}')");
    world.house.raw_execute("UPDATE ledger SET price = 7, other = '{\"searches\":3}' WHERE model = 'n'");
    let all = world.house.store.ledger_entries(&no_groups(), None, 100).unwrap();
    let (one, plain) = (all.iter().find(|one| one.model == "n").unwrap(), &all[1]);
    assert_eq!((one.other.get("searches"), one.other.len(), plain.other.len()), (Some(&3), 1, 0));
    let rates = one.rates.clone().unwrap();
    assert_eq!((rates["searches"].get(), rates["input"].get(), rates.len()), (10_000, 5, 2));
    assert_eq!(
        (one.units_of("searches"), one.units_of("input"), one.units_of("pictures")),
        (Some(3), Some(2), Some(0))
    );
    assert_eq!(world.verified(), Vec::<String>::new());
    world.house.raw_execute("UPDATE ledger SET other = '[]' WHERE model = 'n'");
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
    assert_eq!(world.verified(), Vec::<String>::new());
}

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
        "DELETE FROM ledger WHERE model = 'n'",
        &["budget 1-c (money)", "1-r (requests)", "hour 2023-11-14T22:00:00Z"],
    );
    check("UPDATE ledger SET cost_nanos = 11 WHERE model = 'n'", &["budget 1-c", "hour 2023-11-14T22:00:00Z"]);
    check("UPDATE ledger SET input = 3 WHERE model = 'n'", &["1-r (tokens)", "tokens differ"]);
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
        "UPDATE ledger SET admitted_at = admitted_at + 3600000 WHERE model = 'n'",
        &["hour 2023-11-14T22:00:00Z", "hour 2023-11-14T23:00:00Z"],
    );
    check("UPDATE ledger SET account = NULL WHERE model = 'n'", &["it has no account"]);
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
