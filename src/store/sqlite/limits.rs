//! Budgets and rate limits as rows. They are written with their owner as a whole: what it no longer has
//! is deleted, with its balances, by triggers of the schema.

use super::row::{Windows, damaged, each, execute, instant, json};
use crate::governance::entity::{Budget, Limits, Quota, RateLimit};
use crate::governance::money::Nanos;
use crate::governance::time::Timestamp;
use crate::store::StoreError;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// What kind of object a limit belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OwnerKind {
    Customer,
    Team,
    VirtualKey,
    ProviderConfig,
    ModelConfig,
    Provider,
}

/// Whose limits: as the tables have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner<'a> {
    pub(super) kind: OwnerKind,
    pub(super) id: Cow<'a, str>,
}

/// Where a limit is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Budgets,
    RateLimits,
}

impl OwnerKind {
    const ALL: [OwnerKind; 6] = [
        OwnerKind::Customer,
        OwnerKind::Team,
        OwnerKind::VirtualKey,
        OwnerKind::ProviderConfig,
        OwnerKind::ModelConfig,
        OwnerKind::Provider,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            OwnerKind::Customer => "customer",
            OwnerKind::Team => "team",
            OwnerKind::VirtualKey => "virtual_key",
            OwnerKind::ProviderConfig => "provider_config",
            OwnerKind::ModelConfig => "model_config",
            OwnerKind::Provider => "provider",
        }
    }

    fn from_name(name: &str) -> Option<OwnerKind> {
        OwnerKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl<'a> Owner<'a> {
    pub(super) fn new(kind: OwnerKind, id: &'a str) -> Owner<'a> {
        Owner { kind, id: Cow::Borrowed(id) }
    }

    /// A virtual key's provider config.
    pub(super) fn config(id: i64) -> Owner<'static> {
        Owner { kind: OwnerKind::ProviderConfig, id: Cow::Owned(id.to_string()) }
    }
}

impl Table {
    /// What a limit of this table is called.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Table::Budgets => "budget",
            Table::RateLimits => "rate limit",
        }
    }
}

/// The limits of all owners, to be taken by them.
#[derive(Debug, Default)]
pub(super) struct StoredLimits {
    of: [HashMap<String, Limits>; OwnerKind::ALL.len()],
}

impl StoredLimits {
    pub(super) fn load(db: &Connection) -> Result<StoredLimits, StoreError> {
        let (mut stored, mut windows) = (StoredLimits::default(), Windows::default());
        each(db, BUDGETS, |row| {
            let budget = budget(row, &mut windows)?;
            stored.entry(row, "budget", &budget.id)?.budgets.push(budget);
            Ok(())
        })?;
        // Shortest window first: that is also the one shown as *the* budget.
        for limits in stored.of.iter_mut().flat_map(HashMap::values_mut) {
            limits.budgets.sort_by_cached_key(|b| (b.window.span().millis(), b.created_at, Arc::clone(&b.id)));
        }
        each(db, RATE_LIMITS, |row| {
            let limit = rate_limit(row, &mut windows)?;
            let owned = stored.entry(row, "rate limit", &limit.id)?;
            owned.rate_limit = Some(Box::new(limit));
            Ok(())
        })?;
        Ok(stored)
    }

    /// The limits of one owner, which has them from now on.
    pub(super) fn take(&mut self, owner: &Owner<'_>) -> Limits {
        let mut limits = self.of[owner.kind as usize].remove(&*owner.id).unwrap_or_default();
        // A vector that grew has room for four, and most owners have one: with many keys that is much.
        limits.budgets.shrink_to_fit();
        limits
    }

    /// Where the limit in `row`, whose second and third column name the owner, belongs.
    fn entry(&mut self, row: &Row<'_>, what: &str, id: &str) -> Result<&mut Limits, StoreError> {
        let kind = row.get_ref(1)?.as_str().ok().and_then(OwnerKind::from_name);
        let kind = kind.ok_or_else(|| damaged(what, id))?;
        Ok(self.of[kind as usize].entry(row.get(2)?).or_default())
    }
}

const BUDGETS: &str =
    "SELECT id, owner_type, owner_id, max_nanos, reset_duration, calendar_aligned, anchor, created_at,
    updated_at FROM budgets";

fn budget(row: &Row<'_>, windows: &mut Windows) -> Result<Budget, StoreError> {
    let id: Arc<str> = row.get(0)?;
    let window = row.get_ref(4)?.as_str().ok().zip(row.get(5).ok());
    let window = window.and_then(|(text, aligned)| windows.read(text, aligned));
    Ok(Budget {
        max: Nanos::new(row.get(3)?),
        window: window.ok_or_else(|| damaged("budget", &id))?,
        anchor: instant(row, 6)?,
        created_at: instant(row, 7)?,
        updated_at: instant(row, 8)?,
        id,
    })
}

const RATE_LIMITS: &str = "SELECT id, owner_type, owner_id, tokens_max, tokens_reset, tokens_anchor, requests_max,
    requests_reset, requests_anchor, created_at, updated_at FROM rate_limits";

