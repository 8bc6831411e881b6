use super::*;
use crate::governance::entity::{Limits, Weight};
use crate::governance::money::Nanos;
use crate::wire::change::fixture::{LATER, NOW, owned, read_at};
use serde_json::json;

fn made(body: Value) -> Result<VirtualKey, Vec<String>> {
    read_at(LATER, false, |change, faults| virtual_key(&body, None, change, faults)).map(|read| read.key)
}

fn changed(base: &VirtualKey, body: &Value) -> Result<VirtualKey, Vec<String>> {
    read_at(LATER, false, |change, faults| virtual_key(body, Some(base), change, faults)).map(|read| read.key)
}

fn declared(body: Value) -> Result<VirtualKeyRead, Vec<String>> {
    read_at(NOW, true, |change, faults| virtual_key(&body, None, change, faults))
}

/// With configs 1 (openai, key `main`) and 2 (local).
fn old() -> VirtualKey {
    let body = json!({
        "id": "v1", "name": "ci", "description": "d", "is_active": false, "team_id": "t1",
        "budget": {"id": "b", "max_limit": 10, "reset_duration": "1d"},
        "provider_configs": [
            {"provider": "openai", "weight": 0.5, "allowed_models": ["*"], "key_ids": ["main"],
             "budget": {"id": "c", "max_limit": 5, "reset_duration": "1M"}},
            {"provider": "local", "key_ids": ["*"]},
        ],
        "mcp_configs": [{"mcp_client_name": "x", "tools_to_execute": ["*"]}],
    });
    let mut key = declared(body).unwrap().key;
    key.config_hash = "hash".to_owned();
    (key.provider_configs[0].id, key.provider_configs[1].id) = (1, 2);
    key
}

#[test]
fn a_whole_body_is_read() {
    let key = made(json!({
        "id": "mine", "name": "ci", "customer_id": "c1",
        "budget": {"max_limit": 10, "reset_duration": "1d", "calendar_aligned": true},
        "rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1h"},
        "provider_configs": [{"id": 77, "provider": "openai", "weight": 0.5, "allowed_models": ["*"], "key_ids": ["*"]}],
        "value": "no key of ours", "something_else": 1,
    }))
    .unwrap();
    assert!(key.id.starts_with("new-") && key.is_active);
    assert_eq!((key.customer_id.as_deref(), key.team_id), (Some("c1"), None));
    assert_eq!((key.limits.budgets.len(), key.limits.budgets[0].max), (1, Nanos::new(10_000_000_000)));
    assert!(key.limits.budgets[0].window.is_aligned());
    let config = &key.provider_configs[0];
    assert_eq!((config.id, &config.key_ids), (0, &KeySet::All));
    assert_eq!(config.weight.map(Weight::millionths), Some(500_000));
    assert_eq!(key.limits.rate_limit.unwrap().requests, None);
    assert_eq!((key.created_at, key.updated_at, &*key.config_hash, &*key.mcp_configs), (LATER, LATER, "", "[]"));
}

#[test]
fn what_is_absent_allows_nothing() {
    let key = made(json!({"name": "ci", "provider_configs": [{"provider": "openai"}]})).unwrap();
    let config = &key.provider_configs[0];
    assert!(config.allowed_models.is_empty() && config.weight.is_none() && config.limits.is_empty());
    assert_eq!(config.key_ids, KeySet::Only(vec![]));
    for none in [json!({"name": "ci"}), json!({"name": "ci", "provider_configs": null, "mcp_configs": null})] {
        let key = made(none).unwrap();
        assert!(key.provider_configs.is_empty() && key.limits.is_empty() && key.is_active);
    }
}

