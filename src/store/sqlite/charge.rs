//! Which window each entry was charged to, so that balances can be summed up again.
//!
//! An entry names the limits that it was charged to (`ledger_charges`), not their windows: that would be a row
//! for each call of a quiet key. The window follows by a **rule**: of the windows of the limit that are in
//! `balances`, the latest that had begun when the call was admitted. The amount follows from the entry, too:
//! its cost, its tokens, one request. Where the rule says something else than what happened, the charge is
//! written out as a *stray*. That is rare: a call that was admitted while another one just opened the next
//! window, or under a window that was reset before the news came round (as in a predecessor that drains).
//!
//! Two things keep the rule true afterwards. A window that opens below calls that are in the ledger already
//! (a limit deleted and made again, a reset in the moment of a call) would take them over: what the rule
//! would wrongly count there is taken off its `carried`, and given to the window before. And what retention
//! forgets is added to `carried`. So at every commit, for every window kept,
//!
//!   spent = carried + what the entries say by the rule + its strays

use super::row::{damaged, execute, exists, find};
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::state::outbox::{Delta, Entry};
use crate::store::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::BTreeMap;

/// The windows kept of each limit: the current one, and the one before it for calls that end late.
const WINDOWS_KEPT: i64 = 2;

/// What a batch adds to each window, of one limit one after the other.
pub(super) type Parts<'a> = BTreeMap<(&'a LimitKey, Timestamp), Part>;

/// What a batch adds to one window.
#[derive(Debug, Default)]
pub(super) struct Part {
    amount: i64,
    /// When the first and the last of its calls were admitted; absent without any.
    admitted: Option<(Timestamp, Timestamp)>,
    /// Some amount is not what its entry says.
    odd: bool,
}

/// What an entry says by itself about its charges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    cost: i64,
    tokens: i64,
}

impl Said {
    /// The columns that it is read from.
    pub(super) const COLUMNS: &str =
        "cost_nanos, input, cache_read, cache_write, cache_write_long, audio_input, image_input, output,
        audio_output, image_output";

    pub(super) const COLUMNS_COUNT: usize = 10;

    fn by(entry: &Entry) -> Said {
        let tokens = i64::try_from(entry.usage.total()).unwrap_or(i64::MAX);
        Said { cost: entry.cost.get(), tokens }
    }

    /// Of a correction, whose figures are differences.
    pub(super) fn difference(cost: i64, tokens: i64) -> Said {
        Said { cost, tokens }
    }

    /// From a row whose columns from `first` on are those above.
    pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Said> {
        let mut tokens: i64 = 0;
        for column in first + 1..first + Said::COLUMNS_COUNT {
            tokens = tokens.saturating_add(row.get(column)?);
        }
        Ok(Said { cost: row.get(first)?, tokens })
    }

    pub(super) fn of(self, measure: Measure) -> i64 {
        match measure {
            Measure::Money => self.cost,
            Measure::Tokens => self.tokens,
            Measure::Requests => 1,
        }
    }
}

