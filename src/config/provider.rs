//! The `providers` section, in the contract's shape.

use super::file::{Reading, only_known, ranged};
use crate::governance::entity::{
    BUILT_IN_PROVIDERS, ModelSet, Network, Provider, ProviderKey, Weight, built_in_base_url, is_built_in_provider,
};
use crate::governance::request::RequestKind;
use crate::governance::secret::Secret;
use crate::wire::faults::Faults;
use crate::wire::read::{Given, Object};
use http::{HeaderName, HeaderValue, Uri};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(super) const PROVIDER: &[&str] = &["keys", "network_config", "custom_provider_config"];
pub(super) const KEY: &[&str] =
    &["id", "name", "value", "models", "blacklisted_models", "weight", "aliases", "enabled"];
pub(super) const NETWORK: &[&str] = &[
    "base_url",
    "extra_headers",
    "default_request_timeout_in_seconds",
    "stream_idle_timeout_in_seconds",
    "max_retries",
    "retry_backoff_initial",
    "retry_backoff_max",
    "insecure_skip_verify",
    "enforce_http2",
];
pub(super) const CUSTOM: &[&str] = &["base_provider_type", "is_key_less", "allowed_requests", "request_path_overrides"];

/// Members of the contract that this version takes without acting on them.
const IDLE_PROVIDER: &[&str] = &[
    "concurrency_and_buffer_size",
    "send_back_raw_request",
    "send_back_raw_response",
    "store_raw_request_response",
    "openai_config",
    "pricing_overrides",
];
const IDLE_KEY: &[&str] = &["use_for_batch_api", "config_hash", "status", "description"];
const IDLE_NETWORK: &[&str] = &["max_conns_per_host", "beta_header_overrides"];

/// Headers that a provider's configuration must not set: they are ours, or they are credentials.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "accept-encoding",
];

pub(super) fn read_providers(root: &Object<'_>, reading: &mut Reading<'_>) -> Vec<Arc<Provider>> {
    let Some(section) = root.object("providers", reading.faults).value() else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    let mut providers = Vec::new();
    for name in section.names() {
        let Some(body) = section.object(name, reading.faults).value() else { continue };
        if let Some(provider) = read_provider(name, &body, &mut names, reading) {
            providers.push(Arc::new(provider));
        }
    }
    providers
}

fn read_provider(
    name: &str,
    body: &Object<'_>,
    key_names: &mut Vec<String>,
    reading: &mut Reading<'_>,
) -> Option<Provider> {
    let known: Vec<&str> = PROVIDER.iter().chain(IDLE_PROVIDER).copied().chain(["proxy_config"]).collect();
    only_known(body, &known, reading.faults);
    idle(body, IDLE_PROVIDER, reading);
    let faults = &mut *reading.faults;
    if let Some(proxy) = body.object("proxy_config", faults).value()
        && proxy.text("type", faults).value().is_some_and(|kind| kind != "none")
    {
        faults.add(proxy.path("type"), "reaching a provider through a proxy is not available in this version");
    }
    if name.is_empty()
        || name.len() > 64
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    {
        faults.add(body.here(), "a provider's name has 1 to 64 lower-case letters, digits, '-', '_' or '.'");
    }
    let custom = body.object("custom_provider_config", faults).value();
    match (&custom, is_built_in_provider(name)) {
        (Some(_), true) => {
            faults.add(body.path("custom_provider_config"), "Custom provider cannot be same as a standard provider")
        }
        (None, true) if built_in_base_url(name).is_none() => {
            let message = format!(
                "provider '{name}' is not served by this version; 'openai' is, and any provider that speaks like it through \
                 custom_provider_config"
            );
            faults.add(body.here(), message);
        }
        (None, false) => {
            let message = format!(
                "'{name}' is not a built-in provider ({}), so it needs custom_provider_config",
                BUILT_IN_PROVIDERS.join(", ")
            );
            faults.add(body.here(), message);
        }
        _ => {}
    }
    let (keyless, allowed_requests, path_overrides) =
        custom.as_ref().map(|custom| read_custom(custom, faults)).unwrap_or_default();
    let network = read_network(name, body, reading);
    let keys = read_keys(body, keyless, key_names, reading);
    if keys.is_empty() && !keyless {
        reading.warnings.push(format!("provider '{name}' has no key: calls to it will be refused"));
    }
    Some(Provider { name: name.into(), keyless, allowed_requests, path_overrides, network: network?, keys })
}

type Custom = (bool, Option<BTreeSet<RequestKind>>, BTreeMap<RequestKind, String>);

