//! What the ledger forgets by age: entries, and later their sums by hour. Sums by day stay.
//!
//! A little at a time, by the writer between two batches, so that no settled call waits long. What goes is
//! added to `carried` of the windows that it was charged to, so balances can be checked ever after. The room
//! is used again by what comes; the file itself does not shrink: a backup that is restored is as small as
//! can be.

use super::charge::{Said, carry, limits};
use super::rollup::{DAY_MS, HOUR_MS, floor};
use super::row::{damaged, execute, exists, find};
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::store::StoreError;
use crate::store::question::Keep;
use rusqlite::{Transaction, params};
use std::collections::{BTreeMap, HashMap};

/// How often the ledger is looked through once nothing is left to forget.
pub(super) const INTERVAL_MS: i64 = 10 * 60 * 1_000;
/// Rows that go at a time. Ten times a second, this is more than can come in.
const SLICE: i64 = if cfg!(test) { 7 } else { 2_000 };

/// What `ledger_kept` calls it.
pub(super) const ENTRIES: &str = "entries";
pub(super) const HOURS: &str = "hours";

/// Forgets some of what is too old at `now`; true if there is more.
pub(super) fn forget_some(tx: &Transaction<'_>, keep: Keep, now: Timestamp) -> Result<bool, StoreError> {
    if let Some(age) = keep.entries {
        // Whole hours, so that what is left of the entries agrees with the sums of whole hours.
        let since = floor(now.plus(-age), HOUR_MS);
        if forget_entries(tx, since)? {
            return Ok(true);
        }
    }
    match keep.hours {
        Some(age) => forget_hours(tx, floor(now.plus(-age), DAY_MS)),
        None => Ok(false),
    }
}

/// From when on what is forgotten by age is whole; absent while nothing was forgotten.
pub(super) fn kept_since(db: &rusqlite::Connection, what: &str) -> Result<Option<Timestamp>, StoreError> {
    let since: Option<i64> = find(db, "SELECT since FROM ledger_kept WHERE what = ?1", [what])?;
    Ok(since.map(Timestamp::from_millis))
}

fn note(tx: &Transaction<'_>, what: &str, since: Timestamp) -> Result<(), StoreError> {
    execute(
        tx,
        "INSERT INTO ledger_kept (what, since) VALUES (?1, ?2) ON CONFLICT (what) DO UPDATE SET since = max(since, ?2)",
        params![what, since.millis()],
    )
    .map(drop)
}

fn forget_hours(tx: &Transaction<'_>, since: Timestamp) -> Result<bool, StoreError> {
    let gone = execute(
        tx,
        "DELETE FROM ledger_hours WHERE (at, account) IN
            (SELECT at, account FROM ledger_hours WHERE at < ?1 ORDER BY at LIMIT ?2)",
        params![since.millis(), SLICE],
    )?;
    if gone > 0 {
        note(tx, HOURS, since)?;
    }
    Ok(i64::try_from(gone) == Ok(SLICE))
}

fn forget_entries(tx: &Transaction<'_>, since: Timestamp) -> Result<bool, StoreError> {
    let mut old = tx.prepare_cached(&format!(
        // What corrects an entry was admitted with it, and goes before it.
        "SELECT id, admitted_at, charged, {} FROM ledger WHERE admitted_at < ?1
         ORDER BY admitted_at, corrects IS NULL LIMIT ?2",
        Said::COLUMNS
    ))?;
    let mut rows = old.query(params![since.millis(), SLICE])?;
    let (mut carried, mut ids) = (Carried::new(tx)?, Vec::new());
    while let Some(row) = rows.next()? {
        let (id, at, said) = (row.get::<_, Vec<u8>>(0)?, Timestamp::from_millis(row.get(1)?), Said::read(row, 3)?);
        if let Some(charge) = row.get(2)? {
            carried.add(tx, &id, at, charge, said)?;
        }
        ids.push(id);
    }
    let any_unresolved = exists(tx, "SELECT 1 FROM unresolved_windows LIMIT 1", ())?;
    for id in &ids {
        if any_unresolved {
            execute(tx, "DELETE FROM unresolved_windows WHERE entry_id = ?1", [id])?;
        }
        execute(tx, "DELETE FROM ledger WHERE id = ?1", [id])?;
        if carried.any_strays {
            execute(tx, "DELETE FROM ledger_strays WHERE entry = ?1", [id])?;
        }
    }
    if !ids.is_empty() {
        carried.write(tx)?;
        note(tx, ENTRIES, since)?;
    }
    Ok(i64::try_from(ids.len()) == Ok(SLICE))
}

