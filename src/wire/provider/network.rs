//! How a provider is reached.

use super::ranged;
use crate::governance::entity::{Network, Provider, built_in_base_url, is_built_in_provider, names_a_credential};
use crate::governance::secret::Secret;
use crate::wire::env_text::is_redacted;
use crate::wire::faults::Faults;
use crate::wire::read::Object;
use crate::wire::strict::only_known;
use http::{HeaderName, HeaderValue, Uri};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The members of `network_config`.
pub const NETWORK: &[&str] = &[
    "base_url",
    "extra_headers",
    "default_request_timeout_in_seconds",
    "stream_idle_timeout_in_seconds",
    "max_retries",
    "retry_backoff_initial",
    "retry_backoff_max",
    "insecure_skip_verify",
    "enforce_http2",
    "ca_cert_pem",
    "max_conns_per_host",
    "beta_header_overrides",
];

/// Headers that a provider's configuration must not set: they are ours, or they are credentials.
const RESERVED_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "xi-api-key",
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
const SECONDS_MAX: i64 = 86_400;
const BACKOFF_MILLIS: std::ops::RangeInclusive<i64> = 100..=1_000_000;
const CONNECTIONS_MAX: i64 = 10_000;
/// As many as a server takes in a request.
const HEADERS_MAX: usize = 100;
/// Certificates of one provider; a bundle of all the world's is in the system.
const PEM_BYTES_MAX: usize = 256 * 1024;

/// Reads `network_config`. What is absent has its default, and what is redacted is `stored`'s.
pub(super) fn read(
    name: &str,
    body: &Object<'_>,
    stored: Option<&Provider>,
    strict: bool,
    faults: &mut Faults,
) -> Network {
    let default = Network { base_url: built_in_base_url(name).map(str::to_owned), ..Network::default() };
    let Some(network) = body.object("network_config", faults).value() else {
        if !is_built_in_provider(name) && body.raw("network_config").value().is_none() {
            faults.add(body.path("network_config.base_url"), format!("is required: where is '{name}'?"));
        }
        return default;
    };
    if strict {
        only_known(&network, NETWORK, faults);
    }
    let stored = stored.map(|stored| &stored.network);
    let base_url = match network.text("base_url", faults).value().filter(|url| !url.is_empty()) {
        Some(url) => check_url(url, network.path("base_url"), false, faults),
        None => default.base_url,
    };
    let said = network.raw("base_url").value().is_some_and(|url| url.as_str() != Some(""));
    if base_url.is_none() && !said && !is_built_in_provider(name) {
        faults.add(network.path("base_url"), format!("is required: where is '{name}'?"));
    }
    let initial = millis(&network, "retry_backoff_initial", default.retry_backoff_initial, faults);
    let max = millis(&network, "retry_backoff_max", default.retry_backoff_max, faults);
    if initial > max {
        faults.add(network.path("retry_backoff_initial"), "is larger than retry_backoff_max");
    }
    let connections = network.integer("max_conns_per_host", faults).value().filter(|count| *count != 0);
    if connections.is_some_and(|count| count < 0) {
        faults.add(network.path("max_conns_per_host"), "must not be negative");
    }
    let flag = |name: &str, faults: &mut Faults| network.boolean(name, faults).value().unwrap_or(false);
    Network {
        base_url,
        extra_headers: read_headers(&network, stored, faults),
        request_timeout: seconds(&network, "default_request_timeout_in_seconds", default.request_timeout, faults),
        stream_idle_timeout: seconds(&network, "stream_idle_timeout_in_seconds", default.stream_idle_timeout, faults),
        max_retries: ranged(&network, "max_retries", 0, 10, faults).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        retry_backoff_initial: initial,
        retry_backoff_max: max,
        insecure_skip_verify: flag("insecure_skip_verify", faults),
        enforce_http2: flag("enforce_http2", faults),
        ca_cert_pem: read_authorities(&network, stored, faults),
        max_conns_per_host: connections
            .and_then(|count| u32::try_from(count.min(CONNECTIONS_MAX)).ok())
            .unwrap_or(default.max_conns_per_host),
        beta_header_overrides: read_beta_headers(&network, faults),
    }
}