fn read_custom(custom: &Object<'_>, faults: &mut Faults) -> Custom {
    only_known(custom, CUSTOM, faults);
    match custom.text("base_provider_type", faults).value() {
        Some("openai") => {}
        None => faults.add(
            custom.path("base_provider_type"),
            "BaseProviderType is required when CustomProviderConfig is provided",
        ),
        Some(other @ ("anthropic" | "bedrock" | "cohere" | "gemini" | "huggingface" | "replicate")) => {
            faults.add(
                custom.path("base_provider_type"),
                format!("'{other}' is not served by this version; 'openai' is"),
            );
        }
        Some(_) => faults.add(custom.path("base_provider_type"), "BaseProviderType must be a standard provider"),
    }
    let allowed = custom.object("allowed_requests", faults).value().map(|allowed| {
        let kinds = allowed.names().filter(|name| allowed.boolean(name, faults).value() == Some(true));
        // Kinds that nobody serves here yet are allowed in vain, which does no harm. The streamed form
        // of a kind is the kind.
        kinds.filter_map(|name| RequestKind::from_name(name.trim_end_matches("_stream"))).collect()
    });
    let mut overrides = BTreeMap::new();
    if let Some(paths) = custom.object("request_path_overrides", faults).value() {
        for name in paths.names() {
            let Some(path) = paths.text(name, faults).value() else { continue };
            match path.parse::<Uri>() {
                Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                    faults.add(paths.path(name), "must not carry a user or password");
                }
                Ok(uri) if path.starts_with('/') || matches!(uri.scheme_str(), Some("http" | "https")) => {}
                _ => faults.add(paths.path(name), "is neither a path that begins with / nor a URL"),
            }
            if let Some(kind) = RequestKind::from_name(name.trim_end_matches("_stream")) {
                overrides.insert(kind, path.to_owned());
            }
        }
    }
    (custom.boolean("is_key_less", faults).value().unwrap_or(false), allowed, overrides)
}

fn read_network(name: &str, body: &Object<'_>, reading: &mut Reading<'_>) -> Option<Network> {
    let empty = Value::Object(serde_json::Map::new());
    let network = match body.object("network_config", reading.faults) {
        Given::Value(network) => network,
        Given::Absent | Given::Null => Object::of(&empty, body.path("network_config"), reading.faults)?,
    };
    let known: Vec<&str> = NETWORK.iter().chain(IDLE_NETWORK).copied().chain(["ca_cert_pem"]).collect();
    only_known(&network, &known, reading.faults);
    idle(&network, IDLE_NETWORK, reading);
    let faults = &mut *reading.faults;
    if network.text("ca_cert_pem", faults).value().is_some_and(|pem| !pem.is_empty()) {
        faults.add(
            network.path("ca_cert_pem"),
            "is not available in this version; add the authority to the system's store",
        );
    }
    let base_url = match network.text("base_url", faults).value().filter(|url| !url.is_empty()) {
        Some(url) => check_url(url, network.path("base_url"), faults),
        None => built_in_base_url(name).map(str::to_owned),
    };
    if base_url.is_none() && network.raw("base_url").value().is_none() {
        faults.add(network.path("base_url"), format!("is required: where is '{name}'?"));
    }
    let mut millis = |name, default: u64| {
        let given = network.integer(name, faults).value().filter(|millis| *millis != 0);
        if given.is_some_and(|millis| !(100..=1_000_000).contains(&millis)) {
            faults.add(network.path(name), "must be 0 (the default) or 100 to 1000000 milliseconds");
        }
        Duration::from_millis(given.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(default))
    };
    let (initial, max) = (millis("retry_backoff_initial", 500), millis("retry_backoff_max", 5_000));
    if initial > max {
        faults.add(network.path("retry_backoff_initial"), "is larger than retry_backoff_max");
    }
    let mut seconds = |name, default: u64| {
        let given = ranged(&network, name, 1, 86_400, faults).and_then(|seconds| u64::try_from(seconds).ok());
        Duration::from_secs(given.unwrap_or(default))
    };
    let network = Network {
        request_timeout: seconds("default_request_timeout_in_seconds", 300),
        stream_idle_timeout: seconds("stream_idle_timeout_in_seconds", 60),
        base_url: base_url.clone().unwrap_or_default(),
        extra_headers: read_headers(&network, faults),
        max_retries: ranged(&network, "max_retries", 0, 10, faults).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        retry_backoff_initial: initial,
        retry_backoff_max: max,
        insecure_skip_verify: network.boolean("insecure_skip_verify", faults).value().unwrap_or(false),
        enforce_http2: network.boolean("enforce_http2", faults).value().unwrap_or(false),
    };
    base_url.map(|_| network)
}

