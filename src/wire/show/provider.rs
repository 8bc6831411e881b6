//! Answers: providers, their keys and their models. No secret leaves through here but redacted.

use crate::governance::catalog::Catalog;
use crate::governance::entity::{
    Cloud, CloudConfig, CloudField, CloudShape, CustomProvider, ModelSet, Network, Provider, ProviderKey,
    UpstreamProxy, is_built_in_provider, names_a_credential,
};
use crate::governance::model_name;
use crate::wire::env_text::{HIDDEN, show_secret, show_text};
use crate::wire::provider::REQUEST_NAMES;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::limits::{insert_hash, insert_times};
use super::virtual_key::weight;
pub use crate::wire::env_text::redact;

/// A provider as administrators see it, without its keys.
pub fn provider(provider: &Provider) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), (*provider.name).into());
    object.insert("network_config".into(), network(&provider.network));
    let bounds = provider.concurrency;
    object.insert(
        "concurrency_and_buffer_size".into(),
        json!({"concurrency": bounds.concurrency, "buffer_size": bounds.buffer_size}),
    );
    object.insert("proxy_config".into(), provider.proxy.as_ref().map_or(Value::Null, proxy));
    object.insert("send_back_raw_request".into(), provider.send_back_raw_request.into());
    object.insert("send_back_raw_response".into(), provider.send_back_raw_response.into());
    object.insert("store_raw_request_response".into(), provider.store_raw_request_response.into());
    if let Some(own) = &provider.custom {
        object.insert("custom_provider_config".into(), custom(own));
    }
    if let Some(config) = &provider.openai_config {
        object.insert("openai_config".into(), stored_json(config));
    }
    let (status, description) = match provider.speaks_openai() {
        true => ("active", None),
        false => ("error", Some("this version does not speak this provider's own dialect: calls to it are refused")),
    };
    object.insert("provider_status".into(), status.into());
    if let Some(description) = description {
        object.insert("description".into(), description.into());
    }
    object.insert("key_count".into(), provider.keys.len().into());
    insert_hash(&mut object, &provider.config_hash);
    insert_times(&mut object, provider.created_at, provider.updated_at);
    Value::Object(object)
}

fn network(network: &Network) -> Value {
    let Network {
        base_url,
        extra_headers,
        request_timeout,
        stream_idle_timeout,
        max_retries,
        retry_backoff_initial,
        retry_backoff_max,
        insecure_skip_verify,
        enforce_http2,
        ca_cert_pem,
        max_conns_per_host,
        beta_header_overrides,
    } = network;
    let header = |(name, value): &(String, crate::governance::secret::Secret)| {
        let shown = if names_a_credential(name) { redact(value.expose()) } else { value.expose().to_owned() };
        (name.clone(), shown.into())
    };
    let headers: Map<String, Value> = extra_headers.iter().map(header).collect();
    json!({
        "base_url": base_url.as_deref().unwrap_or_default(),
        "extra_headers": headers,
        "default_request_timeout_in_seconds": request_timeout.as_secs(),
        "stream_idle_timeout_in_seconds": stream_idle_timeout.as_secs(),
        "max_retries": max_retries,
        "retry_backoff_initial": millis(*retry_backoff_initial),
        "retry_backoff_max": millis(*retry_backoff_max),
        "insecure_skip_verify": insecure_skip_verify,
        "enforce_http2": enforce_http2,
        "ca_cert_pem": if ca_cert_pem.is_some() { HIDDEN } else { "" },
        "max_conns_per_host": max_conns_per_host,
        "beta_header_overrides": beta_header_overrides,
    })
}

