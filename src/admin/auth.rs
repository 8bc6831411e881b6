//! Who may use the API: the holder of the admin token, or of `auth_config`'s user and password.
//!
//! Without a token (loopback only) a browser is the one stranger who can get here, sent by some page; so then
//! both host and origin must be this machine. A browser sends a password that it knows with whatever a page
//! makes it send, too; so then the page must be ours, or one that may call.

use super::Admin;
use super::change::Actor;
use super::error::ApiError;
use crate::governance::entity::BasicAuth;
use crate::governance::secret::Secret;
use crate::governance::view::Digest;
use crate::state::digest::KeyHasher;
use crate::wire::cors::{self, Cors, is_preflight};
use crate::wire::credential::bearer;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, LOCATION, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

/// How administrators prove themselves: a keyed digest of the token, whose comparison tells nothing about the token.
#[derive(Debug)]
pub(super) enum Guard {
    Token(Digest),
    None,
}

/// By what somebody proved who they are. Put into each request by the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// No browser sends it by itself.
    Bearer,
    /// Browsers keep it and send it by themselves.
    Basic,
    /// Being on this machine.
    Place,
}

impl Guard {
    pub(super) fn new(token: Option<&Secret>, hasher: &KeyHasher) -> Guard {
        token.map_or(Guard::None, |token| Guard::Token(hasher.digest(token.expose().as_bytes())))
    }

    /// Who asks and by what they proved it, or why nobody may. `may_call`: a web page asks, and its origin is one
    /// that may.
    fn check(
        &self,
        hasher: &KeyHasher,
        basic: &BasicAuth,
        headers: &HeaderMap,
        may_call: bool,
    ) -> Result<(Actor, Proof), ApiError> {
        let presented = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        if let (Guard::Token(expected), Some(token)) = (self, presented.and_then(bearer))
            && hasher.digest(token) == *expected
        {
            return Ok((Actor("token".into()), Proof::Bearer));
        }
        let pair = presented.and_then(user_and_password);
        if basic.enabled
            && let (Some(expected), Some(pair)) = (&basic.digest, &pair)
            && basic_digest(hasher, pair) == *expected
        {
            // Browsers send these by themselves, whichever page asks them to.
            if !may_call && is_cross_site(headers) {
                let message = "A web page of another origin may not use the browser's credentials here";
                return Err(ApiError::new(StatusCode::FORBIDDEN, message));
            }
            let proof = if presented.and_then(bearer).is_some() { Proof::Bearer } else { Proof::Basic };
            return Ok((Actor(format!("basic:{}", basic.username).into()), proof));
        }
        let unauthorized = |message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, message));
        match self {
            Guard::Token(_) if presented.is_some() => unauthorized("The admin token, or user and password, is wrong"),
            Guard::Token(_) => unauthorized("The admin API wants the header 'Authorization: Bearer <admin token>'"),
            Guard::None if basic.enabled => unauthorized("The admin API wants user and password, as in auth_config"),
            Guard::None => {
                let local = |name| headers.get(name).is_none_or(|value| is_this_machine(value.as_bytes()));
                if local(HOST) && local(ORIGIN) {
                    return Ok((Actor("local".into()), Proof::Place));
                }
                let message = "Without an admin token the API serves requests from and to this machine only";
                Err(ApiError::new(StatusCode::FORBIDDEN, message))
            }
        }
    }
}

/// Whether a page that is not this listener's own makes a browser ask.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &[u8]| headers.get(name).is_some_and(|found| found.as_bytes() == value);
    let host = headers.get(HOST).map(|host| host.as_bytes());
    let of_host = |origin: &[u8]| {
        let authority = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
        authority.is_some() && authority == host
    };
    is("sec-fetch-site", b"cross-site") || headers.get(ORIGIN).is_some_and(|origin| !of_host(origin.as_bytes()))
}

