//! Limits on providers as rows. They are there with or without the provider, and go when it goes.

use super::limits::{self, Owner, OwnerKind, StoredLimits};
use super::row::{each, execute};
use crate::governance::edit::Edit;
use crate::governance::entity::ProviderLimits;
use crate::store::StoreError;
use rusqlite::{Connection, params};
use std::sync::Arc;

pub(super) fn load(db: &Connection, limits: &mut StoredLimits, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    each(db, "SELECT provider, config_hash FROM provider_limits", |row| {
        let provider: Arc<str> = row.get(0)?;
        edits.push(Edit::ProviderLimits(Arc::new(ProviderLimits {
            limits: limits.take(&Owner::new(OwnerKind::Provider, &provider)),
            config_hash: row.get(1)?,
            provider,
        })));
        Ok(())
    })
}

pub(super) fn save(db: &Connection, of: &ProviderLimits) -> Result<(), StoreError> {
    let ProviderLimits { provider, limits, config_hash } = of;
    execute(
        db,
        "INSERT INTO provider_limits (provider, config_hash) VALUES (?1, ?2)
         ON CONFLICT (provider) DO UPDATE SET config_hash = ?2",
        params![provider, config_hash],
    )?;
    limits::save(db, &Owner::new(OwnerKind::Provider, provider), limits)
}

/// The limits themselves go with it, by a trigger of the schema.
pub(super) fn remove(db: &Connection, provider: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM provider_limits WHERE provider = ?1", [provider]).map(drop)
}
