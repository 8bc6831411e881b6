//! Pricing overrides over REST.

use super::Admin;
use super::change::Lens;
use super::error::ApiError;
use super::owners::by_age;
use super::query::Query;
use super::resource::{Resource, Selection};
use crate::governance::edit::Edit;
use crate::governance::entity::{OverrideScope, PricingOverride};
use crate::governance::view::View;
use crate::wire::change::Change;
use crate::wire::faults::Faults;
use crate::wire::{price_override, show};
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

pub(super) struct PricingOverrides;

impl Resource for PricingOverrides {
    type Entity = PricingOverride;
    const TITLE: &'static str = "Pricing override";
    const ONE: &'static str = "pricing_override";
    const MANY: &'static str = "pricing_overrides";
    const CREATED: StatusCode = StatusCode::CREATED;
    const PAGED: bool = false;

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a PricingOverride> {
        view.pricing_override(id).map(|over| &**over)
    }

    fn read(
        body: &Value,
        base: Option<&PricingOverride>,
        change: &mut Change<'_>,
        faults: &mut Faults,
    ) -> Option<PricingOverride> {
        price_override::price_override(body, base, change, faults)
    }

    fn id(over: &PricingOverride) -> &Arc<str> {
        &over.id
    }

    fn put(_: &Admin, _: &View, over: PricingOverride) -> Result<Vec<Edit>, ApiError> {
        Ok(vec![Edit::PricingOverride(Arc::new(over))])
    }

    fn remove(_: &View, over: &PricingOverride) -> Vec<Edit> {
        vec![Edit::RemovePricingOverride(Arc::clone(&over.id))]
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let kind = query.get("scope_kind");
        if let Some(kind) = kind.filter(|kind| !OverrideScope::NAMES.contains(kind)) {
            let message = format!("unknown scope_kind '{kind}'; it is one of: {}", OverrideScope::NAMES.join(", "));
            return Err(ApiError::bad_request(message).about("scope_kind"));
        }
        let is = |name: &str, id: Option<&Arc<str>>| {
            query.get(name).is_none_or(|wanted| id.is_some_and(|id| **id == *wanted))
        };
        let found = lens.view.pricing_overrides().filter(|over| {
            kind.is_none_or(|kind| over.scope.name() == kind)
                && is("virtual_key_id", over.scope.virtual_key())
                && is("provider_id", over.scope.provider())
                && is("provider_key_id", over.scope.provider_key())
        });
        Ok(Selection::of(by_age(found.map(|over| (over.created_at, Arc::clone(&over.id))).collect()), None))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        lens.view.pricing_override(id).map(|over| show::price_override(over))
    }
}
