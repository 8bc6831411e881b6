//! What each step of a call costs: identify, route, read, hold and settle, price, meter.
//!
//! Prints nanoseconds for one operation, the median and the fastest of many samples, and the ratio to
//! the first line of its group. Clock figures differ between machines and minutes; the ratios within
//! a group are what to look at. `cargo bench --bench hot_path -- admit` runs the groups named so.

#![expect(clippy::print_stdout, reason = "a program for people, whose result is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use tollgate::governance::catalog::{Catalog, Mode};
use tollgate::governance::cel::{Checker, Condition};
use tollgate::governance::edit::Edit;
use tollgate::governance::entity::{
    Budget, KeySet, KeyValue, Limits, ModelPattern, ModelSet, OverrideScope, PricingOverride, Provider, ProviderConfig,
    ProviderKey, Quota, RateLimit, RoutingRule, RuleScope, RuleTarget, VirtualKey, Weight,
};
use tollgate::governance::judge::Admission;
use tollgate::governance::money::{Nanos, Rate};
use tollgate::governance::pricing::Price;
use tollgate::governance::request::{Dialect, RequestKind};
use tollgate::governance::route::{self, Asked, Decision, Draw, Question};
use tollgate::governance::time::{Span, Timestamp, Window};
use tollgate::governance::usage::{ServiceTier, Usage};
use tollgate::governance::view::{Caller, LimitKey, Policy};
use tollgate::provider::{Door, Framing, Out, Reader, Rewrite, Route, dialect, read_call};
use tollgate::state::clock::Clock;
use tollgate::state::digest::KeyHasher;
use tollgate::state::hold::Spend;
use tollgate::state::journal::Journal;
use tollgate::state::outbox::{CallTag, Ending, Entry};
use tollgate::state::{Ask, Balance, Snapshot, State};
use tollgate::store::{Ledger, StoreError, journal};
use tollgate::telemetry::Metrics;
use tollgate::wire::credential;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Cargo adds `--bench`; what does not begin with a dash names groups.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let groups: [(&str, fn()); 8] = [
        ("identify", identify),
        ("route", route_call),
        ("rules", rules),
        ("read", read),
        ("admit", admit),
        ("price", price),
        ("meter", meter),
        ("count", count),
    ];
    println!("{:<52} {:>10} {:>10} {:>7}", "", "median ns", "least ns", "ratio");
    for (name, run) in groups {
        if wanted.is_empty() || wanted.iter().any(|want| name.contains(want.as_str())) {
            println!("{name}");
            run();
        }
    }
}

// ---- Measuring

const SAMPLES: usize = 41;
const SAMPLE_TIME: Duration = Duration::from_millis(4);

/// The lines of one group: the first is what the others are compared with.
#[derive(Default)]
struct Group {
    first: Option<f64>,
}

impl Group {
    /// Measures `work` on its own.
    fn line(&mut self, name: &str, mut work: impl FnMut()) {
        self.batches(name, 1, |operations| {
            let began = Instant::now();
            for _ in 0..operations {
                work();
            }
            began.elapsed()
        });
    }

    /// Measures what runs `operations` times and says how long that took. It may prepare and clean up
    /// outside of what it times. `per` operations of the result are one.
    fn batches(&mut self, name: &str, per: u32, mut batch: impl FnMut(u32) -> Duration) {
        let mut operations = 16;
        while batch(operations) < SAMPLE_TIME && operations < 1 << 24 {
            operations *= 2;
        }
        let mut samples: Vec<f64> = (0..SAMPLES)
            .map(|_| batch(operations).as_secs_f64() * 1e9 / f64::from(operations) / f64::from(per))
            .collect();
        samples.sort_by(f64::total_cmp);
        let (median, least) = (samples[SAMPLES / 2], samples[0]);
        let ratio = median / *self.first.get_or_insert(median);
        println!("  {name:<50} {median:>10.1} {least:>10.1} {ratio:>7.2}");
    }
}

