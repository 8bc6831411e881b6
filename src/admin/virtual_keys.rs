//! Virtual keys over REST.

use super::Admin;
use super::error::{ApiError, quota_unauthorized};
use crate::governance::entity::{Budget, Provider, VirtualKey, is_built_in_provider};
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{Caller, Declared, LimitKey, Measure};
use crate::state::{Snapshot, new_virtual_key_value};
use crate::store::Restart;
use crate::wire::change::{Change, Known};
use crate::wire::credential;
use crate::wire::faults::Faults;
use crate::wire::show::{self, Shown};
use crate::wire::virtual_key::virtual_key;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

type Answer = Result<Json<Value>, ApiError>;
type Body = Result<Bytes, BytesRejection>;
type Id = Result<Path<String>, PathRejection>;

const PAGE: usize = 25;
const PAGE_MAX: usize = 100;
const EXPORT_MAX: usize = 10_000;

/// `POST /api/governance/virtual-keys`
pub(super) async fn create(State(admin): State<Admin>, body: Body) -> Answer {
    let body = parse(body)?;
    let key = admin.blocking(move |admin| admin.create_key(&body)).await?;
    Ok(Json(json!({ "message": "Virtual key created successfully", "virtual_key": key })))
}

/// `GET /api/governance/virtual-keys/{vk_id}`
pub(super) async fn show(State(admin): State<Admin>, id: Id, uri: Uri) -> Answer {
    let id = known_id(id)?;
    boolean(&query(&uri)?, "from_memory")?;
    let key = admin.blocking(move |admin| admin.show_key(&id)).await?;
    Ok(Json(json!({ "virtual_key": key })))
}

/// `PUT /api/governance/virtual-keys/{vk_id}`
pub(super) async fn update(State(admin): State<Admin>, id: Id, body: Body) -> Answer {
    let id = known_id(id)?;
    // Whether the key exists comes before what is wrong with the body.
    find(&admin.state.snapshot(), &id)?;
    let body = parse(body)?;
    let key = admin.blocking(move |admin| admin.update_key(&id, &body)).await?;
    Ok(Json(json!({ "message": "Virtual key updated successfully", "virtual_key": key })))
}

/// `DELETE /api/governance/virtual-keys/{vk_id}`
pub(super) async fn delete(State(admin): State<Admin>, id: Id) -> Answer {
    let id = known_id(id)?;
    admin.blocking(move |admin| admin.delete_key(&id)).await?;
    Ok(Json(json!({ "message": "Virtual key deleted successfully" })))
}

/// `GET /api/governance/virtual-keys`
pub(super) async fn list(State(admin): State<Admin>, uri: Uri) -> Answer {
    let listing = Listing::read(&query(&uri)?)?;
    admin.blocking(move |admin| admin.list_keys(&listing)).await.map(Json)
}

/// `GET /api/governance/virtual-keys/quota`: for the holder of a key, who needs no admin token.
pub(super) async fn quota(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let presented = match credential::virtual_key(&headers) {
        Ok(Some(value)) => value,
        Ok(None) => return quota_unauthorized("Virtual key is required"),
        Err(credential::Ambiguous) => return quota_unauthorized("The request carries two different virtual keys"),
    };
    let (snapshot, now) = (admin.state.snapshot(), admin.state.clock.now());
    match snapshot.view.caller(&admin.state.hasher.digest(presented)) {
        Some(caller) => Json(show::quota(caller, &|limit| snapshot.tally(limit, now))).into_response(),
        None => quota_unauthorized("Virtual key not found"),
    }
}

impl Admin {
    fn create_key(&self, body: &Value) -> Result<Value, ApiError> {
        let now = self.state.clock.now();
        let value = Secret::new(new_virtual_key_value());
        let id = self.state.change(&HashMap::new(), |declared| {
            let mut faults = Faults::default();
            let change = &mut Change { known: &InForce(declared), new_id: &mut new_id, now, own_ids: false };
            let read = virtual_key(body, None, change, &mut faults);
            let mut key = read.filter(|_| faults.is_empty()).ok_or(faults)?.key;
            let digest = self.store.insert_virtual_key(&mut key, &value)?;
            let id = Arc::clone(&key.id);
            declared.virtual_keys.insert(Arc::clone(&id), (digest, Arc::new(key)));
            Ok::<_, ApiError>(id)
        })?;
        tracing::info!(virtual_key = %id, "virtual key created");
        let snapshot = self.state.snapshot();
        Ok(self.shown(&snapshot, find(&snapshot, &id)?, Some(&value)))
    }

