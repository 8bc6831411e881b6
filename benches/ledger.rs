//! What the ledger costs: `cargo bench --bench ledger -- [entries]` (1,000,000 unless said otherwise).
//!
//! Settles calls of 200 keys over 90 days, six limits each, and appends them as the writer does, 512 at a time;
//! then asks for pages and sums through the admin API. In this process, in a temporary directory. Prints
//! processor time, bytes and milliseconds; nothing is judged, since machines differ.

#![expect(clippy::print_stdout, reason = "a program for people, whose result is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use axum::body::Body;
use axum::http::Request;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;
use tollgate::admin::{Admin, Parts, router};
use tollgate::governance::edit::Edit;
use tollgate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use tollgate::governance::money::Nanos;
use tollgate::governance::request::RequestKind;
use tollgate::governance::secret::Secret;
use tollgate::governance::time::{Span, Timestamp, Window};
use tollgate::governance::usage::Usage;
use tollgate::state::clock::Clock;
use tollgate::state::hold::Spend;
use tollgate::state::outbox::{CallTag, Ending, Entry};
use tollgate::state::{Ask, State};
use tollgate::store::writer::Health;
use tollgate::store::{Ledger, Record, Store};
use tollgate::telemetry::Metrics;
use tower::ServiceExt;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: usize = 200;
/// As many as the writer takes at a time.
const BATCH: usize = 512;
const BEGAN: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 24 * 3_600_000;
const DAYS: i64 = 90;
const MODELS: [&str; 4] = ["gpt-5", "gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-flash"];
const ENCRYPTION_KEY: &str = "an encryption key for measuring";

