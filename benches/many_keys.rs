//! What many virtual keys cost: `cargo bench --bench many_keys -- [keys] [bare]` (100,000 unless said otherwise;
//! `bare` ones have a budget and nothing else).
//!
//! Fills a database, opens it as a start does, and asks the admin API for pages, all in this process and
//! in a temporary directory. Prints milliseconds and bytes; nothing is judged, since machines differ.

#![expect(clippy::print_stdout, reason = "a program for people, whose result is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use axum::body::Body;
use axum::http::Request;
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tollgate::admin::{Admin, Parts, router};
use tollgate::governance::edit::Edit;
use tollgate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use tollgate::governance::money::Nanos;
use tollgate::governance::secret::Secret;
use tollgate::governance::time::{Span, Timestamp, Window};
use tollgate::state::State;
use tollgate::state::clock::Clock;
use tollgate::store::writer::Writer;
use tollgate::store::{Record, Store};
use tollgate::telemetry::Metrics;
use tower::ServiceExt;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 10_000;
const ENCRYPTION_KEY: &str = "an encryption key for measuring";

fn main() -> Result<(), Box<dyn Error>> {
    let keys = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let dir = std::env::temp_dir().join(format!("tollgate-many-keys-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let bare = std::env::args().any(|arg| arg == "bare");
    let measured = measure(&dir.join("tollgate.db"), keys, bare);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(path: &Path, keys: usize, bare: bool) -> Result<(), Box<dyn Error>> {
    let more = if bare { "" } else { ", a rate limit of two halves and a provider config" };
    println!("{keys} virtual keys, each with a budget{more}");
    let began = Instant::now();
    fill(path, keys, bare)?;
    line("fill the database", began);
    println!("  {:<44} {:>10}", "the database, KiB", std::fs::metadata(path)?.len() / 1024);
    // In a process of its own memory is easier to read: what filling left behind is given back only in part.
    let before = resident()?;
    let began = Instant::now();
    let store = Store::open(path, &Secret::new(ENCRYPTION_KEY))?;
    line("open it (mostly the derivation of its key)", began);
    let began = Instant::now();
    let loaded = store.load()?;
    line("load it", began);
    let state = Arc::new(State::new(Clock::System, store.hasher(), 1_000));
    state.config_ids_after(loaded.highest_config_id);
    let began = Instant::now();
    let edits = loaded.edits;
    state.change(&HashMap::new(), |_| Ok::<_, Box<dyn Error>>((edits, ())), |_, _, _, ()| Ok(()))?;
    line("build the view", began);
    let text: usize = state.snapshot().view.callers().map(|caller| text_of(&caller.key)).sum();
    let taken = resident()?.saturating_sub(before);
    println!("  {:<44} {:>10}", "memory a key, bytes", taken / keys);
    println!("  {:<44} {:>10}", "of it the key's own text, bytes", text / keys);
    pages(Arc::clone(&state), Arc::new(store), keys)
}

/// Pages of the list and single changes, through the router.
fn pages(state: Arc<State>, store: Arc<Store>, keys: usize) -> Result<(), Box<dyn Error>> {
    let metrics = Metrics::new();
    let outbox = Arc::clone(state.outbox());
    let writer = Writer::start(outbox, store.ledger()?, metrics.clone(), Clock::System, None)?;
    let parts = Parts {
        state,
        store,
        metrics,
        ledger: writer.health(),
        reload: Arc::default(),
        prices: Arc::default(),
        token: None,
        metrics_auth: true,
        allowed_origins: Vec::new(),
        show_virtual_keys: true,
    };
    let router = router(Admin::new(parts));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let base = "/api/governance/virtual-keys";
    let middle = keys / 2;
    let asked = [
        ("a page of 25", format!("{base}?limit=25")),
        ("a page of 100 in the middle", format!("{base}?limit=100&offset={middle}")),
        ("a page of a search", format!("{base}?limit=25&search=key-77")),
        ("a page by name", format!("{base}?limit=25&sort_by=name&order=desc")),
        ("a page by what was spent", format!("{base}?limit=25&sort_by=budget_spent&order=desc")),
        ("one key", format!("{base}/vk-{middle}")),
        ("the summary of readiness", "/readyz".to_owned()),
    ];
    for (name, path) in asked {
        let took = (0..5).map(|_| {
            let began = Instant::now();
            let request = Request::get(&path).body(Body::empty())?;
            let status = runtime.block_on(async {
                let response = router.clone().oneshot(request).await?;
                let status = response.status();
                axum::body::to_bytes(response.into_body(), usize::MAX).await?;
                Ok::<_, Box<dyn Error>>(status)
            })?;
            if !status.is_success() {
                return Err(format!("{path}: {status}").into());
            }
            Ok::<_, Box<dyn Error>>(began.elapsed().as_secs_f64() * 1e3)
        });
        let mut took: Vec<f64> = took.collect::<Result<_, _>>()?;
        took.sort_by(f64::total_cmp);
        println!("  {name:<44} {:>10.2} ms", took[took.len() / 2]);
    }
    let began = Instant::now();
    let count = 50;
    for i in 0..count {
        let body = format!(r#"{{"name":"made-{i}","budget":{{"max_limit":1,"reset_duration":"1d"}}}}"#);
        let request = Request::post(base).body(Body::from(body))?;
        let status = runtime.block_on(router.clone().oneshot(request))?.status();
        if !status.is_success() {
            return Err(format!("create: {status}").into());
        }
    }
    println!("  {:<44} {:>10.2} ms", "create one more", began.elapsed().as_secs_f64() * 1e3 / f64::from(count));
    Ok(())
}

fn fill(path: &Path, keys: usize, bare: bool) -> Result<(), Box<dyn Error>> {
    let store = Store::open(path, &Secret::new(ENCRYPTION_KEY))?;
    let hasher = store.hasher();
    let numbers: Vec<usize> = (0..keys).collect();
    for batch in numbers.chunks(BATCH) {
        let edits: Vec<Edit> = batch
            .iter()
            .map(|&number| {
                let value = format!("sk-bf-00000000-0000-4000-8000-{number:012}");
                let digest = hasher.digest(value.as_bytes());
                Edit::VirtualKey { key: Arc::new(virtual_key(number, bare)), digest, value: Some(Secret::new(value)) }
            })
            .collect();
        let record =
            Record { actor: "bench".to_owned(), at: Timestamp::from_millis(0), audit: Vec::new(), replay: None };
        store.apply(&edits, &record)?;
    }
    Ok(())
}

fn virtual_key(number: usize, bare: bool) -> VirtualKey {
    let at = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(number).unwrap_or(0));
    let window = |text| Window::rolling(Span::parse(text).expect("a duration"));
    let budget = Budget {
        id: format!("vk-{number}-budget").into(),
        max: Nanos::new(10_000_000_000),
        window: window("1d"),
        anchor: at,
        created_at: at,
        updated_at: at,
    };
    let quota = |max, text| Some(Quota { max, window: window(text), anchor: at });
    let rate_limit = RateLimit {
        id: format!("vk-{number}-rate").into(),
        tokens: quota(1_000_000, "1h"),
        requests: quota(1_000, "1m"),
        created_at: at,
        updated_at: at,
    };
    let config = ProviderConfig {
        id: i64::try_from(number).unwrap_or(0) + 1,
        provider: "openai".into(),
        weight: Some(Weight::ONE),
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(Vec::new()),
        key_ids: KeySet::All,
        limits: Limits::default(),
    };
    VirtualKey {
        id: format!("vk-{number}").into(),
        name: format!("key-{number}"),
        description: String::new(),
        is_active: true,
        team_id: None,
        customer_id: None,
        limits: Limits { budgets: vec![budget], rate_limit: (!bare).then(|| Box::new(rate_limit)) },
        provider_configs: if bare { Vec::new() } else { vec![config] },
        mcp_configs: "[]".to_owned(),
        config_hash: String::new(),
        created_at: at,
        updated_at: at,
    }
}

/// The letters of a key's own: ids, names and durations.
fn text_of(key: &VirtualKey) -> usize {
    let limits = |limits: &Limits| -> usize {
        let budgets: usize =
            limits.budgets.iter().map(|budget| budget.id.len() + budget.window.span().text().len()).sum();
        let rate = limits.rate_limit.as_ref().map_or(0, |rate| {
            let halves = [&rate.tokens, &rate.requests].into_iter().flatten();
            rate.id.len() + halves.map(|quota| quota.window.span().text().len()).sum::<usize>()
        });
        budgets + rate
    };
    let configs: usize = key.provider_configs.iter().map(|config| config.provider.len() + limits(&config.limits)).sum();
    key.id.len() + key.name.len() + key.description.len() + key.mcp_configs.len() + limits(&key.limits) + configs
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

fn line(name: &str, began: Instant) {
    println!("  {name:<44} {:>10.2} ms", began.elapsed().as_secs_f64() * 1e3);
}
