//! The ledger: entries appended once, and the balances they sum to.
//!
//! Invariant: in each window, `spent` is what is carried plus what its entries say; see `charge`.

use super::charge::{self, Part, Parts};
use super::intern::Interned;
use super::rollup::Rollup;
use super::row::{damaged, json};
use super::{in_transaction, retention};
use crate::governance::edit::Restart;
use crate::governance::time::Timestamp;
use crate::governance::usage::{ServiceTier, Source, Usage};
use crate::governance::view::{LimitKey, Measure};
use crate::state::Balance;
use crate::state::outbox::{Delta, Ending, Entry};
use crate::store::question::{Keep, UNITS};
use crate::store::{Ledger, Owners, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::collections::{BTreeMap, HashMap};

/// The ledger behind a connection of its own.
#[derive(Debug)]
pub(super) struct SqliteLedger {
    connection: Connection,
    interned: Interned,
    keep: Keep,
    /// When the ledger is next looked through for what is too old.
    tidy_at: Timestamp,
}

impl SqliteLedger {
    pub(super) fn new(connection: Connection, keep: Keep) -> SqliteLedger {
        SqliteLedger { connection, interned: Interned::default(), keep, tidy_at: Timestamp::default() }
    }
}

impl Ledger for SqliteLedger {
    fn append(&mut self, batch: &[Entry]) -> Result<usize, StoreError> {
        let interned = &mut self.interned;
        let done = in_transaction(&mut self.connection, |tx| append(tx, interned, batch));
        if done.is_err() {
            // What was numbered in a transaction that failed has no number.
            self.interned.forget();
        }
        done.map_err(|error| error.doing(|| format!("append {} entries to the ledger", batch.len())))
    }

    fn balances(&mut self) -> Result<HashMap<LimitKey, Balance>, StoreError> {
        balances(&self.connection).map_err(|error| error.doing(|| "read the balances".to_owned()))
    }

    fn tidy(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if now < self.tidy_at || self.keep == Keep::FOREVER {
            return Ok(());
        }
        let keep = self.keep;
        let more = in_transaction(&mut self.connection, |tx| retention::forget_some(tx, keep, now));
        if !matches!(more, Ok(true)) {
            self.tidy_at = now.plus(retention::INTERVAL_MS);
        }
        more.map(drop).map_err(|error| error.doing(|| "forget what is older than the ledger keeps".to_owned()))
    }

    fn limits(&mut self) -> Result<Vec<LimitKey>, StoreError> {
        limits(&self.connection).map_err(|error| error.doing(|| "read which limits there are".to_owned()))
    }

    fn owners(&mut self, virtual_key: &str) -> Result<Owners, StoreError> {
        owners(&self.connection, virtual_key).map_err(|error| error.doing(|| "read whose a key is".to_owned()))
    }
}

fn owners(db: &Connection, virtual_key: &str) -> Result<Owners, StoreError> {
    let mut find = db.prepare_cached(
        "SELECT key.team_id, coalesce(key.customer_id, team.customer_id) FROM virtual_keys AS key
         LEFT JOIN teams AS team ON team.id = key.team_id WHERE key.id = ?1",
    )?;
    let found = find.query_row([virtual_key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn limits(db: &Connection) -> Result<Vec<LimitKey>, StoreError> {
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

fn append(tx: &Transaction<'_>, interned: &mut Interned, batch: &[Entry]) -> Result<usize, StoreError> {
    interned.begin();
    let mut parts = Parts::new();
    let mut sums = Rollup::default();
    let mut fresh = Vec::with_capacity(batch.len());
    for entry in batch {
        let numbers = (interned.account(tx, &entry.tag)?, interned.charge(tx, entry)?, interned.price(tx, entry)?);
        // Known already: this batch, or a part of it, is here for the second time.
        if !insert(tx, entry, numbers)? {
            continue;
        }
        fresh.push(entry);
        sums.add(numbers.0, entry);
        if entry.ending == Ending::Unresolved {
            entry.deltas.iter().try_for_each(|delta| keep_window(tx, entry, delta))?;
        }
        for delta in &entry.deltas {
            parts.entry((delta.cell.key(), delta.cell.start())).or_default().add(entry, delta);
        }
    }
    charge::add(tx, &parts, &fresh, interned.first_new_charge())?;
    sums.write(tx)?;
    Ok(fresh.len())
}

/// Writes an entry with the numbers of its account, its charge and its price. False: it is there.
fn insert(
    tx: &Transaction<'_>,
    entry: &Entry,
    (account, charged, price): (i64, Option<i64>, Option<i64>),
) -> Result<bool, StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO ledger
            (id, admitted_at, settled_at, virtual_key_id, provider, model, kind, ending, estimated, tier, input,
             cache_read, cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output,
             cost_nanos, account, charged, price, other, image_output)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23, ?24, ?25)",
    )?;
    let (tag, usage) = (&entry.tag, &entry.usage);
    let [input, cache_read, cache_write, cache_write_long, audio_input, image_input, ..] = units(usage);
    let [.., output, reasoning, audio_output, image_output] = units(usage);
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
        input,
        cache_read,
        cache_write,
        cache_write_long,
        audio_input,
        image_input,
        output,
        reasoning,
        audio_output,
        entry.cost.get(),
        account,
        charged,
        price,
        other(usage),
        image_output,
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

/// Usage in the order of the ledger's columns.
pub(super) fn units(usage: &Usage) -> [i64; UNITS.len()] {
    let Usage { input, cache_read, cache_write, cache_write_long, audio_input, image_input, .. } = *usage;
    let Usage { output, reasoning, audio_output, image_output, .. } = *usage;
    let units: [u64; UNITS.len()] = [
        input,
        cache_read,
        cache_write,
        cache_write_long,
        audio_input,
        image_input,
        output,
        reasoning,
        audio_output,
        image_output,
    ];
    units.map(|units| i64::try_from(units).unwrap_or(i64::MAX))
}

/// What no column counts, as the ledger keeps it: nothing, for most.
fn other(usage: &Usage) -> Option<String> {
    let other = usage.other();
    let named: BTreeMap<&str, u64> = other.iter().map(|(name, units)| (&**name, *units)).collect();
    (!named.is_empty()).then(|| json(&named))
}

/// Opens an empty window. It begins later than every other one, so it is the latest from now on, and a
/// call that was admitted before still goes to the window that admitted it.
pub(super) fn restart(tx: &Transaction<'_>, restart: &Restart) -> Result<(), StoreError> {
    let parts = Parts::from([((&restart.key, restart.at), Part::default())]);
    charge::add(tx, &parts, &[], None)
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
