//! Whatever the order of changes, a view says the same as one that was built at once.

use super::*;
use crate::governance::cel::Condition;
use crate::governance::edit;
use crate::governance::entity::{
    Budget, KeySet, KeyValue, Limits, ModelPattern, ModelSet, OverrideScope, ProviderConfig, RuleScope, Weight,
};
use crate::governance::money::{Nanos, Rate};
use crate::governance::pricing::Price;
use crate::governance::refusal::Refusal;
use crate::governance::route::{self, Target};
use crate::governance::time::{Span, Window};
use crate::governance::usage::Usage;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const AT: Timestamp = Timestamp::from_millis(1_000);

fn limits(ids: &[&str]) -> Limits {
    let budget = |id: &&str| Budget {
        id: (*id).into(),
        max: Nanos::new(1_000),
        window: Window::rolling(Span::parse("1h").unwrap()),
        anchor: AT,
        created_at: AT,
        updated_at: AT,
    };
    Limits { budgets: ids.iter().map(budget).collect(), rate_limit: None }
}

fn customer(id: u8, count: usize) -> Edit {
    let (id, budget) = (format!("c{id}"), format!("c{id}-b"));
    Edit::Customer(Arc::new(Customer {
        id: id.as_str().into(),
        name: id,
        limits: limits(&[&*budget][..count.min(1)]),
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }))
}

fn team(id: u8, customer: Option<u8>, count: usize) -> Edit {
    let (id, budget) = (format!("t{id}"), format!("t{id}-b"));
    Edit::Team(Arc::new(Team {
        id: id.as_str().into(),
        name: id,
        customer_id: customer.map(|customer| format!("c{customer}").into()),
        limits: limits(&[&*budget][..count.min(1)]),
        profile: None,
        config: None,
        claims: None,
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }))
}

fn key(id: u8, team: Option<u8>, customer: Option<u8>, count: usize, key_ids: KeySet) -> Edit {
    let (own, through) = (format!("k{id}-b"), format!("k{id}-p"));
    let config = ProviderConfig {
        id: i64::from(id) + 1,
        provider: "openai".into(),
        weight: None,
        allowed_models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec![]),
        key_ids,
        limits: limits(&[&*through][..count.saturating_sub(1).min(1)]),
    };
    let key = VirtualKey {
        id: format!("k{id}").into(),
        name: format!("k{id}"),
        description: String::new(),
        is_active: true,
        team_id: team.map(|team| format!("t{team}").into()),
        customer_id: customer.filter(|_| team.is_none()).map(|customer| format!("c{customer}").into()),
        limits: limits(&[&*own][..count.min(1)]),
        provider_configs: vec![config],
        mcp_configs: "[]".into(),
        config_hash: String::new(),
        created_at: Timestamp::from_millis(i64::from(id)),
        updated_at: AT,
    };
    Edit::VirtualKey { key: Arc::new(key), digest: [id; 32], value: None }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let id = 0..5u8;
    let some = prop::option::of(0..5u8);
    prop_oneof![
        (id.clone(), 0..2usize).prop_map(|(id, count)| customer(id, count)),
        (id.clone(), some.clone(), 0..2usize).prop_map(|(id, of, count)| team(id, of, count)),
        (id.clone(), some.clone(), some, 0..3usize).prop_map(|(id, t, c, count)| key(id, t, c, count, KeySet::All)),
        id.clone().prop_map(|id| Edit::RemoveCustomer(format!("c{id}").into())),
        id.clone().prop_map(|id| Edit::RemoveTeam(format!("t{id}").into())),
        id.prop_map(|id| Edit::RemoveVirtualKey(format!("k{id}").into())),
    ]
}

/// Its team, its customer, and the limits on its calls.
type Told = (Option<String>, Option<String>, Vec<String>);

