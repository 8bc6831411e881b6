//! What the audit log says about a change, and the log itself.

use super::Admin;
use super::error::ApiError;
use super::query::Query;
use crate::governance::edit::Edit;
use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::judge::Tally;
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, View};
use crate::store::{AuditLine, AuditQuery};
use crate::wire::show::{self, CustomerRelations, TeamRelations};
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const PAGE: usize = 25;
const PAGE_MAX: usize = 100;

/// Members of an object that say what belongs to it, not what was declared of it.
const RELATED: &[&str] = &["virtual_keys", "teams", "team", "customer", "keys", "key_count", "provider_status"];

/// Members of a limit that say how it stands.
const COUNTED: &[&str] = &[
    "current_usage",
    "held",
    "last_reset",
    "resets_at",
    "token_current_usage",
    "token_held",
    "token_last_reset",
    "request_current_usage",
    "request_held",
    "request_last_reset",
];

/// `GET /api/governance/audit`: newest first.
pub(super) async fn list(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let query = Query::read(&uri)?;
    let limit = query.number("limit")?.filter(|limit| *limit > 0).map_or(PAGE, |limit| limit.min(PAGE_MAX));
    let asked = AuditQuery {
        object_type: query.get("object_type").map(str::to_owned),
        object_id: query.get("object_id").map(str::to_owned),
        limit,
        offset: query.number("offset")?.unwrap_or(0),
    };
    let offset = asked.offset;
    let (entries, total) = admin.blocking(move |admin| Ok(admin.store.audit(&asked)?)).await?;
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            json!({
                "id": entry.id,
                "at": entry.at.to_string(),
                "actor": entry.actor,
                "action": entry.action,
                "object_type": entry.object_type,
                "object_id": entry.object_id,
                "object_name": entry.object_name,
                "before": entry.before,
                "after": entry.after,
            })
        })
        .collect();
    Ok(Json(json!({
        "entries": entries, "count": entries.len(), "total_count": total, "limit": limit, "offset": offset,
    })))
}

/// One line for each object that edits change. A provider's keys have lines of their own.
pub fn lines(before: &View, after: &View, edits: &[Edit]) -> Vec<AuditLine> {
    let all = edits.iter().flat_map(|edit| line(before, after, edit).into_iter().chain(keys(before, after, edit)));
    // Several edits may be about one object; what they come to is told once.
    let mut told = HashSet::new();
    all.filter(|line| told.insert((line.object_type, line.object_id.clone(), line.action))).collect()
}

/// Says in the log what was done. For the time after it was.
pub fn tell(actor: &str, lines: &[AuditLine]) {
    for line in lines {
        tracing::info!(actor, object = line.object_type, id = line.object_id, "{}", line.action);
    }
}

fn line(before: &View, after: &View, edit: &Edit) -> Option<AuditLine> {
    let (object_type, id) = object(edit)?;
    if let Edit::Provider(provider) = edit
        && is_same_but_for_keys(before.provider(&provider.name), after.provider(&provider.name))
    {
        return None;
    }
    let (old, new) = (shown(before, object_type, &id), shown(after, object_type, &id));
    let action = match (edit, &old, &new) {
        (Edit::Restart(_), _, _) => "reset",
        (Edit::VirtualKey { value: Some(_), .. }, Some(_), Some(_)) => "rotated",
        (_, None, _) => "created",
        (_, _, None) => "deleted",
        _ => "updated",
    };
    Some(entry(action, object_type, id, old, new))
}

fn entry(
    action: &'static str,
    object_type: &'static str,
    object_id: String,
    before: Option<Value>,
    after: Option<Value>,
) -> AuditLine {
    let name = |object: &Option<Value>| {
        let object = object.as_ref()?;
        ["name", "model_name"].iter().find_map(|name| object.get(name)?.as_str()).map(str::to_owned)
    };
    let object_name = name(&after).or_else(|| name(&before));
    AuditLine { action, object_type, object_id, object_name, before, after }
}

fn is_same_but_for_keys(old: Option<&Arc<Provider>>, new: Option<&Arc<Provider>>) -> bool {
    let bare = |provider: &Arc<Provider>| Provider { keys: Vec::new(), ..Provider::clone(provider) };
    old.is_some() && old.map(bare) == new.map(bare)
}

/// What an edit of a provider does to its keys.
fn keys(before: &View, after: &View, edit: &Edit) -> Vec<AuditLine> {
    let name = match edit {
        Edit::Provider(provider) => &provider.name,
        Edit::RemoveProvider(name) => name,
        _ => return Vec::new(),
    };
    let (old, new) = (before.provider(name), after.provider(name));
    let find = |provider: Option<&'_ Arc<Provider>>, id: &str| {
        let provider = provider?;
        let key = provider.keys.iter().find(|key| *key.id == *id)?;
        Some((Arc::clone(key), plain(show::provider_key(provider, key))))
    };
    let mut ids: Vec<Arc<str>> = Vec::new();
    let keys = old.into_iter().chain(new).flat_map(|provider| &provider.keys);
    ids.extend(keys.map(|key| Arc::clone(&key.id)));
    ids.sort();
    ids.dedup();
    let line = |id: Arc<str>| {
        let (old, new) = (find(old, &id), find(new, &id));
        let action = match (&old, &new) {
            (Some((old, _)), Some((new, _))) if is_same_key(old, new) => return None,
            (None, _) => "created",
            (_, None) => "deleted",
            _ => "updated",
        };
        let shown = |found: Option<(Arc<ProviderKey>, Value)>| found.map(|(_, shown)| shown);
        Some(entry(action, "provider_key", id.to_string(), shown(old), shown(new)))
    };
    ids.into_iter().filter_map(line).collect()
}

