//! All budgets and rate limits with their owners, the reset of a budget, and the limits on providers.

use super::Admin;
use super::body::{Body, parse, received};
use super::change::{Actor, Lens, Terms, restarts, tagged_as};
use super::error::ApiError;
use super::query::Query;
use super::resource::{Id, read_with};
use crate::governance::edit::{Edit, Restart};
use crate::governance::entity::{Budget, Limits, ProviderLimits};
use crate::governance::view::{Governed, Limit, LimitKey, Measure, View};
use crate::wire::{provider_limits, show};
use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The limits of one owner, with who that is.
struct Owned<'a> {
    owner_type: &'static str,
    owner_id: String,
    declared: &'a Limits,
    linked: &'a [Limit],
}

/// `GET /api/governance/budgets`
pub(super) async fn budgets(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Query::read(&uri)?.switch("from_memory")?;
    let shown = admin.blocking(|admin| {
        let snapshot = admin.state.snapshot();
        Ok(Lens::on(admin, &snapshot).each_owned(|lens, owned, all| {
            let live: show::Live<'_> = &|limit| lens.live(limit);
            let (owner, id) = (owned.owner_type, &*owned.owner_id);
            let budgets = owned.declared.budgets.iter();
            all.extend(budgets.map(|budget| show::owned_budget(budget, owned.linked, live, owner, id)));
        }))
    });
    let shown = shown.await?;
    Ok(Json(json!({ "count": shown.len(), "budgets": shown })))
}

/// `GET /api/governance/rate-limits`
pub(super) async fn rate_limits(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Query::read(&uri)?.switch("from_memory")?;
    let shown = admin.blocking(|admin| {
        let snapshot = admin.state.snapshot();
        Ok(Lens::on(admin, &snapshot).each_owned(|lens, owned, all| {
            let live: show::Live<'_> = &|limit| lens.live(limit);
            let (owner, id) = (owned.owner_type, &*owned.owner_id);
            let rate_limit = owned.declared.rate_limit.iter();
            all.extend(rate_limit.map(|limit| show::owned_rate_limit(limit, owned.linked, live, owner, id)));
        }))
    });
    let shown = shown.await?;
    Ok(Json(json!({ "count": shown.len(), "rate_limits": shown })))
}

/// `POST /api/governance/budgets/{id}/reset`: what was spent in the current window is forgotten by the limit,
/// though never by the ledger.
pub(super) async fn reset(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    id: Id,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "Budget not found");
    let Path(id) = id.map_err(|_| missing())?;
    let terms = Terms::read(actor, &headers);
    let budget = admin
        .blocking(move |admin| {
            let mut found = None;
            let changed = admin.change(&terms, |snapshot| {
                let (owned, budget) = owned_budget(&snapshot.view, &id).ok_or_else(missing)?;
                found = Some((owned.owner_type, owned.owner_id, budget.clone(), owned.linked.to_vec()));
                let key = LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money };
                Ok(vec![Edit::Restart(Restart { key, at: admin.state.clock.now() })])
            })?;
            let (owner_type, owner_id, budget, linked) = found.ok_or_else(missing)?;
            let lens = changed.lens(admin, HashMap::new());
            Ok(show::owned_budget(&budget, &linked, &|limit| lens.live(limit), owner_type, &owner_id))
        })
        .await?;
    Ok(Json(json!({ "message": "Budget reset successfully", "budget": budget })))
}

/// `GET /api/governance/providers`: the providers that have limits.
pub(super) async fn provider_list(State(admin): State<Admin>) -> Result<Json<Value>, ApiError> {
    let snapshot = admin.state.snapshot();
    let lens = Lens::on(&admin, &snapshot);
    let all = lens.view.all_provider_limits();
    let one = |governed: &Arc<Governed<ProviderLimits>>| {
        show::provider_limits(&governed.entity.provider, Some(governed), &|limit| lens.live(limit))
    };
    let shown: Vec<Value> = all.map(one).collect();
    Ok(Json(json!({ "count": shown.len(), "providers": shown })))
}