/// What a view says of each key.
fn told(view: &View) -> BTreeMap<String, Told> {
    let of = |caller: &Arc<Caller>| {
        let limits = view.limits(Some(caller), Some(0), "openai", "m", "m");
        let team = caller.team.as_ref().map(|team| team.entity.id.to_string());
        let customer = caller.customer.as_ref().map(|customer| customer.entity.id.to_string());
        (caller.key.id.to_string(), (team, customer, limits.iter().map(|limit| limit.key.id.to_string()).collect()))
    };
    view.callers().map(of).collect()
}

proptest! {
    #[test]
    fn the_order_of_changes_does_not_matter(edits in vec(any_edit(), 0..60)) {
        let (mut view, mut slots) = (View::default(), Slots::default());
        let mut last: BTreeMap<(u8, String), Edit> = BTreeMap::new();
        for edit in &edits {
            view.apply(edit, &mut slots);
            slots.commit();
            match edit {
                Edit::Customer(entity) => drop(last.insert((0, entity.id.to_string()), edit.clone())),
                Edit::Team(entity) => drop(last.insert((1, entity.id.to_string()), edit.clone())),
                Edit::VirtualKey { key, .. } => drop(last.insert((2, key.id.to_string()), edit.clone())),
                Edit::RemoveCustomer(id) => drop(last.remove(&(0, id.to_string()))),
                Edit::RemoveTeam(id) => drop(last.remove(&(1, id.to_string()))),
                Edit::RemoveVirtualKey(id) => drop(last.remove(&(2, id.to_string()))),
                _ => {}
            }
        }
        let (mut fresh, mut others) = (View::default(), Slots::default());
        last.values().for_each(|edit| fresh.apply(edit, &mut others));
        prop_assert_eq!(told(&view), told(&fresh));
        // Each limit that is there has a slot of its own, and is found by it.
        let all = view.callers().flat_map(|caller| caller.own_limits())
            .chain(view.teams().flat_map(|team| &team.limits))
            .chain(view.customers().flat_map(|customer| &customer.limits));
        let mut seen = BTreeSet::new();
        for limit in all {
            prop_assert!(seen.insert(limit.slot), "{} shares its slot", limit.key.id);
            prop_assert_eq!(slots.number(&limit.key), Some(limit.slot));
        }
        for caller in view.callers() {
            prop_assert_eq!(&view.caller(&caller.digest).unwrap().key.id, &caller.key.id);
            prop_assert_eq!(&view.caller_by_id(&caller.key.id).unwrap().digest, &caller.digest);
        }
        prop_assert_eq!(view.callers().len(), last.keys().filter(|(kind, _)| *kind == 2).count());
    }
}

fn built(edits: &[Edit]) -> (View, Slots) {
    let (mut view, mut slots) = (View::default(), Slots::default());
    edits.iter().for_each(|edit| view.apply(edit, &mut slots));
    slots.commit();
    (view, slots)
}

fn rule(id: &str, scope: RuleScope) -> Edit {
    Edit::RoutingRule(Arc::new(RoutingRule {
        id: id.into(),
        name: id.into(),
        description: String::new(),
        enabled: true,
        expression: String::new(),
        fault: None,
        condition: Some(Condition::always()),
        targets: vec![],
        fallbacks: None,
        scope,
        priority: 0,
        chain: false,
        query: None,
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }))
}

fn price(id: &str, scope: OverrideScope) -> Edit {
    Edit::PricingOverride(Arc::new(PricingOverride {
        id: id.into(),
        name: id.into(),
        scope,
        pattern: ModelPattern::Prefix(String::new()),
        request_kinds: BTreeSet::new(),
        patch: BTreeMap::new(),
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }))
}