fn rate_limit(row: &Row<'_>, windows: &mut Windows) -> Result<RateLimit, StoreError> {
    let id: Arc<str> = row.get(0)?;
    let mut half = |first: usize| -> Result<Option<Quota>, StoreError> {
        let Some(max) = row.get(first)? else { return Ok(None) };
        let window = match row.get_ref(first + 1)? {
            ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(|text| windows.read(text, false)),
            _ => None,
        };
        let anchor: Option<i64> = row.get(first + 2)?;
        let window = window.ok_or_else(|| damaged("rate limit", &id))?;
        Ok(Some(Quota { max, window, anchor: Timestamp::from_millis(anchor.unwrap_or(0)) }))
    };
    Ok(RateLimit {
        tokens: half(3)?,
        requests: half(6)?,
        created_at: instant(row, 9)?,
        updated_at: instant(row, 10)?,
        id,
    })
}

/// Makes the rows of an owner what `limits` says. Whether it may have them was judged before.
pub(super) fn save(db: &Connection, owner: &Owner<'_>, limits: &Limits) -> Result<(), StoreError> {
    save_budgets(db, owner, &limits.budgets)?;
    save_rate_limit(db, owner, limits.rate_limit.as_deref())
}

fn save_budgets(db: &Connection, owner: &Owner<'_>, budgets: &[Budget]) -> Result<(), StoreError> {
    let kept: Vec<&str> = budgets.iter().map(|budget| &*budget.id).collect();
    execute(
        db,
        "DELETE FROM budgets WHERE owner_type = ?1 AND owner_id = ?2 AND id NOT IN (SELECT value FROM json_each(?3))",
        params![owner.kind.as_str(), owner.id, json(&kept)],
    )?;
    for budget in budgets {
        execute(
            db,
            "INSERT INTO budgets
                (id, owner_type, owner_id, max_nanos, reset_duration, calendar_aligned, anchor, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (id) DO UPDATE SET owner_type = ?2, owner_id = ?3, max_nanos = ?4, reset_duration = ?5,
                calendar_aligned = ?6, anchor = ?7, created_at = ?8, updated_at = ?9",
            params![
                budget.id,
                owner.kind.as_str(),
                owner.id,
                budget.max.get(),
                budget.window.span().text(),
                budget.window.is_aligned(),
                budget.anchor.millis(),
                budget.created_at.millis(),
                budget.updated_at.millis(),
            ],
        )?;
    }
    Ok(())
}

fn save_rate_limit(db: &Connection, owner: &Owner<'_>, limit: Option<&RateLimit>) -> Result<(), StoreError> {
    let kept = limit.map_or("", |limit| &limit.id);
    execute(
        db,
        "DELETE FROM rate_limits WHERE owner_type = ?1 AND owner_id = ?2 AND id <> ?3",
        params![owner.kind.as_str(), owner.id, kept],
    )?;
    let Some(limit) = limit else { return Ok(()) };
    let max = |quota: &Option<Quota>| quota.as_ref().map(|quota| quota.max);
    let reset = |quota: &Option<Quota>| quota.as_ref().map(|quota| quota.window.span().text().to_owned());
    let anchor = |quota: &Option<Quota>| quota.as_ref().map(|quota| quota.anchor.millis());
    execute(
        db,
        "INSERT INTO rate_limits
            (id, owner_type, owner_id, tokens_max, tokens_reset, tokens_anchor, requests_max, requests_reset,
             requests_anchor, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET owner_type = ?2, owner_id = ?3, tokens_max = ?4, tokens_reset = ?5,
            tokens_anchor = ?6, requests_max = ?7, requests_reset = ?8, requests_anchor = ?9, created_at = ?10,
            updated_at = ?11",
        params![
            limit.id,
            owner.kind.as_str(),
            owner.id,
            max(&limit.tokens),
            reset(&limit.tokens),
            anchor(&limit.tokens),
            max(&limit.requests),
            reset(&limit.requests),
            anchor(&limit.requests),
            limit.created_at.millis(),
            limit.updated_at.millis(),
        ],
    )?;
    Ok(())
}

/// Whose limit of this id is in the table now.
pub(super) fn holder(db: &Connection, table: Table, id: &str) -> Result<Option<Owner<'static>>, StoreError> {
    let mut find = db.prepare_cached(match table {
        Table::Budgets => "SELECT owner_type, owner_id FROM budgets WHERE id = ?1",
        Table::RateLimits => "SELECT owner_type, owner_id FROM rate_limits WHERE id = ?1",
    })?;
    let found: Option<(String, String)> = find.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((kind, owner)) = found else { return Ok(None) };
    let kind = OwnerKind::from_name(&kind).ok_or_else(|| damaged(table.noun(), id))?;
    Ok(Some(Owner { kind, id: Cow::Owned(owner) }))
}

/// Takes a limit from its owner, with what was spent, for another one that `save` gives it to before the
/// change is complete.
pub(super) fn detach(db: &Connection, table: Table, id: &str) -> Result<(), StoreError> {
    let sql = match table {
        Table::Budgets => "UPDATE budgets SET owner_id = 'detached:' || hex(randomblob(16)) WHERE id = ?1",
        Table::RateLimits => "UPDATE rate_limits SET owner_id = 'detached:' || hex(randomblob(16)) WHERE id = ?1",
    };
    execute(db, sql, [id]).map(drop)
}
