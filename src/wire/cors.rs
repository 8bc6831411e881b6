//! Which web pages may call: the answer to a browser that asks first, and what later answers carry.
//!
//! No cookie is ever looked at, so no answer allows credentials.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// What pages may send without being listed: what the providers' SDKs send.
const USUAL: &[&str] = &[
    "accept",
    "accept-language",
    "authorization",
    "content-language",
    "content-type",
    "idempotency-key",
    "if-match",
    "user-agent",
    "x-api-key",
    "x-goog-api-client",
    "x-goog-api-key",
    "x-request-id",
];
const USUAL_HEADS: &[&str] = &["anthropic-", "openai-", "x-bf-", "x-stainless-"];
/// What pages may read beside the usual headers.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, idempotency-replayed, retry-after, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, \
     x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens, x-request-id, \
     x-tollgate-attempts, x-tollgate-model, x-tollgate-provider, x-tollgate-rule",
);
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS");
/// Browsers cap it themselves; ten minutes is what all of them take.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Which pages may call, and what they may send beside the usual headers.
#[derive(Debug, Clone, Copy)]
pub struct Cors<'a> {
    /// Like `https://app.example.com`, `https://*.example.com`, or `*` for all.
    pub origins: &'a [String],
    /// In lower case; `*` for all.
    pub headers: &'a [String],
    /// Whether pages of this machine may call, listed or not.
    pub local: bool,
}

impl Cors<'_> {
    /// The origin of a request, if pages from there may call.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.allows(text).then(|| origin.clone())
    }

    fn allows(&self, origin: &str) -> bool {
        let listed = |entry: &String| match entry.split_once("*.") {
            _ if entry == "*" => true,
            Some((scheme, domain)) => {
                let host = origin.strip_prefix(scheme).and_then(|host| host.strip_suffix(domain));
                host.is_some_and(|head| head.len() > 1 && head.ends_with('.') && !head.contains(['/', ':', '@']))
            }
            None => entry.trim_end_matches('/').eq_ignore_ascii_case(origin),
        };
        self.origins.iter().any(listed) || (self.local && is_local(origin))
    }

    /// The headers that answer a browser that asks before it sends.
    pub fn preflight(&self, origin: HeaderValue, asked: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok()).unwrap_or("");
        let allowed: Vec<&str> = wanted.split(',').map(str::trim).filter(|name| self.takes(name)).collect();
        if let Ok(allowed) = HeaderValue::try_from(allowed.join(", "))
            && !allowed.is_empty()
        {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        mark(&mut headers, origin);
        headers
    }

    fn takes(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let listed = self.headers.iter().any(|entry| entry == "*" || *entry == name);
        !name.is_empty() && (listed || USUAL.contains(&&*name) || USUAL_HEADS.iter().any(|head| name.starts_with(head)))
    }
}

/// Whether a browser only asks what it may send.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets the page at `origin` read an answer.
pub fn mark(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

fn is_local(origin: &str) -> bool {
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_by_its_whole_name() {
        let check = |origins: &[&str], origin: &str, allowed: bool| {
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            let cors = Cors { origins: &origins, headers: &[], local: false };
            assert_eq!(cors.allows(origin), allowed, "{origins:?} {origin}");
        };
        check(&[], "https://app.example.com", false);
        check(&["*"], "https://app.example.com", true);
        check(&["https://app.example.com"], "https://app.example.com", true);
        check(&["https://app.example.com/"], "https://app.example.com", true);
        check(&["https://app.example.com"], "http://app.example.com", false);
        check(&["https://app.example.com"], "https://app.example.com.evil.example", false);
        check(&["https://*.example.com"], "https://app.example.com", true);
        check(&["https://*.example.com"], "https://example.com", false);
        check(&["https://*.example.com"], "https://evil.example/.example.com", false);
        check(&["https://*.example.com"], "https://evilexample.com", false);
        check(&["https://app.example.com"], "null", false);
    }

    #[test]
    fn pages_of_this_machine_may_be_let_in() {
        for (origin, local) in [
            ("http://localhost:3000", true),
            ("http://localhost", true),
            ("https://127.0.0.1:8443", true),
            ("http://[::1]:5173", true),
            ("http://localhost.evil.example", false),
            ("null", false),
        ] {
            let cors = |local| Cors { origins: &[], headers: &[], local };
            assert_eq!((cors(true).allows(origin), cors(false).allows(origin)), (local, false), "{origin}");
        }
    }

    #[test]
    fn a_browser_learns_which_headers_it_may_send() {
        let own = ["x-tenant".to_owned()];
        let cors = Cors { origins: &[], headers: &own, local: true };
        let mut asked = HeaderMap::new();
        let wanted = "Authorization, x-stainless-os,X-Tenant, x-other";
        asked.insert(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(wanted));
        let answer = cors.preflight(HeaderValue::from_static("http://localhost"), &asked);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "Authorization, x-stainless-os, X-Tenant");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost");
        assert_eq!(answer[VARY], "origin");
    }
}