#[test]
fn what_is_deleted_takes_along_what_was_for_it_alone() {
    let start = [
        customer(1, 1),
        team(1, Some(1), 1),
        key(1, Some(1), None, 2, KeySet::All),
        key(2, None, Some(1), 2, KeySet::All),
        rule("of-customer", RuleScope::Customer("c1".into())),
        rule("of-team", RuleScope::Team("t1".into())),
        rule("of-key", RuleScope::VirtualKey("k1".into())),
        rule("of-all", RuleScope::Global),
        price("of-key", OverrideScope::VirtualKeyProvider { virtual_key: "k1".into(), provider: "openai".into() }),
        price("of-all", OverrideScope::Global),
    ];
    let check = |edits: Vec<Edit>, rules: &[&str], prices: &[&str], keys: &[(&str, Option<&str>, Option<&str>)]| {
        let (mut view, mut slots) = built(&start);
        edits.iter().for_each(|edit| view.apply(edit, &mut slots));
        let ids = |found: Vec<&Arc<str>>| found.into_iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ids(view.rules().map(|rule| &rule.id).collect()), rules);
        assert_eq!(ids(view.pricing_overrides().map(|over| &over.id).collect()), prices);
        let owned: Vec<_> = view
            .callers()
            .map(|caller| {
                let key = &caller.key;
                assert_eq!(caller.team.is_some(), key.team_id.is_some());
                (&*key.id, key.team_id.as_deref(), caller.customer.as_ref().map(|customer| &*customer.entity.id))
            })
            .collect();
        assert_eq!(owned, keys);
    };
    let (view, _) = built(&start);
    check(
        edit::remove_customer(&view, &"c1".into()),
        &["of-all", "of-key", "of-team"],
        &["of-all", "of-key"],
        &[("k1", Some("t1"), None), ("k2", None, None)],
    );
    check(
        edit::remove_team(&view, &"t1".into()),
        &["of-all", "of-customer", "of-key"],
        &["of-all", "of-key"],
        &[("k1", None, None), ("k2", None, Some("c1"))],
    );
    check(
        edit::remove_virtual_key(&view, &"k1".into()),
        &["of-all", "of-customer", "of-team"],
        &["of-all"],
        &[("k2", None, Some("c1"))],
    );
}

fn model_config(id: &str, model: &str, provider: Option<&str>) -> Edit {
    Edit::ModelConfig(Arc::new(ModelConfig {
        id: id.into(),
        model_name: model.into(),
        provider: provider.map(Into::into),
        limits: limits(&[id]),
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }))
}

#[test]
fn limits_on_a_model_hold_for_its_releases_and_whatever_it_is_called() {
    let config = model_config;
    let (view, _) = built(&[
        config("any", "gpt-4o", None),
        config("here", "gpt-4o", Some("openai")),
        config("there", "gpt-4o", Some("azure")),
        config("release", "gpt-4o-2024-08-06", None),
        config("nested", "openai/gpt-4o", None),
        config("deep", "openrouter/openai/gpt-4o", None),
        config("prefixed", "openai/gpt-4o", Some("openai")),
        config("alias", "best", None),
    ]);
    let check_both = |provider: &str, model: &str, upstream: &str, expected: &[&str]| {
        let found = view.limits(None, None, provider, model, upstream);
        assert_eq!(found.iter().map(|limit| &*limit.key.id).collect::<Vec<_>>(), expected, "{provider} {model}");
    };
    let check = |provider, model, expected: &[&str]| check_both(provider, model, model, expected);
    check("openai", "gpt-4o", &["here", "prefixed", "any", "nested"]);
    check("azure", "gpt-4o", &["there", "any"]);
    check("groq", "gpt-4o", &["any"]);
    check("openai", "gpt-4o-2024-08-06", &["here", "prefixed", "any", "nested", "release"]);
    check("openrouter", "openai/gpt-4o", &["any", "deep", "nested"]);
    check("openrouter", "gpt-4o", &["any"]);
    check("openai", "gpt-4", &[]);
    // What a provider's key makes of a name does not lead around what is said of the model.
    check_both("groq", "best", "best", &["alias"]);
    check_both("groq", "best", "gpt-4o", &["alias", "any"]);
    check_both("groq", "gpt-4o", "best", &["alias", "any"]);
    check_both("openai", "best", "gpt-4o-2024-08-06", &["here", "prefixed", "alias", "any", "nested", "release"]);
    check_both("azure", "gpt-4o", "gpt-4o-2024-08-06", &["there", "any", "release"]);
    check_both("openrouter", "gpt-4o", "openai/gpt-4o", &["any", "deep", "nested"]);
}