/// `user:password` of a `Basic` credential, or of a `Bearer` one that is the same in Base64, as the
/// reference's clients send it.
fn user_and_password(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let basic = value.split_at_checked("basic ".len()).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic "));
    let text = basic.map(|(_, text)| text.trim_ascii()).or_else(|| bearer(value))?;
    let pair = Zeroizing::new(BASE64.decode(text).ok()?);
    pair.contains(&b':').then_some(pair)
}

/// What is kept of `user:password`. Never the digest of anything else.
pub fn basic_digest(hasher: &KeyHasher, pair: &[u8]) -> Digest {
    hasher.digest(&[b"basic\0", pair].concat())
}

/// Before every handler: the web page that calls, if one does; the path without its trailing slash; then who
/// asks, unless the page is open.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let cors = Cors { origins: &admin.allowed_origins, headers: &[], local: false };
    let listed = cors.origin(request.headers());
    let mut response = match listed {
        Some(origin) if is_preflight(request.method(), request.headers()) => {
            (StatusCode::NO_CONTENT, cors.preflight(origin, request.headers())).into_response()
        }
        Some(origin) => {
            let mut response = admit(&admin, request, next, true).await;
            cors::mark(response.headers_mut(), origin);
            response
        }
        None => admit(&admin, request, next, false).await,
    };
    if is_api {
        // There are virtual keys in some of them.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn admit(admin: &Admin, mut request: Request, next: Next, may_call: bool) -> Response {
    if let Some(location) = without_trailing_slash(request.uri().path(), request.uri().query()) {
        return (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response();
    }
    if !is_open(admin, request.uri().path()) {
        let snapshot = admin.state.snapshot();
        let (hasher, headers) = (&admin.state.hasher, request.headers());
        let checked = admin.0.guard.check(hasher, &snapshot.view.basic_auth, headers, may_call);
        drop(snapshot);
        match checked {
            Ok((actor, proof)) => {
                request.extensions_mut().insert(actor);
                request.extensions_mut().insert(proof);
            }
            Err(refused) => {
                if refused.status() == StatusCode::UNAUTHORIZED && headers.contains_key(AUTHORIZATION) {
                    admin.metrics.admin_auth_failures.inc();
                    admin.0.failures.note(admin.state.clock.now()).await;
                }
                return refused.into_response();
            }
        }
    }
    next.run(request).await
}

fn is_open(admin: &Admin, path: &str) -> bool {
    match path {
        "/" | "/healthz" | "/readyz" | "/openapi.json" | super::QUOTA_PATH => true,
        "/metrics" => !admin.metrics_auth,
        // What the readable page is made of.
        _ => path.starts_with("/console/"),
    }
}

/// Where a path with a trailing slash goes. Never to another host, which `//host/` would name.
fn without_trailing_slash(path: &str, query: Option<&str>) -> Option<String> {
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return None;
    }
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Some(format!("/{}{query}", trimmed.trim_start_matches(['/', '\\'])))
}

/// Whether a `Host` or `Origin` names the loopback interface.
fn is_this_machine(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value).to_ascii_lowercase();
    let host = text.split_once("://").map_or(&*text, |(_, rest)| rest);
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_goes() {
        let check = |path, query, to: Option<&str>| assert_eq!(without_trailing_slash(path, query).as_deref(), to);
        check("/", None, None);
        check("/api/x", None, None);
        check("/api/x/", None, Some("/api/x"));
        check("/api/x//", Some("a=1"), Some("/api/x?a=1"));
        check("//evil.example/", None, Some("/evil.example"));
    }

    #[test]
    fn only_loopback_is_this_machine() {
        for local in
            ["localhost", "localhost:8081", "127.0.0.1:8081", "http://127.0.0.1", "[::1]:8081", "http://LOCALHOST:3"]
        {
            assert!(is_this_machine(local.as_bytes()), "{local}");
        }
        for other in ["evil.example", "localhost.evil.example", "http://10.0.0.1", "null", "", "127.0.0.1.nip.io"] {
            assert!(!is_this_machine(other.as_bytes()), "{other}");
        }
    }
}
