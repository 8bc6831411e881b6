//! Limits on a provider as administrators see them.

use super::limits::{Live, insert_limits};
use crate::governance::entity::{Limits, ProviderLimits};
use crate::governance::view::Governed;
use serde_json::{Map, Value};

/// The limits of `provider`; absent where the last one was taken away.
pub fn provider_limits(provider: &str, limits: Option<&Governed<ProviderLimits>>, live: Live<'_>) -> Value {
    let mut object = Map::new();
    object.insert("provider".into(), provider.into());
    match limits {
        Some(limits) => insert_limits(&mut object, &limits.entity.limits, &limits.limits, live),
        None => insert_limits(&mut object, &Limits::default(), &[], live),
    }
    Value::Object(object)
}
