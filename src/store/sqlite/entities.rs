//! Virtual keys as rows. A key is written as a whole: what it no longer has is deleted.

use super::damaged;
use crate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use crate::governance::money::Nanos;
use crate::governance::secret::Secret;
use crate::governance::time::{Span, Timestamp, Window};
use crate::governance::view::Digest;
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::sync::Arc;

/// Whose limits: the kind of owner and its id, as they stand in the tables.
type Owner = (String, String);

const VIRTUAL_KEY: &str = "virtual_key";
const PROVIDER_CONFIG: &str = "provider_config";

/// Every virtual key with the digest of its value, oldest first.
pub(super) fn load(db: &Connection) -> Result<Vec<(Digest, VirtualKey)>, StoreError> {
    let mut budgets = budgets(db)?;
    let mut rate_limits = rate_limits(db)?;
    let mut configs = provider_configs(db, &mut budgets, &mut rate_limits)?;
    let mut rows = db.prepare("SELECT * FROM virtual_keys ORDER BY created_at, id")?;
    let mut rows = rows.query(())?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let id: Arc<str> = row.get("id")?;
        let owner = (VIRTUAL_KEY.to_owned(), id.to_string());
        let key = VirtualKey {
            name: row.get("name")?,
            description: row.get("description")?,
            is_active: row.get("is_active")?,
            team_id: None,
            customer_id: None,
            limits: limits_of(&owner, &mut budgets, &mut rate_limits),
            provider_configs: configs.remove(&*id).unwrap_or_default(),
            mcp_configs: row.get("mcp_configs")?,
            config_hash: row.get("config_hash")?,
            created_at: instant(row, "created_at")?,
            updated_at: instant(row, "updated_at")?,
            id,
        };
        keys.push((row.get("digest")?, key));
    }
    Ok(keys)
}

/// The value of a virtual key, unsealed.
pub(super) fn value(db: &Connection, sealer: &Sealer, id: &str) -> Result<Option<Secret>, StoreError> {
    let mut find = db.prepare_cached("SELECT sealed FROM virtual_keys WHERE id = ?1")?;
    let sealed: Option<Vec<u8>> = find.query_row([id], |row| row.get(0)).optional()?;
    sealed
        .map(|sealed| sealer.open(&context(id), &sealed).map_err(|e| damaged("virtual key", id).because(e)))
        .transpose()
}

pub(super) fn insert(
    db: &Connection,
    sealer: &Sealer,
    key: &mut VirtualKey,
    value: &Secret,
) -> Result<Digest, StoreError> {
    let digest = sealer.hasher().digest(value.expose().as_bytes());
    if exists(db, "SELECT 1 FROM virtual_keys WHERE id = ?1", &key.id)? {
        return Err(StoreError::new(StoreErrorKind::IdTaken, format!("virtual key id '{}' is taken", key.id)));
    }
    refuse_taken_name(db, key)?;
    refuse_taken_value(db, &key.id, &digest)?;
    db.execute(
        "INSERT INTO virtual_keys
            (id, name, description, digest, sealed, is_active, mcp_configs, config_hash, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            key.id,
            key.name,
            key.description,
            digest,
            sealer.seal(&context(&key.id), value)?,
            key.is_active,
            key.mcp_configs,
            key.config_hash,
            key.created_at.millis(),
            key.updated_at.millis(),
        ],
    )?;
    save_parts(db, key)?;
    Ok(digest)
}

pub(super) fn update(db: &Connection, key: &mut VirtualKey) -> Result<(), StoreError> {
    refuse_taken_name(db, key)?;
    let changed = db.execute(
        "UPDATE virtual_keys SET name = ?2, description = ?3, is_active = ?4, mcp_configs = ?5, config_hash = ?6,
            updated_at = ?7 WHERE id = ?1",
        params![
            key.id,
            key.name,
            key.description,
            key.is_active,
            key.mcp_configs,
            key.config_hash,
            key.updated_at.millis()
        ],
    )?;
    if changed == 0 {
        return Err(StoreError::new(StoreErrorKind::NotFound, format!("there is no virtual key '{}'", key.id)));
    }
    save_parts(db, key)
}

