//! Prices in place of the list's, as bodies write them.

use super::change::Change;
use super::faults::Faults;
use super::read::{Given, Object};
use crate::governance::entity::{ModelPattern, OverrideScope, PRICE_FIELDS, PricingOverride};
use crate::governance::money::Rate;
use crate::governance::request::RequestKind;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kinds of request that cost something; each stands for its streamed form, too.
pub const PRICED_KINDS: [RequestKind; 12] = [
    RequestKind::ChatCompletion,
    RequestKind::TextCompletion,
    RequestKind::Responses,
    RequestKind::Embedding,
    RequestKind::Rerank,
    RequestKind::Speech,
    RequestKind::Transcription,
    RequestKind::ImageGeneration,
    RequestKind::ImageVariation,
    RequestKind::ImageEdit,
    RequestKind::VideoGeneration,
    RequestKind::VideoRemix,
];

/// A new override, or `base` with what the body says changed. Of use only if no fault was added.
pub fn price_override(
    body: &Value,
    base: Option<&PricingOverride>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<PricingOverride> {
    let body = Object::of(body, "", faults)?;
    let name = body.name_or("name", base.map(|base| &*base.name), "name is required", faults);
    let scope = read_scope(&body, base.map(|base| &base.scope), change, faults);
    let pattern = read_pattern(&body, base.map(|base| &base.pattern), faults);
    let request_kinds = read_kinds(&body, base.map(|base| &base.request_kinds), faults);
    let patch = read_patch(&body, faults).or_keep(base.map(|base| base.patch.clone()));
    Some(PricingOverride {
        id: base.map_or_else(|| change.id(&body, faults), |base| Arc::clone(&base.id)),
        name,
        scope: scope?,
        pattern: pattern?,
        request_kinds,
        patch: patch.unwrap_or_default(),
        config_hash: base.map_or_else(String::new, |base| base.config_hash.clone()),
        created_at: base.map_or(change.now, |base| base.created_at),
        updated_at: change.now,
    })
}

/// The kind of scope and its identifiers, each as sent or else as it was; together they must fit exactly.
fn read_scope(
    body: &Object<'_>,
    base: Option<&OverrideScope>,
    change: &Change<'_>,
    faults: &mut Faults,
) -> Option<OverrideScope> {
    let kind = body.text("scope_kind", faults).value().or(base.map(OverrideScope::name));
    let mut identifier = |name: &str, old: Option<&Arc<str>>| {
        body.clearable(name, faults).map(|id| Some(Arc::<str>::from(id))).or_keep(old.cloned())
    };
    let virtual_key = identifier("virtual_key_id", base.and_then(OverrideScope::virtual_key));
    let provider = identifier("provider_id", base.and_then(OverrideScope::provider));
    let key = identifier("provider_key_id", base.and_then(OverrideScope::provider_key));
    let Some(kind) = kind else {
        if body.raw("scope_kind").value().is_none() {
            faults.add(body.path("scope_kind"), "scope_kind is required");
        }
        return None;
    };
    // Whether each identifier belongs to the scope; the key tells its provider, so that one may be left out.
    let (wants_virtual_key, wants_provider, wants_key) = match kind {
        "global" => (false, Some(false), false),
        "provider" => (false, Some(true), false),
        "provider_key" => (false, Some(false), true),
        "virtual_key" => (true, Some(false), false),
        "virtual_key_provider" => (true, Some(true), false),
        "virtual_key_provider_key" => (true, None, true),
        other => {
            let names = OverrideScope::NAMES.join(", ");
            faults.add(body.path("scope_kind"), format!("scope_kind '{other}' is none of: {names}"));
            return None;
        }
    };
    let wants = [
        ("virtual_key_id", Some(wants_virtual_key), virtual_key.is_some()),
        ("provider_id", wants_provider, provider.is_some()),
        ("provider_key_id", Some(wants_key), key.is_some()),
    ];
    for (name, wanted, given) in wants {
        match wanted {
            Some(true) if !given => faults.add(body.path(name), format!("{name} is required for scope_kind '{kind}'")),
            Some(false) if given => {
                faults.add(body.path(name), format!("{name} does not belong to scope_kind '{kind}'"));
            }
            _ => {}
        }
    }
    check_identifiers(body, [&virtual_key, &provider, &key].map(Option::as_deref), change, faults);
    match (virtual_key, provider, key) {
        (None, None, None) => Some(OverrideScope::Global),
        (None, Some(provider), None) => Some(OverrideScope::Provider { provider }),
        (None, _, Some(key)) => Some(OverrideScope::ProviderKey { key }),
        (Some(virtual_key), None, None) => Some(OverrideScope::VirtualKey { virtual_key }),
        (Some(virtual_key), Some(provider), None) => Some(OverrideScope::VirtualKeyProvider { virtual_key, provider }),
        (Some(virtual_key), provider, Some(key)) => {
            Some(OverrideScope::VirtualKeyProviderKey { virtual_key, provider, key })
        }
    }
}

/// What is named must be there, and a key be its provider's.
fn check_identifiers(
    body: &Object<'_>,
    [virtual_key, provider, key]: [Option<&str>; 3],
    change: &Change<'_>,
    faults: &mut Faults,
) {
    if let Some(id) = virtual_key.filter(|id| !change.known.virtual_key(id)) {
        faults.add(body.path("virtual_key_id"), format!("there is no virtual key '{id}'"));
    }
    if let Some(name) = provider.filter(|name| !change.known.provider(name)) {
        faults.add(body.path("provider_id"), format!("provider '{name}' is neither built in nor configured"));
    }
    let Some(key) = key else { return };
    match (change.known.provider_of_key(key), provider) {
        (None, _) => faults.add(body.path("provider_key_id"), format!("there is no provider key '{key}'")),
        (Some(owner), Some(named)) if owner != named => {
            faults
                .add(body.path("provider_id"), format!("provider key '{key}' is a key of '{owner}', not of '{named}'"));
        }
        (Some(_), _) => {}
    }
}

/// `match_type` and `pattern`, each as sent or else as it was.
fn read_pattern(body: &Object<'_>, base: Option<&ModelPattern>, faults: &mut Faults) -> Option<ModelPattern> {
    let old = base.map(ModelPattern::wire);
    let match_type = body.text("match_type", faults).value().or(old.as_ref().map(|(match_type, _)| *match_type));
    let pattern = body.name_or("pattern", old.as_ref().map(|(_, pattern)| &**pattern), "pattern is required", faults);
    let pattern = pattern.trim();
    let mut fault = |name: &str, message: String| {
        faults.add(body.path(name), message);
        None
    };
    match match_type {
        _ if pattern.is_empty() => None,
        Some("exact") if pattern.contains('*') => {
            fault("pattern", "pattern must not hold a '*' for match_type 'exact'".to_owned())
        }
        Some("exact") => Some(ModelPattern::Exact(pattern.to_owned())),
        Some("wildcard") => match pattern.strip_suffix('*') {
            Some(head) if !head.contains('*') => Some(ModelPattern::Prefix(head.to_owned())),
            _ => fault("pattern", "pattern must end in its only '*' for match_type 'wildcard'".to_owned()),
        },
        Some(other) => fault("match_type", format!("match_type '{other}' is none of: exact, wildcard")),
        None if body.raw("match_type").value().is_some() => None,
        None => fault("match_type", "match_type is required".to_owned()),
    }
}

fn read_kinds(body: &Object<'_>, base: Option<&BTreeSet<RequestKind>>, faults: &mut Faults) -> BTreeSet<RequestKind> {
    let names = match (body.texts("request_types", faults), base) {
        (Given::Value(names), _) => names,
        (_, Some(base)) => return base.clone(),
        // What is no list was reported when it was read.
        (_, None) if body.raw("request_types").value().is_some() => return BTreeSet::new(),
        (_, None) => Vec::new(),
    };
    if names.is_empty() {
        faults.add(body.path("request_types"), "at least one request type is required");
    }
    let mut kinds = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        match RequestKind::from_name(name).filter(|kind| PRICED_KINDS.contains(kind)) {
            Some(kind) => {
                kinds.insert(kind);
            }
            None => {
                let known: Vec<&str> = PRICED_KINDS.into_iter().map(RequestKind::as_str).collect();
                let message = match name.strip_suffix("_stream").filter(|base| known.contains(base)) {
                    Some(base) => format!("'{base}' stands for its streams, too; leave out '{name}'"),
                    None => format!("request type '{name}' is none of: {}", known.join(", ")),
                };
                faults.add(format!("{}[{i}]", body.path("request_types")), message);
            }
        }
    }
    kinds
}

