//! Routing rules over REST.

use super::Admin;
use super::change::Lens;
use super::error::ApiError;
use super::query::Query;
use super::resource::{Resource, Selection};
use crate::governance::edit::{Edit, RuleClash, rule_clash};
use crate::governance::entity::{RoutingRule, RuleScope};
use crate::governance::view::View;
use crate::wire::change::Change;
use crate::wire::faults::Faults;
use crate::wire::{rule, show};
use axum::http::StatusCode;
use serde_json::Value;
use std::cmp::Reverse;
use std::sync::Arc;

pub(super) struct RoutingRules;

impl Resource for RoutingRules {
    type Entity = RoutingRule;
    const TITLE: &'static str = "Routing rule";
    const ONE: &'static str = "rule";
    const MANY: &'static str = "rules";

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a RoutingRule> {
        view.rule(id).map(|rule| &**rule)
    }

    fn read(
        body: &Value,
        base: Option<&RoutingRule>,
        change: &mut Change<'_>,
        faults: &mut Faults,
    ) -> Option<RoutingRule> {
        rule::rule(body, base, change, faults)
    }

    fn check(view: &View, rule: &RoutingRule) -> Result<(), ApiError> {
        let scope = rule.scope.name();
        let (message, field) = match rule_clash(view, rule) {
            None => return Ok(()),
            Some(RuleClash::Name) => {
                (format!("routing rule with name '{}' already exists for scope {scope}", rule.name), "name")
            }
            Some(RuleClash::Priority) => {
                let message = format!("routing rule with priority {} already exists for scope {scope}", rule.priority);
                (message, "priority")
            }
        };
        Err(ApiError::new(StatusCode::CONFLICT, message).about(field))
    }

    fn id(rule: &RoutingRule) -> &Arc<str> {
        &rule.id
    }

    fn put(_: &Admin, _: &View, rule: RoutingRule) -> Result<Vec<Edit>, ApiError> {
        Ok(vec![Edit::RoutingRule(Arc::new(rule))])
    }

    fn remove(_: &View, rule: &RoutingRule) -> Vec<Edit> {
        vec![Edit::RemoveRoutingRule(Arc::clone(&rule.id))]
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let (search, scope, scope_id) = (query.search(), query.get("scope"), query.get("scope_id"));
        if let Some(scope) = scope.filter(|scope| !RuleScope::NAMES.contains(scope)) {
            let message = format!("unknown scope '{scope}'; it is one of: {}", RuleScope::NAMES.join(", "));
            return Err(ApiError::bad_request(message).about("scope"));
        }
        let mut found: Vec<&Arc<RoutingRule>> = lens
            .view
            .rules()
            .filter(|rule| scope.is_none_or(|scope| rule.scope.name() == scope))
            .filter(|rule| scope_id.is_none_or(|id| rule.scope.id().is_some_and(|own| **own == *id)))
            .filter(|rule| rule.name.to_lowercase().contains(&search))
            .collect();
        // In the order in which they are tried.
        found.sort_by_key(|rule| (rule.priority, Reverse(rule.created_at), &rule.id));
        let ids = found.into_iter().map(|rule| Arc::clone(&rule.id)).collect();
        Ok(Selection::of(ids, query.page(None)?))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        lens.view.rule(id).map(|rule| show::rule(rule, rule.fault.as_deref()))
    }
}
