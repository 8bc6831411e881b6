//! Entries that were charged at their upper bound because the process died, and what became known of
//! them since. Nothing in the ledger is ever changed: a correction is one more entry.

use super::audit;
use super::charge::{self, Said};
use super::intern::{self, CORRECTION, STANDARD, UNRESOLVED};
use super::rollup::Rollup;
use super::row::{self, damaged, instant};
use crate::governance::money::Nanos;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::state::Adjustment;
use crate::state::outbox::{ChargeId, Ending};
use crate::store::record::{Actual, Record, UnresolvedEntry};
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

/// Entries as they stand with their corrections; the rest of the statement selects among them.
const STANDING: &str =
    "SELECT e.id, e.admitted_at, e.settled_at, e.virtual_key_id, e.provider, e.model, e.kind, e.ending,
        e.input + ifnull(sum(c.input), 0) AS input, e.output + ifnull(sum(c.output), 0) AS output,
        e.cost_nanos + ifnull(sum(c.cost_nanos), 0) AS cost_nanos, count(c.number) AS corrections
    FROM ledger_entries AS e LEFT JOIN ledger AS c ON c.corrects = e.number";

/// Unresolved entries that nobody has corrected yet, newest first, and how many there are.
pub(super) fn unresolved(
    db: &Connection,
    limit: usize,
    offset: usize,
) -> Result<(Vec<UnresolvedEntry>, usize), StoreError> {
    // The word's number as it stands, so that the index of these entries is found.
    let open = format!(
        "FROM ledger AS u WHERE u.ending = {UNRESOLVED}
            AND NOT EXISTS (SELECT 1 FROM ledger AS c WHERE c.corrects = u.number)"
    );
    let count = format!("SELECT count(*) {open}");
    let total: i64 = db.prepare_cached(&count)?.query_row((), |row| row.get(0))?;
    let page = format!(
        "{STANDING} WHERE e.number IN (SELECT u.number {open})
         GROUP BY e.number ORDER BY e.settled_at DESC, e.number DESC LIMIT ?1 OFFSET ?2"
    );
    let mut page = db.prepare_cached(&page)?;
    let bound = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut rows = page.query([bound(limit), bound(offset)])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok((entries, usize::try_from(total).unwrap_or(0)))
}

/// One unresolved entry as it stands.
pub(super) fn find(db: &Connection, id: ChargeId) -> Result<UnresolvedEntry, StoreError> {
    let mut find = db.prepare_cached(&format!("{STANDING} WHERE e.number = ?1 GROUP BY e.number"))?;
    let found = find.query_row([intern::known_entry(db, id)?], |row| Ok((row.get::<_, String>("ending")?, read(row))));
    match found.optional()? {
        Some((ending, entry)) if ending == Ending::Unresolved.as_str() => entry,
        Some(_) => Err(StoreError::new(StoreErrorKind::NotUnresolved, "the ledger entry is not an unresolved one")),
        None => Err(StoreError::new(StoreErrorKind::NotFound, "there is no ledger entry of this id")),
    }
}

/// Appends the correction that makes the entry come to `actual`, and changes the balances of those of its
/// windows that are still kept. Returns by how much, and the entry as it stands then.
pub(super) fn correct(
    tx: &Transaction<'_>,
    (id, correction): (ChargeId, ChargeId),
    actual: &Actual,
    at: Timestamp,
    record: impl FnOnce(&UnresolvedEntry, &UnresolvedEntry) -> Record,
) -> Result<(Vec<Adjustment>, UnresolvedEntry), StoreError> {
    let before = find(tx, id)?;
    let (input, output) = (actual.input.unwrap_or(before.input), actual.output.unwrap_or(before.output));
    let after =
        UnresolvedEntry { input, output, cost: actual.cost, corrections: before.corrections + 1, ..before.clone() };
    let same = UnresolvedEntry { corrections: after.corrections, ..before.clone() } == after;
    if same && before.corrections > 0 {
        // It was corrected to just this.
        return Ok((Vec::new(), before));
    }
    let cost = after.cost.get().saturating_sub(before.cost.get());
    let more = |new: i64, old: i64| new.saturating_sub(old);
    let (input, output) = (more(after.input, before.input), more(after.output, before.output));
    let (number, own) = (intern::new_entry(tx, id)?, intern::new_entry(tx, correction)?);
    let said = Said::difference(cost, input.saturating_add(output));
    let adjustments = adjust(tx, number, (own, before.admitted_at), said)?;
    let keys: Vec<&LimitKey> = adjustments.iter().map(|adjustment| &adjustment.key).collect();
    let charged = intern::charge_of(tx, &keys)?;
    let account = row::find(tx, "SELECT account FROM ledger WHERE number = ?1", [number])?;
    let account: i64 = account.ok_or_else(|| damaged("ledger entry", "whose account is gone"))?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO ledger
            (number, admitted_at, took, account, charged, kind, ending, tier, estimated, input, cache_read,
             cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output, image_output,
             cost_nanos, model, corrects)
         SELECT ?1, admitted_at, ?2, account, ?3, kind, ?4, ?5, 0, ?6, 0, 0, 0, 0, 0, ?7, 0, 0, 0, ?8, model, number
         FROM ledger WHERE number = ?9",
    )?;
    let took = at.millis().saturating_sub(before.admitted_at.millis());
    insert.execute(params![own, took, charged, CORRECTION, STANDARD, input, output, cost, number])?;
    let mut sums = Rollup::default();
    sums.amend(account, before.admitted_at, [input, 0, 0, 0, 0, 0, output, 0, 0, 0], Nanos::new(cost));
    sums.write(tx)?;
    audit::append(tx, &record(&before, &after))?;
    Ok((adjustments, after))
}

/// Changes the balances of the windows that the entry was charged to, as far as they are kept.
fn adjust(
    tx: &Transaction<'_>,
    number: i64,
    correction: (i64, Timestamp),
    said: Said,
) -> Result<Vec<Adjustment>, StoreError> {
    let mut windows = tx.prepare_cached(
        "SELECT limit_id, measure, window_start FROM unresolved_windows WHERE entry = ?1 AND measure <> 'requests'",
    )?;
    let mut rows = windows.query([number])?;
    let mut adjustments = Vec::new();
    while let Some(row) = rows.next()? {
        let measure: String = row.get(1)?;
        let measure = Measure::from_name(&measure).ok_or_else(|| damaged("window", &measure))?;
        let amount = said.of(measure);
        let (key, start) = (LimitKey { id: row.get(0)?, measure }, instant(row, "window_start")?);
        if amount != 0 && charge::amend(tx, correction, said, (&key, start), amount)? {
            adjustments.push(Adjustment { key, start, amount });
        }
    }
    Ok(adjustments)
}

fn read(row: &Row<'_>) -> Result<UnresolvedEntry, StoreError> {
    let id: Vec<u8> = row.get("id")?;
    let kind: String = row.get("kind")?;
    let id = <[u8; 16]>::try_from(id).map_err(|_| damaged("ledger entry", "of this length of id"))?;
    Ok(UnresolvedEntry {
        id: ChargeId(u128::from_be_bytes(id)),
        admitted_at: instant(row, "admitted_at")?,
        settled_at: instant(row, "settled_at")?,
        virtual_key: row.get("virtual_key_id")?,
        provider: row.get("provider")?,
        model: row.get("model")?,
        kind: RequestKind::from_name(&kind).ok_or_else(|| damaged("ledger entry", &kind))?,
        input: row.get("input")?,
        output: row.get("output")?,
        cost: Nanos::new(row.get("cost_nanos")?),
        corrections: row.get("corrections")?,
    })
}
