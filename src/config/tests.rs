//! Every mistake is found at once, at its place; every key is documented in `config/full.yaml`.

use super::*;
use crate::governance::entity::ClientConfig;
use crate::governance::judge::Admission;
use crate::governance::money::Nanos;
use crate::governance::pricing::UnknownModel;
use crate::governance::usage::Usage;
use crate::governance::view::{Slots, View};
use crate::wire::provider as wire;
use proptest::prelude::*;

const MINIMAL: &str = include_str!("../../config/minimal.yaml");
const FULL: &str = include_str!("../../config/full.yaml");

fn env(name: &str) -> Option<String> {
    match name {
        "OPENAI_API_KEY" => Some("sk-the-provider-secret".into()),
        "TOLLGATE_ADMIN_TOKEN" | "TOLLGATE_ENCRYPTION_KEY" => Some("sixteen characters and more".into()),
        "SHORT" => Some("short".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Settings, Vec<String>> {
    read(text, "t.yaml", Path::new("/base"), &env).map_err(|faults| faults.iter().map(Fault::to_string).collect())
}

/// What the file's objects come to where nothing is stored yet.
fn view(settings: &Settings) -> View {
    let (mut faults, mut view, mut slots) = (Faults::default(), View::default(), Slots::default());
    let edits = declared::dry_run(&settings.declared, &env, &mut faults);
    assert!(faults.is_empty(), "{faults}");
    edits.iter().for_each(|edit| view.apply(edit, &mut slots));
    view
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let faults = parse(text).expect_err("the text has faults");
    assert_eq!(faults, expected, "{text}");
}

#[test]
fn the_samples_load() {
    let minimal = parse(MINIMAL).unwrap();
    assert_eq!(minimal.warnings, Vec::<String>::new());
    assert_eq!(minimal.server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!((minimal.server.body_bytes_max, minimal.policy.admission), (None, Admission::Remaining));
    assert!(view(&minimal).client.enforce_auth && !minimal.policy.allow_by_default);
    let full = parse(FULL).unwrap();
    assert_eq!(full.server.body_bytes_max, Some(32 << 20));
    let declared = view(&full);
    assert_eq!(declared.providers().len(), 2);
    let caller = declared.callers().next().unwrap();
    assert_eq!(caller.key.limits.budgets[0].max, Nanos::new(10_000_000_000));
    assert_eq!(caller.team.as_ref().map(|team| &*team.entity.id), Some("build"));
    assert_eq!(caller.customer.as_ref().map(|customer| &*customer.entity.id), Some("acme"));
    let counts = [declared.model_configs().len(), declared.all_provider_limits().len(), declared.rules().len()];
    assert_eq!((counts, declared.pricing_overrides().len()), ([1, 1, 1], 1));
    assert_eq!(full.store.path, Path::new("/base/data/tollgate.db"));
}

#[test]
fn the_full_sample_shows_the_defaults() {
    let (full, mut empty) = (parse(FULL).unwrap(), parse("").unwrap());
    // Absent, it is the client settings' to say.
    empty.server.body_bytes_max = full.server.body_bytes_max;
    assert_eq!(format!("{:?}", full.server), format!("{:?}", empty.server));
    assert_eq!(format!("{:?}", full.policy), format!("{:?}", empty.policy));
    assert_eq!(full.log, empty.log);
    assert_eq!(full.ledger, empty.ledger);
    let (full, minimal) = (view(&full), view(&parse(MINIMAL).unwrap()));
    let client = ClientConfig { config_hash: String::new(), ..ClientConfig::clone(&full.client) };
    assert_eq!(client, ClientConfig::default());
    let network = |view: &View| format!("{:?}", view.provider("openai").unwrap().network);
    assert_eq!(network(&full), network(&minimal));
}

#[test]
fn every_key_is_in_the_full_sample() {
    let lists = [
        file::SERVER,
        file::TLS,
        file::ADMIN,
        file::STORE,
        file::LEDGER,
        file::CLIENT,
        file::GOVERNANCE,
        file::PRICING,
        file::LOG,
        declared::CUSTOMER,
        declared::TEAM,
        declared::KEY,
        declared::KEY_CONFIG,
        declared::MODEL_CONFIG,
        declared::RULE,
        declared::OVERRIDE,
        declared::BUDGET,
        declared::RATE_LIMIT,
        wire::PROVIDER,
        wire::KEY,
        wire::NETWORK,
        wire::CUSTOM,
        wire::PROXY,
    ];
    for key in lists.into_iter().flatten() {
        assert!(FULL.contains(&format!("{key}:")), "{key} is missing from config/full.yaml");
    }
}

#[test]
fn all_faults_come_at_once_with_their_places() {
    refused(
        "server:\n  listn: [\"0.0.0.0:80\"]\n  threads: many\nadmin:\n  listen: \"0.0.0.0:8081\"\n  auth: none\nlog: { format: xml }\n",
        &[
            "t.yaml:2:3: server.listn: unknown key; did you mean 'listen'?",
            "t.yaml:3:3: server.threads: must be a whole number, not a string",
            "t.yaml:6:3: admin.auth: 'none' is accepted only on a loopback address, and 0.0.0.0:8081 is reachable by others",
            "t.yaml:7:8: log.format: 'xml' is none of: json, text",
        ],
    );
    refused("a: [1\nb: 2", &["t.yaml:2:2: illegal placement of ':' indicator"]);
    refused("server: 5\n", &["t.yaml:1:1: server: must be an object, not a number"]);
    refused("- a\n", &["t.yaml:1:1: must be an object, not an array"]);
    refused("log: {level: info}\nlog: {level: warn}\n", &["t.yaml:2:1: duplicate mapping key: log"]);
}

#[test]
fn settings_are_checked() {
    let check = |text: &str, expected: &str| refused(text, &[expected]);
    check(
        "server: { listen: [\"8080\"] }",
        "t.yaml:1:20: server.listen[0]: '8080' is no address with a port (examples: 0.0.0.0:8080, [::]:8080)",
    );
    check(
        "server: { max_request_body: 3 lumps }",
        "t.yaml:1:11: server.max_request_body: is no size (examples: 32MiB, 500KB, 1048576)",
    );
    check(
        "server: { grace_period: soon }",
        "t.yaml:1:11: server.grace_period: 'soon' is no duration (examples: 500ms, 30s, 5m, 24h)",
    );
    check("store: { encryption_key: short }", "t.yaml:1:10: store.encryption_key: must have 16 characters or more");
    check(
        "store: { encryption_key: env.NOT_THERE }",
        "t.yaml:1:10: store.encryption_key: environment variable NOT_THERE is not set",
    );
    check(
        "governance: { admission: sometimes }",
        "t.yaml:1:15: governance.admission: 'sometimes' is none of: remaining, never_exceed",
    );
    check(
        "governance: { min_output_tokens: 0 }",
        "t.yaml:1:15: governance.min_output_tokens: must be between 1 and 1048576, not 0",
    );
    for bad in ["0", "-1", "cheap", "1e30"] {
        check(
            &format!("governance: {{ max_request_cost: {bad} }}"),
            "t.yaml:1:15: governance.max_request_cost: must be a number of dollars above zero",
        );
    }
    check(
        "governance: { max_in_flight_per_key: 0 }",
        "t.yaml:1:15: governance.max_in_flight_per_key: must be between 1 and 4294967295, not 0",
    );
    check(
        "governance: { teams: [{ name: a, budget_id: b }] }",
        "t.yaml:1:34: governance.teams[0].budget_id: there is no budget 'b' in this file",
    );
    check(
        "governance: { budgets: [{ id: b, max_limit: 1, reset_duration: 1d }], teams: [{ name: a, budget_id: b }, { name: c, budget_id: b }] }",
        "t.yaml:1:117: governance.teams[1].budget_id: budget 'b' has another owner already; each has exactly one",
    );
    check(
        "governance: { customers: [{ id: a, name: x }, { id: a, name: y }] }",
        "t.yaml:1:47: governance.customers[1]: is declared twice: another entry has the same id or name",
    );
    check(
        "pricing: { catalog: \"https://x/y.json\" }",
        "t.yaml:1:12: pricing.catalog: a URL is not available in this version; use 'builtin' or a file",
    );
    check(
        "governance:\n  virtual_keys:\n    - name: a\n      budget: { max_limit: 0, reset_duration: 1d }",
        "t.yaml:4:17: governance.virtual_keys[0].budget.max_limit: budget max limit cannot be negative or zero: 0.00",
    );
}

#[test]
fn a_misspelt_limit_is_no_limit_and_so_a_fault() {
    refused(
        "governance:\n  virtual_keys:\n    - name: a\n      bugdet: { max_limit: 1, reset_duration: 1d }\n    - name: b\n      budget: { max_limit: 1, reset_duration: 1d, calender_aligned: true }\n      provider_configs: [{ provider: openai, rate_limits: {}, budget_id: x }]\n",
        &[
            "t.yaml:4:7: governance.virtual_keys[0].bugdet: unknown key; did you mean 'budget'?",
            "t.yaml:6:51: governance.virtual_keys[1].budget.calender_aligned: unknown key; did you mean 'calendar_aligned'?",
            "t.yaml:7:46: governance.virtual_keys[1].provider_configs[0].rate_limits: unknown key; did you mean 'rate_limit'?",
            "t.yaml:7:63: governance.virtual_keys[1].provider_configs[0].budget_id: there is no budget 'x' in this file",
        ],
    );
}

#[test]
fn rules_that_could_never_work_are_named() {
    let faults = parse("governance:\n  routing_rules:\n    - { name: a, cel_expression: 'model ==' }\n").unwrap_err();
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains(":3:18: governance.routing_rules[0].cel_expression: at line 1, column")),
        "{faults:?}"
    );
}

#[test]
fn providers_are_checked() {
    let check = |text: &str, expected: &[&str]| refused(&format!("providers:\n  {text}\n"), expected);
    check("openai: { keys: [{ name: a }] }", &["t.yaml:2:20: providers.openai.keys[0].value: is required"]);
    check(
        "openai: { keys: [{ name: a, value: x }], network_config: { base_url: \"http://u:p@h\" } }",
        &["t.yaml:2:62: providers.openai.network_config.base_url: must not carry a user or password"],
    );
    check(
        "openai: { network_config: { extra_headers: { Authorization: \"Bearer x\" } } }",
        &[
            "t.yaml:2:48: providers.openai.network_config.extra_headers.Authorization: cannot be set here: it carries a credential or belongs to the connection",
        ],
    );
    check(
        "mine: { keys: [{ name: a, value: x }] }",
        &[
            "t.yaml:2:3: providers.mine: 'mine' is not a built-in provider (openai, azure, anthropic, bedrock, cohere, vertex, vllm, mistral, ollama, groq, sgl, parasail, perplexity, replicate, cerebras, gemini, openrouter, elevenlabs, huggingface, nebius, xai, runway, fireworks), so it needs custom_provider_config",
            "t.yaml:2:3: providers.mine.network_config.base_url: is required: where is 'mine'?",
        ],
    );
    check(
        "openai: { network_confg: { max_retries: 1 }, keys: [{ name: a, value: x, modls: [] }] }",
        &[
            "t.yaml:2:13: providers.openai.network_confg: unknown key; did you mean 'network_config'?",
            "t.yaml:2:76: providers.openai.keys[0].modls: unknown key; did you mean 'models'?",
        ],
    );
    check(
        "openai: { keys: [{ name: a, value: x }] }\n  groq: { keys: [{ name: a, value: env.NOT_THERE }] }",
        &[
            "t.yaml:2:22: providers.openai.keys[0].name: API key names must be unique across providers: 'a'",
            "t.yaml:3:29: providers.groq.keys[0].value: environment variable NOT_THERE is not set",
        ],
    );
    check(
        "openai: { proxy_config: { type: http, url: \"socks5://p\", username: u, password: env.NOT_THERE, usrname: u } }",
        &[
            "t.yaml:2:41: providers.openai.proxy_config.url: must begin with http://",
            "t.yaml:2:73: providers.openai.proxy_config.password: environment variable NOT_THERE is not set",
            "t.yaml:2:98: providers.openai.proxy_config.usrname: unknown key; did you mean 'username'?",
        ],
    );
}

#[test]
fn keys_remember_their_variables() {
    let settings = parse(
        "providers:\n  openai: { keys: [{ name: a, value: env.OPENAI_API_KEY }], network_config: { extra_headers: { x-team: env.OPENAI_API_KEY } } }\n  ollama: { keys: [{ name: b, ollama_key_config: { url: { env_var: env.OPENAI_API_KEY } } }] }\n",
    );
    // A URL is checked whatever it comes from.
    assert_eq!(
        settings.unwrap_err(),
        ["t.yaml:3:52: providers.ollama.keys[0].ollama_key_config.url: must begin with http:// or https://"]
    );
    let settings = parse("providers:\n  openai: { keys: [{ name: a, value: env.OPENAI_API_KEY }], network_config: { extra_headers: { x-team: env.OPENAI_API_KEY } } }\n").unwrap();
    let view = view(&settings);
    let provider = view.provider("openai").unwrap();
    assert_eq!(provider.keys[0].value.env_var.as_deref(), Some("OPENAI_API_KEY"));
    assert_eq!(provider.keys[0].value.expose(), "sk-the-provider-secret");
    assert_eq!(provider.network.extra_headers[0].1.expose(), "sk-the-provider-secret");
    assert_eq!((&*provider.keys[0].id, provider.keys[0].name.as_str()), ("a", "a"));
}

#[test]
fn providers_that_cannot_be_called_yet_are_declared_with_a_warning() {
    let settings = parse("providers:\n  anthropic: { keys: [{ name: a, value: x }] }\n  openai:\n").unwrap();
    assert_eq!(view(&settings).providers().len(), 2);
    assert_eq!(
        settings.warnings,
        [
            "provider 'anthropic' has a dialect of its own, which this version does not speak: calls to it will be refused",
            "provider 'openai' has no key: calls to it will be refused",
        ]
    );
}

#[test]
fn a_bifrost_file_loads_as_it_stands() {
    let settings = parse(
        r#"{"$schema": "x", "encryption_key": "y", "config_store": {"enabled": true},
            "client": {"drop_excess_requests": false, "enforce_auth_on_inference": false, "allowed_origins": []},
            "auth_config": {"admin_username": "a", "admin_password": "b of twelve letters", "is_enabled": false},
            "providers": {"openai": {"keys": [{"name": "k", "value": {"value": "sk-1", "env_var": "", "from_env": false},
              "models": ["gpt-4o"], "weight": 0.5}], "network_config": {"max_retries": 2}}}}"#,
    )
    .unwrap();
    let declared = view(&settings);
    assert!(!declared.client.enforce_auth);
    assert_eq!(declared.provider("openai").unwrap().keys[0].value.expose(), "sk-1");
    assert_eq!(
        settings.warnings,
        [
            "these sections have no meaning here and are ignored: $schema, encryption_key, config_store",
            "client: these settings have no effect here: drop_excess_requests",
        ]
    );
}

#[test]
fn the_admin_listeners_user_is_checked() {
    refused(
        "auth_config: { admin_usrname: a, is_enabled: false }\ngovernance: { auth_config: { enabled: true } }\n",
        &[
            "t.yaml:1:16: auth_config.admin_usrname: unknown key; did you mean 'admin_username'?",
            "t.yaml:2:30: governance.auth_config.enabled: unknown key",
        ],
    );
    // Files of the reference have short ones.
    for password in ["eleven-char", "env.SHORT"] {
        let text = format!(
            "auth_config: {{ admin_username: a, admin_password: {password}, is_enabled: true }}\n\
             providers: {{ openai: {{ keys: [{{ name: a, value: b }}] }} }}",
        );
        let warning = "auth_config.admin_password: is shorter than 12 characters, and can be guessed";
        assert_eq!(parse(&text).unwrap().warnings, [warning]);
    }
    let settings = parse(
        "auth_config: { disable_auth_on_inference: true }\nproviders: { openai: { keys: [{ name: a, value: b }] } }",
    )
    .unwrap();
    let warning = "auth_config.disable_auth_on_inference: has no effect here; client.enforce_auth_on_inference decides";
    assert_eq!(settings.warnings, [warning]);
}

#[test]
fn a_password_from_the_environment_is_in_no_fault() {
    for text in [
        "auth_config: { admin_username: a, admin_password: { value: env.OPENAI_API_KEY, env_var: 'no name' } }",
        "auth_config: { admin_username: a, admin_password: { env_var: env.OPENAI_API_KEY, value: 7 } }",
        "auth_config: { admin_username: { value: env.OPENAI_API_KEY, env_var: 'a:b' }, admin_password: [env.OPENAI_API_KEY] }",
        "governance: { auth_config: { admin_password: { env_var: env.OPENAI_API_KEY, from_env: env.OPENAI_API_KEY } } }",
    ] {
        let faults = parse(text).err().unwrap_or_default().join("\n");
        assert!(!faults.contains("sk-the-provider"), "{faults}");
    }
    let text = "auth_config: { admin_username: { env_var: env.OPENAI_API_KEY }, admin_password: { value: env.OPENAI_API_KEY }, is_enabled: true }";
    assert_eq!(view(&parse(text).unwrap()).basic_auth.username, "sk-the-provider-secret");
}

#[test]
fn models_without_a_price_get_what_the_file_says() {
    let policy = |text: &str| parse(text).unwrap().policy.unknown_model;
    assert_eq!(policy(""), UnknownModel::Refuse);
    assert_eq!(policy("pricing: { unknown_model: free }"), UnknownModel::Free);
    let UnknownModel::Priced(price) =
        policy("pricing: { unknown_model: { input_cost_per_token: 0.000001, output_cost_per_token: 2e-6 } }")
    else {
        panic!("prices were given")
    };
    assert_eq!(price.cost(&Usage { input: 10, output: 10, ..Usage::default() }), Nanos::new(30_000));
}

#[test]
fn secrets_are_never_shown() {
    let full = parse(FULL).unwrap();
    let shown = format!("{full:?}");
    assert!(!shown.contains("sk-the-provider-secret") && !shown.contains("sixteen"), "{shown}");
    let text = "providers:\n  openai: { keys: [{ name: a, value: sk-very-secret, modls: [] }] }\nadmin: { token: hush-hush }\n";
    let faults = parse(text).unwrap_err().join("\n");
    assert!(!faults.contains("sk-very") && !faults.contains("hush"), "{faults}");
}

#[test]
fn an_entry_is_known_by_its_own_words() {
    let hash = |text: &str| {
        parse(&format!("governance: {{ virtual_keys: [{text}] }}")).unwrap().declared.virtual_keys[0].hash.clone()
    };
    assert_eq!(hash("{ name: a, is_active: true }"), hash("{ is_active: true, name: a }"));
    assert_ne!(hash("{ name: a, is_active: true }"), hash("{ name: a, is_active: false }"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:\\-\\[\\]{}&*!|> \n\"'0-9#,.]{0,120}") {
        let _ = parse(&text);
    }
}

#[test]
fn the_policy_of_admission_is_read() {
    let policy = |text: &str| parse(text).unwrap().policy;
    let usual = policy("governance: {}");
    assert_eq!((usual.admission, usual.output_min), (Admission::Remaining, 16));
    assert_eq!((usual.request_cost_max, usual.in_flight_per_key_max), (None, None));
    let text = "governance: { admission: never_exceed, min_output_tokens: 200, max_request_cost: 0.25, max_in_flight_per_key: 7 }";
    let strict = policy(text);
    assert_eq!((strict.admission, strict.output_min), (Admission::NeverExceed, 200));
    assert_eq!((strict.request_cost_max, strict.in_flight_per_key_max), (Some(Nanos::new(250_000_000)), Some(7)));
}
