//! Answers to requests that may be sent again, for a day.

use super::row::{damaged, execute, exists};
use crate::governance::edit::Edit;
use crate::governance::time::Timestamp;
use crate::store::record::{NewReplay, Replay};
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension, params};

/// How long an answer is given again.
pub(in crate::store) const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;
/// Answers kept; the oldest go before their time.
pub(in crate::store) const ANSWERS_MAX: i64 = 10_000;

/// The answer to the request of this key, unless it is too old.
pub(super) fn find(db: &Connection, sealer: &Sealer, key: &str, now: Timestamp) -> Result<Option<Replay>, StoreError> {
    let mut find = db.prepare_cached("SELECT fingerprint, status, sealed FROM replays WHERE key = ?1 AND at > ?2")?;
    let found = find.query_row(params![key, oldest(now)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((fingerprint, status, sealed)): Option<(_, _, Vec<u8>)> = found.optional()? else { return Ok(None) };
    let body =
        sealer.open(&context(key), &sealed).map_err(|error| damaged("answer to a request", key).because(error))?;
    Ok(Some(Replay { fingerprint, status, body }))
}

/// Keeps an answer, if there is one, and forgets old ones and those with a value that is none any more. A key
/// that has an answer already is refused: its request was done.
pub(super) fn keep(
    db: &Connection,
    sealer: &Sealer,
    replay: Option<&NewReplay>,
    edits: &[Edit],
    now: Timestamp,
) -> Result<(), StoreError> {
    execute(db, "DELETE FROM replays WHERE at <= ?1", [oldest(now)])?;
    edits
        .iter()
        .filter_map(outdated)
        .try_for_each(|id| execute(db, "DELETE FROM replays WHERE virtual_key_id = ?1", [id]).map(drop))?;
    let Some(NewReplay { key, fingerprint, status, body, virtual_key }) = replay else { return Ok(()) };
    if exists(db, "SELECT 1 FROM replays WHERE key = ?1", [key])? {
        let what = format!("a request with the idempotency key '{key}' was answered already");
        return Err(StoreError::new(StoreErrorKind::ReplayTaken, what));
    }
    execute(
        db,
        "INSERT INTO replays (key, fingerprint, status, sealed, at, virtual_key_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![key, fingerprint, status, sealer.seal(&context(key), body)?, now.millis(), virtual_key],
    )?;
    execute(db, "DELETE FROM replays WHERE id <= (SELECT max(id) FROM replays) - ?1", [ANSWERS_MAX]).map(drop)
}

/// The virtual key whose earlier value an edit makes worthless.
fn outdated(edit: &Edit) -> Option<&str> {
    match edit {
        Edit::VirtualKey { key, value: Some(_), .. } => Some(&key.id),
        Edit::RemoveVirtualKey(id) => Some(id),
        _ => None,
    }
}

/// What was answered then is forgotten.
fn oldest(now: Timestamp) -> i64 {
    now.plus(-KEPT_MS).millis()
}

/// What a sealed answer is bound to.
fn context(key: &str) -> String {
    format!("replay:{key}")
}
