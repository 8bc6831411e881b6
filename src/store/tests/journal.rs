//! What survives the process: whatever step it dies at, nothing that was sent is forgotten, nothing is
//! charged twice, and no more is charged than what was open can have cost.

use super::super::journal::{Allocate, Claimed, Header, Predecessors, Recovered, allocate, claim, claim_with, path};
use super::*;
use crate::state::clock::since;
use crate::state::clock::stopwatch;
use crate::state::digest::KeyHasher;
use crate::state::hold::Hold;
use crate::state::journal::{Journal, Open, Place, Settled};
use crate::state::outbox::{ChargeId, Entry};
use crate::state::{Adjustment, Balance};
use crate::telemetry::Metrics;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::time::Duration;

/// A ledger without a disk: what each entry cost, how it ended, and what each window sums to.
#[derive(Debug, Clone, Default)]
struct Memory {
    limits: Vec<LimitKey>,
    entries: BTreeMap<u128, (Ending, i64)>,
    windows: BTreeMap<(LimitKey, Timestamp), i64>,
}

impl Ledger for Memory {
    fn append(&mut self, batch: &[Entry]) -> Result<usize, StoreError> {
        let before = self.entries.len();
        for entry in batch {
            if self.entries.contains_key(&entry.id.0) {
                continue;
            }
            self.entries.insert(entry.id.0, (entry.ending, entry.cost.get()));
            for delta in &entry.deltas {
                *self.windows.entry((delta.cell.key().clone(), delta.cell.start())).or_default() += delta.amount;
            }
        }
        Ok(self.entries.len() - before)
    }

    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        let balance = |((key, start), spent): (&(LimitKey, Timestamp), &i64)| {
            (key.clone(), Balance { start: *start, spent: *spent })
        };
        Ok(self.windows.iter().map(balance).collect())
    }

    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError> {
        Ok(self.limits.clone())
    }
}

impl Memory {
    fn of(key: &VirtualKey) -> Memory {
        let budgets = key.limits.budgets.iter().chain(&key.provider_configs[0].limits.budgets);
        let mut limits: Vec<LimitKey> = budgets.map(|b| limit(&b.id, Measure::Money)).collect();
        limits.extend(key.limits.rate_limit.iter().map(|rate| limit(&rate.id, Measure::Tokens)));
        Memory { limits, ..Memory::default() }
    }

    fn total(&self) -> i64 {
        self.entries.values().map(|(_, cost)| cost).sum()
    }

    fn ended(&self, ending: Ending) -> usize {
        self.entries.values().filter(|(known, _)| *known == ending).count()
    }
}

/// A process: a journal, and a state in which one key spends.
struct Process {
    dir: TempDir,
    state: State,
    hand: Arc<AtomicI64>,
    key: VirtualKey,
}

fn ample_key() -> VirtualKey {
    let mut key = key("1", "one");
    key.limits.budgets[0].max = Nanos::new(1 << 40);
    key.provider_configs[0].limits.budgets[0].max = Nanos::new(1 << 40);
    key.limits.rate_limit = Some(Box::new(rate("1-r", Some(1 << 40), None)));
    key
}

impl Process {
    fn start(slots: u32) -> Process {
        Process::with(slots, ample_key(), |journal| journal)
    }

    fn with(slots: u32, key: VirtualKey, wrap: impl FnOnce(Arc<dyn Journal>) -> Arc<dyn Journal>) -> Process {
        let dir = TempDir::new();
        let claimed = claim(dir.path(), slots, &mut Memory::default(), at(NOW)).unwrap();
        assert_eq!(claimed.recovered, Recovered::default());
        let (clock, hand) = Clock::manual(at(NOW));
        let journal = wrap(claimed.journal);
        let state = State::with_journal(clock, KeyHasher::new(&[1; 32]), slots as usize, Some(journal));
        let edit = Edit::VirtualKey { key: Arc::new(key.clone()), digest: [7; 32], value: None };
        let done: Result<(), ()> = state.change(&HashMap::new(), |_| Ok((vec![edit], ())), |_, _, _, ()| Ok(()));
        done.unwrap();
        Process { dir, state, hand, key }
    }

