//! Virtual keys over REST.

use super::Admin;
use super::change::{Actor, Lens, Terms, tagged};
use super::error::{ApiError, quota_unauthorized};
use super::query::{Page, Query};
use super::resource::{Id, Resource, Selection, not_found};
use crate::governance::edit::{self, Edit};
use crate::governance::entity::{Limits, VirtualKey};
use crate::governance::secret::Secret;
use crate::governance::view::{Caller, View};
use crate::state::new_virtual_key_value;
use crate::wire::change::Change;
use crate::wire::credential;
use crate::wire::faults::Faults;
use crate::wire::show::{self, Shown};
use crate::wire::virtual_key;
use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const EXPORT_MAX: usize = 10_000;

pub(super) struct VirtualKeys;

impl Resource for VirtualKeys {
    type Entity = VirtualKey;
    const TITLE: &'static str = "Virtual key";
    const ONE: &'static str = "virtual_key";
    const MANY: &'static str = "virtual_keys";

    fn find<'a>(view: &'a View, id: &str) -> Option<&'a VirtualKey> {
        view.caller_by_id(id).map(|caller| &*caller.key)
    }

    fn read(
        body: &Value,
        base: Option<&VirtualKey>,
        change: &mut Change<'_>,
        faults: &mut Faults,
    ) -> Option<VirtualKey> {
        // A value of one's own is the config file's to bring.
        virtual_key::virtual_key(body, base, change, faults).map(|read| read.key)
    }

    fn id(key: &VirtualKey) -> &Arc<str> {
        &key.id
    }

    fn put(admin: &Admin, view: &View, key: VirtualKey) -> Result<Vec<Edit>, ApiError> {
        let (digest, value) = match view.caller_by_id(&key.id) {
            Some(old) => (old.digest, None),
            None => {
                let value = Secret::new(new_virtual_key_value());
                (admin.state.hasher.digest(value.expose().as_bytes()), Some(value))
            }
        };
        Ok(vec![Edit::VirtualKey { key: Arc::new(key), digest, value }])
    }

    fn remove(view: &View, key: &VirtualKey) -> Vec<Edit> {
        edit::remove_virtual_key(view, &key.id)
    }

    fn limits<'a>(new: &'a VirtualKey, old: &'a VirtualKey) -> Vec<(&'a Limits, &'a Limits)> {
        let configs = new.provider_configs.iter().filter_map(|config| {
            let same = old.provider_configs.iter().find(|was| was.id == config.id)?;
            Some((&config.limits, &same.limits))
        });
        configs.chain([(&new.limits, &old.limits)]).collect()
    }

    fn values(admin: &Admin, ids: &[Arc<str>]) -> Result<HashMap<String, Secret>, ApiError> {
        if !admin.show_virtual_keys {
            return Ok(HashMap::new());
        }
        Ok(admin.store.virtual_key_values(ids.iter().map(|id| &**id))?)
    }

    fn select(lens: &Lens<'_>, query: &Query) -> Result<Selection, ApiError> {
        let export = query.switch("export")?;
        if query.switch("from_memory")? {
            return Ok(Selection::of(lens.view.callers().map(|caller| Arc::clone(&caller.key.id)).collect(), None));
        }
        let page = query.page(export.then_some(EXPORT_MAX))?;
        let descending = query.descending()?;
        let (search, owners) =
            (query.search(), Owners { team: query.get("team_id"), customer: query.get("customer_id") });
        let sort = query.get("sort_by").and_then(Sort::from_name);
        if search.is_empty() && owners.is_any() && sort.is_none() && !descending {
            return Ok(oldest_first(lens.view, page));
        }
        let wanted =
            |key: &VirtualKey| owners.have(key) && (search.is_empty() || key.name.to_lowercase().contains(&search));
        let callers: Vec<&Caller> = lens.view.callers().map(|caller| &**caller).filter(|c| wanted(&c.key)).collect();
        Ok(sorted(callers, sort.unwrap_or(Sort::CreatedAt), descending, page, |caller| spent(lens, caller)))
    }

    fn show(lens: &Lens<'_>, id: &str) -> Option<Value> {
        let caller = lens.view.caller_by_id(id)?;
        Some(show::virtual_key(&Shown {
            caller,
            live: &|limit| lens.live(limit),
            value: lens.values.get(id),
            team: caller.team.as_deref(),
            customer: caller.customer.as_deref(),
            provider: &|name| lens.view.provider(name).map(|provider| &**provider),
        }))
    }
}

