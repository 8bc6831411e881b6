//! Providers and their keys as the store keeps them: JSON without a secret in it, and the secrets apart, each
//! with its path, for the store to seal together.
//!
//! What came from the environment is not stored but looked up again when it is loaded.

use super::env_text::Env;
use super::faults::Faults;
use super::read::Object;
use crate::governance::entity::{
    BASE_PROVIDERS, Cloud, CloudConfig, CloudField, CloudShape, Concurrency, CustomProvider, KeyValue, ModelSet,
    Network, Provider, ProviderKey, ProxyKind, UpstreamProxy, Weight, names_a_credential,
};
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Secrets by their paths in the JSON beside them.
pub type Secrets = Vec<(String, Secret)>;

/// What is stored cannot be understood: written by another version, or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

/// All of a provider but its keys.
pub fn store_provider(provider: &Provider) -> (Value, Secrets) {
    let mut secrets = Secrets::new();
    let network = store_network(&provider.network, &mut secrets);
    let proxy = provider.proxy.as_ref().map(|proxy| store_proxy(proxy, &mut secrets));
    let custom = provider.custom.as_ref().map(|custom| {
        json!({
            "base": custom.base,
            "keyless": custom.keyless,
            "allowed_requests": custom.allowed_requests,
            "path_overrides": custom.path_overrides,
        })
    });
    let value = json!({
        "name": &*provider.name,
        "network": network,
        "proxy": proxy,
        "concurrency": provider.concurrency.concurrency,
        "buffer_size": provider.concurrency.buffer_size,
        "send_back_raw_request": provider.send_back_raw_request,
        "send_back_raw_response": provider.send_back_raw_response,
        "store_raw_request_response": provider.store_raw_request_response,
        "custom": custom,
        "openai_config": provider.openai_config,
        "config_hash": provider.config_hash,
        "created_at": provider.created_at.millis(),
        "updated_at": provider.updated_at.millis(),
    });
    (value, secrets)
}

fn store_network(network: &Network, secrets: &mut Secrets) -> Value {
    let mut headers = Map::new();
    for (name, value) in &network.extra_headers {
        let shown = if names_a_credential(name) {
            secrets.push((header_path(name), value.clone()));
            Value::Null
        } else {
            value.expose().into()
        };
        headers.insert(name.clone(), shown);
    }
    json!({
        "base_url": network.base_url,
        // Members of an object may be sorted; headers have an order.
        "header_order": network.extra_headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "extra_headers": headers,
        "request_timeout_ms": millis(network.request_timeout),
        "stream_idle_timeout_ms": millis(network.stream_idle_timeout),
        "max_retries": network.max_retries,
        "retry_backoff_initial_ms": millis(network.retry_backoff_initial),
        "retry_backoff_max_ms": millis(network.retry_backoff_max),
        "insecure_skip_verify": network.insecure_skip_verify,
        "enforce_http2": network.enforce_http2,
        "ca_cert_pem": network.ca_cert_pem.as_deref(),
        "max_conns_per_host": network.max_conns_per_host,
        "beta_header_overrides": network.beta_header_overrides,
    })
}

fn store_proxy(proxy: &UpstreamProxy, secrets: &mut Secrets) -> Value {
    secrets.extend(proxy.password.clone().map(|password| (PROXY_PASSWORD.to_owned(), password)));
    json!({
        "kind": proxy.kind.as_str(),
        "url": proxy.url,
        "username": proxy.username,
        "has_password": proxy.password.is_some(),
    })
}

