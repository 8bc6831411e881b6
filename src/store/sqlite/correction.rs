//! Entries that were charged at their upper bound because the process died, and what became known of
//! them since. Nothing in the ledger is ever changed: a correction is one more entry.

use super::audit;
use super::charge::{self, Said};
use super::intern;
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

/// How a correction is recorded among the endings.
const CORRECTION: &str = "correction";

/// Entries as they stand with their corrections; the rest of the statement selects among them.
const STANDING: &str =
    "SELECT e.id, e.admitted_at, e.settled_at, e.virtual_key_id, e.provider, e.model, e.kind, e.ending,
        e.input + ifnull(sum(c.input), 0) AS input, e.output + ifnull(sum(c.output), 0) AS output,
        e.cost_nanos + ifnull(sum(c.cost_nanos), 0) AS cost_nanos, count(c.id) AS corrections
    FROM ledger AS e LEFT JOIN ledger AS c ON c.corrects = e.id";

/// Unresolved entries that nobody has corrected yet, newest first, and how many there are.
pub(super) fn unresolved(
    db: &Connection,
    limit: usize,
    offset: usize,
) -> Result<(Vec<UnresolvedEntry>, usize), StoreError> {
    let open = "e.ending = 'unresolved' AND NOT EXISTS (SELECT 1 FROM ledger WHERE corrects = e.id)";
    let count = format!("SELECT count(*) FROM ledger AS e WHERE {open}");
    let total: i64 = db.prepare_cached(&count)?.query_row((), |row| row.get(0))?;
    let page =
        format!("{STANDING} WHERE {open} GROUP BY e.id ORDER BY e.settled_at DESC, e.id DESC LIMIT ?1 OFFSET ?2");
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
    let mut find = db.prepare_cached(&format!("{STANDING} WHERE e.id = ?1 GROUP BY e.id"))?;
    let found = find.query_row([&id.0.to_be_bytes()[..]], |row| Ok((row.get::<_, String>("ending")?, read(row))));
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
    let bytes = correction.0.to_be_bytes();
    let said = Said::difference(cost, input.saturating_add(output));
    let adjustments = adjust(tx, id, (&bytes, before.admitted_at), said)?;
    let keys: Vec<&LimitKey> = adjustments.iter().map(|adjustment| &adjustment.key).collect();
    let charged = intern::charge_of(tx, &keys)?;
    let account: Option<i64> =
        row::find(tx, "SELECT account FROM ledger WHERE id = ?1", [&id.0.to_be_bytes()[..]])?.flatten();
    let mut insert = tx.prepare_cached(
        "INSERT INTO ledger
            (id, admitted_at, settled_at, virtual_key_id, provider, model, kind, ending, estimated, tier, input,
             cache_read, cache_write, cache_write_long, audio_input, image_input, output, reasoning, audio_output,
             cost_nanos, corrects, account, charged)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 'standard', ?9, 0, 0, 0, 0, 0, ?10, 0, 0, ?11, ?12, ?13, ?14)",
    )?;
    insert.execute(params![
        &bytes[..],
        before.admitted_at.millis(),
        at.millis(),
        before.virtual_key,
        before.provider,
        before.model,
        before.kind.as_str(),
        CORRECTION,
        input,
        output,
        cost,
        &id.0.to_be_bytes()[..],
        account,
        charged,
    ])?;
    if let Some(account) = account {
        let mut sums = Rollup::default();
        sums.amend(account, before.admitted_at, [input, 0, 0, 0, 0, 0, output, 0, 0, 0], Nanos::new(cost));
        sums.write(tx)?;
    }
    audit::append(tx, &record(&before, &after))?;
    Ok((adjustments, after))
}

/// Changes the balances of the windows that the entry was charged to, as far as they are kept.
fn adjust(
    tx: &Transaction<'_>,
    id: ChargeId,
    correction: (&[u8], Timestamp),
    said: Said,
) -> Result<Vec<Adjustment>, StoreError> {
    let mut windows = tx.prepare_cached(
        "SELECT limit_id, measure, window_start FROM unresolved_windows WHERE entry_id = ?1 AND measure <> 'requests'",
    )?;
    let mut rows = windows.query([&id.0.to_be_bytes()[..]])?;
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
