//! A provider as the contract's bodies and the config file write it.
//!
//! All that the contract knows can be declared and is kept. What this version could only ignore although
//! access or money hangs on it is refused here; a dialect that it does not speak is refused call by call.

mod custom;
mod key;
mod network;
mod proxy;
#[cfg(test)]
mod tests;

use super::env_text::Env;
use super::faults::Faults;
use super::read::{Given, Object};
use super::show;
use super::strict::only_known;
use crate::governance::entity::{BUILT_IN_PROVIDERS, Concurrency, Provider, ProviderKey, is_built_in_provider};
use crate::governance::time::Timestamp;
use serde_json::Value;
use std::sync::Arc;

pub use custom::{CUSTOM, REQUEST_NAMES};
pub use key::KEY;
pub use network::NETWORK;
pub use proxy::PROXY;

/// The members of a provider that can be declared.
pub const PROVIDER: &[&str] = &[
    "keys",
    "network_config",
    "concurrency_and_buffer_size",
    "proxy_config",
    "send_back_raw_request",
    "send_back_raw_response",
    "store_raw_request_response",
    "custom_provider_config",
    "openai_config",
];
/// Members of answers, which may come back and say nothing.
const SHOWN: &[&str] = &[
    "name",
    "provider",
    "provider_status",
    "status",
    "description",
    "key_count",
    "config_hash",
    "created_at",
    "updated_at",
    "pricing_overrides",
];
const CONCURRENCY: &[&str] = &["concurrency", "buffer_size"];

/// What reading a provider needs beside the body, and what it tells beside the faults.
pub struct ProviderChange<'a> {
    pub new_id: &'a mut dyn FnMut() -> String,
    pub now: Timestamp,
    /// Whether keys may bring their ids.
    pub own_ids: bool,
    pub env: Env<'a>,
    /// Whether a key other than the one of this id has this name already, at any provider.
    pub key_name_taken: &'a dyn Fn(&str, &str) -> bool,
    /// Whether there is a key of this id, at any provider. Asked for keys that are new.
    pub key_id_taken: &'a dyn Fn(&str) -> bool,
    /// The config file: unknown members are faults, what is absent has its default, and a key without an id
    /// has its name for one.
    pub strict: bool,
    /// Set when a fault is that a name or an id is taken: a conflict, rather than a bad request.
    pub clash: bool,
}

/// Reads a provider: a new one, or `base` replaced by what the body says. All problems go to `faults`;
/// the provider is of use only if there were none.
pub fn provider(
    name: &str,
    body: &Value,
    base: Option<&Provider>,
    change: &mut ProviderChange<'_>,
    faults: &mut Faults,
) -> Option<Provider> {
    let body = Object::of(body, "", faults)?;
    if change.strict {
        only_known(&body, &[PROVIDER, SHOWN].concat(), faults);
    }
    let custom_body = body.object("custom_provider_config", faults).value();
    check_name(name, base, custom_body.is_some(), change.strict, faults);
    refuse_prices(&body, faults);
    // Of what the file declares nothing comes from elsewhere.
    let old = base.filter(|_| !change.strict);
    let custom = match custom_body {
        Some(body) => custom::read(&body, base.and_then(|base| base.custom.as_ref()), change.strict, faults),
        None => base.and_then(|base| base.custom.clone()),
    };
    let flag = |name: &str, faults: &mut Faults| body.boolean(name, faults).value().unwrap_or(false);
    let mut provider = Provider {
        network: network::read(name, &body, old, change.strict, faults),
        proxy: proxy::read(&body, old.and_then(|old| old.proxy.as_ref()), change.strict, change.env, faults),
        concurrency: read_concurrency(&body, old.map(|old| old.concurrency).unwrap_or_default(), change.strict, faults),
        send_back_raw_request: flag("send_back_raw_request", faults),
        send_back_raw_response: flag("send_back_raw_response", faults),
        store_raw_request_response: flag("store_raw_request_response", faults),
        custom,
        openai_config: body.free_object("openai_config", faults).value(),
        keys: base.map(|base| base.keys.clone()).unwrap_or_default(),
        config_hash: base.map(|base| base.config_hash.clone()).unwrap_or_default(),
        created_at: base.map_or(change.now, |base| base.created_at),
        ..Provider::new(name, change.now)
    };
    match old {
        Some(old) => check_keys_unchanged(&body, old, faults),
        None => provider.keys = read_keys(&body, &provider, base, change, faults),
    }
    let keyless = provider.custom.as_ref().is_some_and(|custom| custom.keyless);
    if keyless && !provider.keys.is_empty() {
        let path = if body.has("keys") { "keys" } else { "custom_provider_config.is_key_less" };
        faults.add(path, "a key-less provider takes no keys");
    }
    Some(provider)
}

/// Reads a key of `provider`: a new one, or all of `base` but its id replaced by what the body says.
pub fn provider_key(
    provider: &Provider,
    body: &Value,
    base: Option<&ProviderKey>,
    change: &mut ProviderChange<'_>,
    faults: &mut Faults,
) -> Option<ProviderKey> {
    let body = Object::of(body, "", faults)?;
    if provider.custom.as_ref().is_some_and(|custom| custom.keyless) {
        faults.add("", "a key-less provider takes no keys");
    }
    key::read(provider, &body, base, change, faults)
}

