//! Money is conserved, whatever the order of things; and a window keeps what it admitted.

mod interleavings;
mod invariants;
pub(crate) mod world;

use super::*;
use crate::governance::entity::{
    Budget, Customer, KeySet, Limits, ModelConfig, ModelSet, ProviderConfig, ProviderLimits, Quota, RateLimit, Team,
    VirtualKey,
};
use crate::governance::judge::Admission;
use crate::governance::money::Nanos;
use crate::governance::refusal::Refusal;
use crate::governance::request::RequestKind;
use crate::governance::time::{Span, Window};
use crate::governance::view::{Digest, Measure, Policy};
use crate::state::admission::Gates;
use crate::state::hold::Hold;
use crate::state::outbox::Ending;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::atomic::AtomicI64;

const DIGEST: Digest = [7; 32];
const START: i64 = 1_000_000;

fn window(text: &str) -> Window {
    Window::rolling(Span::parse(text).unwrap())
}

fn budget(id: &str, max: i64, span: &str) -> Budget {
    let at = Timestamp::from_millis(START);
    Budget { id: id.into(), max: Nanos::new(max), window: window(span), anchor: at, created_at: at, updated_at: at }
}

fn rate(id: &str, tokens: Option<i64>, requests: Option<i64>) -> RateLimit {
    let at = Timestamp::from_millis(START);
    let quota = |max| Quota { max, window: window("1h"), anchor: at };
    RateLimit {
        id: id.into(),
        tokens: tokens.map(quota),
        requests: requests.map(quota),
        created_at: at,
        updated_at: at,
    }
}

fn key(
    budgets: Vec<Budget>,
    rate_limit: Option<RateLimit>,
    config: (Vec<Budget>, Option<RateLimit>),
) -> Arc<VirtualKey> {
    let at = Timestamp::from_millis(START);
    Arc::new(VirtualKey {
        id: "vk".into(),
        name: "test".into(),
        description: String::new(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: Limits { budgets, rate_limit: rate_limit.map(Box::new) },
        provider_configs: vec![ProviderConfig {
            id: 1,
            provider: "openai".into(),
            weight: None,
            allowed_models: ModelSet::All,
            blacklisted_models: ModelSet::Only(vec![]),
            key_ids: KeySet::All,
            limits: Limits { budgets: config.0, rate_limit: config.1.map(Box::new) },
        }],
        mcp_configs: "[]".into(),
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    })
}

struct House {
    state: State,
    hand: Arc<AtomicI64>,
}

impl House {
    fn with(key: Arc<VirtualKey>) -> House {
        let (clock, hand) = Clock::manual(Timestamp::from_millis(START));
        let house = House { state: State::new(clock, KeyHasher::new(&[1; 32]), 1_000), hand };
        house.publish(key);
        house
    }

    fn publish(&self, key: Arc<VirtualKey>) {
        self.make(vec![Edit::VirtualKey { key, digest: DIGEST, value: None }]);
    }

    fn make(&self, edits: Vec<Edit>) {
        self.state.change(&HashMap::new(), |_| Ok::<_, ()>((edits, ())), |_, _, _, ()| Ok(())).unwrap();
    }

    fn admit(&self, cost: i64, tokens: i64) -> Result<Hold, Refusal> {
        let snapshot = self.state.snapshot();
        let tag = CallTag {
            virtual_key: Some("vk".into()),
            team: None,
            customer: None,
            provider: "openai".into(),
            model: "m".into(),
            kind: RequestKind::ChatCompletion,
            admitted_at: self.state.clock.now(),
            price: None,
        };
        let caller = snapshot.view.caller(&DIGEST).map(|caller| &**caller);
        let (usage, spend) = (Usage::default(), Spend { cost: Nanos::new(cost), tokens });
        self.state.admit(
            &snapshot,
            Ask { caller, config: Some(0), upstream_model: "m", usage, spend, bound: (usage, spend), tag },
        )
    }

    fn call(&self, cost: i64) -> Result<(), Refusal> {
        let mut hold = self.admit(cost, 0)?;
        hold.mark_sent();
        settle(hold, cost, 0);
        Ok(())
    }

    /// (spent, held) of every limit, in the order of the slots.
    fn tallies(&self) -> Vec<(i64, i64)> {
        let (snapshot, now) = (self.state.snapshot(), self.state.clock.now());
        let caller = snapshot.view.caller(&DIGEST).unwrap();
        let tally = |limit| snapshot.tally(limit, now).0;
        caller.limits_through(Some(0)).map(|limit| (tally(limit).spent, tally(limit).held())).collect()
    }
}

fn settle(hold: Hold, cost: i64, tokens: i64) {
    hold.settle(Ending::Completed, Usage::default(), Spend { cost: Nanos::new(cost), tokens });
}

#[test]
fn sequential_calls_pass_until_the_limit_is_reached() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    for _ in 0..4 {
        house.call(30).unwrap();
    }
    assert_eq!(house.call(30).unwrap_err().status(), 402);
    assert_eq!(house.tallies(), [(120, 0)]);
}

