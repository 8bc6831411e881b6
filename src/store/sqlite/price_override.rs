//! Pricing overrides as rows.

use super::row::{damaged, each, execute, instant, json};
use crate::governance::edit::Edit;
use crate::governance::entity::{ModelPattern, OverrideScope, PRICE_FIELDS, PricingOverride};
use crate::governance::money::Rate;
use crate::governance::request::RequestKind;
use crate::store::StoreError;
use rusqlite::{Connection, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) fn load(db: &Connection, edits: &mut Vec<Edit>) -> Result<(), StoreError> {
    each(db, "SELECT * FROM pricing_overrides", |row| {
        let id: Arc<str> = row.get("id")?;
        let over = PricingOverride {
            name: row.get("name")?,
            scope: scope(row)?.ok_or_else(|| damaged("pricing override", &id))?,
            pattern: match row.get_ref("match_type")?.as_str() {
                Ok("exact") => ModelPattern::Exact(row.get("pattern")?),
                Ok("prefix") => ModelPattern::Prefix(row.get("pattern")?),
                _ => return Err(damaged("pricing override", &id)),
            },
            request_kinds: request_kinds(row)?.ok_or_else(|| damaged("pricing override", &id))?,
            patch: patch(row)?.ok_or_else(|| damaged("pricing override", &id))?,
            config_hash: row.get("config_hash")?,
            created_at: instant(row, "created_at")?,
            updated_at: instant(row, "updated_at")?,
            id,
        };
        edits.push(Edit::PricingOverride(Arc::new(over)));
        Ok(())
    })
}

fn scope(row: &Row<'_>) -> Result<Option<OverrideScope>, StoreError> {
    let name: String = row.get("scope")?;
    let names: [Option<Arc<str>>; 3] = [row.get("virtual_key")?, row.get("provider")?, row.get("provider_key")?];
    Ok(Some(match (&*name, names) {
        ("global", _) => OverrideScope::Global,
        ("provider", [_, Some(provider), _]) => OverrideScope::Provider { provider },
        ("provider_key", [_, _, Some(key)]) => OverrideScope::ProviderKey { key },
        ("virtual_key", [Some(virtual_key), _, _]) => OverrideScope::VirtualKey { virtual_key },
        ("virtual_key_provider", [Some(virtual_key), Some(provider), _]) => {
            OverrideScope::VirtualKeyProvider { virtual_key, provider }
        }
        ("virtual_key_provider_key", [Some(virtual_key), provider, Some(key)]) => {
            OverrideScope::VirtualKeyProviderKey { virtual_key, provider, key }
        }
        _ => return Ok(None),
    }))
}

fn request_kinds(row: &Row<'_>) -> Result<Option<BTreeSet<RequestKind>>, StoreError> {
    let text: String = row.get("request_kinds")?;
    let names: Option<Vec<String>> = serde_json::from_str(&text).ok();
    Ok(names.and_then(|names| names.iter().map(|name| RequestKind::from_name(name)).collect()))
}

fn patch(row: &Row<'_>) -> Result<Option<BTreeMap<&'static str, Rate>>, StoreError> {
    let text: String = row.get("patch")?;
    let prices: Option<BTreeMap<String, u64>> = serde_json::from_str(&text).ok();
    let known = |name: &str| PRICE_FIELDS.iter().find(|field| **field == name).copied();
    let price = |(name, rate): (String, u64)| Some((known(&name)?, Rate::new(rate)));
    Ok(prices.and_then(|prices| prices.into_iter().map(price).collect()))
}

pub(super) fn save(db: &Connection, over: &PricingOverride) -> Result<(), StoreError> {
    let PricingOverride { id, name, scope, pattern, request_kinds, patch, config_hash, created_at, updated_at } = over;
    let (match_type, pattern) = match pattern {
        ModelPattern::Exact(name) => ("exact", name),
        ModelPattern::Prefix(head) => ("prefix", head),
    };
    let kinds: Vec<&str> = request_kinds.iter().map(|kind| kind.as_str()).collect();
    let patch: BTreeMap<&str, u64> = patch.iter().map(|(name, rate)| (*name, rate.get())).collect();
    execute(
        db,
        "INSERT INTO pricing_overrides
            (id, name, scope, virtual_key, provider, provider_key, match_type, pattern, request_kinds, patch, config_hash,
             created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (id) DO UPDATE SET name = ?2, scope = ?3, virtual_key = ?4, provider = ?5, provider_key = ?6,
            match_type = ?7, pattern = ?8, request_kinds = ?9, patch = ?10, config_hash = ?11, created_at = ?12,
            updated_at = ?13",
        params![
            id,
            name,
            scope.name(),
            scope.virtual_key(),
            scope.provider(),
            scope.provider_key(),
            match_type,
            pattern,
            json(&kinds),
            json(&patch),
            config_hash,
            created_at.millis(),
            updated_at.millis(),
        ],
    )
    .map(drop)
}

pub(super) fn remove(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM pricing_overrides WHERE id = ?1", [id]).map(drop)
}
