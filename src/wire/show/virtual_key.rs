//! Answers: virtual keys and their limits as JSON, with what stands at the limits right now.
//!
//! Usage comes from the cells that admission itself reads, so an answer never contradicts a refusal.

use super::provider::expanded_key;
use crate::governance::entity::{
    Budget, KeySet, Limits, Provider, ProviderConfig, Quota, RateLimit, VirtualKey, Weight,
};
use crate::governance::judge::Tally;
use crate::governance::money::Nanos;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{Caller, Limit, Measure};
use serde_json::{Map, Number, Value, json};

/// What stands at a limit, and where its window began.
pub type Live<'a> = &'a dyn Fn(&Limit) -> (Tally, Timestamp);

/// What answers to administrators say beside the caller itself.
pub struct Shown<'a> {
    pub caller: &'a Caller,
    pub live: Live<'a>,
    /// Absent where the value may not be shown any more.
    pub value: Option<&'a Secret>,
    /// Finds a configured provider, to name the keys that a config may use.
    pub provider: &'a dyn Fn(&str) -> Option<&'a Provider>,
}

/// A virtual key as administrators see it.
pub fn virtual_key(shown: &Shown<'_>) -> Value {
    let (caller, live) = (shown.caller, shown.live);
    let key: &VirtualKey = &caller.key;
    let configs = key.provider_configs.iter().zip(caller.configs.iter()).map(|(config, limits)| {
        let mut object = provider_config(config, &limits.limits, live);
        object.insert("virtual_key_id".into(), (*key.id).into());
        let (all, ids) = match &config.key_ids {
            KeySet::All => (true, json!(["*"])),
            KeySet::Only(ids) => (false, json!(ids)),
        };
        object.insert("allow_all_keys".into(), all.into());
        object.insert("key_ids".into(), ids);
        object.insert("keys".into(), provider_keys(config, shown));
        Value::Object(object)
    });
    let mut object = Map::new();
    object.insert("id".into(), (*key.id).into());
    object.insert("name".into(), key.name.as_str().into());
    object.insert("description".into(), key.description.as_str().into());
    if let Some(value) = shown.value {
        object.insert("value".into(), value.expose().into());
    }
    object.insert("is_active".into(), key.is_active.into());
    object.insert("team_id".into(), Value::Null);
    object.insert("customer_id".into(), Value::Null);
    object.insert("provider_configs".into(), configs.collect());
    object.insert("mcp_configs".into(), serde_json::from_str(&key.mcp_configs).unwrap_or_else(|_| json!([])));
    insert_limits(&mut object, &key.limits, &caller.limits, live);
    if !key.config_hash.is_empty() {
        object.insert("config_hash".into(), key.config_hash.as_str().into());
    }
    insert_times(&mut object, key.created_at, key.updated_at);
    Value::Object(object)
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

/// A budget with its usage. `limits` are its owner's.
pub fn budget(budget: &Budget, limits: &[Limit], live: Live<'_>) -> Value {
    let (tally, start) = at(limits, &budget.id, Measure::Money, live);
    let mut object = Map::new();
    object.insert("id".into(), (*budget.id).into());
    object.insert("max_limit".into(), dollars(budget.max));
    object.insert("reset_duration".into(), budget.window.span().text().into());
    object.insert("calendar_aligned".into(), budget.window.is_aligned().into());
    // A calendar window begins with its period, even where its usage was reset within it.
    let start = if budget.window.is_aligned() { budget.window.start(budget.anchor, start) } else { start };
    object.insert("last_reset".into(), start.to_string().into());
    object.insert("resets_at".into(), budget.window.end(start).to_string().into());
    object.insert("current_usage".into(), dollars(Nanos::new(tally.spent)));
    object.insert("held".into(), dollars(Nanos::new(tally.held())));
    insert_times(&mut object, budget.created_at, budget.updated_at);
    Value::Object(object)
}

/// A rate limit with its usage. The usage of a half without a limit is 0.
pub fn rate_limit(limit: &RateLimit, limits: &[Limit], live: Live<'_>) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), (*limit.id).into());
    let mut half = |name: &str, measure, quota: Option<&Quota>| {
        let (tally, start) = match quota {
            Some(_) => at(limits, &limit.id, measure, live),
            None => (Tally::default(), limit.created_at),
        };
        if let Some(quota) = quota {
            object.insert(format!("{name}_max_limit"), quota.max.into());
            object.insert(format!("{name}_reset_duration"), quota.window.span().text().into());
            object.insert(format!("{name}_held"), tally.held().into());
        }
        object.insert(format!("{name}_current_usage"), tally.spent.into());
        object.insert(format!("{name}_last_reset"), start.to_string().into());
    };
    half("token", Measure::Tokens, limit.tokens.as_ref());
    half("request", Measure::Requests, limit.requests.as_ref());
    insert_times(&mut object, limit.created_at, limit.updated_at);
    Value::Object(object)
}

/// Dollars as a JSON number, as short as it can be written.
pub fn dollars(nanos: Nanos) -> Value {
    let text = nanos.to_string();
    // The one place where money is a float: the wire has no other decimal number.
    let number = text.parse::<i64>().map(Number::from).ok();
    number.or_else(|| text.parse().ok().and_then(Number::from_f64)).map_or(Value::Null, Value::Number)
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

/// Both forms of the budgets: the list, and the one with the shortest window.
fn insert_limits(object: &mut Map<String, Value>, declared: &Limits, limits: &[Limit], live: Live<'_>) {
    let mut sorted: Vec<&Budget> = declared.budgets.iter().collect();
    sorted.sort_by_key(|budget| budget.window.span().millis());
    let shown: Vec<Value> = sorted.iter().map(|one| budget(one, limits, live)).collect();
    if let Some((first, budget)) = sorted.first().zip(shown.first()) {
        object.insert("budget_id".into(), (*first.id).into());
        object.insert("budget".into(), budget.clone());
    }
    object.insert("budgets".into(), shown.into());
    if let Some(rate) = &declared.rate_limit {
        object.insert("rate_limit_id".into(), (*rate.id).into());
        object.insert("rate_limit".into(), rate_limit(rate, limits, live));
    }
}

/// The provider keys that a config may use, without their secrets.
fn provider_keys(config: &ProviderConfig, shown: &Shown<'_>) -> Value {
    let Some(provider) = (shown.provider)(&config.provider) else { return json!([]) };
    let KeySet::Only(ids) = &config.key_ids else { return json!([]) };
    let known = provider.keys.iter().enumerate().filter(|(_, key)| ids.iter().any(|id| **id == *key.id));
    known.map(|(index, key)| expanded_key(index + 1, provider, key)).collect()
}

pub(super) fn insert_times(object: &mut Map<String, Value>, created_at: Timestamp, updated_at: Timestamp) {
    object.insert("created_at".into(), created_at.to_string().into());
    object.insert("updated_at".into(), updated_at.to_string().into());
}

/// Millionths as a decimal number.
pub(super) fn weight(weight: Weight) -> Value {
    let millionths = i64::try_from(weight.millionths()).unwrap_or(i64::MAX);
    dollars(Nanos::new(millionths.saturating_mul(1_000)))
}

fn at(limits: &[Limit], id: &str, measure: Measure, live: Live<'_>) -> (Tally, Timestamp) {
    let limit = limits.iter().find(|limit| &*limit.key.id == id && limit.key.measure == measure);
    live(limit.expect("a view links a limit for each budget and each half of a rate limit"))
}
