//! Routing rules as administrators see them.

use super::limits::{insert_hash, insert_times};
use super::virtual_key::weight;
use crate::governance::entity::{RoutingRule, RuleTarget};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;

/// A rule; `fault` says why its expression is not evaluated, if it could not be read.
pub fn rule(rule: &RoutingRule, fault: Option<&str>) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), (*rule.id).into());
    object.insert("name".into(), rule.name.as_str().into());
    object.insert("description".into(), rule.description.as_str().into());
    object.insert("enabled".into(), rule.enabled.into());
    object.insert("cel_expression".into(), rule.expression.as_str().into());
    if let Some(fault) = fault {
        object.insert("cel_error".into(), fault.into());
    }
    let mut targets: Vec<&RuleTarget> = rule.targets.iter().collect();
    targets.sort_by_key(|target| Reverse(target.weight));
    object.insert("targets".into(), targets.into_iter().map(target).collect());
    object.insert("fallbacks".into(), json!(rule.fallbacks.as_deref().unwrap_or_default()));
    object.insert("scope".into(), rule.scope.name().into());
    object.insert("scope_id".into(), rule.scope.id().map(|id| &**id).into());
    object.insert("priority".into(), rule.priority.into());
    object.insert("chain_rule".into(), rule.chain.into());
    let query = rule.query.as_deref().and_then(|text| serde_json::from_str(text).ok());
    object.insert("query".into(), query.unwrap_or(Value::Null));
    insert_hash(&mut object, &rule.config_hash);
    insert_times(&mut object, rule.created_at, rule.updated_at);
    Value::Object(object)
}

fn target(target: &RuleTarget) -> Value {
    let mut object = Map::new();
    let parts = [("provider", &target.provider), ("model", &target.model), ("key_id", &target.key_id)];
    for (name, part) in parts.into_iter().filter_map(|(name, part)| Some((name, part.as_deref()?))) {
        object.insert(name.into(), part.into());
    }
    object.insert("weight".into(), weight(target.weight));
    Value::Object(object)
}
