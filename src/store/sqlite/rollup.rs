//! Sums of entries by hour and by day of their admission, for each account.
//!
//! Invariant: they change in the transaction that appends the entries, so where both are kept they agree.

use super::ledger::units;
use crate::governance::money::Nanos;
use crate::governance::time::Timestamp;
use crate::state::outbox::Entry;
use crate::store::StoreError;
use crate::store::question::{LedgerSum, UNITS};
use once_cell::sync::Lazy;
use rusqlite::{Transaction, params_from_iter};
use std::collections::BTreeMap;

pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Where the part of time of this length begins that holds `at`.
pub(super) fn floor(at: Timestamp, length_ms: i64) -> Timestamp {
    Timestamp::from_millis(at.millis().saturating_sub(at.millis().rem_euclid(length_ms)))
}

/// The first such beginning that is not before `at`.
pub(super) fn ceil(at: Timestamp, length_ms: i64) -> Timestamp {
    floor(at.plus(length_ms - 1), length_ms)
}

/// What a batch adds.
#[derive(Debug, Default)]
pub(super) struct Rollup(BTreeMap<(Timestamp, i64), LedgerSum>);

impl Rollup {
    pub(super) fn add(&mut self, account: i64, entry: &Entry) {
        let hour = floor(entry.tag.admitted_at, HOUR_MS);
        let one = LedgerSum { calls: 1, units: units(&entry.usage), cost: entry.cost };
        self.0.entry((hour, account)).or_default().add(&one);
    }

    /// What a correction adds, which is no call.
    pub(super) fn amend(&mut self, account: i64, at: Timestamp, units: [i64; UNITS.len()], cost: Nanos) {
        let difference = LedgerSum { calls: 0, units, cost };
        self.0.entry((floor(at, HOUR_MS), account)).or_default().add(&difference);
    }

    pub(super) fn write(&self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        let mut days: BTreeMap<(Timestamp, i64), LedgerSum> = BTreeMap::new();
        for (&(hour, account), sum) in &self.0 {
            days.entry((floor(hour, DAY_MS), account)).or_default().add(sum);
            put(tx, &HOURS, hour, account, sum)?;
        }
        days.iter().try_for_each(|(&(day, account), sum)| put(tx, &DAYS, day, account, sum))
    }
}

fn put(tx: &Transaction<'_>, sql: &str, at: Timestamp, account: i64, sum: &LedgerSum) -> Result<(), StoreError> {
    let key = [at.millis(), account, sum.calls];
    let values = key.into_iter().chain(sum.units).chain([sum.cost.get()]);
    tx.prepare_cached(sql)?.execute(params_from_iter(values))?;
    Ok(())
}

static HOURS: Lazy<String> = Lazy::new(|| upsert("ledger_hours"));
static DAYS: Lazy<String> = Lazy::new(|| upsert("ledger_days"));

/// A sum that does not fit becomes a float in SQLite, which no table here takes: it stays at the largest number.
fn upsert(table: &str) -> String {
    let columns: Vec<&str> = ["calls"].into_iter().chain(UNITS).chain(["cost_nanos"]).collect();
    let sum = |column: &&str| {
        let sum = format!("{column} + excluded.{column}");
        format!("{column} = CASE typeof({sum}) WHEN 'integer' THEN {sum} ELSE {} END", i64::MAX)
    };
    let (names, sums) = (columns.join(", "), columns.iter().map(sum).collect::<Vec<_>>().join(", "));
    let marks = ", ?".repeat(columns.len());
    format!(
        "INSERT INTO {table} (at, account, {names}) VALUES (?, ?{marks})
         ON CONFLICT (at, account) DO UPDATE SET {sums}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_cut_where_it_should_be() {
        let check = |at: i64, below: i64, above: i64| {
            let at = Timestamp::from_millis(at);
            assert_eq!((floor(at, 10).millis(), ceil(at, 10).millis()), (below, above));
        };
        check(0, 0, 0);
        check(1, 0, 10);
        check(9, 0, 10);
        check(10, 10, 10);
        check(-1, -10, 0);
    }
}