    fn try_hold(&self, held: i64, bound: i64, model: &str) -> Option<Hold> {
        let snapshot = self.state.snapshot();
        let spend = |cost, tokens| Spend { cost: Nanos::new(cost), tokens };
        let ask = Ask {
            caller: snapshot.view.caller(&[7; 32]).map(|caller| &**caller),
            config: Some(0),
            upstream_model: "m",
            usage: Usage::estimated(1, 1),
            spend: spend(held, 2),
            bound: (Usage::estimated(30, 70), spend(bound, 100)),
            tag: CallTag {
                virtual_key: Some(Arc::clone(&self.key.id)),
                team: None,
                customer: None,
                provider: "openai".into(),
                model: model.into(),
                kind: RequestKind::Responses,
                admitted_at: self.state.clock.now(),
                price: None,
            },
        };
        self.state.admit(&snapshot, ask).ok()
    }

    fn hold(&self, bound: i64) -> Hold {
        self.try_hold(bound / 2, bound, "m").unwrap()
    }

    fn sent(&self, bound: i64) -> Hold {
        let mut hold = self.hold(bound);
        hold.mark_sent();
        hold
    }

    /// The journal as it is now, in a directory where nobody has it: what a dead process leaves.
    fn remains(&self) -> TempDir {
        let dir = TempDir::new();
        std::fs::copy(path(self.dir.path(), 0), path(dir.path(), 0)).unwrap();
        dir
    }
}

fn settle(hold: Hold, cost: i64, tokens: i64) {
    let usage = Usage { input: 3, output: 4, cache_write_long: 5, reasoning: 2, ..Usage::default() };
    hold.settle(Ending::ClientGone, usage, Spend { cost: Nanos::new(cost), tokens });
}

fn recover(dir: &TempDir, ledger: &mut dyn Ledger) -> Recovered {
    claim(dir.path(), 8, ledger, at(NOW + 5)).unwrap().recovered
}

#[test]
fn what_was_open_is_charged_at_its_bound_and_what_was_settled_as_it_was() {
    let process = Process::start(8);
    let _unsent = process.hold(1_000);
    let _open = process.sent(400);
    settle(process.sent(500), 77, 12);
    process.sent(600).release(Ending::UpstreamFailed);
    drop(process.hold(700));
    let remains = process.remains();
    let mut ledger = Memory::of(&process.key);
    let recovered = recover(&remains, &mut ledger);
    let expected = Recovered {
        unresolved: 1,
        charged: Nanos::new(400),
        expected: Nanos::new(200),
        settled: 2,
        cost: Nanos::new(77),
        new: 3,
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
    assert_eq!((ledger.total(), ledger.ended(Ending::Unresolved)), (477, 1));
    let spent = |id: &str, measure| ledger.windows[&(limit(id, measure), at(NOW))];
    assert_eq!((spent("1-b", Measure::Money), spent("1-c", Measure::Money)), (477, 477));
    assert_eq!(spent("1-r", Measure::Tokens), 112);
    // The journal is empty by now.
    assert_eq!(recover(&remains, &mut ledger), Recovered::default());
}

#[test]
fn an_entry_is_recovered_in_every_part() {
    let house = House::new();
    let one = house.add("1", "one");
    let process = Process::with(8, one.clone(), |journal| journal);
    process.hand.store(NOW + 40, Ordering::SeqCst);
    let mut open = process.try_hold(5, 9, "a model").unwrap();
    open.mark_sent();
    let mut done = process.try_hold(5, 9, "ein größeres Modell").unwrap();
    done.mark_sent();
    process.hand.store(NOW + 90, Ordering::SeqCst);
    settle(done, 6, 9);
    let recovered = recover(&process.remains(), &mut *house.store.ledger().unwrap());
    assert_eq!((recovered.unresolved, recovered.settled, recovered.new), (1, 1, 2));
    let check = |sql: &str| assert_eq!(house.raw(&format!("SELECT count(*) FROM ledger WHERE {sql}")), 1, "{sql}");
    check("ending = 'unresolved' AND model = 'a model' AND cost_nanos = 9 AND input = 30 AND output = 70");
    check(&format!("ending = 'unresolved' AND admitted_at = {} AND settled_at = {0} AND estimated = 1", NOW + 40));
    check(&format!("ending = 'client_gone' AND settled_at = {} AND model = 'ein größeres Modell'", NOW + 90));
    check("ending = 'client_gone' AND cost_nanos = 6 AND output = 4 AND cache_write_long = 5 AND reasoning = 2");
    check("ending = 'client_gone' AND virtual_key_id = '1' AND provider = 'openai' AND kind = 'responses'");
    check("ending = 'client_gone' AND estimated = 0 AND tier = 'standard' AND input = 3");
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(15));
    assert_eq!(spent(&house.store, "1-r", Measure::Tokens), Some(109));
    // And it counts from the first request on.
    let state = house.state(&one);
    let snapshot = state.snapshot();
    let caller = snapshot.view.callers().next().unwrap();
    assert_eq!(snapshot.tally(&caller.limits[0], at(NOW)).0.spent, 15);
}