#[test]
fn calls_in_flight_count_with_what_they_hold() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    let holds: Vec<Hold> = std::iter::from_fn(|| house.admit(30, 0).ok()).collect();
    assert_eq!(holds.len(), 4);
    let refusal = house.admit(30, 0).unwrap_err();
    assert_eq!((refusal.status(), refusal.retry_after(house.state.clock.now())), (429, Some(1)));
    drop(holds);
    assert_eq!(house.tallies(), [(0, 0)]);
}

#[test]
fn no_amount_makes_a_cell_forget_what_it_was() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    house.call(60).unwrap();
    for amount in [i64::MAX, i64::MAX - 59] {
        // What does not fit into the sum is not admitted.
        assert!(house.admit(amount, 0).is_err());
    }
    let mut hold = house.admit(i64::MAX - 60, 0).unwrap();
    hold.mark_sent();
    hold.release(Ending::UpstreamFailed);
    assert_eq!(house.tallies(), [(60, 0)]);
    let mut hold = house.admit(10, 0).unwrap();
    hold.mark_sent();
    settle(hold, i64::MAX, 0);
    assert_eq!(house.tallies(), [(i64::MAX, 0)]);
}

#[test]
fn a_request_under_an_old_view_does_not_end_a_longer_window() {
    let house = House::with(key(vec![budget("b", 100, "1m")], None, (vec![], None)));
    house.call(60).unwrap();
    let old = house.state.snapshot();
    house.publish(key(vec![budget("b", 100, "1d")], None, (vec![], None)));
    house.hand.store(START + 120_000, Ordering::SeqCst);
    let limit = &old.view.caller(&DIGEST).unwrap().limits[0];
    assert_eq!(old.tally(limit, house.state.clock.now()).0.spent, 0);
    assert_eq!(house.tallies(), [(60, 0)]);
}

#[test]
fn a_refusal_at_one_limit_leaves_no_trace_in_the_others() {
    let house = House::with(key(
        vec![budget("b", 1_000, "1h")],
        Some(rate("r", Some(1_000), Some(10))),
        (vec![budget("c", 50, "1h")], Some(rate("s", None, Some(10)))),
    ));
    house.call(60).unwrap();
    let before = house.tallies();
    assert!(house.admit(1, 1).is_err());
    assert_eq!(house.tallies(), before);
    assert_eq!(house.state.outbox().open_holds(), 0);
}

#[test]
fn the_reported_limit_follows_the_order_of_checks() {
    let check = |budgets, rates, config: (Vec<Budget>, Option<RateLimit>), code: &str, at_target: bool| {
        let house = House::with(key(budgets, rates, config));
        let mut hold = house.admit(10, 10).unwrap();
        hold.mark_sent();
        settle(hold, 10, 10);
        let refusal = house.admit(1, 1).unwrap_err();
        assert_eq!((refusal.code(), refusal.is_about_target()), (code, at_target));
    };
    let b = |id: &str| vec![budget(id, 5, "1h")];
    check(b("b"), None, (vec![], None), "budget_exceeded", false);
    check(b("b"), Some(rate("r", Some(5), None)), (vec![], None), "token_limited", false);
    check(b("b"), Some(rate("r", Some(5), Some(1))), (b("c"), None), "rate_limited", false);
    check(b("b"), None, (b("c"), None), "budget_exceeded", true);
    check(b("b"), None, (b("c"), Some(rate("s", None, Some(1)))), "request_limited", true);
}

