//! A change: a list of edits, written so that only what it comes to must be right.
//!
//! Objects may exchange names, priorities, values and limits within one change. What an object is about to
//! give up is given up before any object gets something, and what goes is removed before anything comes.

use super::limits::{self, Owner, OwnerKind, Table};
use super::row::find;
use super::{
    audit, declared, ledger, model_config, owner, price_override, provider, provider_limits, replay, rule, settings,
    virtual_key,
};
use crate::governance::edit::Edit;
use crate::governance::entity::Limits;
use crate::governance::secret::Secret;
use crate::governance::view::Digest;
use crate::store::record::Record;
use crate::store::seal::Sealer;
use crate::store::{StoreError, StoreErrorKind};
use rusqlite::{Connection, Transaction};
use std::collections::{HashMap, HashSet};

/// What an edit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Object<'a> {
    Customer(&'a str),
    Team(&'a str),
    VirtualKey(&'a str),
    ModelConfig(&'a str),
    ProviderLimits(&'a str),
    RoutingRule(&'a str),
    PricingOverride(&'a str),
    Provider(&'a str),
    Client,
    BasicAuth,
}

/// The last edit of each object, in their order, and the last value that each virtual key gets.
struct Change<'a> {
    edits: Vec<&'a Edit>,
    objects: HashSet<Object<'a>>,
    values: HashMap<&'a str, (&'a Digest, &'a Secret)>,
}

/// Writes a change with its restarts, its lines of the audit log and its answer.
pub(super) fn apply(tx: &Transaction<'_>, sealer: &Sealer, edits: &[Edit], record: &Record) -> Result<(), StoreError> {
    let change = Change::of(edits);
    change.make_room(tx)?;
    change.edits.iter().try_for_each(|edit| remove(tx, edit))?;
    change.edits.iter().try_for_each(|edit| change.save(tx, sealer, edit))?;
    for edit in edits {
        match edit {
            Edit::Restart(restart) => ledger::restart(tx, restart)?,
            Edit::Applied(applied) => declared::save(tx, applied)?,
            Edit::Forgotten(entry) => declared::forget(tx, entry)?,
            _ => {}
        }
    }
    audit::append(tx, record)?;
    replay::keep(tx, sealer, record.replay.as_ref(), edits, record.at)
}

impl<'a> Change<'a> {
    fn of(edits: &'a [Edit]) -> Change<'a> {
        let (mut objects, mut values) = (HashSet::new(), HashMap::new());
        let mut last: Vec<&Edit> = Vec::with_capacity(edits.len());
        for edit in edits.iter().rev() {
            if object(edit).is_some_and(|object| objects.insert(object)) {
                last.push(edit);
            }
            if let Edit::VirtualKey { key, digest, value: Some(value) } = edit {
                values.entry(&*key.id).or_insert((digest, value));
            }
        }
        last.reverse();
        Change { edits: last, objects, values }
    }

    /// Takes from stored objects what they give up, if another one may get it.
    fn make_room(&self, db: &Connection) -> Result<(), StoreError> {
        let mut claimed = HashSet::new();
        for edit in &self.edits {
            match edit {
                Edit::VirtualKey { key, .. } => {
                    let new = self.values.get(&*key.id).map(|(digest, _)| *digest);
                    virtual_key::make_room(db, key, new)?;
                }
                Edit::ModelConfig(config) => model_config::make_room(db, config)?,
                // These have nothing that would be lost with their rows.
                Edit::RoutingRule(rule) => rule::remove(db, &rule.id)?,
                Edit::Provider(provider) => provider::remove_keys(db, &provider.name)?,
                _ => {}
            }
            for (owner, limits) in limits_of(edit) {
                for (table, id) in ids(limits) {
                    let free = claimed.insert((table, id)) && self.frees(db, table, id, &owner)?;
                    if !free {
                        let what = format!("{} id '{id}' belongs to another object", table.noun());
                        return Err(StoreError::new(StoreErrorKind::IdTaken, what));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a limit's id free for `owner`. False if an object has it that this change is not about.
    fn frees(&self, db: &Connection, table: Table, id: &str, owner: &Owner<'_>) -> Result<bool, StoreError> {
        let Some(holder) = limits::holder(db, table, id)? else { return Ok(true) };
        if holder == *owner {
            return Ok(true);
        }
        let id_of = &*holder.id;
        let is_changed = match holder.kind {
            OwnerKind::Customer => self.objects.contains(&Object::Customer(id_of)),
            OwnerKind::Team => self.objects.contains(&Object::Team(id_of)),
            OwnerKind::VirtualKey => self.objects.contains(&Object::VirtualKey(id_of)),
            OwnerKind::ModelConfig => self.objects.contains(&Object::ModelConfig(id_of)),
            OwnerKind::Provider => self.objects.contains(&Object::ProviderLimits(id_of)),
            OwnerKind::ProviderConfig => {
                let key = "SELECT virtual_key_id FROM provider_configs WHERE id = CAST(?1 AS INTEGER)";
                let key: Option<String> = find(db, key, [id_of])?;
                key.is_none_or(|key| self.objects.contains(&Object::VirtualKey(&key)))
            }
        };
        if is_changed {
            limits::detach(db, table, id)?;
        }
        Ok(is_changed)
    }

    fn save(&self, db: &Connection, sealer: &Sealer, edit: &Edit) -> Result<(), StoreError> {
        match edit {
            Edit::Customer(customer) => owner::save_customer(db, customer),
            Edit::Team(team) => owner::save_team(db, team),
            Edit::VirtualKey { key, .. } => virtual_key::save(db, sealer, key, self.values.get(&*key.id).copied()),
            Edit::ModelConfig(config) => model_config::save(db, config),
            Edit::ProviderLimits(limits) => provider_limits::save(db, limits),
            Edit::RoutingRule(rule) => rule::insert(db, rule),
            Edit::PricingOverride(over) => price_override::save(db, over),
            Edit::Provider(provider) => provider::save(db, sealer, provider),
            Edit::Client(client) => settings::save_client(db, client),
            Edit::BasicAuth(auth) => settings::save_basic_auth(db, auth),
            Edit::RemoveCustomer(_)
            | Edit::RemoveTeam(_)
            | Edit::RemoveVirtualKey(_)
            | Edit::RemoveModelConfig(_)
            | Edit::RemoveProviderLimits(_)
            | Edit::RemoveRoutingRule(_)
            | Edit::RemovePricingOverride(_)
            | Edit::RemoveProvider(_)
            | Edit::Restart(_)
            | Edit::Applied(_)
            | Edit::Forgotten(_)
            | Edit::Policy(_)
            | Edit::Catalog(_) => Ok(()),
        }
    }
}

fn remove(db: &Connection, edit: &Edit) -> Result<(), StoreError> {
    match edit {
        Edit::RemoveCustomer(id) => owner::remove_customer(db, id),
        Edit::RemoveTeam(id) => owner::remove_team(db, id),
        Edit::RemoveVirtualKey(id) => virtual_key::remove(db, id),
        Edit::RemoveModelConfig(id) => model_config::remove(db, id),
        Edit::RemoveProviderLimits(provider) => provider_limits::remove(db, provider),
        Edit::RemoveRoutingRule(id) => rule::remove(db, id),
        Edit::RemovePricingOverride(id) => price_override::remove(db, id),
        Edit::RemoveProvider(name) => provider::remove(db, name),
        _ => Ok(()),
    }
}

/// Absent for what is not stored.
fn object(edit: &Edit) -> Option<Object<'_>> {
    Some(match edit {
        Edit::Customer(customer) => Object::Customer(&customer.id),
        Edit::RemoveCustomer(id) => Object::Customer(id),
        Edit::Team(team) => Object::Team(&team.id),
        Edit::RemoveTeam(id) => Object::Team(id),
        Edit::VirtualKey { key, .. } => Object::VirtualKey(&key.id),
        Edit::RemoveVirtualKey(id) => Object::VirtualKey(id),
        Edit::ModelConfig(config) => Object::ModelConfig(&config.id),
        Edit::RemoveModelConfig(id) => Object::ModelConfig(id),
        Edit::ProviderLimits(limits) => Object::ProviderLimits(&limits.provider),
        Edit::RemoveProviderLimits(provider) => Object::ProviderLimits(provider),
        Edit::RoutingRule(rule) => Object::RoutingRule(&rule.id),
        Edit::RemoveRoutingRule(id) => Object::RoutingRule(id),
        Edit::PricingOverride(over) => Object::PricingOverride(&over.id),
        Edit::RemovePricingOverride(id) => Object::PricingOverride(id),
        Edit::Provider(provider) => Object::Provider(&provider.name),
        Edit::RemoveProvider(name) => Object::Provider(name),
        Edit::Client(_) => Object::Client,
        Edit::BasicAuth(_) => Object::BasicAuth,
        Edit::Restart(_) | Edit::Applied(_) | Edit::Forgotten(_) | Edit::Policy(_) | Edit::Catalog(_) => return None,
    })
}

/// The limits that an edit writes, with their owners.
fn limits_of(edit: &Edit) -> Vec<(Owner<'_>, &Limits)> {
    match edit {
        Edit::Customer(customer) => vec![(Owner::new(OwnerKind::Customer, &customer.id), &customer.limits)],
        Edit::Team(team) => vec![(Owner::new(OwnerKind::Team, &team.id), &team.limits)],
        Edit::VirtualKey { key, .. } => {
            let configs = key.provider_configs.iter().map(|config| (Owner::config(config.id), &config.limits));
            std::iter::once((Owner::new(OwnerKind::VirtualKey, &key.id), &key.limits)).chain(configs).collect()
        }
        Edit::ModelConfig(config) => vec![(Owner::new(OwnerKind::ModelConfig, &config.id), &config.limits)],
        Edit::ProviderLimits(of) => vec![(Owner::new(OwnerKind::Provider, &of.provider), &of.limits)],
        _ => Vec::new(),
    }
}

fn ids(limits: &Limits) -> impl Iterator<Item = (Table, &str)> {
    let budgets = limits.budgets.iter().map(|budget| (Table::Budgets, &*budget.id));
    budgets.chain(limits.rate_limit.iter().map(|limit| (Table::RateLimits, &*limit.id)))
}
