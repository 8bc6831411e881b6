//! Providers and their keys over REST.

use super::Admin;
use super::body::{Body, parse, received};
use super::change::{Actor, Lens, Terms, tagged_as};
use super::error::ApiError;
use super::query::Query;
use super::resource::{Id, new_id};
use crate::governance::catalog::Catalog;
use crate::governance::edit::{self, Edit};
use crate::governance::entity::{Provider, ProviderKey};
use crate::governance::view::View;
use crate::state::health::Report;
use crate::state::health::breaker::FAILURES_MAX;
use crate::wire::faults::Faults;
use crate::wire::provider::{ProviderChange, provider, provider_key};
use crate::wire::read::Object;
use crate::wire::show::{self, ModelQuery};
use axum::Extension;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

type KeyId = Result<Path<(String, String)>, PathRejection>;

/// `GET /api/providers`, by name.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.state.snapshot();
    let shown: Vec<Value> = snapshot.view.providers().map(|provider| standing(&admin, provider)).collect();
    Json(json!({ "total": shown.len(), "providers": shown }))
}

/// `GET /api/providers/{provider}`
pub(super) async fn read(State(admin): State<Admin>, name: Id) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| unknown_provider(""))?;
    let snapshot = admin.state.snapshot();
    let provider = find(&snapshot.view, &name)?;
    Ok(tagged_as(&standing(&admin, provider), &show::provider(provider)))
}

/// A provider with how it is just now. That is no part of its tag: it changes by itself.
fn standing(admin: &Admin, provider: &Provider) -> Value {
    let mut shown = show::provider(provider);
    let report = admin.state.health.of(&provider.name).map(|health| health.report(admin.state.clock.now()));
    let description = match report {
        None | Some(Report::Good) => return shown,
        Some(Report::Ejected { until }) => {
            format!("{FAILURES_MAX} calls in a row failed; it is asked only where nobody else is, until {until}")
        }
        Some(Report::NoKey { until }) => {
            format!("its provider refuses or limits each of its keys; the next may be used at {until}")
        }
    };
    shown["provider_status"] = "error".into();
    shown["description"] = description.into();
    shown
}

/// `POST /api/providers`. Keys in the body are created with it.
pub(super) async fn create(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = received(body)?;
    let terms = Terms::of_create(actor, &headers, &method, uri.path(), &bytes, &admin.state.hasher)?;
    let body = parse(&bytes)?;
    let name = read_name(&body)?;
    admin
        .blocking(move |admin| {
            let made = Arc::<str>::from(&*name);
            admin.create(
                &terms,
                StatusCode::OK,
                |snapshot| {
                    if snapshot.view.provider(&name).is_some() {
                        let message = format!("Provider '{name}' already exists");
                        return Err(ApiError::new(StatusCode::CONFLICT, message).about("provider"));
                    }
                    let read = read_with(admin, &snapshot.view, |change, faults| {
                        provider(&name, &body, None, change, faults)
                    })?;
                    Ok((vec![Edit::Provider(Arc::new(read))], made))
                },
                |lens: &mut Lens<'_>, made| Ok(show::provider(find(lens.view, &made)?)),
            )
        })
        .await
}

fn read_name(body: &Value) -> Result<String, Faults> {
    let mut faults = Faults::default();
    let name = Object::of(body, "", &mut faults).and_then(|body| body.text("provider", &mut faults).value());
    let name = name.filter(|name| !name.trim().is_empty());
    if name.is_none() && faults.is_empty() {
        faults.add("provider", "Missing provider");
    }
    faults.into_result(name.unwrap_or_default().to_owned())
}

/// `PUT /api/providers/{provider}`: the whole of it; one that is not there is made.
pub(super) async fn update(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    name: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| unknown_provider(""))?;
    let terms = Terms::read(actor, &headers);
    let body = parse(&received(body)?)?;
    let shown = admin
        .blocking(move |admin| {
            let changed = admin.change(&terms, |snapshot| {
                let old = snapshot.view.provider(&name);
                match old {
                    Some(old) => terms.allow(|| show::provider(old))?,
                    None => terms.allow_new()?,
                }
                let read = read_with(admin, &snapshot.view, |change, faults| {
                    provider(&name, &body, old.map(|old| &**old), change, faults)
                })?;
                Ok(vec![Edit::Provider(Arc::new(read))])
            })?;
            Ok(show::provider(find(changed.view(), &name)?))
        })
        .await?;
    Ok(tagged_as(&shown, &shown))
}

