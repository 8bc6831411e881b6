//! What is shown can be written back, and then changes nothing.

use super::*;
use crate::governance::entity::{
    Customer, KeySet, Limits, ModelConfig, PricingOverride, ProviderLimits, RoutingRule, Team, VirtualKey,
};
use crate::governance::judge::Tally;
use crate::governance::money::{Nanos, Rate};
use crate::governance::secret::Secret;
use crate::governance::time::{Timestamp, Window};
use crate::governance::view::{Caller, ConfigLimits, Governed, Level, Limit, LimitKey, Measure};
use crate::wire::change::Change;
use crate::wire::change::fixture::{LATER, NOW, read_at};
use crate::wire::faults::Faults;
use crate::wire::{self};
use proptest::prelude::*;
use std::sync::Arc;

const LIVE: Live<'static> = &|_| (Tally::default(), NOW);

fn linked(limits: &Limits) -> Vec<Limit> {
    let link = |id: &Arc<str>, measure, max, window: &Window| Limit {
        slot: 0,
        key: LimitKey { id: Arc::clone(id), measure },
        level: Level::VirtualKey,
        max,
        window: window.clone(),
        anchor: NOW,
    };
    let money = limits.budgets.iter().map(|one| link(&one.id, Measure::Money, one.max.get(), &one.window));
    let rates = limits.rate_limit.iter().flat_map(|rate| {
        let halves = [(Measure::Tokens, &rate.tokens), (Measure::Requests, &rate.requests)];
        let halves = halves.into_iter().filter_map(|(measure, half)| Some((measure, half.as_ref()?)));
        halves.map(|(measure, half)| link(&rate.id, measure, half.max, &half.window)).collect::<Vec<_>>()
    });
    money.chain(rates).collect()
}

fn governed<T>(entity: T, limits: impl Fn(&T) -> &Limits) -> Governed<T> {
    Governed { limits: linked(limits(&entity)), entity: Arc::new(entity) }
}

fn caller(key: VirtualKey) -> Caller {
    let configs = key.provider_configs.iter().map(|config| ConfigLimits { limits: linked(&config.limits) });
    Caller {
        configs: configs.collect(),
        limits: linked(&key.limits).into(),
        key: Arc::new(key),
        digest: [0; 32],
        team: None,
        customer: None,
    }
}