/// Gives a virtual key another value.
pub(super) fn set_value(db: &Connection, sealer: &Sealer, id: &str, value: &Secret) -> Result<Digest, StoreError> {
    let digest = sealer.hasher().digest(value.expose().as_bytes());
    refuse_taken_value(db, id, &digest)?;
    let sealed = sealer.seal(&context(id), value)?;
    db.execute("UPDATE virtual_keys SET digest = ?2, sealed = ?3 WHERE id = ?1", params![id, digest, sealed])?;
    Ok(digest)
}

/// Everything that belongs to the key goes with it, by triggers of the schema.
pub(super) fn delete(db: &Connection, id: &str) -> Result<bool, StoreError> {
    Ok(db.execute("DELETE FROM virtual_keys WHERE id = ?1", [id])? > 0)
}

/// What a sealed value is bound to.
fn context(id: &str) -> String {
    format!("virtual_key:{id}")
}

fn refuse_taken_name(db: &Connection, key: &VirtualKey) -> Result<(), StoreError> {
    let mut other = db.prepare_cached("SELECT 1 FROM virtual_keys WHERE name = ?1 AND id <> ?2")?;
    if other.exists(params![key.name, key.id])? {
        let what = format!("a virtual key named '{}' exists already", key.name);
        return Err(StoreError::new(StoreErrorKind::NameTaken, what));
    }
    Ok(())
}

fn refuse_taken_value(db: &Connection, id: &str, digest: &Digest) -> Result<(), StoreError> {
    let mut other = db.prepare_cached("SELECT 1 FROM virtual_keys WHERE digest = ?1 AND id <> ?2")?;
    if other.exists(params![digest, id])? {
        return Err(StoreError::new(StoreErrorKind::ValueTaken, "another virtual key has this value"));
    }
    Ok(())
}

fn exists(db: &Connection, sql: &str, id: &str) -> Result<bool, StoreError> {
    Ok(db.prepare_cached(sql)?.exists([id])?)
}

/// Makes the rows under a key what the key says, and gives new provider configs their ids.
fn save_parts(db: &Connection, key: &mut VirtualKey) -> Result<(), StoreError> {
    save_budgets(db, VIRTUAL_KEY, &key.id, &key.limits.budgets)?;
    save_rate_limit(db, VIRTUAL_KEY, &key.id, key.limits.rate_limit.as_ref())?;
    let kept: Vec<i64> = key.provider_configs.iter().map(|config| config.id).collect();
    db.execute(
        "DELETE FROM provider_configs WHERE virtual_key_id = ?1 AND id NOT IN (SELECT value FROM json_each(?2))",
        params![key.id, json(&kept)],
    )?;
    // Out of each other's way, should two of them change places.
    db.execute("UPDATE provider_configs SET provider = ':' || id WHERE virtual_key_id = ?1", [&*key.id])?;
    for config in &mut key.provider_configs {
        save_provider_config(db, &key.id, config)?;
        let owner = config.id.to_string();
        save_budgets(db, PROVIDER_CONFIG, &owner, &config.limits.budgets)?;
        save_rate_limit(db, PROVIDER_CONFIG, &owner, config.limits.rate_limit.as_ref())?;
    }
    Ok(())
}

