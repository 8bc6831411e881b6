//! The ledger: entries appended once, and the balances they sum to.
//!
//! Invariant: in each window, `spent` is what is carried plus what its entries say; see `charge`.

use super::charge::{self, Part, Parts};
use super::intern::Interned;
use super::rollup::Rollup;
use super::row::{damaged, json};
use super::{doubt, in_transaction, retention};
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
        let more = in_transaction(&mut self.connection, |tx| {
            Ok(doubt::is_sound(tx, now)? && retention::forget_some(tx, keep, now)?)
        });
        if !matches!(more, Ok(true)) {
            self.tidy_at = now.plus(retention::INTERVAL_MS);
        }
        more.map(drop).map_err(|error| error.doing(|| "forget what is older than the ledger keeps".to_owned()))
    }

    /// Passive: it waits for nobody, and what a reader still holds back stays in the log beside the file.
    fn close(&mut self) -> Result<(), StoreError> {
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
        checkpoint.map_err(|error| StoreError::from(error).doing(|| "copy the log into the database".to_owned()))
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
        let numbers = Numbers::of(interned, tx, entry)?;
        // Known already: this batch, or a part of it, is here for the second time.
        if !insert(tx, entry, &numbers)? {
            continue;
        }
        fresh.push((numbers.entry, entry));
        sums.add(numbers.account, entry);
        if entry.ending == Ending::Unresolved {
            entry.deltas.iter().try_for_each(|delta| keep_window(tx, numbers.entry, delta))?;
        }
        for delta in &entry.deltas {
            parts.entry((delta.cell.key(), delta.cell.start())).or_default().add(entry, delta);
        }
    }
    charge::add(tx, &parts, &fresh, interned.first_new_charge())?;
    sums.write(tx)?;
    Ok(fresh.len())
}

/// What stands in an entry's row by its number.
struct Numbers {
    entry: i64,
    account: i64,
    /// The row says itself for which model.
    says_model: bool,
    charged: Option<i64>,
    price: Option<i64>,
    kind: i64,
    ending: i64,
    tier: i64,
}

impl Numbers {
    fn of(interned: &mut Interned, tx: &Transaction<'_>, entry: &Entry) -> Result<Numbers, StoreError> {
        let (account, says_model) = interned.account(tx, &entry.tag)?;
        Ok(Numbers {
            entry: interned.entry(tx, entry.id)?,
            account,
            says_model,
            charged: interned.charge(tx, entry)?,
            price: interned.price(tx, entry)?,
            kind: interned.word(tx, entry.tag.kind.as_str())?,
            ending: interned.word(tx, entry.ending.as_str())?,
            tier: interned.word(tx, tier(entry.usage.tier))?,
        })
    }
}

/// Writes an entry. False: it is there.
fn insert(tx: &Transaction<'_>, entry: &Entry, numbers: &Numbers) -> Result<bool, StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO ledger
            (number, admitted_at, took, account, charged, price, kind, ending, tier, estimated, input, cache_read,
             cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output, image_output,
             cost_nanos, model, other)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23)",
    )?;
    let (tag, usage) = (&entry.tag, &entry.usage);
    let [input, cache_read, cache_write, cache_write_long, audio_input, image_input, ..] = units(usage);
    let [.., output, reasoning, audio_output, image_output] = units(usage);
    let inserted = insert.execute(params![
        numbers.entry,
        tag.admitted_at.millis(),
        entry.settled_at.millis().saturating_sub(tag.admitted_at.millis()),
        numbers.account,
        numbers.charged,
        numbers.price,
        numbers.kind,
        numbers.ending,
        numbers.tier,
        usage.source == Source::Estimated,
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
        entry.cost.get(),
        numbers.says_model.then_some(&*tag.model),
        other(usage),
    ])?;
    Ok(inserted == 1)
}

/// Notes where an unresolved entry was charged, for the one who corrects it.
fn keep_window(tx: &Transaction<'_>, entry: i64, delta: &Delta) -> Result<(), StoreError> {
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO unresolved_windows (entry, limit_id, measure, window_start) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let (key, start) = (delta.cell.key(), delta.cell.start().millis());
    insert.execute(params![entry, key.id, key.measure.as_str(), start])?;
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