#[test]
fn the_file_brings_ids_and_a_value() {
    let read = declared(json!({"id": "v", "name": "ci", "value": "sk-bf-own"})).unwrap();
    assert_eq!((&*read.key.id, read.value.map(|value| value.expose().to_owned())), ("v", Some("sk-bf-own".to_owned())));
    assert!(declared(json!({"name": "ci", "value": ""})).unwrap().value.is_none());
    let fault = "value: must begin with sk-bf-, be ASCII without blanks around it, and at most 512 bytes";
    for bad in ["own", "sk-bf-ü", "sk-bf- ", "sk-bf-\n1", &format!("sk-bf-{}", "x".repeat(507))] {
        let read = declared(json!({"name": "ci", "value": bad}));
        assert_eq!(read.map(|_| ()), Err(owned(&[fault])), "{bad}");
    }
}

#[test]
fn an_update_changes_what_it_names() {
    let old = old();
    let check = |body: Value, change: &dyn Fn(&mut VirtualKey)| {
        let mut expected = VirtualKey { updated_at: LATER, ..old.clone() };
        change(&mut expected);
        assert_eq!(changed(&old, &body), Ok(expected), "{body}");
    };
    check(json!({}), &|_| {});
    check(
        json!({
            "name": null, "description": null, "is_active": null, "budget": null, "budgets": null, "rate_limit": null,
            "provider_configs": null, "mcp_configs": null, "id": "other", "value": "sk-bf-other",
        }),
        &|_| {},
    );
    check(json!({"name": "n", "description": "", "is_active": true}), &|key| {
        (key.name, key.description, key.is_active) = ("n".to_owned(), String::new(), true);
    });
    check(json!({"budget": {"max_limit": 11}}), &|key| {
        let budget = &mut key.limits.budgets[0];
        (budget.max, budget.updated_at) = (Nanos::new(11_000_000_000), LATER);
    });
    check(json!({"budgets": []}), &|key| key.limits.budgets.clear());
    check(json!({"mcp_configs": []}), &|key| key.mcp_configs = "[]".to_owned());
}

#[test]
fn a_key_belongs_to_one_owner() {
    let check = |old: (Option<&str>, Option<&str>), body: Value, new: (Option<&str>, Option<&str>)| {
        let (team_id, customer_id) = (old.0.map(Arc::from), old.1.map(Arc::from));
        let key = changed(&VirtualKey { team_id, customer_id, ..super::tests::old() }, &body).unwrap();
        assert_eq!((key.team_id.as_deref(), key.customer_id.as_deref()), new, "{old:?} {body}");
    };
    let (team, customer, nobody) = ((Some("t1"), None), (None, Some("c1")), (None, None));
    check(team, json!({}), team);
    check(customer, json!({}), customer);
    check(nobody, json!({}), nobody);
    for clear in [json!(null), json!("")] {
        check(team, json!({"team_id": clear}), nobody);
        check(customer, json!({"customer_id": clear}), nobody);
        check(team, json!({"customer_id": clear}), team);
        check(customer, json!({"team_id": clear}), customer);
        check(team, json!({"team_id": clear, "customer_id": "c2"}), (None, Some("c2")));
        check(customer, json!({"team_id": "t2", "customer_id": clear}), (Some("t2"), None));
    }
    check(team, json!({"team_id": "t2"}), (Some("t2"), None));
    check(team, json!({"customer_id": "c2"}), (None, Some("c2")));
    check(customer, json!({"team_id": "t2"}), (Some("t2"), None));
}

