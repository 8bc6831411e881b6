//! What holds for all clients alike, and the password of the admin listener, as the contract and the config
//! file write them.

use super::env_text::{self, Env, HIDDEN, Reach, show_text};
use super::faults::Faults;
use super::read::{Given, Object, check_free};
use crate::governance::entity::{BODY_BYTES_MAX, BasicAuth, ClientConfig, KeyValue};
use crate::governance::view::Digest;
use http::HeaderName;
use serde_json::{Map, Value, json};

/// The members of `client_config` that have an effect here.
pub const CLIENT: &[&str] = &[
    "enforce_auth_on_inference",
    "required_headers",
    "allowed_origins",
    "allowed_headers",
    "allow_direct_keys",
    "max_request_body_size_mb",
];
/// Members that are stored and returned.
pub const FURTHER: &[&str] = &[
    "drop_excess_requests",
    "initial_pool_size",
    "prometheus_labels",
    "enable_logging",
    "disable_content_logging",
    "disable_db_pings_in_health",
    "log_retention_days",
    "enable_governance",
    "enable_litellm_fallbacks",
    "compat",
    "mcp_agent_depth",
    "mcp_tool_execution_timeout",
    "mcp_code_mode_binding_level",
    "header_filter_config",
    "whitelisted_routes",
    "async_job_result_ttl",
    "hide_deleted_virtual_keys_in_filters",
    "logging_headers",
    "routing_chain_max_depth",
];
/// An older name of `enforce_auth_on_inference`.
pub const OLDER: &str = "enforce_governance_header";
/// The members of `auth_config`.
pub const AUTH: &[&str] = &["admin_username", "admin_password", "is_enabled", "disable_auth_on_inference"];

/// Anybody who reaches the listener may guess.
pub const PASSWORD_LETTERS_MIN: usize = 12;
/// No list of headers or origins has a reason to be longer.
const NAMES_MAX: usize = 100;
const MIB: u64 = 1024 * 1024;
const BODY_MIB_MAX: u64 = 1024;

/// `base` with what the body says changed.
pub fn client_config(body: &Object<'_>, base: &ClientConfig, faults: &mut Faults) -> ClientConfig {
    let older = body.boolean(OLDER, faults).value();
    let enforce = body.boolean("enforce_auth_on_inference", faults).value().or(older);
    if body.boolean("allow_direct_keys", faults).value() == Some(true) {
        faults.add(body.path("allow_direct_keys"), "callers' own provider keys are not served by this version");
    }
    ClientConfig {
        enforce_auth: enforce.unwrap_or(base.enforce_auth),
        required_headers: read_headers(body, "required_headers", false, &base.required_headers, faults),
        allowed_origins: read_origins(body, &base.allowed_origins, faults),
        allowed_headers: read_headers(body, "allowed_headers", true, &base.allowed_headers, faults),
        body_bytes_max: read_size(body, base.body_bytes_max, faults),
        further: read_further(body, &base.further, faults),
        config_hash: base.config_hash.clone(),
    }
}

fn read_headers(body: &Object<'_>, member: &str, any: bool, base: &[String], faults: &mut Faults) -> Vec<String> {
    let names = match body.texts(member, faults) {
        Given::Value(names) => names,
        Given::Null => return Vec::new(),
        Given::Absent => return base.to_vec(),
    };
    if is_too_long(names.len(), body.path(member), faults) {
        return base.to_vec();
    }
    let mut read: Vec<String> = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        let name = name.trim();
        if HeaderName::try_from(name).is_err() && !(any && name == "*") {
            faults.add(format!("{}[{i}]", body.path(member)), format!("'{name}' is no header name"));
        }
        let lower = name.to_ascii_lowercase();
        if !read.contains(&lower) {
            read.push(lower);
        }
    }
    read
}