proptest! {
    #[test]
    fn configs_of_models_are_found_whatever_changed_before(
        changes in vec((0..4u8, prop::option::of((0..4usize, any::<bool>()))), 0..40)
    ) {
        let names = ["m", "openai/m", "a/openai/m", "n"];
        let (mut view, mut slots) = (View::default(), Slots::default());
        let mut last: BTreeMap<String, Edit> = BTreeMap::new();
        for (id, put) in changes {
            let id = format!("m{id}");
            let edit = match put {
                Some((name, named)) => model_config(&id, names[name], named.then_some("openai")),
                None => Edit::RemoveModelConfig(id.as_str().into()),
            };
            view.apply(&edit, &mut slots);
            slots.commit();
            if put.is_some() { last.insert(id, edit) } else { last.remove(&id) };
        }
        let (fresh, _) = built(&last.into_values().collect::<Vec<_>>());
        let told = |view: &View, provider: &str, model: &str| {
            let found = view.limits(None, None, provider, model, "n");
            found.iter().map(|limit| limit.key.id.to_string()).collect::<Vec<_>>()
        };
        for provider in ["openai", "a"] {
            for model in ["m", "openai/m", "o"] {
                prop_assert_eq!(told(&view, provider, model), told(&fresh, provider, model));
            }
        }
    }
}

#[test]
fn what_must_be_unique_is_told() {
    let named = |id: &str, name: &str, scope: RuleScope, priority: i64| {
        let Edit::RoutingRule(rule) = rule(id, scope) else { unreachable!("a rule was made") };
        RoutingRule { name: name.to_owned(), priority, ..RoutingRule::clone(&rule) }
    };
    let team = || RuleScope::Team("t1".into());
    let (view, _) = built(&[
        Edit::RoutingRule(Arc::new(named("a", "one", RuleScope::Global, 1))),
        Edit::RoutingRule(Arc::new(named("b", "two", team(), 2))),
        model_config("here", "m", Some("openai")),
        model_config("any", "openai/m", None),
    ]);
    let check = |rule: RoutingRule, clash| assert_eq!(edit::rule_clash(&view, &rule), clash, "{rule:?}");
    check(named("a", "one", RuleScope::Global, 1), None);
    check(named("c", "one", RuleScope::Global, 1), Some(edit::RuleClash::Name));
    check(named("c", "two", RuleScope::Global, 1), Some(edit::RuleClash::Priority));
    check(named("c", "two", RuleScope::Global, 2), None);
    check(named("c", "two", team(), 3), Some(edit::RuleClash::Name));
    check(named("c", "two", RuleScope::Team("t2".into()), 2), None);
    let check = |id: &str, model: &str, provider: Option<&str>, clashes: bool| {
        let Edit::ModelConfig(config) = model_config(id, model, provider) else { unreachable!("a config was made") };
        assert_eq!(edit::model_config_clashes(&view, &config), clashes, "{id} {model} {provider:?}");
    };
    check("here", "m", Some("openai"), false);
    check("new", "m", Some("openai"), true);
    check("new", "m", None, false);
    check("new", "m", Some("azure"), false);
    check("new", "openai/m", None, true);
    check("any", "openai/m", None, false);
}