/// `patch`, or the same as a JSON text in `pricing_patch`, where older records have it.
fn read_patch(body: &Object<'_>, faults: &mut Faults) -> Given<BTreeMap<&'static str, Rate>> {
    if body.raw("patch").value().is_some() || body.raw("pricing_patch").value().is_none() {
        return match body.object("patch", faults) {
            Given::Value(patch) => Given::Value(read_prices(&patch, faults)),
            // Null keeps: prices are taken away by an empty patch.
            Given::Absent | Given::Null => Given::Absent,
        };
    }
    body.text("pricing_patch", faults).map(|text| {
        let path = body.path("pricing_patch");
        match serde_json::from_str::<Value>(text) {
            Ok(patch) => Object::of(&patch, path, faults).map(|patch| read_prices(&patch, faults)),
            Err(error) => {
                faults.add(path, format!("is no JSON: {error}"));
                None
            }
        }
    })
}

fn read_prices(patch: &Object<'_>, faults: &mut Faults) -> BTreeMap<&'static str, Rate> {
    let mut prices = BTreeMap::new();
    for name in patch.names() {
        let Some(field) = PRICE_FIELDS.iter().find(|field| **field == name) else {
            let name: String = name.chars().take(64).collect();
            let nearest = PRICE_FIELDS.iter().min_by_key(|field| strsim::damerau_levenshtein(&name, field));
            let nearest = nearest.expect("there are price fields");
            faults.add(patch.path(&name), format!("there is no such price; did you mean '{nearest}'?"));
            continue;
        };
        // Null is no price, as if it were not there.
        if let Given::Value(rate) = patch.rate(name, faults) {
            prices.insert(*field, rate);
        }
    }
    prices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::change::fixture::{LATER, NOW, owned, read_at, with};
    use serde_json::json;

    fn read_over(base: Option<&PricingOverride>, body: &Value) -> Result<PricingOverride, Vec<String>> {
        read_at(LATER, false, |change, faults| price_override(body, base, change, faults))
    }

    fn body() -> Value {
        json!({
            "name": "house", "scope_kind": "global", "match_type": "exact", "pattern": "gpt-4o",
            "request_types": ["chat_completion"], "patch": {"input_cost_per_token": 2.5e-06},
        })
    }

    /// A whole body with the members of `patch` in place of its own.
    fn made(patch: Value) -> Result<PricingOverride, Vec<String>> {
        read_over(None, &with(&body(), &patch))
    }

    #[test]
    fn every_scope_wants_its_own_identifiers() {
        let check = |kind: &str, identifiers: Value, expected: Result<OverrideScope, &[&str]>| {
            let read = made(with(&identifiers, &json!({"scope_kind": kind}))).map(|read| read.scope);
            assert_eq!(read, expected.map_err(owned), "{kind} {identifiers}");
        };
        let (virtual_key, provider, key): (Arc<str>, Arc<str>, Arc<str>) =
            ("v1".into(), "openai".into(), "main".into());
        check("global", json!({"provider_id": "", "virtual_key_id": null}), Ok(OverrideScope::Global));
        check("provider", json!({"provider_id": "openai"}), Ok(OverrideScope::Provider { provider: provider.clone() }));
        check("provider_key", json!({"provider_key_id": "main"}), Ok(OverrideScope::ProviderKey { key: key.clone() }));
        check(
            "virtual_key",
            json!({"virtual_key_id": "v1"}),
            Ok(OverrideScope::VirtualKey { virtual_key: virtual_key.clone() }),
        );
        check(
            "virtual_key_provider",
            json!({"virtual_key_id": "v1", "provider_id": "openai"}),
            Ok(OverrideScope::VirtualKeyProvider { virtual_key: virtual_key.clone(), provider: provider.clone() }),
        );
        for (named, provider) in [(json!("openai"), Some(provider)), (json!(null), None)] {
            check(
                "virtual_key_provider_key",
                json!({"virtual_key_id": "v1", "provider_id": named, "provider_key_id": "main"}),
                Ok(OverrideScope::VirtualKeyProviderKey {
                    virtual_key: virtual_key.clone(),
                    provider,
                    key: key.clone(),
                }),
            );
        }
        check(
            "global",
            json!({"provider_id": "openai"}),
            Err(&["provider_id: provider_id does not belong to scope_kind 'global'"]),
        );
        check("provider", json!({}), Err(&["provider_id: provider_id is required for scope_kind 'provider'"]));
        check(
            "provider_key",
            json!({"provider_key_id": "main", "provider_id": "openai"}),
            Err(&["provider_id: provider_id does not belong to scope_kind 'provider_key'"]),
        );
        check(
            "virtual_key_provider",
            json!({"provider_key_id": "main"}),
            Err(&[
                "virtual_key_id: virtual_key_id is required for scope_kind 'virtual_key_provider'",
                "provider_id: provider_id is required for scope_kind 'virtual_key_provider'",
                "provider_key_id: provider_key_id does not belong to scope_kind 'virtual_key_provider'",
            ]),
        );
        check(
            "virtual_key_provider_key",
            json!({"virtual_key_id": "v9", "provider_id": "nope", "provider_key_id": "main"}),
            Err(&[
                "virtual_key_id: there is no virtual key 'v9'",
                "provider_id: provider 'nope' is neither built in nor configured",
                "provider_id: provider key 'main' is a key of 'openai', not of 'nope'",
            ]),
        );
        check("provider_key", json!({"provider_key_id": "k"}), Err(&["provider_key_id: there is no provider key 'k'"]));
    }

    #[test]
    fn patterns_and_prices_are_read() {
        let check = |match_type: &str, pattern: &str, expected: ModelPattern| {
            let read = made(json!({"match_type": match_type, "pattern": pattern}));
            assert_eq!(read.map(|read| read.pattern), Ok(expected), "{match_type} {pattern}");
        };
        check("exact", "gpt-4o", ModelPattern::Exact("gpt-4o".to_owned()));
        check("wildcard", "gpt-4*", ModelPattern::Prefix("gpt-4".to_owned()));
        check("wildcard", "*", ModelPattern::Prefix(String::new()));
        let patch = json!({"input_cost_per_token": 2.5e-06, "output_cost_per_token": 0, "input_cost_per_image": null});
        let expected =
            BTreeMap::from([("input_cost_per_token", Rate::new(2_500_000)), ("output_cost_per_token", Rate::ZERO)]);
        assert_eq!(made(json!({ "patch": patch })).unwrap().patch, expected);
        // As a text, where there is no object.
        assert_eq!(made(json!({"patch": null, "pricing_patch": patch.to_string()})).unwrap().patch, expected);
        assert_eq!(made(json!({"patch": patch, "pricing_patch": "ignored"})).unwrap().patch, expected);
        let all: Vec<&str> = PRICED_KINDS.into_iter().map(RequestKind::as_str).collect();
        assert_eq!(made(json!({ "request_types": all })).unwrap().request_kinds.len(), 12);
    }

    #[test]
    fn an_update_merges_and_is_checked_as_a_whole() {
        let old = read_at(NOW, true, |change, faults| {
            let scoped = json!({"id": "p1", "scope_kind": "provider", "provider_id": "openai"});
            price_override(&with(&body(), &scoped), None, change, faults)
        })
        .unwrap();
        let check = |body: Value, change: &dyn Fn(&mut PricingOverride)| {
            let mut expected = PricingOverride { updated_at: LATER, ..old.clone() };
            change(&mut expected);
            assert_eq!(read_over(Some(&old), &body), Ok(expected), "{body}");
        };
        check(json!({}), &|_| {});
        check(json!({"name": null, "scope_kind": null, "patch": null, "request_types": null}), &|_| {});
        check(json!({"name": "n"}), &|prices| prices.name = "n".to_owned());
        check(json!({"pattern": "o3"}), &|prices| prices.pattern = ModelPattern::Exact("o3".to_owned()));
        check(json!({"patch": {}}), &|prices| prices.patch = BTreeMap::new());
        check(json!({"scope_kind": "global", "provider_id": ""}), &|prices| prices.scope = OverrideScope::Global);
        check(json!({"provider_id": "local"}), &|prices| {
            prices.scope = OverrideScope::Provider { provider: "local".into() };
        });
        let refused = |body: Value, expected: &[&str]| assert_eq!(read_over(Some(&old), &body), Err(owned(expected)));
        refused(json!({"scope_kind": "global"}), &["provider_id: provider_id does not belong to scope_kind 'global'"]);
        refused(
            json!({"match_type": "wildcard"}),
            &["pattern: pattern must end in its only '*' for match_type 'wildcard'"],
        );
        refused(
            json!({"name": "", "request_types": []}),
            &["name: name is required", "request_types: at least one request type is required"],
        );
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check = |patch: Value, expected: &[&str]| assert_eq!(made(patch.clone()), Err(owned(expected)), "{patch}");
        assert_eq!(
            read_over(None, &json!({})),
            Err(owned(&[
                "name: name is required",
                "scope_kind: scope_kind is required",
                "pattern: pattern is required",
                "request_types: at least one request type is required",
            ]))
        );
        check(json!({"match_type": null}), &["match_type: match_type is required"]);
        check(json!({"match_type": 1}), &["match_type: must be a string, not a number"]);
        check(json!({"match_type": "regex"}), &["match_type: match_type 'regex' is none of: exact, wildcard"]);
        check(
            json!({"scope_kind": "team"}),
            &[
                "scope_kind: scope_kind 'team' is none of: global, provider, provider_key, virtual_key, virtual_key_provider, virtual_key_provider_key",
            ],
        );
        check(json!({"pattern": "a*"}), &["pattern: pattern must not hold a '*' for match_type 'exact'"]);
        for pattern in ["a", "*a", "a**", "a*b*"] {
            check(
                json!({"match_type": "wildcard", "pattern": pattern}),
                &["pattern: pattern must end in its only '*' for match_type 'wildcard'"],
            );
        }
        let kinds = "chat_completion, text_completion, responses, embedding, rerank, speech, transcription, \
                     image_generation, image_variation, image_edit, video_generation, video_remix";
        check(
            json!({"request_types": ["chat_completion_stream", "list_models", "chat", 1]}),
            &[
                "request_types[3]: must be a string, not a number",
                "request_types[0]: 'chat_completion' stands for its streams, too; leave out 'chat_completion_stream'",
                &format!("request_types[1]: request type 'list_models' is none of: {kinds}"),
                &format!("request_types[2]: request type 'chat' is none of: {kinds}"),
            ],
        );
        check(json!({"request_types": "chat_completion"}), &["request_types: must be an array, not a string"]);
        check(
            json!({"patch": {
                "input_cost_per_token": -1, "output_cost_per_token": "1", "imput_cost_per_image": 1,
                "input_cost_per_second": 1e30,
            }}),
            &[
                "patch.imput_cost_per_image: there is no such price; did you mean 'input_cost_per_image'?",
                "patch.input_cost_per_second: '1e+30' is too large",
                "patch.input_cost_per_token: '-1' is negative",
                "patch.output_cost_per_token: must be a number, not a string",
            ],
        );
        check(json!({"patch": 5}), &["patch: must be an object, not a number"]);
        check(json!({"patch": null, "pricing_patch": "[]"}), &["pricing_patch: must be an object, not an array"]);
        check(
            json!({"patch": null, "pricing_patch": "{"}),
            &["pricing_patch: is no JSON: EOF while parsing an object at line 1 column 1"],
        );
    }
}
