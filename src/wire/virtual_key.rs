//! A virtual key as bodies and the config file write it.

use super::change::Change;
use super::faults::Faults;
use super::read::{Given, Object, check_whitelist};
use super::{limits, mcp};
use crate::governance::entity::{
    KeySet, ModelSet, ProviderConfig, VIRTUAL_KEY_PREFIX, VirtualKey, has_virtual_key_prefix,
};
use crate::governance::secret::Secret;
use serde_json::Value;
use std::sync::Arc;

/// What a body says.
#[derive(Debug)]
pub struct VirtualKeyRead {
    /// New provider configs have the id 0, until they are stored.
    pub key: VirtualKey,
    /// The value that an object of the config file brings.
    pub value: Option<Secret>,
}

const VALUE_BYTES_MAX: usize = 512;

/// A new virtual key, or `base` with what the body says changed. Of use only if no fault was added.
pub fn virtual_key(
    body: &Value,
    base: Option<&VirtualKey>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<VirtualKeyRead> {
    let body = Object::of(body, "", faults)?;
    let name = body.name_or("name", base.map(|base| &*base.name), "Virtual key name is required", faults);
    let (team_id, customer_id) = read_owner(&body, base, change, faults);
    let value = if change.own_ids { read_value(&body, faults) } else { None };
    let description = body.description(base.map(|base| &*base.description), faults);
    let is_active = body.boolean("is_active", faults).value().or(base.map(|base| base.is_active));
    let limits = limits::read(&body, base.map(|base| &base.limits), change, faults);
    let provider_configs = read_provider_configs(&body, base, change, faults);
    let mcp_configs = mcp::read(&body, base.map(|base| &*base.mcp_configs), faults);
    let key = VirtualKey {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        name,
        description,
        is_active: is_active.unwrap_or(true),
        team_id,
        customer_id,
        limits,
        provider_configs,
        mcp_configs,
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    };
    Some(VirtualKeyRead { key, value })
}

/// For a key that was read as new and replaces one that is there, as the config file's do: gives it the ids of
/// what it replaces, with what belongs to them. Provider configs are told apart by their provider.
pub fn adopt(new: &mut VirtualKey, old: &VirtualKey) {
    new.id = Arc::clone(&old.id);
    new.created_at = old.created_at;
    new.mcp_configs = mcp::adopt(&new.mcp_configs, &old.mcp_configs);
    limits::adopt(&mut new.limits, &old.limits);
    for config in &mut new.provider_configs {
        if let Some(row) = old.provider_configs.iter().find(|row| row.provider == config.provider) {
            config.id = row.id;
            limits::adopt(&mut config.limits, &row.limits);
        }
    }
}

/// The team's id and the customer's. Absent keeps, null and `""` clear; one of them takes the other's place.
fn read_owner(
    body: &Object<'_>,
    base: Option<&VirtualKey>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> (Option<Arc<str>>, Option<Arc<str>>) {
    let (team, customer) = (body.clearable("team_id", faults), body.clearable("customer_id", faults));
    if let (Given::Value(_), Given::Value(_)) = (team, customer) {
        faults.add("", "VirtualKey cannot be attached to both Team and Customer");
        return (None, None);
    }
    if let Some(id) = team.value().filter(|id| !change.known.team(id)) {
        faults.add(body.path("team_id"), format!("there is no team '{id}'"));
    }
    if let Some(id) = customer.value().filter(|id| !change.known.customer(id)) {
        faults.add(body.path("customer_id"), format!("there is no customer '{id}'"));
    }
    match (team, customer) {
        (Given::Value(team), _) => (Some(team.into()), None),
        (_, Given::Value(customer)) => (None, Some(customer.into())),
        (team, customer) => (
            base.and_then(|base| base.team_id.clone()).filter(|_| team.is_absent()),
            base.and_then(|base| base.customer_id.clone()).filter(|_| customer.is_absent()),
        ),
    }
}

fn read_value(body: &Object<'_>, faults: &mut Faults) -> Option<Secret> {
    let value = body.text("value", faults).value().filter(|value| !value.is_empty())?;
    let plain = value.is_ascii() && value.trim() == value && !value.contains(char::is_control);
    if !has_virtual_key_prefix(value.as_bytes()) || value.len() > VALUE_BYTES_MAX || !plain {
        let message = format!(
            "must begin with {VIRTUAL_KEY_PREFIX}, be ASCII without blanks around it, and at most {VALUE_BYTES_MAX} bytes"
        );
        faults.add(body.path("value"), message);
    }
    Some(Secret::new(value))
}

/// The new set. Entries are matched by id, and without one by provider.
fn read_provider_configs(
    body: &Object<'_>,
    base: Option<&VirtualKey>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Vec<ProviderConfig> {
    let rows = base.map_or(&[][..], |base| &base.provider_configs);
    let Given::Value(bodies) = body.objects("provider_configs", faults) else { return rows.to_vec() };
    let mut configs: Vec<ProviderConfig> = Vec::with_capacity(bodies.len());
    for body in &bodies {
        // Ids are the server's to give; those of a new key mean nothing yet.
        let id = body.integer("id", faults).value().filter(|id| *id != 0 && base.is_some());
        let named = body.raw("provider").value().and_then(Value::as_str);
        let row = match id {
            Some(id) => rows.iter().find(|row| row.id == id),
            None => rows.iter().find(|row| named == Some(&*row.provider)),
        };
        if let (Some(id), None) = (id, row) {
            faults.add(body.path("id"), format!("this virtual key has no provider config {id}"));
            continue;
        }
        let Some(config) = read_provider_config(body, row, change, faults) else { continue };
        if configs.iter().any(|other| other.provider == config.provider) {
            faults.add(body.path("provider"), format!("there are two configs for provider '{}'", config.provider));
        } else if config.id != 0 && configs.iter().any(|other| other.id == config.id) {
            faults.add(body.path("id"), format!("provider config {} is listed twice", config.id));
        }
        configs.push(config);
    }
    configs
}

/// A provider config, if it names its provider. What is absent stays; without an old one it allows nothing.
fn read_provider_config(
    body: &Object<'_>,
    row: Option<&ProviderConfig>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<ProviderConfig> {
    let provider = read_provider(body, row, change, faults);
    let mut models = |name: &str, old: Option<&ModelSet>| {
        let names = body.whitelist(name, faults).value().map(ModelSet::from_names);
        names.or_else(|| old.cloned()).unwrap_or(ModelSet::Only(Vec::new()))
    };
    let allowed_models = models("allowed_models", row.map(|row| &row.allowed_models));
    let blacklisted_models = models("blacklisted_models", row.map(|row| &row.blacklisted_models));
    let key_ids = read_key_ids(body, provider.as_deref(), row, change, faults);
    let weight = body.weight("weight", faults).or_keep(row.and_then(|row| row.weight));
    let limits = limits::read(body, row.map(|row| &row.limits), change, faults);
    Some(ProviderConfig {
        id: row.map_or(0, |row| row.id),
        provider: provider?,
        weight,
        allowed_models,
        blacklisted_models,
        key_ids,
        limits,
    })
}

/// The provider's name. One that is not configured any more may be written back, but not chosen anew.
fn read_provider(
    body: &Object<'_>,
    row: Option<&ProviderConfig>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<Arc<str>> {
    let old = row.map(|row| &row.provider);
    match body.clearable("provider", faults).value() {
        Some(name) if old.is_some_and(|old| **old == *name) => old.cloned(),
        Some(name) if change.known.provider(name) => Some(name.into()),
        Some(name) => {
            faults.add(body.path("provider"), format!("provider '{name}' is neither built in nor configured"));
            None
        }
        None if old.is_some() => old.cloned(),
        None => {
            if body.raw("provider").value().is_none_or(Value::is_string) {
                faults.add(body.path("provider"), "provider is required");
            }
            None
        }
    }
}

/// `key_ids`, or `keys` as answers show them, so that what was read can be written back.
fn read_key_ids(
    body: &Object<'_>,
    provider: Option<&str>,
    row: Option<&ProviderConfig>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> KeySet {
    let name = if body.has("key_ids") || !body.has("keys") { "key_ids" } else { "keys" };
    let given = if name == "keys" { read_keys(body, faults) } else { body.whitelist(name, faults).value() };
    let Some(ids) = given else {
        let Some(row) = row else { return KeySet::Only(Vec::new()) };
        if provider.is_some_and(|provider| *provider != *row.provider) {
            // They came with the provider that the config was for.
            check_keys(&row.key_ids, provider, None, &body.path("key_ids"), change, faults);
        }
        return row.key_ids.clone();
    };
    let everything = name == "keys" && body.boolean("allow_all_keys", faults).value() == Some(true);
    if everything || ids.iter().any(|id| id == "*") {
        return KeySet::All;
    }
    let ids = KeySet::Only(ids);
    check_keys(&ids, provider, row, &body.path(name), change, faults);
    ids
}

/// Ids, or the objects that answers show.
fn read_keys(body: &Object<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let keys = body.array("keys", faults).value()?;
    let mut ids = Vec::with_capacity(keys.len());
    for (i, key) in keys.iter().enumerate() {
        match key.as_str().or_else(|| key.get("key_id")?.as_str()) {
            Some(id) => ids.push(id.to_owned()),
            None => faults
                .mistyped(format!("{}[{i}]", body.path("keys")), "must be a key's id, or an object with its key_id"),
        }
    }
    check_whitelist(&ids, &body.path("keys"), faults);
    Some(ids)
}

/// Each must be a key of the provider, unless the config had it already.
fn check_keys(
    ids: &KeySet,
    provider: Option<&str>,
    row: Option<&ProviderConfig>,
    path: &str,
    change: &Change<'_>,
    faults: &mut Faults,
) {
    let (KeySet::Only(ids), Some(provider)) = (ids, provider) else { return };
    let had = |id: &str| {
        row.is_some_and(|row| {
            *row.provider == *provider && matches!(&row.key_ids, KeySet::Only(ids) if ids.iter().any(|old| old == id))
        })
    };
    for (i, id) in ids.iter().enumerate().filter(|(_, id)| !change.known.provider_key(provider, id) && !had(id)) {
        faults.add(format!("{path}[{i}]"), format!("provider '{provider}' has no key '{id}'"));
    }
}

#[cfg(test)]
mod tests;
