//! Values as they stand in columns.

use crate::governance::time::{Span, Timestamp, Window};
use crate::store::{StoreError, StoreErrorKind};
#[cfg(test)]
use rusqlite::StatementStatus;
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, RowIndex, Statement};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The row says something that this program never wrote.
pub(super) fn damaged(what: &str, id: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Damaged, format!("the database holds a damaged {what} ({id})"))
}

pub(super) fn instant(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

/// A list of texts or numbers, or what consists of them.
pub(super) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("lists and maps of texts and numbers are always JSON")
}

#[cfg(test)]
thread_local! {
    /// Rows that statements of this thread stepped over without an index that leads to them.
    pub(in crate::store) static SCANNED: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Tests look at how statements find their rows.
#[cfg(test)]
fn note_scans(statement: &Statement<'_>) {
    SCANNED.set(SCANNED.get() + i64::from(statement.reset_status(StatementStatus::FullscanStep)));
}

#[cfg(not(test))]
const fn note_scans(_: &Statement<'_>) {}

/// Runs a query and takes each row.
pub(super) fn each(
    db: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    drop(rows);
    note_scans(&statement);
    Ok(())
}

/// The first column of a single row that may be missing.
pub(super) fn find<T: FromSql>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let found = statement.query_row(params, |row| row.get(0)).optional()?;
    note_scans(&statement);
    Ok(found)
}

pub(super) fn exists(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let found = statement.exists(params)?;
    note_scans(&statement);
    Ok(found)
}

pub(super) fn execute(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
    let mut statement = db.prepare_cached(sql)?;
    let changed = statement.execute(params)?;
    note_scans(&statement);
    Ok(changed)
}

/// Texts that many rows have in common, each kept once.
#[derive(Debug, Default)]
pub(super) struct Texts(HashSet<Arc<str>>);

impl Texts {
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// Windows by their text, each read once: rolling ones, and those that follow the calendar.
#[derive(Debug, Default)]
pub(super) struct Windows {
    rolling: HashMap<String, Window>,
    aligned: HashMap<String, Window>,
}

impl Windows {
    /// Absent if the text says no window.
    pub(super) fn read(&mut self, text: &str, aligned: bool) -> Option<Window> {
        let known = if aligned { &mut self.aligned } else { &mut self.rolling };
        if let Some(window) = known.get(text) {
            return Some(window.clone());
        }
        let span = Span::parse(text).ok()?;
        let window = if aligned { Window::aligned(span).ok()? } else { Window::rolling(span) };
        known.insert(text.to_owned(), window.clone());
        Some(window)
    }
}