/// One key.
pub fn store_key(key: &ProviderKey) -> (Value, Secrets) {
    let mut secrets = Secrets::new();
    let cloud = key.cloud.as_ref().map(|cloud| {
        let fields = cloud.fields.iter().map(|(name, field)| {
            let value = match field {
                CloudField::Json(json) => json!({"json": json}),
                CloudField::Text(text) => store_text(text, field_path(name), is_secret(cloud.kind, name), &mut secrets),
            };
            ((*name).to_owned(), value)
        });
        json!({"kind": cloud.kind.provider(), "fields": fields.collect::<Map<_, _>>()})
    });
    let value = store_text(&key.value, VALUE.to_owned(), true, &mut secrets);
    let value = json!({
        "id": &*key.id,
        "name": key.name,
        "value": value,
        "weight": key.weight.millionths(),
        "models": key.models.names(),
        "blacklisted_models": key.blacklisted_models.names(),
        "aliases": key.aliases,
        "enabled": key.enabled,
        "use_for_batch_api": key.use_for_batch_api,
        "cloud": cloud,
        "config_hash": key.config_hash,
        "created_at": key.created_at.millis(),
        "updated_at": key.updated_at.millis(),
    });
    (value, secrets)
}

const VALUE: &str = "value";
const PROXY_PASSWORD: &str = "proxy.password";

fn header_path(name: &str) -> String {
    format!("network.extra_headers.{name}")
}

fn field_path(name: &str) -> String {
    format!("cloud.{name}")
}

fn is_secret(cloud: Cloud, name: &str) -> bool {
    cloud.field(name).is_some_and(|(_, shape)| shape == CloudShape::Secret)
}

fn store_text(text: &KeyValue, path: String, is_secret: bool, secrets: &mut Secrets) -> Value {
    match &text.env_var {
        Some(variable) => json!({"env_var": variable}),
        None if is_secret => {
            secrets.push((path, text.secret.clone()));
            json!({})
        }
        None => json!({"text": text.expose()}),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A stored object while it is read. Everything that was stored is there, or it is unreadable.
struct Stored<'a> {
    object: Object<'a>,
    faults: &'a mut Faults,
}

impl<'a> Stored<'a> {
    fn text(&mut self, name: &str) -> Option<&'a str> {
        self.object.text(name, self.faults).value()
    }

    fn needed_text(&mut self, name: &str) -> &'a str {
        self.text(name).unwrap_or_else(|| self.lost(name, ""))
    }

    fn number<N: TryFrom<i64> + Default>(&mut self, name: &str) -> N {
        let number = self.object.integer(name, self.faults).value();
        number.and_then(|number| N::try_from(number).ok()).unwrap_or_else(|| self.lost(name, N::default()))
    }

    fn duration(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.object.boolean(name, self.faults).value().unwrap_or_else(|| self.lost(name, false))
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        self.object.texts(name, self.faults).value().unwrap_or_else(|| self.lost(name, Vec::new()))
    }

    fn time(&mut self, name: &str) -> Timestamp {
        Timestamp::from_millis(self.number(name))
    }

    /// The members of an object of texts.
    fn map(&mut self, name: &str) -> BTreeMap<String, String> {
        let Some(object) = self.object.object(name, self.faults).value() else {
            return self.lost(name, BTreeMap::new());
        };
        let mut text = |name: &str| object.text(name, self.faults).value().map(str::to_owned);
        object.names().filter_map(|name| Some((name.to_owned(), text(name)?))).collect()
    }

    fn object(&mut self, name: &str) -> Option<Object<'a>> {
        self.object.object(name, self.faults).value()
    }

    fn lost<T>(&mut self, name: &str, instead: T) -> T {
        self.faults.add(self.object.path(name), "is missing or out of range in what is stored");
        instead
    }
}

fn secret<'a>(secrets: &'a Secrets, path: &str) -> Option<&'a Secret> {
    secrets.iter().find(|(known, _)| known == path).map(|(_, secret)| secret)
}

fn finish<T>(loaded: Option<T>, faults: &Faults) -> Result<T, Unreadable> {
    loaded.filter(|_| faults.is_empty()).ok_or_else(|| Unreadable(faults.to_string()))
}

/// A provider as it was stored, without keys.
pub fn load_provider(value: &Value, secrets: &Secrets) -> Result<Provider, Unreadable> {
    let mut faults = Faults::default();
    let loaded = read_provider(value, secrets, &mut faults);
    finish(loaded, &faults)
}

