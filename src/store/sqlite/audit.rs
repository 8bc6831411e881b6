//! The audit log: lines appended with the change they tell of. The oldest go when there are too many.

use super::row::{execute, instant};
use crate::governance::time::Timestamp;
use crate::store::StoreError;
use crate::store::record::{AuditEntry, AuditLine, AuditQuery, Record};
use rusqlite::{Connection, Row, ToSql, params};
use serde_json::Value;

/// Lines kept.
pub(in crate::store) const LINES_MAX: i64 = 100_000;

pub(super) fn append(db: &Connection, record: &Record) -> Result<(), StoreError> {
    for line in &record.audit {
        insert(db, &record.actor, record.at, line)?;
    }
    if !record.audit.is_empty() {
        // Ids have no gaps among the youngest: this many of them are this many lines.
        execute(db, "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1", [LINES_MAX])?;
    }
    Ok(())
}

fn insert(db: &Connection, actor: &str, at: Timestamp, line: &AuditLine) -> Result<(), StoreError> {
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let AuditLine { action, object_type, object_id, object_name, before, after } = line;
    execute(
        db,
        "INSERT INTO audit (at, actor, action, object_type, object_id, object_name, \"before\", \"after\")
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![at.millis(), actor, action, object_type, object_id, object_name, text(before), text(after)],
    )
    .map(drop)
}

/// A page of the lines that `query` selects, newest first, and how many there are.
pub(super) fn page(db: &Connection, query: &AuditQuery) -> Result<(Vec<AuditEntry>, usize), StoreError> {
    let mut wheres: Vec<&str> = Vec::new();
    let mut given: Vec<(&str, &dyn ToSql)> = Vec::new();
    if let Some(object_type) = &query.object_type {
        wheres.push("object_type = :type");
        given.push((":type", object_type));
    }
    if let Some(object_id) = &query.object_id {
        wheres.push("object_id = :id");
        given.push((":id", object_id));
    }
    let wheres = if wheres.is_empty() { String::new() } else { format!("WHERE {}", wheres.join(" AND ")) };
    let total: i64 =
        db.prepare_cached(&format!("SELECT count(*) FROM audit {wheres}"))?.query_row(&*given, |row| row.get(0))?;
    let bound = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (limit, offset) = (bound(query.limit), bound(query.offset));
    given.extend([(":limit", &limit as &dyn ToSql), (":offset", &offset)]);
    let mut lines =
        db.prepare_cached(&format!("SELECT * FROM audit {wheres} ORDER BY id DESC LIMIT :limit OFFSET :offset"))?;
    let mut rows = lines.query(&*given)?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok((entries, usize::try_from(total).unwrap_or(0)))
}

fn read(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    let id: i64 = row.get("id")?;
    // An object that cannot be read does not hide who changed it, nor all other lines.
    let value = |column: &str| -> Result<Option<Value>, StoreError> {
        let text: Option<String> = row.get(column)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    Ok(AuditEntry {
        id,
        at: instant(row, "at")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        object_type: row.get("object_type")?,
        object_id: row.get("object_id")?,
        object_name: row.get("object_name")?,
        before: value("before")?,
        after: value("after")?,
    })
}