fn save_provider_config(db: &Connection, key: &str, config: &mut ProviderConfig) -> Result<(), StoreError> {
    let weight = config.weight.map(|weight| i64::try_from(weight.millionths()).unwrap_or(i64::MAX));
    let key_ids = match &config.key_ids {
        KeySet::All => json(&["*"]),
        KeySet::Only(ids) => json(ids),
    };
    let (allowed, blacklisted) = (json(&config.allowed_models.names()), json(&config.blacklisted_models.names()));
    let fields = params![key, config.provider, weight, allowed, blacklisted, key_ids];
    if config.id == 0 {
        let mut insert = db.prepare_cached(
            "INSERT INTO provider_configs (virtual_key_id, provider, weight, allowed_models, blacklisted_models, key_ids)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        config.id = insert.insert(fields)?;
        return Ok(());
    }
    let mut update = db.prepare_cached(
        "UPDATE provider_configs
         SET provider = ?2, weight = ?3, allowed_models = ?4, blacklisted_models = ?5, key_ids = ?6
         WHERE virtual_key_id = ?1 AND id = ?7",
    )?;
    let id = config.id;
    let changed = update.execute(params![key, config.provider, weight, allowed, blacklisted, key_ids, id])?;
    if changed == 0 {
        return Err(StoreError::new(StoreErrorKind::NotFound, format!("the key has no provider config {id}")));
    }
    Ok(())
}

fn save_budgets(db: &Connection, owner_type: &str, owner_id: &str, budgets: &[Budget]) -> Result<(), StoreError> {
    let kept: Vec<&str> = budgets.iter().map(|budget| &*budget.id).collect();
    db.execute(
        "DELETE FROM budgets WHERE owner_type = ?1 AND owner_id = ?2 AND id NOT IN (SELECT value FROM json_each(?3))",
        params![owner_type, owner_id, json(&kept)],
    )?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO budgets
            (id, owner_type, owner_id, max_nanos, reset_duration, calendar_aligned, anchor, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (id) DO UPDATE SET max_nanos = ?4, reset_duration = ?5, calendar_aligned = ?6, anchor = ?7,
            updated_at = ?9 WHERE owner_type = ?2 AND owner_id = ?3",
    )?;
    for budget in budgets {
        let changed = upsert.execute(params![
            budget.id,
            owner_type,
            owner_id,
            budget.max.get(),
            budget.window.span().text(),
            budget.window.is_aligned(),
            budget.anchor.millis(),
            budget.created_at.millis(),
            budget.updated_at.millis(),
        ])?;
        taken_unless(changed, "budget", &budget.id)?;
    }
    Ok(())
}

fn save_rate_limit(
    db: &Connection,
    owner_type: &str,
    owner_id: &str,
    limit: Option<&RateLimit>,
) -> Result<(), StoreError> {
    let kept = limit.map_or("", |limit| &limit.id);
    db.execute(
        "DELETE FROM rate_limits WHERE owner_type = ?1 AND owner_id = ?2 AND id <> ?3",
        params![owner_type, owner_id, kept],
    )?;
    let Some(limit) = limit else { return Ok(()) };
    let half = |quota: &Option<Quota>| match quota {
        Some(quota) => (Some(quota.max), Some(quota.window.span().text().to_owned()), Some(quota.anchor.millis())),
        None => (None, None, None),
    };
    let (tokens, requests) = (half(&limit.tokens), half(&limit.requests));
    let mut upsert = db.prepare_cached(
        "INSERT INTO rate_limits
            (id, owner_type, owner_id, tokens_max, tokens_reset, tokens_anchor, requests_max, requests_reset,
             requests_anchor, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET tokens_max = ?4, tokens_reset = ?5, tokens_anchor = ?6, requests_max = ?7,
            requests_reset = ?8, requests_anchor = ?9, updated_at = ?11 WHERE owner_type = ?2 AND owner_id = ?3",
    )?;
    let changed = upsert.execute(params![
        limit.id,
        owner_type,
        owner_id,
        tokens.0,
        tokens.1,
        tokens.2,
        requests.0,
        requests.1,
        requests.2,
        limit.created_at.millis(),
        limit.updated_at.millis(),
    ])?;
    taken_unless(changed, "rate limit", &limit.id)
}

/// An id that the file gives may belong to somebody else's limit already.
fn taken_unless(changed: usize, what: &str, id: &str) -> Result<(), StoreError> {
    if changed > 0 {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::IdTaken, format!("{what} id '{id}' belongs to another object")))
}

fn provider_configs(
    db: &Connection,
    budgets: &mut HashMap<Owner, Vec<Budget>>,
    rate_limits: &mut HashMap<Owner, RateLimit>,
) -> Result<HashMap<String, Vec<ProviderConfig>>, StoreError> {
    let mut configs: HashMap<String, Vec<ProviderConfig>> = HashMap::new();
    let mut rows = db.prepare("SELECT * FROM provider_configs ORDER BY id")?;
    let mut rows = rows.query(())?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get("id")?;
        let owner = (PROVIDER_CONFIG.to_owned(), id.to_string());
        let key_ids = names(row, "key_ids", &owner.1)?;
        let weight: Option<i64> = row.get("weight")?;
        let config = ProviderConfig {
            id,
            provider: row.get("provider")?,
            weight: weight.map(|weight| Weight::from_millionths(u64::try_from(weight).unwrap_or(0))),
            allowed_models: ModelSet::from_names(names(row, "allowed_models", &owner.1)?),
            blacklisted_models: ModelSet::from_names(names(row, "blacklisted_models", &owner.1)?),
            key_ids: if key_ids == ["*"] { KeySet::All } else { KeySet::Only(key_ids) },
            limits: limits_of(&owner, budgets, rate_limits),
        };
        configs.entry(row.get("virtual_key_id")?).or_default().push(config);
    }
    Ok(configs)
}