/// `DELETE /api/providers/{provider}`, with its keys and its limits.
pub(super) async fn delete(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    name: Id,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|_| unknown_provider(""))?;
    let terms = Terms::read(actor, &headers);
    admin
        .blocking(move |admin| {
            let mut gone = Value::Null;
            admin.change(&terms, |snapshot| {
                let provider = find(&snapshot.view, &name)?;
                gone = show::provider(provider);
                terms.allow(|| gone.clone())?;
                Ok(edit::remove_provider(&snapshot.view, provider))
            })?;
            Ok(Json(gone))
        })
        .await
}

/// `GET /api/providers/{provider}/keys`
pub(super) async fn key_list(State(admin): State<Admin>, name: Id) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|_| unknown_provider(""))?;
    let snapshot = admin.state.snapshot();
    let provider = find(&snapshot.view, &name)?;
    let shown: Vec<Value> = provider.keys.iter().map(|key| show::provider_key(provider, key)).collect();
    Ok(Json(json!({ "total": shown.len(), "keys": shown })))
}

/// `GET /api/keys`: the keys of all providers, as a bare array.
pub(super) async fn all_keys(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.state.snapshot();
    let keys = snapshot
        .view
        .providers()
        .flat_map(|provider| provider.keys.iter().map(|key| show::provider_key(provider, key)));
    Json(keys.collect())
}

/// `GET /api/providers/{provider}/keys/{key_id}`
pub(super) async fn key_read(State(admin): State<Admin>, ids: KeyId) -> Result<Response, ApiError> {
    let Path((name, id)) = ids.map_err(|_| unknown_provider(""))?;
    let snapshot = admin.state.snapshot();
    let provider = find(&snapshot.view, &name)?;
    let shown = show::provider_key(provider, find_key(provider, &id)?);
    Ok(tagged_as(&shown, &shown))
}

/// `POST /api/providers/{provider}/keys`
pub(super) async fn key_create(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    name: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| unknown_provider(""))?;
    find(&admin.state.snapshot().view, &name)?;
    let bytes = received(body)?;
    let terms = Terms::of_create(actor, &headers, &method, uri.path(), &bytes, &admin.state.hasher)?;
    let body = parse(&bytes)?;
    admin
        .blocking(move |admin| {
            admin.create(
                &terms,
                StatusCode::OK,
                |snapshot| {
                    let old = find(&snapshot.view, &name)?;
                    let key = read_with(admin, &snapshot.view, |change, faults| {
                        provider_key(old, &body, None, change, faults)
                    })?;
                    let id = Arc::clone(&key.id);
                    let mut provider = old.clone();
                    provider.keys.push(Arc::new(key));
                    Ok((vec![Edit::Provider(Arc::new(provider))], id))
                },
                |lens: &mut Lens<'_>, id| {
                    let provider = find(lens.view, &name)?;
                    Ok(show::provider_key(provider, find_key(provider, &id)?))
                },
            )
        })
        .await
}

/// `PUT /api/providers/{provider}/keys/{key_id}`: the whole of it, but for secrets sent back redacted.
pub(super) async fn key_update(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    ids: KeyId,
    body: Body,
) -> Result<Response, ApiError> {
    let Path((name, id)) = ids.map_err(|_| unknown_provider(""))?;
    find_key(find(&admin.state.snapshot().view, &name)?, &id)?;
    let terms = Terms::read(actor, &headers);
    let body = parse(&received(body)?)?;
    let shown = admin
        .blocking(move |admin| {
            let changed = admin.change(&terms, |snapshot| {
                let old = find(&snapshot.view, &name)?;
                let old_key = find_key(old, &id)?;
                terms.allow(|| show::provider_key(old, old_key))?;
                let key = read_with(admin, &snapshot.view, |change, faults| {
                    provider_key(old, &body, Some(old_key), change, faults)
                })?;
                let mut provider = old.clone();
                let key = Arc::new(key);
                for slot in provider.keys.iter_mut().filter(|slot| *slot.id == *id) {
                    *slot = Arc::clone(&key);
                }
                Ok(vec![Edit::Provider(Arc::new(provider))])
            })?;
            let provider = find(changed.view(), &name)?;
            Ok(show::provider_key(provider, find_key(provider, &id)?))
        })
        .await?;
    Ok(tagged_as(&shown, &shown))
}

