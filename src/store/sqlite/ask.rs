//! The ledger asked: entries by page, and sums.
//!
//! Sums come from the roll-ups wherever those know the answer. A span that begins or ends within a day or an
//! hour is put together: whole days, whole hours at their sides, and single entries at the very ends.

use super::retention::{self, kept_since};
use super::rollup::{DAY_MS, HOUR_MS, ceil, floor};
use super::row::{damaged, instant};
use crate::governance::money::{Nanos, Rate};
use crate::governance::time::Timestamp;
use crate::store::StoreError;
use crate::store::question::{Cursor, Group, LedgerEntry, LedgerFilter, LedgerSum, LedgerSums, UNITS};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use std::collections::BTreeMap;

/// Entries that `filter` selects, newest first, behind `after`.
pub(super) fn entries(
    db: &Connection,
    filter: &LedgerFilter,
    after: Option<Cursor>,
    most: usize,
) -> Result<Vec<LedgerEntry>, StoreError> {
    let mut wheres = Wheres::default();
    wheres.of_entries(filter);
    wheres.between("admitted_at", filter.from, filter.to);
    if let Some(Cursor { admitted_at, id }) = after {
        wheres
            .add("(admitted_at, ledger.id) < (?, ?)", [admitted_at.millis().into(), id.to_be_bytes().to_vec().into()]);
    }
    let sql = format!(
        "SELECT ledger.*, known.team_id, known.customer_id, paid.rates FROM ledger
         LEFT JOIN ledger_accounts AS known ON known.id = ledger.account
         LEFT JOIN ledger_prices AS paid ON paid.id = ledger.price
         {} ORDER BY admitted_at DESC, ledger.id DESC LIMIT ?",
        wheres.text()
    );
    wheres.values.push(i64::try_from(most).unwrap_or(i64::MAX).into());
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(wheres.values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(entry(row)?);
    }
    Ok(found)
}

fn entry(row: &Row<'_>) -> Result<LedgerEntry, StoreError> {
    let number = |bytes: Vec<u8>| match <[u8; 16]>::try_from(&*bytes) {
        Ok(id) => Ok(u128::from_be_bytes(id)),
        Err(_) => Err(damaged("entry of the ledger", &format!("{bytes:02x?}"))),
    };
    let mut units = [0; UNITS.len()];
    for (units, name) in units.iter_mut().zip(UNITS) {
        *units = row.get(name)?;
    }
    let named = |column: &str| row.get::<_, Option<String>>(column).map(|id| id.filter(|id| !id.is_empty()));
    Ok(LedgerEntry {
        id: number(row.get("id")?)?,
        admitted_at: instant(row, "admitted_at")?,
        settled_at: instant(row, "settled_at")?,
        virtual_key: row.get("virtual_key_id")?,
        team: named("team_id")?,
        customer: named("customer_id")?,
        provider: row.get("provider")?,
        model: row.get("model")?,
        kind: row.get("kind")?,
        ending: row.get("ending")?,
        estimated: row.get("estimated")?,
        tier: row.get("tier")?,
        units,
        cost: Nanos::new(row.get("cost_nanos")?),
        other: row.get::<_, Option<String>>("other")?.map_or_else(|| Ok(BTreeMap::new()), |text| numbers(&text))?,
        rates: row.get::<_, Option<String>>("rates")?.map(|text| rates(&text)).transpose()?,
        corrects: row.get::<_, Option<Vec<u8>>>("corrects")?.map(number).transpose()?,
    })
}

fn rates(text: &str) -> Result<BTreeMap<String, Rate>, StoreError> {
    Ok(numbers(text)?.into_iter().map(|(name, picos)| (name, Rate::new(picos))).collect())
}

/// Numbers by name, as JSON.
fn numbers(text: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    serde_json::from_str(text).map_err(|_| damaged("list of units or prices", text))
}

/// Where sums are taken from, and for which span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    table: Table,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Entries,
    Hours,
    Days,
}

/// Sums of what `filter` selects, told apart by `groups`. Absent if there are more groups than `most`.
pub(super) fn sums(
    db: &Connection,
    filter: &LedgerFilter,
    groups: &[Group],
    most: usize,
) -> Result<Option<LedgerSums>, StoreError> {
    let mut found: BTreeMap<Vec<Option<String>>, LedgerSum> = BTreeMap::new();
    let mut answer = LedgerSums::default();
    for source in sources(filter, groups) {
        source.add(db, filter, groups, &mut found)?;
        if found.len() > most {
            return Ok(None);
        }
        answer.complete_from = answer.complete_from.max(source.complete_from(db)?);
    }
    found.values().for_each(|sum| answer.total.add(sum));
    answer.groups = found.into_iter().collect();
    Ok(Some(answer))
}