/// `PUT /api/governance/providers/{provider_name}`
pub(super) async fn provider_update(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    name: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| provider_not_found())?;
    admin.state.snapshot().view.provider(&name).ok_or_else(provider_not_found)?;
    let terms = Terms::read(actor, &headers);
    let body = parse(&received(body)?)?;
    let shown = admin
        .blocking(move |admin| {
            let changed = admin.change(&terms, |snapshot| {
                let view = &snapshot.view;
                let provider = Arc::clone(&view.provider(&name).ok_or_else(provider_not_found)?.name);
                terms.allow(|| Lens::on(admin, snapshot).provider_limits(&name))?;
                let none = Limits::default();
                let old = view.provider_limits(&name).map_or(&none, |governed| &governed.entity.limits);
                let limits = read_with(admin, view, |change, faults| {
                    provider_limits::provider_limits(&body, &provider, old, change, faults)
                })?;
                let mut edits = restarts([(&limits, old)], admin.state.clock.now());
                match limits.is_empty() {
                    true if old.is_empty() => {}
                    true => edits.push(Edit::RemoveProviderLimits(provider)),
                    false => edits.insert(
                        0,
                        Edit::ProviderLimits(Arc::new(ProviderLimits {
                            provider,
                            limits,
                            config_hash: declared_hash(view, &name),
                        })),
                    ),
                }
                Ok(edits)
            })?;
            Ok(changed.lens(admin, HashMap::new()).provider_limits(&name))
        })
        .await?;
    let mut answer = json!({ "message": "Provider governance updated successfully", "provider": shown });
    // Some clients look for them at the top.
    for member in ["budget", "budgets", "rate_limit"] {
        if let Some(value) = shown.get(member) {
            answer[member] = value.clone();
        }
    }
    Ok(tagged_as(&answer, &shown))
}

/// `DELETE /api/governance/providers/{provider_name}`. Nothing to take away is fine, too.
pub(super) async fn provider_delete(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    name: Id,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|_| provider_not_found())?;
    let terms = Terms::read(actor, &headers);
    admin
        .blocking(move |admin| {
            admin.change(&terms, |snapshot| {
                let provider = snapshot.view.provider(&name).ok_or_else(provider_not_found)?;
                terms.allow(|| Lens::on(admin, snapshot).provider_limits(&name))?;
                let some = snapshot.view.provider_limits(&name);
                Ok(some.map(|_| Edit::RemoveProviderLimits(Arc::clone(&provider.name))).into_iter().collect())
            })
        })
        .await?;
    Ok(Json(json!({ "message": "Provider governance deleted successfully" })))
}

impl Lens<'_> {
    /// The limits on a provider; a provider without any has none to show.
    fn provider_limits(&self, name: &str) -> Value {
        let governed = self.view.provider_limits(name).map(|governed| &**governed);
        show::provider_limits(name, governed, &|limit| self.live(limit))
    }

    /// Lets `show` see the limits of every owner, the widest level first.
    fn each_owned(&self, show: impl Fn(&Lens<'_>, &Owned<'_>, &mut Vec<Value>)) -> Vec<Value> {
        let mut all = Vec::new();
        let _ = owners(self.view, &mut |owned| {
            show(self, &owned, &mut all);
            ControlFlow::<()>::Continue(())
        });
        all
    }
}

/// The budget with this id, and whose it is.
fn owned_budget<'a>(view: &'a View, id: &str) -> Option<(Owned<'a>, &'a Budget)> {
    let found = owners(view, &mut |owned| match owned.declared.budgets.iter().find(|budget| *budget.id == *id) {
        Some(budget) => ControlFlow::Break((owned, budget)),
        None => ControlFlow::Continue(()),
    });
    found.break_value()
}

/// Visits those that have limits, until somebody has seen enough.
fn owners<'a, B>(view: &'a View, visit: &mut dyn FnMut(Owned<'a>) -> ControlFlow<B>) -> ControlFlow<B> {
    let mut one = |owner_type, id: &str, declared: &'a Limits, linked: &'a [Limit]| {
        if declared.is_empty() {
            return ControlFlow::Continue(());
        }
        visit(Owned { owner_type, owner_id: id.to_owned(), declared, linked })
    };
    for governed in view.all_provider_limits() {
        one("provider", &governed.entity.provider, &governed.entity.limits, &governed.limits)?;
    }
    for governed in view.model_configs() {
        one("model_config", &governed.entity.id, &governed.entity.limits, &governed.limits)?;
    }
    for governed in view.customers() {
        one("customer", &governed.entity.id, &governed.entity.limits, &governed.limits)?;
    }
    for governed in view.teams() {
        one("team", &governed.entity.id, &governed.entity.limits, &governed.limits)?;
    }
    for caller in view.callers() {
        one("virtual_key", &caller.key.id, &caller.key.limits, &caller.limits)?;
        for (config, linked) in caller.key.provider_configs.iter().zip(caller.configs.iter()) {
            one("provider_config", &config.id.to_string(), &config.limits, &linked.limits)?;
        }
    }
    ControlFlow::Continue(())
}

fn provider_not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "Provider not found")
}

/// What the config file said of the provider's limits; a change through the API does not forget it.
fn declared_hash(view: &View, provider: &str) -> String {
    view.provider_limits(provider).map(|governed| governed.entity.config_hash.clone()).unwrap_or_default()
}
