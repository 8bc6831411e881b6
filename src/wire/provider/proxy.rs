//! The proxy between us and a provider. One that could not be used is refused here, for calls would fail
//! one by one, and one that were left out in silence would be gone around.

use super::is_blank;
use crate::governance::entity::{ProxyKind, UpstreamProxy};
use crate::governance::secret::Secret;
use crate::wire::env_text::{BY_FILE_ONLY, Env, is_redacted, is_variable};
use crate::wire::faults::Faults;
use crate::wire::proxy_url::{Environment, ProxyUrl};
use crate::wire::read::Object;
use crate::wire::strict::only_known;

/// The members of `proxy_config`.
pub const PROXY: &[&str] = &["type", "url", "username", "password", "ca_cert_pem"];

/// What SOCKS5 can carry, and more than anybody should need elsewhere.
const CREDENTIAL_BYTES_MAX: usize = 255;

/// Reads `proxy_config`; a redacted password is that of `stored`.
pub(super) fn read(
    body: &Object<'_>,
    stored: Option<&UpstreamProxy>,
    strict: bool,
    env: Env<'_>,
    faults: &mut Faults,
) -> Option<UpstreamProxy> {
    let proxy = body.object("proxy_config", faults).value()?;
    if strict {
        only_known(&proxy, PROXY, faults);
    }
    let named = proxy.text("type", faults).value().unwrap_or_default();
    let said = |name: &str| proxy.raw(name).value().is_some_and(|value| !is_blank(value));
    if named.is_empty() || named == "none" {
        // What is there counts for nothing, but is of its type.
        for name in PROXY.iter().filter(|name| **name != "type") {
            proxy.text(name, faults);
        }
    }
    if named == "none" || (named.is_empty() && PROXY.iter().all(|name| !said(name))) {
        return None;
    }
    let Some(kind) = ProxyKind::of(named) else {
        if proxy.raw("type").value().is_none_or(|named| named.is_string()) {
            faults.add(proxy.path("type"), "must be one of: none, http, socks5, environment");
        }
        return None;
    };
    if said("ca_cert_pem") {
        let message =
            "must be empty: this version does not speak TLS to the proxy itself, only to the provider behind it";
        faults.add(proxy.path("ca_cert_pem"), message);
    }
    if kind == ProxyKind::Environment {
        for name in ["url", "username", "password"].into_iter().filter(|name| said(name)) {
            let message = "must be empty: where a proxy of type 'environment' is, the environment's variables say";
            faults.add(proxy.path(name), message);
        }
        if let Err(problem) = Environment::read(env) {
            faults.add(proxy.path("type"), problem);
        }
        return Some(UpstreamProxy { kind, url: String::new(), username: String::new(), password: None });
    }
    let url = read_url(kind, &proxy, faults);
    let username = proxy.text("username", faults).value().unwrap_or_default();
    check_credential(username, proxy.path("username"), faults);
    if kind == ProxyKind::Http && username.contains(':') {
        faults.add(proxy.path("username"), "must not contain ':', which ends it on the way to an HTTP proxy");
    }
    let password = read_password(&proxy, stored, faults);
    if username.is_empty() && password.is_some() {
        faults.add(proxy.path("username"), "is required beside a password");
    }
    if kind == ProxyKind::Socks5 && !username.is_empty() && !said("password") {
        faults.add(proxy.path("password"), "is required beside a username for a proxy of type 'socks5'");
    }
    Some(UpstreamProxy { kind, url: url?, username: username.to_owned(), password })
}

fn read_url(kind: ProxyKind, proxy: &Object<'_>, faults: &mut Faults) -> Option<String> {
    let url = proxy.text("url", faults).value().unwrap_or_default();
    if url.is_empty() {
        if proxy.raw("url").value().is_none_or(|url| url.is_string()) {
            faults.add(proxy.path("url"), format!("is required for a proxy of type '{}'", kind.as_str()));
        }
        return None;
    }
    let problem = match ProxyUrl::parse(url) {
        Ok(read) if read.kind != kind && kind == ProxyKind::Http => "must begin with http://",
        Ok(read) if read.kind != kind => "must begin with socks5:// or socks5h://",
        Ok(read) if read.carries_credential() => {
            "must not carry a user or password: username and password are for them"
        }
        Ok(_) => return Some(url.trim_end_matches('/').to_owned()),
        Err(problem) => problem,
    };
    // The URL itself may hold a password, so it is not repeated.
    faults.add(proxy.path("url"), problem);
    None
}

fn read_password(proxy: &Object<'_>, stored: Option<&UpstreamProxy>, faults: &mut Faults) -> Option<Secret> {
    let path = proxy.path("password");
    let password = proxy.text("password", faults).value().filter(|password| !password.is_empty())?;
    if is_redacted(password) {
        let kept = stored.and_then(|stored| stored.password.clone());
        if kept.is_none() {
            faults.add(path, "is a redacted text, and nothing is stored that it could stand for");
        }
        return kept;
    }
    if password.strip_prefix("env.").is_some_and(is_variable) {
        faults.add(path, BY_FILE_ONLY);
        return None;
    }
    check_credential(password, path, faults);
    Some(Secret::new(password))
}

fn check_credential(text: &str, path: String, faults: &mut Faults) {
    if text.len() > CREDENTIAL_BYTES_MAX {
        faults.add(path, format!("is longer than {CREDENTIAL_BYTES_MAX} bytes"));
    } else if text.contains(char::is_control) {
        faults.add(path, "must not hold control characters");
    }
}
