//! The ledger asked: single entries, newest first, or sums; as JSON or as CSV.
//!
//! A question with a mistake is refused, a parameter that is not known among them: a filter that is silently
//! left out gives wrong sums.

mod csv;

use super::Admin;
use super::error::ApiError;
use super::query::Query;
use crate::governance::money::Picos;
use crate::governance::request::RequestKind;
use crate::governance::time::Timestamp;
use crate::store::{Cursor, Group, LedgerEntry, LedgerFilter, LedgerSum, LedgerSums, UNITS};
use crate::wire::show::{dollars, picos};
use axum::Json;
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// More groups than this are no overview.
const GROUPS_MAX: usize = 10_000;
const GROUPED_BY_MAX: usize = 2;

const PARAMETERS: [&str; 15] = [
    "from",
    "to",
    "virtual_key_id",
    "team_id",
    "customer_id",
    "provider",
    "model",
    "kind",
    "ending",
    "estimated",
    "limit",
    "after",
    "group_by",
    "format",
    "explain",
];

/// What is asked for.
struct Question {
    filter: LedgerFilter,
    /// Empty: single entries.
    groups: Vec<Group>,
    /// Absent: as many as there are, or a page of the usual length.
    limit: Option<usize>,
    after: Option<Cursor>,
    csv: bool,
    /// Whether entries say what their cost is made of.
    explain: bool,
}

/// `GET /api/ledger`
pub(super) async fn ask(State(admin): State<Admin>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let question = Question::read(&Query::read(&uri)?, &headers)?;
    if !question.groups.is_empty() {
        return sums(admin, question).await;
    }
    if question.csv {
        return csv::entries(admin, question.filter, question.after, question.limit).await;
    }
    let Question { filter, after, explain, .. } = question;
    let limit = question.limit.map_or(PAGE, |limit| limit.min(PAGE_MAX));
    // One more than the page tells whether there is another one.
    let mut entries = admin.asking(move |store| store.ledger_entries(&filter, after, limit + 1)).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| cursor_text(cursor(last)));
    let shown: Vec<Value> = entries.iter().map(|one| entry(one, explain)).collect();
    Ok(Json(json!({ "count": shown.len(), "entries": shown, "limit": limit, "next": next })).into_response())
}

async fn sums(admin: Admin, question: Question) -> Result<Response, ApiError> {
    let Question { filter, groups, csv, .. } = question;
    let by = groups.clone();
    let found = admin.asking(move |store| store.ledger_sums(&filter, &by, GROUPS_MAX)).await?;
    let sums = found.ok_or_else(|| {
        let message =
            format!("Invalid group_by parameter: gives more than {GROUPS_MAX} groups; ask for a shorter span");
        ApiError::bad_request(message).about("group_by")
    })?;
    Ok(if csv { csv::sums(&groups, &sums) } else { Json(show_sums(&groups, &sums)).into_response() })
}

impl Question {
    fn read(query: &Query, headers: &HeaderMap) -> Result<Question, ApiError> {
        query.only(&PARAMETERS)?;
        let text = |name| query.get(name).map(str::to_owned);
        let filter = LedgerFilter {
            from: instant(query, "from")?,
            to: instant(query, "to")?,
            virtual_key: text("virtual_key_id"),
            team: text("team_id"),
            customer: text("customer_id"),
            provider: text("provider"),
            model: text("model"),
            kind: kind(query)?,
            ending: ending(query)?,
            estimated: query.is_there("estimated").then(|| query.switch("estimated")).transpose()?,
        };
        let csv = match query.raw("format") {
            None => wants_csv(headers),
            Some("json") => false,
            Some("csv") => true,
            Some(_) => return Err(invalid("format", "must be json or csv")),
        };
        Ok(Question {
            filter,
            groups: groups(query)?,
            limit: query.number("limit")?.filter(|limit| *limit > 0),
            after: query.raw("after").map(|text| read_cursor(text).ok_or_else(no_cursor)).transpose()?,
            csv,
            explain: query.switch("explain")?,
        })
    }
}

fn invalid(name: &str, what: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid {name} parameter: {what}")).about(name)
}

fn instant(query: &Query, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = query.raw(name) else { return Ok(None) };
    // A plus sign that nobody escaped came as a space.
    let at = Timestamp::parse(&text.replace(' ', "+"));
    at.map(Some).ok_or_else(|| invalid(name, "must be an instant like 2026-11-21T00:00:00Z"))
}

fn kind(query: &Query) -> Result<Option<String>, ApiError> {
    let Some(text) = query.raw("kind") else { return Ok(None) };
    let kind = RequestKind::from_name(text).ok_or_else(|| invalid("kind", "must be a kind like chat_completion"))?;
    Ok(Some(kind.as_str().to_owned()))
}

fn ending(query: &Query) -> Result<Option<String>, ApiError> {
    let Some(text) = query.raw("ending") else { return Ok(None) };
    let is_word = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_word { Ok(Some(text.to_owned())) } else { Err(invalid("ending", "must be an ending like completed")) }
}

