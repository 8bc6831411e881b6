//! A change on its way: what the request made a condition, the plan, one transaction with its audit
//! entries, the publication.

use super::error::ApiError;
use super::{Admin, audit};
use crate::governance::edit::{Edit, Restart};
use crate::governance::entity::Limits;
use crate::governance::judge::Tally;
use crate::governance::refusal::Exceeded;
use crate::governance::secret::Secret;
use crate::governance::time::Timestamp;
use crate::governance::view::{Limit, LimitKey, Measure, View};
use crate::state::Snapshot;
use crate::state::digest::KeyHasher;
use crate::store::{NewReplay, Record, Replay, StoreError};
use crate::wire::faults::Faults;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// Who asks, as the audit log names them. Put into each request by the guard.
#[derive(Debug, Clone)]
pub(super) struct Actor(pub(super) Arc<str>);

/// What a request says beside its body: who asks, and on which conditions.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    actor: Actor,
    /// Entity tags, or `*`. Absent: whatever is there may be changed.
    if_match: Option<String>,
    /// The key of a request that may be sent again, and the digest of what it asked for.
    replay: Option<(String, [u8; 32])>,
}

impl Terms {
    /// The conditions of a request that changes something.
    pub(super) fn read(actor: Actor, headers: &HeaderMap) -> Terms {
        // What is no text is no tag of ours, and fits nothing.
        let lines: Vec<_> = headers.get_all(IF_MATCH).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        Terms { actor, if_match: (!lines.is_empty()).then(|| lines.join(",")), replay: None }
    }

    /// The conditions of a request that creates something.
    pub(super) fn of_create(
        actor: Actor,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
        body: &[u8],
        hasher: &KeyHasher,
    ) -> Result<Terms, ApiError> {
        let key = headers.get(&IDEMPOTENCY_KEY).map(|value| {
            let decent = |key: &&str| {
                (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            };
            let key = value.to_str().ok().map(str::trim).filter(decent);
            let message = "Idempotency-Key must be 1 to 255 printable ASCII characters";
            key.map(str::to_owned).ok_or_else(|| ApiError::bad_request(message).about("idempotency-key"))
        });
        // Keyed: there may be secrets in a body.
        let fingerprint = hasher.digest(&[method.as_str().as_bytes(), b" ", path.as_bytes(), b"\0", body].concat());
        Ok(Terms { replay: key.transpose()?.map(|key| (key, fingerprint)), ..Terms::read(actor, headers) })
    }

    /// Whether what is there now is what the request wants to change. It is only shown to be compared.
    pub(super) fn allow(&self, current: impl FnOnce() -> Value) -> Result<(), ApiError> {
        let Some(wanted) = &self.if_match else { return Ok(()) };
        let current = etag(&current());
        let fits = wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == current);
        if fits { Ok(()) } else { Err(stale()) }
    }

    /// Whether something may be made where an update found nothing: that has no version, wanted or not.
    pub(super) fn allow_new(&self) -> Result<(), ApiError> {
        if self.if_match.is_none() { Ok(()) } else { Err(stale()) }
    }
}

fn stale() -> ApiError {
    let message = "This was changed since it was read: its ETag is not the one in If-Match";
    ApiError::new(StatusCode::PRECONDITION_FAILED, message).about("if-match")
}

/// Why a change ended early.
enum Stop {
    Refused(ApiError),
    /// It was made before; this was the answer.
    Replayed(Replay),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Stop {
        Stop::Refused(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Refused(error.into())
    }
}

/// What answers are made from: a view, and what stands at its limits.
pub(super) struct Lens<'a> {
    pub(super) view: &'a View,
    snapshot: &'a Snapshot,
    now: Timestamp,
    /// The values of virtual keys that the answer may show, by id.
    pub(super) values: HashMap<String, Secret>,
}

impl<'a> Lens<'a> {
    pub(super) fn on(admin: &Admin, snapshot: &'a Snapshot) -> Lens<'a> {
        let now = admin.state.clock.now();
        Lens { view: &snapshot.view, snapshot, now, values: HashMap::new() }
    }

    /// What stands at a limit now. One that was only just declared stands at nothing.
    pub(super) fn live(&self, limit: &Limit) -> (Tally, Timestamp) {
        self.snapshot.standing(limit, self.now)
    }
}

impl Lens<'_> {
    /// How a refusal at these limits would be told.
    pub(super) fn exceeded(&self, full: &[&Limit]) -> Vec<Exceeded> {
        self.snapshot.reported(full, self.now)
    }
}

/// What a change made. Others may have changed it since; the answer is about this.
pub(super) struct Changed {
    view: View,
    snapshot: Arc<Snapshot>,
}

impl Changed {
    pub(super) fn lens(&self, admin: &Admin, values: HashMap<String, Secret>) -> Lens<'_> {
        Lens { view: &self.view, values, ..Lens::on(admin, &self.snapshot) }
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }
}

impl Admin {
    /// Makes the change that `plan` comes to, looking at what is declared now. What the answer needs beside
    /// what was changed is read in `plan`: once the change is made, nothing may fail any more.
    pub(super) fn change(
        &self,
        terms: &Terms,
        plan: impl FnOnce(&Snapshot) -> Result<Vec<Edit>, ApiError>,
    ) -> Result<Changed, ApiError> {
        let commit = |before: &Snapshot, after: &View, edits: &[Edit], ()| {
            self.write(edits, self.record(terms, &before.view, after, edits, None))?;
            Ok(after.clone())
        };
        let view = self.state.change(&HashMap::new(), |snapshot| Ok((plan(snapshot)?, ())), commit);
        // Usage is that of now: what started from nothing did so when the change was published.
        view.map(|view| Changed { view, snapshot: self.state.snapshot() })
    }

