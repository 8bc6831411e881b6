//! Whether the clock is to be believed when it says that something is old.
//!
//! A clock stepped years forward would make everything old at once, and what is forgotten never comes back. So
//! it is noted when the ledger was last looked through. A clock that is more than a week ahead of that may be
//! wrong, or the program was not running: nobody here can tell. Nothing is forgotten until it comes back, or
//! until it has gone on so for a week, which is time enough to set it right.

use super::row::{execute, find};
use crate::governance::time::Timestamp;
use crate::store::StoreError;
use rusqlite::{Transaction, params};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// How far it may be ahead.
pub(super) const AHEAD_MAX_MS: i64 = 7 * DAY_MS;
/// How long it is doubted.
pub(super) const DOUBT_MS: i64 = 7 * DAY_MS;

/// What `ledger_kept` calls the latest instant that was believed, when the doubt began, and when it was last felt.
const BELIEVED: &str = "believed";
const DOUBTED: &str = "doubted";
const DOUBTFUL: &str = "doubtful";

/// Whether what is too old at `now` may go. Says once when that changes.
pub(super) fn is_sound(tx: &Transaction<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let believed = match noted(tx, BELIEVED)? {
        Some(believed) => believed,
        // Never looked through: the latest call is as good a witness.
        None => latest_call(tx)?.unwrap_or(now),
    };
    if now <= believed.plus(AHEAD_MAX_MS) {
        if noted(tx, DOUBTED)?.is_some() {
            tracing::info!(%now, "the clock is back; the ledger forgets by age again");
        }
        return believe(tx, now).map(|()| true);
    }
    let (doubted, felt) = (noted(tx, DOUBTED)?, noted(tx, DOUBTFUL)?);
    match (doubted, felt) {
        // It went back, or further ahead: the week begins again.
        (Some(since), Some(felt)) if now >= since && now <= felt.plus(AHEAD_MAX_MS) => {
            if now >= since.plus(DOUBT_MS) {
                tracing::info!(%now, "the clock has gone on for a week; the ledger forgets by age again");
                return believe(tx, now).map(|()| true);
            }
        }
        _ => {
            let days = now.millis().saturating_sub(believed.millis()) / DAY_MS;
            tracing::warn!(
                %now, last = %believed, days,
                "the clock is far ahead of when the ledger was last looked through: if it is wrong, set it right; \
                 nothing is forgotten for a week"
            );
            note(tx, DOUBTED, now)?;
        }
    }
    note(tx, BELIEVED, believed)?;
    note(tx, DOUBTFUL, now)?;
    Ok(false)
}

fn believe(tx: &Transaction<'_>, now: Timestamp) -> Result<(), StoreError> {
    execute(tx, "DELETE FROM ledger_kept WHERE what IN (?1, ?2)", [DOUBTED, DOUBTFUL])?;
    note(tx, BELIEVED, now)
}

fn noted(tx: &Transaction<'_>, what: &str) -> Result<Option<Timestamp>, StoreError> {
    let since: Option<i64> = find(tx, "SELECT since FROM ledger_kept WHERE what = ?1", [what])?;
    Ok(since.map(Timestamp::from_millis))
}

fn note(tx: &Transaction<'_>, what: &str, at: Timestamp) -> Result<(), StoreError> {
    let sql = "INSERT INTO ledger_kept (what, since) VALUES (?1, ?2) ON CONFLICT (what) DO UPDATE SET since = ?2";
    execute(tx, sql, params![what, at.millis()]).map(drop)
}

fn latest_call(tx: &Transaction<'_>) -> Result<Option<Timestamp>, StoreError> {
    let latest: Option<Option<i64>> = find(tx, "SELECT max(admitted_at) FROM ledger", ())?;
    Ok(latest.flatten().map(Timestamp::from_millis))
}
