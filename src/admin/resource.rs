//! What all declared objects have in common over REST: list, create, read, update, delete.
//!
//! A resource says how its bodies are read, what must be unique and how it is shown; the order of things
//! is the same for all: what is there, the conditions, all faults at once, clashes, one transaction.

use super::Admin;
use super::body::{Body, parse, received};
use super::change::{Actor, Lens, Terms, tagged};
use super::error::ApiError;
use super::query::{Page, Query};
use crate::governance::cel::Checker;
use crate::governance::edit::Edit;
use crate::governance::entity::Limits;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::View;
use crate::state::Snapshot;
use crate::wire::change::Change;
use crate::wire::faults::Faults;
use axum::Extension;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) type Id = Result<Path<String>, PathRejection>;

/// A kind of declared object.
pub(super) trait Resource: Send + Sync + 'static {
    type Entity;
    /// As messages call it, like `Team`.
    const TITLE: &'static str;
    /// The member of an answer that holds one object, and the one that holds several.
    const ONE: &'static str;
    const MANY: &'static str;
    /// The status of a create.
    const CREATED: StatusCode = StatusCode::OK;
    /// Whether lists tell their page.
    const PAGED: bool = true;

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a Self::Entity>;

    /// A body as the object that it comes to.
    fn read(
        body: &Value,
        base: Option<&Self::Entity>,
        change: &mut Change<'_>,
        faults: &mut Faults,
    ) -> Option<Self::Entity>;

    /// What no body can know: whether something that must be unique is taken.
    fn check(_view: &View, _entity: &Self::Entity) -> Result<(), ApiError> {
        Ok(())
    }

    fn id(entity: &Self::Entity) -> &Arc<str>;

    /// The edits that put an object in place.
    fn put(admin: &Admin, view: &View, entity: Self::Entity) -> Result<Vec<Edit>, ApiError>;

    /// The edits that take it away, with all that goes with it.
    fn remove(view: &View, entity: &Self::Entity) -> Vec<Edit>;

    /// The limits that an update may have turned to the calendar: new and old of each owner.
    fn limits<'a>(_new: &'a Self::Entity, _old: &'a Self::Entity) -> Vec<(&'a Limits, &'a Limits)> {
        Vec::new()
    }

    /// Secrets that answers about these objects show.
    fn values(_admin: &Admin, _ids: &[Arc<str>]) -> Result<HashMap<String, Secret>, ApiError> {
        Ok(HashMap::new())
    }

    /// The ids that a list is about, in order, and how many there are on all pages.
    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError>;

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value>;
}

/// A part of a list.
pub(super) struct Selection {
    pub(super) ids: Vec<Arc<str>>,
    pub(super) total: usize,
    pub(super) page: Page,
}

impl Selection {
    /// The page of `all`, which is in order.
    pub(super) fn of(all: Vec<Arc<str>>, page: Option<Page>) -> Selection {
        let total = all.len();
        let page = page.unwrap_or(Page { offset: 0, limit: total });
        let ids = all.into_iter().skip(page.offset).take(page.limit).collect();
        Selection { ids, total, page }
    }
}

/// `GET` and `POST` on the collection.
pub(super) fn collection<R: Resource>() -> MethodRouter<Admin> {
    get(list::<R>).post(create::<R>)
}

/// `GET`, `PUT` and `DELETE` on one object.
pub(super) fn single<R: Resource>() -> MethodRouter<Admin> {
    get(show::<R>).put(update::<R>).delete(delete::<R>)
}

pub(super) async fn list<R: Resource>(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let query = Query::read(&uri)?;
    let from_memory = query.switch("from_memory")?;
    admin
        .blocking(move |admin| {
            let snapshot = admin.state.snapshot();
            let mut lens = Lens::on(admin, &snapshot);
            let Selection { ids, total, page } = R::select(&lens, &query)?;
            lens.values = R::values(admin, &ids)?;
            let shown: Vec<Value> = ids.iter().filter_map(|id| R::show(&lens, id)).collect();
            let mut answer = Map::new();
            answer.insert("count".into(), shown.len().into());
            answer.insert(R::MANY.into(), shown.into());
            if R::PAGED && !from_memory {
                answer.insert("total_count".into(), total.into());
                answer.insert("limit".into(), page.limit.into());
                answer.insert("offset".into(), page.offset.into());
            }
            Ok(Json(Value::Object(answer)))
        })
        .await
}