/// `POST /api/governance/virtual-keys/{vk_id}/rotate`: another value for the same key. The old one is not
/// known any more from the next request on.
pub(super) async fn rotate(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    id: Id,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| not_found::<VirtualKeys>())?;
    let terms = Terms::read(actor, &headers);
    let value = Secret::new(new_virtual_key_value());
    let key = admin
        .blocking(move |admin| {
            let changed = admin.change(&terms, |snapshot| {
                let caller = snapshot.view.caller_by_id(&id).ok_or_else(not_found::<VirtualKeys>)?;
                terms.allow(|| VirtualKeys::show(&Lens::on(admin, snapshot), &id).unwrap_or_default())?;
                let key = VirtualKey { updated_at: admin.state.clock.now(), ..VirtualKey::clone(&caller.key) };
                let digest = admin.state.hasher.digest(value.expose().as_bytes());
                Ok(vec![Edit::VirtualKey { key: Arc::new(key), digest, value: Some(value.clone()) }])
            })?;
            let lens = changed.lens(admin, HashMap::from([(id.clone(), value)]));
            VirtualKeys::show(&lens, &id).ok_or_else(not_found::<VirtualKeys>)
        })
        .await?;
    Ok(tagged(json!({ "message": "Virtual key rotated successfully", "virtual_key": key })))
}

/// `GET /api/governance/virtual-keys/quota`: for the holder of a key, who needs no admin token.
pub(super) async fn quota(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let presented = match credential::virtual_key(&headers, None) {
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

/// Whose keys a list is about. Both given: either one's.
struct Owners<'a> {
    team: Option<&'a str>,
    customer: Option<&'a str>,
}

impl Owners<'_> {
    fn is_any(&self) -> bool {
        self.team.is_none() && self.customer.is_none()
    }

    fn have(&self, key: &VirtualKey) -> bool {
        let is = |wanted: Option<&str>, id: &Option<Arc<str>>| wanted.is_some() && wanted == id.as_deref();
        self.is_any() || is(self.team, &key.team_id) || is(self.customer, &key.customer_id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    CreatedAt,
    Name,
    BudgetSpent,
    Status,
}

impl Sort {
    fn from_name(name: &str) -> Option<Sort> {
        match name {
            "name" => Some(Sort::Name),
            "budget_spent" => Some(Sort::BudgetSpent),
            "status" => Some(Sort::Status),
            "created_at" => Some(Sort::CreatedAt),
            _ => None,
        }
    }
}

/// The usual list, which is kept in order: a page costs what the page holds.
fn oldest_first(view: &View, page: Option<Page>) -> Selection {
    let total = view.callers().len();
    let page = page.unwrap_or(Page { offset: 0, limit: total });
    let ids = view.callers().skip(page.offset).take(page.limit).map(|caller| Arc::clone(&caller.key.id)).collect();
    Selection { ids, total, page }
}

/// A page of `callers` in another order. Only what stands before the page's end is sorted. Ties go by age
/// and id, in the same direction whatever the order.
fn sorted(
    callers: Vec<&Caller>,
    sort: Sort,
    descending: bool,
    page: Option<Page>,
    spent: impl Fn(&Caller) -> i64,
) -> Selection {
    let mut keyed: Vec<(i64, &Caller)> =
        callers.into_iter().map(|caller| (if sort == Sort::BudgetSpent { spent(caller) } else { 0 }, caller)).collect();
    let by = |(a_spent, a): &(i64, &Caller), (b_spent, b): &(i64, &Caller)| {
        let order = match sort {
            Sort::CreatedAt => a.key.created_at.cmp(&b.key.created_at),
            Sort::Name => a.key.name.cmp(&b.key.name),
            Sort::BudgetSpent => a_spent.cmp(b_spent),
            Sort::Status => a.key.is_active.cmp(&b.key.is_active),
        };
        let order = if descending { order.reverse() } else { order };
        order.then_with(|| (a.key.created_at, &a.key.id).cmp(&(b.key.created_at, &b.key.id)))
    };
    let total = keyed.len();
    let page = page.unwrap_or(Page { offset: 0, limit: total });
    let end = page.offset.saturating_add(page.limit);
    if end < total {
        keyed.select_nth_unstable_by(end, by);
        keyed.truncate(end);
    }
    keyed.sort_by(by);
    let ids = keyed.into_iter().skip(page.offset).map(|(_, caller)| Arc::clone(&caller.key.id)).collect();
    Selection { ids, total, page }
}

/// The most that a key spent of one of its own budgets.
fn spent(lens: &Lens<'_>, caller: &Caller) -> i64 {
    use crate::governance::view::Measure;
    let budgets = caller.limits.iter().filter(|limit| limit.key.measure == Measure::Money);
    budgets.map(|limit| lens.live(limit).0.spent).max().unwrap_or(0)
}
