//! Virtual keys as rows. A key is written as a whole: what it no longer has is deleted.

use super::limits::{self, Owner, OwnerKind, StoredLimits};
use super::row::{Texts, damaged, each, execute, exists, find, instant, json};
use crate::governance::edit::Edit;
use crate::governance::entity::{KeySet, ModelSet, ProviderConfig, VirtualKey, Weight};
use crate::governance::secret::Secret;
use crate::governance::view::Digest;
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, Row, params};
use std::collections::HashMap;
use std::sync::Arc;

const KEYS: &str = "SELECT id, name, description, digest, is_active, team_id, customer_id, mcp_configs, config_hash,
    created_at, updated_at FROM virtual_keys";

pub(super) fn load(db: &Connection, limits: &mut StoredLimits, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    let mut texts = Texts::default();
    let mut configs = provider_configs(db, limits, &mut texts)?;
    let mut owner = |row: &Row<'_>, column: usize| -> Result<Option<Arc<str>>, StoreError> {
        let id: Option<String> = row.get(column)?;
        Ok(id.map(|id| texts.share(&id)))
    };
    each(db, KEYS, |row| {
        let id: Arc<str> = row.get(0)?;
        let key = VirtualKey {
            name: row.get(1)?,
            description: row.get(2)?,
            is_active: row.get(4)?,
            team_id: owner(row, 5)?,
            customer_id: owner(row, 6)?,
            limits: limits.take(&Owner::new(OwnerKind::VirtualKey, &id)),
            provider_configs: configs.remove(&*id).unwrap_or_default(),
            mcp_configs: row.get(7)?,
            config_hash: row.get(8)?,
            created_at: instant(row, 9)?,
            updated_at: instant(row, 10)?,
            id,
        };
        edits.push(Edit::VirtualKey { key: Arc::new(key), digest: row.get(3)?, value: None });
        Ok(())
    })
}

const CONFIGS: &str =
    "SELECT id, virtual_key_id, provider, weight, allowed_models, blacklisted_models, key_ids, position
    FROM provider_configs";

/// The provider configs of all keys, by the key's id.
fn provider_configs(
    db: &Connection,
    limits: &mut StoredLimits,
    texts: &mut Texts,
) -> Result<HashMap<String, Vec<ProviderConfig>>, StoreError> {
    let mut configs: HashMap<String, Vec<ProviderConfig>> = HashMap::new();
    // Each key's few are put in order here: in the query, all rows would be sorted. Mostly they are first.
    let mut positions: HashMap<i64, i64> = HashMap::new();
    each(db, CONFIGS, |row| {
        let id: i64 = row.get(0)?;
        let unreadable = || damaged("provider config", &id.to_string());
        let weight: Option<i64> = row.get(3)?;
        let weight = weight.map(|weight| u64::try_from(weight).map_err(|_| unreadable())).transpose()?;
        let key_ids = names(row, 6)?.ok_or_else(unreadable)?;
        let config = ProviderConfig {
            id,
            provider: texts.share(&row.get::<_, String>(2)?),
            weight: weight.map(Weight::from_millionths),
            allowed_models: ModelSet::from_names(names(row, 4)?.ok_or_else(unreadable)?),
            blacklisted_models: ModelSet::from_names(names(row, 5)?.ok_or_else(unreadable)?),
            key_ids: if key_ids == ["*"] { KeySet::All } else { KeySet::Only(key_ids) },
            limits: limits.take(&Owner::config(id)),
        };
        configs.entry(row.get(1)?).or_default().push(config);
        let position = row.get(7)?;
        if position > 0 {
            positions.insert(id, position);
        }
        Ok(())
    })?;
    let position = |config: &ProviderConfig| (positions.get(&config.id).copied().unwrap_or(0), config.id);
    for configs in configs.values_mut() {
        configs.sort_by_key(position);
        configs.shrink_to_fit();
    }
    Ok(configs)
}

/// A JSON array of text. Absent if it is none.
fn names(row: &Row<'_>, column: usize) -> Result<Option<Vec<String>>, StoreError> {
    let text = row.get_ref(column)?.as_str().ok();
    Ok(text.and_then(|text| serde_json::from_str(text).ok()))
}

/// The highest id that a provider config ever got.
pub(super) fn highest_config_id(db: &Connection) -> Result<i64, StoreError> {
    let given: Option<i64> = find(db, "SELECT seq FROM sqlite_sequence WHERE name = 'provider_configs'", ())?;
    let there: Option<Option<i64>> = find(db, "SELECT max(id) FROM provider_configs", ())?;
    Ok(given.into_iter().chain(there.flatten()).max().unwrap_or(0))
}

/// The key's value, unsealed.
pub(super) fn value(db: &Connection, sealer: &Sealer, id: &str) -> Result<Option<Secret>, StoreError> {
    let sealed: Option<Vec<u8>> = find(db, "SELECT sealed FROM virtual_keys WHERE id = ?1", [id])?;
    sealed
        .map(|sealed| sealer.open(&context(id), &sealed).map_err(|e| damaged("virtual key", id).because(e)))
        .transpose()
}