#[test]
fn provider_configs_are_reconciled() {
    let old = old();
    let [openai, local] = &old.provider_configs[..] else { panic!() };
    let check = |configs: Value, expected: &[ProviderConfig]| {
        let body = json!({ "provider_configs": configs });
        assert_eq!(changed(&old, &body).map(|key| key.provider_configs), Ok(expected.to_vec()), "{body}");
    };
    check(json!([]), &[]);
    // By id, or by provider; what is absent stays.
    check(json!([{"id": 1}]), std::slice::from_ref(openai));
    check(json!([{"provider": "local"}, {"provider": "openai"}]), &[local.clone(), openai.clone()]);
    check(
        json!([{"id": 1, "provider": "openai", "weight": null, "allowed_models": null, "key_ids": null}]),
        &[ProviderConfig { weight: None, ..openai.clone() }],
    );
    check(
        json!([{"id": 1, "weight": 2, "blacklisted_models": ["o3"], "key_ids": ["spare"], "budget": {}}]),
        &[ProviderConfig {
            weight: Some(Weight::from_millionths(2_000_000)),
            blacklisted_models: ModelSet::Only(vec!["o3".to_owned()]),
            key_ids: KeySet::Only(vec!["spare".to_owned()]),
            limits: Limits::default(),
            ..openai.clone()
        }],
    );
    // Keys as answers show them.
    for keys in [json!([{"key_id": "spare", "id": 2}]), json!(["spare"])] {
        check(
            json!([{"id": 1, "keys": keys}]),
            &[ProviderConfig { key_ids: KeySet::Only(vec!["spare".to_owned()]), ..openai.clone() }],
        );
    }
    check(
        json!([{"id": 1, "keys": [], "allow_all_keys": true}]),
        &[ProviderConfig { key_ids: KeySet::All, ..openai.clone() }],
    );
    check(json!([{"id": 1, "keys": ["spare"], "key_ids": ["main"]}]), std::slice::from_ref(openai));
    // A row may change its provider, if it takes no foreign keys along.
    check(
        json!([{"id": 1, "provider": "local", "key_ids": []}]),
        &[ProviderConfig { provider: "local".into(), key_ids: KeySet::Only(vec![]), ..openai.clone() }],
    );
    let refused = |configs: Value, expected: &[&str]| {
        let read = changed(&old, &json!({ "provider_configs": configs }));
        assert_eq!(read, Err(owned(expected)), "{configs}");
    };
    refused(
        json!([{"id": 1, "provider": "local"}]),
        &["provider_configs[0].key_ids[0]: provider 'local' has no key 'main'"],
    );
    refused(
        json!([{"id": 9, "provider": "openai"}]),
        &["provider_configs[0].id: this virtual key has no provider config 9"],
    );
    refused(
        json!([{"id": 1}, {"id": 1}]),
        &["provider_configs[1].provider: there are two configs for provider 'openai'"],
    );
    refused(
        json!([{"id": 1}, {"id": 1, "provider": "local", "key_ids": []}]),
        &["provider_configs[1].id: provider config 1 is listed twice"],
    );
    refused(
        json!([{"id": 1, "keys": [{"name": "x"}, "spare", "spare"]}]),
        &[
            "provider_configs[0].keys[0]: must be a key's id, or an object with its key_id",
            "provider_configs[0].keys[1]: 'spare' is listed twice",
        ],
    );
}

#[test]
fn what_left_may_be_written_back() {
    let mut old = old();
    old.provider_configs[0].provider = "gone".into();
    old.provider_configs[1].key_ids = KeySet::Only(vec!["gone".to_owned()]);
    let body = json!({"provider_configs": [
        {"id": 1, "provider": "gone", "key_ids": ["main"]}, {"provider": "local", "key_ids": ["gone", "near"]},
    ]});
    let key = changed(&old, &body).unwrap();
    assert_eq!(key.provider_configs[0], old.provider_configs[0]);
    assert_eq!(key.provider_configs[1].key_ids, KeySet::Only(vec!["gone".to_owned(), "near".to_owned()]));
}