// ---- The house

const MODEL: &str = "gpt-4o";

fn long_ago() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

/// A limit that is never reached.
const AMPLE: i64 = i64::MAX / 4;

#[derive(Clone, Copy)]
enum Windows {
    Rolling,
    Aligned,
}

impl Windows {
    fn window(self) -> Window {
        let day = Span::parse("1d").expect("a day is a duration");
        match self {
            Windows::Rolling => Window::rolling(day),
            Windows::Aligned => Window::aligned(day).expect("a day is a period of the calendar"),
        }
    }
}

/// Key `number` with the first `limits` of six limits: money, tokens and requests on the key, then the
/// same on its provider config.
fn virtual_key(number: usize, limits: usize, windows: Windows) -> VirtualKey {
    let at = long_ago();
    let level = |name: &str, count: usize| {
        let window = || windows.window();
        let quota = |wanted: bool| wanted.then(|| Quota { max: AMPLE, window: window(), anchor: at });
        let id = format!("{name}-{number}").into();
        let budget =
            Budget { id, max: Nanos::new(AMPLE), window: window(), anchor: at, created_at: at, updated_at: at };
        let id = format!("{name}-rate-{number}").into();
        let rate =
            RateLimit { id, tokens: quota(count > 1), requests: quota(count > 2), created_at: at, updated_at: at };
        (if count > 0 { vec![budget] } else { vec![] }, (count > 1).then_some(rate))
    };
    let own = level("key", limits.min(3));
    let through = level("config", limits.saturating_sub(3));
    VirtualKey {
        id: format!("vk-{number}").into(),
        name: format!("key {number}"),
        description: String::new(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: Limits { budgets: own.0, rate_limit: own.1.map(Box::new) },
        provider_configs: vec![ProviderConfig {
            id: 1,
            provider: "openai".into(),
            weight: Some(Weight::ONE),
            allowed_models: ModelSet::All,
            blacklisted_models: ModelSet::Only(vec![]),
            key_ids: KeySet::All,
            limits: Limits { budgets: through.0, rate_limit: through.1.map(Box::new) },
        }],
        mcp_configs: "[]".into(),
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    }
}

fn credential_of(number: usize) -> String {
    format!("sk-bf-{number:08}-0000-4000-8000-000000000000")
}

fn provider() -> Provider {
    let at = Timestamp::default();
    let key = ProviderKey {
        id: "main".into(),
        name: "main".into(),
        value: KeyValue::text("sk-real"),
        weight: Weight::ONE,
        models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec![]),
        aliases: Default::default(),
        enabled: true,
        use_for_batch_api: false,
        cloud: None,
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    };
    Provider { keys: vec![Arc::new(key)], ..Provider::new("openai", at) }
}

fn list_price() -> Price {
    Price::named([
        ("input_cost_per_token", Rate::new(2_500_000)),
        ("cache_read_input_token_cost", Rate::new(1_250_000)),
        ("output_cost_per_token", Rate::new(10_000_000)),
        ("input_cost_per_token_above_272k_tokens", Rate::new(5_000_000)),
        ("input_cost_per_token_priority", Rate::new(5_000_000)),
        ("search_context_cost_per_query", Rate::new(10_000_000_000)),
    ])
}

fn house(keys: usize, limits: usize, windows: Windows) -> State {
    house_with(None, keys, limits, windows)
}

fn house_with(journal: Option<Arc<dyn Journal>>, keys: usize, limits: usize, windows: Windows) -> State {
    let state = State::with_journal(Clock::System, KeyHasher::new(&[7; 32]), 1 << 26, journal);
    let mut catalog = Catalog::default();
    catalog.insert("openai", MODEL, Some(Mode::Chat), list_price());
    let mut edits = vec![Edit::Provider(Arc::new(provider())), Edit::Catalog(Arc::new(catalog))];
    edits.extend((0..keys).map(|number| {
        let digest = state.hasher.digest(credential_of(number).as_bytes());
        Edit::VirtualKey { key: Arc::new(virtual_key(number, limits, windows)), digest, value: None }
    }));
    let Ok(()) = state.change(&HashMap::new(), |_| Ok::<_, Infallible>((edits, ())), |_, _, _, ()| Ok(()));
    state
}

