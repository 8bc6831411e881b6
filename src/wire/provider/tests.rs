//! Every check with its path and its words; what is shown can be written back; what is stored comes back.

use super::*;
use crate::governance::catalog::Catalog;
use crate::governance::entity::{Cloud, KeyValue, ModelSet, Network, ProxyKind, UpstreamProxy, Weight};
use crate::governance::money::Rate;
use crate::governance::pricing::Price;
use crate::governance::secret::Secret;
use crate::wire::certificate::tests::AUTHORITY;
use crate::wire::show::provider::{ModelQuery, models, models_base, models_details};
use crate::wire::stored_provider::{Secrets, load_key, load_provider, store_key, store_provider};
use proptest::prelude::*;
use serde_json::{Map, json};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const LATER: Timestamp = Timestamp::from_millis(1_700_000_009_000);

fn env(name: &str) -> Option<String> {
    (name == "SET").then(|| "from-outside-secret".to_owned())
}

/// Runs `read` as the API does, or as the file does if it is strict.
fn with_change<T>(
    strict: bool,
    now: Timestamp,
    read: impl FnOnce(&mut ProviderChange<'_>, &mut Faults) -> Option<T>,
) -> Result<T, Vec<String>> {
    let mut number = 0;
    let mut new_id = || {
        number += 1;
        format!("made-{number}")
    };
    let mut change = ProviderChange {
        new_id: &mut new_id,
        now,
        own_ids: true,
        env: &env,
        key_name_taken: &|name, id| name == "taken" && id != "owner",
        key_id_taken: &|id| id == "used",
        strict,
        clash: false,
    };
    let mut faults = Faults::default();
    let read = read(&mut change, &mut faults);
    let named =
        faults.iter().any(|fault| ["unique", "two keys", "already"].iter().any(|word| fault.message.contains(word)));
    assert_eq!(change.clash, named, "{faults}");
    match read.filter(|_| faults.is_empty()) {
        Some(read) => Ok(read),
        None => Err(faults.iter().map(ToString::to_string).collect()),
    }
}

fn create(name: &str, body: Value) -> Result<Provider, Vec<String>> {
    with_change(false, NOW, |change, faults| provider(name, &body, None, change, faults))
}

fn update(base: &Provider, body: &Value) -> Result<Provider, Vec<String>> {
    with_change(false, LATER, |change, faults| provider(&base.name, body, Some(base), change, faults))
}

fn create_key(provider: &Provider, body: &Value) -> Result<ProviderKey, Vec<String>> {
    with_change(false, NOW, |change, faults| provider_key(provider, body, None, change, faults))
}

/// As the file does it, which may take any text from the environment.
fn declare_key(provider: &Provider, body: &Value) -> Result<ProviderKey, Vec<String>> {
    with_change(true, NOW, |change, faults| provider_key(provider, body, None, change, faults))
}

fn update_key(provider: &Provider, base: &ProviderKey, body: &Value) -> Result<ProviderKey, Vec<String>> {
    with_change(false, LATER, |change, faults| provider_key(provider, body, Some(base), change, faults))
}

fn custom(mut more: Value) -> Value {
    let mut body = json!({
        "network_config": {"base_url": "http://h"},
        "custom_provider_config": {"base_provider_type": "openai"},
    });
    body.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    body
}

/// A body that says everything, with secrets wherever one can be.
fn everything() -> Value {
    json!({
        "network_config": {
            "base_url": "https://llm.example.com/v1/",
            "extra_headers": {"X-Org-Token": "header-secret-0123456789", "X-Title": "in clear"},
            "default_request_timeout_in_seconds": 7, "stream_idle_timeout_in_seconds": 8, "max_retries": 3,
            "retry_backoff_initial": 200, "retry_backoff_max": 900, "insecure_skip_verify": true,
            "ca_cert_pem": AUTHORITY, "max_conns_per_host": 20_000, "enforce_http2": true,
            "beta_header_overrides": {"some-beta": false},
        },
        "concurrency_and_buffer_size": {"concurrency": 3, "buffer_size": 4},
        "proxy_config": {"type": "http", "url": "http://proxy:3128/", "username": "us", "password": "proxy-secret-0123456789"},
        "send_back_raw_request": true, "send_back_raw_response": true, "store_raw_request_response": true,
        "custom_provider_config": {
            "base_provider_type": "openai", "is_key_less": false,
            "allowed_requests": {"chat_completion": true, "embedding": false, "rerank": true},
            "request_path_overrides": {"chat_completion": "/chat"},
        },
        "openai_config": {"disable_store": true},
        "keys": [
            {"name": "one", "value": "sk-very-secret-one-0123456789", "weight": 0.5, "models": ["a"],
             "blacklisted_models": ["b"], "aliases": {"a": "A"}, "enabled": false, "use_for_batch_api": true},
            {"id": "own", "name": "two", "value": "env.SET"},
        ],
    })
}

#[test]
fn what_is_absent_has_its_default() {
    let read = create("openai", json!({})).unwrap();
    assert_eq!(read, Provider::new("openai", NOW));
    assert_eq!(read.network.base_url.as_deref(), Some("https://api.openai.com"));
    assert_eq!((read.concurrency.concurrency, read.concurrency.buffer_size), (1_000, 5_000));
    let zeros = json!({"network_config": {
        "base_url": "", "default_request_timeout_in_seconds": 0, "stream_idle_timeout_in_seconds": 0,
        "retry_backoff_initial": 0, "retry_backoff_max": 0, "max_conns_per_host": 0, "ca_cert_pem": "",
    }, "custom_provider_config": null, "proxy_config": null, "keys": []});
    assert_eq!(create("openai", zeros).unwrap(), read);
}

#[test]
fn every_built_in_provider_can_be_declared() {
    for name in BUILT_IN_PROVIDERS {
        assert!(create(name, json!({})).is_ok(), "{name}");
    }
}

#[test]
fn everything_is_kept() {
    let read = create("mine", everything()).unwrap();
    let expected = Network {
        base_url: Some("https://llm.example.com/v1".into()),
        extra_headers: vec![
            ("x-org-token".into(), Secret::new("header-secret-0123456789")),
            ("x-title".into(), Secret::new("in clear")),
        ],
        request_timeout: std::time::Duration::from_secs(7),
        stream_idle_timeout: std::time::Duration::from_secs(8),
        max_retries: 3,
        retry_backoff_initial: std::time::Duration::from_millis(200),
        retry_backoff_max: std::time::Duration::from_millis(900),
        insecure_skip_verify: true,
        enforce_http2: true,
        ca_cert_pem: Some(AUTHORITY.into()),
        max_conns_per_host: 10_000,
        beta_header_overrides: [("some-beta".to_owned(), false)].into(),
    };
    assert_eq!(read.network, expected);
    let own = read.custom.as_ref().unwrap();
    assert_eq!((own.base, own.keyless), ("openai", false));
    assert!(own.allowed_requests.as_ref().unwrap().iter().eq(["chat_completion", "rerank"]));
    assert_eq!(read.openai_config.as_deref(), Some(r#"{"disable_store":true}"#));
    let [one, two] = &read.keys[..] else { panic!("two keys were given") };
    assert_eq!((&*one.id, one.weight, one.enabled), ("made-1", Weight::from_millionths(500_000), false));
    assert_eq!(
        (&*two.id, two.value.env_var.as_deref(), two.value.expose()),
        ("own", Some("SET"), "from-outside-secret")
    );
    assert_eq!((&two.models, two.weight, two.enabled), (&ModelSet::All, Weight::ONE, true));
}

#[test]
fn every_fault_of_a_provider_is_named_with_its_path() {
    let check = |name: &str, body: Value, expected: &[&str]| {
        assert_eq!(create(name, body.clone()).err().unwrap_or_default(), expected, "{name} {body}");
    };
    let network = |network: Value| json!({"network_config": network});
    let own = |custom: Value| json!({"network_config": {"base_url": "http://h"}, "custom_provider_config": custom});
    check("openai", json!([]), &["must be an object, not an array"]);
    check("", json!({}), &["provider: Missing provider", "network_config.base_url: is required: where is ''?"]);
    check(
        "mine",
        network(json!({"base_url": "http://h"})),
        &[&format!(
            "provider: 'mine' is not a built-in provider ({}), so it needs custom_provider_config",
            BUILT_IN_PROVIDERS.join(", ")
        )],
    );
    check("a b", custom(json!({})), &["provider: a provider's name has 1 to 64 letters, digits, '-', '_' or '.'"]);
    check("OpenAI", custom(json!({})), &["provider: 'OpenAI' is too easily taken for 'openai'"]);
    check("My.LLM-1", custom(json!({})), &[]);
    check(
        "openai",
        custom(json!({})),
        &["custom_provider_config: Custom provider cannot be same as a standard provider"],
    );
    check(
        "mine",
        own(json!({})),
        &[
            "custom_provider_config.base_provider_type: BaseProviderType is required when CustomProviderConfig is provided",
        ],
    );
    check(
        "mine",
        own(json!({"base_provider_type": "groq"})),
        &["custom_provider_config.base_provider_type: BaseProviderType must be a standard provider"],
    );
    check(
        "mine",
        own(json!({"base_provider_type": 1})),
        &["custom_provider_config.base_provider_type: must be a string, not a number"],
    );
    check(
        "mine",
        own(json!({"base_provider_type": "bedrock", "is_key_less": true})),
        &[
            "custom_provider_config.is_key_less: a key-less provider cannot be like 'bedrock', whose requests are signed",
        ],
    );
    check(
        "mine",
        own(
            json!({"base_provider_type": "openai", "allowed_requests": {"embedding": 1}, "request_path_overrides": {"embedding": "x"}}),
        ),
        &[
            "custom_provider_config.allowed_requests.embedding: must be true or false, not a number",
            "custom_provider_config.request_path_overrides.embedding: is neither a path that begins with / nor a URL",
        ],
    );
    check(
        "mine",
        own(json!({"base_provider_type": "openai", "request_path_overrides": {"embedding": "https://u:p@h/x"}})),
        &["custom_provider_config.request_path_overrides.embedding: must not carry a user or password"],
    );
    check(
        "mine",
        json!({"custom_provider_config": {"base_provider_type": "anthropic"}}),
        &["network_config.base_url: is required: where is 'mine'?"],
    );
    check(
        "openai",
        json!({"concurrency_and_buffer_size": {"concurrency": 0, "buffer_size": -1}}),
        &[
            "concurrency_and_buffer_size.concurrency: Concurrency must be greater than 0",
            "concurrency_and_buffer_size.buffer_size: Buffer size must be greater than 0",
        ],
    );
    check(
        "openai",
        json!({"concurrency_and_buffer_size": {"concurrency": 6000}}),
        &["concurrency_and_buffer_size.concurrency: Concurrency must be less than or equal to buffer size"],
    );
    check(
        "openai",
        network(json!({"retry_backoff_initial": 99, "retry_backoff_max": 1_000_001})),
        &[
            "network_config.retry_backoff_initial: must be 0 (the default) or 100 to 1000000 milliseconds",
            "network_config.retry_backoff_max: must be 0 (the default) or 100 to 1000000 milliseconds",
        ],
    );
    check(
        "openai",
        network(json!({"retry_backoff_initial": 6000})),
        &["network_config.retry_backoff_initial: is larger than retry_backoff_max"],
    );
    check(
        "openai",
        network(json!({"max_retries": -1, "default_request_timeout_in_seconds": 90_000, "max_conns_per_host": -5})),
        &[
            "network_config.max_conns_per_host: must not be negative",
            "network_config.default_request_timeout_in_seconds: must be between 0 and 86400, not 90000",
            "network_config.max_retries: must be between 0 and 10, not -1",
        ],
    );
    for (url, problem) in [
        ("ftp://h", "must begin with http:// or https://"),
        ("http://u:p@h", "must not carry a user or password"),
        ("http://h?x=1", "must not have a query or a fragment"),
        ("not a url", "is no URL"),
    ] {
        check("openai", network(json!({"base_url": url})), &[&format!("network_config.base_url: {problem}")]);
    }
    check(
        "openai",
        network(json!({"extra_headers": {"Authorization": "x", "a b": "x", "x-a": "\n", "X-Key": "****", "x-b": 1}})),
        &[
            "network_config.extra_headers.Authorization: cannot be set here: it carries a credential or belongs to the connection",
            "network_config.extra_headers.X-Key: is a redacted text, and nothing is stored that it could stand for",
            "network_config.extra_headers.a b: is no header name",
            "network_config.extra_headers.x-a: has characters that no header can carry",
            "network_config.extra_headers.x-b: must be a string, not a number",
        ],
    );
    check("openai", network(json!({"ca_cert_pem": "x"})), &["network_config.ca_cert_pem: holds no certificate in PEM"]);
    check(
        "openai",
        network(json!({"ca_cert_pem": "<REDACTED>"})),
        &["network_config.ca_cert_pem: is a redacted text, and nothing is stored that it could stand for"],
    );
    check(
        "openai",
        json!({"pricing_overrides": [{"pattern": "*"}]}),
        &["pricing_overrides: prices are not set here but by pricing overrides of the scope 'provider'"],
    );
    check(
        "mine",
        custom(json!({
            "custom_provider_config": {"base_provider_type": "openai", "is_key_less": true},
            "keys": [{"name": "a", "value": "x"}],
        })),
        &["keys: a key-less provider takes no keys"],
    );
    check(
        "openai",
        json!({"keys": [{"name": "a", "value": "x"}, {"name": "a", "value": "y"}, {"id": "made-1", "name": "b", "value": "z"}]}),
        &[
            "keys[1].name: API key names must be unique across providers: 'a'",
            "keys[2].id: there are two keys with the id 'made-1'",
        ],
    );
}

#[test]
fn every_fault_of_a_proxy_is_named_with_its_path() {
    let check = |proxy: Value, expected: &[&str]| {
        let faults = create("openai", json!({"proxy_config": proxy})).err().unwrap_or_default();
        let expected: Vec<String> = expected.iter().map(|fault| format!("proxy_config.{fault}")).collect();
        assert_eq!(faults, expected, "{proxy}");
    };
    let no_tls = "must be empty: this version does not speak TLS to the proxy itself, only to the provider behind it";
    let http = |url: &str| json!({"type": "http", "url": url});
    for nothing in [json!({}), json!({"type": "", "url": ""}), json!({"type": null, "password": ""})] {
        check(nothing, &[]);
    }
    for said in [json!({"type": "ftp"}), json!({"url": "http://p"}), json!({"password": "x"}), json!({"type": "HTTP"})]
    {
        check(said, &["type: must be one of: none, http, socks5, environment"]);
    }
    check(json!({"type": 5}), &["type: must be a string, not a number"]);
    check(json!({"type": "http"}), &["url: is required for a proxy of type 'http'"]);
    check(json!({"type": "socks5", "url": ""}), &["url: is required for a proxy of type 'socks5'"]);
    check(json!({"type": "http", "url": 5}), &["url: must be a string, not a number"]);
    check(http("socks5://p"), &["url: must begin with http://"]);
    check(json!({"type": "socks5", "url": "http://p"}), &["url: must begin with socks5:// or socks5h://"]);
    check(http("ftp://p"), &["url: must begin with http:// or socks5://"]);
    check(
        http("https://p"),
        &["url: must not begin with https://: this version does not speak TLS to the proxy itself"],
    );
    check(http("http://p/x"), &["url: must have nothing behind host and port"]);
    let carries = "url: must not carry a user or password: username and password are for them";
    check(http("http://u@p"), &[carries]);
    check(http("http://u:very-secret@p"), &[carries]);
    check(json!({"type": "http", "url": "http://p", "ca_cert_pem": AUTHORITY}), &[&format!("ca_cert_pem: {no_tls}")]);
    check(
        json!({"type": "http", "url": "http://p", "ca_cert_pem": "<REDACTED>"}),
        &[&format!("ca_cert_pem: {no_tls}")],
    );
    let outside = "must be empty: where a proxy of type 'environment' is, the environment's variables say";
    check(
        json!({"type": "environment", "url": "http://p", "username": "u", "password": "p", "ca_cert_pem": "c"}),
        &[
            &format!("ca_cert_pem: {no_tls}"),
            &format!("url: {outside}"),
            &format!("username: {outside}"),
            &format!("password: {outside}"),
        ],
    );
    let credential = |kind: &str, username: Value, password: Value| json!({"type": kind, "url": format!("{kind}://p"), "username": username, "password": password});
    check(credential("http", json!("u"), json!("")), &[]);
    check(
        credential("http", json!("u:"), json!("p")),
        &["username: must not contain ':', which ends it on the way to an HTTP proxy"],
    );
    check(credential("socks5", json!("u:"), json!("p")), &[]);
    check(
        credential("socks5", json!("u"), json!("")),
        &["password: is required beside a username for a proxy of type 'socks5'"],
    );
    check(credential("http", json!(""), json!("p")), &["username: is required beside a password"]);
    check(
        credential("http", json!("u\n"), json!("p\r")),
        &["username: must not hold control characters", "password: must not hold control characters"],
    );
    let long = "x".repeat(256);
    check(
        credential("socks5", json!(long), json!(long)),
        &["username: is longer than 255 bytes", "password: is longer than 255 bytes"],
    );
    check(
        credential("http", json!(1), json!(2)),
        &["username: must be a string, not a number", "password: must be a string, not a number"],
    );
    check(
        credential("http", json!("u"), json!("<REDACTED>")),
        &["password: is a redacted text, and nothing is stored that it could stand for"],
    );
    check(
        credential("http", json!("u"), json!("env.SET")),
        &["password: names an environment variable, which only the config file can use here"],
    );
}

#[test]
fn an_environment_that_cannot_be_used_is_told_at_once() {
    let body = json!({"proxy_config": {"type": "environment"}});
    let read = |env: Env<'_>| {
        with_change(false, NOW, |change, faults| {
            provider("openai", &body, None, &mut ProviderChange { env, new_id: &mut String::new, ..*change }, faults)
        })
    };
    let set = |value: &'static str| move |name: &str| (name == "HTTPS_PROXY").then(|| value.to_owned());
    assert_eq!(read(&set("proxy:3128")).unwrap().proxy.unwrap().kind, ProxyKind::Environment);
    assert_eq!(
        read(&set("ftp://very-secret@p")).unwrap_err(),
        ["proxy_config.type: environment variable HTTPS_PROXY must begin with http:// or socks5://"]
    );
}

#[test]
fn a_proxy_is_kept_changed_and_taken_away() {
    let proxy = |kind, url: &str, username: &str, password: Option<&str>| UpstreamProxy {
        kind,
        url: url.to_owned(),
        username: username.to_owned(),
        password: password.map(Secret::new),
    };
    let base = create("mine", everything()).unwrap();
    let stored = proxy(ProxyKind::Http, "http://proxy:3128", "us", Some("proxy-secret-0123456789"));
    assert_eq!(base.proxy.as_ref(), Some(&stored));
    let shown = json!({"type": "http", "url": "http://proxy:3128", "username": "us", "password": "<REDACTED>", "ca_cert_pem": ""});
    assert_eq!(show::provider(&base)["proxy_config"], shown);
    let check = |body: Value, expected: Option<UpstreamProxy>| {
        let body = json!({"network_config": {"base_url": "http://h"}, "proxy_config": body});
        let updated = update(&base, &body).unwrap();
        assert_eq!(updated.proxy, expected, "{body}");
        let (value, secrets) = store_provider(&updated);
        assert_eq!(load_provider(&value, &secrets).unwrap().proxy, expected, "{value}");
        let again = update(
            &updated,
            &json!({"network_config": {"base_url": "http://h"}, "proxy_config": show::provider(&updated)["proxy_config"]}),
        );
        assert_eq!(again.unwrap().proxy, expected, "{body}");
    };
    check(shown, Some(stored));
    check(json!(null), None);
    check(json!({"type": "none", "password": "<REDACTED>"}), None);
    check(json!({"type": "environment"}), Some(proxy(ProxyKind::Environment, "", "", None)));
    check(json!({"type": "http", "url": "http://other"}), Some(proxy(ProxyKind::Http, "http://other", "", None)));
    check(
        json!({"type": "socks5", "url": "socks5h://[::1]:1080/", "username": "u", "password": "************"}),
        Some(proxy(ProxyKind::Socks5, "socks5h://[::1]:1080", "u", Some("proxy-secret-0123456789"))),
    );
    let absent = json!({"network_config": {"base_url": "http://h"}});
    assert_eq!(
        (update(&base, &absent).unwrap().proxy, &show::provider(&create("openai", json!({})).unwrap())["proxy_config"]),
        (None, &Value::Null)
    );
}

#[test]
fn every_fault_of_a_key_is_named_with_its_path() {
    let check = |name: &str, body: Value, expected: &[&str]| {
        let provider = create(name, json!({})).unwrap();
        assert_eq!(create_key(&provider, &body).err().unwrap_or_default(), expected, "{name} {body}");
    };
    check("openai", json!({}), &["name: is required", "value: is required"]);
    check("openai", json!({"name": " ", "value": ""}), &["name: is required", "value: is required"]);
    check(
        "openai",
        json!({"name": 1, "value": 2}),
        &["name: must be a string, not a number", "value: must be a string, not a number"],
    );
    check("openai", json!({"name": "a", "value": "b\nc"}), &["value: has characters that no header can carry"]);
    check("openai", json!({"name": "a", "value": "env.NOPE"}), &["value: environment variable NOPE is not set"]);
    check(
        "openai",
        json!({"name": "a", "value": {"env_var": "env.NOPE"}}),
        &["value: environment variable NOPE is not set"],
    );
    check(
        "openai",
        json!({"name": "a", "value": "****"}),
        &["value: is a redacted text, and nothing is stored that it could stand for"],
    );
    check(
        "openai",
        json!({"name": "taken", "value": "x"}),
        &["name: API key names must be unique across providers: 'taken'"],
    );
    check("openai", json!({"id": "owner", "name": "taken", "value": "x"}), &[]);
    check(
        "openai",
        json!({"id": "used", "name": "a", "value": "x"}),
        &["id: there is a key with the id 'used' already"],
    );
    check(
        "openai",
        json!({"name": "a", "value": "x", "models": ["*", "y"], "blacklisted_models": ["z", "z"], "weight": -1, "aliases": {"m": 1}}),
        &[
            "aliases.m: must be a string, not a number",
            "models: '*' means everything and stands alone",
            "blacklisted_models[1]: 'z' is listed twice",
            "weight: weight '-1' is negative",
        ],
    );
    check(
        "openai",
        json!({"name": "a", "value": "x", "azure_key_config": {"endpoint": "https://h"}}),
        &["azure_key_config: is for keys of 'azure'"],
    );
    let blank = json!({"endpoint": {"value": "", "env_var": "", "from_env": false}, "deployments": {}});
    check("openai", json!({"name": "a", "value": "x", "azure_key_config": blank, "vertex_key_config": null}), &[]);
    check("azure", json!({"name": "a"}), &["azure_key_config.endpoint: is required for keys of 'azure'"]);
    check("azure", json!({"name": "a", "azure_key_config": 1}), &["azure_key_config: must be an object, not a number"]);
    check(
        "azure",
        json!({"name": "a", "azure_key_config": {"endpoint": "nowhere"}}),
        &["azure_key_config.endpoint: must begin with http:// or https://"],
    );
    check("azure", json!({"name": "a", "azure_key_config": {"endpoint": "https://h"}}), &[]);
    check("vertex", json!({"name": "a"}), &["vertex_key_config: is required for keys of 'vertex'"]);
    check("vertex", json!({"name": "a", "vertex_key_config": {}}), &[]);
    check("bedrock", json!({"name": "a"}), &[]);
    check("replicate", json!({"name": "a"}), &["value: is required"]);
    for name in ["vllm", "ollama", "sgl"] {
        let member = format!("{name}_key_config");
        check(name, json!({"name": "a"}), &[&format!("{member}.url: is required for keys of '{name}'")]);
        check(name, json!({"name": "a", &member: {"url": "http://h"}}), &[]);
        check(
            name,
            json!({"name": "a", &member: {"url": ""}}),
            &[&format!("{member}.url: is required for keys of '{name}'")],
        );
        let reached = create(name, json!({"network_config": {"base_url": "http://h"}})).unwrap();
        assert!(create_key(&reached, &json!({"name": "a"})).is_ok(), "{name}");
    }
    let keyless = custom(json!({"custom_provider_config": {"base_provider_type": "openai", "is_key_less": true}}));
    let keyless = create("mine", keyless).unwrap();
    let refused = create_key(&keyless, &json!({"name": "a", "value": "x"}));
    assert_eq!(refused.unwrap_err(), ["a key-less provider takes no keys"]);
}

#[test]
fn the_file_takes_nothing_that_nobody_knows() {
    let check = |name: &str, body: Value, expected: &[&str]| {
        let read = with_change(true, NOW, |change, faults| provider(name, &body, None, change, faults));
        assert_eq!(read.err().unwrap_or_default(), expected, "{body}");
        assert!(create(name, body).is_ok());
    };
    check("openai", json!({"network_confg": {}}), &["network_confg: unknown key; did you mean 'network_config'?"]);
    check(
        "openai",
        json!({"network_config": {"base_ur": ""}}),
        &["network_config.base_ur: unknown key; did you mean 'base_url'?"],
    );
    check(
        "openai",
        json!({"concurrency_and_buffer_size": {"zzz": 1}}),
        &["concurrency_and_buffer_size.zzz: unknown key"],
    );
    check("openai", json!({"proxy_config": {"kind": "none"}}), &["proxy_config.kind: unknown key"]);
    check(
        "openai",
        json!({"keys": [{"name": "a", "value": "x", "wieght": 1}]}),
        &["keys[0].wieght: unknown key; did you mean 'weight'?"],
    );
    check(
        "azure",
        json!({"keys": [{"name": "a", "azure_key_config": {"endpoint": "https://h", "regoin": "x"}}]}),
        &["keys[0].azure_key_config.regoin: unknown key"],
    );
    check(
        "mine",
        custom(json!({"custom_provider_config": {"base_provider_type": "openai", "is_keyless": false}})),
        &["custom_provider_config.is_keyless: unknown key; did you mean 'is_key_less'?"],
    );
}

#[test]
fn the_file_s_keys_have_ids_that_stay() {
    let body = json!({"keys": [{"name": "a", "value": "x"}, {"id": "b", "name": "c", "value": "y"}]});
    let read = |base: Option<&Provider>, now, body: &Value| {
        with_change(true, now, |change, faults| provider("openai", body, base, change, faults)).unwrap()
    };
    let first = read(None, NOW, &body);
    assert_eq!(first.keys.iter().map(|key| &*key.id).collect::<Vec<_>>(), ["a", "b"]);
    let mut stored = first.clone();
    let by_api = create_key(&stored, &json!({"name": "by the API", "value": "z"})).unwrap();
    stored.keys.push(Arc::new(by_api));
    stored.concurrency.concurrency = 1;
    let again = read(Some(&stored), LATER, &json!({"keys": [{"name": "a", "value": "new"}]}));
    let keys: Vec<(&str, &str, Timestamp)> =
        again.keys.iter().map(|key| (key.name.as_str(), key.value.expose(), key.created_at)).collect();
    // Keys that the file does not name stay; everything else is as the file says.
    assert_eq!(keys, [("a", "new", NOW), ("c", "y", NOW), ("by the API", "z", NOW)]);
    assert_eq!((again.concurrency, again.created_at, again.updated_at), (Concurrency::default(), NOW, LATER));
}

#[test]
fn an_update_replaces_all_but_what_it_cannot_know() {
    let base = create("mine", everything()).unwrap();
    let updated = update(&base, &json!({"network_config": {"base_url": "http://h"}})).unwrap();
    // Concurrency and what makes it a custom provider stay, and keys have their own endpoints.
    assert_eq!((updated.concurrency, &updated.custom, &updated.keys), (base.concurrency, &base.custom, &base.keys));
    assert_eq!(updated.network, Network { base_url: Some("http://h".into()), ..Network::default() });
    assert!(!updated.send_back_raw_request && updated.openai_config.is_none());
    assert_eq!((updated.created_at, updated.updated_at), (NOW, LATER));
    let half = json!({"network_config": {"base_url": "http://h"}, "concurrency_and_buffer_size": {"buffer_size": 9}});
    assert_eq!(update(&base, &half).unwrap().concurrency, Concurrency { concurrency: 3, buffer_size: 9 });
    let custom = json!({"network_config": {"base_url": "http://h"}, "custom_provider_config": {}});
    let custom = update(&base, &custom).unwrap().custom.unwrap();
    assert_eq!((custom.base, custom.allowed_requests), ("openai", None));
}

#[test]
fn an_update_changes_neither_base_nor_keys() {
    let base = create("mine", everything()).unwrap();
    let shown: Vec<Value> = base.keys.iter().map(|key| show::provider_key(&base, key)).collect();
    let check = |more: Value, expected: &[&str]| {
        let mut body = json!({"network_config": {"base_url": "http://h"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(update(&base, &body).err().unwrap_or_default(), expected, "{more}");
    };
    let point = |i: usize| {
        format!(
            "keys[{i}]: keys are not changed here; use /api/providers/mine/keys and /api/providers/mine/keys/{{key_id}}"
        )
    };
    check(json!({"custom_provider_config": null, "keys": null}), &[]);
    check(
        json!({"custom_provider_config": {"base_provider_type": "cohere"}}),
        &["custom_provider_config.base_provider_type: BaseProviderType cannot be changed"],
    );
    check(
        json!({"custom_provider_config": {"is_key_less": true}}),
        &["custom_provider_config.is_key_less: a key-less provider takes no keys"],
    );
    check(json!({"keys": shown}), &[]);
    check(json!({"keys": [shown[1]]}), &[]);
    check(json!({"keys": [{"name": "new", "value": "x"}]}), &[&point(0)]);
    let mut changed = shown.clone();
    changed[1]["weight"] = json!(7);
    check(json!({"keys": changed}), &[&point(1)]);
    let mut changed = shown;
    changed[0]["value"] = json!("sk-another");
    check(json!({"keys": changed}), &[&point(0)]);
}

/// Keys of every cloud, with secrets wherever one can be.
fn cloud_keys() -> Vec<(&'static str, Value)> {
    let batch = json!({"buckets": [{"bucket_name": "b"}]});
    vec![
        ("openai", json!({"name": "k", "value": "sk-very-secret-0123456789", "aliases": {"m": "M"}})),
        ("openai", json!({"name": "k", "value": "env.SET", "enabled": false, "weight": 0})),
        (
            "azure",
            json!({"name": "k", "value": "short", "azure_key_config": {
            "endpoint": "https://h/", "api_version": "v", "client_id": "i", "client_secret": "azure-very-secret-0123456789",
            "tenant_id": "env.SET", "scopes": ["s"], "deployments": {"m": "D"}}}),
        ),
        (
            "vertex",
            json!({"name": "k", "vertex_key_config": {
            "project_id": "p", "project_number": "1", "region": "r", "auth_credentials": "{\"private_key\":\"vertex-very-secret\"}"}}),
        ),
        (
            "bedrock",
            json!({"name": "k", "bedrock_key_config": {
            "access_key": "AKIA-very-secret-0123456789", "secret_key": {"value": "aws-very-secret-0123456789"}, "session_token": "env.SET",
            "region": "r", "arn": "a", "batch_s3_config": batch}}),
        ),
        ("vllm", json!({"name": "k", "vllm_key_config": {"url": "http://h", "model_name": "m"}})),
        ("ollama", json!({"name": "k", "ollama_key_config": {"url": "http://h"}})),
        ("sgl", json!({"name": "k", "sgl_key_config": {"url": "http://h"}})),
        (
            "replicate",
            json!({"name": "k", "value": "r8-very-secret", "replicate_key_config": {"use_deployments_endpoint": true}}),
        ),
    ]
}

fn without_update_time<T: Clone>(value: &T, set: impl FnOnce(&mut T)) -> T {
    let mut value = value.clone();
    set(&mut value);
    value
}

#[test]
fn what_is_shown_can_be_written_back() {
    let provider = create("mine", everything()).unwrap();
    let again = update(&provider, &show::provider(&provider)).unwrap();
    assert_eq!(without_update_time(&again, |again| again.updated_at = NOW), provider);
    for (name, body) in cloud_keys() {
        let provider = create(name, json!({})).unwrap();
        let key = declare_key(&provider, &body).unwrap();
        let again = update_key(&provider, &key, &show::provider_key(&provider, &key)).unwrap();
        assert_eq!(without_update_time(&again, |again| again.updated_at = NOW), key, "{body}");
    }
}

#[test]
fn a_key_is_replaced_as_a_whole_but_for_redacted_secrets() {
    let provider = create("openai", json!({})).unwrap();
    let body =
        json!({"name": "k", "value": "sk-very-secret-0123456789", "models": ["a"], "weight": 3, "enabled": false});
    let base = create_key(&provider, &body).unwrap();
    let check = |body: Value, expected: Result<&str, &str>| {
        let read = update_key(&provider, &base, &body);
        match expected {
            Ok(value) => {
                let key = read.unwrap();
                assert_eq!((key.value.expose(), &key.id, key.created_at), (value, &base.id, NOW));
                assert_eq!((&key.models, key.weight, key.enabled), (&ModelSet::All, Weight::ONE, true));
            }
            Err(fault) => assert_eq!(read.unwrap_err(), [fault]),
        }
    };
    check(json!({"name": "k", "value": "sk-new"}), Ok("sk-new"));
    check(json!({"id": "other", "name": "k", "value": "sk-new"}), Ok("sk-new"));
    check(json!({"name": "k", "value": "env.SET"}), Ok("from-outside-secret"));
    check(json!({"name": "k", "value": "sk-v************************6789"}), Ok("sk-very-secret-0123456789"));
    check(json!({"name": "k", "value": "<REDACTED>"}), Ok("sk-very-secret-0123456789"));
    check(
        json!({"name": "k", "value": {"value": "********", "env_var": "", "from_env": false}}),
        Ok("sk-very-secret-0123456789"),
    );
    check(json!({"name": "k"}), Err("value: is required"));
}

#[test]
fn aliases_come_from_deployments_too() {
    let azure = create("azure", json!({})).unwrap();
    let body = json!({"name": "k", "aliases": {"m": "own"}, "azure_key_config": {"endpoint": "https://h/", "deployments": {"m": "old", "n": "N"}}});
    let key = create_key(&azure, &body).unwrap();
    assert_eq!(json!(key.aliases), json!({"m": "own", "n": "N"}));
    let cloud = key.cloud.unwrap();
    assert_eq!(cloud.kind, Cloud::Azure);
    assert_eq!(cloud.fields.len(), 1);
}

#[test]
fn what_is_stored_comes_back() {
    let provider = create("mine", everything()).unwrap();
    let (value, secrets) = store_provider(&provider);
    // Through text, as a store keeps it.
    let value: Value = serde_json::from_str(&value.to_string()).unwrap();
    let loaded = load_provider(&value, &secrets).unwrap();
    assert_eq!(loaded, Provider { keys: vec![], ..provider.clone() });
    assert!(!value.to_string().contains("-secret"), "{value}");
    assert_eq!(secrets.len(), 2);
    for (lost, _) in &secrets {
        let left: Secrets = secrets.iter().filter(|(place, _)| place != lost).cloned().collect();
        assert!(load_provider(&value, &left).is_err(), "{lost} is lost");
    }
    for (name, body) in cloud_keys() {
        let provider = create(name, json!({})).unwrap();
        let key = declare_key(&provider, &body).unwrap();
        let (value, secrets) = store_key(&key);
        let value: Value = serde_json::from_str(&value.to_string()).unwrap();
        assert!(!value.to_string().contains("-secret"), "{value}");
        assert_eq!(load_key(&value, &secrets, &env).unwrap(), key, "{body}");
    }
}

#[test]
fn what_was_damaged_is_not_loaded() {
    let provider = create("mine", everything()).unwrap();
    let (value, secrets) = store_provider(&provider);
    let (key, key_secrets) = store_key(&provider.keys[0]);
    for name in
        value.as_object().unwrap().keys().filter(|name| !["custom", "openai_config", "proxy"].contains(&name.as_str()))
    {
        let mut damaged = value.clone();
        damaged.as_object_mut().unwrap().remove(name);
        assert!(load_provider(&damaged, &secrets).is_err(), "{name}");
    }
    for name in key.as_object().unwrap().keys().filter(|name| *name != "cloud") {
        let mut damaged = key.clone();
        damaged[name] = json!(["damaged"]);
        let loaded = load_key(&damaged, &key_secrets, &env);
        // A list of names is a list of names, whichever they are.
        assert_eq!(loaded.is_err(), !name.ends_with("models"), "{name}");
    }
    assert!(load_key(&key, &vec![], &env).is_err());
}

#[test]
fn a_variable_that_is_gone_disables_its_key_and_no_more() {
    let provider = create("openai", json!({})).unwrap();
    let key = create_key(&provider, &json!({"name": "k", "value": "env.SET"})).unwrap();
    let (value, secrets) = store_key(&key);
    assert!(secrets.is_empty());
    let gone = load_key(&value, &secrets, &|_| None).unwrap();
    assert!(!gone.serves("openai", "m") && gone.missing_variables().eq(["SET"]));
    let shown = show::provider_key(&provider, &gone);
    assert_eq!(shown["value"], json!({"value": "", "env_var": "env.SET", "from_env": true}));
    assert_eq!(shown["description"], "not used: environment variable SET is not set");
    // It can be written back as it is, and is found again with its variable.
    let mut renamed = shown;
    renamed["name"] = json!("renamed");
    let read = |env: Env<'_>| {
        let mut change = ProviderChange {
            new_id: &mut String::new,
            now: LATER,
            own_ids: true,
            env,
            key_name_taken: &|_, _| false,
            key_id_taken: &|_| false,
            strict: false,
            clash: false,
        };
        let mut faults = Faults::default();
        let key = provider_key(&provider, &renamed, Some(&gone), &mut change, &mut faults).unwrap();
        assert_eq!((faults.to_string(), key.name.as_str()), (String::new(), "renamed"));
        key
    };
    assert_eq!(read(&|_| None).value, KeyValue::variable("SET", None));
    assert_eq!(read(&env).value, key.value);
}

#[test]
fn answers_have_the_contract_s_members() {
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let provider = create("mine", everything()).unwrap();
    let shown = show::provider(&provider);
    assert_eq!(
        names(&shown),
        "concurrency_and_buffer_size created_at custom_provider_config key_count name network_config openai_config \
         provider_status proxy_config send_back_raw_request send_back_raw_response store_raw_request_response updated_at"
    );
    assert_eq!(shown["provider_status"], "active");
    assert_eq!(names(&shown["proxy_config"]), "ca_cert_pem password type url username");
    assert_eq!(shown["network_config"]["ca_cert_pem"], "<REDACTED>");
    let headers = json!({"x-org-token": "head************************6789", "x-title": "in clear"});
    assert_eq!(shown["network_config"]["extra_headers"], headers);
    let allowed = &shown["custom_provider_config"]["allowed_requests"];
    assert_eq!(
        (&allowed["chat_completion"], &allowed["embedding"], &allowed["rerank"]),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!(show::provider(&create("anthropic", json!({})).unwrap())["provider_status"], "error");
    let key = show::provider_key(&provider, &provider.keys[0]);
    assert_eq!(
        names(&key),
        "aliases blacklisted_models created_at enabled id models name provider updated_at use_for_batch_api value weight"
    );
    assert_eq!(key["value"], json!({"value": "sk-v************************6789", "env_var": "", "from_env": false}));
    let expanded = show::expanded_key(3, &provider, &provider.keys[0]);
    assert_eq!((&expanded["id"], &expanded["key_id"]), (&json!(3), &json!("made-1")));
    assert_eq!(expanded["value"], json!({"value": "", "env_var": "", "from_env": false}));
}

/// Two providers and a price list for the lists of models.
fn shelf() -> (Vec<Provider>, Catalog) {
    let openai = create(
        "openai",
        json!({"keys": [
            {"id": "k1", "name": "k1", "value": "x", "models": ["gpt-4o", "openai/o3"], "aliases": {"fast": "gpt-4o-mini"}},
            {"id": "k2", "name": "k2", "value": "x", "blacklisted_models": ["gpt-4o"]},
            {"id": "off", "name": "off", "value": "x", "models": ["hidden"], "enabled": false},
        ]}),
    );
    let groq = create("groq", json!({"keys": [{"id": "g", "name": "g", "value": "x", "models": ["meta/llama"]}]}));
    let mut catalog = Catalog::default();
    let price = Price::named([("input_cost_per_token", Rate::new(1))]).within(Some(100), Some(10));
    for (provider, model) in
        [("openai", "gpt-4o"), ("openai", "listed"), ("groq", "meta/llama"), ("groq", "other"), ("xai", "grok")]
    {
        catalog.insert(provider, model, None, price.clone());
    }
    (vec![openai.unwrap(), groq.unwrap()], catalog)
}

#[test]
fn models_are_listed_as_keys_allow() {
    let (providers, catalog) = shelf();
    let providers: Vec<&Provider> = providers.iter().collect();
    let check = |query: ModelQuery<'_>, total: usize, expected: &str| {
        let answer = models(&providers, &catalog, &query);
        let names = answer["models"].as_array().unwrap().iter().map(|model| {
            let keys = model.get("accessible_by_keys").map(|keys| {
                keys.as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect::<Vec<_>>().join("+")
            });
            format!(
                "{}/{}{}",
                model["provider"].as_str().unwrap(),
                model["name"].as_str().unwrap(),
                keys.map(|keys| format!(":{keys}")).unwrap_or_default()
            )
        });
        assert_eq!(
            (names.collect::<Vec<_>>().join(" "), &answer["total"]),
            (expected.to_owned(), &json!(total)),
            "{query:?}"
        );
    };
    let all = ModelQuery { limit: 99, ..ModelQuery::default() };
    check(all, 5, "groq/meta/llama:g openai/fast:k1+k2 openai/gpt-4o:k1 openai/listed:k2 openai/o3:k1+k2");
    check(ModelQuery { limit: 2, ..all }, 5, "groq/meta/llama:g openai/fast:k1+k2");
    check(ModelQuery { query: "GPT4", ..all }, 1, "openai/gpt-4o:k1");
    check(ModelQuery { provider: Some("groq"), ..all }, 1, "groq/meta/llama:g");
    check(ModelQuery { provider: Some("xai"), ..all }, 0, "");
    check(ModelQuery { keys: &["k1"], ..all }, 3, "openai/fast:k1 openai/gpt-4o:k1 openai/o3:k1");
    check(ModelQuery { keys: &["off"], ..all }, 0, "");
    check(
        ModelQuery { keys: &["nobody's"], ..all },
        5,
        "groq/meta/llama:g openai/fast:k1+k2 openai/gpt-4o:k1 openai/listed:k2 openai/o3:k1+k2",
    );
    check(ModelQuery { keys: &["nobody's", "g"], ..all }, 1, "groq/meta/llama:g");
    let unfiltered = ModelQuery { unfiltered: true, ..all };
    check(unfiltered, 7, "groq/meta/llama groq/other openai/fast openai/gpt-4o openai/hidden openai/listed openai/o3");
    check(ModelQuery { provider: Some("xai"), ..unfiltered }, 1, "xai/grok");
}

#[test]
fn models_are_told_apart_and_put_together() {
    let (providers, catalog) = shelf();
    let providers: Vec<&Provider> = providers.iter().collect();
    let query = ModelQuery { limit: 2, ..ModelQuery::default() };
    let expected = json!({"models": [
        {"name": "meta/llama", "provider": "groq", "accessible_by_keys": ["g"],
         "context_length": 100, "max_input_tokens": 100, "max_output_tokens": 10},
        {"name": "fast", "provider": "openai", "accessible_by_keys": ["k1", "k2"]},
    ], "total": 5});
    assert_eq!(models_details(&providers, &catalog, &query), expected);
    let expected = json!({"models": ["fast", "gpt-4o"], "total": 5});
    assert_eq!(models_base(&providers, &catalog, &query), expected);
    let expected = json!({"models": ["llama"], "total": 1});
    assert_eq!(models_base(&providers, &catalog, &ModelQuery { query: "llama", ..query }), expected);
}

proptest! {
    /// Whatever a secret is, and wherever it stands, nothing that is printed, shown or stored in clear has it.
    #[test]
    fn no_secret_is_ever_seen(secret in "[!-~]{12,60}".prop_filter("a reference or a redaction is no secret", |text| {
        !text.starts_with("env.") && !crate::wire::env_text::is_redacted(text)
    })) {
        let is_hidden = |text: &str| {
            let escaped = Value::from(secret.as_str()).to_string();
            !text.contains(&secret) && !text.contains(escaped.trim_matches('"'))
        };
        let body = custom(json!({"network_config": {"base_url": "http://h", "extra_headers": {"x-token": secret}}}));
        let mut body = body;
        body["proxy_config"] = json!({"type": "socks5", "url": "socks5://p", "username": "u", "password": secret});
        let provider = create("mine", body).unwrap();
        for text in [format!("{provider:?}"), show::provider(&provider).to_string(), store_provider(&provider).0.to_string()] {
            prop_assert!(is_hidden(&text), "{text}");
        }
        // The way back loses nothing.
        let again = update(&provider, &show::provider(&provider)).unwrap();
        prop_assert_eq!(&again.proxy, &provider.proxy);
        prop_assert_eq!(&again.network, &provider.network);
        let (value, secrets) = store_provider(&provider);
        prop_assert_eq!(load_provider(&value, &secrets).unwrap(), provider);
        let own = [("openai", None)].into_iter().chain(Cloud::ALL.map(|cloud| (cloud.provider(), Some(cloud))));
        for (name, cloud) in own {
            let provider = create(name, json!({})).unwrap();
            let mut body = json!({"name": "k", "value": secret});
            if let Some(cloud) = cloud {
                let secrets = cloud.fields().iter().filter(|(_, shape)| *shape == crate::governance::entity::CloudShape::Secret);
                let mut config: Map<String, Value> = secrets.map(|(name, _)| ((*name).to_owned(), json!(secret))).collect();
                config.extend(cloud.required().map(|name| (name.to_owned(), json!("http://h"))));
                body[cloud.member()] = config.into();
            }
            let key = create_key(&provider, &body).unwrap();
            let expanded = show::expanded_key(1, &provider, &key).to_string();
            for text in [format!("{key:?}"), show::provider_key(&provider, &key).to_string(), expanded, store_key(&key).0.to_string()] {
                prop_assert!(is_hidden(&text), "{text}");
            }
            // The way back loses nothing.
            let again = update_key(&provider, &key, &show::provider_key(&provider, &key)).unwrap();
            prop_assert_eq!(again.value.expose(), secret.as_str());
            prop_assert_eq!(&again.cloud, &key.cloud);
            let (value, secrets) = store_key(&key);
            prop_assert_eq!(load_key(&value, &secrets, &env).unwrap(), key);
        }
    }

    /// No body, however odd, is more than refused.
    #[test]
    fn any_body_is_read_or_refused(text in "[a-z]{0,3}", number in any::<i64>(), flag in any::<bool>()) {
        let odd = [json!(text), json!(number), json!(flag), json!(null), json!([text]), json!({text.clone(): number})];
        for member in [PROVIDER, &["network_config.x"]].concat() {
            for value in &odd {
                let _ = create("openai", json!({member: value}));
            }
        }
        for member in NETWORK {
            for value in &odd {
                let _ = create("openai", json!({"network_config": {*member: value}}));
            }
        }
        for member in PROXY {
            for value in &odd {
                for kind in ["http", "socks5", "environment"] {
                    let mut proxy = json!({"type": kind, "url": format!("{kind}://p")});
                    proxy[*member] = value.clone();
                    let _ = create("openai", json!({"proxy_config": proxy}));
                }
            }
        }
        for member in [KEY, &Cloud::ALL.map(Cloud::member)].concat() {
            for value in &odd {
                let _ = create_key(&create("azure", json!({})).unwrap(), &json!({member: value}));
            }
        }
    }
}
