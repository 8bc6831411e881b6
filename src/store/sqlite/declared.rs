//! What of the config file is in force.

use super::row::{damaged, each, execute};
use crate::governance::edit::{Applied, Edit, EntryKey, EntryKind};
use crate::store::StoreError;
use rusqlite::{Connection, params};
use std::sync::Arc;

pub(super) fn load(db: &Connection, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    each(db, "SELECT kind, entry, object_id, hash, value FROM declared", |row| {
        let (kind, name): (String, Arc<str>) = (row.get(0)?, row.get(1)?);
        let kind = EntryKind::from_name(&kind).ok_or_else(|| damaged("entry of the config file", &name))?;
        let (object_id, hash, value) = (row.get(2)?, row.get(3)?, row.get(4)?);
        edits.push(Edit::Applied(Arc::new(Applied { entry: EntryKey { kind, name }, object_id, hash, value })));
        Ok(())
    })
}

pub(super) fn save(db: &Connection, applied: &Applied) -> Result<(), StoreError> {
    execute(
        db,
        "INSERT INTO declared (kind, entry, object_id, hash, value) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (kind, entry) DO UPDATE SET object_id = ?3, hash = ?4, value = ?5",
        params![
            applied.entry.kind.as_str(),
            applied.entry.name,
            applied.object_id,
            applied.hash,
            applied.value.as_ref().map(|digest| &digest[..]),
        ],
    )
    .map(drop)
}

pub(super) fn forget(db: &Connection, entry: &EntryKey) -> Result<(), StoreError> {
    let forget = "DELETE FROM declared WHERE kind = ?1 AND entry = ?2";
    execute(db, forget, params![entry.kind.as_str(), entry.name]).map(drop)
}