#[test]
fn a_limit_that_moves_within_one_change_keeps_its_slot() {
    let moved = |id: u8, ids: &[&str]| {
        let Edit::Team(team) = team(id, None, 0) else { unreachable!("a team was made") };
        Edit::Team(Arc::new(Team { limits: limits(ids), ..Team::clone(&team) }))
    };
    let (mut view, mut slots) = built(&[moved(1, &["b"]), moved(2, &[])]);
    let number = |slots: &Slots| slots.number(&LimitKey { id: "b".into(), measure: Measure::Money });
    let before = number(&slots);
    // The new owner comes before the old one lets go, and after.
    for edits in [[moved(2, &["b"]), moved(1, &[])], [moved(2, &[]), moved(1, &["b"])]] {
        edits.iter().for_each(|edit| view.apply(edit, &mut slots));
        let opened = slots.commit();
        assert_eq!((number(&slots), opened.iter().filter(|slot| slot.fresh).count()), (before, 0));
    }
    // Given up and taken again within a change that fails: nothing happened.
    let mut failed = view.clone();
    [moved(1, &[]), moved(2, &["c"]), moved(2, &["b"])].iter().for_each(|edit| failed.apply(edit, &mut slots));
    slots.roll_back();
    assert_eq!(number(&slots), before);
    view.apply(&moved(1, &["b", "c"]), &mut slots);
    let opened: Vec<(u32, bool)> = slots.commit().into_iter().map(|slot| (slot.number, slot.fresh)).collect();
    assert!(opened.len() == 1 && opened[0].1 && Some(opened[0].0) != before, "{opened:?}");
}

fn provider_key(id: &str) -> ProviderKey {
    ProviderKey {
        id: id.into(),
        name: id.into(),
        value: KeyValue::text("secret"),
        weight: Weight::ONE,
        models: ModelSet::All,
        blacklisted_models: ModelSet::Only(vec![]),
        aliases: BTreeMap::new(),
        enabled: true,
        use_for_batch_api: false,
        cloud: None,
        config_hash: String::new(),
        created_at: AT,
        updated_at: AT,
    }
}

#[test]
fn the_most_specific_override_prices_a_call() {
    let over = |id: &str, scope: OverrideScope, pattern: ModelPattern| {
        let Edit::PricingOverride(over) = price(id, scope) else { unreachable!("an override was made") };
        let request_kinds = BTreeSet::from([RequestKind::ChatCompletion]);
        Edit::PricingOverride(Arc::new(PricingOverride { pattern, request_kinds, ..PricingOverride::clone(&over) }))
    };
    let any = || ModelPattern::Prefix(String::new());
    let [vk, openai, main]: [Arc<str>; 3] = ["k1", "openai", "main"].map(Into::into);
    let scopes = [
        ("global", OverrideScope::Global),
        ("provider", OverrideScope::Provider { provider: openai.clone() }),
        ("provider_key", OverrideScope::ProviderKey { key: main.clone() }),
        ("virtual_key", OverrideScope::VirtualKey { virtual_key: vk.clone() }),
        ("vk_provider", OverrideScope::VirtualKeyProvider { virtual_key: vk.clone(), provider: openai.clone() }),
        ("vk_key", OverrideScope::VirtualKeyProviderKey { virtual_key: vk.clone(), provider: None, key: main.clone() }),
    ];
    let (mut view, mut slots) = built(&[key(1, None, None, 0, KeySet::All), key(2, None, None, 0, KeySet::All)]);
    let provider = Provider::new("openai", AT);
    let provider_key = provider_key("main");
    let found = |view: &View, caller: &str, model: &str, kind: RequestKind| {
        let caller = view.caller_by_id(caller).map(|caller| &**caller);
        let over = view.price_override_for(caller, &provider, Some(&provider_key), model, kind);
        over.map(|over| over.entity.id.to_string())
    };
    let chat = RequestKind::ChatCompletion;
    assert_eq!(found(&view, "k1", "m", chat), None);
    for (id, scope) in scopes {
        view.apply(&over(id, scope, any()), &mut slots);
        assert_eq!(found(&view, "k1", "m", chat).as_deref(), Some(id), "each is more specific than the one before");
    }
    assert_eq!(found(&view, "k2", "m", chat).as_deref(), Some("provider_key"));
    assert_eq!(found(&view, "nobody", "m", chat).as_deref(), Some("provider_key"));
    assert_eq!(found(&view, "k1", "m", RequestKind::Embedding), None);
    // Within a scope: exact, then the longer prefix; and one that does not fit lets the wider scope speak.
    let scope = || OverrideScope::VirtualKey { virtual_key: "k2".into() };
    view.apply(&over("short", scope(), ModelPattern::Prefix("gpt-".into())), &mut slots);
    view.apply(&over("long", scope(), ModelPattern::Prefix("gpt-4".into())), &mut slots);
    view.apply(&over("exact", scope(), ModelPattern::Exact("gpt-4o".into())), &mut slots);
    let of = |view: &View, model: &str| found(view, "k2", model, chat).unwrap();
    assert_eq!(
        ["gpt-4o", "gpt-4o-mini", "gpt-5", "o1"].map(|m| of(&view, m)),
        ["exact", "long", "short", "provider_key"]
    );
    view.apply(&Edit::RemovePricingOverride("exact".into()), &mut slots);
    view.apply(&over("long", OverrideScope::Global, any()), &mut slots);
    assert_eq!(of(&view, "gpt-4o"), "short");
}

