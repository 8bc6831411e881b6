//! The books checked: every entry summed up again and held to balances and roll-ups.
//!
//! Reads one consistent state of the database, and changes nothing: a server may run beside it.

use super::charge::{Said, limits};
use super::ledger::limits as declared_limits;
use super::retention::{self, kept_since};
use super::rollup::{DAY_MS, HOUR_MS, floor};
use super::row::{damaged, each, instant};
use super::schema::{self, Found};
use super::{connect_read_only, schema::SCHEMA_VERSION};
use crate::governance::money::Nanos;
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::store::question::{LedgerSum, UNITS};
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, Row, TransactionBehavior};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// What was checked, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    /// Windows of declared limits.
    pub balances: u64,
    /// Sums by hour and by day.
    pub sums: u64,
    /// Entries from here on are whole; older ones were forgotten by age.
    pub entries_since: Option<Timestamp>,
    pub hours_since: Option<Timestamp>,
    /// A sentence each.
    pub mismatches: Vec<String>,
}

/// More faults than these help nobody.
const MISMATCHES_MAX: usize = 1_000;

/// Checks the database at `path`.
pub fn verify(path: &Path) -> Result<Verified, StoreError> {
    let doing = || format!("verify the database {}", path.display());
    match schema::inspect(path)? {
        Found::Nothing => {
            let what = format!("there is no database at {}; `store.path` says where it is", path.display());
            return Err(StoreError::new(StoreErrorKind::Open, what));
        }
        Found::Version(version) if version < SCHEMA_VERSION => {
            let what = format!(
                "the database {} has schema version {version} and is verified from version {SCHEMA_VERSION} on; start \
                 Tollgate once to upgrade it",
                path.display()
            );
            return Err(StoreError::new(StoreErrorKind::Other, what));
        }
        Found::Version(_) => {}
    }
    let look = || {
        let mut connection = connect_read_only(path)?;
        let one_state = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        check(&one_state)
    };
    look().map_err(|error| error.doing(doing))
}

fn check(db: &Connection) -> Result<Verified, StoreError> {
    let mut report = Verified {
        entries_since: kept_since(db, retention::ENTRIES)?,
        hours_since: kept_since(db, retention::HOURS)?,
        ..Verified::default()
    };
    // A damaged file says so first: what is read from it means little.
    each(db, "PRAGMA integrity_check(20)", |row| {
        let line: String = row.get(0)?;
        if line != "ok" {
            report.fault(format!("database file: {line}"));
        }
        Ok(())
    })?;
    if !report.mismatches.is_empty() {
        return Ok(report);
    }
    let mut books = Books::load(db)?;
    books.read_entries(db, &mut report)?;
    books.check_balances(&mut report);
    check_sums(db, &books, &mut report)?;
    Ok(report)
}

impl Verified {
    fn fault(&mut self, what: String) {
        if self.mismatches.len() < MISMATCHES_MAX {
            self.mismatches.push(what);
        }
    }
}

/// One window of one limit.
#[derive(Debug)]
struct Window {
    start: Timestamp,
    spent: i64,
    carried: i64,
    /// What entries come to.
    sum: i64,
}

#[derive(Debug)]
struct Limit {
    key: LimitKey,
    /// The first one first.
    windows: Vec<Window>,
    /// It has no window though nobody ever deleted it, so no entry may have been charged to it.
    bare: bool,
    /// How many were.
    entries: u64,
}

/// A charge of an entry to a limit, that does not follow the rule.
#[derive(Debug)]
struct Stray {
    limit: usize,
    start: Timestamp,
    amount: i64,
}

/// Everything that entries are held to.
#[derive(Debug)]
struct Books {
    limits: Vec<Limit>,
    /// The limits, by their places, of each combination.
    charges: HashMap<i64, Vec<usize>>,
    strays: HashMap<Vec<u8>, Vec<Stray>>,
    /// The virtual key, the provider and the model of each.
    accounts: HashMap<i64, [String; 3]>,
    /// What the entries of each hour and account come to.
    hours: BTreeMap<(Timestamp, i64), LedgerSum>,
}

