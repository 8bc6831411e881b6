//! Virtual keys as JSON, for administrators and for their holders.

use super::limits::{Live, budget, decimal, insert_hash, insert_limits, insert_times, rate_limit};
use super::owner::{nested_customer, nested_team};
use super::provider::expanded_key;
use crate::governance::entity::{Customer, KeySet, Provider, ProviderConfig, Team, Weight};
use crate::governance::secret::Secret;
use crate::governance::view::{Caller, Governed, Limit};
use crate::wire::mcp;
use serde_json::{Map, Value, json};

/// What answers to administrators say beside the caller itself.
pub struct Shown<'a> {
    pub caller: &'a Caller,
    pub live: Live<'a>,
    /// Absent where the value may not be shown any more.
    pub value: Option<&'a Secret>,
    /// Whose key it is. A customer is shown only if the key is its own, not a team's.
    pub team: Option<&'a Governed<Team>>,
    pub customer: Option<&'a Governed<Customer>>,
    /// Finds a configured provider, to name the keys that a config may use.
    pub provider: &'a dyn Fn(&str) -> Option<&'a Provider>,
}

/// A virtual key as administrators see it.
pub fn virtual_key(shown: &Shown<'_>) -> Value {
    let (key, live) = (&shown.caller.key, shown.live);
    let mut object = key_members(shown.caller, live, &|config| Some(provider_keys(config, shown)));
    if let Some(value) = shown.value {
        object.insert("value".into(), value.expose().into());
    }
    let is = |id: Option<&str>, other: &str| id == Some(other);
    if let Some(team) = shown.team.filter(|team| is(key.team_id.as_deref(), &team.entity.id)) {
        object.insert("team".into(), nested_team(team, live));
    }
    if let Some(customer) = shown.customer.filter(|customer| is(key.customer_id.as_deref(), &customer.entity.id)) {
        object.insert("customer".into(), nested_customer(customer, live));
    }
    Value::Object(object)
}

/// In the list of its owner: without its value, its owners, and the names of provider keys.
pub(super) fn nested_key(caller: &Caller, live: Live<'_>) -> Value {
    Value::Object(key_members(caller, live, &|_| None))
}

fn key_members(
    caller: &Caller,
    live: Live<'_>,
    keys_of: &dyn Fn(&ProviderConfig) -> Option<Value>,
) -> Map<String, Value> {
    let key = &*caller.key;
    let configs = key.provider_configs.iter().zip(caller.configs.iter()).map(|(config, limits)| {
        let mut object = provider_config(config, &limits.limits, live);
        object.insert("virtual_key_id".into(), (*key.id).into());
        let (all, ids) = match &config.key_ids {
            KeySet::All => (true, json!(["*"])),
            KeySet::Only(ids) => (false, json!(ids)),
        };
        object.insert("allow_all_keys".into(), all.into());
        object.insert("key_ids".into(), ids);
        if let Some(keys) = keys_of(config) {
            object.insert("keys".into(), keys);
        }
        Value::Object(object)
    });
    let mut object = Map::new();
    object.insert("id".into(), (*key.id).into());
    object.insert("name".into(), key.name.as_str().into());
    object.insert("description".into(), key.description.as_str().into());
    object.insert("is_active".into(), key.is_active.into());
    object.insert("team_id".into(), key.team_id.as_deref().into());
    object.insert("customer_id".into(), key.customer_id.as_deref().into());
    object.insert("provider_configs".into(), configs.collect());
    object.insert("mcp_configs".into(), mcp::show(&key.mcp_configs, &key.id));
    insert_limits(&mut object, &key.limits, &caller.limits, live);
    insert_hash(&mut object, &key.config_hash);
    insert_times(&mut object, key.created_at, key.updated_at);
    object
}

/// What the holder of a virtual key may know about it: nothing of its value, of provider keys or of others.
pub fn quota(caller: &Caller, live: Live<'_>) -> Value {
    let key = &caller.key;
    let configs = key.provider_configs.iter().zip(caller.configs.iter()).map(|(config, limits)| {
        let mut object = provider_config(config, &limits.limits, live);
        object.retain(|name, _| !matches!(name.as_str(), "budget" | "budget_id" | "rate_limit_id"));
        object.entry("rate_limit").or_insert(Value::Null);
        Value::Object(object)
    });
    json!({
        "virtual_key_name": key.name,
        "is_active": key.is_active,
        "budgets": key.limits.budgets.iter().map(|one| budget(one, &caller.limits, live)).collect::<Value>(),
        "rate_limit": key.limits.rate_limit.as_ref().map(|limit| rate_limit(limit, &caller.limits, live)),
        "provider_configs": configs.collect::<Value>(),
    })
}

/// The part of a provider config that its holder may see, too.
fn provider_config(config: &ProviderConfig, limits: &[Limit], live: Live<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".into(), config.id.into());
    object.insert("provider".into(), (*config.provider).into());
    object.insert("weight".into(), config.weight.map_or(Value::Null, weight));
    object.insert("allowed_models".into(), config.allowed_models.names().into());
    object.insert("blacklisted_models".into(), config.blacklisted_models.names().into());
    insert_limits(&mut object, &config.limits, limits, live);
    object
}

/// The provider keys that a config may use, without their secrets.
fn provider_keys(config: &ProviderConfig, shown: &Shown<'_>) -> Value {
    let Some(provider) = (shown.provider)(&config.provider) else { return json!([]) };
    let KeySet::Only(ids) = &config.key_ids else { return json!([]) };
    let known = provider.keys.iter().enumerate().filter(|(_, key)| ids.iter().any(|id| **id == *key.id));
    known.map(|(index, key)| expanded_key(index + 1, provider, key)).collect()
}

/// Millionths as a decimal number.
pub(super) fn weight(weight: Weight) -> Value {
    let (whole, fraction) = (weight.millionths() / 1_000_000, weight.millionths() % 1_000_000);
    match format!("{fraction:06}").trim_end_matches('0') {
        "" => decimal(&whole.to_string()),
        digits => decimal(&format!("{whole}.{digits}")),
    }
}
