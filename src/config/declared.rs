//! What the file declares, object by object, in the contract's own words.
//!
//! Names are checked here, for a misspelt limit would be no limit; what they say is read by the same
//! readers as the bodies of the admin API, first here to find faults and once more when it is applied.

use super::file::Reading;
use super::provider;
use crate::governance::edit::Edit;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::View;
use crate::wire::declared::{Around, Declaration, Declared, reconcile};
use crate::wire::env_text::Env;
use crate::wire::faults::Faults;
use crate::wire::read::{Given, Object};
use crate::wire::strict::only_known;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub(super) const KEY: &[&str] =
    &["id", "name", "description", "value", "is_active", "team_id", "customer_id", "provider_configs", "mcp_configs"];
pub(super) const KEY_CONFIG: &[&str] =
    &["id", "provider", "weight", "allowed_models", "blacklisted_models", "key_ids", "keys", "allow_all_keys"];
pub(super) const CUSTOMER: &[&str] = &["id", "name"];
pub(super) const TEAM: &[&str] = &["id", "name", "customer_id", "profile", "config", "claims"];
pub(super) const MODEL_CONFIG: &[&str] = &["id", "model_name", "provider"];
pub(super) const RULE: &[&str] = &[
    "id",
    "name",
    "description",
    "enabled",
    "cel_expression",
    "targets",
    "fallbacks",
    "scope",
    "scope_id",
    "priority",
    "chain_rule",
    "query",
];
pub(super) const OVERRIDE: &[&str] = &[
    "id",
    "name",
    "scope_kind",
    "virtual_key_id",
    "provider_id",
    "provider_key_id",
    "match_type",
    "pattern",
    "request_types",
    "patch",
];
pub(super) const BUDGET: &[&str] = &["id", "max_limit", "reset_duration", "calendar_aligned"];
pub(super) const RATE_LIMIT: &[&str] =
    &["id", "token_max_limit", "token_reset_duration", "request_max_limit", "request_reset_duration"];
const LIMITS: &[&str] = &["budget", "budgets", "rate_limit", "budget_id", "rate_limit_id"];
/// Members of answers, so that what the API shows can be declared.
const SHOWN: &[&str] = &["created_at", "updated_at", "config_hash", "pricing_patch"];
/// The same of limits.
const COUNTED: &[&str] = &[
    "current_usage",
    "last_reset",
    "resets_at",
    "held",
    "token_current_usage",
    "token_last_reset",
    "token_held",
    "request_current_usage",
    "request_last_reset",
    "request_held",
];

/// Reads every declared object of the file.
pub(super) fn read(root: &Object<'_>, reading: &mut Reading<'_>) -> Declared {
    let none = Value::Object(Map::new());
    let governance = root.raw("governance").value().unwrap_or(&none);
    let Some(governance) = Object::of(governance, "governance", &mut Faults::default()) else {
        return Declared::default();
    };
    let mut shared = Shared::read(&governance, reading.faults);
    let mut list = |name: &str, known: &[&str], reading: &mut Reading<'_>| -> Vec<Declaration> {
        let objects = governance.objects(name, reading.faults).value().unwrap_or_default();
        objects.iter().map(|object| shared.declare(object, known, reading.faults)).collect()
    };
    let customers = list("customers", CUSTOMER, reading);
    let teams = list("teams", TEAM, reading);
    let virtual_keys = list("virtual_keys", KEY, reading);
    let model_configs = list("model_configs", MODEL_CONFIG, reading);
    let provider_limits = list("providers", &["name"], reading);
    let routing_rules = plain(&governance, "routing_rules", RULE, reading.faults);
    let pricing_overrides = plain(&governance, "pricing_overrides", OVERRIDE, reading.faults);
    shared.unused(reading);
    let section = |name: &str| root.object(name, &mut Faults::default()).value().map(|object| whole(&object));
    let providers = root.object("providers", reading.faults).value();
    let providers = providers.iter().flat_map(|providers| {
        providers.names().filter_map(|name| {
            let declared = match providers.raw(name) {
                // A name alone is a provider with all its defaults.
                Given::Null => Declaration { path: providers.path(name), value: json!({}), hash: hash(&json!({})) },
                _ => whole(&providers.object(name, &mut Faults::default()).value()?),
            };
            Some((name.to_owned(), declared))
        })
    });
    let named = |declaration: Declaration| {
        let name = declaration.value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        (name, declaration)
    };
    Declared {
        client: section("client"),
        auth: section("auth_config")
            .or_else(|| governance.object("auth_config", &mut Faults::default()).value().map(|o| whole(&o))),
        providers: providers.collect(),
        provider_limits: provider_limits.into_iter().map(named).collect(),
        customers,
        teams,
        virtual_keys,
        model_configs,
        routing_rules,
        pricing_overrides,
    }
}

/// Finds what is wrong with what was declared, as far as the file itself can tell, and what is said in vain.
pub(super) fn check(declared: &Declared, reading: &mut Reading<'_>) {
    let edits = dry_run(declared, reading.env, reading.faults);
    if declared.providers.is_empty() {
        reading.warnings.push("no provider is declared: calls go to those that the store knows, if any".into());
    }
    for edit in &edits {
        if let Edit::Provider(made) = edit
            && let Some((_, declaration)) = declared.providers.iter().find(|(name, _)| **name == *made.name)
        {
            provider::warn(made, &declaration.value, &declaration.path, reading);
        }
    }
}