fn read_provider(value: &Value, secrets: &Secrets, faults: &mut Faults) -> Option<Provider> {
    let object = Object::of(value, "", faults)?;
    let network = object.object("network", faults).value();
    let network = network.map(|network| load_network(&mut Stored { object: network, faults }, secrets));
    let proxy = match object.object("proxy", faults).value() {
        Some(proxy) => Some(load_proxy(proxy, secrets, faults)?),
        None => None,
    };
    let custom = match object.object("custom", faults).value() {
        Some(custom) => Some(load_custom(custom, faults)?),
        None => None,
    };
    let mut stored = Stored { object, faults };
    Some(Provider {
        name: stored.needed_text("name").into(),
        network: network.unwrap_or_else(|| stored.lost("network", Network::default())),
        proxy,
        concurrency: Concurrency {
            concurrency: stored.number("concurrency"),
            buffer_size: stored.number("buffer_size"),
        },
        send_back_raw_request: stored.flag("send_back_raw_request"),
        send_back_raw_response: stored.flag("send_back_raw_response"),
        store_raw_request_response: stored.flag("store_raw_request_response"),
        custom,
        openai_config: stored.text("openai_config").map(str::to_owned),
        keys: Vec::new(),
        config_hash: stored.needed_text("config_hash").to_owned(),
        created_at: stored.time("created_at"),
        updated_at: stored.time("updated_at"),
    })
}

fn load_proxy(proxy: Object<'_>, secrets: &Secrets, faults: &mut Faults) -> Option<UpstreamProxy> {
    let mut stored = Stored { object: proxy, faults };
    let kind = ProxyKind::of(stored.needed_text("kind"));
    let password = stored.flag("has_password").then(|| secret(secrets, PROXY_PASSWORD).cloned());
    Some(UpstreamProxy {
        url: stored.needed_text("url").to_owned(),
        username: stored.needed_text("username").to_owned(),
        password: password.and_then(|password| password.or_else(|| stored.lost("password", None))),
        kind: kind.or_else(|| stored.lost("kind", None))?,
    })
}

fn load_custom(custom: Object<'_>, faults: &mut Faults) -> Option<CustomProvider> {
    let has_list = custom.raw("allowed_requests").value().is_some();
    let mut stored = Stored { object: custom, faults };
    let base = stored.needed_text("base");
    let allowed: Option<BTreeSet<String>> = has_list.then(|| stored.texts("allowed_requests").into_iter().collect());
    let base = BASE_PROVIDERS.into_iter().find(|known| *known == base);
    Some(CustomProvider {
        base: base.or_else(|| stored.lost("base", None))?,
        keyless: stored.flag("keyless"),
        allowed_requests: allowed,
        path_overrides: stored.map("path_overrides"),
    })
}

fn load_network(stored: &mut Stored<'_>, secrets: &Secrets) -> Network {
    let names = stored.texts("header_order");
    let headers = stored.object("extra_headers");
    let beta = stored.object("beta_header_overrides");
    let mut extra_headers = Vec::with_capacity(names.len());
    for name in names {
        let clear = headers.as_ref().and_then(|headers| headers.text(&name, stored.faults).value()).map(Secret::new);
        match clear.or_else(|| secret(secrets, &header_path(&name)).cloned()) {
            Some(value) => extra_headers.push((name, value)),
            None => stored.lost(&format!("extra_headers.{name}"), ()),
        }
    }
    let mut beta_header_overrides = BTreeMap::new();
    for (beta, name) in beta.iter().flat_map(|beta| beta.names().map(move |name| (beta, name))) {
        let on = beta.boolean(name, stored.faults).value();
        beta_header_overrides.insert(name.to_owned(), on.unwrap_or(false));
    }
    Network {
        beta_header_overrides,
        base_url: stored.text("base_url").map(str::to_owned),
        extra_headers,
        request_timeout: stored.duration("request_timeout_ms"),
        stream_idle_timeout: stored.duration("stream_idle_timeout_ms"),
        max_retries: stored.number("max_retries"),
        retry_backoff_initial: stored.duration("retry_backoff_initial_ms"),
        retry_backoff_max: stored.duration("retry_backoff_max_ms"),
        insecure_skip_verify: stored.flag("insecure_skip_verify"),
        enforce_http2: stored.flag("enforce_http2"),
        ca_cert_pem: stored.text("ca_cert_pem").map(Arc::from),
        max_conns_per_host: stored.number("max_conns_per_host"),
    }
}