#[test]
fn a_replaced_key_hands_on_its_ids() {
    let old = old();
    let mut new = declared(json!({
        "name": "ci", "budget": {"max_limit": 1, "reset_duration": "1d"},
        "provider_configs": [{"provider": "local"}, {"provider": "openai", "budget": {"max_limit": 1, "reset_duration": "1M"}}],
        "mcp_configs": [{"mcp_client_name": "y"}, {"mcp_client_name": "x"}],
    }))
    .unwrap()
    .key;
    adopt(&mut new, &old);
    assert_eq!((&*new.id, &*new.limits.budgets[0].id), ("v1", "b"));
    let configs: Vec<(i64, Option<&str>)> = new
        .provider_configs
        .iter()
        .map(|config| (config.id, config.limits.budgets.first().map(|budget| &*budget.id)))
        .collect();
    assert_eq!(configs, [(2, None), (1, Some("c"))]);
    assert_eq!(
        new.mcp_configs,
        r#"[{"id":2,"mcp_client_name":"y","tools_to_execute":[]},{"id":1,"mcp_client_name":"x","tools_to_execute":[]}]"#
    );
}

#[test]
fn every_fault_is_named_with_its_path() {
    let check = |body: Value, expected: &[&str]| assert_eq!(made(body.clone()), Err(owned(expected)), "{body}");
    check(json!([]), &["must be an object, not an array"]);
    check(json!({}), &["name: Virtual key name is required"]);
    check(json!({"name": " "}), &["name: Virtual key name is required"]);
    assert_eq!(changed(&old(), &json!({"name": ""})), Err(owned(&["name: Virtual key name is required"])));
    check(
        json!({"name": 1, "is_active": "yes", "budget": {"max_limit": -1, "reset_duration": "xyz"}}),
        &[
            "name: must be a string, not a number",
            "is_active: must be true or false, not a string",
            "budget.max_limit: Budget max_limit cannot be negative: -1.00",
            "budget.reset_duration: Invalid reset duration format: xyz",
        ],
    );
    check(
        json!({"name": "a", "budget": {"max_limit": 0, "reset_duration": "1d"}}),
        &["budget.max_limit: budget max limit cannot be negative or zero: 0.00"],
    );
    check(
        json!({"name": "a", "team_id": "t1", "customer_id": "c1"}),
        &["VirtualKey cannot be attached to both Team and Customer"],
    );
    check(json!({"name": "a", "team_id": "t9"}), &["team_id: there is no team 't9'"]);
    check(json!({"name": "a", "customer_id": "c9"}), &["customer_id: there is no customer 'c9'"]);
    check(json!({"name": "a", "team_id": 5}), &["team_id: must be a string, not a number"]);
    check(
        json!({"name": "a", "provider_configs": [
            {"provider": "nope"},
            {"provider": "openai", "allowed_models": ["*", "x"], "key_ids": ["main", "near", "main"], "weight": -1},
            {"provider": "openai", "rate_limit": {"request_max_limit": 0, "request_reset_duration": "1m"}},
            {"blacklisted_models": ["x", "x"], "budget": {"max_limit": 1, "reset_duration": "x"}},
            {"provider": 1, "weight": "1"},
        ]}),
        &[
            "provider_configs[0].provider: provider 'nope' is neither built in nor configured",
            "provider_configs[1].allowed_models: '*' means everything and stands alone",
            "provider_configs[1].key_ids[2]: 'main' is listed twice",
            "provider_configs[1].key_ids[1]: provider 'openai' has no key 'near'",
            "provider_configs[1].weight: weight '-1' is negative",
            "provider_configs[2].rate_limit.request_max_limit: Invalid rate limit: rate limit request max limit cannot be negative or zero: 0",
            "provider_configs[2].provider: there are two configs for provider 'openai'",
            "provider_configs[3].provider: provider is required",
            "provider_configs[3].blacklisted_models[1]: 'x' is listed twice",
            "provider_configs[3].budget.reset_duration: Invalid reset duration format: x",
            "provider_configs[4].provider: must be a string, not a number",
            "provider_configs[4].weight: must be a number, not a string",
        ],
    );
    check(
        json!({"name": "a", "mcp_configs": [{"mcp_client_name": "x"}, {"mcp_client_name": "x"}]}),
        &["mcp_configs[1].mcp_client_name: there are two configs for MCP client 'x'"],
    );
}
