//! The ledger asked, shortened, checked: whatever happens to it, what it says stays true.

use super::*;
use crate::governance::edit::Restart;
use crate::state::hold::Hold;
use crate::state::outbox::ChargeId;
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) const HOUR: i64 = 3_600_000;
pub(super) const DAY: i64 = 24 * HOUR;
const MODELS: [&str; 3] = ["m", "n", "=evil"];

pub(super) fn no_groups() -> LedgerFilter {
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
    pub(super) now: i64,
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
    pub(super) fn new(keep: Keep) -> World {
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

    pub(super) fn turn_clocks(&self) {
        for state in &self.states {
            if let Clock::Manual(hand) = &state.clock {
                hand.store(self.now, Ordering::SeqCst);
            }
        }
    }

    /// A call that arrived `early` milliseconds before it was admitted.
    pub(super) fn admit(&mut self, which: usize, model: usize, cost: i64, early: i64) {
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

    pub(super) fn settle(&mut self, which: usize, odd: bool) {
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

    pub(super) fn flush(&mut self, most: usize) {
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

    pub(super) fn tidy(&mut self) {
        // Each time by another writer, as if time had passed.
        let mut ledger = self.house.store.ledger_keeping(self.keep).unwrap();
        (0..20).for_each(|_| ledger.tidy(at(self.now)).unwrap());
    }

    pub(super) fn finish(&mut self) {
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

    pub(super) fn sums(&self, filter: &LedgerFilter, groups: &[Group]) -> LedgerSums {
        self.house.store.ledger_sums(filter, groups, 10_000).unwrap().unwrap()
    }

    pub(super) fn verified(&self) -> Vec<String> {
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
    /// The clock is set back.
    Earlier(i64),
    Admit {
        which: usize,
        model: usize,
        cost: i64,
        early: i64,
    },
    Settle {
        which: usize,
        odd: bool,
    },
    Flush(usize),
    Correct {
        which: usize,
        cost: i64,
    },
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
        1 => prop_oneof![1..3_000i64, 1..(2 * DAY)].prop_map(Step::Earlier),
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
        Step::Earlier(millis) => {
            world.now -= millis;
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
