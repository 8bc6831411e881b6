//! Every kind of object: it comes back as it went in, is replaced as a whole, and goes with all that is its.

use super::*;
use crate::governance::cel::{Checker, Condition};
use crate::governance::entity::{
    BasicAuth, ClientConfig, Cloud, CloudConfig, CloudField, CustomProvider, Customer, KeyValue, ModelConfig,
    ModelPattern, OverrideScope, PRICE_FIELDS, PricingOverride, Provider, ProviderKey, ProviderLimits, RoutingRule,
    RuleScope, RuleTarget, Team,
};
use crate::governance::money::Rate;
use std::collections::{BTreeMap, BTreeSet};

/// Texts that must not be seen anywhere in the files.
const SECRETS: [&str; 5] = [
    "sk-bf-recognisable",
    "sk-provider-recognisable",
    "header-recognisable",
    "cloud-recognisable",
    "answer-recognisable",
];

/// Limits with everything that limits can have.
fn full_limits(id: &str) -> Limits {
    let mut month = budget(&format!("{id}-month"), 9, "1M");
    month.window = Window::aligned(Span::parse("1M").unwrap()).unwrap();
    (month.created_at, month.updated_at, month.anchor) = (at(1), at(2), at(3));
    let mut rate = rate(&format!("{id}-rate"), Some(i64::MAX), Some(1));
    rate.tokens.as_mut().unwrap().window = Window::rolling(Span::parse("1m30s").unwrap());
    rate.requests.as_mut().unwrap().anchor = at(NOW + 5);
    (rate.created_at, rate.updated_at) = (at(4), at(5));
    Limits { budgets: vec![budget(&format!("{id}-minute"), 8, "1m"), month], rate_limit: Some(Box::new(rate)) }
}

/// Limits with little in them, of the same ids.
fn bare_limits(id: &str) -> Limits {
    Limits { budgets: Vec::new(), rate_limit: Some(Box::new(rate(&format!("{id}-rate"), None, Some(3)))) }
}

fn customer() -> Customer {
    Customer {
        id: "c".into(),
        name: "customer 'quoted' \u{1f4b0}".into(),
        limits: full_limits("c"),
        config_hash: "hash".into(),
        created_at: at(11),
        updated_at: at(12),
    }
}

