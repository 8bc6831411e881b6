//! What the config file declares, brought into the store.
//!
//! The file is in force for an object whenever its own entry changed; between changes, edits made through
//! the API stay. Usage survives either way: a limit that is still there keeps its id.

use super::{Restart, entities, ledger};
use crate::governance::entity::VirtualKey;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{LimitKey, Measure};
use crate::state::new_virtual_key_value;
use crate::store::StoreError;
use crate::store::seal::Sealer;
use crate::wire::change::{Change, Known};
use crate::wire::faults::Faults;
use crate::wire::virtual_key::{VirtualKeyRead, adopt, virtual_key};
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
    declared: impl IntoIterator<Item = (serde_json::Value, String)>,
    now: Timestamp,
) -> Result<ApplyReport, StoreError> {
    let mut report = ApplyReport::default();
    let mut stored: Vec<VirtualKey> = entities::load(tx)?.into_iter().map(|(_, key)| key).collect();
    let balances = ledger::balances(tx)?;
    for (body, hash) in declared {
        let mut new_id = || uuid::Uuid::new_v4().to_string();
        let mut change = Change { known: &Everything, new_id: &mut new_id, now, own_ids: true };
        let read = virtual_key(&body, None, &mut change, &mut Faults::default());
        let VirtualKeyRead { mut key, value } = read.expect("the file was checked");
        let id = body["id"].as_str().map(str::to_owned);
        let by_id = id.as_deref().and_then(|id| stored.iter().position(|key| *key.id == *id));
        let found = by_id.or_else(|| stored.iter().position(|old| old.name == key.name));
        let old = found.map(|index| stored.swap_remove(index));
        if old.as_ref().is_some_and(|old| old.config_hash == hash) {
            report.kept += 1;
            continue;
        }
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

/// The file was checked when it was read.
struct Everything;

impl Known for Everything {
    fn provider(&self, _: &str) -> bool {
        true
    }
    fn provider_key(&self, _: &str, _: &str) -> bool {
        true
    }
    fn provider_of_key(&self, _: &str) -> Option<String> {
        None
    }
    fn customer(&self, _: &str) -> bool {
        true
    }
    fn team(&self, _: &str) -> bool {
        true
    }
    fn virtual_key(&self, _: &str) -> bool {
        true
    }
}