fn check_name(name: &str, base: Option<&Provider>, has_custom: bool, strict: bool, faults: &mut Faults) {
    const NAME_MAX: usize = 64;
    // In the file, the name is the provider's own place.
    let path = if strict { "" } else { "provider" };
    if name.trim().is_empty() {
        return faults.add(path, "Missing provider");
    }
    if is_built_in_provider(name) {
        if has_custom {
            faults.add("custom_provider_config", "Custom provider cannot be same as a standard provider");
        }
        return;
    }
    if base.is_some() {
        return;
    }
    if name.len() > NAME_MAX || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        faults.add(path, format!("a provider's name has 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"));
    } else if is_built_in_provider(&name.to_ascii_lowercase()) {
        faults.add(path, format!("'{name}' is too easily taken for '{}'", name.to_ascii_lowercase()));
    }
    if !has_custom {
        let names = BUILT_IN_PROVIDERS.join(", ");
        let message = format!("'{name}' is not a built-in provider ({names}), so it needs custom_provider_config");
        faults.add(path, message);
    }
}

/// Prices within a provider would be no prices.
fn refuse_prices(body: &Object<'_>, faults: &mut Faults) {
    let said = body.raw("pricing_overrides").value();
    if said.is_some_and(|prices| !is_blank(prices)) {
        faults.add("pricing_overrides", "prices are not set here but by pricing overrides of the scope 'provider'");
    }
}

fn read_concurrency(body: &Object<'_>, default: Concurrency, strict: bool, faults: &mut Faults) -> Concurrency {
    let Some(object) = body.object("concurrency_and_buffer_size", faults).value() else { return default };
    if strict {
        only_known(&object, CONCURRENCY, faults);
    }
    let mut count = |name: &str, title: &str, default: u32| match object.integer(name, faults) {
        Given::Value(count) => match u32::try_from(count) {
            Ok(count) if count > 0 => count,
            Ok(_) => {
                faults.add(object.path(name), format!("{title} must be greater than 0"));
                default
            }
            Err(_) if count < 0 => {
                faults.add(object.path(name), format!("{title} must be greater than 0"));
                default
            }
            Err(_) => {
                faults.add(object.path(name), format!("{title} is too large"));
                default
            }
        },
        Given::Absent | Given::Null => default,
    };
    let read = Concurrency {
        concurrency: count("concurrency", "Concurrency", default.concurrency),
        buffer_size: count("buffer_size", "Buffer size", default.buffer_size),
    };
    if read.concurrency > read.buffer_size {
        faults.add(object.path("concurrency"), "Concurrency must be less than or equal to buffer size");
    }
    read
}

/// The keys of a new provider, or of the file: those that `base` has beside them stay.
fn read_keys(
    body: &Object<'_>,
    provider: &Provider,
    base: Option<&Provider>,
    change: &mut ProviderChange<'_>,
    faults: &mut Faults,
) -> Vec<Arc<ProviderKey>> {
    let stored = base.map_or(&[][..], |base| &base.keys);
    let mut keys: Vec<Arc<ProviderKey>> = Vec::new();
    for body in body.objects("keys", faults).value().unwrap_or_default() {
        let text = |name: &str| body.raw(name).value().and_then(Value::as_str).filter(|text| !text.is_empty());
        let (id, name) = (text("id"), text("name"));
        let same = |key: &&Arc<ProviderKey>| id.map_or(name == Some(key.name.as_str()), |id| id == &*key.id);
        let Some(key) = key::read(provider, &body, stored.iter().find(same).map(|key| &**key), change, faults) else {
            continue;
        };
        if keys.iter().any(|other| other.name == key.name) {
            faults.add(body.path("name"), key::name_is_taken(&key.name));
            change.clash = true;
        } else if keys.iter().any(|other| other.id == key.id) {
            faults.add(body.path("id"), format!("there are two keys with the id '{}'", key.id));
            change.clash = true;
        }
        keys.push(Arc::new(key));
    }
    let is_new = |key: &&Arc<ProviderKey>| keys.iter().all(|new| new.id != key.id && new.name != key.name);
    let kept: Vec<Arc<ProviderKey>> = stored.iter().filter(is_new).cloned().collect();
    keys.extend(kept);
    keys
}

/// Keys have their own endpoints. A body that was made from an answer may hold them as they are.
fn check_keys_unchanged(body: &Object<'_>, base: &Provider, faults: &mut Faults) {
    let Some(entries) = body.array("keys", faults).value() else { return };
    for (i, entry) in entries.iter().enumerate() {
        let id = entry.get("id").and_then(Value::as_str);
        let stored = base.keys.iter().find(|key| id == Some(&*key.id));
        let says_nothing_new = stored.is_some_and(|key| is_within(entry, &show::provider_key(base, key)));
        if !says_nothing_new {
            let name = &base.name;
            faults.add(
                format!("keys[{i}]"),
                format!(
                    "keys are not changed here; use /api/providers/{name}/keys and /api/providers/{name}/keys/{{key_id}}"
                ),
            );
        }
    }
}

/// Whether every member of `part` is in `whole`, with the same value.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|other| is_within(value, other)))
        }
        (Value::Number(part), Value::Number(whole)) => part == whole || part.as_f64() == whole.as_f64(),
        _ => part == whole,
    }
}

/// Whether a value says nothing, however deep.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.iter().all(is_blank),
        Value::Object(members) => members.values().all(is_blank),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A whole number within a range.
fn ranged(object: &Object<'_>, name: &str, least: i64, most: i64, faults: &mut Faults) -> Option<i64> {
    let number = object.integer(name, faults).value()?;
    if !(least..=most).contains(&number) {
        faults.add(object.path(name), format!("must be between {least} and {most}, not {number}"));
        return None;
    }
    Some(number)
}
