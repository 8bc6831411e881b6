//! What the config file declares, brought into the store.
//!
//! The file is in force for an object whenever its own entry changed; between changes, edits made through
//! the API stay. Usage survives either way: a limit that is still there keeps its id.

use super::{Restart, entities, ledger};
use crate::governance::entity::{ProviderConfig, VirtualKey};
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::state::new_virtual_key_value;
use crate::store::StoreError;
use crate::store::seal::Sealer;
use crate::wire::limits;
use crate::wire::virtual_key::VirtualKeyDraft;
use rusqlite::Transaction;
use std::sync::Arc;

/// What became of the file's virtual keys, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyReport {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    /// Applied before, and not changed in the file since.
    pub kept: usize,
    /// Limits whose live usage starts from nothing, too, once the change is published.
    pub restarts: Vec<Restart>,
}

pub(super) fn apply(
    tx: &Transaction<'_>,
    sealer: &Sealer,
    declared: impl IntoIterator<Item = (VirtualKeyDraft, String)>,
    now: Timestamp,
) -> Result<ApplyReport, StoreError> {
    let mut report = ApplyReport::default();
    let mut stored: Vec<VirtualKey> = entities::load(tx)?.into_iter().map(|(_, key)| key).collect();
    let balances = ledger::balances(tx)?;
    for (draft, hash) in declared {
        let (id, value) = (draft.id.clone(), draft.value.clone());
        let by_id = id.as_deref().and_then(|id| stored.iter().position(|key| *key.id == *id));
        let found = by_id.or_else(|| stored.iter().position(|key| key.name == draft.name));
        let old = found.map(|index| stored.swap_remove(index));
        if old.as_ref().is_some_and(|old| old.config_hash == hash) {
            report.kept += 1;
            continue;
        }
        let mut key = draft.into_entity(&mut || uuid::Uuid::new_v4().to_string(), now);
        key.config_hash = hash;
        match old {
            None => {
                let value = value.unwrap_or_else(|| Secret::new(new_virtual_key_value()));
                entities::insert(tx, sealer, &mut key, &value)?;
                report.created.push(key.name);
            }
            Some(old) => {
                adopt(&mut key, &old);
                entities::update(tx, &mut key)?;
                if let Some(value) = value {
                    entities::set_value(tx, sealer, &key.id, &value)?;
                }
                for budget in key.budgets_turned_to_calendar(&old) {
                    let limit = LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money };
                    let at = balances.get(&limit).map_or(now, |balance| now.max(balance.start.plus(1)));
                    let restart = Restart { key: limit, at };
                    ledger::restart(tx, &restart)?;
                    report.restarts.push(restart);
                }
                report.updated.push(key.name);
            }
        }
    }
    Ok(report)
}

/// Gives `new` the ids of what it replaces.
fn adopt(new: &mut VirtualKey, old: &VirtualKey) {
    new.id = Arc::clone(&old.id);
    new.created_at = old.created_at;
    limits::adopt(&mut new.limits, &old.limits);
    for config in &mut new.provider_configs {
        // An id in the file is of no use unless the key has it: rows are told apart by their provider.
        let same = |row: &&ProviderConfig| row.provider == config.provider;
        match old.provider_configs.iter().find(same) {
            Some(row) => {
                config.id = row.id;
                limits::adopt(&mut config.limits, &row.limits);
            }
            None => config.id = 0,
        }
    }
}