impl Part {
    pub(super) fn add(&mut self, entry: &Entry, delta: &Delta) {
        let at = entry.tag.admitted_at;
        self.amount = self.amount.saturating_add(delta.amount);
        self.admitted = Some(self.admitted.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        self.odd |= delta.amount != Said::by(entry).of(delta.cell.key().measure);
    }

    /// Whether all its calls are found by the rule in the window from `start` to `next`.
    fn follows(&self, start: Timestamp, next: Option<Timestamp>) -> bool {
        let within = |(first, last)| first >= start && next.is_none_or(|next| last < next);
        !self.odd && self.admitted.is_none_or(within)
    }
}

/// Adds what a batch charged, whose `fresh` entries are in the ledger already, and forgets windows that no
/// call can belong to any more. Combinations of limits from `first_new` on were made for this batch.
pub(super) fn add(
    tx: &Transaction<'_>,
    parts: &Parts<'_>,
    fresh: &[(i64, &Entry)],
    first_new: Option<i64>,
) -> Result<(), StoreError> {
    let (mut opened, mut nexts) = (Vec::new(), Vec::with_capacity(parts.len()));
    for (&(key, start), part) in parts {
        let Put { is_new, next } = put(tx, key, start, part)?;
        nexts.push(next);
        if is_new {
            let strays = strays(tx, key, start)?;
            opened.push(Opened { key, start, amount: part.amount, strays });
        }
    }
    for ((&(key, start), part), next) in parts.iter().zip(nexts) {
        // Windows that were opened just now may follow on others of this batch.
        let next = if opened.is_empty() { next } else { next_start(tx, key, start)? };
        if !part.follows(start, next) {
            write_strays(tx, key, start, next, fresh)?;
        }
    }
    for window in &opened {
        window.take_nothing_over(tx, &opened, first_new)?;
    }
    opened.iter().try_for_each(|window| prune(tx, window.key))
}

/// Adds what an entry that comes later corrects in a window, if that is still kept; false if not. `said` is what
/// the correction says by itself, and `at` when the call was admitted.
pub(super) fn amend(
    tx: &Transaction<'_>,
    (entry, at): (i64, Timestamp),
    said: Said,
    (key, start): (&LimitKey, Timestamp),
    amount: i64,
) -> Result<bool, StoreError> {
    let kept = exists(
        tx,
        "SELECT 1 FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3",
        params![key.id, key.measure.as_str(), start.millis()],
    )?;
    if kept {
        let part = Part { amount, admitted: Some((at, at)), odd: said.of(key.measure) != amount };
        let Put { next, .. } = put(tx, key, start, &part)?;
        if !part.follows(start, next) {
            write_stray(tx, entry, key, start, amount)?;
        }
    }
    Ok(kept)
}

/// What became of a window's balance.
struct Put {
    /// It was not there.
    is_new: bool,
    /// Where the window after it begins.
    next: Option<Timestamp>,
}

/// Adds to one window's balance. The sum is made here because SQLite's own would turn an overflow into a float.
fn put(tx: &Transaction<'_>, key: &LimitKey, start: Timestamp, part: &Part) -> Result<Put, StoreError> {
    let (measure, start) = (key.measure.as_str(), start.millis());
    let latest = part.admitted.map_or(0, |(_, last)| last.millis());
    // The window and the one after it in one look: this is done for each limit of each batch.
    let (mut spent, mut next) = (None, None);
    let mut look = tx.prepare_cached(
        "SELECT window_start, spent FROM balances
         WHERE limit_id = ?1 AND measure = ?2 AND window_start >= ?3 ORDER BY window_start LIMIT 2",
    )?;
    let mut rows = look.query(params![key.id, measure, start])?;
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        if at == start {
            spent = Some(row.get::<_, i64>(1)?);
        } else if next.is_none() {
            next = Some(Timestamp::from_millis(at));
        }
    }
    let sum = spent.unwrap_or(0).saturating_add(part.amount);
    let sql = match spent {
        Some(_) => {
            "UPDATE balances SET spent = ?4, latest = max(latest, ?5)
             WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3"
        }
        None => "INSERT INTO balances (limit_id, measure, window_start, spent, latest) VALUES (?1, ?2, ?3, ?4, ?5)",
    };
    execute(tx, sql, params![key.id, measure, start, sum, latest])?;
    Ok(Put { is_new: spent.is_none(), next })
}

/// Where the window after this one begins.
fn next_start(db: &Connection, key: &LimitKey, start: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = find(
        db,
        "SELECT window_start FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start > ?3
         ORDER BY window_start LIMIT 1",
        params![key.id, key.measure.as_str(), start.millis()],
    )?;
    Ok(next.map(Timestamp::from_millis))
}