#[test]
fn what_the_ledger_has_is_not_charged_again() {
    let process = Process::start(8);
    settle(process.sent(500), 77, 12);
    let (_open, mut ledger) = (process.sent(400), Memory::of(&process.key));
    let batch = process.state.outbox().take(9);
    ledger.append(&batch).unwrap();
    // It died between the commit and the report of it; the same remains come twice.
    for _ in 0..2 {
        let recovered = recover(&process.remains(), &mut ledger);
        assert_eq!((recovered.settled, recovered.unresolved), (1, 1));
        assert_eq!((ledger.total(), ledger.entries.len()), (477, 2));
    }
    process.state.outbox().written(batch);
    assert_eq!(recover(&process.remains(), &mut ledger).settled, 0);
}

#[test]
fn a_record_of_any_length_fits_or_is_refused() {
    let mut many = ample_key();
    many.limits.budgets = (0..40).map(|n| budget(&format!("{n}-{}", "x".repeat(200)), 1 << 40, "1h")).collect();
    let process = Process::with(16, many, |journal| journal);
    let holds: Vec<Hold> = std::iter::from_fn(|| process.try_hold(1, 10, &"m".repeat(900))).collect();
    assert!((2..8).contains(&holds.len()), "{} holds in sixteen slots", holds.len());
    assert_eq!(process.state.outbox().open_holds(), holds.len() as i64);
    let mut holds = holds.into_iter();
    let mut first = holds.next().unwrap();
    first.mark_sent();
    settle(first, 3, 1);
    let mut second = holds.next().unwrap();
    second.mark_sent();
    let mut ledger = Memory::of(&process.key);
    let recovered = recover(&process.remains(), &mut ledger);
    assert_eq!((recovered.settled, recovered.unresolved, recovered.torn), (1, 1, 0));
    assert_eq!(ledger.windows.len(), 42);
    assert!(ledger.windows.iter().all(|((key, _), sum)| *sum == if key.measure == Measure::Money { 13 } else { 101 }));
    // Every slot comes back.
    let count = holds.len() + 2;
    drop((second, holds));
    process.state.outbox().written(process.state.outbox().take(99));
    let again: Vec<Hold> = std::iter::from_fn(|| process.try_hold(1, 10, &"m".repeat(900))).collect();
    assert_eq!(again.len(), count);
}

const HEADER: u64 = 4_096;

/// Overwrites a word of the first slot.
fn spoil(dir: &TempDir, word: u64) {
    let file = File::options().write(true).open(path(dir.path(), 0)).unwrap();
    file.write_all_at(&[0x5A; 8], HEADER + word * 8).unwrap();
}

#[test]
fn a_torn_slot_charges_nothing_and_a_torn_settlement_the_bound() {
    let check = |word: u64, charged: i64, torn: usize| {
        let process = Process::start(4);
        settle(process.sent(500), 77, 12);
        let remains = process.remains();
        spoil(&remains, word);
        let mut ledger = Memory::of(&process.key);
        let recovered = recover(&remains, &mut ledger);
        assert_eq!((ledger.total(), recovered.torn), (charged, torn), "word {word}");
    };
    check(0, 0, 1);
    check(2, 0, 1);
    check(1, 500, 0);
    (3..22).for_each(|word| check(word, 500, 0));
    // The id, lengths, the bound, texts, shares.
    (22..44).for_each(|word| check(word, 0, 1));
    // Beyond the record's end.
    check(63, 77, 0);
}