fn caller(state: &State, snapshot: &Snapshot, number: usize) -> Arc<Caller> {
    let digest = state.hasher.digest(credential_of(number).as_bytes());
    Arc::clone(snapshot.view.caller(&digest).expect("this key was declared"))
}

// ---- The groups

/// The snapshot, the credential out of the headers, its digest, the caller.
fn identify() {
    let mut group = Group::default();
    for keys in [10, 10_000, 100_000] {
        let state = house(keys, 3, Windows::Rolling);
        let headers: Vec<HeaderMap> = (0..keys)
            .step_by(keys.div_ceil(997))
            .map(|number| {
                let value = format!("Bearer {}", credential_of(number)).parse().expect("a header's value");
                HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
            })
            .collect();
        let mut turn = headers.iter().cycle();
        group.line(&format!("one of {keys} keys"), || {
            let snapshot = state.snapshot();
            let headers = turn.next().expect("a cycle does not end");
            let value = credential::virtual_key(headers, None).ok().flatten().expect("the headers carry a key");
            let caller = snapshot.view.caller(&state.hasher.digest(value)).expect("the key was declared");
            black_box(Arc::clone(caller));
        });
    }
}

const ASKED: Asked =
    Asked { kind: RequestKind::ChatCompletion, stream: false, dialect: Some(Dialect::OpenAi), home: None };

/// The way in of a chat.
fn chat_route() -> Route {
    match dialect::path::read("/v1/chat/completions") {
        (_, Some(Door::Call(route))) => route,
        _ => unreachable!("chats are served"),
    }
}

fn route_call() {
    let mut group = Group::default();
    let state = house(10, 3, Windows::Rolling);
    let snapshot = state.snapshot();
    let caller = caller(&state, &snapshot, 0);
    for (name, text) in [("provider/model", "openai/gpt-4o"), ("a bare model", MODEL)] {
        group.line(name, || {
            black_box(decide(&snapshot, &caller, black_box(text), b"{}").targets.expect("the key allows it"));
        });
    }
}

/// Where a chat for `model` goes.
fn decide(snapshot: &Snapshot, caller: &Caller, model: &str, body: &[u8]) -> Decision {
    let headers = [("x-tier", "free"), ("user-agent", "a client of ours"), ("content-type", "application/json")];
    let headers = headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let question = Question {
        view: &snapshot.view,
        caller: Some(caller),
        asked: ASKED,
        model,
        input_tokens: 300,
        headers: &HeaderMap::from_iter(headers),
        query: "",
        body,
        fallbacks: None,
        now: long_ago(),
        live: &snapshot.at(long_ago()),
    };
    route::decide(&question, &mut Draw::seeded(1), None)
}