/// Whole seconds; 0 is the default.
fn seconds(network: &Object<'_>, name: &str, default: Duration, faults: &mut Faults) -> Duration {
    let given = ranged(network, name, 0, SECONDS_MAX, faults).filter(|seconds| *seconds != 0);
    given.and_then(|seconds| u64::try_from(seconds).ok()).map_or(default, Duration::from_secs)
}

/// Milliseconds of a wait between tries; 0 is the default.
fn millis(network: &Object<'_>, name: &str, default: Duration, faults: &mut Faults) -> Duration {
    let Some(given) = network.integer(name, faults).value().filter(|millis| *millis != 0) else { return default };
    if !BACKOFF_MILLIS.contains(&given) {
        let (least, most) = BACKOFF_MILLIS.into_inner();
        faults.add(network.path(name), format!("must be 0 (the default) or {least} to {most} milliseconds"));
        return default;
    }
    u64::try_from(given).map_or(default, Duration::from_millis)
}

/// A URL without a slash at its end, to which paths can be appended unless it is `whole`.
pub(super) fn check_url(url: &str, path: String, whole: bool, faults: &mut Faults) -> Option<String> {
    let trimmed = if whole { url } else { url.trim_end_matches('/') };
    let problem = match trimmed.parse::<Uri>() {
        Err(_) => Some("is no URL"),
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => Some("must begin with http:// or https://"),
        Ok(uri) if uri.host().is_none_or(str::is_empty) => Some("has no host"),
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Some("must not carry a user or password")
        }
        Ok(uri) if !whole && (uri.query().is_some() || trimmed.contains('#')) => {
            Some("must not have a query or a fragment")
        }
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

fn read_headers(network: &Object<'_>, stored: Option<&Network>, faults: &mut Faults) -> Vec<(String, Secret)> {
    let Some(headers) = network.object("extra_headers", faults).value() else { return Vec::new() };
    if headers.names().count() > HEADERS_MAX {
        faults.add(headers.here(), format!("has more than {HEADERS_MAX} entries"));
        return Vec::new();
    }
    let mut read: Vec<(String, Secret)> = Vec::new();
    for name in headers.names() {
        let Some(value) = headers.text(name, faults).value() else { continue };
        let (path, lower) = (headers.path(name), name.to_ascii_lowercase());
        if HeaderName::try_from(name).is_err() {
            faults.add(path, "is no header name");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            faults.add(path, "cannot be set here: it carries a credential or belongs to the connection");
        } else if HeaderValue::try_from(value).is_err() {
            faults.add(path, "has characters that no header can carry");
        } else if read.iter().any(|(other, _)| *other == lower) {
            faults.add(path, "is set twice");
        } else if names_a_credential(&lower) && is_redacted(value) {
            let kept = stored.and_then(|stored| stored.extra_headers.iter().find(|(other, _)| *other == lower));
            match kept {
                Some(kept) => read.push(kept.clone()),
                None => faults.add(path, "is a redacted text, and nothing is stored that it could stand for"),
            }
        } else {
            read.push((lower, Secret::new(value)));
        }
    }
    read
}

fn read_authorities(network: &Object<'_>, stored: Option<&Network>, faults: &mut Faults) -> Option<Arc<str>> {
    let path = network.path("ca_cert_pem");
    let pem = network.text("ca_cert_pem", faults).value().filter(|pem| !pem.trim().is_empty())?;
    if is_redacted(pem) {
        let kept = stored.and_then(|stored| stored.ca_cert_pem.clone());
        if kept.is_none() {
            faults.add(path, "is a redacted text, and nothing is stored that it could stand for");
        }
        return kept;
    }
    if pem.len() > PEM_BYTES_MAX {
        faults.add(path, format!("is longer than {PEM_BYTES_MAX} bytes"));
        return None;
    }
    match crate::wire::certificate::check(pem) {
        Ok(()) => Some(pem.into()),
        Err(problem) => {
            faults.add(path, problem);
            None
        }
    }
}

fn read_beta_headers(network: &Object<'_>, faults: &mut Faults) -> BTreeMap<String, bool> {
    let Some(headers) = network.object("beta_header_overrides", faults).value() else { return BTreeMap::new() };
    let on = |name: &str, faults: &mut Faults| headers.boolean(name, faults).value();
    headers.names().filter_map(|name| Some((name.to_owned(), on(name, faults)?))).collect()
}