#[test]
fn a_full_disk_refuses_the_start() {
    let dir = TempDir::new();
    let full: Allocate = |file, length| {
        file.set_len(length / 2)?;
        Err(std::io::Error::from_raw_os_error(28))
    };
    let error = claim_with(dir.path(), 8, &mut Memory::default(), at(NOW), full).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cannot allocate the journal") && text.contains("No space left"), "{text}");
    assert!(text.contains("tollgate.journal") && !text.contains('\n'), "{text}");
    assert_eq!(std::fs::metadata(path(dir.path(), 0)).unwrap().len(), 0);
    // What a dead process left is in the ledger all the same, and only once.
    let process = Process::start(8);
    let _open = process.sent(400);
    let (remains, mut ledger) = (process.remains(), Memory::of(&process.key));
    claim_with(remains.path(), 8, &mut ledger, at(NOW), full).unwrap_err();
    assert_eq!(ledger.total(), 400);
    let claimed = claim_with(remains.path(), 8, &mut ledger, at(NOW), allocate).unwrap();
    assert_eq!((claimed.recovered, ledger.total()), (Recovered::default(), 400));
}

#[test]
fn blocks_are_allocated_before_anything_is_written() {
    use std::os::unix::fs::MetadataExt;
    let process = Process::start(64);
    let file = std::fs::metadata(path(process.dir.path(), 0)).unwrap();
    assert_eq!((file.len(), file.permissions().mode() & 0o777), (4_096 + 64 * 512, 0o600));
    assert!(file.blocks() * 512 >= file.len(), "{} blocks", file.blocks());
}

#[test]
fn a_journal_that_cannot_be_read_is_left_alone() {
    let check = |spoil: &dyn Fn(&File), kind: StoreErrorKind, says: &str| {
        let process = Process::start(4);
        let _open = process.sent(400);
        let remains = process.remains();
        let path = path(remains.path(), 0);
        spoil(&File::options().write(true).open(&path).unwrap());
        let before = std::fs::read(&path).unwrap();
        let mut ledger = Memory::of(&process.key);
        let error = claim(remains.path(), 4, &mut ledger, at(NOW)).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("left untouched") && !text.contains('\n'), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(ledger.entries.is_empty());
    };
    let put = |at: u64, number: u64| move |file: &File| file.write_all_at(&number.to_ne_bytes(), at).unwrap();
    check(&put(0, 7), StoreErrorKind::Damaged, "is not a Tollgate journal");
    check(&put(8, 3), StoreErrorKind::NewerSchema, "has version 3");
    check(&put(24, 5), StoreErrorKind::Damaged, "is damaged");
    check(&put(48, 5), StoreErrorKind::Damaged, "is damaged");
    check(&|file| file.set_len(4_096 + 700).unwrap(), StoreErrorKind::Damaged, "is damaged");
    check(&|file| file.set_len(30).unwrap(), StoreErrorKind::Damaged, "is damaged");
}

#[test]
fn a_first_start_that_was_cut_off_leaves_nothing_to_recover() {
    for length in [0, 30, 4_096, 4_096 + 8 * 512] {
        let dir = TempDir::new();
        File::create(path(dir.path(), 0)).unwrap().set_len(length).unwrap();
        assert_eq!(recover(&dir, &mut Memory::default()), Recovered::default());
    }
}

#[test]
fn another_size_is_recovered_just_the_same() {
    let process = Process::start(40);
    let _open: Vec<Hold> = (0..30).map(|_| process.sent(10)).collect();
    let (remains, mut ledger) = (process.remains(), Memory::of(&process.key));
    let recovered = recover(&remains, &mut ledger);
    assert_eq!((recovered.unresolved, recovered.other_boot, ledger.total()), (30, false, 300));
    assert_eq!(std::fs::metadata(path(remains.path(), 0)).unwrap().len(), 4_096 + 8 * 512);
}

/// A journal that dies with its process: after so many calls it is let go of, and nothing reaches it any more.
#[derive(Debug)]
struct Mortal {
    inner: Mutex<Option<Arc<dyn Journal>>>,
    calls_left: AtomicUsize,
}

