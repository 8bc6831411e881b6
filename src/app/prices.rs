//! Keeps the list prices current: looks at their file or URL again from time to time, on a thread of its own.
//!
//! Invariant: a table that cannot be had, read or believed changes nothing. Calls that were admitted keep the
//! price that they were admitted with.

use crate::config::Pricing;
use crate::config::prices::{PriceSource, TABLE_BYTES_MAX, Table};
use crate::governance::catalog::Catalog;
use crate::governance::edit::Edit;
use crate::proxy::Fetcher;
use crate::state::State;
use crate::telemetry::{Metrics, PriceStatus};
use ring::digest::{SHA256, digest};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How long a download may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// After a table that could not be had, the next try comes sooner.
const AGAIN: Duration = Duration::from_secs(300);
/// Models named in a warning.
const NAMED_MAX: usize = 10;

/// Which prices are wanted, and what is known of those in force. Whoever reloads the configuration has it.
pub(super) struct Prices {
    wanted: watch::Sender<Option<Pricing>>,
    status: Arc<PriceStatus>,
    metrics: Metrics,
    data_dir: PathBuf,
}

impl Prices {
    pub(super) fn new(data_dir: PathBuf, metrics: Metrics) -> Prices {
        Prices { wanted: watch::Sender::new(None), status: Arc::default(), metrics, data_dir }
    }

    /// Shared with whoever reports readiness.
    pub(super) fn status(&self) -> Arc<PriceStatus> {
        Arc::clone(&self.status)
    }

    /// The table to bring into force with these settings. None: what is there stays until the URL answers.
    pub(super) fn table(&self, pricing: &Pricing, in_force: &Catalog) -> Option<Arc<Table>> {
        match (&pricing.table, &pricing.source) {
            (Some(table), _) => Some(Arc::clone(table)),
            (None, PriceSource::Url(url)) if in_force.is_empty() => Some(Arc::new(self.last(url))),
            (None, _) => None,
        }
    }

    /// What the URL gave last, or what was built in.
    fn last(&self, url: &str) -> Table {
        let path = kept(&self.data_dir, url);
        match Table::load(&path) {
            Ok(table) => {
                tracing::info!(path = %path.display(), sha256 = table.hash, "prices as they were last downloaded");
                table
            }
            Err(_) => {
                tracing::warn!("prices were never downloaded from this URL; the built-in ones hold until they are");
                Table::built_in()
            }
        }
    }

    /// These settings hold now, with this table if it is a new one. `before` are the prices that held until now.
    pub(super) fn settle(&self, pricing: &Pricing, table: Option<&Table>, before: &Catalog) {
        if let Some(table) = table {
            tell(&self.status, &self.metrics, &pricing.source, table, before);
        }
        self.wanted.send_replace(Some(Pricing { table: None, ..pricing.clone() }));
    }

    /// Begins to look at the source again. The thread ends with this value.
    pub(super) fn keep(&self, state: &Arc<State>, private_addresses: bool) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keeper = Keeper {
            wanted: self.wanted.subscribe(),
            state: Arc::clone(state),
            status: Arc::clone(&self.status),
            metrics: self.metrics.clone(),
            data_dir: self.data_dir.clone(),
            private_addresses,
        };
        let run = move || runtime.block_on(keeper.run());
        std::thread::Builder::new().name("prices".to_owned()).spawn(run).map(drop)
    }
}

/// Where the last download from a URL is kept.
fn kept(data_dir: &Path, url: &str) -> PathBuf {
    let digest = digest(&SHA256, url.as_bytes());
    let name: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    data_dir.join(format!("prices-{name}.json"))
}

/// Says which prices hold now, and what is odd about them.
fn tell(status: &PriceStatus, metrics: &Metrics, source: &PriceSource, table: &Table, before: &Catalog) {
    // Until a URL answers for the first time.
    let source = if table.is_built_in() { &PriceSource::BuiltIn } else { source };
    let (label, models) = (source.label(), table.catalog.len());
    status.good(&label, &table.hash, models);
    metrics.price_models.set(i64::try_from(models).unwrap_or(i64::MAX));
    metrics.price_good.set(1);
    tracing::info!(source = label, sha256 = table.hash, prices = models, "price table in force");
    let shown = |names: &[String]| names[..names.len().min(NAMED_MAX)].join(", ");
    let odd = if *source == PriceSource::BuiltIn { Vec::new() } else { table.catalog.implausible() };
    if !odd.is_empty() {
        tracing::warn!(count = odd.len(), models = shown(&odd), "prices above 200 dollars for a million tokens");
    }
    let moved = table.catalog.moved(before);
    if !moved.is_empty() {
        tracing::warn!(
            count = moved.len(),
            models = shown(&moved),
            "prices moved to more than ten times or less than a tenth"
        );
    }
}

/// Looks at the source from time to time.
struct Keeper {
    wanted: watch::Receiver<Option<Pricing>>,
    state: Arc<State>,
    status: Arc<PriceStatus>,
    metrics: Metrics,
    data_dir: PathBuf,
    private_addresses: bool,
}