fn read<T>(
    body: &Value,
    base: Option<&T>,
    reader: impl Fn(&Value, Option<&T>, &mut Change<'_>, &mut Faults) -> Option<T>,
) -> T {
    let (now, own) = if base.is_some() { (LATER, false) } else { (NOW, true) };
    read_at(now, own, |change, faults| reader(body, base, change, faults)).unwrap_or_else(|f| panic!("{f:?} {body}"))
}

fn read_key(
    body: &Value,
    base: Option<&VirtualKey>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<VirtualKey> {
    wire::virtual_key::virtual_key(body, base, change, faults).map(|read| read.key)
}

/// Limits of every kind: none, one, several, half and whole ones.
fn any_limits() -> impl Strategy<Value = Value> {
    let budget = (
        1..10_000_000_000i64,
        prop::sample::select(vec!["30s", "1h30m", "1d", "1w", "1M", "1Y"]),
        any::<bool>(),
    )
        .prop_map(|(nanos, duration, aligned)| {
            let aligned = aligned && !duration.ends_with(['s', 'm']);
            json!({"max_limit": dollars(Nanos::new(nanos)), "reset_duration": duration, "calendar_aligned": aligned})
        });
    let half = prop::option::of((1..i64::MAX, prop::sample::select(vec!["1m", "1d"])));
    (prop::collection::vec(budget, 0..4), half.clone(), half).prop_map(|(mut budgets, tokens, requests)| {
        let mut seen = Vec::new();
        budgets.retain(|budget| {
            !seen.contains(&budget["reset_duration"]) && {
                seen.push(budget["reset_duration"].clone());
                true
            }
        });
        let mut rate = serde_json::Map::new();
        for (name, half) in [("token", tokens), ("request", requests)] {
            if let Some((max, duration)) = half {
                rate.insert(format!("{name}_max_limit"), max.into());
                rate.insert(format!("{name}_reset_duration"), duration.into());
            }
        }
        json!({"budgets": budgets, "rate_limit": rate})
    })
}

fn with(limits: &Value, more: Value) -> Value {
    wire::change::fixture::with(limits, &more)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_shown_can_be_written_back(one in any_limits(), other in any_limits()) {
        let customer: Customer = read(&with(&one, json!({"id": "c1", "name": "Acme"})), None, wire::owner::customer);
        let body = with(&one, json!({"name": "core", "customer_id": "c1", "profile": {"a": [1]}, "claims": {}}));
        let team: Team = read(&body, None, wire::owner::team);
        let body = with(&one, json!({
            "name": "ci", "team_id": "t1", "mcp_configs": [{"mcp_client_name": "x", "tools_to_execute": ["*"]}],
            "provider_configs": [
                with(&other, json!({"provider": "openai", "weight": 0.25, "allowed_models": ["*"], "key_ids": ["main"]})),
                {"provider": "local", "key_ids": ["*"], "blacklisted_models": ["x"]},
            ],
        }));
        let mut key: VirtualKey = read(&body, None, read_key);
        (key.provider_configs[0].id, key.provider_configs[1].id) = (1, 2);
        let config: ModelConfig =
            read(&with(&one, json!({"model_name": "m", "provider": "openai"})), None, wire::model_config::model_config);

        let (customer, team) = (governed(customer, |one| &one.limits), governed(team, |one| &one.limits));
        let (config, caller) = (governed(config, |one| &one.limits), caller(key));
        let relations = CustomerRelations { teams: vec![&team], virtual_keys: vec![&caller] };
        let shown = super::customer(&customer, relations, LIVE);
        let again = read(&shown, Some(&*customer.entity), wire::owner::customer);
        prop_assert_eq!(&again, &Customer { updated_at: LATER, ..Customer::clone(&customer.entity) });
        let relations = TeamRelations { customer: Some(&customer), virtual_keys: vec![&caller] };
        let shown = super::team(&team, relations, LIVE);
        let again = read(&shown, Some(&*team.entity), wire::owner::team);
        prop_assert_eq!(&again, &Team { updated_at: LATER, ..Team::clone(&team.entity) });
        let shown = super::model_config(&config, LIVE);
        let again = read(&shown, Some(&*config.entity), wire::model_config::model_config);
        prop_assert_eq!(&again, &ModelConfig { updated_at: LATER, ..ModelConfig::clone(&config.entity) });
        let value = Secret::new("sk-bf-own");
        let (team, customer) = (Some(&team), Some(&customer));
        let shown = virtual_key(&Shown { caller: &caller, live: LIVE, value: Some(&value), team, customer, provider: &|_| None });
        let again = read(&shown, Some(&*caller.key), read_key);
        prop_assert_eq!(&again, &VirtualKey { updated_at: LATER, ..VirtualKey::clone(&caller.key) });

        let limits = ProviderLimits { provider: "openai".into(), limits: again.limits, config_hash: String::new() };
        let limits = governed(limits, |one| &one.limits);
        let shown = super::provider_limits("openai", Some(&limits), LIVE);
        let again = read(&shown, Some(&limits.entity.limits), |body, base, change, faults| {
            wire::provider_limits::provider_limits(body, "openai", base.unwrap(), change, faults)
        });
        prop_assert_eq!(&again, &limits.entity.limits);
    }

    #[test]
    fn shown_prices_can_be_written_back(picos in 0..1_000_000_000_000_000u64, scope in 0..6usize, exact in any::<bool>()) {
        let scopes = [
            json!({"scope_kind": "global"}),
            json!({"scope_kind": "provider", "provider_id": "openai"}),
            json!({"scope_kind": "provider_key", "provider_key_id": "main"}),
            json!({"scope_kind": "virtual_key", "virtual_key_id": "v1"}),
            json!({"scope_kind": "virtual_key_provider", "virtual_key_id": "v1", "provider_id": "openai"}),
            json!({"scope_kind": "virtual_key_provider_key", "virtual_key_id": "v1", "provider_key_id": "main"}),
        ];
        let (match_type, pattern) = if exact { ("exact", "gpt-4o") } else { ("wildcard", "gpt-*") };
        let body = with(&scopes[scope], json!({
            "name": "n", "match_type": match_type, "pattern": pattern, "request_types": ["embedding", "chat_completion"],
        }));
        let mut over: PricingOverride = read(&body, None, wire::price_override::price_override);
        over.patch.insert("input_cost_per_token", Rate::new(picos));
        let mut shown = super::price_override(&over);
        let expected = PricingOverride { updated_at: LATER, ..over.clone() };
        prop_assert_eq!(&read(&shown, Some(&over), wire::price_override::price_override), &expected);
        // The text alone says the same.
        shown.as_object_mut().unwrap().remove("patch");
        prop_assert_eq!(&read(&shown, Some(&over), wire::price_override::price_override), &expected);
    }

    #[test]
    fn shown_rules_can_be_written_back(
        shares in prop::collection::vec(0..1_000u32, 1..5),
        scope in prop::sample::select(vec![("global", None), ("team", Some("t1")), ("virtual_key", Some("v1"))]),
        fallbacks in prop::option::of(prop::collection::vec(prop::sample::select(vec!["local", "openai/x"]), 0..3)),
        query in prop::option::of(Just(json!({"a": 1}))),
    ) {
        let sum = shares.iter().sum::<u32>().max(1);
        let target = |(i, share): (usize, &u32)| {
            let share = if shares.iter().sum::<u32>() == 0 { u32::from(i == 0) } else { *share };
            json!({"provider": "openai", "model": format!("m{i}"), "key_id": "main", "weight": f64::from(share) / f64::from(sum)})
        };
        let targets: Vec<Value> = shares.iter().enumerate().map(target).collect();
        let body = json!({
            "name": "n", "targets": targets, "scope": scope.0, "scope_id": scope.1, "fallbacks": fallbacks,
            "query": query, "priority": 7, "cel_expression": "stream", "chain_rule": true, "enabled": false,
        });
        let rule: RoutingRule = read(&body, None, wire::rule::rule);
        let shown = super::rule(&rule, None);
        let mut again = read(&shown, Some(&rule), wire::rule::rule);
        let mut expected = RoutingRule { updated_at: LATER, ..rule };
        // Answers have the heaviest target first.
        again.targets.sort_by(|a, b| a.model.cmp(&b.model));
        expected.targets.sort_by(|a, b| a.model.cmp(&b.model));
        prop_assert_eq!(again, expected);
    }
}

#[test]
fn relations_are_one_level_deep_and_show_no_value() {
    let customer: Customer = read(&json!({"id": "c1", "name": "Acme"}), None, wire::owner::customer);
    let body = json!({"id": "t1", "name": "core", "customer_id": "c1", "config": {"a": 1}});
    let team: Team = read(&body, None, wire::owner::team);
    let body =
        json!({"name": "ci", "team_id": "t1", "provider_configs": [{"provider": "openai", "key_ids": ["main"]}]});
    let key: VirtualKey = read(&body, None, read_key);
    let own = VirtualKey { team_id: None, customer_id: Some("c1".into()), ..key.clone() };
    let (customer, team) = (governed(customer, |one| &one.limits), governed(team, |one| &one.limits));
    let (caller, own) = (caller(key), caller(own));

    let shown = super::customer(&customer, CustomerRelations { teams: vec![&team], virtual_keys: vec![&own] }, LIVE);
    assert_eq!((&shown["teams"][0]["id"], &shown["virtual_keys"][0]["customer_id"]), (&json!("t1"), &json!("c1")));
    let nested = &shown["teams"][0];
    assert_eq!(
        (nested.get("virtual_keys"), nested.get("customer"), &nested["customer_id"]),
        (None, None, &json!("c1"))
    );
    let nested = &shown["virtual_keys"][0];
    assert_eq!((nested.get("value"), nested.get("customer"), nested.get("team")), (None, None, None));
    let config = &nested["provider_configs"][0];
    assert_eq!((&config["key_ids"], config.get("keys")), (&json!(["main"]), None));

    let shown = super::team(&team, TeamRelations { customer: Some(&customer), virtual_keys: vec![&caller] }, LIVE);
    assert_eq!((&shown["customer"]["name"], &shown["config"]), (&json!("Acme"), &json!({"a": 1})));
    assert_eq!((shown["customer"].get("teams"), shown.get("profile")), (None, None));
    assert_eq!(shown["virtual_keys"][0]["name"], "ci");

    // A key shows its team, or the customer that it belongs to directly.
    let shown = |caller: &Caller| {
        let (team, customer) = (Some(&team), Some(&customer));
        virtual_key(&Shown { caller, live: LIVE, value: None, team, customer, provider: &|_| None })
    };
    let of_team = shown(&caller);
    assert_eq!((&of_team["team"]["name"], of_team.get("customer"), of_team.get("value")), (&json!("core"), None, None));
    assert_eq!((of_team["team"].get("virtual_keys"), &of_team["customer_id"]), (None, &Value::Null));
    let of_customer = shown(&own);
    assert_eq!((&of_customer["customer"]["name"], of_customer.get("team")), (&json!("Acme"), None));
    assert!(matches!(own.key.provider_configs[0].key_ids, KeySet::Only(_)));
}

#[test]
fn limits_say_whose_they_are_and_what_stands_at_them() {
    let body = json!({"name": "a", "budget": {"id": "b", "max_limit": 2, "reset_duration": "1h"},
        "rate_limit": {"id": "r", "token_max_limit": 5, "token_reset_duration": "1h"}});
    let customer: Customer = read(&body, None, wire::owner::customer);
    let customer = governed(customer, |one| &one.limits);
    let live: Live<'_> = &|limit| {
        let spent = if limit.key.measure == Measure::Money { 1_500_000_000 } else { 3 };
        (Tally { spent, ..Tally::default() }, Timestamp::from_millis(NOW.millis() + 1_000))
    };
    let limits = &customer.entity.limits;
    let shown = owned_budget(&limits.budgets[0], &customer.limits, live, "customer", "c1");
    assert_eq!(
        shown,
        json!({
            "id": "b", "max_limit": 2, "reset_duration": "1h", "calendar_aligned": false, "current_usage": 1.5, "held": 0,
            "last_reset": "2023-11-14T22:13:21Z", "resets_at": "2023-11-14T23:13:21Z", "owner_type": "customer",
            "owner_id": "c1", "created_at": NOW.to_string(), "updated_at": NOW.to_string(),
        })
    );
    let shown = owned_rate_limit(limits.rate_limit.as_ref().unwrap(), &customer.limits, live, "customer", "c1");
    assert_eq!(
        shown,
        json!({
            "id": "r", "token_max_limit": 5, "token_reset_duration": "1h", "token_held": 0, "token_current_usage": 3,
            "token_last_reset": "2023-11-14T22:13:21Z", "request_current_usage": 0,
            "request_last_reset": NOW.to_string(), "owner_type": "customer", "owner_id": "c1",
            "created_at": NOW.to_string(), "updated_at": NOW.to_string(),
        })
    );
    assert_eq!(super::provider_limits("openai", None, LIVE), json!({"provider": "openai", "budgets": []}));
}

#[test]
fn a_rule_shows_everything_and_its_heaviest_target_first() {
    let body = json!({"id": "r", "name": "n", "targets": [{"weight": 0.25}, {"provider": "local", "weight": 0.75}]});
    let rule: RoutingRule = read(&body, None, wire::rule::rule);
    assert_eq!(
        super::rule(&rule, Some("why")),
        json!({
            "id": "r", "name": "n", "description": "", "enabled": true, "cel_expression": "", "cel_error": "why",
            "targets": [{"provider": "local", "weight": 0.75}, {"weight": 0.25}], "fallbacks": [], "scope": "global",
            "scope_id": null, "priority": 0, "chain_rule": false, "query": null, "created_at": NOW.to_string(),
            "updated_at": NOW.to_string(),
        })
    );
}