fn write_strays(
    tx: &Transaction<'_>,
    key: &LimitKey,
    start: Timestamp,
    next: Option<Timestamp>,
    fresh: &[(i64, &Entry)],
) -> Result<(), StoreError> {
    for &(number, entry) in fresh {
        let here = entry.deltas.iter().filter(|delta| delta.cell.key() == key && delta.cell.start() == start);
        for delta in here {
            let mut one = Part::default();
            one.add(entry, delta);
            if !one.follows(start, next) {
                write_stray(tx, number, key, start, delta.amount)?;
            }
        }
    }
    Ok(())
}

fn write_stray(
    tx: &Transaction<'_>,
    entry: i64,
    key: &LimitKey,
    start: Timestamp,
    amount: i64,
) -> Result<(), StoreError> {
    execute(
        tx,
        "INSERT OR IGNORE INTO ledger_strays (entry, limit_id, measure, window_start, amount)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![entry, key.id, key.measure.as_str(), start.millis(), amount],
    )
    .map(drop)
}

/// A window that this batch opened.
struct Opened<'a> {
    key: &'a LimitKey,
    start: Timestamp,
    /// What this batch put into it.
    amount: i64,
    /// Of the strays that name it, what was there before: a limit deleted and made again has the same windows.
    strays: i64,
}

impl Opened<'_> {
    /// Makes sure that the window counts no older entries. Those that the rule would give it now stay with the
    /// window that they were charged to. `all` are the windows that this batch opened.
    fn take_nothing_over(
        &self,
        tx: &Transaction<'_>,
        all: &[Opened<'_>],
        first_new: Option<i64>,
    ) -> Result<(), StoreError> {
        let &Opened { key, start, amount, strays: strays_before } = self;
        carry(tx, key, start, -strays_before)?;
        let is_new = |start| all.iter().any(|other| other.key == key && other.start == start);
        let older: Vec<(Timestamp, Timestamp)> = older(tx, key, start)?;
        let known = || older.iter().filter(|(start, _)| !is_new(*start));
        let overlaps = match known().map(|(_, latest)| *latest).max() {
            Some(latest) => latest >= start,
            None => is_made_again(tx, key, first_new)?,
        };
        if !overlaps || is_past(tx, key, start)? {
            return Ok(());
        }
        let (sum, latest) = by_rule(tx, key, start, next_start(tx, key, start)?)?;
        let new_strays = strays(tx, key, start)?.saturating_sub(strays_before);
        let taken = sum.saturating_add(new_strays).saturating_sub(amount);
        carry(tx, key, start, taken.saturating_neg())?;
        execute(
            tx,
            "UPDATE balances SET latest = max(latest, ?4) WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3",
            params![key.id, key.measure.as_str(), start.millis(), latest.millis()],
        )?;
        known().next().map_or(Ok(()), |(before, _)| carry(tx, key, *before, taken))
    }
}

/// The windows before this one, the nearest first, each with when its latest call was admitted.
fn older(db: &Connection, key: &LimitKey, start: Timestamp) -> Result<Vec<(Timestamp, Timestamp)>, StoreError> {
    let mut older = db.prepare_cached(
        "SELECT window_start, latest FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start < ?3
         ORDER BY window_start DESC",
    )?;
    let older = older.query_map(params![key.id, key.measure.as_str(), start.millis()], |row| {
        Ok((Timestamp::from_millis(row.get(0)?), Timestamp::from_millis(row.get(1)?)))
    })?;
    Ok(older.collect::<Result<_, _>>()?)
}

/// Whether entries of former batches name a limit that has no window.
fn is_made_again(tx: &Transaction<'_>, key: &LimitKey, first_new: Option<i64>) -> Result<bool, StoreError> {
    let named = exists(
        tx,
        "SELECT 1 FROM ledger_charge_limits WHERE limit_id = ?1 AND measure = ?2 AND charge < ?3",
        params![key.id, key.measure.as_str(), first_new.unwrap_or(i64::MAX)],
    )?;
    // Calls of a limit that was deleted while they were in flight are nobody's any more.
    let declared = match key.measure {
        Measure::Money => "SELECT 1 FROM budgets WHERE id = ?1",
        Measure::Tokens | Measure::Requests => "SELECT 1 FROM rate_limits WHERE id = ?1",
    };
    Ok(named && exists(tx, declared, [&key.id])?)
}