/// A key that was written again as it is was not changed, though its provider's entry of the file was.
fn is_same_key(old: &Arc<ProviderKey>, new: &Arc<ProviderKey>) -> bool {
    let ProviderKey { config_hash, updated_at, .. } = &**old;
    let again = || ProviderKey { config_hash: config_hash.clone(), updated_at: *updated_at, ..ProviderKey::clone(new) };
    Arc::ptr_eq(old, new) || **old == again()
}

/// What an edit is about: the kind of object and its id.
fn object(edit: &Edit) -> Option<(&'static str, String)> {
    let (kind, id): (_, &str) = match edit {
        Edit::Customer(customer) => ("customer", &customer.id),
        Edit::RemoveCustomer(id) => ("customer", id),
        Edit::Team(team) => ("team", &team.id),
        Edit::RemoveTeam(id) => ("team", id),
        Edit::VirtualKey { key, .. } => ("virtual_key", &key.id),
        Edit::RemoveVirtualKey(id) => ("virtual_key", id),
        Edit::ModelConfig(config) => ("model_config", &config.id),
        Edit::RemoveModelConfig(id) => ("model_config", id),
        Edit::ProviderLimits(limits) => ("provider_governance", &limits.provider),
        Edit::RemoveProviderLimits(provider) => ("provider_governance", provider),
        Edit::RoutingRule(rule) => ("routing_rule", &rule.id),
        Edit::RemoveRoutingRule(id) => ("routing_rule", id),
        Edit::PricingOverride(over) => ("pricing_override", &over.id),
        Edit::RemovePricingOverride(id) => ("pricing_override", id),
        Edit::Provider(provider) => ("provider", &provider.name),
        Edit::RemoveProvider(name) => ("provider", name),
        Edit::Client(_) => ("client_config", "client_config"),
        Edit::BasicAuth(_) => ("auth_config", "auth_config"),
        Edit::Restart(restart) => ("budget", &restart.key.id),
        Edit::Applied(_) | Edit::Forgotten(_) | Edit::Policy(_) | Edit::Catalog(_) => return None,
    };
    Some((kind, id.to_owned()))
}

/// An object as answers show it, without what moves by itself and without secrets.
fn shown(view: &View, kind: &str, id: &str) -> Option<Value> {
    let nothing = |_: &Limit| (Tally::default(), Timestamp::default());
    let live: show::Live<'_> = &nothing;
    let object = match kind {
        "customer" => show::customer(view.customer(id)?, CustomerRelations::default(), live),
        "team" => show::team(view.team(id)?, TeamRelations::default(), live),
        "virtual_key" => show::virtual_key(&show::Shown {
            caller: view.caller_by_id(id)?,
            live,
            value: None,
            team: None,
            customer: None,
            provider: &|name| view.provider(name).map(|provider| &**provider),
        }),
        "model_config" => show::model_config(view.model_config(id)?, live),
        "provider_governance" => show::provider_limits(id, Some(view.provider_limits(id)?), live),
        "routing_rule" => show::rule(view.rule(id)?, None),
        "pricing_override" => show::price_override(view.pricing_override(id)?),
        "provider" => show::provider(view.provider(id)?),
        "client_config" => show::client_config(&view.client),
        "auth_config" => show::basic_auth(&view.basic_auth),
        _ => return None,
    };
    Some(plain(object))
}

/// An object without what moves by itself. Only at its known places: JSON of somebody's own may have members
/// of the same names.
pub(super) fn plain(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        // Of a virtual key; those of provider keys are redacted.
        if members.contains_key("provider_configs") {
            members.remove("value");
        }
        each(members.get_mut("provider_configs"), strip);
        strip(members);
    }
    object
}

/// Of one who has limits, or of a limit itself.
fn strip(members: &mut Map<String, Value>) {
    members.retain(|name, _| !RELATED.contains(&name.as_str()));
    count_nothing(members);
    for name in ["budget", "budgets", "rate_limit"] {
        each(members.get_mut(name), count_nothing);
    }
}

fn count_nothing(limit: &mut Map<String, Value>) {
    limit.retain(|name, _| !COUNTED.contains(&name.as_str()));
}

/// The object, or each one of an array.
fn each(value: Option<&mut Value>, change: impl Fn(&mut Map<String, Value>)) {
    match value {
        Some(Value::Object(members)) => change(members),
        Some(Value::Array(items)) => items.iter_mut().filter_map(Value::as_object_mut).for_each(change),
        _ => {}
    }
}
