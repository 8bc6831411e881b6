//! Routing rules as bodies write them.

use super::change::Change;
use super::faults::Faults;
use super::read::{Given, Object};
use crate::governance::cel::Condition;
use crate::governance::entity::{RoutingRule, RuleScope, RuleTarget, Weight};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// More destinations than anybody has providers and models for.
const TARGETS_MAX: usize = 100;
const FALLBACKS_MAX: usize = 100;
/// How far the sum of a rule's weights may be from one, in millionths.
const SUM_TOLERANCE: u128 = 1_000;

/// A new rule, or `base` with what the body says changed. Of use only if no fault was added.
pub fn rule(
    body: &Value,
    base: Option<&RoutingRule>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<RoutingRule> {
    let body = Object::of(body, "", faults)?;
    let name = read_name(&body, base, faults);
    let description = body.description(base.map(|base| &*base.description), faults);
    let (expression, fault, condition) = read_expression(&body, base, change, faults);
    let targets = read_targets(&body, base, change, faults);
    let fallbacks = read_fallbacks(&body, base.and_then(|base| base.fallbacks.as_ref()), change, faults);
    let scope = read_scope(&body, base.map(|base| &base.scope), change, faults);
    let query = body.free_object("query", faults).value().or_else(|| base.and_then(|base| base.query.clone()));
    let mut boolean =
        |name: &str, old: Option<bool>, usual| body.boolean(name, faults).value().or(old).unwrap_or(usual);
    let enabled = boolean("enabled", base.map(|base| base.enabled), true);
    let chain = boolean("chain_rule", base.map(|base| base.chain), false);
    let priority = body.integer("priority", faults).value().or(base.map(|base| base.priority)).unwrap_or(0);
    Some(RoutingRule {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        name,
        description,
        enabled,
        expression,
        fault,
        condition,
        targets,
        fallbacks,
        scope: scope?,
        priority,
        chain,
        query,
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

/// An update's blank name says nothing.
fn read_name(body: &Object<'_>, base: Option<&RoutingRule>, faults: &mut Faults) -> String {
    let blank = body.raw("name").value().and_then(Value::as_str).is_some_and(|name| name.trim().is_empty());
    match base {
        Some(base) if blank => base.name.clone(),
        _ => body.name_or("name", base.map(|base| &*base.name), "name field is required", faults),
    }
}

/// What is stored already is not checked again: a rule that could not be stored today can still be disabled.
fn read_expression(
    body: &Object<'_>,
    base: Option<&RoutingRule>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> (String, Option<String>, Option<Condition>) {
    let Some(text) = body.text("cel_expression", faults).value() else {
        return base
            .map(|base| (base.expression.clone(), base.fault.clone(), base.condition.clone()))
            .unwrap_or_else(|| (String::new(), None, Some(Condition::always())));
    };
    let condition = change.checker.read(text);
    let condition = condition.map_err(|error| faults.add(body.path("cel_expression"), error.to_string())).ok();
    (text.to_owned(), None, condition)
}

/// The whole list, which an update replaces.
fn read_targets(
    body: &Object<'_>,
    base: Option<&RoutingRule>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Vec<RuleTarget> {
    let olds = base.map_or(&[][..], |base| &base.targets);
    let bodies = match body.objects("targets", faults) {
        Given::Value(bodies) => bodies,
        Given::Absent | Given::Null => {
            if base.is_none() && body.raw("targets").value().is_none() {
                faults.add(body.path("targets"), "at least one target is required");
            }
            return olds.to_vec();
        }
    };
    if bodies.is_empty() && body.raw("targets").value().and_then(Value::as_array).is_some_and(Vec::is_empty) {
        let what = if base.is_some() { "routing target" } else { "target" };
        faults.add(body.path("targets"), format!("at least one {what} is required"));
        return Vec::new();
    }
    if bodies.len() > TARGETS_MAX {
        faults.add(body.path("targets"), format!("has more than {TARGETS_MAX} entries"));
        return Vec::new();
    }
    let targets: Vec<Option<RuleTarget>> =
        bodies.iter().map(|target| read_target(target, olds, change, faults)).collect();
    check_targets_differ(&bodies, &targets, faults);
    // A sum says nothing while one of its parts is missing.
    let count = targets.len();
    let targets: Vec<RuleTarget> = targets.into_iter().flatten().collect();
    if targets.len() == count && !targets.is_empty() {
        check_sum(&targets, &body.path("targets"), faults);
    }
    targets
}

/// A target, if its weight could be read.
fn read_target(body: &Object<'_>, olds: &[RuleTarget], change: &Change<'_>, faults: &mut Faults) -> Option<RuleTarget> {
    let provider = body.clearable("provider", faults).value();
    let model = body.clearable("model", faults).value();
    let key_id = body.clearable("key_id", faults).value();
    // What is not configured any more may be written back, but not chosen anew.
    let same_provider = |old: &&RuleTarget| old.provider.as_deref() == provider;
    let was_here =
        |with_key: bool| olds.iter().filter(same_provider).any(|old| !with_key || old.key_id.as_deref() == key_id);
    match (provider, key_id) {
        (None, Some(_)) => faults.add(body.path("key_id"), "key_id requires provider to be set"),
        (Some(name), _) if !change.known.provider(name) && !was_here(false) => {
            faults.add(body.path("provider"), format!("provider '{name}' is neither built in nor configured"));
        }
        (Some(name), Some(key)) if !change.known.provider_key(name, key) && !was_here(true) => {
            faults.add(body.path("key_id"), format!("provider '{name}' has no key '{key}'"));
        }
        _ => {}
    }
    let negative = body.raw("weight").value().and_then(Value::as_f64).is_some_and(|weight| weight < 0.0);
    if negative {
        faults.add(body.path("weight"), "each target weight must be positive");
        return None;
    }
    let weight = match body.weight("weight", faults) {
        Given::Value(weight) => weight,
        // What is no weight was reported when it was read.
        _ if body.raw("weight").value().is_some() => return None,
        _ => Weight::from_millionths(0),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Some(RuleTarget { provider: owned(provider), model: owned(model), key_id: owned(key_id), weight })
}

fn check_targets_differ(bodies: &[Object<'_>], targets: &[Option<RuleTarget>], faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (body, target) in bodies.iter().zip(targets).filter_map(|(body, target)| Some((body, target.as_ref()?))) {
        let lower = |text: &Option<String>| text.as_deref().map(str::to_lowercase);
        if !seen.insert((lower(&target.provider), lower(&target.model), &target.key_id)) {
            let parts = [("provider", &target.provider), ("model", &target.model), ("key_id", &target.key_id)];
            let parts = parts.map(|(name, part)| format!("{name} '{}'", part.as_deref().unwrap_or_default()));
            faults.add(body.here(), format!("duplicate target entry: {}", parts.join(", ")));
        }
    }
}

/// The weights of a rule's targets are its shares of the whole.
fn check_sum(targets: &[RuleTarget], path: &str, faults: &mut Faults) {
    let sum: u128 = targets.iter().map(|target| u128::from(target.weight.millionths())).sum();
    let one = u128::from(Weight::ONE.millionths());
    if sum.abs_diff(one) > SUM_TOLERANCE {
        let rounded = (sum + 50) / 100;
        let message = format!("target weights must sum to 1, got {}.{:04}", rounded / 10_000, rounded % 10_000);
        faults.add(path, message);
    }
}

/// Null keeps, an empty list takes them away.
fn read_fallbacks(
    body: &Object<'_>,
    old: Option<&Vec<String>>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let Given::Value(fallbacks) = body.texts("fallbacks", faults) else { return old.cloned() };
    if fallbacks.len() > FALLBACKS_MAX {
        faults.add(body.path("fallbacks"), format!("has more than {FALLBACKS_MAX} entries"));
        return None;
    }
    for (i, fallback) in fallbacks.iter().enumerate() {
        let (provider, _) = fallback.split_once('/').unwrap_or((fallback, ""));
        let was_here = || old.is_some_and(|old| old.contains(fallback));
        if !change.known.provider(provider) && !was_here() {
            let fallback: String = fallback.chars().take(255).collect();
            let message = format!(
                "'{fallback}' is neither 'provider', 'provider/' nor 'provider/model' with a provider that is built in \
                 or configured"
            );
            faults.add(format!("{}[{i}]", body.path("fallbacks")), message);
        }
    }
    Some(fallbacks).filter(|fallbacks| !fallbacks.is_empty())
}

/// `scope` and `scope_id`. An id does not outlive the scope that it was given for.
fn read_scope(
    body: &Object<'_>,
    base: Option<&RuleScope>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<RuleScope> {
    let old_name = base.map_or(RuleScope::NAMES[0], RuleScope::name);
    let name = body.clearable("scope", faults).value().unwrap_or(old_name);
    let given = body.clearable("scope_id", faults);
    if !RuleScope::NAMES.contains(&name) {
        let message = format!("scope '{name}' is none of: {}", RuleScope::NAMES.join(", "));
        faults.add(body.path("scope"), message);
        return None;
    }
    let old_id = base.and_then(RuleScope::id).filter(|_| name == old_name);
    let id = given.or_keep(old_id.map(|id| &**id));
    let Some(scope) = RuleScope::of(name, id) else {
        faults.add(body.path("scope_id"), "scope_id field is required when scope is not global");
        return None;
    };
    let (what, known) = match &scope {
        RuleScope::Global => return Some(scope),
        RuleScope::Customer(id) => ("customer", change.known.customer(id)),
        RuleScope::Team(id) => ("team", change.known.team(id)),
        RuleScope::VirtualKey(id) => ("virtual key", change.known.virtual_key(id)),
    };
    if !known {
        faults.add(body.path("scope_id"), format!("there is no {what} '{}'", id.unwrap_or_default()));
    }
    Some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::change::fixture::{LATER, NOW, owned, read_at, with};
    use serde_json::json;

    fn read_over(base: Option<&RoutingRule>, body: &Value) -> Result<RoutingRule, Vec<String>> {
        read_at(LATER, false, |change, faults| rule(body, base, change, faults))
    }

    fn body() -> Value {
        json!({"name": "cheap", "targets": [{"provider": "openai", "model": "gpt-4o", "weight": 1}]})
    }

    fn made(patch: Value) -> Result<RoutingRule, Vec<String>> {
        read_over(None, &with(&body(), &patch))
    }

    fn old() -> RoutingRule {
        let whole = json!({
            "id": "r1", "description": "d", "enabled": false, "cel_expression": "stream", "fallbacks": ["local"],
            "scope": "team", "scope_id": "t1", "priority": 3, "chain_rule": true, "query": {"rules": []},
            "targets": [
                {"provider": "openai", "model": "gpt-4o", "key_id": "main", "weight": 0.25},
                {"provider": "local", "weight": 0.75},
            ],
        });
        read_at(NOW, true, |change, faults| rule(&with(&body(), &whole), None, change, faults)).unwrap()
    }

    #[test]
    fn what_is_absent_has_its_usual_value() {
        let rule = made(json!({})).unwrap();
        assert_eq!((&*rule.id, &*rule.name, &*rule.description, &*rule.expression), ("new-1", "cheap", "", ""));
        assert_eq!((rule.enabled, rule.chain, rule.priority, rule.scope), (true, false, 0, RuleScope::Global));
        assert_eq!((rule.fallbacks, rule.query), (None, None));
        assert_eq!(rule.targets[0].weight, Weight::ONE);
        // An id for everybody is nobody's.
        assert_eq!(made(json!({"scope": "", "scope_id": "t1"})).unwrap().scope, RuleScope::Global);
        for (name, id) in [("team", "t1"), ("customer", "c1"), ("virtual_key", "v1")] {
            let scope = made(json!({"scope": name, "scope_id": id})).unwrap().scope;
            assert_eq!((scope.name(), scope.id().map(|id| &**id)), (name, Some(id)));
        }
    }

    #[test]
    fn weights_are_shares_of_the_whole() {
        let check = |weights: &[Value], expected: Result<(), &str>| {
            let target = |(i, weight)| json!({"provider": "openai", "model": format!("m{i}"), "weight": weight});
            let targets: Vec<Value> = weights.iter().enumerate().map(target).collect();
            let read = made(json!({ "targets": targets })).map(|_| ());
            assert_eq!(read, expected.map_err(|fault| owned(&[fault])), "{weights:?}");
        };
        check(&[json!(1)], Ok(()));
        check(&[json!(0.3333), json!(0.3333), json!(0.3334)], Ok(()));
        check(&[json!(0.5), json!(0.4991)], Ok(()));
        check(&[json!(0.5), json!(0.501)], Ok(()));
        check(&[json!(1), json!(0)], Ok(()));
        check(&[json!(1), json!(null)], Ok(()));
        check(&[json!(0.5), json!(0.4)], Err("targets: target weights must sum to 1, got 0.9000"));
        check(&[json!(0.5), json!(0.49899)], Err("targets: target weights must sum to 1, got 0.9990"));
        check(&[json!(0)], Err("targets: target weights must sum to 1, got 0.0000"));
        check(&[json!(null)], Err("targets: target weights must sum to 1, got 0.0000"));
        check(&[json!(10)], Err("targets: target weights must sum to 1, got 10.0000"));
        check(&[json!(1.5), json!(-0.5)], Err("targets[1].weight: each target weight must be positive"));
        check(&[json!(1), json!(1e30)], Err("targets[1].weight: weight '1e+30' is too large"));
        check(&[json!(1), json!(1e10)], Err("targets[1].weight: weight '10000000000.0' is too large"));
        check(&[json!("1")], Err("targets[0].weight: must be a number, not a string"));
    }

    #[test]
    fn fallbacks_name_a_known_provider() {
        let fallbacks = json!(["openai/gpt-4o", "openai/", "local", "openai/meta-llama/Llama-3"]);
        assert_eq!(made(json!({ "fallbacks": fallbacks })).unwrap().fallbacks.map(|list| list.len()), Some(4));
        for bad in ["", "/", "nope", "nope/gpt-4o", "meta-llama/Llama-3", "OpenAI/gpt-4o"] {
            let message = format!(
                "fallbacks[1]: '{bad}' is neither 'provider', 'provider/' nor 'provider/model' with a provider that is \
                 built in or configured"
            );
            assert_eq!(made(json!({"fallbacks": ["openai", bad]})), Err(owned(&[&message])));
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let check = |body: Value, change: &dyn Fn(&mut RoutingRule)| {
            let mut expected = RoutingRule { updated_at: LATER, ..old() };
            change(&mut expected);
            assert_eq!(read_over(Some(&old()), &body), Ok(expected), "{body}");
        };
        check(json!({}), &|_| {});
        check(
            json!({
                "name": null, "description": null, "enabled": null, "cel_expression": null, "targets": null,
                "fallbacks": null, "scope": null, "priority": null, "chain_rule": null, "query": null,
            }),
            &|_| {},
        );
        check(json!({"name": ""}), &|_| {});
        check(json!({"name": "n", "enabled": true}), &|rule| {
            rule.name = "n".to_owned();
            rule.enabled = true;
        });
        check(json!({"cel_expression": "", "description": "", "priority": -1, "chain_rule": false}), &|rule| {
            (rule.expression, rule.condition) = (String::new(), Some(Condition::always()));
            rule.description = String::new();
            (rule.priority, rule.chain) = (-1, false);
        });
        check(json!({"targets": [{"weight": 1}]}), &|rule| {
            rule.targets = vec![RuleTarget { provider: None, model: None, key_id: None, weight: Weight::ONE }];
        });
        check(json!({"fallbacks": [], "query": {}}), &|rule| {
            rule.fallbacks = None;
            rule.query = Some("{}".to_owned());
        });
        check(json!({"scope_id": "t2"}), &|rule| rule.scope = RuleScope::Team("t2".into()));
        check(json!({"scope": "customer", "scope_id": "c1"}), &|rule| rule.scope = RuleScope::Customer("c1".into()));
        check(json!({"scope": "global"}), &|rule| rule.scope = RuleScope::Global);
        let refused = |body: Value, expected: &[&str]| assert_eq!(read_over(Some(&old()), &body), Err(owned(expected)));
        let required = "scope_id: scope_id field is required when scope is not global";
        refused(json!({"scope": "customer"}), &[required]);
        refused(json!({"scope_id": null}), &[required]);
        refused(json!({"scope": "team", "scope_id": ""}), &[required]);
        refused(json!({"targets": []}), &["targets: at least one routing target is required"]);
    }

    #[test]
    fn what_left_may_be_written_back() {
        let mut old = old();
        old.targets[0].key_id = Some("gone".to_owned());
        old.targets[1].provider = Some("gone".to_owned());
        old.fallbacks = Some(vec!["gone/x".to_owned()]);
        old.expression = "not(an expression".to_owned();
        let body = json!({
            "targets": [
                {"provider": "openai", "model": "other", "key_id": "gone", "weight": 0.5},
                {"provider": "gone", "weight": 0.5},
            ],
            "fallbacks": ["gone/x"], "enabled": false,
        });
        assert_eq!(read_over(Some(&old), &body).unwrap().expression, old.expression);
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check = |patch: Value, expected: &[&str]| assert_eq!(made(patch.clone()), Err(owned(expected)), "{patch}");
        assert_eq!(
            read_over(None, &json!({"name": " "})),
            Err(owned(&["name: name field is required", "targets: at least one target is required"]))
        );
        check(json!({"targets": []}), &["targets: at least one target is required"]);
        check(json!({"targets": null}), &["targets: at least one target is required"]);
        check(json!({"targets": {}}), &["targets: must be an array, not an object"]);
        check(json!({"targets": [1]}), &["targets[0]: must be an object, not a number"]);
        check(json!({"targets": vec![json!({}); 101]}), &["targets: has more than 100 entries"]);
        check(
            json!({"targets": [
                {"key_id": "main", "weight": 0.25},
                {"provider": "nope", "weight": 0.25},
                {"provider": "openai", "key_id": "near", "weight": 0.25},
                {"provider": "openai", "model": 7, "weight": 0.25},
            ]}),
            &[
                "targets[0].key_id: key_id requires provider to be set",
                "targets[1].provider: provider 'nope' is neither built in nor configured",
                "targets[2].key_id: provider 'openai' has no key 'near'",
                "targets[3].model: must be a string, not a number",
            ],
        );
        check(
            json!({"targets": [
                {"provider": "openai", "model": "GPT-4o", "weight": 0.5},
                {"provider": "openai", "model": "gpt-4o", "key_id": "main", "weight": 0.25},
                {"provider": "openai", "model": "gpt-4o", "weight": 0.25},
            ]}),
            &["targets[2]: duplicate target entry: provider 'openai', model 'gpt-4o', key_id ''"],
        );
        check(json!({"scope": "user"}), &["scope: scope 'user' is none of: global, customer, team, virtual_key"]);
        check(json!({"scope": "team"}), &["scope_id: scope_id field is required when scope is not global"]);
        for (scope, what) in [("team", "team"), ("customer", "customer"), ("virtual_key", "virtual key")] {
            check(json!({"scope": scope, "scope_id": "x"}), &[&format!("scope_id: there is no {what} 'x'")]);
        }
        check(
            json!({
                "name": 1, "description": 1, "enabled": 1, "cel_expression": "modell == 'a'", "priority": 1e30,
                "chain_rule": "yes", "query": [], "fallbacks": "local", "scope": 1,
            }),
            &[
                "name: must be a string, not a number",
                "description: must be a string, not a number",
                "cel_expression: at line 1, column 1 of the expression: there is no variable 'modell'",
                "fallbacks: must be an array, not a string",
                "scope: must be a string, not a number",
                "query: must be an object, not an array",
                "enabled: must be true or false, not a number",
                "chain_rule: must be true or false, not a string",
                "priority: must be a whole number of at most 64 bits, not 1e+30",
            ],
        );
        check(
            json!({"cel_expression": "x".repeat(4_097)}),
            &["cel_expression: the expression is longer than 4096 bytes"],
        );
        check(json!({"description": "x".repeat(4_097)}), &["description: is longer than 4096 characters"]);
        check(json!({"query": {"a": "x".repeat(65_536)}}), &["query: is longer than 65536 bytes"]);
    }
}