fn limits_of(
    owner: &Owner,
    budgets: &mut HashMap<Owner, Vec<Budget>>,
    rate_limits: &mut HashMap<Owner, RateLimit>,
) -> Limits {
    Limits { budgets: budgets.remove(owner).unwrap_or_default(), rate_limit: rate_limits.remove(owner) }
}

fn budgets(db: &Connection) -> Result<HashMap<Owner, Vec<Budget>>, StoreError> {
    let mut budgets: HashMap<Owner, Vec<Budget>> = HashMap::new();
    let mut rows = db.prepare("SELECT * FROM budgets ORDER BY created_at, id")?;
    let mut rows = rows.query(())?;
    while let Some(row) = rows.next()? {
        let id: Arc<str> = row.get("id")?;
        let window = window(row.get("reset_duration")?, row.get("calendar_aligned")?);
        let budget = Budget {
            max: Nanos::new(row.get("max_nanos")?),
            window: window.ok_or_else(|| damaged("budget", &id))?,
            anchor: instant(row, "anchor")?,
            created_at: instant(row, "created_at")?,
            updated_at: instant(row, "updated_at")?,
            id,
        };
        budgets.entry((row.get("owner_type")?, row.get("owner_id")?)).or_default().push(budget);
    }
    // Shortest window first: that is also the one shown as *the* budget.
    budgets.values_mut().for_each(|list| list.sort_by_key(|budget| budget.window.span().millis()));
    Ok(budgets)
}

fn rate_limits(db: &Connection) -> Result<HashMap<Owner, RateLimit>, StoreError> {
    let mut limits = HashMap::new();
    let mut rows = db.prepare("SELECT * FROM rate_limits")?;
    let mut rows = rows.query(())?;
    while let Some(row) = rows.next()? {
        let id: Arc<str> = row.get("id")?;
        let half = |max, reset, anchor| -> Result<Option<Quota>, StoreError> {
            let Some(max) = row.get(max)? else { return Ok(None) };
            let (reset, anchor): (Option<String>, Option<i64>) = (row.get(reset)?, row.get(anchor)?);
            let window = reset.and_then(|reset| window(reset, false)).ok_or_else(|| damaged("rate limit", &id))?;
            Ok(Some(Quota { max, window, anchor: Timestamp::from_millis(anchor.unwrap_or(0)) }))
        };
        let limit = RateLimit {
            tokens: half("tokens_max", "tokens_reset", "tokens_anchor")?,
            requests: half("requests_max", "requests_reset", "requests_anchor")?,
            created_at: instant(row, "created_at")?,
            updated_at: instant(row, "updated_at")?,
            id: Arc::clone(&id),
        };
        limits.insert((row.get("owner_type")?, row.get("owner_id")?), limit);
    }
    Ok(limits)
}

fn window(reset: String, aligned: bool) -> Option<Window> {
    let span = Span::parse(&reset).ok()?;
    if aligned { Window::aligned(span).ok() } else { Some(Window::rolling(span)) }
}

fn instant(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn names(row: &Row<'_>, column: &str, id: &str) -> Result<Vec<String>, StoreError> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|e| damaged("provider config", id).because(e))
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("a list of texts or numbers is always JSON")
}