/// `DELETE /api/providers/{provider}/keys/{key_id}`
pub(super) async fn key_delete(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    ids: KeyId,
) -> Result<Json<Value>, ApiError> {
    let Path((name, id)) = ids.map_err(|_| unknown_provider(""))?;
    let terms = Terms::read(actor, &headers);
    admin
        .blocking(move |admin| {
            let mut gone = Value::Null;
            admin.change(&terms, |snapshot| {
                let provider = find(&snapshot.view, &name)?;
                gone = show::provider_key(provider, find_key(provider, &id)?);
                terms.allow(|| gone.clone())?;
                Ok(edit::remove_provider_key(&snapshot.view, provider, &id))
            })?;
            Ok(Json(gone))
        })
        .await
}

/// `GET /api/models`: what can be asked for, filtered and then cut.
pub(super) async fn models(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    asked(&admin, &uri, 5, show::provider_models)
}

/// `GET /api/models/details`: the same with what is known of their sizes.
pub(super) async fn models_details(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    asked(&admin, &uri, 20, show::models_details)
}

/// `GET /api/models/base`: the names that releases share, all of them unless `limit` says otherwise.
pub(super) async fn models_base(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    asked(&admin, &uri, usize::MAX, show::models_base)
}

fn asked(
    admin: &Admin,
    uri: &Uri,
    usual: usize,
    show: impl Fn(&[&Provider], &Catalog, &ModelQuery<'_>) -> Value,
) -> Result<Json<Value>, ApiError> {
    let query = Query::read(uri)?;
    let keys: Vec<&str> = query.get("keys").map(|ids| ids.split(',').map(str::trim).collect()).unwrap_or_default();
    let wanted = ModelQuery {
        query: query.get("query").unwrap_or_default(),
        provider: query.get("provider"),
        keys: &keys,
        unfiltered: query.switch("unfiltered")?,
        limit: query.number("limit")?.filter(|limit| *limit > 0).unwrap_or(usual),
    };
    let snapshot = admin.state.snapshot();
    let providers: Vec<&Provider> = snapshot.view.providers().map(|provider| &**provider).collect();
    Ok(Json(show(&providers, &snapshot.view.catalog, &wanted)))
}

/// Reads a body about a provider with what it may refer to.
fn read_with<T>(
    admin: &Admin,
    view: &View,
    read: impl FnOnce(&mut ProviderChange<'_>, &mut Faults) -> Option<T>,
) -> Result<T, ApiError> {
    let taken = |name: &str, own: &str| {
        view.providers().flat_map(|provider| &provider.keys).any(|key| key.name == name && *key.id != *own)
    };
    let mut faults = Faults::default();
    let mut change = ProviderChange {
        new_id: &mut new_id,
        now: admin.state.clock.now(),
        own_ids: true,
        env: &|name| std::env::var(name).ok(),
        key_name_taken: &taken,
        key_id_taken: &|id| view.providers().flat_map(|provider| &provider.keys).any(|key| *key.id == *id),
        strict: false,
        clash: false,
    };
    let read = read(&mut change, &mut faults);
    let clash = change.clash;
    read.filter(|_| faults.is_empty()).ok_or_else(|| match clash && faults.iter().len() == 1 {
        true => ApiError::from(faults).with_status(StatusCode::CONFLICT),
        false => faults.into(),
    })
}

fn find<'a>(view: &'a View, name: &str) -> Result<&'a Provider, ApiError> {
    view.provider(name).map(|provider| &**provider).ok_or_else(|| unknown_provider(name))
}

fn find_key<'a>(provider: &'a Provider, id: &str) -> Result<&'a ProviderKey, ApiError> {
    let found = provider.keys.iter().find(|key| *key.id == *id).map(|key| &**key);
    found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("Key not found: {id}")))
}

fn unknown_provider(name: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Provider not found: {name}"))
}