impl Books {
    fn load(db: &Connection) -> Result<Books, StoreError> {
        let (mut all, mut places): (Vec<Limit>, HashMap<LimitKey, usize>) = Default::default();
        // Limits that are gone have no balance that matters.
        let declared = "SELECT limit_id, measure, window_start, spent, carried FROM balances
            WHERE (measure = 'money' AND limit_id IN (SELECT id FROM budgets))
                OR (measure <> 'money' AND limit_id IN (SELECT id FROM rate_limits))
            ORDER BY limit_id, measure, window_start";
        each(db, declared, |row| {
            let key = limit_key(row, 0)?;
            let place = *places.entry(key.clone()).or_insert_with(|| {
                all.push(Limit { key, windows: Vec::new(), bare: false, entries: 0 });
                all.len() - 1
            });
            all[place].windows.push(Window {
                start: instant(row, 2)?,
                spent: row.get(3)?,
                carried: row.get(4)?,
                sum: 0,
            });
            Ok(())
        })?;
        let mut gone = HashSet::new();
        each(db, "SELECT limit_id, measure FROM ledger_gone", |row| {
            gone.insert(limit_key(row, 0)?);
            Ok(())
        })?;
        for key in declared_limits(db)? {
            if !places.contains_key(&key) && !gone.contains(&key) {
                places.insert(key.clone(), all.len());
                all.push(Limit { key, windows: Vec::new(), bare: true, entries: 0 });
            }
        }
        let mut charges = HashMap::new();
        each(db, "SELECT id, limits FROM ledger_charges", |row| {
            let text: String = row.get(1)?;
            let known = limits(&text)?.iter().filter_map(|key| places.get(key).copied()).collect();
            charges.insert(row.get(0)?, known);
            Ok(())
        })?;
        let mut strays: HashMap<Vec<u8>, Vec<Stray>> = HashMap::new();
        each(db, "SELECT limit_id, measure, window_start, amount, entry FROM ledger_strays", |row| {
            if let Some(limit) = places.get(&limit_key(row, 0)?).copied() {
                let stray = Stray { limit, start: instant(row, 2)?, amount: row.get(3)? };
                strays.entry(row.get(4)?).or_default().push(stray);
            }
            Ok(())
        })?;
        let mut accounts = HashMap::new();
        each(db, "SELECT id, virtual_key_id, provider, model FROM ledger_accounts", |row| {
            let [key, provider, model] = [1, 2, 3].map(|column| row.get::<_, String>(column));
            accounts.insert(row.get(0)?, [key?, provider?, model?]);
            Ok(())
        })?;
        Ok(Books { limits: all, charges, strays, accounts, hours: BTreeMap::new() })
    }

    fn read_entries(&mut self, db: &Connection, report: &mut Verified) -> Result<(), StoreError> {
        const FIRST_UNIT: usize = 4 + Said::COLUMNS_COUNT;
        let sql = format!(
            "SELECT id, admitted_at, account, charged, {}, {}, corrects IS NULL FROM ledger",
            Said::COLUMNS,
            UNITS.join(", ")
        );
        each(db, &sql, |row| {
            report.entries += 1;
            let (at, said) = (instant(row, 1)?, Said::read(row, 4)?);
            if let Some(charge) = row.get::<_, Option<i64>>(3)? {
                let id: Vec<u8> = row.get(0)?;
                if !self.charge(&id, at, charge, said) {
                    report.fault(format!("entry {}: it names a charge that is not there", hex(&id)));
                }
            }
            match row.get(2)? {
                Some(account) => {
                    let mut units = [0; UNITS.len()];
                    for (column, units) in units.iter_mut().enumerate() {
                        *units = row.get(FIRST_UNIT + column)?;
                    }
                    let one = LedgerSum {
                        calls: row.get(FIRST_UNIT + UNITS.len())?,
                        units,
                        cost: Nanos::new(said.of(Measure::Money)),
                    };
                    self.hours.entry((floor(at, HOUR_MS), account)).or_default().add(&one);
                }
                None => report.fault(format!("entry {}: it has no account", hex(&row.get::<_, Vec<u8>>(0)?))),
            }
            Ok(())
        })
    }

    /// Adds an entry to the windows that it was charged to; false if that is not known.
    fn charge(&mut self, id: &[u8], at: Timestamp, charge: i64, said: Said) -> bool {
        let Some(places) = self.charges.get(&charge) else { return false };
        let strays = self.strays.get(id).map_or(&[][..], |strays| strays);
        for &place in places {
            let limit = &mut self.limits[place];
            limit.entries += 1;
            let window = match strays.iter().find(|stray| stray.limit == place) {
                Some(stray) => {
                    limit.windows.iter_mut().find(|window| window.start == stray.start).map(|w| (w, stray.amount))
                }
                None => {
                    limit.windows.iter_mut().rfind(|window| window.start <= at).map(|w| (w, said.of(limit.key.measure)))
                }
            };
            if let Some((window, amount)) = window {
                window.sum = window.sum.saturating_add(amount);
            }
        }
        true
    }

