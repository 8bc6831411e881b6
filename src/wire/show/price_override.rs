//! Pricing overrides as administrators see them.

use super::limits::{insert_hash, insert_times, picos};
use crate::governance::entity::PricingOverride;
use crate::governance::request::RequestKind;
use serde_json::{Map, Value};

pub fn price_override(over: &PricingOverride) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), (*over.id).into());
    object.insert("name".into(), over.name.as_str().into());
    object.insert("scope_kind".into(), over.scope.name().into());
    let identifiers = [
        ("virtual_key_id", over.scope.virtual_key()),
        ("provider_id", over.scope.provider()),
        ("provider_key_id", over.scope.provider_key()),
    ];
    for (name, id) in identifiers.into_iter().filter_map(|(name, id)| Some((name, id?))) {
        object.insert(name.into(), (**id).into());
    }
    let (match_type, pattern) = over.pattern.wire();
    object.insert("match_type".into(), match_type.into());
    object.insert("pattern".into(), pattern.into());
    object.insert("request_types".into(), over.request_kinds.iter().copied().map(RequestKind::as_str).collect());
    let patch: Map<String, Value> =
        over.patch.iter().map(|(name, price)| ((*name).to_owned(), picos(price.times(1)))).collect();
    let patch = Value::Object(patch);
    object.insert("pricing_patch".into(), patch.to_string().into());
    object.insert("patch".into(), patch);
    insert_hash(&mut object, &over.config_hash);
    insert_times(&mut object, over.created_at, over.updated_at);
    Value::Object(object)
}
