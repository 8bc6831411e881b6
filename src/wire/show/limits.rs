//! Budgets and rate limits as JSON, with what stands at them right now.
//!
//! Usage comes from the cells that admission itself reads, so an answer never contradicts a refusal.

use crate::governance::entity::{Budget, Limits, Quota, RateLimit};
use crate::governance::judge::Tally;
use crate::governance::money::{Nanos, Picos};
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, Measure};
use serde_json::{Map, Number, Value};

/// What stands at a limit, and where its window began.
pub type Live<'a> = &'a dyn Fn(&Limit) -> (Tally, Timestamp);

/// A budget with its usage. `limits` are its owner's.
pub fn budget(budget: &Budget, limits: &[Limit], live: Live<'_>) -> Value {
    Value::Object(budget_members(budget, limits, live))
}

/// A budget among those of all owners: it says whose it is.
pub fn owned_budget(budget: &Budget, limits: &[Limit], live: Live<'_>, owner_type: &str, owner_id: &str) -> Value {
    owned(budget_members(budget, limits, live), owner_type, owner_id)
}

/// A rate limit with its usage. The usage of a half without a limit is 0.
pub fn rate_limit(limit: &RateLimit, limits: &[Limit], live: Live<'_>) -> Value {
    Value::Object(rate_limit_members(limit, limits, live))
}

/// A rate limit among those of all owners: it says whose it is.
pub fn owned_rate_limit(
    limit: &RateLimit,
    limits: &[Limit],
    live: Live<'_>,
    owner_type: &str,
    owner_id: &str,
) -> Value {
    owned(rate_limit_members(limit, limits, live), owner_type, owner_id)
}

/// Dollars as a JSON number, as short as it can be written.
pub fn dollars(nanos: Nanos) -> Value {
    decimal(&nanos.to_string())
}

/// Dollars that were not rounded, such as prices, as a JSON number.
pub fn picos(picos: Picos) -> Value {
    decimal(&picos.to_string())
}

/// A decimal text as a JSON number.
pub(super) fn decimal(text: &str) -> Value {
    // The one place where money is a float: the wire has no other decimal number.
    let number = text.parse::<i64>().map(Number::from).ok();
    number.or_else(|| text.parse().ok().and_then(Number::from_f64)).map_or(Value::Null, Value::Number)
}

/// Both forms of the budgets, the list and the one with the shortest window, and the rate limit.
pub(super) fn insert_limits(object: &mut Map<String, Value>, declared: &Limits, limits: &[Limit], live: Live<'_>) {
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

pub(super) fn insert_times(object: &mut Map<String, Value>, created_at: Timestamp, updated_at: Timestamp) {
    object.insert("created_at".into(), created_at.to_string().into());
    object.insert("updated_at".into(), updated_at.to_string().into());
}

/// Only what a config file declared has one.
pub(super) fn insert_hash(object: &mut Map<String, Value>, config_hash: &str) {
    if !config_hash.is_empty() {
        object.insert("config_hash".into(), config_hash.into());
    }
}

fn owned(mut object: Map<String, Value>, owner_type: &str, owner_id: &str) -> Value {
    object.insert("owner_type".into(), owner_type.into());
    object.insert("owner_id".into(), owner_id.into());
    Value::Object(object)
}

fn budget_members(budget: &Budget, limits: &[Limit], live: Live<'_>) -> Map<String, Value> {
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
    object
}

fn rate_limit_members(limit: &RateLimit, limits: &[Limit], live: Live<'_>) -> Map<String, Value> {
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
    object
}

fn at(limits: &[Limit], id: &str, measure: Measure, live: Live<'_>) -> (Tally, Timestamp) {
    let limit = limits.iter().find(|limit| &*limit.key.id == id && limit.key.measure == measure);
    live(limit.expect("a view links a limit for each budget and each half of a rate limit"))
}