    /// Whose a sum is, in one line whatever a caller named as a model.
    fn account(&self, number: i64) -> String {
        let Some([key, provider, model]) = self.accounts.get(&number) else { return format!("account {number}") };
        let key = if key.is_empty() { "no virtual key".to_owned() } else { format!("virtual key {key}") };
        format!("{key}, {provider}, {model:?}")
    }

    fn check_balances(&self, report: &mut Verified) {
        for Limit { key, windows, bare, entries } in &self.limits {
            let what = if key.measure == Measure::Money { "budget" } else { "rate limit" };
            if *bare && *entries > 0 {
                let measure = key.measure.as_str();
                report.fault(format!(
                    "{what} {} ({measure}): it has no balance, and {entries} entries were charged to it",
                    key.id
                ));
            }
            for window in windows {
                report.balances += 1;
                let sum = window.carried.saturating_add(window.sum);
                if sum != window.spent {
                    let (is, should) = (amount(key.measure, window.spent), amount(key.measure, sum));
                    report.fault(format!(
                        "{what} {} ({}), window from {}: the balance is {is}, and entries come to {should}",
                        key.id,
                        key.measure.as_str(),
                        window.start
                    ));
                }
            }
        }
    }
}

/// Holds sums by hour to the entries, and sums by day to those by hour, as far back as both are whole.
fn check_sums(db: &Connection, books: &Books, report: &mut Verified) -> Result<(), StoreError> {
    let (entries_since, hours_since) = (report.entries_since, report.hours_since);
    let hours = read_sums(db, "ledger_hours")?;
    report.sums += count(&hours);
    let mut by_day: BTreeMap<(Timestamp, i64), LedgerSum> = BTreeMap::new();
    for (&(hour, account), sum) in &hours {
        by_day.entry((floor(hour, DAY_MS), account)).or_default().add(sum);
    }
    compare(("hour", &hours), ("entries", &books.hours), entries_since, books, report);
    let days = read_sums(db, "ledger_days")?;
    report.sums += count(&days);
    compare(("day", &days), ("its hours", &by_day), hours_since, books, report);
    Ok(())
}

type Sums = BTreeMap<(Timestamp, i64), LedgerSum>;

fn count(sums: &Sums) -> u64 {
    u64::try_from(sums.len()).unwrap_or(u64::MAX)
}

fn compare(
    (what, are): (&str, &Sums),
    (of, should): (&str, &Sums),
    since: Option<Timestamp>,
    books: &Books,
    report: &mut Verified,
) {
    let whole = |at: Timestamp| since.is_none_or(|since| at >= since);
    let none = LedgerSum::default();
    for (key @ &(at, account), is) in are.iter().filter(|((at, _), _)| whole(*at)) {
        let sum = should.get(key).unwrap_or(&none);
        if is != sum {
            report.fault(format!(
                "{what} {at}, {}: the sum is {} calls and {} dollars, and {of} come to {} and {}{}",
                books.account(account),
                is.calls,
                is.cost,
                sum.calls,
                sum.cost,
                if (is.calls, is.cost) == (sum.calls, sum.cost) { "; tokens differ" } else { "" }
            ));
        }
    }
    for (&(at, account), sum) in should.iter().filter(|(key, _)| whole(key.0) && !are.contains_key(key)) {
        let (LedgerSum { calls, cost, .. }, whose) = (sum, books.account(account));
        report
            .fault(format!("{what} {at}, {whose}: there is no sum, and {of} come to {calls} calls and {cost} dollars"));
    }
}

fn read_sums(db: &Connection, table: &str) -> Result<Sums, StoreError> {
    let mut sums = Sums::new();
    let sql = format!("SELECT at, account, calls, cost_nanos, {} FROM {table}", UNITS.join(", "));
    each(db, &sql, |row| {
        let mut units = [0; UNITS.len()];
        for (column, units) in units.iter_mut().enumerate() {
            *units = row.get(4 + column)?;
        }
        let sum = LedgerSum { calls: row.get(2)?, units, cost: Nanos::new(row.get(3)?) };
        sums.insert((instant(row, 0)?, row.get(1)?), sum);
        Ok(())
    })?;
    Ok(sums)
}

fn limit_key(row: &Row<'_>, first: usize) -> Result<LimitKey, StoreError> {
    let measure: String = row.get(first + 1)?;
    let measure = Measure::from_name(&measure).ok_or_else(|| damaged("balance", &measure))?;
    Ok(LimitKey { id: row.get(first)?, measure })
}

fn amount(measure: Measure, number: i64) -> String {
    match measure {
        Measure::Money => format!("{} dollars", Nanos::new(number)),
        Measure::Tokens | Measure::Requests => format!("{number} {}", measure.as_str()),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