/// `*`, or a scheme and a host as browsers send them.
fn read_origins(body: &Object<'_>, base: &[String], faults: &mut Faults) -> Vec<String> {
    let origins = match body.texts("allowed_origins", faults) {
        Given::Value(origins) => origins,
        Given::Null => return Vec::new(),
        Given::Absent => return base.to_vec(),
    };
    if is_too_long(origins.len(), body.path("allowed_origins"), faults) {
        return base.to_vec();
    }
    let mut read: Vec<String> = Vec::with_capacity(origins.len());
    for (i, origin) in origins.iter().enumerate() {
        let bare = origin.trim().trim_end_matches('/').to_ascii_lowercase();
        let host = bare.split_once("://").map(|(_, host)| host);
        let is_host = |host: &str| !host.is_empty() && !host.contains(|c: char| "/?#@ ".contains(c) || c.is_control());
        if bare != "*" && !host.is_some_and(is_host) {
            let path = format!("{}[{i}]", body.path("allowed_origins"));
            faults.add(path, format!("'{origin}' is no origin (examples: https://app.example.com, *)"));
        }
        if !read.contains(&bare) {
            read.push(bare);
        }
    }
    read
}

/// Asked before entries are compared with each other.
fn is_too_long(entries: usize, path: String, faults: &mut Faults) -> bool {
    if entries > NAMES_MAX {
        faults.add(path, format!("has more than {NAMES_MAX} entries"));
    }
    entries > NAMES_MAX
}

/// Absent, null and 0 leave it to the server's own section, the first of them only where nothing is stored.
fn read_size(body: &Object<'_>, base: Option<u64>, faults: &mut Faults) -> Option<u64> {
    let mib = match body.integer("max_request_body_size_mb", faults) {
        Given::Value(mib) => mib,
        Given::Null => return None,
        Given::Absent => return base,
    };
    match u64::try_from(mib) {
        Ok(mib) if (1..=BODY_MIB_MAX).contains(&mib) => Some(mib * MIB),
        _ => {
            let path = body.path("max_request_body_size_mb");
            faults.add(path, format!("must be between 1 and {BODY_MIB_MAX}, not {mib}"));
            base
        }
    }
}

/// What is stored and returned: the members that are given, over those that were.
fn read_further(body: &Object<'_>, base: &str, faults: &mut Faults) -> String {
    let mut members = stored_members(base);
    for name in FURTHER {
        match body.raw(name) {
            Given::Value(value) => {
                check_further(body, name, faults);
                if check_free(value, body.path(name), faults) {
                    members.insert((*name).to_owned(), value.clone());
                }
            }
            Given::Null => {
                members.remove(*name);
            }
            Given::Absent => {}
        }
    }
    Value::Object(members).to_string()
}

/// What is kept without being acted on has its type all the same: clients read it back.
fn check_further(body: &Object<'_>, name: &str, faults: &mut Faults) {
    match name {
        "drop_excess_requests" => drop(body.boolean(name, faults)),
        "whitelisted_routes" => drop(body.texts(name, faults)),
        "routing_chain_max_depth" => check_depth(body, name, faults),
        "header_filter_config" => {
            if let Some(filter) = body.object(name, faults).value() {
                ["allowlist", "denylist"].iter().for_each(|list| drop(filter.texts(list, faults)));
            }
        }
        _ => {}
    }
}

fn check_depth(body: &Object<'_>, name: &str, faults: &mut Faults) {
    if body.integer(name, faults).value().is_some_and(|depth| !(1..=100).contains(&depth)) {
        faults.add(body.path(name), "must be between 1 and 100");
    }
}

