//! The ledger: entries appended once, and the balances they sum to.

use super::in_transaction;
use super::row::damaged;
use crate::governance::edit::Restart;
use crate::governance::time::Timestamp;
use crate::governance::usage::{ServiceTier, Source, Usage};
use crate::governance::view::{LimitKey, Measure};
use crate::state::Balance;
use crate::state::outbox::{Delta, Ending, Entry};
use crate::store::{Ledger, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, HashMap};

/// The windows kept of each limit: the current one, and the one before it for calls that end late.
const WINDOWS_KEPT: i64 = 2;

/// The ledger behind a connection of its own.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    connection: Connection,
}

impl SqliteLedger {
    pub(super) fn new(connection: Connection) -> SqliteLedger {
        SqliteLedger { connection }
    }
}

impl Ledger for SqliteLedger {
    fn append(&mut self, batch: &[Entry]) -> Result<usize, StoreError> {
        in_transaction(&mut self.connection, |tx| append(tx, batch))
            .map_err(|error| error.doing(|| format!("append {} entries to the ledger", batch.len())))
    }

    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        balances(&self.connection).map_err(|error| error.doing(|| "read the balances".to_owned()))
    }

    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError> {
        limits(&self.connection).map_err(|error| error.doing(|| "read which limits there are".to_owned()))
    }
}

fn limits(db: &Connection) -> Result<Vec<LimitKey>, StoreError> {
    let mut rows = db.prepare(
        "SELECT id, 'money' FROM budgets
         UNION ALL SELECT id, 'tokens' FROM rate_limits WHERE tokens_max IS NOT NULL
         UNION ALL SELECT id, 'requests' FROM rate_limits WHERE requests_max IS NOT NULL",
    )?;
    let mut rows = rows.query(())?;
    let mut limits = Vec::new();
    while let Some(row) = rows.next()? {
        let measure: String = row.get(1)?;
        let measure = Measure::from_name(&measure).ok_or_else(|| damaged("limit", &measure))?;
        limits.push(LimitKey { id: row.get(0)?, measure });
    }
    Ok(limits)
}

fn append(tx: &Transaction<'_>, batch: &[Entry]) -> Result<usize, StoreError> {
    let mut fresh = 0;
    let mut deltas: BTreeMap<(&LimitKey, Timestamp), i64> = BTreeMap::new();
    for entry in batch {
        // Known already: this batch, or a part of it, is here for the second time.
        if !insert(tx, entry)? {
            continue;
        }
        fresh += 1;
        if entry.ending == Ending::Unresolved {
            entry.deltas.iter().try_for_each(|delta| keep_window(tx, entry, delta))?;
        }
        for delta in &entry.deltas {
            let sum = deltas.entry((delta.cell.key(), delta.cell.start())).or_default();
            *sum = sum.saturating_add(delta.amount);
        }
    }
    for ((key, start), amount) in deltas {
        add(tx, key, start, amount)?;
    }
    Ok(fresh)
}

fn insert(tx: &Transaction<'_>, entry: &Entry) -> Result<bool, StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO ledger
            (id, admitted_at, settled_at, virtual_key_id, provider, model, kind, ending, estimated, tier, input,
             cache_read, cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output,
             cost_nanos)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    let (tag, usage) = (&entry.tag, &entry.usage);
    let count = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
    let Usage { input, cache_read, cache_write, cache_write_long, audio_input, image_input, .. } = *usage;
    let inserted = insert.execute(params![
        &entry.id.0.to_be_bytes()[..],
        tag.admitted_at.millis(),
        entry.settled_at.millis(),
        tag.virtual_key,
        tag.provider,
        tag.model,
        tag.kind.as_str(),
        entry.ending.as_str(),
        usage.source == Source::Estimated,
        tier(usage.tier),
        count(input),
        count(cache_read),
        count(cache_write),
        count(cache_write_long),
        count(audio_input),
        count(image_input),
        count(usage.output),
        count(usage.reasoning),
        count(usage.audio_output),
        entry.cost.get(),
    ])?;
    Ok(inserted == 1)
}

/// Notes where an unresolved entry was charged, for the one who corrects it.
fn keep_window(tx: &Transaction<'_>, entry: &Entry, delta: &Delta) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO unresolved_windows (entry_id, limit_id, measure, window_start) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let (key, start) = (delta.cell.key(), delta.cell.start().millis());
    insert.execute(params![&entry.id.0.to_be_bytes()[..], key.id, key.measure.as_str(), start])?;
    Ok(())
}

/// Adds to the balance of a window that is still kept. False: it is not.
pub(super) fn add_to_known(
    tx: &Transaction<'_>,
    key: &LimitKey,
    start: Timestamp,
    amount: i64,
) -> Result<bool, StoreError> {
    let mut find =
        tx.prepare_cached("SELECT 1 FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3")?;
    let known = find.exists(params![key.id, key.measure.as_str(), start.millis()])?;
    if known {
        add(tx, key, start, amount)?;
    }
    Ok(known)
}

/// Adds to one window's balance and forgets windows that no call can belong to any more. The sum is made
/// here because SQLite's own would turn an overflow into a float.
fn add(tx: &Transaction<'_>, key: &LimitKey, start: Timestamp, amount: i64) -> Result<(), StoreError> {
    let (measure, start) = (key.measure.as_str(), start.millis());
    let mut find =
        tx.prepare_cached("SELECT spent FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3")?;
    let spent: Option<i64> = find.query_row(params![key.id, measure, start], |row| row.get(0)).optional()?;
    let mut put = tx.prepare_cached(match spent {
        Some(_) => "UPDATE balances SET spent = ?4 WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3",
        None => "INSERT INTO balances (limit_id, measure, window_start, spent) VALUES (?1, ?2, ?3, ?4)",
    })?;
    put.execute(params![key.id, measure, start, spent.unwrap_or(0).saturating_add(amount)])?;
    if spent.is_none() {
        let mut prune = tx.prepare_cached(
            "DELETE FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start NOT IN
                (SELECT window_start FROM balances WHERE limit_id = ?1 AND measure = ?2
                 ORDER BY window_start DESC LIMIT ?3)",
        )?;
        prune.execute(params![key.id, measure, WINDOWS_KEPT])?;
    }
    Ok(())
}

/// Opens an empty window. It begins later than every other one, so it is the latest from now on, and a
/// call that was admitted before still goes to the window that admitted it.
pub(super) fn restart(tx: &Transaction<'_>, restart: &Restart) -> Result<(), StoreError> {
    add(tx, &restart.key, restart.at, 0)
}

pub(super) fn balances(db: &Connection) -> Result<HashMap<LimitKey, Balance>, StoreError> {
    let mut rows = db.prepare("SELECT limit_id, measure, window_start, spent FROM balances ORDER BY window_start")?;
    let mut rows = rows.query(())?;
    let mut latest = HashMap::new();
    while let Some(row) = rows.next()? {
        let measure: String = row.get(1)?;
        let measure = Measure::from_name(&measure).ok_or_else(|| damaged("balance", &measure))?;
        let balance = Balance { start: Timestamp::from_millis(row.get(2)?), spent: row.get(3)? };
        latest.insert(LimitKey { id: row.get(0)?, measure }, balance);
    }
    Ok(latest)
}

const fn tier(tier: ServiceTier) -> &'static str {
    match tier {
        ServiceTier::Standard => "standard",
        ServiceTier::Batch => "batch",
        ServiceTier::Flex => "flex",
        ServiceTier::Priority => "priority",
    }
}