fn proxy(proxy: &UpstreamProxy) -> Value {
    json!({
        "type": proxy.kind.as_str(),
        "url": proxy.url,
        "username": proxy.username,
        "password": if proxy.password.is_some() { HIDDEN } else { "" },
        // None is taken while the proxy itself is not spoken to by TLS.
        "ca_cert_pem": "",
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn custom(custom: &CustomProvider) -> Value {
    let mut object = Map::new();
    object.insert("base_provider_type".into(), custom.base.into());
    object.insert("is_key_less".into(), custom.keyless.into());
    if let Some(allowed) = &custom.allowed_requests {
        let known = REQUEST_NAMES.iter().map(|name| ((*name).to_owned(), allowed.contains(*name).into()));
        let all: Map<String, Value> = known.chain(allowed.iter().map(|name| (name.clone(), true.into()))).collect();
        object.insert("allowed_requests".into(), all.into());
    }
    object.insert("request_path_overrides".into(), json!(custom.path_overrides));
    Value::Object(object)
}

/// A key as administrators see it.
pub fn provider_key(provider: &Provider, key: &ProviderKey) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), (*key.id).into());
    object.insert("name".into(), key.name.as_str().into());
    object.insert("provider".into(), (*provider.name).into());
    object.insert("value".into(), show_secret(&key.value));
    object.insert("models".into(), key.models.names().into());
    object.insert("blacklisted_models".into(), key.blacklisted_models.names().into());
    object.insert("weight".into(), weight(key.weight));
    object.insert("aliases".into(), json!(key.aliases));
    object.insert("enabled".into(), key.enabled.into());
    object.insert("use_for_batch_api".into(), key.use_for_batch_api.into());
    if let Some(config) = &key.cloud {
        object.insert(config.kind.member().into(), cloud(config));
    }
    let missing: Vec<&str> = key.missing_variables().collect();
    if !missing.is_empty() {
        let description = format!("not used: environment variable {} is not set", missing.join(", "));
        object.insert("description".into(), description.into());
    }
    insert_hash(&mut object, &key.config_hash);
    insert_times(&mut object, key.created_at, key.updated_at);
    Value::Object(object)
}

fn cloud(config: &CloudConfig) -> Value {
    let is_secret = |name: &str| Cloud::field(config.kind, name).is_some_and(|(_, shape)| shape == CloudShape::Secret);
    let shown = config.fields.iter().map(|(name, field)| {
        let value = match field {
            CloudField::Text(text) if is_secret(name) => show_secret(text),
            CloudField::Text(text) => show_text(text),
            CloudField::Json(json) => stored_json(json),
        };
        ((*name).to_owned(), value)
    });
    Value::Object(shown.collect())
}

/// A key within a virtual key's provider config: nothing of its secrets. `number` is any integer, for clients
/// that want one.
pub fn expanded_key(number: usize, provider: &Provider, key: &ProviderKey) -> Value {
    json!({
        "id": number,
        "key_id": &*key.id,
        "name": key.name,
        "provider": &*provider.name,
        "value": {"value": "", "env_var": "", "from_env": false},
        "models": key.models.names(),
        "blacklisted_models": key.blacklisted_models.names(),
        "weight": weight(key.weight),
        "enabled": key.enabled,
        "use_for_batch_api": key.use_for_batch_api,
    })
}

fn stored_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// Which models are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelQuery<'a> {
    /// A part of the name, without regard to case and punctuation.
    pub query: &'a str,
    pub provider: Option<&'a str>,
    /// Ids of provider keys. Those that nobody has select nothing and hide nothing.
    pub keys: &'a [&'a str],
    /// All models that are known, whether a key may use them or not.
    pub unfiltered: bool,
    pub limit: usize,
}

/// A model that is known of a provider.
struct Model<'a> {
    provider: &'a str,
    name: &'a str,
    /// Ids of the keys that may use it.
    keys: Vec<&'a str>,
}

/// The models that keys list by name or alias or that have a price, filtered, then cut to the limit.
pub fn models(providers: &[&Provider], catalog: &Catalog, query: &ModelQuery<'_>) -> Value {
    let found = find(providers, catalog, query);
    let shown: Vec<Value> = found.iter().take(query.limit).map(|model| Value::Object(shown(model, query))).collect();
    json!({"models": shown, "total": found.len()})
}