#[test]
fn a_request_counts_once_it_was_sent() {
    let house = House::with(key(vec![], Some(rate("r", None, Some(2))), (vec![], None)));
    house.admit(0, 0).unwrap().release(Ending::UpstreamFailed);
    assert_eq!(house.tallies(), [(0, 0)]);
    let mut hold = house.admit(0, 0).unwrap();
    hold.mark_sent();
    hold.release(Ending::UpstreamFailed);
    assert_eq!(house.tallies(), [(1, 0)]);
}

#[test]
fn a_dropped_hold_settles_itself() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    drop(house.admit(30, 0).unwrap());
    assert_eq!((house.tallies(), house.state.outbox().unwritten()), (vec![(0, 0)], 0));
    let mut sent = house.admit(30, 0).unwrap();
    sent.mark_sent();
    drop(sent);
    assert_eq!((house.tallies(), house.state.outbox().unwritten()), (vec![(30, 0)], 1));
    assert_eq!(house.state.outbox().take(9)[0].ending, Ending::Abandoned);
}

#[test]
fn a_panic_settles_the_hold() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    for (sent, spent) in [(false, 0), (true, 30)] {
        let mut hold = house.admit(30, 0).unwrap();
        let call = std::panic::AssertUnwindSafe(move || {
            if sent {
                hold.mark_sent();
            }
            panic!("a fault in the middle of a call")
        });
        std::panic::catch_unwind(call).unwrap_err();
        assert_eq!((house.tallies(), house.state.outbox().open_holds()), (vec![(spent, 0)], 0));
    }
    let entries = house.state.outbox().take(9);
    assert_eq!(entries.iter().map(|e| (e.ending, e.cost.get())).collect::<Vec<_>>(), [(Ending::Abandoned, 30)]);
}

#[test]
fn a_task_that_is_dropped_settles_its_hold() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut hold = house.admit(30, 0).unwrap();
    let task = runtime.spawn(async move {
        hold.mark_sent();
        std::future::pending::<()>().await;
        hold.release(Ending::Completed);
    });
    runtime.block_on(tokio::task::yield_now());
    assert_eq!(house.tallies(), [(0, 30)]);
    task.abort();
    runtime.block_on(task).unwrap_err();
    assert_eq!((house.tallies(), house.state.outbox().unwritten()), (vec![(30, 0)], 1));
}

#[test]
fn a_charge_goes_to_the_window_that_admitted_it() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    let mut hold = house.admit(90, 0).unwrap();
    hold.mark_sent();
    house.hand.store(START + 3_600_000, Ordering::SeqCst);
    assert_eq!(house.tallies(), [(0, 0)]);
    settle(hold, 90, 0);
    assert_eq!(house.tallies(), [(0, 0)]);
    let entry = house.state.outbox().take(1).remove(0);
    assert_eq!((entry.deltas[0].cell.start().millis(), entry.deltas[0].amount), (START, 90));
    // A clock that steps back reopens nothing.
    house.hand.store(START, Ordering::SeqCst);
    assert_eq!(house.tallies(), [(0, 0)]);
}

#[test]
fn changing_a_limit_keeps_what_was_spent() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    house.call(60).unwrap();
    house.publish(key(vec![budget("b", 50, "1h")], None, (vec![], None)));
    assert_eq!(house.call(1).unwrap_err().code(), "budget_exceeded");
    house.publish(key(vec![budget("b", 500, "2h")], None, (vec![], None)));
    house.call(1).unwrap();
    assert_eq!(house.tallies(), [(61, 0)]);
}