/// What was seen of the source last.
#[derive(Default)]
struct Seen {
    /// Of the table in force, if it came from this source.
    hash: Option<String>,
    file: Option<(SystemTime, u64)>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let ended = match wanted {
                None => self.wanted.changed().await.is_err(),
                Some(pricing) => self.follow(&pricing).await,
            };
            if ended {
                return;
            }
        }
    }

    /// Looks at one source until another is wanted. True: nobody wants any more.
    async fn follow(&mut self, pricing: &Pricing) -> bool {
        let mut changes = self.wanted.clone();
        let standing = self.status.standing();
        let is_own = standing.source == pricing.source.label();
        let mut seen = Seen { hash: is_own.then_some(standing.hash), file: None };
        let mut wait = match &pricing.source {
            PriceSource::BuiltIn => return changes.changed().await.is_err(),
            PriceSource::File(path) => {
                seen.file = stamp(path);
                pricing.refresh
            }
            PriceSource::Url(_) => Duration::ZERO,
        };
        loop {
            tokio::select! {
                changed = changes.changed() => return changed.is_err(),
                looked = async { tokio::time::sleep(wait).await; self.look(pricing, &mut seen).await } => {
                    wait = if looked { pricing.refresh } else { pricing.refresh.min(AGAIN) };
                }
            }
        }
    }

    /// Looks once. False: what is there is not to be had or not to be believed.
    async fn look(&self, pricing: &Pricing, seen: &mut Seen) -> bool {
        let outcome = match self.newer(&pricing.source, seen).await {
            Ok(None) => Ok("unchanged"),
            Ok(Some((table, bytes))) => self.bring(pricing, &table, seen.hash.is_some()).map(|()| {
                seen.hash = Some(table.hash);
                if let PriceSource::Url(url) = &pricing.source {
                    self.keep(url, &bytes);
                }
                "changed"
            }),
            Err(why) => Err(why),
        };
        self.metrics.price_refreshes.with_label_values(&[*outcome.as_ref().unwrap_or(&"failed")]).inc();
        self.metrics.price_good.set(outcome.is_ok().into());
        match outcome {
            Ok(_) => {
                self.status.looked();
                true
            }
            Err(why) => {
                tracing::error!(source = pricing.source.label(), "prices not refreshed, those before hold: {why}");
                self.status.failed(&pricing.source.label(), why);
                false
            }
        }
    }

    /// The table that the source has now, with its text, unless it is the one in force.
    async fn newer(&self, source: &PriceSource, seen: &mut Seen) -> Result<Option<(Table, Vec<u8>)>, String> {
        let bytes = match source {
            PriceSource::BuiltIn => return Ok(None),
            PriceSource::File(path) => {
                let now = stamp(path);
                if now.is_some() && now == seen.file {
                    return Ok(None);
                }
                let table = Table::load(path).map_err(|faults| first(&faults))?;
                seen.file = now;
                return Ok((seen.hash.as_ref() != Some(&table.hash)).then_some((table, Vec::new())));
            }
            PriceSource::Url(url) => {
                let fetcher = Fetcher::new(self.private_addresses);
                fetcher.get(url, TABLE_BYTES_MAX, PATIENCE).await.map_err(|error| error.to_string())?
            }
        };
        let table = Table::read(&bytes).map_err(|faults| first(&faults))?;
        Ok((seen.hash.as_ref() != Some(&table.hash)).then_some((table, bytes)))
    }

    /// Brings a table into force, unless another source is wanted by now, or too much is gone of the one before,
    /// which came `from_here` or not.
    fn bring(&self, pricing: &Pricing, table: &Table, from_here: bool) -> Result<(), String> {
        let before = Arc::clone(&self.state.snapshot().view.catalog);
        if let Some(why) = table.lost(&before).filter(|_| from_here) {
            return Err(why);
        }
        let is_wanted = || self.wanted.borrow().as_ref().is_some_and(|wanted| wanted.source == pricing.source);
        // Under the lock that a reload takes, too: what it brought is not replaced by what was wanted before.
        let Ok(brought) = self.state.change(
            &HashMap::new(),
            |_| {
                let wanted = is_wanted();
                let edits = if wanted { vec![Edit::Catalog(Arc::clone(&table.catalog))] } else { Vec::new() };
                Ok::<_, Infallible>((edits, wanted))
            },
            |_, _, _, wanted| Ok(wanted),
        );
        if brought {
            tell(&self.status, &self.metrics, &pricing.source, table, &before);
        }
        Ok(())
    }

    /// Keeps what was downloaded for a start when the URL does not answer.
    fn keep(&self, url: &str, bytes: &[u8]) {
        let path = kept(&self.data_dir, url);
        let fresh = path.with_extension("new");
        let written = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "downloaded prices are not kept for the next start");
        }
    }
}

fn first(faults: &[String]) -> String {
    match faults {
        [] => String::new(),
        [one] => one.clone(),
        [one, more @ ..] => format!("{one} (and {} more faults)", more.len()),
    }
}

/// What changes when a file does.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

#[cfg(test)]
mod tests;
