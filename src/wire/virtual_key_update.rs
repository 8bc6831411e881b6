//! The body of an update: a virtual key as it was, with what the body says changed.
//!
//! What is absent stays. Limits keep their ids wherever they can be told to be the same ones, and with
//! their ids what was spent.

use super::faults::Faults;
use super::read::{Given, Object};
use super::virtual_key::{
    Known, check_durations_differ, is_empty_budget, read_budget, read_budgets, read_half, read_key_ids, read_max_limit,
    read_mcp_configs, read_name, read_provider, read_provider_config, read_window, refuse_owners,
};
use crate::governance::entity::{Budget, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VirtualKey};
use crate::governance::money::Nanos;
use crate::governance::time::{Timestamp, Window};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What a change needs beside its body.
pub struct Change<'a> {
    pub known: &'a Known<'a>,
    pub new_id: &'a mut dyn FnMut() -> String,
    pub now: Timestamp,
}

/// `base` changed as `body` says. All problems go to `faults`; the result is of use only if there were none.
pub fn update(body: &Value, base: &VirtualKey, change: &mut Change<'_>, faults: &mut Faults) -> Option<VirtualKey> {
    let body = Object::of(body, "", faults)?;
    let name = read_name(&body, faults).value();
    refuse_owners(&body, faults);
    let description = body.text("description", faults).value();
    let is_active = body.boolean("is_active", faults).value();
    let limits = update_limits(&body, &base.limits, change, faults);
    let provider_configs = match body.objects("provider_configs", faults) {
        Given::Value(configs) => update_provider_configs(&configs, &base.provider_configs, change, faults),
        Given::Absent | Given::Null => base.provider_configs.clone(),
    };
    let mcp_configs = read_mcp_configs(&body, faults).value();
    Some(VirtualKey {
        id: Arc::clone(&base.id),
        name: name.unwrap_or_else(|| base.name.clone()),
        description: description.map_or_else(|| base.description.clone(), str::to_owned),
        is_active: is_active.unwrap_or(base.is_active),
        team_id: base.team_id.clone(),
        customer_id: base.customer_id.clone(),
        limits,
        provider_configs,
        mcp_configs: mcp_configs.unwrap_or_else(|| base.mcp_configs.clone()),
        config_hash: base.config_hash.clone(),
        created_at: base.created_at,
        updated_at: change.now,
    })
}

fn update_limits(owner: &Object<'_>, base: &Limits, change: &mut Change<'_>, faults: &mut Faults) -> Limits {
    Limits {
        budgets: update_budgets(owner, &base.budgets, change, faults),
        rate_limit: update_rate_limit(owner, base.rate_limit.as_ref(), change, faults),
    }
}

/// `budgets` replaces the list, matched by duration; `budget` changes or removes the one that answers show.
fn update_budgets(owner: &Object<'_>, base: &[Budget], change: &mut Change<'_>, faults: &mut Faults) -> Vec<Budget> {
    if owner.raw("budgets").value().is_some() {
        let drafts = read_budgets(owner, faults);
        let adopt = |draft: super::virtual_key::BudgetDraft| {
            let same = base.iter().find(|budget| budget.window.span().text() == draft.window.span().text());
            settle(same, draft.max, draft.window, change)
        };
        return drafts.into_iter().map(adopt).collect();
    }
    let Some(single) = owner.object("budget", faults).value() else { return base.to_vec() };
    let mut budgets = base.to_vec();
    let shown = (0..base.len()).min_by_key(|&index| base[index].window.span().millis());
    match shown {
        Some(shown) if is_empty_budget(&single) => {
            budgets.remove(shown);
        }
        Some(shown) => {
            let old = &base[shown];
            let max = read_max_limit(&single, faults).unwrap_or(old.max);
            let window = merged_window(&single, &old.window, &owner.path("budget"), faults);
            budgets[shown] = settle(Some(old), max, window.unwrap_or_else(|| old.window.clone()), change);
        }
        None if is_empty_budget(&single) => {}
        None if ["max_limit", "reset_duration"].iter().any(|name| single.raw(name).value().is_none()) => {
            let message = "both max_limit and reset_duration are required when creating a new budget";
            faults.add(owner.path("budget"), message);
        }
        None => {
            if let Some(draft) = read_budget(&single, faults) {
                budgets.push(settle(None, draft.max, draft.window, change));
            }
        }
    }
    check_durations_differ(budgets.iter().map(|b| b.window.span().text()), &owner.path("budgets"), faults);
    budgets
}

/// A budget with its new size and window: the old one if there is one, so that its usage stays.
fn settle(old: Option<&Budget>, max: Nanos, window: Window, change: &mut Change<'_>) -> Budget {
    let now = change.now;
    match old {
        Some(old) if old.max == max && old.window == window => old.clone(),
        Some(old) => Budget { max, window, updated_at: now, ..old.clone() },
        None => {
            let anchor = window.start(now, now);
            Budget { id: (change.new_id)().into(), max, window, anchor, created_at: now, updated_at: now }
        }
    }
}