/// A key as it was stored. One whose environment variable is not set any more is loaded all the same:
/// `ProviderKey::missing_variables` names it, and it serves nothing.
pub fn load_key(value: &Value, secrets: &Secrets, env: Env<'_>) -> Result<ProviderKey, Unreadable> {
    let mut faults = Faults::default();
    let loaded = read_key(value, secrets, env, &mut faults);
    finish(loaded, &faults)
}

fn read_key(value: &Value, secrets: &Secrets, env: Env<'_>, faults: &mut Faults) -> Option<ProviderKey> {
    let object = Object::of(value, "", faults)?;
    let cloud = match object.object("cloud", faults).value() {
        Some(cloud) => Some(load_cloud(cloud, secrets, env, faults)?),
        None => None,
    };
    let own = object.object(VALUE, faults).value().and_then(|own| load_text(own, VALUE, true, secrets, env, faults));
    let mut stored = Stored { object, faults };
    Some(ProviderKey {
        id: stored.needed_text("id").into(),
        name: stored.needed_text("name").to_owned(),
        value: own.or_else(|| stored.lost(VALUE, None))?,
        weight: Weight::from_millionths(stored.number("weight")),
        models: ModelSet::from_names(stored.texts("models")),
        blacklisted_models: ModelSet::from_names(stored.texts("blacklisted_models")),
        aliases: stored.map("aliases"),
        enabled: stored.flag("enabled"),
        use_for_batch_api: stored.flag("use_for_batch_api"),
        cloud,
        config_hash: stored.needed_text("config_hash").to_owned(),
        created_at: stored.time("created_at"),
        updated_at: stored.time("updated_at"),
    })
}

fn load_cloud(cloud: Object<'_>, secrets: &Secrets, env: Env<'_>, faults: &mut Faults) -> Option<CloudConfig> {
    let mut stored = Stored { object: cloud, faults };
    let name = stored.needed_text("kind");
    let kind = Cloud::of(name).or_else(|| stored.lost("kind", None))?;
    let objects = stored.object("fields").or_else(|| stored.lost("fields", None))?;
    let mut fields = BTreeMap::new();
    for name in objects.names() {
        let object = objects.object(name, stored.faults).value()?;
        let (name, shape) = kind.field(name).or_else(|| stored.lost(name, None))?;
        let field = match shape {
            CloudShape::Name | CloudShape::Json => {
                object.text("json", stored.faults).value().map(|json| CloudField::Json(json.to_owned()))
            }
            CloudShape::Text | CloudShape::Url | CloudShape::Secret => {
                let is_secret = shape == CloudShape::Secret;
                load_text(object, &field_path(name), is_secret, secrets, env, stored.faults).map(CloudField::Text)
            }
        };
        fields.insert(name, field.or_else(|| stored.lost(name, None))?);
    }
    Some(CloudConfig { kind, fields })
}

fn load_text(
    object: Object<'_>,
    path: &str,
    is_secret: bool,
    secrets: &Secrets,
    env: Env<'_>,
    faults: &mut Faults,
) -> Option<KeyValue> {
    if let Some(variable) = object.text("env_var", faults).value() {
        let found = env(variable).filter(|text| !text.is_empty());
        return Some(KeyValue::variable(variable, found.map(Secret::new)));
    }
    if is_secret {
        return secret(secrets, path).map(|secret| KeyValue { secret: secret.clone(), env_var: None });
    }
    object.text("text", faults).value().map(KeyValue::text)
}