fn sources(filter: &LedgerFilter, groups: &[Group]) -> Vec<Source> {
    let (from, to) = (filter.from, filter.to);
    if filter.kind.is_some() || filter.ending.is_some() || filter.estimated.is_some() {
        return vec![Source { table: Table::Entries, from, to }];
    }
    let mut sources = Vec::new();
    if groups.contains(&Group::Hour) {
        inner(&mut sources, from, to, HOUR_MS, Table::Hours, |sources, from, to| {
            sources.push(Source { table: Table::Entries, from, to });
        });
    } else {
        inner(&mut sources, from, to, DAY_MS, Table::Days, |sources, from, to| {
            inner(sources, from, to, HOUR_MS, Table::Hours, |sources, from, to| {
                sources.push(Source { table: Table::Entries, from, to });
            });
        });
    }
    sources
}

/// The whole parts of a span from `table`, and what is left at its ends from `rest`.
fn inner(
    sources: &mut Vec<Source>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    length_ms: i64,
    table: Table,
    rest: impl Fn(&mut Vec<Source>, Option<Timestamp>, Option<Timestamp>),
) {
    let (first, last) = (from.map(|from| ceil(from, length_ms)), to.map(|to| floor(to, length_ms)));
    if let (Some(first), Some(last)) = (first, last)
        && first >= last
    {
        return rest(sources, from, to);
    }
    if from != first {
        rest(sources, from, first);
    }
    sources.push(Source { table, from: first, to: last });
    if to != last {
        rest(sources, last, to);
    }
}

impl Source {
    /// Where what is asked for begins to be whole.
    fn complete_from(self, db: &Connection) -> Result<Option<Timestamp>, StoreError> {
        let since = match self.table {
            Table::Entries => kept_since(db, retention::ENTRIES)?,
            Table::Hours => kept_since(db, retention::HOURS)?,
            Table::Days => None,
        };
        let missing = since.filter(|since| self.from.is_none_or(|from| from < *since) && !self.is_empty());
        Ok(missing.map(|since| self.to.map_or(since, |to| to.min(since))))
    }

    fn is_empty(self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| from >= to)
    }

    fn add(
        self,
        db: &Connection,
        filter: &LedgerFilter,
        groups: &[Group],
        found: &mut BTreeMap<Vec<Option<String>>, LedgerSum>,
    ) -> Result<(), StoreError> {
        let (name, at, calls) = match self.table {
            Table::Entries => ("ledger", "admitted_at", "(ledger.corrects IS NULL)"),
            Table::Hours => ("ledger_hours", "at", "calls"),
            Table::Days => ("ledger_days", "at", "calls"),
        };
        let mut wheres = Wheres::default();
        if self.table == Table::Entries {
            wheres.of_entries(filter);
        } else {
            wheres.of_accounts(filter);
        }
        wheres.between(at, self.from, self.to);
        let keys: Vec<String> = groups.iter().map(|group| self.key(*group, at)).collect();
        // Halves of a sum cannot overflow, as SQLite's own sums of whole numbers do.
        let halves = [calls].into_iter().chain(UNITS).chain(["cost_nanos"]);
        let halves = halves.map(|column| format!("sum({column} >> 32), sum({column} & 4294967295)"));
        let columns: Vec<String> = keys.iter().cloned().chain(halves).collect();
        let by: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
        let sql = format!(
            "SELECT {} FROM {name} LEFT JOIN ledger_accounts AS known ON known.id = account {} GROUP BY {}",
            columns.join(", "),
            wheres.text(),
            by.join(", ")
        );
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(wheres.values))?;
        while let Some(row) = rows.next()? {
            let key: Result<Vec<Option<String>>, StoreError> =
                groups.iter().enumerate().map(|(column, group)| group_key(row, column, *group)).collect();
            found.entry(key?).or_default().add(&sum(row, groups.len())?);
        }
        Ok(())
    }

    /// What rows are told apart by.
    fn key(self, group: Group, at: &str) -> String {
        let own = self.table == Table::Entries;
        match group {
            Group::Hour => format!("{at} - {at} % {HOUR_MS}"),
            Group::Day => format!("{at} - {at} % {DAY_MS}"),
            Group::VirtualKey if own => "ledger.virtual_key_id".into(),
            Group::VirtualKey => "nullif(known.virtual_key_id, '')".into(),
            Group::Team => "nullif(known.team_id, '')".into(),
            Group::Customer => "nullif(known.customer_id, '')".into(),
            Group::Provider if own => "ledger.provider".into(),
            Group::Provider => "known.provider".into(),
            Group::Model if own => "ledger.model".into(),
            Group::Model => "known.model".into(),
        }
    }
}