    fn update_key(&self, id: &str, body: &Value) -> Result<Value, ApiError> {
        let now = self.state.clock.now();
        let restarts = self.state.change(&HashMap::new(), |declared| {
            let (digest, old) = declared.virtual_keys.get(id).cloned().ok_or_else(ApiError::virtual_key_not_found)?;
            let mut faults = Faults::default();
            let change = &mut Change { known: &InForce(declared), new_id: &mut new_id, now, own_ids: false };
            let read = virtual_key(body, Some(&old), change, &mut faults);
            let mut key = read.filter(|_| faults.is_empty()).ok_or(faults)?.key;
            let restarts = restarts(&self.state.snapshot(), &old, &key, now);
            self.store.update_virtual_key(&mut key, &restarts)?;
            declared.virtual_keys.insert(Arc::clone(&key.id), (digest, Arc::new(key)));
            Ok::<_, ApiError>(restarts)
        })?;
        restarts.iter().for_each(|restart| self.state.restart(&restart.key, restart.at));
        tracing::info!(virtual_key = id, "virtual key updated");
        self.show_key(id)
    }

    fn delete_key(&self, id: &str) -> Result<(), ApiError> {
        self.state.change(&HashMap::new(), |declared| {
            declared.virtual_keys.remove(id).ok_or_else(ApiError::virtual_key_not_found)?;
            self.store.delete_virtual_key(id)?;
            Ok::<_, ApiError>(())
        })?;
        tracing::info!(virtual_key = id, "virtual key deleted");
        Ok(())
    }

    fn show_key(&self, id: &str) -> Result<Value, ApiError> {
        let snapshot = self.state.snapshot();
        let caller = find(&snapshot, id)?;
        let value = self.values([id])?.remove(id);
        Ok(self.shown(&snapshot, caller, value.as_ref()))
    }

    fn list_keys(&self, listing: &Listing) -> Result<Value, ApiError> {
        let (snapshot, now) = (self.state.snapshot(), self.state.clock.now());
        let mut callers: Vec<&Caller> = snapshot.view.callers().map(|(_, caller)| &**caller).collect();
        callers.retain(|caller| listing.matches(&caller.key));
        listing.sort(&mut callers, |caller| spent(&snapshot, caller, now));
        let total = callers.len();
        let (offset, limit) = listing.page.unwrap_or((0, total));
        let page: Vec<&Caller> = callers.into_iter().skip(offset).take(limit).collect();
        let values = self.values(page.iter().map(|caller| &*caller.key.id))?;
        let keys: Vec<Value> =
            page.iter().map(|caller| self.shown(&snapshot, caller, values.get(&*caller.key.id))).collect();
        let count = keys.len();
        Ok(match listing.from_memory {
            true => json!({ "virtual_keys": keys, "count": count }),
            false => json!({
                "virtual_keys": keys, "count": count, "total_count": total, "limit": limit, "offset": offset,
            }),
        })
    }

    /// The values that answers may show beyond the one that made them.
    fn values<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Result<HashMap<String, Secret>, ApiError> {
        if !self.show_virtual_keys {
            return Ok(HashMap::new());
        }
        Ok(self.store.virtual_key_values(ids)?)
    }

    fn shown(&self, snapshot: &Snapshot, caller: &Caller, value: Option<&Secret>) -> Value {
        let now = self.state.clock.now();
        show::virtual_key(&Shown {
            caller,
            live: &|limit| snapshot.tally(limit, now),
            value,
            team: None,
            customer: None,
            provider: &|name| snapshot.view.provider(name).map(|provider| &**provider),
        })
    }
}

/// What a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Listing {
    /// Offset and length; absent: everything.
    page: Option<(usize, usize)>,
    /// In lower case.
    search: String,
    /// Keys of a team or a customer.
    owned: bool,
    sort: Sort,
    descending: bool,
    from_memory: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    CreatedAt,
    Name,
    BudgetSpent,
    Status,
}

impl Listing {
    fn read(query: &[(String, String)]) -> Result<Listing, ApiError> {
        let get = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
        let number = |name: &str| get(name).map(|text| page_number(name, text)).transpose();
        let export = boolean(query, "export")?;
        let from_memory = boolean(query, "from_memory")?;
        let (limit, offset) = (number("limit")?, number("offset")?);
        let most = if export { EXPORT_MAX } else { PAGE_MAX };
        let usual = if export { EXPORT_MAX } else { PAGE };
        let length = limit.filter(|limit| *limit > 0).map_or(usual, |limit| limit.min(most));
        let paged = export || ["limit", "offset", "search"].iter().any(|name| get(name).is_some());
        if from_memory {
            return Ok(Listing { from_memory, ..Listing::default() });
        }
        let sort = match get("sort_by") {
            Some("name") => Sort::Name,
            Some("budget_spent") => Sort::BudgetSpent,
            Some("status") => Sort::Status,
            _ => Sort::CreatedAt,
        };
        Ok(Listing {
            page: paged.then_some((offset.unwrap_or(0), length)),
            search: get("search").unwrap_or_default().to_lowercase(),
            owned: ["team_id", "customer_id"].iter().any(|name| get(name).is_some_and(|id| !id.is_empty())),
            sort,
            descending: match get("order") {
                None | Some("" | "asc") => false,
                Some("desc") => true,
                Some(_) => return Err(ApiError::bad_request("order must be asc or desc").about("order")),
            },
            from_memory,
        })
    }

