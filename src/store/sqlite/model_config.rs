//! Limits on models as rows.

use super::limits::{self, Owner, OwnerKind, StoredLimits};
use super::row::{each, execute, exists, instant};
use crate::governance::edit::Edit;
use crate::governance::entity::ModelConfig;
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, params};
use std::sync::Arc;

pub(super) fn load(db: &Connection, limits: &mut StoredLimits, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    let sql = "SELECT id, model_name, provider, config_hash, created_at, updated_at FROM model_configs";
    each(db, sql, |row| {
        let id: Arc<str> = row.get(0)?;
        edits.push(Edit::ModelConfig(Arc::new(ModelConfig {
            model_name: row.get(1)?,
            provider: row.get(2)?,
            limits: limits.take(&Owner::new(OwnerKind::ModelConfig, &id)),
            config_hash: row.get(3)?,
            created_at: instant(row, 4)?,
            updated_at: instant(row, 5)?,
            id,
        })));
        Ok(())
    })
}

/// Gives up model and provider if the config gets others, so that another one may have them.
pub(super) fn make_room(db: &Connection, config: &ModelConfig) -> Result<(), StoreError> {
    execute(
        db,
        "UPDATE model_configs SET model_name = 'changing:' || hex(randomblob(16))
         WHERE id = ?1 AND (model_name <> ?2 OR provider IS NOT ?3)",
        params![config.id, config.model_name, config.provider],
    )
    .map(drop)
}

pub(super) fn save(db: &Connection, config: &ModelConfig) -> Result<(), StoreError> {
    let ModelConfig { id, model_name, provider, limits, config_hash, created_at, updated_at } = config;
    let taken = exists(
        db,
        "SELECT 1 FROM model_configs WHERE model_name = ?1 AND ifnull(provider, '') = ifnull(?2, '') AND id <> ?3",
        params![model_name, provider, id],
    )?;
    if taken {
        let of = provider.as_ref().map_or("every provider".to_owned(), |provider| format!("provider '{provider}'"));
        let what = format!("model config for '{model_name}' of {of} is taken");
        return Err(StoreError::new(StoreErrorKind::NameTaken, what));
    }
    execute(
        db,
        "INSERT INTO model_configs (id, model_name, provider, config_hash, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET model_name = ?2, provider = ?3, config_hash = ?4, created_at = ?5,
            updated_at = ?6",
        params![id, model_name, provider, config_hash, created_at.millis(), updated_at.millis()],
    )?;
    limits::save(db, &Owner::new(OwnerKind::ModelConfig, id), limits)
}

/// Its limits go with it, by a trigger of the schema.
pub(super) fn remove(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM model_configs WHERE id = ?1", [id]).map(drop)
}