fn group_key(row: &Row<'_>, column: usize, group: Group) -> Result<Option<String>, StoreError> {
    Ok(match group {
        Group::Hour | Group::Day => Some(instant(row, column)?.to_string()),
        _ => row.get(column)?,
    })
}

/// A sum from its halves, in the columns from `first` on.
fn sum(row: &Row<'_>, first: usize) -> Result<LedgerSum, StoreError> {
    let whole = |place: usize| -> Result<i64, StoreError> {
        let (high, low): (i64, i64) = (row.get(first + 2 * place)?, row.get(first + 2 * place + 1)?);
        let whole = (i128::from(high) << 32) + i128::from(low);
        Ok(i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX }))
    };
    let mut units = [0; UNITS.len()];
    for (place, units) in units.iter_mut().enumerate() {
        *units = whole(place + 1)?;
    }
    Ok(LedgerSum { calls: whole(0)?, units, cost: Nanos::new(whole(UNITS.len() + 1)?) })
}

/// Conditions with their values, in order.
#[derive(Debug, Default)]
struct Wheres {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Wheres {
    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(condition.to_owned());
        self.values.extend(values);
    }

    fn equal(&mut self, column: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.add(&format!("{column} = ?"), [value.clone().into()]);
        }
    }

    fn between(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let Some(from) = from {
            self.add(&format!("{column} >= ?"), [from.millis().into()]);
        }
        if let Some(to) = to {
            self.add(&format!("{column} < ?"), [to.millis().into()]);
        }
    }

    /// What entries say themselves, and their accounts.
    fn of_entries(&mut self, filter: &LedgerFilter) {
        self.equal("ledger.virtual_key_id", filter.virtual_key.as_ref());
        self.equal("ledger.provider", filter.provider.as_ref());
        self.equal("ledger.model", filter.model.as_ref());
        self.equal("kind", filter.kind.as_ref());
        self.equal("ending", filter.ending.as_ref());
        if let Some(estimated) = filter.estimated {
            self.add("estimated = ?", [estimated.into()]);
        }
        let owners =
            LedgerFilter { team: filter.team.clone(), customer: filter.customer.clone(), ..Default::default() };
        self.of_accounts(&owners);
    }

    fn of_accounts(&mut self, filter: &LedgerFilter) {
        let mut inner = Wheres::default();
        inner.equal("virtual_key_id", filter.virtual_key.as_ref());
        inner.equal("team_id", filter.team.as_ref());
        inner.equal("customer_id", filter.customer.as_ref());
        inner.equal("provider", filter.provider.as_ref());
        inner.equal("model", filter.model.as_ref());
        if !inner.conditions.is_empty() {
            let sql = format!("account IN (SELECT id FROM ledger_accounts {})", inner.text());
            self.add(&sql, inner.values);
        }
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!("WHERE {}", self.conditions.join(" AND ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours from the beginning of a day, and where the sums come from: `E`ntries, `H`ours, `D`ays.
    fn plan(from: Option<f64>, to: Option<f64>, groups: &[Group]) -> String {
        let hours = |hours: f64| Timestamp::from_millis((hours * 3_600_000.0) as i64);
        let filter = LedgerFilter { from: from.map(hours), to: to.map(hours), ..Default::default() };
        let sources = sources(&filter, groups).into_iter().map(|source| {
            let letter = match source.table {
                Table::Entries => 'E',
                Table::Hours => 'H',
                Table::Days => 'D',
            };
            let at = |at: Option<Timestamp>| at.map_or("".into(), |at| (at.millis() as f64 / 3_600_000.0).to_string());
            format!("{letter}{}-{}", at(source.from), at(source.to))
        });
        sources.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_span_is_put_together_from_the_largest_parts() {
        let check = |from, to, expected: &str| assert_eq!(plan(from, to, &[Group::Model]), expected);
        check(None, None, "D-");
        check(Some(0.0), Some(48.0), "D0-48");
        check(Some(5.0), Some(53.0), "H5-24 D24-48 H48-53");
        check(Some(5.5), Some(53.25), "E5.5-6 H6-24 D24-48 H48-53 E53-53.25");
        check(Some(5.25), Some(5.5), "E5.25-5.5");
        check(Some(5.5), Some(6.5), "E5.5-6.5");
        check(Some(5.5), Some(8.5), "E5.5-6 H6-8 E8-8.5");
        check(Some(23.5), Some(24.5), "E23.5-24.5");
        check(Some(23.5), None, "E23.5-24 D24-");
        check(None, Some(49.0), "D-48 H48-49");
        let by_hour = |from, to, expected: &str| assert_eq!(plan(from, to, &[Group::Hour]), expected);
        by_hour(None, None, "H-");
        by_hour(Some(5.5), Some(53.0), "E5.5-6 H6-53");
    }
}