/// What entries that go were charged to windows that stay.
struct Carried {
    sums: BTreeMap<(LimitKey, Timestamp), i64>,
    limits: HashMap<i64, Vec<LimitKey>>,
    /// Where the windows of a limit begin that are kept.
    starts: HashMap<LimitKey, Vec<Timestamp>>,
    any_strays: bool,
}

impl Carried {
    fn new(tx: &Transaction<'_>) -> Result<Carried, StoreError> {
        let any_strays = exists(tx, "SELECT 1 FROM ledger_strays LIMIT 1", ())?;
        Ok(Carried { sums: BTreeMap::new(), limits: HashMap::new(), starts: HashMap::new(), any_strays })
    }

    fn add(
        &mut self,
        tx: &Transaction<'_>,
        id: &[u8],
        at: Timestamp,
        charge: i64,
        said: Said,
    ) -> Result<(), StoreError> {
        let strays = if self.any_strays { strays_of(tx, id)? } else { Vec::new() };
        for key in self.limits_of(tx, charge)?.clone() {
            let (start, amount) = match strays.iter().find(|(stray, ..)| *stray == key) {
                Some((_, start, amount)) => (Some(*start), *amount),
                None => {
                    let starts = self.starts_of(tx, &key)?;
                    (starts.iter().copied().filter(|start| *start <= at).max(), said.of(key.measure))
                }
            };
            if let Some(start) = start {
                let sum = self.sums.entry((key, start)).or_default();
                *sum = sum.saturating_add(amount);
            }
        }
        Ok(())
    }

    fn limits_of(&mut self, tx: &Transaction<'_>, charge: i64) -> Result<&Vec<LimitKey>, StoreError> {
        use std::collections::hash_map::Entry::{Occupied, Vacant};
        match self.limits.entry(charge) {
            Occupied(known) => Ok(known.into_mut()),
            Vacant(new) => {
                let text: Option<String> = find(tx, "SELECT limits FROM ledger_charges WHERE id = ?1", [charge])?;
                let text = text.ok_or_else(|| damaged("charge", &charge.to_string()))?;
                Ok(new.insert(limits(&text)?))
            }
        }
    }

    fn starts_of(&mut self, tx: &Transaction<'_>, key: &LimitKey) -> Result<&Vec<Timestamp>, StoreError> {
        if !self.starts.contains_key(key) {
            let mut starts =
                tx.prepare_cached("SELECT window_start FROM balances WHERE limit_id = ?1 AND measure = ?2")?;
            let starts = starts.query_map(params![key.id, key.measure.as_str()], |row| row.get(0))?;
            let starts: Result<Vec<i64>, _> = starts.collect();
            self.starts.insert(key.clone(), starts?.into_iter().map(Timestamp::from_millis).collect());
        }
        Ok(&self.starts[key])
    }

    fn write(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        self.sums.iter().try_for_each(|((key, start), amount)| carry(tx, key, *start, *amount))
    }
}

fn strays_of(tx: &Transaction<'_>, id: &[u8]) -> Result<Vec<(LimitKey, Timestamp, i64)>, StoreError> {
    let mut strays =
        tx.prepare_cached("SELECT limit_id, measure, window_start, amount FROM ledger_strays WHERE entry = ?1")?;
    let mut rows = strays.query([id])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let measure: String = row.get(1)?;
        let measure = Measure::from_name(&measure).ok_or_else(|| damaged("stray", &measure))?;
        all.push((LimitKey { id: row.get(0)?, measure }, Timestamp::from_millis(row.get(2)?), row.get(3)?));
    }
    Ok(all)
}