fn stored_members(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// `client_config` in answers.
pub fn show_client_config(config: &ClientConfig) -> Value {
    let mut object = Map::new();
    for (name, default) in [
        ("drop_excess_requests", json!(false)),
        ("header_filter_config", json!({})),
        ("whitelisted_routes", json!([])),
        ("routing_chain_max_depth", json!(10)),
    ] {
        object.insert(name.to_owned(), default);
    }
    object.extend(stored_members(&config.further));
    object.insert("enforce_auth_on_inference".into(), config.enforce_auth.into());
    object.insert("required_headers".into(), json!(config.required_headers));
    object.insert("allowed_origins".into(), json!(config.allowed_origins));
    object.insert("allowed_headers".into(), json!(config.allowed_headers));
    object.insert("allow_direct_keys".into(), false.into());
    let body_bytes_max = config.body_bytes_max.unwrap_or(BODY_BYTES_MAX);
    object.insert("max_request_body_size_mb".into(), body_bytes_max.div_ceil(MIB).into());
    if !config.config_hash.is_empty() {
        object.insert("config_hash".into(), config.config_hash.as_str().into());
    }
    Value::Object(object)
}

/// `base` with what the config file says changed. `digest` is of `username:password`; the password itself is
/// not kept.
pub fn basic_auth(
    body: &Object<'_>,
    base: &BasicAuth,
    env: Env<'_>,
    digest: &dyn Fn(&str) -> Digest,
    faults: &mut Faults,
) -> BasicAuth {
    read_basic_auth(body, base, (true, env), digest, faults)
}

/// The same over the API, which does not read all of the environment.
pub fn basic_auth_of_api(
    body: &Object<'_>,
    base: &BasicAuth,
    env: Env<'_>,
    digest: &dyn Fn(&str) -> Digest,
    faults: &mut Faults,
) -> BasicAuth {
    read_basic_auth(body, base, (false, env), digest, faults)
}

/// Whether a password is too short for a listener at which anybody may guess.
pub fn is_short(password: &KeyValue) -> bool {
    password.expose().chars().count() < PASSWORD_LETTERS_MIN
}

fn read_basic_auth(
    body: &Object<'_>,
    base: &BasicAuth,
    (from_file, env): (bool, Env<'_>),
    digest: &dyn Fn(&str) -> Digest,
    faults: &mut Faults,
) -> BasicAuth {
    let found = faults.iter().count();
    let stored = KeyValue::text(base.username.as_str());
    let reach = |is_secret| (Reach::of(from_file, is_secret), env);
    let username = env_text::read(body, "admin_username", Some(&stored), reach(false), faults);
    let username = username.map_or_else(|| base.username.clone(), |username| username.expose().to_owned());
    if username.contains(':') || username.contains(char::is_control) {
        faults.add(body.path("admin_username"), "must not hold a colon or control characters");
    }
    // Stands for the stored password, of which nobody knows more than its digest.
    let hidden = base.digest.map(|_| KeyValue::text(HIDDEN));
    let password = env_text::read(body, "admin_password", hidden.as_ref(), reach(true), faults);
    let password = password.filter(|password| !password.is_empty() && hidden.as_ref() != Some(password));
    // A file that was written for the reference loads as it stands, with a warning.
    if !from_file && password.as_ref().is_some_and(is_short) {
        faults.add(body.path("admin_password"), format!("is shorter than {PASSWORD_LETTERS_MIN} characters"));
    }
    let digest = match password {
        Some(password) => Some(digest(&format!("{username}:{}", password.expose()))),
        None if base.digest.is_some() && username != base.username => {
            faults.add(body.path("admin_password"), "is needed again for another admin_username");
            None
        }
        None => base.digest,
    };
    let enabled = body.boolean("is_enabled", faults).value().unwrap_or(base.enabled);
    let is_sound = faults.iter().count() == found;
    for (name, is_missing) in [("admin_username", username.is_empty()), ("admin_password", digest.is_none())] {
        if enabled && is_missing && is_sound {
            faults.add(body.path(name), "is required while is_enabled is true");
        }
    }
    let disable = body.boolean("disable_auth_on_inference", faults).value();
    BasicAuth {
        enabled,
        username,
        digest,
        disable_auth_on_inference: disable.unwrap_or(base.disable_auth_on_inference),
        config_hash: base.config_hash.clone(),
    }
}

/// `auth_config` in answers.
pub fn show_basic_auth(auth: &BasicAuth) -> Value {
    let password = if auth.digest.is_some() { HIDDEN } else { "" };
    json!({
        "admin_username": show_text(&KeyValue::text(auth.username.as_str())),
        "admin_password": show_text(&KeyValue::text(password)),
        "is_enabled": auth.enabled,
        "disable_auth_on_inference": auth.disable_auth_on_inference,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_client(body: Value, base: &ClientConfig) -> (ClientConfig, String) {
        let mut faults = Faults::default();
        let object = Object::of(&body, "", &mut faults).unwrap();
        let read = client_config(&object, base, &mut faults);
        (read, faults.to_string())
    }

    #[test]
    fn every_setting_is_read_and_comes_back() {
        let body = json!({
            "enforce_auth_on_inference": false,
            "required_headers": ["X-Team", "x-team"],
            "allowed_origins": ["https://App.example.com/", "*"],
            "allowed_headers": ["X-Custom", "*"],
            "max_request_body_size_mb": 7,
            "drop_excess_requests": true,
            "prometheus_labels": ["a"],
            "somebody_elses": 1,
        });
        let (read, faults) = read_client(body, &ClientConfig::default());
        assert_eq!(faults, "");
        let expected = ClientConfig {
            enforce_auth: false,
            required_headers: vec!["x-team".into()],
            allowed_origins: vec!["https://app.example.com".into(), "*".into()],
            allowed_headers: vec!["x-custom".into(), "*".into()],
            body_bytes_max: Some(7 * MIB),
            further: r#"{"drop_excess_requests":true,"prometheus_labels":["a"]}"#.into(),
            config_hash: String::new(),
        };
        assert_eq!(read, expected);
        let shown = show_client_config(&read);
        assert_eq!(shown["prometheus_labels"], json!(["a"]));
        assert_eq!(shown["routing_chain_max_depth"], json!(10));
        let (again, faults) = read_client(shown, &read);
        assert_eq!(faults, "");
        assert_eq!(show_client_config(&again), show_client_config(&read));
        assert_eq!(read_client(json!({}), &read).0, read);
        assert_eq!(read_client(json!({"max_request_body_size_mb": null}), &read).0.body_bytes_max, None);
    }

    #[test]
    fn the_older_name_counts_where_the_newer_is_absent() {
        let enforced = |body: Value| read_client(body, &ClientConfig::default()).0.enforce_auth;
        assert!(enforced(json!({})));
        assert!(!enforced(json!({"enforce_governance_header": false})));
        assert!(enforced(json!({"enforce_governance_header": false, "enforce_auth_on_inference": true})));
    }

    #[test]
    fn settings_are_checked() {
        let check = |body: Value, expected: &str| {
            assert_eq!(read_client(body, &ClientConfig::default()).1, expected);
        };
        check(
            json!({"allow_direct_keys": true}),
            "allow_direct_keys: callers' own provider keys are not served by this version",
        );
        check(json!({"allow_direct_keys": false}), "");
        check(json!({"required_headers": ["a b"]}), "required_headers[0]: 'a b' is no header name");
        check(json!({"required_headers": ["*"]}), "");
        check(
            json!({"allowed_origins": ["example.com"]}),
            "allowed_origins[0]: 'example.com' is no origin (examples: https://app.example.com, *)",
        );
        check(json!({"required_headers": vec!["a b"; 101]}), "required_headers: has more than 100 entries");
        check(json!({"allowed_headers": vec!["*"; 101]}), "allowed_headers: has more than 100 entries");
        check(json!({"allowed_origins": vec!["*"; 101]}), "allowed_origins: has more than 100 entries");
        check(json!({"compat": "x".repeat(70_000)}), "compat: is longer than 65536 bytes");
        check(
            json!({"allowed_origins": ["https://a/b"]}),
            "allowed_origins[0]: 'https://a/b' is no origin (examples: https://app.example.com, *)",
        );
        check(
            json!({"max_request_body_size_mb": 5000}),
            "max_request_body_size_mb: must be between 1 and 1024, not 5000",
        );
        check(json!({"drop_excess_requests": 1}), "drop_excess_requests: must be true or false, not a number");
        check(
            json!({"enforce_auth_on_inference": "yes"}),
            "enforce_auth_on_inference: must be true or false, not a string",
        );
    }

    fn read_auth(body: Value, base: &BasicAuth) -> (BasicAuth, String) {
        let env = |name: &str| ["ADMIN_PASSWORD", "TOLLGATE_X"].contains(&name).then(|| "from outside".to_owned());
        // Good enough to tell texts apart here.
        let digest = |text: &str| {
            let mut digest = Digest::default();
            text.bytes()
                .enumerate()
                .for_each(|(i, byte)| digest[i % 32] ^= byte.rotate_left(u32::try_from(i % 8).unwrap()));
            digest
        };
        let mut faults = Faults::default();
        let object = Object::of(&body, "", &mut faults).unwrap();
        let read = basic_auth(&object, base, &env, &digest, &mut faults);
        (read, faults.to_string())
    }

    #[test]
    fn a_password_is_kept_as_a_digest_only() {
        let off = BasicAuth::default();
        let body = json!({"admin_username": "root", "admin_password": "hush-hush-hush", "is_enabled": true});
        let (on, faults) = read_auth(body, &off);
        assert_eq!((faults.as_str(), on.enabled, on.username.as_str()), ("", true, "root"));
        let shown = show_basic_auth(&on);
        assert_eq!(shown["admin_password"]["value"], "<REDACTED>");
        assert!(!format!("{on:?}{shown}").contains("hush"));
        assert_eq!(read_auth(shown, &on), (on.clone(), String::new()));
        assert_eq!(read_auth(json!({}), &on), (on.clone(), String::new()));
        let (other, _) = read_auth(json!({"admin_password": "env.ADMIN_PASSWORD"}), &on);
        assert_ne!(other.digest, on.digest);
        let (by_object, _) = read_auth(json!({"admin_password": {"env_var": "env.ADMIN_PASSWORD"}}), &on);
        assert_eq!(by_object, other);
        assert_eq!(show_basic_auth(&off)["admin_password"]["value"], "");
    }

    #[test]
    fn a_door_without_a_lock_is_no_door() {
        let set = json!({"admin_username": "root", "admin_password": "hush-hush-hush"});
        let set = read_auth(set, &BasicAuth::default()).0;
        let check = |body: Value, base: &BasicAuth, expected: &str| assert_eq!(read_auth(body, base).1, expected);
        let off = BasicAuth::default();
        check(json!({"is_enabled": false}), &off, "");
        check(
            json!({"is_enabled": true}),
            &off,
            "admin_username: is required while is_enabled is true; admin_password: is required while is_enabled is true",
        );
        check(
            json!({"is_enabled": true, "admin_username": "root"}),
            &off,
            "admin_password: is required while is_enabled is true",
        );
        check(json!({"is_enabled": true}), &set, "");
        check(json!({"admin_username": "other"}), &set, "admin_password: is needed again for another admin_username");
        check(
            json!({"admin_username": "a:b", "admin_password": "x-x-x-x-x-x-"}),
            &off,
            "admin_username: must not hold a colon or control characters",
        );
        check(
            json!({"admin_password": "<REDACTED>"}),
            &off,
            "admin_password: is a redacted text, and nothing is stored that it could stand for",
        );
        // The file warns of a short one.
        check(json!({"admin_username": "root", "admin_password": "hush-hush-h", "is_enabled": true}), &off, "");
        // The file may name any variable, the API may not.
        let named = json!({"admin_username": "env.ADMIN_PASSWORD", "admin_password": "env.TOLLGATE_X"});
        check(named.clone(), &off, "");
        let mut faults = Faults::default();
        let object = Object::of(&named, "", &mut faults).unwrap();
        basic_auth_of_api(&object, &off, &|_| Some("from outside".into()), &|_| Digest::default(), &mut faults);
        assert_eq!(
            faults.to_string(),
            "admin_username: names an environment variable, which only the config file can use here; \
             admin_password: environment variable TOLLGATE_X is Tollgate's own and is not used here"
        );
        check(json!({"admin_password": "env.NOPE"}), &off, "admin_password: environment variable NOPE is not set");
    }
}