fn groups(query: &Query) -> Result<Vec<Group>, ApiError> {
    let Some(text) = query.raw("group_by") else { return Ok(Vec::new()) };
    let names = Group::ALL.map(Group::name).join(", ");
    let wrong = || invalid("group_by", &format!("must be one or two of: {names}"));
    let groups: Option<Vec<Group>> = text.split(',').map(|name| Group::from_name(name.trim())).collect();
    let groups = groups.filter(|groups| groups.len() <= GROUPED_BY_MAX).ok_or_else(wrong)?;
    let twice = groups.iter().skip(1).any(|group| *group == groups[0]);
    if twice { Err(wrong()) } else { Ok(groups) }
}

/// The first of the two kinds that is named; JSON if none is.
fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
    kinds.find(|kind| ["text/csv", "application/json", "*/*"].contains(kind)) == Some("text/csv")
}

fn cursor(entry: &LedgerEntry) -> Cursor {
    Cursor { admitted_at: entry.admitted_at, id: entry.id }
}

fn cursor_text(cursor: Cursor) -> String {
    format!("{:x}-{:032x}", cursor.admitted_at.millis(), cursor.id)
}

fn read_cursor(text: &str) -> Option<Cursor> {
    let (at, id) = text.split_once('-')?;
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if at.len() > 15 || id.len() != 32 || !is_hex(at) || !is_hex(id) {
        return None;
    }
    let admitted_at = Timestamp::from_millis(i64::from_str_radix(at, 16).ok()?);
    Some(Cursor { admitted_at, id: u128::from_str_radix(id, 16).ok()? })
}

fn no_cursor() -> ApiError {
    invalid("after", "must be what an answer gave as next")
}

fn entry(entry: &LedgerEntry, explain: bool) -> Value {
    let mut shown = json!({
        "id": format!("{:032x}", entry.id),
        "admitted_at": entry.admitted_at.to_string(),
        "settled_at": entry.settled_at.to_string(),
        "virtual_key_id": entry.virtual_key,
        "team_id": entry.team,
        "customer_id": entry.customer,
        "provider": entry.provider,
        "model": entry.model,
        "request_type": entry.kind,
        "ending": entry.ending,
        "estimated": entry.estimated,
        "tier": entry.tier,
        "usage": usage(&entry.units),
        "other": entry.other,
        "cost": dollars(entry.cost),
        "corrects": entry.corrects.map(|id| format!("{id:032x}")),
    });
    if explain {
        shown["parts"] = parts(entry).map_or(Value::Null, Value::Array);
    }
    shown
}

/// What the cost is made of, by kind of unit, tokens first. Absent where that is not known, or does not come to
/// the cost.
fn parts(entry: &LedgerEntry) -> Option<Vec<Value>> {
    let rates = entry.rates.as_ref()?;
    let mut sum = Picos::default();
    let mut parts = Vec::new();
    let tokens = UNITS.into_iter().filter(|name| rates.contains_key(*name));
    let rest = rates.keys().map(String::as_str).filter(|name| !UNITS.contains(name));
    for name in tokens.chain(rest) {
        let (rate, units) = (*rates.get(name)?, entry.units_of(name)?);
        let cost = rate.times(units);
        sum = sum + cost;
        if units > 0 {
            let price = picos(rate.times(1));
            parts.push(json!({ "kind": name, "units": units, "price": price, "cost": picos(cost) }));
        }
    }
    (sum.round_up() == entry.cost).then_some(parts)
}

fn usage(units: &[i64; UNITS.len()]) -> Value {
    UNITS.into_iter().zip(units).map(|(name, units)| (name.to_owned(), Value::from(*units))).collect()
}

fn show_sums(groups: &[Group], sums: &LedgerSums) -> Value {
    let shown: Vec<Value> = sums
        .groups
        .iter()
        .map(|(key, sum)| {
            let named = groups.iter().zip(key).map(|(group, name)| (group.member().to_owned(), json!(name)));
            let mut object: Map<String, Value> = named.collect();
            object.extend(show_sum(sum));
            Value::Object(object)
        })
        .collect();
    let by: Vec<&str> = groups.iter().map(|group| group.name()).collect();
    json!({
        "group_by": by,
        "count": shown.len(),
        "groups": shown,
        "total": show_sum(&sums.total),
        "complete_from": sums.complete_from.map(|at| at.to_string()),
    })
}

fn show_sum(sum: &LedgerSum) -> Map<String, Value> {
    Map::from_iter([
        ("calls".to_owned(), sum.calls.into()),
        ("usage".to_owned(), usage(&sum.units)),
        ("cost".to_owned(), dollars(sum.cost)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor { admitted_at: Timestamp::from_millis(1_700_000_000_000), id: u128::MAX - 5 };
        assert_eq!(read_cursor(&cursor_text(cursor)), Some(cursor));
        for wrong in ["", "-", "1-2", "18bcfe56800", "g-00000000000000000000000000000000", "-1-0000"] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_accept_header_chooses() {
        let check = |accept: &[&'static str], csv: bool| {
            let headers = accept.iter().map(|value| (ACCEPT, value.parse().unwrap()));
            assert_eq!(wants_csv(&headers.collect()), csv, "{accept:?}");
        };
        check(&[], false);
        check(&["*/*"], false);
        check(&["text/csv"], true);
        check(&["text/html", "text/csv; q=1"], true);
        check(&["application/json, text/csv"], false);
    }
}