    fn write(&self, edits: &[Edit], record: Record) -> Result<(), StoreError> {
        self.store.apply(edits, &record)?;
        audit::tell(&record.actor, &record.audit);
        Ok(())
    }

    /// Creates what `plan` comes to, and answers with what `show` makes of it. The answer is kept together
    /// with the change, so that the same request sent again changes nothing and is answered the same.
    pub(super) fn create<T>(
        &self,
        terms: &Terms,
        status: StatusCode,
        plan: impl FnOnce(&Snapshot) -> Result<(Vec<Edit>, T), ApiError>,
        show: impl FnOnce(&mut Lens<'_>, T) -> Result<Value, ApiError>,
    ) -> Result<Response, ApiError> {
        let plan = |snapshot: &Snapshot| {
            if let Some(answer) = self.answered_before(terms)? {
                return Err(Stop::Replayed(answer));
            }
            Ok(plan(snapshot)?)
        };
        let commit = |before: &Snapshot, after: &View, edits: &[Edit], planned: T| {
            let now = self.state.clock.now();
            let values = new_values(edits);
            let virtual_key = values.keys().next().cloned();
            let mut lens = Lens { view: after, snapshot: before, now, values };
            let answer = show(&mut lens, planned)?;
            let body = answer.to_string();
            let replay = terms.replay.as_ref().map(|(key, fingerprint)| NewReplay {
                key: key.clone(),
                fingerprint: *fingerprint,
                status: status.as_u16(),
                body: Secret::new(body.as_str()),
                virtual_key,
            });
            self.write(edits, self.record(terms, &before.view, after, edits, replay))?;
            Ok((body, created_tag(&answer)))
        };
        let made = self.state.change(&HashMap::new(), plan, commit);
        match made {
            Ok((body, tag)) => Ok(json_response(status, body, tag)),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Replayed(replay)) => {
                let status = StatusCode::from_u16(replay.status).unwrap_or(StatusCode::OK);
                let body = replay.body.expose();
                let tag = serde_json::from_str(body).ok().as_ref().and_then(created_tag);
                let mut response = json_response(status, body.to_owned(), tag);
                response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                Ok(response)
            }
        }
    }

    /// The answer to the same request, if it was sent before.
    fn answered_before(&self, terms: &Terms) -> Result<Option<Replay>, ApiError> {
        let Some((key, fingerprint)) = &terms.replay else { return Ok(None) };
        match self.store.replay(key, self.state.clock.now())? {
            Some(replay) if replay.fingerprint == *fingerprint => Ok(Some(replay)),
            Some(_) => {
                let message = "This Idempotency-Key was used for another request";
                Err(ApiError::new(StatusCode::CONFLICT, message).about("idempotency-key"))
            }
            None => Ok(None),
        }
    }

    fn record(&self, terms: &Terms, before: &View, after: &View, edits: &[Edit], replay: Option<NewReplay>) -> Record {
        let audit = audit::lines(before, after, edits);
        Record { actor: terms.actor.0.to_string(), at: self.state.clock.now(), audit, replay }
    }
}

/// Starts from nothing what an update turned to the calendar, as documented. A call still in flight is charged
/// to the window before.
pub(super) fn restarts<'a>(new: impl IntoIterator<Item = (&'a Limits, &'a Limits)>, now: Timestamp) -> Vec<Edit> {
    let turned = new.into_iter().flat_map(|(new, old)| new.turned_to_calendar(old));
    let keys = turned.map(|budget| LimitKey { id: Arc::clone(&budget.id), measure: Measure::Money });
    keys.map(|key| Edit::Restart(Restart { key, at: now })).collect()
}

fn new_values(edits: &[Edit]) -> HashMap<String, Secret> {
    let values = edits.iter().filter_map(|edit| match edit {
        Edit::VirtualKey { key, value: Some(value), .. } => Some((key.id.to_string(), value.clone())),
        _ => None,
    });
    values.collect()
}

/// The tag of a single object, as an answer shows it.
pub(super) fn etag(object: &Value) -> String {
    let text = audit::plain(object.clone()).to_string();
    let digest = digest(&SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// The tag of the object within an answer to a create or an update: the one member that is an object.
fn created_tag(answer: &Value) -> Option<String> {
    let members = answer.as_object()?;
    let object =
        if members.contains_key("message") { members.values().find(|member| member.is_object())? } else { answer };
    Some(etag(object))
}

/// An answer with the tag of the one object in it.
pub(super) fn tagged(answer: Value) -> Response {
    let inner = answer.as_object().and_then(|members| members.values().find(|member| member.is_object()));
    let tag = inner.map(etag);
    json_response(StatusCode::OK, answer.to_string(), tag)
}

/// An answer with the tag of `object`, which is in it or is all of it.
pub(super) fn tagged_as(answer: &Value, object: &Value) -> Response {
    json_response(StatusCode::OK, answer.to_string(), Some(etag(object)))
}

fn json_response(status: StatusCode, body: String, tag: Option<String>) -> Response {
    let mut response = (status, [(CONTENT_TYPE, "application/json")], Body::from(body)).into_response();
    let tag = tag.and_then(|tag| HeaderValue::try_from(tag).ok());
    tag.map(|tag| response.headers_mut().insert(ETAG, tag));
    response
}

impl From<Faults> for Stop {
    fn from(faults: Faults) -> Stop {
        Stop::Refused(faults.into())
    }
}