impl Mortal {
    fn of(inner: Arc<dyn Journal>, calls: usize) -> Arc<Mortal> {
        Arc::new(Mortal { inner: Mutex::new(Some(inner)), calls_left: AtomicUsize::new(calls) })
    }

    fn kill(&self) {
        *self.inner.lock().unwrap() = None;
    }

    fn is_alive(&self) -> bool {
        self.inner.lock().unwrap().is_some()
    }

    /// Does it, unless the process died before.
    fn call<T>(&self, work: impl FnOnce(&dyn Journal) -> T) -> Option<T> {
        let left = |calls: usize| calls.checked_sub(1);
        if self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            self.kill();
        }
        self.inner.lock().unwrap().as_deref().map(work)
    }
}

impl Journal for Mortal {
    fn place(&self, open: &Open<'_>) -> Option<Place> {
        self.call(|journal| journal.place(open)).unwrap_or(Some(Place { slot: 0, check: 0 }))
    }

    fn mark_sent(&self, place: &Place) {
        self.call(|journal| journal.mark_sent(place));
    }

    fn settle(&self, place: &Place, settled: &Settled) {
        self.call(|journal| journal.settle(place, settled));
    }

    fn free(&self, place: Place) {
        self.call(|journal| journal.free(place));
    }
}

/// A process that dies after so many calls of its journal.
fn mortal(calls: usize) -> (Process, Arc<Mortal>) {
    let mut mortal = None;
    let process = Process::with(8, ample_key(), |journal| {
        let made = Mortal::of(journal, calls);
        mortal = Some(Arc::clone(&made));
        made
    });
    (process, mortal.unwrap())
}

#[test]
fn after_another_boot_what_is_there_counts_just_the_same() {
    let process = Process::start(4);
    let _open = process.sent(400);
    let (remains, mut ledger) = (process.remains(), Memory::of(&process.key));
    let file = File::options().write(true).open(path(remains.path(), 0)).unwrap();
    file.write_all_at(&Header::new(4, 7).bytes(), 0).unwrap();
    let recovered = recover(&remains, &mut ledger);
    assert_eq!((recovered.unresolved, recovered.other_boot, ledger.total()), (1, true, 400));
}

#[test]
fn two_processes_have_a_journal_each_and_the_successor_inherits() {
    let (one, life) = mortal(usize::MAX);
    let _open = one.sent(400);
    let mut ledger = Memory::of(&one.key);
    let two = claim(one.dir.path(), 8, &mut ledger, at(NOW)).unwrap();
    assert_eq!((two.recovered, two.predecessors.are_awaited()), (Recovered::default(), true));
    assert!(path(one.dir.path(), 1).exists());
    let mut predecessors = two.predecessors;
    // Alive, whatever it does.
    predecessors.look(&mut ledger, at(NOW)).unwrap();
    assert!(predecessors.are_awaited() && ledger.entries.is_empty());
    life.kill();
    for _ in 0..2 {
        predecessors.look(&mut ledger, at(NOW)).unwrap();
        assert_eq!((predecessors.are_awaited(), ledger.total()), (false, 400));
    }
    // The next one has the first file again, and waits for the second process.
    let three = claim(one.dir.path(), 8, &mut ledger, at(NOW)).unwrap();
    assert!(three.predecessors.are_awaited() && !path(one.dir.path(), 2).exists());
    drop((two.journal, three.journal));
    assert!(!claim(one.dir.path(), 8, &mut ledger, at(NOW)).unwrap().predecessors.are_awaited());
}

