//! Providers and their keys as rows: JSON without secrets, and the secrets sealed beside it.

use super::row::{damaged, each, execute, exists};
use crate::governance::edit::Edit;
use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::secret::Secret;
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use crate::wire::stored_provider::{self, Secrets};
use rusqlite::{Connection, Row, params};
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) fn load(
    db: &Connection,
    sealer: &Sealer,
    edits: &mut Vec<Edit>,
    warnings: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut keys = keys(db, sealer)?;
    each(db, "SELECT name, body, sealed FROM providers", |row| {
        let name: Arc<str> = row.get(0)?;
        let (body, secrets) = parts(row, sealer, "provider", &name)?;
        let mut provider = stored_provider::provider(&name, &body, &secrets)
            .map_err(|fault| damaged("provider", &name).because(fault))?;
        provider.keys = keys.remove(&*name).unwrap_or_default();
        edits.push(Edit::Provider(Arc::new(provider)));
        Ok(())
    })
}

/// The keys of all providers, by the provider's name.
fn keys(db: &Connection, sealer: &Sealer) -> Result<HashMap<String, Vec<Arc<ProviderKey>>>, StoreError> {
    let mut keys: HashMap<String, Vec<Arc<ProviderKey>>> = HashMap::new();
    each(db, "SELECT id, body, sealed, provider FROM provider_keys ORDER BY provider, position", |row| {
        let id: Arc<str> = row.get(0)?;
        let (body, secrets) = parts(row, sealer, "provider_key", &id)?;
        let key =
            stored_provider::key(&id, &body, &secrets).map_err(|fault| damaged("provider key", &id).because(fault))?;
        keys.entry(row.get(3)?).or_default().push(Arc::new(key));
        Ok(())
    })?;
    Ok(keys)
}
