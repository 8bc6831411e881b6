//! What the audit log says about a change, and the log itself.

use super::Admin;
use super::error::ApiError;
use super::query::Query;
use crate::governance::edit::Edit;
use crate::governance::judge::Tally;
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, View};
use crate::store::{AuditLine, AuditQuery};
use crate::wire::show::{self, CustomerRelations, TeamRelations};
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde_json::{Value, json};

const PAGE: usize = 25;
const PAGE_MAX: usize = 100;

/// Members that say how things stand or what belongs together, not what was declared; and the one secret
/// that answers show.
const VOLATILE: &[&str] = &[
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
    "virtual_keys",
    "teams",
    "team",
    "customer",
    "keys",
    "key_count",
    "provider_status",
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

/// One line for each edit that changes what is declared.
pub fn lines(before: &View, after: &View, edits: &[Edit]) -> Vec<AuditLine> {
    edits.iter().filter_map(|edit| line(before, after, edit)).collect()
}

fn line(before: &View, after: &View, edit: &Edit) -> Option<AuditLine> {
    let (object_type, id) = object(edit)?;
    let (old, new) = (shown(before, object_type, &id), shown(after, object_type, &id));
    let action = match (edit, &old, &new) {
        (Edit::Restart(_), _, _) => "reset",
        (Edit::VirtualKey { value: Some(_), .. }, Some(_), Some(_)) => "rotated",
        (_, None, _) => "created",
        (_, _, None) => "deleted",
        _ => "updated",
    };
    let name = |object: &Option<Value>| {
        let object = object.as_ref()?;
        ["name", "model_name"].iter().find_map(|name| object.get(name)?.as_str()).map(str::to_owned)
    };
    let object_name = name(&new).or_else(|| name(&old));
    Some(AuditLine { action, object_type, object_id: id, object_name, before: old, after: new })
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
        "provider" => {
            let provider = view.provider(id)?;
            let mut object = show::provider(provider);
            let keys: Value = provider.keys.iter().map(|key| plain(show::provider_key(provider, key))).collect();
            object["provider_keys"] = keys;
            object
        }
        "client_config" => show::client_config(&view.client),
        "auth_config" => show::basic_auth(&view.basic_auth),
        _ => return None,
    };
    Some(plain(object))
}

/// An object without what moves by itself.
pub(super) fn plain(mut object: Value) -> Value {
    strip(&mut object);
    object
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            // Of a virtual key; those of provider keys are redacted.
            if members.contains_key("provider_configs") {
                members.remove("value");
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
