//! Routing rules as rows.

use super::row::{damaged, each, execute, exists, instant, json};
use crate::governance::cel::Checker;
use crate::governance::edit::Edit;
use crate::governance::entity::{RoutingRule, RuleScope, RuleTarget, Weight};
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, Row, params};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A target as it stands in JSON.
#[derive(Serialize, Deserialize)]
struct StoredTarget {
    provider: Option<String>,
    model: Option<String>,
    key_id: Option<String>,
    /// In millionths.
    weight: u64,
}

/// A rule that does not read any more is disabled rather than keeping everything else from starting.
pub(super) fn load(db: &Connection, edits: &mut Vec<Edit>, warnings: &mut Vec<String>) -> Result<(), StoreError> {
    let mut checker = Checker::default();
    each(db, "SELECT * FROM routing_rules", |row| {
        let (mut rule, mut faults) = read(row)?;
        match checker.read(&rule.expression) {
            Ok(condition) => rule.condition = Some(condition),
            Err(error) => rule.fault = Some(error.to_string()),
        }
        if rule.enabled {
            faults.extend(rule.fault.clone());
        }
        if !faults.is_empty() {
            rule.enabled = false;
            warnings.push(format!("routing rule '{}' ({}) is disabled: {}", rule.name, rule.id, faults.join("; ")));
        }
        edits.push(Edit::RoutingRule(Arc::new(rule)));
        Ok(())
    })
}

/// A rule, and what of it does not read.
fn read(row: &Row<'_>) -> Result<(RoutingRule, Vec<String>), StoreError> {
    let id: Arc<str> = row.get("id")?;
    let scope: (String, Option<String>) = (row.get("scope")?, row.get("scope_id")?);
    let (targets, fallbacks): (String, Option<String>) = (row.get("targets")?, row.get("fallbacks")?);
    let query: Option<String> = row.get("query")?;
    let mut faults = Vec::new();
    let mut fault = |what: &str, error: serde_json::Error| faults.push(format!("its {what} cannot be read: {error}"));
    let targets = serde_json::from_str(&targets).map_err(|error| fault("targets", error)).unwrap_or_default();
    let fallbacks =
        fallbacks.and_then(|text| serde_json::from_str(&text).map_err(|error| fault("fallbacks", error)).ok());
    let query =
        query.filter(|text| serde_json::from_str::<IgnoredAny>(text).map_err(|error| fault("query", error)).is_ok());
    let rule = RoutingRule {
        name: row.get("name")?,
        description: row.get("description")?,
        enabled: row.get("enabled")?,
        expression: row.get("expression")?,
        fault: None,
        condition: None,
        targets: Vec::<StoredTarget>::into_iter(targets).map(RuleTarget::from).collect(),
        fallbacks,
        scope: RuleScope::of(&scope.0, scope.1.as_deref()).ok_or_else(|| damaged("routing rule", &id))?,
        priority: row.get("priority")?,
        chain: row.get("chain")?,
        query,
        config_hash: row.get("config_hash")?,
        created_at: instant(row, "created_at")?,
        updated_at: instant(row, "updated_at")?,
        id,
    };
    Ok((rule, faults))
}

/// Writes a rule whose row is not there: it was removed before, so that rules of one change may exchange
/// names and priorities.
pub(super) fn insert(db: &Connection, rule: &RoutingRule) -> Result<(), StoreError> {
    refuse_taken(db, rule)?;
    let RoutingRule { id, name, description, enabled, expression, targets, fallbacks, .. } = rule;
    let RoutingRule { scope, priority, chain, query, config_hash, created_at, updated_at, .. } = rule;
    let targets: Vec<StoredTarget> = targets.iter().map(StoredTarget::from).collect();
    execute(
        db,
        "INSERT INTO routing_rules
            (id, name, description, enabled, expression, targets, fallbacks, scope, scope_id, priority, chain, query,
             config_hash, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            id,
            name,
            description,
            enabled,
            expression,
            json(&targets),
            fallbacks.as_ref().map(json),
            scope.name(),
            scope.id(),
            priority,
            chain,
            query,
            config_hash,
            created_at.millis(),
            updated_at.millis(),
        ],
    )
    .map(drop)
}

pub(super) fn remove(db: &Connection, id: &str) -> Result<(), StoreError> {
    execute(db, "DELETE FROM routing_rules WHERE id = ?1", [id]).map(drop)
}

fn refuse_taken(db: &Connection, rule: &RoutingRule) -> Result<(), StoreError> {
    let (scope, scope_id) = (rule.scope.name(), rule.scope.id());
    let name = "SELECT 1 FROM routing_rules WHERE scope = ?1 AND ifnull(scope_id, '') = ifnull(?2, '') AND name = ?3";
    let what = if exists(db, name, params![scope, scope_id, rule.name])? {
        format!("routing rule name '{}' is taken within its scope", rule.name)
    } else {
        let priority = "SELECT 1 FROM routing_rules
            WHERE scope = ?1 AND ifnull(scope_id, '') = ifnull(?2, '') AND priority = ?3";
        if !exists(db, priority, params![scope, scope_id, rule.priority])? {
            return Ok(());
        }
        format!("routing rule priority {} is taken within its scope", rule.priority)
    };
    Err(StoreError::new(StoreErrorKind::NameTaken, what))
}

impl From<StoredTarget> for RuleTarget {
    fn from(stored: StoredTarget) -> RuleTarget {
        let StoredTarget { provider, model, key_id, weight } = stored;
        RuleTarget { provider, model, key_id, weight: Weight::from_millionths(weight) }
    }
}

impl From<&RuleTarget> for StoredTarget {
    fn from(target: &RuleTarget) -> StoredTarget {
        let RuleTarget { provider, model, key_id, weight } = target.clone();
        StoredTarget { provider, model, key_id, weight: weight.millionths() }
    }
}