#[test]
fn every_level_holds_and_the_order_of_checks_decides_what_is_told() {
    let at = Timestamp::from_millis(START);
    let limits = |id: &str, money: i64, requests: Option<i64>| Limits {
        budgets: vec![budget(&format!("{id}-b"), money, "1h")],
        rate_limit: requests.map(|max| Box::new(rate(&format!("{id}-r"), None, Some(max)))),
    };
    let check = |tight: &str, requests: Option<i64>, code: &str, at_target: bool, told: &str| {
        let of = |id: &str| limits(id, if tight == id { 5 } else { 1_000 }, requests.filter(|_| tight == id));
        let mut key = VirtualKey::clone(&key(of("vk").budgets, of("vk").rate_limit.map(|rate| *rate), (vec![], None)));
        key.provider_configs[0].limits = of("config");
        key.team_id = Some("t".into());
        let customer = Customer {
            id: "c".into(),
            name: "secret name".into(),
            limits: of("customer"),
            config_hash: String::new(),
            created_at: at,
            updated_at: at,
        };
        let team = Team {
            id: "t".into(),
            name: "secret name".into(),
            customer_id: Some("c".into()),
            limits: of("team"),
            profile: None,
            config: None,
            claims: None,
            config_hash: String::new(),
            created_at: at,
            updated_at: at,
        };
        let model = |id: &str, provider: Option<&str>| ModelConfig {
            id: id.into(),
            model_name: "m".into(),
            provider: provider.map(Into::into),
            limits: of(id),
            config_hash: String::new(),
            created_at: at,
            updated_at: at,
        };
        let provider = ProviderLimits { provider: "openai".into(), limits: of("provider"), config_hash: String::new() };
        let (clock, hand) = Clock::manual(at);
        let house = House { state: State::new(clock, KeyHasher::new(&[1; 32]), 1_000), hand };
        // The key first: whoever comes later is linked to it all the same.
        house.publish(Arc::new(key));
        house.make(vec![
            Edit::Team(Arc::new(team)),
            Edit::Customer(Arc::new(customer)),
            Edit::ModelConfig(Arc::new(model("model", None))),
            Edit::ModelConfig(Arc::new(model("provider-model", Some("openai")))),
            Edit::ModelConfig(Arc::new(model("elsewhere", Some("azure")))),
            Edit::ProviderLimits(Arc::new(provider)),
        ]);
        house.call(10).unwrap();
        let refusal = house.admit(1, 0).unwrap_err();
        assert_eq!((refusal.code(), refusal.is_about_target()), (code, at_target), "{tight}");
        let text = refusal.to_string();
        assert!(text.starts_with(told) && !text.contains("secret name"), "{tight}: {text}");
        assert_eq!(house.state.outbox().open_holds(), 0);
    };
    check("provider", None, "budget_exceeded", true, "Provider-level budget exceeded: openai budget exceeded: ");
    check(
        "provider-model",
        None,
        "budget_exceeded",
        true,
        "Model-level budget exceeded: Model:m:Provider:openai budget",
    );
    check("model", None, "budget_exceeded", true, "Model-level budget exceeded: Model:m budget exceeded: ");
    check("customer", None, "budget_exceeded", false, "Budget exceeded: Customer budget exceeded: ");
    check("team", None, "budget_exceeded", false, "Budget exceeded: Team budget exceeded: ");
    check("vk", None, "budget_exceeded", false, "Budget exceeded: VK budget exceeded: ");
    check("config", None, "budget_exceeded", true, "Budget exceeded: Provider config budget exceeded: ");
    check("team", Some(1), "request_limited", false, "Rate limit check failed: rate limit violated for Team: ");
    check(
        "provider",
        Some(1),
        "request_limited",
        true,
        "Provider-level rate limit check failed: rate limit violated for openai: ",
    );
}

#[test]
fn a_key_that_moves_counts_for_its_new_team_from_now_on() {
    let at = Timestamp::from_millis(START);
    let team = |id: &str| {
        Edit::Team(Arc::new(Team {
            id: id.into(),
            name: id.into(),
            customer_id: None,
            limits: Limits { budgets: vec![budget(&format!("{id}-b"), 100, "1h")], rate_limit: None },
            profile: None,
            config: None,
            claims: None,
            config_hash: String::new(),
            created_at: at,
            updated_at: at,
        }))
    };
    let member = |id: &str| {
        let mut member = VirtualKey::clone(&key(vec![], None, (vec![], None)));
        member.team_id = Some(id.into());
        Arc::new(member)
    };
    let house = House::with(member("one"));
    house.make(vec![team("one"), team("two")]);
    house.call(60).unwrap();
    house.publish(member("two"));
    house.call(10).unwrap();
    let snapshot = house.state.snapshot();
    let spent = |id: &str| snapshot.tally(&snapshot.view.team(id).unwrap().limits[0], at).0.spent;
    assert_eq!((spent("one"), spent("two")), (60, 10));
}