fn check_url(url: &str, path: String, faults: &mut Faults) -> Option<String> {
    let trimmed = url.trim_end_matches('/');
    let problem = match trimmed.parse::<Uri>() {
        Err(_) => Some("is no URL"),
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => Some("must begin with http:// or https://"),
        Ok(uri) if uri.host().is_none_or(str::is_empty) => Some("has no host"),
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Some("must not carry a user or password")
        }
        Ok(uri) if uri.query().is_some() || trimmed.contains('#') => Some("must not have a query or a fragment"),
        Ok(_) => None,
    };
    match problem {
        None => Some(trimmed.to_owned()),
        Some(problem) => {
            // The URL itself may hold a password, so it is not repeated.
            faults.add(path, problem);
            None
        }
    }
}

fn read_headers(network: &Object<'_>, faults: &mut Faults) -> Vec<(String, String)> {
    let Some(headers) = network.object("extra_headers", faults).value() else { return Vec::new() };
    let mut read = Vec::new();
    for name in headers.names() {
        let Some(value) = headers.text(name, faults).value() else { continue };
        let lower = name.to_ascii_lowercase();
        if HeaderName::try_from(name).is_err() {
            faults.add(headers.path(name), "is no header name");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            faults.add(headers.path(name), "cannot be set here: it carries a credential or belongs to the connection");
        } else if HeaderValue::try_from(value).is_err() {
            faults.add(headers.path(name), "has characters that no header can carry");
        } else {
            read.push((lower, value.to_owned()));
        }
    }
    read
}

fn read_keys(
    body: &Object<'_>,
    keyless: bool,
    names: &mut Vec<String>,
    reading: &mut Reading<'_>,
) -> Vec<Arc<ProviderKey>> {
    let keys = body.objects("keys", reading.faults).value().unwrap_or_default();
    if keyless && !keys.is_empty() {
        reading.faults.add(body.path("keys"), "a key-less provider takes no keys");
    }
    keys.iter().filter_map(|key| read_key(key, names, reading)).map(Arc::new).collect()
}

fn read_key(key: &Object<'_>, names: &mut Vec<String>, reading: &mut Reading<'_>) -> Option<ProviderKey> {
    let known: Vec<&str> = KEY.iter().chain(IDLE_KEY).copied().collect();
    only_known(key, &known, reading.faults);
    idle(key, &["use_for_batch_api"], reading);
    let faults = &mut *reading.faults;
    let name = key.text("name", faults).value().unwrap_or_default().to_owned();
    if name.trim().is_empty() {
        if key.text("name", &mut Faults::default()).value().is_some() || key.raw("name").value().is_none() {
            faults.add(key.path("name"), "is required");
        }
    } else if names.contains(&name) {
        faults.add(key.path("name"), format!("API key names must be unique across providers: '{name}'"));
    }
    names.push(name.clone());
    let value = read_secret(key, faults);
    if value.as_ref().is_none_or(Secret::is_empty) {
        faults.add(key.path("value"), "is required");
    } else if value.as_ref().is_some_and(|value| HeaderValue::try_from(value.expose()).is_err()) {
        faults.add(key.path("value"), "has characters that no header can carry");
    }
    let models = key.whitelist("models", faults).value().map_or(ModelSet::All, ModelSet::from_names);
    let blacklisted = key.whitelist("blacklisted_models", faults).value().unwrap_or_default();
    let mut aliases = BTreeMap::new();
    if let Some(object) = key.object("aliases", faults).value() {
        for model in object.names() {
            if let Some(id) = object.text(model, faults).value() {
                aliases.insert(model.to_owned(), id.to_owned());
            }
        }
    }
    Some(ProviderKey {
        id: key.text("id", faults).value().filter(|id| !id.is_empty()).unwrap_or(&name).into(),
        name,
        value: value?,
        weight: key.weight("weight", faults).value().unwrap_or(Weight::ONE),
        models,
        blacklisted_models: ModelSet::from_names(blacklisted),
        aliases,
        enabled: key.boolean("enabled", faults).value().unwrap_or(true),
    })
}

/// A text, or the contract's object around one.
fn read_secret(key: &Object<'_>, faults: &mut Faults) -> Option<Secret> {
    match key.raw("value").value()? {
        Value::Object(_) => {
            let object = key.object("value", faults).value()?;
            let text = object.text("value", faults).value().filter(|text| !text.is_empty());
            text.or_else(|| object.text("env_var", faults).value()).map(Secret::new)
        }
        _ => key.text("value", faults).value().map(Secret::new),
    }
}

/// Names what is set and has no effect.
fn idle(object: &Object<'_>, names: &[&str], reading: &mut Reading<'_>) {
    let set: Vec<String> = names
        .iter()
        .filter(|name| object.raw(name).value().is_some_and(|value| *value != Value::Bool(false)))
        .map(|name| object.path(name))
        .collect();
    if !set.is_empty() {
        reading.warnings.push(format!("accepted, but without effect in this version: {}", set.join(", ")));
    }
}