/// What the index finds is what comes first of all that fit.
fn first_of_all(view: &View, key: &str, provider: &str, provider_key: &str, model: &str) -> Option<String> {
    let fits = |over: &PricingOverride| {
        over.pattern.matches(model)
            && over.scope.virtual_key().is_none_or(|id| **id == *key)
            && over.scope.provider().is_none_or(|name| **name == *provider)
            && over.scope.provider_key().is_none_or(|id| **id == *provider_key)
    };
    let rank = |over: &PricingOverride| {
        let scope = OverrideScope::NAMES.iter().position(|name| *name == over.scope.name());
        let length = match &over.pattern {
            ModelPattern::Exact(_) => usize::MAX,
            ModelPattern::Prefix(head) => head.len(),
        };
        let named = over.scope.provider().is_some();
        (Reverse((scope, named, length)), over.created_at, over.id.to_string())
    };
    let fitting = view.pricing_overrides().filter(|over| fits(over));
    fitting.min_by_key(|over| rank(over)).map(|over| over.id.to_string())
}

fn any_scope() -> impl Strategy<Value = OverrideScope> {
    let [key, provider, provider_key] =
        [["k1", "k2"], ["openai", "azure"], ["main", "spare"]].map(|names| prop::sample::select(names.to_vec()));
    prop_oneof![
        Just(OverrideScope::Global),
        provider.clone().prop_map(|name| OverrideScope::Provider { provider: name.into() }),
        provider_key.clone().prop_map(|id| OverrideScope::ProviderKey { key: id.into() }),
        key.clone().prop_map(|id| OverrideScope::VirtualKey { virtual_key: id.into() }),
        (key.clone(), provider.clone()).prop_map(|(key, provider)| {
            OverrideScope::VirtualKeyProvider { virtual_key: key.into(), provider: provider.into() }
        }),
        (key, prop::option::of(provider), provider_key).prop_map(|(key, provider, id)| {
            let provider = provider.map(Into::into);
            OverrideScope::VirtualKeyProviderKey { virtual_key: key.into(), provider, key: id.into() }
        }),
    ]
}

