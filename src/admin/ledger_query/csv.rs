//! Entries and sums as CSV (RFC 4180). Money is an exact decimal.
//!
//! Entries are streamed by pages, so that neither memory nor a single look at the database grows with them.

use super::cursor;
use crate::admin::Admin;
use crate::admin::error::ApiError;
use crate::store::{Cursor, Group, LedgerEntry, LedgerFilter, LedgerSums, UNITS};
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use std::io;

/// Entries read at a time.
const PAGE: usize = 1_000;

const ENTRY: [&str; 12] = [
    "id",
    "admitted_at",
    "settled_at",
    "virtual_key_id",
    "team_id",
    "customer_id",
    "provider",
    "model",
    "request_type",
    "ending",
    "estimated",
    "tier",
];

/// Entries from `after` on, as many as `limit` says.
pub(super) async fn entries(
    admin: Admin,
    filter: LedgerFilter,
    after: Option<Cursor>,
    limit: Option<usize>,
) -> Result<Response, ApiError> {
    let mut text = String::new();
    line(&mut text, ENTRY.into_iter().chain(UNITS).chain(["cost", "corrects", "other"]));
    // What is wrong is seen before the answer begins.
    let mut export = Export { admin, filter, after, left: limit.unwrap_or(usize::MAX), done: false };
    text.push_str(&export.page().await?);
    let head = stream::iter([Ok(Bytes::from(text))]);
    Ok(answer(Body::from_stream(head.chain(export.rest()))))
}

struct Export {
    admin: Admin,
    filter: LedgerFilter,
    after: Option<Cursor>,
    left: usize,
    done: bool,
}

impl Export {
    async fn page(&mut self) -> Result<String, ApiError> {
        let (filter, after, most) = (self.filter.clone(), self.after, self.left.min(PAGE));
        let entries = self.admin.asking(move |store| store.ledger_entries(&filter, after, most)).await?;
        self.left -= entries.len();
        self.after = entries.last().map(cursor);
        self.done = entries.len() < most || self.left == 0;
        let mut text = String::new();
        entries.iter().for_each(|one| entry(&mut text, one));
        Ok(text)
    }

    /// The pages that are left. A failure cuts the answer off, which clients notice.
    fn rest(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut export| async move {
            if export.done {
                return Ok(None);
            }
            let text = export.page().await.map_err(|_| io::Error::other("the store failed; see the log"))?;
            Ok(Some((Bytes::from(text), export)))
        })
    }
}

fn entry(text: &mut String, entry: &LedgerEntry) {
    let id = format!("{:032x}", entry.id);
    let (admitted_at, settled_at) = (entry.admitted_at.to_string(), entry.settled_at.to_string());
    let none = |id: &Option<String>| id.clone().unwrap_or_default();
    let (key, team, customer) = (none(&entry.virtual_key), none(&entry.team), none(&entry.customer));
    let estimated = if entry.estimated { "true" } else { "false" };
    let named = [&*id, &admitted_at, &settled_at, &key, &team, &customer, &entry.provider, &entry.model];
    let rest = [&*entry.kind, &entry.ending, estimated, &entry.tier];
    let units: Vec<String> = entry.units.iter().map(i64::to_string).collect();
    let cost = entry.cost.to_string();
    let corrects = entry.corrects.map(|id| format!("{id:032x}")).unwrap_or_default();
    let fields = named.into_iter().chain(rest).map(Field::Text);
    let numbers = units.iter().chain([&cost, &corrects]).map(|number| Field::Number(number));
    let other = if entry.other.is_empty() { String::new() } else { json!(entry.other).to_string() };
    fields_line(text, fields.chain(numbers).chain([Field::Text(&other)]));
}

/// All groups, without their total.
pub(super) fn sums(groups: &[Group], sums: &LedgerSums) -> Response {
    let mut text = String::new();
    line(&mut text, groups.iter().map(|group| group.member()).chain(["calls"]).chain(UNITS).chain(["cost"]));
    for (key, sum) in &sums.groups {
        let numbers = [sum.calls].into_iter().chain(sum.units).map(|number| number.to_string());
        let numbers: Vec<String> = numbers.chain([sum.cost.to_string()]).collect();
        let key = key.iter().map(|name| Field::Text(name.as_deref().unwrap_or_default()));
        fields_line(&mut text, key.chain(numbers.iter().map(|number| Field::Number(number))));
    }
    answer(Body::from(text))
}

fn answer(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (CONTENT_DISPOSITION, "attachment; filename=\"ledger.csv\""),
    ];
    (headers, body).into_response()
}

enum Field<'a> {
    Text(&'a str),
    /// Ours: it may begin with a sign.
    Number(&'a str),
}

fn line<'a>(text: &mut String, names: impl Iterator<Item = &'a str>) {
    fields_line(text, names.map(Field::Text));
}

fn fields_line<'a>(text: &mut String, fields: impl Iterator<Item = Field<'a>>) {
    for (place, field) in fields.enumerate() {
        if place > 0 {
            text.push(',');
        }
        match field {
            Field::Text(value) => quote(text, value),
            Field::Number(value) => text.push_str(value),
        }
    }
    text.push_str("\r\n");
}

/// Callers choose the names of models: what a spreadsheet would run as a formula gets an apostrophe in front.
fn quote(text: &mut String, value: &str) {
    let formula = value.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let quoted = formula || value.contains([',', '"', '\r', '\n']);
    if !quoted {
        return text.push_str(value);
    }
    text.push('"');
    text.push_str(if formula { "'" } else { "" });
    text.push_str(&value.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let check = |value: &str, expected: &str| {
            let mut text = String::new();
            quote(&mut text, value);
            assert_eq!(text, expected);
        };
        check("gpt-4o", "gpt-4o");
        check("", "");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("two\r\nlines", "\"two\r\nlines\"");
        check("=1+1", "\"'=1+1\"");
        check("@cf/llama", "\"'@cf/llama\"");
        check("ünïcode", "ünïcode");
        let mut text = String::new();
        fields_line(&mut text, [Field::Text("-1"), Field::Number("-1"), Field::Text("x")].into_iter());
        assert_eq!(text, "\"'-1\",-1,x\r\n");
    }
}