/// Whether the window goes at once, because so many later ones are there.
fn is_past(db: &Connection, key: &LimitKey, start: Timestamp) -> Result<bool, StoreError> {
    exists(
        db,
        "SELECT 1 FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start > ?3
         ORDER BY window_start LIMIT 1 OFFSET ?4",
        params![key.id, key.measure.as_str(), start.millis(), WINDOWS_KEPT - 1],
    )
}

/// What the entries from `start` to `next` say about the limit, and when the last of them was admitted.
fn by_rule(
    db: &Connection,
    key: &LimitKey,
    start: Timestamp,
    next: Option<Timestamp>,
) -> Result<(i64, Timestamp), StoreError> {
    let mut entries = db.prepare_cached(&format!(
        "SELECT admitted_at, {} FROM ledger
         WHERE admitted_at >= ?3 AND admitted_at < ?4
            AND charged IN (SELECT charge FROM ledger_charge_limits WHERE limit_id = ?1 AND measure = ?2)
            AND NOT EXISTS (SELECT 1 FROM ledger_strays AS stray
                            WHERE stray.entry = ledger.number AND stray.limit_id = ?1 AND stray.measure = ?2)",
        Said::COLUMNS
    ))?;
    let until = next.map_or(i64::MAX, Timestamp::millis);
    let mut rows = entries.query(params![key.id, key.measure.as_str(), start.millis(), until])?;
    let (mut sum, mut latest): (i64, Timestamp) = (0, start);
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(Said::read(row, 1)?.of(key.measure));
        latest = latest.max(Timestamp::from_millis(row.get(0)?));
    }
    Ok((sum, latest))
}

fn strays(db: &Connection, key: &LimitKey, start: Timestamp) -> Result<i64, StoreError> {
    let mut amounts = db.prepare_cached(
        "SELECT amount FROM ledger_strays WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3",
    )?;
    let mut rows = amounts.query(params![key.id, key.measure.as_str(), start.millis()])?;
    let mut sum: i64 = 0;
    while let Some(row) = rows.next()? {
        sum = sum.saturating_add(row.get(0)?);
    }
    Ok(sum)
}

/// Notes that entries account for so much less of what was spent in a window, if it is kept.
pub(super) fn carry(tx: &Transaction<'_>, key: &LimitKey, start: Timestamp, amount: i64) -> Result<(), StoreError> {
    let window = params![key.id, key.measure.as_str(), start.millis()];
    let mut find =
        tx.prepare_cached("SELECT carried FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3")?;
    let Some(carried) = find.query_row(window, |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    execute(
        tx,
        "UPDATE balances SET carried = ?4 WHERE limit_id = ?1 AND measure = ?2 AND window_start = ?3",
        params![key.id, key.measure.as_str(), start.millis(), carried.saturating_add(amount)],
    )
    .map(drop)
}

fn prune(tx: &Transaction<'_>, key: &LimitKey) -> Result<(), StoreError> {
    execute(
        tx,
        "DELETE FROM balances WHERE limit_id = ?1 AND measure = ?2 AND window_start NOT IN
            (SELECT window_start FROM balances WHERE limit_id = ?1 AND measure = ?2
             ORDER BY window_start DESC LIMIT ?3)",
        params![key.id, key.measure.as_str(), WINDOWS_KEPT],
    )
    .map(drop)
}

/// The limits of a combination, as `intern` writes them.
pub(super) fn limits(text: &str) -> Result<Vec<LimitKey>, StoreError> {
    let limit = |line: &str| {
        let (measure, id) = line.split_once(' ')?;
        Some(LimitKey { id: id.into(), measure: Measure::from_name(measure)? })
    };
    let each = text.lines().map(|line| limit(line).ok_or_else(|| damaged("combination of limits", text)));
    each.collect()
}