#[test]
fn a_change_that_is_not_made_durable_never_was() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    house.call(60).unwrap();
    let wider = key(vec![budget("b", 500, "1h"), budget("c", 500, "2h")], None, (vec![], None));
    let edits = || vec![Edit::VirtualKey { key: Arc::clone(&wider), digest: DIGEST, value: None }];
    let refused = house.state.change(&HashMap::new(), |_| Ok((edits(), ())), |_, _, _, ()| Err::<(), _>("disk full"));
    assert_eq!((refused, house.tallies()), (Err("disk full"), vec![(60, 0)]));
    house.call(50).unwrap();
    assert_eq!(house.call(1).unwrap_err().code(), "budget_exceeded");
    // What was given up is taken again, and with nothing left over.
    house.make(edits());
    assert_eq!(house.tallies(), [(110, 0), (0, 0)]);
}

#[test]
fn a_change_that_panics_never_was() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    house.call(60).unwrap();
    let change = |budgets: Vec<Budget>| {
        vec![Edit::VirtualKey { key: key(budgets, None, (vec![], None)), digest: DIGEST, value: None }]
    };
    let panicking = |edits: Vec<Edit>| {
        let plan = |_: &Snapshot| Ok::<_, ()>((edits, ()));
        let change =
            || house.state.change(&HashMap::new(), plan, |_, _, _, ()| -> Result<(), ()> { panic!("a fault") });
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(change)).unwrap_err();
    };
    // Its windows are those of before, and what it opened and gave up is as it was.
    panicking(change(vec![budget("b", 100, "2h"), budget("c", 100, "1h")]));
    panicking(change(vec![]));
    house.make(change(vec![budget("b", 500, "1h"), budget("d", 100, "1h")]));
    house.call(50).unwrap();
    assert_eq!(house.tallies(), [(110, 0), (50, 0)]);
    // What another process spent reaches no cell of a change that never was.
    panicking(change(vec![budget("d", 100, "1h"), budget("e", 100, "1h")]));
    let key = |id: &str| LimitKey { id: id.into(), measure: Measure::Money };
    let start = Timestamp::from_millis(START);
    assert!(!house.state.credit(&key("e"), start, 7));
    assert!(house.state.credit(&key("b"), start, 7));
    assert_eq!(house.tallies(), [(117, 0), (50, 0)]);
    // Not even where a number was given away again.
    house.make(change(vec![budget("b", 500, "1h")]));
    panicking(change(vec![budget("b", 500, "1h"), budget("f", 100, "1h")]));
    assert!(!house.state.credit(&key("f"), start, 7));
}

#[test]
fn a_window_that_is_begun_by_hand_is_another_one() {
    let two = || key(vec![budget("a", 100, "1h"), budget("b", 100, "1h")], None, (vec![], None));
    let house = House::with(two());
    let restart = |id: &str, at: i64| {
        let key = LimitKey { id: id.into(), measure: Measure::Money };
        house.make(vec![Edit::Restart(Restart { key, at: Timestamp::from_millis(at) })]);
        let (snapshot, now) = (house.state.snapshot(), house.state.clock.now());
        let caller = snapshot.view.caller(&DIGEST).unwrap();
        let start = |limit| snapshot.tally(limit, now).1.millis() - START;
        (house.tallies(), caller.limits.iter().map(start).collect::<Vec<_>>())
    };
    // Nobody was counted yet.
    assert_eq!(restart("b", START), (vec![(0, 0), (0, 0)], vec![0, 0]));
    house.call(60).unwrap();
    assert_eq!(restart("b", START), (vec![(60, 0), (0, 0)], vec![0, 1]));
    house.call(10).unwrap();
    assert_eq!(restart("b", START), (vec![(70, 0), (0, 0)], vec![0, 2]));
    house.hand.store(START + 9, Ordering::SeqCst);
    assert_eq!(restart("b", START + 9), (vec![(70, 0), (0, 0)], vec![0, 9]));
    // A limit that is gone.
    house.publish(key(vec![], None, (vec![], None)));
    assert_eq!(restart("b", START), (vec![], vec![]));
}