/// What the file would come to where nothing is stored yet. Ids, values and digests are of no use.
pub(super) fn dry_run(declared: &Declared, env: Env<'_>, faults: &mut Faults) -> Vec<Edit> {
    let (mut ids, mut values) = (0_u64, 0_u64);
    let digest = |value: &[u8]| {
        let mut found = [0; 32];
        found.copy_from_slice(digest(&SHA256, value).as_ref());
        found
    };
    let mut around = Around {
        now: Timestamp::default(),
        new_id: &mut || {
            ids += 1;
            format!("new-{ids}")
        },
        new_value: &mut || {
            values += 1;
            Secret::new(format!("sk-bf-new-{values}"))
        },
        env,
        digest: &digest,
        basic_digest: &|pair| digest(pair.as_bytes()),
        trusting: true,
    };
    reconcile(&View::default(), declared, &mut around, faults).0
}

/// Budgets and rate limits that the file writes beside their owners and that owners name by id.
#[derive(Default)]
struct Shared<'a> {
    budgets: HashMap<&'a str, (Object<'a>, bool)>,
    rate_limits: HashMap<&'a str, (Object<'a>, bool)>,
}

impl<'a> Shared<'a> {
    fn read(governance: &Object<'a>, faults: &mut Faults) -> Shared<'a> {
        let mut by_id = |name: &str, known: &[&str]| {
            let mut found = HashMap::new();
            for object in governance.objects(name, faults).value().unwrap_or_default() {
                only_known(&object, &[known, SHOWN, COUNTED].concat(), faults);
                match object.text("id", faults).value().filter(|id| !id.is_empty()) {
                    None => faults.add(object.path("id"), "is required: its owner names it by id"),
                    Some(id) => {
                        if found.insert(id, (object.clone(), false)).is_some() {
                            faults.add(object.path("id"), format!("'{id}' is declared twice"));
                        }
                    }
                }
            }
            found
        };
        Shared { budgets: by_id("budgets", BUDGET), rate_limits: by_id("rate_limits", RATE_LIMIT) }
    }

    /// An object with its limits written into it.
    fn declare(&mut self, object: &Object<'a>, known: &[&str], faults: &mut Faults) -> Declaration {
        only_known(object, &[known, SHOWN, LIMITS].concat(), faults);
        let mut declaration = whole(object);
        self.resolve(object, &mut declaration.value, faults);
        let configs = object.objects("provider_configs", &mut Faults::default()).value().unwrap_or_default();
        for (i, config) in configs.iter().enumerate() {
            only_known(config, &[KEY_CONFIG, SHOWN, LIMITS, &["virtual_key_id"]].concat(), faults);
            if let Some(value) = declaration.value.pointer_mut(&format!("/provider_configs/{i}")) {
                self.resolve(config, value, faults);
            }
        }
        declaration.hash = hash(&declaration.value);
        declaration
    }

    fn resolve(&mut self, owner: &Object<'a>, value: &mut Value, faults: &mut Faults) {
        let quiet = &mut Faults::default();
        let single = owner.object("budget", quiet).value();
        for budget in single.into_iter().chain(owner.objects("budgets", quiet).value().into_iter().flatten()) {
            only_known(&budget, &[BUDGET, SHOWN, COUNTED].concat(), faults);
        }
        if let Some(limit) = owner.object("rate_limit", quiet).value() {
            only_known(&limit, &[RATE_LIMIT, SHOWN, COUNTED].concat(), faults);
        }
        let kinds = [("budget", &mut self.budgets), ("rate_limit", &mut self.rate_limits)];
        for (name, known) in kinds {
            let member = format!("{name}_id");
            let Some(id) = owner.text(&member, faults).value().filter(|id| !id.is_empty()) else { continue };
            // Answers show both; then the one in place is meant.
            if owner.has(name) {
                continue;
            }
            match known.get_mut(id) {
                None => faults.add(owner.path(&member), format!("there is no {name} '{id}' in this file")),
                Some((_, used)) if *used => {
                    let message = format!("{name} '{id}' has another owner already; each has exactly one");
                    faults.add(owner.path(&member), message);
                }
                Some((object, used)) => {
                    *used = true;
                    value[name] = object.to_value();
                }
            }
        }
    }

    fn unused(&self, reading: &mut Reading<'_>) {
        let mut idle: Vec<String> = self
            .budgets
            .values()
            .chain(self.rate_limits.values())
            .filter(|(_, used)| !used)
            .map(|(object, _)| object.here())
            .collect();
        idle.sort();
        if !idle.is_empty() {
            reading.warnings.push(format!("these limits have no owner and limit nothing: {}", idle.join(", ")));
        }
    }
}

fn plain(governance: &Object<'_>, name: &str, known: &[&str], faults: &mut Faults) -> Vec<Declaration> {
    let objects = governance.objects(name, faults).value().unwrap_or_default();
    for object in &objects {
        only_known(object, &[known, SHOWN].concat(), faults);
    }
    objects.iter().map(whole).collect()
}

fn whole(object: &Object<'_>) -> Declaration {
    let value = object.to_value();
    Declaration { path: object.here(), hash: hash(&value), value }
}

/// Of the canonical text: members in order, since maps are sorted.
fn hash(value: &Value) -> String {
    let digest = digest(&SHA256, value.to_string().as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