proptest! {
    #[test]
    fn the_index_of_overrides_finds_what_comes_first(
        changes in vec((0..9u8, prop::option::of((any_scope(), "[mü]{0,3}", any::<bool>(), 0..3i64))), 0..40),
        model in "[mü]{0,4}",
    ) {
        let (mut view, mut slots) = (View::default(), Slots::default());
        view.apply(&key(1, None, None, 0, KeySet::All), &mut slots);
        for (id, put) in changes {
            let id = format!("o{id}");
            let edit = match put {
                Some((scope, text, is_exact, created)) => {
                    let Edit::PricingOverride(over) = price(&id, scope) else { unreachable!("an override was made") };
                    let mut over = PricingOverride::clone(&over);
                    over.pattern = if is_exact { ModelPattern::Exact(text) } else { ModelPattern::Prefix(text) };
                    over.request_kinds.insert(RequestKind::Responses);
                    over.created_at = Timestamp::from_millis(created);
                    Edit::PricingOverride(Arc::new(over))
                }
                None => Edit::RemovePricingOverride(id.as_str().into()),
            };
            view.apply(&edit, &mut slots);
        }
        let caller = view.caller_by_id("k1").map(|caller| &**caller);
        for (provider, id) in [("openai", "main"), ("azure", "spare"), ("groq", "other")] {
            let (named, own) = (Provider::new(provider, AT), provider_key(id));
            let find = |kind| view.price_override_for(caller, &named, Some(&own), &model, kind);
            let found = find(RequestKind::Responses).map(|over| over.entity.id.to_string());
            prop_assert_eq!(found, first_of_all(&view, "k1", provider, id, &model));
            prop_assert!(find(RequestKind::Embedding).is_none());
        }
    }
}

#[test]
fn an_override_that_leaves_out_a_price_frees_nothing() {
    let (mut view, mut slots) = built(&[key(1, None, None, 1, KeySet::All), key(2, None, None, 0, KeySet::All)]);
    let patched = |id: &str, patch: &[(&'static str, u64)]| {
        let Edit::PricingOverride(over) = price(id, OverrideScope::Global) else {
            unreachable!("an override was made")
        };
        let patch = patch.iter().map(|(field, rate)| (*field, Rate::new(*rate))).collect();
        let request_kinds = BTreeSet::from([RequestKind::ChatCompletion, RequestKind::Embedding]);
        Edit::PricingOverride(Arc::new(PricingOverride { request_kinds, patch, ..PricingOverride::clone(&over) }))
    };
    let target = Target {
        provider: Arc::new(Provider::new("openai", AT)),
        config: Some(0),
        model: "m".to_owned(),
        upstream_model: "m".to_owned(),
        key: None,
        choice: 0,
    };
    let cost = |view: &View, caller: &str, kind| {
        let caller = view.caller_by_id(caller).map(|caller| &**caller);
        let usage = Usage { input: 1_000, output: 1_000, ..Usage::default() };
        route::price(view, caller, &target, kind).map(|price| price.map(|price| price.cost(kind, &usage).get()))
    };
    let (chat, embedding) = (RequestKind::ChatCompletion, RequestKind::Embedding);
    let refused = || Err(Refusal::ModelNotPriced { provider: "openai".to_owned(), model: "m".to_owned() });
    view.apply(&patched("o", &[("input_cost_per_token", 5_000)]), &mut slots);
    assert_eq!(cost(&view, "k1", chat), refused());
    assert_eq!(cost(&view, "k1", embedding), Ok(Some(5_000)));
    assert_eq!(cost(&view, "k2", chat), Ok(None));
    let house = Arc::new(Price::named([("input_cost_per_token", Rate::new(7_000))]));
    let policy = Policy { unknown_model: UnknownModel::Priced(house), ..Policy::default() };
    view.apply(&Edit::Policy(policy), &mut slots);
    assert_eq!(cost(&view, "k1", chat), Ok(Some(7_000)));
    view.apply(&Edit::Policy(Policy::default()), &mut slots);
    view.apply(&patched("o", &[("input_cost_per_token", 0), ("output_cost_per_token", 0)]), &mut slots);
    assert_eq!(cost(&view, "k1", chat), Ok(Some(0)));
}