#[test]
fn cells_of_limits_that_went_are_not_met_again() {
    let house = House::with(key(vec![budget("b", 100, "1h")], None, (vec![], None)));
    house.call(60).unwrap();
    let old = house.state.snapshot();
    house.publish(key(vec![budget("other", 100, "1h")], None, (vec![], None)));
    assert_eq!(house.tallies(), [(0, 0)]);
    house.publish(key(vec![budget("other", 100, "1h"), budget("b", 100, "2h")], None, (vec![], None)));
    assert_eq!(house.tallies(), [(0, 0), (0, 0)]);
    let limit = &old.view.caller(&DIGEST).unwrap().limits[0];
    assert_eq!(old.tally(limit, Timestamp::from_millis(START)).0.spent, 60);
}

#[test]
fn a_full_outbox_refuses_instead_of_forgetting() {
    let (clock, _) = Clock::manual(Timestamp::from_millis(START));
    let house = House { state: State::new(clock, KeyHasher::new(&[1; 32]), 2), hand: Arc::default() };
    house.publish(key(vec![], None, (vec![], None)));
    house.call(1).unwrap();
    house.call(1).unwrap();
    assert_eq!(house.call(1), Err(Refusal::LedgerFull));
    let written = house.state.outbox().take(9);
    house.state.outbox().written(written);
    house.call(1).unwrap();
}

#[test]
fn threads_never_overspend() {
    let house = Arc::new(House::with(key(vec![budget("b", 50_000, "1h")], None, (vec![], None))));
    let spenders = (0..8).map(|_| {
        let house = Arc::clone(&house);
        std::thread::spawn(move || (0..1_000).filter(|_| house.call(50).is_ok()).count())
    });
    let admitted: usize = spenders.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).sum();
    // Outbox places are 1000: every admitted call fits exactly.
    assert_eq!((admitted, house.tallies()), (1_000, vec![(50_000, 0)]));
}

#[test]
fn a_race_that_is_lost_leaves_nothing_behind() {
    let house = House::with(key(vec![budget("a", 1_000, "1h")], None, (vec![budget("b", 50, "1h")], None)));
    // Between the look and the hold another call took all of the second.
    let _other = house.admit(60, 0).unwrap();
    let before = house.tallies();
    let (snapshot, now) = (house.state.snapshot(), house.state.clock.now());
    let caller = snapshot.view.caller(&DIGEST).map(|caller| &**caller);
    let limits = snapshot.view.limits(caller, Some(0), "openai", "m", "m");
    let mut mine = House::with(key(vec![], None, (vec![], None))).admit(0, 0).unwrap();
    let offer = (Usage::default(), Spend { cost: Nanos::new(7), tokens: 0 });
    assert!(!Gates::of(&snapshot, &limits, now).take(&mut mine, offer));
    assert_eq!(house.tallies(), before);
    mine.mark_sent();
    settle(mine, 7, 0);
    assert_eq!(house.tallies(), before);
}