pub(super) async fn create<R: Resource>(
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
    let plan = move |admin: &Admin, snapshot: &Snapshot| {
        let entity = read_with(admin, &snapshot.view, |change, faults| R::read(&body, None, change, faults))?;
        R::check(&snapshot.view, &entity)?;
        let id = Arc::clone(R::id(&entity));
        Ok((R::put(admin, &snapshot.view, entity)?, id))
    };
    let answer = |lens: &mut Lens<'_>, id: Arc<str>| {
        let object = R::show(lens, &id).ok_or_else(not_found::<R>)?;
        Ok(json!({ "message": format!("{} created successfully", R::TITLE), R::ONE: object }))
    };
    admin.blocking(move |admin| admin.create(&terms, R::CREATED, |snapshot| plan(admin, snapshot), answer)).await
}

pub(super) async fn show<R: Resource>(State(admin): State<Admin>, id: Id, uri: Uri) -> Result<Response, ApiError> {
    let id = known_id::<R>(id)?;
    Query::read(&uri)?.switch("from_memory")?;
    let object = admin.blocking(move |admin| admin.shown::<R>(&id)).await?;
    Ok(tagged(json!({ R::ONE: object })))
}

pub(super) async fn update<R: Resource>(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let id = known_id::<R>(id)?;
    // Whether it exists comes before what is wrong with the body.
    R::find(&admin.state.snapshot().view, &id).ok_or_else(not_found::<R>)?;
    let terms = Terms::read(actor, &headers);
    let body = parse(&received(body)?)?;
    let object = admin
        .blocking(move |admin| {
            let mut values = HashMap::new();
            let changed = admin.change(&terms, |snapshot| {
                let view = &snapshot.view;
                let old = R::find(view, &id).ok_or_else(not_found::<R>)?;
                terms.allow(|| R::show(&Lens::on(admin, snapshot), &id).unwrap_or_default())?;
                let entity = read_with(admin, view, |change, faults| R::read(&body, Some(old), change, faults))?;
                R::check(view, &entity)?;
                let restarts = super::change::restarts(R::limits(&entity, old), admin.state.clock.now());
                let mut edits = R::put(admin, view, entity)?;
                edits.extend(restarts);
                values = R::values(admin, &[id.as_str().into()])?;
                Ok(edits)
            })?;
            R::show(&changed.lens(admin, values), &id).ok_or_else(not_found::<R>)
        })
        .await?;
    Ok(tagged(json!({ "message": format!("{} updated successfully", R::TITLE), R::ONE: object })))
}

pub(super) async fn delete<R: Resource>(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    id: Id,
) -> Result<Json<Value>, ApiError> {
    let id = known_id::<R>(id)?;
    let terms = Terms::read(actor, &headers);
    admin
        .blocking(move |admin| {
            admin.change(&terms, |snapshot| {
                let entity = R::find(&snapshot.view, &id).ok_or_else(not_found::<R>)?;
                terms.allow(|| R::show(&Lens::on(admin, snapshot), &id).unwrap_or_default())?;
                Ok(R::remove(&snapshot.view, entity))
            })
        })
        .await?;
    Ok(Json(json!({ "message": format!("{} deleted successfully", R::TITLE) })))
}

impl Admin {
    /// One object as it is now.
    pub(super) fn shown<R: Resource>(&self, id: &str) -> Result<Value, ApiError> {
        let snapshot = self.state.snapshot();
        let mut lens = Lens::on(self, &snapshot);
        lens.values = R::values(self, &[id.into()])?;
        R::show(&lens, id).ok_or_else(not_found::<R>)
    }
}

/// Reads a body with what it may refer to, or says all that is wrong with it.
pub(super) fn read_with<T>(
    admin: &Admin,
    view: &View,
    read: impl FnOnce(&mut Change<'_>, &mut Faults) -> Option<T>,
) -> Result<T, ApiError> {
    let mut faults = Faults::default();
    let now: Timestamp = admin.state.clock.now();
    let mut checker = Checker::default();
    let mut change = Change { known: view, new_id: &mut new_id, now, checker: &mut checker, own_ids: false };
    match read(&mut change, &mut faults) {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(faults.into()),
    }
}

pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(super) fn not_found<R: Resource>() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("{} not found", R::TITLE))
}

fn known_id<R: Resource>(id: Id) -> Result<String, ApiError> {
    id.map(|Path(id)| id).map_err(|_| not_found::<R>())
}
