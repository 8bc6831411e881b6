//! The `providers` section: read by the contract's own functions, with what is said in vain named.

use super::file::Reading;
use crate::governance::entity::Provider;
use crate::governance::time::Timestamp;
use crate::wire::faults::Faults;
use crate::wire::provider::{ProviderChange, provider};
use crate::wire::read::Object;
use serde_json::{Value, json};
use std::sync::Arc;

/// Members of the contract that this version takes without acting on them.
const IDLE_PROVIDER: &[&str] = &[
    "concurrency_and_buffer_size",
    "send_back_raw_request",
    "send_back_raw_response",
    "store_raw_request_response",
    "openai_config",
];
const IDLE_KEY: &[&str] = &["use_for_batch_api"];
const IDLE_NETWORK: &[&str] = &["max_conns_per_host", "beta_header_overrides"];

pub(super) fn read_providers(root: &Object<'_>, reading: &mut Reading<'_>) -> Vec<Arc<Provider>> {
    let Some(section) = root.object("providers", reading.faults).value() else { return Vec::new() };
    let nothing = json!({});
    let mut key_names: Vec<String> = Vec::new();
    let mut key_ids: Vec<Arc<str>> = Vec::new();
    let mut providers = Vec::new();
    for name in section.names() {
        let body = section.raw(name).value().unwrap_or(&nothing);
        let mut faults = Faults::default();
        let mut change = ProviderChange {
            // The file's keys have ids of their own.
            new_id: &mut String::new,
            // Whoever applies the file knows when that was.
            now: Timestamp::default(),
            own_ids: true,
            env: reading.env,
            key_name_taken: &|name, _| key_names.iter().any(|other| other == name),
            key_id_taken: &|id| key_ids.iter().any(|other| **other == *id),
            strict: true,
            clash: false,
        };
        let read = provider(name, body, None, &mut change, &mut faults);
        let path = section.path(name);
        for fault in faults.iter() {
            let dot = if fault.path.is_empty() { "" } else { "." };
            reading.faults.add(format!("{path}{dot}{}", fault.path), fault.message.clone());
        }
        // Of keys with faults, too.
        let names = body["keys"].as_array().into_iter().flatten().filter_map(|key| key["name"].as_str());
        key_names.extend(names.map(str::to_owned));
        let Some(read) = read else { continue };
        key_ids.extend(read.keys.iter().map(|key| Arc::clone(&key.id)));
        warn(&read, body, &path, reading);
        providers.push(Arc::new(read));
    }
    providers
}

fn warn(provider: &Provider, body: &Value, path: &str, reading: &mut Reading<'_>) {
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
