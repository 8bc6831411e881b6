//! A virtual key as the contract's create body and the config file write it.

use super::faults::Faults;
use super::read::{Given, Object};
use crate::governance::entity::{
    Budget, KeySet, Limits, ModelSet, ProviderConfig, Quota, RateLimit, VIRTUAL_KEY_PREFIX, VirtualKey, Weight,
    has_virtual_key_prefix,
};
use crate::governance::money::Nanos;
use crate::governance::secret::Secret;
use crate::governance::time::{Span, Timestamp, Window};
use serde_json::Value;
use std::sync::Arc;

/// What can be looked up while a body is read.
pub struct Known<'a> {
    /// Whether a provider is built in or configured.
    pub provider: &'a dyn Fn(&str) -> bool,
    /// Whether a provider has a key of this id.
    pub provider_key: &'a dyn Fn(&str, &str) -> bool,
}

/// A virtual key as it was asked for: checked, but not yet given ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualKeyDraft {
    /// Objects of the config file may bring their own.
    pub id: Option<String>,
    /// Likewise.
    pub value: Option<Secret>,
    pub name: String,
    pub description: String,
    pub is_active: bool,
    pub budgets: Vec<BudgetDraft>,
    pub rate_limit: Option<RateLimitDraft>,
    pub provider_configs: Vec<ProviderConfigDraft>,
    pub mcp_configs: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetDraft {
    pub id: Option<String>,
    pub max: Nanos,
    pub window: Window,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitDraft {
    pub id: Option<String>,
    pub tokens: Option<(i64, Window)>,
    pub requests: Option<(i64, Window)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfigDraft {
    pub id: Option<i64>,
    pub provider: String,
    pub weight: Option<Weight>,
    pub allowed_models: ModelSet,
    pub blacklisted_models: ModelSet,
    pub key_ids: KeySet,
    pub budgets: Vec<BudgetDraft>,
    pub rate_limit: Option<RateLimitDraft>,
}

const NAME_MAX: usize = 255;
/// Each of them is a cell that every call takes.
const BUDGETS_MAX: usize = 16;

impl VirtualKeyDraft {
    /// Reads the body of a create request, or an object of the config file. All problems go to
    /// `faults`; the draft is of use only if there were none.
    pub fn read(value: &Value, known: &Known<'_>, faults: &mut Faults) -> Option<VirtualKeyDraft> {
        let body = Object::of(value, "", faults)?;
        let name = read_name(&body, faults).value().unwrap_or_default();
        if body.raw("name").value().is_none() {
            faults.add("name", "Virtual key name is required");
        }
        refuse_owners(&body, faults);
        Some(VirtualKeyDraft {
            id: body.text("id", faults).value().filter(|id| !id.is_empty()).map(str::to_owned),
            value: read_value(&body, faults),
            name,
            description: body.text("description", faults).value().unwrap_or_default().to_owned(),
            is_active: body.boolean("is_active", faults).value().unwrap_or(true),
            budgets: read_budgets(&body, faults),
            rate_limit: body.object("rate_limit", faults).value().and_then(|limit| read_rate_limit(&limit, faults)),
            provider_configs: read_provider_configs(&body, known, faults),
            mcp_configs: read_mcp_configs(&body, faults).value().unwrap_or_else(|| "[]".to_owned()),
        })
    }

    /// Gives ids to everything that has none, and starts its windows at `now`.
    pub fn into_entity(self, new_id: &mut dyn FnMut() -> String, now: Timestamp) -> VirtualKey {
        let mut id = |id: Option<String>| -> Arc<str> { id.unwrap_or_else(&mut *new_id).into() };
        let key_id = id(self.id);
        VirtualKey {
            id: key_id,
            name: self.name,
            description: self.description,
            is_active: self.is_active,
            team_id: None,
            customer_id: None,
            limits: Limits {
                budgets: self.budgets.into_iter().map(|budget| budget.into_entity(&mut id, now)).collect(),
                rate_limit: self.rate_limit.map(|limit| limit.into_entity(&mut id, now)),
            },
            provider_configs: self
                .provider_configs
                .into_iter()
                .map(|config| config.into_entity(&mut id, now))
                .collect(),
            mcp_configs: self.mcp_configs,
            config_hash: String::new(),
            created_at: now,
            updated_at: now,
        }
    }
}

impl BudgetDraft {
    pub fn into_entity(self, id: &mut dyn FnMut(Option<String>) -> Arc<str>, now: Timestamp) -> Budget {
        let anchor = self.window.start(now, now);
        Budget { id: id(self.id), max: self.max, window: self.window, anchor, created_at: now, updated_at: now }
    }
}

impl RateLimitDraft {
    pub fn into_entity(self, id: &mut dyn FnMut(Option<String>) -> Arc<str>, now: Timestamp) -> RateLimit {
        let quota = |(max, window): (i64, Window)| Quota { max, window, anchor: now };
        RateLimit {
            id: id(self.id),
            tokens: self.tokens.map(quota),
            requests: self.requests.map(quota),
            created_at: now,
            updated_at: now,
        }
    }
}

impl ProviderConfigDraft {
    /// Without an id of its own it gets 0, and a real one when it is stored.
    pub fn into_entity(self, id: &mut dyn FnMut(Option<String>) -> Arc<str>, now: Timestamp) -> ProviderConfig {
        ProviderConfig {
            id: self.id.unwrap_or(0),
            provider: self.provider.into(),
            weight: self.weight,
            allowed_models: self.allowed_models,
            blacklisted_models: self.blacklisted_models,
            key_ids: self.key_ids,
            limits: Limits {
                budgets: self.budgets.into_iter().map(|budget| budget.into_entity(id, now)).collect(),
                rate_limit: self.rate_limit.map(|limit| limit.into_entity(id, now)),
            },
        }
    }
}

/// A name that was sent must be one.
pub fn read_name(body: &Object<'_>, faults: &mut Faults) -> Given<String> {
    match body.text("name", faults) {
        Given::Value(name) if name.trim().is_empty() => {
            faults.add(body.path("name"), "Virtual key name is required");
            Given::Absent
        }
        Given::Value(name) if name.len() > NAME_MAX => {
            faults.add(body.path("name"), format!("is longer than {NAME_MAX} bytes"));
            Given::Absent
        }
        Given::Value(name) if name.contains(char::is_control) => {
            faults.add(body.path("name"), "must not hold control characters");
            Given::Absent
        }
        Given::Value(name) => Given::Value(name.to_owned()),
        Given::Absent => Given::Absent,
        Given::Null => Given::Null,
    }
}

/// There are no teams and customers yet that a key could belong to.
pub fn refuse_owners(body: &Object<'_>, faults: &mut Faults) {
    let mut named = |name: &str| body.text(name, faults).value().filter(|id| !id.is_empty()).map(str::to_owned);
    let (team, customer) = (named("team_id"), named("customer_id"));
    if team.is_some() && customer.is_some() {
        faults.add("", "VirtualKey cannot be attached to both Team and Customer");
        return;
    }
    for (name, id) in [("team", team), ("customer", customer)] {
        if let Some(id) = id {
            faults.add(body.path(&format!("{name}_id")), format!("there is no {name} '{id}'"));
        }
    }
}

fn read_value(body: &Object<'_>, faults: &mut Faults) -> Option<Secret> {
    let value = body.text("value", faults).value().filter(|value| !value.is_empty())?;
    if !has_virtual_key_prefix(value.as_bytes()) || value.trim() != value || value.len() > 512 || !value.is_ascii() {
        let message =
            format!("must begin with {VIRTUAL_KEY_PREFIX}, be ASCII without blanks around it, and at most 512 bytes");
        faults.add(body.path("value"), message);
    }
    Some(Secret::new(value))
}

/// `budgets`, or `budget` for a single one. Both are accepted together only if they agree.
pub fn read_budgets(body: &Object<'_>, faults: &mut Faults) -> Vec<BudgetDraft> {
    let list = body.objects("budgets", faults).value();
    let single = body.object("budget", faults).value().filter(|budget| !is_empty_budget(budget));
    let mut budgets: Vec<BudgetDraft> =
        list.iter().flatten().filter_map(|budget| read_budget(budget, faults)).collect();
    if let Some(single) = single.and_then(|budget| read_budget(&budget, faults)) {
        let same = |budget: &BudgetDraft| budget.max == single.max && budget.window == single.window;
        match &list {
            None => budgets.push(single),
            // Answers carry both, and what was read can be written back.
            Some(_) if budgets.iter().any(same) => {}
            Some(_) => faults.add(body.path("budget"), "does not agree with 'budgets'; send one of the two"),
        }
    }
    if budgets.len() > BUDGETS_MAX {
        faults.add(body.path("budgets"), format!("has more than {BUDGETS_MAX} entries"));
        budgets.truncate(BUDGETS_MAX);
    }
    check_durations_differ(budgets.iter().map(|budget| budget.window.span().text()), &body.path("budgets"), faults);
    budgets
}

/// Two budgets of one owner must differ in their duration, or an update could not tell them apart.
pub fn check_durations_differ<'a>(durations: impl Iterator<Item = &'a str>, path: &str, faults: &mut Faults) {
    let durations: Vec<&str> = durations.collect();
    for (i, duration) in durations.iter().enumerate() {
        if durations[..i].contains(duration) {
            faults.add(format!("{path}[{i}]"), format!("Duplicate reset_duration in budgets: {duration}"));
        }
    }
}

/// Neither amount nor duration: the reference's way of saying "no budget".
pub fn is_empty_budget(budget: &Object<'_>) -> bool {
    ["max_limit", "reset_duration"].iter().all(|name| budget.raw(name).value().is_none())
        && budget.raw("calendar_aligned").value().is_none()
}

/// A whole budget.
pub fn read_budget(budget: &Object<'_>, faults: &mut Faults) -> Option<BudgetDraft> {
    let max = read_max_limit(budget, faults);
    if budget.raw("max_limit").value().is_none() {
        faults.add(budget.path("max_limit"), "budget max limit is required");
    }
    let window = read_window(budget, "reset_duration", faults);
    if budget.raw("reset_duration").value().is_none() {
        faults.add(budget.path("reset_duration"), "budget reset duration is required");
    }
    let id = budget.text("id", faults).value().filter(|id| !id.is_empty()).map(str::to_owned);
    Some(BudgetDraft { id, max: max?, window: window? })
}

/// A budget's amount: above zero.
pub fn read_max_limit(budget: &Object<'_>, faults: &mut Faults) -> Option<Nanos> {
    if let Some(number) = budget.raw("max_limit").value().and_then(Value::as_f64).filter(|number| *number < 0.0) {
        faults.add(budget.path("max_limit"), format!("Budget max_limit cannot be negative: {number:.2}"));
        return None;
    }
    let max = budget.money("max_limit", faults).value()?;
    if max == Nanos::ZERO {
        faults.add(budget.path("max_limit"), "budget max limit cannot be negative or zero: 0.00");
        return None;
    }
    Some(max)
}

/// A window from its duration and, for budgets, its alignment.
pub fn read_window(limit: &Object<'_>, name: &str, faults: &mut Faults) -> Option<Window> {
    let aligned = limit.boolean("calendar_aligned", faults).value().unwrap_or(false);
    let text = limit.text(name, faults).value()?;
    let window =
        Span::parse(text).and_then(|span| if aligned { Window::aligned(span) } else { Ok(Window::rolling(span)) });
    match window {
        Ok(window) => Some(window),
        Err(error) => {
            faults.add(limit.path(name), error.to_string());
            None
        }
    }
}

/// A whole rate limit. One without any limit is no rate limit.
pub fn read_rate_limit(limit: &Object<'_>, faults: &mut Faults) -> Option<RateLimitDraft> {
    let tokens = read_half(limit, "token", faults);
    let requests = read_half(limit, "request", faults);
    let id = limit.text("id", faults).value().filter(|id| !id.is_empty()).map(str::to_owned);
    (tokens.is_some() || requests.is_some()).then_some(RateLimitDraft { id, tokens, requests })
}

/// One half of a rate limit: `token` or `request`.
pub fn read_half(limit: &Object<'_>, half: &str, faults: &mut Faults) -> Option<(i64, Window)> {
    let (max_name, duration_name) = (format!("{half}_max_limit"), format!("{half}_reset_duration"));
    let max = limit.integer(&max_name, faults).value();
    if let Some(max) = max.filter(|max| *max <= 0) {
        let message = format!("Invalid rate limit: rate limit {half} max limit cannot be negative or zero: {max}");
        faults.add(limit.path(&max_name), message);
    }
    let window = match limit.text(&duration_name, faults) {
        Given::Value(text) => match Span::parse(text) {
            Ok(span) => Some(Window::rolling(span)),
            Err(_) => {
                let message = format!("Invalid rate limit: invalid rate limit {half} reset duration format: {text}");
                faults.add(limit.path(&duration_name), message);
                None
            }
        },
        Given::Absent | Given::Null => {
            if max.is_some() {
                let message = format!("Invalid rate limit: rate limit {half} reset duration is required");
                faults.add(limit.path(&duration_name), message);
            }
            None
        }
    };
    Some((max.filter(|max| *max > 0)?, window?))
}

fn read_provider_configs(body: &Object<'_>, known: &Known<'_>, faults: &mut Faults) -> Vec<ProviderConfigDraft> {
    let configs = body.objects("provider_configs", faults).value().unwrap_or_default();
    let mut drafts: Vec<ProviderConfigDraft> = Vec::with_capacity(configs.len());
    for config in &configs {
        let Some(draft) = read_provider_config(config, known, faults) else { continue };
        if drafts.iter().any(|other| other.provider == draft.provider) {
            faults.add(config.path("provider"), format!("there are two configs for provider '{}'", draft.provider));
        }
        drafts.push(draft);
    }
    drafts
}

/// A provider config of a create body. What is absent allows nothing.
pub fn read_provider_config(
    config: &Object<'_>,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Option<ProviderConfigDraft> {
    let provider = read_provider(config, known, faults);
    let models = |name, faults: &mut Faults| config.whitelist(name, faults).value().unwrap_or_default();
    let allowed = models("allowed_models", faults);
    let blacklisted = models("blacklisted_models", faults);
    let key_ids = read_key_ids(config, provider.as_deref(), known, faults).value();
    let draft = ProviderConfigDraft {
        id: config.integer("id", faults).value(),
        provider: provider.clone().unwrap_or_default(),
        weight: config.weight("weight", faults).value(),
        allowed_models: ModelSet::from_names(allowed),
        blacklisted_models: ModelSet::from_names(blacklisted),
        key_ids: key_ids.unwrap_or(KeySet::Only(Vec::new())),
        budgets: read_budgets(config, faults),
        rate_limit: config.object("rate_limit", faults).value().and_then(|limit| read_rate_limit(&limit, faults)),
    };
    provider.map(|_| draft)
}

/// The provider's name, which must be built in or configured.
pub fn read_provider(config: &Object<'_>, known: &Known<'_>, faults: &mut Faults) -> Option<String> {
    match config.text("provider", faults).value() {
        None | Some("") => {
            faults.add(config.path("provider"), "provider is required");
            None
        }
        Some(name) if !(known.provider)(name) => {
            faults.add(config.path("provider"), format!("provider '{name}' is neither built in nor configured"));
            None
        }
        Some(name) => Some(name.to_owned()),
    }
}

/// `key_ids`, or `keys` as answers show them, so that what was read can be written back.
pub fn read_key_ids(
    config: &Object<'_>,
    provider: Option<&str>,
    known: &Known<'_>,
    faults: &mut Faults,
) -> Given<KeySet> {
    let (name, ids) = if config.has("key_ids") || !config.has("keys") {
        ("key_ids", config.whitelist("key_ids", faults))
    } else {
        let ids = config.array("keys", faults).value().map(|keys| {
            keys.iter()
                .filter_map(|key| key.as_str().or_else(|| key.get("key_id")?.as_str()))
                .map(str::to_owned)
                .collect()
        });
        ("keys", ids.map_or(Given::Absent, Given::Value))
    };
    let ids: Vec<String> = match ids {
        Given::Value(ids) => ids,
        Given::Null => return Given::Null,
        Given::Absent => return Given::Absent,
    };
    if ids.iter().any(|id| id == "*")
        || (name == "keys" && config.boolean("allow_all_keys", faults).value() == Some(true))
    {
        return Given::Value(KeySet::All);
    }
    if let Some(provider) = provider {
        for (i, id) in ids.iter().enumerate().filter(|(_, id)| !(known.provider_key)(provider, id)) {
            faults.add(format!("{}[{i}]", config.path(name)), format!("provider '{provider}' has no key '{id}'"));
        }
    }
    Given::Value(KeySet::Only(ids))
}

/// Stored and returned; checked only as far as the contract says.
pub fn read_mcp_configs(body: &Object<'_>, faults: &mut Faults) -> Given<String> {
    let configs = match body.objects("mcp_configs", faults) {
        Given::Value(configs) => configs,
        Given::Absent => return Given::Absent,
        Given::Null => return Given::Null,
    };
    let mut names: Vec<&str> = Vec::new();
    for config in &configs {
        if let Some(name) = config.text("mcp_client_name", faults).value() {
            if names.contains(&name) {
                faults.add(config.path("mcp_client_name"), format!("there are two configs for MCP client '{name}'"));
            }
            names.push(name);
        }
        config.whitelist("tools_to_execute", faults);
    }
    body.raw("mcp_configs").value().map_or(Given::Absent, |value| Given::Value(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<VirtualKeyDraft, Vec<String>> {
        let known =
            Known { provider: &|name| name == "openai" || name == "local", provider_key: &|_, id| id == "main" };
        let mut faults = Faults::default();
        let draft = VirtualKeyDraft::read(&body, &known, &mut faults);
        match draft.filter(|_| faults.is_empty()) {
            Some(draft) => Ok(draft),
            None => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn a_whole_body_is_read() {
        let draft = read(json!({
            "name": "ci", "budget": {"max_limit": 10, "reset_duration": "1d", "calendar_aligned": true},
            "rate_limit": {"token_max_limit": 1000, "token_reset_duration": "1h"},
            "provider_configs": [{"provider": "openai", "weight": 0.5, "allowed_models": ["*"], "key_ids": ["*"]}],
            "something_else": 1,
        }))
        .unwrap();
        assert_eq!((draft.budgets.len(), draft.budgets[0].max), (1, Nanos::new(10_000_000_000)));
        assert!(draft.budgets[0].window.is_aligned() && draft.is_active);
        assert_eq!(draft.provider_configs[0].key_ids, KeySet::All);
        assert_eq!(draft.provider_configs[0].weight.map(Weight::millionths), Some(500_000));
        assert_eq!(draft.rate_limit.unwrap().requests, None);
    }

    #[test]
    fn what_is_absent_allows_nothing() {
        let draft = read(json!({"name": "ci", "provider_configs": [{"provider": "openai"}]})).unwrap();
        let config = &draft.provider_configs[0];
        assert!(config.allowed_models.is_empty() && config.weight.is_none());
        assert_eq!(config.key_ids, KeySet::Only(vec![]));
    }

    #[test]
    fn every_fault_is_named_with_its_path() {
        let check = |body: Value, expected: &[&str]| {
            assert_eq!(read(body), Err(expected.iter().map(|&f| f.to_owned()).collect()))
        };
        check(json!([]), &["must be an object, not an array"]);
        check(json!({}), &["name: Virtual key name is required"]);
        check(json!({"name": " "}), &["name: Virtual key name is required"]);
        check(
            json!({"name": 1, "is_active": "yes", "budget": {"max_limit": -1, "reset_duration": "xyz"}}),
            &[
                "name: must be a string, not a number",
                "is_active: must be true or false, not a string",
                "budget.max_limit: Budget max_limit cannot be negative: -1.00",
                "budget.reset_duration: Invalid reset duration format: xyz (examples: 30s, 5m, 1h30m, 1d, 1w, 1M, 1Y)",
            ],
        );
        check(
            json!({"name": "a", "budget": {"max_limit": 0, "reset_duration": "1d"}}),
            &["budget.max_limit: budget max limit cannot be negative or zero: 0.00"],
        );
        check(
            json!({"name": "a", "budgets": [{"max_limit": 1, "reset_duration": "1d"}, {"max_limit": 2, "reset_duration": "1d"}]}),
            &["budgets[1]: Duplicate reset_duration in budgets: 1d"],
        );
        check(
            json!({"name": "a", "team_id": "t", "customer_id": "c"}),
            &["VirtualKey cannot be attached to both Team and Customer"],
        );
        check(
            json!({"name": "a", "provider_configs": [
                {"provider": "nope"},
                {"provider": "openai", "allowed_models": ["*", "x"], "key_ids": ["main", "other"], "weight": -1},
                {"provider": "openai", "rate_limit": {"request_max_limit": 0, "request_reset_duration": "1m"}},
            ]}),
            &[
                "provider_configs[0].provider: provider 'nope' is neither built in nor configured",
                "provider_configs[1].allowed_models: '*' means everything and stands alone",
                "provider_configs[1].key_ids[1]: provider 'openai' has no key 'other'",
                "provider_configs[1].weight: weight '-1' is negative",
                "provider_configs[2].rate_limit.request_max_limit: Invalid rate limit: rate limit request max limit cannot be negative or zero: 0",
                "provider_configs[2].provider: there are two configs for provider 'openai'",
            ],
        );
    }
}