/// The window that a partial body leaves: what it does not say is as it was.
fn merged_window(body: &Object<'_>, old: &Window, path: &str, faults: &mut Faults) -> Option<Window> {
    let mut members = Map::new();
    let mut fill = |name: &str, old: Value| {
        members.insert(name.to_owned(), body.raw(name).value().cloned().unwrap_or(old));
    };
    fill("reset_duration", old.span().text().into());
    fill("calendar_aligned", old.is_aligned().into());
    let merged = Value::Object(members);
    read_window(&Object::of(&merged, path, faults)?, "reset_duration", faults)
}

/// Each half on its own: what is given replaces, what is not stays; nothing at all removes the limit.
fn update_rate_limit(
    owner: &Object<'_>,
    base: Option<&RateLimit>,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<RateLimit> {
    let Some(body) = owner.object("rate_limit", faults).value() else { return base.cloned() };
    let halves = ["token_max_limit", "token_reset_duration", "request_max_limit", "request_reset_duration"];
    if halves.iter().all(|name| body.raw(name).value().is_none()) {
        return None;
    }
    let now = change.now;
    let mut half = |name: &str, old: Option<&Quota>| -> Option<Quota> {
        let mut members = Map::new();
        let mut fill = |member: String, old: Option<Value>| {
            if let Some(value) = body.raw(&member).value().cloned().or(old) {
                members.insert(member, value);
            }
        };
        fill(format!("{name}_max_limit"), old.map(|quota| quota.max.into()));
        fill(format!("{name}_reset_duration"), old.map(|quota| quota.window.span().text().into()));
        let merged = Value::Object(members);
        let merged = Object::of(&merged, owner.path("rate_limit"), faults)?;
        let (max, window) = read_half(&merged, name, faults)?;
        Some(Quota { max, window, anchor: old.map_or(now, |quota| quota.anchor) })
    };
    let tokens = half("token", base.and_then(|limit| limit.tokens.as_ref()));
    let requests = half("request", base.and_then(|limit| limit.requests.as_ref()));
    if tokens.is_none() && requests.is_none() {
        return None;
    }
    match base {
        Some(old) if old.tokens == tokens && old.requests == requests => Some(old.clone()),
        Some(old) => Some(RateLimit { tokens, requests, updated_at: now, ..old.clone() }),
        None => Some(RateLimit { id: (change.new_id)().into(), tokens, requests, created_at: now, updated_at: now }),
    }
}

/// The new set. Entries are matched by id, and without one by provider.
fn update_provider_configs(
    bodies: &[Object<'_>],
    base: &[ProviderConfig],
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Vec<ProviderConfig> {
    let mut configs: Vec<ProviderConfig> = Vec::with_capacity(bodies.len());
    for body in bodies {
        let id = body.integer("id", faults).value().filter(|id| *id != 0);
        let named = body.text("provider", faults).value();
        let row = match id {
            Some(id) => base.iter().find(|row| row.id == id),
            None => base.iter().find(|row| named == Some(&*row.provider)),
        };
        if let (Some(id), None) = (id, row) {
            faults.add(body.path("id"), format!("this virtual key has no provider config {id}"));
            continue;
        }
        let config = match row {
            Some(row) => update_provider_config(body, row, change, faults),
            None => read_provider_config(body, change.known, faults).map(|mut draft| {
                draft.id = None;
                let (new_id, now) = (&mut *change.new_id, change.now);
                draft.into_entity(&mut |_| new_id().into(), now)
            }),
        };
        let Some(config) = config else { continue };
        if configs.iter().any(|other| other.provider == config.provider) {
            faults.add(body.path("provider"), format!("there are two configs for provider '{}'", config.provider));
        } else if config.id != 0 && configs.iter().any(|other| other.id == config.id) {
            faults.add(body.path("id"), format!("provider config {} is listed twice", config.id));
        }
        configs.push(config);
    }
    configs
}

fn update_provider_config(
    body: &Object<'_>,
    row: &ProviderConfig,
    change: &mut Change<'_>,
    faults: &mut Faults,
) -> Option<ProviderConfig> {
    // A provider that is not configured any more may be written back, but not chosen anew.
    let provider = match body.raw("provider").value().and_then(Value::as_str) {
        None => Arc::clone(&row.provider),
        Some(name) if *name == *row.provider => Arc::clone(&row.provider),
        Some(_) => read_provider(body, change.known, faults)?.into(),
    };
    let mut models = |name: &str, old: &ModelSet| {
        body.whitelist(name, faults).value().map_or_else(|| old.clone(), ModelSet::from_names)
    };
    let allowed_models = models("allowed_models", &row.allowed_models);
    let blacklisted_models = models("blacklisted_models", &row.blacklisted_models);
    Some(ProviderConfig {
        id: row.id,
        weight: match body.weight("weight", faults) {
            Given::Value(weight) => Some(weight),
            Given::Null => None,
            Given::Absent => row.weight,
        },
        allowed_models,
        blacklisted_models,
        key_ids: read_key_ids(body, Some(&provider), change.known, faults)
            .value()
            .unwrap_or_else(|| row.key_ids.clone()),
        limits: update_limits(body, &row.limits, change, faults),
        provider,
    })
}
