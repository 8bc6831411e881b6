//! What a declared provider says in vain, so that an operator knows.

use super::file::Reading;
use crate::governance::entity::Provider;
use serde_json::Value;

/// Members of the contract that this version takes without acting on them.
const IDLE_PROVIDER: &[&str] =
    &["send_back_raw_request", "send_back_raw_response", "store_raw_request_response", "openai_config"];
const IDLE_KEY: &[&str] = &["use_for_batch_api"];
const IDLE_NETWORK: &[&str] = &["max_conns_per_host", "beta_header_overrides"];

pub(super) fn warn(provider: &Provider, body: &Value, path: &str, reading: &mut Reading<'_>) {
    let name = &provider.name;
    if !provider.speaks_openai() {
        let warning = "has a dialect of its own, which this version does not speak: calls to it will be refused";
        reading.warnings.push(format!("provider '{name}' {warning}"));
    } else if provider.keys.is_empty() && !provider.keyless() {
        reading.warnings.push(format!("provider '{name}' has no key: calls to it will be refused"));
    }
    idle(body, path, IDLE_PROVIDER, reading);
    idle(&body["network_config"], &format!("{path}.network_config"), IDLE_NETWORK, reading);
    for (i, key) in body["keys"].as_array().into_iter().flatten().enumerate() {
        idle(key, &format!("{path}.keys[{i}]"), IDLE_KEY, reading);
    }
}

/// Names what is set and has no effect.
fn idle(object: &Value, path: &str, names: &[&str], reading: &mut Reading<'_>) {
    let is_set =
        |name: &&&str| object.get(**name).is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
    let set: Vec<String> = names.iter().filter(is_set).map(|name| format!("{path}.{name}")).collect();
    if !set.is_empty() {
        reading.warnings.push(format!("accepted, but without effect in this version: {}", set.join(", ")));
    }
}