/// The same with what the price table knows of them.
pub fn models_details(providers: &[&Provider], catalog: &Catalog, query: &ModelQuery<'_>) -> Value {
    let found = find(providers, catalog, query);
    let detailed = found.iter().take(query.limit).map(|model| {
        let mut object = shown(model, query);
        let price = catalog.any(model.provider, model.name);
        let (input, output) = price.map_or((None, None), |price| (price.input_tokens_max, price.output_tokens_max));
        let known = [("context_length", input), ("max_input_tokens", input), ("max_output_tokens", output)];
        object.extend(known.into_iter().filter_map(|(name, tokens)| Some((name.to_owned(), tokens?.into()))));
        Value::Object(object)
    });
    let detailed: Vec<Value> = detailed.collect();
    json!({"models": detailed, "total": found.len()})
}

/// Their names alone, as model configs use them: without whoever made or hosts them and without the release,
/// each once.
pub fn models_base(providers: &[&Provider], catalog: &Catalog, query: &ModelQuery<'_>) -> Value {
    let found = find(providers, catalog, query);
    let bases: BTreeSet<&str> = found.iter().map(|model| model_name::base(model.name)).collect();
    let shown: Vec<&str> = bases.iter().copied().take(query.limit).collect();
    json!({"models": shown, "total": bases.len()})
}

fn shown(model: &Model<'_>, query: &ModelQuery<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("name".into(), model.name.into());
    object.insert("provider".into(), model.provider.into());
    if !query.unfiltered && !model.keys.is_empty() {
        object.insert("accessible_by_keys".into(), json!(model.keys));
    }
    object
}

/// By provider, then by name.
fn find<'a>(providers: &[&'a Provider], catalog: &'a Catalog, query: &ModelQuery<'a>) -> Vec<Model<'a>> {
    let all_keys = || providers.iter().flat_map(|provider| &provider.keys);
    let asked: Vec<&str> = query.keys.iter().copied().filter(|id| all_keys().any(|key| *key.id == **id)).collect();
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for provider in providers.iter().filter(|provider| query.provider.is_none_or(|name| name == &*provider.name)) {
        let chosen = |key: &ProviderKey| key.enabled && (asked.is_empty() || asked.contains(&&*key.id));
        for name in known(provider, catalog, query.unfiltered) {
            let keys = provider.keys.iter().filter(|key| chosen(key) && key.lists(&provider.name, name));
            let keys: Vec<&str> = keys.map(|key| &*key.id).collect();
            let needs_no_key = provider.keyless() && asked.is_empty();
            if query.unfiltered || needs_no_key || !keys.is_empty() {
                found.insert((&provider.name, name), keys);
            }
        }
    }
    if let Some(name) = query.provider.filter(|name| query.unfiltered && is_built_in_provider(name)) {
        // A built-in provider that is not configured has models all the same.
        for model in catalog.models(name) {
            found.entry((name, model)).or_default();
        }
    }
    let wanted = plain(query.query);
    let matching = found.into_iter().filter(|((_, name), _)| wanted.is_empty() || plain(name).contains(&wanted));
    matching.map(|((provider, name), keys)| Model { provider, name, keys }).collect()
}

/// Every name that is known of a provider's models, without the provider before it.
fn known<'a>(provider: &'a Provider, catalog: &'a Catalog, disabled_too: bool) -> BTreeSet<&'a str> {
    fn listed(set: &ModelSet) -> &[String] {
        match set {
            ModelSet::All => &[],
            ModelSet::Only(names) => names,
        }
    }
    let keys = provider.keys.iter().filter(|key| disabled_too || key.enabled);
    let names = keys.flat_map(|key| listed(&key.models).iter().chain(key.aliases.keys())).map(String::as_str);
    let bare =
        |name: &'a str| name.strip_prefix(&*provider.name).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    names.chain(catalog.models(&provider.name)).map(bare).collect()
}

/// Letters and digits in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}