/// Gives up name and value if the key gets others, so that another one may have them.
pub(super) fn make_room(db: &Connection, key: &VirtualKey, new: Option<&Digest>) -> Result<(), StoreError> {
    execute(
        db,
        "UPDATE virtual_keys SET name = 'changing:' || hex(randomblob(16)) WHERE id = ?1 AND name <> ?2",
        params![key.id, key.name],
    )?;
    if let Some(digest) = new {
        let sql = "UPDATE virtual_keys SET digest = randomblob(32) WHERE id = ?1 AND digest <> ?2";
        execute(db, sql, params![key.id, digest])?;
    }
    Ok(())
}

/// Writes a key; one that is not there yet needs its value.
pub(super) fn save(
    db: &Connection,
    sealer: &Sealer,
    key: &VirtualKey,
    value: Option<(&Digest, &Secret)>,
) -> Result<(), StoreError> {
    let VirtualKey { id, name, description, is_active, team_id, customer_id, .. } = key;
    let VirtualKey { limits, provider_configs, mcp_configs, config_hash, created_at, updated_at, .. } = key;
    if exists(db, "SELECT 1 FROM virtual_keys WHERE name = ?1 AND id <> ?2", params![name, id])? {
        return Err(StoreError::new(StoreErrorKind::NameTaken, format!("virtual key name '{name}' is taken")));
    }
    if let Some((digest, value)) = value {
        set_value(db, sealer, key, digest, value)?;
    }
    let changed = execute(
        db,
        "UPDATE virtual_keys SET name = ?2, description = ?3, is_active = ?4, team_id = ?5, customer_id = ?6,
            mcp_configs = ?7, config_hash = ?8, created_at = ?9, updated_at = ?10 WHERE id = ?1",
        params![
            id,
            name,
            description,
            is_active,
            team_id,
            customer_id,
            mcp_configs,
            config_hash,
            created_at.millis(),
            updated_at.millis(),
        ],
    )?;
    if changed == 0 {
        return Err(StoreError::new(StoreErrorKind::NotFound, format!("there is no virtual key '{id}'")));
    }
    limits::save(db, &Owner::new(OwnerKind::VirtualKey, id), limits)?;
    save_provider_configs(db, id, provider_configs)
}

/// Gives a key its value, and its row if it is new; everything else in it is written after this.
fn set_value(
    db: &Connection,
    sealer: &Sealer,
    key: &VirtualKey,
    digest: &Digest,
    value: &Secret,
) -> Result<(), StoreError> {
    if exists(db, "SELECT 1 FROM virtual_keys WHERE digest = ?1 AND id <> ?2", params![digest, key.id])? {
        return Err(StoreError::new(StoreErrorKind::ValueTaken, "another virtual key has this value"));
    }
    execute(
        db,
        "INSERT INTO virtual_keys
            (id, name, description, digest, sealed, is_active, mcp_configs, config_hash, created_at, updated_at)
         VALUES (?1, ?2, '', ?3, ?4, 0, '', '', 0, 0)
         ON CONFLICT (id) DO UPDATE SET digest = ?3, sealed = ?4",
        params![key.id, key.name, digest, sealer.seal(&context(&key.id), value)?],
    )
    .map(drop)
}

/// Everything that belongs to the key goes with it, by triggers of the schema.
pub(super) fn remove(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM virtual_keys WHERE id = ?1", [id]).map(drop)
}

fn save_provider_configs(db: &Connection, key: &str, configs: &[ProviderConfig]) -> Result<(), StoreError> {
    let kept: Vec<i64> = configs.iter().map(|config| config.id).collect();
    execute(
        db,
        "DELETE FROM provider_configs WHERE virtual_key_id = ?1 AND id NOT IN (SELECT value FROM json_each(?2))",
        params![key, json(&kept)],
    )?;
    // Out of each other's way, should two of them change places.
    execute(db, "UPDATE provider_configs SET provider = ':' || id WHERE virtual_key_id = ?1", [key])?;
    for (position, config) in configs.iter().enumerate() {
        save_provider_config(db, key, position, config)?;
        limits::save(db, &Owner::config(config.id), &config.limits)?;
    }
    Ok(())
}

fn save_provider_config(
    db: &Connection,
    key: &str,
    position: usize,
    config: &ProviderConfig,
) -> Result<(), StoreError> {
    let ProviderConfig { id, provider, weight, allowed_models, blacklisted_models, key_ids, limits: _ } = config;
    debug_assert!(*id > 0, "a provider config gets its id before it is stored");
    let key_ids = match key_ids {
        KeySet::All => json(&["*"]),
        KeySet::Only(ids) => json(ids),
    };
    let changed = execute(
        db,
        "INSERT INTO provider_configs
            (id, virtual_key_id, provider, weight, allowed_models, blacklisted_models, key_ids, position)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET provider = ?3, weight = ?4, allowed_models = ?5, blacklisted_models = ?6,
            key_ids = ?7, position = ?8 WHERE virtual_key_id = ?2",
        params![
            id,
            key,
            provider,
            weight.map(|weight| i64::try_from(weight.millionths()).unwrap_or(i64::MAX)),
            json(&allowed_models.names()),
            json(&blacklisted_models.names()),
            key_ids,
            i64::try_from(position).unwrap_or(i64::MAX),
        ],
    )?;
    if changed == 0 {
        let what = format!("provider config id {id} belongs to another virtual key");
        return Err(StoreError::new(StoreErrorKind::IdTaken, what));
    }
    Ok(())
}

/// What a sealed value is bound to.
fn context(id: &str) -> String {
    format!("virtual_key:{id}")
}