    fn matches(&self, key: &VirtualKey) -> bool {
        // There are no teams or customers yet, so no key belongs to one.
        !self.owned && key.name.to_lowercase().contains(&self.search)
    }

    fn sort(&self, callers: &mut [&Caller], spent: impl Fn(&Caller) -> i64) {
        // Ties go by age and id, in the same direction whatever the order.
        callers.sort_by(|a, b| (a.key.created_at, &a.key.id).cmp(&(b.key.created_at, &b.key.id)));
        let by = |a: &Caller, b: &Caller| match self.sort {
            Sort::CreatedAt => a.key.created_at.cmp(&b.key.created_at),
            Sort::Name => a.key.name.cmp(&b.key.name),
            Sort::BudgetSpent => spent(a).cmp(&spent(b)),
            Sort::Status => a.key.is_active.cmp(&b.key.is_active),
        };
        callers.sort_by(|a, b| if self.descending { by(b, a) } else { by(a, b) });
    }
}

fn page_number(name: &str, text: &str) -> Result<usize, ApiError> {
    let number: i64 = text
        .parse()
        .map_err(|_| ApiError::bad_request(format!("Invalid {name} parameter: must be a number")).about(name))?;
    usize::try_from(number)
        .map_err(|_| ApiError::bad_request(format!("Invalid {name} parameter: must be non-negative")).about(name))
}

/// A switch of the query. Anything but `true` and `false` is a mistake that would otherwise go unseen.
fn boolean(query: &[(String, String)], name: &str) -> Result<bool, ApiError> {
    match query.iter().find(|(key, _)| key == name).map(|(_, value)| &**value) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::bad_request(format!("Invalid {name} parameter: must be true or false")).about(name)),
    }
}

fn query(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let query = Query::try_from_uri(uri).map_err(|_| ApiError::bad_request("Invalid query"))?;
    Ok(query.0)
}

fn parse(body: Body) -> Result<Value, ApiError> {
    let bytes = body.map_err(|rejected| match rejected.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is longer than 1 MiB"),
        status => ApiError::new(status, "The body could not be read"),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("Invalid JSON: {error}")))
}

fn known_id(id: Id) -> Result<String, ApiError> {
    id.map(|Path(id)| id).map_err(|_| ApiError::virtual_key_not_found())
}

fn find<'a>(snapshot: &'a Snapshot, id: &str) -> Result<&'a Caller, ApiError> {
    let mut callers = snapshot.view.callers();
    let found = callers.find(|(_, caller)| &*caller.key.id == id);
    found.map(|(_, caller)| &**caller).ok_or_else(ApiError::virtual_key_not_found)
}

/// What a body may refer to.
struct InForce<'a>(&'a Declared);

impl Known for InForce<'_> {
    fn provider(&self, name: &str) -> bool {
        is_built_in_provider(name) || self.0.providers.contains_key(name)
    }
    fn provider_key(&self, provider: &str, id: &str) -> bool {
        self.provider_of_key(id).is_some_and(|owner| owner == provider)
    }
    fn provider_of_key(&self, id: &str) -> Option<String> {
        let has = |provider: &&Arc<Provider>| provider.keys.iter().any(|key| &*key.id == id);
        self.0.providers.values().find(has).map(|provider| provider.name.to_string())
    }
    fn customer(&self, _: &str) -> bool {
        false
    }
    fn team(&self, _: &str) -> bool {
        false
    }
    fn virtual_key(&self, id: &str) -> bool {
        self.0.virtual_keys.contains_key(id)
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Budgets that were turned to the calendar start from nothing, as documented. Their new window begins now,
/// later than the old one, so that a call still in flight is charged to the old one.
fn restarts(snapshot: &Snapshot, old: &VirtualKey, new: &VirtualKey, now: Timestamp) -> Vec<Restart> {
    let caller = find(snapshot, &old.id).ok();
    let started = |id: &str| {
        let limits = caller
            .into_iter()
            .flat_map(|caller| caller.limits.iter().chain(caller.configs.iter().flat_map(|config| &config.limits)));
        limits.filter(|limit| &*limit.key.id == id).map(|limit| snapshot.tally(limit, now).1).max()
    };
    let restart = |budget: &Budget| Restart {
        at: started(&budget.id).map_or(now, |start| now.max(start.plus(1))),
        key: LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money },
    };
    new.budgets_turned_to_calendar(old).map(restart).collect()
}

/// The most that one of the key's own budgets has spent in its window.
fn spent(snapshot: &Snapshot, caller: &Caller, now: Timestamp) -> i64 {
    let money = caller.limits.iter().filter(|limit| limit.key.measure == Measure::Money);
    money.map(|limit| snapshot.tally(limit, now).0.spent).max().unwrap_or(0)
}