fn team() -> Team {
    Team {
        id: "t".into(),
        name: "team".into(),
        customer_id: Some("c".into()),
        limits: full_limits("t"),
        profile: Some(r#"{"a":1}"#.into()),
        config: Some("{}".into()),
        claims: Some(r#"{"b":[]}"#.into()),
        config_hash: "hash".into(),
        created_at: at(13),
        updated_at: at(14),
    }
}

fn full_key(id: &str) -> VirtualKey {
    let mut anthropic = config(71, "anthropic", Vec::new());
    anthropic.weight = None;
    anthropic.allowed_models = ModelSet::Only(Vec::new());
    anthropic.key_ids = KeySet::All;
    anthropic.limits = full_limits("config");
    VirtualKey {
        id: id.into(),
        name: "a key".into(),
        description: "described".into(),
        is_active: false,
        team_id: Some("t".into()),
        customer_id: None,
        limits: full_limits(id),
        // Not in the order of their ids.
        provider_configs: vec![config(72, "openai", vec![budget("own", 1, "2d")]), anthropic],
        mcp_configs: r#"[{"mcp_client_name":"x"}]"#.into(),
        config_hash: "hash".into(),
        created_at: at(15),
        updated_at: at(16),
    }
}

fn model_config() -> ModelConfig {
    ModelConfig {
        id: "m".into(),
        model_name: "gpt-4o".into(),
        provider: Some("openai".into()),
        limits: full_limits("m"),
        config_hash: "hash".into(),
        created_at: at(17),
        updated_at: at(18),
    }
}

fn provider_limits() -> ProviderLimits {
    ProviderLimits { provider: "openai".into(), limits: full_limits("p"), config_hash: "hash".into() }
}

pub(super) fn rule(id: &str, name: &str, priority: i64) -> RoutingRule {
    let target = |provider: Option<&str>, millionths| RuleTarget {
        provider: provider.map(str::to_owned),
        model: Some("m".into()),
        key_id: provider.map(|_| "k1".to_owned()),
        weight: Weight::from_millionths(millionths),
    };
    RoutingRule {
        id: id.into(),
        name: name.into(),
        description: "described".into(),
        enabled: true,
        expression: "model == 'gpt-4o'".into(),
        fault: None,
        condition: Checker::default().read("model == 'gpt-4o'").ok(),
        targets: vec![target(Some("openai"), 333_333), target(None, 666_667)],
        fallbacks: Some(vec!["anthropic/".into()]),
        scope: RuleScope::Global,
        priority,
        chain: true,
        query: Some(r#"{"rules":[]}"#.into()),
        config_hash: "hash".into(),
        created_at: at(19),
        updated_at: at(20),
    }
}

fn price_override(id: &str, scope: OverrideScope) -> PricingOverride {
    PricingOverride {
        id: id.into(),
        name: "priced".into(),
        scope,
        pattern: ModelPattern::Prefix("gpt-".into()),
        request_kinds: RequestKind::ALL.into_iter().collect(),
        patch: PRICE_FIELDS.iter().map(|field| (*field, Rate::new(u64::MAX))).collect(),
        config_hash: "hash".into(),
        created_at: at(21),
        updated_at: at(22),
    }
}

fn client() -> ClientConfig {
    ClientConfig {
        enforce_auth: false,
        required_headers: vec!["x-a".into()],
        allowed_origins: vec!["*".into()],
        allowed_headers: vec!["x-b".into()],
        body_bytes_max: Some(7),
        further: r#"{"a":1}"#.into(),
        config_hash: "hash".into(),
    }
}

fn basic_auth() -> BasicAuth {
    BasicAuth {
        enabled: true,
        username: "admin".into(),
        digest: Some([200; 32]),
        disable_auth_on_inference: true,
        config_hash: "hash".into(),
    }
}

pub(super) fn provider_key(id: &str, name: &str, text: &str) -> ProviderKey {
    ProviderKey {
        id: id.into(),
        name: name.into(),
        value: KeyValue::text(text),
        weight: Weight::from_millionths(250_000),
        models: ModelSet::Only(vec!["gpt-4o".into()]),
        blacklisted_models: ModelSet::Only(vec!["o1".into()]),
        aliases: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        enabled: true,
        use_for_batch_api: true,
        cloud: None,
        config_hash: "hash".into(),
        created_at: at(23),
        updated_at: at(24),
    }
}

pub(super) fn provider(name: &str, keys: Vec<ProviderKey>) -> Provider {
    Provider { keys: keys.into_iter().map(Arc::new).collect(), ..Provider::new(name, at(25)) }
}

/// A provider with everything that one can have.
fn full_provider() -> Provider {
    let cloud = provider_key("k2", "second key", "");
    let secret = CloudField::Text(KeyValue::text("cloud-recognisable"));
    let cloud = ProviderKey {
        cloud: Some(CloudConfig { kind: Cloud::Azure, fields: BTreeMap::from([("client_secret", secret)]) }),
        ..cloud
    };
    // A variable that is set wherever tests run.
    let path = Secret::new(std::env::var("PATH").unwrap());
    let variable =
        ProviderKey { value: KeyValue::variable("PATH", Some(path)), ..provider_key("k0", "from outside", "") };
    let keys = vec![provider_key("k1", "first key", "sk-provider-recognisable"), cloud, variable];
    let mut provider = provider("mine", keys);
    provider.custom = Some(CustomProvider {
        base: "openai",
        keyless: false,
        allowed_requests: Some(BTreeSet::from(["chat_completion".to_owned()])),
        path_overrides: BTreeMap::from([("chat_completion".to_owned(), "/c".to_owned())]),
    });
    let network = &mut provider.network;
    network.base_url = Some("https://example.com".into());
    network.extra_headers =
        vec![("x-token".into(), Secret::new("header-recognisable")), ("a-title".into(), Secret::new("clear"))];
    network.max_retries = 3;
    provider.openai_config = Some("{}".into());
    provider.config_hash = "hash".into();
    provider
}

/// One object of each kind, or more, with all that each can have.
fn full() -> Vec<Edit> {
    let key = full_key("7");
    let scopes = [
        OverrideScope::Global,
        OverrideScope::Provider { provider: "p".into() },
        OverrideScope::ProviderKey { key: "k".into() },
        OverrideScope::VirtualKey { virtual_key: "v".into() },
        OverrideScope::VirtualKeyProvider { virtual_key: "v".into(), provider: "p".into() },
        OverrideScope::VirtualKeyProviderKey { virtual_key: "v".into(), provider: Some("p".into()), key: "k".into() },
        OverrideScope::VirtualKeyProviderKey { virtual_key: "v".into(), provider: None, key: "k".into() },
    ];
    let scopes = scopes.into_iter().enumerate();
    let overrides = scopes.map(|(n, scope)| Edit::PricingOverride(Arc::new(price_override(&n.to_string(), scope))));
    let scoped = [RuleScope::Team("t".into()), RuleScope::Customer("c".into()), RuleScope::VirtualKey("7".into())];
    let scoped = scoped.into_iter().enumerate().map(|(n, scope)| {
        // Name and priority are taken in another scope.
        Edit::RoutingRule(Arc::new(RoutingRule { scope, ..rule(&format!("r{n}"), "rule", 1) }))
    });
    let mut edits = vec![
        Edit::Customer(Arc::new(customer())),
        Edit::Team(Arc::new(team())),
        Edit::VirtualKey { key: Arc::new(key), digest: [1; 32], value: Some(Secret::new(SECRETS[0])) },
        Edit::ModelConfig(Arc::new(model_config())),
        Edit::ProviderLimits(Arc::new(provider_limits())),
        Edit::RoutingRule(Arc::new(rule("r", "rule", 1))),
        Edit::Provider(Arc::new(full_provider())),
        Edit::Client(Arc::new(client())),
        Edit::BasicAuth(Arc::new(basic_auth())),
    ];
    edits.extend(overrides.chain(scoped));
    edits
}

/// The same objects with as little as each can have.
fn bare() -> Vec<Edit> {
    let key = VirtualKey {
        name: "renamed".into(),
        is_active: true,
        team_id: None,
        customer_id: Some("c".into()),
        limits: bare_limits("7"),
        provider_configs: vec![config(73, "gemini", Vec::new())],
        mcp_configs: "[]".into(),
        config_hash: String::new(),
        created_at: at(1),
        ..full_key("7")
    };
    let customer = Customer { limits: bare_limits("c"), config_hash: String::new(), ..customer() };
    let team =
        Team { customer_id: None, profile: None, config: None, claims: None, limits: bare_limits("t"), ..team() };
    let model = ModelConfig { provider: None, limits: bare_limits("m"), ..model_config() };
    let limits = ProviderLimits { limits: bare_limits("p"), ..provider_limits() };
    let bare_rule = RoutingRule {
        name: "renamed".into(),
        enabled: false,
        expression: String::new(),
        condition: Some(Condition::always()),
        targets: vec![RuleTarget { provider: None, model: None, key_id: None, weight: Weight::ONE }],
        fallbacks: None,
        scope: RuleScope::Team("t".into()),
        priority: -5,
        chain: false,
        query: None,
        ..rule("r", "rule", 1)
    };
    let over = PricingOverride {
        pattern: ModelPattern::Exact("m".into()),
        request_kinds: BTreeSet::from([RequestKind::Embedding]),
        patch: BTreeMap::from([(PRICE_FIELDS[0], Rate::ZERO)]),
        ..price_override("5", OverrideScope::Global)
    };
    vec![
        Edit::VirtualKey { key: Arc::new(key), digest: [1; 32], value: None },
        Edit::Team(Arc::new(team)),
        Edit::Customer(Arc::new(customer)),
        Edit::ModelConfig(Arc::new(model)),
        Edit::ProviderLimits(Arc::new(limits)),
        Edit::RoutingRule(Arc::new(bare_rule)),
        Edit::PricingOverride(Arc::new(over)),
        Edit::Provider(Arc::new(provider("mine", Vec::new()))),
        Edit::Client(Arc::new(ClientConfig::default())),
        Edit::BasicAuth(Arc::new(BasicAuth::default())),
    ]
}

fn remove_all(house: &House) -> Vec<Edit> {
    let edits = house.store.load().unwrap().edits;
    let removals = edits.into_iter().filter_map(|edit| {
        Some(match edit {
            Edit::Customer(customer) => Edit::RemoveCustomer(Arc::clone(&customer.id)),
            Edit::Team(team) => Edit::RemoveTeam(Arc::clone(&team.id)),
            Edit::VirtualKey { key, .. } => Edit::RemoveVirtualKey(Arc::clone(&key.id)),
            Edit::ModelConfig(config) => Edit::RemoveModelConfig(Arc::clone(&config.id)),
            Edit::ProviderLimits(limits) => Edit::RemoveProviderLimits(Arc::clone(&limits.provider)),
            Edit::RoutingRule(rule) => Edit::RemoveRoutingRule(Arc::clone(&rule.id)),
            Edit::PricingOverride(over) => Edit::RemovePricingOverride(Arc::clone(&over.id)),
            Edit::Provider(provider) => Edit::RemoveProvider(Arc::clone(&provider.name)),
            _ => return None,
        })
    });
    removals.collect()
}

#[test]
fn everything_comes_back_as_it_went_in() {
    let house = House::new();
    let (full, bare) = (full(), bare());
    house.apply(&full).unwrap();
    let house = house.reopened();
    assert_eq!(house.shown(), shown(&full));
    let secrets = providers(&house);
    assert_eq!(secrets, [full_provider()]);
    assert_eq!(house.store.virtual_key_values(["7", "none"]).unwrap()["7"].expose(), SECRETS[0]);
    // What is bare leaves nothing of what was full, in objects that are still there.
    house.apply(&bare).unwrap();
    let house = house.reopened();
    let is_replaced = |edit: &&Edit| match edit {
        Edit::RoutingRule(rule) => &*rule.id == "r",
        Edit::PricingOverride(over) => &*over.id == "5",
        _ => true,
    };
    let (_, others): (Vec<&Edit>, Vec<&Edit>) = full.iter().partition(is_replaced);
    let expected: Vec<Edit> = bare.iter().chain(others).cloned().collect();
    assert_eq!(house.shown(), shown(&expected));
    let rows: BTreeMap<&str, i64> = house.rows().into_iter().collect();
    assert_eq!((rows["provider_keys"], rows["provider_configs"], rows["budgets"], rows["rate_limits"]), (0, 1, 0, 5));
    assert_eq!(house.store.virtual_key_values(["7"]).unwrap()["7"].expose(), SECRETS[0]);
}

/// With their secrets, which are not shown.
fn providers(house: &House) -> Vec<Provider> {
    let edits = house.store.load().unwrap().edits.into_iter();
    let providers = edits.filter_map(|edit| match edit {
        Edit::Provider(provider) => Some(Provider::clone(&provider)),
        _ => None,
    });
    providers.collect()
}

#[test]
fn what_is_removed_takes_everything_along() {
    let house = House::new();
    house.apply(&full()).unwrap();
    house.raw_execute(
        "INSERT INTO balances (limit_id, measure, window_start, spent) SELECT id, 'money', 0, 5 FROM budgets",
    );
    house.raw_execute(
        "INSERT INTO balances (limit_id, measure, window_start, spent) SELECT id, 'requests', 0, 5 FROM rate_limits",
    );
    assert!(house.rows().iter().all(|(table, rows)| *rows > 0 || *table == "ledger"), "{:?}", house.rows());
    house.apply(&remove_all(&house)).unwrap();
    let left: Vec<_> = house.rows().into_iter().filter(|(_, rows)| *rows > 0).collect();
    assert_eq!(left, [("settings", 2)]);
    // Ids of provider configs are never given again.
    assert_eq!(house.store.load().unwrap().highest_config_id, 72);
    // And what is gone already goes once more.
    house.apply(&[Edit::RemoveVirtualKey("7".into()), Edit::RemoveProvider("mine".into())]).unwrap();
}

#[test]
fn a_removed_provider_takes_its_limits_along() {
    let house = House::new();
    let mine = ProviderLimits { provider: "mine".into(), ..provider_limits() };
    house.apply(&[Edit::Provider(Arc::new(full_provider())), Edit::ProviderLimits(Arc::new(mine))]).unwrap();
    house.apply(&[Edit::RemoveProvider("mine".into())]).unwrap();
    assert!(house.rows().iter().all(|(_, rows)| *rows == 0), "{:?}", house.rows());
}

#[test]
fn who_loses_an_owner_stays() {
    let house = House::new();
    let direct = VirtualKey { customer_id: Some("c".into()), ..key("1", "direct") };
    let mut edits = full();
    edits.push(house.valued(&direct, "direct"));
    house.apply(&edits).unwrap();
    house.apply(&[Edit::RemoveCustomer("c".into())]).unwrap();
    assert_eq!(house.keys()[0], VirtualKey { customer_id: None, ..direct });
    assert_eq!(house.raw("SELECT count(*) FROM teams WHERE customer_id IS NULL"), 1);
    assert_eq!(house.keys()[1].team_id.as_deref(), Some("t"));
    house.apply(&[Edit::RemoveTeam("t".into())]).unwrap();
    assert_eq!(house.keys()[1].team_id, None);
    assert_eq!(house.raw("SELECT count(*) FROM budgets WHERE owner_type IN ('customer', 'team')"), 0);
}

#[test]
fn no_secret_is_in_the_files() {
    let house = House::new();
    let body = Secret::new(SECRETS[4]);
    let replay = NewReplay { key: "k".into(), fingerprint: [0; 32], status: 201, body, virtual_key: None };
    house.store.apply(&full(), &Record { replay: Some(replay), ..record() }).unwrap();
    for secret in SECRETS {
        assert!(!house.is_in_files(secret), "{secret}");
    }
    // The search finds what is there.
    assert!(house.is_in_files("first key"));
    // What comes from the environment is not stored at all.
    assert!(house.is_in_files("PATH") && !house.is_in_files(&std::env::var("PATH").unwrap()));
    let error = format!("{:?}", house.store.load().unwrap());
    assert!(SECRETS.iter().all(|secret| !error.contains(secret)));
}

#[test]
fn a_damaged_row_is_named() {
    let check = |sql: &str, says: &str| {
        let house = House::new();
        house.apply(&full()).unwrap();
        house.raw_execute(sql);
        let error = house.store.load().unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{sql}");
        assert!(error.to_string().contains(says) && !error.to_string().contains('\n'), "{error}");
        assert!(SECRETS.iter().all(|secret| !error.to_string().contains(secret)), "{error}");
    };
    check("UPDATE budgets SET reset_duration = 'x' WHERE id = '7-month'", "a damaged budget (7-month)");
    check("UPDATE budgets SET reset_duration = '2M' WHERE id = '7-month'", "a damaged budget (7-month)");
    check("UPDATE rate_limits SET tokens_reset = NULL WHERE id = 't-rate'", "a damaged rate limit (t-rate)");
    check("UPDATE provider_configs SET key_ids = '{}' WHERE id = 72", "a damaged provider config (72)");
    check("UPDATE providers SET body = '{' WHERE name = 'mine'", "a damaged provider (mine)");
    check("UPDATE providers SET body = '{}' WHERE name = 'mine'", "a damaged provider (mine)");
    check("UPDATE providers SET sealed = x'0102' WHERE name = 'mine'", "a damaged provider (mine)");
    check("UPDATE provider_keys SET body = '[]' WHERE id = 'k1'", "a damaged provider key (k1)");
    // A sealed value of another row.
    check(
        "UPDATE provider_keys SET sealed = (SELECT sealed FROM providers) WHERE id = 'k1'",
        "a damaged provider key (k1)",
    );
    check("UPDATE pricing_overrides SET scope = 'x' WHERE id = '1'", "a damaged pricing override (1)");
    check("UPDATE pricing_overrides SET provider = NULL WHERE id = '1'", "a damaged pricing override (1)");
    check("UPDATE pricing_overrides SET patch = '{\"x\":1}' WHERE id = '1'", "a damaged pricing override (1)");
    check("UPDATE pricing_overrides SET request_kinds = '[\"x\"]' WHERE id = '1'", "a damaged pricing override (1)");
    check("UPDATE settings SET value = '{}' WHERE name = 'basic_auth'", "a damaged setting (basic_auth)");
}

#[test]
fn a_rule_that_does_not_read_is_disabled() {
    let loaded = |enabled: bool, sql: &str| {
        let house = House::new();
        house.apply(&[Edit::RoutingRule(Arc::new(RoutingRule { enabled, ..rule("r", "rule", 1) }))]).unwrap();
        house.raw_execute(sql);
        let loaded = house.store.load().unwrap();
        let [Edit::RoutingRule(read)] = &loaded.edits[..] else { panic!("{loaded:?}") };
        assert!(!read.enabled);
        (Arc::clone(read), loaded.warnings)
    };
    let check = |sql: &str, says: &str| {
        let (rule, warnings) = loaded(true, sql);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("routing rule 'rule' (r) is disabled: ") && warning.contains(says), "{warning}");
        assert!(!warning.contains('\n'), "{warning}");
        // One that was off before needs no word for what it is not evaluated for anyway.
        let (off, warnings) = loaded(false, sql);
        assert_eq!((&off, warnings.is_empty()), (&rule, rule.fault.is_some()), "{sql}");
        rule
    };
    let fault = check("UPDATE routing_rules SET expression = 'model =='", "of the expression").fault.clone();
    assert!(fault.is_some_and(|fault| fault.starts_with("at line 1, column 9 of the expression: ")));
    assert_eq!(check("UPDATE routing_rules SET targets = 'x'", "its targets cannot be read").fault, None);
    check("UPDATE routing_rules SET fallbacks = '[1]'", "its fallbacks cannot be read");
    check("UPDATE routing_rules SET query = '{'", "its query cannot be read");
}

#[test]
fn a_key_without_its_variable_is_told() {
    let house = House::new();
    let name = "TOLLGATE_TEST_VARIABLE_THAT_NOBODY_SETS";
    let key = ProviderKey { value: KeyValue::variable(name, None), ..provider_key("k", "a key", "") };
    house.apply(&[Edit::Provider(Arc::new(provider("openai", vec![key.clone()])))]).unwrap();
    assert_eq!(*providers(&house)[0].keys[0], key);
    let warnings = house.store.load().unwrap().warnings;
    let says = format!("key 'a key' of openai is not used: the environment variable {name} is not set");
    assert_eq!(warnings, [says]);
}

#[test]
fn a_view_is_built_from_what_is_loaded() {
    let house = House::new();
    house.apply(&full()).unwrap();
    let loaded = house.store.load().unwrap();
    let state = State::new(Clock::manual(at(NOW)).0, house.store.hasher(), 10);
    let done: Result<(), ()> =
        state.change(&house.store.balances().unwrap(), |_| Ok((loaded.edits, ())), |_, _, _, ()| Ok(()));
    done.unwrap();
    let view = &state.snapshot().view;
    let caller = view.caller_by_id("7").unwrap();
    assert_eq!(caller.team.as_ref().unwrap().entity.name, "team");
    assert_eq!(&*caller.customer.as_ref().unwrap().entity.id, "c");
    assert_eq!(view.provider("mine").unwrap().keys.len(), 3);
    assert_eq!(view.limits(Some(caller), Some(1), "openai", "gpt-4o", "gpt-4o").len(), 4 * 6);
}