/// Rules of which none matches, so that all in scope are tried: what a call pays for them, among 10,000 in all.
fn rules() {
    let expressions = [
        (
            "a header, a model, a percentage",
            r#"headers["x-tier"] == "gold" && model.startsWith("gpt-4") && budget_used < 80"#,
        ),
        ("the model in a list of eight", "model in ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']"),
        ("a pattern", "model.matches('^o[0-9](-mini|-pro)?(-[0-9]{4}-[0-9]{2}-[0-9]{2})?$')"),
        ("a member of a body of 2 KB", "body.metadata.team == 'research'"),
        ("all budgets and the hour", "team_budget_used + virtual_key_budget_used > 90 && now.getHours() < 6"),
    ];
    let text = body(2_000);
    let body = [&text[..text.len() - 1], br#","metadata":{"team":"sales"}}"#].concat();
    for (name, expression) in expressions {
        let mut group = Group::default();
        for in_scope in [0, 1, 10, 100] {
            let state = house(10, 3, Windows::Rolling);
            let condition = Checker::default().read(expression).expect("the expression is sound");
            let edits = (0..10_000).map(|n| rule(n, n < in_scope, &condition)).collect();
            let Ok(()) = state.change(&HashMap::new(), |_| Ok::<_, Infallible>((edits, ())), |_, _, _, ()| Ok(()));
            let snapshot = state.snapshot();
            let caller = caller(&state, &snapshot, 0);
            assert!(decide(&snapshot, &caller, "openai/gpt-4o", &body).rule.is_none());
            group.line(&format!("{in_scope:>3} in scope: {name}"), || {
                black_box(decide(&snapshot, &caller, black_box("openai/gpt-4o"), &body).targets.is_ok());
            });
        }
    }
    let mut checker = Checker::default();
    Group::default().line("check and compile one of them, when it is written", || {
        black_box(checker.read(black_box(expressions[0].1)).is_ok());
    });
}

/// A rule for the first key, or for one of others.
fn rule(number: usize, in_scope: bool, condition: &Condition) -> Edit {
    let scope = if in_scope { "vk-0".to_owned() } else { format!("other-{}", number % 1_000) };
    Edit::RoutingRule(Arc::new(RoutingRule {
        id: format!("rule-{number}").into(),
        name: format!("rule-{number}"),
        description: String::new(),
        enabled: true,
        expression: condition.text().to_owned(),
        fault: None,
        condition: Some(condition.clone()),
        targets: vec![RuleTarget { provider: None, model: Some("o".into()), key_id: None, weight: Weight::ONE }],
        fallbacks: None,
        scope: RuleScope::VirtualKey(scope.into()),
        priority: i64::try_from(number).expect("there are not so many"),
        chain: false,
        query: None,
        config_hash: String::new(),
        created_at: long_ago(),
        updated_at: long_ago(),
    }))
}

/// A call with `bytes` of text, as the Python SDK writes it: `messages` before `model`.
fn body(bytes: usize) -> Bytes {
    let words = "Summarise the following report, please.\\n".repeat(bytes / 41);
    Bytes::from(format!(
        r#"{{"messages":[{{"role":"system","content":"You are helpful."}},{{"role":"user","content":"{words}"}}],"model":"openai/gpt-4o","stream":true}}"#
    ))
}

fn read() {
    let mut group = Group::default();
    for (name, bytes) in [("2 KB", 2_000), ("200 KB", 200_000)] {
        let body = body(bytes);
        let route = chat_route();
        group.line(&format!("understand a call of {name}"), || {
            black_box(read_call(&route, black_box(&body)).expect("the body is sound"));
        });
        let call = read_call(&route, &body).expect("the body is sound");
        group.line(&format!("rewrite it: another model, usage asked for, {name}"), || {
            black_box(call.rewrite(&body, Rewrite { model: MODEL, ask_usage: true, output_cap: None }));
        });
    }
}

/// One call's hold, made and settled. What it leaves for the ledger is thrown away between samples.
fn hold(state: &State, snapshot: &Snapshot, caller: &Caller, tag: &CallTag) {
    let usage = Usage::estimated(300, 400);
    let spend = Spend { cost: Nanos::new(4_750_000), tokens: 700 };
    let bound = (Usage::estimated(1_200, 4_096), Spend { cost: Nanos::new(43_960_000), tokens: 5_296 });
    let ask =
        Ask { caller: Some(caller), config: Some(0), upstream_model: MODEL, usage, spend, bound, tag: tag.clone() };
    let mut hold = state.admit(snapshot, ask).expect("the limits are ample");
    hold.mark_sent();
    let used = Usage { input: 251, output: 132, ..Usage::default() };
    hold.settle(Ending::Completed, used, Spend { cost: Nanos::new(1_947_500), tokens: 383 });
}

fn tag(state: &State, caller: &Caller) -> CallTag {
    CallTag {
        virtual_key: Some(Arc::clone(&caller.key.id)),
        team: caller.team_id(),
        customer: caller.customer_id(),
        provider: "openai".into(),
        model: MODEL.into(),
        kind: RequestKind::ChatCompletion,
        admitted_at: state.clock.now(),
        price: None,
    }
}

fn drain(state: &State) {
    loop {
        let entries = state.outbox().take(1 << 16);
        if entries.is_empty() {
            break;
        }
        state.outbox().written(entries);
    }
}

fn admit() {
    let mut group = Group::default();
    for (limits, windows, name) in [
        (1, Windows::Rolling, "1 limit"),
        (2, Windows::Rolling, "2 limits"),
        (3, Windows::Rolling, "3 limits"),
        (4, Windows::Rolling, "4 limits"),
        (5, Windows::Rolling, "5 limits"),
        (6, Windows::Rolling, "6 limits"),
        (6, Windows::Aligned, "6 limits, windows of the calendar"),
    ] {
        let state = house(10, limits, windows);
        let snapshot = state.snapshot();
        let caller = caller(&state, &snapshot, 0);
        let tag = tag(&state, &caller);
        group.batches(&format!("hold and settle, {name}"), 1, |operations| {
            let began = Instant::now();
            for _ in 0..operations {
                hold(&state, &snapshot, &caller, &tag);
            }
            let took = began.elapsed();
            drain(&state);
            took
        });
    }
    never_exceeded(&mut group);
    for (name, other) in [("2 threads, cells of their own", 1), ("2 threads on the same cells", 0)] {
        let state = house(10, 6, Windows::Rolling);
        let snapshot = state.snapshot();
        let callers = [0, other].map(|number| caller(&state, &snapshot, number));
        group.batches(&format!("6 limits, {name}"), 1, |operations| {
            let gate = Barrier::new(callers.len());
            let took = thread::scope(|scope| {
                let threads = callers.each_ref().map(|caller| {
                    let (state, snapshot, gate) = (&state, &snapshot, &gate);
                    scope.spawn(move || {
                        let tag = tag(state, caller);
                        gate.wait();
                        let began = Instant::now();
                        for _ in 0..operations {
                            hold(state, snapshot, caller, &tag);
                        }
                        began.elapsed()
                    })
                });
                threads.map(|thread| thread.join().expect("a thread does not panic")).into_iter().max()
            });
            drain(&state);
            took.unwrap_or_default()
        });
    }
    journalled();
}

/// Under the policy that never exceeds: a look at all of them more, and sums that have to fit.
fn never_exceeded(group: &mut Group) {
    let state = house(10, 6, Windows::Rolling);
    let policy = Policy { admission: Admission::NeverExceed, ..Policy::default() };
    let edits = vec![Edit::Policy(policy)];
    let Ok(()) = state.change(&HashMap::new(), |_| Ok::<_, Infallible>((edits, ())), |_, _, _, ()| Ok(()));
    let snapshot = state.snapshot();
    let caller = caller(&state, &snapshot, 0);
    let tag = tag(&state, &caller);
    group.batches("hold and settle, 6 limits, never exceeded", 1, |operations| {
        let began = Instant::now();
        for _ in 0..operations {
            hold(&state, &snapshot, &caller, &tag);
        }
        let took = began.elapsed();
        drain(&state);
        took
    });
}

/// The same with and without a journal. As in service, what is settled is written after a while, and its slots
/// are taken again; that part is timed, too, for freeing a slot is part of its cost.
fn journalled() {
    let mut group = Group::default();
    let dir = std::env::temp_dir().join(format!("tollgate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("there is room for a directory");
    let claimed = journal::claim(&dir, 65_536, &mut NoLedger, long_ago()).expect("there is room for a journal");
    let journal: Arc<dyn Journal> = claimed.journal;
    for limits in [1, 6] {
        for (name, journal) in [("no journal", None), ("a journal", Some(Arc::clone(&journal)))] {
            let state = house_with(journal, 10, limits, Windows::Rolling);
            let snapshot = state.snapshot();
            let caller = caller(&state, &snapshot, 0);
            let tag = tag(&state, &caller);
            if name == "no journal" {
                group = Group::default();
            }
            group.batches(&format!("hold, settle and forget, {limits} limits, {name}"), 1, |operations| {
                let began = Instant::now();
                for operation in 1..=operations {
                    hold(&state, &snapshot, &caller, &tag);
                    if operation % 1_024 == 0 {
                        drain(&state);
                    }
                }
                drain(&state);
                began.elapsed()
            });
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
}

/// Nothing was left by anybody.
struct NoLedger;

impl Ledger for NoLedger {
    fn append(&mut self, _: &[Entry]) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        Ok(HashMap::new())
    }

    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError> {
        Ok(Vec::new())
    }
}

fn price() {
    let mut group = Group::default();
    let state = house(1, 1, Windows::Rolling);
    let snapshot = state.snapshot();
    let price = list_price();
    let usage = Usage { input: 251, output: 132, ..Usage::default() };
    group.line("cost of input and output", || {
        black_box(price.cost(RequestKind::ChatCompletion, black_box(&usage)));
    });
    let usage = Usage { cache_read: 1_024, cache_write: 64, tier: ServiceTier::Priority, input: 300_000, ..usage };
    group.line("cost with caches, another tier, long context", || {
        black_box(price.cost(RequestKind::ChatCompletion, black_box(&usage)));
    });
    group.line("find the price in the catalogue", || {
        black_box(snapshot.view.catalog.find(
            black_box("openai"),
            black_box(MODEL),
            MODEL,
            RequestKind::ChatCompletion,
        ));
    });
    price_of_target(&mut group);
    state.expectations.learn("openai", MODEL, 100);
    group.line("what the model usually writes", || {
        black_box(state.expectations.output(black_box("openai"), black_box(MODEL), None));
    });
}

/// What an attempt is priced by, with and without overrides.
fn price_of_target(group: &mut Group) {
    let state = house(1, 1, Windows::Rolling);
    let mut line = |name: &str, edits: Vec<Edit>| {
        let Ok(()) = state.change(&HashMap::new(), |_| Ok::<_, Infallible>((edits, ())), |_, _, _, ()| Ok(()));
        let snapshot = state.snapshot();
        let caller = caller(&state, &snapshot, 0);
        let kind = RequestKind::ChatCompletion;
        let targets = decide(&snapshot, &caller, "openai/gpt-4o", b"{}").targets.expect("the key allows it");
        group.line(name, || {
            let price = route::price(&snapshot.view, Some(&caller), black_box(&targets[0]), kind);
            black_box(price.expect("the model has a price"));
        });
    };
    line("the price of a target, no overrides", vec![]);
    let others = (0..10_000).map(|n| {
        let scope = OverrideScope::VirtualKey { virtual_key: format!("other-{n}").into() };
        price_override(&format!("other-{n}"), scope, ModelPattern::Exact(MODEL.to_owned()))
    });
    line("the price of a target, 10000 overrides of others", others.collect());
    let own = OverrideScope::VirtualKey { virtual_key: "vk-0".into() };
    line("and one of its own", vec![price_override("own", own, ModelPattern::Prefix("gpt-".to_owned()))]);
    let prefixes = (0..20).map(|n| {
        let pattern = ModelPattern::Prefix(format!("gpt-{}", "x".repeat(n)));
        price_override(&format!("prefix-{n}"), OverrideScope::Global, pattern)
    });
    let gone = Edit::RemovePricingOverride("own".into());
    line("one of everybody's instead, with patterns of 20 lengths", [gone].into_iter().chain(prefixes).collect());
}

fn price_override(id: &str, scope: OverrideScope, pattern: ModelPattern) -> Edit {
    let rates = [("input_cost_per_token", 1_000_000), ("output_cost_per_token", 4_000_000)];
    Edit::PricingOverride(Arc::new(PricingOverride {
        id: id.into(),
        name: id.to_owned(),
        scope,
        pattern,
        request_kinds: BTreeSet::from([RequestKind::ChatCompletion]),
        patch: rates.into_iter().map(|(field, rate)| (field, Rate::new(rate))).collect(),
        config_hash: String::new(),
        created_at: long_ago(),
        updated_at: long_ago(),
    }))
}

const USAGE: &str = r#""usage":{"prompt_tokens":251,"completion_tokens":132,"total_tokens":383,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

fn event(choices: &str, usage: &str) -> Bytes {
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-C4a8f2e6b1d9\",\"object\":\"chat.completion.chunk\",\"created\":1794477600,\
         \"model\":\"gpt-4o\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_9b78b61c52\",\
         \"choices\":{choices}{usage}}}\n\n"
    ))
}

fn meter() {
    let mut group = Group::default();
    let kind = RequestKind::ChatCompletion;
    let word = event(r#"[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]"#, "");
    let events = 50;
    let mut stream = |name: &str, pieces: &[Bytes], withhold: bool| {
        group.batches(name, events, |streams| {
            let began = Instant::now();
            for _ in 0..streams {
                let mut reader = Reader::new(Dialect::OpenAi, kind, Framing::Events, withhold);
                for piece in pieces {
                    let mut out = Out::new();
                    reader.chunk(piece.clone(), &mut out);
                    black_box(&out);
                }
                black_box(reader.reading());
            }
            began.elapsed()
        });
    };
    let whole = vec![word.clone(); events as usize];
    stream("an event of a stream, one a piece", &whole, false);
    stream("an event, the usage event withheld", &whole, true);
    let joined = Bytes::from(whole.concat());
    stream("an event, 4 KiB pieces", &joined.chunks(4_096).map(Bytes::copy_from_slice).collect::<Vec<_>>(), false);
    stream("an event, pieces of 100 bytes", &joined.chunks(100).map(Bytes::copy_from_slice).collect::<Vec<_>>(), false);

    let usage = event("[]", &format!(",{USAGE}"));
    group.line("the usage event, reader and all", || {
        let (mut reader, mut out) = (Reader::new(Dialect::OpenAi, kind, Framing::Events, true), Out::new());
        reader.chunk(usage.clone(), &mut out);
        black_box(reader.reading());
    });
    let said = "The report says that things are going well, with a few exceptions. ".repeat(9);
    let answer = Bytes::from(format!(
        r#"{{"id":"chatcmpl-C4a8f2e6b1d9","object":"chat.completion","created":1794477600,"model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"{said}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},"service_tier":"default","system_fingerprint":"fp_9b78b61c52"}}"#
    ));
    group.line(&format!("a unary answer of {} bytes, reader and all", answer.len()), || {
        let (mut reader, mut out) = (Reader::new(Dialect::OpenAi, kind, Framing::Document, false), Out::new());
        reader.chunk(answer.clone(), &mut out);
        black_box(reader.reading());
    });
}

/// The metrics of one unary call.
fn count() {
    let mut group = Group::default();
    let metrics = Metrics::new();
    let usage = Usage { input: 251, output: 132, ..Usage::default() };
    group.line("the metrics of a call", || {
        metrics.first_byte(Duration::from_millis(3));
        metrics.attempted(black_box("openai"), Ending::Completed.as_str());
        metrics.charged(black_box("openai"), &usage, 1_947_500);
        metrics.answered(Some(200), Duration::from_millis(4));
    });
}
