//! Providers and their keys as rows: JSON without secrets, and the secrets sealed beside it.

use super::row::{damaged, each, execute, exists};
use crate::governance::edit::Edit;
use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::secret::Secret;
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use crate::wire::stored_provider::{self, Secrets};
use rusqlite::{Connection, Row, params};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const PROVIDER: &str = "provider";
const KEY: &str = "provider key";

/// What keys take from the environment is looked up now. A key that lacks it is loaded all the same, and
/// serves nothing.
pub(super) fn load(
    db: &Connection,
    sealer: &Sealer,
    edits: &mut Vec<Edit>,
    warnings: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut keys = keys(db, sealer, warnings)?;
    each(db, "SELECT name, body, sealed FROM providers", |row| {
        let name: String = row.get(0)?;
        let (body, secrets) = parts(row, sealer, PROVIDER, &name)?;
        let read = stored_provider::load_provider(&body, &secrets);
        let mut provider = read.map_err(|error| damaged(PROVIDER, &name).because(error))?;
        provider.keys = keys.remove(&name).unwrap_or_default();
        edits.push(Edit::Provider(Arc::new(provider)));
        Ok(())
    })
}

/// The keys of all providers, by the provider's name.
fn keys(
    db: &Connection,
    sealer: &Sealer,
    warnings: &mut Vec<String>,
) -> Result<HashMap<String, Vec<Arc<ProviderKey>>>, StoreError> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut keys: HashMap<String, Vec<Arc<ProviderKey>>> = HashMap::new();
    each(db, "SELECT id, body, sealed, provider FROM provider_keys ORDER BY provider, position", |row| {
        let (id, provider): (String, String) = (row.get(0)?, row.get(3)?);
        let (body, secrets) = parts(row, sealer, KEY, &id)?;
        let read = stored_provider::load_key(&body, &secrets, &variable);
        let key = read.map_err(|error| damaged(KEY, &id).because(error))?;
        warnings.extend(key.missing_variables().map(|variable| {
            format!("key '{}' of {provider} is not used: the environment variable {variable} is not set", key.name)
        }));
        keys.entry(provider).or_default().push(Arc::new(key));
        Ok(())
    })?;
    Ok(keys)
}

/// What stands in the second and third column, unsealed.
fn parts(row: &Row<'_>, sealer: &Sealer, kind: &str, id: &str) -> Result<(Value, Secrets), StoreError> {
    let (body, sealed): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
    let body = serde_json::from_str(&body).map_err(|error| damaged(kind, id).because(error))?;
    let text = sealer.open(&context(kind, id), &sealed).map_err(|error| damaged(kind, id).because(error))?;
    // What is wrong with this text is not told: it is all secrets.
    let secrets: Vec<(String, String)> = serde_json::from_str(text.expose()).map_err(|_| damaged(kind, id))?;
    Ok((body, secrets.into_iter().map(|(place, text)| (place, Secret::new(text))).collect()))
}

/// Writes a provider with its keys. Its former keys were removed before, so that keys of one change may
/// exchange their names.
pub(super) fn save(db: &Connection, sealer: &Sealer, provider: &Provider) -> Result<(), StoreError> {
    let (body, secrets) = stored_provider::store_provider(provider);
    execute(
        db,
        "INSERT INTO providers (name, body, sealed) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET body = ?2, sealed = ?3",
        params![provider.name, body.to_string(), seal(sealer, PROVIDER, &provider.name, &secrets)?],
    )?;
    for (position, key) in provider.keys.iter().enumerate() {
        insert_key(db, sealer, &provider.name, position, key)?;
    }
    Ok(())
}

fn insert_key(
    db: &Connection,
    sealer: &Sealer,
    provider: &str,
    position: usize,
    key: &ProviderKey,
) -> Result<(), StoreError> {
    if exists(db, "SELECT 1 FROM provider_keys WHERE name = ?1", [&key.name])? {
        return Err(StoreError::new(StoreErrorKind::NameTaken, format!("provider key name '{}' is taken", key.name)));
    }
    if exists(db, "SELECT 1 FROM provider_keys WHERE id = ?1", [&key.id])? {
        return Err(StoreError::new(StoreErrorKind::IdTaken, format!("provider key id '{}' is taken", key.id)));
    }
    let (body, secrets) = stored_provider::store_key(key);
    execute(
        db,
        "INSERT INTO provider_keys (id, provider, name, position, body, sealed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            key.id,
            provider,
            key.name,
            i64::try_from(position).unwrap_or(i64::MAX),
            body.to_string(),
            seal(sealer, KEY, &key.id, &secrets)?,
        ],
    )
    .map(drop)
}

/// Its keys and its limits go with it.
pub(super) fn remove(db: &Connection, name: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM providers WHERE name = ?1", [name]).map(drop)
}

pub(super) fn remove_keys(db: &Connection, name: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM provider_keys WHERE provider = ?1", [name]).map(drop)
}

fn seal(sealer: &Sealer, kind: &str, id: &str, secrets: &[(String, Secret)]) -> Result<Vec<u8>, StoreError> {
    let texts: Vec<(&str, &str)> = secrets.iter().map(|(place, secret)| (&**place, secret.expose())).collect();
    let text = serde_json::to_string(&texts).expect("a list of texts is always JSON");
    Ok(sealer.seal(&context(kind, id), &Secret::new(text))?)
}

/// What the sealed secrets are bound to.
fn context(kind: &str, id: &str) -> String {
    format!("{kind}:{id}")
}
