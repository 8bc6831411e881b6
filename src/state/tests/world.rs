//! One world of limits, twice: the real state, and a naive model that says what must stand there. A history is
//! a list of numbers, each of which is one step; so histories shrink, and a seed is enough to see one again.
//!
//! The model knows no atomics, no slots and no views: sums by window, and the rules as `money.md` would be
//! told to a clerk.

use super::super::*;
use super::{DIGEST, START, key};
use crate::governance::entity::{Budget, Customer, Limits, ProviderLimits, Quota, RateLimit, Team, VirtualKey};
use crate::governance::judge::Admission;
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::time::{Span, Window};
use crate::governance::view::{Digest, Measure, Policy};
use crate::state::hold::Hold;
use crate::state::outbox::{Ending, Entry};
use std::collections::BTreeMap;

/// The least and the most that an answer may have.
const OUTPUT: std::ops::RangeInclusive<i64> = 5..=60;
const SPANS: [(&str, i64); 3] = [("1m", 60_000), ("10m", 600_000), ("1h", 3_600_000)];
const KEYS: usize = 2;

/// A seeded source of numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: i64) -> i64 {
        i64::try_from(self.roll() >> 2).unwrap() % most.max(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Provider,
    Customer,
    Team,
    Key(usize),
    Config(usize),
}

/// A limit as the model has it.
#[derive(Debug, Clone)]
struct Rule {
    key: LimitKey,
    owner: Owner,
    max: i64,
    span: usize,
    /// Where the window began that was looked at last.
    current: Option<i64>,
}

/// What stands in one window of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    spent: i128,
    held: i128,
    /// Charged beyond the bound.
    excess: i128,
    /// Charged beyond what was held.
    misjudged: i128,
    largest: i128,
    /// The largest limit in force when something was admitted.
    ceiling: i128,
}

type WindowId = (LimitKey, i64);

/// An attempt as the model has it.
struct Attempt {
    hold: Hold,
    sent: bool,
    held: Spend,
    bound: Spend,
    windows: Vec<WindowId>,
}

/// A ledger: what each entry cost, and what each window sums to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) entries: BTreeMap<u128, (Ending, i64)>,
    pub(crate) windows: BTreeMap<(LimitKey, Timestamp), i64>,
}

impl Books {
    pub(crate) fn append(&mut self, batch: &[Entry]) -> usize {
        let new = |entry: &&Entry| !self.entries.contains_key(&entry.id.0);
        let new: Vec<&Entry> = batch.iter().filter(new).collect();
        for entry in &new {
            self.entries.insert(entry.id.0, (entry.ending, entry.cost.get()));
            for delta in &entry.deltas {
                *self.windows.entry((delta.cell.key().clone(), delta.cell.start())).or_default() += delta.amount;
            }
        }
        new.len()
    }
}

pub(crate) struct World {
    pub(crate) state: State,
    hand: Arc<AtomicI64>,
    admission: Admission,
    rules: Vec<Rule>,
    sums: HashMap<WindowId, Sums>,
    open: Vec<Attempt>,
    pub(crate) books: Books,
    /// Attempts that were sent and are over.
    charged: usize,
    /// Makes the ids of limits that are made again new ones.
    made: usize,
    /// What the last refusal left behind, if it left anything.
    pub(crate) trace: Option<String>,
}