#[test]
fn a_thousand_calls_at_once_spend_what_there_is_and_no_more() {
    for admission in [Admission::Remaining, Admission::NeverExceed] {
        // For 50 calls; and other limits before and after that one, which are taken and given back.
        let (limit, actual, bound) = (50 * 40, 40, 100);
        let rates = Some(rate("r", Some(1 << 40), None));
        let house = House::with(key(vec![budget("a", 1 << 40, "1h")], rates, (vec![budget("b", limit, "1h")], None)));
        house.make(vec![Edit::Policy(Policy { admission, ..Policy::default() })]);
        let call = || loop {
            match house.admit(bound, 1) {
                Ok(mut hold) => {
                    hold.mark_sent();
                    std::thread::yield_now();
                    return settle(hold, actual, 1);
                }
                Err(refusal) if refusal.status() == 402 => return,
                Err(refusal) => assert_eq!(refusal.retry_after(house.state.clock.now()), Some(1)),
            }
            std::thread::yield_now();
        };
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..50).for_each(|_| call()));
            }
        });
        let [(a, 0), (tokens, 0), (b, 0)] = house.tallies()[..] else { panic!("{:?}", house.tallies()) };
        assert_eq!((a, tokens), (b, b / actual), "a refusal left something behind");
        let (least, most) = match admission {
            Admission::Remaining => (limit, limit + actual),
            // The last of it is less than the bound of one call, which here cannot be lowered.
            Admission::NeverExceed => (limit - bound + 1, limit),
        };
        assert!((least..=most).contains(&b) && b >= limit * 95 / 100, "{b} of {limit} under {admission:?}");
        assert_eq!(house.state.outbox().open_holds(), 0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit { cost: i64, sent: bool },
    Settle { which: usize, cost: i64 },
    Release { which: usize },
    Drop { which: usize },
    Pass { millis: i64 },
    Resize { max: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop_oneof![0..100i64, Just(i64::MAX), Just(i64::MAX / 2)], any::<bool>()).prop_map(|(cost, sent)| Step::Admit { cost, sent }),
        3 => (0..8usize, 0..150i64).prop_map(|(which, cost)| Step::Settle { which, cost }),
        1 => (0..8usize).prop_map(|which| Step::Release { which }),
        1 => (0..8usize).prop_map(|which| Step::Drop { which }),
        1 => (0..1_200_000i64).prop_map(|millis| Step::Pass { millis }),
        1 => (1..1_000i64).prop_map(|max| Step::Resize { max }),
    ]
}

proptest! {
    /// Whatever the order of holds, settlements, drops, edits and passing windows: nothing is lost,
    /// nothing stays held, and the entries sum to what is spent.
    #[test]
    fn money_is_conserved(steps in vec(any_step(), 0..200)) {
        let house = House::with(key(vec![budget("b", 300, "1h")], None, (vec![budget("c", 200, "30m")], None)));
        let mut open: Vec<Hold> = vec![];
        let mut booked = 0i128;
        for step in steps {
            match step {
                Step::Admit { cost, sent } => {
                    if let Ok(mut hold) = house.admit(cost, 0) {
                        if sent { hold.mark_sent() }
                        open.push(hold);
                    }
                }
                Step::Settle { which, cost } if which < open.len() => {
                    let hold = open.remove(which);
                    booked += i128::from(if hold.was_sent() { cost } else { 0 });
                    settle(hold, cost, 0);
                }
                Step::Release { which } if which < open.len() => open.remove(which).release(Ending::UpstreamFailed),
                Step::Drop { which } if which < open.len() => {
                    let hold = open.remove(which);
                    booked += i128::from(if hold.was_sent() { hold.estimate().1.cost.get() } else { 0 });
                }
                Step::Pass { millis } => { house.hand.fetch_add(millis, Ordering::SeqCst); }
                Step::Resize { max } => {
                    house.publish(key(vec![budget("b", max, "1h")], None, (vec![budget("c", 200, "30m")], None)));
                }
                _ => {}
            }
            for (spent, held) in house.tallies() {
                prop_assert!(spent >= 0 && held >= 0);
            }
        }
        for hold in open.drain(..) {
            booked += i128::from(if hold.was_sent() { hold.estimate().1.cost.get() } else { 0 });
        }
        prop_assert!(house.tallies().iter().all(|(_, held)| *held == 0));
        let entries = house.state.outbox().take(usize::MAX);
        prop_assert_eq!(house.state.outbox().open_holds(), 0);
        prop_assert_eq!(entries.iter().map(|e| i128::from(e.cost.get())).sum::<i128>(), booked);
        let (snapshot, now) = (house.state.snapshot(), house.state.clock.now());
        for limit in snapshot.view.caller(&DIGEST).unwrap().limits_through(Some(0)) {
            let (tally, start) = snapshot.tally(limit, now);
            let sum: i128 = entries.iter().flat_map(|e| &e.deltas)
                .filter(|d| *d.cell.key() == limit.key && d.cell.start() == start).map(|d| i128::from(d.amount)).sum();
            // A cell stops at the largest number there is.
            prop_assert_eq!(i128::from(tally.spent), sum.min(i128::from(i64::MAX)));
        }
    }
}
