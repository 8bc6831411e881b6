//! Ledger entries of calls that were open when a process died: what is charged for them is the most that
//! they can have cost, until an administrator says what the provider billed.

use super::body::{Body, parse, received};
use super::change::Actor;
use super::error::ApiError;
use super::query::Query;
use super::resource::Id;
use super::{Admin, audit};
use crate::state::outbox::ChargeId;
use crate::store::{Actual, AuditLine, Record, StoreErrorKind, UnresolvedEntry};
use crate::wire::correction::correction;
use crate::wire::faults::Faults;
use crate::wire::show::dollars;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use serde_json::{Value, json};

/// `GET /api/ledger/unresolved`: newest first, without those that were corrected.
pub(super) async fn unresolved(State(admin): State<Admin>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let page = Query::read(&uri)?.page(None)?.unwrap_or_default();
    let (entries, total) = admin.blocking(move |admin| Ok(admin.store.unresolved(page.limit, page.offset)?)).await?;
    let entries: Vec<Value> = entries.iter().map(show).collect();
    Ok(Json(json!({
        "entries": entries, "count": entries.len(), "total_count": total, "limit": page.limit, "offset": page.offset,
    })))
}

/// `POST /api/ledger/{id}/correct`: appends what makes the entry come to what was really billed. Sent again it
/// changes nothing.
pub(super) async fn correct(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    id: Id,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, "Ledger entry not found");
    let id = id.ok().and_then(|Path(id)| read_id(&id)).ok_or_else(missing)?;
    let body = parse(&received(body)?)?;
    let mut faults = Faults::default();
    let read = correction(&body, &mut faults).filter(|_| faults.is_empty()).ok_or(faults)?;
    let actual = Actual { input: read.input_tokens, output: read.output_tokens, cost: read.cost };
    let entry = admin
        .blocking(move |admin| {
            let at = admin.state.clock.now();
            let mut told = Vec::new();
            let record = |before: &UnresolvedEntry, after: &UnresolvedEntry| {
                let line = AuditLine {
                    action: "corrected",
                    object_type: "ledger_entry",
                    object_id: show_id(before.id),
                    object_name: None,
                    before: Some(show(before)),
                    after: Some(show(after)),
                };
                told.push(line.clone());
                Record { actor: actor.0.to_string(), at, audit: vec![line], replay: None }
            };
            let ids = (id, admin.state.new_id());
            let corrected = admin.state.amend(|| admin.store.correct(ids, &actual, at, record));
            let entry = corrected.map_err(|error| match error.kind {
                StoreErrorKind::NotFound => missing(),
                _ => error.into(),
            })?;
            audit::tell(&actor.0, &told);
            Ok(entry)
        })
        .await?;
    Ok(Json(json!({ "message": "Ledger entry corrected successfully", "entry": show(&entry) })))
}

fn show(entry: &UnresolvedEntry) -> Value {
    json!({
        "id": show_id(entry.id),
        "admitted_at": entry.admitted_at.to_string(),
        "recovered_at": entry.settled_at.to_string(),
        "virtual_key_id": entry.virtual_key,
        "provider": entry.provider,
        "model": entry.model,
        "request_type": entry.kind.as_str(),
        "input_tokens": entry.input,
        "output_tokens": entry.output,
        "cost": dollars(entry.cost),
        "corrections": entry.corrections,
    })
}

fn show_id(ChargeId(id): ChargeId) -> String {
    format!("{id:032x}")
}

fn read_id(text: &str) -> Option<ChargeId> {
    let hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| hex).map(ChargeId)
}