impl World {
    pub(crate) fn new(admission: Admission, state: impl FnOnce(Clock) -> State) -> World {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(START));
        let mut world = World {
            state: state(clock),
            hand,
            admission,
            rules: Vec::new(),
            sums: HashMap::new(),
            open: Vec::new(),
            books: Books::default(),
            charged: 0,
            made: 0,
            trace: None,
        };
        for (owner, id, measure, max) in [
            (Owner::Provider, "p", Measure::Money, 1_500),
            (Owner::Provider, "pr", Measure::Tokens, 900),
            (Owner::Customer, "c", Measure::Money, 1_000),
            (Owner::Team, "tr", Measure::Tokens, 700),
            (Owner::Team, "tr", Measure::Requests, 25),
        ] {
            world.rule(owner, id, measure, max);
        }
        (0..KEYS).for_each(|n| world.rules_of_key(n));
        world.publish(&HashMap::new());
        world
    }

    fn rule(&mut self, owner: Owner, id: &str, measure: Measure, max: i64) {
        let key = LimitKey { id: id.into(), measure };
        self.rules.push(Rule { key, owner, max, span: 1, current: None });
    }

    fn rules_of_key(&mut self, n: usize) {
        self.made += 1;
        let made = self.made;
        self.rule(Owner::Key(n), &format!("k{n}-{made}"), Measure::Money, 600);
        self.rule(Owner::Config(n), &format!("pc{n}-{made}"), Measure::Money, 500);
    }

    pub(crate) fn limits(&self) -> Vec<LimitKey> {
        self.rules.iter().map(|rule| rule.key.clone()).collect()
    }

    fn now(&self) -> i64 {
        self.hand.load(Ordering::SeqCst)
    }

    // ---- What is declared

    fn publish(&self, opening: &HashMap<LimitKey, Balance>) {
        let at = Timestamp::from_millis(START);
        let window = |rule: &Rule| Window::rolling(Span::parse(SPANS[rule.span].0).unwrap());
        let of = |owner: Owner| {
            let of = || self.rules.iter().filter(move |rule| rule.owner == owner);
            let budgets = of().filter(|rule| rule.key.measure == Measure::Money).map(|rule| Budget {
                id: Arc::clone(&rule.key.id),
                max: Nanos::new(rule.max),
                window: window(rule),
                anchor: at,
                created_at: at,
                updated_at: at,
            });
            let quota = |measure| {
                let rule = of().find(|rule| rule.key.measure == measure)?;
                Some(Quota { max: rule.max, window: window(rule), anchor: at })
            };
            let (tokens, requests) = (quota(Measure::Tokens), quota(Measure::Requests));
            let id = of().find(|rule| rule.key.measure != Measure::Money).map(|rule| Arc::clone(&rule.key.id));
            let rate = id.map(|id| Box::new(RateLimit { id, tokens, requests, created_at: at, updated_at: at }));
            Limits { budgets: budgets.collect(), rate_limit: rate }
        };
        let (customer, team) = (of(Owner::Customer), of(Owner::Team));
        let mut edits = vec![
            Edit::Policy(Policy { admission: self.admission, ..Policy::default() }),
            Edit::ProviderLimits(Arc::new(ProviderLimits {
                provider: "openai".into(),
                limits: of(Owner::Provider),
                config_hash: String::new(),
            })),
            Edit::Customer(Arc::new(Customer {
                id: "c".into(),
                name: "c".into(),
                limits: customer,
                config_hash: String::new(),
                created_at: at,
                updated_at: at,
            })),
            Edit::Team(Arc::new(Team {
                id: "t".into(),
                name: "t".into(),
                customer_id: Some("c".into()),
                limits: team,
                profile: None,
                config: None,
                claims: None,
                config_hash: String::new(),
                created_at: at,
                updated_at: at,
            })),
        ];
        for n in 0..KEYS {
            let config = of(Owner::Config(n)).budgets;
            let mut key = VirtualKey::clone(&key(of(Owner::Key(n)).budgets, None, (config, None)));
            (key.id, key.name, key.team_id) = (format!("vk{n}").into(), format!("key {n}"), Some("t".into()));
            let known = self.rules.iter().any(|rule| rule.owner == Owner::Key(n));
            edits.push(match known {
                true => Edit::VirtualKey { key: Arc::new(key), digest: digest(n), value: None },
                false => Edit::RemoveVirtualKey(key.id),
            });
        }
        self.state.change(opening, |_| Ok::<_, ()>((edits, ())), |_, _, _, ()| Ok(())).unwrap();
    }

    // ---- Steps

    /// Takes the step that this number stands for.
    pub(crate) fn step(&mut self, number: u64) {
        self.trace = None;
        let mut dice = Dice(number);
        match dice.below(32) {
            0..=12 => self.admit(&mut dice),
            13..=20 => self.end(&mut dice),
            21..=24 => self.send(&mut dice),
            25..=26 => self.write(usize::try_from(dice.below(6)).unwrap()),
            27..=28 => self.pass(&mut dice),
            29 => self.resize(&mut dice),
            30 => self.change_window(&mut dice),
            _ => self.delete_or_make(&mut dice),
        }
    }

    fn admit(&mut self, dice: &mut Dice) {
        let n = usize::try_from(dice.below(KEYS as i64)).unwrap();
        if !self.rules.iter().any(|rule| rule.owner == Owner::Key(n)) {
            return;
        }
        let (input, price) = (dice.below(40), 1 + dice.below(3));
        let offer = |output: i64| Spend { cost: Nanos::new(2 * input + price * output), tokens: input + output };
        let whole = *OUTPUT.start() + dice.below(OUTPUT.end() - OUTPUT.start() + 1);
        let most = offer(whole);
        let expected = offer(whole / 2);
        // What the clerk says.
        let rules: Vec<usize> = (0..self.rules.len()).filter(|i| self.rules[*i].concerns(n)).collect();
        let windows: Vec<(WindowId, i64)> =
            rules.into_iter().map(|i| (self.look(i, true), self.rules[i].max)).collect();
        let fits = |spend: &Spend| {
            windows.iter().all(|((key, start), max)| {
                let sums = self.sums.get(&(key.clone(), *start)).copied().unwrap_or_default();
                let (used, amount) = (sums.spent + sums.held, i128::from(spend.of(key.measure)));
                used < i128::from(*max) && (self.admission == Admission::Remaining || used + amount <= i128::from(*max))
            })
        };
        let verdict = match self.admission {
            Admission::Remaining => Some(expected).filter(fits),
            Admission::NeverExceed => (*OUTPUT.start()..=whole).rev().map(offer).find(fits),
        };
        // What the state says.
        let before = self.real();
        let snapshot = self.state.snapshot();
        let ask = Ask {
            caller: snapshot.view.caller(&digest(n)).map(|caller| &**caller),
            config: Some(0),
            upstream_model: "m",
            usage: Usage::default(),
            spend: if self.admission == Admission::Remaining { expected } else { most },
            bound: (Usage::default(), most),
            tag: CallTag {
                virtual_key: Some(format!("vk{n}").into()),
                team: Some("t".into()),
                customer: Some("c".into()),
                provider: "openai".into(),
                model: "m".into(),
                kind: RequestKind::ChatCompletion,
                admitted_at: self.state.clock.now(),
                price: None,
            },
        };
        let fit = |room: Room| {
            let fitting = (*OUTPUT.start()..=whole).rev().map(offer).find(|spend| room.takes(*spend));
            (Usage::default(), fitting.unwrap_or(offer(*OUTPUT.start())))
        };
        let outcome = self.state.admit_less(&snapshot, ask, fit);
        assert_eq!(outcome.as_ref().ok().map(|hold| hold.estimate().1), verdict, "the verdict on {most:?}");
        let Ok(hold) = outcome else {
            let after = self.real();
            self.trace = (before != after).then(|| format!("{before:?} became {after:?}"));
            return;
        };
        let held = hold.estimate().1;
        let bound = if self.admission == Admission::Remaining { most } else { held };
        for (window, max) in &windows {
            let sums = self.sums.entry(window.clone()).or_default();
            sums.held += i128::from(held.of(window.0.measure));
            sums.ceiling = sums.ceiling.max(i128::from(*max));
        }
        let windows = windows.into_iter().map(|(window, _)| window).collect();
        self.open.push(Attempt { hold, sent: false, held, bound, windows });
    }

    fn one(&self, dice: &mut Dice) -> Option<usize> {
        let which = usize::try_from(dice.below(i64::try_from(self.open.len()).unwrap())).unwrap();
        (which < self.open.len()).then_some(which)
    }

    fn send(&mut self, dice: &mut Dice) {
        if let Some(which) = self.one(dice) {
            let attempt = &mut self.open[which];
            attempt.hold.mark_sent();
            attempt.sent = true;
        }
    }

    fn end(&mut self, dice: &mut Dice) {
        let Some(which) = self.one(dice) else { return };
        let Attempt { hold, sent, held, bound, windows } = self.open.swap_remove(which);
        let charge = match dice.below(8) {
            0 => {
                drop(hold);
                held
            }
            1 => {
                hold.release(Ending::UpstreamFailed);
                Spend::default()
            }
            how => {
                // A liar now and then.
                let most = if how == 2 { 2 } else { 1 };
                let mut part = |whole: i64| whole * most * (1 + dice.below(100)) / 100;
                let actual = Spend { cost: Nanos::new(part(bound.cost.get())), tokens: part(bound.tokens) };
                hold.settle(Ending::Completed, Usage::default(), actual);
                actual
            }
        };
        self.charge(windows, sent.then_some(charge), held, bound);
    }

    /// The model's end of an attempt.
    fn charge(&mut self, windows: Vec<WindowId>, charge: Option<Spend>, held: Spend, bound: Spend) {
        self.charged += usize::from(charge.is_some());
        for window in windows {
            let of = |spend: Spend| i128::from(spend.of(window.0.measure));
            let sums = self.sums.get_mut(&window).unwrap();
            sums.held -= of(held);
            if let Some(charge) = charge {
                sums.spent += of(charge);
                sums.excess += (of(charge) - of(bound)).max(0);
                sums.misjudged += (of(charge) - of(held)).max(0);
                sums.largest = sums.largest.max(of(charge));
            }
        }
    }

    pub(crate) fn write(&mut self, most: usize) {
        let batch = self.state.outbox().take(most);
        let new = self.books.append(&batch);
        assert_eq!(new, batch.len(), "an id was charged twice");
        self.state.outbox().written(batch);
    }

    fn pass(&mut self, dice: &mut Dice) {
        // A clock may step back, too.
        let passed = if dice.below(8) == 0 { -dice.below(120_000) } else { dice.below(900_000) };
        self.hand.fetch_add(passed, Ordering::SeqCst);
    }

    fn resize(&mut self, dice: &mut Dice) {
        let which = usize::try_from(dice.below(i64::try_from(self.rules.len()).unwrap())).unwrap();
        self.rules[which].max = 1 + dice.below(1_500);
        self.publish(&HashMap::new());
    }

    fn change_window(&mut self, dice: &mut Dice) {
        let which = usize::try_from(dice.below(i64::try_from(self.rules.len()).unwrap())).unwrap();
        self.rules[which].span = usize::try_from(dice.below(3)).unwrap();
        self.publish(&HashMap::new());
    }

    fn delete_or_make(&mut self, dice: &mut Dice) {
        let n = usize::try_from(dice.below(KEYS as i64)).unwrap();
        let before = self.rules.len();
        self.rules.retain(|rule| rule.owner != Owner::Key(n) && rule.owner != Owner::Config(n));
        if self.rules.len() == before {
            self.rules_of_key(n);
        }
        self.publish(&HashMap::new());
    }

    /// The process died, and `state` is that of the next one, which begins at what is in the books by now.
    pub(crate) fn begin_again(&mut self, state: impl FnOnce(Clock) -> State) {
        for Attempt { hold, sent, held, bound, windows } in std::mem::take(&mut self.open) {
            // Its end reaches only what is gone with the process.
            drop(hold);
            self.charge(windows, sent.then_some(bound), held, bound);
        }
        self.state = state(self.state.clock.clone());
        let mut opening = HashMap::new();
        for rule in &mut self.rules {
            let windows = self.books.windows.iter().filter(|((key, _), _)| *key == rule.key);
            let latest = windows.max_by_key(|((_, start), _)| *start);
            rule.current = latest.map(|((_, start), _)| start.millis());
            opening.extend(latest.map(|((key, start), spent)| (key.clone(), Balance { start: *start, spent: *spent })));
        }
        self.publish(&opening);
    }

    /// An edit of some limit, whatever the number would stand for otherwise.
    pub(crate) fn edit(&mut self, number: u64) {
        let mut dice = Dice(number);
        match dice.below(2) {
            0 => self.resize(&mut dice),
            _ => self.delete_or_make(&mut dice),
        }
    }

    /// What was spent at every limit, in which window.
    pub(crate) fn spent(&mut self) -> BTreeMap<LimitKey, (i64, i64)> {
        self.real().into_iter().map(|(key, (start, spent, _))| (key, (start, spent))).collect()
    }

    // ---- What stands

    /// The window of a limit now, as the clerk finds it.
    fn look(&mut self, which: usize, touch: bool) -> WindowId {
        let now = self.now();
        let rule = &mut self.rules[which];
        let span = SPANS[rule.span].1;
        let start = match rule.current {
            Some(start) if now < start + span => start,
            Some(start) => start + (now - start) / span * span,
            // Nothing begins before its anchor.
            None => START + (now - START).max(0) / span * span,
        };
        if touch || rule.current.is_some() {
            rule.current = Some(start);
        }
        (rule.key.clone(), start)
    }

    /// What the state says of every limit: its window, what is spent and what is held. Looking ends windows that are
    /// over, so the clerk looks, too.
    fn real(&mut self) -> BTreeMap<LimitKey, (i64, i64, i64)> {
        let (snapshot, now) = (self.state.snapshot(), self.state.clock.now());
        let mut stands = BTreeMap::new();
        let callers = (0..KEYS).filter_map(|n| snapshot.view.caller(&digest(n)));
        let mut tell = |limit: &Limit| {
            let (tally, start) = snapshot.tally(limit, now);
            stands.insert(limit.key.clone(), (start.millis(), tally.spent, tally.used - tally.spent));
        };
        for caller in callers {
            snapshot.view.limits(Some(caller), Some(0), "openai", "m", "m").into_iter().for_each(&mut tell);
        }
        snapshot.view.limits(None, None, "openai", "m", "m").into_iter().for_each(&mut tell);
        for which in 0..self.rules.len() {
            if stands.contains_key(&self.rules[which].key) {
                self.look(which, false);
            }
        }
        stands
    }

    /// Every limit stands where the model says, and nothing is lost between limit, spent and held.
    pub(crate) fn conserved(&mut self) -> Result<(), String> {
        let real = self.real();
        for (key, (start, spent, held)) in real {
            let which = self.rules.iter().position(|rule| rule.key == key).ok_or(format!("{key:?} is gone"))?;
            let window = self.look(which, false);
            let sums = self.sums.get(&window).copied().unwrap_or_default();
            let (real, expected) = ((start, i128::from(spent), i128::from(held)), (window.1, sums.spent, sums.held));
            if real != expected {
                return Err(format!("{key:?}: {real:?} and not {expected:?}"));
            }
        }
        Ok(())
    }

    /// No window has more than its policy allows.
    pub(crate) fn not_overspent(&mut self) -> Result<(), String> {
        for (window, sums) in &self.sums {
            let most = match self.admission {
                Admission::NeverExceed => sums.ceiling + sums.excess,
                Admission::Remaining => sums.ceiling + sums.largest + sums.misjudged + sums.excess,
            };
            let stands = if self.admission == Admission::NeverExceed { sums.spent + sums.held } else { sums.spent };
            if stands > most {
                return Err(format!("{window:?}: {stands} where {most} may be: {sums:?}"));
            }
        }
        Ok(())
    }

    /// The entries sum to what is spent, window by window, and there is one for each attempt that was sent.
    pub(crate) fn books_agree(&mut self) -> Result<(), String> {
        self.write(usize::MAX);
        if self.books.entries.len() != self.charged {
            return Err(format!("{} entries of {} attempts", self.books.entries.len(), self.charged));
        }
        let live = self.limits();
        for ((key, start), sums) in self.sums.iter().filter(|((key, _), _)| live.contains(key)) {
            let booked = self.books.windows.get(&(key.clone(), Timestamp::from_millis(*start))).copied().unwrap_or(0);
            if i128::from(booked) != sums.spent {
                return Err(format!("{key:?} from {start}: {booked} in the books, {} spent", sums.spent));
            }
        }
        Ok(())
    }

    /// The last refusal changed nothing anywhere.
    pub(crate) fn left_no_trace(&mut self) -> Result<(), String> {
        self.trace.take().map_or(Ok(()), Err)
    }

    /// Ends every attempt; then nothing is held anywhere.
    pub(crate) fn not_leaking(&mut self) -> Result<(), String> {
        for Attempt { hold, sent, held, bound, windows } in std::mem::take(&mut self.open) {
            drop(hold);
            self.charge(windows, sent.then_some(held), held, bound);
        }
        self.write(usize::MAX);
        let held = self.real().into_iter().find(|(_, (_, _, held))| *held != 0);
        let outbox = (self.state.outbox().open_holds(), self.state.outbox().unwritten());
        match held {
            Some(held) => Err(format!("{held:?} is still held")),
            None if outbox != (0, 0) => Err(format!("{outbox:?} places are taken")),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// Whether it applies to the calls of this key.
    fn concerns(&self, n: usize) -> bool {
        match self.owner {
            Owner::Key(own) | Owner::Config(own) => own == n,
            Owner::Provider | Owner::Customer | Owner::Team => true,
        }
    }
}

fn digest(n: usize) -> Digest {
    let mut digest = DIGEST;
    digest[0] = u8::try_from(n).unwrap();
    digest
}