#[test]
fn what_a_predecessor_left_counts_in_the_cells_of_its_successor() {
    let house = House::new();
    let one = house.add("1", "one");
    let (old, life) = mortal(usize::MAX);
    let _open = old.sent(400);
    settle(old.sent(90), 31, 5);
    let mut ledger = house.store.ledger().unwrap();
    let Claimed { predecessors, .. } = claim(old.dir.path(), 8, &mut *ledger, at(NOW)).unwrap();
    let state = house.state(&one);
    let follow = Follow::new(Arc::clone(&state), HashMap::new(), predecessors, Duration::ZERO);
    let clock = state.clock.clone();
    let outbox = Arc::clone(state.outbox());
    let writer = super::super::writer::Writer::start(outbox, ledger, Metrics::new(), clock, Some(follow)).unwrap();
    spend(&state, &one, 7);
    life.kill();
    let tally = || {
        let snapshot = state.snapshot();
        let caller = snapshot.view.callers().next().unwrap();
        snapshot.tally(&caller.limits[0], at(NOW)).0.spent
    };
    let begun = stopwatch();
    while tally() != 438 {
        assert!(since(begun) < Duration::from_secs(20), "{} is not what both spent", tally());
        if let Clock::Manual(hand) = &state.clock {
            hand.fetch_add(100, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.stop(Duration::from_secs(5)).unwrap();
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(438));
}

/// A house whose ledger has one unresolved entry of 400 nanos and 100 tokens, and one of 7 and 2; with their ids.
fn unresolved_house() -> (House, VirtualKey, ChargeId, ChargeId) {
    let house = House::new();
    let one = house.add("1", "one");
    let process = Process::start(8);
    let mut open = process.hold(400);
    open.mark_sent();
    let mut done = process.hold(50);
    done.mark_sent();
    let (open_id, done_id) = (open.id(), done.id());
    settle(done, 7, 2);
    recover(&process.remains(), &mut *house.store.ledger().unwrap());
    (house, one, open_id, done_id)
}

fn actual(cost: i64, input: Option<i64>, output: Option<i64>) -> Actual {
    Actual { input, output, cost: Nanos::new(cost) }
}

#[test]
fn a_correction_is_an_entry_and_changes_what_is_spent() {
    let (house, one, id, _) = unresolved_house();
    let state = house.state(&one);
    let spent_live = || {
        let snapshot = state.snapshot();
        let caller = snapshot.view.callers().next().unwrap();
        caller.limits.iter().map(|limit| snapshot.tally(limit, at(NOW)).0.spent).collect::<Vec<_>>()
    };
    assert_eq!(spent_live(), [407, 102]);
    let (listed, total) = house.store.unresolved(10, 0).unwrap();
    assert_eq!((listed.len(), total, listed[0].id, listed[0].cost.get()), (1, 1, id, 400));
    assert_eq!((listed[0].input, listed[0].output, &*listed[0].model), (30, 70, "m"));
    let mut next = 0;
    let mut correct = |actual: Actual| {
        next += 1;
        let record = |before: &UnresolvedEntry, after: &UnresolvedEntry| {
            let line = AuditLine {
                action: "corrected",
                object_type: "ledger_entry",
                object_id: format!("{} to {}", before.cost, after.cost),
                object_name: None,
                before: None,
                after: None,
            };
            Record { audit: vec![line], ..record() }
        };
        state.amend(|| house.store.correct((id, ChargeId(next)), &actual, at(NOW + 9), record)).unwrap()
    };
    // To less, to more, to the same once more: the last word counts.
    for (actual, cost, tokens, lines) in [
        (actual(150, Some(20), Some(10)), 150, 30, 1),
        (actual(500, None, Some(90)), 500, 110, 2),
        (actual(500, Some(20), None), 500, 110, 2),
        (actual(0, Some(0), Some(0)), 0, 0, 3),
    ] {
        let entry = correct(actual);
        assert_eq!((entry.cost.get(), entry.input + entry.output, entry.corrections), (cost, tokens, lines));
        assert_eq!(spent_live(), [7 + cost, 2 + tokens]);
        for (id, measure, sum) in
            [("1-b", Measure::Money, 7 + cost), ("1-c", Measure::Money, 7 + cost), ("1-r", Measure::Tokens, 2 + tokens)]
        {
            assert_eq!(spent(&house.store, id, measure), Some(sum));
        }
        assert_eq!(house.raw("SELECT sum(cost_nanos) FROM ledger"), 7 + cost);
        assert_eq!(house.raw("SELECT count(*) FROM ledger WHERE corrects IS NOT NULL"), i64::from(lines));
        assert_eq!(house.raw("SELECT count(*) FROM audit WHERE object_type = 'ledger_entry'"), i64::from(lines));
    }
    assert_eq!(house.store.unresolved(10, 0).unwrap(), (vec![], 0));
    // The entry itself is what it was.
    assert_eq!(house.raw("SELECT cost_nanos FROM ledger WHERE ending = 'unresolved'"), 400);
}

#[test]
fn a_correction_that_changes_nothing_settles_the_matter_all_the_same() {
    let (house, _, id, _) = unresolved_house();
    let (adjustments, entry) =
        house.store.correct((id, ChargeId(1)), &actual(400, None, None), at(NOW), |_, _| record()).unwrap();
    assert_eq!((adjustments, entry.corrections), (vec![], 1));
    assert_eq!(house.store.unresolved(10, 0).unwrap().1, 0);
}

#[test]
fn only_what_is_unresolved_is_corrected() {
    let (house, _, _, done) = unresolved_house();
    let refused = |id| house.store.correct((id, ChargeId(1)), &actual(1, None, None), at(NOW), |_, _| record());
    assert_eq!(refused(done).unwrap_err().kind, StoreErrorKind::NotUnresolved);
    assert_eq!(refused(ChargeId(12)).unwrap_err().kind, StoreErrorKind::NotFound);
    assert_eq!(house.raw("SELECT count(*) FROM ledger"), 2);
}

#[test]
fn a_correction_of_a_window_that_is_gone_changes_no_balance() {
    let (house, one, id, _) = unresolved_house();
    for later in [1, 2] {
        let state = house.state(&one);
        if let Clock::Manual(hand) = &state.clock {
            hand.store(NOW + later * 3_600_000, Ordering::SeqCst);
        }
        spend(&state, &one, 10);
        house.store.ledger().unwrap().append(&state.outbox().take(9)).unwrap();
    }
    let (adjustments, _) =
        house.store.correct((id, ChargeId(1)), &actual(100, None, None), at(NOW), |_, _| record()).unwrap();
    // Of the hourly budget two later windows are kept; the daily one is still open.
    let expected = Adjustment { key: limit("1-c", Measure::Money), start: at(NOW), amount: -300 };
    assert_eq!(adjustments, [expected]);
    assert_eq!(house.raw("SELECT count(*) FROM balances WHERE limit_id = '1-b'"), 2);
    assert_eq!(spent(&house.store, "1-b", Measure::Money), Some(10));
    assert_eq!(spent(&house.store, "1-c", Measure::Money), Some(127));
}

#[test]
fn a_correction_during_a_hand_over_counts_once() {
    let (house, one, id, _) = unresolved_house();
    let state = house.state(&one);
    let opening = house.store.balances().unwrap();
    let mut ledger = house.store.ledger().unwrap();
    let mut follow = Follow::new(Arc::clone(&state), opening, Predecessors::default(), Duration::from_secs(60));
    let mut look = |correct: bool, others: i64| {
        if correct {
            let actual = actual(100, None, None);
            let done = state.amend(|| house.store.correct((id, ChargeId(1)), &actual, at(NOW), |_, _| record()));
            done.unwrap();
        }
        if others > 0 {
            let other = house.state(&one);
            spend(&other, &one, others);
            house.store.ledger().unwrap().append(&other.outbox().take(9)).unwrap();
        }
        if let Clock::Manual(hand) = &state.clock {
            hand.fetch_add(1_000, Ordering::SeqCst);
        }
        follow.look(&mut *ledger).unwrap();
        let snapshot = state.snapshot();
        let caller = snapshot.view.callers().next().unwrap();
        snapshot.tally(&caller.limits[0], at(NOW)).0.spent
    };
    assert_eq!(look(false, 0), 407);
    assert_eq!(look(true, 5), 112);
    assert_eq!(look(false, 3), 115);
}

#[test]
fn nobody_awaited_is_no_work() {
    let mut nobody = Predecessors::default();
    nobody.look(&mut Memory::default(), at(NOW)).unwrap();
    assert!(!nobody.are_awaited());
}

#[derive(Debug, Clone)]
enum Step {
    Hold { bound: i64 },
    Send { which: usize },
    Settle { which: usize, part: i64 },
    Release { which: usize },
    Drop { which: usize },
    Write { most: usize },
    Pass { millis: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..1_000i64).prop_map(|bound| Step::Hold { bound }),
        5 => (0..6usize).prop_map(|which| Step::Send { which }),
        4 => (0..6usize, 0..=100i64).prop_map(|(which, part)| Step::Settle { which, part }),
        1 => (0..6usize).prop_map(|which| Step::Release { which }),
        1 => (0..6usize).prop_map(|which| Step::Drop { which }),
        3 => (1..6usize).prop_map(|most| Step::Write { most }),
        1 => (0..2_000_000i64).prop_map(|millis| Step::Pass { millis }),
    ]
}

/// One attempt as the provider sees it.
struct Attempt {
    hold: Option<Hold>,
    id: u128,
    bound: i64,
    sent: bool,
    /// What it came to, once the process knew.
    told: Option<i64>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// The process dies at any call of its journal, or between a commit and its report. Whatever was sent is
    /// charged, at what it cost if that was known and else at its bound; once, however often it is recovered.
    #[test]
    fn nothing_that_was_sent_is_forgotten(steps in vec(any_step(), 0..60), calls in 0..120usize) {
        let (process, life) = mortal(calls);
        let mut ledger = Memory::of(&process.key);
        let mut attempts: Vec<Attempt> = vec![];
        let mut batch: Vec<Entry> = vec![];
        for step in steps {
            let open: Vec<usize> = (0..attempts.len()).filter(|n| attempts[*n].hold.is_some()).collect();
            let one = |which: usize| open.get(which).copied();
            // What the process still learns counts only if its journal took it: a dead one learns nothing.
            match step {
                Step::Hold { bound } => if let Some(hold) = process.try_hold(bound / 3, bound, "m") {
                    let id = hold.id().0;
                    attempts.push(Attempt { hold: Some(hold), id, bound, sent: false, told: None });
                },
                Step::Send { which } => if let Some(n) = one(which) {
                    attempts[n].hold.as_mut().unwrap().mark_sent();
                    // The first byte goes out after that.
                    attempts[n].sent |= life.is_alive();
                },
                Step::Settle { which, part } => if let Some(n) = one(which) {
                    let cost = attempts[n].bound * part / 100;
                    settle(attempts[n].hold.take().unwrap(), cost, 1);
                    attempts[n].told = Some(cost).filter(|_| life.is_alive());
                },
                Step::Release { which } => if let Some(n) = one(which) {
                    attempts[n].hold.take().unwrap().release(Ending::UpstreamFailed);
                    attempts[n].told = Some(0).filter(|_| life.is_alive());
                },
                Step::Drop { which } => if let Some(n) = one(which) {
                    drop(attempts[n].hold.take());
                    attempts[n].told = Some(attempts[n].bound / 3).filter(|_| life.is_alive());
                },
                Step::Write { most } => {
                    // The second try of a batch whose commit was never reported comes first.
                    batch.extend(process.state.outbox().take(most));
                    ledger.append(&batch).unwrap();
                    process.state.outbox().written(batch.drain(..));
                }
                Step::Pass { millis } => { process.hand.fetch_add(millis, Ordering::SeqCst); }
            }
            if !life.is_alive() {
                break;
            }
        }
        let mut remains = vec![process.remains(), process.remains()];
        life.kill();
        let known = ledger.entries.len();
        let recovered = recover(&remains.pop().unwrap(), &mut ledger);
        prop_assert_eq!(recovered.torn, 0);
        prop_assert_eq!(recovered.new, ledger.entries.len() - known);
        for Attempt { id, bound, sent, told, .. } in &attempts {
            let charged = ledger.entries.get(id).copied();
            match (sent, told) {
                (false, _) => prop_assert_eq!(charged, None),
                // The provider may bill anything up to the bound, and nobody will tell.
                (true, None) => prop_assert_eq!(charged, Some((Ending::Unresolved, *bound))),
                (true, Some(cost)) => prop_assert_eq!(charged.map(|(_, cost)| cost), Some(*cost)),
            }
        }
        for id in ["1-b", "1-c"] {
            let windows = ledger.windows.iter().filter(|((key, _), _)| *key == limit(id, Measure::Money));
            prop_assert_eq!(windows.map(|(_, sum)| sum).sum::<i64>(), ledger.total());
        }
        let before = ledger.clone();
        recover(&remains.pop().unwrap(), &mut ledger);
        prop_assert_eq!((before.entries, before.windows), (ledger.entries, ledger.windows));
    }
}