fn main() -> Result<(), Box<dyn Error>> {
    let entries = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let dir = std::env::temp_dir().join(format!("tollgate-ledger-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = measure(&dir.join("tollgate.db"), entries);
    if std::env::var_os("TOLLGATE_BENCH_KEEP").is_none() {
        std::fs::remove_dir_all(&dir)?;
    } else {
        println!("kept in {}", dir.display());
    }
    measured
}

fn measure(path: &Path, entries: usize) -> Result<(), Box<dyn Error>> {
    println!("{entries} entries of {KEYS} keys over {DAYS} days, six limits each, {BATCH} at a time");
    let store = Store::open(path, &Secret::new(ENCRYPTION_KEY))?;
    let (clock, hand) = Clock::manual(Timestamp::from_millis(BEGAN));
    let state = Arc::new(State::new(clock, store.hasher(), 4 * BATCH));
    let values: Vec<String> = (0..KEYS).map(|number| format!("sk-bf-00000000-0000-4000-8000-{number:012}")).collect();
    let edits: Vec<Edit> = values.iter().enumerate().map(|(number, value)| edit(&store, number, value)).collect();
    let record = Record { actor: "bench".to_owned(), at: Timestamp::from_millis(0), audit: Vec::new(), replay: None };
    store.apply(&edits, &record)?;
    state.change(&HashMap::new(), |_| Ok::<_, Box<dyn Error>>((edits, ())), |_, _, _, ()| Ok(()))?;
    let mut ledger = store.ledger()?;
    // First with minutes or hours from batch to batch, each one of a few keys, whose windows it opens.
    let step = DAYS * DAY_MS / i64::try_from(entries.div_ceil(BATCH))?;
    let end =
        append(&state, &mut *ledger, (&hand, &values, 64), (BEGAN, step), entries, "of a quiet gateway, an entry")?;
    // Then as calls of all of them come at 10,000 a second.
    append(
        &state,
        &mut *ledger,
        (&hand, &values, 1),
        (end, BATCH as i64 / 10),
        200 * BATCH,
        "at 10,000 a second, an entry",
    )?;
    drop(ledger);
    let bytes = std::fs::metadata(path)?.len();
    println!("  {:<52} {:>10}", "bytes in the file, an entry", bytes / (entries + 200 * BATCH) as u64);
    ask(state, Arc::new(store))
}

/// Appends so many entries, a batch every `step` milliseconds and `run` calls of a key after each other, and says
/// what each took. Returns when the last came.
fn append(
    state: &State,
    ledger: &mut dyn Ledger,
    (hand, values, run): (&AtomicI64, &[String], usize),
    (began, step): (i64, i64),
    entries: usize,
    name: &str,
) -> Result<i64, Box<dyn Error>> {
    let (mut cpu, mut wall, mut done, mut at) = (0.0, 0.0, 0, began);
    while done < entries {
        let batch = (0..BATCH).map(|place| call(state, hand, &values[(done + place) / run % KEYS], done + place, at));
        let batch: Vec<Entry> = batch.collect::<Result<_, _>>()?;
        let (began_cpu, began) = (thread_cpu()?, Instant::now());
        ledger.append(&batch)?;
        wall += began.elapsed().as_secs_f64();
        cpu += thread_cpu()? - began_cpu;
        done += batch.len();
        at += step;
        state.outbox().written(batch);
    }
    let each = cpu * 1e6 / done as f64;
    println!("  {:<52} {each:>10.2} µs", format!("processor time {name}"));
    println!("  {:<52} {:>10.2} %", "  ten thousand of them, of one core", each);
    println!("  {:<52} {:>10.2} µs", "  with the waits for the disk, an entry", wall * 1e6 / done as f64);
    Ok(at)
}

/// One settled call.
fn call(state: &State, hand: &AtomicI64, value: &str, number: usize, at: i64) -> Result<Entry, Box<dyn Error>> {
    let at = at + (number % BATCH / 10) as i64;
    hand.store(at, Ordering::Relaxed);
    let snapshot = state.snapshot();
    let caller = snapshot.view.caller(&state.hasher.digest(value.as_bytes())).ok_or("no caller")?;
    let model = MODELS[number / 3 % MODELS.len()];
    let tag = CallTag {
        virtual_key: Some(Arc::clone(&caller.key.id)),
        team: None,
        customer: None,
        provider: "openai".into(),
        model: model.into(),
        kind: RequestKind::ChatCompletion,
        admitted_at: Timestamp::from_millis(at),
        price: None,
    };
    let (input, output) = (200 + number as u64 % 3_000, 50 + number as u64 % 700);
    let usage = Usage { input, cache_read: number as u64 % 5 * 100, output, ..Usage::default() };
    let spend = Spend { cost: Nanos::new((input * 2_500 + output * 10_000) as i64), tokens: usage.total() as i64 };
    let bound = (usage, spend);
    let ask = Ask { caller: Some(caller), config: Some(0), upstream_model: model, usage, spend, bound, tag };
    let mut hold = state.admit(&snapshot, ask).map_err(|refusal| format!("{refusal:?}"))?;
    hold.mark_sent();
    hand.store(at + 900 + number as i64 % 4_000, Ordering::Relaxed);
    hold.settle(Ending::Completed, usage, spend);
    state.outbox().take(1).pop().ok_or_else(|| "no entry".into())
}

fn edit(store: &Store, number: usize, value: &str) -> Edit {
    let at = Timestamp::from_millis(BEGAN);
    let window = |text| Window::rolling(Span::parse(text).expect("a duration"));
    let limits = |name: &str| {
        let budget = Budget {
            id: format!("{name}-budget").into(),
            max: Nanos::new(i64::MAX / 4),
            window: window("1d"),
            anchor: at,
            created_at: at,
            updated_at: at,
        };
        let quota = |text| Some(Quota { max: i64::MAX / 4, window: window(text), anchor: at });
        let (tokens, requests) = (quota("1h"), quota("1m"));
        let rate = RateLimit { id: format!("{name}-rate").into(), tokens, requests, created_at: at, updated_at: at };
        Limits { budgets: vec![budget], rate_limit: Some(Box::new(rate)) }
    };
    let config = ProviderConfig {
        id: number as i64 + 1,
        provider: "openai".into(),
        weight: Some(Weight::ONE),
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(Vec::new()),
        key_ids: KeySet::All,
        limits: limits(&format!("config-{number}")),
    };
    let key = VirtualKey {
        id: format!("vk-{number}").into(),
        name: format!("key-{number}"),
        description: String::new(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: limits(&format!("vk-{number}")),
        provider_configs: vec![config],
        mcp_configs: "[]".to_owned(),
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    };
    let digest = store.hasher().digest(value.as_bytes());
    Edit::VirtualKey { key: Arc::new(key), digest, value: Some(Secret::new(value)) }
}

/// Pages and sums, through the router: the median of five each.
fn ask(state: Arc<State>, store: Arc<Store>) -> Result<(), Box<dyn Error>> {
    let parts = Parts {
        state,
        store,
        metrics: Metrics::new(),
        ledger: Arc::new(Health::default()),
        reload: Arc::default(),
        prices: Arc::default(),
        token: None,
        metrics_auth: true,
        allowed_origins: Vec::new(),
        show_virtual_keys: true,
    };
    let router = router(Admin::new(parts));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let time = |day: i64, minutes: i64| Timestamp::from_millis(BEGAN + day * DAY_MS + minutes * 60_000).to_string();
    let asked = [
        ("a page of 100", "limit=100".to_owned()),
        ("a page of 1,000", "limit=1000".to_owned()),
        ("a page of 100, 45 days back", format!("limit=100&to={}", time(45, 0))),
        ("a page of 100 of one key", "limit=100&virtual_key_id=vk-77".to_owned()),
        ("a page of 100 of a key without calls", "limit=100&virtual_key_id=nobody".to_owned()),
        ("a page of 100 of an ending that none has", "limit=100&ending=timed_out".to_owned()),
        ("sums by model, of all there is", "group_by=model".to_owned()),
        ("sums by day and model", "group_by=day,model".to_owned()),
        (
            "sums by key, 30 days to the minute",
            format!("group_by=virtual_key&from={}&to={}", time(10, 7), time(40, 11)),
        ),
        ("sums by hour, a week", format!("group_by=hour&from={}&to={}", time(10, 0), time(17, 0))),
        ("sums by model of one ending: every entry", "group_by=model&ending=completed".to_owned()),
    ];
    for (name, query) in asked {
        let path = format!("/api/ledger?{query}");
        let took = (0..5).map(|_| {
            let began = Instant::now();
            let request = Request::get(&path).body(Body::empty())?;
            let (status, bytes) = runtime.block_on(async {
                let response = router.clone().oneshot(request).await?;
                let status = response.status();
                Ok::<_, Box<dyn Error>>((status, axum::body::to_bytes(response.into_body(), usize::MAX).await?))
            })?;
            if !status.is_success() {
                return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&bytes)).into());
            }
            Ok::<_, Box<dyn Error>>(began.elapsed().as_secs_f64() * 1e3)
        });
        let mut took: Vec<f64> = took.collect::<Result<_, _>>()?;
        took.sort_by(f64::total_cmp);
        println!("  {name:<52} {:>10.2} ms", took[took.len() / 2]);
    }
    Ok(())
}

/// Processor time of this thread, in seconds.
fn thread_cpu() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split_whitespace().next().ok_or("no time")?.parse()?;
    Ok(nanos / 1e9)
}
